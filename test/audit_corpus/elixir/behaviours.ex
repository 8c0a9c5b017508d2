defmodule Corpus.Behaviours do
  @moduledoc "Tasks, agents and servers, and where starting one with a link is right."

  def tasks(fun, list) do
    Task.start(fun) #=> unlinked Task.start/1
    Task.start(__MODULE__, :work, [fun]) #=> unlinked Task.start/3
    Task.start_link(fun) #=> tethered Task.start_link/1
    Task.start_link(__MODULE__, :work, [fun]) #=> tethered Task.start_link/3
    Task.async(fun) #=> tethered Task.async/1
    Task.async(__MODULE__, :work, [fun]) #=> tethered Task.async/3
    Task.async_stream(list, fun) #=> tethered Task.async_stream/2
    Task.async_stream(list, fun, max_concurrency: 2) #=> tethered Task.async_stream/3
    Task.async_stream(list, __MODULE__, :work, []) #=> tethered Task.async_stream/4
    Task.async_stream(list, __MODULE__, :work, [], ordered: false) #=> tethered Task.async_stream/5
    Task.await(Task.async(fn -> Task.start(fun) end)) #=> tethered Task.async/1; unlinked Task.start/1
    Task.yield(fun)
    Task.completed(fun)
  end

  def work(fun), do: fun.()

  def agents(fun) do
    Agent.start(fun) #=> unlinked Agent.start/1
    Agent.start(fun, name: :cache) #=> unlinked Agent.start/2
    Agent.start(__MODULE__, :work, [fun]) #=> unlinked Agent.start/3
    Agent.start_link(fun) #=> tethered Agent.start_link/1
    Agent.start_link(__MODULE__, :work, [fun], name: :cache) #=> tethered Agent.start_link/4
    Agent.update(:cache, fun)
  end

  def servers(argument) do
    GenServer.start(__MODULE__, argument) #=> unlinked GenServer.start/2
    GenServer.start(__MODULE__, argument, name: :server) #=> unlinked GenServer.start/3
    GenServer.start_link(__MODULE__, argument) #=> tethered GenServer.start_link/2
    GenServer.start_link(__MODULE__, argument, name: :server) #=> tethered GenServer.start_link/3
    :gen_server.start(__MODULE__, argument, []) #=> unlinked gen_server:start/3
    :gen_server.start({:local, :server}, __MODULE__, argument, []) #=> unlinked gen_server:start/4
    :gen_server.start_monitor(__MODULE__, argument, []) #=> unlinked gen_server:start_monitor/3
    :gen_server.start_link(__MODULE__, argument, []) #=> tethered gen_server:start_link/3
    :gen_statem.start(__MODULE__, argument, []) #=> unlinked gen_statem:start/3
    :gen_statem.start_link(__MODULE__, argument, []) #=> tethered gen_statem:start_link/3
    :gen_event.start() #=> unlinked gen_event:start/0
    :gen_event.start_link({:local, :events}) #=> tethered gen_event:start_link/1
    GenServer.call(:server, :start)
    :gen_server.call(:server, :start_link)
  end

  def supervisors(children) do
    Supervisor.start_link(children, strategy: :one_for_one) #=> tethered Supervisor.start_link/2
    Supervisor.start_link(__MODULE__, children, name: :top) #=> tethered Supervisor.start_link/3
    DynamicSupervisor.start_link(strategy: :one_for_one) #=> tethered DynamicSupervisor.start_link/1
    Task.Supervisor.start_link() #=> tethered Task.Supervisor.start_link/0
    PartitionSupervisor.start_link(child_spec: Task.Supervisor, name: :parts) #=> tethered PartitionSupervisor.start_link/1
    Registry.start_link(keys: :unique, name: :names) #=> tethered Registry.start_link/1
    :supervisor.start_link(__MODULE__, children) #=> tethered supervisor:start_link/2
  end

  def supervised(supervisor, fun) do
    Task.Supervisor.start_child(supervisor, fun)
    Task.Supervisor.async(supervisor, fun)
    Task.Supervisor.async_nolink(supervisor, fun)
    Task.Supervisor.async_stream(supervisor, [1, 2], fun)
    DynamicSupervisor.start_child(supervisor, {Agent, fun})
    Supervisor.start_child(supervisor, {Task, fun})
    :supervisor.start_child(supervisor, [fun])
  end
end

defmodule Corpus.Server do
  @moduledoc "A server starts itself in start_link, however it is named and built."
  use GenServer

  def start_link(argument), do: GenServer.start_link(__MODULE__, argument, name: __MODULE__)

  def start_link(argument, helper) do
    helper = if helper, do: spawn_link(fn -> helper.() end)
    :proc_lib.start_link(__MODULE__, :init_it, [argument, helper])
  end

  def start(argument), do: GenServer.start(__MODULE__, argument) #=> unlinked GenServer.start/2

  def start_linked(argument), do: GenServer.start_link(__MODULE__, argument) #=> tethered GenServer.start_link/2

  def start_link(argument, helper, :unlinked) do
    spawn(helper) #=> unlinked Kernel.spawn/1
    Task.async(helper) #=> tethered Task.async/1
    start_link(argument)
  end

  @impl true
  def init(argument) do
    {:ok, _} = Agent.start_link(fn -> argument end) #=> tethered Agent.start_link/1
    {:ok, argument}
  end
end

defmodule Corpus.App do
  @moduledoc "An application's start/2 starts the top of a tree, and nothing else."
  use Application

  @impl true
  def start(_type, _arguments) do
    spawn_link(fn -> :ok end) #=> tethered Kernel.spawn_link/1
    {:ok, _} = Agent.start_link(fn -> 1 end) #=> tethered Agent.start_link/1
    Supervisor.start_link([Corpus.Server], strategy: :one_for_one)
  end

  def start(children), do: Supervisor.start_link(children, strategy: :one_for_one) #=> tethered Supervisor.start_link/2
end

defmodule Corpus.OldApp do
  @moduledoc "The same by its behaviour."
  @behaviour :application

  def start(_type, _arguments), do: :supervisor.start_link({:local, :old}, Corpus.Tree, [])
  def stop(_state), do: Supervisor.start_link([], strategy: :one_for_one) #=> tethered Supervisor.start_link/2
end

defmodule Corpus.NoApp do
  @moduledoc "A function start/2 alone makes no application."
  def start(_type, _arguments), do: Supervisor.start_link([], strategy: :one_for_one) #=> tethered Supervisor.start_link/2
end

defmodule Corpus.Fake do
  @moduledoc "Nothing in here makes a process."
  def spawn(fun), do: fun

  defmodule Task do
    def start(fun), do: fun
    def async(fun), do: fun
  end

  defmodule Agent do
    def start(fun), do: fun
  end

  defmodule Inner.GenServer do
    def start(_module, fun), do: fun
  end

  defmodule Node do
    def spawn(_node, fun), do: fun
  end
end

defmodule Corpus.Names.Plain do
  @moduledoc "By alias: plain, with as, several at once, of a nested module, of an Erlang module."
  alias Elixir.Task, as: Job
  alias Task, as: Work
  alias Kernel, as: K
  alias :proc_lib, as: Lib
  alias Task.Supervisor, as: Tasks
  require Agent, as: Memory
  require GenServer

  def run(fun, supervisor) do
    Job.start(fun) #=> unlinked Task.start/1
    Work.async(fun) #=> tethered Task.async/1
    K.spawn(fun) #=> unlinked Kernel.spawn/1
    Lib.spawn(fun) #=> unlinked proc_lib:spawn/1
    Memory.start(fun) #=> unlinked Agent.start/1
    GenServer.start(__MODULE__, fun) #=> unlinked GenServer.start/2
    Elixir.Task.start(fun) #=> unlinked Task.start/1
    :"Elixir.Task".start(fun) #=> unlinked Task.start/1
    Tasks.start_child(supervisor, fun)
    Tasks.start_link() #=> tethered Task.Supervisor.start_link/0
  end
end

defmodule Corpus.Names.Others do
  @moduledoc "Modules of one's own with names of Elixir's: what they do is theirs."
  alias Corpus.Fake.{Agent, Task}
  alias Corpus.Fake.{Inner.GenServer, Node}
  alias Corpus.Fake, as: Kernel

  def run(fun) do
    Task.start(fun)
    Agent.start(fun)
    GenServer.start(__MODULE__, fun)
    Node.spawn(fun, fun)
    Kernel.spawn(fun)
    Corpus.Fake.Task.async(fun)
    spawn(fun) #=> unlinked Kernel.spawn/1
    Elixir.Task.async(fun) #=> tethered Task.async/1
  end
end

defmodule Corpus.Names.Scopes do
  @moduledoc "An alias or import ends with the block that it stands in."

  def alias_in_function(fun) do
    alias Corpus.Fake.Task
    Task.start(fun)
  end

  def after_it(fun), do: Task.start(fun) #=> unlinked Task.start/1

  def import_in_function(fun) do
    import Task, only: [start: 1]
    start(fun) #=> unlinked Task.start/1
    start(fun, fun, [])
  end

  def start(fun, _, _), do: fun

  def alias_in_branch(fun, flag) do
    if flag do
      alias Corpus.Fake.Task
      Task.start(fun)
    else
      Task.start(fun) #=> unlinked Task.start/1
    end

    Task.start(fun) #=> unlinked Task.start/1
  end

  def alias_in_fun(fun) do
    run = fn ->
      alias Corpus.Fake.Task
      Task.start(fun)
    end

    Task.start(run) #=> unlinked Task.start/1
  end

  def alias_again(fun) do
    alias Corpus.Fake.Task
    Task.start(fun)
    alias Elixir.Task
    Task.start(fun) #=> unlinked Task.start/1
  end
end

defmodule Corpus.Names.Nested do
  @moduledoc "A nested module gets an alias in the one around it, and inherits its aliases and imports."
  alias Elixir.Agent, as: Memory
  import Elixir.Task, only: [async: 1]

  def before(fun), do: Task.start(fun) #=> unlinked Task.start/1

  defmodule Task do
    def start(fun), do: fun
    def run(fun), do: async(fun) #=> tethered Task.async/1
    def memory(fun), do: Memory.start(fun) #=> unlinked Agent.start/1
    def mine(fun), do: __MODULE__.start(fun)
  end

  def later(fun), do: Task.start(fun)

  defmodule Agent.Deep do
    def start(fun), do: Agent.start(fun)
  end

  def deeper(fun) do
    Agent.start(fun)
    Elixir.Agent.start(fun) #=> unlinked Agent.start/1
  end

  defmodule Elixir.Corpus.Names.Outside do
    def run(fun), do: Elixir.Agent.start(fun) #=> unlinked Agent.start/1
  end
end

defmodule Corpus.Names.Attributes do
  @moduledoc "An attribute that holds a module is as good as its name; a variable or a value read somewhere is not."
  @tasks Task
  @server :gen_server
  @configured Application.compile_env(:corpus, :tasks, Task)

  def run(fun, module) do
    @tasks.start(fun) #=> unlinked Task.start/1
    @server.start(__MODULE__, fun, []) #=> unlinked gen_server:start/3
    @configured.start(fun)
    module.start(fun)
    tasks = Task
    tasks.start(fun)
  end
end

defmodule Corpus.Names.ImportAll do
  @moduledoc "Everything of a module is imported."
  import Task

  def run(fun, list) do
    async(fun) #=> tethered Task.async/1
    start(fun) #=> unlinked Task.start/1
    list |> async_stream(fun) #=> tethered Task.async_stream/2
    Enum.map(list, &async/1) #=> tethered Task.async/1
    await(fun)
    start(fun, fun)
  end

  def start(fun, _), do: fun
end

defmodule Corpus.Names.ImportSome do
  @moduledoc "With only and except, by arity."
  import Task, only: [async: 1, start: 3]
  import Agent, except: [start: 1, start: 3, start_link: 1]
  import :proc_lib, only: [start_monitor: 3]

  def run(fun) do
    async(fun) #=> tethered Task.async/1
    async(fun, :work, [])
    start(fun)
    start(__MODULE__, :work, [fun]) #=> unlinked Task.start/3
    start_link(fun)
    start_link(fun, name: :agent) #=> tethered Agent.start_link/2
    start_monitor(__MODULE__, :work, [fun]) #=> unlinked proc_lib:start_monitor/3
  end

  def async(fun, _, _), do: fun
  def start(fun), do: fun
  def start_link(fun), do: fun
end

defmodule Corpus.Names.ImportLess do
  @moduledoc "A later except takes from an earlier only."
  import Task, only: [async: 1, start: 1]
  import Task, except: [start: 1]

  def run(fun) do
    async(fun) #=> tethered Task.async/1
    start(fun)
  end

  def start(fun), do: fun
end

defmodule Corpus.Names.ImportMacros do
  @moduledoc "Only macros, only functions."
  import GenServer, only: :macros
  import Agent, only: :functions

  def run(fun) do
    start_link(fun) #=> tethered Agent.start_link/1
    start(__MODULE__, fun, [], [])  #=> unlinked Agent.start/4
  end
end

defmodule Corpus.Names.OwnSpawn do
  @moduledoc "A spawn/1 of one's own; spawn/3 is still Kernel's."
  import Kernel, except: [spawn: 1]

  def run(fun) do
    spawn(fun)
    fun |> spawn()
    Enum.each([fun], &spawn/1)
    spawn(__MODULE__, :run, [fun]) #=> unlinked Kernel.spawn/3
    Kernel.spawn(fun) #=> unlinked Kernel.spawn/1
  end

  def spawn(fun), do: fun.()
end

defmodule Corpus.Names.OthersSpawn do
  @moduledoc "spawn of another module, and Erlang's by import."
  import Kernel, except: [spawn: 1, spawn: 3, spawn_link: 1]
  import Corpus.Fake, only: [spawn: 1]
  import :erlang, only: [spawn_link: 1, spawn: 2]

  def run(fun) do
    spawn(fun)
    spawn_link(fun) #=> tethered erlang:spawn_link/1
    spawn(node(), fun) #=> unlinked erlang:spawn/2
    spawn_monitor(fun) #=> unlinked Kernel.spawn_monitor/1
  end
end

defmodule Corpus.Names.OwnInSome do
  @moduledoc "Defined with defaults, in a macro's block, by a delegation, or as a macro: one's own all the same."
  import Kernel, except: [spawn: 1, spawn: 3, spawn_link: 1, spawn_monitor: 1, spawn_monitor: 3]

  if System.otp_release() do
    def spawn(module, function \\ :run, arguments \\ []), do: {module, function, arguments}
  end

  defmacrop spawn_link(fun), do: fun
  defdelegate spawn_monitor(fun), to: Corpus.Fake, as: :spawn
  defp spawn_monitor(a, b, c) when is_list(c), do: {a, b, c}

  def all(fun) do
    spawn(fun)
    spawn(fun, :run, [])
    spawn_link(fun)
    spawn_monitor(fun)
    spawn_monitor(fun, :run, [])
  end
end

defmodule Corpus.Names.Delegates do
  @moduledoc "A delegation is a call."
  defdelegate start(fun), to: Task #=> unlinked Task.start/1
  defdelegate background(fun), to: Task, as: :async #=> tethered Task.async/1
  defdelegate start_link(fun), to: Agent
  defdelegate await(task), to: Task
  defdelegate spawn_it(fun), to: :erlang, as: :spawn #=> unlinked erlang:spawn/1
end

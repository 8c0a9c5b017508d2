defmodule Corpus.Spawns do
  @moduledoc "What makes a process in Elixir, each as a plain call, with a link and without. spawn(fun) in a doc is none."

  def kernel(fun) do
    spawn(fun) #=> unlinked Kernel.spawn/1
    spawn(__MODULE__, :loop, [fun]) #=> unlinked Kernel.spawn/3
    spawn_monitor(fun) #=> unlinked Kernel.spawn_monitor/1
    spawn_monitor(__MODULE__, :loop, [fun]) #=> unlinked Kernel.spawn_monitor/3
    spawn_link(fun) #=> tethered Kernel.spawn_link/1
    spawn_link(__MODULE__, :loop, [fun]) #=> tethered Kernel.spawn_link/3
    Kernel.spawn(fun) #=> unlinked Kernel.spawn/1
    Kernel.spawn_link(__MODULE__, :loop, [fun]) #=> tethered Kernel.spawn_link/3
    spawn fn -> fun.() end #=> unlinked Kernel.spawn/1
  end

  def loop(fun), do: fun.()

  def process(fun, options) do
    Process.spawn(fun, []) #=> unlinked Process.spawn/2
    Process.spawn(fun, [:monitor]) #=> unlinked Process.spawn/2
    Process.spawn(fun, [:link]) #=> tethered Process.spawn/2
    Process.spawn(fun, [{:priority, :low}, :link]) #=> tethered Process.spawn/2
    Process.spawn(fun, [:link, priority: :low]) #=> tethered Process.spawn/2
    Process.spawn(fun, priority: :low) #=> unlinked Process.spawn/2
    Process.spawn(fun, [:link | options]) #=> tethered Process.spawn/2
    Process.spawn(fun, [:monitor | options]) #=> unlinked Process.spawn/2
    Process.spawn(fun, options) #=> unlinked Process.spawn/2
    Process.spawn(__MODULE__, :loop, [:link], []) #=> unlinked Process.spawn/4
    Process.spawn(__MODULE__, :loop, [fun], [:link, :monitor]) #=> tethered Process.spawn/4
  end

  @linked [:link, :monitor]
  @loose [:monitor]
  @made Enum.reverse([:link])

  def options_held(fun) do
    options = [:link, :monitor]
    Process.spawn(fun, options) #=> tethered Process.spawn/2
    Process.spawn(fn -> Process.spawn(fun, options) end, @loose) #=> tethered Process.spawn/2; unlinked Process.spawn/2
    Process.spawn(fun, @linked) #=> tethered Process.spawn/2
    Process.spawn(fun, @made) #=> unlinked Process.spawn/2
  end

  def options_that_vary(fun, given) do
    options = [:link]
    options = if given, do: [], else: options
    others = [:link]
    Process.spawn(fun, options) #=> unlinked Process.spawn/2
    Enum.each([[]], fn others -> Process.spawn(fun, others) end) #=> unlinked Process.spawn/2
    for given <- [[]], do: Process.spawn(fun, given) #=> unlinked Process.spawn/2
    others
  end

  def node(node, fun) do
    Node.spawn(node, fun) #=> unlinked Node.spawn/2
    Node.spawn(node, fun, [:link]) #=> tethered Node.spawn/3
    Node.spawn(node, fun, []) #=> unlinked Node.spawn/3
    Node.spawn(node, __MODULE__, :loop, [fun]) #=> unlinked Node.spawn/4
    Node.spawn(node, __MODULE__, :loop, [fun], [:monitor]) #=> unlinked Node.spawn/5
    Node.spawn(node, __MODULE__, :loop, [fun], [:link]) #=> tethered Node.spawn/5
    Node.spawn_link(node, fun) #=> tethered Node.spawn_link/2
    Node.spawn_link(node, __MODULE__, :loop, [fun]) #=> tethered Node.spawn_link/4
    Node.spawn_monitor(node, fun) #=> unlinked Node.spawn_monitor/2
    Node.spawn_monitor(node, __MODULE__, :loop, [fun]) #=> unlinked Node.spawn_monitor/4
  end

  def erlang(node, fun) do
    :erlang.spawn(fun) #=> unlinked erlang:spawn/1
    :erlang.spawn(node, fun) #=> unlinked erlang:spawn/2
    :erlang.spawn_link(fun) #=> tethered erlang:spawn_link/1
    :erlang.spawn_monitor(node, __MODULE__, :loop, [fun]) #=> unlinked erlang:spawn_monitor/4
    :erlang.spawn_opt(fun, [:link]) #=> tethered erlang:spawn_opt/2
    :erlang.spawn_opt(fun, [:monitor]) #=> unlinked erlang:spawn_opt/2
    :erlang.spawn_opt(node, __MODULE__, :loop, [fun], [:link]) #=> tethered erlang:spawn_opt/5
    :erlang.spawn_request(fun) #=> unlinked erlang:spawn_request/1
    :erlang.spawn_request(fun, [:link, {:reply_tag, :made}]) #=> tethered erlang:spawn_request/2
    :erlang.spawn_request(node, fun, reply: :no) #=> unlinked erlang:spawn_request/3
    :erlang.open_port({:spawn, "cat"}, []) #=> tethered erlang:open_port/2
    Port.open({:spawn, "cat"}, [:binary]) #=> tethered Port.open/2
  end

  def proc_lib(fun) do
    :proc_lib.spawn(fun) #=> unlinked proc_lib:spawn/1
    :proc_lib.spawn(__MODULE__, :loop, [fun]) #=> unlinked proc_lib:spawn/3
    :proc_lib.spawn_link(fun) #=> tethered proc_lib:spawn_link/1
    :proc_lib.spawn_opt(fun, [:link]) #=> tethered proc_lib:spawn_opt/2
    :proc_lib.start(__MODULE__, :loop, [fun]) #=> unlinked proc_lib:start/3
    :proc_lib.start_link(__MODULE__, :loop, [fun]) #=> tethered proc_lib:start_link/3
    :proc_lib.start_monitor(__MODULE__, :loop, [fun]) #=> unlinked proc_lib:start_monitor/3
  end

  def remote(node, fun) do
    :erpc.cast(node, fun) #=> deferred erpc:cast/2
    :erpc.multicast([node], fun) #=> deferred erpc:multicast/2
    :erpc.send_request(node, fun) #=> deferred erpc:send_request/2
    :rpc.cast(node, __MODULE__, :loop, [fun]) #=> deferred rpc:cast/4
    :rpc.async_call(node, __MODULE__, :loop, [fun]) #=> deferred rpc:async_call/4
    :timer.apply_after(100, __MODULE__, :loop, [fun]) #=> deferred timer:apply_after/4
    :timer.apply_interval(100, __MODULE__, :loop, [fun]) #=> deferred timer:apply_interval/4
    :erpc.call(node, fun)
    :timer.send_after(100, :wake)
    Process.send_after(self(), :wake, 100)
  end
end

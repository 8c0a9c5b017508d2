# Tests that leak, in every way that we know of. `@tag leak: name` says that the report of this test must name the line
# below `# leak(name)`, and no other line; with `# leak(name)` a supervisor has spawned it, and the line is that of
# who asked.

defmodule UserLeaks.SpawnsTest do
  use ExUnit.Case, async: true
  alias UserLeaks.Server

  @tag leak: :spawn
  test "a bare spawn" do
    # leak(spawn)
    spawn(fn -> Server.idle() end)
  end

  @tag leak: :spawn_mfa
  test "a bare spawn of a function by its name" do
    # leak(spawn_mfa)
    pid = spawn(Server, :idle, [])
    assert is_pid(pid)
  end

  @tag leak: :trapping
  test "a linked process that traps exits" do
    me = self()

    trap = fn ->
      Process.flag(:trap_exit, true)
      send(me, :trapping)
      Server.idle()
    end

    # leak(trapping)
    pid = spawn_link(trap)

    assert_receive :trapping, 5000
    assert Process.alive?(pid)
  end

  @tag leak: :link_of_trapper
  test "linked to a process that traps exits and stays" do
    me = self()

    # leak(link_of_trapper)
    spawn(fn ->
      Process.flag(:trap_exit, true)
      # leak(link_of_trapper)
      send(me, {:linked, spawn_link(Server, :idle, [])})
      Server.idle()
    end)

    assert_receive {:linked, _}, 5000
  end

  @tag leak: :unlinked
  test "linked first, then not" do
    # leak(unlinked)
    pid = spawn_link(Server, :idle, [])
    Process.unlink(pid)
  end

  @tag leak: :monitored
  test "monitored" do
    # leak(monitored)
    {pid, _monitor} = spawn_monitor(Server, :idle, [])
    assert is_pid(pid)
  end

  @tag leak: :grandchild
  test "a grandchild whose parent has died" do
    me = self()

    {_, monitor} =
      spawn_monitor(fn ->
        # leak(grandchild)
        pid = spawn(Server, :idle, [])
        send(me, {:grandchild, pid})
      end)

    assert_receive {:grandchild, _}, 5000
    assert_receive {:DOWN, ^monitor, _, _, _}, 5000
  end

  @tag leak: :in_task
  test "spawned by a task that is done" do
    Task.async(fn ->
      # leak(in_task)
      pid = spawn(Server, :idle, [])
      pid
    end)
    |> Task.await()
  end

  @tag leak: :in_stream
  test "spawned by one of many tasks" do
    1..4
    |> Task.async_stream(fn n ->
      # leak(in_stream)
      if n == 3, do: send(spawn(Server, :idle, []), :hello)
      n
    end)
    |> Stream.run()
  end

  @tag leak: :silent
  test "a failure that nobody hears of" do
    # leak(silent)
    pid = spawn(fn -> exit(:unheard) end)
    assert gone(pid)
  end

  # On 1.20 a task that crashes here has had a link for a moment, as it tells of its crash: what never had one is known
  # to be silent, and no more.
  if Version.match?(System.version(), "< 1.20.0") do
    @tag leak: :silent_task
    test "a task's failure that nobody hears of" do
      # leak(silent_task)
      {:ok, pid} = Task.start(fn -> exit(:unheard) end)
      assert gone(pid)
    end
  end

  # Without a monitor, which would hear it: the name is free when it has died.
  defp gone(pid) do
    if Process.alive?(pid), do: gone(pid), else: true
  end

  test "what a supervisor, asked for something else before, starts again by itself is its own" do
    Process.register(self(), UserLeaks.Listener)
    [{id, own, _, _}] = Supervisor.which_children(UserLeaks.Permanent)
    child = Supervisor.child_spec(Server, id: :asked)
    {:ok, _pid} = Supervisor.start_child(UserLeaks.Permanent, child)
    :ok = Supervisor.terminate_child(UserLeaks.Permanent, :asked)
    :ok = Supervisor.delete_child(UserLeaks.Permanent, :asked)
    Process.exit(own, :kill)
    assert_receive {:up, again} when again != own, 5000

    assert {^id, ^again, _, _} =
             List.keyfind(Supervisor.which_children(UserLeaks.Permanent), id, 0)
  end

  test "a clean one among them" do
    assert Task.await(Task.async(fn -> 1 end)) == 1
  end
end

defmodule UserLeaks.BehavioursTest do
  use ExUnit.Case, async: true
  alias UserLeaks.Server

  @tag leak: :genserver
  test "GenServer.start" do
    # leak(genserver)
    {:ok, pid} = GenServer.start(Server, [])
    assert Server.run(pid, fn -> 1 end) == 1
  end

  @tag leak: :agent
  test "Agent.start" do
    # leak(agent)
    {:ok, pid} = Agent.start(fn -> 0 end)
    assert Agent.get(pid, & &1) == 0
  end

  @tag leak: :task
  test "Task.start" do
    # leak(task)
    {:ok, pid} = Task.start(fn -> Server.idle() end)
    assert is_pid(pid)
  end

  @tag leak: :proc_lib
  test ":proc_lib.spawn" do
    # leak(proc_lib)
    pid = :proc_lib.spawn(Server, :idle, [])
    assert is_pid(pid)
  end

  @tag leak: :named
  test "a server with a name" do
    name = {:via, Registry, {UserLeaks.Registry, __MODULE__}}
    # leak(named)
    {:ok, pid} = GenServer.start(Server, [], name: name)
    assert GenServer.whereis(name) == pid
  end

  @tag leak: :server_child
  test "a process of a server that the test has started" do
    server = start_supervised!({Server, []})
    assert server |> Server.careless() |> Process.alive?()
  end

  @tag leak: :started_by_child
  test "a process that a child spawns as it starts" do
    start_supervised!({Server,
     init: fn ->
       # leak(started_by_child)
       pid = spawn(Server, :idle, [])
       {:ok, pid}
     end})
  end

  @tag leak: :supervised_task
  test "a task left in a shared supervisor" do
    # leak(supervised_task)
    {:ok, pid} = Task.Supervisor.start_child(UserLeaks.Tasks, fn -> Server.idle() end)
    assert is_pid(pid)
  end

  @tag leak: :nolink
  test "a task that is not linked, and not awaited" do
    # leak(nolink)
    task = Task.Supervisor.async_nolink(UserLeaks.Tasks, fn -> Server.idle() end)
    assert Process.alive?(task.pid)
  end

  @tag leak: :dynamic
  test "a child left in a shared DynamicSupervisor" do
    # leak(dynamic)
    {:ok, pid} = DynamicSupervisor.start_child(UserLeaks.Dynamic, {Server, []})
    assert Process.alive?(pid)
  end

  @tag leak: :partition
  test "a child left in a part of a PartitionSupervisor" do
    part = {:via, PartitionSupervisor, {UserLeaks.Partitions, self()}}
    # leak(partition)
    {:ok, pid} = DynamicSupervisor.start_child(part, {Agent, fn -> 0 end})
    assert Process.alive?(pid)
  end

  @tag leak: :static
  test "a child left in a shared Supervisor" do
    child = Supervisor.child_spec(Server, id: :left)
    # leak(static)
    {:ok, pid} = Supervisor.start_child(UserLeaks.Static, child)

    assert Process.alive?(pid)
  end

  @tag leak: :nested
  test "a child that a child of another supervisor has started as it started" do
    start = fn ->
      # leak(nested)
      {:ok, _} = DynamicSupervisor.start_child(UserLeaks.Dynamic, {Agent, fn -> 0 end})
    end

    start_supervised!({Supervisor, [{Server, init: start}]} |> nest())
  end

  @tag leak: :in_anothers_name
  test "a child that a shared supervisor asked another one for, to start one of its own" do
    child = Supervisor.child_spec(Server, id: :in_anothers_name)
    start = {Supervisor, :start_child, [UserLeaks.Static, child]}
    # leak(in_anothers_name)
    {:ok, pid} = DynamicSupervisor.start_child(UserLeaks.Dynamic, %{id: 1, start: start})
    assert Process.alive?(pid)
  end

  @tag leak: :restarted
  test "a child that a shared supervisor has started again" do
    # leak(restarted)
    {:ok, pid} = DynamicSupervisor.start_child(UserLeaks.Dynamic, {Server, init: tell(self())})
    assert_receive {:up, ^pid}, 5000
    Process.exit(pid, :kill)
    assert_receive {:up, again} when again != pid, 5000
  end

  test "a clean one among them" do
    {:ok, pid} = DynamicSupervisor.start_child(UserLeaks.Dynamic, {Server, []})
    assert DynamicSupervisor.terminate_child(UserLeaks.Dynamic, pid) == :ok
  end

  defp tell(pid), do: fn -> send(pid, {:up, self()}) end

  defp nest({Supervisor, children}) do
    %{
      id: :nest,
      start: {Supervisor, :start_link, [children, [strategy: :one_for_one]]},
      type: :supervisor
    }
  end
end

defmodule UserLeaks.SetupTest do
  use ExUnit.Case, async: true
  alias UserLeaks.Server

  setup context do
    if context[:in_setup] do
      # leak(setup)
      pid = spawn(Server, :idle, [])
      [pid: pid]
    else
      :ok
    end
  end

  setup :named

  defp named(context) do
    if context[:in_on_exit] do
      on_exit(fn ->
        # leak(on_exit)
        pid = spawn(Server, :idle, [])
        assert Process.alive?(pid)
      end)
    end

    :ok
  end

  @tag leak: :setup, in_setup: true
  test "leaked by a setup", %{pid: pid} do
    assert Process.alive?(pid)
  end

  @tag leak: :on_exit, in_on_exit: true
  test "leaked by an on_exit" do
    assert true
  end

  describe "a describe" do
    setup do
      # leak(describe)
      pid = spawn(Server, :idle, [])
      [pid: pid]
    end

    @tag leak: :describe
    test "with a setup of its own", %{pid: pid} do
      assert Process.alive?(pid)
    end
  end

  test "a clean one among them" do
    on_exit(fn -> assert Task.await(Task.async(fn -> 1 end)) == 1 end)
  end
end

defmodule UserLeaks.TemplateTest do
  use UserLeaks.Template, async: true

  @tag leak: :template, template: true
  test "leaked by the setup of a template", %{pid: pid} do
    assert Process.alive?(pid)
  end

  test "a clean one among them" do
    assert true
  end
end

defmodule UserLeaks.SetupAllTest do
  use ExUnit.Case, async: true
  alias UserLeaks.Server

  setup_all do
    # leak(setup_all)
    pid = spawn(Server, :idle, [])

    on_exit(fn ->
      # leak(setup_all)
      pid = spawn(Server, :idle, [])
      assert Process.alive?(pid)
    end)

    [pid: pid]
  end

  @tag :of_setup_all
  test "is not blamed for it", %{pid: pid} do
    assert Process.alive?(pid)
  end

  @tag :of_setup_all
  @tag lineage: false
  test "nor is it for one that is not checked" do
    spawn(Server, :idle, [])
  end
end

defmodule UserLeaks.UncheckedTest do
  use ExUnit.Case, async: true
  import Lineage.ExUnit
  alias UserLeaks.Server

  @moduletag lineage: false
  @moduletag kind: :unchecked

  setup :assert_no_leaks

  setup_all do
    [pid: spawn(Server, :idle, [])]
  end

  test "one of a module that is not checked", %{pid: pid} do
    assert Process.alive?(pid)
    spawn(Server, :idle, [])
  end
end

defmodule UserLeaks.ModuleTagTest do
  use ExUnit.Case, async: true
  use Lineage.ExUnit
  alias UserLeaks.Server

  @moduletag lineage: [ignore: [{Server, :idle, 0}]]
  @moduletag kind: :ignored

  setup :assert_no_leaks

  setup_all do
    [pid: spawn(Server, :idle, [])]
  end

  test "one of a module that is to be ignored", %{pid: pid} do
    assert Process.alive?(pid)
    spawn(Server, :idle, [])
  end

  describe "with more" do
    @describetag lineage: [ignore: [{Server, :init, 1}]]

    @tag leak: :describetag
    test "the nearest tag is the test's" do
      # leak(describetag)
      pid = spawn(Server, :idle, [])
      assert is_pid(pid)
    end
  end
end

defmodule UserLeaks.FailsTest do
  use ExUnit.Case, async: true
  alias UserLeaks.Server

  @tag leak: :fails, also: :assertion
  test "a test that fails itself" do
    # leak(fails)
    pid = spawn(Server, :idle, [])
    refute Process.alive?(pid)
  end

  @tag leak: :killed, also: :exit
  test "a test that is killed" do
    # leak(killed)
    pid = spawn(Server, :idle, [])
    Process.exit(self(), :kill)
    assert is_pid(pid)
  end

  @tag leak: :timeout, also: :timeout, timeout: 1000
  test "a test that times out" do
    # leak(timeout)
    pid = spawn(Server, :idle, [])
    Server.idle()
    assert is_pid(pid)
  end

  @tag also: :assertion
  test "a test that fails, and leaks nothing" do
    assert Task.await(Task.async(fn -> 1 end)) == 2
  end

  @tag also: :timeout, timeout: 1000
  test "a test that times out, and leaks nothing" do
    start_supervised!({Server, []})
    Server.idle()
  end
end

defmodule UserLeaks.OptionsTest do
  use ExUnit.Case, async: true
  use Lineage.ExUnit
  alias UserLeaks.Server

  # The suite is checked already: each test is, once.
  setup :assert_no_leaks

  @tag lineage: false
  test "one that is not checked" do
    spawn(Server, :idle, [])
  end

  @tag lineage: [ignore: [{Server, :idle, 0}], within: 50]
  test "one that is to be ignored" do
    spawn(Server, :idle, [])
  end

  @tag lineage: [action: :warn], leak: :warned
  test "one that is only told of" do
    # leak(warned)
    pid = spawn(Server, :idle, [])
    assert is_pid(pid)
  end

  @tag leak: :both
  test "one that both would check" do
    # leak(both)
    pid = spawn(Server, :idle, [])
    assert is_pid(pid)
  end

  @tag leak: :both_fails, also: :assertion
  test "one that both would check, and that fails itself" do
    # leak(both_fails)
    pid = spawn(Server, :idle, [])
    refute Process.alive?(pid)
  end

  @tag also: :options, lineage: [within: :soon]
  test "one with a wrong option" do
    assert true
  end

  @tag leak: :block
  test "a block" do
    assert_no_leaks within: 50 do
      # leak(block)
      pid = spawn(Server, :idle, [])
      assert is_pid(pid)
    end
  end

  @tag leak: :block_fails, also: :assertion
  test "a block that fails itself" do
    assert_no_leaks do
      # leak(block_fails)
      pid = spawn(Server, :idle, [])
      refute Process.alive?(pid)
    end
  end

  test "a clean block, and its value" do
    value =
      assert_no_leaks do
        Task.await(Task.async(fn -> 3 end))
      end

    assert value == 3
  end
end

defmodule UserLeaks.OwnKindTest do
  use ExUnit.Case, async: true

  # As libraries for properties do it.
  @tag leak: :own_kind
  name =
    ExUnit.Case.register_test(
      __MODULE__,
      __ENV__.file,
      __ENV__.line,
      :property,
      "of its own kind",
      []
    )

  def unquote(name)(_context) do
    # leak(own_kind)
    pid = spawn(UserLeaks.Server, :idle, [])
    assert is_pid(pid)
  end
end

defmodule UserLeaks.SyncTest do
  use ExUnit.Case, async: false

  @tag leak: :sync
  test "a test that runs alone" do
    # leak(sync)
    pid = spawn(UserLeaks.Server, :idle, [])
    assert is_pid(pid)
  end

  @tag :capture_log
  @tag leak: :captured
  test "a test whose log is captured" do
    # leak(captured)
    pid = spawn(UserLeaks.Server, :idle, [])
    assert is_pid(pid)
  end
end

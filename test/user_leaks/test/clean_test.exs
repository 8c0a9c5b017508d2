# Clean tests of every kind, in modules that run at once, beside those that leak.
for number <- 1..50 do
  defmodule Module.concat(UserLeaks, "Clean#{number}Test") do
    use ExUnit.Case, async: true

    import ExUnit.CaptureIO
    import ExUnit.CaptureLog

    alias UserLeaks.{Mock, Server}

    require Logger

    setup_all do
      # The process of setup_all ends normally, and a link would not carry that.
      shared = start_supervised!({Agent, fn -> 0 end})
      on_exit(fn -> Task.await(Task.async(fn -> :ok end)) end)
      [shared: shared]
    end

    setup do
      server = start_supervised!({Server, []})
      on_exit(fn -> refute Process.alive?(server) end)
      [server: server]
    end

    test "tasks", %{server: server} do
      assert Enum.map(1..5, &Task.async(fn -> &1 * 2 end)) |> Task.await_many() == [
               2,
               4,
               6,
               8,
               10
             ]

      assert Task.async_stream(1..10, &(&1 + 1)) |> Enum.map(&elem(&1, 1)) == Enum.to_list(2..11)
      assert Task.await(Task.Supervisor.async(UserLeaks.Tasks, fn -> :done end)) == :done
      # Ends with the server that it is linked to.
      pid = Server.run(server, fn -> spawn_link(Server, :idle, []) end)
      assert Process.alive?(pid)
    end

    test "linked servers and agents end with the test" do
      {:ok, agent} = Agent.start_link(fn -> 1 end)
      {:ok, server} = Server.start_link([])
      {:ok, trapping} = Server.start_link(trap_exit: true)
      assert Server.run(server, fn -> Agent.get(agent, & &1) end) == 1
      assert Server.run(trapping, fn -> :ok end) == :ok
      {:ok, supervisor} = Supervisor.start_link([{Server, []}], strategy: :one_for_one)
      assert %{active: 1} = Supervisor.count_children(supervisor)
    end

    test "children that a shared supervisor started are stopped by who asked" do
      {:ok, child} = DynamicSupervisor.start_child(UserLeaks.Dynamic, {Server, []})
      assert Server.run(child, fn -> :ok end) == :ok
      assert DynamicSupervisor.terminate_child(UserLeaks.Dynamic, child) == :ok

      partition = {:via, PartitionSupervisor, {UserLeaks.Partitions, self()}}
      {:ok, child} = DynamicSupervisor.start_child(partition, {Agent, fn -> 0 end})
      on_exit(fn -> :ok = DynamicSupervisor.terminate_child(partition, child) end)
    end

    test "tasks that a shared supervisor started end by themselves" do
      me = self()
      {:ok, task} = Task.Supervisor.start_child(UserLeaks.Tasks, fn -> send(me, :done) end)
      monitor = Process.monitor(task)
      assert_receive :done, 5000
      assert_receive {:DOWN, ^monitor, _, _, _}, 5000

      assert %Task{} =
               Task.Supervisor.async_nolink(UserLeaks.Tasks, fn -> :ok end) |> tap(&Task.await/1)
    end

    test "what a shared server spawns on a test's behalf is the server's" do
      Mock.expect(fn n -> n + 1 end)
      assert Mock.call(1) == 2
      assert Task.await(Task.async(fn -> Mock.call(2) end)) == 3
    end

    test "nested supervisors", %{server: server} do
      inner = start_supervised!({Task.Supervisor, []})
      dynamic = start_link_supervised!({DynamicSupervisor, strategy: :one_for_one})
      {:ok, child} = DynamicSupervisor.start_child(dynamic, {Server, []})

      {:ok, task} =
        Server.run(child, fn -> Task.Supervisor.start_child(inner, &Server.idle/0) end)

      assert Process.alive?(task)
      assert Server.run(server, fn -> DynamicSupervisor.which_children(dynamic) end) != []
    end

    test "registries and timers", %{server: server} do
      {:ok, _} = Registry.register(UserLeaks.Registry, {__MODULE__, :me}, nil)
      name = {:via, Registry, {UserLeaks.Registry, {__MODULE__, :named}}}
      {:ok, _} = Agent.start_link(fn -> 0 end, name: name)
      assert Agent.update(name, &(&1 + 1)) == :ok
      Process.send_after(self(), :soon, 1)
      {:ok, timer} = :timer.send_interval(1, server, :tick)
      on_exit(fn -> :timer.cancel(timer) end)
      assert_receive :soon, 5000
    end

    test "captured output and logs" do
      assert capture_io(fn -> IO.puts("hello") end) == "hello\n"
      assert capture_log(fn -> Logger.error("oh") end) =~ "oh"

      assert ExUnit.CaptureIO.with_io(fn -> Task.await(Task.async(fn -> IO.write("x") end)) end)
             |> elem(1) == "x"
    end

    test "what is linked to a test that traps exits dies with it" do
      Process.flag(:trap_exit, true)
      pid = spawn_link(fn -> exit(:boom) end)
      assert_receive {:EXIT, ^pid, :boom}, 5000
      spawn_link(Server, :idle, [])
      # Noticed by a monitor.
      {pid, monitor} = spawn_monitor(fn -> exit(:bang) end)
      assert_receive {:DOWN, ^monitor, _, ^pid, :bang}, 5000
    end

    test "a spawned process that is stopped in time, and one that ends soon", %{shared: shared} do
      pid = spawn(Server, :idle, [])
      on_exit(fn -> send(pid, :stop) end)
      spawn(fn -> Enum.reduce(1..1000, 0, &(&1 + &2)) end)
      assert Agent.get_and_update(shared, &{&1, &1 + 1}) >= 0
    end
  end
end

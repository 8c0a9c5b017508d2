defmodule Foundation.RecoveryTest do
  @moduledoc """
  Every process of Foundation's tree may be killed at any time.
  """
  use ExUnit.Case

  alias Foundation.{Config, Events, HealthMonitor, ProcessRegistry, ServiceMonitor, Telemetry}
  alias Foundation.BEAM.{EcosystemSupervisor, Processes, Watcher}
  alias Foundation.Test.{Census, Signals, Worker}

  @storm 100

  defp names, do: Enum.map(Foundation.Application.services(), & &1.name)
  defp wait, do: receive(do: (:never -> :ok))

  test "what was known before a kill is known after it, whoever was killed" do
    namespace = {:test, make_ref()}
    key = make_ref()
    worker = start_supervised!({Worker, name: ProcessRegistry.via_tuple(namespace, :worker)})
    :ok = Config.update([key], 0)
    :ok = Config.subscribe()
    {:ok, event} = Events.new_event(:before, key, correlation_id: key)
    {:ok, _id} = Events.store(event)
    Telemetry.emit_counter([:recovery_test, :kept])
    Signals.listen([:recovery_test, :kept])

    for {name, n} <- Enum.with_index(names(), 1) do
      Signals.kill_service(name)
      assert ProcessRegistry.lookup(namespace, :worker) == {:ok, worker}
      assert Config.get([key]) == {:ok, n - 1}
      assert Config.update([key], n) == :ok
      assert_receive {:config_changed, [^key], ^n}, 5_000
      assert Events.get_correlation_chain(key) == {:ok, [event]}
      assert {:ok, [%{count: ^n}]} = Telemetry.get_metrics_for([:recovery_test, :kept])
      Telemetry.emit_counter([:recovery_test, :kept])
      assert_receive {:telemetry, [:recovery_test, :kept], _, _}, 5_000
      assert Census.leaks() == []
    end

    # Whatever the registry and the configuration monitored before, they monitor still.
    Signals.listen([:foundation, :registry, :dropped])
    Signals.kill(worker)
    assert_receive {:telemetry, _, _, %{pid: ^worker}}, 5_000
    assert {:ok, %{status: :healthy}} = HealthMonitor.check()
  end

  test "the monitors are restarted, alone and with their supervisor" do
    Signals.listen([:foundation, :health, :check])

    for name <- [HealthMonitor, Foundation.Monitoring, Foundation.Monitoring] do
      Signals.kill(Process.whereis(name))
      assert_receive {:telemetry, _, %{failing: 0}, _}, 5_000
    end

    # What dies while the other monitor is away is noticed when that is back.
    children = Supervisor.which_children(Foundation.Monitoring)
    {ServiceMonitor, pid, :worker, _modules} = List.keyfind(children, ServiceMonitor, 0)
    Signals.kill(pid)
    Signals.kill_service(Foundation.ConfigServer)
    assert Census.leaks() == []
  end

  test "work outlives the watcher, and is still answered for" do
    {:ok, pid} = Processes.isolate_memory_intensive_work(&wait/0)
    Signals.kill_service(Watcher)
    Signals.kill(pid)
    assert_receive {:work_error, :killed}, 5_000

    test = self()

    {:ok, pid} =
      Processes.isolate_memory_intensive_work(fn ->
        receive do: (:go -> send(test, :gone))
        :result
      end)

    Signals.kill_service(Watcher)
    send(pid, :go)
    assert_receive {:work_complete, :result}, 5_000
    assert_received :gone
    refute_received {:work_error, _reason}
  end

  test "work that dies while the watcher is away is answered for when it is back" do
    {:ok, pid} = Processes.isolate_memory_intensive_work(&wait/0)

    Signals.without_service(Watcher, fn ->
      Signals.kill(pid)
      assert Processes.isolate_memory_intensive_work(&wait/0) == {:error, :unavailable}
    end)

    assert_receive {:work_error, :noproc}, 5_000
    refute_received {:work_error, _reason}
  end

  test "an ecosystem that is shut down while the watcher is away is not reported as lost" do
    Signals.listen([:foundation, :ecosystem, :lost])
    {:ok, ecosystem} = Processes.spawn_ecosystem(coordinator: {Worker, []})

    Signals.without_service(Watcher, fn ->
      assert Processes.shutdown_ecosystem(ecosystem) == :ok
      assert Processes.spawn_ecosystem(coordinator: {Worker, []}) == {:error, :unavailable}
    end)

    refute_received {:telemetry, [:foundation, :ecosystem, :lost], _, _}
  end

  test "work and ecosystems that go with their supervisors are reported" do
    Signals.listen([:foundation, :ecosystem, :lost])

    {:ok, ecosystem} =
      Processes.spawn_ecosystem(coordinator: {Worker, []}, workers: [{Worker, [], 2}])

    {:ok, %{coordinator: coordinator, workers: workers}} = Processes.ecosystem_info(ecosystem)
    monitors = for pid <- [ecosystem, coordinator | workers], do: Process.monitor(pid)
    Signals.kill_service(EcosystemSupervisor)
    for ref <- monitors, do: assert_receive({:DOWN, ^ref, :process, _pid, _reason}, 5_000)
    assert_receive {:telemetry, _, _, %{pid: ^ecosystem}}, 5_000

    {:ok, _pid} = Processes.isolate_memory_intensive_work(&wait/0)
    Signals.kill_service(Foundation.TaskSupervisor)
    assert_receive {:work_error, :killed}, 5_000
    assert Census.leaks() == []
  end

  test "under load, #{@storm} kills at random: all calls are answered, and no process is left over" do
    supervisor = start_supervised!(Task.Supervisor)

    loads =
      for n <- 1..4, do: Task.Supervisor.async_nolink(supervisor, fn -> load({:test, n}, 0) end)

    for _ <- 1..@storm do
      Signals.kill_service(Enum.random(names()))
      with pid when is_pid(pid) <- Process.whereis(HealthMonitor), do: Signals.kill(pid)
    end

    for %{pid: pid} <- loads, do: send(pid, :stop)
    for rounds <- Task.await_many(loads, 30_000), do: assert(rounds > 0)
    Signals.kill_service(Foundation.ConfigServer)
    assert Foundation.available?()
    assert Census.leaks() == []
  end

  defp load(namespace, rounds) do
    for answer <- calls(namespace), do: assert(answered?(answer), inspect(answer))

    receive do
      :stop -> rounds + 1
    after
      0 -> load(namespace, rounds + 1)
    end
  end

  defp calls(namespace) do
    ecosystem = Processes.spawn_ecosystem(coordinator: {Worker, []}, workers: [{Worker, [], 2}])

    [
      ecosystem,
      ProcessRegistry.register(namespace, make_ref(), self()),
      ProcessRegistry.list_services(namespace),
      ProcessRegistry.stats(),
      Config.update([namespace], make_ref()),
      Config.get([namespace]),
      Config.subscribe(),
      Config.unsubscribe(),
      Events.report(:load, namespace),
      Events.get_recent(1),
      Telemetry.emit_counter([:recovery_test, :load]),
      Telemetry.get_metrics_for([:recovery_test]),
      with({:ok, pid} <- ecosystem, do: Processes.ecosystem_info(pid)),
      work(),
      with({:ok, pid} <- ecosystem, do: Processes.shutdown_ecosystem(pid)),
      ProcessRegistry.cleanup_test_namespace(elem(namespace, 1)),
      Foundation.status(),
      Foundation.health()
    ]
  end

  # Started work is answered for, once.
  defp work do
    with {:ok, _pid} <- Processes.isolate_memory_intensive_work(fn -> Enum.sum(1..1_000) end) do
      assert_receive {outcome, _result} when outcome in [:work_complete, :work_error], 5_000
      refute_received {:work_error, _reason}
      :ok
    end
  end

  defp answered?(:ok), do: true
  defp answered?({:ok, _result}), do: true
  defp answered?({:error, _reason}), do: true
  defp answered?(_other), do: false
end

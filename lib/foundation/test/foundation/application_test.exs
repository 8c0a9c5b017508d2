defmodule Foundation.ApplicationTest do
  use ExUnit.Case

  alias Foundation.{Config, Events, Legacy, Supervision, Telemetry}
  alias Foundation.BEAM.Processes
  alias Foundation.Test.Worker

  setup do
    on_exit(fn -> {:ok, _started} = Application.ensure_all_started(:foundation) end)
  end

  defp names, do: Enum.map(Foundation.Application.services(), & &1.name)

  # All that has Foundation's application master as its group leader.
  defp processes do
    for pid <- Process.list(), :application.get_application(pid) == {:ok, :foundation}, do: pid
  end

  defp await_all(pids) do
    for pid <- pids do
      ref = Process.monitor(pid)
      assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
    end
  end

  test "services start one after the other in their order, and end in the reverse order" do
    :ok = Application.stop(:foundation)
    :erlang.trace(:new_processes, true, [:procs, :strict_monotonic_timestamp])
    {:ok, _started} = Application.ensure_all_started(:foundation)
    :erlang.trace(:new_processes, false, [:procs])
    :ok = Application.stop(:foundation)
    ref = :erlang.trace_delivered(:all)
    assert_receive {:trace_delivered, :all, ^ref}, 5_000
    traces = Enum.sort_by(traces([]), &elem(&1, tuple_size(&1) - 1))

    starts =
      for {:trace_ts, pid, :register, name, _time} <- traces, name in names(), do: {name, pid}

    assert Keyword.keys(starts) == names()

    pids = Map.new(starts, fn {name, pid} -> {pid, name} end)

    ends =
      for {:trace_ts, pid, :exit, _reason, _time} <- traces, is_map_key(pids, pid), do: pids[pid]

    assert ends == Enum.reverse(names())
  end

  test "each service needs only what starts before it" do
    for {%{needs: needs}, index} <- Enum.with_index(Foundation.Application.services()) do
      assert needs -- Enum.take(names(), index) == []
    end
  end

  test "a stop leaves no process alive, and gives work and ecosystems their end" do
    {:ok, ecosystem} =
      Processes.spawn_ecosystem(coordinator: {Worker, []}, workers: [{Worker, [trap: true], 3}])

    {:ok, %{coordinator: coordinator, workers: workers}} = Processes.ecosystem_info(ecosystem)
    {:ok, work} = Processes.isolate_memory_intensive_work(fn -> receive do: (:never -> 1) end)
    pids = processes()
    for pid <- [ecosystem, coordinator, work | workers], do: assert(pid in pids)

    assert Foundation.shutdown() == :ok
    refute Enum.any?(pids, &Process.alive?/1)
    assert processes() == []
    assert_receive {:work_error, :shutdown}, 5_000
  end

  test "a stop ends the legacy loops, too, which only the application master knows" do
    :ok = Application.stop(:foundation)
    flags = Application.fetch_env!(:foundation, :supervision)
    on_exit(fn -> Application.put_env(:foundation, :supervision, flags) end)
    Application.put_env(:foundation, :supervision, phase_1: false)
    {:ok, _started} = Application.ensure_all_started(:foundation)

    refute Supervision.enabled?(:phase_1)
    assert Supervisor.which_children(Foundation.Monitoring) == []
    assert Enum.any?(processes(), &legacy?/1)
    pids = processes()
    :ok = Application.stop(:foundation)
    await_all(pids)
    refute Enum.any?(Process.list(), &legacy?/1)
  end

  test "a process of Foundation itself may shut it down, one that traps exits as well" do
    for trap <- [false, true] do
      {:ok, _started} = Application.ensure_all_started(:foundation)
      master = :application_controller.get_master(:foundation)
      ref = Process.monitor(master)
      test = self()

      {:ok, _pid} =
        Task.Supervisor.start_child(Foundation.TaskSupervisor, fn ->
          Process.flag(:trap_exit, trap)
          send(test, {:shutdown, Foundation.shutdown()})
        end)

      assert_receive {:shutdown, :ok}, 5_000
      assert_receive {:DOWN, ^ref, :process, ^master, _reason}, 10_000
      assert processes() == []
    end
  end

  test "where Foundation does not run, all functions say so, and none fails" do
    assert Foundation.available?()
    :ok = Foundation.shutdown()

    refute Foundation.available?()
    assert Foundation.version() == "0.1.0"
    assert {:error, {:not_started, :foundation}} = Foundation.shutdown()
    assert {:error, :unavailable} = Foundation.status()
    assert {:error, :unavailable} = Foundation.health()
    assert {:error, :unavailable} = Supervision.switch(:phase_1, false)

    assert {:error, :unavailable} = Config.get([])
    assert {:error, :unavailable} = Config.update([:a], 1)
    assert {:error, :unavailable} = Config.subscribe()
    assert {:error, :unavailable} = Config.unsubscribe()

    {:ok, event} = Events.new_event(:event, 1)
    assert {:error, :unavailable} = Events.store(event)
    assert {:error, :unavailable} = Events.query([])
    assert {:error, :unavailable} = Events.get_recent(1)
    assert {:error, :unavailable} = Events.get_correlation_chain(1)
    assert :ok = Events.report(:event, 1)

    assert :ok = Telemetry.execute([:event], %{}, %{})
    assert :ok = Telemetry.emit_counter([:event])
    assert :ok = Telemetry.emit_gauge([:event], 1)
    assert 1 = Telemetry.time_function([:event], fn -> 1 end)
    assert {:error, :unavailable} = Telemetry.get_metrics_for([])
    assert {:error, :unavailable} = Telemetry.attach(:id, [:event], fn _, _, _, _ -> :ok end, nil)
    assert {:error, :unavailable} = Telemetry.detach(:id)

    alias Foundation.ProcessRegistry, as: Registry
    assert {:error, :unavailable} = Registry.register(:production, :me, self())
    assert {:error, :unavailable} = Registry.lookup(:production, :me)
    assert {:error, :unavailable} = Registry.unregister(:production, :me)
    assert {:error, :unavailable} = Registry.get_metadata(:production, :me)
    assert {:error, :unavailable} = Registry.update_metadata(:production, :me, %{})
    assert {:error, :unavailable} = Registry.list_services(:production)
    assert {:error, :unavailable} = Registry.count_services(:production)
    assert {:error, :unavailable} = Registry.find_services_by_metadata(:production, &is_map/1)
    assert {:error, :unavailable} = Registry.cleanup_test_namespace(:me)
    assert {:error, :unavailable} = Registry.stats()
    refute Registry.registered?(:production, :me)
    assert Registry.whereis_name({:production, :me}) == :undefined
    assert {:unavailable, _call} = catch_exit(Registry.register_name({:production, :me}, self()))

    assert {:error, :unavailable} = Processes.spawn_ecosystem(coordinator: {Worker, []})
    assert {:error, :not_found} = Processes.shutdown_ecosystem(self())
    assert {:error, :not_found} = Processes.ecosystem_info(self())
    assert {:error, :unavailable} = Processes.isolate_memory_intensive_work(fn -> 1 end)
    refute_received {:work_error, _reason}
  end

  defp traces(traces) do
    receive do
      trace when elem(trace, 0) == :trace_ts -> traces([trace | traces])
    after
      0 -> traces
    end
  end

  defp legacy?(pid) do
    match?({:initial_call, {Legacy.Monitoring, _, _}}, Process.info(pid, :initial_call))
  end
end

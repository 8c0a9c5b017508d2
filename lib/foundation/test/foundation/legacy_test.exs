defmodule Foundation.LegacyTest do
  @moduledoc """
  What was audited, and what stands there now, as Lineage sees both.
  """
  use ExUnit.Case

  alias Foundation.{HealthMonitor, Legacy, ProcessRegistry, ServiceMonitor, Test}
  alias Foundation.BEAM.Processes
  alias Foundation.Test.{Census, Worker}

  test "monitoring: two loops outlive their makers; or two servers of a supervisor" do
    dead = Census.dead()
    Test.Signals.switch(:phase_1, false)
    await_makers()

    loops = [
      {Legacy.Monitoring, :dependency_check_loop, 1},
      {Legacy.Monitoring, :health_check_loop, 1}
    ]

    assert Census.orphans([Legacy.Monitoring]) == for(loop <- loops, do: {loop, :abandoned})

    makers = [
      {Legacy.Monitoring, :arm_health_check, 1},
      {Legacy.Monitoring, :initialize_service_monitoring, 2}
    ]

    assert Census.recent([Legacy.Monitoring], dead) == makers
    assert Supervisor.which_children(Foundation.Monitoring) == []

    Test.Signals.switch(:phase_1, true)
    assert Census.orphans([Legacy.Monitoring]) == []

    for monitor <- [HealthMonitor, ServiceMonitor],
        do: assert(Lineage.why(monitor).verdict == :supervised)
  end

  test "monitoring: a switch while the makers run leaves no loop" do
    for _ <- 1..20 do
      Test.Signals.switch(:phase_1, false)
      Test.Signals.switch(:phase_1, true)
      assert Census.orphans([Legacy.Monitoring]) == []
    end
  end

  test "work: nobody stops it, and nobody hears when it is killed; or it is supervised" do
    Test.Signals.switch(:phase_1, false)
    {:ok, pid} = Processes.isolate_memory_intensive_work(&wait/0)
    on_exit(fn -> Process.exit(pid, :kill) end)
    # What a task runs, releases of Elixir tell in different ways: it is found by its pid.
    assert [%{kind: :detached}] = Enum.filter(Lineage.orphans(), &(&1.pid == pid))
    Test.Signals.kill(pid)
    refute_received {:work_error, _reason}
    {:ok, _pid} = Processes.isolate_memory_intensive_work(fn -> 1 end)
    assert_receive {:work_complete, 1}, 5_000

    Test.Signals.switch(:phase_1, true)
    {:ok, pid} = Processes.isolate_memory_intensive_work(&wait/0)
    assert Lineage.why(pid).verdict == :supervised
    Test.Signals.kill(pid)
    assert_receive {:work_error, :killed}, 5_000
  end

  test "clean-up: a terminator for each process; or none at all" do
    reference = make_ref()
    namespace = {:test, reference}
    Test.Signals.switch(:phase_3, false)
    pids = for n <- 1..3, do: worker(ProcessRegistry.via_tuple(namespace, n))
    monitors = for pid <- pids, do: Process.monitor(pid)
    assert ProcessRegistry.cleanup_test_namespace(reference) == {:ok, 3}
    for ref <- monitors, do: assert_receive({:DOWN, ^ref, :process, _pid, :shutdown}, 5_000)
    assert {Legacy.ProcessRegistry, :terminator, 1} in terminators(MapSet.new())

    Test.Signals.switch(:phase_3, true)
    dead = Census.dead()
    for n <- 1..3, do: worker(ProcessRegistry.via_tuple(namespace, n))
    assert ProcessRegistry.cleanup_test_namespace(reference) == {:ok, 3}
    assert terminators(dead) == []
  end

  defp worker(name) do
    start_supervised!({Worker, name: name}, id: make_ref(), restart: :temporary)
  end

  defp wait, do: receive(do: (:never -> :ok))

  # A terminator ends just after the process that it ends: it is seen living, or else dead.
  defp terminators(dead) do
    living = Enum.map(Census.orphans([Legacy.ProcessRegistry]), &elem(&1, 0))
    living ++ Census.recent([Legacy.ProcessRegistry], dead)
  end

  # The makers end by themselves, at once. What they made is there when they have.
  defp await_makers do
    for pid <- Process.list(),
        {:initial_call, {Legacy.Monitoring, maker, _arity}} <- [Process.info(pid, :initial_call)],
        maker in [:arm_health_check, :initialize_service_monitoring] do
      ref = Process.monitor(pid)
      assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
    end
  end
end

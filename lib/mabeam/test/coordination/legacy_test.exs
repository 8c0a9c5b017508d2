defmodule MABEAM.Coordination.LegacyTest do
  # Switches a phase off.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias Foundation.Supervision
  alias Foundation.Test.Census
  alias MABEAM.Coordination
  alias MABEAM.Test.{Actor, Puppet}

  setup do
    start_supervised!({Task.Supervisor, name: __MODULE__.Tasks})
    protocol = Puppet.registered!(Puppet.Retried)
    Puppet.none_active!()
    :ok = Supervision.switch(:phase_1, false)
    on_exit(fn -> Supervision.switch(:phase_1, true) end)
    {:ok, protocol: protocol}
  end

  defp begin(protocol, options \\ []) do
    {:ok, id} = Coordination.coordinate_async(protocol, [:nobody], %{test: self()}, options)
    assert_receive {:running, task, _context}, 5_000
    {id, task, parent(task)}
  end

  # The process of the session, which the task is linked to.
  defp parent(task) do
    {:links, [parent]} = Process.info(task, :links)
    parent
  end

  defp await_down(pid) do
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 5_000
  end

  test "a session runs in a process that nobody supervises", %{protocol: protocol} do
    {id, task, process} = begin(protocol)

    assert Census.orphans([MABEAM.Legacy.Coordination]) == [
             {{MABEAM.Legacy.Coordination, :coordination_process, 2}, :detached},
             {{MABEAM.Legacy.Coordination, :run_protocol, 2}, :detached}
           ]

    assert Process.info(process, :links) == {:links, [task]}
    assert Process.info(process, :monitored_by) == {:monitored_by, []}
    assert DynamicSupervisor.count_children(MABEAM.CoordinationSupervisor).workers == 0

    send(task, {:return, {:ok, :done}})
    assert Coordination.get_session_results(id, 5_000) == {:ok, :done}
  end

  test "a session that crashes is lost: it stays active, and nobody is told", context do
    capture_log(fn ->
      {id, task, process} = begin(context.protocol)
      send(task, {:raise, "oh"})
      Enum.each([task, process], &await_down/1)

      assert Coordination.get_session_results(id, 100) == {:error, :pending}
      {:ok, sessions} = Coordination.list_active_sessions()
      assert %{attempt: 1, supervised?: false} = Enum.find(sessions, &(&1.id == id))
      refute_received {:running, _task, _context}
      :ok = Coordination.cancel_session(id)
    end)
  end

  test "who waits for it does so until the deadline, and the session stays", context do
    capture_log(fn ->
      test = self()

      task =
        Task.Supervisor.async_nolink(__MODULE__.Tasks, fn ->
          Coordination.coordinate(context.protocol, [:nobody], %{test: test}, timeout: 3_000)
        end)

      assert_receive {:running, runner, %{session: id}}, 5_000
      send(runner, {:exit, :oh})
      assert Task.await(task, 30_000) == {:error, :timeout}
      {:ok, sessions} = Coordination.list_active_sessions()
      assert Enum.any?(sessions, &(&1.id == id))
      :ok = Coordination.cancel_session(id)
    end)
  end

  test "a session that takes too long is lost in the same way", %{protocol: protocol} do
    capture_log(fn ->
      {id, task, process} = begin(protocol, timeout: 2_000)
      Enum.each([task, process], &await_down/1)
      assert Coordination.get_session_results(id, 100) == {:error, :pending}
      :ok = Coordination.cancel_session(id)
    end)
  end

  test "a session that is cancelled goes on unseen", %{protocol: protocol} do
    {id, task, process} = begin(protocol)
    :ok = Coordination.cancel_session(id)
    assert Process.alive?(process)
    send(task, {:return, {:ok, :who_cares}})
    await_down(process)
    assert Coordination.get_session_results(id, 5_000) == {:error, :cancelled}
  end

  test "a session whose server was killed as it ended is lost", %{protocol: protocol} do
    {id, task, process} = begin(protocol)
    server = Process.whereis(Coordination)
    monitor = Process.monitor(server)
    :ok = :sys.suspend(server)
    send(task, {:return, {:ok, :done}})
    await_down(process)
    Process.exit(server, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^server, _reason}, 5_000
    assert Coordination.get_session_results(id, 100) == {:error, :pending}
    :ok = Coordination.cancel_session(id)
  end

  test "with the phase on nothing of a session is an orphan", %{protocol: protocol} do
    :ok = Supervision.switch(:phase_1, true)
    test = self()

    agent =
      Actor.start!(fn _request ->
        send(test, {:asked, self()})
        receive do: (:go -> :done)
      end)

    {:ok, id} = Coordination.coordinate_async(protocol, [agent], %{test: test})
    assert_receive {:running, worker, _context}, 5_000
    send(worker, {:ask, :think, 5_000})
    assert_receive {:asked, pid}, 5_000
    assert Lineage.orphans() == []
    send(pid, :go)
    assert Coordination.get_session_results(id, 5_000) == {:ok, [{agent, {:ok, :done}}]}
  end

  test "what began before a switch ends as it began", %{protocol: protocol} do
    {legacy, task, process} = begin(protocol)
    :ok = Supervision.switch(:phase_1, true)
    {:ok, supervised} = Coordination.coordinate_async(protocol, [:nobody], %{test: self()})
    assert_receive {:running, worker, %{session: ^supervised}}, 5_000
    :ok = Supervision.switch(:phase_1, false)

    Process.exit(worker, :kill)
    assert_receive {:running, worker, %{session: ^supervised, attempt: 2}}, 5_000
    assert parent(worker) == Process.whereis(MABEAM.CoordinationSupervisor)

    ends = [{task, legacy, {:ok, :old}}, {worker, supervised, {:ok, :new}}]

    for {runner, id, result} <- ends do
      send(runner, {:return, result})
      assert Coordination.get_session_results(id, 5_000) == result
    end

    await_down(process)
  end
end

defmodule MABEAM.Coordination.BoundsTest do
  # Counts, and bounds what all tests use.
  use ExUnit.Case, async: false

  alias MABEAM.Coordination
  alias MABEAM.Test.{Probe, Puppet}

  setup do
    Puppet.none_active!()
    {:ok, protocol: Puppet.registered!()}
  end

  defp bound(max) do
    Application.put_env(:mabeam, :max_sessions, max)
    on_exit(fn -> Application.delete_env(:mabeam, :max_sessions) end)
  end

  defp begin(protocol) do
    {:ok, id} = Coordination.coordinate_async(protocol, [:nobody], %{test: self()})
    assert_receive {:running, worker, _context}, 5_000
    {id, worker}
  end

  defp finish({id, worker}) do
    send(worker, {:return, {:ok, 1}})
    {:ok, 1} = Coordination.get_session_results(id, 5_000)
    id
  end

  defp stats do
    {:ok, stats} = Coordination.get_coordination_stats()
    stats
  end

  test "so many sessions are active, and more are refused and counted", %{protocol: protocol} do
    bound(2)
    sessions = [first, second] = for _n <- 1..2, do: begin(protocol)
    before = stats()
    assert before.active == 2

    for function <- [:coordinate, :coordinate_async] do
      assert apply(Coordination, function, [protocol, [:a], %{test: self()}]) == {:error, :busy}
    end

    assert stats().refused == before.refused + 2
    finish(first)
    finish(begin(protocol))
    finish(second)
    assert length(sessions) == 2
    assert stats().active == 0
  end

  test "so many ended sessions are kept, the latest", %{protocol: protocol} do
    bound(20)
    ids = for _n <- 1..30, do: finish(begin(protocol))
    known = Enum.filter(ids, &(Coordination.get_session_results(&1, 0) == {:ok, 1}))

    assert known == Enum.take(ids, -length(known))
    assert length(known) in 18..20

    for id <- ids -- known do
      assert Coordination.get_session_results(id, 0) == {:error, :unknown_session}
    end

    assert stats().dropped >= 10
  end

  test "every end is counted once", %{protocol: protocol} do
    retried = Puppet.registered!(Puppet.Retried)
    before = stats()

    finish(begin(protocol))

    {id, worker} = begin(protocol)
    send(worker, {:return, {:error, :no}})
    {:error, :no} = Coordination.get_session_results(id, 5_000)

    {id, worker} = begin(protocol)
    Process.exit(worker, :kill)
    {:error, {:crashed, :killed}} = Coordination.get_session_results(id, 5_000)

    {id, _worker} = begin(protocol)
    :ok = Coordination.cancel_session(id)

    {id, worker} = begin(retried)
    Process.exit(worker, :kill)
    assert_receive {:running, worker, _context}, 5_000
    finish({id, worker})

    {:ok, id} = Coordination.coordinate_async(protocol, [:a], %{test: self()}, timeout: 2_000)
    {:error, :timeout} = Coordination.get_session_results(id, 30_000)

    counted =
      for {counter, count} <- stats(), count != before[counter], into: %{} do
        {counter, count - before[counter]}
      end

    assert counted == %{
             started: 6,
             completed: 2,
             failed: 1,
             crashed: 1,
             cancelled: 1,
             retried: 1,
             timed_out: 1
           }
  end

  test "an attempt has one start and one end", %{protocol: protocol} do
    Probe.listen!(protocol)
    {id, _worker} = session = begin(protocol)
    finish(session)

    assert_received {:event, :start, %{system_time: _}, started}
    assert started == %{session: id, protocol: protocol, agents: 1, attempt: 1}
    assert_received {:event, :stop, %{duration: duration}, stopped}
    assert stopped == Map.put(started, :status, :completed)
    assert is_integer(duration) and duration > 0
    refute_received {:event, _name, _measurements, _metadata}
  end
end

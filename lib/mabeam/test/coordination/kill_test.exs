defmodule MABEAM.Coordination.KillTest do
  # Kills processes that all tests use.
  use ExUnit.Case, async: false

  alias MABEAM.Coordination
  alias MABEAM.Test.{Actor, Puppet}

  setup do
    start_supervised!({Task.Supervisor, name: __MODULE__.Tasks})
    whole!()
    Puppet.none_active!()
    on_exit(&whole!/0)
    {:ok, protocol: Puppet.registered!(), retried: Puppet.registered!(Puppet.Retried)}
  end

  # A coordination waits for its server and its supervisor. So when it has come to its end,
  # whatever the test before has killed is back.
  defp whole! do
    assert {:error, {:no_agreement, _outcome}} =
             Coordination.coordinate(:consensus, [Actor.unknown()], %{value: 1})
  end

  defp coordinate(protocol, agents \\ [:nobody]) do
    params = %{test: self()}

    Task.Supervisor.async_nolink(__MODULE__.Tasks, fn ->
      Coordination.coordinate(protocol, agents, params)
    end)
  end

  defp begin(protocol, agents \\ [:nobody]) do
    {:ok, id} = Coordination.coordinate_async(protocol, agents, %{test: self()})
    {id, next_worker()}
  end

  defp next_worker do
    assert_receive {:running, worker, _context}, 5_000
    worker
  end

  defp kill(name) when is_atom(name), do: kill(Process.whereis(name))

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 5_000
  end

  defp assert_down(pid) do
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 5_000
  end

  # Tells the test what `server` receives while `fun` runs. Before OTP 27 a process has one tracer, and
  # Lineage, which checks the suite, watches each.
  defp receives(server, fun) do
    Lineage.yield(fn ->
      :erlang.trace(server, true, [:receive])
      result = fun.()
      :erlang.trace(server, false, [:receive])
      result
    end)
  end

  # An agent that is asked, and answers when told to.
  defp slow_agent do
    test = self()

    Actor.start!(fn _request ->
      send(test, {:asked, self()})
      receive do: ({:answer, answer} -> answer)
    end)
  end

  defp asked do
    assert_receive {:asked, agent}, 5_000
    agent
  end

  describe "the server is killed" do
    test "while a session runs: who waits for it gets its result", %{protocol: protocol} do
      task = coordinate(protocol)
      worker = next_worker()
      kill(Coordination)
      assert Process.alive?(worker)
      send(worker, {:return, {:ok, :survived}})
      assert Task.await(task) == {:ok, :survived}
    end

    test "while a session runs: it can still be cancelled", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      kill(Coordination)
      assert Coordination.cancel_session(id) == :ok
      refute Process.alive?(worker)
      assert Coordination.get_session_results(id, 5_000) == {:error, :cancelled}
    end

    test "as the worker hands in its result: it does so again", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      server = Process.whereis(Coordination)
      :ok = :sys.suspend(server)

      # The worker has asked when its message is in the queue; the server will not get to it.
      receives(server, fn ->
        send(worker, {:return, {:ok, :survived}})

        assert_receive {:trace, ^server, :receive, {:"$gen_call", _from, {:ended, ^id, _, _, _}}},
                       5_000
      end)

      kill(server)
      assert Coordination.get_session_results(id, 5_000) == {:ok, :survived}
    end

    test "and the worker with it: the session has crashed", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      :ok = :sys.suspend(Coordination)
      kill(worker)
      kill(Coordination)
      assert {:error, {:crashed, :noproc}} = Coordination.get_session_results(id, 5_000)
    end

    test "and the worker with it: the session is run again", %{retried: protocol} do
      {id, worker} = begin(protocol)
      :ok = :sys.suspend(Coordination)
      kill(worker)
      kill(Coordination)
      send(next_worker(), {:return, {:ok, :again}})
      assert Coordination.get_session_results(id, 5_000) == {:ok, :again}
    end

    test "and the caller with it: the session is cancelled", %{protocol: protocol} do
      task = coordinate(protocol)
      worker = next_worker()
      :ok = :sys.suspend(Coordination)
      kill(task.pid)
      kill(Coordination)
      assert_down(worker)
    end

    test "and nobody hands in anything: the deadline holds", %{protocol: protocol} do
      {:ok, id} =
        Coordination.coordinate_async(protocol, [:nobody], %{test: self()}, timeout: 3_000)

      worker = next_worker()
      kill(Coordination)
      assert Coordination.get_session_results(id, 30_000) == {:error, :timeout}
      refute Process.alive?(worker)
    end

    test "before it has started a session's worker: its successor does", %{protocol: protocol} do
      :ok = :sys.suspend(MABEAM.CoordinationSupervisor)
      supervisor = Process.whereis(MABEAM.CoordinationSupervisor)

      task =
        receives(supervisor, fn ->
          task = coordinate(protocol)
          assert_receive {:trace, ^supervisor, :receive, {:"$gen_call", _from, _start}}, 5_000
          task
        end)

      kill(Coordination)
      :ok = :sys.resume(supervisor)

      # The worker that the first server asked for is not in the table: it does not run.
      send(next_worker(), {:return, {:ok, :once}})
      assert Task.await(task) == {:ok, :once}
      refute_received {:running, _worker, _context}
      assert MABEAM.CoordinationSupervisor.workers() == []
    end

    test "and results, protocols and counts are still there", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      send(worker, {:return, {:ok, :kept}})
      {:ok, :kept} = Coordination.get_session_results(id, 5_000)
      {:ok, before} = Coordination.get_coordination_stats()
      kill(Coordination)
      assert Coordination.get_session_results(id, 5_000) == {:ok, :kept}
      assert Coordination.get_coordination_stats() == {:ok, before}
      assert Coordination.register_protocol(protocol, Puppet) == {:error, :already_registered}
    end
  end

  describe "the tables' keeper is killed" do
    test "and the server after it: nothing is lost", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      server = Process.whereis(Coordination)

      receives(server, fn ->
        kill(MABEAM.TableKeeper)
        assert_receive {:trace, ^server, :receive, {:table_heir, _keeper}}, 5_000
      end)

      {:ok, _sessions} = Coordination.list_active_sessions()

      kill(server)
      send(worker, {:return, {:ok, :kept}})
      assert Coordination.get_session_results(id, 5_000) == {:ok, :kept}
    end
  end

  describe "the supervisor of coordinations is killed" do
    test "and its workers with it: sessions end", %{protocol: protocol} do
      task = coordinate(protocol)
      worker = next_worker()
      kill(MABEAM.CoordinationSupervisor)
      assert_down(worker)
      assert Task.await(task) == {:error, {:crashed, :killed}}
    end

    test "and its workers with it: sessions are run again", %{retried: protocol} do
      task = coordinate(protocol)
      next_worker()
      kill(MABEAM.CoordinationSupervisor)
      send(next_worker(), {:return, {:ok, :again}})
      assert Task.await(task) == {:ok, :again}
    end
  end

  describe "while an agent is asked" do
    test "the worker is killed: nobody waits for the answer", %{protocol: protocol} do
      agent = slow_agent()
      {id, worker} = begin(protocol, [agent])
      send(worker, {:ask, :think, 60_000})
      pid = asked()
      kill(worker)
      Puppet.given_up!(agent)
      assert Coordination.get_session_results(id, 5_000) == {:error, {:crashed, :killed}}
      send(pid, {:answer, :late})
    end

    test "the agent's gate is killed: it is named, the others answer", %{protocol: protocol} do
      [a, b] = agents = [slow_agent(), slow_agent()]
      {id, worker} = begin(protocol, agents)
      send(worker, {:ask, :think, 5_000})
      pids = [asked(), asked()]
      {:ok, gate} = MABEAM.AgentRegistry.gate(a)
      kill(gate)
      Enum.each(pids, &send(&1, {:answer, 42}))

      assert Coordination.get_session_results(id, 5_000) ==
               {:ok, [{a, {:error, {:agent_down, :killed}}}, {b, {:ok, 42}}]}
    end

    test "the agent is killed: it is named, the others answer", %{protocol: protocol} do
      [a, b] = agents = [slow_agent(), slow_agent()]
      {id, worker} = begin(protocol, agents)
      send(worker, {:ask, :think, 5_000})
      [first, second] = [asked(), asked()]
      {:ok, pid} = MABEAM.AgentRegistry.lookup(a)
      kill(pid)
      send(hd([first, second] -- [pid]), {:answer, 42})

      assert Coordination.get_session_results(id, 5_000) ==
               {:ok, [{a, {:error, {:agent_down, :killed}}}, {b, {:ok, 42}}]}
    end
  end

  test "any of them is killed under load: each coordination has an end, and nothing is left" do
    agents = for n <- 1..5, do: Actor.start!(fn _request -> {:bid, n} end)

    callers =
      for _caller <- 1..8 do
        Task.Supervisor.async_nolink(__MODULE__.Tasks, fn ->
          for n <- 1..50 do
            if rem(n, 5) == 0, do: kill_one()
            Coordination.coordinate(:auction, agents, %{})
          end
        end)
      end

    for result <- callers |> Task.await_many(60_000) |> List.flatten() do
      assert match?({:ok, %{price: 5}}, result) or match?({:error, {:crashed, _reason}}, result)
    end

    whole!()
    assert Coordination.list_active_sessions() == {:ok, []}
    Enum.each(MABEAM.CoordinationSupervisor.workers(), &assert_down/1)
  end

  # Never the tables' keeper: what it keeps is lost when the server dies at the same time.
  defp kill_one do
    pid =
      case Enum.random([:name, :worker]) do
        :name -> Process.whereis(Enum.random([Coordination, MABEAM.CoordinationSupervisor]))
        :worker -> random(MABEAM.CoordinationSupervisor.workers())
      end

    if pid, do: Process.exit(pid, :kill)
  end

  defp random([]), do: nil
  defp random(pids), do: Enum.random(pids)
end

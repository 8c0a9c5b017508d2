defmodule MABEAM.Coordination.TakeoverTest do
  @moduledoc """
  Coordinations of three nodes that are killed, parted and brought together again.

  The environment's `FOUNDATION_ROUNDS` says how often the tests of nodes that are killed do so,
  one after the other; once if it is not set.
  """
  use ExUnit.Case, async: false

  alias Foundation.Test.{Cluster, Peer}
  alias MABEAM.Coordination
  alias MABEAM.Coordination.Record
  alias MABEAM.Test.Held

  @moduletag timeout: 600_000

  @rounds String.to_integer(System.get_env("FOUNDATION_ROUNDS", "1"))
  @long [timeout: 120_000]

  setup context do
    env = Map.get(context, :env, [])
    cluster = Cluster.start(apps: [:mabeam], env: [{:foundation, :max_restarts, 1_000} | env])
    Cluster.await_view(cluster, cluster.members)
    for node <- cluster.members, do: Cluster.call(cluster, node, Held, :start, [])
    {:ok, cluster: cluster, members: cluster.members}
  end

  defp begin(cluster, node, protocol \\ :held, options \\ @long),
    do: Cluster.call(cluster, node, Held, :begin, [protocol, options])

  defp let_go(cluster, node, id, result \\ {:ok, :done}),
    do: Cluster.call(cluster, node, Held, :let_go, [id, result])

  defp result(cluster, node, id, timeout \\ 30_000),
    do: Cluster.call(cluster, node, Coordination, :get_session_results, [id, timeout], 60_000)

  defp results(cluster, nodes, id), do: Enum.map(nodes, &result(cluster, &1, id))

  # The one of `nodes` where the session was taken over: the first to say so.
  defp taker(cluster, nodes, id) do
    supervisor = start_supervised!(Task.Supervisor, id: make_ref())

    tasks =
      for node <- nodes do
        Task.Supervisor.async_nolink(supervisor, fn ->
          {node, Cluster.call(cluster, node, Held, :await_event, [:takeover, id], 60_000)}
        end)
      end

    refs = Enum.map(tasks, & &1.ref)

    receive do
      {ref, answer} when is_reference(ref) ->
        assert ref in refs
        Enum.each(tasks, &Task.shutdown(&1, :brutal_kill))
        answer
    after
      60_000 -> flunk("nobody took the session over")
    end
  end

  defp counted(cluster, nodes, counter) do
    nodes
    |> Enum.map(fn node ->
      {:ok, stats} = Cluster.call(cluster, node, Coordination, :get_coordination_stats, [])
      stats[counter]
    end)
    |> Enum.sum()
  end

  defp times_held(cluster, nodes, id),
    do: Enum.sum(Enum.map(nodes, &Cluster.call(cluster, &1, Held, :times_held, [id])))

  # The servers of `nodes` hear of nothing from now on. What they had begun before, when the cluster
  # came together, has ended: it would take the sessions of a node that goes down meanwhile.
  defp deafen(cluster, nodes) do
    for node <- nodes do
      Cluster.call(cluster, node, :sys, :suspend, [Coordination])
      Cluster.call(cluster, node, Peer, :quiet, [MABEAM.TaskSupervisor])
    end
  end

  # Kills a member, and starts it again at the end.
  defp without(cluster, node, fun) do
    Cluster.kill(cluster, node)
    result = fun.(cluster.members -- [node])
    Cluster.start_node(cluster, node)
    Cluster.await_view(cluster, cluster.members)
    Cluster.call(cluster, node, Held, :start, [])
    result
  end

  describe "a session" do
    test "has one result for all members", %{cluster: cluster, members: [a | _] = members} do
      id = begin(cluster, a)

      for node <- members do
        assert result(cluster, node, id, 0) == {:error, :pending}
      end

      let_go(cluster, a, id)
      assert results(cluster, members, id) == [{:ok, :done}, {:ok, :done}, {:ok, :done}]
    end

    test "is heard of by those who wait elsewhere", %{cluster: cluster, members: [a, b, c]} do
      id = begin(cluster, a)
      supervisor = start_supervised!(Task.Supervisor)

      waiting =
        for node <- [b, c],
            do: Task.Supervisor.async_nolink(supervisor, fn -> result(cluster, node, id) end)

      let_go(cluster, a, id, {:error, :no_luck})
      assert Task.await_many(waiting, 60_000) == [{:error, :no_luck}, {:error, :no_luck}]
    end

    test "that is cancelled has ended for all", %{cluster: cluster, members: [a, b, c]} do
      id = begin(cluster, a)

      assert Cluster.call(cluster, b, Coordination, :cancel_session, [id]) ==
               {:error, :unknown_session}

      assert Cluster.call(cluster, a, Coordination, :cancel_session, [id]) == :ok
      assert results(cluster, [a, b, c], id) |> Enum.uniq() == [{:error, :cancelled}]
    end

    test "that nobody knows is unknown", %{cluster: cluster, members: [a | _]} do
      assert result(cluster, a, make_ref()) == {:error, :unknown_session}
    end
  end

  describe "a node is killed" do
    test "its session is run again, once", %{cluster: cluster, members: members} do
      for round <- 1..@rounds do
        node = Enum.at(members, rem(round, 3))
        id = begin(cluster, node)

        without(cluster, node, fn left ->
          taken = counted(cluster, left, :taken_over)
          {taker, takeover} = taker(cluster, left, id)
          assert %{from: ^node, action: :restart, protocol: :held, agents: 1} = takeover
          let_go(cluster, taker, id, {:ok, round})
          assert results(cluster, left, id) == [{:ok, round}, {:ok, round}]
          assert times_held(cluster, left, id) == 1
          assert counted(cluster, left, :taken_over) in [taken, taken + 1]
        end)

        # It has not forgotten what it had never known.
        assert result(cluster, node, id) == {:ok, round}
      end
    end

    test "its session is reported, once, where the protocol says so", context do
      %{cluster: cluster, members: members} = context

      for round <- 1..@rounds do
        node = Enum.at(members, rem(round, 3))
        id = begin(cluster, node, :report)

        without(cluster, node, fn left ->
          lost = {:error, {:node_down, node}}
          assert {_taker, %{action: :report, from: ^node}} = taker(cluster, left, id)
          assert results(cluster, left, id) == [lost, lost]
          assert times_held(cluster, left, id) == 0
        end)
      end
    end

    test "its session is reported when its caller has gone with it", context do
      %{cluster: cluster, members: [a, b, c]} = context
      id = Cluster.call(cluster, a, Held, :begin_waited_for, [:held])
      Cluster.kill(cluster, a)
      lost = {:error, {:node_down, a}}
      assert {_taker, %{action: :report}} = taker(cluster, [b, c], id)
      assert results(cluster, [b, c], id) == [lost, lost]
      assert counted(cluster, [b, c], :reported) == 1
      assert counted(cluster, [b, c], :taken_over) == 0
    end

    test "results that it had are kept", %{cluster: cluster, members: [a, b, c]} do
      id = begin(cluster, a)
      let_go(cluster, a, id)
      assert result(cluster, a, id) == {:ok, :done}
      Cluster.kill(cluster, a)
      assert results(cluster, [b, c], id) == [{:ok, :done}, {:ok, :done}]
      assert counted(cluster, [b, c], :reported) == 0
    end

    test "while nobody can notice: whose server returns takes over", context do
      %{cluster: cluster, members: [a, b, c]} = context
      id = begin(cluster, a)
      deafen(cluster, [b, c])
      Cluster.kill(cluster, a)
      Cluster.await_view(cluster, [b, c])
      for node <- [b, c], do: Cluster.call(cluster, node, Held, :kill, [Coordination])

      {taker, %{action: :restart}} = taker(cluster, [b, c], id)
      let_go(cluster, taker, id)
      assert results(cluster, [b, c], id) == [{:ok, :done}, {:ok, :done}]
      assert times_held(cluster, [b, c], id) == 1
    end

    test "and its session taken by a server that is killed over it", context do
      %{cluster: cluster, members: [a, b, c]} = context
      [again, lost] = [begin(cluster, a), begin(cluster, a, :report)]
      deafen(cluster, [b, c])
      Cluster.kill(cluster, a)
      Cluster.await_view(cluster, [b, c])

      # What the server of b would have done, which does not hear of it.
      {:ok, [_again, _lost], []} = Cluster.call(cluster, b, Record, :take, [30_000])
      for node <- [b, c], do: Cluster.call(cluster, node, Held, :kill, [Coordination])

      assert {^b, %{action: :restart, from: ^a}} = taker(cluster, [b, c], again)
      assert {^b, %{action: :report, from: ^a}} = taker(cluster, [b, c], lost)
      let_go(cluster, b, again)
      assert results(cluster, [b, c], again) == [{:ok, :done}, {:ok, :done}]
      assert results(cluster, [b, c], lost) |> Enum.uniq() == [{:error, {:node_down, a}}]
      assert times_held(cluster, [b, c], again) == 1
    end

    test "and its session taken by what a server had begun before it is killed", context do
      %{cluster: cluster, members: [a, b, c]} = context
      [again, lost] = [begin(cluster, a), begin(cluster, a, :report)]
      deafen(cluster, [b, c])

      # It waits for a transaction of a, and so for the end of a.
      Cluster.call(cluster, a, Held, :hold_ledger, [])
      take = [MABEAM.TaskSupervisor, Record, :take, [30_000]]
      {:ok, _task} = Cluster.call(cluster, c, Task.Supervisor, :start_child, take)
      Cluster.kill(cluster, a)
      Cluster.await_view(cluster, [b, c])
      Cluster.call(cluster, c, Peer, :quiet, [MABEAM.TaskSupervisor])

      # They are not lost to b, which has never run them, and not there for it to take.
      assert Cluster.call(cluster, b, Record, :take, [30_000]) == {:ok, [], []}
      for node <- [b, c], do: Cluster.call(cluster, node, Held, :kill, [Coordination])

      assert {^c, %{action: :restart, from: ^a}} = taker(cluster, [b, c], again)
      assert {^c, %{action: :report, from: ^a}} = taker(cluster, [b, c], lost)
      let_go(cluster, c, again)
      assert results(cluster, [b, c], again) == [{:ok, :done}, {:ok, :done}]
      assert results(cluster, [b, c], lost) |> Enum.uniq() == [{:error, {:node_down, a}}]
      assert times_held(cluster, [b, c], again) == 1
    end

    test "and then the one that took over: the next one does", context do
      %{cluster: cluster, members: [a, b, c] = members} = context
      id = begin(cluster, a)

      {taker, left} =
        without(cluster, a, fn left ->
          {taker, _takeover} = taker(cluster, left, id)
          Cluster.call(cluster, taker, Held, :await_held, [id])
          {taker, members -- [taker]}
        end)

      assert taker in [b, c]

      without(cluster, taker, fn ^left ->
        assert {next, %{action: :restart, from: ^taker}} = taker(cluster, left, id)
        let_go(cluster, next, id)
        assert results(cluster, left, id) == [{:ok, :done}, {:ok, :done}]
        assert times_held(cluster, left, id) == 1
      end)

      assert results(cluster, members, id) |> Enum.uniq() == [{:ok, :done}]
    end

    test "and the one that took over, too: it is run again when they are back", context do
      %{cluster: cluster, members: [a, b, c] = members} = context
      id = begin(cluster, a)
      Cluster.kill(cluster, a)
      {taker, _takeover} = taker(cluster, [b, c], id)
      Cluster.call(cluster, taker, Held, :await_held, [id])
      [last] = [b, c] -- [taker]
      Cluster.kill(cluster, taker)
      assert result(cluster, last, id, 1_000) in [{:error, :no_quorum}, {:error, :pending}]

      # They have forgotten it, and go on from what the last one knows.
      for node <- [a, taker], do: Cluster.start_node(cluster, node)
      Cluster.await_view(cluster, members)
      for node <- [a, taker], do: Cluster.call(cluster, node, Held, :start, [])
      let_go(cluster, taker, id)
      assert results(cluster, members, id) |> Enum.uniq() == [{:ok, :done}]
      assert times_held(cluster, members, id) == 1
    end
  end

  describe "a node is cut off" do
    test "its session is taken over, and has one result", context do
      %{cluster: cluster, members: [a, b, c] = members} = context
      id = begin(cluster, a)
      Cluster.part(cluster, [[a], [b, c]])
      {taker, %{action: :restart, from: ^a}} = taker(cluster, [b, c], id)
      let_go(cluster, taker, id, {:ok, :majority})
      assert results(cluster, [b, c], id) == [{:ok, :majority}, {:ok, :majority}]

      # The first one goes on, and cannot tell its result to a majority.
      let_go(cluster, a, id, {:ok, :minority})
      assert result(cluster, a, id, 500) in [{:error, :pending}, {:error, :no_quorum}]

      Cluster.heal(cluster)
      Cluster.await_view(cluster, members)
      assert results(cluster, members, id) |> Enum.uniq() == [{:ok, :majority}]
    end

    test "and its deadline comes: it tells that there is no majority", context do
      %{cluster: cluster, members: [a, b, c] = members} = context
      id = begin(cluster, a, :report, timeout: 10_000)
      Cluster.part(cluster, [[a], [b, c]])
      let_go(cluster, a, id, {:ok, :minority})
      lost = {:error, {:node_down, a}}
      assert results(cluster, [b, c], id) == [lost, lost]

      assert %{reason: :no_quorum} =
               Cluster.call(cluster, a, Held, :await_event, [:exception, id])

      assert result(cluster, a, id, 10_000) == {:error, :no_quorum}

      Cluster.heal(cluster)
      Cluster.await_view(cluster, members)
      assert result(cluster, a, id) == lost
    end

    test "it begins no session without a majority", context do
      %{cluster: cluster, members: [a, b, c]} = context
      Cluster.part(cluster, [[a], [b, c]])
      arguments = [:held, [:nobody], %{}, [timeout: 2_000]]

      assert Cluster.call(cluster, a, Coordination, :coordinate, arguments) ==
               {:error, :no_quorum}

      assert Cluster.call(cluster, a, Coordination, :list_active_sessions, []) == {:ok, []}
    end

    test "and is back: its worker is stopped, as another one has the session", context do
      %{cluster: cluster, members: [a, b, c] = members} = context
      id = begin(cluster, a)
      Cluster.part(cluster, [[a], [b, c]])
      {taker, %{action: :restart}} = taker(cluster, [b, c], id)
      Cluster.heal(cluster)
      Cluster.await_view(cluster, members)

      assert %{status: :failed} = Cluster.call(cluster, a, Held, :await_event, [:stop, id])
      assert Cluster.call(cluster, a, MABEAM.CoordinationSupervisor, :workers, []) == []
      let_go(cluster, taker, id)
      assert results(cluster, members, id) |> Enum.uniq() == [{:ok, :done}]
    end

    test "and is back before anybody took its session: the session goes on", context do
      %{cluster: cluster, members: [a, b, c] = members} = context
      id = begin(cluster, a)
      deafen(cluster, [b, c])
      Cluster.part(cluster, [[a], [b, c]])
      Cluster.heal(cluster)
      Cluster.await_view(cluster, members)
      for node <- [b, c], do: Cluster.call(cluster, node, :sys, :resume, [Coordination])
      let_go(cluster, a, id)
      assert results(cluster, members, id) |> Enum.uniq() == [{:ok, :done}]
      assert times_held(cluster, members, id) == 1
    end
  end

  @tag env: [{:mabeam, :max_sessions, 10}]
  test "records are kept as long as sessions, and those of a dead node, too", context do
    %{cluster: cluster, members: [a, b, c]} = context

    for _round <- 1..25 do
      id = begin(cluster, a)
      let_go(cluster, a, id)
      assert result(cluster, a, id) == {:ok, :done}
    end

    assert length(Cluster.call(cluster, a, Held, :records, [])) <= 10 + 2
    Cluster.kill(cluster, a)
    Cluster.await_view(cluster, [b, c])

    for _round <- 1..25 do
      id = begin(cluster, b)
      let_go(cluster, b, id)
      assert result(cluster, b, id) == {:ok, :done}
    end

    assert length(Cluster.call(cluster, b, Held, :records, [])) <= 20 + 2
  end

  @tag env: [{:foundation, :supervision, [phase_4: false]}]
  test "with the phase off, nobody knows of the sessions of others", context do
    %{cluster: cluster, members: [a, b, c]} = context
    id = begin(cluster, a)
    assert Cluster.call(cluster, a, Held, :records, []) == []
    assert result(cluster, b, id) == {:error, :unknown_session}
    Cluster.kill(cluster, a)
    assert results(cluster, [b, c], id) |> Enum.uniq() == [{:error, :unknown_session}]
    assert Record.tag() == :mabeam_session
  end
end

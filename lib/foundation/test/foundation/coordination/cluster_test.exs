defmodule Foundation.Coordination.ClusterTest do
  @moduledoc """
  Three nodes that are together, and what they do with each other.
  """
  use ExUnit.Case, async: false

  alias Foundation.Coordination.{Consensus, Messenger, Primitives}
  alias Foundation.Legacy
  alias Foundation.Test.{Actor, Cluster, Peer}

  @moduletag timeout: 180_000

  setup_all do
    cluster = Cluster.start(lineage: true)
    Cluster.await_view(cluster, cluster.members)
    {:ok, cluster: cluster}
  end

  setup %{cluster: cluster} do
    [a, b, c] = Enum.shuffle(cluster.members)
    {:ok, a: a, b: b, c: c, id: make_ref()}
  end

  defp on(%{cluster: cluster}, node, function, arguments),
    do: Cluster.call(cluster, node, Primitives, function, arguments)

  defp each(%{cluster: cluster}, module, function, arguments),
    do: Cluster.call_each(cluster, cluster.members, module, function, arguments)

  # Starts an actor on a node that ends with the test.
  defp actor(%{cluster: cluster}, node, name) do
    :ok = Cluster.call(cluster, node, Actor, :start, [name])
    on_exit(fn -> Cluster.call(cluster, node, Peer, :kill, [name]) end)
  end

  defp switch(%{cluster: cluster} = context, phase, enabled?) do
    each(context, Foundation.Supervision, :switch, [phase, enabled?])

    on_exit({:switch, phase}, fn ->
      for node <- cluster.members do
        Cluster.call(cluster, node, Foundation.Supervision, :switch, [phase, true])
      end
    end)
  end

  test "all agree on values, in one order", %{id: id} = context do
    results = each(context, Primitives, :consensus, [id])
    assert [{:ok, %{value: ^id}}, {:ok, %{value: ^id}}, {:ok, %{value: ^id}}] = results
    indexes = for {:ok, %{index: index}} <- results, do: index
    assert length(Enum.uniq(indexes)) == 3
    assert [{:ok, log}] = context |> each(Consensus, :log, [5_000]) |> Enum.uniq()
    for {:ok, entry} <- results, do: assert(entry in log)
  end

  test "each member stores an event when a value is committed",
       %{cluster: cluster, a: a} = context do
    {:ok, entry} = on(context, a, :consensus, [context.id])

    for node <- cluster.members,
        do: Cluster.call(cluster, node, Peer, :await_event, [:consensus_committed, entry])
  end

  test "all have the same leader, and are told", %{cluster: cluster} = context do
    assert [{:ok, leader}] = context |> each(Primitives, :elect_leader, []) |> Enum.uniq()
    assert leader.leader in cluster.members

    for node <- cluster.members,
        do: Cluster.call(cluster, node, Peer, :await_event, [:leader_announced, leader])
  end

  test "a counter counts what is counted anywhere", %{id: id} = context do
    for _n <- 1..5, do: each(context, Primitives, :increment_counter, [id, 2])
    assert [{:ok, 30}] = context |> each(Primitives, :get_counter, [id]) |> Enum.uniq()
  end

  test "a lock is held on one node at a time",
       %{cluster: cluster, a: a, b: b, id: id} = context do
    actor(context, a, :holder)
    actor(context, b, :other)

    {:ok, lock} =
      Cluster.call(cluster, a, Actor, :run, [:holder, Primitives, :acquire_lock, [id]])

    assert {:error, :timeout} = on(context, b, :acquire_lock, [id, [timeout: 200]])

    arguments = [id, [timeout: 20_000]]
    Cluster.call(cluster, b, Actor, :begin, [:other, Primitives, :acquire_lock, arguments])
    assert on(context, a, :release_lock, [lock]) == :ok
    assert {:ok, next} = Cluster.call(cluster, b, Actor, :result, [:other])
    assert next.token > lock.token

    Cluster.call(cluster, a, Actor, :begin, [:holder, Primitives, :acquire_lock, arguments])
    Cluster.call(cluster, b, Actor, :kill, [:other])
    assert {:ok, last} = Cluster.call(cluster, a, Actor, :result, [:holder])
    assert last.token > next.token
    assert on(context, b, :release_lock, [next]) == {:error, :not_held}
    assert on(context, b, :release_lock, [last]) == :ok
  end

  test "a barrier is waited at on all nodes", %{id: id} = context do
    for _round <- 1..3 do
      assert each(context, Primitives, :barrier_sync, [id, 3, 20_000]) == [:ok, :ok, :ok]
    end

    assert {:error, :timeout} = on(context, context.a, :barrier_sync, [id, 2, 100])
  end

  test "who dies at a barrier is not waited with", %{cluster: cluster, a: a, id: id} = context do
    actor(context, a, :waiting)

    arguments = [:waiting, Primitives, :barrier_sync, [id, 2, 60_000]]
    Cluster.call(cluster, a, Actor, :begin, arguments)

    Cluster.call(cluster, context.b, Peer, :await_keys, [{:barrier, id}, 1])
    Cluster.call(cluster, a, Actor, :kill, [:waiting])
    Cluster.call(cluster, context.b, Peer, :await_keys, [{:barrier, id}, 0])
    assert {:error, :timeout} = on(context, context.b, :barrier_sync, [id, 2, 200])
  end

  test "what a caller has begun on other nodes ends with it",
       %{cluster: cluster, a: a} = context do
    actor(context, a, :caller)
    others = cluster.members -- [a]
    arguments = [others, Peer, :wait_for_ever, [:remote], Foundation.Call.deadline(3_600_000)]
    Cluster.call(cluster, a, Actor, :begin, [:caller, Messenger, :call, arguments])
    for node <- others, do: Cluster.call(cluster, node, Peer, :await_name, [:remote])
    Cluster.call(cluster, a, Actor, :kill, [:caller])
    for node <- others, do: Cluster.call(cluster, node, Peer, :await_end, [:remote])
    for node <- cluster.members, do: Cluster.call(cluster, node, Peer, :quiet, [])
  end

  describe "the seven messages" do
    test "are sent by processes that nobody supervises when phase_2 is off", context do
      %{cluster: cluster, a: a, b: b, c: c} = context
      switch(context, :phase_2, false)
      {:ok, leader} = on(context, a, :elect_leader, [])
      {:ok, entry} = on(context, a, :consensus, [context.id])

      for node <- cluster.members do
        Cluster.call(cluster, node, Peer, :await_event, [:leader_announced, leader])
        Cluster.call(cluster, node, Peer, :await_event, [:consensus_committed, entry])
      end

      assert Cluster.call(cluster, a, Peer, :recent, [Legacy.Messenger]) ==
               [:announce_helper, :commit_helper, :election_helper, :propose_helper]

      for peer <- [b, c] do
        assert Cluster.call(cluster, peer, Peer, :recent, [Legacy.Messenger]) ==
                 [:commit_on_peer, :election_on_peer, :propose_on_peer]
      end
    end

    test "are sent by supervised tasks when it is on", %{cluster: cluster, a: a} = context do
      before = each(context, Peer, :births_of, [Legacy.Messenger])
      {:ok, _leader} = on(context, a, :elect_leader, [])
      {:ok, entry} = on(context, a, :consensus, [context.id])

      for node <- cluster.members do
        Cluster.call(cluster, node, Peer, :await_event, [:consensus_committed, entry])
        Cluster.call(cluster, node, Peer, :quiet, [])
        assert Cluster.call(cluster, node, Peer, :orphans, []) == []
      end

      assert each(context, Peer, :births_of, [Legacy.Messenger]) == before
    end
  end

  test "with phase_4 off each node goes by what it is told",
       %{cluster: cluster, a: a, b: b} = context do
    switch(context, :phase_4, false)
    id = context.id
    {:ok, 5} = on(context, a, :increment_counter, [id, 5])
    Cluster.call(cluster, b, Peer, :await_value, [{:counter, id}, 5])
    assert on(context, b, :increment_counter, [id, 1]) == {:ok, 6}

    {:ok, entry} = on(context, a, :consensus, [id])

    for node <- cluster.members do
      Cluster.call(cluster, node, Peer, :await_event, [:consensus_committed, entry])
      Cluster.call(cluster, node, Peer, :await_value, [{:log, entry.index}, id])
    end
  end

  test "a node on which Foundation is stopped and started again goes on", context do
    %{cluster: cluster, a: a, b: b, id: id} = context
    {:ok, 1} = on(context, a, :increment_counter, [id])
    :ok = Cluster.call(cluster, a, Application, :stop, [:foundation])
    assert on(context, a, :increment_counter, [id]) == {:error, :unavailable}
    assert {:ok, 2} = on(context, b, :increment_counter, [id])
    {:ok, _apps} = Cluster.call(cluster, a, Application, :ensure_all_started, [:foundation])
    Cluster.await_view(cluster, cluster.members)
    assert on(context, a, :increment_counter, [id]) == {:ok, 3}
    assert Cluster.call(cluster, a, Peer, :orphans, []) == []
  end

  test "the ledger's watchers on all nodes hear of a change", %{cluster: cluster, a: a, id: id} do
    {:ok, _} = Cluster.call(cluster, a, Primitives, :increment_counter, [id])

    for node <- cluster.members,
        do: Cluster.call(cluster, node, Peer, :await_value, [{:counter, id}, 1])
  end
end

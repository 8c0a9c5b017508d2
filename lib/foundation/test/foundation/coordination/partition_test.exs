defmodule Foundation.Coordination.PartitionTest do
  @moduledoc """
  Three nodes that are parted and come together again, crash and come back, while they are used.

  `FOUNDATION_ROUNDS` says how often each kind of it happens, 2 unless told.
  """
  use ExUnit.Case, async: false

  alias Foundation.Coordination
  alias Foundation.Coordination.{Consensus, Primitives, Store}
  alias Foundation.Test.{Actor, Cluster, Load, Peer}

  @rounds String.to_integer(System.get_env("FOUNDATION_ROUNDS", "2"))
  @moduletag timeout: 120_000 + @rounds * 60_000

  setup do
    cluster = Cluster.start(lineage: true)
    Cluster.await_view(cluster, cluster.members)
    {:ok, cluster: cluster}
  end

  defp on(cluster, node, function, arguments),
    do: Cluster.call(cluster, node, Primitives, function, arguments)

  test "one of three is cut off", %{cluster: cluster} do
    rounds(cluster, fn [a, b, c] ->
      Cluster.part(cluster, [[a], [b, c]])
      Cluster.await_view(cluster, [b, c])
      refused(cluster, a)
      for node <- [b, c], do: assert({:ok, _} = on(cluster, node, :consensus, [make_ref()]))
    end)
  end

  test "all are apart, then two of them come together", %{cluster: cluster} do
    rounds(cluster, fn [a, b, c] = nodes ->
      Cluster.part(cluster, [[a], [b], [c]])
      Enum.each(nodes, &refused(cluster, &1))
      Cluster.join(cluster, b, c)
      Cluster.await_view(cluster, [b, c])
      refused(cluster, a)
      for node <- [b, c], do: assert({:ok, _} = on(cluster, node, :consensus, [make_ref()]))
    end)
  end

  test "two of three lose only each other", %{cluster: cluster} do
    rounds(cluster, fn [a, b, c] ->
      Cluster.cut(cluster, a, b)
      majority = cut_majority(cluster, [a, b], c)
      for node <- majority, do: assert({:ok, _} = on(cluster, node, :consensus, [make_ref()]))
    end)
  end

  # One of the two goes on with the third. Which one is `:global`'s choice, and it may choose
  # again while it separates them; in the end the other one is refused, and the majority stays.
  defp cut_majority(cluster, pair, third) do
    {:ok, majority} = Cluster.call(cluster, third, Peer, :await_view_of_two, [30_000])
    [alone] = pair -- majority

    case on(cluster, alone, :consensus, [make_ref(), [timeout: 3_000]]) do
      {:error, :no_quorum} -> majority
      {:ok, _entry} -> cut_majority(cluster, pair, third)
    end
  end

  test "a node crashes, and comes back without memory", %{cluster: cluster} do
    rounds(cluster, fn [a, b, c] ->
      answers = Cluster.call(cluster, a, Load, :stop, [])
      Cluster.kill(cluster, a)
      Cluster.await_view(cluster, [b, c])
      for node <- [b, c], do: assert({:ok, _} = on(cluster, node, :consensus, [make_ref()]))
      Cluster.start_node(cluster, a)
      :ok = Cluster.call(cluster, a, Load, :start, [1_000])
      answers
    end)
  end

  test "a node that is lost before it is part of the majority joins again", %{cluster: cluster} do
    [a, b, c] = cluster.members
    :ok = Cluster.call(cluster, c, :sys, :suspend, [Coordination.Cluster.Server])
    :ok = Cluster.call(cluster, c, Store, :stop, [])
    Cluster.await_view(cluster, [a, b])
    :ok = Cluster.call(cluster, c, Peer, :visit, [[a, b]])
    :ok = Cluster.call(cluster, c, :sys, :resume, [Coordination.Cluster.Server])
    Cluster.await_view(cluster, cluster.members)
  end

  test "mnesia is killed on one node after the other, or on all at once", %{cluster: cluster} do
    rounds(cluster, fn nodes ->
      victims = Enum.random([Enum.take(nodes, 1), Enum.take(nodes, 2), nodes])
      for node <- victims, do: Cluster.call(cluster, node, Peer, :kill, [:mnesia_tm])
    end)
  end

  test "a lock is lost with its holder's node, and nobody else's is", %{cluster: cluster} do
    [a, b, c] = Enum.shuffle(cluster.members)
    for node <- [a, b], do: :ok = Cluster.call(cluster, node, Actor, :start, [:holder])

    acquire = fn node, id, timeout ->
      arguments = [:holder, Primitives, :acquire_lock, [id, [timeout: timeout]]]
      Cluster.call(cluster, node, Actor, :run, arguments)
    end

    {:ok, lost} = acquire.(a, :lost, 5_000)
    {:ok, kept} = acquire.(b, :kept, 5_000)

    Cluster.part(cluster, [[a], [b, c]])
    assert on(cluster, a, :release_lock, [lost]) == {:error, :no_quorum}
    assert {:ok, next} = acquire.(b, :lost, 20_000)
    assert next.token > lost.token

    Cluster.heal(cluster)
    Cluster.await_view(cluster, cluster.members)
    assert on(cluster, a, :release_lock, [lost]) == {:error, :not_held}
    assert {:error, :timeout} = acquire.(a, :kept, 200)
    assert on(cluster, c, :release_lock, [kept]) == :ok
    assert on(cluster, c, :release_lock, [next]) == :ok
  end

  test "a leader that is cut off is followed by another one, for the next term", %{
    cluster: cluster
  } do
    {:ok, first} = on(cluster, hd(cluster.members), :elect_leader, [])
    others = cluster.members -- [first.leader]
    Cluster.part(cluster, [[first.leader], others])
    assert on(cluster, first.leader, :elect_leader, [[timeout: 300]]) == {:error, :no_quorum}
    {:ok, second} = on(cluster, hd(others), :elect_leader, [])
    assert second == %{leader: Enum.min(others), term: first.term + 1}

    Cluster.heal(cluster)
    Cluster.await_view(cluster, cluster.members)
    for node <- cluster.members, do: assert(on(cluster, node, :elect_leader, []) == {:ok, second})
  end

  test "who waits at a barrier or for a lock waits through a partition", %{cluster: cluster} do
    [a, b, c] = Enum.shuffle(cluster.members)
    :ok = Cluster.call(cluster, a, Actor, :start, [:waiting])
    arguments = [:waiting, Primitives, :barrier_sync, [:all, 2, 60_000]]
    Cluster.call(cluster, a, Actor, :begin, arguments)
    Cluster.call(cluster, b, Peer, :await_keys, [{:barrier, :all}, 1])

    Cluster.part(cluster, [[a], [b, c]])
    Cluster.call(cluster, b, Peer, :await_keys, [{:barrier, :all}, 0])
    assert {:error, :timeout} = on(cluster, b, :barrier_sync, [:all, 2, 200])

    Cluster.heal(cluster)
    assert on(cluster, c, :barrier_sync, [:all, 2, 30_000]) == :ok
    assert Cluster.call(cluster, a, Actor, :result, [:waiting]) == :ok
  end

  test "what was waited for until there is a majority is done then", %{cluster: cluster} do
    [a, b, c] = Enum.shuffle(cluster.members)
    Cluster.part(cluster, [[a], [b, c]])
    :ok = Cluster.call(cluster, a, Actor, :start, [:patient])
    arguments = [:patient, Primitives, :consensus, [:patience, [timeout: 60_000]]]
    Cluster.call(cluster, a, Actor, :begin, arguments)
    refused(cluster, a)
    Cluster.heal(cluster)
    assert {:ok, %{value: :patience}} = Cluster.call(cluster, a, Actor, :result, [:patient])
  end

  # Lets things happen to the nodes, in another order each time, while each of them is used; then
  # they must all be together again, know the same, and nothing that was answered may have been
  # untrue.
  defp rounds(cluster, happen) do
    before = census(cluster)

    Enum.reduce(1..@rounds, Load.nothing(), fn _round, answers ->
      for node <- cluster.members, do: :ok = Cluster.call(cluster, node, Load, :start, [1_000])
      happened = happen.(Enum.shuffle(cluster.members))
      answers = if is_map(happened), do: Load.add_up(answers, happened), else: answers
      Cluster.heal(cluster)
      Cluster.await_view(cluster, cluster.members)

      answers =
        for node <- cluster.members, reduce: answers do
          answers -> Load.add_up(answers, Cluster.call(cluster, node, Load, :stop, []))
        end

      assert answers.odd == []
      same(cluster)
      true?(cluster, answers)
      clean(cluster, before)
      answers
    end)
  end

  # Without a majority there is an answer at the deadline, and it is no.
  defp refused(cluster, node) do
    {us, answer} =
      :timer.tc(fn -> on(cluster, node, :consensus, [:refused, [timeout: 1_000]]) end)

    assert answer == {:error, :no_quorum}
    assert us >= 1_000_000
    assert on(cluster, node, :acquire_lock, [:refused, [timeout: 100]]) == {:error, :no_quorum}
    assert on(cluster, node, :elect_leader, [[timeout: 100]]) == {:error, :no_quorum}
    assert on(cluster, node, :barrier_sync, [:refused, 1, 100]) == {:error, :no_quorum}
  end

  defp same(cluster) do
    for node <- cluster.members, do: Cluster.call(cluster, node, Peer, :quiet, [])
    # A transaction from each node first: what went before has arrived everywhere when it is done.
    for node <- cluster.members, do: {:ok, _} = on(cluster, node, :increment_counter, [:sync])

    rows =
      for node <- cluster.members do
        {:ok, rows} = Cluster.call(cluster, node, Store, :rows, [Store.agreed()])
        Enum.sort(rows)
      end

    assert length(Enum.uniq(rows)) == 1

    assert [{:ok, _leader}] =
             cluster.members |> Enum.map(&on(cluster, &1, :elect_leader, [])) |> Enum.uniq()
  end

  defp true?(cluster, answers) do
    node = Enum.random(cluster.members)
    {:ok, log} = Cluster.call(cluster, node, Consensus, :log, [5_000])
    first = hd(log).index
    assert Enum.map(log, & &1.index) == Enum.to_list(first..List.last(log).index)
    assert Enum.filter(answers.entries, &(&1.index >= first)) -- log == []
    assert answers.entries == Enum.uniq_by(answers.entries, & &1.index)

    {:ok, count} = on(cluster, node, :get_counter, [:load])
    assert count in answers.added..(answers.added + answers.maybe_added)
    assert answers.tokens == Enum.uniq(answers.tokens)
  end

  defp clean(cluster, before) do
    for node <- cluster.members, do: Cluster.call(cluster, node, Peer, :quiet, [])
    assert census(cluster) == before
    for node <- cluster.members, do: assert(Cluster.call(cluster, node, Peer, :orphans, []) == [])
  end

  defp census(cluster),
    do: for(node <- cluster.members, do: Cluster.call(cluster, node, Peer, :census, []))
end

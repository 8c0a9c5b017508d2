defmodule Lineage.ReferenceKillsTest do
  @moduledoc """
  Whoever is killed on a reference node: no call hangs, nothing stands loose afterwards, and the node is well.

  LINEAGE_KILLS says how many are killed at random; `make soak` has 10,000.
  """
  use ExUnit.Case, async: false

  alias Foundation.Test.Cluster
  alias Lineage.ReferenceKills

  @moduletag timeout: 3_600_000

  @kills String.to_integer(System.get_env("LINEAGE_KILLS", "300"))

  setup do
    # Supervisors bear what no node should: the test kills faster than anything fails.
    env = [{:foundation, :max_restarts, 1_000_000}, {:foundation, :max_seconds, 1}]
    cluster = Cluster.start(size: 1, apps: [:foundation, :mabeam], env: env, lineage: true)
    Cluster.await_view(cluster, cluster.members)
    {:ok, cluster: cluster}
  end

  defp run(%{members: [node]} = cluster, function, arguments),
    do: Cluster.call(cluster, node, ReferenceKills, function, arguments, 3_500_000)

  defp assert_well(outcome) do
    assert outcome.wrong == []
    assert outcome.health == []
    assert outcome.orphans == []
    assert outcome.calls > 0
  end

  test "each process once", %{cluster: cluster} do
    outcome = run(cluster, :each, [])
    assert outcome.killed > 20
    assert_well(outcome)
  end

  test "#{@kills} at random", %{cluster: cluster} do
    seed = {ExUnit.configuration()[:seed], @kills, 0}
    outcome = run(cluster, :at_random, [@kills, seed])
    assert outcome.killed == @kills
    assert_well(outcome)
  end

  test "the supervisors at the top: the application ends, all of it, and starts again", %{
    cluster: cluster
  } do
    assert run(cluster, :top, [:mabeam, MABEAM.Supervisor]) == []
    assert run(cluster, :top, [:foundation, Foundation.Supervisor]) == []
    assert_well(run(cluster, :at_random, [10, {1, 2, 3}]))
  end
end

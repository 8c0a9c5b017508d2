defmodule MABEAM.NodesTest do
  # Three nodes of their own, each a process of the operating system.
  use ExUnit.Case, async: false

  alias Foundation.Test.Cluster
  alias MABEAM.{Agent, Comms}
  alias MABEAM.Test.Remote

  @moduletag timeout: 120_000

  setup_all do
    cluster = Cluster.start(apps: [:foundation, :mabeam])
    Cluster.await_view(cluster, cluster.members)
    {:ok, cluster: cluster, members: cluster.members}
  end

  defp started(cluster, node, id, everywhere) do
    {:ok, _pid} = Cluster.call(cluster, node, Remote, :start_agent, [id])
    found(cluster, id, 1, everywhere)
  end

  defp found(cluster, id, count, nodes) do
    for node <- nodes do
      assert Cluster.call(cluster, node, Remote, :await_agents, [id, count]) == :ok
    end
  end

  defp request(cluster, node, id, timeout \\ 5_000) do
    Cluster.call(cluster, node, Comms, :request, [id, :hello, timeout])
  end

  test "an agent is asked from every node, and one that runs here before others", context do
    %{cluster: cluster, members: [a, b, c] = members} = context
    started(cluster, a, "agent", members)
    for node <- members, do: assert(request(cluster, node, "agent") == {:ok, :hello})
    assert {:ok, %{requests: 3}} = Cluster.call(cluster, a, Agent, :metrics, ["agent"])

    {:ok, _pid} = Cluster.call(cluster, b, Remote, :start_agent, ["agent"])
    assert request(cluster, b, "agent") == {:ok, :hello}
    assert {:ok, %{requests: 1}} = Cluster.call(cluster, b, Agent, :metrics, ["agent"])

    assert Cluster.call(cluster, c, Comms, :multicast, [["agent"], :hello]) ==
             {:ok, %{delivered: [], failed: %{"agent" => :no_handler}}}

    :ok = Cluster.call(cluster, a, Agent, :stop, ["agent"])
    :ok = Cluster.call(cluster, b, Agent, :stop, ["agent"])
    found(cluster, "agent", 0, members)
    assert request(cluster, a, "agent") == {:error, :not_running}
    assert request(cluster, c, "agent") == {:error, :unknown_agent}
  end

  test "an agent on the other side of a partition is not found, until it heals", context do
    %{cluster: cluster, members: [a, b, c] = members} = context
    started(cluster, a, "parted", members)
    Cluster.part(cluster, [[a], [b, c]])
    found(cluster, "parted", 0, [b, c])
    assert request(cluster, a, "parted") == {:ok, :hello}
    assert request(cluster, b, "parted") == {:error, :unknown_agent}
    Cluster.heal(cluster)
    found(cluster, "parted", 1, [b, c])
    assert request(cluster, c, "parted") == {:ok, :hello}
    Cluster.await_view(cluster, members)
  end

  test "an agent is found by other nodes again when the scope of :pg was killed", context do
    %{cluster: cluster, members: [a, b, c]} = context
    started(cluster, a, "survivor", [b, c])
    assert Cluster.call(cluster, b, Remote, :kill_scope, [a, "survivor"]) == :ok
    assert request(cluster, b, "survivor") == {:ok, :hello}
  end
end

defmodule MABEAM.NodeDeathTest do
  # Nodes of their own, each a process of the operating system.
  use ExUnit.Case, async: false

  alias Foundation.Test.Cluster
  alias MABEAM.Comms
  alias MABEAM.Test.Remote

  @moduletag timeout: 120_000

  test "an agent whose node dies is not found any more" do
    cluster = Cluster.start(apps: [:foundation, :mabeam])
    [a, b, c] = cluster.members
    {:ok, _pid} = Cluster.call(cluster, a, Remote, :start_agent, ["agent"])
    for node <- [b, c], do: :ok = Cluster.call(cluster, node, Remote, :await_agents, ["agent", 1])
    assert Cluster.call(cluster, b, Comms, :request, ["agent", :hello]) == {:ok, :hello}

    Cluster.kill(cluster, a)
    for node <- [b, c], do: :ok = Cluster.call(cluster, node, Remote, :await_agents, ["agent", 0])
    assert Cluster.call(cluster, b, Comms, :request, ["agent", 1]) == {:error, :unknown_agent}
  end
end

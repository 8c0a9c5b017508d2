defmodule Foundation.Coordination.Neighbours do
  @moduledoc """
  Connects to members of the cluster, without doing harm to those that are connected to each
  other.

  `:global` lets no partitions overlap: a node that connects to one of a group and cannot reach
  the others tears the group apart. Hidden connections are none of its business. By these a member
  is asked first to whom it is connected.
  """
  alias Foundation.Call
  alias Foundation.Coordination.Cluster

  @ask_ms 2_000

  @doc """
  Tries to connect to each of `nodes`, members that are not connected; to those only that would
  bring no such trouble.
  """
  @spec call([node]) :: :ok
  def call(nodes) do
    reached = Enum.filter(nodes, &(:net_kernel.hidden_connect_node(&1) == true))
    near = [node() | Node.list()] ++ reached
    welcome = Enum.filter(reached, &welcome?(&1, near))
    # Not one that has connected to this node meanwhile.
    Enum.each(reached -- Node.list(), &:erlang.disconnect_node/1)
    Enum.each(welcome, &Node.connect/1)
  end

  defp welcome?(node, near) do
    case Call.call({Cluster.Server, node}, :connected, @ask_ms) do
      nodes when is_list(nodes) -> nodes -- near == []
      _error -> false
    end
  end
end

defmodule Foundation.Coordination.Cluster do
  @moduledoc """
  Which nodes belong together, and whether a majority of them does so just now.

      config :foundation, members: [:"a@host1", :"b@host2", :"c@host3"]

  The members are fixed; a node for which none are named is its own cluster, and one that is not
  among them has no majority.
  `Foundation.Coordination.Cluster.Server` keeps them connected, and their ledgers joined.

  What is agreed is agreed by a majority. After a partition, the side with a majority goes on, and
  who was without one takes over its ledger. Where no side had one, those who come together go on
  from the latest ledger among them as soon as they are a majority. A node that has lost its
  memory does not count until it is back: it joins a majority, or, when all members are there,
  whoever knows most.

  mnesia logs an error when parted nodes see each other again: that is where this cluster heals
  them.

  A node that is given a name while it runs (`:net_kernel.start/1`) is the same cluster of one
  under its new name, and keeps its ledger.

  Watchers get `{:foundation_cluster, event}`: `{:up, node}` and `{:down, node}` when a member is
  connected or lost, `{:view, nodes}` when a majority has come together in another composition, of
  which this node is part. That one is also an event of `Foundation.Events`, `:cluster_view`; and
  the gauge `[:foundation, :coordination, :nodes]` tells how many nodes the majority has, 0 when
  this node is not part of one.
  """
  alias Foundation.Coordination.Cluster.Server
  alias Foundation.Coordination.{Formation, Store, Watchers}
  alias Foundation.{Call, Supervision}

  @doc "The members, of which this node should be one; sorted."
  @spec members() :: [node]
  def members,
    do: :foundation |> Application.get_env(:members, [node()]) |> Enum.uniq() |> Enum.sort()

  @doc "How many members are a majority."
  @spec majority() :: pos_integer
  def majority, do: div(length(members()), 2) + 1

  @doc "The other members to which this node is connected."
  @spec connected() :: [node]
  def connected, do: Enum.filter(members(), &(&1 in Node.list()))

  @doc "Whether this node is part of a majority that can agree, as far as it knows."
  @spec quorum?() :: boolean
  def quorum?, do: view() != :error

  @doc """
  The composition in which the majority stands, when this node is part of it: its epoch and nodes.
  """
  @spec view() :: {:ok, {epoch :: pos_integer, [node]}} | :error
  def view do
    with {:ok, head} <- Store.head(Store.agreed()),
         true <- agrees?(head, Store.active(Store.agreed())) do
      {:ok, {head.epoch, head.nodes}}
    else
      _not -> :error
    end
  end

  @doc """
  Whether the nodes with an active copy are a majority, and the composition of the table's latest
  epoch, without interruption since it began; and this node has nothing to go back to.
  """
  @spec agrees?(Store.head(), [node]) :: boolean
  def agrees?(head, active) do
    head.nodes == active and length(active) >= majority() and head.epoch > Formation.ended() and
      not Formation.kept?() and
      Enum.all?(active, &(&1 == node() or &1 in Node.list()))
  end

  @doc """
  Who decides together, and how many of them are a majority, as the phases stand.

  With `:phase_4` on: the composition of the majority, for which it waits until `deadline`, and a
  majority of the members. With it off: the members that can be reached, and a majority of those.
  """
  @spec electorate(deadline :: integer) ::
          {:ok, [node], pos_integer} | {:error, :no_quorum | :unavailable}
  def electorate(deadline) do
    if Supervision.enabled?(:phase_4) do
      with :ok <- await(Store.agreed(), deadline), {:ok, {_epoch, nodes}} <- view() do
        {:ok, nodes, majority()}
      else
        :error -> electorate(deadline)
        {:error, reason} -> {:error, reason}
      end
    else
      nodes = [node() | connected()]
      {:ok, nodes, div(length(nodes), 2) + 1}
    end
  end

  @doc """
  Waits until transactions on `table` are possible.

  For the agreed table that needs a majority: `{:error, :no_quorum}` when there is none until the
  deadline.
  """
  @spec await(Store.table(), deadline :: integer) :: :ok | {:error, :no_quorum | :unavailable}
  def await(table, deadline) do
    if ready?(table) do
      :ok
    else
      left = Call.left(deadline)

      case Call.call(Server, {:await, table, deadline}, left) do
        :ok ->
          :ok

        {:error, :timeout} ->
          {:error, if(table == Store.agreed(), do: :no_quorum, else: :unavailable)}

        {:error, reason} ->
          {:error, reason}
      end
    end
  end

  @doc "Whether transactions on `table` are possible."
  @spec ready?(Store.table()) :: boolean
  def ready?(table), do: if(table == Store.agreed(), do: quorum?(), else: Formation.sound?())

  @doc "Why what waited for `table` is late, in a word."
  @spec late(Store.table()) :: :no_quorum | :unavailable | :timeout
  def late(table) do
    cond do
      ready?(table) -> :timeout
      table == Store.agreed() -> :no_quorum
      true -> :unavailable
    end
  end

  @doc "Sends `{:foundation_cluster, event}` to the caller, see the module's documentation."
  @spec subscribe() :: :ok | {:error, Call.reason()}
  def subscribe, do: Watchers.subscribe(:cluster)

  @doc "Ends the caller's subscription."
  @spec unsubscribe() :: :ok | {:error, Call.reason()}
  def unsubscribe, do: Watchers.unsubscribe(:cluster)
end

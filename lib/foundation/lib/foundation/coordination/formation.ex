defmodule Foundation.Coordination.Formation do
  @moduledoc """
  How members become one cluster, and one again: what `Foundation.Coordination.Cluster` has done in a task, in rounds.

  A round asks the connected members how they stand, decides by `decide/3` what this node has to do, and does it, under a
  lock of `:global` on all of them. Then the others look again. The rules:

    1. Who sees a majority of active copies of which all say the same, and is not one of them, joins it. If it is one of
       them, and they are not the composition of the latest epoch, an epoch is begun.
    2. Without such a majority, those who are there go on from the latest head among them, provided that a majority of the
       members has kept its memory, or that all members are there, or that none of those who are there has ever been
       part of anything. The one with the latest head makes the table if it has none, the others join.
    3. Else this node waits.

  Two epochs have different numbers: before one begins, all of its nodes promise to begin no other up to its number.

  A node keeps a copy of what it had (`Foundation.Coordination.Feed`) until it has joined; a round that was broken off
  begins with going back to it.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Feed, Store, Transaction}

  @marks Cluster
  @status_ms 2_000

  @typedoc """
  How a member stands.

    * `:head` - of its copy of the agreed table; that of an empty one when it has none, or none any more
    * `:table?` - whether it has a copy
    * `:active` - the nodes that have, as it sees it
    * `:promised` - the latest epoch of which it knows
  """
  @type status :: %{
          node: node,
          head: Store.head(),
          table?: boolean,
          active: [node],
          promised: non_neg_integer
        }
  @type plan :: :settled | :wait | :create | :begin | {:join, [node]}

  @doc "Whether mnesia runs on this node under its present name, with its own table, and no round has been broken off."
  @spec sound?() :: boolean
  def sound?, do: Store.running?() and Store.active(Store.local()) != [] and mark(:kept) == nil

  @doc "How this node stands."
  @spec status() :: status
  def status do
    table = Store.agreed()

    {table?, head} =
      case Store.head(table) do
        {:ok, head} -> {true, head}
        :error -> {false, if(table in kept(), do: Feed.head(table), else: Store.beginning())}
      end

    %{
      node: node(),
      head: head,
      table?: table?,
      active: Store.active(table),
      promised: max(mark(:promised) || 0, head.epoch)
    }
  end

  @doc "Promises to begin no epoch up to `epoch` but this one, if `nodes` are the active ones as this node sees it."
  @spec promise(pos_integer, [node]) :: boolean
  def promise(epoch, nodes) do
    status = status()
    promised? = status.active == nodes and status.promised < epoch
    if promised?, do: mark(:promised, epoch)
    promised?
  end

  @doc """
  One round. `:done` says that something has been done, `:wait` that there is nothing to do, or others are at it.

  `{:doubt, plan}` is what would be to do if the members' contradictions about each other last; with `plan` as `insist` it
  is done.
  """
  @spec round(deadline :: integer, plan | nil) :: :done | :wait | {:doubt, plan}
  def round(deadline, insist) do
    plan = if sound?(), do: plan(insist), else: :mend

    if plan in [:settled, :wait] or match?({:doubt, _}, plan),
      do: quiet(plan),
      else: act(deadline, insist)
  end

  defp quiet({:doubt, plan}), do: {:doubt, plan}
  defp quiet(_plan), do: :wait

  defp act(deadline, insist) do
    nodes = [node() | Cluster.connected()]

    result = :global.trans({__MODULE__, self()}, fn -> locked(deadline, insist) end, nodes, 0)

    if result == :done, do: Enum.each(Cluster.connected(), &Cluster.changed/1)
    if result == :aborted, do: :wait, else: result
  end

  # Decided anew: the others may have done something before the lock was there. Then on, as one thing follows the other.
  defp locked(deadline, insist) do
    with :ok <- mend(), plan when plan not in [:settled, :wait] <- plan(insist) do
      case carry_out(plan, deadline) do
        :ok ->
          locked(deadline, insist)
          :done

        {:doubt, plan} ->
          {:doubt, plan}

        _failed ->
          :wait
      end
    else
      _nothing -> :wait
    end
  end

  defp carry_out(:create, _deadline), do: create()
  defp carry_out(:begin, _deadline), do: begin()
  defp carry_out({:join, nodes}, deadline), do: join(nodes, deadline)
  defp carry_out(doubt, _deadline), do: doubt

  defp plan(insist) do
    members = Cluster.members()

    if node() in members do
      case decide(status(), statuses(), length(members)) do
        {:doubt, ^insist} -> insist
        plan -> plan
      end
    else
      :wait
    end
  end

  defp statuses do
    deadline = Call.deadline(@status_ms)

    requests =
      for node <- Cluster.connected(), do: :gen_server.send_request({Cluster, node}, :status)

    for request <- requests,
        {:reply, status} <- [:gen_server.receive_response(request, Call.left(deadline))],
        do: status
  end

  @doc "What `me` has to do, given how the `others` stand and how many members there are."
  @spec decide(status, [status], pos_integer) :: plan | {:doubt, plan}
  def decide(me, others, members) do
    all = [me | others]
    majority = div(members, 2) + 1
    group = Enum.find(all, &(length(&1.active) >= majority and agreed?(&1, all)))

    cond do
      group == nil and may_go_on?(all, members, majority) -> go_on(me, all)
      group == nil -> :wait
      me.node not in group.active -> join_plan(group, all)
      me.head.nodes == me.active -> :settled
      true -> :begin
    end
  end

  # All of whom it sees as active, and who have answered, see the same.
  defp agreed?(status, all) do
    Enum.all?(all, &(&1.node not in status.active or &1.active == status.active))
  end

  defp may_go_on?(all, members, majority) do
    holders = Enum.count(all, &(&1.head.epoch > 0))
    length(all) == members or holders >= majority or (holders == 0 and length(all) >= majority)
  end

  defp go_on(me, all) do
    best = Enum.max_by(all, &rank/1)

    plan =
      cond do
        me == best and not me.table? -> :create
        me == best -> :wait
        me.table? and me.active == best.active -> :wait
        best.table? -> join_plan(best, all)
        true -> :wait
      end

    clear? = Enum.all?(all, &agreed?(&1, all))
    if clear? or plan in [:create, :wait], do: plan, else: {:doubt, plan}
  end

  # The latest head; then who has a table, with more copies; the node's name, as there must be one.
  defp rank(status) do
    {status.head.epoch, status.head.number, status.table?, length(status.active), status.node}
  end

  # To join some of them only would tear them apart.
  defp join_plan(status, all) do
    nodes = Enum.map(all, & &1.node)
    target = Enum.filter(status.active, &(&1 in nodes))
    if target == status.active, do: {:join, target}, else: :wait
  end

  # A cluster of one has lost nothing when mnesia did: it has its copy. For one of several the copy of the agreed table
  # counts only where it was kept on purpose, as it may lack what was agreed just before.
  defp mend do
    if sound?(), do: :ok, else: restart(kept())
  end

  defp kept do
    mark(:kept) || if(Cluster.members() == [node()], do: Store.tables(), else: [Store.local()])
  end

  defp restart(tables) do
    if mark(:kept) == nil, do: Feed.attach()
    mark(:kept, tables)

    with :ok <- Store.restart(), :ok <- restore(tables) do
      Feed.attach()
      mark(:kept, nil)
    end
  end

  defp restore([]), do: :ok

  defp restore([table | tables]) do
    rows = Feed.copy(table)
    nothing? = table == Store.agreed() and rows == []

    with :ok <- if(nothing?, do: :ok, else: Store.create(table, rows)) do
      restore(tables)
    end
  end

  defp create do
    with :ok <- Store.create(Store.agreed(), []), do: Feed.attach()
  end

  defp begin do
    %{active: nodes} = status = status()
    others = nodes -- [node()]
    known = Enum.map(statuses(), & &1.promised)
    epoch = Enum.max([status.promised | known]) + 1

    if promise(epoch, nodes) and Enum.all?(others, &promises?(&1, epoch, nodes)) do
      Transaction.begin(epoch, nodes)
    else
      :wait
    end
  end

  defp promises?(node, epoch, nodes) do
    Call.call({Cluster, node}, {:promise, epoch, nodes}, @status_ms) == true
  end

  defp join(nodes, deadline) do
    Feed.attach()
    tables = if Store.head(Store.agreed()) == :error, do: [Store.local()], else: Store.tables()
    mark(:kept, tables)

    with :ok <- Store.restart(),
         :ok <- Store.join(nodes, deadline),
         :ok <- Store.write(Store.local(), Feed.copy(Store.local())) do
      Feed.attach()
      mark(:kept, nil)
    else
      error ->
        restart(tables)
        error
    end
  end

  defp mark(key) do
    case :ets.lookup(@marks, key) do
      [{_key, value}] -> value
      [] -> nil
    end
  end

  defp mark(key, value) do
    :ets.insert(@marks, {key, value})
    :ok
  end
end

defmodule Foundation.Coordination.Plan do
  @moduledoc """
  What a member of the cluster has to do, from how it and the other members stand. The rules:

    1. Who sees a majority of active copies of which all say the same, and is not one of them,
       joins it. If it is one of them, and they are not the composition of the latest epoch, or
       were not without interruption, an epoch is begun.
    2. Without such a majority, those who are there go on from the latest head among them,
       provided that a majority of the members has kept its memory, or that all members are there,
       or that none of those who are there has ever been part of anything. The one with the latest
       head makes the table if it has none, the others join it.
    3. Who is to be joined has mnesia forget all other nodes first: else mnesia would connect the
       one that joins to all of them that can be reached, and take the table from any.
    4. Whose copy has come apart from the others' leaves them, with what it had until then; the
       copy of one that does not answer is dropped.
    5. Else it waits.

  Why nothing is lost that was agreed: that is on every node of the epoch in which it was, which
  are a majority. Each later majority shares a node with it that has kept its memory, and goes on
  from a head at least as late. And of two heads the later one has all that was agreed in the
  other's history, for an epoch begins on top of what was agreed before.
  """
  alias Foundation.Coordination.Head

  @typedoc """
  How a member stands.

    * `:head` - of its copy of the agreed table; that of an empty one when it has none, or none
      any more
    * `:table?` - whether it has a copy
    * `:active` - the nodes that have, as it sees it
    * `:lost` - the nodes that its mnesia takes for its own, and with which it does not run
    * `:promised` - the latest epoch of which it knows
    * `:ended` - the latest epoch of which a node has been lost, or which was joined
    * `:apart?` - whether its copy has come apart from the others'
  """
  @type status :: %{
          node: node,
          head: Head.t(),
          table?: boolean,
          active: [node],
          lost: [node],
          promised: non_neg_integer,
          ended: non_neg_integer,
          apart?: boolean
        }
  @type t ::
          :settled | :wait | :create | :begin | :forget | :part | {:join | :drop, [node]}

  @doc """
  What `me` has to do, given how the `others` that are connected stand, and how many members there
  are.

  `{:doubt, plan}` when what they say of each other contradicts itself, or one says nothing: it
  may only be changing.
  """
  @spec decide(status, [status], pos_integer) :: t | {:doubt, t}
  def decide(me, others, members) do
    all = [me | others]
    majority = div(members, 2) + 1
    group = Enum.find(all, &(length(&1.active) >= majority and agreed?(&1, all)))

    cond do
      me.apart? -> :part
      group == nil and may_go_on?(all, members, majority) -> go_on(me, all)
      group == nil -> :wait
      me.node not in group.active -> join_plan(group, all)
      me.lost != [] -> :forget
      settled?(me, all) -> :settled
      true -> begin_plan(me, all, majority)
    end
  end

  # Where mnesia runs and Foundation does not, nobody answers for the copy.
  defp begin_plan(me, all, majority) do
    silent = me.active -- Enum.map(all, & &1.node)

    cond do
      silent == [] -> :begin
      length(me.active -- silent) >= majority -> {:doubt, {:drop, silent}}
      true -> :wait
    end
  end

  # All of whom it sees as active, and who have answered, see the same.
  defp agreed?(status, all) do
    Enum.all?(all, &(&1.node not in status.active or &1.active == status.active))
  end

  defp settled?(me, all) do
    me.head.nodes == me.active and
      Enum.all?(all, &(&1.node not in me.active or &1.ended < me.head.epoch))
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
        me == best and not alone?(me) -> :part
        me == best -> :wait
        best.table? and alone?(best) -> join_plan(best, all)
        true -> :wait
      end

    clear? = Enum.all?(all, &agreed?(&1, all))
    if clear? or plan in [:create, :wait], do: plan, else: {:doubt, plan}
  end

  # The latest head; then who has a table, and stands alone already; the node's name, as there
  # must be one.
  defp rank(status) do
    {status.head.epoch, status.head.number, status.table?, alone?(status), status.node}
  end

  defp alone?(status), do: status.active in [[], [status.node]] and status.lost == []

  # To join some of them only would tear them apart.
  defp join_plan(status, all) do
    target = Enum.filter(all, &(&1.node in status.active))
    all? = length(target) == length(status.active)
    if all? and Enum.all?(target, &(&1.lost == [])), do: {:join, status.active}, else: :wait
  end
end

defmodule Foundation.Coordination.Formation do
  @moduledoc """
  How members become one cluster, and one again: what `Foundation.Coordination.Cluster.Server` has
  done in a task, in rounds.

  A round asks the connected members how they stand, decides by `Foundation.Coordination.Plan`
  what this node has to do, and does it, under a lock of `:global` on all of them. Then the others
  look again. Two epochs have different numbers: before one begins, all of its nodes promise to
  begin no other up to its number.

  A node keeps a copy of what it had (`Foundation.Coordination.Feed`) until it has joined; a round
  that was broken off begins with going back to it.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Feed, Head, Plan, Store, Transaction}

  @marks Cluster
  @status_ms 2_000

  @doc """
  Whether mnesia runs on this node under its present name, with its own table, and no round has
  been broken off.
  """
  @spec sound?() :: boolean
  def sound?, do: Store.running?() and Store.active(Store.local()) != [] and not kept?()

  @doc "Whether this node has something to go back to: its copy stays as it is until it has."
  @spec kept?() :: boolean
  def kept?, do: mark(:kept) != nil

  @doc "How this node stands."
  @spec status() :: Plan.status()
  def status do
    table = Store.agreed()

    {table?, head} =
      case Store.head(table) do
        {:ok, head} -> {true, head}
        :error -> {false, if(Feed.whole?(), do: Feed.head(table), else: Head.beginning())}
      end

    active = Store.active(table)
    if head.nodes -- active != [], do: mark_ended(head.epoch)

    %{
      node: node(),
      head: head,
      table?: table?,
      active: active,
      lost: Store.lost(),
      promised: max(mark(:promised) || 0, head.epoch),
      ended: ended(),
      apart?: table? and Feed.apart?()
    }
  end

  @doc """
  The latest epoch that is known to have ended on this node, though its composition may be the
  same again.

  Who comes back into it has to be part of a new one before it counts: until then it may yet go
  back to what it had.
  """
  @spec ended() :: non_neg_integer
  def ended, do: mark(:ended) || 0

  @doc "Ends `epoch` on this node: it takes part in the next one only, which it sees to."
  @spec end_epoch(non_neg_integer) :: :ok
  def end_epoch(epoch) do
    mark_ended(epoch)
    Cluster.Server.changed(node())
  end

  # Several processes do so at once: the greatest stays.
  defp mark_ended(epoch) do
    :ets.insert_new(@marks, {:ended, 0})
    less = [{{:ended, :"$1"}, [{:<, :"$1", epoch}], [{{:ended, epoch}}]}]
    :ets.select_replace(@marks, less)
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc """
  Promises to begin no epoch up to `epoch` but this one, if `nodes` are the active ones as this
  node sees it, and it has nothing to go back to.
  """
  @spec promise(pos_integer, [node]) :: boolean
  def promise(epoch, nodes) do
    status = status()
    promised? = status.active == nodes and status.promised < epoch and sound?()
    if promised?, do: mark(:promised, epoch)
    promised?
  end

  @doc """
  One round. `:done` says that something has been done, `:wait` that there is nothing to do, or
  others are at it.

  `{:doubt, plan}` is what would be to do if the members' contradictions about each other last;
  with `plan` as `insist` it is done.
  """
  @spec round(deadline :: integer, Plan.t() | nil) :: :done | :wait | {:doubt, Plan.t()}
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

    if result == :done, do: Enum.each(Cluster.connected(), &Cluster.Server.changed/1)
    if result == :aborted, do: :wait, else: result
  end

  # Decided anew: the others may have done something before the lock was there. Then on, as one
  # thing follows the other.
  defp locked(deadline, insist) do
    case mend() do
      :sound -> go_on(deadline, insist, :wait)
      :ok -> go_on(deadline, insist, :done)
      _failed -> :wait
    end
  end

  defp go_on(deadline, insist, result) do
    case plan(insist) do
      plan when plan in [:settled, :wait] ->
        result

      plan ->
        case carry_out(plan, deadline) do
          :ok ->
            locked(deadline, insist)
            :done

          {:doubt, plan} ->
            {:doubt, plan}

          _failed ->
            result
        end
    end
  end

  defp carry_out(:create, _deadline), do: create()
  defp carry_out(:begin, _deadline), do: begin()

  defp carry_out(:forget, _deadline), do: Store.forget(Store.lost())

  defp carry_out({:drop, nodes}, _deadline), do: Store.drop(Store.agreed(), nodes)
  defp carry_out(:part, _deadline), do: part(&restart/0)
  defp carry_out({:join, nodes}, deadline), do: part(fn -> join(nodes, deadline) end)
  defp carry_out(doubt, _deadline), do: doubt

  defp plan(insist) do
    members = Cluster.members()

    if node() in members do
      case Plan.decide(status(), statuses(), length(members)) do
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
      for node <- Cluster.connected(),
          do: :gen_server.send_request({Cluster.Server, node}, :status)

    for request <- requests,
        {:reply, status} <- [:gen_server.receive_response(request, Call.left(deadline))],
        do: status
  end

  defp mend do
    if sound?(), do: :sound, else: restart()
  end

  # Leaves the nodes with which mnesia runs, keeps what was agreed until then, and has `fun` go on
  # with that.
  defp part(fun) do
    mark_ended(Enum.max(Enum.map([status() | statuses()], & &1.head.epoch)))
    mark(:kept, true)
    Store.stop()
    fun.()
  end

  defp restart do
    mark(:kept, true)
    with :ok <- anew(), :ok <- restore(), do: let_go()
  end

  # All that mnesia has carried out has been copied then.
  defp anew do
    with :ok <- Store.restart(), do: Feed.attach()
  end

  # Without its copy a member of several must not go on as if it knew, as it may lack what was
  # agreed just before.
  defp restore do
    rows = remembered()
    agreed = if rows == [], do: :ok, else: Store.create(Store.agreed(), rows)
    with :ok <- agreed, do: Store.create(Store.local(), Feed.copy(Store.local()))
  end

  defp remembered, do: if(Feed.whole?(), do: Feed.copy(Store.agreed()), else: [])

  defp let_go do
    Feed.attach()
    mark(:kept, nil)
    # One that was started anew in between.
    Feed.resume()
  end

  # Who knows the latest head has what belongs to it, too.
  defp create do
    if remembered() == [] do
      mark(:kept, true)
      with :ok <- Store.create(Store.agreed(), []), do: let_go()
    else
      restart()
    end
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
    Call.call({Cluster.Server, node}, {:promise, epoch, nodes}, @status_ms) == true
  end

  defp join(nodes, deadline) do
    with :ok <- anew(),
         :ok <- Store.join(nodes, deadline),
         :ok <- Store.write(Store.local(), Feed.copy(Store.local())),
         :ok <- check_loaded(nodes) do
      let_go()
    else
      error ->
        restart()
        error
    end
  end

  # What was loaded may be the copy of one that has come apart from the others and does not know
  # yet.
  defp check_loaded(nodes) do
    with {:ok, head} <- Store.head(Store.agreed()),
         true <- Feed.have?(nodes, {head.epoch, Head.mark(head)}, @status_ms) do
      :ok
    else
      _not -> {:error, :apart}
    end
  end

  # Whoever asks while the table is away, with its keeper and its owner, finds nothing.
  defp mark(key) do
    case :ets.lookup(@marks, key) do
      [{_key, value}] -> value
      [] -> nil
    end
  rescue
    ArgumentError -> nil
  end

  defp mark(key, value) do
    :ets.insert(@marks, {key, value})
    :ok
  rescue
    ArgumentError -> :ok
  end
end

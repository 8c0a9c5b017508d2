defmodule Foundation.Coordination.Transaction do
  @moduledoc """
  One attempt at a transaction of the ledger, in the process that `Foundation.Coordination.Ledger`
  has started for it.

  The table is locked first, on all members that hold a copy, so that there is one transaction at
  a time and nothing can be read that is not the latest. It goes on only if these members are the
  composition in which the majority last came together (see
  `t:Foundation.Coordination.Store.head/0`).

  mnesia's commit returns when this node has committed and the others have been told. If nodes are
  lost at that moment, they have not been; and if they are not lost by all alike, mnesia may let
  one abort what another has committed, and not notice. So it is confirmed: the
  `Foundation.Coordination.Feed` of each node of the composition has to say that it has the
  transaction, and all before it, without a gap. What is confirmed is on every node of a
  composition with a majority, and every later majority shares a node with it. What is not, ends
  the epoch.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Feed, Formation, Head, Ledger, Store}

  # How long a copy may take to have what mnesia has committed; and this node's own, which has it
  # in its queue.
  @confirm_ms 1_000

  @typedoc "Where a transaction stands in the history of its table."
  @type mark :: {epoch :: non_neg_integer, Head.mark()}

  @doc """
  Runs `fun`, for `caller`, if it still waits.

  `:again` says that nothing has been written because the majority is just changing, `:unwanted`
  that nobody waits any more; `:unknown` that mnesia was stopped in the midst of the commit.
  `marker` is set when the commit begins.
  """
  @spec run(Store.table(), (() -> term), :atomics.atomics_ref(), pid, integer) ::
          {:committed, term}
          | {:unconfirmed, term, mark}
          | {:aborted, term}
          | :again
          | :unwanted
          | :unknown
  def run(table, fun, marker, caller, deadline) do
    result =
      transaction(fn ->
        # mnesia may run this anew: what it began before has been aborted then.
        :atomics.put(marker, 1, 0)
        check_wanted(caller, deadline)
        lock(table)
        check_wanted(caller, deadline)
        head = head!(table)
        nodes = nodes!(table, head)
        if several?(table, nodes), do: check_own_copy(head)
        next = Head.next(head)
        Ledger.context(%{table: table, nodes: nodes, number: next.number, rows: %{}})
        value = fun.()
        rows = Ledger.context().rows
        if rows != %{}, do: write_head(table, next)
        :atomics.put(marker, 1, 1)
        {value, rows, {next.epoch, Head.mark(next)}, nodes}
      end)

    case result do
      {:atomic, {value, rows, _mark, _nodes}} when rows == %{} -> {:committed, value}
      {:atomic, {value, rows, mark, nodes}} -> finish(table, value, rows, mark, nodes)
      {:aborted, reason} -> aborted(reason, :atomics.get(marker, 1) == 1)
    end
  end

  # mnesia answers nobody who has asked it for a transaction just when it died.
  defp transaction(fun) do
    mnesia = Process.whereis(:mnesia_tm)
    Process.link(mnesia)
    result = :mnesia.transaction(fun)
    Process.unlink(mnesia)
    result
  rescue
    # There is none, or none any more.
    _error in [ArgumentError, ErlangError] -> {:aborted, :stopped}
  end

  @doc """
  Calls mnesia inside a transaction: if it fails because it is being stopped, the transaction is
  aborted.
  """
  @spec mnesia((() -> result)) :: result when result: term
  def mnesia(fun) do
    fun.()
  catch
    :error, _reason -> :mnesia.abort(:stopped)
  end

  @doc """
  What has become of a transaction that was not confirmed, now that there is a majority again.

  `:lost` says that it is not part of the history on which the majority has agreed, or that it was
  too long ago to know.
  """
  @spec settle(Store.table(), mark) :: :committed | :lost | :again
  def settle(table, mark) do
    result =
      transaction(fn ->
        lock(table)
        head = head!(table)
        nodes!(table, head)
        check_own_copy(head)
        Head.includes?(head, mark)
      end)

    case result do
      {:atomic, true} -> :committed
      {:atomic, false} -> :lost
      {:aborted, _reason} -> :again
    end
  end

  @doc """
  Begins `epoch` in the composition `nodes`, if that is what this node sees: the first transaction
  of each epoch.
  """
  @spec begin(pos_integer, [node]) :: :ok | {:error, term}
  def begin(epoch, nodes) do
    table = Store.agreed()

    result =
      transaction(fn ->
        lock(table)
        head = head!(table)
        if Store.active(table) != nodes or head.epoch >= epoch, do: :mnesia.abort(:changed)
        next = Head.begin(head, epoch, nodes)
        write_head(table, next)
        {epoch, Head.mark(next)}
      end)

    case result do
      {:atomic, mark} -> if confirmed?(nodes, mark), do: :ok, else: {:error, :unconfirmed}
      {:aborted, reason} -> {:error, reason}
    end
  end

  defp check_wanted(caller, deadline) do
    if Call.left(deadline) == 0 or not Process.alive?(caller), do: :mnesia.abort(:unwanted)
  end

  defp lock(table), do: mnesia(fn -> :mnesia.write_lock_table(table) end)

  defp head!(table) do
    case mnesia(fn -> :mnesia.read(table, :head, :write) end) do
      [{_table, :head, head, _owner, _version}] -> head
      [] -> Head.beginning()
    end
  end

  defp write_head(table, head) do
    mnesia(fn -> :mnesia.write(table, {table, :head, head, nil, head.number}, :write) end)
  end

  defp nodes!(table, head) do
    cond do
      table == Store.local() -> [node() | Cluster.connected()]
      Cluster.agrees?(head, Store.active(table)) -> head.nodes
      true -> :mnesia.abort(:changing)
    end
  end

  defp several?(table, nodes), do: table == Store.agreed() and nodes != [node()]

  # What mnesia has here may be another history than that of the others.
  defp check_own_copy(head) do
    if not confirmed?([node()], {head.epoch, Head.mark(head)}), do: :mnesia.abort(:changing)
  end

  defp confirmed?(nodes, mark), do: Feed.have?(nodes, mark, @confirm_ms)

  defp finish(table, value, rows, {epoch, _mark} = mark, nodes) do
    cond do
      table == Store.local() ->
        Ledger.tell(rows)
        {:committed, value}

      nodes == [node()] or confirmed?(nodes, mark) ->
        {:committed, value}

      true ->
        Formation.end_epoch(epoch)
        {:unconfirmed, value, mark}
    end
  end

  @again [:no_majority, :no_exists, :node_not_running, :bad_commit]

  # mnesia aborts a commit for reasons that it names; if it fails in it, the outcome is not known.
  defp aborted({:ledger, reason}, _committing?), do: {:aborted, reason}
  defp aborted(:unwanted, _committing?), do: :unwanted
  defp aborted(:stopped, true), do: :unknown
  defp aborted(reason, _committing?) when reason in [:changing, :nomore, :stopped], do: :again
  defp aborted({reason, _what}, _committing?) when reason in @again, do: :again
  defp aborted(_reason, true), do: :unknown
  defp aborted(reason, false), do: {:aborted, reason}
end

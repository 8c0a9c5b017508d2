defmodule Foundation.Coordination.Transaction do
  @moduledoc """
  One attempt at a transaction of the ledger, in the process that `Foundation.Coordination.Ledger` has started for it.

  The table is locked first, on all members that hold a copy, so that there is one transaction at a time and nothing can
  be read that is not the latest. It goes on only if these members are the composition in which the majority last came
  together (see `t:Foundation.Coordination.Store.head/0`).

  mnesia's commit returns when this node has committed and the others have been told; if they are lost at that moment,
  they have not. So the table is locked once more: a member grants this lock when it has finished with the one before.
  What is confirmed in that way is on every member of a composition with a majority, and every later majority shares a
  member with it.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Ledger, Store}

  @typedoc "Where a transaction stands in the history of its table."
  @type mark :: {epoch :: non_neg_integer, number :: pos_integer}

  @doc """
  Runs `fun`, for `caller`, if it still waits.

  `:again` says that nothing has been written because the majority is just changing, `:unwanted` that nobody waits any more;
  `:unknown` that mnesia was stopped in the midst of the commit.
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
        number = head.number + 1
        Ledger.context(%{table: table, nodes: nodes, number: number, rows: %{}})
        value = fun.()
        rows = Ledger.context().rows
        if rows != %{}, do: write_head(table, %{head | number: number})
        :atomics.put(marker, 1, 1)
        {value, rows, {head.epoch, number}, head.nodes}
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

  @doc "Calls mnesia inside a transaction: if it fails because it is being stopped, the transaction is aborted."
  @spec mnesia((() -> result)) :: result when result: term
  def mnesia(fun) do
    fun.()
  catch
    :error, _reason -> :mnesia.abort(:stopped)
  end

  @doc "Whether the transaction with this mark is part of the history on which the majority has agreed."
  @spec confirm(Store.table(), mark) :: :committed | :lost | :again
  def confirm(table, {epoch, number}) do
    result =
      transaction(fn ->
        lock(table)
        head = head!(table)
        nodes!(table, head)
        if head.epoch == epoch, do: head.number, else: Map.get(head.ends, epoch, 0)
      end)

    case result do
      {:atomic, latest} when latest >= number -> :committed
      {:atomic, _latest} -> :lost
      {:aborted, _reason} -> :again
    end
  end

  @doc "Begins `epoch` in the composition `nodes`, if that is what this node sees: the first transaction of each epoch."
  @spec begin(pos_integer, [node]) :: :ok | {:error, term}
  def begin(epoch, nodes) do
    table = Store.agreed()

    result =
      transaction(fn ->
        lock(table)
        head = head!(table)
        if Store.active(table) != nodes or head.epoch >= epoch, do: :mnesia.abort(:changed)
        ends = head.ends |> Map.put(head.epoch, head.number) |> latest()
        write_head(table, %{head | epoch: epoch, nodes: nodes, ends: ends})
      end)

    case result do
      {:atomic, :ok} -> :ok
      {:aborted, reason} -> {:error, reason}
    end
  end

  # Enough for transactions that were under way when the composition changed several times in a row.
  defp latest(ends), do: ends |> Enum.sort(:desc) |> Enum.take(16) |> Map.new()

  defp check_wanted(caller, deadline) do
    if Call.left(deadline) == 0 or not Process.alive?(caller), do: :mnesia.abort(:unwanted)
  end

  defp lock(table), do: mnesia(fn -> :mnesia.write_lock_table(table) end)

  defp head!(table) do
    case mnesia(fn -> :mnesia.read(table, :head, :write) end) do
      [{_table, :head, head, _owner, _version}] -> head
      [] -> Store.beginning()
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

  defp finish(table, value, rows, mark, nodes) do
    cond do
      table == Store.local() ->
        Ledger.tell(rows)
        {:committed, value}

      nodes == [node()] or confirm(table, mark) == :committed ->
        {:committed, value}

      true ->
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

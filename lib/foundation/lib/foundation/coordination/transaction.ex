defmodule Foundation.Coordination.Transaction do
  @moduledoc """
  Transactions of the ledger, those of one turn together, in the process that
  `Foundation.Coordination.Queue` has started for them.

  The table is locked first, on all members that hold a copy, so that there is one turn at a time
  and nothing can be read that is not the latest. It goes on only if these members are the
  composition in which the majority last came together (see `t:Foundation.Coordination.Head.t/0`).
  Then the functions run one after the other: each sees what those before it wrote, and what one
  wrote that failed is seen by none.

  mnesia's commit returns when this node has committed and the others have been told. If nodes are
  lost at that moment, they have not been; and if they are not lost by all alike, mnesia may let
  one abort what another has committed, and not notice. So it is confirmed: the
  `Foundation.Coordination.Feed` of each node of the composition has to say that it has the turn,
  and all before it, without a gap. What is confirmed is on every node of a composition with a
  majority, and every later majority shares a node with it. What is not, ends the epoch. A node
  alone waits likewise for its own: mnesia may die before it has reported what it has committed.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Feed, Formation, Head, Ledger, Queue, Request, Store}

  # How long a copy may take to have what mnesia has committed; and this node's own, which has it
  # in its queue.
  @confirm_ms 1_000
  # How long one may take to say that it has seen that nothing was written.
  @unlock_ms 20
  # No other function is begun in a turn when its functions have taken so long.
  @turn_ms 5

  @failed {__MODULE__, :failed}

  @typedoc "Where a turn stands in the history of its table."
  @type mark :: {epoch :: non_neg_integer, Head.mark()}

  @doc """
  Carries out what is asked for, and answers each as `Foundation.Coordination.Queue.run/3` says;
  returns `{:left, froms}`, whose requests have to wait for the next turn.

  What has no more than `margin` milliseconds is not begun. The process is linked to `queue` while
  functions run.
  """
  @spec run(Store.table(), [Queue.entry()], non_neg_integer, pid) :: {:left, [GenServer.from()]}
  def run(table, entries, margin, queue) do
    requests = Enum.map(entries, fn {_from, request} -> request end)

    result =
      transaction(fn ->
        # mnesia may run this anew: what it began before has been aborted then.
        Process.delete(@failed)
        Enum.each(requests, &Request.again/1)
        link(queue)
        check_wanted(requests, margin)
        lock(table)
        head = head!(table)
        nodes = nodes!(table, head)
        if several?(table, nodes), do: check_own_copy(head)
        {outcomes, {number, rows}} = perform(requests, margin, table, nodes, head.number)
        Process.unlink(queue)
        next = if rows == %{}, do: head, else: Head.next(head, number)
        if rows != %{}, do: write_head(table, next)
        Enum.each(requests, &Request.committing/1)
        {outcomes, rows, {next.epoch, Head.mark(next)}, nodes}
      end)

    case result do
      {:atomic, {outcomes, rows, mark, nodes}} when rows == %{} ->
        left = answer(entries, outcomes, true, mark)
        if several?(table, nodes), do: await_unlocked(nodes, mark)
        {:left, left}

      {:atomic, {outcomes, rows, mark, nodes}} ->
        {:left, answer(entries, outcomes, finish(table, rows, mark, nodes), mark)}

      {:aborted, reason} ->
        for {from, request} <- entries,
            do: GenServer.reply(from, aborted(reason, Request.committing?(request)))

        {:left, []}
    end
  end

  defp answer(entries, outcomes, agreed?, mark) do
    {left, done} = entries |> Enum.zip(outcomes) |> Enum.split_with(&match?({_entry, :left}, &1))

    for {{from, _request}, outcome} <- done,
        do: GenServer.reply(from, told(outcome, agreed?, mark))

    Enum.map(left, fn {{from, _request}, :left} -> from end)
  end

  # What nothing was written in is not confirmed, and the other nodes are told to unlock the table
  # by a message: the next turn, which would sleep if it came before it, begins behind it.
  defp await_unlocked(nodes, mark), do: Feed.have?(nodes, mark, @unlock_ms)

  defp transaction(fun) do
    with {:error, reason} <- Store.ask(fn -> :mnesia.transaction(fun) end), do: {:aborted, reason}
  end

  defp link(queue) do
    Process.link(queue)
  rescue
    # It is dead: who asked hears of that, and asks again.
    _error in ErlangError -> :mnesia.abort(:stopped)
  end

  defp check_wanted(requests, margin) do
    if not Enum.any?(requests, &Request.wanted?(&1, margin)), do: :mnesia.abort(:unwanted)
  end

  # The outcome of each; the number of the last one that wrote something, and what all wrote. The
  # table is locked meanwhile, and nobody is answered.
  defp perform(requests, margin, table, nodes, number) do
    over = Call.deadline(@turn_ms)

    Enum.map_reduce(requests, {number, %{}}, fn request, {number, rows} ->
      context = %{table: table, nodes: nodes, number: number + 1, rows: %{}}
      outcome = if Call.left(over) > 0, do: perform(request, margin, context), else: :left

      case outcome do
        {:ok, _value, own} when own == %{} ->
          {outcome, {number, rows}}

        {:ok, _value, own} ->
          if hides?(own, rows) do
            Request.again(request)
            {:left, {number, rows}}
          else
            Enum.each(own, &write(table, &1))
            {outcome, {number + 1, Map.merge(rows, own)}}
          end

        _left_late_or_aborted ->
          {outcome, {number, rows}}
      end
    end)
  end

  defp perform(request, margin, context) do
    if Request.wanted?(request, margin) and Request.run(request) do
      outcome = call(request.fun, context)
      if Request.ran(request), do: outcome, else: :late
    else
      :late
    end
  end

  # Were a key written and deleted in one turn, its watchers would hear of neither.
  defp hides?(own, rows) do
    Enum.any?(own, fn {key, row} ->
      row == :deleted and Map.get(rows, key, :deleted) != :deleted
    end)
  end

  # Whatever it makes of mnesia's failure, that is the failure of all.
  defp call(fun, context) do
    Ledger.context(context)
    outcome = caught(fun)
    %{rows: rows} = Ledger.context()
    Ledger.context(nil)

    case {Process.get(@failed), outcome} do
      {nil, {:ok, value}} -> {:ok, value, rows}
      {nil, {:aborted, reason}} -> {:aborted, reason}
      {{:failed, reason}, _outcome} -> :mnesia.abort(reason)
    end
  end

  # The reasons are those that mnesia gives.
  defp caught(fun) do
    {:ok, fun.()}
  catch
    :exit, {:aborted, {:ledger, reason}} -> {:aborted, reason}
    :exit, reason -> {:aborted, reason}
    :throw, value -> {:aborted, {:throw, value}}
    :error, reason -> {:aborted, {reason, __STACKTRACE__}}
  end

  defp write(table, {key, :deleted}), do: mnesia(fn -> :mnesia.delete(table, key, :write) end)
  defp write(table, {_key, row}), do: mnesia(fn -> :mnesia.write(table, row, :write) end)

  @doc """
  Calls mnesia inside a transaction: if it fails, because it is being stopped say, all of the turn
  is aborted.
  """
  @spec mnesia((() -> result)) :: result when result: term
  def mnesia(fun) do
    fun.()
  catch
    :exit, {:aborted, reason} -> fail(reason)
    _kind, _reason -> fail(:stopped)
  end

  @spec fail(term) :: no_return
  defp fail(reason) do
    Process.put(@failed, {:failed, reason})
    :mnesia.abort(reason)
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
      Formation.kept?() -> :mnesia.abort(:changing)
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

  # Whether what has been committed is agreed.
  defp finish(table, rows, {epoch, _mark} = mark, nodes) do
    cond do
      table == Store.local() ->
        Ledger.tell(rows)
        true

      confirmed?(nodes, mark) ->
        true

      true ->
        Formation.end_epoch(epoch)
        false
    end
  end

  # What another one of the turn wrote may be why one failed, or what one read.
  defp told({:ok, value, _own}, true, _mark), do: {:committed, value}
  defp told({:ok, _value, own}, false, _mark) when own == %{}, do: :again
  defp told({:ok, value, _own}, false, mark), do: {:unconfirmed, value, mark}
  defp told({:aborted, reason}, true, _mark), do: {:aborted, reason}
  defp told({:aborted, _reason}, false, _mark), do: :again
  defp told(:late, _agreed?, _mark), do: :late

  @again [:no_majority, :no_exists, :node_not_running, :bad_commit]

  # mnesia aborts a commit for reasons that it names; if it fails in it, the outcome is not known.
  defp aborted(:unwanted, _committing?), do: :late
  defp aborted(:stopped, true), do: :unknown
  defp aborted(reason, _committing?) when reason in [:changing, :nomore, :stopped], do: :again
  defp aborted({reason, _what}, _committing?) when reason in @again, do: :again
  defp aborted(_reason, true), do: :unknown
  defp aborted(reason, false), do: {:aborted, reason}
end

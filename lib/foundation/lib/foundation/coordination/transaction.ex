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
  majority, and every later majority shares a node with it. What is not, ends the epoch.
  """
  alias Foundation.Coordination.{Cluster, Feed, Formation, Head, Ledger, Request, Store}

  # How long a copy may take to have what mnesia has committed; and this node's own, which has it
  # in its queue.
  @confirm_ms 1_000

  @failed {__MODULE__, :failed}

  @typedoc "Where a turn stands in the history of its table."
  @type mark :: {epoch :: non_neg_integer, Head.mark()}

  @doc """
  Carries out `requests`, and answers each as `Foundation.Coordination.Queue.run/3` says.
  """
  @spec run(Store.table(), [{GenServer.from(), Request.t()}]) :: :ok
  def run(table, requests) do
    {froms, requests} = Enum.unzip(requests)

    result =
      transaction(fn ->
        # mnesia may run this anew: what it began before has been aborted then.
        Process.delete(@failed)
        Enum.each(requests, &Request.again/1)
        check_wanted(requests)
        lock(table)
        head = head!(table)
        nodes = nodes!(table, head)
        if several?(table, nodes), do: check_own_copy(head)
        {outcomes, {number, rows}} = perform(requests, table, nodes, head.number)
        next = if rows == %{}, do: head, else: Head.next(head, number)
        if rows != %{}, do: write_head(table, next)
        Enum.each(requests, &Request.committing/1)
        {outcomes, rows, {next.epoch, Head.mark(next)}, nodes}
      end)

    case result do
      {:atomic, {outcomes, rows, mark, nodes}} when rows == %{} ->
        answer(froms, Enum.map(outcomes, &outcome(&1, true, mark)))
        if several?(table, nodes), do: await_unlocked(nodes, mark)

      {:atomic, {outcomes, rows, mark, nodes}} ->
        agreed? = finish(table, rows, mark, nodes)
        answer(froms, Enum.map(outcomes, &outcome(&1, agreed?, mark)))

      {:aborted, reason} ->
        answer(froms, Enum.map(requests, &aborted(reason, Request.committing?(&1))))
    end
  end

  defp answer(froms, answers) do
    froms
    |> Enum.zip(answers)
    |> Enum.each(fn {from, answer} -> GenServer.reply(from, answer) end)
  end

  # What nothing was written in is not confirmed, and the other nodes are told to unlock the table
  # by a message: the next turn, which would sleep if it came before it, begins behind it.
  defp await_unlocked(nodes, mark) do
    _have = confirmed?(nodes, mark)
    :ok
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

  defp check_wanted(requests) do
    if not Enum.any?(requests, &Request.wanted?/1), do: :mnesia.abort(:unwanted)
  end

  # The outcome of each; the number of the last one that wrote something, and what all wrote.
  defp perform(requests, table, nodes, number) do
    Enum.map_reduce(requests, {number, %{}}, fn request, {number, rows} ->
      with true <- Request.wanted?(request) and Request.running(request),
           context = %{table: table, nodes: nodes, number: number + 1, rows: %{}},
           {:ok, _value, own} = outcome <- call(request.fun, context),
           true <- Request.ran(request) do
        Enum.each(own, &write(table, &1))
        number = if own == %{}, do: number, else: number + 1
        {outcome, {number, Map.merge(rows, own)}}
      else
        false -> {:late, {number, rows}}
        {:aborted, _reason} = outcome -> {outcome, {number, rows}}
      end
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

      nodes == [node()] or confirmed?(nodes, mark) ->
        true

      true ->
        Formation.end_epoch(epoch)
        false
    end
  end

  # One that failed may have done so for what another one wrote.
  defp outcome(:late, _agreed?, _mark), do: :late
  defp outcome({:ok, value, _rows}, true, _mark), do: {:committed, value}
  defp outcome({:ok, value, _rows}, false, mark), do: {:unconfirmed, value, mark}
  defp outcome({:aborted, reason}, true, _mark), do: {:aborted, reason}
  defp outcome({:aborted, _reason}, false, _mark), do: :again

  @again [:no_majority, :no_exists, :node_not_running, :bad_commit]

  # mnesia aborts a commit for reasons that it names; if it fails in it, the outcome is not known.
  defp aborted(:unwanted, _committing?), do: :late
  defp aborted(:stopped, true), do: :unknown
  defp aborted(reason, _committing?) when reason in [:changing, :nomore, :stopped], do: :again
  defp aborted({reason, _what}, _committing?) when reason in @again, do: :again
  defp aborted(_reason, true), do: :unknown
  defp aborted(reason, false), do: {:aborted, reason}
end

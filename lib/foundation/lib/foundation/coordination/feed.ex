defmodule Foundation.Coordination.Feed do
  @moduledoc """
  Follows the ledger's tables on this node: tells the watchers what has changed, and keeps a copy.

  The copy lies in a table that outlives this server and mnesia. From it the rows return that were
  lost with mnesia's memory, if it is `whole?/0`. A transaction is copied as soon as mnesia has
  carried it out, which it reports when it has told this server of all that was written: as a whole,
  for what this server has begun the next one ends. It is not agreed until the copies have it
  (`have?/3`).

  Where the server was restarted, or mnesia loaded a table anew, the copy shows what has changed
  meanwhile. A transaction that was under way when this server subscribed may be reported to nobody:
  so it compares once more a little later. Of the agreed table it takes what stood between two turns
  only, for mnesia writes the rows of one by one.

  Watchers of the topic `{:ledger, tag}` get `{:foundation_ledger, key, :written | :deleted}` for
  each key `{tag, term}`; watchers of `:rows` get `{:foundation_row, row}` for each that is
  written; watchers of `:head` get `:foundation_head` when the composition of the majority has
  changed.
  """
  use GenServer

  alias Foundation.Coordination.{Formation, Head, Store, Watchers}
  alias Foundation.{Call, Stray, TableKeeper}

  @table __MODULE__
  @keeper Foundation.Coordination.TableKeeper
  @waiting 1_000
  # Before who waits for it gives up.
  @compare_ms 500
  # So often, and so long after each other, it looks for the moment between two turns.
  @looks 20
  @look_ms 2

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Brings the copy up to date, and follows the tables that are there from then on.

  To be called when a table has been made or loaded; watchers hear of the difference before it
  returns.
  """
  @spec attach() :: :ok
  def attach, do: GenServer.call(__MODULE__, :attach, 30_000)

  @doc "The rows of `table` as the copy has them."
  @spec copy(Store.table()) :: [Store.row()]
  def copy(table), do: for([row] <- :ets.match(@table, {{table, :_}, :"$1"}), do: row)

  @doc "The head of `table` as the copy has it."
  @spec head(Store.table()) :: Head.t()
  def head(table) do
    case :ets.lookup(@table, {table, :head}) do
      [{_key, {_table, :head, head, _owner, _version}}] -> head
      [] -> Head.beginning()
    end
  end

  @doc """
  Whether the copies of the agreed table on all of `nodes` have the transaction with `mark`, of
  `epoch`, or get it within `timeout` milliseconds.
  """
  @spec have?([node], {epoch :: non_neg_integer, Head.mark()}, non_neg_integer) :: boolean
  def have?(nodes, mark, timeout) do
    deadline = Call.deadline(timeout)
    requests = for node <- nodes, do: :gen_server.send_request({__MODULE__, node}, {:have?, mark})

    answers =
      for request <- requests, do: :gen_server.receive_response(request, Call.left(deadline))

    Enum.all?(answers, &(&1 == {:reply, true}))
  end

  @doc """
  Whether the copy has come apart from those of the others: a transaction was made on top of
  another one than its latest.

  From then on it stays as it was, until mnesia has been started anew.
  """
  @spec apart?() :: boolean
  def apart? do
    case :ets.lookup(@table, :apart) do
      [{:apart, mnesia}] -> mnesia == Process.whereis(:mnesia_sup)
      [] -> false
    end
  end

  @doc """
  Whether the copy lacks nothing that was ever agreed with this node: it has followed a table that
  has it all, and has not been lost since.
  """
  @spec whole?() :: boolean
  def whole?, do: :ets.member(@table, :whole)

  @doc """
  Tells the `Feed` of `node` which rows this node has written into, and which keys deleted from,
  its local table.
  """
  @spec tell(node, [Store.row()], [term]) :: :ok
  def tell(node, rows, deleted), do: GenServer.cast({__MODULE__, node}, {:told, rows, deleted})

  @doc "Follows mnesia, if that is not so: what was kept has been restored."
  @spec resume() :: :ok
  def resume, do: GenServer.cast(__MODULE__, :resume)

  # `changes` are those of transactions that mnesia has not carried out yet; `waiting` ask for a
  # mark that is not there yet; `compare` is the timer of the next comparison; `mnesia` is which one
  # it follows.
  @impl true
  def init([]) do
    # mnesia links its subscribers, and is stopped and started.
    Process.flag(:trap_exit, true)
    :ok = TableKeeper.claim(@keeper, @table)
    end_turn()
    {:ok, resume(%{changes: %{}, waiting: [], compare: nil, mnesia: nil})}
  end

  # What has been carried out has been copied when this call's turn comes; what has not, never
  # will.
  @impl true
  def handle_call(:attach, _from, state), do: {:reply, :ok, follow(state)}

  def handle_call({:have?, mark}, from, state) do
    case have(mark) do
      :not_yet ->
        {:noreply, %{state | waiting: Enum.take([{from, mark} | state.waiting], @waiting)}}

      answer ->
        {:reply, answer, state}
    end
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(:resume, state), do: {:noreply, resume(state)}

  def handle_cast({:told, rows, deleted}, state) do
    Store.write(Store.local(), rows)
    Store.delete(Store.local(), deleted)
    {:noreply, state}
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:mnesia_table_event, {what, row_or_key, tid}}, state)
      when what in [:write, :delete] do
    {:noreply, change({what, row_or_key}, tid, state)}
  end

  def handle_info({:mnesia_activity_event, {:complete, tid}}, state) do
    {changes, rest} = Map.pop(state.changes, tid, [])

    # mnesia reports all of it once more when it was finished for a process that died in its commit.
    changes |> Enum.reverse() |> Enum.uniq() |> Enum.filter(&new?/1) |> carried_out(state.mnesia)
    {:noreply, answer(%{state | changes: rest})}
  end

  def handle_info(:compare, state) do
    done? = apart?() or Formation.kept?() or caught_up?()
    {:noreply, answer(%{state | compare: if(not done?, do: compare_later())})}
  end

  def handle_info({:EXIT, _mnesia, _reason}, state), do: {:noreply, state}

  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, @table)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  defp change(change, {:dirty, _pid}, state) do
    [change] |> Enum.filter(&new?/1) |> copy_changes()
    state
  end

  defp change(change, tid, state) do
    %{state | changes: Map.update(state.changes, tid, [change], &[change | &1])}
  end

  defp carried_out(changes, mnesia) do
    agreed = Store.agreed()
    heads = for {:write, {^agreed, :head, head, _owner, _version}} <- changes, do: head

    case heads do
      [] -> copy_changes(changes)
      [next] -> if apart?(), do: :ok, else: carried_out(next, head(agreed), changes, mnesia)
    end
  end

  # What was in the table already when it was compared is told once more; of the very latest not
  # all may have been there.
  defp carried_out(next, head, changes, mnesia) do
    cond do
      Head.follows?(next, head) or Head.mark(next) == Head.mark(head) ->
        copy_changes(changes)

      Head.includes?(head, {next.epoch, Head.mark(next)}) ->
        :ok

      # Nobody else could have written it: it was not reported.
      next.nodes == [node()] ->
        send(self(), :compare)

      true ->
        :ets.insert(@table, {:apart, mnesia})
        Watchers.publish(:head, :foundation_head)
    end
  end

  defp copy_changes([]), do: :ok

  defp copy_changes(changes) do
    :ets.insert(@table, {:turn, changes})
    Enum.each(changes, &copy_change/1)
    :ets.delete(@table, :turn)
  end

  # What the server before this one was at: some of it has not been told.
  defp end_turn do
    for {:turn, changes} <- :ets.lookup(@table, :turn) do
      copy_changes(changes)
      Watchers.publish(:head, :foundation_head)
    end
  end

  defp new?({:write, row}) do
    key = {elem(row, 0), elem(row, 1)}
    :ets.lookup(@table, key) != [{key, row}]
  end

  defp new?({:delete, table_and_key}), do: :ets.member(@table, table_and_key)

  defp copy_change({:write, row}) do
    {table, key} = {elem(row, 0), elem(row, 1)}
    before = :ets.lookup(@table, {table, key})
    :ets.insert(@table, {{table, key}, row})
    if key == :head, do: head_written(row, before), else: row_written(row)
  end

  defp copy_change({:delete, {_table, key} = table_and_key}) do
    :ets.delete(@table, table_and_key)
    if key != :head, do: publish(key, :deleted)
  end

  defp have({epoch, {number, _reference}} = mark) do
    head = head(Store.agreed())

    cond do
      apart?() -> Head.includes?(head, mark)
      Head.includes?(head, mark) -> true
      head.epoch > epoch or head.number >= number -> false
      true -> :not_yet
    end
  end

  # Who has waited for long does not listen any more; the oldest are dropped.
  defp answer(%{waiting: waiting} = state) do
    answers = Enum.map(waiting, fn {from, mark} -> {from, mark, have(mark)} end)
    for {from, _mark, answer} <- answers, answer != :not_yet, do: GenServer.reply(from, answer)
    %{state | waiting: for({from, mark, :not_yet} <- answers, do: {from, mark})}
  end

  # What is kept is to return as it is: in the tables there may be one half of it.
  defp resume(state) do
    if Formation.kept?() or
         (state.mnesia != nil and state.mnesia == Process.whereis(:mnesia_sup)),
       do: state,
       else: follow(state)
  end

  defp follow(state) do
    mnesia = Process.whereis(:mnesia_sup)
    fresh? = Store.running?() and match?({:ok, _}, :mnesia.subscribe(:activity))
    state = if fresh?, do: %{state | changes: %{}, mnesia: mnesia}, else: state

    if not apart?() do
      :ets.delete(@table, :apart)

      for table <- Store.tables(), Store.active(table) != [] do
        :mnesia.subscribe({:table, table, :simple})
      end

      caught_up?()
    end

    answer(%{state | compare: state.compare || compare_later()})
  end

  defp compare_later, do: Process.send_after(self(), :compare, @compare_ms)

  # Subscribed first, compared then: what changes in between is seen twice, which harms nobody. What
  # cannot be read stays as it is in the copy.
  defp caught_up? do
    agreed = Store.agreed()

    if agreed in compare(),
      do: :ets.insert(@table, {:whole}),
      else: Store.active(agreed) == []
  end

  # Returns the tables that could be read.
  defp compare do
    for table <- Store.tables(), {:ok, rows} <- [rows(table, @looks)] do
      keys = MapSet.new(rows, &elem(&1, 1))
      written = for row <- rows, new?({:write, row}), do: {:write, row}

      deleted =
        for row <- copy(table), elem(row, 1) not in keys, do: {:delete, {table, elem(row, 1)}}

      copy_changes(written ++ deleted)
      table
    end
  end

  defp rows(table, looks) do
    cond do
      table == Store.local() -> Store.rows(table)
      looks > 0 and Store.locked?(table) -> rows_later(table, looks)
      true -> rows_between(table, looks)
    end
  end

  # None is newer than the head, which has not changed. The lock of a turn may be held all the time,
  # and by one that waits for this server.
  defp rows_between(table, looks) do
    with {:ok, head} <- Store.head(table),
         {:ok, rows} <- Store.rows(table),
         {:ok, again} <- Store.head(table) do
      between? = again == head and Enum.all?(rows, &(elem(&1, 4) <= head.number))

      cond do
        between? and (looks == 0 or not Store.locked?(table)) -> {:ok, rows}
        looks == 0 -> :error
        true -> rows_later(table, looks)
      end
    end
  end

  defp rows_later(table, looks) do
    Process.sleep(@look_ms)
    rows(table, looks - 1)
  end

  # Each transaction writes the head; the composition of the majority seldom changes.
  defp head_written({_table, :head, head, _owner, _version}, before) do
    case before do
      [{_key, {_, :head, %{epoch: epoch, nodes: nodes}, _, _}}]
      when epoch == head.epoch and nodes == head.nodes ->
        :ok

      _other ->
        Watchers.publish(:head, :foundation_head)
    end
  end

  defp row_written(row) do
    Watchers.publish(:rows, {:foundation_row, row})
    publish(elem(row, 1), :written)
  end

  defp publish({tag, _term} = key, what) do
    Watchers.publish({:ledger, tag}, {:foundation_ledger, key, what})
  end
end

defmodule Foundation.Coordination.Ledger do
  @moduledoc """
  What the members of the cluster agree upon: keys and values in memory, changed by transactions.

  With `:phase_4` on, a transaction takes place when a majority of the members holds what it
  wrote, and from then on each later transaction sees it, whatever partitions come and heal. In a
  minority it waits for a majority until its deadline. With `:phase_4` off each node has a ledger
  of its own and tells the connected members what it wrote: whoever writes last, wins. Both are
  kept when the phase is switched; what was begun in one ends in it.

      Ledger.transaction(
        fn ->
          case Ledger.read({:seat, 7}) do
            :error -> Ledger.write({:seat, 7}, passenger)
            {:ok, _other} -> Ledger.abort(:taken)
          end
        end,
        1_000
      )

  Transactions take place one after the other, so that their functions should be short. A function
  may be run more than once before its transaction takes place, and others' are run in the same
  process before and after it: it must do nothing but read and write the ledger, and leave no
  messages, links or flags behind.

  Values live as long as a majority of the members does: they are lost when more members than a
  minority lose their memory before the first of them is back in the cluster.
  """
  alias Foundation.Coordination.{Cluster, Feed, Queue, Store, Transaction, Watchers, Work}
  alias Foundation.{Call, Supervision}

  @typedoc "`{tag, term}`; the tag says which kind of thing the value is."
  @type key :: {tag :: term, term}
  @type reason :: :no_quorum | :timeout | :unavailable | {:aborted, term}

  @context {__MODULE__, :context}

  @doc "The table that transactions use as the phases stand."
  @spec table() :: Store.table()
  def table, do: if(Supervision.enabled?(:phase_4), do: Store.agreed(), else: Store.local())

  @doc """
  Runs `fun` as a transaction, in a supervised process, and returns `{:ok, result}` when what it
  wrote is agreed.

  `timeout` is in milliseconds. Errors:

    * `:no_quorum` - there was no majority until the deadline; nothing has been written
    * `:timeout` - the deadline passed, or a node or process was lost, while the transaction was
      under way: it may have taken place, or take place yet
    * `:unavailable` - Foundation does not run, or is just being restarted; nothing has been
      written
    * `{:aborted, reason}` - `abort/1` was called, `fun` failed, or the arguments are wrong;
      nothing has been written
  """
  @spec transaction((() -> result), non_neg_integer, Store.table()) ::
          {:ok, result} | {:error, reason}
        when result: term
  def transaction(fun, timeout, table \\ table()) do
    cond do
      not is_function(fun, 0) -> {:error, {:aborted, :bad_function}}
      table not in Store.tables() -> {:error, {:aborted, :bad_table}}
      not (is_integer(timeout) and timeout in 0..0xFFFFFFFF) -> {:error, {:aborted, :bad_timeout}}
      Process.get(@context) != nil -> {:error, {:aborted, :nested}}
      true -> attempt(table, fun, Call.deadline(timeout))
    end
  end

  defp attempt(table, fun, deadline) do
    with :ok <- Cluster.await(table, deadline) do
      case Queue.run(table, fun, deadline) do
        {:committed, result} -> {:ok, result}
        {:unconfirmed, result, mark} -> settle(table, result, mark, deadline)
        {:aborted, reason} -> {:error, {:aborted, reason}}
        :again -> attempt(table, fun, deadline)
        unsure_or_late when unsure_or_late in [:unknown, :late] -> {:error, :timeout}
        :unavailable -> {:error, :unavailable}
      end
    end
  end

  # Committed here, but a node was lost meanwhile: whether the majority has it shows when there is
  # one again.
  defp settle(table, result, mark, deadline) do
    with :ok <- Cluster.await(table, deadline),
         {:ok, answer} when answer != :again <-
           Work.run(Transaction, :settle, [table, mark], deadline) do
      if answer == :committed, do: {:ok, result}, else: {:error, :timeout}
    else
      {:ok, :again} -> settle(table, result, mark, deadline)
      _failure -> {:error, :timeout}
    end
  end

  @doc "The value under `key`, inside a transaction."
  @spec read(key) :: {:ok, term} | :error
  def read(key) do
    case row(key) do
      [{_table, _key, value, _owner, _version}] -> {:ok, value}
      [] -> :error
    end
  end

  @doc """
  Puts `value` under `key`, inside a transaction.

  With a process as `owner`, the key is deleted when that process has died, or its node has left
  the majority.
  """
  @spec write(key, term, pid | nil) :: :ok
  def write({_tag, _term} = key, value, owner \\ nil) when is_pid(owner) or is_nil(owner) do
    %{table: table, number: number} = context()
    change(key, {table, key, value, owner, number})
  end

  @doc "Removes `key`, inside a transaction; removing what is not there is no error."
  @spec delete(key) :: :ok
  def delete({_tag, _term} = key), do: change(key, :deleted)

  # mnesia gets it when the function has returned.
  defp change(key, row) do
    context = context()
    context(%{context | rows: Map.put(context.rows, key, row)})
    :ok
  end

  @doc "All keys with `tag`, in no order, inside a transaction."
  @spec keys(term) :: [key]
  def keys(tag) do
    %{table: table, rows: rows} = context()

    pattern =
      {{table, {:"$1", :_}, :_, :_, :_}, [{:"=:=", :"$1", {:const, tag}}], [{:element, 2, :"$_"}]}

    before = Transaction.mnesia(fn -> :mnesia.select(table, [pattern], :read) end)
    written = for {{^tag, _term} = key, row} <- rows, row != :deleted, do: key
    Enum.reject(before, &is_map_key(rows, &1)) ++ written
  end

  @doc "The process that owns `key`, inside a transaction; `nil` when there is none."
  @spec owner(key) :: pid | nil
  def owner(key) do
    case row(key) do
      [{_table, _key, _value, owner, _version}] -> owner
      [] -> nil
    end
  end

  defp row(key) do
    %{table: table, rows: rows} = context()

    case rows do
      %{^key => :deleted} -> []
      %{^key => row} -> [row]
      %{} -> Transaction.mnesia(fn -> :mnesia.read(table, key, :read) end)
    end
  end

  @doc "The nodes that take part, inside a transaction: processes of others are as good as dead."
  @spec nodes() :: [node]
  def nodes, do: context().nodes

  @doc "The number of the transaction, inside it: greater than that of all before it."
  @spec number() :: pos_integer
  def number, do: context().number

  @doc "Ends the transaction without effect: its caller gets `{:error, {:aborted, reason}}`."
  @spec abort(term) :: no_return
  def abort(reason), do: :mnesia.abort({:ledger, reason})

  @doc "The value under `key` as this node has it, outside of a transaction: it may be behind."
  @spec peek(key, Store.table()) :: {:ok, term} | :error
  def peek(key, table \\ table()) do
    with {:ok, {_table, _key, value, _owner, _version}} <- Store.read(table, key),
         do: {:ok, value}
  end

  @doc """
  Sends `{:foundation_ledger, key, :written | :deleted}` to the caller for each key `{tag, term}`
  that changes on this node.

  The change can be read when the message arrives. One that is made several times, or found after
  a restart, may be told once or twice.
  """
  @spec subscribe(term) :: :ok | {:error, Call.reason()}
  def subscribe(tag), do: Watchers.subscribe({:ledger, tag})

  @doc "Ends the caller's subscription; messages already sent stay in its mailbox."
  @spec unsubscribe(term) :: :ok | {:error, Call.reason()}
  def unsubscribe(tag), do: Watchers.unsubscribe({:ledger, tag})

  @doc false
  def context(context), do: Process.put(@context, context)

  @doc false
  def context do
    Process.get(@context) || raise ArgumentError, "only inside of Ledger.transaction/2"
  end

  @doc false
  def tell(rows) do
    {deleted, written} = Enum.split_with(rows, &match?({_key, :deleted}, &1))
    deleted = Enum.map(deleted, &elem(&1, 0))
    written = Enum.map(written, &elem(&1, 1))
    for node <- Cluster.connected(), do: Feed.tell(node, written, deleted)
    :ok
  end
end

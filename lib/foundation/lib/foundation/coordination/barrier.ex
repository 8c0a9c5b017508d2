defmodule Foundation.Coordination.Barrier do
  @moduledoc """
  Processes, on whatever node, that wait for each other until there are enough of them.

  Each has a row in the ledger that belongs to the process which waits on its behalf. The last to
  come marks the others' rows as open. The rows are deleted when those processes end, whether they
  were released, gave up, or died with who they wait for. A process that gives up just when the
  last one comes may have been counted.
  """
  alias Foundation.{Call, Legacy, Supervision}
  alias Foundation.Coordination.{Cluster, Ledger, Work}

  @typedoc "`{:bad_count, n}`: others wait at this barrier for it to be `n`."
  @type reason :: {:bad_count, pos_integer} | Ledger.reason()

  @doc "Waits, for the caller, at the barrier `id` for `count` processes."
  @spec sync(term, pos_integer, deadline :: integer) :: :ok | {:error, reason}
  def sync(id, count, deadline) do
    table = Ledger.table()
    arguments = [table, id, count, self(), deadline]

    if Supervision.enabled?(:phase_2) do
      supervised(table, arguments, deadline)
    else
      Legacy.Barrier.sync(arguments)
    end
  end

  defp supervised(table, arguments, deadline) do
    case Work.run(__MODULE__, :wait, arguments, deadline) do
      {:ok, result} ->
        result

      {:error, {:late, pid}} ->
        Process.exit(pid, :kill)
        {:error, Cluster.late(table)}

      {:error, {:exit, _reason}} ->
        supervised(table, arguments, deadline)

      {:error, :unavailable} ->
        {:error, :unavailable}
    end
  end

  @doc false
  def wait(table, id, count, caller, deadline) do
    watch = Process.monitor(caller)
    key = {{:barrier, id}, make_ref()}
    state = %{table: table, key: key, count: count, watch: watch, deadline: deadline}
    with :ok <- Ledger.subscribe({:barrier, id}), do: arrive(state)
  end

  defp arrive(state) do
    me = self()
    left = Call.left(state.deadline)

    case Ledger.transaction(fn -> arrive(state, me) end, left, state.table) do
      {:ok, :open} -> :ok
      {:ok, :closed} -> wait(state)
      {:error, {:aborted, {:bad_count, count}}} -> {:error, {:bad_count, count}}
      {:error, reason} -> {:error, reason}
    end
  end

  defp arrive(%{key: {tag, _ref} = key, count: count}, me) do
    waiting = Enum.filter(waiting(tag), fn {other, _row, _owner} -> other != key end)
    counts = for {_key, row, _owner} <- waiting, row.count != count, do: row.count

    cond do
      counts != [] ->
        Ledger.abort({:bad_count, hd(counts)})

      length(waiting) + 1 >= count ->
        for {other, row, owner} <- waiting, do: Ledger.write(other, %{row | open?: true}, owner)
        :open

      true ->
        Ledger.write(key, %{count: count, open?: false}, me)
        :closed
    end
  end

  defp waiting(tag) do
    for key <- Ledger.keys(tag),
        {:ok, %{open?: false} = row} <- [Ledger.read(key)],
        owner = Ledger.owner(key),
        node(owner) in Ledger.nodes(),
        do: {key, row, owner}
  end

  defp wait(%{key: key, watch: watch} = state) do
    receive do
      {:foundation_ledger, ^key, _written_or_deleted} ->
        case Ledger.peek(key, state.table) do
          {:ok, %{open?: false}} -> wait(state)
          _changed -> look(state)
        end

      {:DOWN, ^watch, :process, _caller, _reason} ->
        {:error, :timeout}
    after
      Call.left(state.deadline) -> {:error, :timeout}
    end
  end

  # What this node has may be ahead of what is agreed. A row that is gone was this node's, and the
  # node was away.
  defp look(%{key: key} = state) do
    case Ledger.transaction(fn -> Ledger.read(key) end, Call.left(state.deadline), state.table) do
      {:ok, {:ok, %{open?: true}}} -> :ok
      {:ok, {:ok, %{open?: false}}} -> wait(state)
      {:ok, :error} -> arrive(state)
      {:error, reason} -> {:error, reason}
    end
  end
end

defmodule Foundation.Coordination.Sweeper do
  @moduledoc """
  Deletes from the ledger what belonged to processes that are dead.

  Each node watches the owners that live on it, see `Foundation.Coordination.Ledger.write/3`.
  Those of a node that has left the majority are swept by the first node of the majority. What
  cannot be deleted for want of a majority is deleted when there is one again.

  It goes by the copy that the `Foundation.Coordination.Feed` keeps, which is there also while
  mnesia is being restarted.
  """
  use GenServer

  alias Foundation.Coordination.{Cluster, Feed, Ledger, Store, Watchers}
  alias Foundation.{Stray, TableKeeper}

  @table __MODULE__
  @keeper Foundation.Coordination.TableKeeper
  @transaction_ms 5_000
  @retry_ms 1_000

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Deletes `key` if its value is, or will be, a map whose `:claim` is `claim`: what a transaction
  may have written that was given up.

  The process that ran the transaction must be dead, or about to die.
  """
  @spec abandon(Store.table(), Ledger.key(), reference) :: :ok
  def abandon(table, key, claim) do
    :ets.insert(@table, {claim, table, key})
    GenServer.cast(__MODULE__, :sweep)
  rescue
    # The table is gone for a moment, with its keeper and its server: the caller's end will do.
    ArgumentError -> :ok
  end

  @impl true
  def init([]) do
    :ok = TableKeeper.claim(@keeper, @table)
    :ok = Watchers.subscribe(:rows)
    :ok = Watchers.subscribe(:cluster)
    monitors = Store.tables() |> Enum.flat_map(&Feed.copy/1) |> Enum.reduce(%{}, &watch/2)
    {:ok, sweep(%{monitors: monitors, task: nil, again?: false})}
  end

  @impl true
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(:sweep, state), do: {:noreply, sweep(state)}
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:foundation_row, row}, state) do
    {:noreply, %{state | monitors: watch(row, state.monitors)}}
  end

  def handle_info({:foundation_cluster, _event}, state), do: {:noreply, sweep(state)}
  def handle_info(:sweep, state), do: {:noreply, sweep(state)}

  def handle_info({ref, result}, %{task: %{ref: ref}} = state) do
    Process.demonitor(ref, [:flush])
    {:noreply, swept(result, state)}
  end

  def handle_info({:DOWN, ref, _, _, _reason}, %{task: %{ref: ref}} = state) do
    {:noreply, swept(:unclean, state)}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state) do
    {:noreply, sweep(%{state | monitors: Map.delete(state.monitors, pid)})}
  end

  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, @table)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  defp watch({_table, _key, _value, owner, _version}, monitors)
       when is_pid(owner) and node(owner) == node() do
    Map.put_new_lazy(monitors, owner, fn -> Process.monitor(owner) end)
  end

  defp watch(_row, monitors), do: monitors

  defp sweep(%{task: nil} = state) do
    task = Task.Supervisor.async_nolink(Foundation.TaskSupervisor, __MODULE__, :run, [])
    %{state | task: task, again?: false}
  catch
    :exit, _no_supervisor -> swept(:unclean, state)
  end

  defp sweep(state), do: %{state | again?: true}

  defp swept(:clean, %{again?: true} = state), do: sweep(%{state | task: nil})
  defp swept(:clean, state), do: %{state | task: nil}

  # Also what has been deleted is looked after once more: mnesia may have died of it, and returned
  # with the rows it had before.
  defp swept(:unclean, state) do
    Process.send_after(self(), :sweep, @retry_ms)
    %{state | task: nil}
  end

  @doc false
  def run do
    results = for table <- Store.tables(), do: run(table, gone(table), abandoned(table))
    if Enum.all?(results, &(&1 == :clean)), do: :clean, else: :unclean
  end

  defp run(_table, [], []), do: :clean

  defp run(table, gone, abandoned) do
    fun = fn ->
      for {key, owner} <- gone, Ledger.owner(key) == owner, do: Ledger.delete(key)

      for {claim, _table, key} <- abandoned, {:ok, %{claim: ^claim}} <- [Ledger.read(key)] do
        Ledger.delete(key)
      end
    end

    with {:ok, _deleted} <- Ledger.transaction(fun, @transaction_ms, table) do
      Enum.each(abandoned, &:ets.delete_object(@table, &1))
    end

    :unclean
  end

  defp abandoned(table), do: :ets.match_object(@table, {:_, table, :_})

  defp gone(table) do
    nodes = others_of_mine(table)

    for {_table, key, _value, owner, _version} <- Feed.copy(table),
        is_pid(owner),
        if(node(owner) == node(),
          do: not alive?(owner),
          else: nodes != nil and node(owner) not in nodes
        ),
        do: {key, owner}
  end

  # The nodes whose processes are none of this node's business, or `nil` when those of no other
  # are.
  defp others_of_mine(table) do
    if table == Store.local() do
      Node.list()
    else
      case Cluster.view() do
        {:ok, {_epoch, [first | _rest] = nodes}} when first == node() -> nodes
        _other -> nil
      end
    end
  end

  # A process of a node that has had this node's name before is not local.
  defp alive?(pid) do
    Process.alive?(pid)
  rescue
    ArgumentError -> false
  end
end

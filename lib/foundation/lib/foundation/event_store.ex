defmodule Foundation.EventStore do
  @moduledoc """
  Keeps the events of `Foundation.Events`, in a table that outlives it, in the order of their ids.
  """
  use GenServer

  alias Foundation.{Event, Stray, TableKeeper, Telemetry}

  @table __MODULE__

  @doc "Starts the store."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "For `Foundation.Events.query/1`, which checks the filters: reads in the caller's process."
  @spec select([Foundation.Events.filter()]) :: {:ok, [Event.t()]} | {:error, :unavailable}
  def select(filters) do
    {limits, tests} = Keyword.split(filters, [:limit])
    count = limits |> Keyword.values() |> Enum.min(fn -> :infinity end)
    {:ok, backwards(:ets.last(@table), tests, count, [])}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @impl true
  def init([]) do
    TableKeeper.claim(TableKeeper, @table)
    {:ok, nil}
  end

  @impl true
  def handle_call({:store, event}, _from, state) do
    insert(event)
    {:reply, {:ok, event.id}, state}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast({:store, event}, state) do
    insert(event)
    {:noreply, state}
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, @table)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  defp insert(event) do
    :ets.insert(@table, {event.id, event})
    evict(:ets.info(@table, :size) - Application.get_env(:foundation, :max_events, 10_000))
    Telemetry.execute([:foundation, :events, :stored], %{count: 1}, %{event: event})
  end

  defp evict(excess) when excess <= 0, do: :ok

  defp evict(excess) do
    :ets.delete(@table, :ets.first(@table))
    Telemetry.emit_counter([:foundation, :events, :evicted])
    evict(excess - 1)
  end

  # From the latest on, so that a limit ends the search. An event that the store drops meanwhile
  # is older than all that are left to visit, but for what it drops next: `:ets.prev/2` still
  # finds its way.
  defp backwards(:"$end_of_table", _tests, _count, found), do: found
  defp backwards(_id, _tests, 0, found), do: found

  defp backwards(id, tests, count, found) do
    with [{_id, event}] <- :ets.lookup(@table, id), true <- Enum.all?(tests, &pass?(&1, event)) do
      backwards(:ets.prev(@table, id), tests, less(count), [event | found])
    else
      _other -> backwards(:ets.prev(@table, id), tests, count, found)
    end
  end

  defp less(:infinity), do: :infinity
  defp less(count), do: count - 1

  defp pass?({:since, ms}, event), do: event.timestamp >= ms
  defp pass?({:until, ms}, event), do: event.timestamp <= ms
  defp pass?({key, value}, event), do: Map.fetch!(event, key) === value
end

defmodule Foundation.ProcessRegistry.Server do
  @moduledoc """
  Writes the registry's table, and monitors the processes that have names.

  The table holds `{{namespace, service}, pid, metadata}` and outlives the server. What the server
  holds itself, monitors and who has which names, follows from the table: when it is restarted it
  monitors anew, and hears at once of those that have died meanwhile.
  """
  use GenServer

  alias Foundation.{Stray, TableKeeper, Telemetry}

  @table Foundation.ProcessRegistry

  @typep holders :: %{pid => {reference, [key :: {term, term}, ...]}}

  @doc "Starts the server, named `Foundation.ProcessRegistry`."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options),
    do: GenServer.start_link(__MODULE__, [], name: Foundation.ProcessRegistry)

  @impl true
  def init([]) do
    TableKeeper.claim(TableKeeper, @table)
    rows = :ets.tab2list(@table)

    {:ok,
     Enum.reduce(rows, %{}, fn {key, pid, _metadata}, holders -> hold(holders, pid, key) end)}
  end

  @impl true
  def handle_call({:register, key, pid, metadata}, _from, holders) do
    cond do
      not Process.alive?(pid) ->
        {:reply, {:error, :not_alive}, holders}

      held?(key) ->
        {:reply, {:error, :already_registered}, holders}

      true ->
        :ets.insert(@table, {key, pid, metadata})
        {:reply, :ok, hold(holders, pid, key)}
    end
  end

  def handle_call({:unregister, key}, _from, holders) do
    case :ets.take(@table, key) do
      [{_key, pid, _metadata}] -> {:reply, :ok, release(holders, pid, key)}
      [] -> {:reply, {:error, :not_found}, holders}
    end
  end

  def handle_call({:update_metadata, key, metadata}, _from, holders) do
    if held?(key) and :ets.update_element(@table, key, {3, metadata}) do
      {:reply, :ok, holders}
    else
      {:reply, {:error, :not_found}, holders}
    end
  end

  def handle_call({:drop, namespace}, _from, holders) do
    rows = for {{^namespace, _service}, _pid, _metadata} = row <- :ets.tab2list(@table), do: row

    holders =
      Enum.reduce(rows, holders, fn {key, pid, _metadata}, holders ->
        :ets.delete(@table, key)
        release(holders, pid, key)
      end)

    {:reply, :ok, holders}
  end

  def handle_call(request, _from, holders), do: Stray.call(request, holders)

  @impl true
  def handle_cast(message, holders), do: Stray.message(message, holders)

  @impl true
  def handle_info({:DOWN, _ref, :process, pid, _reason}, holders) do
    {{_ref, keys}, holders} = Map.pop!(holders, pid)

    for key <- keys, [{_key, ^pid, _metadata}] <- [:ets.lookup(@table, key)] do
      :ets.delete(@table, key)
    end

    Telemetry.emit_counter([:foundation, :registry, :dropped], %{pid: pid})
    {:noreply, holders}
  end

  def handle_info({:table_heir, keeper}, holders) do
    TableKeeper.renew(keeper, @table)
    {:noreply, holders}
  end

  def handle_info(message, holders), do: Stray.message(message, holders)

  # The row of a holder that has just died, whose DOWN message is still under way, is no
  # hindrance: a server that is restarted must have its name again.
  defp held?(key) do
    case :ets.lookup(@table, key) do
      [{_key, pid, _metadata}] -> Process.alive?(pid)
      [] -> false
    end
  end

  @spec hold(holders, pid, {term, term}) :: holders
  defp hold(holders, pid, key) do
    case holders do
      %{^pid => {ref, keys}} -> %{holders | pid => {ref, [key | keys]}}
      %{} -> Map.put(holders, pid, {Process.monitor(pid), [key]})
    end
  end

  @spec release(holders, pid, {term, term}) :: holders
  defp release(holders, pid, key) do
    {ref, keys} = Map.fetch!(holders, pid)

    case List.delete(keys, key) do
      [] ->
        Process.demonitor(ref, [:flush])
        Map.delete(holders, pid)

      keys ->
        %{holders | pid => {ref, keys}}
    end
  end
end

defmodule Foundation.TelemetryService do
  @moduledoc """
  Owns the tables of `Foundation.Telemetry`: its metrics and its handlers. Both outlive it.

  Metrics are written by whoever emits them; handlers only here, so that an id is attached once.
  """
  use GenServer

  alias Foundation.{Stray, TableKeeper, Telemetry}

  @handlers __MODULE__.Handlers
  @failed [:foundation, :telemetry, :handler_failed]

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]) do
    TableKeeper.claim(TableKeeper, __MODULE__)
    TableKeeper.claim(TableKeeper, @handlers)
    {:ok, nil}
  end

  @impl true
  def handle_call({:attach, id, event, fun, config}, _from, state) do
    if attached(id) == [] do
      :ets.insert(@handlers, {{event, id}, fun, config})
      {:reply, :ok, state}
    else
      {:reply, {:error, :already_attached}, state}
    end
  end

  def handle_call({:detach, id}, _from, state), do: {:reply, detach(id), state}
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast({:failed, id}, state) do
    if detach(id) == :ok, do: Telemetry.emit_counter(@failed, %{id: id})
    {:noreply, state}
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, __MODULE__)
    TableKeeper.renew(keeper, @handlers)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  # Not by a match pattern: an id may be any term, `:_` as well.
  defp attached(id), do: for({{event, ^id}, _fun, _config} <- :ets.tab2list(@handlers), do: event)

  defp detach(id) do
    case attached(id) do
      [event] ->
        :ets.delete(@handlers, {event, id})
        :ok

      [] ->
        {:error, :not_found}
    end
  end
end

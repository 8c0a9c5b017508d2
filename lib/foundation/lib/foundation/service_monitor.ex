defmodule Foundation.ServiceMonitor do
  @moduledoc """
  Notices when a service of the tree dies and when it is back, and whether services miss others
  that they need.

  A death is reported as the event `:service_down` with its reason, a return as
  `:service_restarted`; they are counted as `[:foundation, :service, :down]` and
  `[:foundation, :service, :restarted]`. Each `:service_interval` milliseconds of the environment,
  60,000 unless told otherwise, each running service whose needs are not running is reported as
  `:dependency_missing`, and the check is executed as `[:foundation, :service, :dependencies]`
  with the measurement `missing`.

  What it knows stands in a table that outlives it: a service that was restarted while the monitor
  was not there is noticed by its new pid.
  """
  use GenServer

  alias Foundation.{Events, Stray, TableKeeper, Telemetry}

  @table __MODULE__

  # Milliseconds after which a service that was not there is looked for again. The supervisor
  # tells nobody that it has restarted a child; one that comes and dies between two looks is missed.
  @look 10

  @doc "Starts the monitor."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "How often each service has been restarted while Foundation ran."
  @spec restarts() :: {:ok, %{atom => non_neg_integer}} | {:error, :unavailable}
  def restarts do
    {:ok, for({name, _pid, restarts} <- :ets.tab2list(@table), into: %{}, do: {name, restarts})}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @impl true
  def init([]) do
    TableKeeper.claim(TableKeeper, @table)
    arm()
    {:ok, Enum.reduce(Foundation.Application.services(), %{}, &watch(&1.name, &2))}
  end

  @impl true
  def handle_call(request, _from, monitors), do: Stray.call(request, monitors)

  @impl true
  def handle_cast(message, monitors), do: Stray.message(message, monitors)

  @impl true
  def handle_info({:DOWN, ref, :process, _pid, reason}, monitors)
      when is_map_key(monitors, ref) do
    {name, monitors} = Map.pop!(monitors, ref)
    Events.report(:service_down, %{service: name, reason: reason})
    Telemetry.emit_counter([:foundation, :service, :down], %{service: name, reason: reason})
    {:noreply, watch(name, monitors)}
  end

  def handle_info({:look, name}, monitors), do: {:noreply, watch(name, monitors)}

  def handle_info(:dependencies, monitors) do
    arm()
    missing = missing()
    Enum.each(missing, &Events.report(:dependency_missing, &1))
    measurements = %{missing: length(missing)}
    Telemetry.execute([:foundation, :service, :dependencies], measurements, %{missing: missing})
    {:noreply, monitors}
  end

  def handle_info({:table_heir, keeper}, monitors) do
    TableKeeper.renew(keeper, @table)
    {:noreply, monitors}
  end

  def handle_info(message, monitors), do: Stray.message(message, monitors)

  defp arm do
    interval = Application.get_env(:foundation, :service_interval, 60_000)
    Process.send_after(self(), :dependencies, interval)
  end

  defp watch(name, monitors) do
    case Process.whereis(name) do
      nil ->
        Process.send_after(self(), {:look, name}, @look)
        monitors

      pid ->
        note(name, pid, :ets.lookup(@table, name))
        Map.put(monitors, Process.monitor(pid), name)
    end
  end

  defp note(name, pid, []), do: :ets.insert(@table, {name, pid, 0})
  defp note(_name, pid, [{_same, pid, _restarts}]), do: true

  defp note(name, pid, [{_same, _dead, restarts}]) do
    :ets.insert(@table, {name, pid, restarts + 1})
    Events.report(:service_restarted, %{service: name, restarts: restarts + 1})
    Telemetry.emit_counter([:foundation, :service, :restarted], %{service: name})
  end

  defp missing do
    services = Foundation.Application.services()
    running = for(%{name: name} <- services, Process.whereis(name), into: MapSet.new(), do: name)

    for %{name: name, needs: needs} <- services,
        name in running,
        need <- needs,
        need not in running,
        do: %{service: name, needs: need}
  end
end

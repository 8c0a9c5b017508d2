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

  # `monitors` are those of the services that were there, by reference; `pings` are under way to those
  # that have come back.
  @impl true
  def init([]) do
    TableKeeper.claim(TableKeeper, @table)
    arm()
    state = %{monitors: %{}, pings: :gen_server.reqids_new()}
    {:ok, Enum.reduce(Foundation.Application.services(), state, &watch/2)}
  end

  @impl true
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:DOWN, ref, :process, _pid, reason}, state)
      when is_map_key(state.monitors, ref) do
    {service, monitors} = Map.pop!(state.monitors, ref)
    Events.report(:service_down, %{service: service.name, reason: reason})

    Telemetry.emit_counter([:foundation, :service, :down], %{
      service: service.name,
      reason: reason
    })

    {:noreply, watch(service, %{state | monitors: monitors})}
  end

  def handle_info({:look, service}, state), do: {:noreply, watch(service, state)}

  def handle_info(:dependencies, state) do
    arm()
    missing = missing()
    Enum.each(missing, &Events.report(:dependency_missing, &1))
    measurements = %{missing: length(missing)}
    Telemetry.execute([:foundation, :service, :dependencies], measurements, %{missing: missing})
    {:noreply, state}
  end

  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, @table)
    {:noreply, state}
  end

  def handle_info(message, state) do
    case :gen_server.check_response(message, state.pings, true) do
      {{:reply, _answer}, {name, pid}, pings} ->
        returned(name, pid)
        {:noreply, %{state | pings: pings}}

      # It died again before it was ready, of which its monitor tells.
      {{:error, _reason}, _service, pings} ->
        {:noreply, %{state | pings: pings}}

      _no_answer ->
        Stray.message(message, state)
    end
  end

  defp arm do
    interval = Application.get_env(:foundation, :service_interval, 60_000)
    Process.send_after(self(), :dependencies, interval)
  end

  defp watch(%{name: name} = service, state) do
    case Process.whereis(name) do
      nil ->
        Process.send_after(self(), {:look, service}, @look)
        state

      pid ->
        monitors = Map.put(state.monitors, Process.monitor(pid), service)
        note(service, pid, :ets.lookup(@table, name), %{state | monitors: monitors})
    end
  end

  defp note(%{name: name}, pid, [], state) do
    :ets.insert(@table, {name, pid, 0})
    state
  end

  defp note(_service, pid, [{_name, pid, _restarts}], state), do: state

  # A name is there before its server is ready: it is back when it answers.
  defp note(%{name: name, ping: ping}, pid, [{_name, _dead, _restarts}], state) do
    %{state | pings: :gen_server.send_request(pid, ping, {name, pid}, state.pings)}
  end

  defp returned(name, pid) do
    [{_name, _dead, restarts}] = :ets.lookup(@table, name)
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

defmodule Foundation.Application do
  @moduledoc """
  Foundation's tree.

  The children of `Foundation.Supervisor` start one after the other, in the order of `services/0`,
  each ready when the next one starts, and end in the reverse order. Each needs only services that
  stand before it.

  Environment, all optional:

    * `:supervision` - the phases, see `Foundation.Supervision`
    * `:max_restarts`, `:max_seconds` - the intensity of every supervisor, see `intensity/0`
    * `:config` - a map, the configuration with which `Foundation.Config` starts
    * `:max_events` - how many events `Foundation.Events` keeps, 10,000 unless told otherwise
    * `:health_interval`, `:service_interval` - milliseconds, see `Foundation.HealthMonitor` and
      `Foundation.ServiceMonitor`
  """
  use Application

  alias Foundation.BEAM.{EcosystemSupervisor, Watcher}
  alias Foundation.{ConfigServer, Coordination, EventStore, Legacy, Monitoring, ProcessRegistry}
  alias Foundation.{ServiceMonitor, Supervision, TableKeeper, TelemetryService}

  @typedoc """
  A service of the tree.

    * `:name` - its registered name
    * `:ping` - the call that it answers when it is well. Supervisors know no ping of their own;
      this is what `Supervisor.count_children/1` asks them
    * `:needs` - the services that it needs
  """
  @type service :: %{name: atom, ping: :ping | :count_children, needs: [atom]}

  @impl true
  def start(_type, _arguments) do
    options = [strategy: :one_for_one, name: Foundation.Supervisor] ++ intensity()

    with {:ok, supervisor} <- Supervisor.start_link(children(), options) do
      if not Supervision.enabled?(:phase_1), do: Legacy.Monitoring.start()
      {:ok, supervisor}
    end
  end

  @doc """
  How many restarts within how many seconds a supervisor of Foundation or MABEAM bears before it
  gives up.

  The environment's `:max_restarts` (default 10) and `:max_seconds` (default 5), as options of
  `Supervisor.init/2`.
  """
  @spec intensity() :: [max_restarts: non_neg_integer, max_seconds: pos_integer]
  def intensity do
    [
      max_restarts: Application.get_env(:foundation, :max_restarts, 10),
      max_seconds: Application.get_env(:foundation, :max_seconds, 5)
    ]
  end

  @doc "The services of the tree, in the order in which they start."
  @spec services() :: [service]
  def services do
    [
      %{name: TableKeeper, ping: :ping, needs: []},
      %{name: ProcessRegistry, ping: :ping, needs: [TableKeeper]},
      %{name: ConfigServer, ping: :ping, needs: [TableKeeper]},
      %{name: EventStore, ping: :ping, needs: [TableKeeper]},
      %{name: TelemetryService, ping: :ping, needs: [TableKeeper]},
      %{name: Watcher, ping: :ping, needs: [TableKeeper]},
      %{name: Foundation.TaskSupervisor, ping: :count_children, needs: []},
      %{name: EcosystemSupervisor, ping: :count_children, needs: [Watcher]},
      %{name: Coordination.Supervisor, ping: :count_children, needs: [Foundation.TaskSupervisor]},
      %{name: Supervision, ping: :ping, needs: []}
    ]
  end

  defp children do
    [
      {TableKeeper, name: TableKeeper, tables: tables()},
      ProcessRegistry.Server,
      ConfigServer,
      EventStore,
      TelemetryService,
      # Before the tasks and ecosystems that it watches: what ends with them at a stop is reported
      # yet.
      Watcher,
      {Task.Supervisor, [name: Foundation.TaskSupervisor] ++ intensity()},
      {DynamicSupervisor, [name: EcosystemSupervisor] ++ intensity()},
      Coordination.Supervisor,
      Supervision,
      Monitoring
    ]
  end

  defp tables do
    [
      ProcessRegistry,
      ConfigServer,
      {EventStore, [:ordered_set]},
      {TelemetryService, [:public, write_concurrency: true]},
      {TelemetryService.Handlers, [:ordered_set]},
      {Watcher, [:public]},
      ServiceMonitor
    ]
  end
end

defmodule Foundation.Monitoring do
  @moduledoc """
  What watches over the services: with phase 1 on, a supervisor with `Foundation.HealthMonitor`
  and `Foundation.ServiceMonitor`; with phase 1 off it has no children, and
  `Foundation.Legacy.Monitoring` stands in their place.
  """
  use Supervisor

  alias Foundation.{HealthMonitor, Legacy, ServiceMonitor, Supervision, Termination}

  @behaviour Supervision

  @doc "Starts the supervisor, with the children that phase 1 says."
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl Supervisor
  def init([]) do
    # Those of a supervisor that was killed may not have heard of it yet, and still have their names.
    :ok = Termination.await([HealthMonitor, ServiceMonitor])
    children = if Supervision.enabled?(:phase_1), do: [HealthMonitor, ServiceMonitor], else: []
    Supervisor.init(children, [strategy: :one_for_one] ++ Foundation.Application.intensity())
  end

  @doc "Exchanges the monitors for the legacy loops, or these for the monitors."
  @impl Supervision
  def switch(:phase_1, enabled?) do
    :ok = Legacy.Monitoring.stop()
    :ok = Supervisor.terminate_child(Foundation.Supervisor, __MODULE__)
    {:ok, _pid} = Supervisor.restart_child(Foundation.Supervisor, __MODULE__)
    if not enabled?, do: Legacy.Monitoring.start()
    :ok
  end

  def switch(_phase, _enabled?), do: :ok
end

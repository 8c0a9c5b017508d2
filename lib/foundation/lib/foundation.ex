defmodule Foundation do
  @moduledoc """
  The ground on which a node's applications stand: names, configuration, events, telemetry,
  supervised work and coordination between nodes.

  | module | what it is for |
  | --- | --- |
  | `Foundation.ProcessRegistry` | names for processes, with metadata, in namespaces |
  | `Foundation.Config` | configuration that may change while the node runs |
  | `Foundation.Events` | what happened, the last of it |
  | `Foundation.Telemetry` | counters, gauges, timings, and handlers for events |
  | `Foundation.BEAM.Processes` | ecosystems of processes, and work in a process of its own |
  | `Foundation.Coordination.Primitives` | consensus, leaders, locks, barriers, counters, clocks |
  | `Foundation.Supervision` | the phases of the supervision plan, switched while the node runs |

  `Foundation.Application` says how they are started, and what may be configured.
  """
  alias Foundation.{Call, HealthMonitor, ProcessRegistry, Supervision}

  @version Mix.Project.config()[:version]

  @doc """
  Which services run, which phases of the supervision plan are on, and how many names are
  registered.
  """
  @spec status() ::
          {:ok,
           %{
             version: String.t(),
             services: %{atom => :running | :down},
             phases: %{Supervision.phase() => boolean},
             names: %{atom => non_neg_integer}
           }}
          | {:error, :unavailable}
  def status do
    with {:ok, names} <- ProcessRegistry.stats() do
      services =
        for %{name: name} <- Foundation.Application.services(), into: %{} do
          {name, if(Process.whereis(name), do: :running, else: :down)}
        end

      phases = Map.new(Supervision.flags())
      {:ok, %{version: @version, services: services, phases: phases, names: names}}
    end
  end

  @doc """
  What the last health check found.

  `{:error, :unavailable}` when there is no health monitor: Foundation does not run, or phase 1 is
  off.
  """
  @spec health() :: {:ok, HealthMonitor.health()} | {:error, Call.reason()}
  def health, do: HealthMonitor.health()

  @doc "Whether all services run. It asks none of them: `health/0` says whether they answer."
  @spec available?() :: boolean
  def available?, do: Enum.all?(Foundation.Application.services(), &Process.whereis(&1.name))

  @doc "Foundation's version."
  @spec version() :: String.t()
  def version, do: @version

  @doc """
  Stops Foundation. Applications that need it are to be stopped before.

  Returns when no process of it is left. A process of Foundation itself cannot wait for that: when
  it is the caller, it gets `:ok` at once, and ends with the others.
  """
  @spec shutdown() :: :ok | {:error, {:not_started, :foundation}}
  def shutdown do
    if :application.get_application() == {:ok, :foundation} do
      {:ok, _timer} = :timer.apply_after(0, Application, :stop, [:foundation])
      :ok
    else
      Application.stop(:foundation)
    end
  end
end

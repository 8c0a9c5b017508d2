defmodule Foundation.Legacy.Monitoring do
  @moduledoc """
  The monitoring as it was audited: at lines 505, 510, 891 and 896 of Foundation's application.

  After the start two processes were made. One was to arm the periodic health check: it sends
  itself a message for later, and has ended when that comes; no check is ever made by it. The
  other one initialises the service monitoring: it makes two loops and ends. Nobody is linked to
  them, watches them or knows their pids: when one dies, monitoring stops in silence, and no
  supervisor ends them.
  """
  require Logger

  alias Foundation.Termination

  @makers [{__MODULE__, :arm_health_check, 1}, {__MODULE__, :initialize_service_monitoring, 2}]
  @loops [{__MODULE__, :health_check_loop, 1}, {__MODULE__, :dependency_check_loop, 1}]

  @doc "Makes the two processes of lines 505 and 510, and returns at once."
  @spec start() :: :ok
  def start do
    health = Application.get_env(:foundation, :health_interval, 30_000)
    service = Application.get_env(:foundation, :service_interval, 60_000)
    spawn(__MODULE__, :arm_health_check, [health])
    spawn(__MODULE__, :initialize_service_monitoring, [health, service])
    :ok
  end

  @doc """
  Ends what `start/0` made, and returns when all of it is gone.

  The audited code had no way to end it. Since nothing knows the loops, they are found by what
  they run.
  """
  @spec stop() :: :ok | {:error, :timeout}
  def stop do
    # The makers first, so that no loop comes after the loops were found.
    with :ok <- Termination.stop_running(@makers),
         do: Termination.stop_running(@loops)
  end

  @doc false
  def arm_health_check(interval), do: Process.send_after(self(), :health_check, interval)

  @doc false
  def initialize_service_monitoring(health, service) do
    spawn(__MODULE__, :health_check_loop, [health])
    spawn(__MODULE__, :dependency_check_loop, [service])
  end

  @doc false
  def health_check_loop(interval) do
    receive do
    after
      interval -> check_health()
    end

    health_check_loop(interval)
  end

  @doc false
  def dependency_check_loop(interval) do
    receive do
    after
      interval -> check_dependencies()
    end

    dependency_check_loop(interval)
  end

  defp check_health do
    for %{name: name} <- Foundation.Application.services(), not running?(name) do
      Logger.warning("#{inspect(name)} is not running")
    end
  end

  defp check_dependencies do
    for %{name: name, needs: needs} <- Foundation.Application.services(),
        need <- needs,
        not running?(need) do
      Logger.warning("#{inspect(name)} needs #{inspect(need)}, which is not running")
    end
  end

  defp running?(name), do: Process.whereis(name) != nil
end

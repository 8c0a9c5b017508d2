defmodule MABEAM.Legacy.LoadBalancer do
  @moduledoc """
  The load balancer's test mode as it was audited: a process per assignment stands for the agent.

  Agents of a test need no process, but the balancer watched one, so each assignment made one that
  does nothing for 30 seconds. Nobody supervises it, and the test that made it is over long
  before.
  """
  alias Foundation.Termination

  @lifetime 30_000

  @doc "Makes a process that stands for an agent."
  @spec dummy() :: pid
  def dummy, do: spawn(__MODULE__, :stand_in, [@lifetime])

  @doc "Ends them all, and returns when they are gone. They are found by what they run."
  @spec stop_dummies() :: :ok | {:error, :timeout}
  def stop_dummies, do: Termination.stop_running([{__MODULE__, :stand_in, 1}])

  @doc false
  def stand_in(lifetime) do
    receive do
    after
      lifetime -> :ok
    end
  end
end

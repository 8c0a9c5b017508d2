defmodule MABEAM.AgentRuntime do
  @moduledoc """
  Supervises what runs the agents: `MABEAM.AgentSupervisor`, and `MABEAM.Agent.Reviver`.

  A supervisor that was killed comes back without its children. The reviver starts after it
  (`:rest_for_one`), and starts the agents that ran before.
  """
  use Supervisor

  @doc "Starts the supervisor and its children."
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]) do
    # When the one before was killed, its children may not have ended yet.
    :ok = Foundation.Termination.await([MABEAM.AgentSupervisor, MABEAM.Agent.Reviver])

    children = [MABEAM.AgentSupervisor, MABEAM.Agent.Reviver]
    Supervisor.init(children, [strategy: :rest_for_one] ++ Foundation.Application.intensity())
  end
end

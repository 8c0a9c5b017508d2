defmodule MABEAM.AgentDirectory do
  @moduledoc """
  Supervises what knows where the agents are: the `:pg` scope `MABEAM.PG`, and
  `MABEAM.AgentRegistry`.

  A `:pg` scope that is restarted has lost its groups, so the registry, whose table outlives it,
  is restarted after it, and joins the running agents again. That is what `:rest_for_one` is for.
  """
  use Supervisor

  @doc "Starts the supervisor and its children."
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]) do
    # When the one before was killed, its children may not have ended yet.
    :ok = Foundation.Termination.await([MABEAM.PG, MABEAM.AgentRegistry])

    children = [
      %{id: MABEAM.PG, start: {:pg, :start_link, [MABEAM.PG]}},
      MABEAM.AgentRegistry.Server
    ]

    Supervisor.init(children, [strategy: :rest_for_one] ++ Foundation.Application.intensity())
  end
end

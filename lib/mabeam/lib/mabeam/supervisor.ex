defmodule MABEAM.Supervisor do
  @moduledoc """
  MABEAM's tree.

  The children start in this order, each ready when the next one starts, and end in the reverse order. What is on its
  way when the application stops ends first: no agent is stopped while somebody still hands it work.
  """
  use Supervisor

  @tables [
    MABEAM.Core,
    {MABEAM.Core.Subscribers, [:ordered_set]},
    {MABEAM.AgentRegistry, [{:keypos, 2}]},
    {MABEAM.AgentRegistry.Index, [:ordered_set]},
    MABEAM.LoadBalancer,
    MABEAM.Comms,
    {MABEAM.Comms.Subscribers, [:ordered_set]}
  ]

  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]) do
    intensity = Foundation.Application.intensity()

    children = [
      {Foundation.TableKeeper, name: MABEAM.TableKeeper, tables: @tables},
      {Task.Supervisor, [name: MABEAM.TaskSupervisor] ++ intensity},
      MABEAM.AgentDirectory,
      MABEAM.AgentRuntime,
      MABEAM.Comms.Server
    ]

    Supervisor.init(children, [strategy: :one_for_one] ++ intensity)
  end
end

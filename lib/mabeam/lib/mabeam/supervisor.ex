defmodule MABEAM.Supervisor do
  @moduledoc """
  MABEAM's tree.

  The children start in this order, each ready when the next one starts, and end in the reverse
  order. What hands out work ends first: no agent is stopped while somebody still gives it any.
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

  @doc "Starts the tree."
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  The services of the tree, by their registered names in the order of their start, and what each
  is asked to tell whether it answers.

  The scope of `:pg` is not among them, for it answers no questions.
  """
  @spec services() :: [{name :: atom, question :: term}]
  def services do
    [
      {MABEAM.TableKeeper, :ping},
      {MABEAM.TaskSupervisor, :count_children},
      {MABEAM.Core, :ping},
      {MABEAM.AgentRegistry, :ping},
      {MABEAM.CoordinationSupervisor, :count_children},
      {MABEAM.Coordination, :ping},
      {MABEAM.AgentSupervisor, :count_children},
      {MABEAM.Agent.Reviver, :ping},
      {MABEAM.LoadBalancer, :ping},
      {MABEAM.Comms, :ping}
    ]
  end

  @impl true
  def init([]) do
    # When the one before was killed, its children may not have ended yet.
    names = [MABEAM.AgentDirectory, MABEAM.PG, MABEAM.AgentRuntime | Keyword.keys(services())]
    :ok = Foundation.Termination.await(names)

    tables = @tables ++ MABEAM.Coordination.Store.tables()
    intensity = Foundation.Application.intensity()

    children = [
      {Foundation.TableKeeper, name: MABEAM.TableKeeper, tables: tables},
      {Task.Supervisor, [name: MABEAM.TaskSupervisor] ++ intensity},
      MABEAM.Core.Server,
      MABEAM.AgentDirectory,
      MABEAM.CoordinationSupervisor,
      MABEAM.Coordination,
      MABEAM.AgentRuntime,
      MABEAM.LoadBalancer.Server,
      MABEAM.Comms.Server
    ]

    Supervisor.init(children, [strategy: :one_for_one] ++ intensity)
  end
end

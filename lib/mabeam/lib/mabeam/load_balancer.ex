defmodule MABEAM.LoadBalancer do
  @moduledoc """
  Chooses an agent for a task, and knows how many tasks each agent has.

      :ok = MABEAM.LoadBalancer.register_agent("adder", capacity: 4)
      {:ok, "adder"} = MABEAM.LoadBalancer.assign_task(%{capability: :arithmetic})
      :ok = MABEAM.LoadBalancer.update_agent_metrics("adder", %{completed: 1})

  It runs no task: who asked for an agent gives it the task, and says when it is done. An agent
  that has tasks is watched; those of one that dies are counted as lost, reported as the event
  `:tasks_lost`, and its load is 0 again.

  With `config :mabeam, load_balancer_test_mode: true` agents need not be registered elsewhere,
  nor run: a test of what chooses needs no processes.
  """
  alias Foundation.Call
  alias MABEAM.AgentRegistry
  alias MABEAM.LoadBalancer.{Server, Strategy}

  @default_capacity 10
  # Of tasks and capacities: what is far beyond all that a node can do is a mistake.
  @max_number 1_000_000_000

  defguardp is_number_of_tasks(number)
            when is_integer(number) and number >= 0 and number <= @max_number

  @typedoc "Tasks that the agent has now, that it got in all, that were lost with it, and so on."
  @type load :: %{
          active: non_neg_integer,
          capacity: pos_integer,
          capabilities: [AgentRegistry.label()],
          assigned: non_neg_integer,
          lost: non_neg_integer,
          pid: pid | nil
        }

  @doc """
  Lets tasks be assigned to a registered agent.

  Options: `:capacity`, how many tasks it has at most (#{@default_capacity}), and `:capabilities`,
  those with which it was registered unless told otherwise. Errors: `:already_registered`,
  `:unknown_agent`, `:bad_id`, `:bad_options`.
  """
  @spec register_agent(AgentRegistry.id(), keyword) ::
          :ok
          | {:error,
             :already_registered | :unknown_agent | :bad_id | :bad_options | Call.reason()}
  def register_agent(id, options \\ []) do
    with :ok <- check(AgentRegistry.label?(id), :bad_id),
         :ok <- check(options?(options), :bad_options),
         {:ok, known} <- known_capabilities(id) do
      load = %{
        id: id,
        capacity: Keyword.get(options, :capacity, @default_capacity),
        capabilities: Enum.uniq(Keyword.get(options, :capabilities, known)),
        active: 0,
        assigned: 0,
        lost: 0,
        pid: nil
      }

      Call.call(__MODULE__, {:register, load})
    end
  end

  @doc "Assigns the agent no more tasks, and forgets those that it has."
  @spec unregister_agent(AgentRegistry.id()) :: :ok | {:error, :unknown_agent | Call.reason()}
  def unregister_agent(id), do: Call.call(__MODULE__, {:unregister, id})

  @doc """
  Chooses an agent for `task`, a map; with a `:capability` one that has it.

  Errors: `:no_agent` when none that could do it runs, `:busy` when all that could are at their
  capacity, `:bad_task`.
  """
  @spec assign_task(map) ::
          {:ok, AgentRegistry.id()} | {:error, :no_agent | :busy | :bad_task | Call.reason()}
  def assign_task(task) when is_map(task) do
    capability = Map.get(task, :capability)

    if capability == nil or AgentRegistry.label?(capability),
      do: Call.call(__MODULE__, {:assign, capability}),
      else: {:error, :bad_task}
  end

  def assign_task(_other), do: {:error, :bad_task}

  @doc """
  Tells what the agent does: `%{active: tasks}` that it has now, or how many it has
  `%{completed: tasks}` since it was last told; or both, the latter after the former.
  """
  @spec update_agent_metrics(AgentRegistry.id(), %{
          optional(:active) => non_neg_integer,
          optional(:completed) => non_neg_integer
        }) :: :ok | {:error, :unknown_agent | :bad_metrics | Call.reason()}
  def update_agent_metrics(id, metrics) do
    with :ok <- check(metrics?(metrics), :bad_metrics),
         do: Call.call(__MODULE__, {:metrics, id, metrics})
  end

  @doc "The strategy, how many tasks were `refused`, and the load of each agent."
  @spec get_load_stats() ::
          {:ok,
           %{
             strategy: Strategy.t(),
             refused: non_neg_integer,
             agents: %{AgentRegistry.id() => load}
           }}
          | {:error, :unavailable}
  def get_load_stats do
    {:ok,
     %{
       strategy: :ets.lookup_element(__MODULE__, {:setting, :strategy}, 2),
       refused: :ets.lookup_element(__MODULE__, {:count, :refused}, 2),
       agents: Map.new(Server.loads(), &Map.pop!(&1, :id))
     }}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc "Chooses by another strategy from now on: see `MABEAM.LoadBalancer.Strategy.order/3`."
  @spec set_load_strategy(Strategy.t()) :: :ok | {:error, :bad_strategy | Call.reason()}
  def set_load_strategy(strategy) do
    if strategy in Strategy.all(),
      do: Call.call(__MODULE__, {:strategy, strategy}),
      else: {:error, :bad_strategy}
  end

  @doc """
  Evens out the loads of the agents that run.

  Returns the moves of tasks, which the caller is to carry out; the loads are those after the
  moves. See `MABEAM.LoadBalancer.Strategy.even_out/1`.
  """
  @spec rebalance() :: {:ok, [Strategy.move()]} | {:error, Call.reason()}
  def rebalance, do: Call.call(__MODULE__, :rebalance)

  defp known_capabilities(id) do
    case AgentRegistry.info(id) do
      {:ok, %{capabilities: capabilities}} -> {:ok, capabilities}
      {:error, reason} -> if Server.test_mode?(), do: {:ok, []}, else: {:error, reason}
    end
  end

  defp options?(options), do: Keyword.keyword?(options) and Enum.all?(options, &option?/1)

  defp option?({:capacity, capacity}), do: is_number_of_tasks(capacity) and capacity > 0
  defp option?({:capabilities, list}), do: AgentRegistry.labels?(list)
  defp option?(_other), do: false

  defp metrics?(metrics) when is_map(metrics) and map_size(metrics) > 0 do
    Enum.all?(metrics, fn {key, number} ->
      key in [:active, :completed] and is_number_of_tasks(number)
    end)
  end

  defp metrics?(_other), do: false

  defp check(true, _reason), do: :ok
  defp check(false, reason), do: {:error, reason}
end

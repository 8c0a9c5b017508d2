defmodule MABEAM.Core do
  @moduledoc """
  The system as a whole: its variables, its status, its health, and an agreement of all agents.

  A variable has a name (an atom or a string), a value, and a constraint on its value
  (`t:MABEAM.Core.Constraint.t/0`). Reads go to a table, in the caller's process.

      :ok = MABEAM.Core.register_variable("temperature", 0.7, {:range, 0, 2})
      {:error, :not_allowed} = MABEAM.Core.update_variable("temperature", 3)
  """
  alias Foundation.Call
  alias MABEAM.{AgentRegistry, Comms, Coordination, LoadBalancer}
  alias MABEAM.Core.Constraint

  @type name :: atom | String.t()
  @type health :: %{
          status: :healthy | :degraded,
          services: %{atom => :ok | :timeout | :down}
        }

  # Milliseconds in which all services must have answered, and in which the agents must agree.
  @health_deadline 1_000
  @coordination_deadline 5_000

  @doc """
  Registers a variable with its first value.

  Errors: `:already_registered`, `:bad_name`, `:bad_constraint`, `:not_allowed` (the constraint
  does not allow the value).
  """
  @spec register_variable(name, term, Constraint.t()) ::
          :ok
          | {:error,
             :already_registered | :bad_name | :bad_constraint | :not_allowed | Call.reason()}
  def register_variable(name, value, constraint \\ :any) do
    cond do
      not AgentRegistry.label?(name) -> {:error, :bad_name}
      not Constraint.valid?(constraint) -> {:error, :bad_constraint}
      not Constraint.allows?(constraint, value) -> {:error, :not_allowed}
      true -> Call.call(__MODULE__, {:register, name, value, constraint})
    end
  end

  @doc "The variable's value."
  @spec get_variable(name) :: {:ok, term} | {:error, :unknown_variable | :unavailable}
  def get_variable(name) do
    case :ets.lookup(__MODULE__, name) do
      [{_name, value, _constraint}] -> {:ok, value}
      [] -> {:error, :unknown_variable}
    end
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc "Gives the variable another value, and tells its subscribers."
  @spec update_variable(name, term) ::
          :ok | {:error, :unknown_variable | :not_allowed | Call.reason()}
  def update_variable(name, value), do: Call.call(__MODULE__, {:update, name, value})

  @doc "All variables: name, value and constraint, sorted by name."
  @spec list_variables() :: {:ok, [{name, term, Constraint.t()}]} | {:error, :unavailable}
  def list_variables do
    {:ok, __MODULE__ |> :ets.tab2list() |> Enum.sort_by(&elem(&1, 0))}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc "Removes a variable, and its subscriptions."
  @spec delete_variable(name) :: :ok | {:error, :unknown_variable | Call.reason()}
  def delete_variable(name), do: Call.call(__MODULE__, {:delete, name})

  @doc """
  Subscribes the caller to a variable.

  It gets `{:mabeam_variable, name, {:updated, value}}`, and `{:mabeam_variable, name, :deleted}`
  as the last message. The subscription ends with the caller, too.
  """
  @spec subscribe(name) :: :ok | {:error, :unknown_variable | Call.reason()}
  def subscribe(name), do: Call.call(__MODULE__, {:subscribe, name})

  @doc "Ends the caller's subscription."
  @spec unsubscribe(name) :: :ok | {:error, :not_subscribed | Call.reason()}
  def unsubscribe(name), do: Call.call(__MODULE__, {:unsubscribe, name})

  @doc """
  How much of everything there is: agents by their status, variables, and what was sent,
  coordinated and assigned.
  """
  @spec system_status() :: {:ok, map} | {:error, Call.reason()}
  def system_status do
    with {:ok, agents} <- AgentRegistry.list(),
         {:ok, variables} <- list_variables(),
         {:ok, comms} <- Comms.get_communication_stats(),
         {:ok, coordination} <- Coordination.get_coordination_stats(),
         {:ok, load} <- LoadBalancer.get_load_stats() do
      {:ok,
       %{
         agents: Enum.frequencies_by(agents, fn {_id, status} -> status end),
         variables: length(variables),
         comms: comms,
         coordination: coordination,
         load: Map.delete(load, :agents)
       }}
    end
  end

  @doc """
  Asks every service of MABEAM whether it answers.

  All are asked at once, and have a second together: `:timeout` did not answer by then, `:down` is
  not there, or died before it answered.
  """
  @spec health_check() :: {:ok, health}
  def health_check do
    services = MABEAM.Supervisor.services() |> ask() |> gather(Call.deadline(@health_deadline))
    healthy? = Enum.all?(services, fn {_name, answer} -> answer == :ok end)
    {:ok, %{status: if(healthy?, do: :healthy, else: :degraded), services: services}}
  end

  @doc """
  Has the running agents agree on each variable, by a `:consensus` of `MABEAM.Coordination`.

  The agents vote on the value: on one of those listed where the constraint is `{:one_of,
  values}`, on the value that the variable has otherwise. The proposals are `{name, value}`, so
  that an agent knows what it votes on. What a majority voted for becomes the variable's value.
  All variables are voted on at once, within 5 seconds.

  Returns, for each variable, `{:ok, value}`, or the error of the coordination.
  `{:error, :no_agents}`: none runs.
  """
  @spec coordinate_system() ::
          {:ok, %{name => {:ok, term} | {:error, term}}} | {:error, :no_agents | :unavailable}
  def coordinate_system do
    deadline = Call.deadline(@coordination_deadline)

    with {:ok, variables} <- list_variables(), {:ok, [_ | _] = agents} <- running_agents() do
      # All begin before the first one is waited for.
      sessions = Enum.map(variables, &{elem(&1, 0), begin(&1, agents)})
      {:ok, Map.new(sessions, fn {name, begun} -> {name, agree(name, begun, deadline)} end)}
    else
      {:ok, []} -> {:error, :no_agents}
      error -> error
    end
  end

  defp begin({name, value, constraint}, agents) do
    values = with {:one_of, values} <- constraint, do: values, else: (_other -> [value])
    params = %{proposals: Enum.map(values, &{name, &1})}
    Coordination.coordinate_async(:consensus, agents, params, timeout: @coordination_deadline)
  end

  defp agree(name, begun, deadline) do
    with {:ok, session} <- begun,
         {:ok, result} <- Coordination.get_session_results(session, Call.left(deadline)),
         {_name, value} = result.value,
         :ok <- update_variable(name, value),
         do: {:ok, value}
  end

  defp running_agents do
    with {:ok, agents} <- AgentRegistry.list() do
      {:ok, for({id, :running} <- agents, do: id)}
    end
  end

  defp ask(services) do
    Enum.reduce(services, :gen_server.reqids_new(), fn {name, question}, requests ->
      :gen_server.send_request(name, question, name, requests)
    end)
  end

  defp gather(requests, deadline, answers \\ %{}) do
    case :gen_server.receive_response(requests, {:abs, deadline}, true) do
      {{:reply, _answer}, name, requests} ->
        gather(requests, deadline, Map.put(answers, name, :ok))

      {{:error, _reason}, name, requests} ->
        gather(requests, deadline, Map.put(answers, name, :down))

      # This gives the requests up: what answers later answers nobody.
      :timeout ->
        late = for {_id, name} <- :gen_server.reqids_to_list(requests), do: {name, :timeout}
        Map.merge(answers, Map.new(late))

      :no_request ->
        answers
    end
  end
end

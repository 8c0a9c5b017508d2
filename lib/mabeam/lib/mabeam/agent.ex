defmodule MABEAM.Agent do
  @moduledoc """
  An agent: a process with a state, a name of its own, and capabilities by which others find it.

      defmodule Adder do
        @behaviour MABEAM.Agent

        @impl true
        def init(config), do: {:ok, Map.get(config, :start, 0)}

        @impl true
        def handle_request({:add, number}, sum), do: {:reply, sum + number, sum + number}
      end

      :ok = MABEAM.Agent.register("adder", Adder, config: %{start: 40})
      {:ok, _pid} = MABEAM.Agent.start("adder")
      {:ok, 42} = MABEAM.Comms.request("adder", {:add, 2})

  An agent is named by an atom or a string. It is registered first (`register/3`) and runs from
  `start/1` to `stop/1`; in between it is restarted when it crashes, unless it does so too often:
  then it is `:failed`, until it is started again. An agent that has done its work ends by
  `exit(:normal)`, or `exit({:shutdown, reason})`.

  It handles one request or event after the other. What it does not answer before its deadline is
  lost to its caller, not to the agent.
  """
  @behaviour Foundation.Supervision

  alias Foundation.Supervision
  alias MABEAM.{AgentRegistry, AgentSupervisor, Comms, Legacy}

  @type id :: AgentRegistry.id()

  @doc """
  Makes the agent's first state from its configuration. `{:error, reason}` refuses the start.
  """
  @callback init(config :: term) :: {:ok, state :: term} | {:error, reason :: term}

  @doc "Answers a request of `MABEAM.Comms.request/3`."
  @callback handle_request(request :: term, state :: term) ::
              {:reply, reply :: term, state :: term}

  @doc "Takes a notification, or an event that the agent subscribed to."
  @callback handle_event(event :: term, state :: term) :: {:noreply, state :: term}

  @optional_callbacks handle_event: 2

  @doc "Registers an agent: see `MABEAM.AgentRegistry.register/3` for options and errors."
  @spec register(id, module, keyword) :: :ok | {:error, term}
  def register(id, module, options \\ []) do
    with :ok <- AgentRegistry.register(id, module, options) do
      if Supervision.enabled?(:phase_2), do: :ok, else: Legacy.Agent.registered(id)
    end
  end

  @doc """
  Stops an agent if it runs, and removes it. `{:error, :running}`: somebody started it meanwhile.
  """
  @spec deregister(id) :: :ok | {:error, term}
  def deregister(id) do
    with result when result in [:ok, {:error, :not_running}] <- AgentSupervisor.stop(id),
         :ok <- Comms.Server.forget(id),
         :ok <- AgentRegistry.deregister(id) do
      if Supervision.enabled?(:phase_2), do: :ok, else: Legacy.Agent.deregistered(id)
    end
  end

  @doc "Starts a registered agent: see `MABEAM.AgentSupervisor.start/1`."
  @spec start(id) :: {:ok, pid} | {:error, term}
  defdelegate start(id), to: AgentSupervisor

  @doc "Stops an agent, which stays registered: see `MABEAM.AgentSupervisor.stop/1`."
  @spec stop(id) :: :ok | {:error, term}
  def stop(id) do
    with :ok <- AgentSupervisor.stop(id) do
      if Supervision.enabled?(:phase_2), do: :ok, else: Legacy.Agent.stopped(id)
    end
  end

  @doc "Stops an agent that runs and starts it again."
  @spec restart(id) :: {:ok, pid} | {:error, term}
  defdelegate restart(id), to: AgentSupervisor

  @doc "What the agent does just now."
  @spec status(id) :: {:ok, AgentRegistry.status()} | {:error, :unknown_agent | :unavailable}
  defdelegate status(id), to: AgentRegistry

  @doc "Everything there is to know about the agent."
  @spec info(id) :: {:ok, AgentRegistry.info()} | {:error, :unknown_agent | :unavailable}
  defdelegate info(id), to: AgentRegistry

  @doc "Id and status of all agents of this node."
  @spec list() :: {:ok, [{id, AgentRegistry.status()}]} | {:error, :unavailable}
  defdelegate list(), to: AgentRegistry

  @doc "The agents of this node that have `capability`."
  @spec find_by_capability(AgentRegistry.label()) :: {:ok, [id]} | {:error, atom}
  defdelegate find_by_capability(capability), to: AgentRegistry

  @doc "The agents of this node that are of `type`."
  @spec find_by_type(AgentRegistry.label()) :: {:ok, [id]} | {:error, atom}
  defdelegate find_by_type(type), to: AgentRegistry

  @doc "What the agent was asked."
  @spec metrics(id) :: {:ok, AgentRegistry.Metrics.t()} | {:error, :unknown_agent | :unavailable}
  defdelegate metrics(id), to: AgentRegistry

  @doc """
  Exchanges what a phase keeps alive: placeholders of agents without a pid (`:phase_2`) and the
  pids that stand for agents in the load balancer's test mode (`:phase_3`).
  """
  @impl Supervision
  def switch(phase, enabled?) do
    _ = exchange(phase, enabled?)
    :ok
  end

  defp exchange(:phase_2, true), do: Legacy.Agent.stop_placeholders()
  defp exchange(:phase_2, false), do: Legacy.Agent.make_placeholders()
  defp exchange(:phase_3, true), do: Legacy.LoadBalancer.stop_dummies()
  defp exchange(_phase, _enabled?), do: :ok
end

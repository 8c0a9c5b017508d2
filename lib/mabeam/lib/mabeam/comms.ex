defmodule MABEAM.Comms do
  @moduledoc """
  Talks to agents: requests, notifications, and events that agents and processes subscribe to.

  An agent has room for so many requests, notifications and events at a time (the environment's
  `:max_in_flight`, 100); what is beyond is refused with `{:error, :busy}` and counted. A request
  takes one way, from the caller to the agent's gate, through no server that all requests share.
  An agent that does not run here is looked for on the other nodes, by its group in the `:pg`
  scope `MABEAM.PG`.

  Time-outs are milliseconds, and hold from end to end.
  """
  alias Foundation.{Call, Supervision}
  alias MABEAM.{AgentRegistry, Legacy}
  alias MABEAM.Agent.Gate
  alias MABEAM.Comms.{Server, Stats}

  @timeout 5_000
  @max_timeout 0xFFFFFFFF

  @type reason ::
          :unknown_agent
          | :not_running
          | :busy
          | :timeout
          | :unavailable
          | :bad_timeout
          | {:agent_down, term}
  @type subscriber :: pid | AgentRegistry.id()
  @type topic :: atom | String.t()
  @type selector :: :all | {:type | :capability, AgentRegistry.label()}
  @type outcome(receiver) :: %{delivered: [receiver], failed: %{receiver => term}}
  @type option :: {:timeout, non_neg_integer}

  defguardp is_timeout(timeout)
            when is_integer(timeout) and timeout >= 0 and timeout <= @max_timeout

  @doc """
  Asks an agent, and waits for its answer.

  Errors: `:unknown_agent`, `:not_running`, `:busy`, `:timeout`, `{:agent_down, reason}` when the
  agent died before it answered, `:unavailable` when MABEAM does not run, `:bad_timeout`. After a
  time-out the agent may still do what it was asked, if it was at it already.
  """
  @spec request(AgentRegistry.id(), term, non_neg_integer) :: {:ok, term} | {:error, reason}
  def request(agent, request, timeout \\ @timeout)

  def request(agent, request, timeout) when is_timeout(timeout) do
    [{^agent, answer}] = ask_all([agent], request, timeout)
    answer
  end

  def request(_agent, _request, _timeout), do: {:error, :bad_timeout}

  @doc """
  Asks several agents at once, and waits for their answers, as `request/3` does for one.

  Returns each agent with its answer, in the order of `agents`; all have the same `timeout`.
  `{:error, :bad_agents}` if it is no list.
  """
  @spec request_all([id], term, non_neg_integer) ::
          {:ok, [{id, {:ok, term} | {:error, reason}}]} | {:error, :bad_agents | :bad_timeout}
        when id: AgentRegistry.id()
  def request_all(agents, request, timeout \\ @timeout)

  def request_all(agents, request, timeout) when is_timeout(timeout) do
    with {:ok, agents} <- proper(agents), do: {:ok, ask_all(agents, request, timeout)}
  end

  def request_all(_agents, _request, _timeout), do: {:error, :bad_timeout}

  defp ask_all(agents, request, timeout) do
    deadline = Call.deadline(timeout)
    asked = Enum.map(agents, &{&1, ask(&1, fn gate -> Gate.request(gate, request, timeout) end)})
    for {agent, asked} <- asked, do: {agent, asked |> answer(deadline) |> Stats.request(agent)}
  end

  @doc """
  Tells an agent something (`c:MABEAM.Agent.handle_event/2`), and returns when it is in the
  agent's queue.

  Errors: `:unknown_agent`, `:not_running`, `:busy`, `:no_handler` when the agent takes no events,
  `:timeout`, `:unavailable`. What an agent did not get is counted.
  """
  @spec notify(AgentRegistry.id(), term) :: :ok | {:error, reason | :no_handler}
  def notify(agent, message) do
    case tell([agent], message, Call.deadline(@timeout)) do
      %{delivered: [^agent]} -> Stats.told(:notifications, agent, :ok)
      %{failed: %{^agent => reason}} -> Stats.told(:notifications, agent, {:error, reason})
    end
  end

  @doc """
  Asks an agent without waiting: the answer comes as `{:mabeam_response, reference, {:ok, reply} |
  {:error, reason}}`.

  Exactly one answer comes, also when the process that waits for the agent is killed (`{:error,
  {:task_down, reason}}`). The reasons are those of `request/3`; `{:error, :busy}` may come from
  here as well. When the caller dies the request is given up. Who does not want the answer any
  more calls `:erlang.unalias(reference)`.

  Option: `:timeout`, 5 seconds unless told otherwise.
  """
  @spec send_async_request(AgentRegistry.id(), term, [option]) ::
          {:ok, reference} | {:error, reason | :bad_options}
  def send_async_request(agent, request, options \\ []) do
    with {:ok, timeout} <- timeout(options) do
      if Supervision.enabled?(:phase_2),
        do: Server.async(agent, request, timeout),
        else: Legacy.Comms.send_async_request(agent, request, timeout)
    end
  end

  @doc """
  Tells all agents that run on this node, or those of a type or with a capability.

  Option: `:timeout`, within which all have it in their queue or fail. Errors: `:bad_selector`,
  `:bad_options`, `:unavailable`.
  """
  @spec broadcast(selector, term, [option]) ::
          {:ok, outcome(AgentRegistry.id())}
          | {:error, :bad_selector | :bad_options | :unavailable}
  def broadcast(selector, message, options \\ []) do
    with {:ok, timeout} <- timeout(options), {:ok, agents} <- select(selector) do
      running = Enum.filter(agents, &(AgentRegistry.status(&1) == {:ok, :running}))
      {:ok, running |> tell(message, Call.deadline(timeout)) |> Stats.told_all(:notifications)}
    end
  end

  @doc """
  Tells the agents named, wherever they run; else as `broadcast/3`. `{:error, :bad_agents}` if it
  is no list.
  """
  @spec multicast([AgentRegistry.id()], term, [option]) ::
          {:ok, outcome(AgentRegistry.id())} | {:error, :bad_agents | :bad_options}
  def multicast(agents, message, options \\ []) do
    with {:ok, timeout} <- timeout(options), {:ok, agents} <- proper(agents) do
      {:ok, agents |> tell(message, Call.deadline(timeout)) |> Stats.told_all(:notifications)}
    end
  end

  @doc """
  Subscribes a process, or an agent by its id, to the events of `topic`. Once is enough; more do
  no harm.

  A process gets `{:mabeam_event, topic, data}` as a message, an agent the same through
  `c:MABEAM.Agent.handle_event/2`, also after it was restarted. Errors: `:bad_topic` (not an atom
  or a string), `:bad_subscriber`, `:not_alive`, `:unknown_agent`, `:unavailable`.
  """
  @spec subscribe(subscriber, topic) :: :ok | {:error, atom}
  def subscribe(subscriber, topic) do
    with :ok <- subscriber(subscriber),
         :ok <- topic(topic),
         do: Server.subscribe(subscriber, topic)
  end

  @doc "Ends a subscription. `{:error, :not_subscribed}` if there was none."
  @spec unsubscribe(subscriber, topic) :: :ok | {:error, :not_subscribed | Call.reason()}
  def unsubscribe(subscriber, topic), do: Server.unsubscribe(subscriber, topic)

  @doc """
  Sends an event to the subscribers of its topic on this node.

  Processes are sent a message; agents get it as they get a notification, and fail for the same
  reasons. Option: `:timeout`. Errors: `:bad_topic`, `:bad_options`, `:unavailable`.
  """
  @spec publish_event(topic, term, [option]) ::
          {:ok, outcome(subscriber)} | {:error, :bad_topic | :bad_options | :unavailable}
  def publish_event(topic, data, options \\ []) do
    with {:ok, timeout} <- timeout(options),
         :ok <- topic(topic),
         {:ok, subscribers} <- Server.subscribers(topic) do
      event = {:mabeam_event, topic, data}
      {processes, agents} = Enum.split_with(subscribers, &is_pid/1)
      Enum.each(processes, &send(&1, event))
      outcome = tell(agents, event, Call.deadline(timeout))
      {:ok, Stats.told_all(%{outcome | delivered: processes ++ outcome.delivered}, :events)}
    end
  end

  @doc """
  What was sent, answered, refused and lost since MABEAM started: see `t:MABEAM.Comms.Stats.t/0`.
  """
  @spec get_communication_stats() :: {:ok, Stats.t()} | {:error, :unavailable}
  defdelegate get_communication_stats(), to: Stats, as: :all

  # The agent here, or else one of the same name on another node.
  defp gate(agent) do
    with {:error, reason} when reason in [:unknown_agent, :not_running] <-
           AgentRegistry.gate(agent) do
      case Enum.find(members(agent), &(node(&1) != node())) do
        nil -> {:error, reason}
        gate -> {:ok, gate}
      end
    end
  end

  defp members(agent) do
    :pg.get_members(MABEAM.PG, {:agent, agent})
  rescue
    ArgumentError -> []
  end

  # All are asked first, then waited for.
  defp tell(agents, event, deadline) do
    asked = Enum.map(Enum.uniq(agents), &{&1, ask(&1, fn gate -> Gate.event(gate, event) end)})

    Enum.reduce(Enum.reverse(asked), %{delivered: [], failed: %{}}, fn {agent, asked}, outcome ->
      case answer(asked, deadline) do
        :ok -> %{outcome | delivered: [agent | outcome.delivered]}
        {:error, reason} -> %{outcome | failed: Map.put(outcome.failed, agent, reason)}
      end
    end)
  end

  defp ask(agent, ask) do
    with {:ok, gate} <- gate(agent), do: {:asked, ask.(gate)}
  end

  defp answer({:asked, request}, deadline) do
    case :gen_server.receive_response(request, Call.left(deadline)) do
      {:reply, answer} -> answer
      {:error, {:noproc, _gate}} -> {:error, :not_running}
      {:error, {reason, _gate}} -> {:error, {:agent_down, reason}}
      :timeout -> {:error, :timeout}
    end
  end

  defp answer({:error, reason}, _deadline), do: {:error, reason}

  defp select(:all) do
    with {:ok, agents} <- AgentRegistry.list(), do: {:ok, Enum.map(agents, &elem(&1, 0))}
  end

  defp select({:type, type}), do: found(AgentRegistry.find_by_type(type))
  defp select({:capability, capability}), do: found(AgentRegistry.find_by_capability(capability))
  defp select(_other), do: {:error, :bad_selector}

  defp found({:error, reason}) when reason in [:bad_type, :bad_capability],
    do: {:error, :bad_selector}

  defp found(result), do: result

  defp timeout([]), do: {:ok, @timeout}
  defp timeout(timeout: timeout) when is_timeout(timeout), do: {:ok, timeout}
  defp timeout(_other), do: {:error, :bad_options}

  defp proper(agents) do
    if is_list(agents) and not List.improper?(agents),
      do: {:ok, agents},
      else: {:error, :bad_agents}
  end

  defp subscriber(pid) when is_pid(pid) do
    if node(pid) != node() or Process.alive?(pid), do: :ok, else: {:error, :not_alive}
  end

  defp subscriber(agent) do
    cond do
      not AgentRegistry.label?(agent) -> {:error, :bad_subscriber}
      true -> with {:ok, _status} <- AgentRegistry.status(agent), do: :ok
    end
  end

  defp topic(topic), do: if(AgentRegistry.label?(topic), do: :ok, else: {:error, :bad_topic})
end

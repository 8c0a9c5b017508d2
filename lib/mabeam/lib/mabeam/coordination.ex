defmodule MABEAM.Coordination do
  @moduledoc """
  Lets agents come to a common result, by a protocol: a consensus, an auction, a vote, or a
  protocol of your own (`MABEAM.Coordination.Protocol`).

      {:ok, %{winner: agent, price: price}} =
        MABEAM.Coordination.coordinate(:auction, [:a, :b, :c], %{item: :gpu, type: :second_price})

  `:consensus`, `:auction` and `:ensemble_vote` are there from the start; see
  `MABEAM.Coordination.Consensus`, `MABEAM.Coordination.Auction` and
  `MABEAM.Coordination.EnsembleVote` for their parameters and results.

  ## Sessions

  Each coordination is a session, which a `MABEAM.CoordinationWorker` runs. It ends

    * with what its protocol returned: `{:ok, result}` or `{:error, reason}`
    * with `{:error, {:crashed, reason}}`, when it crashed and its protocol allows no (further)
      retry
    * with `{:error, :timeout}` at its deadline, which holds for all attempts together
    * with `{:error, :cancelled}`, by `cancel_session/1`, or when the process that waits in
      `coordinate/4` died

  and then nothing of it runs any more. The results of the last sessions are kept, for
  `get_session_results/2`.

  At most `config :mabeam, max_sessions: 1_000` sessions are active, and as many are kept after
  their end; when it is reached, the oldest tenth of those is dropped, and counted.

  ## Several nodes

  With other members (`Foundation.Coordination.Cluster`) and `:phase_4` on, sessions are recorded
  by a majority of the members (`MABEAM.Coordination.Record`). Then `get_session_results/2` works
  on each member; and when the node that runs a session goes down, another one takes it: it runs
  it again, if the protocol's `c:MABEAM.Coordination.Protocol.on_node_down/0` says `:restart` and
  nobody was waiting for it on that node, or it ends with `{:error, {:node_down, node}}`. Either
  happens once. A node without a majority answers `{:error, :no_quorum}`, at the deadline; the
  session may then have ended otherwise on the other side, which `get_session_results/2` tells
  when they are together again.

  ## Metrics

  See `MABEAM.Coordination.Metrics` for events, and `get_coordination_stats/0`.
  """

  alias Foundation.Call
  alias MABEAM.AgentRegistry
  alias MABEAM.Coordination.{Protocol, Server, Session}

  @type protocol :: AgentRegistry.label()
  @type agent :: AgentRegistry.id()
  @type session_id :: reference
  @type result :: {:ok, term} | {:error, term}

  @typedoc "An active session; `:left` are milliseconds until its deadline."
  @type description :: %{
          id: session_id,
          protocol: protocol,
          agents: [agent],
          attempt: pos_integer,
          supervised?: boolean,
          left: non_neg_integer
        }

  @type refusal ::
          :bad_protocol
          | :unknown_protocol
          | :bad_agents
          | :bad_params
          | :bad_options
          | :bad_timeout
          | :busy
          | Call.reason()

  @timeout_ms 5_000
  # The largest time that a timer of the runtime takes.
  @max_timeout_ms 4_294_967_295
  # How long a caller waits for a server that was killed to be back.
  @patience_ms 1_000
  @pause_ms 10
  # The server answers at the deadline; this is for its answer to arrive.
  @grace_ms 100

  @doc false
  def child_spec(options), do: %{id: __MODULE__, start: {Server, :start_link, [options]}}

  @doc """
  Registers a protocol under a name, an atom or a string.

  `module` implements `MABEAM.Coordination.Protocol`. With `{module, defaults}`, a keyword list or
  a map, each coordination starts with these parameters, and those of `coordinate/4` take
  precedence.

      :ok = MABEAM.Coordination.register_protocol(:vickrey, {MABEAM.Coordination.Auction, type:
      :second_price})

  """
  @spec register_protocol(protocol, module | {module, keyword | map}) ::
          :ok | {:error, :bad_name | :bad_protocol | :already_registered | Call.reason()}
  def register_protocol(name, module) do
    if AgentRegistry.label?(name) do
      with {:ok, entry} <- Protocol.entry(module),
           do: Call.call(__MODULE__, {:register, name, entry})
    else
      {:error, :bad_name}
    end
  end

  @doc """
  Runs a coordination of `agents` and waits for its result.

  `params` is a map, and means what the protocol says. The only option is `:timeout`, in
  milliseconds (#{@timeout_ms}). When the caller dies, the coordination is cancelled.

  Besides the errors with which a session ends (see above) there are those of one that was not
  begun: `:bad_agents` when `agents` is not a list of different atoms and strings, and at least
  one; `:busy` when too many sessions are active. An agent that is unknown, fails, or does not
  answer is no error: the protocol's result names it.
  """
  @spec coordinate(protocol, [agent], map, keyword) :: result | {:error, refusal}
  def coordinate(protocol, agents, params, options \\ []) do
    with {:ok, timeout} <- check(protocol, agents, params, options) do
      session = Session.new(protocol, agents, params, timeout: timeout, caller: self())

      case ask({:start, session}, session.deadline) do
        {:result, result} -> result
        {:error, :pending} -> {:error, :timeout}
        {:error, reason} -> {:error, reason}
      end
    end
  end

  @doc """
  Begins a coordination, as `coordinate/4`, and returns its id at once.

  Its result is fetched with `get_session_results/2`. It goes on when the caller dies.
  """
  @spec coordinate_async(protocol, [agent], map, keyword) ::
          {:ok, session_id} | {:error, refusal}
  def coordinate_async(protocol, agents, params, options \\ []) do
    with {:ok, timeout} <- check(protocol, agents, params, options) do
      session = Session.new(protocol, agents, params, timeout: timeout)
      ask({:start, session}, session.deadline)
    end
  end

  @doc """
  The result with which a session has ended, or will end within `timeout` milliseconds.

  `{:error, :pending}` when it has not ended by then; `{:error, :unknown_session}` when there is
  none with that id, or it was dropped meanwhile; `{:error, :unavailable}` when MABEAM does not
  run. All other errors are the session's own.
  """
  @spec get_session_results(session_id, timeout :: non_neg_integer) ::
          result
          | {:error, :pending | :unknown_session | :bad_session | :bad_timeout | :unavailable}
  def get_session_results(id, timeout \\ @timeout_ms)
  def get_session_results(id, _timeout) when not is_reference(id), do: {:error, :bad_session}

  def get_session_results(_id, timeout)
      when not is_integer(timeout) or timeout < 0 or timeout > @max_timeout_ms,
      do: {:error, :bad_timeout}

  def get_session_results(id, timeout) do
    deadline = Call.deadline(timeout)

    case ask({:await, id, deadline}, deadline) do
      {:result, result} -> result
      {:error, :timeout} -> {:error, :pending}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Ends an active session of this node. When this returns nothing of it runs any more."
  @spec cancel_session(session_id) ::
          :ok | {:error, :unknown_session | :already_ended | :bad_session | Call.reason()}
  def cancel_session(id) when is_reference(id),
    do: ask({:cancel, id}, Call.deadline(@timeout_ms))

  def cancel_session(_id), do: {:error, :bad_session}

  @doc "The active sessions of this node."
  @spec list_active_sessions() :: {:ok, [description]} | {:error, Call.reason()}
  def list_active_sessions, do: Call.call(__MODULE__, :active)

  @doc """
  How many sessions of this node were `:started` and have since `:completed`, `:failed` (their
  protocol returned an error), `:crashed`, `:timed_out` or were `:cancelled`; attempts `:retried`;
  sessions `:refused` because too many were active, or `:dropped` after their end; and those of
  other nodes `:taken_over` to be run again, or `:reported` as lost.

  Besides, how many are `:active` now, and how many `:protocols` there are. The counts outlive the
  server.
  """
  @spec get_coordination_stats() :: {:ok, %{atom => non_neg_integer}} | {:error, Call.reason()}
  def get_coordination_stats, do: Call.call(__MODULE__, :stats)

  @doc false
  def max_sessions, do: Application.get_env(:mabeam, :max_sessions, 1_000)

  # The server may be killed at any time. What is asked so may be asked twice: a session has its
  # id from its caller.
  defp ask(request, deadline), do: ask(request, deadline, Call.deadline(@patience_ms))

  defp ask(request, deadline, patience) do
    asked = Call.deadline(0)

    with {:error, :unavailable} <- Call.call(__MODULE__, request, wait(deadline)) do
      # A server that died over the request was there until now.
      there? = Call.deadline(0) - asked > @pause_ms
      patience = if there?, do: Call.deadline(@patience_ms), else: patience
      again(request, deadline, patience)
    end
  end

  defp again(request, deadline, patience) do
    if min(Call.left(deadline), Call.left(patience)) > 0 do
      Process.sleep(@pause_ms)
      ask(request, deadline, patience)
    else
      {:error, :unavailable}
    end
  end

  defp wait(deadline), do: min(Call.left(deadline) + @grace_ms, @max_timeout_ms)

  defp check(protocol, agents, params, options) do
    cond do
      not AgentRegistry.label?(protocol) -> {:error, :bad_protocol}
      not agents?(agents) -> {:error, :bad_agents}
      not is_map(params) or is_struct(params) -> {:error, :bad_params}
      not Keyword.keyword?(options) -> {:error, :bad_options}
      Keyword.keys(options) -- [:timeout] != [] -> {:error, :bad_options}
      true -> timeout(Keyword.get(options, :timeout, @timeout_ms))
    end
  end

  defp timeout(timeout) when is_integer(timeout) and timeout in 1..@max_timeout_ms,
    do: {:ok, timeout}

  defp timeout(_other), do: {:error, :bad_timeout}

  defp agents?([_ | _] = agents) do
    not List.improper?(agents) and Enum.all?(agents, &AgentRegistry.label?/1) and
      Enum.uniq(agents) == agents
  end

  defp agents?(_other), do: false
end

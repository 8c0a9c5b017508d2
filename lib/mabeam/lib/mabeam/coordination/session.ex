defmodule MABEAM.Coordination.Session do
  @moduledoc """
  One coordination, from its start to its end.

  A session is `:active`, with one worker after the other as attempts crash, and then `:ended`,
  with a result.
  """

  alias Foundation.{Call, Supervision}
  alias MABEAM.Coordination.{Protocol, Record}

  @enforce_keys [:id, :protocol, :agents, :params, :timeout, :deadline]
  defstruct @enforce_keys ++
              [
                caller: nil,
                entry: nil,
                supervised?: true,
                recorded?: false,
                attempt: 1,
                worker: nil,
                began: nil,
                status: :active,
                result: nil,
                settled?: true,
                ended_at: nil
              ]

  @typedoc """
    * `:timeout`, `:deadline` - milliseconds in all, and when they are over
      (`Foundation.Call.deadline/1`)
    * `:caller` - the process that waits for the result, and without which the session is
      pointless
    * `:entry` - its protocol, once the server has looked it up
    * `:supervised?` - false for one that the code of `MABEAM.Legacy.Coordination` runs
    * `:recorded?` - whether the other members know of it (`MABEAM.Coordination.Record`)
    * `:worker` - the process that runs it, nil between two attempts
    * `:began` - when this attempt began, in native units of the monotonic time
    * `:settled?` - false while the members have not agreed on the result of one that is recorded
    * `:ended_at` - in native units of the monotonic time
  """
  @type t :: %__MODULE__{
          id: MABEAM.Coordination.session_id(),
          protocol: MABEAM.Coordination.protocol(),
          agents: [MABEAM.Coordination.agent()],
          params: map,
          timeout: pos_integer,
          deadline: integer,
          caller: pid | nil,
          entry: Protocol.entry() | nil,
          supervised?: boolean,
          recorded?: boolean,
          attempt: pos_integer,
          worker: pid | nil,
          began: integer | nil,
          status: :active | :ended,
          result: MABEAM.Coordination.result() | nil,
          settled?: boolean,
          ended_at: integer | nil
        }

  @doc "A session as a caller asks for it."
  @spec new(MABEAM.Coordination.protocol(), [MABEAM.Coordination.agent()], map, keyword) :: t
  def new(protocol, agents, params, options) do
    timeout = Keyword.fetch!(options, :timeout)

    %__MODULE__{
      id: Keyword.get_lazy(options, :id, &make_ref/0),
      protocol: protocol,
      agents: agents,
      params: params,
      timeout: timeout,
      deadline: Call.deadline(timeout),
      caller: Keyword.get(options, :caller)
    }
  end

  @doc """
  Adds what the server knows. From here on it does not matter whether a phase is switched: a
  session ends in the way in which it began.
  """
  @spec prepare(t, Protocol.entry()) :: t
  def prepare(session, entry) do
    supervised? = Supervision.enabled?(:phase_1)
    recorded? = supervised? and Record.used?()

    %{
      session
      | entry: entry,
        params: Map.merge(entry.defaults, session.params),
        supervised?: supervised?,
        recorded?: recorded?
    }
  end

  @doc "The next attempt begins now, in `worker`."
  @spec running(t, pid) :: t
  def running(session, worker),
    do: %{session | worker: worker, began: System.monotonic_time()}

  @doc "Whether a session whose attempt crashed is run again."
  @spec retry?(t) :: boolean
  def retry?(session) do
    session.attempt <= session.entry.retries and Call.left(session.deadline) > 0
  end

  @doc "The attempt crashed, and the next one is to be started."
  @spec again(t) :: t
  def again(session), do: %{session | attempt: session.attempt + 1, worker: nil, began: nil}

  @doc "The session at its end, without what is of no use any more."
  @spec ended(t, MABEAM.Coordination.result(), settled? :: boolean) :: t
  def ended(session, result, settled?) do
    %{
      session
      | status: :ended,
        result: result,
        settled?: settled?,
        ended_at: System.monotonic_time(),
        params: %{},
        worker: nil,
        caller: nil
    }
  end

  @doc "What `MABEAM.Coordination.list_active_sessions/0` tells of a session."
  @spec describe(t) :: MABEAM.Coordination.description()
  def describe(session) do
    session
    |> Map.take([:id, :protocol, :agents, :attempt, :supervised?])
    |> Map.put(:left, Call.left(session.deadline))
  end
end

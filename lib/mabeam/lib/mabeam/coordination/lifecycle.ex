defmodule MABEAM.Coordination.Lifecycle do
  @moduledoc """
  What happens to sessions, as steps on the state of `MABEAM.Coordination.Server`.

  Each step writes the session's row before it does what follows from it, so that a server that
  was killed in between finds in the table what there is to do (`recover/1`).
  """

  alias Foundation.Coordination.Cluster
  alias MABEAM.Coordination.{Ledgers, Metrics, Record, Session, Store, Waiters}
  alias MABEAM.{CoordinationSupervisor, CoordinationWorker}

  # Before the next attempt: time for a supervisor that was killed to be back.
  @pause_ms 10

  defstruct live: %{},
            watched: %{},
            waiters: %{},
            ended: :queue.new(),
            tasks: %{},
            taking: false,
            later: nil

  @typedoc """
    * `:live` - the monitors and the timer of each active session that is supervised
    * `:watched` - what a monitor is for
    * `:waiters` - see `MABEAM.Coordination.Waiters`
    * `:ended` - the ids of ended sessions, the oldest first
    * `:tasks` - the kind of each task of `MABEAM.Coordination.Ledgers`
    * `:taking`, `:later` - whether the task `:take` runs, once more after that, or when a timer
      fires
  """
  @type t :: %__MODULE__{
          live: %{MABEAM.Coordination.session_id() => %{atom => reference}},
          watched: %{reference => {:worker | :caller, MABEAM.Coordination.session_id()}},
          waiters: Waiters.t(),
          ended: :queue.queue(MABEAM.Coordination.session_id()),
          tasks: %{reference => term},
          taking: boolean | :again,
          later: reference | nil
        }

  @doc "The state of a server that starts: its sessions are those in the table."
  @spec recover(t) :: t
  def recover(state) do
    active = Enum.filter(Store.sessions(:active), & &1.supervised?)

    # A worker that is in no row was being started when the server died.
    Enum.each(
      CoordinationSupervisor.workers() -- Enum.map(active, & &1.worker),
      &CoordinationSupervisor.stop_coordination_process/1
    )

    ended = Enum.sort_by(Store.sessions(:ended), & &1.ended_at)
    state = %{state | ended: :queue.from_list(Enum.map(ended, & &1.id))}
    Enum.reduce(active, state, &resume/2)
  end

  defp resume(session, state) do
    state = watch(state, session)
    if session.worker, do: let_run(state, session), else: attempt(state, session)
  end

  @doc "A new session begins."
  @spec begin(t, Session.t(), [Store.counter()]) :: t
  def begin(state, session, counters \\ [:started]) do
    Store.put(session, counters)
    state |> watch(session) |> attempt(session)
  end

  @doc "Starts the worker of a session's next attempt."
  @spec attempt(t, Session.t()) :: t
  def attempt(state, session) do
    case start_worker(session) do
      {:ok, worker} ->
        session = Session.running(session, worker)
        Store.put(session)
        Metrics.started(session)
        let_run(state, session)

      # Nothing has run: that was no attempt.
      {:error, :unavailable} ->
        attempt_later(state, session)
    end
  end

  defp attempt_later(state, session) do
    :erlang.start_timer(@pause_ms, self(), {:attempt, session.id})
    state
  end

  # Monitored first: no reason of a crash is missed.
  defp let_run(state, %{supervised?: false}), do: state

  defp let_run(state, session) do
    state = monitor(state, :worker, session)
    CoordinationWorker.run(session.worker)
    state
  end

  defp start_worker(session) do
    if session.supervised? do
      CoordinationSupervisor.start_coordination_process(session.entry.module, session)
    else
      MABEAM.Legacy.Coordination.start(session.entry.module, session)
    end
  end

  @doc "The worker of an active session has died."
  @spec crashed(t, Session.t(), reason :: term) :: t
  def crashed(state, session, reason) do
    if Session.retry?(session) do
      Metrics.failed(session, reason, true)
      session = Session.again(session)
      Store.put(session, [:retried])
      state |> forget_worker(session.id) |> attempt_later(session)
    else
      Metrics.failed(session, reason, false)
      decide(state, session, {:error, {:crashed, reason}}, :crashed)
    end
  end

  @doc "The time of an active session is over."
  @spec timed_out(t, Session.t()) :: t
  def timed_out(state, session) do
    stop_worker(session)

    if session.recorded? and not Cluster.quorum?() do
      Metrics.failed(session, :no_quorum, false)
      finish(state, session, {:error, :no_quorum}, false, :timed_out)
    else
      Metrics.failed(session, :timeout, false)
      decide(state, session, {:error, :timeout}, :timed_out)
    end
  end

  @doc "An active session is cancelled: its worker is dead when this returns."
  @spec cancel(t, Session.t()) :: t
  def cancel(state, session) do
    stop_worker(session)
    Metrics.stopped(session, :cancelled)
    decide(state, session, {:error, :cancelled}, :cancelled)
  end

  @doc "The worker of an active session has handed in its result."
  @spec answered(t, Session.t(), MABEAM.Coordination.result(), settled? :: boolean) :: t
  # Its time was over a moment before the session's: the same end, whoever tells it first.
  def answered(state, session, {:error, :no_quorum} = result, false) do
    Metrics.failed(session, :no_quorum, false)
    state |> finish(session, result, false, :timed_out) |> Ledgers.take_later()
  end

  def answered(state, session, result, settled?) do
    status = if match?({:ok, _value}, result), do: :completed, else: :failed
    Metrics.stopped(session, status)
    state = finish(state, session, result, settled?, status)
    if settled?, do: state, else: Ledgers.take_later(state)
  end

  @doc "An active session turns out to be another node's: this one was cut off, and it was taken."
  @spec superseded(t, Session.t(), Record.t()) :: t
  def superseded(state, session, record) do
    stop_worker(session)

    case record.status do
      {:ended, standing} -> answered(state, session, standing, true)
      :active -> answered(state, session, {:error, {:taken_over, record.node}}, false)
    end
  end

  # An end that this server decides on, and that the other members still have to agree to.
  defp decide(state, session, result, counter) do
    state = finish(state, session, result, not session.recorded?, counter)
    if session.recorded?, do: Ledgers.close(state, session, result), else: state
  end

  defp finish(state, session, result, settled?, counter) do
    Store.put(Session.ended(session, result, settled?), [counter])
    waiters = Waiters.answer(state.waiters, session.id, {:result, result})
    %{unwatch(state, session.id) | waiters: waiters} |> keep(session.id)
  end

  @doc "Keeps an ended session, and drops the oldest tenth when there are too many."
  @spec keep(t, MABEAM.Coordination.session_id()) :: t
  def keep(state, id) do
    ended = :queue.in(id, state.ended)
    max = MABEAM.Coordination.max_sessions()

    if :queue.len(ended) > max do
      {oldest, left} = :queue.split(:queue.len(ended) - max + div(max, 10), ended)
      drop(%{state | ended: left}, :queue.to_list(oldest))
    else
      %{state | ended: ended}
    end
  end

  # One that was taken back from another node may run again.
  defp drop(state, ids) do
    sessions = for id <- ids, {:ok, %{status: :ended} = session} <- [Store.fetch(id)], do: session
    Store.drop(Enum.map(sessions, & &1.id))
    Ledgers.forget(state, for(%{recorded?: true, id: id} <- sessions, do: id))
  end

  defp stop_worker(%{supervised?: true, worker: worker}) when is_pid(worker),
    do: CoordinationSupervisor.stop_coordination_process(worker)

  defp stop_worker(_legacy_or_between_attempts), do: :ok

  # Nobody watches a session of the legacy code.
  defp watch(state, %{supervised?: false}), do: state

  defp watch(state, session) do
    timer = :erlang.start_timer(session.deadline, self(), {:deadline, session.id}, abs: true)
    state = %{state | live: Map.put(state.live, session.id, %{timer: timer})}
    if session.caller, do: monitor(state, :caller, session), else: state
  end

  defp monitor(state, role, session) do
    ref = Process.monitor(Map.fetch!(session, role))
    live = Map.update!(state.live, session.id, &Map.put(&1, role, ref))
    %{state | live: live, watched: Map.put(state.watched, ref, {role, session.id})}
  end

  defp unwatch(state, id) do
    case Map.pop(state.live, id) do
      {nil, _live} ->
        state

      {%{timer: timer} = live, others} ->
        :erlang.cancel_timer(timer, async: true, info: false)
        refs = live |> Map.delete(:timer) |> Map.values()
        Enum.each(refs, &Process.demonitor(&1, [:flush]))
        %{state | live: others, watched: Map.drop(state.watched, refs)}
    end
  end

  defp forget_worker(state, id) do
    {ref, live} = state.live |> Map.fetch!(id) |> Map.pop(:worker)
    %{state | live: Map.put(state.live, id, live), watched: Map.delete(state.watched, ref)}
  end
end

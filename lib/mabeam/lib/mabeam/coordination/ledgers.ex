defmodule MABEAM.Coordination.Ledgers do
  @moduledoc """
  The transactions of `MABEAM.Coordination.Record`, as tasks of the server, which does not wait
  for them: without a majority they take all their time.

  Each is a task without a link under `MABEAM.TaskSupervisor`. What a lost one leaves undone is
  found by the next `take/1`, which compares all records of this node with its sessions.
  """

  alias Foundation.Coordination.Cluster
  alias MABEAM.Coordination.{Lifecycle, Metrics, Record, Session, Store, Waiters}

  @timeout_ms 5_000
  @again_ms 1_000

  @doc """
  Takes what belongs to nodes that are down, settles what this node left unsettled, and gives up
  what others have taken from it. One such task runs at a time.
  """
  @spec take(Lifecycle.t()) :: Lifecycle.t()
  def take(%{taking: false} = state) do
    if Record.used?() do
      run(%{state | taking: true}, :take, :take, [@timeout_ms])
    else
      state
    end
  end

  def take(state), do: %{state | taking: :again}

  @doc "Writes the result of a session, on which this node has decided."
  @spec close(Lifecycle.t(), Session.t(), MABEAM.Coordination.result()) :: Lifecycle.t()
  def close(state, session, result) do
    run(state, {:close, session.id}, :close, [session, result, @timeout_ms])
  end

  @doc "Deletes the records of sessions that this node does not keep."
  @spec forget(Lifecycle.t(), [MABEAM.Coordination.session_id()]) :: Lifecycle.t()
  def forget(state, []), do: state
  def forget(state, ids), do: run(state, :forget, :forget, [ids, @timeout_ms])

  @doc "Looks for the result of a session, for those who wait for it."
  @spec look_up(Lifecycle.t(), MABEAM.Coordination.session_id()) :: Lifecycle.t()
  def look_up(state, id), do: run(state, {:look_up, id}, :read, [id, @timeout_ms])

  @doc "The task `kind` has returned `result`, or `{:error, reason}` stands for one that died."
  @spec done(Lifecycle.t(), kind :: term, result :: term) :: Lifecycle.t()
  def done(%{taking: taking} = state, :take, result) do
    state = %{state | taking: false}

    state =
      case result do
        {:ok, mine, lost} -> Enum.reduce(lost, Enum.reduce(mine, state, &mine/2), &lost/2)
        {:error, _reason} -> take_later(state)
      end

    if taking == :again, do: take(state), else: state
  end

  def done(state, {:close, id}, {:ok, standing}), do: settle(state, id, standing)

  # The node that has taken the session will settle it.
  def done(state, {:close, _id}, {:error, {:taken_over, _node}}), do: state
  def done(state, {:close, _id}, {:error, _reason}), do: take_later(state)

  def done(state, {:look_up, id}, result) do
    case {result, Store.fetch(id)} do
      {_result, {:ok, %{status: :active}}} -> state
      {{:ok, %{status: {:ended, standing}}}, _row} -> settle(state, id, standing)
      # The ledger will tell when it has ended: see changed/2.
      {{:ok, _active}, _row} -> state
      {_none_or_error, {:ok, session}} -> answer(state, id, {:result, session.result})
      {:error, :error} -> answer(state, id, {:error, :unknown_session})
      {{:error, reason}, :error} -> answer(state, id, {:error, reason})
    end
  end

  def done(state, :forget, _result), do: state

  @doc "The record of a session has changed: perhaps it is one that somebody waits for."
  @spec changed(Lifecycle.t(), MABEAM.Coordination.session_id()) :: Lifecycle.t()
  def changed(state, id) do
    waited_for? = Waiters.any?(state.waiters, id)
    active? = match?({:ok, %{status: :active}}, Store.fetch(id))
    if waited_for? and not active?, do: look_up(state, id), else: state
  end

  defp run(state, kind, function, arguments) do
    task = Task.Supervisor.async_nolink(MABEAM.TaskSupervisor, Record, function, arguments)

    %{state | tasks: Map.put(state.tasks, task.ref, kind)}
  catch
    # The supervisor is being restarted.
    :exit, _reason -> done(state, kind, {:error, :unavailable})
  end

  @doc """
  Compares records and sessions in a second, if there is a majority; without one it would be in
  vain until a member is up, and that the server is told.
  """
  @spec take_later(Lifecycle.t()) :: Lifecycle.t()
  def take_later(%{later: nil} = state) do
    if Cluster.quorum?() do
      %{state | later: :erlang.start_timer(@again_ms, self(), :take)}
    else
      state
    end
  end

  def take_later(state), do: state

  # A record that is this node's: since just now, or already.
  defp mine(record, state) do
    case {record.status, Store.fetch(record.id)} do
      {_status, {:ok, %{status: :active}}} -> state
      {{:ended, _standing}, {:ok, %{settled?: true}}} -> state
      {{:ended, standing}, {:ok, _unsettled}} -> settle(state, record.id, standing)
      {{:ended, standing}, :error} -> found(state, record, standing)
      {:active, row} -> continue(state, record, row)
    end
  end

  # Reported by this node when it took the record, or a result that its node had left.
  defp found(state, record, standing) do
    if record.from, do: Metrics.taken_over(record, record.from, :report)
    counters = if record.from, do: [:reported], else: []
    adopt(state, record, standing, true, counters)
  end

  defp lost(record, state) do
    case Store.fetch(record.id) do
      {:ok, %{status: :active} = session} -> Lifecycle.superseded(state, session, record)
      _ended -> state
    end
  end

  # It was taken back from a node that had taken it.
  defp continue(state, record, {:ok, %{result: {:error, {:taken_over, _node}}}}),
    do: continue(state, record, :error)

  # What this node decided on before it could write it.
  defp continue(state, _record, {:ok, session}), do: close(state, session, session.result)

  # Taken, or left by an earlier life of this node.
  defp continue(state, record, :error) do
    from = record.from || node()

    if Record.restart?(record) do
      Metrics.taken_over(record, from, :restart)
      Lifecycle.begin(state, Record.to_session(record), [:started, :taken_over])
    else
      Metrics.taken_over(record, from, :report)
      lost = {:error, {:node_down, from}}
      state = adopt(state, record, lost, false, [:reported])
      close(state, Record.to_session(record), lost)
    end
  end

  defp adopt(state, record, result, settled?, counters) do
    Store.put(Session.ended(Record.to_session(record), result, settled?), counters)
    state = Lifecycle.keep(state, record.id)
    if settled?, do: answer(state, record.id, {:result, result}), else: state
  end

  defp settle(state, id, standing) do
    with {:ok, %{status: :ended} = session} <- Store.fetch(id) do
      Store.put(%{session | result: standing, settled?: true})
    end

    answer(state, id, {:result, standing})
  end

  defp answer(state, id, answer) do
    %{state | waiters: Waiters.answer(state.waiters, id, answer)}
  end
end

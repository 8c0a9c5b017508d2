defmodule MABEAM.Coordination.Server do
  @moduledoc """
  The process `MABEAM.Coordination`: knows the protocols and the sessions, and monitors who runs
  them.

  Its state follows from its tables (`MABEAM.Coordination.Store`). When it was killed, the
  sessions go on; its successor monitors their workers, and workers that have finished meanwhile
  hand in their results to it.
  """
  use GenServer

  alias Foundation.{Call, Stray}
  alias Foundation.Coordination.{Cluster, Ledger}
  alias MABEAM.Coordination
  alias MABEAM.Coordination.{Ledgers, Lifecycle, Protocol, Record, Session, Store, Waiters}

  @built_in [
    consensus: Coordination.Consensus,
    auction: Coordination.Auction,
    ensemble_vote: Coordination.EnsembleVote
  ]

  @doc "Starts the server, named `MABEAM.Coordination`."
  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: Coordination)

  # Before it asks once more for a subscription.
  @again_ms 1_000
  @longer_ms 50

  @impl true
  def init([]) do
    Store.claim()

    for {name, module} <- @built_in do
      {:ok, entry} = Protocol.entry(module)
      Store.add_protocol(name, entry)
    end

    subscribe()
    {:ok, %Lifecycle{} |> Lifecycle.recover() |> Ledgers.take()}
  end

  # Foundation keeps subscriptions over its own restarts; only while it is being restarted it does
  # not take any.
  defp subscribe do
    with :ok <- Cluster.subscribe(), :ok <- Ledger.subscribe(Record.tag()) do
      :ok
    else
      _unavailable -> :erlang.start_timer(@again_ms, self(), :subscribe)
    end
  end

  @impl true
  def handle_call({:register, name, entry}, _from, state) do
    answer = if Store.add_protocol(name, entry), do: :ok, else: {:error, :already_registered}
    {:reply, answer, state}
  end

  # A caller whose server died asks again with the same session.
  def handle_call({:start, session}, from, state) do
    with :error <- Store.fetch(session.id),
         {:ok, entry} <- known(session.protocol),
         :ok <- room(state) do
      state = if session.caller, do: wait(state, session, from), else: state
      state = Lifecycle.begin(state, Session.prepare(session, entry))
      if session.caller, do: {:noreply, state}, else: {:reply, {:ok, session.id}, state}
    else
      {:ok, _session} when session.caller == nil -> {:reply, {:ok, session.id}, state}
      {:ok, %{status: :active} = known} -> {:noreply, wait(state, known, from)}
      {:ok, known} -> {:reply, {:result, known.result}, state}
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  def handle_call({:await, id, deadline}, from, state) do
    case Store.fetch(id) do
      {:ok, %{status: :ended, settled?: true} = session} ->
        {:reply, {:result, session.result}, state}

      {:ok, %{status: :active}} ->
        {:noreply, wait(state, id, from, deadline)}

      unsettled_or_none ->
        if Record.used?() do
          {:noreply, state |> wait(id, from, deadline) |> Ledgers.look_up(id)}
        else
          {:reply, local(unsettled_or_none), state}
        end
    end
  end

  def handle_call({:cancel, id}, _from, state) do
    case Store.fetch(id) do
      {:ok, %{status: :active} = session} -> {:reply, :ok, Lifecycle.cancel(state, session)}
      {:ok, _ended} -> {:reply, {:error, :already_ended}, state}
      :error -> {:reply, {:error, :unknown_session}, state}
    end
  end

  def handle_call({:ended, id, worker, result, settled?}, _from, state) do
    case Store.fetch(id) do
      {:ok, %{status: :active, worker: ^worker} = session} ->
        {:reply, :ok, Lifecycle.answered(state, session, result, settled?)}

      # It was cancelled, say, while its worker waited for this server.
      _other ->
        {:reply, :ok, state}
    end
  end

  def handle_call(:active, _from, state) do
    {:reply, {:ok, Enum.map(Store.sessions(:active), &Session.describe/1)}, state}
  end

  def handle_call(:stats, _from, state), do: {:reply, {:ok, Store.stats()}, state}
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast({:legacy_ended, id, result}, state) do
    case Store.fetch(id) do
      {:ok, %{status: :active, supervised?: false} = session} ->
        {:noreply, Lifecycle.answered(state, session, result, true)}

      _cancelled ->
        {:noreply, state}
    end
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:timeout, _timer, {:deadline, id}}, state),
    do: {:noreply, if_active(state, id, &deadline(state, &1))}

  def handle_info({:timeout, _timer, {:attempt, id}}, state),
    do: {:noreply, if_active(state, id, &attempt(state, &1))}

  def handle_info({:timeout, _timer, {:waiter, id, from}}, state),
    do: {:noreply, %{state | waiters: Waiters.expired(state.waiters, id, from)}}

  # What happened without a subscription is seen by comparing.
  def handle_info({:timeout, _timer, :subscribe}, state) do
    subscribe()
    {:noreply, Ledgers.take(state)}
  end

  def handle_info({:timeout, _timer, :take}, state),
    do: {:noreply, Ledgers.take(%{state | later: nil})}

  def handle_info({:DOWN, ref, :process, _pid, reason}, state) do
    case state do
      %{watched: %{^ref => {role, id}}} ->
        state = %{state | watched: Map.delete(state.watched, ref)}
        {:noreply, if_active(state, id, &down(state, &1, role, reason))}

      %{tasks: %{^ref => _kind}} ->
        {:noreply, done(state, ref, {:error, :unavailable})}

      _demonitored ->
        {:noreply, state}
    end
  end

  def handle_info({ref, result}, %{tasks: tasks} = state) when is_map_key(tasks, ref) do
    Process.demonitor(ref, [:flush])
    {:noreply, done(state, ref, result)}
  end

  def handle_info({:foundation_cluster, {_up_or_down, _node}}, state),
    do: {:noreply, Ledgers.take(state)}

  def handle_info({:foundation_ledger, {_tag, id}, _change}, state),
    do: {:noreply, Ledgers.changed(state, id)}

  def handle_info({:table_heir, keeper}, state) do
    Store.renew(keeper)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  defp known(protocol) do
    with :error <- Store.protocol(protocol), do: {:error, :unknown_protocol}
  end

  defp room(state) do
    if map_size(state.live) < Coordination.max_sessions() do
      :ok
    else
      Store.count([:refused])
      {:error, :busy}
    end
  end

  # A little longer than the session, whose end tells why.
  defp wait(state, session, from),
    do: wait(state, session.id, from, session.deadline + @longer_ms)

  defp wait(state, id, from, deadline),
    do: %{state | waiters: Waiters.add(state.waiters, id, from, deadline)}

  defp local({:ok, session}), do: {:result, session.result}
  defp local(:error), do: {:error, :unknown_session}

  defp if_active(state, id, fun) do
    case Store.fetch(id) do
      {:ok, %{status: :active} = session} -> fun.(session)
      _ended -> state
    end
  end

  # A session that has ended may have been taken back, and run again: then its old timers are
  # void.
  defp deadline(state, session) do
    if Call.left(session.deadline) > 0, do: state, else: Lifecycle.timed_out(state, session)
  end

  defp attempt(state, session) do
    if session.worker, do: state, else: Lifecycle.attempt(state, session)
  end

  defp down(state, session, :caller, _reason), do: Lifecycle.cancel(state, session)

  # It has given up at the deadline, the timer for which is on its way here.
  defp down(state, session, :worker, reason) do
    if Call.left(session.deadline) == 0 do
      Lifecycle.timed_out(state, session)
    else
      Lifecycle.crashed(state, session, reason)
    end
  end

  defp done(state, ref, result) do
    {kind, tasks} = Map.pop!(state.tasks, ref)
    Ledgers.done(%{state | tasks: tasks}, kind, result)
  end
end

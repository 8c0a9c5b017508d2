defmodule Foundation.BEAM.Watcher do
  @moduledoc """
  Monitors ecosystems and memory-intensive work, and reports those that are lost.

  Work that ends before it has answered (it was killed, say) is answered for:
  `{:work_error, reason}` goes to its caller. An ecosystem that ends otherwise than by
  `Foundation.BEAM.Processes.shutdown_ecosystem/1` is reported. The events are `:work_lost` and
  `:ecosystem_lost`, the counters `[:foundation, :work, :lost]` and
  `[:foundation, :ecosystem, :lost]`.

  The table's rows are `{pid, :ecosystem}` and `{pid, {:work, caller}}`. It outlives the server,
  which monitors anew when it is restarted; it is public, so that what is done takes its row
  out, whether or not the server is there at that moment.
  """
  use GenServer

  alias Foundation.{Call, Events, Stray, TableKeeper, Telemetry}

  @table __MODULE__

  @type subject :: :ecosystem | {:work, pid | reference}

  @doc "Starts the watcher."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Has the caller watched, until it ends. Work is answered for at a pid or an alias."
  @spec watch(subject) :: :ok | {:error, Call.reason()}
  def watch(subject), do: Call.call(__MODULE__, {:watch, self(), subject})

  @doc "For work that has answered and ecosystems that were shut down: their end is no loss."
  @spec done(pid) :: :ok
  def done(pid) do
    :ets.delete(@table, pid)
    :ok
  rescue
    # Foundation is being stopped.
    ArgumentError -> :ok
  end

  @doc "Whether `pid` is an ecosystem that lives, as far as is known here."
  @spec ecosystem?(term) :: boolean
  def ecosystem?(pid) do
    :ets.lookup(@table, pid) == [{pid, :ecosystem}]
  rescue
    ArgumentError -> false
  end

  @impl true
  def init([]) do
    # For `terminate/2`, at a stop.
    Process.flag(:trap_exit, true)
    TableKeeper.claim(TableKeeper, @table)
    for {pid, _subject} <- :ets.tab2list(@table), do: Process.monitor(pid)
    {:ok, nil}
  end

  @impl true
  def handle_call({:watch, pid, subject}, _from, state) do
    :ets.insert(@table, {pid, subject})
    Process.monitor(pid)
    {:reply, :ok, state}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:DOWN, _ref, :process, pid, reason}, state) do
    for {_pid, subject} <- :ets.take(@table, pid), do: ended(subject, pid, reason)
    {:noreply, state}
  end

  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, @table)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  # At a stop of Foundation the work has just been ended, and its DOWN may be under way.
  @impl true
  def terminate(reason, _state) do
    for {pid, {:work, caller}} <- :ets.tab2list(@table), not Process.alive?(pid) do
      ended({:work, caller}, pid, reason)
      :ets.delete(@table, pid)
    end
  end

  # Counted first: whoever has heard of it finds it counted.
  defp ended({:work, caller}, pid, reason) do
    Telemetry.emit_counter([:foundation, :work, :lost], %{pid: pid, reason: reason})
    Events.report(:work_lost, %{pid: pid, reason: reason})
    send(caller, {:work_error, reason})
  end

  # It was shut down, or has not started: whoever wanted that knows.
  defp ended(:ecosystem, _pid, {:shutdown, :ecosystem}), do: :ok
  defp ended(:ecosystem, _pid, {:shutdown, {:failed_to_start_child, _id, _reason}}), do: :ok

  defp ended(:ecosystem, pid, reason) do
    Telemetry.emit_counter([:foundation, :ecosystem, :lost], %{pid: pid, reason: reason})
    Events.report(:ecosystem_lost, %{pid: pid, reason: reason})
  end
end

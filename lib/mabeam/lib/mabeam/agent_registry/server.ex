defmodule MABEAM.AgentRegistry.Server do
  @moduledoc """
  Writes the agents' table, and watches the three processes of each agent that runs.

  A process of an agent registers itself as it starts, so the server asks nobody and waits for
  nobody. When the last of the three is gone, their exit reasons tell what happened:

    * the cell ended in order, its agent or its gate by a crash: they crashed more often than the
      cell bears; the agent has `:failed`
    * the cell was killed, or ended in order though nobody stopped it: so did the supervisor above
      it; `MABEAM.Agent.Reviver` is told to start the agent again

  What becomes of an agent is executed as `[:mabeam, :agent, :ready]`, `:stopped`, `:crashed` and
  `:failed`; the latter two are events of `Foundation.Events`, too: `:agent_crashed` and
  `:agent_failed`.
  """
  use GenServer, id: MABEAM.AgentRegistry

  import MABEAM.AgentRegistry.Row

  alias Foundation.{Events, Stray, TableKeeper, Telemetry}
  alias MABEAM.Agent.{Gate, Reviver}
  alias MABEAM.AgentRegistry.Index

  @table MABEAM.AgentRegistry
  @parts [:cell, :pid, :gate]

  # monitors: reference => {id, part}; references: the other way round; reasons: {id, part} => why
  # it ended
  defstruct monitors: %{}, references: %{}, reasons: %{}

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: @table)

  @impl true
  def init([]) do
    Enum.each([@table, Index], &TableKeeper.claim(MABEAM.TableKeeper, &1))
    state = Enum.reduce(:ets.tab2list(@table), %__MODULE__{}, &resume/2)
    {:ok, state}
  end

  @impl true
  def handle_call({:register, row}, _from, state) do
    if :ets.insert_new(@table, row) do
      Index.enter(row)
      {:reply, :ok, state}
    else
      {:reply, {:error, :already_registered}, state}
    end
  end

  def handle_call({:deregister, id}, _from, state) do
    with {:ok, row} <- fetch(id),
         :ok <- if(row(row, :wanted) or alive?(row), do: {:error, :running}, else: :ok) do
      Index.remove(row)
      :ets.delete(@table, id)
      {:reply, :ok, forget(state, id)}
    else
      error -> {:reply, error, state}
    end
  end

  def handle_call({:claim, id, mode, cell}, _from, state) do
    with {:ok, row} <- fetch(id), :ok <- claimable(row, mode, cell) do
      state = forget(state, id)
      state = %{state | reasons: Map.put(state.reasons, {id, :pid}, :not_started)}
      set(id, cell: cell, pid: nil, gate: nil)
      {:reply, {:ok, row(row, :module), row(row, :config)}, watch(state, id, :cell, cell)}
    else
      error -> {:reply, error, state}
    end
  end

  def handle_call({:running, id, cell, pid}, _from, state) do
    with {:ok, row} <- owned(id, cell) do
      set(id, pid: pid, status: :running, wanted: true)

      if gate = row(row, :gate) do
        Gate.agent_up(gate, pid)
        ready(id)
      end

      {:reply, :ok, watch(state, id, :pid, pid)}
    else
      error -> {:reply, error, state}
    end
  end

  def handle_call({:open, id, cell, gate}, _from, state) do
    with {:ok, row} <- owned(id, cell) do
      set(id, gate: gate)
      join(id, gate)
      row(pid: pid, module: module, counters: counters) = row
      if pid, do: ready(id)
      answer = {:ok, %{agent: pid, module: module, counters: counters}}
      {:reply, answer, watch(state, id, :gate, gate)}
    else
      error -> {:reply, error, state}
    end
  end

  def handle_call({:stopping, id}, _from, state) do
    case fetch(id) do
      {:ok, row(cell: cell)} when cell != nil ->
        set(id, wanted: false, status: :stopping)
        {:reply, {:ok, cell}, state}

      {:ok, row(wanted: true)} ->
        stopped(id)
        {:reply, {:ok, nil}, state}

      {:ok, _row} ->
        {:reply, {:error, :not_running}, state}

      error ->
        {:reply, error, state}
    end
  end

  # Its monitors tell the same, but maybe later than the one who stopped it looks.
  def handle_call({:stopped, id, cell}, _from, state) do
    with {:ok, row} <- owned(id, cell), false <- alive?(row) do
      set(id, cell: nil, pid: nil, gate: nil, wanted: false)
      stopped(id)
      {:reply, :ok, forget(state, id)}
    else
      _somebody_else_was_first -> {:reply, :ok, state}
    end
  end

  def handle_call({:failed, id, reason}, _from, state) do
    with {:ok, row(wanted: true) = row} <- fetch(id), false <- alive?(row), do: fail(id, reason)
    {:reply, :ok, state}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:DOWN, reference, :process, _pid, reason}, state) do
    case Map.pop(state.monitors, reference) do
      {nil, _monitors} ->
        {:noreply, state}

      {{id, part} = key, monitors} ->
        references = Map.delete(state.references, key)
        reasons = Map.put(state.reasons, key, reason)
        state = %{state | monitors: monitors, references: references, reasons: reasons}
        set(id, [{part, nil}])
        {:ok, row} = fetch(id)
        ended(part, reason, row)
        {:noreply, settle(id, state)}
    end
  end

  def handle_info({:table_heir, keeper}, state) do
    Enum.each([@table, Index], &TableKeeper.renew(keeper, &1))
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  # After a restart of this server: what died meanwhile is reported by its monitor at once, with
  # `:noproc`.
  defp resume(row, state) do
    id = row(row, :id)
    parts = for part <- @parts, pid = part(row, part), do: {part, pid}
    if gate = row(row, :gate), do: join(id, gate)
    if parts == [] and row(row, :status) == :restarting, do: Reviver.revive(id)
    Enum.reduce(parts, state, fn {part, pid}, state -> watch(state, id, part, pid) end)
  end

  # It asks again: the server before this one died as it answered.
  defp claimable(row(cell: cell), _mode, cell), do: :ok
  defp claimable(row(wanted: true), :start, _cell), do: {:error, :already_running}

  defp claimable(row, :start, _cell) do
    if alive?(row), do: {:error, :stopping}, else: :ok
  end

  defp claimable(row, :revive, _cell) do
    if row(row, :status) == :restarting and not alive?(row), do: :ok, else: {:error, :not_needed}
  end

  # The agent itself is gone; its cell decides what becomes of it. A cell that ends takes the gate
  # down first: an agent that shut down before its gate did so by itself.
  defp ended(:pid, reason, row(id: id, wanted: true, gate: gate)) do
    cond do
      own_end?(reason) or (reason == :shutdown and gate != nil) ->
        set(id, wanted: false, status: :stopping)

      true ->
        set(id, status: :restarting)
        if crash?(reason), do: report(:crashed, :agent_crashed, id, reason)
    end
  end

  defp ended(_part, _reason, _row), do: :ok

  defp settle(id, state) do
    {:ok, row} = fetch(id)

    if Enum.all?(@parts, &(part(row, &1) == nil)) do
      reasons = Map.new(@parts, &{&1, state.reasons[{id, &1}]})

      cond do
        row(row, :wanted) -> settle(id, reasons.cell, reasons.pid, reasons.gate)
        row(row, :status) == :stopping -> stopped(id)
        true -> :ok
      end

      forget(state, id)
    else
      state
    end
  end

  # The one who started it, the reviver, knows and tries again.
  defp settle(_id, _cell, :not_started, _gate), do: :ok

  # Not known how the agent ended: this server was restarted meanwhile.
  defp settle(id, _cell, nil, _gate), do: Reviver.revive(id)

  defp settle(id, cell, agent, gate) do
    cond do
      crash?(cell) -> Reviver.revive(id)
      crash?(agent) -> fail(id, agent)
      crash?(gate) -> fail(id, {:gate, gate})
      # When the application stops, nobody hears this.
      true -> Reviver.revive(id)
    end
  end

  defp stopped(id) do
    set(id, wanted: false, status: :stopped)
    Telemetry.emit_counter([:mabeam, :agent, :stopped], %{agent: id})
  end

  # It runs, and can be asked through its gate.
  defp ready(id), do: Telemetry.emit_counter([:mabeam, :agent, :ready], %{agent: id})

  defp fail(id, reason) do
    set(id, wanted: false, status: :failed)
    report(:failed, :agent_failed, id, reason)
  end

  defp report(counter, event, id, reason) do
    Telemetry.emit_counter([:mabeam, :agent, counter], %{agent: id, reason: reason})
    Events.report(event, %{agent: id, reason: reason})
  end

  defp own_end?(:normal), do: true
  defp own_end?({:shutdown, _why}), do: true
  defp own_end?(_reason), do: false

  defp crash?(nil), do: false
  defp crash?(:shutdown), do: false
  defp crash?(reason), do: not own_end?(reason)

  defp join(id, gate) do
    group = {:agent, id}
    unless gate in :pg.get_local_members(MABEAM.PG, group), do: :pg.join(MABEAM.PG, group, gate)
    :ok
  catch
    # The scope is being restarted: so will be this server, after it, and joins all of them.
    _kind, _reason -> :ok
  end

  defp watch(state, id, part, pid) do
    state = forget(state, id, part)
    reference = Process.monitor(pid)

    %{
      state
      | monitors: Map.put(state.monitors, reference, {id, part}),
        references: Map.put(state.references, {id, part}, reference),
        reasons: Map.delete(state.reasons, {id, part})
    }
  end

  defp forget(state, id), do: Enum.reduce(@parts, state, &forget(&2, id, &1))

  defp forget(state, id, part) do
    {reference, references} = Map.pop(state.references, {id, part})
    if reference, do: Process.demonitor(reference, [:flush])
    monitors = Map.delete(state.monitors, reference)
    reasons = Map.delete(state.reasons, {id, part})
    %{state | monitors: monitors, references: references, reasons: reasons}
  end

  defp owned(id, cell) do
    case fetch(id) do
      {:ok, row(cell: ^cell)} = found -> found
      {:ok, _other} -> {:error, :stale}
      error -> error
    end
  end

  defp alive?(row) do
    Enum.any?(@parts, fn part -> (pid = part(row, part)) != nil and Process.alive?(pid) end)
  end

  defp fetch(id) do
    case :ets.lookup(@table, id) do
      [row] -> {:ok, row}
      [] -> {:error, :unknown_agent}
    end
  end

  defp set(id, changes) do
    :ets.update_element(@table, id, Enum.map(changes, fn {key, value} -> {at(key), value} end))
  end

  defp at(:status), do: position(:status)
  defp at(:wanted), do: position(:wanted)
  defp at(:cell), do: position(:cell)
  defp at(:pid), do: position(:pid)
  defp at(:gate), do: position(:gate)

  defp part(row, :cell), do: row(row, :cell)
  defp part(row, :pid), do: row(row, :pid)
  defp part(row, :gate), do: row(row, :gate)
end

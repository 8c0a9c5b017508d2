defmodule MABEAM.AgentRegistry.Server do
  @moduledoc """
  Writes the agents' table, and watches the three processes of each agent that runs: its cell, the
  agent, and its gate.

  A process of an agent registers itself as it starts, so the server asks nobody and waits for
  nobody. When the last of the three is gone, and the agent was not stopped, it has either crashed
  more often than its cell bears: then it has `:failed`. Or its cell was killed, or the supervisor
  above it: then `MABEAM.Agent.Reviver` is told to start it again.

  What becomes of an agent is executed as `[:mabeam, :agent, :ready]`, `:stopped`, `:stop_broken_off`
  (who was to stop it was killed, and it goes on), `:crashed` and `:failed`; the latter two are
  events of `Foundation.Events`, too: `:agent_crashed` and `:agent_failed`.
  """
  use GenServer, id: MABEAM.AgentRegistry

  import MABEAM.AgentRegistry.Row

  alias Foundation.{Events, Stray, TableKeeper, Telemetry}
  alias MABEAM.Agent.{Gate, Reviver}
  alias MABEAM.AgentRegistry.{Index, Monitors}

  @table MABEAM.AgentRegistry
  @parts [:cell, :pid, :gate]

  @doc "Starts the server, named `MABEAM.AgentRegistry`."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: @table)

  # The state: what is watched.
  @impl true
  def init([]) do
    Enum.each([@table, Index], &TableKeeper.claim(MABEAM.TableKeeper, &1))
    rows = :ets.tab2list(@table)
    # Either there is no agent yet, or the table was lost: with its keeper, before it had another.
    if rows == [], do: Reviver.adopt()
    {:ok, Enum.reduce(rows, %Monitors{}, &resume/2)}
  end

  @impl true
  def handle_call({:register, row}, _from, monitors) do
    if :ets.insert_new(@table, row) do
      Index.enter(row)
      {:reply, :ok, monitors}
    else
      {:reply, {:error, :already_registered}, monitors}
    end
  end

  # An agent whose cell is alive was not deregistered: its row is missing because it was lost.
  def handle_call({:adopt, row}, _from, monitors) do
    cond do
      not Process.alive?(row(row, :cell)) ->
        {:reply, {:error, :not_running}, monitors}

      :ets.insert_new(@table, row) ->
        Index.enter(row)
        {:reply, :ok, resume(row, monitors)}

      true ->
        {:reply, {:error, :already_registered}, monitors}
    end
  end

  def handle_call({:deregister, id}, _from, monitors) do
    with {:ok, row} <- fetch(id),
         :ok <- if(row(row, :wanted) or alive?(row), do: {:error, :running}, else: :ok) do
      Index.remove(row)
      :ets.delete(@table, id)
      {:reply, :ok, Monitors.drop(monitors, id)}
    else
      error -> {:reply, error, monitors}
    end
  end

  def handle_call({:claim, id, mode, cell}, _from, monitors) do
    with {:ok, row} <- fetch(id), :ok <- claimable(row, mode, cell) do
      set(id, cell: cell, pid: nil, gate: nil)
      monitors = monitors |> Monitors.forget(id) |> Monitors.watch(id, :cell, cell)
      {:reply, {:ok, row(row, :module), row(row, :config)}, monitors}
    else
      error -> {:reply, error, monitors}
    end
  end

  def handle_call({:running, id, cell, pid}, _from, monitors) do
    with {:ok, row} <- owned(id, cell) do
      monitors = heed(monitors, row, :pid, pid)
      set(id, pid: pid, status: :running, wanted: true)

      if gate = row(row, :gate) do
        Gate.agent_up(gate, pid)
        ready(id)
      end

      {:reply, :ok, Monitors.watch(monitors, id, :pid, pid)}
    else
      error -> {:reply, error, monitors}
    end
  end

  def handle_call({:open, id, cell, gate}, _from, monitors) do
    with {:ok, row} <- owned(id, cell) do
      monitors = heed(monitors, row, :gate, gate)
      set(id, gate: gate)
      join(id, gate)
      if row(row, :pid), do: ready(id)
      {:reply, {:ok, row}, Monitors.watch(monitors, id, :gate, gate)}
    else
      error -> {:reply, error, monitors}
    end
  end

  def handle_call({:stopping, id}, {stopper, _tag}, monitors) do
    case fetch(id) do
      {:ok, row(cell: cell)} when cell != nil ->
        set(id, wanted: false, status: :stopping)
        {:reply, {:ok, cell}, Monitors.watch(monitors, id, :stopper, stopper)}

      {:ok, row(wanted: true)} ->
        stopped(id)
        {:reply, {:ok, nil}, monitors}

      {:ok, _row} ->
        {:reply, {:error, :not_running}, monitors}

      error ->
        {:reply, error, monitors}
    end
  end

  # Its monitors tell the same, but maybe later than the one who stopped it looks.
  def handle_call({:stopped, id, cell}, _from, monitors) do
    with {:ok, row} <- owned(id, cell), false <- alive?(row) do
      set(id, cell: nil, pid: nil, gate: nil)
      stopped(id)
      {:reply, :ok, Monitors.forget(monitors, id)}
    else
      _somebody_else_was_first -> {:reply, :ok, monitors}
    end
  end

  def handle_call({:failed, id, reason}, _from, monitors) do
    with {:ok, row(wanted: true) = row} <- fetch(id), false <- alive?(row), do: fail(id, reason)
    {:reply, :ok, monitors}
  end

  def handle_call(request, _from, monitors), do: Stray.call(request, monitors)

  @impl true
  def handle_cast(message, monitors), do: Stray.message(message, monitors)

  @impl true
  def handle_info({:DOWN, reference, :process, _pid, reason}, monitors) do
    case Monitors.down(monitors, reference, reason) do
      {:ok, id, :stopper, monitors} ->
        if reason != :normal, do: go_on(id)
        {:noreply, monitors}

      {:ok, id, part, monitors} ->
        ended(id, part, reason)
        {:noreply, settle(id, monitors)}

      :error ->
        {:noreply, monitors}
    end
  end

  def handle_info({:table_heir, keeper}, monitors) do
    Enum.each([@table, Index], &TableKeeper.renew(keeper, &1))
    {:noreply, monitors}
  end

  def handle_info(message, monitors), do: Stray.message(message, monitors)

  # After a restart of this server: what died meanwhile is reported by its monitor at once, with
  # `:noproc`.
  defp resume(row, monitors) do
    id = row(row, :id)
    parts = for part <- @parts, pid = part(row, part), do: {part, pid}
    if gate = row(row, :gate), do: join(id, gate)
    if parts == [] and row(row, :status) == :restarting, do: Reviver.revive(id)
    Enum.reduce(parts, monitors, fn {part, pid}, all -> Monitors.watch(all, id, part, pid) end)
  end

  # It asks again: the server before this one died as it answered.
  defp claimable(row(cell: cell), _mode, cell), do: :ok
  defp claimable(row(wanted: true), :start, _cell), do: {:error, :already_running}

  defp claimable(row, :start, _cell) do
    if alive?(row), do: {:error, :stopping}, else: :ok
  end

  defp claimable(row, :revive, _cell) do
    if row(row, :wanted) and not alive?(row), do: :ok, else: {:error, :not_needed}
  end

  # Who was to stop it was killed before it had, and has told nobody that it did.
  defp go_on(id) do
    with {:ok, row(status: :stopping, pid: pid)} <- fetch(id) do
      set(id, wanted: true, status: if(pid, do: :running, else: :restarting))
      Telemetry.emit_counter([:mabeam, :agent, :stop_broken_off], %{agent: id})
    end
  end

  # A part that was started again registers itself: the one before it is dead, even if its monitor
  # has not told yet. It is heard first, so that no crash goes unnoticed.
  defp heed(monitors, row, part, pid) do
    reference = Monitors.reference(monitors, row(row, :id), part)

    if reference == nil or part(row, part) in [nil, pid] do
      monitors
    else
      receive do
        {:DOWN, ^reference, :process, _pid, reason} ->
          {:ok, id, part, monitors} = Monitors.down(monitors, reference, reason)
          ended(id, part, reason)
          monitors
      end
    end
  end

  defp ended(id, part, reason) do
    set(id, [{part, nil}])
    with {:ok, row(wanted: true)} when part == :pid <- fetch(id), do: agent_ended(id, reason)
  end

  # The agent itself is gone; its cell decides what becomes of it. `:shutdown` is what supervisors
  # say: it was not the agent that wanted to end.
  defp agent_ended(id, reason) do
    if Monitors.own_end?(reason) do
      set(id, wanted: false, status: :stopping)
    else
      set(id, status: :restarting)
      if Monitors.crash?(reason), do: report(:crashed, :agent_crashed, id, reason)
    end
  end

  defp settle(id, monitors) do
    {:ok, row} = fetch(id)

    if Enum.all?(@parts, &(part(row, &1) == nil)) do
      cond do
        row(row, :wanted) -> lost(id, monitors)
        row(row, :status) == :stopping -> stopped(id)
        true -> :ok
      end

      Monitors.forget(monitors, id)
    else
      monitors
    end
  end

  # An orderly end of the cell tells nothing by itself: so it gives up, and so it is shut down by
  # the supervisor above it. When the application stops, nobody hears that it should be revived.
  defp lost(id, monitors) do
    [cell, agent, gate] = Enum.map(@parts, &Monitors.reason(monitors, id, &1))

    cond do
      Monitors.crash?(cell) or not Monitors.too_often?(monitors, id) -> Reviver.revive(id)
      Monitors.crash?(agent) -> fail(id, agent)
      Monitors.crash?(gate) -> fail(id, {:gate, gate})
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

  defp join(id, gate) do
    group = {:agent, id}
    unless gate in :pg.get_local_members(MABEAM.PG, group), do: :pg.join(MABEAM.PG, group, gate)
    :ok
  catch
    # The scope is being restarted: so will be this server, after it, and joins all of them.
    _kind, _reason -> :ok
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

  defp set(id, changes), do: :ets.update_element(@table, id, changes(changes))
end

defmodule MABEAM.Agent.Gate do
  @moduledoc """
  Stands before an agent: lets in so much work at a time, and hands it on piece by piece.

  Everybody who has something for an agent asks its gate. The gate is never busy with the work
  itself, so it can refuse at once what is too much (`{:error, :busy}`), and give back the place
  of a request whose caller died or whose deadline passed. Since the agent's mailbox holds one
  piece of work, such a request is dropped before the agent has seen it; one that the agent is
  already at keeps the agent busy, but no place.

  When the agent dies, the request that it was at is answered `{:error, {:agent_down, reason}}`;
  what waits goes to the agent that is started in its place. When the cell ends, all are answered:
  with the reason for which the agent ended, if that is why. When the gate is killed, the callers
  know by their monitors.

  Requests that nobody waits for any more are counted as `[:mabeam, :agent, :given_up]`, and
  notifications and events that were let in but lost as `[:mabeam, :agent, :dropped]`: those of a
  gate that was killed when its successor starts.
  """
  use GenServer

  import MABEAM.AgentRegistry.Row

  alias Foundation.{Call, Stray, Telemetry}
  alias MABEAM.Agent.Server
  alias MABEAM.AgentRegistry
  alias MABEAM.AgentRegistry.Metrics

  @max_in_flight 100

  # at: the item that the agent is at, or nil; queue: the items that wait, `waiting` of them
  # row: as the agent is registered, for a registry that has lost it
  # ended: {reason} of the latest agent that has ended, or nil
  defstruct [
    :row,
    :id,
    :module,
    :counters,
    :max,
    :agent,
    :monitor,
    :ended,
    :at,
    queue: :queue.new(),
    waiting: 0
  ]

  # from: whom to answer, or nil when nobody waits; caller: the monitor of the one who waits; an
  # item that the agent is at and that nobody waits for any more is `given_up`
  defmodule Item do
    @moduledoc false
    defstruct [:tag, :work, :from, :caller, :deadline, :since, given_up: false]
  end

  @doc "Starts the gate of the agent `id` in the cell `cell`."
  @spec start_link({AgentRegistry.id(), pid}) :: GenServer.on_start()
  def start_link({id, cell}), do: GenServer.start_link(__MODULE__, {id, cell})

  @doc """
  Asks the agent, which has `timeout` milliseconds.

  Returns a request of `:gen_server.receive_response/2`, so that many agents can be asked at once.
  The answer is `{:ok, reply}`, or `{:error, :busy | :timeout | {:agent_down, reason}}`.
  """
  @spec request(pid, term, non_neg_integer) :: :gen_server.request_id()
  def request(gate, request, timeout),
    do: :gen_server.send_request(gate, {:request, request, until(gate, timeout)})

  @doc """
  Sends the agent an event likewise; the answer says whether it was let in: `:ok`, or
  `{:error, :busy | :no_handler}`.
  """
  @spec event(pid, term) :: :gen_server.request_id()
  def event(gate, event), do: :gen_server.send_request(gate, {:event, event})

  @doc false
  @spec registration(pid) :: tuple | {:error, Call.reason()}
  def registration(gate), do: Call.call(gate, :row)

  @doc false
  @spec agent_up(pid, pid) :: :ok
  def agent_up(gate, agent), do: GenServer.cast(gate, {:agent_up, agent})

  @doc false
  @spec done(pid, reference, term) :: :ok
  def done(gate, tag, reply), do: GenServer.cast(gate, {:done, tag, reply})

  @impl true
  def init({id, cell}) do
    Process.flag(:trap_exit, true)

    case AgentRegistry.open(id, cell) do
      {:ok, row} ->
        row(pid: agent, module: module, counters: counters) = row
        max = Application.get_env(:mabeam, :max_in_flight, @max_in_flight)
        gate = %__MODULE__{row: row, id: id, module: module, counters: counters, max: max}
        drop(gate, Metrics.get(counters, :unheard))
        {:ok, count(if(agent, do: attach(gate, agent), else: gate))}

      {:error, reason} ->
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call({:request, request, until}, {caller, _tag} = from, gate) do
    case admit(gate) do
      {:ok, gate} ->
        item = %Item{
          work: {:request, request},
          from: from,
          caller: Process.monitor(caller),
          deadline: deadline(until),
          since: System.monotonic_time(:microsecond)
        }

        Metrics.add(gate.counters, :requests, 1)
        {:noreply, gate |> enqueue(item) |> hand_on() |> count()}

      {:error, gate} ->
        Metrics.add(gate.counters, :busy, 1)
        {:reply, {:error, :busy}, gate}
    end
  end

  def handle_call({:event, event}, _from, gate) do
    with :ok <- if(handles_events?(gate), do: :ok, else: {:error, :no_handler}),
         {:ok, gate} <- admit(gate) do
      item = %Item{work: {:event, event}, deadline: :infinity}
      Metrics.add(gate.counters, :unheard, 1)
      {:reply, :ok, gate |> enqueue(item) |> hand_on() |> count()}
    else
      {:error, %__MODULE__{} = gate} ->
        Metrics.add(gate.counters, :dropped, 1)
        {:reply, {:error, :busy}, gate}

      {:error, reason} ->
        Metrics.add(gate.counters, :dropped, 1)
        {:reply, {:error, reason}, gate}
    end
  end

  def handle_call(:row, _from, gate) do
    status = if gate.agent, do: :running, else: :restarting
    {:reply, row(gate.row, gate: self(), pid: gate.agent, status: status, wanted: true), gate}
  end

  def handle_call(request, _from, gate), do: Stray.call(request, gate)

  @impl true
  def handle_cast({:done, tag, reply}, %{at: %Item{tag: tag} = item} = gate) do
    gate = count(%{gate | at: nil})
    finish(item, reply, gate.counters)
    {:noreply, hand_on(gate)}
  end

  # What the agent did for the gate before this one.
  def handle_cast({:done, _tag, _reply}, gate), do: {:noreply, gate}

  def handle_cast({:agent_up, agent}, %{agent: agent} = gate), do: {:noreply, gate}

  # The agent before is dead, or this one would not have been started: its end comes first.
  def handle_cast({:agent_up, agent}, %{monitor: monitor} = gate) when monitor != nil do
    receive do
      {:DOWN, ^monitor, :process, _pid, reason} ->
        {:noreply, gate |> agent_down(reason) |> attach(agent) |> hand_on()}
    end
  end

  def handle_cast({:agent_up, agent}, gate) do
    {:noreply, gate |> attach(agent) |> hand_on()}
  end

  def handle_cast(message, gate), do: Stray.message(message, gate)

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, reason}, %{monitor: monitor} = gate) do
    {:noreply, agent_down(gate, reason)}
  end

  def handle_info({:DOWN, caller, :process, _pid, _reason}, gate) do
    {:noreply, give_up(gate, &(&1.caller == caller))}
  end

  def handle_info(message, gate), do: Stray.message(message, gate)

  # The cell ends: because the agent has, or it is stopped with its gate.
  @impl true
  def terminate(reason, gate) do
    {reason} = ended(gate) || {reason}
    lose_all(gate, reason)
  end

  # The agent's end has told the cell before it tells the gate, and what two processes send comes in
  # no order: so a dead agent's reason may be still on its way when the cell ends the gate.
  defp ended(%{agent: nil} = gate), do: gate.ended

  defp ended(%{agent: agent, monitor: monitor}) do
    if not Process.alive?(agent) do
      receive do
        {:DOWN, ^monitor, :process, _pid, reason} -> {reason}
      end
    end
  end

  # Clocks differ from node to node.
  defp until(gate, timeout) when node(gate) == node(), do: {:at, Call.deadline(timeout)}
  defp until(_gate, timeout), do: {:within, timeout}

  defp deadline({:at, deadline}), do: deadline
  defp deadline({:within, timeout}), do: Call.deadline(timeout)

  defp attach(gate, agent), do: %{gate | agent: agent, monitor: Process.monitor(agent)}

  defp finish(%Item{given_up: true}, _reply, _counters), do: :ok
  defp finish(%Item{from: nil}, _reply, counters), do: Metrics.add(counters, :unheard, -1)

  defp finish(item, reply, counters) do
    release(item)
    latency = System.monotonic_time(:microsecond) - item.since
    Metrics.put(counters, :last_latency_us, latency)
    GenServer.reply(item.from, {:ok, reply})
  end

  defp agent_down(%{at: item} = gate, reason) do
    gate = count(%{gate | agent: nil, monitor: nil, ended: {reason}, at: nil})
    if item, do: lose(item, gate, reason)
    gate
  end

  defp lose_all(%{queue: queue} = gate, reason) do
    gate = agent_down(%{gate | queue: :queue.new(), waiting: 0}, reason)
    Enum.each(:queue.to_list(queue), &lose(&1, gate, reason))
  end

  defp lose(%Item{given_up: true}, _gate, _reason), do: :ok
  defp lose(%Item{from: nil}, gate, _reason), do: drop(gate, 1)

  defp lose(item, gate, reason) do
    release(item)
    Metrics.add(gate.counters, :errors, 1)
    GenServer.reply(item.from, {:error, {:agent_down, reason}})
  end

  defp drop(_gate, 0), do: :ok

  defp drop(gate, number) do
    Metrics.add(gate.counters, :unheard, -number)
    Metrics.add(gate.counters, :dropped, number)
    Telemetry.emit_counter([:mabeam, :agent, :dropped], %{agent: gate.id, number: number})
  end

  # Only when there is no place left does it matter whose deadline has passed.
  defp admit(gate) do
    if in_flight(gate) < gate.max do
      {:ok, gate}
    else
      now = System.monotonic_time(:millisecond)
      gate = give_up(gate, &(&1.deadline <= now))
      if in_flight(gate) < gate.max, do: {:ok, gate}, else: {:error, gate}
    end
  end

  defp give_up(gate, given_up?) do
    {gone, waiting} = Enum.split_with(:queue.to_list(gate.queue), given_up?)
    gate = %{gate | queue: :queue.from_list(waiting), waiting: length(waiting)}

    {gone, gate} =
      if gate.at != nil and not gate.at.given_up and given_up?.(gate.at),
        do: {[gate.at | gone], %{gate | at: %{gate.at | given_up: true}}},
        else: {gone, gate}

    gate = count(gate)
    Enum.each(gone, &given_up(&1, gate))
    gate
  end

  # If the caller still listens, its own deadline is just passing.
  defp given_up(item, gate) do
    release(item)
    Metrics.add(gate.counters, :errors, 1)
    Telemetry.emit_counter([:mabeam, :agent, :given_up], %{agent: gate.id})
    GenServer.reply(item.from, {:error, :timeout})
  end

  defp enqueue(gate, item) do
    item = %{item | tag: make_ref()}
    %{gate | queue: :queue.in(item, gate.queue), waiting: gate.waiting + 1}
  end

  defp hand_on(%{at: nil, agent: agent, waiting: waiting} = gate)
       when agent != nil and waiting > 0 do
    {{:value, item}, queue} = :queue.out(gate.queue)
    gate = %{gate | queue: queue, waiting: waiting - 1}

    if item.deadline != :infinity and Call.left(item.deadline) == 0 do
      given_up(item, count(gate))
      hand_on(gate)
    else
      Server.work(agent, self(), item.tag, item.work)
      %{gate | at: item}
    end
  end

  defp hand_on(gate), do: gate

  defp release(%Item{caller: nil}), do: true
  defp release(%Item{caller: caller}), do: Process.demonitor(caller, [:flush])

  defp in_flight(%{at: %Item{given_up: false}} = gate), do: gate.waiting + 1
  defp in_flight(gate), do: gate.waiting

  defp count(gate) do
    Metrics.put(gate.counters, :in_flight, in_flight(gate))
    gate
  end

  defp handles_events?(gate), do: function_exported?(gate.module, :handle_event, 2)
end

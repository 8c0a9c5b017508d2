defmodule Foundation.Coordination.Cluster.Server do
  @moduledoc """
  Keeps the members of the cluster connected and their ledgers joined.

  Whenever a node, a connection or mnesia comes or goes it looks whether all is in order, and has
  a round of `Foundation.Coordination.Formation` mend in a task what is not. A cluster of one is
  ready when `start_link/1` returns.
  """
  use GenServer

  alias Foundation.Coordination.{Cluster, Formation, Neighbours, Store, Watchers}
  alias Foundation.{Call, Events, Stray, TableKeeper, Telemetry}

  @gauge [:foundation, :coordination, :nodes]
  @table Foundation.Coordination.Cluster
  @keeper Foundation.Coordination.TableKeeper

  # How often members that are not connected are called, and what may have been missed is looked
  # for.
  @tick_ms 500
  # An attempt to connect, or to join, that hangs longer than this is given up.
  @round_ms 30_000

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Lets the server on `node` look again."
  @spec changed(node) :: :ok
  def changed(node), do: GenServer.cast({__MODULE__, node}, :changed)

  @impl true
  def init([]) do
    Process.flag(:trap_exit, true)
    check_members()
    :ok = TableKeeper.claim(@keeper, @table)
    :ok = :net_kernel.monitor_nodes(true)
    :ok = Watchers.subscribe(:head)

    if Cluster.members() == [node()], do: first_round()
    for node <- Cluster.connected(), do: changed(node)
    send(self(), :tick)

    state = %{up: Cluster.connected(), view: :error, waiting: [], mnesia: nil}
    state = Map.merge(state, %{round: nil, again?: false, doubt: nil, calls: nil})
    {:ok, look(state)}
  end

  defp check_members do
    members = Application.get_env(:foundation, :members, [node()])

    if not (is_list(members) and members != [] and Enum.all?(members, &is_atom/1)) do
      raise ArgumentError,
            "config :foundation, members: must be a list of nodes: #{inspect(members)}"
    end
  end

  defp first_round do
    with %Task{} = task <- task(Formation, :round, [deadline(), nil]),
         do: Task.yield(task, @round_ms) || Task.shutdown(task, :brutal_kill)
  end

  @impl true
  def handle_call({:await, table, deadline}, from, state) do
    state = %{state | waiting: [{from, table, deadline} | state.waiting]}
    {:noreply, look(state)}
  end

  def handle_call(:connected, _from, state), do: {:reply, Cluster.connected(), state}
  def handle_call(:status, _from, state), do: {:reply, Formation.status(), state}

  def handle_call({:promise, epoch, nodes}, _from, state) do
    {:reply, Formation.promise(epoch, nodes), state}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(:changed, state), do: {:noreply, look(state)}
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({up_or_down, node}, state) when up_or_down in [:nodeup, :nodedown] do
    {:noreply, state |> neighbour(up_or_down, node) |> look()}
  end

  def handle_info(:tick, state) do
    Process.send_after(self(), :tick, div(@tick_ms, 2) + :rand.uniform(@tick_ms))
    waiting = Enum.filter(state.waiting, fn {_from, _table, deadline} -> deadline > now() end)
    {:noreply, %{state | waiting: waiting} |> give_up() |> call_members() |> look()}
  end

  def handle_info(:foundation_head, state), do: {:noreply, look(state)}
  def handle_info({:mnesia_system_event, _event}, state), do: {:noreply, look(state)}

  def handle_info({ref, result}, %{round: {%{ref: ref}, _end}} = state) do
    Process.demonitor(ref, [:flush])
    {:noreply, ended(result, state)}
  end

  def handle_info({:DOWN, ref, _, _, _reason}, %{round: {%{ref: ref}, _end}} = state) do
    {:noreply, ended(:failed, state)}
  end

  def handle_info({ref, _connected}, %{calls: {%{ref: ref}, _end}} = state) do
    Process.demonitor(ref, [:flush])
    {:noreply, %{state | calls: nil}}
  end

  def handle_info({:DOWN, ref, _, _, _reason}, %{calls: {%{ref: ref}, _end}} = state) do
    {:noreply, %{state | calls: nil}}
  end

  def handle_info({:DOWN, ref, _, _, _reason}, %{mnesia: ref} = state) do
    {:noreply, look(%{state | mnesia: nil})}
  end

  # mnesia links its subscribers, and is stopped and started.
  def handle_info({:EXIT, _mnesia, _reason}, state), do: {:noreply, state}

  def handle_info({:table_heir, keeper}, state) do
    TableKeeper.renew(keeper, @table)
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  defp neighbour(state, up_or_down, node) do
    cond do
      node not in Cluster.members() ->
        state

      up_or_down == :nodeup and node not in state.up ->
        Watchers.publish(:cluster, {:foundation_cluster, {:up, node}})
        changed(node)
        %{state | up: [node | state.up]}

      up_or_down == :nodedown and node in state.up ->
        Watchers.publish(:cluster, {:foundation_cluster, {:down, node}})
        %{state | up: List.delete(state.up, node)}

      true ->
        state
    end
  end

  # What there is to do, after anything has happened: who waits and need not any more, who must
  # hear of the majority, whether something is to be mended.
  defp look(state) do
    Formation.status()
    state = state |> follow_mnesia() |> tell_view()

    {ready, waiting} =
      Enum.split_with(state.waiting, fn {_, table, _} -> Cluster.ready?(table) end)

    for {from, _table, _deadline} <- ready, do: GenServer.reply(from, :ok)
    state = %{state | waiting: waiting}
    if in_order?(), do: %{state | doubt: nil}, else: begin(state)
  end

  # A node that was lost before it was part of the majority can join again when it has been forgotten.
  defp in_order?, do: Formation.sound?() and Cluster.view() != :error and Store.lost() == []

  defp follow_mnesia(%{mnesia: nil} = state) do
    if Store.running?() do
      :mnesia.subscribe(:system)
      %{state | mnesia: Process.monitor(:mnesia_sup)}
    else
      state
    end
  end

  defp follow_mnesia(state), do: state

  defp tell_view(state) do
    view = Cluster.view()

    if view != state.view do
      with {:ok, {epoch, nodes}} <- view do
        Watchers.publish(:cluster, {:foundation_cluster, {:view, nodes}})
        Events.report(:cluster_view, %{epoch: epoch, nodes: nodes})
      end

      nodes = with {:ok, {_epoch, nodes}} <- view, do: length(nodes)
      Telemetry.emit_gauge(@gauge, if(nodes == :error, do: 0, else: nodes))
    end

    %{state | view: view}
  end

  defp begin(%{round: nil} = state) do
    case task(Formation, :round, [deadline(), beyond_doubt(state.doubt)]) do
      nil -> state
      task -> %{state | round: {task, deadline()}, again?: false}
    end
  end

  defp begin(state), do: %{state | again?: true}

  defp ended({:doubt, plan}, %{doubt: {plan, _since}} = state), do: ended(:wait, state)
  defp ended({:doubt, plan}, state), do: ended(:wait, %{state | doubt: {plan, now()}})

  defp ended(result, state) do
    state = %{state | round: nil}
    if result == :done or state.again?, do: look(state), else: state
  end

  # What the members say of each other may only be changing: it is believed when it has stood for
  # a while.
  defp beyond_doubt({plan, since}), do: if(now() - since >= @tick_ms, do: plan)
  defp beyond_doubt(nil), do: nil

  defp now, do: System.monotonic_time(:millisecond)

  defp give_up(state) do
    for {task, deadline} <- [state.round, state.calls], deadline < now() do
      Process.exit(task.pid, :kill)
    end

    state
  end

  # Who is part of the majority waits to be called.
  defp call_members(%{calls: nil} = state) do
    missing = Cluster.members() -- [node() | Node.list()]

    if missing != [] and node() in Cluster.members() and Cluster.view() == :error do
      task = task(Neighbours, :call, [missing])
      %{state | calls: task && {task, deadline()}}
    else
      state
    end
  end

  defp call_members(state), do: state

  defp task(module, function, arguments) do
    Task.Supervisor.async_nolink(Foundation.TaskSupervisor, module, function, arguments)
  catch
    :exit, _reason -> nil
  end

  defp deadline, do: Call.deadline(@round_ms)
end

defmodule Foundation.Coordination.Cluster do
  @moduledoc """
  Which nodes belong together, and whether a majority of them does so just now.

      config :foundation, members: [:"a@host1", :"b@host2", :"c@host3"]

  The members are fixed; a node for which none are named is its own cluster. This server keeps the members connected and
  their ledgers joined: it starts mnesia, waits for a majority of the members, and has `Foundation.Coordination.Formation`
  do what is to be done whenever a node, a connection or mnesia comes or goes. A cluster of one is ready when
  `start_link/1` returns.

  What is agreed is agreed by a majority. After a partition, the side with a majority goes on, and who was without one
  takes over its ledger. Where no side had one, those who come together go on from the latest ledger among them as soon as
  they are a majority. A node that has lost its memory does not count until it is back: it joins a majority, or, when all
  members are there, whoever knows most.

  A node that is given a name while it runs (`:net_kernel.start/1`) is the same cluster of one under its new name, and
  keeps its ledger.

  Watchers get `{:foundation_cluster, event}`: `{:up, node}` and `{:down, node}` when a member is connected or lost,
  `{:view, nodes}` when a majority has come together in another composition, of which this node is part.
  """
  use GenServer

  alias Foundation.Coordination.{Formation, Store, Watchers}
  alias Foundation.{Call, Stray, Supervision, TableKeeper}

  @table __MODULE__
  @keeper Foundation.Coordination.TableKeeper

  # How often members that are not connected are called, and what may have been missed is looked for.
  @tick_ms 500
  @ask_ms 2_000
  # An attempt to connect, or to join, that hangs longer than this is given up.
  @round_ms 30_000

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The members, of which this node should be one; sorted."
  @spec members() :: [node]
  def members, do: :foundation |> Application.get_env(:members, [node()]) |> Enum.sort()

  @doc "How many members are a majority."
  @spec majority() :: pos_integer
  def majority, do: div(length(members()), 2) + 1

  @doc "The other members to which this node is connected."
  @spec connected() :: [node]
  def connected, do: Enum.filter(members(), &(&1 in Node.list()))

  @doc "Whether this node is part of a majority that can agree, as far as it knows."
  @spec quorum?() :: boolean
  def quorum?, do: view() != :error

  @doc "The composition in which the majority stands, when this node is part of it: its epoch and nodes."
  @spec view() :: {:ok, {epoch :: pos_integer, [node]}} | :error
  def view do
    with {:ok, head} <- Store.head(Store.agreed()),
         true <- agrees?(head, Store.active(Store.agreed())) do
      {:ok, {head.epoch, head.nodes}}
    else
      _not -> :error
    end
  end

  @doc "Whether the nodes with an active copy are a majority, and the composition of the table's latest epoch."
  @spec agrees?(Store.head(), [node]) :: boolean
  def agrees?(head, active) do
    head.nodes == active and length(active) >= majority() and
      Enum.all?(active, &(&1 == node() or &1 in Node.list()))
  end

  @doc """
  Who decides together, and how many of them are a majority, as the phases stand.

  With `:phase_4` on: the composition of the majority, for which it waits until `deadline`, and a majority of the members.
  With it off: the members that can be reached, and a majority of those.
  """
  @spec electorate(deadline :: integer) ::
          {:ok, [node], pos_integer} | {:error, :no_quorum | :unavailable}
  def electorate(deadline) do
    if Supervision.enabled?(:phase_4) do
      with :ok <- await(Store.agreed(), deadline), {:ok, {_epoch, nodes}} <- view() do
        {:ok, nodes, majority()}
      else
        :error -> electorate(deadline)
        {:error, reason} -> {:error, reason}
      end
    else
      nodes = [node() | connected()]
      {:ok, nodes, div(length(nodes), 2) + 1}
    end
  end

  @doc """
  Waits until transactions on `table` are possible.

  For the agreed table that needs a majority: `{:error, :no_quorum}` when there is none until the deadline.
  """
  @spec await(Store.table(), deadline :: integer) :: :ok | {:error, :no_quorum | :unavailable}
  def await(table, deadline) do
    if ready?(table) do
      :ok
    else
      left = Call.left(deadline)

      case Call.call(__MODULE__, {:await, table, deadline}, left) do
        :ok ->
          :ok

        {:error, :timeout} ->
          {:error, if(table == Store.agreed(), do: :no_quorum, else: :unavailable)}

        {:error, reason} ->
          {:error, reason}
      end
    end
  end

  @doc "Why what waited for `table` is late, in a word."
  @spec late(Store.table()) :: :no_quorum | :unavailable | :timeout
  def late(table) do
    cond do
      ready?(table) -> :timeout
      table == Store.agreed() -> :no_quorum
      true -> :unavailable
    end
  end

  @doc "Sends `{:foundation_cluster, event}` to the caller, see the module's documentation."
  @spec subscribe() :: :ok | {:error, Call.reason()}
  def subscribe, do: Watchers.subscribe(:cluster)

  @doc "Ends the caller's subscription."
  @spec unsubscribe() :: :ok | {:error, Call.reason()}
  def unsubscribe, do: Watchers.unsubscribe(:cluster)

  @doc false
  def changed(node), do: GenServer.cast({__MODULE__, node}, :changed)

  @impl true
  def init([]) do
    Process.flag(:trap_exit, true)
    :ok = TableKeeper.claim(@keeper, @table)
    :ok = :net_kernel.monitor_nodes(true)
    :ok = Watchers.subscribe(:head)

    if members() == [node()], do: Formation.round(deadline(), nil)
    for node <- connected(), do: changed(node)
    send(self(), :tick)

    state = %{node: node(), up: connected(), view: :error, waiting: []}
    state = Map.merge(state, %{round: nil, again?: false, doubt: nil, calls: nil, mnesia: nil})
    {:ok, look(state)}
  end

  @impl true
  def handle_call({:await, table, deadline}, from, state) do
    state = %{state | waiting: [{from, table, deadline} | state.waiting]}
    {:noreply, look(state)}
  end

  def handle_call(:connected, _from, state), do: {:reply, connected(), state}
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
      node not in members() ->
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

  # What there is to do, after anything has happened: who waits and need not any more, who must hear of the majority,
  # whether something is to be mended.
  defp look(state) do
    state = state |> follow_mnesia() |> tell_view()
    {ready, waiting} = Enum.split_with(state.waiting, fn {_, table, _} -> ready?(table) end)
    for {from, _table, _deadline} <- ready, do: GenServer.reply(from, :ok)
    state = %{state | waiting: waiting}
    if in_order?(), do: %{state | doubt: nil}, else: begin(state)
  end

  defp in_order?, do: Formation.sound?() and view() != :error

  defp ready?(table) do
    if table == Store.agreed(), do: view() != :error, else: Formation.sound?()
  end

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
    view = view()

    if view != state.view do
      with {:ok, {_epoch, nodes}} <- view do
        Watchers.publish(:cluster, {:foundation_cluster, {:view, nodes}})
      end
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

  # What the members say of each other may only be changing: it is believed when it has stood for a while.
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
    missing = members() -- [node() | Node.list()]

    if missing != [] and node() in members() and view() == :error do
      task = task(__MODULE__, :connect, [missing])
      %{state | calls: task && {task, deadline()}}
    else
      state
    end
  end

  defp call_members(state), do: state

  # A node that connects to one of a group and cannot reach the others would tear the group apart, as `:global` lets no
  # partitions overlap. Hidden connections are none of its business: by these it asks first.
  @doc false
  def connect(nodes) do
    reached = Enum.filter(nodes, &(:net_kernel.hidden_connect_node(&1) == true))
    near = [node() | Node.list()] ++ reached
    welcome = Enum.filter(reached, &welcome?(&1, near))
    Enum.each(reached, &:erlang.disconnect_node/1)
    Enum.each(welcome, &Node.connect/1)
  end

  defp welcome?(node, near) do
    case Call.call({__MODULE__, node}, :connected, @ask_ms) do
      nodes when is_list(nodes) -> nodes -- near == []
      _error -> false
    end
  end

  defp task(module, function, arguments) do
    Task.Supervisor.async_nolink(Foundation.TaskSupervisor, module, function, arguments)
  catch
    :exit, _reason -> nil
  end

  defp deadline, do: Call.deadline(@round_ms)
end

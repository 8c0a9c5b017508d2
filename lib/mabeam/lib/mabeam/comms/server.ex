defmodule MABEAM.Comms.Server do
  @moduledoc """
  Watches over asynchronous requests, and keeps the subscriptions.

  An asynchronous request is made by a task of `MABEAM.TaskSupervisor`, which sends the answer to
  the caller itself. The server is there for what goes wrong: it tells the caller when the task
  was killed, and ends the task when the caller has died.

  The caller gets one answer, though task and server may both send one: the reference of a request
  is an alias of the caller (`:erlang.alias/1`) that ends with the first message; the runtime
  drops the second.

  Subscriptions and what the server knows of tasks outlive it: its tables have a keeper, the tasks
  go on without it, and its successor watches them again.
  """
  use GenServer, id: MABEAM.Comms

  alias Foundation.{Call, Stray, TableKeeper}
  alias MABEAM.Comms
  alias MABEAM.Comms.Stats

  @server Comms
  @table Comms
  @subscribers Comms.Subscribers
  @max_in_flight 100

  # monitors: reference => :task, {:caller, task} or :subscriber
  # tasks: task => {the references of task and caller, agent}
  # waiting: agent => how many tasks wait for it; subscribers: pid => reference
  defstruct monitors: %{}, tasks: %{}, waiting: %{}, subscribers: %{}

  @doc "Starts the server, named `MABEAM.Comms`."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: @server)

  @doc "Starts an asynchronous request of the caller."
  @spec async(term, term, non_neg_integer) :: {:ok, reference} | {:error, :busy | Call.reason()}
  def async(agent, request, timeout) do
    reply_to = :erlang.alias([:reply])
    arguments = [reply_to, agent, request, Call.deadline(timeout)]

    case Call.call(@server, {:async, arguments}, timeout) do
      :ok ->
        {:ok, reply_to}

      error ->
        :erlang.unalias(reply_to)
        error
    end
  end

  @doc false
  @spec perform(reference, term, term, integer) :: :answered
  def perform(reply_to, agent, request, deadline) do
    respond(reply_to, Comms.request(agent, request, Call.left(deadline)))
    :answered
  end

  @doc "Enters a subscription."
  @spec subscribe(Comms.subscriber(), Comms.topic()) :: :ok | {:error, Call.reason()}
  def subscribe(subscriber, topic), do: Call.call(@server, {:subscribe, subscriber, topic})

  @doc "Ends a subscription."
  @spec unsubscribe(term, term) :: :ok | {:error, :not_subscribed | Call.reason()}
  def unsubscribe(subscriber, topic), do: Call.call(@server, {:unsubscribe, subscriber, topic})

  @doc "Ends all subscriptions of an agent or a process."
  @spec forget(Comms.subscriber()) :: :ok | {:error, Call.reason()}
  def forget(subscriber), do: Call.call(@server, {:forget, subscriber})

  @doc "Who is subscribed to a topic."
  @spec subscribers(Comms.topic()) :: {:ok, [Comms.subscriber()]} | {:error, :unavailable}
  def subscribers(topic) do
    {:ok, :ets.select(@subscribers, [{{{topic, :"$1"}}, [], [:"$1"]}])}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @impl true
  def init([]) do
    Process.flag(:trap_exit, true)
    Enum.each([@table, @subscribers], &TableKeeper.claim(MABEAM.TableKeeper, &1))
    Stats.init()
    state = Enum.reduce(:ets.match_object(@table, {:_, :_, :_, :_}), %__MODULE__{}, &resume/2)
    processes = for {{_topic, pid}} when is_pid(pid) <- :ets.tab2list(@subscribers), do: pid
    {:ok, Enum.reduce(processes, state, &watch_subscriber/2)}
  end

  @impl true
  def handle_call({:async, [reply_to, agent | _] = arguments}, {caller, _tag}, state) do
    with :ok <- room(agent, state), {:ok, task} <- start_task(arguments) do
      row = {task.pid, reply_to, caller, agent}
      :ets.insert(@table, row)
      Stats.add(:async_requests)
      {:reply, :ok, watch(row, task.ref, state)}
    else
      {:error, :busy} ->
        Stats.lost(:busy, %{agent: agent})
        {:reply, {:error, :busy}, state}

      {:error, _reason} ->
        {:reply, {:error, :unavailable}, state}
    end
  end

  def handle_call({:subscribe, subscriber, topic}, _from, state) do
    :ets.insert(@subscribers, {{topic, subscriber}})
    {:reply, :ok, watch_subscriber(subscriber, state)}
  end

  def handle_call({:unsubscribe, subscriber, topic}, _from, state) do
    case :ets.take(@subscribers, {topic, subscriber}) do
      [] -> {:reply, {:error, :not_subscribed}, state}
      [_subscription] -> {:reply, :ok, unwatch_subscriber(subscriber, state)}
    end
  end

  def handle_call({:forget, subscriber}, _from, state) do
    {:reply, :ok, forget(subscriber, state)}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(message, state), do: Stray.message(message, state)

  # A task has answered its caller. Its end follows.
  @impl true
  def handle_info({_reference, :answered}, state), do: {:noreply, state}

  def handle_info({:DOWN, reference, :process, pid, reason}, state) do
    case state.monitors do
      %{^reference => :task} -> {:noreply, task_down(pid, reason, state)}
      %{^reference => {:caller, task}} -> {:noreply, abandon(task, state)}
      %{^reference => :subscriber} -> {:noreply, forget(pid, state)}
      _late -> {:noreply, state}
    end
  end

  def handle_info({:table_heir, keeper}, state) do
    Enum.each([@table, @subscribers], &TableKeeper.renew(keeper, &1))
    {:noreply, state}
  end

  def handle_info(message, state), do: Stray.message(message, state)

  # The application stops: what waits is told so.
  @impl true
  def terminate(_reason, state) do
    for {task, _watched} <- state.tasks,
        [{_task, reply_to, _, _}] <- [:ets.lookup(@table, task)] do
      respond(reply_to, {:error, :unavailable})
      Process.exit(task, :shutdown)
    end
  end

  defp respond(reply_to, result), do: :erlang.send(reply_to, {:mabeam_response, reply_to, result})

  defp room(agent, state) do
    max = Application.get_env(:mabeam, :max_in_flight, @max_in_flight)
    if Map.get(state.waiting, agent, 0) < max, do: :ok, else: {:error, :busy}
  end

  defp start_task(arguments) do
    {:ok, Task.Supervisor.async_nolink(MABEAM.TaskSupervisor, __MODULE__, :perform, arguments)}
  catch
    :exit, _reason -> {:error, :unavailable}
  end

  defp watch({task, _reply_to, caller, agent}, of_task, state) do
    of_caller = Process.monitor(caller)
    monitors = Map.merge(state.monitors, %{of_task => :task, of_caller => {:caller, task}})
    tasks = Map.put(state.tasks, task, {of_task, of_caller, agent})

    %{
      state
      | monitors: monitors,
        tasks: tasks,
        waiting: Map.update(state.waiting, agent, 1, &(&1 + 1))
    }
  end

  defp resume({task, _, _, _} = row, state), do: watch(row, Process.monitor(task), state)

  defp task_down(task, reason, state) do
    [{_task, reply_to, _caller, agent}] = :ets.take(@table, task)
    reported(reason, reply_to, agent)
    unwatch(task, state)
  end

  defp reported(:normal, _reply_to, _agent), do: :ok

  defp reported(:noproc, reply_to, agent) do
    Stats.lost(:async_unwatched, %{agent: agent})
    respond(reply_to, {:error, {:task_down, :noproc}})
  end

  defp reported(reason, reply_to, agent) do
    Stats.lost(:async_lost, %{agent: agent, reason: reason})
    Foundation.Events.report(:async_request_lost, %{agent: agent, reason: reason})
    respond(reply_to, {:error, {:task_down, reason}})
  end

  defp abandon(task, state) do
    [{_task, _reply_to, _caller, agent}] = :ets.take(@table, task)
    Process.exit(task, :shutdown)
    Stats.lost(:async_abandoned, %{agent: agent})
    unwatch(task, state)
  end

  defp unwatch(task, state) do
    {{of_task, of_caller, agent}, tasks} = Map.pop(state.tasks, task)
    Enum.each([of_task, of_caller], &Process.demonitor(&1, [:flush]))
    monitors = Map.drop(state.monitors, [of_task, of_caller])

    waiting =
      case state.waiting do
        %{^agent => 1} -> Map.delete(state.waiting, agent)
        %{^agent => count} -> %{state.waiting | agent => count - 1}
      end

    %{state | monitors: monitors, tasks: tasks, waiting: waiting}
  end

  defp watch_subscriber(pid, state) when is_pid(pid) and not is_map_key(state.subscribers, pid) do
    reference = Process.monitor(pid)

    %{
      state
      | monitors: Map.put(state.monitors, reference, :subscriber),
        subscribers: Map.put(state.subscribers, pid, reference)
    }
  end

  defp watch_subscriber(_subscriber, state), do: state

  defp unwatch_subscriber(subscriber, state) do
    with %{^subscriber => reference} <- state.subscribers,
         [] <- :ets.match(@subscribers, {{:_, subscriber}}) do
      Process.demonitor(reference, [:flush])

      %{
        state
        | monitors: Map.delete(state.monitors, reference),
          subscribers: Map.delete(state.subscribers, subscriber)
      }
    else
      _still_needed -> state
    end
  end

  defp forget(subscriber, state) do
    :ets.match_delete(@subscribers, {{:_, subscriber}})
    unwatch_subscriber(subscriber, state)
  end
end

defmodule Foundation.Coordination.Watchers do
  @moduledoc """
  Who wants to hear of what: processes that subscribe to a topic, on this node.

  The subscriptions lie in a table that outlives this server, and whoever publishes reads it
  itself: no message is missed while the server is restarted. A subscriber that dies is forgotten.
  """
  use GenServer

  alias Foundation.{Call, Stray, TableKeeper}

  @table __MODULE__
  @keeper Foundation.Coordination.TableKeeper

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Subscribes the caller to `topic`; to do so again changes nothing."
  @spec subscribe(term) :: :ok | {:error, Call.reason()}
  def subscribe(topic), do: Call.call(__MODULE__, {:subscribe, topic, self()})

  @doc "Ends the caller's subscription to `topic`."
  @spec unsubscribe(term) :: :ok | {:error, Call.reason()}
  def unsubscribe(topic), do: Call.call(__MODULE__, {:unsubscribe, topic, self()})

  @doc "Sends `message` to the subscribers of `topic`, from the caller's process."
  @spec publish(term, term) :: :ok
  def publish(topic, message) do
    for {_topic, pid} <- :ets.lookup(@table, topic), do: send(pid, message)
    :ok
  end

  @impl true
  def init([]) do
    :ok = TableKeeper.claim(@keeper, @table)
    pids = Enum.uniq(:ets.select(@table, [{{:_, :"$1"}, [], [:"$1"]}]))
    {:ok, Map.new(pids, &{&1, Process.monitor(&1)})}
  end

  @impl true
  def handle_call({:subscribe, topic, pid}, _from, monitors) do
    :ets.insert(@table, {topic, pid})
    {:reply, :ok, Map.put_new_lazy(monitors, pid, fn -> Process.monitor(pid) end)}
  end

  def handle_call({:unsubscribe, topic, pid}, _from, monitors) do
    :ets.delete_object(@table, {topic, pid})

    if :ets.match(@table, {:_, pid}, 1) == :"$end_of_table" do
      {monitor, monitors} = Map.pop(monitors, pid)
      if monitor, do: Process.demonitor(monitor, [:flush])
      {:reply, :ok, monitors}
    else
      {:reply, :ok, monitors}
    end
  end

  def handle_call(request, _from, monitors), do: Stray.call(request, monitors)

  @impl true
  def handle_cast(message, monitors), do: Stray.message(message, monitors)

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, monitors) do
    :ets.match_delete(@table, {:_, pid})
    {:noreply, Map.delete(monitors, pid)}
  end

  def handle_info({:table_heir, keeper}, monitors) do
    TableKeeper.renew(keeper, @table)
    {:noreply, monitors}
  end

  def handle_info(message, monitors), do: Stray.message(message, monitors)
end

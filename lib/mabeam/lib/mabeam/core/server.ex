defmodule MABEAM.Core.Server do
  @moduledoc """
  Writes the variables of `MABEAM.Core`, and tells those who subscribed.

  Variables and subscriptions lie in tables that outlive this server.
  """
  use GenServer, id: MABEAM.Core

  alias Foundation.{Stray, TableKeeper}
  alias MABEAM.Core.Constraint

  @table MABEAM.Core
  @subscribers MABEAM.Core.Subscribers

  @doc "Starts the server, named `MABEAM.Core`."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: @table)

  # The state: subscriber => the reference of its monitor.
  @impl true
  def init([]) do
    Enum.each([@table, @subscribers], &TableKeeper.claim(MABEAM.TableKeeper, &1))
    pids = for {{_name, pid}} <- :ets.tab2list(@subscribers), do: pid
    {:ok, Enum.reduce(pids, %{}, &watch/2)}
  end

  @impl true
  def handle_call({:register, name, value, constraint}, _from, monitors) do
    if :ets.insert_new(@table, {name, value, constraint}),
      do: {:reply, :ok, monitors},
      else: {:reply, {:error, :already_registered}, monitors}
  end

  def handle_call({:update, name, value}, _from, monitors) do
    with [{_name, _value, constraint}] <- :ets.lookup(@table, name),
         true <- Constraint.allows?(constraint, value) do
      :ets.update_element(@table, name, {2, value})
      tell(name, {:updated, value})
      {:reply, :ok, monitors}
    else
      [] -> {:reply, {:error, :unknown_variable}, monitors}
      false -> {:reply, {:error, :not_allowed}, monitors}
    end
  end

  def handle_call({:delete, name}, _from, monitors) do
    case :ets.take(@table, name) do
      [_variable] ->
        tell(name, :deleted)
        gone = subscribers(name)
        :ets.match_delete(@subscribers, {{name, :_}})
        {:reply, :ok, Enum.reduce(gone, monitors, &unwatch/2)}

      [] ->
        {:reply, {:error, :unknown_variable}, monitors}
    end
  end

  def handle_call({:subscribe, name}, {pid, _tag}, monitors) do
    if :ets.member(@table, name) do
      :ets.insert(@subscribers, {{name, pid}})
      {:reply, :ok, watch(pid, monitors)}
    else
      {:reply, {:error, :unknown_variable}, monitors}
    end
  end

  def handle_call({:unsubscribe, name}, {pid, _tag}, monitors) do
    case :ets.take(@subscribers, {name, pid}) do
      [_subscription] -> {:reply, :ok, unwatch(pid, monitors)}
      [] -> {:reply, {:error, :not_subscribed}, monitors}
    end
  end

  def handle_call(request, _from, monitors), do: Stray.call(request, monitors)

  @impl true
  def handle_cast(message, monitors), do: Stray.message(message, monitors)

  @impl true
  def handle_info({:DOWN, _reference, :process, pid, _reason}, monitors) do
    :ets.match_delete(@subscribers, {{:_, pid}})
    {:noreply, Map.delete(monitors, pid)}
  end

  def handle_info({:table_heir, keeper}, monitors) do
    Enum.each([@table, @subscribers], &TableKeeper.renew(keeper, &1))
    {:noreply, monitors}
  end

  def handle_info(message, monitors), do: Stray.message(message, monitors)

  defp tell(name, what) do
    Enum.each(subscribers(name), &send(&1, {:mabeam_variable, name, what}))
  end

  defp subscribers(name), do: :ets.select(@subscribers, [{{{name, :"$1"}}, [], [:"$1"]}])

  defp watch(pid, monitors) when is_map_key(monitors, pid), do: monitors
  defp watch(pid, monitors), do: Map.put(monitors, pid, Process.monitor(pid))

  # Only when it has no other subscription.
  defp unwatch(pid, monitors) do
    with [] <- :ets.match(@subscribers, {{:_, pid}}),
         {reference, monitors} when reference != nil <- Map.pop(monitors, pid) do
      Process.demonitor(reference, [:flush])
      monitors
    else
      _needed_or_unknown -> monitors
    end
  end
end

defmodule Foundation.ConfigServer do
  @moduledoc """
  Holds the configuration of `Foundation.Config` and its subscribers, in a table that outlives it.

  The table's rows are `{:config, map}` and `{{:subscriber, pid}}`.
  """
  use GenServer

  alias Foundation.{Events, Stray, TableKeeper}

  @table __MODULE__

  @doc "Starts the server."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "For `Foundation.Config.get/1`: the whole configuration, read in the caller's process."
  @spec read() :: {:ok, map} | {:error, :unavailable}
  def read do
    case :ets.lookup(@table, :config) do
      [{:config, config}] -> {:ok, config}
      [] -> {:error, :unavailable}
    end
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @impl true
  def init([]) do
    TableKeeper.claim(TableKeeper, @table)
    :ets.insert_new(@table, {:config, Application.get_env(:foundation, :config, %{})})
    {:ok, Map.new(subscribers(), &{&1, Process.monitor(&1)})}
  end

  @impl true
  def handle_call({:update, path, value}, _from, monitors) do
    {:ok, config} = read()

    case put(config, path, value, []) do
      {:ok, ^config} -> {:reply, :ok, monitors}
      {:ok, changed} -> {:reply, change(changed, path, value), monitors}
      {:error, reason} -> {:reply, {:error, reason}, monitors}
    end
  end

  def handle_call({:subscribe, pid}, _from, monitors) do
    :ets.insert(@table, {{:subscriber, pid}})
    {:reply, :ok, Map.put_new_lazy(monitors, pid, fn -> Process.monitor(pid) end)}
  end

  def handle_call({:unsubscribe, pid}, _from, monitors) do
    case Map.pop(monitors, pid) do
      {nil, monitors} ->
        {:reply, {:error, :not_subscribed}, monitors}

      {ref, monitors} ->
        Process.demonitor(ref, [:flush])
        :ets.delete(@table, {:subscriber, pid})
        {:reply, :ok, monitors}
    end
  end

  def handle_call(request, _from, monitors), do: Stray.call(request, monitors)

  @impl true
  def handle_cast(message, monitors), do: Stray.message(message, monitors)

  @impl true
  def handle_info({:DOWN, _ref, :process, pid, _reason}, monitors) do
    :ets.delete(@table, {:subscriber, pid})
    {:noreply, Map.delete(monitors, pid)}
  end

  def handle_info({:table_heir, keeper}, monitors) do
    TableKeeper.renew(keeper, @table)
    {:noreply, monitors}
  end

  def handle_info(message, monitors), do: Stray.message(message, monitors)

  defp change(config, path, value) do
    :ets.insert(@table, {:config, config})
    Enum.each(subscribers(), &send(&1, {:config_changed, path, value}))
    Events.report(:config_changed, %{path: path, value: value})
  end

  defp subscribers, do: for([pid] <- :ets.match(@table, {{:subscriber, :"$1"}}), do: pid)

  defp put(%{} = map, [key], value, _way), do: {:ok, Map.put(map, key, value)}

  defp put(%{} = map, [key | path], value, way) do
    with {:ok, inner} <- map |> Map.get(key, %{}) |> put(path, value, [key | way]) do
      {:ok, Map.put(map, key, inner)}
    end
  end

  defp put(_value, _path, _new, way), do: {:error, {:not_a_map, Enum.reverse(way)}}
end

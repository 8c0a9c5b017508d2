defmodule MABEAM.LoadBalancer.Server do
  @moduledoc """
  Assigns tasks, and watches the agents that have some.

  Rows of its table, which outlives it: `{id, load}` for each agent, and settings and counts under
  keys that are no ids.
  """
  use GenServer, id: MABEAM.LoadBalancer

  alias Foundation.{Stray, Supervision, TableKeeper}
  alias MABEAM.{AgentRegistry, Legacy}
  alias MABEAM.LoadBalancer.Strategy

  @table MABEAM.LoadBalancer

  @type load :: %{
          id: AgentRegistry.id(),
          capacity: pos_integer,
          capabilities: [AgentRegistry.label()],
          active: non_neg_integer,
          assigned: non_neg_integer,
          lost: non_neg_integer,
          pid: pid | nil
        }

  @doc "Starts the server, named `MABEAM.LoadBalancer`."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: @table)

  # The state: the monitors of the agents that have tasks, id => reference.
  @impl true
  def init([]) do
    TableKeeper.claim(MABEAM.TableKeeper, @table)

    defaults = [
      {{:setting, :strategy}, :round_robin},
      {{:setting, :last}, nil},
      {{:count, :refused}, 0}
    ]

    Enum.each(defaults, &:ets.insert_new(@table, &1))
    {:ok, Enum.reduce(loads(), %{}, &watch/2)}
  end

  @impl true
  def handle_call({:register, load}, _from, monitors) do
    if :ets.insert_new(@table, {load.id, load}),
      do: {:reply, :ok, monitors},
      else: {:reply, {:error, :already_registered}, monitors}
  end

  def handle_call({:unregister, id}, _from, monitors) do
    case :ets.take(@table, id) do
      [_row] -> {:reply, :ok, unwatch(id, monitors)}
      [] -> {:reply, {:error, :unknown_agent}, monitors}
    end
  end

  def handle_call({:assign, capability}, _from, monitors) do
    able = Enum.filter(loads(), &(capability == nil or capability in &1.capabilities))
    {free, full} = Enum.split_with(able, &(&1.active < &1.capacity))

    case find_running(free) do
      {load, pid} ->
        {load, monitors} = renew(load, pid, monitors)
        load = %{load | active: load.active + 1, assigned: load.assigned + 1}
        put(load)
        :ets.insert(@table, {{:setting, :last}, load.id})
        {:reply, {:ok, load.id}, watch(load, monitors)}

      nil ->
        :ets.update_counter(@table, {:count, :refused}, 1)
        reason = if find_running(full), do: :busy, else: :no_agent
        {:reply, {:error, reason}, monitors}
    end
  end

  def handle_call({:metrics, id, metrics}, _from, monitors) do
    case :ets.lookup(@table, id) do
      [{_id, load}] ->
        active = Map.get(metrics, :active, load.active) - Map.get(metrics, :completed, 0)
        put(%{load | active: max(active, 0)})
        {:reply, :ok, monitors}

      [] ->
        {:reply, {:error, :unknown_agent}, monitors}
    end
  end

  def handle_call({:strategy, strategy}, _from, monitors) do
    :ets.insert(@table, {{:setting, :strategy}, strategy})
    {:reply, :ok, monitors}
  end

  def handle_call(:rebalance, _from, monitors) do
    {moves, loads} =
      loads() |> Enum.filter(&match?({:ok, _pid}, process(&1))) |> Strategy.even_out()

    Enum.each(loads, &put/1)
    {:reply, {:ok, moves}, monitors}
  end

  def handle_call(request, _from, monitors), do: Stray.call(request, monitors)

  @impl true
  def handle_cast(message, monitors), do: Stray.message(message, monitors)

  @impl true
  def handle_info({:DOWN, reference, :process, _pid, _reason}, monitors) do
    {id, _reference} = Enum.find(monitors, fn {_id, of_agent} -> of_agent == reference end)
    [{_id, load}] = :ets.lookup(@table, id)
    lose(load)
    {:noreply, Map.delete(monitors, id)}
  end

  def handle_info({:table_heir, keeper}, monitors) do
    TableKeeper.renew(keeper, @table)
    {:noreply, monitors}
  end

  def handle_info(message, monitors), do: Stray.message(message, monitors)

  @doc "The loads of all agents."
  @spec loads() :: [load]
  def loads, do: :ets.select(@table, [{{:_, :"$1"}, [{:is_map, :"$1"}], [:"$1"]}])

  defp find_running(loads) do
    strategy = :ets.lookup_element(@table, {:setting, :strategy}, 2)
    last = :ets.lookup_element(@table, {:setting, :last}, 2)

    strategy
    |> Strategy.order(loads, last)
    |> Enum.find_value(fn load ->
      with {:ok, pid} <- process(load), do: {load, pid}, else: (_not_running -> nil)
    end)
  end

  # In test mode agents need no process, and none is watched.
  defp process(load) do
    if test_mode?(), do: {:ok, nil}, else: AgentRegistry.lookup(load.id)
  end

  # The process that has the tasks of an agent is not the one before it: what that had is lost.
  defp renew(load, nil, monitors), do: {%{load | pid: stand_in()}, monitors}
  defp renew(%{pid: pid} = load, pid, monitors), do: {load, monitors}
  defp renew(load, pid, monitors), do: {%{lose(load) | pid: pid}, unwatch(load.id, monitors)}

  defp stand_in do
    if Supervision.enabled?(:phase_3), do: nil, else: Legacy.LoadBalancer.dummy()
  end

  defp lose(load) do
    lost = %{agent: load.id, tasks: load.active}
    load = %{load | active: 0, lost: load.lost + load.active, pid: nil}
    put(load)

    if lost.tasks > 0 do
      Foundation.Telemetry.emit_counter([:mabeam, :load_balancer, :tasks_lost], lost)
      Foundation.Events.report(:tasks_lost, lost)
    end

    load
  end

  defp watch(%{pid: pid, id: id}, monitors) do
    if pid == nil or is_map_key(monitors, id) or test_mode?(),
      do: monitors,
      else: Map.put(monitors, id, Process.monitor(pid))
  end

  defp unwatch(id, monitors) do
    {reference, monitors} = Map.pop(monitors, id)
    if reference, do: Process.demonitor(reference, [:flush])
    monitors
  end

  defp put(load), do: :ets.insert(@table, {load.id, load})

  @doc "Whether agents need no process."
  @spec test_mode?() :: boolean
  def test_mode?, do: Application.get_env(:mabeam, :load_balancer_test_mode, false)
end

defmodule MABEAM.ApplicationTest do
  # Stops the application.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias Foundation.Test.Signals
  alias MABEAM.{Agent, AgentRegistry, Comms, Core, LoadBalancer}
  alias MABEAM.Test.Servant

  setup do
    start_supervised!({Task.Supervisor, name: __MODULE__.Tasks})
    on_exit(fn -> {:ok, _started} = Application.ensure_all_started(:mabeam) end)
  end

  defp processes do
    for pid <- Process.list(), :application.get_application(pid) == {:ok, :mabeam}, do: pid
  end

  defp stop, do: capture_log(fn -> :ok = Application.stop(:mabeam) end)

  test "its services start in a fixed order, each after those that it needs" do
    children = for {id, _, _, _} <- Supervisor.which_children(MABEAM.Supervisor), do: id

    assert Enum.reverse(children) == [
             MABEAM.TableKeeper,
             MABEAM.TaskSupervisor,
             Core,
             MABEAM.AgentDirectory,
             MABEAM.CoordinationSupervisor,
             MABEAM.Coordination,
             MABEAM.AgentRuntime,
             LoadBalancer,
             Comms
           ]

    for {supervisor, order} <- [
          {MABEAM.AgentDirectory, [MABEAM.PG, AgentRegistry]},
          {MABEAM.AgentRuntime, [MABEAM.AgentSupervisor, MABEAM.Agent.Reviver]}
        ] do
      children = for {id, _, _, _} <- Supervisor.which_children(supervisor), do: id
      assert Enum.reverse(children) == order
    end
  end

  test "they are ready when the start returns" do
    stop()
    :ok = Application.start(:mabeam)
    assert {:ok, %{status: :healthy}} = Core.health_check()
    {id, _pid} = Servant.start!()
    assert Comms.request(id, {:echo, 1}) == {:ok, 1}
  end

  test "a stop in the midst of work leaves no process, and all who wait are told" do
    {id, pid} = Servant.start!()
    test = self()

    request = Task.Supervisor.async_nolink(__MODULE__.Tasks, Comms, :request, [id, {:hold, 1}])
    assert_receive {:holding, ^pid, 1}, 5_000
    {:ok, reference} = Comms.send_async_request(id, {:echo, 1})
    :ok = Comms.subscribe(test, :topic)
    processes = processes()
    assert pid in processes

    stop()
    assert Enum.filter(processes, &Process.alive?/1) == []
    assert processes() == []
    assert {:error, {:agent_down, _reason}} = Task.await(request)
    assert_receive {:mabeam_response, ^reference, {:error, _reason}}, 5_000
  end

  test "a stop and a start forget the agents" do
    {id, _pid} = Servant.start!()
    stop()
    :ok = Application.start(:mabeam)
    assert Agent.info(id) == {:error, :unknown_agent}
    assert :pg.get_members(MABEAM.PG, {:agent, id}) == []
  end

  test "the top of the tree is killed: nothing is left, and it starts again" do
    {_id, _pid} = Servant.start!()
    processes = processes()

    capture_log(fn ->
      refs = for pid <- processes, do: Process.monitor(pid)
      Signals.kill(Process.whereis(MABEAM.Supervisor))
      for ref <- refs, do: assert_receive({:DOWN, ^ref, :process, _pid, _reason}, 5_000)
      # The application's own end comes after that of its processes.
      stop()
    end)

    {:ok, _started} = Application.ensure_all_started(:mabeam)
    assert {:ok, %{status: :healthy}} = Core.health_check()
  end

  test "when it does not run, everything says so" do
    stop()

    for {module, function, arguments} <- [
          {Agent, :register, ["a", Servant]},
          {Agent, :deregister, ["a"]},
          {Agent, :start, ["a"]},
          {Agent, :stop, ["a"]},
          {Agent, :restart, ["a"]},
          {Agent, :status, ["a"]},
          {Agent, :info, ["a"]},
          {Agent, :metrics, ["a"]},
          {Agent, :list, []},
          {Agent, :find_by_type, [:a]},
          {Agent, :find_by_capability, [:a]},
          {Comms, :request, ["a", 1]},
          {Comms, :notify, ["a", 1]},
          {Comms, :send_async_request, ["a", 1]},
          {Comms, :broadcast, [:all, 1]},
          {Comms, :subscribe, [self(), :topic]},
          {Comms, :unsubscribe, [self(), :topic]},
          {Comms, :publish_event, [:topic, 1]},
          {Comms, :get_communication_stats, []},
          {Core, :register_variable, ["a", 1]},
          {Core, :get_variable, ["a"]},
          {Core, :update_variable, ["a", 1]},
          {Core, :list_variables, []},
          {Core, :delete_variable, ["a"]},
          {Core, :subscribe, ["a"]},
          {Core, :unsubscribe, ["a"]},
          {Core, :system_status, []},
          {Core, :coordinate_system, []},
          {LoadBalancer, :register_agent, ["a"]},
          {LoadBalancer, :unregister_agent, ["a"]},
          {LoadBalancer, :assign_task, [%{}]},
          {LoadBalancer, :update_agent_metrics, ["a", %{active: 1}]},
          {LoadBalancer, :get_load_stats, []},
          {LoadBalancer, :set_load_strategy, [:round_robin]},
          {LoadBalancer, :rebalance, []}
        ] do
      assert {function, apply(module, function, arguments)} == {function, {:error, :unavailable}}
    end

    assert Comms.multicast(["a"], 1) == {:ok, %{delivered: [], failed: %{"a" => :unavailable}}}
    assert {:ok, %{status: :degraded, services: services}} = Core.health_check()
    assert Enum.uniq(Map.values(services)) == [:down]
  end
end

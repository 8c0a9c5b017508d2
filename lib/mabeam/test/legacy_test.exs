defmodule MABEAM.LegacyTest do
  # Switches phases, and asks Lineage, of which there is one per node.
  use ExUnit.Case, async: false

  alias Foundation.{ProcessRegistry, Supervision}
  alias Foundation.Test.{Census, Signals}
  alias MABEAM.{Agent, Comms, Legacy, LoadBalancer}
  alias MABEAM.Test.Servant

  @legacy [Legacy.Agent, Legacy.Comms, Legacy.LoadBalancer]
  @placeholder {Legacy.Agent, :stand_in, 1}
  @request {Legacy.Comms, :await_agent, 5}
  @dummy {Legacy.LoadBalancer, :stand_in, 1}

  setup do
    # Before the phases are switched back: what they keep is to be gone by then.
    on_exit(fn -> for phase <- [:phase_2, :phase_3], do: Supervision.switch(phase, true) end)
  end

  defp orphans, do: for({call, _kind} <- Census.orphans(@legacy), do: call)

  defp placeholder(id), do: ProcessRegistry.lookup(:production, {:agent, id})

  describe "asynchronous requests, phase 2 off" do
    setup do
      Signals.switch(:phase_2, false)
    end

    test "are made by an orphan, that has ended when it is answered" do
      {id, pid} = Servant.start!()
      {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
      assert_receive {:holding, ^pid, 1}, 5_000
      assert @request in orphans()
      [helper] = for %{initial_call: @request, pid: pid} <- Lineage.orphans(), do: pid
      ref = Process.monitor(helper)
      send(pid, {:release, 1, :done})
      assert_receive {:mabeam_response, ^reference, {:ok, :done}}, 5_000
      assert_receive {:DOWN, ^ref, :process, ^helper, _reason}, 5_000
      refute @request in orphans()
      assert @request in Census.recent(@legacy)
    end

    test "that are killed are never answered" do
      {id, pid} = Servant.start!()
      {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
      assert_receive {:holding, ^pid, 1}, 5_000
      [helper] = for %{initial_call: @request, pid: pid} <- Lineage.orphans(), do: pid
      Signals.kill(helper)
      send(pid, {:release, 1, :done})
      assert Comms.request(id, {:echo, 1}) == {:ok, 1}
      refute_received {:mabeam_response, ^reference, _answer}
    end
  end

  test "asynchronous requests, phase 2 on: no orphan" do
    {id, pid} = Servant.start!()
    {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    assert orphans() == []
    send(pid, {:release, 1, :done})
    assert_receive {:mabeam_response, ^reference, {:ok, :done}}, 5_000
  end

  describe "agents without a pid, phase 2 off" do
    setup do
      Signals.switch(:phase_2, false)
    end

    test "have a placeholder, from their registration on for ever" do
      before = orphans()
      id = Servant.register!()
      assert {:ok, placeholder} = placeholder(id)
      assert orphans() -- before == [@placeholder]
      {:ok, _pid} = Agent.start(id)
      assert Process.alive?(placeholder)
      assert Agent.stop(id) == :ok
      assert {:ok, another} = placeholder(id)
      assert another != placeholder
      assert orphans() -- before == [@placeholder, @placeholder]
      assert Agent.deregister(id) == :ok
      assert placeholder(id) == {:error, :not_found}
      assert Process.alive?(placeholder) and Process.alive?(another)
    end

    test "have none any more when phase 2 is switched on" do
      id = Servant.register!()
      assert {:ok, placeholder} = placeholder(id)
      :ok = Supervision.switch(:phase_2, true)
      refute Process.alive?(placeholder)
      assert orphans() == []
      assert placeholder(id) == {:error, :not_found}
      assert Agent.status(id) == {:ok, :registered}
    end
  end

  test "agents without a pid, phase 2 on: no placeholder, until it is switched off" do
    id = Servant.register!()
    {running, _pid} = Servant.start!()
    assert placeholder(id) == {:error, :not_found}
    assert orphans() == []
    Signals.switch(:phase_2, false)
    assert {:ok, _pid} = placeholder(id)
    assert placeholder(running) == {:error, :not_found}
  end

  describe "the load balancer's test mode" do
    setup do
      Application.put_env(:mabeam, :load_balancer_test_mode, true)
      on_exit(fn -> Application.delete_env(:mabeam, :load_balancer_test_mode) end)
      id = Servant.unknown()
      :ok = LoadBalancer.register_agent(id, capabilities: [id])
      on_exit(fn -> LoadBalancer.unregister_agent(id) end)
      {:ok, id: id}
    end

    test "phase 3 off: makes a process per assignment", %{id: id} do
      Signals.switch(:phase_3, false)
      assert LoadBalancer.assign_task(%{capability: id}) == {:ok, id}
      assert LoadBalancer.assign_task(%{capability: id}) == {:ok, id}
      assert orphans() == [@dummy, @dummy]
      {:ok, %{agents: %{^id => %{pid: dummy}}}} = LoadBalancer.get_load_stats()
      assert Process.alive?(dummy)
      :ok = Supervision.switch(:phase_3, true)
      refute Process.alive?(dummy)
      assert orphans() == []
    end

    test "phase 3 on: makes none", %{id: id} do
      assert LoadBalancer.assign_task(%{capability: id}) == {:ok, id}
      {:ok, %{agents: %{^id => load}}} = LoadBalancer.get_load_stats()
      assert %{pid: nil, active: 1} = load
      assert orphans() == []
    end
  end
end

defmodule MABEAM.LoadBalancerTest do
  # There is one balancer, with one strategy.
  use ExUnit.Case, async: false

  alias Foundation.Test.Signals
  alias MABEAM.{Agent, LoadBalancer}
  alias MABEAM.LoadBalancer.Strategy
  alias MABEAM.Test.{Servant, Tree}

  setup do
    on_exit(fn -> LoadBalancer.set_load_strategy(:round_robin) end)
    # A capability of its own lets a test see only its own agents.
    {:ok, skill: "skill-#{System.unique_integer([:positive])}"}
  end

  defp balanced!(options) do
    {id, pid} = Servant.start!(capabilities: Keyword.get(options, :capabilities, []))
    :ok = LoadBalancer.register_agent(id, Keyword.take(options, [:capacity]))
    on_exit(fn -> LoadBalancer.unregister_agent(id) end)
    {id, pid}
  end

  defp load(id) do
    {:ok, %{agents: %{^id => load}}} = LoadBalancer.get_load_stats()
    load
  end

  defp assign(skill), do: LoadBalancer.assign_task(%{capability: skill})

  defp assign!(skill) do
    {:ok, id} = assign(skill)
    id
  end

  test "round robin takes one after the other, of those that run and can", %{skill: skill} do
    ids = for _ <- 1..3, do: elem(balanced!(capabilities: [skill]), 0)
    _without_the_skill = balanced!([])
    sleeping = Servant.register!(capabilities: [skill])
    :ok = LoadBalancer.register_agent(sleeping)
    on_exit(fn -> LoadBalancer.unregister_agent(sleeping) end)

    round = for _ <- 1..3, do: assign!(skill)
    assert Enum.sort(round) == Enum.sort(ids)
    assert for(_ <- 1..3, do: assign!(skill)) == round
  end

  test "least loaded takes the one with the smallest part of its capacity in use", context do
    %{skill: skill} = context
    {small, _pid} = balanced!(capabilities: [skill], capacity: 2)
    {large, _pid} = balanced!(capabilities: [skill], capacity: 4)
    :ok = LoadBalancer.set_load_strategy(:least_loaded)
    for _ <- 1..6, do: assign!(skill)
    assert %{active: 2, assigned: 2} = load(small)
    assert %{active: 4, assigned: 4} = load(large)
    assert assign(skill) == {:error, :busy}
    :ok = LoadBalancer.update_agent_metrics(large, %{completed: 1})
    assert assign(skill) == {:ok, large}
    :ok = LoadBalancer.update_agent_metrics(small, %{active: 0})
    assert assign(skill) == {:ok, small}
  end

  test "capability takes the one that can do the least beside", %{skill: skill} do
    {expert, _pid} = balanced!(capabilities: [skill], capacity: 1)
    {able, _pid} = balanced!(capabilities: [skill, :other, :another])
    :ok = LoadBalancer.set_load_strategy(:capability)
    assert assign(skill) == {:ok, expert}
    assert assign(skill) == {:ok, able}
  end

  test "without a capability any agent will do", %{skill: skill} do
    balanced!(capabilities: [skill])
    assert {:ok, _id} = LoadBalancer.assign_task(%{})
  end

  test "tasks of an agent that dies are lost, counted and reported", %{skill: skill} do
    Signals.listen([:mabeam, :load_balancer, :tasks_lost])
    Signals.listen([:mabeam, :agent, :ready])
    {id, pid} = balanced!(capabilities: [skill], capacity: 2)
    assert_receive {:telemetry, [_, :agent, :ready], _, %{agent: ^id}}, 5_000
    assert assign(skill) == {:ok, id}
    assert assign(skill) == {:ok, id}
    assert %{pid: ^pid} = load(id)
    Signals.kill(pid)
    assert_receive {:telemetry, [_, :load_balancer, _], _, %{agent: ^id, tasks: 2}}, 5_000
    assert %{active: 0, lost: 2, assigned: 2, pid: nil} = load(id)
    assert_receive {:up, next}, 5_000
    assert_receive {:telemetry, [_, :agent, :ready], _, %{agent: ^id}}, 5_000
    assert assign(skill) == {:ok, id}
    assert %{pid: ^next, active: 1} = load(id)
  end

  test "nobody is assigned what nobody can do, and refusals are counted", %{skill: skill} do
    {:ok, before} = LoadBalancer.get_load_stats()
    assert assign(skill) == {:error, :no_agent}
    {id, _pid} = balanced!(capabilities: [skill], capacity: 1)
    assert assign(skill) == {:ok, id}
    assert assign(skill) == {:error, :busy}
    :ok = Agent.stop(id)
    assert assign(skill) == {:error, :no_agent}
    {:ok, now} = LoadBalancer.get_load_stats()
    assert now.refused == before.refused + 3
  end

  test "an agent is registered once, and forgotten when it is unregistered" do
    {id, _pid} = balanced!([])
    assert LoadBalancer.register_agent(id) == {:error, :already_registered}
    assert LoadBalancer.unregister_agent(id) == :ok
    assert LoadBalancer.unregister_agent(id) == {:error, :unknown_agent}
    assert LoadBalancer.update_agent_metrics(id, %{active: 1}) == {:error, :unknown_agent}
  end

  test "rebalancing moves tasks to those that can do them", %{skill: skill} do
    {a, _pid} = balanced!(capabilities: [skill])
    {b, _pid} = balanced!(capabilities: [skill, :other])
    {c, _pid} = balanced!(capabilities: [])
    :ok = LoadBalancer.update_agent_metrics(a, %{active: 7})
    assert {:ok, moves} = LoadBalancer.rebalance()
    assert moves == [%{from: a, to: b, tasks: 3}]
    assert {load(a).active, load(b).active, load(c).active} == {4, 3, 0}
    assert LoadBalancer.rebalance() == {:ok, []}
  end

  test "evening out ends with no pair that differs by a task" do
    loads =
      for {id, active, capacity} <- [{"a", 90, 10}, {"b", 0, 10}, {"c", 5, 40}, {"d", 1, 1}] do
        %{id: id, active: active, capacity: capacity, capabilities: []}
      end

    {moves, evened} = Strategy.even_out(loads)
    assert Enum.sum(Enum.map(evened, & &1.active)) == 96
    assert Enum.all?(moves, &(&1.tasks > 0))
    assert Enum.all?(evened, &(&1.id == "a" or &1.active <= &1.capacity))
  end

  test "the server is killed: loads, strategy and watches are there", %{skill: skill} do
    Signals.listen([:mabeam, :load_balancer, :tasks_lost])
    {id, pid} = balanced!(capabilities: [skill])
    :ok = LoadBalancer.set_load_strategy(:least_loaded)
    assert assign(skill) == {:ok, id}
    Tree.kill!(LoadBalancer)
    assert {:ok, %{strategy: :least_loaded}} = LoadBalancer.get_load_stats()
    assert %{active: 1, pid: ^pid} = load(id)
    Signals.kill(pid)
    assert_receive {:telemetry, _event, _, %{agent: ^id, tasks: 1}}, 5_000
  end

  test "an agent that dies while the server is restarted is noticed", %{skill: skill} do
    Signals.listen([:mabeam, :load_balancer, :tasks_lost])
    {id, pid} = balanced!(capabilities: [skill])
    assert assign(skill) == {:ok, id}
    :ok = :sys.suspend(LoadBalancer)
    Signals.kill(pid)
    Tree.kill!(LoadBalancer)
    assert_receive {:telemetry, _event, _, %{agent: ^id, tasks: 1}}, 5_000
    assert %{active: 0, lost: 1} = load(id)
  end

  test "a task that comes between an agent's death and the news of it is not lost", context do
    %{skill: skill} = context
    Signals.listen([:mabeam, :agent, :ready])
    {id, pid} = balanced!(capabilities: [skill])
    assert_receive {:telemetry, [_, :agent, :ready], _, %{agent: ^id}}, 5_000
    assert assign(skill) == {:ok, id}
    # The balancer is asked, and hears of the death, when the agent runs again: in this order.
    :ok = :sys.suspend(LoadBalancer)
    asked = :gen_server.send_request(LoadBalancer, {:assign, skill})
    Signals.kill(pid)
    assert_receive {:telemetry, [_, :agent, :ready], _, %{agent: ^id}}, 5_000
    :ok = :sys.resume(LoadBalancer)
    assert :gen_server.receive_response(asked, 5_000) == {:reply, {:ok, id}}
    assert GenServer.call(LoadBalancer, :ping) == :pong
    assert %{active: 1, lost: 1, assigned: 2} = load(id)
  end

  test "messages that are not its own do no harm" do
    send(LoadBalancer, :hello)
    GenServer.cast(LoadBalancer, :hello)
    assert GenServer.call(LoadBalancer, :hello) == {:error, :bad_request}
  end
end

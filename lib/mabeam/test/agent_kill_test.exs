defmodule MABEAM.AgentKillTest do
  # Kills the processes of agents, and those that they depend on.
  use ExUnit.Case, async: false

  alias Foundation.Test.Signals
  alias MABEAM.{Agent, AgentRegistry, AgentSupervisor, Comms}
  alias MABEAM.Agent.Reviver
  alias MABEAM.Test.{Servant, Tree}

  @tasks Module.concat(__MODULE__, Tasks)

  setup do
    start_supervised!({Task.Supervisor, name: @tasks})

    Enum.each(
      [:ready, :stopped, :stop_broken_off, :failed],
      &Signals.listen([:mabeam, :agent, &1])
    )

    {id, pid} = Servant.start!()
    assert_receive {:telemetry, [:mabeam, :agent, :ready], _, %{agent: ^id}}, 5_000
    {:ok, id: id, pid: pid, parts: parts(id)}
  end

  defp in_task(fun), do: Task.Supervisor.async_nolink(@tasks, fun)

  defp await(what, id) do
    assert_receive {:telemetry, [:mabeam, :agent, ^what], _, %{agent: ^id} = metadata}, 5_000
    metadata
  end

  # The cell of an agent, the agent, and its gate.
  defp parts(id) do
    {:ok, agent} = AgentRegistry.lookup(id)
    {:ok, gate} = AgentRegistry.gate(id)
    {:dictionary, dictionary} = Process.info(agent, :dictionary)
    %{cell: hd(dictionary[:"$ancestors"]), agent: agent, gate: gate}
  end

  defp kill_all(pids) do
    refs = for pid <- pids, do: Process.monitor(pid)
    Enum.each(pids, &Process.exit(&1, :kill))
    for ref <- refs, do: assert_receive({:DOWN, ^ref, :process, _pid, _reason}, 5_000)
  end

  # Of the supervisors that are started from now on.
  defp max_restarts(number) do
    before = Application.get_env(:foundation, :max_restarts)
    on_exit(fn -> Application.put_env(:foundation, :max_restarts, before) end)
    Application.put_env(:foundation, :max_restarts, number)
  end

  defp well(id) do
    assert Comms.request(id, {:echo, :well}) == {:ok, :well}
    assert Agent.status(id) == {:ok, :running}
    {:ok, gate} = AgentRegistry.gate(id)
    assert :pg.get_members(MABEAM.PG, {:agent, id}) == [gate]
  end

  test "the agent", %{id: id, pid: pid, parts: parts} do
    Signals.kill(pid)
    await(:ready, id)
    well(id)
    assert %{parts | agent: nil} == %{parts(id) | agent: nil}
  end

  test "the gate", %{id: id, parts: parts} do
    Signals.kill(parts.gate)
    await(:ready, id)
    well(id)
    assert %{parts | gate: nil} == %{parts(id) | gate: nil}
  end

  test "the cell: all of the agent is started again", %{id: id, pid: pid, parts: parts} do
    request = in_task(fn -> Comms.request(id, {:hold, 1}) end)
    assert_receive {:holding, ^pid, 1}, 5_000
    Signals.kill(parts.cell)
    assert {:error, {:agent_down, _reason}} = Task.await(request)
    await(:ready, id)
    well(id)
    assert MapSet.disjoint?(MapSet.new(Map.values(parts)), MapSet.new(Map.values(parts(id))))
    assert Agent.stop(id) == :ok
  end

  test "all three at once", %{id: id, parts: parts} do
    # The cell first: it would start the others again, and tell that they are ready.
    kill_all([parts.cell, parts.agent, parts.gate])
    await(:ready, id)
    well(id)
  end

  test "the cell of an agent that does not start again: it has failed" do
    max_restarts(0)
    id = Servant.register!(config: %{init: :hold})
    start = in_task(fn -> Agent.start(id) end)
    assert_receive {:holding, first, :init}, 5_000
    send(first, {:release, :init, :ok})
    assert Task.await(start) == {:ok, first}

    Signals.kill(parts(id).cell)
    assert_receive {:holding, second, :init}, 5_000
    Signals.kill(second)
    assert %{reason: _reason} = await(:failed, id)
    assert Agent.status(id) == {:ok, :failed}

    start = in_task(fn -> Agent.start(id) end)
    assert_receive {:holding, third, :init}, 5_000
    send(third, {:release, :init, :ok})
    assert Task.await(start) == {:ok, third}
  end

  test "an agent whose cell was killed can be stopped before it runs again", context do
    %{id: id, parts: parts} = context
    :ok = :sys.suspend(Reviver)
    Signals.kill(parts.cell)
    assert Agent.stop(id) == :ok
    await(:stopped, id)
    :ok = :sys.resume(Reviver)
    assert GenServer.call(Reviver, :ping) == :pong
    assert {:ok, %{status: :stopped, pid: nil}} = Agent.info(id)
  end

  test "the reviver, when it has an agent to start", %{id: id, parts: parts} do
    :ok = :sys.suspend(Reviver)
    Signals.kill(parts.cell)
    Tree.kill!(Reviver)
    await(:ready, id)
    well(id)
  end

  test "the agents' supervisor: all agents are started again", %{id: id, pid: pid} do
    {other, other_pid} = Servant.start!()
    await(:ready, other)
    request = in_task(fn -> Comms.request(id, {:hold, 1}) end)
    assert_receive {:holding, ^pid, 1}, 5_000
    Tree.kill!(AgentSupervisor)
    assert {:error, {:agent_down, _reason}} = Task.await(request)

    for {id, before} <- [{id, pid}, {other, other_pid}] do
      await(:ready, id)
      well(id)
      assert AgentRegistry.lookup(id) != {:ok, before}
    end

    assert DynamicSupervisor.count_children(AgentSupervisor).active >= 2
  end

  test "the supervisor of those who run agents", %{id: id} do
    Tree.kill!(MABEAM.AgentRuntime)
    await(:ready, id)
    well(id)
  end

  test "the registry: no agent notices, and it watches all of them again", context do
    %{id: id, pid: pid, parts: parts} = context
    request = in_task(fn -> Comms.request(id, {:hold, 1}) end)
    assert_receive {:holding, ^pid, 1}, 5_000
    Tree.kill!(AgentRegistry)
    send(pid, {:release, 1, :done})
    assert Task.await(request) == {:ok, :done}
    assert parts(id) == parts
    well(id)

    Signals.kill(pid)
    await(:ready, id)
    well(id)
    Signals.kill(parts.cell)
    await(:ready, id)
    well(id)
    assert Agent.stop(id) == :ok
  end

  for {name, part} <- [agent: :agent, gate: :gate, cell: :cell] do
    test "the registry, and the #{name} with it", %{id: id, parts: parts} do
      kill_all([Process.whereis(AgentRegistry), parts[unquote(part)]])
      await(:ready, id)
      well(id)
    end
  end

  test "the scope of :pg: agents can be found by other nodes again", %{id: id, parts: parts} do
    Tree.kill!(MABEAM.PG)
    assert parts(id) == parts
    well(id)
  end

  test "the supervisor of those who know the agents", %{id: id, parts: parts} do
    Tree.kill!(MABEAM.AgentDirectory)
    assert parts(id) == parts
    well(id)
  end

  test "the keeper of the tables, and then the registry", %{id: id, parts: parts} do
    Tree.kill_keeper!()
    well(id)
    Tree.kill!(AgentRegistry)
    assert parts(id) == parts
    well(id)
  end

  test "the registry and the keeper of its table at once: what runs is known again", context do
    %{id: id, parts: parts} = context
    {:ok, info} = Agent.info(id)
    not_running = Servant.register!()
    lose_table()
    assert GenServer.call(Reviver, :ping) == :pong
    assert Agent.info(id) == {:ok, info}
    assert parts(id) == parts
    well(id)
    # That one there was only in the table.
    assert Agent.info(not_running) == {:error, :unknown_agent}
    Signals.kill(parts.cell)
    await(:ready, id)
    well(id)
  end

  test "the registry and the keeper at once: an agent whose name is taken before ends", context do
    %{id: id, pid: pid} = context
    ref = Process.monitor(pid)
    :ok = :sys.suspend(Reviver)
    lose_table()
    assert Agent.register(id, Servant, config: %{test: self()}) == :ok
    :ok = :sys.resume(Reviver)
    assert_receive {:DOWN, ^ref, :process, ^pid, :shutdown}, 5_000
    assert Agent.status(id) == {:ok, :registered}
  end

  # The registry does not hear of its new keeper before it dies, too.
  defp lose_table do
    :ok = :sys.suspend(AgentRegistry)
    Tree.kill!(MABEAM.TableKeeper)
    Tree.kill!(AgentRegistry)
  end

  test "the task that stops an agent, before it has: the agent runs again", context do
    %{id: id, pid: pid} = context
    assert Comms.request(id, :trap_exits) == {:ok, :ok}
    request = in_task(fn -> Comms.request(id, {:hold, 1}) end)
    assert_receive {:holding, ^pid, 1}, 5_000
    stop = in_task(fn -> Agent.stop(id) end)
    # The cell has taken down the gate, and waits for the agent.
    assert Task.await(request) == {:error, {:agent_down, :shutdown}}
    assert Agent.status(id) == {:ok, :stopping}
    assert Agent.start(id) == {:error, :stopping}
    Tree.kill!(MABEAM.TaskSupervisor)
    assert Task.await(stop) == {:error, :unavailable}
    await(:stop_broken_off, id)
    send(pid, {:release, 1, :done})
    await(:ready, id)
    well(id)
  end

  test "the supervisor of tasks, while an agent starts" do
    id = Servant.register!(config: %{init: :hold})
    start = in_task(fn -> Agent.start(id) end)
    assert_receive {:holding, pid, :init}, 5_000
    Tree.kill!(MABEAM.TaskSupervisor)
    assert Task.await(start) == {:error, :unavailable}
    send(pid, {:release, :init, :ok})
    await(:ready, id)
    well(id)
  end

  test "the agent, more often than its cell bears: it has failed, and no other agent with it",
       %{id: id, pid: pid, parts: parts} do
    max_restarts(2)
    Signals.listen([:foundation, :events, :stored])
    {weak, weak_pid} = Servant.start!()
    await(:ready, weak)

    Enum.reduce(1..2, weak_pid, fn _crash, pid ->
      Signals.kill(pid)
      await(:ready, weak)
      {:ok, next} = AgentRegistry.lookup(weak)
      next
    end)

    {:ok, last} = AgentRegistry.lookup(weak)
    waiting = in_task(fn -> Comms.request(weak, {:hold, 1}) end)
    assert_receive {:holding, ^last, 1}, 5_000
    assert Comms.request(weak, {:exit, :boom}, 0) == {:error, :timeout}
    send(last, {:release, 1, :done})
    assert Task.await(waiting) == {:ok, :done}
    Signals.kill(last)

    assert %{reason: :killed} = await(:failed, weak)
    assert_receive {:telemetry, _, _, %{event: %{type: :agent_failed, data: data}}}, 5_000
    assert data == %{agent: weak, reason: :killed}
    assert {:ok, %{status: :failed, pid: nil}} = Agent.info(weak)
    assert Comms.request(weak, :hello) == {:error, :not_running}
    assert parts(id) == parts
    assert Comms.request(id, {:echo, 1}) == {:ok, 1}
    assert Process.alive?(pid)

    assert {:ok, _again} = Agent.start(weak)
    well(weak)
  end

  test "the gate, more often than its cell bears: the agent has failed" do
    max_restarts(0)
    {weak, _pid} = Servant.start!()
    await(:ready, weak)
    Signals.kill(parts(weak).gate)
    assert %{reason: {:gate, :killed}} = await(:failed, weak)
    assert {:ok, %{status: :failed, pid: nil}} = Agent.info(weak)
  end
end

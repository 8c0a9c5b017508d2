defmodule MABEAM.AgentTest do
  use ExUnit.Case, async: true

  alias Foundation.Test.Signals
  alias MABEAM.{Agent, AgentRegistry, Comms}
  alias MABEAM.Test.{Actor, Servant}

  setup do
    start_supervised!({Task.Supervisor, name: Module.concat(__MODULE__, Tasks)})
    :ok
  end

  defp in_task(fun), do: Task.Supervisor.async_nolink(Module.concat(__MODULE__, Tasks), fun)

  test "an agent is registered, runs, is stopped, runs again, and is removed" do
    id = Servant.register!(type: :servant, capabilities: [:echo, :echo, "wait"])
    assert Agent.status(id) == {:ok, :registered}
    assert {:ok, %{pid: nil, type: :servant, capabilities: [:echo, "wait"]}} = Agent.info(id)

    assert {:ok, pid} = Agent.start(id)
    assert_received {:up, ^pid}
    assert {:ok, %{status: :running, pid: ^pid, module: Servant}} = Agent.info(id)

    assert Agent.stop(id) == :ok
    refute Process.alive?(pid)
    assert {:ok, %{status: :stopped, pid: nil}} = Agent.info(id)

    assert {:ok, next} = Agent.start(id)
    assert next != pid
    assert Agent.deregister(id) == :ok
    refute Process.alive?(next)
    assert Agent.info(id) == {:error, :unknown_agent}
  end

  test "an agent may be named by an atom" do
    on_exit(fn -> Agent.deregister(__MODULE__) end)
    assert Agent.register(__MODULE__, Servant, config: %{test: self()}) == :ok
    assert {:ok, _pid} = Agent.start(__MODULE__)
    assert Comms.request(__MODULE__, {:echo, 1}) == {:ok, 1}
  end

  test "an agent begins anew when it is restarted" do
    {id, pid} = Servant.start!()
    Comms.request(id, {:echo, 1})
    assert Comms.request(id, :asked) == {:ok, 1}
    assert {:ok, next} = Agent.restart(id)
    assert next != pid
    assert Comms.request(id, :asked) == {:ok, 0}
  end

  test "agents are found by type and capability, and listed" do
    type = "type-#{System.unique_integer([:positive])}"
    capability = "capability-#{System.unique_integer([:positive])}"
    a = Servant.register!(type: type, capabilities: [capability])
    b = Servant.register!(type: type)
    {c, _pid} = Servant.start!(capabilities: [:other, capability])

    assert Agent.find_by_type(type) == {:ok, Enum.sort([a, b])}
    assert Agent.find_by_capability(capability) == {:ok, Enum.sort([a, c])}
    assert Agent.find_by_capability("capability-of-nobody") == {:ok, []}
    {:ok, all} = Agent.list()
    assert {a, :registered} in all and {c, :running} in all

    Agent.deregister(a)
    assert Agent.find_by_type(type) == {:ok, [b]}
    assert Agent.find_by_capability(capability) == {:ok, [c]}
  end

  test "a start that fails says why, and changes nothing" do
    refused = Servant.register!(config: %{init: {:error, :no_database}})
    assert Agent.start(refused) == {:error, {:init_failed, :no_database}}
    wrong = Servant.register!(config: %{init: :wrong})
    assert Agent.start(wrong) == {:error, {:init_failed, {:bad_return, :wrong}}}
    assert Agent.status(refused) == {:ok, :registered}
    assert Agent.deregister(refused) == :ok
  end

  test "of two who start an agent, one does" do
    id = Servant.register!(config: %{init: :hold})
    starts = for _ <- 1..2, do: in_task(fn -> Agent.start(id) end)
    assert_receive {:holding, pid, :init}, 5_000
    send(pid, {:release, :init, :ok})
    assert Enum.sort(Task.await_many(starts)) == [{:error, :already_running}, {:ok, pid}]
  end

  test "a caller who dies while its agent starts leaves a running agent" do
    id = Servant.register!(config: %{init: :hold})
    caller = in_task(fn -> Agent.start(id) end)
    assert_receive {:holding, pid, :init}, 5_000
    Signals.kill(caller.pid)
    send(pid, {:release, :init, :ok})
    assert_receive {:up, ^pid}, 5_000
    assert Agent.stop(id) == :ok
  end

  test "an agent that is stopped while it starts is stopped when it has" do
    id = Servant.register!(config: %{init: :hold})
    start = in_task(fn -> Agent.start(id) end)
    assert_receive {:holding, pid, :init}, 5_000
    stop = in_task(fn -> Agent.stop(id) end)
    ref = Process.monitor(pid)
    send(pid, {:release, :init, :ok})
    assert Task.await(stop) == :ok
    assert_received {:DOWN, ^ref, :process, ^pid, :shutdown}
    assert Task.await(start) in [{:ok, pid}, {:error, :not_running}]
    assert Agent.status(id) == {:ok, :stopped}
  end

  test "an agent that does not heed its stop is killed" do
    {id, pid} = Servant.start!()
    Comms.request(id, :trap_exits)
    {:ok, _reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    assert Agent.stop(id) == :ok
    refute Process.alive?(pid)
    assert Agent.status(id) == {:ok, :stopped}
  end

  test "a crash is answered, counted, reported, and recovered from" do
    Signals.listen([:mabeam, :agent, :crashed])
    {id, pid} = Servant.start!()
    assert Comms.request(id, {:exit, :boom}) == {:error, {:agent_down, :boom}}
    assert_receive {:up, next}, 5_000
    assert next != pid
    assert_receive {:telemetry, _, %{count: 1}, %{agent: ^id, reason: :boom}}, 5_000
    assert Comms.request(id, {:echo, 1}) == {:ok, 1}
    assert {:ok, %{requests: 2, errors: 1, in_flight: 0}} = Agent.metrics(id)
  end

  test "what an agent returns wrongly is a crash of its own" do
    {id, _pid} = Servant.start!()
    assert Comms.request(id, {:return, :wrong}) == {:error, {:agent_down, {:bad_return, :wrong}}}
    assert_receive {:up, _next}, 5_000
  end

  test "what waits while an agent crashes goes to its successor" do
    {id, pid} = Servant.start!()
    {:ok, first} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    assert Comms.notify(id, :hello) == :ok
    Signals.kill(pid)
    assert_receive {:mabeam_response, ^first, {:error, {:agent_down, :killed}}}, 5_000
    assert_receive {:event, next, :hello}, 5_000
    assert next != pid
  end

  test "an agent that shuts down though nobody stopped it is started again" do
    Signals.listen([:mabeam, :agent, :ready])
    {id, pid} = Servant.start!()
    assert_receive {:telemetry, _event, _count, %{agent: ^id}}, 5_000
    assert {:error, {:agent_down, :shutdown}} = Comms.request(id, {:exit, :shutdown})
    assert_receive {:telemetry, _event, _count, %{agent: ^id}}, 5_000
    assert {:ok, next} = AgentRegistry.lookup(id)
    assert next != pid
  end

  test "an agent that has done its work ends, and its cell with it" do
    Signals.listen([:mabeam, :agent, :stopped])
    {id, pid} = Servant.start!()

    for reason <- [:normal, {:shutdown, :done}] do
      assert Comms.request(id, {:exit, reason}) == {:error, {:agent_down, reason}}
      assert_receive {:telemetry, _event, _count, %{agent: ^id}}, 5_000
      assert {:ok, %{status: :stopped, pid: nil}} = Agent.info(id)
      assert {:ok, next} = Agent.start(id)
      assert next != pid
    end
  end

  # Monitors of its own are ended after its cell has heard and before its gate does: many of them
  # take so long that the cell has its gate end meanwhile.
  test "an agent whose end its cell hears of long before its gate does: its own reason counts" do
    test = self()

    end_slowly = fn reason ->
      for _ <- 1..100_000, do: Process.monitor(test)
      exit(reason)
    end

    for reason <- [:normal, {:shutdown, :done}] do
      id = Actor.start!(end_slowly)
      assert Comms.request(id, reason, 60_000) == {:error, {:agent_down, reason}}
    end
  end

  test "an agent whose end its gate hears of long before its cell does: those who wait are told why" do
    {id, pid} = Servant.start!()
    {:ok, cell} = AgentRegistry.cell(id)
    {:ok, gate} = AgentRegistry.gate(id)
    ask = &:gen_server.send_request(gate, {:request, &1, {:within, 60_000}})
    done = {:reply, {:error, {:agent_down, {:shutdown, :done}}}}

    :ok = :sys.suspend(cell)
    assert Comms.notify(id, {:hold, 1}) == :ok
    ending = ask.({:exit, {:shutdown, :done}})
    waiting = ask.({:echo, 1})
    # It comes to the gate after both.
    assert Comms.notify(id, :hello) == :ok
    send(pid, {:release, 1, :done})

    assert :gen_server.receive_response(ending, 30_000) == done
    :ok = :sys.resume(cell)
    assert :gen_server.receive_response(waiting, 30_000) == done
  end

  test "messages and calls that are not for agents do no harm" do
    {id, pid} = Servant.start!()
    send(pid, :hello)
    GenServer.cast(pid, :hello)
    assert GenServer.call(pid, :hello) == {:error, :bad_request}
    assert Comms.request(id, {:echo, 1}) == {:ok, 1}
  end
end

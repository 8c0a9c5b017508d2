defmodule MABEAM.CommsTest do
  # Not beside others: it asks each agent there is.
  use ExUnit.Case

  alias Foundation.Test.{Relay, Signals}
  alias MABEAM.{Agent, Comms}
  alias MABEAM.Test.{Actor, Servant}

  @tasks Module.concat(__MODULE__, Tasks)

  setup do
    start_supervised!({Task.Supervisor, name: @tasks})
    :ok
  end

  defp in_task(fun), do: Task.Supervisor.async_nolink(@tasks, fun)

  defp holding(pid, tag) do
    assert_receive {:holding, ^pid, ^tag}, 5_000
    :ok
  end

  # All of an agent's places but one are taken by notifications behind the request that holds it.
  defp fill(id, places), do: for(_ <- 1..places, do: :ok = Comms.notify(id, :filler))

  defp in_flight(id) do
    {:ok, %{in_flight: in_flight}} = Agent.metrics(id)
    in_flight
  end

  describe "a request" do
    test "is answered" do
      {id, _pid} = Servant.start!()
      assert Comms.request(id, {:echo, :hello}) == {:ok, :hello}
      assert Comms.request(id, {:echo, :hello}, 10_000) == {:ok, :hello}
      assert {:ok, %{requests: 2, errors: 0, in_flight: 0}} = Agent.metrics(id)
    end

    test "to an agent that is not there, or does not run, is refused" do
      id = Servant.register!()
      assert Comms.request(Servant.unknown(), :hello) == {:error, :unknown_agent}
      assert Comms.request(id, :hello) == {:error, :not_running}
    end

    test "ends at its deadline, and gives its place back" do
      {id, pid} = Servant.start!()
      assert Comms.request(id, {:hold, 1}, 2_000) == {:error, :timeout}
      holding(pid, 1)
      fill(id, 100)
      assert Comms.notify(id, :filler) == {:error, :busy}
      send(pid, {:release, 1, :late})
      assert_receive {:event, ^pid, :filler}, 5_000
      refute_received {_reference, {:ok, :late}}
    end

    test "that waits until its deadline is never seen by the agent" do
      {id, pid} = Servant.start!()
      {:ok, first} = Comms.send_async_request(id, {:hold, 1})
      holding(pid, 1)
      assert Comms.request(id, {:echo, 1}, 20) == {:error, :timeout}
      send(pid, {:release, 1, :done})
      assert_receive {:mabeam_response, ^first, {:ok, :done}}, 5_000
      # The first one only.
      assert Comms.request(id, :asked) == {:ok, 1}
    end

    test "fails at once when the agent is stopped" do
      {id, pid} = Servant.start!()
      request = in_task(fn -> Comms.request(id, {:hold, 1}) end)
      holding(pid, 1)
      assert Agent.stop(id) == :ok
      assert Task.await(request) == {:error, {:agent_down, :shutdown}}
    end
  end

  describe "an agent has 100 places" do
    test "and what is beyond is refused and counted" do
      Signals.listen([:mabeam, :comms, :busy])
      Signals.listen([:mabeam, :comms, :dropped])
      {id, pid} = Servant.start!()
      {:ok, first} = Comms.send_async_request(id, {:hold, 1})
      holding(pid, 1)
      fill(id, 99)
      assert in_flight(id) == 100

      assert Comms.request(id, {:echo, 1}) == {:error, :busy}
      assert_receive {:telemetry, [:mabeam, :comms, :busy], _, %{agent: ^id}}, 5_000
      assert Comms.notify(id, :one_too_many) == {:error, :busy}
      assert_receive {:telemetry, [:mabeam, :comms, :dropped], _, %{receiver: ^id} = lost}, 5_000
      assert %{kind: :notifications, reason: :busy} = lost
      assert {:ok, %{busy: 1, dropped: 1, requests: 1}} = Agent.metrics(id)

      send(pid, {:release, 1, :done})
      assert_receive {:mabeam_response, ^first, {:ok, :done}}, 5_000
      assert Comms.request(id, {:echo, 1}) == {:ok, 1}
      assert in_flight(id) == 0
      for _ <- 1..99, do: assert_received({:event, ^pid, :filler})
      refute_received {:event, ^pid, :one_too_many}
    end

    test "a caller that dies gives its place back" do
      Signals.listen([:mabeam, :agent, :given_up])
      {id, pid} = Servant.start!()
      caller = in_task(fn -> Comms.request(id, {:hold, 1}) end)
      holding(pid, 1)
      fill(id, 99)
      assert Comms.notify(id, :filler) == {:error, :busy}
      Signals.kill(caller.pid)
      assert_receive {:telemetry, _, _, %{agent: ^id}}, 5_000
      assert Comms.notify(id, :filler) == :ok
      send(pid, {:release, 1, :nobody_waits})
      for _ <- 1..100, do: assert_receive({:event, ^pid, :filler}, 5_000)
      assert Comms.request(id, {:echo, 1}) == {:ok, 1}
    end

    test "a caller that dies while it waits gives its place back, unheard by the agent" do
      Signals.listen([:mabeam, :agent, :given_up])
      {id, pid} = Servant.start!()
      {:ok, _first} = Comms.send_async_request(id, {:hold, 1})
      holding(pid, 1)
      # It is in the queue when the notification after it is.
      test = self()

      caller =
        in_task(fn ->
          {:ok, gate} = MABEAM.AgentRegistry.gate(id)
          :gen_server.send_request(gate, {:request, {:echo, 1}, {:within, 5_000}})
          send(test, {:told, Comms.notify(id, :filler)})
          receive do: (:never -> :ok)
        end)

      assert_receive {:told, :ok}, 5_000
      assert in_flight(id) == 3
      Signals.kill(caller.pid)
      assert_receive {:telemetry, _, _, %{agent: ^id}}, 5_000
      assert in_flight(id) == 2
      send(pid, {:release, 1, :done})
      assert_receive {:event, ^pid, :filler}, 5_000
      assert Comms.request(id, :asked) == {:ok, 1}
    end

    test "they are free again when the agent was restarted" do
      Signals.listen([:mabeam, :agent, :dropped])
      {id, pid} = Servant.start!()
      assert Comms.notify(id, {:hold, 1}) == :ok
      holding(pid, 1)
      fill(id, 99)
      assert Comms.notify(id, :filler) == {:error, :busy}
      assert {:ok, _next} = Agent.restart(id)
      for _ <- 1..100, do: assert_receive({:telemetry, _, _, %{agent: ^id}}, 5_000)
      assert in_flight(id) == 0
      assert {:ok, %{dropped: 101, unheard: 0}} = Agent.metrics(id)
    end

    test "what a gate that is killed had let in is counted when the next one starts" do
      Signals.listen([:mabeam, :agent, :dropped])
      {id, pid} = Servant.start!()
      request = in_task(fn -> Comms.request(id, {:hold, 1}) end)
      holding(pid, 1)
      fill(id, 3)
      {:ok, gate} = MABEAM.AgentRegistry.gate(id)
      Signals.kill(gate)
      assert Task.await(request) == {:error, {:agent_down, :killed}}
      assert_receive {:telemetry, _, _, %{agent: ^id, number: 3}}, 5_000
      # The agent itself has lost nothing, and is asked through the new gate when it has time.
      send(pid, {:release, 1, :late})
      assert Agent.status(id) == {:ok, :running}
    end
  end

  describe "notifications" do
    test "reach an agent in their order" do
      {id, pid} = Servant.start!()
      for n <- 1..50, do: :ok = Comms.notify(id, {:number, n})
      assert Comms.request(id, {:echo, 1}) == {:ok, 1}
      for n <- 1..50, do: assert_received({:event, ^pid, {:number, ^n}})
    end

    test "to those who cannot take them are refused" do
      deaf = Servant.unknown()
      :ok = Agent.register(deaf, Servant.Deaf)
      on_exit(fn -> Agent.deregister(deaf) end)
      assert Comms.notify(deaf, :hello) == {:error, :not_running}
      {:ok, _pid} = Agent.start(deaf)
      assert Comms.notify(deaf, :hello) == {:error, :no_handler}
      assert Comms.notify(Servant.unknown(), :hello) == {:error, :unknown_agent}
    end

    test "an agent may send to itself" do
      {id, pid} = Servant.start!()
      {:ok, _} = Comms.send_async_request(id, {:hold, 1})
      holding(pid, 1)
      assert Comms.notify(id, :hello) == :ok
      send(pid, {:release, 1, :done})
      assert_receive {:event, ^pid, :hello}, 5_000
    end
  end

  describe "many at once" do
    test "broadcast reaches those that run, of a type or with a capability" do
      type = "type-#{System.unique_integer([:positive])}"
      {a, a_pid} = Servant.start!(type: type, capabilities: [type])
      {b, b_pid} = Servant.start!(type: type)
      _not_running = Servant.register!(type: type)

      assert {:ok, %{delivered: delivered, failed: failed}} = Comms.broadcast({:type, type}, :one)
      assert Enum.sort(delivered) == Enum.sort([a, b])
      assert failed == %{}
      assert_receive {:event, ^a_pid, :one}, 5_000
      assert_receive {:event, ^b_pid, :one}, 5_000

      assert Comms.broadcast({:capability, type}, :two) == {:ok, %{delivered: [a], failed: %{}}}
      assert_receive {:event, ^a_pid, :two}, 5_000

      assert {:ok, %{delivered: all}} = Comms.broadcast(:all, :three, timeout: 5_000)
      assert a in all and b in all
    end

    test "are asked, and each answers for itself" do
      test = self()

      # Neither answers before both have been asked.
      meet = fn ->
        Actor.start!(fn _request ->
          send(test, {:asked, self()})
          receive do: (:go -> self())
        end)
      end

      [a, b] = [meet.(), meet.()]
      [idle, unknown] = [Servant.register!(), Servant.unknown()]
      agents = [a, unknown, b, idle]

      task = in_task(fn -> Comms.request_all(agents, :meet, 30_000) end)

      pids =
        for _agent <- [a, b] do
          assert_receive {:asked, pid}, 5_000
          pid
        end

      Enum.each(pids, &send(&1, :go))
      assert {:ok, [{^a, {:ok, pid_a}}, no, {^b, {:ok, pid_b}}, down]} = Task.await(task)
      assert Enum.sort([pid_a, pid_b]) == Enum.sort(pids)
      assert no == {unknown, {:error, :unknown_agent}}
      assert down == {idle, {:error, :not_running}}
      assert {:messages, []} = Process.info(self(), :messages)
    end

    test "multicast tells whom it did not reach" do
      {a, pid} = Servant.start!()
      b = Servant.register!()
      unknown = Servant.unknown()

      assert Comms.multicast([a, b, unknown, a], :hello) ==
               {:ok, %{delivered: [a], failed: %{b => :not_running, unknown => :unknown_agent}}}

      assert_receive {:event, ^pid, :hello}, 5_000
    end
  end

  describe "events" do
    setup do
      {:ok, topic: "topic-#{System.unique_integer([:positive])}"}
    end

    test "reach processes and agents that subscribed, once", %{topic: topic} do
      {id, pid} = Servant.start!()
      relay = start_supervised!({Relay, self()})
      for subscriber <- [id, relay, relay], do: :ok = Comms.subscribe(subscriber, topic)

      assert {:ok, %{delivered: delivered, failed: failed}} = Comms.publish_event(topic, 1)
      assert Enum.sort(delivered) == Enum.sort([id, relay])
      assert failed == %{}
      assert_receive {:event, ^pid, {:mabeam_event, ^topic, 1}}, 5_000
      assert_receive {:relayed, {:mabeam_event, ^topic, 1}}, 5_000
      refute_received {:relayed, _again}

      for subscriber <- [id, relay], do: :ok = Comms.unsubscribe(subscriber, topic)
      assert Comms.publish_event(topic, 2) == {:ok, %{delivered: [], failed: %{}}}
      assert Comms.unsubscribe(id, topic) == {:error, :not_subscribed}
    end

    test "reach an agent after it was restarted", %{topic: topic} do
      {id, _pid} = Servant.start!()
      :ok = Comms.subscribe(id, topic)
      {:ok, next} = Agent.restart(id)
      assert {:ok, %{delivered: [^id]}} = Comms.publish_event(topic, 1, timeout: 10_000)
      assert_receive {:event, ^next, {:mabeam_event, ^topic, 1}}, 5_000
    end

    test "a subscription ends with the process, and with the agent", %{topic: topic} do
      {id, _pid} = Servant.start!()
      relay = start_supervised!({Relay, self()})
      for subscriber <- [id, relay], do: :ok = Comms.subscribe(subscriber, topic)
      assert Agent.stop(id) == :ok

      assert {:ok, %{delivered: [^relay], failed: %{^id => :not_running}}} =
               Comms.publish_event(topic, 1)

      assert Agent.deregister(id) == :ok
      stop_supervised!(Relay)
      # The server has the relay's end before this question.
      assert Comms.subscribe(relay, topic) == {:error, :not_alive}
      assert Comms.unsubscribe(id, topic) == {:error, :not_subscribed}
    end
  end

  test "what is sent is counted" do
    {:ok, before} = Comms.get_communication_stats()
    {id, _pid} = Servant.start!()
    Comms.request(id, {:echo, 1})
    Comms.request(Servant.unknown(), :hello)
    Comms.notify(id, :hello)
    Comms.notify(Servant.unknown(), :hello)
    {:ok, now} = Comms.get_communication_stats()
    # At least: other tests send, too.
    for {field, number} <- [requests: 2, replies: 1, failures: 1, notifications: 2, dropped: 1] do
      assert now[field] - before[field] >= number
    end
  end
end

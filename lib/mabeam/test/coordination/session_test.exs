defmodule MABEAM.Coordination.SessionTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias MABEAM.Coordination
  alias MABEAM.Test.{Actor, Probe, Puppet}

  defmodule Params do
    @behaviour MABEAM.Coordination.Protocol

    @impl true
    def run(_agents, params, _context), do: {:ok, params}
  end

  setup do
    start_supervised!({Task.Supervisor, name: __MODULE__.Tasks})
    {:ok, protocol: Puppet.registered!(), retried: Puppet.registered!(Puppet.Retried)}
  end

  defp coordinate(protocol, options \\ []) do
    params = %{test: self()}

    Task.Supervisor.async_nolink(__MODULE__.Tasks, fn ->
      Coordination.coordinate(protocol, [:nobody], params, options)
    end)
  end

  defp begin(protocol, options \\ []) do
    {:ok, id} = Coordination.coordinate_async(protocol, [:nobody], %{test: self()}, options)
    {id, next_worker()}
  end

  defp next_worker do
    assert_receive {:running, worker, _context}, 5_000
    worker
  end

  defp result(id), do: Coordination.get_session_results(id, 5_000)

  defp assert_down(pid) do
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 5_000
  end

  describe "a session" do
    test "ends with what its protocol returns", %{protocol: protocol} do
      for result <- [{:ok, 1}, {:error, :no_luck}] do
        task = coordinate(protocol)
        send(next_worker(), {:return, result})
        assert Task.await(task) == result
      end
    end

    test "is run under its supervisor", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      workers = DynamicSupervisor.which_children(MABEAM.CoordinationSupervisor)
      assert {:undefined, worker, :worker, [MABEAM.CoordinationWorker]} in workers
      :ok = Coordination.cancel_session(id)
    end

    test "without a caller is asked for its result", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      assert Coordination.get_session_results(id, 0) == {:error, :pending}
      send(worker, {:return, {:ok, :done}})

      assert result(id) == {:ok, :done}
      assert result(id) == {:ok, :done}
    end

    test "that waits for its result hears of it", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      waiting = Task.Supervisor.async_nolink(__MODULE__.Tasks, fn -> result(id) end)
      send(worker, {:return, {:ok, :done}})
      assert Task.await(waiting) == {:ok, :done}
    end

    test "is known while it is active", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      {:ok, sessions} = Coordination.list_active_sessions()

      assert %{protocol: ^protocol, agents: [:nobody], attempt: 1, supervised?: true} =
               description = Enum.find(sessions, &(&1.id == id))

      assert description.left in 0..5_000
      send(worker, {:return, {:ok, 1}})
      {:ok, 1} = result(id)
      {:ok, sessions} = Coordination.list_active_sessions()
      refute Enum.any?(sessions, &(&1.id == id))
      send(worker, {:return, :late})
      assert_down(worker)
    end

    test "whose protocol returns neither, fails", %{protocol: protocol} do
      {id, worker} = begin(protocol)
      send(worker, {:return, :whatever})
      assert result(id) == {:error, {:bad_result, :whatever}}
    end

    test "starts with the parameters of its protocol" do
      name = "params-#{System.unique_integer([:positive])}"
      :ok = Coordination.register_protocol(name, {Params, a: 1, b: 2})
      assert Coordination.coordinate(name, [:nobody], %{b: 3}) == {:ok, %{a: 1, b: 3}}
    end
  end

  describe "a crash" do
    test "ends the session with its reason", %{protocol: protocol} do
      capture_log(fn ->
        for {order, expected} <- [
              {{:raise, "oh"}, %RuntimeError{message: "oh"}},
              {{:throw, :ball}, {:bad_return_value, :ball}},
              {{:exit, :enough}, :enough},
              {:kill, :killed}
            ] do
          {id, worker} = begin(protocol)
          if order == :kill, do: Process.exit(worker, :kill), else: send(worker, order)
          assert {:error, {:crashed, reason}} = result(id)
          assert reason == expected or match?({^expected, _stacktrace}, reason)
        end
      end)
    end

    test "is told to who waits in coordinate/4", %{protocol: protocol} do
      task = coordinate(protocol)
      Process.exit(next_worker(), :kill)
      assert Task.await(task) == {:error, {:crashed, :killed}}
    end

    test "is followed by another attempt, as the protocol says", %{retried: protocol} do
      Probe.listen!(protocol)
      {:ok, id} = Coordination.coordinate_async(protocol, [:nobody], %{test: self()})

      for attempt <- 1..2 do
        assert_receive {:running, worker, %{session: ^id, attempt: ^attempt}}, 5_000
        assert_receive {:event, :start, _measurements, %{session: ^id, attempt: ^attempt}}, 5_000
        Process.exit(worker, :kill)

        assert_receive {:event, :exception, %{duration: duration}, metadata}, 5_000
        assert %{session: ^id, attempt: ^attempt, reason: :killed, retry: true} = metadata
        assert duration > 0
      end

      assert_receive {:running, worker, %{session: ^id, attempt: 3}}, 5_000
      send(worker, {:return, {:ok, :third_time}})
      assert result(id) == {:ok, :third_time}
      assert_receive {:event, :stop, %{duration: _}, %{attempt: 3, status: :completed}}, 5_000
    end

    test "of the last attempt ends the session", %{retried: protocol} do
      {:ok, id} = Coordination.coordinate_async(protocol, [:nobody], %{test: self()})
      for _attempt <- 1..3, do: Process.exit(next_worker(), :kill)
      assert result(id) == {:error, {:crashed, :killed}}
      refute_received {:running, _worker, _context}
    end

    test "an error that the protocol returns is not followed by one", %{retried: protocol} do
      {id, worker} = begin(protocol)
      send(worker, {:return, {:error, :no_luck}})
      assert result(id) == {:error, :no_luck}
      refute_received {:running, _worker, _context}
    end
  end

  describe "the deadline" do
    test "ends session and worker", %{protocol: protocol} do
      Probe.listen!(protocol)
      task = coordinate(protocol, timeout: 2_000)
      worker = next_worker()
      assert Task.await(task, 30_000) == {:error, :timeout}
      assert_receive {:event, :exception, _measurements, %{reason: :timeout, retry: false}}, 5_000
      refute Process.alive?(worker)
    end

    test "is one for all attempts", %{retried: protocol} do
      {:ok, id} =
        Coordination.coordinate_async(protocol, [:nobody], %{test: self()}, timeout: 3_000)

      assert_receive {:running, worker, %{deadline: deadline}}, 5_000
      Process.exit(worker, :kill)
      assert_receive {:running, _worker, %{deadline: ^deadline, attempt: 2}}, 5_000
      assert result(id) == {:error, :timeout}
    end

    test "leaves no request behind", %{protocol: protocol} do
      test = self()

      agent =
        Actor.start!(fn request ->
          send(test, {:asked, self(), request})
          receive do: (:go -> :late)
        end)

      {:ok, id} = Coordination.coordinate_async(protocol, [agent], %{test: test}, timeout: 3_000)
      worker = next_worker()
      send(worker, {:ask, :think, 60_000})
      assert_receive {:asked, asked, {:coordination, ^protocol, :think, %{}}}, 5_000

      assert result(id) == {:error, :timeout}
      assert_down(worker)
      Puppet.given_up!(agent)
      send(asked, :go)
    end
  end

  describe "cancelling" do
    test "ends worker and requests, and tells who waits", %{protocol: protocol} do
      test = self()

      agent =
        Actor.start!(fn _request ->
          send(test, {:asked, self()})
          receive do: (:go -> :late)
        end)

      Probe.listen!(protocol)
      {:ok, id} = Coordination.coordinate_async(protocol, [agent], %{test: test})
      worker = next_worker()
      send(worker, {:ask, :think, 60_000})
      assert_receive {:asked, asked}, 5_000

      assert Coordination.cancel_session(id) == :ok
      refute Process.alive?(worker)
      Puppet.given_up!(agent)

      assert result(id) == {:error, :cancelled}
      assert_receive {:event, :stop, _measurements, %{status: :cancelled}}, 5_000
      assert Coordination.cancel_session(id) == {:error, :already_ended}
      send(asked, :go)
    end

    test "works between two attempts", %{retried: protocol} do
      Probe.listen!(protocol)
      {id, worker} = begin(protocol)
      Process.exit(worker, :kill)
      assert_receive {:event, :exception, _measurements, %{retry: true}}, 5_000
      # The next attempt may have begun by now: either is cancelled.
      assert Coordination.cancel_session(id) == :ok
      assert result(id) == {:error, :cancelled}
    end

    test "happens when the caller dies", %{protocol: protocol} do
      task = coordinate(protocol)
      worker = next_worker()
      {:ok, sessions} = Coordination.list_active_sessions()
      assert %{id: id} = Enum.find(sessions, &(&1.protocol == protocol))

      Process.exit(task.pid, :kill)
      assert_down(worker)
      assert result(id) == {:error, :cancelled}
    end

    test "does not happen when who began it without waiting dies", %{protocol: protocol} do
      test = self()

      task =
        Task.Supervisor.async_nolink(__MODULE__.Tasks, fn ->
          Coordination.coordinate_async(protocol, [:nobody], %{test: test})
        end)

      {:ok, id} = Task.await(task)
      assert_down(task.pid)
      send(next_worker(), {:return, {:ok, :still_here}})
      assert result(id) == {:ok, :still_here}
    end
  end

  describe "asking" do
    test "asks all agents at once, and answers in their order", %{protocol: protocol} do
      test = self()

      agents =
        for n <- 1..20 do
          Actor.start!(fn _request ->
            send(test, {:asked, self()})
            receive do: (:go -> n)
          end)
        end

      {:ok, id} = Coordination.coordinate_async(protocol, agents, %{test: test})
      send(next_worker(), {:ask, :number, 5_000})

      asked =
        for _agent <- agents do
          assert_receive {:asked, pid}, 5_000
          pid
        end

      Enum.each(asked, &send(&1, :go))
      assert result(id) == {:ok, Enum.zip(agents, Enum.map(1..20, &{:ok, &1}))}
    end

    test "with no time left asks nobody", %{protocol: protocol} do
      test = self()
      agent = Actor.start!(fn _request -> send(test, :asked) end)
      {:ok, id} = Coordination.coordinate_async(protocol, [agent], %{test: test})
      send(next_worker(), {:ask, :number, 0})
      assert result(id) == {:ok, [{agent, {:error, :timeout}}]}
      refute_received :asked
    end

    test "an agent that dies is an answer", %{protocol: protocol} do
      test = self()

      agent =
        Actor.start!(fn _request ->
          send(test, {:asked, self()})
          receive do: (:never -> :ok)
        end)

      {:ok, id} = Coordination.coordinate_async(protocol, [agent], %{test: test})
      send(next_worker(), {:ask, :number, 4_000})
      assert_receive {:asked, pid}, 5_000
      Process.exit(pid, :kill)
      assert result(id) == {:ok, [{agent, {:error, {:agent_down, :killed}}}]}
    end
  end
end

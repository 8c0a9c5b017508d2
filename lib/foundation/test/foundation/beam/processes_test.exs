defmodule Foundation.BEAM.ProcessesTest do
  use ExUnit.Case, async: true

  alias Foundation.BEAM.Processes
  alias Foundation.Test
  alias Foundation.Test.Worker

  def coordinate(test) do
    send(test, {:coordinator, self()})

    receive do
      :fail -> exit(:failed)
      :done -> :ok
    end
  end

  describe "ecosystems" do
    defp ecosystem(config) do
      {:ok, ecosystem} = Processes.spawn_ecosystem(config)
      on_exit(fn -> Processes.shutdown_ecosystem(ecosystem) end)
      ecosystem
    end

    test "have a coordinator and workers, supervised, and are gone when they were shut down" do
      ecosystem =
        ecosystem(%{
          coordinator: {Worker, notify: self()},
          workers: [{Worker, [], 3}, {Worker, [notify: self()], 2}]
        })

      assert {:ok, info} = Processes.ecosystem_info(ecosystem)
      assert %{supervisor: ^ecosystem, coordinator: coordinator, workers: workers} = info
      assert_received {:worker, ^coordinator}
      assert length(workers) == 5
      assert info.memory_bytes > 0

      monitors = for pid <- [ecosystem, coordinator | workers], do: Process.monitor(pid)
      assert Processes.shutdown_ecosystem(ecosystem) == :ok
      for ref <- monitors, do: assert_received({:DOWN, ^ref, :process, _pid, _reason})
      assert Processes.ecosystem_info(ecosystem) == {:error, :not_found}
      assert Processes.shutdown_ecosystem(ecosystem) == {:error, :not_found}
    end

    test "restart what dies in them" do
      ecosystem =
        ecosystem(
          coordinator: {Worker, []},
          workers: [{Worker, [notify: self()], 1}]
        )

      assert_received {:worker, worker}
      Test.Signals.kill(worker)
      assert_receive {:worker, next}, 5_000
      assert {:ok, %{workers: [^next]}} = Processes.ecosystem_info(ecosystem)
    end

    test "may have a function as coordinator, which is restarted when it fails" do
      ecosystem = ecosystem(coordinator: {__MODULE__, :coordinate, [self()]})
      assert_receive {:coordinator, first}, 5_000
      send(first, :fail)
      assert_receive {:coordinator, second}, 5_000
      assert {:ok, %{coordinator: ^second, workers: []}} = Processes.ecosystem_info(ecosystem)

      ref = Process.monitor(second)
      send(second, :done)
      assert_receive {:DOWN, ^ref, :process, ^second, :normal}, 5_000
      assert {:ok, %{coordinator: nil}} = Processes.ecosystem_info(ecosystem)
    end

    test "of which one process does not start leave none behind" do
      config = [
        coordinator: {Worker, notify: self()},
        workers: [{Worker, [notify: self()], 2}, {Worker, [fail: true], 1}]
      ]

      assert {:error, {:shutdown, {:failed_to_start_child, {:worker, 1, 1}, :failed}}} =
               Processes.spawn_ecosystem(config)

      for _ <- 1..3 do
        assert_received {:worker, pid}
        refute Process.alive?(pid)
      end
    end

    test "that are lost are reported" do
      Test.Signals.listen([:foundation, :ecosystem, :lost])
      Test.Signals.listen([:foundation, :events, :stored])
      ecosystem = ecosystem(coordinator: {Worker, []}, workers: [{Worker, [], 2}])
      {:ok, %{coordinator: coordinator, workers: workers}} = Processes.ecosystem_info(ecosystem)
      monitors = for pid <- [coordinator | workers], do: Process.monitor(pid)
      Test.Signals.kill(ecosystem)
      for ref <- monitors, do: assert_receive({:DOWN, ^ref, :process, _pid, _reason}, 5_000)

      assert_receive {:telemetry, _, _, %{pid: ^ecosystem, reason: :killed}}, 5_000
      assert Processes.ecosystem_info(ecosystem) == {:error, :not_found}
      data = %{pid: ecosystem, reason: :killed}
      assert_receive {:telemetry, _, _, %{event: %{type: :ecosystem_lost, data: ^data}}}, 5_000
    end

    test "are refused for bad input" do
      for bad <- [
            nil,
            :config,
            [],
            %{},
            [:coordinator],
            [workers: []],
            %{coordinator: Worker, x: 1}
          ] do
        assert Processes.spawn_ecosystem(bad) == {:error, :bad_config}
      end

      for bad <- [
            nil,
            "worker",
            String,
            NoSuchModule,
            {String, 1},
            {__MODULE__, :coordinate, []},
            {1}
          ] do
        assert Processes.spawn_ecosystem(coordinator: bad) == {:error, {:bad_coordinator, bad}}
      end

      for bad <- [
            Worker,
            {Worker, [], 0},
            {Worker, [], 1.0},
            {String, [], 1},
            {Worker, []},
            {Worker, [], 100_001}
          ] do
        assert Processes.spawn_ecosystem(coordinator: Worker, workers: [bad]) ==
                 {:error, {:bad_workers, bad}}
      end

      assert Processes.spawn_ecosystem(coordinator: Worker, workers: :many) ==
               {:error, {:bad_workers, :many}}

      for bad <- [self(), :ecosystem, nil, Process.whereis(Foundation.TaskSupervisor)] do
        assert Processes.ecosystem_info(bad) == {:error, :not_found}
        assert Processes.shutdown_ecosystem(bad) == {:error, :not_found}
      end
    end
  end

  describe "memory-intensive work" do
    test "answers with its result, from a supervised process" do
      test = self()

      {:ok, pid} =
        Processes.isolate_memory_intensive_work(fn ->
          send(test, {:working, self()})
          receive do: (:go -> Enum.sum(1..10))
        end)

      assert_receive {:working, ^pid}, 5_000
      assert pid in Task.Supervisor.children(Foundation.TaskSupervisor)
      send(pid, :go)
      assert_receive {:work_complete, 55}, 5_000
    end

    test "answers when it fails, however it does" do
      for {fail, reason} <- [
            {fn -> raise "no" end, %RuntimeError{message: "no"}},
            {fn -> exit(:no) end, :no},
            {fn -> throw(:no) end, {:nocatch, :no}}
          ] do
        {:ok, _pid} = Processes.isolate_memory_intensive_work(fail)
        assert_receive {:work_error, ^reason}, 5_000
      end
    end

    test "that is killed is answered for, once, and reported" do
      Test.Signals.listen([:foundation, :work, :lost])
      Test.Signals.listen([:foundation, :events, :stored])
      {:ok, pid} = Processes.isolate_memory_intensive_work(&wait/0)
      Test.Signals.kill(pid)
      assert_receive {:work_error, :killed}, 5_000
      assert_receive {:telemetry, _, _, %{pid: ^pid, reason: :killed}}, 5_000
      data = %{pid: pid, reason: :killed}
      assert_receive {:telemetry, _, _, %{event: %{type: :work_lost, data: ^data}}}, 5_000
      refute_received {:work_error, _}
    end

    test "may answer another process" do
      caller = start_supervised!({Test.Relay, self()})
      {:ok, _pid} = Processes.isolate_memory_intensive_work(fn -> 1 end, caller)
      assert_receive {:relayed, {:work_complete, 1}}, 5_000
      {:ok, pid} = Processes.isolate_memory_intensive_work(&wait/0, caller)
      Test.Signals.kill(pid)
      assert_receive {:relayed, {:work_error, :killed}}, 5_000
    end

    test "is refused for bad input" do
      dead = start_supervised!({Worker, []}, restart: :temporary)
      Test.Signals.kill(dead)
      assert Processes.isolate_memory_intensive_work(:fun) == {:error, :bad_function}
      assert Processes.isolate_memory_intensive_work(fn _ -> 1 end) == {:error, :bad_function}
      assert Processes.isolate_memory_intensive_work(fn -> 1 end, :me) == {:error, :bad_pid}
      assert Processes.isolate_memory_intensive_work(fn -> 1 end, dead) == {:error, :not_alive}
    end

    defp wait, do: receive(do: (:never -> :ok))
  end
end

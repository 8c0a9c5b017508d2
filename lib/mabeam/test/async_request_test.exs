defmodule MABEAM.AsyncRequestTest do
  use ExUnit.Case, async: true

  alias Foundation.Test.Signals
  alias MABEAM.{Agent, Comms}
  alias MABEAM.Test.Servant

  @tasks Module.concat(__MODULE__, Tasks)

  setup do
    start_supervised!({Task.Supervisor, name: @tasks})
    {id, pid} = Servant.start!()
    {:ok, id: id, pid: pid}
  end

  # The task that waits for the answer to the request that the agent is at.
  defp task_of(reference) do
    {:links, links} = Process.info(Process.whereis(MABEAM.TaskSupervisor), :links)

    Enum.find(links, fn pid ->
      match?([{^pid, ^reference, _caller, _agent}], :ets.lookup(Comms, pid))
    end)
  end

  test "is answered by a message", %{id: id} do
    assert {:ok, reference} = Comms.send_async_request(id, {:echo, 1})
    assert_receive {:mabeam_response, ^reference, {:ok, 1}}, 5_000
    assert {:ok, reference} = Comms.send_async_request(Servant.unknown(), {:echo, 1})
    assert_receive {:mabeam_response, ^reference, {:error, :unknown_agent}}, 5_000
  end

  test "is waited for by a supervised task", %{id: id, pid: pid} do
    {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    task = task_of(reference)
    assert task in Task.Supervisor.children(MABEAM.TaskSupervisor)
    ref = Process.monitor(task)
    send(pid, {:release, 1, :done})
    assert_receive {:mabeam_response, ^reference, {:ok, :done}}, 5_000
    assert_receive {:DOWN, ^ref, :process, ^task, _reason}, 5_000
  end

  test "ends at its deadline", %{id: id, pid: pid} do
    {:ok, reference} = Comms.send_async_request(id, {:hold, 1}, timeout: 2_000)
    assert_receive {:mabeam_response, ^reference, {:error, :timeout}}, 5_000
    send(pid, {:release, 1, :late})
    assert Comms.request(id, {:echo, 1}) == {:ok, 1}
    refute_received {:mabeam_response, ^reference, _second}
  end

  test "a task that is killed is reported to the caller, counted, and an event", context do
    %{id: id, pid: pid} = context
    Signals.listen([:mabeam, :comms, :async_lost])
    Signals.listen([:foundation, :events, :stored])
    {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    Signals.kill(task_of(reference))
    assert_receive {:mabeam_response, ^reference, {:error, {:task_down, :killed}}}, 5_000
    assert_receive {:telemetry, [:mabeam, _, _], _, %{agent: ^id, reason: :killed}}, 5_000

    assert_receive {:telemetry, _, _, %{event: %{type: :async_request_lost, data: data}}}, 5_000
    assert data == %{agent: id, reason: :killed}
    # The agent's place is free again, and the agent well.
    send(pid, {:release, 1, :nobody_waits})
    assert Comms.request(id, {:echo, 1}) == {:ok, 1}
    refute_received {:mabeam_response, ^reference, _second}
  end

  test "is given up when its caller dies", %{id: id, pid: pid} do
    Signals.listen([:mabeam, :comms, :async_abandoned])
    test = self()

    caller =
      Task.Supervisor.async_nolink(@tasks, fn ->
        send(test, Comms.send_async_request(id, {:hold, 1}))
        receive do: (:never -> :ok)
      end)

    assert_receive {:ok, reference}, 5_000
    assert_receive {:holding, ^pid, 1}, 5_000
    task = task_of(reference)
    ref = Process.monitor(task)
    Signals.kill(caller.pid)
    assert_receive {:DOWN, ^ref, :process, ^task, :shutdown}, 5_000
    assert_receive {:telemetry, _, _, %{agent: ^id}}, 5_000
    assert :ets.lookup(Comms, task) == []
  end

  test "at most 100 wait for one agent", %{id: id, pid: pid} do
    {:ok, _reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000

    references =
      for n <- 2..100 do
        {:ok, reference} = Comms.send_async_request(id, {:echo, n})
        reference
      end

    assert Comms.send_async_request(id, {:echo, 101}) == {:error, :busy}
    send(pid, {:release, 1, :done})

    for {reference, n} <- Enum.zip(references, 2..100) do
      assert_receive {:mabeam_response, ^reference, {:ok, ^n}}, 5_000
    end
  end

  test "an agent that dies is reported", %{id: id, pid: pid} do
    {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    assert Agent.stop(id) == :ok
    assert_receive {:mabeam_response, ^reference, {:error, {:agent_down, :shutdown}}}, 5_000
  end

  test "an answer that is not wanted any more does not come", %{id: id, pid: pid} do
    {:ok, reference} = Comms.send_async_request(id, {:hold, 1})
    assert_receive {:holding, ^pid, 1}, 5_000
    ref = Process.monitor(task_of(reference))
    assert :erlang.unalias(reference)
    send(pid, {:release, 1, :done})
    assert_receive {:DOWN, ^ref, :process, _task, _reason}, 5_000
    refute_received {:mabeam_response, ^reference, _answer}
  end
end

defmodule MABEAM.CommsKillTest do
  # Kills what all who talk to agents depend on.
  use ExUnit.Case, async: false

  alias Foundation.Test.{Relay, Signals}
  alias MABEAM.Comms
  alias MABEAM.Test.{Servant, Tree}

  setup do
    start_supervised!({Task.Supervisor, name: __MODULE__.Tasks})
    {id, pid} = Servant.start!()
    {:ok, id: id, pid: pid, topic: "topic-#{System.unique_integer([:positive])}"}
  end

  # An asynchronous request that the agent is at, and the task that waits for it.
  defp request(id, pid) do
    {:ok, reference} = Comms.send_async_request(id, {:hold, :async})
    assert_receive {:holding, ^pid, :async}, 5_000
    [task] = for [task, ^reference] <- :ets.match(Comms, {:"$1", :"$2", :_, :_}), do: task
    {reference, task}
  end

  defp release(pid), do: send(pid, {:release, :async, :done})

  test "the server: requests under way are answered", %{id: id, pid: pid} do
    {reference, task} = request(id, pid)
    ref = Process.monitor(task)
    Tree.kill!(Comms)
    release(pid)
    assert_receive {:mabeam_response, ^reference, {:ok, :done}}, 5_000
    assert_receive {:DOWN, ^ref, :process, ^task, _reason}, 5_000
    assert GenServer.call(Comms, :ping) == :pong
    assert :ets.lookup(Comms, task) == []
  end

  test "the server, and then a task: the caller is told", %{id: id, pid: pid} do
    {reference, task} = request(id, pid)
    Tree.kill!(Comms)
    Signals.kill(task)
    assert_receive {:mabeam_response, ^reference, {:error, {:task_down, :killed}}}, 5_000
    release(pid)
  end

  test "the server, and a task before it is back: the caller is told", %{id: id, pid: pid} do
    Signals.listen([:mabeam, :comms, :async_unwatched])
    {reference, task} = request(id, pid)
    :ok = :sys.suspend(Comms)
    Signals.kill(task)
    Tree.kill!(Comms)
    assert_receive {:mabeam_response, ^reference, {:error, {:task_down, :noproc}}}, 5_000
    assert_receive {:telemetry, _event, _, %{agent: ^id}}, 5_000
    release(pid)
  end

  test "the server, and an answer before it is back: the caller has it, once", context do
    %{id: id, pid: pid} = context
    Signals.listen([:mabeam, :comms, :async_unwatched])
    {reference, task} = request(id, pid)
    ref = Process.monitor(task)
    :ok = :sys.suspend(Comms)
    release(pid)
    assert_receive {:DOWN, ^ref, :process, ^task, _reason}, 5_000
    Tree.kill!(Comms)
    assert_receive {:telemetry, _event, _, %{agent: ^id}}, 5_000
    assert_received {:mabeam_response, ^reference, {:ok, :done}}
    refute_received {:mabeam_response, ^reference, _second}
  end

  test "the server, and the caller of a request before it is back", %{id: id, pid: pid} do
    test = self()

    caller =
      Task.Supervisor.async_nolink(__MODULE__.Tasks, fn ->
        {:ok, reference} = Comms.send_async_request(id, {:hold, :async})
        send(test, reference)
        receive do: (:never -> :ok)
      end)

    assert_receive {:holding, ^pid, :async}, 5_000
    assert_receive reference when is_reference(reference), 5_000
    [task] = for [task, ^reference] <- :ets.match(Comms, {:"$1", :"$2", :_, :_}), do: task
    ref = Process.monitor(task)
    :ok = :sys.suspend(Comms)
    Signals.kill(caller.pid)
    Tree.kill!(Comms)
    assert_receive {:DOWN, ^ref, :process, ^task, :shutdown}, 5_000
    release(pid)
  end

  test "the server: subscriptions are there, and end with their processes", context do
    %{id: id, pid: pid, topic: topic} = context
    relay = start_supervised!({Relay, self()})
    for subscriber <- [id, relay], do: :ok = Comms.subscribe(subscriber, topic)
    Tree.kill!(Comms)
    assert {:ok, %{delivered: [_, _]}} = Comms.publish_event(topic, 1)
    assert_receive {:event, ^pid, {:mabeam_event, ^topic, 1}}, 5_000
    assert_receive {:relayed, {:mabeam_event, ^topic, 1}}, 5_000
    :ok = :sys.suspend(Comms)
    stop_supervised!(Relay)
    Tree.kill!(Comms)
    assert GenServer.call(Comms, :ping) == :pong
    assert Comms.publish_event(topic, 2) == {:ok, %{delivered: [id], failed: %{}}}
  end

  test "the server: what was counted is there" do
    {:ok, %{requests: before}} = Comms.get_communication_stats()
    Tree.kill!(Comms)
    {:ok, %{requests: now}} = Comms.get_communication_stats()
    assert now >= before
  end

  test "the supervisor of tasks: all callers are told, and the next request is served", context do
    %{id: id, pid: pid} = context
    {reference, _task} = request(id, pid)
    Tree.kill!(MABEAM.TaskSupervisor)
    assert_receive {:mabeam_response, ^reference, {:error, {:task_down, _reason}}}, 5_000
    release(pid)
    {:ok, reference} = Comms.send_async_request(id, {:echo, 1})
    assert_receive {:mabeam_response, ^reference, {:ok, 1}}, 5_000
  end

  test "the keeper of the tables, and then the server", %{id: id, pid: pid, topic: topic} do
    :ok = Comms.subscribe(id, topic)
    {reference, task} = request(id, pid)
    Tree.kill_keeper!()
    Tree.kill!(Comms)
    Signals.kill(task)
    assert_receive {:mabeam_response, ^reference, {:error, {:task_down, :killed}}}, 5_000
    release(pid)
    assert Comms.publish_event(topic, 1) == {:ok, %{delivered: [id], failed: %{}}}
  end

  test "messages that are not its own do no harm" do
    send(Comms, :hello)
    GenServer.cast(Comms, :hello)
    assert GenServer.call(Comms, :hello) == {:error, :bad_request}
  end
end

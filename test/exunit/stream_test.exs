defmodule Lineage.StreamTest do
  use ExUnit.Case, async: false

  setup do
    :ok = Lineage.detach()
    {:ok, _} = Lineage.attach(exits: :all)
    on_exit(&Lineage.detach/0)
  end

  test "a stream of what happens, taken as it comes" do
    # The pump's port comes with the first subscriber, and stays.
    {:ok, first} = :lineage.subscribe(%{})
    :ok = :lineage.unsubscribe(first)
    ports = length(Port.list())
    test = self()

    task =
      Task.async(fn ->
        Lineage.stream(kinds: [:birth, :exit])
        |> Stream.each(fn _ -> send(test, :streaming) end)
        |> Enum.find(&match?(%{kind: :exit, reason: :told_to}, &1))
      end)

    # It has begun when something of what happens here has come.
    pid = until_streaming()
    Process.exit(pid, :told_to)
    assert %{kind: :exit, pid: ^pid, abnormal: true} = Task.await(task)
    assert length(Port.list()) == ports
  end

  defp until_streaming do
    pid = spawn(fn -> Process.sleep(:infinity) end)

    receive do
      :streaming -> pid
    after
      10 ->
        Process.exit(pid, :kill)
        until_streaming()
    end
  end

  test "what is not known is nil, and the stream ends with the session" do
    test = self()

    task =
      Task.async(fn ->
        Lineage.stream(kinds: [:name])
        |> Stream.each(&send(test, &1))
        |> Stream.run()
      end)

    until_named()
    :ok = Lineage.detach()
    assert :ok == Task.await(task)
  end

  defp until_named do
    Process.register(self(), __MODULE__)
    Process.unregister(__MODULE__)

    receive do
      %{kind: :name, name: nil} -> :ok
    after
      10 -> until_named()
    end
  end

  test "without a session, and with a wrong option, it says what to do" do
    assert_raise ErlangError, fn -> Enum.take(Lineage.stream(kinds: :birth), 1) end
    Lineage.detach()
    assert_raise ErlangError, fn -> Enum.take(Lineage.stream(), 1) end
  end
end

defmodule Foundation.Coordination.MessengerTest do
  use ExUnit.Case, async: true

  alias Foundation.Call
  alias Foundation.Coordination.Messenger
  alias Foundation.Test.Signals

  @moduletag :capture_log

  defp deadline(ms), do: Call.deadline(ms)

  @doc false
  def tell_and_wait(test) do
    send(test, {:running, self()})
    receive do: (:never -> :ok)
  end

  test "each node answers for itself" do
    assert Messenger.call([node()], Kernel, :+, [1, 2], deadline(5_000)) == [{node(), {:ok, 3}}]
    assert Messenger.call([], Kernel, :+, [1, 2], deadline(5_000)) == []

    assert [{:"nobody@127.0.0.1", {:error, :unavailable}}, {_, {:ok, 3}}] =
             Messenger.call([:"nobody@127.0.0.1", node()], Kernel, :+, [1, 2], deadline(5_000))
  end

  test "a function that fails is an error, as is one that takes too long" do
    assert [{_, {:error, {:exit, :no}}}] =
             Messenger.call([node()], Kernel, :exit, [:no], deadline(5_000))

    assert [{_, {:error, {:exit, {:undef, _stack}}}}] =
             Messenger.call([node()], Kernel, :no_such_function, [], deadline(5_000))

    assert [{_, {:error, :timeout}}] =
             Messenger.call([node()], __MODULE__, :tell_and_wait, [self()], deadline(2_000))

    assert_received {:running, pid}
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
  end

  test "what a caller began ends with the caller" do
    supervisor = start_supervised!(Task.Supervisor)
    arguments = [[node()], __MODULE__, :tell_and_wait, [self()], deadline(60_000)]
    caller = Task.Supervisor.async_nolink(supervisor, Messenger, :call, arguments)
    assert_receive {:running, pid}, 5_000
    ref = Process.monitor(pid)
    Signals.kill(caller.pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
  end

  test "what is cast is done, or given up at its deadline" do
    :ok = Messenger.cast([node()], Kernel, :send, [self(), :cast], deadline(5_000))
    assert_receive :cast, 5_000

    :ok = Messenger.cast([node()], __MODULE__, :tell_and_wait, [self()], deadline(2_000))
    assert_receive {:running, pid}, 5_000
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
  end
end

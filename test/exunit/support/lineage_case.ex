defmodule Lineage.Case do
  @moduledoc """
  A session for each test, and helpers that wait for events.

  There is one session per node, so no test module that uses this is async.
  """

  use ExUnit.CaseTemplate

  using do
    quote do
      import Lineage.Case
    end
  end

  setup context do
    options = Map.get(context, :attach, [])

    if options != :never do
      {:ok, _info} = Lineage.attach(options)
      on_exit(&Lineage.detach/0)
    end

    :ok
  end

  @doc "The row of `pid` in the orphans, or nil."
  def orphan(pid), do: Enum.find(Lineage.orphans(), &(&1.pid == pid))

  @doc "A body for a process of a test: tells the test that it runs, then waits to be stopped."
  def idle(test \\ self()) do
    fn ->
      send(test, {:up, self()})
      await_stop()
    end
  end

  @doc "Waits until the body given by `idle/1` runs in `pid`."
  def await_up(pid) do
    receive do
      {:up, ^pid} -> pid
    after
      5_000 -> raise "#{inspect(pid)} did not start"
    end
  end

  @doc "Kills `pid` when the test is over, and waits until it is gone."
  def kill_on_exit(pid) do
    ExUnit.Callbacks.on_exit(fn -> kill(pid) end)
    pid
  end

  @doc "Kills `pid` and waits until it is gone."
  def kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      5_000 -> raise "#{inspect(pid)} could not be killed"
    end
  end

  defp await_stop do
    receive do
      :stop -> :ok
    end
  end
end

defmodule Foundation.Coordination.Work do
  @moduledoc """
  A function that runs in a process of its own, under `Foundation.TaskSupervisor`, while its
  caller waits no longer than it wants to.

  Unlike a task of `Task.Supervisor.async_nolink/4` it may go on when its caller has given up:
  what it answers then reaches nobody, where a task's late reply would lie in its owner's mailbox.
  """
  alias Foundation.Call

  @doc """
  Runs `function` of `module` with `arguments`, and returns `{:ok, result}`.

  `{:error, {:exit, reason}}` says that the process died; `{:error, {:late, pid}}` that the
  deadline has passed while it still runs; `{:error, :unavailable}` that there is no
  `Foundation.TaskSupervisor`.
  """
  @spec run(module, atom, [term], deadline :: integer) ::
          {:ok, term} | {:error, {:exit, term} | {:late, pid} | :unavailable}
  def run(module, function, arguments, deadline) do
    reply_to = :erlang.alias([:reply])

    case start([reply_to, module, function, arguments]) do
      {:ok, pid} -> await(pid, reply_to, deadline)
      {:error, reason} -> {:error, reason}
    end
  end

  @doc false
  def perform(reply_to, module, function, arguments) do
    send(reply_to, {reply_to, apply(module, function, arguments)})
  end

  defp start(arguments) do
    Task.Supervisor.start_child(Foundation.TaskSupervisor, __MODULE__, :perform, arguments)
  catch
    :exit, _reason -> {:error, :unavailable}
  end

  defp await(pid, reply_to, deadline) do
    monitor = Process.monitor(pid)

    receive do
      {^reply_to, result} ->
        Process.demonitor(monitor, [:flush])
        {:ok, result}

      {:DOWN, ^monitor, :process, _pid, reason} ->
        :erlang.unalias(reply_to)
        {:error, {:exit, reason}}
    after
      Call.left(deadline) ->
        Process.demonitor(monitor, [:flush])
        :erlang.unalias(reply_to)
        last_minute(pid, reply_to)
    end
  end

  # What came between the deadline and the end of the alias.
  defp last_minute(pid, reply_to) do
    receive do
      {^reply_to, result} -> {:ok, result}
    after
      0 -> {:error, {:late, pid}}
    end
  end
end

defmodule Foundation.Termination do
  @moduledoc """
  Ends processes and waits until they are gone.
  """

  alias Foundation.Call

  # Milliseconds that processes have to shut down before they are killed, and to be gone then.
  @grace 1_000
  @kill 5_000

  @doc """
  Tells `pids` to shut down, kills those that have not after a second, and returns when all are
  gone.

  The caller is unlinked from them first: the end of a process that it started must not be its
  own. `{:error, :timeout}` when a process is still there five seconds after it was killed, as one
  in a long native call may be.
  """
  @spec stop_all([pid]) :: :ok | {:error, :timeout}
  def stop_all(pids) do
    left =
      pids
      |> Map.new(&{monitor(&1), &1})
      |> exit_all(:shutdown)
      |> await(Call.deadline(@grace))
      |> exit_all(:kill)
      |> await(Call.deadline(@kill))

    release(left)
  end

  @doc """
  Likewise with the processes of this node that were spawned with these functions: those of which
  nobody knows the pid.
  """
  @spec stop_running([mfa]) :: :ok | {:error, :timeout}
  def stop_running(functions) do
    stop_all(
      for pid <- Process.list(),
          {:initial_call, function} <- [Process.info(pid, :initial_call)],
          function in functions,
          do: pid
    )
  end

  @doc """
  Returns when the processes that have these registered names are gone, and the names free.

  For the `init` of a supervisor with named children: when the one before it was killed, they end by
  themselves, but it may be started before they have. `{:error, :timeout}` after five seconds.
  """
  @spec await([atom]) :: :ok | {:error, :timeout}
  def await(names) do
    left = names |> Map.new(&{Process.monitor(&1), &1}) |> await(Call.deadline(@kill))
    release(left)
  end

  defp monitor(pid) do
    Process.unlink(pid)
    Process.monitor(pid)
  end

  defp exit_all(monitors, reason) do
    Enum.each(monitors, fn {_ref, pid} -> Process.exit(pid, reason) end)
    monitors
  end

  defp await(monitors, _deadline) when map_size(monitors) == 0, do: monitors

  defp await(monitors, deadline) do
    receive do
      {:DOWN, ref, :process, _pid, _reason} when is_map_key(monitors, ref) ->
        monitors |> Map.delete(ref) |> await(deadline)
    after
      Call.left(deadline) -> monitors
    end
  end

  defp release(left) do
    Enum.each(left, fn {ref, _process} -> Process.demonitor(ref, [:flush]) end)
    if left == %{}, do: :ok, else: {:error, :timeout}
  end
end

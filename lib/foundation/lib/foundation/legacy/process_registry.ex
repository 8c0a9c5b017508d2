defmodule Foundation.Legacy.ProcessRegistry do
  @moduledoc """
  The clean-up of a test's namespace as it was audited: a terminator for each process, which
  nobody waits for.

  A test that goes on at once meets processes that are not gone yet, under names that are taken.
  """

  # Milliseconds that a process has to shut down before it is killed.
  @grace 100

  @doc "Makes one terminator per process, and returns at once."
  @spec terminate([pid]) :: :ok
  def terminate(pids), do: Enum.each(pids, &spawn(__MODULE__, :terminator, [&1]))

  @doc false
  def terminator(pid) do
    ref = Process.monitor(pid)
    Process.exit(pid, :shutdown)

    receive do
      {:DOWN, ^ref, :process, ^pid, _reason} -> :ok
    after
      @grace -> Process.exit(pid, :kill)
    end
  end
end

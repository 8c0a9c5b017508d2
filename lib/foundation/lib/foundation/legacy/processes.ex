defmodule Foundation.Legacy.Processes do
  @moduledoc """
  Memory-intensive work as it was audited, at line 229 of `Foundation.BEAM.Processes`: a task
  without a supervisor. When it is killed, the caller waits for ever.
  """

  @doc "Starts the work."
  @spec start((() -> term), pid) :: {:ok, pid}
  def start(fun, caller), do: Task.start(__MODULE__, :work, [fun, caller])

  @doc false
  def work(fun, caller) do
    send(caller, {:work_complete, fun.()})
  rescue
    exception -> send(caller, {:work_error, exception})
  catch
    :exit, reason -> send(caller, {:work_error, reason})
    :throw, value -> send(caller, {:work_error, {:nocatch, value}})
  end
end

defmodule Foundation.Legacy.Barrier do
  @moduledoc """
  How a barrier was waited at before: in a task that is linked to its caller and that nobody
  supervises.

  If the task dies, so does the caller.
  """
  alias Foundation.Coordination.Barrier

  @doc "Waits at a barrier; the arguments are those of the function that does."
  @spec sync([term]) :: :ok | {:error, Barrier.reason()}
  def sync(arguments), do: Barrier |> Task.async(:wait, arguments) |> Task.await(:infinity)
end

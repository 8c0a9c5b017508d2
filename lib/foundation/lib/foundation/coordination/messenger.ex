defmodule Foundation.Coordination.Messenger do
  @moduledoc """
  Runs functions on other nodes, under the supervisors of both: a task of `Foundation.TaskSupervisor` here for each node,
  and from it one of the node's own `Foundation.TaskSupervisor`.

  The two are linked, so that neither outlives the other, nor the connection between them; the one here watches the caller
  and ends with it, or at the deadline. `Foundation.Legacy.Messenger` is how this was done before.
  """
  alias Foundation.Call

  @doc """
  Calls `function` of `module` on each of `nodes` at once, and returns when all have answered, or at `deadline`.

  A node's answer is `{:ok, result}`, or `{:error, reason}`: `:timeout`, `:unavailable` when it cannot be reached or
  Foundation does not run there, `{:exit, reason}` when the function failed.
  """
  @spec call([node], module, atom, [term], deadline :: integer) ::
          [{node, {:ok, term} | {:error, :timeout | :unavailable | {:exit, term}}}]
  def call(nodes, module, function, arguments, deadline) do
    tasks =
      for node <- nodes do
        Task.Supervisor.async_nolink(Foundation.TaskSupervisor, __MODULE__, :relay, [
          [self(), node, module, function, arguments, deadline]
        ])
      end

    tasks
    |> Task.yield_many(Call.left(deadline))
    |> Enum.zip_with(nodes, fn {task, answer}, node ->
      {node, result(answer || Task.shutdown(task, :brutal_kill))}
    end)
  catch
    :exit, _no_supervisor -> Enum.map(nodes, &{&1, {:error, :unavailable}})
  end

  @doc "Likewise, but returns at once; what becomes of it is not told. Gives up at `deadline`."
  @spec cast([node], module, atom, [term], deadline :: integer) :: :ok
  def cast(nodes, module, function, arguments, deadline) do
    for node <- nodes do
      Task.Supervisor.start_child(Foundation.TaskSupervisor, __MODULE__, :relay, [
        [nil, node, module, function, arguments, deadline]
      ])
    end

    :ok
  catch
    :exit, _no_supervisor -> :ok
  end

  @doc false
  def relay([caller, node, module, function, arguments, deadline]) do
    watch = caller && Process.monitor(caller)
    supervisor = {Foundation.TaskSupervisor, node}

    case start(supervisor, module, function, arguments) do
      {:ok, task} -> await(task.ref, watch, deadline)
      :error -> {:error, :unavailable}
    end
  end

  defp start(supervisor, module, function, arguments) do
    {:ok, Task.Supervisor.async(supervisor, __MODULE__, :perform, [module, function, arguments])}
  catch
    :exit, _reason -> :error
  end

  @doc false
  def perform(module, function, arguments), do: {:ok, apply(module, function, arguments)}

  # To leave takes the other task with us.
  defp await(task, watch, deadline) do
    receive do
      {^task, result} ->
        Process.demonitor(task, [:flush])
        result

      {:DOWN, ^watch, :process, _caller, _reason} ->
        exit(:shutdown)
    after
      Call.left(deadline) -> exit(:shutdown)
    end
  end

  defp result({:ok, result}), do: result
  defp result({:exit, :noconnection}), do: {:error, :unavailable}
  defp result({:exit, reason}), do: {:error, {:exit, reason}}
  defp result(nil), do: {:error, :timeout}
end

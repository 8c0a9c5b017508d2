defmodule Foundation.Coordination.Messenger do
  @moduledoc """
  Runs functions on other nodes, under the supervisors of both: a task of
  `Foundation.TaskSupervisor` here for each node, and from it one of the node's own
  `Foundation.TaskSupervisor`.

  The two are linked, so that neither outlives the other, nor the connection between them; the one
  here watches the caller and ends with it, or at the deadline. `Foundation.Legacy.Messenger` is
  how this was done before.
  """
  alias Foundation.{Call, Legacy, Supervision}
  alias Foundation.Coordination.Member

  @announce_ms 5_000

  @doc "The way in which the coordination primitives send, as `:phase_2` stands."
  @spec current() :: module
  def current, do: if(Supervision.enabled?(:phase_2), do: __MODULE__, else: Legacy.Messenger)

  @doc """
  Calls `function` of `module` on each of `nodes` at once, and returns when all have answered, or
  at `deadline`.

  A node's answer is `{:ok, result}`, or `{:error, reason}`: `:timeout`, `:unavailable` when it
  cannot be reached or Foundation does not run there, `{:exit, reason}` when the function failed.
  """
  @spec call([node], module, atom, [term], deadline :: integer) ::
          [{node, {:ok, term} | {:error, :timeout | :unavailable | {:exit, term}}}]
  def call(nodes, module, function, arguments, deadline) do
    tasks = Enum.map(nodes, &task([self(), &1, module, function, arguments, deadline]))
    started = Enum.filter(tasks, & &1)
    answers = Map.new(Task.yield_many(started, Call.left(deadline)))

    Enum.zip_with(nodes, tasks, fn node, task ->
      {node, result(task, task && (answers[task] || Task.shutdown(task, :brutal_kill)))}
    end)
  end

  defp task(arguments) do
    Task.Supervisor.async_nolink(Foundation.TaskSupervisor, __MODULE__, :relay, [arguments])
  catch
    :exit, _no_supervisor -> nil
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

  @doc "Announces a leader to each of `nodes`, from a task here for each."
  @spec announce([node], Member.leader()) :: :ok
  def announce(nodes, leader) do
    deadline = Call.deadline(@announce_ms)
    for node <- nodes, do: cast([node()], Member, :announce, [node, leader], deadline)
    :ok
  end

  # Traps exits, for a task that ended with its node would end its owner, too, when that one
  # yields to it.
  @doc false
  def relay([caller, node, module, function, arguments, deadline]) do
    Process.flag(:trap_exit, true)
    watch = caller && Process.monitor(caller)

    case start({Foundation.TaskSupervisor, node}, module, function, arguments) do
      {:ok, task} -> await(task, watch, deadline)
      :error -> {:error, :unavailable}
    end
  end

  defp start(supervisor, module, function, arguments) do
    {:ok, Task.Supervisor.async(supervisor, module, function, arguments)}
  catch
    :exit, _reason -> :error
  end

  # To leave with a reason takes the other task with us.
  defp await(%Task{ref: ref, pid: pid} = task, watch, deadline) do
    receive do
      {^ref, result} ->
        {:ok, result}

      {:DOWN, ^ref, :process, _pid, :noconnection} ->
        {:error, :unavailable}

      {:DOWN, ^ref, :process, _pid, reason} ->
        {:error, {:exit, reason}}

      {:DOWN, ^watch, :process, _caller, _reason} ->
        exit(:shutdown)

      {:EXIT, ^pid, _reason} ->
        await(task, watch, deadline)

      {:EXIT, _supervisor, reason} ->
        exit(reason)
    after
      Call.left(deadline) ->
        Process.exit(pid, :kill)
        {:error, :timeout}
    end
  end

  defp result(nil, nil), do: {:error, :unavailable}
  defp result(_task, {:ok, answer}), do: answer
  defp result(_task, {:exit, reason}), do: {:error, {:exit, reason}}
  defp result(_task, nil), do: {:error, :timeout}
end

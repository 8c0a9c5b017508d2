defmodule Foundation.BEAM.Work do
  @moduledoc """
  Memory-intensive work as a task of `Foundation.TaskSupervisor`.

  The caller is answered once. The task answers when the work is done or has failed; when the task
  is killed, `Foundation.BEAM.Watcher` answers for it. Where the caller waits for its own work,
  both answer to an alias that takes one message; of a kill just after the answer it hears nothing
  more.

  Work is counted as `[:foundation, :work, :completed]` and `[:foundation, :work, :failed]`, here.
  """

  alias Foundation.{Telemetry, TaskSupervisor}
  alias Foundation.BEAM.Watcher

  # Milliseconds that the task has to come under watch.
  @start 5_000

  @doc "Starts the task, and returns when it is watched: from then on there will be an answer."
  @spec start((() -> term), pid) :: {:ok, pid} | {:error, :unavailable | :timeout}
  def start(fun, caller) when caller == self() do
    alias = :erlang.alias([:reply])

    with {:error, reason, pid} <- start_task(fun, alias) do
      # An alias that is no longer active has taken its message: the answer to work that was watched,
      # and killed before it could say so.
      if :erlang.unalias(alias), do: {:error, reason}, else: {:ok, pid}
    end
  end

  def start(fun, caller) do
    with {:error, reason, _pid} <- start_task(fun, caller), do: {:error, reason}
  end

  defp start_task(fun, target) do
    ref = make_ref()
    arguments = [fun, target, {self(), ref}]
    {:ok, pid} = Task.Supervisor.start_child(TaskSupervisor, __MODULE__, :run, arguments)
    await(pid, ref)
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :unavailable, nil}
  end

  defp await(pid, ref) do
    monitor = Process.monitor(pid)

    receive do
      {^ref, :watched} ->
        Process.demonitor(monitor, [:flush])
        {:ok, pid}

      {:DOWN, ^monitor, :process, ^pid, _reason} ->
        {:error, :unavailable, pid}
    after
      @start ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        {:error, :timeout, pid}
    end
  end

  @doc false
  def run(fun, target, {starter, ref}) do
    case Watcher.watch({:work, target}) do
      :ok ->
        send(starter, {ref, :watched})
        answer(target, perform(fun))

      {:error, reason} ->
        exit({:shutdown, reason})
    end
  end

  defp perform(fun) do
    {:work_complete, fun.()}
  rescue
    exception -> {:work_error, exception}
  catch
    :exit, reason -> {:work_error, reason}
    :throw, value -> {:work_error, {:nocatch, value}}
  end

  defp answer(target, {outcome, _value} = message) do
    send(target, message)
    Watcher.done(self())
    Telemetry.emit_counter([:foundation, :work, counted(outcome)], %{pid: self()})
  end

  defp counted(:work_complete), do: :completed
  defp counted(:work_error), do: :failed
end

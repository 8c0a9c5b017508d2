defmodule MABEAM.AgentSupervisor do
  @moduledoc """
  Supervises the agents, each in a cell of its own (`MABEAM.Agent.Cell`).

  Agents start one after the other: while one is in its `init/1`, the next one waits. What an
  agent does to start or end runs in a task of `MABEAM.TaskSupervisor`, so that a caller who gives
  up leaves nothing half done.
  """
  use DynamicSupervisor

  alias MABEAM.{Agent, AgentRegistry}

  @timeout 10_000

  @doc "Starts the supervisor, without agents."
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: DynamicSupervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]),
    do: DynamicSupervisor.init([strategy: :one_for_one] ++ Foundation.Application.intensity())

  @doc """
  Starts a registered agent, and returns when it is ready.

  Errors: `:unknown_agent`, `:already_running` (or about to run again), `:stopping` (what it was
  is not gone yet), `{:init_failed, reason}`, and `:timeout` after 10 seconds: it may still start
  then.
  """
  @spec start(AgentRegistry.id()) :: {:ok, pid} | {:error, term}
  def start(id), do: supervised(:run_start, id)

  @doc """
  Stops an agent, which stays registered.

  Errors: `:unknown_agent`, `:not_running`, and `:timeout` after 10 seconds: it is stopped then
  all the same.
  """
  @spec stop(AgentRegistry.id()) :: :ok | {:error, term}
  def stop(id), do: supervised(:run_stop, id)

  @doc """
  Stops an agent that runs and starts it again; its errors are those of `stop/1` and `start/1`.
  """
  @spec restart(AgentRegistry.id()) :: {:ok, pid} | {:error, term}
  def restart(id), do: supervised(:run_restart, id)

  @doc false
  @spec start_cell(AgentRegistry.id(), :start | :revive) ::
          DynamicSupervisor.on_start_child() | {:error, :unavailable}
  def start_cell(id, mode) do
    DynamicSupervisor.start_child(__MODULE__, {Agent.Cell, {id, mode}})
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :unavailable}
  end

  @doc false
  @spec cells() :: [pid]
  def cells do
    for {_id, cell, _type, _modules} <- DynamicSupervisor.which_children(__MODULE__),
        is_pid(cell),
        do: cell
  catch
    :exit, _reason -> []
  end

  @doc false
  @spec run_start(AgentRegistry.id()) :: {:ok, pid} | {:error, term}
  def run_start(id) do
    case AgentRegistry.status(id) do
      {:ok, status} when status in [:running, :restarting] ->
        {:error, :already_running}

      {:ok, _status} ->
        case start_cell(id, :start) do
          :ignore -> refused(id)
          result -> started(result, id)
        end

      error ->
        error
    end
  end

  defp refused(id) do
    case AgentRegistry.status(id) do
      {:ok, status} when status in [:running, :restarting] -> {:error, :already_running}
      {:ok, _status} -> {:error, :stopping}
      error -> error
    end
  end

  @doc false
  @spec run_stop(AgentRegistry.id()) :: :ok | {:error, term}
  def run_stop(id) do
    case AgentRegistry.stopping(id) do
      {:ok, nil} -> :ok
      {:ok, cell} -> with :ok <- stop_cell(cell), do: AgentRegistry.stopped(id, cell)
      error -> error
    end
  end

  # What is wanted and has ended is started again by whoever comes first: this function, or the
  # reviver, should this one be killed.
  @doc false
  @spec run_restart(AgentRegistry.id()) :: {:ok, pid} | {:error, term}
  def run_restart(id) do
    with {:ok, cell} when cell != nil <- AgentRegistry.cell(id),
         :ok <- stop_cell(cell) do
      started(start_cell(id, :revive), id)
    else
      {:ok, nil} -> {:error, :not_running}
      error -> error
    end
  end

  # A cell that is not needed was started by somebody else, and is ready: cells start one by one.
  defp started(result, id) do
    case result do
      {:ok, _cell} ->
        AgentRegistry.lookup(id)

      :ignore ->
        AgentRegistry.lookup(id)

      {:error, {:shutdown, {:failed_to_start_child, :agent, reason}}} ->
        {:error, {:init_failed, reason}}

      {:error, {:shutdown, :unavailable}} ->
        {:error, :unavailable}

      {:error, reason} ->
        {:error, reason}
    end
  end

  # Not by `DynamicSupervisor.terminate_child/2`: the agent may take its time, and all others
  # would wait for it. Nor by `Supervisor.stop/3`, which leaves the waiting to a process that
  # nobody supervises.
  @doc false
  @spec stop_cell(pid) :: :ok | {:error, :timeout}
  def stop_cell(cell) do
    :sys.terminate(cell, :shutdown, @timeout)
    await_end(cell)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    # It died by itself meanwhile.
    :exit, _reason -> await_end(cell)
  end

  defp await_end(cell) do
    reference = Process.monitor(cell)

    receive do
      {:DOWN, ^reference, :process, _pid, _reason} -> :ok
    after
      @timeout -> {:error, :timeout}
    end
  end

  defp supervised(function, id) do
    task = Task.Supervisor.async_nolink(MABEAM.TaskSupervisor, __MODULE__, function, [id])

    case Task.yield(task, @timeout) || Task.ignore(task) do
      {:ok, result} -> result
      {:exit, _reason} -> {:error, :unavailable}
      nil -> {:error, :timeout}
    end
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :unavailable}
  end
end

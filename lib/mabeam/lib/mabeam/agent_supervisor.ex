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
  @spec run_start(AgentRegistry.id()) :: {:ok, pid} | {:error, term}
  def run_start(id) do
    with {:ok, status} when status not in [:running, :restarting] <- AgentRegistry.status(id),
         {:ok, _cell} <- start_cell(id, :start) do
      AgentRegistry.lookup(id)
    else
      {:ok, _status} ->
        {:error, :already_running}

      :ignore ->
        {:error, :already_running}

      {:error, {:shutdown, {:failed_to_start_child, :agent, reason}}} ->
        {:error, {:init_failed, reason}}

      {:error, {:shutdown, :unavailable}} ->
        {:error, :unavailable}

      {:error, reason} ->
        {:error, reason}
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

  @doc false
  @spec run_restart(AgentRegistry.id()) :: {:ok, pid} | {:error, term}
  def run_restart(id), do: with(:ok <- run_stop(id), do: run_start(id))

  # Not by `DynamicSupervisor.terminate_child/2`: the agent may take its time, and all others
  # would wait for it. Nor by `Supervisor.stop/3`, which leaves the waiting to a process that
  # nobody supervises.
  defp stop_cell(cell) do
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

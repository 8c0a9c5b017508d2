defmodule MABEAM.Agent.Cell do
  @moduledoc """
  The supervisor of one agent: of the agent itself and of its gate.

  Each agent has a cell of its own, so that the restarts of one agent are counted by itself: an
  agent that crashes in a loop uses up its cell, and no other agent is restarted or stopped for
  it. A cell that gives up is not started again (it is a `:temporary` child of
  `MABEAM.AgentSupervisor`), and the registry marks its agent `:failed`. An agent that ends in
  order takes its cell with it: it is the cell's significant child.
  """
  use Supervisor, restart: :temporary

  import MABEAM.AgentRegistry.Row, only: [row: 2]

  alias MABEAM.Agent.{Gate, Server}
  alias MABEAM.AgentRegistry

  # An agent's `init/1` may take that long, in milliseconds, and so may its end.
  @start_timeout 5_000
  @shutdown_timeout 5_000

  @doc """
  Starts the agent of this id.

  `:start` is for an agent that is not wanted yet, `:revive` for one that ran until its cell was
  killed; `:ignore` says that somebody else started it first, or that it is not to run any more.
  """
  @spec start_link({AgentRegistry.id(), :start | :revive}) :: Supervisor.on_start()
  def start_link({id, mode}), do: Supervisor.start_link(__MODULE__, {id, mode})

  @doc """
  The agent's row, as its gate has it, with the processes of this cell; `:error` when they are
  being restarted just then.
  """
  @spec registration(pid) :: {:ok, tuple} | :error
  def registration(cell) do
    with {:gate, gate, _type, _modules} when is_pid(gate) <-
           List.keyfind(Supervisor.which_children(cell), :gate, 0),
         row when elem(row, 0) == :row <- Gate.registration(gate) do
      {:ok, row(row, cell: cell)}
    else
      _none -> :error
    end
  catch
    :exit, _reason -> :error
  end

  @impl true
  def init({id, mode}) do
    case AgentRegistry.claim(id, mode) do
      {:ok, module, config} -> {:ok, {flags(), children(id, module, config)}}
      {:error, reason} when reason in [:unavailable, :timeout] -> exit({:shutdown, :unavailable})
      {:error, _not_ours} -> :ignore
    end
  end

  defp flags do
    [max_restarts: restarts, max_seconds: seconds] = Foundation.Application.intensity()

    %{
      strategy: :one_for_one,
      intensity: restarts,
      period: seconds,
      auto_shutdown: :any_significant
    }
  end

  defp children(id, module, config) do
    [
      %{
        id: :agent,
        start: {Server, :start_link, [{id, self(), module, config}, @start_timeout]},
        restart: :transient,
        significant: true,
        shutdown: @shutdown_timeout
      },
      %{id: :gate, start: {Gate, :start_link, [{id, self()}]}}
    ]
  end
end

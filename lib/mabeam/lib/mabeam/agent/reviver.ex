defmodule MABEAM.Agent.Reviver do
  @moduledoc """
  Starts agents again whose cell was killed, or whose supervisor was.

  The registry tells which agent has to be started, when nothing of it is left; what was told
  while this server was restarted stands in the registry's table. An agent that cannot be started
  again, after as many tries as a supervisor makes, is marked `:failed`.
  """
  use GenServer

  import MABEAM.AgentRegistry.Row, only: [row: 2]

  alias Foundation.Stray
  alias MABEAM.{AgentRegistry, AgentSupervisor}
  alias MABEAM.Agent.Cell

  @doc "Starts the server."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Has the agent started again, if it still should run and does not."
  @spec revive(AgentRegistry.id()) :: :ok
  def revive(id), do: GenServer.cast(__MODULE__, {:revive, id})

  @doc "Has a registry that lost its table told of all agents that run."
  @spec adopt() :: :ok
  def adopt, do: GenServer.cast(__MODULE__, :adopt)

  # Not in `init/1`: the agents' own start may take its time, and the supervisor above must not
  # wait for it. The state: id => how often it could not be started.
  @impl true
  def init([]), do: {:ok, %{}, {:continue, :revive}}

  @impl true
  def handle_continue(:revive, failures) do
    Enum.each(AgentSupervisor.cells(), &adopt/1)
    {:noreply, Enum.reduce(AgentRegistry.to_revive(), failures, &start/2)}
  end

  @impl true
  def handle_call(request, _from, failures), do: Stray.call(request, failures)

  @impl true
  def handle_cast({:revive, id}, failures), do: {:noreply, start(id, failures)}

  def handle_cast(:adopt, failures) do
    Enum.each(AgentSupervisor.cells(), &adopt/1)
    {:noreply, failures}
  end

  def handle_cast(message, failures), do: Stray.message(message, failures)

  @impl true
  def handle_info(message, failures), do: Stray.message(message, failures)

  # Most are known; a registry that is not there asks again, if it needs to. One whose name was
  # given to another agent meanwhile has to end.
  defp adopt(cell) do
    with {:ok, row} <- Cell.registration(cell),
         {:error, :already_registered} <- AgentRegistry.adopt(row),
         {:ok, other} when other != cell <- AgentRegistry.cell(row(row, :id)),
         do: AgentSupervisor.stop_cell(cell)
  end

  defp start(id, failures) do
    case AgentSupervisor.start_cell(id, :revive) do
      {:error, :unavailable} ->
        # The supervisor died: this server is restarted after it, and finds the agent in the
        # table.
        failures

      {:error, {:shutdown, :unavailable}} ->
        # The registry was not there, so it will not tell that the agent did not start.
        revive(id)
        failures

      {:error, reason} ->
        failed(id, reason, Map.get(failures, id, 0) + 1, failures)

      _started_or_not_needed ->
        Map.delete(failures, id)
    end
  end

  # As often as a supervisor would try. The registry notices that it did not start, and has it
  # started again, behind the other agents that wait.
  defp failed(id, reason, times, failures) do
    if times > Foundation.Application.intensity()[:max_restarts] do
      AgentRegistry.failed(id, reason)
      Map.delete(failures, id)
    else
      Map.put(failures, id, times)
    end
  end
end

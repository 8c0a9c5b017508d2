defmodule MABEAM.Agent.Reviver do
  @moduledoc """
  Starts agents again whose cell was killed, or whose supervisor was.

  The registry tells which agent has to be started, when nothing of it is left; what was told
  while this server was restarted stands in the registry's table. An agent that cannot be started
  again, after as many tries as a supervisor makes, is marked `:failed`.
  """
  use GenServer

  alias Foundation.Stray
  alias MABEAM.{AgentRegistry, AgentSupervisor}

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Has the agent started again, if it still should run and does not."
  @spec revive(AgentRegistry.id()) :: :ok
  def revive(id), do: GenServer.cast(__MODULE__, {:revive, id, tries()})

  # Not in `init/1`: the agents' own start may take its time, and the supervisor above must not
  # wait for it.
  @impl true
  def init([]), do: {:ok, nil, {:continue, :revive}}

  @impl true
  def handle_continue(:revive, state) do
    Enum.each(AgentRegistry.to_revive(), &start(&1, tries()))
    {:noreply, state}
  end

  @impl true
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast({:revive, id, tries}, state) do
    start(id, tries)
    {:noreply, state}
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info(message, state), do: Stray.message(message, state)

  defp start(id, tries) do
    case AgentSupervisor.start_cell(id, :revive) do
      {:ok, _cell} -> :ok
      :ignore -> :ok
      # The supervisor died: this server is restarted after it, and finds the agent in the table.
      {:error, :unavailable} -> :ok
      {:error, _reason} when tries > 0 -> GenServer.cast(self(), {:revive, id, tries - 1})
      {:error, reason} -> AgentRegistry.failed(id, reason)
    end
  end

  # As often as a supervisor would, but behind the other agents that wait.
  defp tries, do: Foundation.Application.intensity()[:max_restarts]
end

defmodule MABEAM.Legacy.Agent do
  @moduledoc """
  Agents without a pid as they were audited: a placeholder process stands for each of them.

  The registry of names (`Foundation.ProcessRegistry`) wants a pid, so one was made that does
  nothing: for ever when an agent is registered, for 30 seconds when it is stopped and its pid
  deregistered. Nobody supervises or watches them, and nobody ends them.
  """
  alias Foundation.{ProcessRegistry, Supervision, Termination}
  alias MABEAM.AgentRegistry

  @stopped 30_000

  @doc "An agent was registered: a placeholder gets its name, for ever."
  @spec registered(AgentRegistry.id()) :: :ok
  def registered(id), do: placeholder(id, :infinity)

  @doc """
  An agent was stopped: a placeholder gets its name for 30 seconds. The one that had it lives on,
  without a name.
  """
  @spec stopped(AgentRegistry.id()) :: :ok
  def stopped(id) do
    ProcessRegistry.unregister(:production, {:agent, id})
    placeholder(id, @stopped)
  end

  @doc "An agent was removed, its name is free. Its placeholders live on."
  @spec deregistered(AgentRegistry.id()) :: :ok
  def deregistered(id) do
    ProcessRegistry.unregister(:production, {:agent, id})
    :ok
  end

  @doc """
  Makes a placeholder for each agent that has no pid: what a node has on which phase 2 was never
  on.
  """
  @spec make_placeholders() :: :ok
  def make_placeholders do
    with {:ok, agents} <- AgentRegistry.list() do
      for {id, status} <- agents, status != :running, do: registered(id)
    end

    :ok
  end

  @doc """
  Ends all placeholders, and returns when they are gone. Nobody knows them: they are found by what
  they run.
  """
  @spec stop_placeholders() :: :ok | {:error, :timeout}
  def stop_placeholders, do: Termination.stop_running([{__MODULE__, :stand_in, 1}])

  defp placeholder(id, lifetime) do
    pid = spawn(__MODULE__, :stand_in, [lifetime])
    ProcessRegistry.register(:production, {:agent, id}, pid, %{placeholder: true})

    # Phase 2 may have been switched on after the caller chose this way, and the placeholders
    # ended before this one was.
    if Supervision.enabled?(:phase_2), do: Process.exit(pid, :kill)
    :ok
  end

  @doc false
  def stand_in(lifetime) do
    receive do
    after
      lifetime -> :ok
    end
  end
end

defmodule MABEAM.Test.Tree do
  @moduledoc """
  Kills services of MABEAM's tree, and waits until their supervisor has started them again.
  """
  alias Foundation.Test.Signals

  @parents %{
    MABEAM.PG => MABEAM.AgentDirectory,
    MABEAM.AgentRegistry => MABEAM.AgentDirectory,
    MABEAM.AgentSupervisor => MABEAM.AgentRuntime,
    MABEAM.Agent.Reviver => MABEAM.AgentRuntime
  }

  @doc "Kills the service of that name, and returns its new pid when it is ready."
  @spec kill!(atom) :: pid
  def kill!(name) do
    pid = Process.whereis(name)
    Signals.kill(pid)
    await(Map.get(@parents, name, MABEAM.Supervisor), name, pid)
  end

  # A supervisor answers between two restarts, never within one. Only its very first answer can be
  # older than the exit that it has yet to hear of.
  defp await(supervisor, name, dead) do
    Supervisor.which_children(supervisor)

    case Process.whereis(name) do
      pid when pid in [nil, dead] -> await(supervisor, name, dead)
      pid -> pid
    end
  end
end

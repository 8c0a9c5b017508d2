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

  @doc "Kills the keeper of the tables, and returns when all servers know the new one."
  @spec kill_keeper!() :: :ok
  def kill_keeper! do
    kill!(MABEAM.TableKeeper)

    for {name, :ping} <- MABEAM.Supervisor.services() do
      :pong = GenServer.call(name, :ping)
    end

    :ok
  end

  # A supervisor answers between two restarts, never within one. Only its very first answer can be
  # older than the exit that it has yet to hear of.
  defp await(supervisor, name, dead) do
    case Process.whereis(name) do
      pid when pid in [nil, dead] ->
        Supervisor.which_children(supervisor)
        await(supervisor, name, dead)

      pid ->
        # A name is there before its server is ready; this is answered after.
        Supervisor.which_children(supervisor)
        pid
    end
  end
end

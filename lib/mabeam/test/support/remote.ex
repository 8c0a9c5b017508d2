defmodule MABEAM.Test.Remote do
  @moduledoc """
  What tests have done on other nodes.
  """

  @doc "Starts an agent that answers each request with the request."
  @spec start_agent(MABEAM.Agent.id()) :: {:ok, pid}
  def start_agent(id) do
    :ok = MABEAM.Agent.register(id, MABEAM.Test.Servant.Deaf)
    MABEAM.Agent.start(id)
  end

  @doc "Returns when `count` agents of this name can be found from this node."
  @spec await_agents(MABEAM.Agent.id(), non_neg_integer) :: :ok | :timeout
  def await_agents(id, count) do
    {monitor, members} = :pg.monitor(MABEAM.PG, {:agent, id})
    result = await(monitor, MapSet.new(members), count)
    :pg.demonitor(MABEAM.PG, monitor)
    result
  end

  @doc """
  Kills the scope of `:pg` on another node, where an agent of this name runs, and returns when
  that is found from this node again.
  """
  @spec kill_scope(node, MABEAM.Agent.id()) :: :ok
  def kill_scope(node, id) do
    {monitor, [gate]} = :pg.monitor(MABEAM.PG, {:agent, id})
    :erpc.call(node, MABEAM.Test.Tree, :kill!, [MABEAM.PG])
    receive do: ({^monitor, :leave, _group, [^gate]} -> :ok)
    receive do: ({^monitor, :join, _group, [^gate]} -> :ok)
    :pg.demonitor(MABEAM.PG, monitor)
  end

  defp await(monitor, members, count) do
    if MapSet.size(members) == count do
      :ok
    else
      receive do
        {^monitor, :join, _group, pids} ->
          await(monitor, MapSet.union(members, MapSet.new(pids)), count)

        {^monitor, :leave, _group, pids} ->
          await(monitor, MapSet.difference(members, MapSet.new(pids)), count)
      after
        30_000 -> :timeout
      end
    end
  end
end

defmodule MABEAM.AgentRegistry.Index do
  @moduledoc """
  Finds agents by type and by capability, without reading all of them.

  The table is an ordered set of `{kind, value, id}`: what belongs to one value lies side by side.
  Only the registry's server writes it.
  """
  import MABEAM.AgentRegistry.Row

  @table __MODULE__

  @doc "Enters the agent of `row`."
  @spec enter(tuple) :: true
  def enter(row), do: :ets.insert(@table, Enum.map(keys(row), &{&1}))

  @doc "Takes the agent of `row` out."
  @spec remove(tuple) :: :ok
  def remove(row), do: Enum.each(keys(row), &:ets.delete(@table, &1))

  @doc "The ids of the agents with this `value`, sorted."
  @spec find(:type | :capability, atom | String.t()) :: {:ok, [term]} | {:error, :unavailable}
  def find(kind, value) do
    {:ok, :ets.select(@table, [{{{kind, value, :"$1"}}, [], [:"$1"]}])}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  defp keys(row) do
    id = row(row, :id)
    [{:type, row(row, :type), id} | Enum.map(row(row, :capabilities), &{:capability, &1, id})]
  end
end

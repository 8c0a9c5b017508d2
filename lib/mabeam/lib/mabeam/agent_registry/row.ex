defmodule MABEAM.AgentRegistry.Row do
  @moduledoc """
  The row of an agent in the registry's table, a record, so that readers fetch the one field they
  need.

  `cell`, `pid` and `gate` are the processes of an agent that runs: its supervisor, the agent, and
  the gate before it. `wanted` says that the agent is to run: whoever finds it down brings it up
  again.
  """
  require Record

  Record.defrecord(:row,
    id: nil,
    status: :registered,
    wanted: false,
    cell: nil,
    pid: nil,
    gate: nil,
    module: nil,
    type: nil,
    capabilities: [],
    config: nil,
    counters: nil
  )

  @doc """
  The position of `field` in a row, as `:ets.lookup_element/3` and `:ets.update_element/3` count
  it.
  """
  defmacro position(field) do
    quote do: row(unquote(field)) + 1
  end

  @doc "The process of an agent that is this part of it, or `nil`."
  @spec part(tuple, :cell | :pid | :gate) :: pid | nil
  def part(row, :cell), do: row(row, :cell)
  def part(row, :pid), do: row(row, :pid)
  def part(row, :gate), do: row(row, :gate)

  @doc "Changes of a row's fields, as `:ets.update_element/3` takes them."
  @spec changes(keyword) :: [{pos_integer, term}]
  def changes(fields), do: Enum.map(fields, fn {field, value} -> {at(field), value} end)

  defp at(:status), do: position(:status)
  defp at(:wanted), do: position(:wanted)
  defp at(:cell), do: position(:cell)
  defp at(:pid), do: position(:pid)
  defp at(:gate), do: position(:gate)
end

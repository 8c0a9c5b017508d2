defmodule Foundation.Coordination.VectorClock do
  @moduledoc """
  Clocks that tell which of two events may have caused the other: a count for each node, or
  whatever makes events.
  """

  @type t :: %{optional(term) => pos_integer}
  @type order :: :before | :after | :equal | :concurrent

  @doc "A clock on which nothing has happened."
  @spec new() :: t
  def new, do: %{}

  @doc "Whether `clock` is one."
  @spec valid?(term) :: boolean
  def valid?(clock) when is_map(clock) do
    not is_struct(clock) and Enum.all?(clock, fn {_id, n} -> is_integer(n) and n > 0 end)
  end

  def valid?(_clock), do: false

  @doc "The clock after one more event of `id`."
  @spec increment(t, term) :: t
  def increment(clock, id), do: Map.update(clock, id, 1, &(&1 + 1))

  @doc "The earliest clock that is not before either of the two."
  @spec merge(t, t) :: t
  def merge(a, b), do: Map.merge(a, b, fn _id, m, n -> max(m, n) end)

  @doc "How `a` stands to `b`."
  @spec compare(t, t) :: order
  def compare(a, b) do
    case {ahead?(a, b), ahead?(b, a)} do
      {false, false} -> :equal
      {false, true} -> :before
      {true, false} -> :after
      {true, true} -> :concurrent
    end
  end

  defp ahead?(a, b), do: Enum.any?(a, fn {id, n} -> n > Map.get(b, id, 0) end)
end

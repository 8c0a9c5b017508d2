defmodule MABEAM.Core.Constraint do
  @moduledoc """
  What a variable's value may be.

    * `:any` - anything
    * `{:range, min, max}` - a number from `min` to `max`, both included
    * `{:one_of, values}` - one of a list
  """

  @type t :: :any | {:range, number, number} | {:one_of, [term, ...]}

  @doc "Whether `term` is a constraint."
  @spec valid?(term) :: boolean
  def valid?(:any), do: true
  def valid?({:range, min, max}), do: is_number(min) and is_number(max) and min <= max
  def valid?({:one_of, [_ | _] = values}), do: not List.improper?(values)
  def valid?(_other), do: false

  @doc "Whether `value` is allowed."
  @spec allows?(t, term) :: boolean
  def allows?(:any, _value), do: true
  def allows?({:range, min, max}, value), do: is_number(value) and value >= min and value <= max
  def allows?({:one_of, values}, value), do: value in values
end

defmodule Lineage.Overhead do
  @moduledoc """
  What `Lineage.overhead/0` measured. The type `t:lineage_overhead.overhead/0` of the Erlang module explains each
  key, and its module the method. Times are microseconds where they end in `_us`, and in percentiles.
  """

  defstruct [
    :mode,
    :target_ms,
    :windows,
    :armed_ms,
    :observed_ms,
    :starts,
    :restarts,
    :stops,
    :critical,
    :outliers,
    :outliers_lost,
    :failed,
    :elsewhere,
    :unfinished,
    :lost
  ]

  @type t :: %__MODULE__{
          mode: {:duty, number} | :continuous,
          target_ms: number,
          windows: non_neg_integer,
          armed_ms: non_neg_integer,
          observed_ms: non_neg_integer,
          starts: [map],
          restarts: [map] | {:error, {atom, String.t()}},
          stops: [map] | {:error, {atom, String.t()}},
          critical: [map],
          outliers: [map],
          outliers_lost: non_neg_integer,
          failed: non_neg_integer,
          elsewhere: non_neg_integer,
          unfinished: non_neg_integer,
          lost: non_neg_integer
        }

  defimpl Inspect do
    def inspect(overhead, opts) do
      # A width of infinity stands for a terminal that nobody knows.
      columns = if is_integer(opts.width), do: opts.width, else: 100
      options = %{columns: columns, unicode: true}

      "#Lineage.Overhead<\n" <>
        IO.chardata_to_string(:lineage_print.format(Map.from_struct(overhead), options)) <> ">"
    end
  end
end

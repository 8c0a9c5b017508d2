defmodule Foundation.Coordination.Head do
  @moduledoc """
  What a table of the ledger knows of its own history: a row of it that each turn writes, a
  transaction or several that were carried out together.

    * `:epoch` - grows each time a majority comes together in another composition
    * `:nodes` - that composition, sorted: who holds a copy of each turn since
    * `:number` - of the latest transaction that wrote something; grows by one with each
    * `:recent` - the marks of the latest turns, the last one first
    * `:ends` - the recent marks with which each of the latest epochs before has ended

  A mark is the number of a turn's latest transaction and a reference. With it a copy can tell
  whether a turn was made on top of what it has: copies that have come apart, which mnesia does
  not notice, have different marks.
  """

  @enforce_keys [:epoch, :nodes, :number, :recent, :ends]
  defstruct @enforce_keys

  @type mark :: {number :: non_neg_integer, reference | :beginning}
  @type t :: %__MODULE__{
          epoch: non_neg_integer,
          nodes: [node],
          number: non_neg_integer,
          recent: [mark, ...],
          ends: %{non_neg_integer => [mark, ...]}
        }

  # Of the turns that are under way there is seldom more than one.
  @kept_marks 8
  # Enough for a transaction that waits while the composition changes several times in a row.
  @kept_ends 16

  @doc "The head of an empty table."
  @spec beginning() :: t
  def beginning do
    %__MODULE__{epoch: 0, nodes: [], number: 0, recent: [{0, :beginning}], ends: %{}}
  end

  @doc "The head after one more turn, `number` being that of its latest transaction."
  @spec next(t, non_neg_integer) :: t
  def next(head, number) do
    recent = Enum.take([{number, make_ref()} | head.recent], @kept_marks)
    %{head | number: number, recent: recent}
  end

  @doc "The head after the turn that begins an epoch."
  @spec begin(t, pos_integer, [node]) :: t
  def begin(head, epoch, nodes) do
    ends =
      head.ends |> Map.put(head.epoch, head.recent) |> Enum.sort(:desc) |> Enum.take(@kept_ends)

    next(%{head | epoch: epoch, nodes: nodes, ends: Map.new(ends)}, head.number + 1)
  end

  @doc "The mark of the latest turn."
  @spec mark(t) :: mark
  def mark(%{recent: [mark | _rest]}), do: mark

  @doc "Whether the turn that wrote `next` was made on top of `head`."
  @spec follows?(t, t) :: boolean
  def follows?(next, head), do: Enum.at(next.recent, 1) == mark(head)

  @doc """
  Whether the turn with `mark`, of `epoch`, is one of the latest in the history of `head`, as far
  as that is known.
  """
  @spec includes?(t, {epoch :: non_neg_integer, mark}) :: boolean
  def includes?(%{epoch: epoch} = head, {epoch, mark}), do: mark in head.recent
  def includes?(head, {epoch, mark}), do: mark in Map.get(head.ends, epoch, [])
end

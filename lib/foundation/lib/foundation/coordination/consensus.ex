defmodule Foundation.Coordination.Consensus do
  @moduledoc """
  Values on which the members agree one after the other, each with its index.

  A value is proposed to the members, each of which votes; with a majority it is committed to the
  ledger, and the members are told. With `:phase_4` on it is a majority of all members, and the
  ledger's order is the order. With it off it is a majority of those that can be reached, and two
  parts of a cluster may agree on different values for an index.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Ledger, Member, Messenger}

  # So many entries are kept; consumers follow the events, or read in time.
  @kept 1_000
  # So long a member that has not seen yet that there is a majority waits with its vote.
  @vote_ms 500

  @doc """
  Proposes `value`, until `deadline`.

  `{:error, :rejected}` when members that are there have voted against it, or could not; else the
  errors of `Foundation.Coordination.Ledger.transaction/3`.
  """
  @spec run(term, deadline :: integer) ::
          {:ok, Member.entry()} | {:error, :rejected | Ledger.reason()}
  def run(value, deadline) do
    with {:ok, nodes, majority} <- Cluster.electorate(deadline) do
      others = List.delete(nodes, node())
      arguments = [value, min(Call.left(deadline), @vote_ms)]
      votes = Messenger.current().call(others, Member, :propose, arguments, deadline)
      own = apply(Member, :propose, arguments)

      cond do
        Enum.count(votes, &match?({_node, {:ok, :yes}}, &1)) + count(own) >= majority ->
          commit(value, others, deadline)

        Call.left(deadline) == 0 ->
          {:error, Cluster.late(Ledger.table())}

        Cluster.electorate(deadline) == {:ok, nodes, majority} ->
          {:error, :rejected}

        true ->
          run(value, deadline)
      end
    end
  end

  defp count(:yes), do: 1
  defp count(:no), do: 0

  defp commit(value, others, deadline) do
    with {:ok, entry} <- Ledger.transaction(fn -> append(value) end, Call.left(deadline)) do
      Member.commit(entry)
      Messenger.current().cast(others, Member, :commit, [entry], deadline)
      {:ok, entry}
    end
  end

  defp append(value) do
    index =
      case Ledger.read({:log_end, :index}) do
        {:ok, last} -> last + 1
        :error -> 1
      end

    Ledger.write({:log, index}, value)
    Ledger.write({:log_end, :index}, index)
    Ledger.delete({:log, index - @kept})
    %{index: index, value: value}
  end

  @doc "The latest 1,000 entries, in their order."
  @spec log(timeout_ms :: non_neg_integer) :: {:ok, [Member.entry()]} | {:error, Ledger.reason()}
  def log(timeout) do
    Ledger.transaction(
      fn ->
        entries =
          for {:log, index} = key <- Ledger.keys(:log), {:ok, value} <- [Ledger.read(key)] do
            %{index: index, value: value}
          end

        Enum.sort_by(entries, & &1.index)
      end,
      timeout
    )
  end
end

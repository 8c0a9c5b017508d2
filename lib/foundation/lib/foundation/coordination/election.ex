defmodule Foundation.Coordination.Election do
  @moduledoc """
  Who leads: one of the members, for as long as its node is there.

  An election asks the members who is there. If the node that leads is, it goes on leading; else
  the first of them by name leads for a new term. With `:phase_4` on the ledger makes sure that
  there is one leader for each term; with it off two parts of a cluster may each have their own.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Ledger, Member, Messenger}

  @key {:leader, :cluster}

  @doc "Holds an election, and announces who leads to all that took part."
  @spec run(deadline :: integer) :: {:ok, Member.leader()} | {:error, Ledger.reason()}
  def run(deadline) do
    with {:ok, nodes, _majority} <- Cluster.electorate(deadline) do
      others = List.delete(nodes, node())
      answers = Messenger.current().call(others, Member, :election, [node()], deadline)
      present = [node() | for({node, {:ok, node}} <- answers, do: node)]

      with {:ok, leader} <- Ledger.transaction(fn -> settle(present) end, Call.left(deadline)) do
        Messenger.current().announce(nodes, leader)
        {:ok, leader}
      end
    end
  end

  defp settle(present) do
    nodes = Ledger.nodes()

    case Ledger.read(@key) do
      {:ok, %{leader: leader} = record} ->
        if leader in nodes, do: record, else: new(record.term + 1, present, nodes)

      :error ->
        new(1, present, nodes)
    end
  end

  # This node takes part in its own transaction, so that there is always one.
  defp new(term, present, nodes) do
    record = %{leader: present |> Enum.filter(&(&1 in nodes)) |> Enum.min(), term: term}
    Ledger.write(@key, record)
    record
  end
end

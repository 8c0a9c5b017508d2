defmodule MABEAM.Coordination.Record do
  @moduledoc """
  What the members of a cluster know of each other's coordinations, in
  `Foundation.Coordination.Ledger`.

  Every record belongs to one node, and is active or has a result. All changes are transactions,
  which need a majority of the members, and the first result that is written stands. So a
  coordination has one result for all members, also when its node was only cut off, and goes on
  while another one has taken it over.

  A record lives as long as its node keeps the session. Those of a node that went down pass to one
  that did not.
  """

  alias Foundation.{Call, Supervision}
  alias Foundation.Coordination.{Cluster, Ledger}
  alias MABEAM.Coordination.{Session, Store}

  @tag :mabeam_session
  @pause_ms 10

  @typedoc "`:from` is the node that the session was taken from, until it has ended for good."
  @type t :: %{
          id: MABEAM.Coordination.session_id(),
          node: node,
          from: node | nil,
          protocol: MABEAM.Coordination.protocol(),
          entry: MABEAM.Coordination.Protocol.entry(),
          agents: [MABEAM.Coordination.agent()],
          params: map,
          timeout: pos_integer,
          waited_for?: boolean,
          status: :active | {:ended, MABEAM.Coordination.result()}
        }

  @type refusal :: Ledger.reason()

  @doc "The tag of the records' keys in the ledger."
  @spec tag() :: atom
  def tag, do: @tag

  @doc "Whether sessions are recorded from now on: there are other members, and `:phase_4` is on."
  @spec used?() :: boolean
  def used?, do: Supervision.enabled?(:phase_4) and match?([_, _ | _], Cluster.members())

  @doc "Writes a session that is about to run. Refused when another node has taken it."
  @spec open(Session.t(), timeout :: non_neg_integer) ::
          :ok | {:error, refusal | {:taken_over, node}}
  def open(session, timeout) do
    me = node()

    transaction(timeout, fn ->
      case Ledger.read({@tag, session.id}) do
        :error -> write(from_session(session))
        {:ok, %{node: ^me}} -> :ok
        {:ok, %{node: other}} -> {:error, {:taken_over, other}}
      end
    end)
  end

  @doc """
  Writes the result of a session, unless it has one; returns the one that stands.

  `{:error, {:taken_over, node}}` when that node has taken the session, and will settle it.
  """
  @spec close(Session.t(), MABEAM.Coordination.result(), timeout :: non_neg_integer) ::
          {:ok, MABEAM.Coordination.result()} | {:error, refusal | {:taken_over, node}}
  def close(session, result, timeout) do
    me = node()

    transaction(timeout, fn ->
      case Ledger.read({@tag, session.id}) do
        {:ok, %{status: {:ended, standing}}} ->
          {:ok, standing}

        {:ok, %{node: other}} when other != me ->
          {:error, {:taken_over, other}}

        # Without a record: the session ended before it was written, or all members were down
        # meanwhile.
        _mine_or_none ->
          write(ended(from_session(session), result))
          {:ok, result}
      end
    end)
  end

  @doc "The record with that id."
  @spec read(MABEAM.Coordination.session_id(), timeout :: non_neg_integer) ::
          {:ok, t} | :error | {:error, refusal}
  def read(id, timeout), do: transaction(timeout, fn -> Ledger.read({@tag, id}) end)

  @doc "Deletes records of this node."
  @spec forget([MABEAM.Coordination.session_id()], timeout :: non_neg_integer) ::
          :ok | {:error, refusal}
  def forget(ids, timeout) do
    me = node()

    transaction(timeout, fn ->
      for id <- ids, match?({:ok, %{node: ^me}}, Ledger.read({@tag, id})) do
        Ledger.delete({@tag, id})
      end

      :ok
    end)
  end

  @doc """
  Takes all records of nodes that are down. Returns `{:ok, mine, lost}`.

  `mine` are the records that this node has now. `lost` are those of other nodes whose sessions
  are active on this one.

  It is one transaction: of the nodes that are left, one gets all. An active session that cannot
  be run again here has ended with `{:error, {:node_down, node}}` when this returns. Whether it
  has done so may stay unknown, but the records tell when they are looked at once more.
  """
  @spec take(timeout :: non_neg_integer) ::
          {:ok, mine :: [t], lost :: [t]} | {:error, refusal}
  def take(timeout) do
    answer =
      transaction(timeout, fn ->
        up = [node() | Node.list(:connected)]
        records = for key <- Ledger.keys(@tag), {:ok, record} <- [Ledger.read(key)], do: record
        {lost, mine} = Enum.split_with(records, &(&1.node != node() and &1.node in up))
        {:ok, Enum.map(mine, &take_one/1), lost}
      end)

    with {:ok, mine, lost} <- answer, do: {:ok, mine, Enum.filter(lost, &active_here?/1)}
  end

  defp active_here?(record), do: match?({:ok, %{status: :active}}, Store.fetch(record.id))

  @doc "A session that runs a record's coordination again, from its start, with all its time."
  @spec to_session(t) :: Session.t()
  def to_session(record) do
    options = [id: record.id, timeout: record.timeout]
    session = Session.new(record.protocol, record.agents, record.params, options)
    %{session | entry: record.entry, recorded?: true}
  end

  @doc """
  Whether this node may run a record's coordination again: its protocol wants it, and is loaded
  here, and nobody waits for the result who went down with the node.
  """
  @spec restart?(t) :: boolean
  def restart?(record) do
    record.entry.on_node_down == :restart and not record.waited_for? and
      Supervision.enabled?(:phase_1) and Code.ensure_loaded?(record.entry.module)
  end

  defp take_one(%{node: from} = record) when from == node(), do: record

  defp take_one(%{node: from} = record) do
    record = take_from(from, %{record | node: node()})
    write(record)
    record
  end

  defp take_from(_from, %{status: {:ended, _result}} = record), do: %{record | from: nil}

  defp take_from(from, record) do
    record = %{record | from: from}
    if restart?(record), do: record, else: ended(record, {:error, {:node_down, from}})
  end

  defp from_session(session) do
    %{
      id: session.id,
      node: node(),
      from: nil,
      protocol: session.protocol,
      entry: session.entry,
      agents: session.agents,
      params: session.params,
      timeout: session.timeout,
      waited_for?: session.caller != nil,
      status: :active
    }
  end

  # Nobody will run it any more: the parameters may be large.
  defp ended(record, result), do: %{record | status: {:ended, result}, params: %{}}

  defp write(record) do
    Ledger.write({@tag, record.id}, record)
    :ok
  end

  defp transaction(timeout, fun), do: attempt(Call.deadline(timeout), fun)

  # Unavailable: nothing was written, as Foundation's processes are just being restarted.
  defp attempt(deadline, fun) do
    case Ledger.transaction(fun, Call.left(deadline)) do
      {:ok, result} ->
        result

      {:error, :unavailable} ->
        if Call.left(deadline) > 0 do
          Process.sleep(@pause_ms)
          attempt(deadline, fun)
        else
          {:error, :unavailable}
        end

      {:error, reason} ->
        {:error, reason}
    end
  end
end

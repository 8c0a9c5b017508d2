defmodule Foundation.Coordination.Member do
  @moduledoc """
  What a member does when another one asks or tells it something.

  `propose/2`, `commit/1` and `election/1` are run on the member by a messenger; an announcement
  is sent to this server.
  """
  use GenServer

  alias Foundation.Coordination.{Cluster, Store}
  alias Foundation.{Call, Events, Stray, Supervision}

  @typedoc "On what the members have agreed, as which one in their order."
  @type entry :: %{index: pos_integer, value: term}
  @typedoc "Who leads, and as which leader in their order."
  @type leader :: %{leader: node, term: pos_integer}

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  This member's vote on a proposal.

  `:no` when it is not part of the majority that would have to agree, nor becomes so within
  `timeout` milliseconds.
  """
  @spec propose(term, non_neg_integer) :: :yes | :no
  def propose(_value, timeout) do
    agreed? = fn -> Cluster.await(Store.agreed(), Call.deadline(timeout)) == :ok end
    if not Supervision.enabled?(:phase_4) or agreed?.(), do: :yes, else: :no
  end

  @doc "Takes note of what has been agreed: the event `:consensus_committed`."
  @spec commit(entry) :: :ok
  def commit(entry), do: Events.report(:consensus_committed, entry)

  @doc "This member's answer to an election: that it is there."
  @spec election(term) :: node
  def election(_term), do: node()

  @doc """
  Sends an announcement to the member on `node`, which takes note of it: the event
  `:leader_announced`.
  """
  @spec announce(node, leader) :: :ok
  def announce(node, leader), do: GenServer.cast({__MODULE__, node}, {:leader, leader})

  @impl true
  def init([]), do: {:ok, nil}

  @impl true
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast({:leader, leader}, state) do
    Events.report(:leader_announced, leader)
    {:noreply, state}
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info(message, state), do: Stray.message(message, state)
end

defmodule Foundation.Coordination.Primitives do
  @moduledoc """
  What processes on several nodes need to act together: agreement, a leader, locks, barriers,
  counters, clocks.

      alias Foundation.Coordination.Primitives

      {:ok, %{index: 1, value: :blue}} = Primitives.consensus(:blue)
      {:ok, %{leader: node, term: 1}} = Primitives.elect_leader()

      {:ok, lock} = Primitives.acquire_lock(:printer, timeout: 1_000)
      :ok = Primitives.release_lock(lock)

  They stand on `Foundation.Coordination.Ledger`, whose members are those of
  `Foundation.Coordination.Cluster`. Options are `:timeout`, in milliseconds, 5,000 unless told
  otherwise: the one deadline of all steps. Errors that all have in common:

    * `:no_quorum` - no majority of the members was there until the deadline; nothing has happened
    * `:timeout` - the deadline passed while it was under way: it may have happened
    * `:unavailable` - Foundation does not run here
    * `{:bad_option, option}`, and other reasons with `bad_` - the argument is wrong

  Each call is timed as `[:foundation, :coordination, name]`.
  """
  alias Foundation.{Call, Telemetry}
  alias Foundation.Coordination.{Barrier, Consensus, Election, Ledger, Lock, Member, VectorClock}

  @timeout_ms 5_000
  # The longest that a process can wait.
  @max_timeout_ms 0xFFFFFFFF

  @type reason :: :no_quorum | :timeout | :unavailable | {:bad_option, term}
  @type option :: {:timeout, non_neg_integer}

  @doc """
  Agrees with the other members on `value`, as the next one in their order.

  Returns `{:ok, %{index: n, value: value}}`; each member stores an event `:consensus_committed`
  with that map. `{:error, :rejected}` says that there was no majority for it among those who were
  asked.
  """
  @spec consensus(term, [option]) :: {:ok, Member.entry()} | {:error, :rejected | reason}
  def consensus(value, options \\ []) do
    timed(:consensus, options, &Consensus.run(value, &1))
  end

  @doc """
  Returns who leads, after an election if nobody does: `{:ok, %{leader: node, term: n}}`.

  Whoever leads goes on until its node is lost; then the next election begins a new term. Each
  member that took part stores an event `:leader_announced` with that map.
  """
  @spec elect_leader([option]) :: {:ok, Member.leader()} | {:error, reason}
  def elect_leader(options \\ []), do: timed(:elect_leader, options, &Election.run/1)

  @doc """
  Acquires the lock on `resource`, any term, for the caller; waits while another process holds it.

  It is released by `release_lock/1`, or when the caller dies, or when the majority has lost its
  node. The lock's `:token` is greater than that of all locks before. `{:error, :already_held}`
  when the caller holds it. After `{:error, :timeout}` the caller does not hold it, nor will it.
  """
  @spec acquire_lock(term, [option]) :: {:ok, Lock.t()} | {:error, :already_held | reason}
  def acquire_lock(resource, options \\ []) do
    timed(:acquire_lock, options, &Lock.acquire(resource, &1))
  end

  @doc """
  Releases a lock, within five seconds.

  Any process may do so that has the lock's term. `{:error, :not_held}` when it has been released,
  or lost with its holder's node; `{:error, :bad_lock}` when it is none.
  """
  @spec release_lock(Lock.t()) :: :ok | {:error, :not_held | :bad_lock | reason}
  def release_lock(lock) do
    if Lock.valid?(lock),
      do: timed(:release_lock, [], &Lock.release(lock, &1)),
      else: {:error, :bad_lock}
  end

  @doc """
  Waits at the barrier `id`, any term, until `count` processes do, wherever they are; at most
  `timeout` milliseconds.

  The barrier can be used again then. `{:error, {:bad_count, n}}` when others wait for it to be
  `n`.
  """
  @spec barrier_sync(term, pos_integer, non_neg_integer) ::
          :ok | {:error, :bad_count | {:bad_count, pos_integer} | reason}
  def barrier_sync(id, count, timeout \\ @timeout_ms)

  def barrier_sync(_id, count, _) when not (is_integer(count) and count > 0),
    do: {:error, :bad_count}

  def barrier_sync(id, count, timeout) do
    timed(:barrier_sync, [timeout: timeout], &Barrier.sync(id, count, &1))
  end

  @doc "Adds `n`, an integer, to the counter `id`, any term, and returns what it is then."
  @spec increment_counter(term, integer) :: {:ok, integer} | {:error, :bad_increment | reason}
  def increment_counter(id, n \\ 1)
  def increment_counter(_id, n) when not is_integer(n), do: {:error, :bad_increment}

  def increment_counter(id, n) do
    transaction(:increment_counter, fn ->
      value = counter(id) + n
      Ledger.write({:counter, id}, value)
      value
    end)
  end

  @doc "The counter `id`; one that has never been incremented is 0."
  @spec get_counter(term) :: {:ok, integer} | {:error, reason}
  def get_counter(id), do: transaction(:get_counter, fn -> counter(id) end)

  defp counter(id) do
    case Ledger.read({:counter, id}) do
      {:ok, value} -> value
      :error -> 0
    end
  end

  @doc "A vector clock on which nothing has happened."
  @spec new_vector_clock() :: VectorClock.t()
  def new_vector_clock, do: VectorClock.new()

  @doc "The clock after one more event of `id`, a node or any other term."
  @spec increment_clock(VectorClock.t(), term) :: VectorClock.t() | {:error, :bad_clock}
  def increment_clock(clock, id), do: with_clocks([clock], &VectorClock.increment(&1, id))

  @doc "The earliest clock that is not before either of the two."
  @spec merge_clocks(VectorClock.t(), VectorClock.t()) :: VectorClock.t() | {:error, :bad_clock}
  def merge_clocks(a, b), do: with_clocks([a, b], &VectorClock.merge/2)

  @doc "Whether `a` is `:before`, `:after`, `:equal` to or `:concurrent` with `b`."
  @spec compare_clocks(VectorClock.t(), VectorClock.t()) ::
          VectorClock.order() | {:error, :bad_clock}
  def compare_clocks(a, b), do: with_clocks([a, b], &VectorClock.compare/2)

  defp with_clocks(clocks, fun) do
    if Enum.all?(clocks, &VectorClock.valid?/1),
      do: apply(fun, clocks),
      else: {:error, :bad_clock}
  end

  defp transaction(name, fun) do
    timed(name, [], &Ledger.transaction(fun, Call.left(&1)))
  end

  defp timed(name, options, fun) do
    with {:ok, timeout} <- timeout(options) do
      deadline = Call.deadline(timeout)
      Telemetry.time_function([:foundation, :coordination, name], fn -> fun.(deadline) end)
    end
  end

  defp timeout(options) do
    if is_list(options) and not List.improper?(options) do
      Enum.reduce_while(options, {:ok, @timeout_ms}, &timeout/2)
    else
      {:error, {:bad_option, options}}
    end
  end

  defp timeout({:timeout, ms}, _before) when is_integer(ms) and ms in 0..@max_timeout_ms,
    do: {:cont, {:ok, ms}}

  defp timeout(other, _before), do: {:halt, {:error, {:bad_option, other}}}
end

defmodule Foundation.Coordination.Lock do
  @moduledoc """
  A lock that a process holds, as `Foundation.Coordination.Primitives.acquire_lock/2` hands it
  out.

  `:token` grows with each lock that is handed out: what is protected by a lock should refuse who
  comes with a lower one than it has seen, for a holder may be cut off, and its lock be given to
  another one, before it knows.

  A lock belongs to the ledger in which it was acquired, and is released there, however the phases
  stand by then.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Cluster, Ledger, Store, Sweeper, Work}

  @enforce_keys [:resource, :token, :claim, :table]
  defstruct [:resource, :token, :claim, :table]

  @type t :: %__MODULE__{
          resource: term,
          token: pos_integer,
          claim: reference,
          table: Store.table()
        }

  @doc "Whether `lock` is one."
  @spec valid?(term) :: boolean
  def valid?(%__MODULE__{claim: claim, table: table}),
    do: is_reference(claim) and table in Store.tables()

  def valid?(_other), do: false

  @doc "Acquires the lock on `resource` for the caller."
  @spec acquire(term, deadline :: integer) :: {:ok, t} | {:error, :already_held | Ledger.reason()}
  def acquire(resource, deadline) do
    lock = %__MODULE__{resource: resource, token: 0, claim: make_ref(), table: Ledger.table()}

    case Work.run(__MODULE__, :wait, [lock, self(), deadline], deadline) do
      {:ok, {:ok, token}} ->
        {:ok, %{lock | token: token}}

      {:ok, {:error, :timeout}} ->
        abandon(lock)
        {:error, :timeout}

      {:ok, {:error, {:aborted, :already_held}}} ->
        {:error, :already_held}

      {:ok, {:error, reason}} ->
        {:error, reason}

      {:error, {:exit, _reason}} ->
        abandon(lock)
        acquire(resource, deadline)

      {:error, {:late, pid}} ->
        Process.exit(pid, :kill)
        abandon(lock)
        {:error, Cluster.late(lock.table)}

      {:error, :unavailable} ->
        {:error, :unavailable}
    end
  end

  @doc "Releases a lock."
  @spec release(t, deadline :: integer) :: :ok | {:error, :not_held | Ledger.reason()}
  def release(%__MODULE__{claim: claim, table: table} = lock, deadline) do
    key = key(lock)

    fun = fn ->
      case Ledger.read(key) do
        {:ok, %{claim: ^claim}} -> Ledger.delete(key)
        _other -> :not_held
      end
    end

    case Ledger.transaction(fun, Call.left(deadline), table) do
      {:ok, :ok} -> :ok
      {:ok, :not_held} -> {:error, :not_held}
      {:error, reason} -> {:error, reason}
    end
  end

  # What may have been written without its holder knowing.
  defp abandon(lock), do: Sweeper.abandon(lock.table, key(lock), lock.claim)

  defp key(lock), do: {tag(lock), :holder}
  defp tag(lock), do: {:lock, lock.resource}

  @doc false
  def wait(lock, holder, deadline) do
    watch = Process.monitor(holder)
    with :ok <- Ledger.subscribe(tag(lock)), do: take(lock, holder, watch, deadline)
  end

  defp take(lock, holder, watch, deadline) do
    fun = fn -> take(lock, holder) end

    case Ledger.transaction(fun, Call.left(deadline), lock.table) do
      {:ok, :held} -> wait_until_free(lock, holder, watch, deadline)
      token_or_error -> token_or_error
    end
  end

  defp take(lock, holder) do
    key = key(lock)

    case Ledger.owner(key) do
      ^holder -> Ledger.abort(:already_held)
      nil -> write(key, lock, holder)
      other -> if node(other) in Ledger.nodes(), do: :held, else: write(key, lock, holder)
    end
  end

  defp write(key, lock, holder) do
    token = Ledger.number()
    Ledger.write(key, %{claim: lock.claim, token: token}, holder)
    token
  end

  # Subscribed before the first look: what is released meanwhile is in the mailbox. Who finds it
  # taken again waits on.
  defp wait_until_free(lock, holder, watch, deadline) do
    key = key(lock)

    receive do
      {:foundation_ledger, ^key, :deleted} -> take(lock, holder, watch, deadline)
      {:DOWN, ^watch, :process, ^holder, _reason} -> {:error, :timeout}
    after
      Call.left(deadline) -> {:error, :timeout}
    end
  end
end

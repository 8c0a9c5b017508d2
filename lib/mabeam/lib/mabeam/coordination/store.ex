defmodule MABEAM.Coordination.Store do
  @moduledoc """
  The two tables of `MABEAM.Coordination`: protocols and sessions, with what was counted.

  They lie with `MABEAM.TableKeeper`, so that neither sessions nor results are lost when the
  server is killed. A session's row and the counters are written at once: none is counted twice,
  or not at all, wherever the server dies.
  """

  alias Foundation.TableKeeper
  alias MABEAM.Coordination.{Protocol, Session}

  @protocols MABEAM.Coordination.Protocols
  @sessions MABEAM.Coordination.Sessions

  @counters [
    :started,
    :completed,
    :failed,
    :crashed,
    :timed_out,
    :cancelled,
    :retried,
    :refused,
    :dropped,
    :taken_over,
    :reported
  ]

  @type counter ::
          :started
          | :completed
          | :failed
          | :crashed
          | :timed_out
          | :cancelled
          | :retried
          | :refused
          | :dropped
          | :taken_over
          | :reported

  @doc "The tables, for `Foundation.TableKeeper`."
  @spec tables() :: [atom]
  def tables, do: [@protocols, @sessions]

  @doc "Makes the calling server their owner."
  @spec claim() :: :ok
  def claim, do: Enum.each(tables(), &TableKeeper.claim(MABEAM.TableKeeper, &1))

  @doc "Names a keeper that was restarted their heir."
  @spec renew(pid) :: :ok
  def renew(keeper), do: Enum.each(tables(), &TableKeeper.renew(keeper, &1))

  @doc "Adds a protocol, unless its name is taken."
  @spec add_protocol(MABEAM.Coordination.protocol(), Protocol.entry()) :: boolean
  def add_protocol(name, entry), do: :ets.insert_new(@protocols, {name, entry})

  @doc "The protocol of that name."
  @spec protocol(MABEAM.Coordination.protocol()) :: {:ok, Protocol.entry()} | :error
  def protocol(name) do
    case :ets.lookup(@protocols, name) do
      [{_name, entry}] -> {:ok, entry}
      [] -> :error
    end
  end

  @doc "The session with that id."
  @spec fetch(MABEAM.Coordination.session_id()) :: {:ok, Session.t()} | :error
  def fetch(id) do
    case :ets.lookup(@sessions, id) do
      [{_id, _status, session}] -> {:ok, session}
      [] -> :error
    end
  end

  @doc "Writes a session, and adds one to each of `counters`."
  @spec put(Session.t(), [counter]) :: :ok
  def put(session, counters \\ []) do
    :ets.insert(@sessions, [{session.id, session.status, session} | counted(counters)])
    :ok
  end

  @doc "Adds one to each of `counters`."
  @spec count([counter]) :: :ok
  def count(counters) do
    :ets.insert(@sessions, counted(counters))
    :ok
  end

  @doc "Drops ended sessions, and counts them as such."
  @spec drop([MABEAM.Coordination.session_id()]) :: :ok
  def drop(ids) do
    Enum.each(ids, fn id ->
      count([:dropped])
      :ets.delete(@sessions, id)
    end)
  end

  @doc "The sessions that are active, or have ended."
  @spec sessions(:active | :ended) :: [Session.t()]
  def sessions(status), do: :ets.select(@sessions, [{{:_, status, :"$1"}, [], [:"$1"]}])

  @doc "All counters, and how many protocols and active sessions there are."
  @spec stats() :: %{atom => non_neg_integer}
  def stats do
    Map.merge(counters(), %{
      protocols: :ets.info(@protocols, :size),
      active: :ets.select_count(@sessions, [{{:_, :active, :_}, [], [true]}])
    })
  end

  defp counted([]), do: []

  defp counted(counters) do
    [
      {:counters, :counters,
       Enum.reduce(counters, counters(), &Map.update!(&2, &1, fn n -> n + 1 end))}
    ]
  end

  defp counters do
    case :ets.lookup(@sessions, :counters) do
      [{_key, _status, counters}] -> counters
      [] -> Map.new(@counters, &{&1, 0})
    end
  end
end

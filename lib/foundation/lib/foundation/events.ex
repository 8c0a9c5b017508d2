defmodule Foundation.Events do
  @moduledoc """
  What happened on this node, the last 10,000 events of it.

  The environment's `:max_events` says otherwise. When the store is full the oldest event goes,
  which the counter `[:foundation, :events, :evicted]` counts. Each event that is stored is
  executed as `[:foundation, :events, :stored]`, with the event in the metadata: who waits for one
  attaches there.

      {:ok, event} = Foundation.Events.new_event(:order_placed, %{customer: 17})
      {:ok, id} = Foundation.Events.store(event)
      {:ok, [^event]} = Foundation.Events.query(type: :order_placed, limit: 1)
  """
  alias Foundation.{Call, Event, EventStore, Telemetry}

  # With more messages than these in the store's queue, `report/3` drops what it reports.
  @max_queue 10_000

  @typedoc """
  What `query/1` looks for; all of them must hold.

    * `:type`, `:correlation_id`, `:parent_id` - equal to the event's
    * `:since`, `:until` - milliseconds of the system's time, both included
    * `:limit` - at most so many events, the latest
  """
  @type filter ::
          {:type, atom}
          | {:correlation_id, term}
          | {:parent_id, Event.id()}
          | {:since | :until, integer}
          | {:limit, non_neg_integer}

  @doc "Makes an event, which is not stored yet. Options: `:correlation_id`, `:parent_id`."
  @spec new_event(atom, term, keyword) ::
          {:ok, Event.t()} | {:error, :bad_type | {:bad_option, term}}
  def new_event(type, data, options \\ [])
  def new_event(type, _data, _options) when not is_atom(type), do: {:error, :bad_type}

  def new_event(type, data, options) do
    id = System.unique_integer([:positive, :monotonic])

    event = %Event{
      id: id,
      type: type,
      data: data,
      timestamp: System.system_time(:millisecond),
      correlation_id: id,
      parent_id: nil,
      source: self()
    }

    options(event, options)
  end

  @doc "Stores an event, and returns its id when it is stored."
  @spec store(Event.t()) :: {:ok, Event.id()} | {:error, :bad_event | Call.reason()}
  def store(%Event{id: id, type: type} = event) when is_integer(id) and is_atom(type),
    do: Call.call(EventStore, {:store, event})

  def store(_other), do: {:error, :bad_event}

  @doc """
  Makes and stores an event, without waiting: for servers, which have other things to do.

  What cannot be stored, because it is no event or the store does not keep up, is dropped and
  counted as `[:foundation, :events, :dropped]`.
  """
  @spec report(atom, term, keyword) :: :ok
  def report(type, data, options \\ []) do
    with {:ok, event} <- new_event(type, data, options), true <- room?() do
      GenServer.cast(EventStore, {:store, event})
    else
      _refused -> Telemetry.emit_counter([:foundation, :events, :dropped])
    end

    :ok
  end

  @doc "The stored events that pass all filters, in the order in which they were made."
  @spec query([filter] | %{atom => term}) ::
          {:ok, [Event.t()]} | {:error, {:bad_filter, term} | :unavailable}
  def query(filters) when is_map(filters), do: filters |> Map.to_list() |> query()

  def query(filters) do
    with :ok <- check(filters), do: EventStore.select(filters)
  end

  @doc "The last `count` events, in the order in which they were made."
  @spec get_recent(non_neg_integer) ::
          {:ok, [Event.t()]} | {:error, {:bad_filter, term} | :unavailable}
  def get_recent(count), do: query(limit: count)

  @doc "The events that have `correlation_id`, in the order in which they were made."
  @spec get_correlation_chain(term) :: {:ok, [Event.t()]} | {:error, :unavailable}
  def get_correlation_chain(correlation_id), do: query(correlation_id: correlation_id)

  defp options(event, []), do: {:ok, event}

  defp options(event, [{:correlation_id, id} | options]),
    do: options(%{event | correlation_id: id}, options)

  defp options(event, [{:parent_id, id} | options]) when is_integer(id) or id == nil,
    do: options(%{event | parent_id: id}, options)

  defp options(_event, [bad | _options]), do: {:error, {:bad_option, bad}}
  defp options(_event, bad), do: {:error, {:bad_option, bad}}

  defp check([]), do: :ok
  defp check([filter | filters]), do: if(filter?(filter), do: check(filters), else: bad(filter))
  defp check(other), do: bad(other)

  defp bad(filter), do: {:error, {:bad_filter, filter}}

  defp filter?({:type, type}), do: is_atom(type)
  defp filter?({:correlation_id, _id}), do: true
  defp filter?({:parent_id, id}), do: is_integer(id)
  defp filter?({time, ms}) when time in [:since, :until], do: is_integer(ms)
  defp filter?({:limit, count}), do: is_integer(count) and count >= 0
  defp filter?(_other), do: false

  defp room? do
    with pid when is_pid(pid) <- Process.whereis(EventStore),
         {:message_queue_len, length} <- Process.info(pid, :message_queue_len) do
      length < @max_queue
    else
      _gone -> false
    end
  end
end

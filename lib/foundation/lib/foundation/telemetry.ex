defmodule Foundation.Telemetry do
  @moduledoc """
  Counters, gauges and timings, and events for whoever listens.

  An event is a name (a list of atoms), measurements and metadata, in the shape of the `telemetry`
  library. It goes to the handlers of `attach/4`, and to `:telemetry.execute/3` where that library
  is loaded; Foundation does not need it.

  What emits never waits for a server and never fails: a metric is a row in a table, written by
  the emitter itself. Where Foundation does not run, nothing is counted.

      Foundation.Telemetry.emit_counter([:shop, :order, :placed], %{customer: 17})
      Foundation.Telemetry.get_metrics_for([:shop])
      #=> {:ok, [%{event: [:shop, :order, :placed], type: :counter, count: 1}]}
  """
  alias Foundation.{Call, TelemetryService}

  @type event :: [atom, ...]
  @type handler :: (event, measurements :: map, metadata :: map, config :: term -> term)
  @type metric ::
          %{event: event, type: :counter, count: pos_integer}
          | %{event: event, type: :gauge, value: number}
          | %{event: event, type: :timer, count: pos_integer, total_us: non_neg_integer}
  @type refusal :: :bad_event | :bad_measurements | :bad_metadata

  @metrics TelemetryService
  @handlers TelemetryService.Handlers

  @doc """
  Hands an event to its handlers, in the caller's process.

  A handler that fails is detached and counted as `[:foundation, :telemetry, :handler_failed]`.
  Never raises; an event that is not one is refused.
  """
  @spec execute(event, map, map) :: :ok | {:error, refusal}
  def execute(event, measurements, metadata \\ %{}) do
    with :ok <- check(event, metadata),
         :ok <- if(is_map(measurements), do: :ok, else: {:error, :bad_measurements}) do
      Enum.each(handlers(event), &handle(&1, event, measurements, metadata))
      hand_on(event, measurements, metadata)
    end
  end

  @doc "Counts one `event`, and executes it with the measurement `count: 1`."
  @spec emit_counter(event, map) :: :ok | {:error, refusal}
  def emit_counter(event, metadata \\ %{}) do
    with :ok <- check(event, metadata) do
      add({event, :counter}, {2, 1}, {{event, :counter}, 0})
      execute(event, %{count: 1}, metadata)
    end
  end

  @doc """
  Sets the gauge `event` to the number `value`, and executes the event with the measurement
  `value`.
  """
  @spec emit_gauge(event, number, map) :: :ok | {:error, refusal | :bad_value}
  def emit_gauge(event, value, metadata \\ %{})
  def emit_gauge(_event, value, _metadata) when not is_number(value), do: {:error, :bad_value}

  def emit_gauge(event, value, metadata) do
    with :ok <- check(event, metadata) do
      set({{event, :gauge}, value})
      execute(event, %{value: value}, metadata)
    end
  end

  @doc """
  Calls `fun` and returns what it returns, or fails as it fails; its time is added to the timer
  `event`.

  The event has the measurement `duration`, in native units as `telemetry` has it, and the
  metadata `result: :ok`, or `:error` where `fun` failed.
  """
  @spec time_function(event, (() -> result)) :: result | {:error, :bad_event | :bad_function}
        when result: term
  def time_function(_event, fun) when not is_function(fun, 0), do: {:error, :bad_function}

  def time_function(event, fun) do
    with :ok <- check(event, %{}) do
      started = System.monotonic_time()

      try do
        fun.()
      catch
        kind, reason ->
          time(event, started, :error)
          :erlang.raise(kind, reason, __STACKTRACE__)
      else
        result ->
          time(event, started, :ok)
          result
      end
    end
  end

  @doc "The metrics of all events whose names begin with `prefix`, sorted by name."
  @spec get_metrics_for([atom]) :: {:ok, [metric]} | {:error, :bad_event | :unavailable}
  def get_metrics_for(prefix) do
    if is_list(prefix) and List.improper?(prefix) == false do
      metrics =
        for row <- :ets.tab2list(@metrics),
            metric = metric(row),
            List.starts_with?(metric.event, prefix),
            do: metric

      {:ok, Enum.sort_by(metrics, &{&1.event, &1.type})}
    else
      {:error, :bad_event}
    end
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc """
  Calls `fun` with event, measurements, metadata and `config` for each event of that name, until
  `detach/1` with this `id` (any term).

  The handler runs in the process that emits the event: it is to be quick, and to send a message
  where there is much to do.
  """
  @spec attach(term, event, handler, term) ::
          :ok | {:error, :already_attached | :bad_event | :bad_function | Call.reason()}
  def attach(_id, _event, fun, _config) when not is_function(fun, 4), do: {:error, :bad_function}

  def attach(id, event, fun, config) do
    with :ok <- check(event, %{}),
         do: Call.call(TelemetryService, {:attach, id, event, fun, config})
  end

  @doc "Takes the handler `id` away. Events under way in other processes may still reach it."
  @spec detach(term) :: :ok | {:error, :not_found | Call.reason()}
  def detach(id), do: Call.call(TelemetryService, {:detach, id})

  defp check(event, metadata) do
    cond do
      not event?(event) -> {:error, :bad_event}
      not is_map(metadata) -> {:error, :bad_metadata}
      true -> :ok
    end
  end

  defp event?([part]), do: is_atom(part)
  defp event?([part | rest]), do: is_atom(part) and event?(rest)
  defp event?(_other), do: false

  defp handlers(event) do
    :ets.select(@handlers, [{{{event, :"$1"}, :"$2", :"$3"}, [], [{{:"$1", :"$2", :"$3"}}]}])
  rescue
    ArgumentError -> []
  end

  defp handle({id, fun, config}, event, measurements, metadata) do
    fun.(event, measurements, metadata, config)
  catch
    _kind, _reason ->
      GenServer.cast(TelemetryService, {:failed, id})
  end

  # Looked up at run time: whether the library is there is the user's choice, and it may not have
  # started.
  defp hand_on(event, measurements, metadata) do
    if function_exported?(:telemetry, :execute, 3) do
      apply(:telemetry, :execute, [event, measurements, metadata])
    end

    :ok
  rescue
    ArgumentError -> :ok
  end

  defp time(event, started, result) do
    duration = System.monotonic_time() - started
    micros = System.convert_time_unit(duration, :native, :microsecond)
    add({event, :timer}, [{2, 1}, {3, micros}], {{event, :timer}, 0, 0})
    execute(event, %{duration: duration}, %{result: result})
  end

  defp add(key, increment, default) do
    :ets.update_counter(@metrics, key, increment, default)
    :ok
  rescue
    ArgumentError -> :ok
  end

  defp set(row) do
    :ets.insert(@metrics, row)
    :ok
  rescue
    ArgumentError -> :ok
  end

  defp metric({{event, :counter}, count}), do: %{event: event, type: :counter, count: count}
  defp metric({{event, :gauge}, value}), do: %{event: event, type: :gauge, value: value}

  defp metric({{event, :timer}, count, micros}),
    do: %{event: event, type: :timer, count: count, total_us: micros}
end

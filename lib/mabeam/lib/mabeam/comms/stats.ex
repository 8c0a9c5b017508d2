defmodule MABEAM.Comms.Stats do
  @moduledoc """
  Counts what `MABEAM.Comms` does: counters that each caller adds to, in its own process.

  They outlive the server of Comms, and start at 0 with the application. What was refused or lost
  is emitted, too, as `[:mabeam, :comms, :busy]`, `:dropped` and so on, through
  `Foundation.Telemetry`.
  """
  alias Foundation.Telemetry

  @table MABEAM.Comms
  @fields ~w(requests replies busy timeouts failures notifications events dropped
             async_requests async_lost async_abandoned async_unwatched)a

  @typedoc """
    * `requests` and what became of them: `replies`, refused as `busy`, `timeouts`, other
      `failures`
    * `notifications` and `events` (each receiver counts), and how many of both were `dropped`:
      refused, or not sent
    * `async_requests` and how many were `async_lost` (their task was killed, which the caller was
      told), `async_abandoned` (their caller died) and `async_unwatched` (their task ended while
      the server of Comms was being restarted: answered, or the caller was told)
  """
  @type t :: %{required(atom) => non_neg_integer}

  @doc "Makes the counters, if there are none yet. For the owner of the table."
  @spec init() :: boolean
  def init do
    :ets.insert_new(@table, {:stats, :counters.new(length(@fields), [:write_concurrency])})
  end

  @doc "What they count."
  @spec all() :: {:ok, t} | {:error, :unavailable}
  def all do
    counters = counters()
    {:ok, Map.new(@fields, &{&1, :counters.get(counters, index(&1))})}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc "Counts a request by its result, and returns that."
  @spec request(result, MABEAM.Agent.id()) :: result when result: {:ok, term} | {:error, term}
  def request(result, agent) do
    add(:requests)
    requested(result, agent)
    result
  end

  @doc "Counts a notification or an event by its result, and returns that."
  @spec told(:notifications | :events, term, result) :: result when result: :ok | {:error, term}
  def told(kind, receiver, result) do
    add(kind)

    with {:error, reason} <- result do
      lost(:dropped, %{receiver: receiver, kind: kind, reason: reason})
      result
    end
  end

  @doc "Counts what many receivers were told, and returns the outcome."
  @spec told_all(outcome, :notifications | :events) :: outcome when outcome: map
  def told_all(outcome, kind) do
    Enum.each(outcome.delivered, &told(kind, &1, :ok))
    Enum.each(outcome.failed, fn {receiver, reason} -> told(kind, receiver, {:error, reason}) end)
    outcome
  end

  @doc "Counts something that was refused or lost, and emits it."
  @spec lost(atom, map) :: :ok
  def lost(field, metadata) do
    add(field)
    Telemetry.emit_counter([:mabeam, :comms, field], metadata)
    :ok
  end

  @doc "Adds 1."
  @spec add(atom) :: :ok
  def add(field) do
    :counters.add(counters(), index(field), 1)
  rescue
    # Comms does not run.
    ArgumentError -> :ok
  end

  defp requested({:ok, _reply}, _agent), do: add(:replies)
  defp requested({:error, :busy}, agent), do: lost(:busy, %{agent: agent})
  defp requested({:error, :timeout}, agent), do: lost(:timeouts, %{agent: agent})
  defp requested({:error, reason}, agent), do: lost(:failures, %{agent: agent, reason: reason})

  for {field, index} <- Enum.with_index(@fields, 1) do
    defp index(unquote(field)), do: unquote(index)
  end

  defp counters, do: :ets.lookup_element(@table, :stats, 2)
end

defmodule MABEAM.AgentRegistry.Metrics do
  @moduledoc """
  What one agent was asked: counters that its gate writes, and anybody reads.

  They lie in the agent's row, so they outlive gate, agent and registry, and end with the registration.
  """

  @type counters :: :counters.counters_ref()

  @typedoc """
  `requests` were admitted and `errors` of them not answered (the agent died, or the deadline passed), `busy` were
  refused because too many were waiting, `dropped` are notifications and events that the agent did not get, `in_flight`
  is how many requests and notifications wait or are being handled, and `last_latency_us` how many microseconds the last
  answer took from admission, 0 before the first one.
  """
  @type t :: %{
          requests: non_neg_integer,
          errors: non_neg_integer,
          busy: non_neg_integer,
          dropped: non_neg_integer,
          in_flight: non_neg_integer,
          last_latency_us: non_neg_integer
        }

  @fields [requests: 1, errors: 2, busy: 3, dropped: 4, in_flight: 5, last_latency_us: 6]

  @spec new() :: counters
  def new, do: :counters.new(length(@fields), [])

  @spec read(counters) :: t
  def read(counters) do
    Map.new(@fields, fn {field, index} -> {field, :counters.get(counters, index)} end)
  end

  @spec add(counters, atom, integer) :: :ok
  def add(counters, field, number), do: :counters.add(counters, @fields[field], number)

  @spec put(counters, atom, integer) :: :ok
  def put(counters, field, number), do: :counters.put(counters, @fields[field], number)
end

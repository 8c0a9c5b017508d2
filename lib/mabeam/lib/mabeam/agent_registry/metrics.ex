defmodule MABEAM.AgentRegistry.Metrics do
  @moduledoc """
  What one agent was asked: counters that its gate writes, and anybody reads.

  They lie in the agent's row, so they outlive gate, agent and registry, and end with the
  registration.
  """

  @type counters :: :counters.counters_ref()

  @typedoc """
  `requests` were admitted and `errors` of them not answered (the agent died, or the deadline
  passed), `busy` were refused because too many were waiting, `dropped` are notifications and
  events that the agent did not get, `in_flight` is how many requests and notifications wait or
  are being handled, and `last_latency_us` how many microseconds the last answer took from
  admission, 0 before the first one.
  """
  @type t :: %{
          requests: non_neg_integer,
          errors: non_neg_integer,
          busy: non_neg_integer,
          dropped: non_neg_integer,
          in_flight: non_neg_integer,
          last_latency_us: non_neg_integer
        }

  @fields ~w(requests errors busy dropped in_flight last_latency_us)a

  @doc "Counters that are all 0."
  @spec new() :: counters
  def new, do: :counters.new(length(@fields), [])

  @doc "What they count."
  @spec read(counters) :: t
  def read(counters), do: Map.new(@fields, &{&1, :counters.get(counters, index(&1))})

  @doc "Adds `number` to `field`."
  @spec add(counters, atom, integer) :: :ok
  def add(counters, field, number), do: :counters.add(counters, index(field), number)

  @doc "Sets `field` to `number`."
  @spec put(counters, atom, integer) :: :ok
  def put(counters, field, number), do: :counters.put(counters, index(field), number)

  for {field, index} <- Enum.with_index(@fields, 1) do
    defp index(unquote(field)), do: unquote(index)
  end
end

defmodule MABEAM.AgentRegistry.Metrics do
  @moduledoc """
  What one agent was asked: counters that its gate writes, and anybody reads.

  They lie in the agent's row, so they outlive gate, agent and registry, and end with the
  registration.
  """

  @type counters :: :counters.counters_ref()

  @typedoc """
    * `requests` were let in, and `errors` of them not answered: the agent died, the deadline
      passed, or the caller died
    * `busy` requests were refused because too many were waiting
    * `dropped` notifications and events did not reach the agent
    * `in_flight` requests, notifications and events wait or are being handled; `unheard` of them
      are notifications and events
    * `last_latency_us` is how many microseconds the last answer took from when the request was
      let in, 0 before the first one
  """
  @type t :: %{
          requests: non_neg_integer,
          errors: non_neg_integer,
          busy: non_neg_integer,
          dropped: non_neg_integer,
          in_flight: non_neg_integer,
          unheard: non_neg_integer,
          last_latency_us: non_neg_integer
        }

  @fields ~w(requests errors busy dropped in_flight unheard last_latency_us)a

  @doc "Counters that are all 0."
  @spec new() :: counters
  def new, do: :counters.new(length(@fields), [])

  @doc "What they count."
  @spec read(counters) :: t
  def read(counters), do: Map.new(@fields, &{&1, :counters.get(counters, index(&1))})

  @doc "What one of them counts."
  @spec get(counters, atom) :: integer
  def get(counters, field), do: :counters.get(counters, index(field))

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

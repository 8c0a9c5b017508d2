defmodule MABEAM.LoadBalancer.Strategy do
  @moduledoc """
  Chooses among agents: functions of their loads, without a process.

  An agent's load here is a map with at least `:id`, `:active` (tasks), `:capacity` (how many it
  takes) and `:capabilities`.
  """

  @type load :: %{
          required(:id) => MABEAM.Agent.id(),
          required(:active) => non_neg_integer,
          required(:capacity) => pos_integer,
          required(:capabilities) => [MABEAM.AgentRegistry.label()],
          optional(atom) => term
        }
  @type t :: :round_robin | :least_loaded | :capability
  @type move :: %{from: MABEAM.Agent.id(), to: MABEAM.Agent.id(), tasks: pos_integer}

  @doc "The strategies that there are."
  @spec all() :: [t]
  def all, do: [:round_robin, :least_loaded, :capability]

  @doc """
  The loads in the order in which they are to be tried.

  `:round_robin` begins after the agent that got the `last` task (`nil`: none did);
  `:least_loaded` with the agent that has the smallest part of its capacity in use; `:capability`
  with the one that can do the least beside, so that those who can do much stay free for it.
  """
  @spec order(t, [load], last :: term) :: [load]
  def order(:round_robin, loads, nil), do: Enum.sort_by(loads, & &1.id)

  def order(:round_robin, loads, last) do
    {before, rest} = loads |> Enum.sort_by(& &1.id) |> Enum.split_with(&(&1.id <= last))
    rest ++ before
  end

  def order(:least_loaded, loads, _last), do: Enum.sort_by(loads, &{share(&1), &1.id})

  def order(:capability, loads, _last),
    do: Enum.sort_by(loads, &{length(&1.capabilities), share(&1), &1.id})

  @doc """
  The moves of tasks that even out the loads, and the loads after them.

  Tasks move only to an agent that can do all that the one before can, has room, and is less
  loaded. Each pair is evened out once, the most loaded agent first.
  """
  @spec even_out([load]) :: {[move], [load]}
  def even_out(loads) do
    ids = loads |> Enum.sort_by(&{-share(&1), &1.id}) |> Enum.map(& &1.id)
    pairs = for from <- ids, to <- Enum.reverse(ids), from != to, do: {from, to}

    {moves, loads} =
      Enum.reduce(pairs, {[], Map.new(loads, &{&1.id, &1})}, fn {from, to}, {moves, loads} ->
        case tasks_to_move(loads[from], loads[to]) do
          0 -> {moves, loads}
          tasks -> {[%{from: from, to: to, tasks: tasks} | moves], move(loads, from, to, tasks)}
        end
      end)

    {Enum.reverse(moves), Map.values(loads)}
  end

  # So many that both have the same share, rounded down: the pair never changes sides.
  defp tasks_to_move(from, to) do
    if from.capabilities -- to.capabilities == [] do
      surplus = from.active * to.capacity - to.active * from.capacity
      even = Integer.floor_div(surplus, from.capacity + to.capacity)
      even |> min(to.capacity - to.active) |> max(0)
    else
      0
    end
  end

  defp move(loads, from, to, tasks) do
    loads
    |> Map.update!(from, &%{&1 | active: &1.active - tasks})
    |> Map.update!(to, &%{&1 | active: &1.active + tasks})
  end

  defp share(load), do: load.active / load.capacity
end

defmodule MABEAM.Coordination.Consensus do
  @moduledoc """
  Agents agree on one value by vote: the value that a majority of *all* agents votes for.

  Parameters:

    * `:value` - the one value to vote on, or
    * `:proposals` - a list of values to choose from; without either of the two, each agent is
      asked for a proposal
    * `:rounds` - how many rounds of votes there are at most, 3 if not given
    * `:threshold` - the share of all agents that must agree, from 0 to 1: 1 is unanimity. More
      than half must in any case.

  Agents are asked

    * `{:coordination, protocol, :propose, %{}}`, and reply `{:propose, value}` or `:abstain`
    * `{:coordination, protocol, :vote, %{proposals: values, round: n, tally: tally}}`, where
      `tally` maps values to the votes that they had in the round before, and reply
      `{:vote, value}`, one of the proposals, or `:abstain`

  From round to round the proposal with the fewest votes is dropped, unless all that are left have
  equally many. An agent that fails in one round is not asked in the next.

  The result is `{:ok, %{value:, votes:, rounds:, failed:}}`, where `votes` maps agents to their
  vote in the last round, and `failed` maps those that did not answer, or wrongly, to the reason.
  Without agreement it is `{:error, {:no_agreement, %{votes:, rounds:, failed:}}}`.
  """
  @behaviour MABEAM.Coordination.Protocol

  alias MABEAM.Coordination.{Answers, Context}

  @impl true
  def retries, do: 1

  # To vote once more changes nothing.
  @impl true
  def on_node_down, do: :restart

  @impl true
  def run(agents, params, context) do
    with {:ok, rounds} <- Answers.param(params, :rounds, 3, &(is_integer(&1) and &1 > 0)),
         {:ok, threshold} <- Answers.param(params, :threshold, 0.5, &Answers.share?/1),
         {:ok, proposals, failed} <- proposals(agents, params, rounds, context) do
      vote(proposals, %{
        context: context,
        agents: agents,
        needed: Answers.needed(length(agents), threshold),
        round: 1,
        rounds: rounds,
        tally: %{},
        failed: failed
      })
    end
  end

  defp proposals(_agents, %{value: value}, _rounds, _context), do: {:ok, [value], %{}}

  defp proposals(_agents, %{proposals: proposals}, _rounds, _context) do
    if is_list(proposals) and proposals != [] and not List.improper?(proposals) do
      {:ok, Enum.uniq(proposals), %{}}
    else
      {:error, {:bad_param, :proposals}}
    end
  end

  defp proposals(agents, _params, rounds, context) do
    time = Context.step_time(context, rounds + 1)
    answers = Context.ask_all(context, agents, :propose, %{}, time)
    {values, failed} = Answers.split(answers, &proposal/1)
    proposals = for {_agent, {:propose, value}} <- values, uniq: true, do: value
    {:ok, proposals, failed}
  end

  defp proposal({:propose, value}), do: {:ok, {:propose, value}}
  defp proposal(:abstain), do: {:ok, :abstain}
  defp proposal(_other), do: :error

  defp vote(proposals, poll) do
    voters = Enum.reject(poll.agents, &Map.has_key?(poll.failed, &1))
    params = %{proposals: proposals, round: poll.round, tally: poll.tally}
    time = Context.step_time(poll.context, poll.rounds - poll.round + 1)
    answers = Context.ask_all(poll.context, voters, :vote, params, time)
    {values, failed} = Answers.split(answers, &ballot(&1, proposals))
    votes = for {agent, {:vote, value}} <- values, into: %{}, do: {agent, value}
    count(votes, proposals, %{poll | failed: Map.merge(poll.failed, failed)})
  end

  defp ballot({:vote, value}, proposals) do
    if value in proposals, do: {:ok, {:vote, value}}, else: :error
  end

  defp ballot(:abstain, _proposals), do: {:ok, :abstain}
  defp ballot(_other, _proposals), do: :error

  defp count(votes, proposals, poll) do
    tally = Enum.frequencies(Map.values(votes))
    outcome = %{votes: votes, rounds: poll.round, failed: poll.failed}
    possible? = length(poll.agents) - map_size(poll.failed) >= poll.needed

    case Enum.find(tally, fn {_value, count} -> count >= poll.needed end) do
      {value, _count} ->
        {:ok, Map.put(outcome, :value, value)}

      nil when possible? and poll.round < poll.rounds ->
        vote(drop_last(proposals, tally), %{poll | round: poll.round + 1, tally: tally})

      nil ->
        {:error, {:no_agreement, outcome}}
    end
  end

  defp drop_last(proposals, tally) do
    counts = Enum.map(proposals, &Map.get(tally, &1, 0))
    fewest = Enum.min(counts, fn -> 0 end)

    case for {proposal, count} <- Enum.zip(proposals, counts), count > fewest, do: proposal do
      [] -> proposals
      left -> left
    end
  end
end

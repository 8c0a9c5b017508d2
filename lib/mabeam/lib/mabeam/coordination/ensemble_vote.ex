defmodule MABEAM.Coordination.EnsembleVote do
  @moduledoc """
  Agents answer the same question, each with a confidence; the answer with the largest share wins.

  Parameters:

    * `:question` - any term, handed to the agents
    * `:mode` - `:weighted` (if not given): an answer counts as much as its agent's weight times
      its confidence; `:majority`: each answer counts one
    * `:weights` - maps agents to numbers that are not negative; 1 for those that it does not name
    * `:threshold` - the least share of what was counted that wins, from 0 to 1. It must be more
      than a half in any case.

  Agents are asked `{:coordination, protocol, :answer, %{question:}}`, and reply
  `{:answer, value}` or `{:answer, value, confidence}`, from 0 to 1.

  The result is `{:ok, %{answer:, share:, scores:, votes:, failed:}}`: `scores` maps answers to
  what was counted for them, `votes` maps agents to `{value, confidence}`, `failed` maps agents
  that did not answer, or wrongly, to the reason. Else it is
  `{:error, {:too_few_answers, %{votes:, failed:}}}`, when not more than half of the agents
  answered, or `{:error, {:no_majority, %{scores:, votes:, failed:}}}`.
  """
  @behaviour MABEAM.Coordination.Protocol

  alias MABEAM.Coordination.{Answers, Context}

  @impl true
  def retries, do: 1

  # To answer once more changes nothing.
  @impl true
  def on_node_down, do: :restart

  @impl true
  def run(agents, params, context) do
    with {:ok, mode} <-
           Answers.param(params, :mode, :weighted, &(&1 in [:weighted, :majority])),
         {:ok, weights} <- Answers.param(params, :weights, %{}, &weights?/1),
         {:ok, threshold} <- Answers.param(params, :threshold, 0.5, &Answers.share?/1) do
      question = %{question: Map.get(params, :question)}
      answers = Context.ask_all(context, agents, :answer, question, Context.step_time(context, 1))
      {votes, failed} = Answers.split(answers, &vote/1)
      outcome = %{votes: votes, failed: failed}

      if map_size(votes) < Answers.needed(length(agents), 0) do
        {:error, {:too_few_answers, outcome}}
      else
        decide(scores(votes, mode, weights), threshold, outcome)
      end
    end
  end

  defp weights?(weights) do
    is_map(weights) and not is_struct(weights) and
      Enum.all?(weights, fn {_agent, weight} -> is_number(weight) and weight >= 0 end)
  end

  defp vote({:answer, value}), do: {:ok, {value, 1.0}}

  defp vote({:answer, value, confidence}) do
    if Answers.share?(confidence), do: {:ok, {value, confidence}}, else: :error
  end

  defp vote(_other), do: :error

  defp scores(votes, mode, weights) do
    Enum.reduce(votes, %{}, fn {agent, {value, confidence}}, scores ->
      score = if mode == :majority, do: 1, else: Map.get(weights, agent, 1) * confidence
      Map.update(scores, value, score, &(&1 + score))
    end)
  end

  defp decide(scores, threshold, outcome) do
    {answer, score} = Enum.max_by(scores, fn {_answer, score} -> score end)
    total = scores |> Map.values() |> Enum.sum()
    outcome = Map.put(outcome, :scores, scores)

    # More than half cannot be a tie; and when nothing counted, all confidences 0, there is no
    # winner either.
    if score * 2 > total and score >= threshold * total do
      {:ok, Map.merge(outcome, %{answer: answer, share: score / total})}
    else
      {:error, {:no_majority, outcome}}
    end
  end
end

defmodule MABEAM.Coordination.EnsembleVoteTest do
  use ExUnit.Case, async: true

  import MABEAM.Coordination, only: [coordinate: 3]

  alias MABEAM.Test.Actor

  defp expert(answer) do
    Actor.start!(fn {:coordination, :ensemble_vote, :answer, %{question: :sum?}} -> answer end)
  end

  defp ask(agents, params \\ %{}),
    do: coordinate(:ensemble_vote, agents, Map.put(params, :question, :sum?))

  test "answers count by their confidence" do
    [a, b, c] =
      agents = [expert({:answer, 4, 0.9}), expert({:answer, 5, 0.2}), expert({:answer, 5, 0.3})]

    assert {:ok, %{answer: 4, share: share, votes: votes, failed: failed}} = ask(agents)
    assert_in_delta share, 0.9 / 1.4, 1.0e-9
    assert votes == %{a => {4, 0.9}, b => {5, 0.2}, c => {5, 0.3}}
    assert failed == %{}
  end

  test "without a confidence an answer is certain" do
    agents = [expert({:answer, 4}), expert({:answer, 5, 0.9})]
    assert {:ok, %{answer: 4, scores: %{4 => 1.0, 5 => 0.9}}} = ask(agents)
  end

  test "a majority does not care for confidence" do
    agents = [expert({:answer, 4, 1}), expert({:answer, 5, 0.1}), expert({:answer, 5, 0})]

    assert {:ok, %{answer: 5, scores: %{4 => 1, 5 => 2}}} = ask(agents, %{mode: :majority})
  end

  test "weights tell whose answer counts more" do
    agents = [a, _b, _c] = for answer <- [4, 5, 5], do: expert({:answer, answer})

    assert {:ok, %{answer: 4, share: 0.6}} = ask(agents, %{weights: %{a => 3}})
    assert {:ok, %{answer: 5}} = ask(agents, %{weights: %{a => 0}})
  end

  test "a tie has no winner" do
    agents = [expert({:answer, 4}), expert({:answer, 5})]
    assert {:error, {:no_majority, %{scores: %{4 => 1.0, 5 => 1.0}}}} = ask(agents)
  end

  test "answers without any confidence have no winner" do
    agents = [expert({:answer, 4, 0}), expert({:answer, 4, 0.0})]
    assert {:error, {:no_majority, _outcome}} = ask(agents)
  end

  test "the threshold asks for a larger share" do
    agents = for answer <- [4, 4, 5], do: expert({:answer, answer})

    assert {:ok, %{answer: 4}} = ask(agents, %{threshold: 0.6})
    assert {:error, {:no_majority, _outcome}} = ask(agents, %{threshold: 0.7})
  end

  test "more than half must answer, and who did not is named" do
    good = expert({:answer, 4})
    unknown = Actor.unknown()
    bad = expert({:answer, 4, 1.5})

    assert {:error, {:too_few_answers, %{votes: votes, failed: failed}}} =
             ask([good, unknown, bad])

    assert votes == %{good => {4, 1.0}}
    assert failed == %{unknown => :unknown_agent, bad => {:bad_answer, {:answer, 4, 1.5}}}

    assert {:ok, %{answer: 4, failed: ^failed}} =
             ask([good, unknown, bad] ++ for(_n <- 1..2, do: expert({:answer, 4})))
  end

  test "parameters that make no sense are refused by name" do
    agents = [expert({:answer, 4})]

    for {key, values} <- [
          mode: [:loudest, nil],
          weights: [[], %{a: -1}, %{a: :heavy}],
          threshold: [2, -1, "half"]
        ],
        value <- values do
      assert ask(agents, %{key => value}) == {:error, {:bad_param, key}}
    end
  end
end

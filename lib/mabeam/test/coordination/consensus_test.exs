defmodule MABEAM.Coordination.ConsensusTest do
  use ExUnit.Case, async: true

  import MABEAM.Coordination, only: [coordinate: 3, coordinate: 4]

  alias MABEAM.Test.Actor

  defp voter(vote), do: Actor.start!(fn {:coordination, :consensus, :vote, _params} -> vote end)

  test "a value that more than half of the agents vote for is agreed" do
    [a, b, c] = agents = [voter({:vote, 7}), voter({:vote, 7}), voter(:abstain)]

    assert coordinate(:consensus, agents, %{value: 7}) ==
             {:ok, %{value: 7, votes: %{a => 7, b => 7}, rounds: 1, failed: %{}}}

    assert c not in [a, b]
  end

  test "half is not a majority" do
    agents = [voter({:vote, 7}), voter(:abstain)]

    assert {:error, {:no_agreement, %{rounds: 3, failed: failed}}} =
             coordinate(:consensus, agents, %{value: 7})

    assert failed == %{}
  end

  test "one agent agrees with itself" do
    assert {:ok, %{value: :x}} = coordinate(:consensus, [voter({:vote, :x})], %{value: :x})
  end

  test "the last proposal drops out, and its voters choose again" do
    flexible =
      Actor.start!(fn {:coordination, :consensus, :vote, %{proposals: proposals, tally: tally}} ->
        if :c in proposals do
          {:vote, :c}
        else
          {leader, _votes} = Enum.max_by(tally, fn {_value, votes} -> votes end)
          {:vote, if(leader in proposals, do: leader, else: hd(proposals))}
        end
      end)

    agents =
      [flexible] ++
        for(_n <- 1..2, do: voter({:vote, :a})) ++ for(_n <- 1..2, do: voter({:vote, :b}))

    assert {:ok, %{value: value, rounds: 2, votes: votes}} =
             coordinate(:consensus, agents, %{proposals: [:a, :b, :c]})

    assert value in [:a, :b]
    assert Enum.count(votes, fn {_agent, vote} -> vote == value end) == 3
  end

  test "without a value the agents propose" do
    agents =
      for n <- [1, 2, 3] do
        Actor.start!(fn
          {:coordination, :consensus, :propose, %{}} -> {:propose, n}
          {:coordination, :consensus, :vote, %{proposals: values}} -> {:vote, Enum.max(values)}
        end)
      end

    assert {:ok, %{value: 3, rounds: 1}} = coordinate(:consensus, agents, %{})
  end

  test "agents that all abstain from proposing agree on nothing" do
    agents = for _n <- 1..2, do: Actor.start!(fn _request -> :abstain end)

    assert {:error, {:no_agreement, %{votes: votes}}} = coordinate(:consensus, agents, %{})
    assert votes == %{}
  end

  test "agents that fail are named, and count as not agreeing" do
    good = for _n <- 1..3, do: voter({:vote, :yes})
    unknown = Actor.unknown()
    bad = voter({:vote, :something_else})

    assert {:ok, %{value: :yes, failed: failed}} =
             coordinate(:consensus, good ++ [unknown, bad], %{value: :yes})

    assert failed == %{
             unknown => :unknown_agent,
             bad => {:bad_answer, {:vote, :something_else}}
           }

    assert {:error, {:no_agreement, %{failed: failed, rounds: 1}}} =
             coordinate(:consensus, [unknown, bad | Enum.take(good, 2)], %{value: :yes})

    assert map_size(failed) == 2
  end

  test "an agent that does not answer costs its vote, not the result" do
    test = self()

    silent =
      Actor.start!(fn _request ->
        send(test, {:asked, self()})
        receive do: (:go -> :abstain)
      end)

    agents = [silent | for(_n <- 1..2, do: voter({:vote, 1}))]

    assert {:ok, %{value: 1, failed: %{^silent => :timeout}}} =
             coordinate(:consensus, agents, %{value: 1, rounds: 1}, timeout: 4_000)

    assert_received {:asked, agent}
    send(agent, :go)
  end

  test "the threshold asks for more than a majority" do
    agents = [voter({:vote, 1}), voter({:vote, 1}), voter(:abstain)]

    assert {:ok, _agreed} = coordinate(:consensus, agents, %{value: 1, threshold: 0.66})

    assert {:error, {:no_agreement, _votes}} =
             coordinate(:consensus, agents, %{value: 1, threshold: 1})
  end

  test "parameters that make no sense are refused by name" do
    agents = [voter(:abstain)]

    for {key, values} <- [
          rounds: [0, -1, 1.0, :many],
          threshold: [-0.1, 1.1, :most],
          proposals: [[], :a, [:a | :b], %{}]
        ],
        value <- values do
      assert coordinate(:consensus, agents, %{key => value}) == {:error, {:bad_param, key}}
    end
  end
end

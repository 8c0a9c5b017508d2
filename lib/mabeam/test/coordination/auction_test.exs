defmodule MABEAM.Coordination.AuctionTest do
  use ExUnit.Case, async: true

  import MABEAM.Coordination, only: [coordinate: 3, coordinate: 4]

  alias MABEAM.Test.Actor

  defp bidder(bid), do: Actor.start!(fn {:coordination, :auction, :bid, _params} -> bid end)

  test "the highest bid wins, and is paid" do
    [low, high, none] = agents = [bidder({:bid, 5}), bidder({:bid, 7.5}), bidder(:no_bid)]

    assert coordinate(:auction, agents, %{item: :gpu}) ==
             {:ok,
              %{
                winner: high,
                price: 7.5,
                bids: %{low => 5, high => 7.5},
                tied: [],
                failed: %{}
              }}

    assert none not in [low, high]
  end

  test "bidders are told what is sold and how, and nothing of each other" do
    test = self()

    agents =
      for _n <- 1..2 do
        Actor.start!(fn {:coordination, :auction, :bid, params} ->
          send(test, {:asked, params})
          {:bid, 3}
        end)
      end

    {:ok, _result} = coordinate(:auction, agents, %{item: "tea", type: :second_price, reserve: 2})

    for _agent <- agents do
      assert_received {:asked, %{item: "tea", type: :second_price, reserve: 2} = params}
      assert map_size(params) == 3
    end
  end

  test "in a second-price auction the next bid is paid, or the reserve price" do
    agents = [bidder({:bid, 5}), high = bidder({:bid, 9}), bidder({:bid, 1})]
    params = %{type: :second_price, reserve: 2}

    assert {:ok, %{winner: ^high, price: 5}} = coordinate(:auction, agents, params)
    assert {:ok, %{winner: ^high, price: 2}} = coordinate(:auction, tl(agents), params)
  end

  test "of equal bids the first in the list wins, and the tie is told" do
    [a, b, c] = agents = [bidder({:bid, 4}), bidder({:bid, 6}), bidder({:bid, 6})]

    assert {:ok, %{winner: ^b, price: 6, tied: [^b, ^c]}} = coordinate(:auction, agents, %{})

    assert {:ok, %{winner: ^c, price: 6, tied: [^c, ^b]}} =
             coordinate(:auction, [a, c, b], %{type: :second_price})
  end

  test "without a bid that counts nobody wins" do
    low = bidder({:bid, 1})
    agents = [low, bidder(:no_bid), bidder({:bid, -4}), bidder({:bid, :much})]

    assert {:error, {:no_bids, %{bids: bids, failed: failed}}} =
             coordinate(:auction, agents, %{reserve: 2})

    assert bids == %{low => 1}
    assert Map.values(failed) -- [bad_answer: {:bid, -4}, bad_answer: {:bid, :much}] == []
  end

  test "a bid of nothing is one" do
    agent = bidder({:bid, 0})
    assert {:ok, %{winner: ^agent, price: 0}} = coordinate(:auction, [agent], %{})
  end

  test "bidders that fail are named" do
    good = bidder({:bid, 1})
    crashing = Actor.start!(fn _request -> exit(:bankrupt) end)
    unknown = Actor.unknown()

    ExUnit.CaptureLog.capture_log(fn ->
      assert {:ok, %{winner: ^good, failed: failed}} =
               coordinate(:auction, [crashing, good, unknown], %{}, timeout: 30_000)

      assert failed == %{unknown => :unknown_agent, crashing => {:agent_down, :bankrupt}}
    end)
  end

  test "a bidder that does not answer is named, and the auction ends in time" do
    test = self()
    good = bidder({:bid, 1})

    silent =
      Actor.start!(fn _request ->
        send(test, {:asked, self()})
        receive do: (:go -> {:bid, 100})
      end)

    assert {:ok, %{winner: ^good, failed: %{^silent => :timeout}}} =
             coordinate(:auction, [silent, good], %{}, timeout: 4_000)

    assert_received {:asked, agent}
    send(agent, :go)
  end

  test "parameters that make no sense are refused by name" do
    agents = [bidder({:bid, 1})]

    for {key, value} <- [type: :third_price, type: nil, reserve: -1, reserve: "1"] do
      assert coordinate(:auction, agents, %{key => value}) == {:error, {:bad_param, key}}
    end
  end
end

defmodule MABEAM.Coordination.Auction do
  @moduledoc """
  Agents bid for something, each without knowing the bids of the others; the highest bid wins.

  Parameters:

    * `:item` - what is sold: any term, handed to the agents
    * `:type` - `:first_price` (if not given): the winner pays its bid; `:second_price`: it pays
      the next highest bid, or the reserve price when there is no other
    * `:reserve` - the least that counts as a bid, 0 if not given

  Agents are asked `{:coordination, protocol, :bid, %{item:, type:, reserve:}}`, and reply
  `{:bid, amount}`, a number that is not negative, or `:no_bid`.

  The result is `{:ok, %{winner:, price:, bids:, tied:, failed:}}`: `bids` maps agents to amounts,
  those below the reserve price included; `failed` maps agents that did not answer, or wrongly, to
  the reason. When several bid the same highest amount, the first of them in the list of agents
  wins, and `tied` names all of them; else it is empty. Without a bid that counts it is
  `{:error, {:no_bids, %{bids:, failed:}}}`.

  An auction that crashed is not run again: its bidders may have given their bid away already.
  """
  @behaviour MABEAM.Coordination.Protocol

  alias MABEAM.Coordination.{Answers, Context}

  @impl true
  def run(agents, params, context) do
    with {:ok, type} <-
           Answers.param(params, :type, :first_price, &(&1 in [:first_price, :second_price])),
         {:ok, reserve} <- Answers.param(params, :reserve, 0, &amount?/1) do
      question = %{item: Map.get(params, :item), type: type, reserve: reserve}
      answers = Context.ask_all(context, agents, :bid, question, Context.step_time(context, 1))
      {values, failed} = Answers.split(answers, &bid/1)
      bids = for {agent, {:bid, amount}} <- values, into: %{}, do: {agent, amount}
      valid = for agent <- agents, amount = bids[agent], amount >= reserve, do: {agent, amount}
      award(valid, type, reserve, %{bids: bids, failed: failed})
    end
  end

  defp amount?(value), do: is_number(value) and value >= 0

  defp bid({:bid, amount}), do: if(amount?(amount), do: {:ok, {:bid, amount}}, else: :error)
  defp bid(:no_bid), do: {:ok, :no_bid}
  defp bid(_other), do: :error

  defp award([], _type, _reserve, outcome), do: {:error, {:no_bids, outcome}}

  defp award(valid, type, reserve, outcome) do
    # The sort is stable: equal bids stay in the order of the agents.
    [{winner, highest} | others] = Enum.sort_by(valid, fn {_agent, amount} -> amount end, :desc)

    price =
      case {type, others} do
        {:first_price, _others} -> highest
        {:second_price, []} -> reserve
        {:second_price, [{_agent, second} | _rest]} -> second
      end

    tied =
      case for {agent, amount} <- valid, amount == highest, do: agent do
        [_one] -> []
        several -> several
      end

    {:ok, Map.merge(outcome, %{winner: winner, price: price, tied: tied})}
  end
end

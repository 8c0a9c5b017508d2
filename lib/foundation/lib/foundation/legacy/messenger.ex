defmodule Foundation.Legacy.Messenger do
  @moduledoc """
  How the members' messages were sent before `Foundation.Coordination.Messenger`, in seven places.

  The leader's announcement is a process here for each node. A proposal, a commit and an election
  are each a process here for each node, and from it one on that node. Nobody supervises them,
  nobody hears of their deaths, and they do not end with who began it: each ends by itself, or
  never if what it does does not end.
  """
  alias Foundation.Call

  @helpers %{propose: :propose_helper, commit: :commit_helper, election: :election_helper}

  @doc """
  As `Foundation.Coordination.Messenger.call/5`; `function` is `:propose`, `:commit` or
  `:election`.
  """
  @spec call([node], module, :propose | :commit | :election, [term], deadline :: integer) ::
          [{node, {:ok, term} | {:error, :timeout}}]
  def call(nodes, module, function, arguments, deadline) do
    reply_to = :erlang.alias()
    for node <- nodes, do: send_helper(function, [reply_to, node, module, arguments])
    answers = collect(nodes, reply_to, deadline, [])
    :erlang.unalias(reply_to)
    flush(reply_to)
    Enum.map(nodes, &{&1, Keyword.get(answers, &1, {:error, :timeout})})
  end

  @doc "As `Foundation.Coordination.Messenger.cast/5`; the deadline is not heeded."
  @spec cast([node], module, :propose | :commit | :election, [term], deadline :: integer) :: :ok
  def cast(nodes, module, function, arguments, _deadline) do
    for node <- nodes, do: send_helper(function, [nil, node, module, arguments])
    :ok
  end

  @doc "Announces a leader to each of `nodes`."
  @spec announce([node], Foundation.Coordination.Member.leader()) :: :ok
  def announce(nodes, leader) do
    for node <- nodes, do: spawn(__MODULE__, :announce_helper, [node, leader])
    :ok
  end

  @doc false
  def announce_helper(node, leader), do: Foundation.Coordination.Member.announce(node, leader)

  defp send_helper(function, arguments), do: spawn(__MODULE__, @helpers[function], arguments)

  @doc false
  def propose_helper(reply_to, node, module, arguments),
    do: Node.spawn(node, __MODULE__, :propose_on_peer, [reply_to, module, arguments])

  @doc false
  def commit_helper(reply_to, node, module, arguments),
    do: Node.spawn(node, __MODULE__, :commit_on_peer, [reply_to, module, arguments])

  @doc false
  def election_helper(reply_to, node, module, arguments),
    do: Node.spawn(node, __MODULE__, :election_on_peer, [reply_to, module, arguments])

  @doc false
  def propose_on_peer(reply_to, module, arguments),
    do: answer(reply_to, apply(module, :propose, arguments))

  @doc false
  def commit_on_peer(reply_to, module, arguments),
    do: answer(reply_to, apply(module, :commit, arguments))

  @doc false
  def election_on_peer(reply_to, module, arguments),
    do: answer(reply_to, apply(module, :election, arguments))

  defp answer(nil, _result), do: :ok
  defp answer(reply_to, result), do: send(reply_to, {reply_to, node(), result})

  defp collect([], _reply_to, _deadline, answers), do: answers

  defp collect(waiting, reply_to, deadline, answers) do
    receive do
      {^reply_to, node, result} ->
        answers = [{node, {:ok, result}} | answers]
        collect(List.delete(waiting, node), reply_to, deadline, answers)
    after
      Call.left(deadline) -> answers
    end
  end

  defp flush(reply_to) do
    receive do
      {^reply_to, _node, _result} -> flush(reply_to)
    after
      0 -> :ok
    end
  end
end

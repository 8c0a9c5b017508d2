defmodule MABEAM.Coordination.Waiters do
  @moduledoc """
  Callers of `MABEAM.Coordination` that wait for the end of a session, each until its own
  deadline.

  A waiter's timer sends the server `{:timeout, timer, {:waiter, id, from}}`.
  """

  @type t :: %{MABEAM.Coordination.session_id() => %{GenServer.from() => timer :: reference}}

  @doc "Lets `from` wait for the session `id` until `deadline` (`Foundation.Call.deadline/1`)."
  @spec add(t, MABEAM.Coordination.session_id(), GenServer.from(), integer) :: t
  def add(waiters, id, from, deadline) do
    timer = :erlang.start_timer(deadline, self(), {:waiter, id, from}, abs: true)
    Map.update(waiters, id, %{from => timer}, &Map.put(&1, from, timer))
  end

  @doc "Whether anybody waits for the session `id`."
  @spec any?(t, MABEAM.Coordination.session_id()) :: boolean
  def any?(waiters, id), do: is_map_key(waiters, id)

  @doc "Answers all that wait for the session `id`."
  @spec answer(t, MABEAM.Coordination.session_id(), term) :: t
  def answer(waiters, id, answer) do
    {froms, waiters} = Map.pop(waiters, id, %{})

    Enum.each(froms, fn {from, timer} ->
      :erlang.cancel_timer(timer, async: true, info: false)
      GenServer.reply(from, answer)
    end)

    waiters
  end

  @doc "A waiter's timer has fired: it is told `{:error, :pending}`."
  @spec expired(t, MABEAM.Coordination.session_id(), GenServer.from()) :: t
  def expired(waiters, id, from) do
    case waiters do
      %{^id => %{^from => _timer} = froms} ->
        GenServer.reply(from, {:error, :pending})
        froms = Map.delete(froms, from)
        if froms == %{}, do: Map.delete(waiters, id), else: Map.put(waiters, id, froms)

      %{} ->
        waiters
    end
  end
end

defmodule Foundation.Coordination.Queue do
  @moduledoc """
  The transactions of this node that wait for their turn.

  A table is locked by one transaction at a time. When two meet, mnesia lets one of them sleep,
  for longer each time: with eight callers that was 50 ms for one in a hundred. So they do not
  meet: one process at a time, under `Foundation.TaskSupervisor`, carries out transactions of a
  table. Those that come meanwhile wait here, and the next process takes them together, as one
  transaction of mnesia: with one lock, one commit and one confirmation for all of them
  (`Foundation.Coordination.Transaction`).

  Each is given up at its own deadline. A process is killed in which a function runs for which
  nobody waits any more, or that waits for nobody's sake; the next one carries out what was not to
  be given up. One that is just committing is left alone.
  """
  use GenServer

  alias Foundation.{Call, Stray}
  alias Foundation.Coordination.{Request, Store, Transaction}

  # So many go together at most: the other nodes wait meanwhile.
  @together 100
  # A turn that takes so long is looked after, again and again.
  @look_ms 100

  @type entry :: {GenServer.from(), Request.t()}
  @type answer ::
          {:committed, term}
          | {:unconfirmed, term, Transaction.mark()}
          | {:aborted, term}
          | :again
          | :late
          | :unknown
          | :unavailable

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Runs `fun` as a transaction on `table`.

  `:again` says that nothing has been written because the majority is just changing, or the
  process died; `:late` that it could not be done until the deadline, and `:unavailable` that there
  is nobody who could, and that nothing has been written; `:unknown` that it may have been.
  """
  @spec run(Store.table(), (() -> term), deadline :: integer) :: answer
  def run(table, fun, deadline) do
    request = Request.new(fun, deadline)

    case Call.call(__MODULE__, {:run, table, request}, Call.left(deadline)) do
      {:error, reason} -> if Request.withdraw(request), do: late(reason), else: :unknown
      :lost -> if Request.committing?(request), do: :unknown, else: :again
      answer -> answer
    end
  end

  defp late(:timeout), do: :late
  defp late(:unavailable), do: :unavailable

  # Of each table: who waits, the last one first; the task that carries out `requests`, and the
  # timer to look after it.
  @impl true
  def init([]) do
    lane = %{waiting: [], task: nil, requests: [], timer: nil}
    {:ok, Map.new(Store.tables(), &{&1, lane})}
  end

  @impl true
  def handle_call({:run, table, request}, from, lanes) do
    lane = Map.fetch!(lanes, table)
    {:noreply, next(lanes, table, %{lane | waiting: [{from, request} | lane.waiting]})}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:timeout, timer, {:look, table}}, lanes) do
    case lanes do
      %{^table => %{timer: ^timer} = lane} -> {:noreply, look(lanes, table, lane)}
      %{} -> {:noreply, lanes}
    end
  end

  # What there was no time for goes first in the next turn.
  def handle_info({ref, {:left, entries}} = message, lanes) do
    case find(lanes, ref) do
      {table, lane} ->
        Process.demonitor(ref, [:flush])
        {:noreply, done(lanes, table, %{lane | waiting: lane.waiting ++ Enum.reverse(entries)})}

      nil ->
        Stray.message(message, lanes)
    end
  end

  def handle_info({:DOWN, ref, :process, _pid, _reason} = message, lanes) do
    case find(lanes, ref) do
      {table, lane} ->
        answer(lane.requests, :lost)
        {:noreply, done(lanes, table, lane)}

      nil ->
        Stray.message(message, lanes)
    end
  end

  def handle_info(message, state), do: Stray.message(message, state)

  defp find(lanes, ref), do: Enum.find(lanes, &match?({_table, %{task: %{ref: ^ref}}}, &1))

  # mnesia may never answer who asked it for a commit just when it died: the others go on.
  defp look(lanes, table, %{task: task} = lane) do
    requests = Enum.map(lane.requests, fn {_from, request} -> request end)

    cond do
      Enum.any?(requests, &Request.kill?/1) ->
        Process.exit(task.pid, :kill)
        lanes

      Enum.any?(requests, &Request.wanted?/1) ->
        Map.put(lanes, table, %{lane | timer: look_later(table)})

      Enum.any?(requests, &Request.under_way?/1) ->
        Process.demonitor(task.ref, [:flush])
        done(lanes, table, lane)

      true ->
        Process.exit(task.pid, :kill)
        lanes
    end
  end

  defp look_later(table), do: :erlang.start_timer(@look_ms, self(), {:look, table})

  defp done(lanes, table, lane) do
    :erlang.cancel_timer(lane.timer, async: true, info: false)
    next(lanes, table, %{lane | task: nil, requests: [], timer: nil})
  end

  defp next(lanes, table, %{task: nil, waiting: [_ | _] = waiting} = lane) do
    {requests, rest} = waiting |> Enum.reverse() |> Enum.split(@together)
    lane = %{lane | waiting: Enum.reverse(rest)}

    case start(table, requests) do
      {:ok, task} ->
        lane = %{lane | task: task, requests: requests, timer: look_later(table)}
        Map.put(lanes, table, lane)

      :error ->
        answer(requests, {:error, :unavailable})
        next(lanes, table, lane)
    end
  end

  defp next(lanes, table, lane), do: Map.put(lanes, table, lane)

  defp start(table, requests) do
    arguments = [table, requests]

    {:ok, Task.Supervisor.async_nolink(Foundation.TaskSupervisor, Transaction, :run, arguments)}
  catch
    :exit, _no_supervisor -> :error
  end

  defp answer(requests, answer) do
    Enum.each(requests, fn {from, _request} -> GenServer.reply(from, answer) end)
  end
end

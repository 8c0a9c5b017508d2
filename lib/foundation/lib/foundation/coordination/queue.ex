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
  # So long before its deadline nothing is begun any more: as long as the last turn took.
  @margin_ms 5..50

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
      {:error, reason} -> given_up(table, request, reason)
      :lost -> if Request.committing?(request), do: :unknown, else: :again
      answer -> answer
    end
  end

  defp given_up(table, request, reason) do
    withdrawn = Request.withdraw(request)
    if withdrawn == :stopped, do: GenServer.cast(__MODULE__, {:look, table})

    case {withdrawn, reason} do
      {:under_way, _reason} -> :unknown
      {_withdrawn, :timeout} -> :late
      {_withdrawn, :unavailable} -> :unavailable
    end
  end

  # Of each table: who waits, the last one first, and how many of them go together. Of its turn:
  # the task that carries out `requests`, the timer to look after it, with which mnesia and when it
  # began. How long the last turn took.
  @impl true
  def init([]) do
    # Tasks are linked while functions run: they do not outlive who looks after them.
    Process.flag(:trap_exit, true)
    turn = %{task: nil, requests: [], timer: nil, mnesia: nil, began: nil}
    lane = Map.merge(turn, %{waiting: [], together: @together, took: 0})
    {:ok, Map.new(Store.tables(), &{&1, lane})}
  end

  @impl true
  def handle_call({:run, table, request}, from, lanes) do
    lane = Map.fetch!(lanes, table)
    {:noreply, next(lanes, table, %{lane | waiting: [{from, request} | lane.waiting]})}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast({:look, table}, lanes) do
    case lanes do
      %{^table => %{task: nil}} -> {:noreply, lanes}
      %{^table => lane} -> {:noreply, look(lanes, table, lane)}
    end
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:timeout, timer, {:look, table}}, lanes) do
    case lanes do
      %{^table => %{timer: ^timer} = lane} -> {:noreply, look(lanes, table, lane)}
      %{} -> {:noreply, lanes}
    end
  end

  # What there was no time for goes first in the next turn, which takes no more than it may manage.
  def handle_info({ref, {:left, froms}} = message, lanes) do
    case find(lanes, ref) do
      {table, lane} ->
        Process.demonitor(ref, [:flush])
        {left, done} = Enum.split_with(lane.requests, fn {from, _request} -> from in froms end)
        together = min(@together, 2 * length(done) + 1)
        lane = %{lane | waiting: lane.waiting ++ Enum.reverse(left), together: together}
        {:noreply, done(lanes, table, lane)}

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

  def handle_info({:EXIT, _task, _reason}, lanes), do: {:noreply, lanes}
  def handle_info(message, state), do: Stray.message(message, state)

  defp find(lanes, ref), do: Enum.find(lanes, &match?({_table, %{task: %{ref: ^ref}}}, &1))

  # mnesia may never answer who asked it for a commit just when it died: the others go on.
  defp look(lanes, table, %{task: task} = lane) do
    requests = Enum.map(lane.requests, fn {_from, request} -> request end)
    gone? = Process.whereis(:mnesia_tm) != lane.mnesia

    cond do
      gone? or Enum.any?(requests, &Request.kill?/1) ->
        Process.exit(task.pid, :kill)
        lanes

      Enum.any?(requests, &Request.awaited?/1) ->
        cancel(lane.timer)
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
  defp cancel(timer), do: :erlang.cancel_timer(timer, async: true, info: false)

  defp done(lanes, table, lane) do
    cancel(lane.timer)
    took = Call.deadline(0) - lane.began
    next(lanes, table, %{lane | task: nil, requests: [], timer: nil, took: took})
  end

  defp next(lanes, table, %{task: nil, waiting: [_ | _] = waiting} = lane) do
    {requests, rest} = waiting |> Enum.reverse() |> Enum.split(lane.together)
    lane = %{lane | waiting: Enum.reverse(rest)}
    mnesia = Process.whereis(:mnesia_tm)
    margin = lane.took |> max(@margin_ms.first) |> min(@margin_ms.last)

    case start([table, requests, margin, self()]) do
      {:ok, task} ->
        turn = %{task: task, requests: requests, timer: look_later(table), mnesia: mnesia}
        Map.put(lanes, table, lane |> Map.merge(turn) |> Map.put(:began, Call.deadline(0)))

      :error ->
        answer(requests, {:error, :unavailable})
        next(lanes, table, lane)
    end
  end

  defp next(lanes, table, lane), do: Map.put(lanes, table, lane)

  defp start(arguments) do
    {:ok, Task.Supervisor.async_nolink(Foundation.TaskSupervisor, Transaction, :run, arguments)}
  catch
    :exit, _no_supervisor -> :error
  end

  defp answer(requests, answer) do
    Enum.each(requests, fn {from, _request} -> GenServer.reply(from, answer) end)
  end
end

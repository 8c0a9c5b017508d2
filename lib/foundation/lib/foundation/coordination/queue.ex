defmodule Foundation.Coordination.Queue do
  @moduledoc """
  The transactions of this node that wait for their turn.

  A table is locked by one transaction at a time. When two meet, mnesia lets one of them sleep,
  for longer each time: with eight callers that was 50 ms for one in a hundred. So they do not
  meet: one process, under `Foundation.TaskSupervisor`, carries out transactions of a table. Those
  that come meanwhile wait here, and the next process takes them together, as one transaction of
  mnesia: with one lock, one commit and one confirmation for all of them
  (`Foundation.Coordination.Transaction`).

  Each is given up at its own deadline. A process whose transactions have all been given up, and
  one whose function does not return, is killed; the others' are carried out by the next one.
  """
  use GenServer

  alias Foundation.{Call, Stray}
  alias Foundation.Coordination.{Request, Store, Transaction}

  # So many go together: the other nodes wait meanwhile.
  @together 100

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
  process died; `:late` that the deadline has passed, and `:unavailable` that there is nobody who
  could, and that nothing has been written; `:unknown` that it may have been.
  """
  @spec run(Store.table(), (() -> term), deadline :: integer) :: answer
  def run(table, fun, deadline) do
    request = Request.new(fun, deadline)

    case Call.call(__MODULE__, {:run, table, request}, Call.left(deadline)) do
      {:error, :timeout} -> given_up(table, request, :late)
      {:error, :unavailable} -> given_up(table, request, :unavailable)
      :lost -> if Request.committing?(request), do: :unknown, else: :again
      answer -> answer
    end
  end

  defp given_up(table, request, why) do
    case Request.withdraw(request) do
      :waiting ->
        why

      :running ->
        GenServer.cast(__MODULE__, {:stop, table, request})
        why

      :under_way ->
        :unknown
    end
  end

  # Of each table: who waits, the last one first; the task that carries out `requests`, and its
  # last deadline's timer.
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
  def handle_cast({:stop, table, request}, lanes) do
    %{requests: requests} = lane = Map.fetch!(lanes, table)

    if Enum.any?(requests, fn {_from, one} -> one.progress == request.progress end),
      do: stop(lane)

    {:noreply, lanes}
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info({:timeout, timer, table}, lanes) do
    with %{^table => %{timer: ^timer} = lane} <- lanes, do: stop(lane)
    {:noreply, lanes}
  end

  def handle_info({ref, :ok} = message, lanes) do
    case find(lanes, ref) do
      {table, lane} ->
        Process.demonitor(ref, [:flush])
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

  def handle_info(message, state), do: Stray.message(message, state)

  defp find(lanes, ref), do: Enum.find(lanes, &match?({_table, %{task: %{ref: ^ref}}}, &1))

  # What has come to the commit cannot be stopped any more.
  defp stop(%{task: %{pid: pid}, requests: requests}) do
    committing? = Enum.any?(requests, fn {_from, request} -> Request.committing?(request) end)
    if not committing?, do: Process.exit(pid, :kill)
  end

  defp done(lanes, table, lane) do
    :erlang.cancel_timer(lane.timer, async: true, info: false)
    next(lanes, table, %{lane | task: nil, requests: [], timer: nil})
  end

  defp next(lanes, table, %{task: nil, waiting: [_ | _] = waiting} = lane) do
    {requests, rest} = waiting |> Enum.reverse() |> Enum.split(@together)
    lane = %{lane | waiting: Enum.reverse(rest)}

    case start(table, requests) do
      {:ok, task} ->
        last = requests |> Enum.map(fn {_from, request} -> request.deadline end) |> Enum.max()
        timer = :erlang.start_timer(last, self(), table, abs: true)
        Map.put(lanes, table, %{lane | task: task, requests: requests, timer: timer})

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

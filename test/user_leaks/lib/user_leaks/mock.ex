defmodule UserLeaks.Mock do
  @moduledoc """
  One server for all tests, as libraries for mocks have it: it keeps what each test expects, monitors the
  tests, and spawns on their behalf. What it spawns stays its own.
  """
  use GenServer

  def start_link(_), do: GenServer.start_link(__MODULE__, %{}, name: __MODULE__)

  @doc "From now on `call/1` in the calling process, and in its tasks, answers with `fun`."
  def expect(fun), do: GenServer.call(__MODULE__, {:expect, self(), fun})

  def call(argument) do
    callers = [self() | Process.get(:"$callers", [])]
    fun = GenServer.call(__MODULE__, {:find, callers})
    fun.(argument)
  end

  @impl true
  def init(state), do: {:ok, state}

  @impl true
  def handle_call({:expect, pid, fun}, _from, state) do
    Process.monitor(pid)
    # A worker for each owner, which lives longer than the test.
    worker = spawn_link(UserLeaks.Server, :idle, [])
    {:reply, :ok, Map.put(state, pid, {fun, worker})}
  end

  def handle_call({:find, pids}, _from, state) do
    {fun, _worker} = Enum.find_value(pids, &state[&1])
    {:reply, fun, state}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, _pid, _reason}, state), do: {:noreply, state}
end

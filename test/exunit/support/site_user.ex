defmodule Lineage.SiteUser do
  @moduledoc """
  Spawns in the ways of Elixir. Each function returns the line of the call that it makes, and the process.
  """
  use GenServer

  def spawned do
    pid = spawn(fn -> wait() end)
    {__ENV__.line - 1, pid}
  end

  def spawned_by_name do
    pid = spawn(__MODULE__, :wait, [])
    {__ENV__.line - 1, pid}
  end

  def with_options do
    pid = Process.spawn(fn -> wait() end, [:link])
    {__ENV__.line - 1, pid}
  end

  def task do
    {:ok, pid} = Task.start(fn -> wait() end)
    {__ENV__.line - 1, pid}
  end

  def task_by_name do
    {:ok, pid} = Task.start(__MODULE__, :wait, [])
    {__ENV__.line - 1, pid}
  end

  def linked_task do
    {:ok, pid} = Task.start_link(fn -> wait() end)
    {__ENV__.line - 1, pid}
  end

  def async do
    task = Task.async(fn -> wait() end)
    {__ENV__.line - 1, task.pid}
  end

  def agent do
    {:ok, pid} = Agent.start(fn -> :state end)
    {__ENV__.line - 1, pid}
  end

  def server do
    {:ok, pid} = GenServer.start(__MODULE__, :state)
    {__ENV__.line - 1, pid}
  end

  def linked_server do
    {:ok, pid} = GenServer.start_link(__MODULE__, :state)
    {__ENV__.line - 1, pid}
  end

  def comprehended do
    pids = for _ <- [1], do: spawn(__MODULE__, :wait, [])
    {__ENV__.line - 1, hd(pids)}
  end

  def piped do
    pid = __MODULE__ |> spawn(:wait, [])
    {__ENV__.line - 1, pid}
  end

  @doc "By a supervisor: its closure tells whose it is."
  def supervised(supervisor) do
    {:ok, pid} = Task.Supervisor.start_child(supervisor, fn -> wait() end)
    {__ENV__.line - 1, pid}
  end

  def tail, do: Task.start(__MODULE__, :idle, [])

  @doc false
  def idle, do: wait()

  @impl true
  def init(state), do: {:ok, state}

  def wait do
    receive do
      :stop -> :ok
    end
  end
end

defmodule Foundation.Test.Actor do
  @moduledoc """
  A process with a name on a node of `Foundation.Test.Cluster`, that calls functions when it is
  told to and lives on: to hold locks, to wait, to die.
  """
  use GenServer

  @doc "Starts the actor `name`, under Foundation's supervisor for tasks."
  @spec start(atom) :: :ok
  def start(name) do
    {:ok, _pid} =
      DynamicSupervisor.start_child(Foundation.TaskSupervisor, %{
        id: name,
        start: {GenServer, :start_link, [__MODULE__, nil, [name: name]]},
        restart: :temporary
      })

    :ok
  end

  @doc "Has the actor call a function, and returns its result."
  @spec run(atom, module, atom, [term]) :: term
  def run(name, module, function, arguments),
    do: GenServer.call(name, {:run, module, function, arguments}, :infinity)

  @doc "Has the actor call a function, and returns at once; `result/1` returns its result."
  @spec begin(atom, module, atom, [term]) :: :ok
  def begin(name, module, function, arguments),
    do: GenServer.cast(name, {:run, module, function, arguments})

  @doc "The result of what the actor was told to begin, when it is there."
  @spec result(atom) :: term
  def result(name), do: GenServer.call(name, :result, :infinity)

  @doc "Kills the actor, and returns when it is dead."
  @spec kill(atom) :: :ok
  def kill(name) do
    pid = Process.whereis(name)
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^ref, :process, ^pid, _reason} -> :ok
    end
  end

  @impl true
  def init(nil), do: {:ok, nil}

  @impl true
  def handle_call({:run, module, function, arguments}, _from, result),
    do: {:reply, apply(module, function, arguments), result}

  def handle_call(:result, _from, result), do: {:reply, result, nil}

  @impl true
  def handle_cast({:run, module, function, arguments}, _result),
    do: {:noreply, apply(module, function, arguments)}
end

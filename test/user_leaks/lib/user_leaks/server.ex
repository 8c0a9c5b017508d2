defmodule UserLeaks.Server do
  @moduledoc "A server that does what it is told, and what a careless one does."
  use GenServer

  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

  def start(options \\ []), do: GenServer.start(__MODULE__, options)

  @doc "Runs a function in the server."
  def run(server, fun), do: GenServer.call(server, {:run, fun})

  @doc "Has the server start a worker that nobody stops."
  def careless(server), do: GenServer.call(server, :careless)

  @doc "What lives until it is told otherwise, which nobody does."
  def idle do
    receive do
      :stop -> :ok
    end
  end

  @impl true
  def init(options) do
    if options[:trap_exit], do: Process.flag(:trap_exit, true)
    if fun = options[:init], do: fun.()
    {:ok, nil}
  end

  @impl true
  def handle_call({:run, fun}, _from, state), do: {:reply, fun.(), state}

  def handle_call(:careless, _from, state) do
    # leak(server_child)
    pid = spawn(__MODULE__, :idle, [])
    {:reply, pid, state}
  end

  @impl true
  def handle_info(_message, state), do: {:noreply, state}
end

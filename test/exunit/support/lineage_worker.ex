defmodule Lineage.Worker do
  @moduledoc "A GenServer that runs any function in its own process: what a user's server would do."

  use GenServer

  def start_link(options \\ []), do: GenServer.start_link(__MODULE__, [], options)
  def start(options \\ []), do: GenServer.start(__MODULE__, [], options)

  @doc "Runs `fun` inside the server and returns what it returned."
  def run(server, fun), do: GenServer.call(server, {:run, fun})

  @impl true
  def init([]), do: {:ok, nil}

  @impl true
  def handle_call({:run, fun}, _from, state), do: {:reply, fun.(), state}
end

defmodule MABEAM.Agent.Server do
  @moduledoc """
  The process of an agent: holds its state, and calls its module.

  It gets one piece of work at a time from its gate, `MABEAM.Agent.Gate`, and tells the gate when
  it has done it.
  """
  use GenServer

  alias Foundation.Stray
  alias MABEAM.Agent.Gate
  alias MABEAM.AgentRegistry

  @type work :: {:request, term} | {:event, term}

  @doc "Starts the agent `id` in the cell `cell`; its `init/1` may take `timeout` milliseconds."
  @spec start_link({AgentRegistry.id(), pid, module, term}, timeout) :: GenServer.on_start()
  def start_link({_id, _cell, _module, _config} = agent, timeout) do
    GenServer.start_link(__MODULE__, agent, timeout: timeout)
  end

  @doc "Gives the agent work, which it reports to `gate` as done under `tag`."
  @spec work(pid, gate :: pid, tag :: reference, work) :: :ok
  def work(agent, gate, tag, work), do: GenServer.cast(agent, {:work, gate, tag, work})

  # Registered last: an agent that is known to run is ready.
  @impl true
  def init({id, cell, module, config}) do
    with {:ok, state} <- module.init(config), :ok <- AgentRegistry.running(id, cell) do
      {:ok, {module, state}}
    else
      {:error, reason} -> {:stop, reason}
      other -> {:stop, {:bad_return, other}}
    end
  end

  @impl true
  def handle_cast({:work, gate, tag, {:request, request}}, {module, state}) do
    case module.handle_request(request, state) do
      {:reply, reply, state} ->
        Gate.done(gate, tag, reply)
        {:noreply, {module, state}}

      other ->
        {:stop, {:bad_return, other}, {module, state}}
    end
  end

  def handle_cast({:work, gate, tag, {:event, event}}, {module, state}) do
    case module.handle_event(event, state) do
      {:noreply, state} ->
        Gate.done(gate, tag, :noreply)
        {:noreply, {module, state}}

      other ->
        {:stop, {:bad_return, other}, {module, state}}
    end
  end

  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_info(message, state), do: Stray.message(message, state)
end

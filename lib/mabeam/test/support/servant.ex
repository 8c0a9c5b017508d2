defmodule MABEAM.Test.Servant do
  @moduledoc """
  An agent that does what its test asks for, and tells it what happens.

  Its configuration is `%{test: pid}`, and maybe `init: result`, what its start is to return, or
  `init: :hold`. The test gets

    * `{:up, agent}` when it has started
    * `{:holding, agent, tag}` when it is at the request or event `{:hold, tag}`, until it is sent
      `{:release, tag, reply}`
    * `{:event, agent, event}` for each other event
  """
  @behaviour MABEAM.Agent

  @impl true
  def init(%{init: :hold} = config) do
    hold(:init, config.test)
    init(Map.delete(config, :init))
  end

  def init(%{init: result}), do: result

  def init(%{test: test}) do
    send(test, {:up, self()})
    {:ok, %{test: test, asked: 0}}
  end

  @impl true
  def handle_request({:hold, tag}, state), do: {:reply, hold(tag, state.test), count(state)}
  def handle_request({:echo, term}, state), do: {:reply, term, count(state)}
  def handle_request(:asked, state), do: {:reply, state.asked, state}
  def handle_request({:exit, reason}, _state), do: exit(reason)
  def handle_request({:return, wrong}, _state), do: wrong

  def handle_request(:trap_exits, state) do
    Process.flag(:trap_exit, true)
    {:reply, :ok, state}
  end

  @impl true
  def handle_event({:hold, tag}, state) do
    hold(tag, state.test)
    {:noreply, state}
  end

  def handle_event({:exit, reason}, _state), do: exit(reason)

  def handle_event(event, state) do
    send(state.test, {:event, self(), event})
    {:noreply, state}
  end

  @doc "Registers a servant of the calling test under a name of its own, which it returns."
  @spec register!(keyword) :: String.t()
  def register!(options \\ []) do
    id = unknown()
    {config, options} = Keyword.pop(options, :config, %{})
    config = Map.merge(%{test: self()}, config)
    :ok = MABEAM.Agent.register(id, __MODULE__, [config: config] ++ options)
    ExUnit.Callbacks.on_exit(fn -> MABEAM.Agent.deregister(id) end)
    id
  end

  @doc "The same, and starts it."
  @spec start!(keyword) :: {String.t(), pid}
  def start!(options \\ []) do
    id = register!(options)
    {:ok, pid} = MABEAM.Agent.start(id)
    receive do: ({:up, ^pid} -> {id, pid})
  end

  @doc "A name that no agent has."
  @spec unknown() :: String.t()
  def unknown, do: "servant-#{System.unique_integer([:positive])}"

  defp hold(tag, test) do
    send(test, {:holding, self(), tag})
    receive do: ({:release, ^tag, reply} -> reply)
  end

  defp count(state), do: %{state | asked: state.asked + 1}

  defmodule Deaf do
    @moduledoc "An agent that takes no events."
    @behaviour MABEAM.Agent

    @impl true
    def init(config), do: {:ok, config}

    @impl true
    def handle_request(request, state), do: {:reply, request, state}
  end
end

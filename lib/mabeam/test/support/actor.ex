defmodule MABEAM.Test.Actor do
  @moduledoc """
  An agent that answers each request with a function that its test gives it.

  The function may also block, crash or exit.
  """
  @behaviour MABEAM.Agent

  @impl true
  def init(answer) when is_function(answer, 1), do: {:ok, answer}

  @impl true
  def handle_request(request, answer), do: {:reply, answer.(request), answer}

  @doc "Starts an agent for the calling test, under a name of its own, which it returns."
  @spec start!((request :: term -> reply :: term)) :: String.t()
  def start!(answer) do
    id = unknown()
    :ok = MABEAM.Agent.register(id, __MODULE__, config: answer)
    {:ok, _pid} = MABEAM.Agent.start(id)
    ExUnit.Callbacks.on_exit(fn -> MABEAM.Agent.deregister(id) end)
    id
  end

  @doc "A name that no agent has."
  @spec unknown() :: String.t()
  def unknown, do: "actor-#{System.unique_integer([:positive])}"
end

defmodule Foundation.Stray do
  @moduledoc """
  What servers do with messages that are not theirs: the last clause of each callback.

  A server that crashed on them would lose its work to anybody's slip. They are logged, as
  `GenServer` does by itself for a server without such callbacks.
  """
  require Logger

  @doc """
  Answers `:ping` with `:pong`, as `Foundation.HealthMonitor` asks, and all else with
  `{:error, :bad_request}`.
  """
  @spec call(term, state) :: {:reply, :pong | {:error, :bad_request}, state} when state: term
  def call(:ping, state), do: {:reply, :pong, state}

  def call(request, state) do
    Logger.warning("#{inspect(name())} was asked for what it does not know: #{inspect(request)}")
    {:reply, {:error, :bad_request}, state}
  end

  @doc "Logs a cast or a message, and goes on."
  @spec message(term, state) :: {:noreply, state} when state: term
  def message(message, state) do
    Logger.warning("#{inspect(name())} got a message that it does not know: #{inspect(message)}")
    {:noreply, state}
  end

  defp name do
    case Process.info(self(), :registered_name) do
      {:registered_name, name} when is_atom(name) -> name
      _nameless -> self()
    end
  end
end

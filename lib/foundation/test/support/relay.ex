defmodule Foundation.Test.Relay do
  @moduledoc """
  Sends a test `{:relayed, message}` for each message that it gets.
  """
  use GenServer

  @spec start_link(pid) :: GenServer.on_start()
  def start_link(test), do: GenServer.start_link(__MODULE__, test)

  @impl true
  def init(test), do: {:ok, test}

  @impl true
  def handle_info(message, test) do
    send(test, {:relayed, message})
    {:noreply, test}
  end
end

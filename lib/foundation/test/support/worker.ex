defmodule Foundation.Test.Worker do
  @moduledoc """
  A server that does nothing but what a test needs of one.

  Options: `:notify`, a pid that gets `{:worker, pid}` when it has started; `:trap`, which lets it survive
  all signals but a kill; `:fail`, which lets it not start.
  """
  use GenServer

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

  @impl true
  def init(options) do
    if options[:trap], do: Process.flag(:trap_exit, true)
    if options[:notify], do: send(options[:notify], {:worker, self()})
    if options[:fail], do: {:stop, :failed}, else: {:ok, options}
  end

  @impl true
  def handle_info({:EXIT, _pid, _reason}, options), do: {:noreply, options}
end

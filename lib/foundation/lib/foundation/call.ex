defmodule Foundation.Call do
  @moduledoc """
  Calls to servers that answer `{:error, reason}` where `GenServer.call/3` exits.

  A public function that asks a server must not take its caller down because that server is being
  restarted just then; and whoever wants the exit can still match on the error.
  """

  @type reason :: :unavailable | :timeout

  @doc """
  Asks `server`, and waits at most `timeout` milliseconds.

  Returns what the server answers, `{:error, :timeout}` when it does not in time, and
  `{:error, :unavailable}` when there is no such server, or it died before it answered.
  """
  @spec call(GenServer.server(), term, timeout) :: term | {:error, reason}
  def call(server, request, timeout \\ 5_000) do
    GenServer.call(server, request, timeout)
  catch
    :exit, {:timeout, {GenServer, :call, _args}} -> {:error, :timeout}
    :exit, {_reason, {GenServer, :call, _args}} -> {:error, :unavailable}
  end

  @doc """
  A deadline `timeout` milliseconds from now, in the node's monotonic time.

  A function with several steps takes one deadline and gives each step what is left of it.
  """
  @spec deadline(timeout) :: integer | :infinity
  def deadline(:infinity), do: :infinity
  def deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  @doc "Milliseconds left until `deadline`, 0 when it has passed."
  @spec left(integer | :infinity) :: timeout
  def left(:infinity), do: :infinity
  def left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)
end

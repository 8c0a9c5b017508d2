defmodule MABEAM.Legacy.Comms do
  @moduledoc """
  Asynchronous requests as they were audited: each by a process that asks the agent and waits for
  it.

  Nobody supervises or watches it. When it dies the caller is never told, and when the caller dies
  it goes on; nothing bounds how many there are.
  """

  @doc """
  Makes the process that asks, and returns at once: the answer comes as `{:mabeam_response,
  reference, result}`.
  """
  @spec send_async_request(MABEAM.Agent.id(), term, non_neg_integer) :: {:ok, reference}
  def send_async_request(agent, request, timeout) do
    reference = make_ref()
    spawn(__MODULE__, :await_agent, [self(), reference, agent, request, timeout])
    {:ok, reference}
  end

  @doc false
  def await_agent(caller, reference, agent, request, timeout) do
    send(caller, {:mabeam_response, reference, MABEAM.Comms.request(agent, request, timeout)})
  end
end

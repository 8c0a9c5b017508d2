defmodule MABEAM.Test.Puppet do
  @moduledoc """
  A coordination protocol that does what its test tells it to.

  It sends the process `params.test` the message `{:running, worker, context}`, and waits for what
  to do: `{:return, value}`, `{:raise, message}`, `{:throw, value}`, `{:exit, reason}`, or
  `{:ask, step, timeout}`, which asks the agents and returns their answers.
  """
  @behaviour MABEAM.Coordination.Protocol

  alias MABEAM.Coordination
  alias MABEAM.Coordination.Context

  @impl true
  def run(agents, %{test: test}, context) do
    send(test, {:running, self(), context})
    obey(agents, context)
  end

  defp obey(agents, context) do
    receive do
      {:return, value} -> value
      {:raise, message} -> raise message
      {:throw, value} -> throw(value)
      {:exit, reason} -> exit(reason)
      {:ask, step, timeout} -> {:ok, Context.ask_all(context, agents, step, %{}, timeout)}
    end
  end

  defmodule Retried do
    @moduledoc "The same, run again twice."
    @behaviour MABEAM.Coordination.Protocol

    @impl true
    def retries, do: 2

    @impl true
    def on_node_down, do: :restart

    @impl true
    defdelegate run(agents, params, context), to: MABEAM.Test.Puppet
  end

  @doc "The name under which `module` is registered as a protocol."
  @spec registered!(module) :: String.t()
  def registered!(module \\ __MODULE__) do
    name = inspect(module)
    answer = Coordination.register_protocol(name, module)
    true = answer in [:ok, {:error, :already_registered}]
    name
  end

  @doc "Returns when nobody waits any more for what `agent` is at."
  @spec given_up!(MABEAM.AgentRegistry.id()) :: :ok
  def given_up!(agent) do
    {:ok, gate} = MABEAM.AgentRegistry.gate(agent)
    if :sys.get_state(gate).at.given_up, do: :ok, else: given_up!(agent)
  end

  @doc """
  Ends the sessions that other tests have left to their deadlines: for a test that counts them.

  They go on when who has begun them dies.
  """
  @spec none_active!() :: :ok
  def none_active! do
    {:ok, sessions} = Coordination.list_active_sessions()
    Enum.each(sessions, &Coordination.cancel_session(&1.id))
  end
end

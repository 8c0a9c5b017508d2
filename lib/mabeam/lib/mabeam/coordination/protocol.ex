defmodule MABEAM.Coordination.Protocol do
  @moduledoc """
  The behaviour of a coordination protocol: how some agents come to a common result.

      defmodule MyApp.Ping do
        @behaviour MABEAM.Coordination.Protocol

        alias MABEAM.Coordination.Context

        @impl true
        def run(agents, params, context) do
          answers = Context.ask_all(context, agents, :ping, params, Context.step_time(context, 1))
          {:ok, for({agent, {:ok, :pong}} <- answers, do: agent)}
        end
      end

      MABEAM.Coordination.register_protocol(:ping, MyApp.Ping)

  An agent is asked with `{:coordination, protocol, step, params}`, where `protocol` is the name
  under which the protocol is registered.

  A protocol runs in a process of its own, which may be killed at any moment: when the
  coordination is cancelled, or at its deadline. It keeps nothing that outlives it, starts
  processes only linked to its own, and asks agents by `MABEAM.Coordination.Context.ask_all/5`.
  """

  alias MABEAM.Coordination.Context

  @doc """
  Runs the protocol over `agents` until it has a result, or a reason why there is none.

  `{:error, reason}` is an answer: it ends the coordination. When the function raises, or its
  process is killed, the coordination is run again, as often as `c:retries/0` allows and the
  deadline leaves time.
  """
  @callback run(agents :: [MABEAM.Coordination.agent()], params :: map, Context.t()) ::
              {:ok, result :: term} | {:error, reason :: term}

  @doc "How often a coordination that crashed is run again. 0 when the protocol does not tell."
  @callback retries() :: non_neg_integer

  @doc """
  What is done when the node that runs a coordination goes down (see `MABEAM.Coordination`):
  another node runs it again from its start, or only reports that it is lost. `:report` when the
  protocol does not tell.
  """
  @callback on_node_down() :: :report | :restart

  @optional_callbacks retries: 0, on_node_down: 0

  @typedoc "A protocol as it is registered; each coordination starts with the `:defaults`."
  @type entry :: %{
          module: module,
          defaults: map,
          retries: non_neg_integer,
          on_node_down: :report | :restart
        }

  @doc """
  Asks a module what it is as a protocol.

  `{:error, :bad_protocol}` when there is no such module, or it does not answer as this behaviour
  wants.
  """
  @spec entry(module | {module, keyword | map}) :: {:ok, entry} | {:error, :bad_protocol}
  def entry({module, defaults}) when is_atom(module) do
    with {:ok, defaults} <- to_map(defaults),
         true <- Code.ensure_loaded?(module) and function_exported?(module, :run, 3),
         {:ok, retries} when is_integer(retries) and retries >= 0 <- tell(module, :retries, 0),
         {:ok, on_down} when on_down in [:report, :restart] <-
           tell(module, :on_node_down, :report) do
      {:ok, %{module: module, defaults: defaults, retries: retries, on_node_down: on_down}}
    else
      _other -> {:error, :bad_protocol}
    end
  end

  def entry(module) when is_atom(module), do: entry({module, %{}})
  def entry(_other), do: {:error, :bad_protocol}

  defp to_map(defaults) when is_map(defaults) and not is_struct(defaults), do: {:ok, defaults}

  defp to_map(defaults),
    do: if(Keyword.keyword?(defaults), do: {:ok, Map.new(defaults)}, else: :error)

  # A module that is asked here may be anybody's: whatever it does, it is only not a protocol.
  defp tell(module, function, default) do
    if function_exported?(module, function, 0) do
      {:ok, apply(module, function, [])}
    else
      {:ok, default}
    end
  catch
    _kind, _reason -> :error
  end
end

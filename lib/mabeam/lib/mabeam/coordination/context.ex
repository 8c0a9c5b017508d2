defmodule MABEAM.Coordination.Context do
  @moduledoc """
  What a protocol knows of the coordination that it runs, and how it asks agents.

  The time of a coordination is one deadline for all its steps. A protocol divides it by
  `step_time/2`, so that an agent that does not answer is named in the result, instead of taking
  the time of all.
  """

  alias Foundation.Call
  alias MABEAM.{Comms, Legacy}

  @enforce_keys [:session, :protocol, :attempt, :deadline]
  defstruct @enforce_keys ++ [supervised?: true]

  @typedoc """
    * `:session` - the coordination
    * `:protocol` - the name under which its protocol is registered
    * `:attempt` - 1, or more when it was run before and crashed
    * `:deadline` - of `Foundation.Call.deadline/1`
    * `:supervised?` - false in a session that the code of `MABEAM.Legacy.Coordination` runs
  """
  @type t :: %__MODULE__{
          session: MABEAM.Coordination.session_id(),
          protocol: MABEAM.Coordination.protocol(),
          attempt: pos_integer,
          deadline: integer,
          supervised?: boolean
        }

  @type answer :: {:ok, reply :: term} | {:error, reason :: term}

  @doc """
  Milliseconds that the next of `steps` steps may take.

  A tenth of what is left is kept for what comes after the answers.
  """
  @spec step_time(t, pos_integer) :: non_neg_integer
  def step_time(context, steps), do: div(Call.left(context.deadline) * 9, 10 * steps)

  @doc """
  Asks all agents at once, and waits at most `timeout` milliseconds for their answers.

  Returns an answer for each agent, in the order of `agents`: what it replied, or
  `{:error, reason}` with the reasons of `MABEAM.Comms.request/3`.

  They are asked by the process that calls this: when it is killed, nothing of it goes on.
  """
  @spec ask_all(t, [agent], step :: atom, params :: term, timeout :: non_neg_integer) ::
          [{agent, answer}]
        when agent: MABEAM.Coordination.agent()
  def ask_all(context, agents, step, params, timeout) do
    request = {:coordination, context.protocol, step, params}

    if context.supervised? do
      {:ok, answers} = Comms.request_all(agents, request, timeout)
      answers
    else
      Legacy.Coordination.ask_all(agents, request, timeout)
    end
  end
end

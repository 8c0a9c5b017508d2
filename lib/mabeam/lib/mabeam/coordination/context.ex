defmodule MABEAM.Coordination.Context do
  @moduledoc """
  What a protocol knows of the coordination that it runs, and how it asks agents.

  The time of a coordination is one deadline for all its steps. A protocol divides it by
  `step_time/2`, so that an agent that does not answer is named in the result, instead of taking
  the time of all.
  """

  alias Foundation.Call

  @enforce_keys [:session, :protocol, :attempt, :deadline]
  defstruct @enforce_keys ++ [linked?: true]

  @typedoc """
    * `:session` - the coordination
    * `:protocol` - the name under which its protocol is registered
    * `:attempt` - 1, or more when it was run before and crashed
    * `:deadline` - of `Foundation.Call.deadline/1`
    * `:linked?` - whether its requests end with the process that runs it, as they do but in
      `MABEAM.Legacy.Coordination`
  """
  @type t :: %__MODULE__{
          session: MABEAM.Coordination.session_id(),
          protocol: MABEAM.Coordination.protocol(),
          attempt: pos_integer,
          deadline: integer,
          linked?: boolean
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

  The requests are tasks under `MABEAM.TaskSupervisor`, linked to the caller: when it is killed,
  nothing of it goes on. A stream of tasks without links (`Task.Supervisor.async_stream_nolink/4`)
  would leave them behind.
  """
  @spec ask_all(t, [agent], step :: atom, params :: term, timeout :: non_neg_integer) ::
          [{agent, answer}]
        when agent: MABEAM.Coordination.agent()
  def ask_all(context, agents, step, params, timeout) do
    request = {:coordination, context.protocol, step, params}
    deadline = Call.deadline(timeout)

    tasks = for agent <- agents, do: start(context, [agent, request, deadline])

    answers = for {task, yielded} <- Task.yield_many(tasks, timeout), do: answer(task, yielded)
    Enum.zip(agents, answers)
  end

  defp start(%{linked?: true}, arguments),
    do: Task.Supervisor.async(MABEAM.TaskSupervisor, __MODULE__, :ask, arguments)

  defp start(%{linked?: false}, arguments),
    do: Task.Supervisor.async_nolink(MABEAM.TaskSupervisor, __MODULE__, :ask, arguments)

  @doc false
  def ask(agent, request, deadline) do
    case Call.left(deadline) do
      0 -> {:error, :timeout}
      left -> MABEAM.Comms.request(agent, request, left)
    end
  end

  defp answer(_task, {:ok, answer}), do: answer
  defp answer(_task, {:exit, reason}), do: {:error, {:exit, reason}}

  # The request has the same time-out, and may answer at this very moment.
  defp answer(task, nil) do
    case Task.shutdown(task, :brutal_kill) do
      {:ok, answer} -> answer
      _none -> {:error, :timeout}
    end
  end
end

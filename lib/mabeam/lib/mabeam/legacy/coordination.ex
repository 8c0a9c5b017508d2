defmodule MABEAM.Legacy.Coordination do
  @moduledoc """
  How coordinations ran before `MABEAM.CoordinationSupervisor`: in a process that nobody
  supervises, links or monitors.

  It runs the protocol in a task of its own, which is linked to it, and waits for it; the requests
  to agents are linked to neither. When the protocol crashes or takes too long, it dies with its
  task, and the session is lost: nobody is told, and it stays active for ever. A session that is
  cancelled is forgotten, while its process goes on.
  """

  alias Foundation.Call
  alias MABEAM.Coordination.{Context, Session}

  @doc "Starts the process of a session."
  @spec start(module, Session.t()) :: {:ok, pid}
  def start(protocol, session) do
    {:ok, spawn(__MODULE__, :coordination_process, [protocol, session])}
  end

  @doc false
  def coordination_process(protocol, session) do
    task = Task.async(__MODULE__, :run_protocol, [protocol, session])
    result = Task.await(task, Call.left(session.deadline))
    GenServer.cast(MABEAM.Coordination, {:legacy_ended, session.id, result})
  end

  @doc false
  def run_protocol(protocol, session) do
    protocol.run(session.agents, session.params, %Context{
      session: session.id,
      protocol: session.protocol,
      attempt: session.attempt,
      deadline: session.deadline,
      supervised?: false
    })
  end

  @doc "Asks all agents, each by a task that is not linked to the caller."
  @spec ask_all([agent], term, non_neg_integer) :: [{agent, Context.answer()}]
        when agent: MABEAM.Coordination.agent()
  def ask_all(agents, request, timeout) do
    deadline = Call.deadline(timeout)

    tasks =
      for agent <- agents do
        arguments = [agent, request, deadline]
        Task.Supervisor.async_nolink(MABEAM.TaskSupervisor, __MODULE__, :ask, arguments)
      end

    answers = for {task, yielded} <- Task.yield_many(tasks, timeout), do: answer(task, yielded)
    Enum.zip(agents, answers)
  end

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

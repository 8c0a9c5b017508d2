defmodule MABEAM.CoordinationWorker do
  @moduledoc """
  Runs one attempt of a coordination, and hands its result to `MABEAM.Coordination`.

  It begins when it is told to, by `run/1`: the server has written down and monitors it then. The
  protocol runs in this process, in `c:GenServer.handle_cast/2`: so it crashes with the
  protocol, and needs no second process that could outlive it. It does not trap exits, and is
  killed when it is to end: there is nothing to tidy up, as all that a protocol starts is linked
  to it.
  """
  use GenServer, restart: :temporary, shutdown: :brutal_kill

  alias Foundation.Call
  alias MABEAM.Coordination.{Context, Record, Session}

  # Between two tries to hand in a result, when the server is being restarted.
  @pause_ms 10

  @doc "Starts a worker for `:protocol`, a module, and `:params`, a session."
  @spec start_link(protocol: module, params: Session.t()) :: GenServer.on_start()
  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @doc "Lets a worker begin; to tell it again changes nothing."
  @spec run(pid) :: :ok
  def run(worker), do: GenServer.cast(worker, :run)

  @impl true
  def init(protocol: protocol, params: session), do: {:ok, {protocol, session}}

  @impl true
  def handle_cast(:run, {protocol, session} = state) do
    hand_in(session, run(protocol, session))
    {:stop, :normal, state}
  end

  # The result, and whether it stands: see Record.
  defp run(protocol, %Session{recorded?: true} = session) do
    with :ok <- Record.open(session, Call.left(session.deadline)),
         result = run_protocol(protocol, session),
         {:ok, standing} <- Record.close(session, result, Call.left(session.deadline)) do
      {standing, true}
    else
      {:error, reason} -> {{:error, reason}, false}
    end
  end

  defp run(protocol, session), do: {run_protocol(protocol, session), true}

  defp run_protocol(protocol, session) do
    context = %Context{
      session: session.id,
      protocol: session.protocol,
      attempt: session.attempt,
      deadline: session.deadline
    }

    case protocol.run(session.agents, session.params, context) do
      {:ok, _result} = result -> result
      {:error, _reason} = result -> result
      other -> {:error, {:bad_result, other}}
    end
  end

  # At the deadline the server ends the session, and this process, by itself.
  defp hand_in(session, {result, settled?} = outcome) do
    request = {:ended, session.id, self(), result, settled?}
    left = Call.left(session.deadline)

    with {:error, _reason} <- Call.call(MABEAM.Coordination, request, left), true <- left > 0 do
      Process.sleep(@pause_ms)
      hand_in(session, outcome)
    end
  end
end

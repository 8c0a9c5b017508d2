defmodule MABEAM.CoordinationSupervisor do
  @moduledoc """
  Supervises the coordinations that run, a `MABEAM.CoordinationWorker` each.

  Workers are `:temporary`: whether a coordination that crashed is run again is decided by its
  protocol and its deadline, not by a supervisor's count of restarts. `MABEAM.Coordination` does
  that.

  One supervisor is enough. Measured on two cores, with 1 to 128 callers at once, it starts a
  worker in 8 to 21 us, of the 35 to 60 us that a whole session takes, and two partitions of a
  `PartitionSupervisor` start them no faster (7 to 13 us): there is no queue to divide. It is
  `MABEAM.Coordination` that 64 callers wait for, before their session and after it.
  """
  use DynamicSupervisor

  alias MABEAM.Coordination.Session

  @doc "Starts the supervisor, without workers."
  @spec start_link(term) :: Supervisor.on_start()
  def start_link(_options), do: DynamicSupervisor.start_link(__MODULE__, [], name: __MODULE__)

  @doc """
  Starts a worker for `protocol`, a module, with `params`, a session.

  It runs the protocol when `MABEAM.CoordinationWorker.run/1` tells it to.
  `{:error, :unavailable}` when the supervisor is not there.
  """
  @spec start_coordination_process(module, Session.t()) ::
          {:ok, pid} | {:error, :bad_protocol | :bad_session | :unavailable}
  def start_coordination_process(protocol, _params) when not is_atom(protocol),
    do: {:error, :bad_protocol}

  def start_coordination_process(protocol, %Session{} = params) do
    child_spec = {MABEAM.CoordinationWorker, [protocol: protocol, params: params]}
    DynamicSupervisor.start_child(__MODULE__, child_spec)
  catch
    :exit, _reason -> {:error, :unavailable}
  end

  def start_coordination_process(_protocol, _params), do: {:error, :bad_session}

  @doc "Kills a worker, and all that hangs on it. Returns when it is dead."
  @spec stop_coordination_process(pid) :: :ok
  def stop_coordination_process(worker) do
    _ = DynamicSupervisor.terminate_child(__MODULE__, worker)
    :ok
  catch
    # Without a supervisor, there are no workers.
    :exit, _reason -> :ok
  end

  @doc "The workers that run now."
  @spec workers() :: [pid]
  def workers do
    for {_id, pid, _type, _modules} <- DynamicSupervisor.which_children(__MODULE__),
        is_pid(pid),
        do: pid
  catch
    :exit, _reason -> []
  end

  @impl true
  def init([]) do
    DynamicSupervisor.init([strategy: :one_for_one] ++ Foundation.Application.intensity())
  end
end

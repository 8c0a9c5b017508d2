defmodule Lineage.ReferenceNode do
  @moduledoc """
  The rows of the audit, as a node with Foundation and MABEAM lives them: what the audited code did, and what Lineage
  says of it meanwhile.

  A row is called on that node (by `Foundation.Test.Cluster.call/5`). It has the work done that was audited, and while
  that is under way it calls `observe/1`; it returns what that returned.
  """
  alias Foundation.BEAM.Processes
  alias Foundation.Coordination.Primitives
  alias Foundation.ProcessRegistry
  alias Foundation.Test.Peer
  alias MABEAM.{Agent, Comms, Coordination, LoadBalancer}

  defmodule Holder do
    @moduledoc "An agent that tells whoever is in its configuration what it was asked, and answers at `:go`."
    @behaviour MABEAM.Agent

    @impl true
    def init(observer), do: {:ok, observer}

    @impl true
    def handle_request(request, observer) do
      send(observer, {:asked, self(), request})

      receive do
        :go -> {:reply, :gone, observer}
      end
    end
  end

  defmodule Sitter do
    @moduledoc "A process in a namespace of the registry, until it is shut down."
    use GenServer

    def start_link(name), do: GenServer.start_link(__MODULE__, [], name: name)

    @impl true
    def init([]), do: {:ok, nil}
  end

  @typedoc "An orphan: what it runs and its kind; `:it` for one that was asked about by its pid."
  @type found :: {mfa | :it, Lineage.kind()}

  @doc "The orphans of this node, and the different ways in which `pids` are held: the verdict, and by which supervisors."
  @spec observe([pid]) :: %{orphans: [found], held: [{atom, [atom]}]}
  def observe(pids \\ []) do
    orphans =
      for o <- Lineage.orphans(), do: {if(o.pid in pids, do: :it, else: o.initial_call), o.kind}

    %{orphans: Enum.sort(orphans), held: Enum.uniq(Enum.flat_map(pids, &held/1))}
  end

  # Nothing of one that has ended meanwhile: of an earlier row.
  defp held(pid) do
    with %{verdict: verdict, stopped_by: stoppers} <- Lineage.why(pid),
         do: [{verdict, for(%{how: :child, name: name} <- stoppers, do: name)}],
         else: ({:error, _sentence} -> [])
  end

  @doc "What has died on this node without a link and ran a function of `module`; each function once."
  @spec recent(module) :: [atom]
  def recent(module) do
    functions = for %{initial_call: {^module, function, _}} <- Lineage.recent(1_000), do: function
    functions |> Enum.uniq() |> Enum.sort()
  end

  @doc "Lines 505, 510, 891 and 896 of Foundation's application, which have done it already."
  def monitoring do
    monitors =
      for name <- [Foundation.HealthMonitor, Foundation.ServiceMonitor], do: Process.whereis(name)

    observe(Enum.filter(monitors, &is_pid/1))
  end

  @doc "Line 912 of MABEAM's coordination: an agent is asked, and does not answer yet."
  def coordination do
    with_holder(fn ->
      {:ok, session} = Coordination.coordinate_async(:consensus, ["holder"], %{value: :blue})
      holder = asked()

      workers =
        for {_, pid, _, _} <- DynamicSupervisor.which_children(MABEAM.CoordinationSupervisor),
            do: pid

      observed = observe(workers)
      send(holder, :go)
      {observed, Coordination.get_session_results(session, 5_000)}
    end)
  end

  @doc "The same, and the process that coordinates is killed."
  def coordination_killed do
    with_holder(fn ->
      {:ok, session} = Coordination.coordinate_async(:auction, ["holder"], %{item: :vase})
      holder = asked()
      [{_, worker, _, _}] = DynamicSupervisor.which_children(MABEAM.CoordinationSupervisor)
      reported(:coordination_failed, fn -> killed(worker) end)
      result = Coordination.get_session_results(session, 5_000)
      send(holder, :go)
      {:ok, stats} = Coordination.get_coordination_stats()
      {result, stats.crashed}
    end)
  end

  @doc "Line 229 of `Foundation.BEAM.Processes`: work that goes on until it is told."
  def memory do
    {:ok, pid} = Processes.isolate_memory_intensive_work(&await_go/0)
    observed = observe([pid])
    send(pid, :go)

    receive do
      {:work_complete, :gone} -> observed
    end
  end

  @doc "The same, and it is killed. Returns what the caller is told."
  def memory_killed do
    {:ok, pid} = Processes.isolate_memory_intensive_work(&await_go/0)
    reported(:work_lost, fn -> killed(pid) end)

    receive do
      {outcome, reason} when outcome in [:work_error, :work_complete] ->
        {outcome, reason, counted([:foundation, :work, :lost])}
    end
  end

  @doc "The coordination primitives: messages to the other member, all over when this returns."
  def primitives do
    {:ok, _entry} = Primitives.consensus(:blue)
    {:ok, _leader} = Primitives.elect_leader()
    observe()
  end

  @doc "A barrier, at which this process is the last of two to arrive."
  def barrier do
    test = self()

    {:ok, first} =
      Task.Supervisor.start_child(Foundation.TaskSupervisor, fn ->
        send(test, {:first, Primitives.barrier_sync(:gate, 2)})
      end)

    observed = observe()
    :ok = Primitives.barrier_sync(:gate, 2)
    monitor = Process.monitor(first)

    receive do
      {:first, :ok} -> :ok
    end

    receive do
      {:DOWN, ^monitor, :process, ^first, _reason} -> observed
    end
  end

  @doc "An asynchronous request, while its agent is at it."
  def comms do
    with_holder(fn ->
      {:ok, reference} = Comms.send_async_request("holder", :anything)
      holder = asked()
      observed = observe(Task.Supervisor.children(MABEAM.TaskSupervisor))
      send(holder, :go)

      receive do
        {:mabeam_response, ^reference, {:ok, :gone}} -> observed
      end
    end)
  end

  @doc "The same, and the process that waits for the agent is killed."
  def comms_killed do
    with_holder(fn ->
      {:ok, reference} = Comms.send_async_request("holder", :anything)
      holder = asked()
      [task] = Task.Supervisor.children(MABEAM.TaskSupervisor)
      reported(:async_request_lost, fn -> killed(task) end)

      receive do
        {:mabeam_response, ^reference, answer} ->
          send(holder, :go)
          answer
      end
    end)
  end

  @doc "An agent that is registered, then started and stopped."
  def agents do
    :ok = Agent.register("sleeper", Holder, config: self())
    registered = observe()
    {:ok, _pid} = Agent.start("sleeper")
    :ok = Agent.stop("sleeper")
    stopped = observe()
    {:ok, %{pid: nil}} = Agent.info("sleeper")
    :ok = Agent.deregister("sleeper")
    {registered, stopped}
  end

  @doc "An agent that runs is killed: returns its old and its new pid, as it is found by others."
  def agent_killed do
    with_holder(fn ->
      {:ok, %{pid: before}} = Agent.info("holder")
      killed(before)
      {:ok, reference} = request_when_back("holder")

      send(asked(), :go)

      receive do
        {:mabeam_response, ^reference, answer} -> {answer, observe()}
      end
    end)
  end

  # It is being started again while this asks.
  defp request_when_back(id) do
    case Agent.status(id) do
      {:ok, :running} -> Comms.send_async_request(id, :anything)
      {:ok, _other} -> request_when_back(id)
    end
  end

  @doc "An assignment in the load balancer's test mode."
  def load_balancer do
    Application.put_env(:mabeam, :load_balancer_test_mode, true)
    :ok = LoadBalancer.register_agent("porter", capacity: 2)
    {:ok, _assignment} = LoadBalancer.assign_task(%{})
    observed = observe()
    :ok = LoadBalancer.unregister_agent("porter")
    Application.put_env(:mabeam, :load_balancer_test_mode, false)
    observed
  end

  @doc "The clean-up of a test's namespace with a process in it; tells whether that was gone when it returned."
  def registry do
    key = make_ref()

    {:ok, sitter} =
      DynamicSupervisor.start_child(
        Foundation.BEAM.EcosystemSupervisor,
        Supervisor.child_spec({Sitter, ProcessRegistry.via_tuple({:test, key}, :sitter)},
          restart: :temporary
        )
      )

    monitor = Process.monitor(sitter)
    _result = ProcessRegistry.cleanup_test_namespace(key)
    gone? = not Process.alive?(sitter)

    receive do
      {:DOWN, ^monitor, :process, ^sitter, _reason} -> {gone?, observe()}
    end
  end

  @doc "Kills the process of that name; returns whether its supervisor has started it again."
  def server_killed(name, supervisor) do
    before = Process.whereis(name)
    killed(before)
    {back?(supervisor, name, before), observe()}
  end

  # A supervisor answers between two restarts, never within one.
  defp back?(supervisor, name, before) do
    Supervisor.which_children(supervisor)

    case Process.whereis(name) do
      pid when pid in [nil, before] -> back?(supervisor, name, before)
      _pid -> true
    end
  end

  defp with_holder(fun) do
    :ok = Agent.register("holder", Holder, config: self())
    {:ok, _pid} = Agent.start("holder")
    # What started it has told so, and may not be gone yet; nor may what the row before did.
    Enum.each([MABEAM.TaskSupervisor, MABEAM.CoordinationSupervisor], &Peer.quiet/1)

    try do
      fun.()
    after
      :ok = Agent.deregister("holder")
    end
  end

  defp asked do
    receive do
      {:asked, holder, _request} -> holder
    end
  end

  defp await_go do
    receive do
      :go -> :gone
    end
  end

  defp killed(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    end
  end

  defp counted(event) do
    {:ok, metrics} = Foundation.Telemetry.get_metrics_for(event)
    metrics |> Enum.map(& &1.count) |> Enum.sum()
  end

  # Servers report events without waiting: so the event is waited for.
  defp reported(type, fun) do
    stored = [:foundation, :events, :stored]

    :ok =
      Foundation.Telemetry.attach(
        {__MODULE__, type},
        stored,
        &__MODULE__.stored/4,
        {self(), type}
      )

    result = fun.()

    receive do
      {:stored, ^type} -> Foundation.Telemetry.detach({__MODULE__, type})
    end

    result
  end

  @doc false
  def stored(_event, _count, %{event: %{type: type}}, {observer, type}),
    do: send(observer, {:stored, type})

  def stored(_event, _count, _other, _config), do: :ok
end

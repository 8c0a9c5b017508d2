defmodule Lineage.ReferenceKills do
  @moduledoc """
  Kills processes of a reference node while callers use all of its functions.

  It runs on that node (by `Foundation.Test.Cluster.call/6`). A target is any process of Foundation or MABEAM, as its
  group leader says, but for what holds the applications themselves: their masters, and the supervisors at the top,
  whose death ends the application.
  """
  alias Foundation.BEAM.Processes
  alias Foundation.Coordination.Primitives
  alias Foundation.{Config, Events, ProcessRegistry}
  alias MABEAM.{Agent, Comms, Coordination, Core, LoadBalancer}

  @callers 4
  @tops [Foundation.Supervisor, MABEAM.Supervisor]

  # Milliseconds: the deadline that calls are given, and within which they have to answer for certain, on a
  # machine where others run too.
  @timeout 3_000
  @late 13_000

  defmodule Echo do
    @moduledoc "An agent that answers what it is asked."
    @behaviour MABEAM.Agent

    @impl true
    def init(nil), do: {:ok, nil}

    @impl true
    def handle_request(request, nil), do: {:reply, request, nil}

    @impl true
    def handle_event(_event, nil), do: {:noreply, nil}
  end

  defmodule Worker do
    @moduledoc "A worker of an ecosystem."
    use GenServer

    def start_link(_argument), do: GenServer.start_link(__MODULE__, [])

    @impl true
    def init([]), do: {:ok, nil}
  end

  @type outcome :: %{
          killed: non_neg_integer,
          calls: non_neg_integer,
          wrong: [{atom, term}],
          orphans: [Lineage.Orphan.t()],
          health: [term]
        }

  @doc "Kills `kills` targets at random, one after the other, under load."
  @spec at_random(non_neg_integer, {integer, integer, integer}) :: outcome
  def at_random(kills, seed) do
    under_load(fn ->
      :rand.seed(:exsss, seed)
      Enum.each(1..kills, fn _ -> kill(Enum.random(targets())) end)
      kills
    end)
  end

  @doc "Kills each process that is there once, one after the other, under load."
  @spec each() :: outcome
  def each do
    under_load(fn ->
      targets = targets()
      Enum.each(targets, &kill/1)
      length(targets)
    end)
  end

  @doc "Kills the supervisor at the top of `application`, and returns which of its processes are left when it has ended."
  @spec top(:foundation | :mabeam, atom) :: [pid]
  def top(application, supervisor) do
    processes =
      for pid <- Process.list(), :application.get_application(pid) == {:ok, application}, do: pid

    monitors = for pid <- processes, do: {pid, Process.monitor(pid)}
    Process.exit(Process.whereis(supervisor), :kill)

    # The application's master is one of them, and kills what is left.
    for {pid, monitor} <- monitors do
      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
      end
    end

    stopped = await_stopped(application)
    :stopped = stopped
    left = Enum.filter(processes, &Process.alive?/1)
    for name <- [:foundation, :mabeam], do: {:ok, _started} = Application.ensure_all_started(name)
    left
  end

  # Asks the application controller, which ends the application in its own time.
  defp await_stopped(application) do
    running = for {name, _, _} <- Application.started_applications(), do: name
    if application in running, do: await_stopped(application), else: :stopped
  end

  @doc "The names of what may be killed, for a person to read."
  @spec targets() :: [pid]
  def targets do
    tops = for name <- @tops, pid = Process.whereis(name), do: pid

    for pid <- Process.list(),
        pid not in tops,
        {:ok, application} when application in [:foundation, :mabeam] <- [
          :application.get_application(pid)
        ],
        not master?(pid),
        do: pid
  end

  # The master, and the process of its own that started the application.
  defp master?(pid) do
    match?({:application_master, _, _}, :proc_lib.translate_initial_call(pid)) or
      match?({:initial_call, {:application_master, _, _}}, Process.info(pid, :initial_call))
  end

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    end

    # A supervisor answers between two restarts: the next one is killed when the tops have had the time to begin
    # anew with this one. What restarts below them goes on, and may be killed in the midst of it.
    for top <- @tops, do: Supervisor.count_children(top)
  end

  defp under_load(fun) do
    {:ok, supervisor} = Task.Supervisor.start_link()

    callers =
      for n <- 1..@callers, do: Task.Supervisor.async(supervisor, fn -> call(n, 0, []) end)

    killed = fun.()
    for caller <- callers, do: send(caller.pid, :enough)
    answers = Task.await_many(callers, 120_000)
    health = healthy(50)

    %{
      killed: killed,
      calls: answers |> Enum.map(&elem(&1, 0)) |> Enum.sum(),
      wrong: Enum.flat_map(answers, &elem(&1, 1)),
      health: health,
      orphans: Lineage.orphans()
    }
  after
    for n <- 1..@callers, do: Agent.deregister(agent(n))
  end

  # What is wrong with the node: nothing, once what was killed last has been started again. Each question is a call
  # with a deadline, so this ends.
  defp healthy(tries) do
    wrong =
      for {name, answer} <- [
            consensus: Primitives.consensus(:healthy, timeout: 10_000),
            foundation: Foundation.HealthMonitor.check(),
            mabeam: Core.health_check(),
            coordination: coordinated(),
            work: worked()
          ],
          not healthy?(answer),
          do: {name, answer}

    if wrong == [] or tries == 0, do: wrong, else: healthy(tries - 1)
  end

  defp healthy?({:ok, %{status: status}}), do: status == :healthy
  defp healthy?({:ok, _other}), do: true
  defp healthy?(_other), do: false

  defp coordinated do
    Agent.register("healthy", Echo)
    Agent.start("healthy")
    result = Coordination.coordinate(:ensemble_vote, ["healthy"], %{question: :colour})
    Agent.deregister("healthy")
    with {:error, _not_an_answer} <- result, do: {:ok, result}
  end

  defp worked do
    with {:ok, _pid} <- Processes.isolate_memory_intensive_work(fn -> :done end) do
      receive do
        {:work_complete, :done} -> {:ok, :done}
        {:work_error, reason} -> {:error, reason}
      after
        @late -> {:error, :no_answer}
      end
    end
  end

  defp call(n, count, wrong) do
    receive do
      :enough -> {count, wrong}
    after
      0 ->
        found = for {name, fun} <- calls(n), reason = wrong(fun), do: {name, reason}

        call(n, count + length(calls(n)), found ++ wrong)
    end
  end

  # Nil when the call answered in its time as it says that it does.
  defp wrong(fun) do
    started = System.monotonic_time(:millisecond)
    answer = fun.()
    took = System.monotonic_time(:millisecond) - started

    cond do
      took > @late -> {:late, took, answer}
      answer == :ok or (is_tuple(answer) and elem(answer, 0) in [:ok, :error]) -> nil
      true -> {:odd, answer}
    end
  catch
    kind, reason -> {kind, reason, __STACKTRACE__}
  end

  defp agent(n), do: "agent-#{n}"

  defp calls(n) do
    [
      register: fn -> Agent.register(agent(n), Echo, capabilities: [:echo]) end,
      start: fn -> Agent.start(agent(n)) end,
      request: fn -> Comms.request(agent(n), :ping, @timeout) end,
      notify: fn -> Comms.notify(agent(n), :ping) end,
      async: fn -> async(n) end,
      broadcast: fn -> Comms.broadcast(:all, :ping, timeout: @timeout) end,
      publish: fn -> Comms.publish_event(:news, n, timeout: @timeout) end,
      info: fn -> Agent.info(agent(n)) end,
      coordinate: fn ->
        Coordination.coordinate(:ensemble_vote, [agent(n)], %{question: n}, timeout: @timeout)
      end,
      balance: fn -> LoadBalancer.register_agent(agent(n), capacity: 10) end,
      assign: fn -> LoadBalancer.assign_task(%{}) end,
      unbalance: fn -> LoadBalancer.unregister_agent(agent(n)) end,
      variable: fn -> Core.register_variable(agent(n), n) end,
      update_variable: fn -> Core.update_variable(agent(n), n + 1) end,
      delete_variable: fn -> Core.delete_variable(agent(n)) end,
      stop: fn -> Agent.stop(agent(n)) end,
      deregister: fn -> Agent.deregister(agent(n)) end,
      consensus: fn -> Primitives.consensus(n, timeout: @timeout) end,
      leader: fn -> Primitives.elect_leader(timeout: @timeout) end,
      counter: fn -> Primitives.increment_counter(n, 1) end,
      lock: fn -> lock() end,
      barrier: fn -> Primitives.barrier_sync({:alone, n}, 1, @timeout) end,
      work: fn -> work() end,
      ecosystem: fn -> ecosystem() end,
      name: fn -> ProcessRegistry.register({:test, n}, :caller, self()) end,
      unname: fn -> ProcessRegistry.unregister({:test, n}, :caller) end,
      config: fn -> Config.update([agent(n)], n) end,
      event: fn -> event(n) end,
      health: fn -> Foundation.health() end
    ]
  end

  # Exactly one answer comes, whoever is killed meanwhile.
  defp async(n) do
    with {:ok, reference} <- Comms.send_async_request(agent(n), :ping, timeout: @timeout) do
      receive do
        {:mabeam_response, ^reference, answer} -> answer
      after
        @late -> {:no_answer, :async}
      end
    end
  end

  defp work do
    with {:ok, _pid} <- Processes.isolate_memory_intensive_work(fn -> Enum.sum(1..1_000) end) do
      receive do
        {outcome, result} when outcome in [:work_complete, :work_error] -> {:ok, result}
      after
        @late -> {:no_answer, :work}
      end
    end
  end

  defp lock do
    with {:ok, lock} <- Primitives.acquire_lock(:kills, timeout: @timeout),
         do: Primitives.release_lock(lock)
  end

  defp ecosystem do
    with {:ok, ecosystem} <-
           Processes.spawn_ecosystem(coordinator: {Worker, []}, workers: [{Worker, [], 2}]),
         do: Processes.shutdown_ecosystem(ecosystem)
  end

  defp event(n) do
    with {:ok, event} <- Events.new_event(:kills, n), do: Events.store(event)
  end
end

# Boots the reference node (Foundation and MABEAM, with a second node beside it), has it do what it was audited for, and
# shows what Lineage says of it. Run by `make demo`, once with the code as it was audited and once under supervision.
#
#   demo.exs legacy | supervised

defmodule Demo do
  alias Foundation.BEAM.Processes
  alias Foundation.Coordination.{Cluster, Primitives}
  alias MABEAM.{Agent, Comms, Coordination, LoadBalancer}

  defmodule Potter do
    @moduledoc "An agent that takes its time: it answers when it is told to."
    @behaviour MABEAM.Agent

    @impl true
    def init(demo), do: {:ok, demo}

    @impl true
    def handle_request(_request, demo) do
      send(demo, {:asked, self()})

      receive do
        :go -> {:reply, :done, demo}
      end
    end
  end

  @work """
  Two agents are registered, one is started and asked to take part in a coordination, another is started and stopped;
  an asynchronous request is sent, memory-intensive work begins, a task is assigned in test mode; the nodes agree on a
  value and elect a leader.
  """

  def main(arm) do
    # What fails below fails on purpose.
    Logger.configure(level: :none)
    :logger.set_primary_config(:level, :none)
    peer = start_peer()
    members = if peer, do: [node(), elem(peer, 1)], else: [node()]
    enabled? = arm == "supervised"
    say(title(arm))
    info = boot(members, enabled?)
    on_peer(peer, :boot, [members, enabled?])
    await_members(members)
    IO.puts("  Lineage attached before: #{info.existing} processes were there, read in #{info.took_ms} ms")
    say(String.trim(@work))
    work = start_work()

    show("Whom nobody would stop: Lineage.orphans()", Lineage.orphans())

    if enabled? do
      show("The forest: Lineage.tree(:mabeam)", Lineage.tree(:mabeam))
      [worker] = for {_, pid, _, _} <- DynamicSupervisor.which_children(MABEAM.CoordinationSupervisor), do: pid
      show("The coordination: Lineage.why(pid)", Lineage.why(worker))
    else
      [loop | _] = for o <- Lineage.orphans(), o.kind == :abandoned, do: o.pid
      show("One of them, line 896: Lineage.why(pid)", Lineage.why(loop))

      show("The static audit beside it: Lineage.reconcile([...])", Lineage.reconcile(~w[lib/foundation/lib lib/mabeam/lib]))

      dead = for r <- Lineage.recent(50), legacy?(r), do: r
      show("What ended at once, without a link: Lineage.recent(50), of it the audited code", dead)

      if peer do
        say("And on the other node")
        IO.write(on_peer(peer, :recent_text, []))
      end
    end

    end_work(work)
    show("In numbers: Lineage.summary()", Lineage.summary())
    Lineage.detach()
    if peer, do: :peer.stop(elem(peer, 0))
    System.halt(0)
  end

  defp title("legacy"), do: "Foundation and MABEAM as they were audited: all phases of the plan are off"
  defp title("supervised"), do: "The same node and the same work, with all phases of the plan on"

  # The peer has this file, too.
  def boot(members, enabled?) do
    {:ok, info} = Lineage.attach(monitors: :exact, sites: :exact)
    Application.load(:foundation)
    Application.put_env(:foundation, :members, members)

    flags = for phase <- Foundation.Supervision.phases(), do: {phase, enabled?}
    Application.put_env(:foundation, :supervision, flags)
    {:ok, _started} = Application.ensure_all_started(:mabeam)
    info
  end

  def recent_text do
    dead = for r <- Lineage.recent(50), legacy?(r), do: r
    IO.iodata_to_binary(:lineage_print.format(dead, %{columns: columns()}))
  end

  defp legacy?(%{initial_call: {module, _, _}}), do: String.contains?(Atom.to_string(module), ".Legacy.")
  defp legacy?(_other), do: false

  defp start_work do
    Application.put_env(:mabeam, :load_balancer_test_mode, true)
    :ok = Agent.register("idle", Potter, config: self())
    :ok = Agent.register("potter", Potter, config: self(), capabilities: [:clay])
    {:ok, _pid} = Agent.start("potter")
    {:ok, session} = Coordination.coordinate_async(:consensus, ["potter"], %{value: :blue}, timeout: 60_000)
    potter = asked()

    :ok = Agent.register("carrier", Potter, config: self())
    {:ok, _pid} = Agent.start("carrier")
    {:ok, request} = Comms.send_async_request("carrier", :carry, timeout: 60_000)
    carrier = asked()

    :ok = Agent.register("guest", Potter, config: self())
    {:ok, _pid} = Agent.start("guest")
    :ok = Agent.stop("guest")

    {:ok, work} = Processes.isolate_memory_intensive_work(&until_told/0)
    :ok = LoadBalancer.register_agent("idle", capacity: 5)
    {:ok, _assignment} = LoadBalancer.assign_task(%{})
    {:ok, _entry} = Primitives.consensus(:blue)
    {:ok, _leader} = Primitives.elect_leader()
    %{session: session, potter: potter, request: request, carrier: carrier, work: work}
  end

  defp end_work(work) do
    for pid <- [work.potter, work.carrier, work.work], do: send(pid, :go)
    _result = Coordination.get_session_results(work.session)
    request = work.request

    receive do
      {:mabeam_response, ^request, {:ok, :done}} -> :ok
    end

    receive do
      {:work_complete, :told} -> :ok
    end
  end

  defp asked do
    receive do
      {:asked, pid} -> pid
    end
  end

  defp until_told do
    receive do
      :go -> :told
    end
  end

  # Without a network there is no second node: then the demo is of one.
  defp start_peer do
    with {:ok, _pid} <- :net_kernel.start([:"demo-#{System.pid()}", :shortnames]),
         paths = Enum.reject(:code.get_path(), &List.starts_with?(&1, :code.lib_dir())),
         args = [~c"-kernel", ~c"logger_level", ~c"none", ~c"-pa" | paths],
         {:ok, peer, node} <-
           :peer.start(%{name: :peer.random_name(), connection: :standard_io, args: args}) do
      true = :peer.call(peer, :net_kernel, :connect_node, [node()])
      {:ok, _started} = :peer.call(peer, :application, :ensure_all_started, [:elixir])
      [_module | _] = :peer.call(peer, Code, :compile_string, [File.read!(__ENV__.file), "on a peer"])
      {peer, node}
    else
      {:error, _reason} ->
        IO.puts("(no distribution on this machine: the second node is left out)")
        nil
    end
  end

  defp on_peer(nil, _function, _arguments), do: nil
  defp on_peer({peer, _node}, function, arguments), do: :peer.call(peer, Demo, function, arguments, 30_000)

  defp await_members(members) do
    :ok = Cluster.subscribe()
    wait(Enum.sort(members))
  end

  defp wait(members) do
    case Cluster.view() do
      {:ok, {_epoch, ^members}} ->
        :ok

      _not_yet ->
        receive do
          {:foundation_cluster, _change} -> wait(members)
        after
          10_000 -> :ok
        end
    end
  end

  defp say(line), do: IO.puts("\n" <> line <> "\n")

  defp show(title, []) do
    say(title)
    IO.puts("none")
  end

  defp show(title, data) do
    say(title)

    case :io.columns() do
      {:ok, _columns} -> Lineage.print(data)
      {:error, _no_terminal} -> IO.write(:lineage_print.format(data, %{columns: columns()}))
    end
  end

  defp columns, do: 120
end

with [arm] when arm in ["legacy", "supervised"] <- System.argv(), do: Demo.main(arm)

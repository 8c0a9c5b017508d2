defmodule Lineage.ReferenceNodeTest do
  @moduledoc """
  The audit's 18 places, row by row, on a node of Foundation and MABEAM and a second one beside it: with the legacy code
  what lives on is an orphan of the right kind, and what ends at once is named among the recently dead; under
  supervision nothing is, and who is killed is started again or reported.
  """
  use ExUnit.Case, async: false

  alias Foundation.Test.Cluster
  alias Lineage.ReferenceNode

  @moduletag timeout: 300_000

  @phases [:phase_1, :phase_2, :phase_3, :phase_4]
  @loops [
    {{Foundation.Legacy.Monitoring, :dependency_check_loop, 1}, :abandoned},
    {{Foundation.Legacy.Monitoring, :health_check_loop, 1}, :abandoned}
  ]
  @placeholder {{MABEAM.Legacy.Agent, :stand_in, 1}, :detached}

  defp start(enabled?, lineage \\ true) do
    env = [{:foundation, :supervision, for(phase <- @phases, do: {phase, enabled?})}]
    cluster = Cluster.start(size: 2, apps: [:foundation, :mabeam], env: env, lineage: lineage)
    Cluster.await_view(cluster, cluster.members)
    cluster
  end

  defp row(%{members: [node | _]} = cluster, function, arguments \\ []),
    do: Cluster.call(cluster, node, ReferenceNode, function, arguments, 60_000)

  defp recent(cluster, node, module),
    do: Cluster.call(cluster, node, ReferenceNode, :recent, [module])

  describe "with the legacy code" do
    test "each row's processes are orphans of their kind, or are named when they are dead" do
      %{members: [node, peer]} = cluster = start(false, sites: :exact)

      # Foundation.Application 505, 510, 891, 896; and nothing else stands loose on a node at rest.
      assert row(cluster, :monitoring).orphans == @loops
      assert Cluster.call(cluster, peer, ReferenceNode, :monitoring, []).orphans == @loops

      assert recent(cluster, node, Foundation.Legacy.Monitoring) ==
               [:arm_health_check, :initialize_service_monitoring]

      # MABEAM.Coordination 912: the process, and its own task, which hangs on nothing but it. Beside it, in this row
      # and in each that registers an agent, the placeholder of that.
      {observed, _result} = row(cluster, :coordination)

      assert new(observed) == [
               @placeholder,
               {{MABEAM.Legacy.Coordination, :coordination_process, 2}, :detached},
               {{MABEAM.Legacy.Coordination, :run_protocol, 2}, :detached}
             ]

      # Foundation.BEAM.Processes 229.
      assert cluster |> row(:memory) |> new() == [{:it, :detached}]

      # Foundation.Coordination.Primitives, 7 places: helpers here, and what they spawn on the peer.
      assert cluster |> row(:primitives) |> new() == []

      assert recent(cluster, node, Foundation.Legacy.Messenger) ==
               [:announce_helper, :commit_helper, :election_helper, :propose_helper]

      assert recent(cluster, peer, Foundation.Legacy.Messenger) ==
               [:commit_on_peer, :election_on_peer, :propose_on_peer]

      # A barrier's Task.async is linked to who waits: tethered, to a task of the tree here.
      assert cluster |> row(:barrier) |> new() == []

      # MABEAM.Comms.
      assert cluster |> row(:comms) |> new() ==
               [@placeholder, {{MABEAM.Legacy.Comms, :await_agent, 5}, :detached}]

      # MABEAM.Agent, twice: one placeholder for ever, and when it is stopped one more.
      {registered, stopped} = row(cluster, :agents)
      assert new(registered) == [@placeholder]
      assert new(stopped) == [@placeholder, @placeholder]

      # MABEAM.LoadBalancer in test mode.
      assert cluster |> row(:load_balancer) |> new() ==
               [{{MABEAM.Legacy.LoadBalancer, :stand_in, 1}, :detached}]

      # Foundation.ProcessRegistry's clean-up: the caller goes on before it is done.
      row(cluster, :registry)
      assert recent(cluster, node, Foundation.Legacy.ProcessRegistry) == [:terminator]

      # The static audit names the same places, by file and line: each was seen live, here or on the peer, whose
      # own part is what was spawned from here.
      [mine, theirs] =
        for node <- [node, peer], do: Cluster.call(cluster, node, Lineage, :reconcile, [legacy()])

      assert mine.unfound ++ theirs.unfound == []
      assert places(mine.never) -- places(for(%{finding: f} <- theirs.seen, do: f)) == []

      # And all of it is exchanged when the phases are switched on.
      for phase <- @phases do
        assert Cluster.call(cluster, node, Foundation.Supervision, :switch, [phase, true]) == :ok
      end

      assert row(cluster, :observe).orphans == []
    end
  end

  defp legacy do
    for app <- [:foundation, :mabeam], do: Path.expand("lib/#{app}/lib/#{app}/legacy")
  end

  defp places(findings), do: for(f <- findings, do: {Path.basename(f.file), f.line, f.call})

  # Without the loops, which stand there all the time.
  defp new(%{orphans: orphans}), do: no_leftovers(orphans -- @loops)

  # Without the placeholders of earlier rows, whose callers are gone.
  defp no_leftovers(orphans) do
    {function, :detached} = @placeholder
    Enum.reject(orphans, &(&1 == {function, :abandoned}))
  end

  describe "under supervision" do
    test "no row leaves an orphan, and who is killed is started again or reported" do
      %{members: [node, peer]} = cluster = start(true)

      assert row(cluster, :monitoring) == %{
               orphans: [],
               held: [{:supervised, [Foundation.Monitoring]}]
             }

      for name <- [Foundation.HealthMonitor, Foundation.ServiceMonitor] do
        assert {true, %{orphans: []}} =
                 row(cluster, :server_killed, [name, Foundation.Monitoring])
      end

      {observed, _result} = row(cluster, :coordination)
      assert %{orphans: [], held: [{:supervised, [MABEAM.CoordinationSupervisor]}]} = observed

      assert {{:error, _reason}, 1} = row(cluster, :coordination_killed)

      assert %{orphans: [], held: [{:supervised, [Foundation.TaskSupervisor]}]} =
               row(cluster, :memory)

      assert row(cluster, :memory_killed) == {:work_error, :killed, 1}

      assert row(cluster, :primitives).orphans == []
      assert row(cluster, :barrier).orphans == []

      assert %{orphans: [], held: [{:supervised, [MABEAM.TaskSupervisor]}]} = row(cluster, :comms)
      assert row(cluster, :comms_killed) == {:error, {:task_down, :killed}}

      assert {%{orphans: []}, %{orphans: []}} = row(cluster, :agents)
      assert {{:ok, :gone}, %{orphans: []}} = row(cluster, :agent_killed)
      assert row(cluster, :load_balancer).orphans == []
      assert {true, %{orphans: []}} = row(cluster, :registry)

      # Nothing of the legacy code has run, here or there.
      for node <- [node, peer],
          module <- [
            Foundation.Legacy.Monitoring,
            Foundation.Legacy.Messenger,
            Foundation.Legacy.ProcessRegistry,
            MABEAM.Legacy.Coordination,
            MABEAM.Legacy.Comms,
            MABEAM.Legacy.Agent
          ] do
        assert recent(cluster, node, module) == []
      end
    end
  end

  describe "a phase that is switched off" do
    # What stands loose while a row is under way, as the modules of the audited code, by the phase that is off.
    @loose [
      monitoring: %{phase_1: [Foundation.Legacy.Monitoring]},
      coordination: %{phase_1: [MABEAM.Legacy.Coordination], phase_2: [MABEAM.Legacy.Agent]},
      memory: %{phase_1: [:it]},
      comms: %{phase_2: [MABEAM.Legacy.Agent, MABEAM.Legacy.Comms]},
      agents: %{phase_2: [MABEAM.Legacy.Agent]},
      primitives: %{},
      # The last: what it makes lives for 30 seconds.
      load_balancer: %{phase_3: [MABEAM.Legacy.LoadBalancer]}
    ]

    test "brings back what it is for, and no more; and all is well again when it is on" do
      %{members: [node | _]} = cluster = start(true)

      for phase <- @phases do
        assert Cluster.call(cluster, node, Foundation.Supervision, :switch, [phase, false]) == :ok

        for {row, by_phase} <- @loose do
          observed = cluster |> row(row) |> observed()
          orphans = if row == :monitoring, do: no_leftovers(observed.orphans), else: new(observed)
          assert {phase, row, modules(orphans)} == {phase, row, Map.get(by_phase, phase, [])}
        end

        assert Cluster.call(cluster, node, Foundation.Supervision, :switch, [phase, true]) == :ok
        assert row(cluster, :observe).orphans == []
      end
    end

    defp observed({_registered, %{orphans: _} = stopped}), do: stopped
    defp observed({observed, _result}), do: observed
    defp observed(observed), do: observed

    defp modules(orphans) do
      modules = for {what, _kind} <- orphans, do: if(what == :it, do: :it, else: elem(what, 0))
      modules |> Enum.uniq() |> Enum.sort()
    end
  end
end

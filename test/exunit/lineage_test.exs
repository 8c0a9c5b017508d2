defmodule LineageTest do
  use Lineage.Case, async: false

  describe "attach" do
    @describetag attach: :never

    test "says what it found, and takes its options as keywords" do
      assert {:ok, info} =
               Lineage.attach(
                 exits: :all,
                 monitors: :off,
                 sites: :off,
                 max_bytes: 16 * 1024 * 1024,
                 for: 3_600_000,
                 max_spawn_rate: 10_000_000,
                 runtime: [{MyApp.Boot, :init, 1}],
                 hosts: [MyApp.Console],
                 services: [{MyApp.Pool, :init, :_}],
                 supervisors: [{MyApp.Sup, :init, 1}]
               )

      assert %{exits: :all, max_bytes: 16_777_216, for: 3_600_000, max_spawn_rate: 10_000_000} =
               info

      assert info.existing > 0
      assert Lineage.detach() == :ok
    end

    test "a second one is refused in a sentence; detach is :ok again and again" do
      {:ok, _info} = Lineage.attach()
      assert {:error, {:already_attached, sentence}} = Lineage.attach()
      assert sentence =~ "lineage:detach()"
      assert Lineage.detach() == :ok
      assert Lineage.detach() == :ok
    end

    test "names the option that is wrong" do
      assert {:error, {:bad_option, sentence}} = Lineage.attach(exits: :some)
      assert sentence =~ "exits"
      assert {:error, {:bad_option, sentence}} = Lineage.attach(exit: :all)
      assert sentence =~ "no option exit"
      assert {:error, {:bad_option, sentence}} = Lineage.attach(hosts: ["MyApp"])
      assert sentence =~ "hosts"
    end

    test "outlives the process that called it" do
      Task.await(Task.async(fn -> {:ok, _info} = Lineage.attach() end))
      assert self() in Lineage.pids()
      assert Lineage.detach() == :ok
    end

    test "every query without it raises, with a sentence that says to attach" do
      for query <- [
            fn -> Lineage.summary() end,
            fn -> Lineage.pids() end,
            fn -> Lineage.orphans() end,
            fn -> Lineage.recent(10) end,
            fn -> Lineage.why(self()) end,
            fn -> Lineage.tree() end,
            fn -> Lineage.save(Path.join(System.tmp_dir!(), "none.json")) end,
            fn -> Lineage.yield(fn -> :ok end) end
          ] do
        error = catch_normalized(query)
        assert %ErlangError{original: {:lineage, :not_attached}} = error
        assert Exception.message(error) =~ "Lineage.attach()"
      end
    end
  end

  test "summary counts a birth and a death" do
    before = Lineage.summary()
    {pid, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}
    now = Lineage.summary()

    assert now.births >= before.births + 1
    assert now.deaths >= before.deaths + 1
    assert now.deaths == now.seen + now.swept
    assert now.lost == 0
  end

  test "pids are the live processes" do
    loose = spawn(idle()) |> await_up() |> kill_on_exit()
    assert loose in Lineage.pids()
    kill(loose)
    refute loose in Lineage.pids()
  end

  test "orphans can be narrowed down" do
    {:ok, agent} = Agent.start(fn -> 0 end)
    kill_on_exit(agent)

    assert [%{pid: ^agent}] = Lineage.orphans()
    assert [%{pid: ^agent}] = Lineage.orphans(kind: :detached)
    assert [] = Lineage.orphans(kind: :escaped)
    assert [] = Lineage.orphans(min_age_ms: 3_600_000)
    assert [] = Lineage.orphans(ignore: [{Agent.Server, :init, 1}])
    assert_raise ErlangError, fn -> Lineage.orphans(colour: :red) end
  end

  test "recent names a process that is long gone" do
    {pid, monitor} = spawn_monitor(fn -> exit(:boom) end)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :boom}
    assert %{abnormal: true, parent: parent} = Enum.find(Lineage.recent(1_000), &(&1.pid == pid))
    assert parent == self()
  end

  test "why tells who stops, restarts and notices" do
    supervisor = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
    {:ok, child} = DynamicSupervisor.start_child(supervisor, Lineage.Worker)

    why = Lineage.why(child)
    assert %{verdict: :supervised, stopped_by: [%{how: :child, pid: ^supervisor} | _]} = why
    assert %{pid: ^supervisor, restart: :permanent} = why.restarted_by
    assert supervisor in for(%{pid: pid, by: :link} <- why.noticed_by, do: pid)

    assert Lineage.why(inspect(child)) |> Map.fetch!(:pid) == child
    assert {:error, {:unknown_pid, _sentence}} = Lineage.why(:nobody_has_this_name)
    :ok = DynamicSupervisor.terminate_child(supervisor, child)
    assert {:error, {:dead_pid, _sentence}} = Lineage.why(child)
  end

  test "why of a Task.async: tethered by its link, restarted by nobody" do
    task = Task.async(idle())
    await_up(task.pid)
    test = self()

    assert %{verdict: :tethered, restarted_by: :nobody, may_survive: may_survive} =
             why = Lineage.why(task.pid)

    assert [%{how: :link, pid: ^test} | _] = why.stopped_by
    assert is_boolean(may_survive)
    assert %{pid: test, by: :monitor} in Enum.map(why.noticed_by, &Map.take(&1, [:pid, :by]))
    send(task.pid, :stop)
    Task.await(task)
  end

  test "what is new since a summary and since a snapshot" do
    path = Path.join(Lineage.User.tmp_dir("snapshot"), "before.json")
    assert Lineage.orphans() == []
    summary = Lineage.summary()
    assert Lineage.save(path) == :ok
    loose = spawn(idle()) |> await_up() |> kill_on_exit()
    assert [_loose] = Lineage.orphans()

    assert %{same_session: true, counters: counters} = Lineage.diff(summary)
    assert {:orphans_checked, 0, 1} in counters

    assert %{new_orphans: [%{pid: ^loose, kind: :detached}]} = Lineage.diff(path)
  end

  test "everything that is returned can be printed" do
    spawn(idle()) |> await_up() |> kill_on_exit()
    summary = Lineage.summary()

    for report <- [
          summary,
          Lineage.orphans(),
          Lineage.recent(5),
          Lineage.why(self()),
          Lineage.tree(),
          Lineage.tree(:kernel),
          Lineage.tree(depth: 2),
          Lineage.diff(summary)
        ] do
      printed = ExUnit.CaptureIO.capture_io(fn -> assert Lineage.print(report) == :ok end)
      assert printed != ""
      refute printed =~ "\e["
    end
  end

  test "a row in iex is a line, and holds all that Erlang returned" do
    loose = spawn(idle()) |> await_up() |> kill_on_exit()
    task = Task.async(idle())
    await_up(task.pid)

    [row] = :lineage.orphans()
    [orphan] = Lineage.orphans()
    assert Map.keys(row) == orphan |> Map.from_struct() |> Map.keys()

    assert inspect(orphan) =~
             ~r/^#Lineage.Orphan<#PID<[\d.]+> detached, .*spawned by #{inspect(self())}>$/

    for pid <- [loose, task.pid] do
      assert Map.keys(:lineage.why(pid)) -- Map.keys(Lineage.why(pid)) == []
    end

    assert inspect(Lineage.why(loose)) =~
             "orphan (detached), stopped by nobody, restarted by nobody"

    assert inspect(Lineage.why(task.pid)) =~ "tethered, stopped by #{inspect(self())} (link)"
    send(task.pid, :stop)
    Task.await(task)
  end

  test "yield gives the tracer away and takes it back" do
    assert Lineage.yield(fn -> :done end) == :done
    loose = spawn(idle()) |> await_up() |> kill_on_exit()
    assert orphan(loose)
  end

  # As iex and ExUnit see it: with the sentence that the error carries in its stacktrace.
  defp catch_normalized(fun) do
    fun.()
    flunk("did not raise")
  catch
    :error, reason -> Exception.normalize(:error, reason, __STACKTRACE__)
  end
end

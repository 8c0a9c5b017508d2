defmodule Lineage.ElixirProcessesTest do
  use Lineage.Case, async: false

  alias Lineage.Worker

  for exits <- [:suspects, :all] do
    describe "with exits: #{inspect(exits)}" do
      @describetag attach: [exits: exits]

      test "Task.start leaves an orphan, though $ancestors names a supervisor" do
        server = start_supervised!(Worker)
        {:ok, supervisor} = ExUnit.fetch_test_supervisor()
        test = self()
        {:ok, task} = Worker.run(server, fn -> Task.start(idle(test)) end)
        await_up(task) |> kill_on_exit()

        {:dictionary, dictionary} = Process.info(task, :dictionary)
        assert [^server, ^supervisor | _] = dictionary[:"$ancestors"]
        assert Process.info(task, :links) == {:links, []}

        assert %{kind: :detached, parent: ^server, guardian: nothing} = orphan(task)
        assert nothing in [nil, :undefined]
      end

      test "an orphan whose parent dies is abandoned" do
        {:ok, server} = Worker.start()
        test = self()
        {:ok, task} = Worker.run(server, fn -> Task.start(idle(test)) end)
        await_up(task) |> kill_on_exit()

        assert orphan(task).kind == :detached
        kill(server)
        assert %{kind: :abandoned, parent: ^server} = orphan(task)
      end

      test "Task.async is tethered to its caller" do
        task = Task.async(idle())
        await_up(task.pid)
        refute orphan(task.pid)

        send(task.pid, :stop)
        assert Task.await(task) == :ok
      end

      test "Task.async of an orphan hangs on that orphan: two orphans, one cause" do
        {:ok, server} = Worker.start()
        kill_on_exit(server)
        test = self()
        task = Worker.run(server, fn -> Task.async(idle(test)) end)
        await_up(task.pid) |> kill_on_exit()

        assert orphan(server)
        assert %{guardian: ^server} = orphan(task.pid)
      end

      test "children of a Task.Supervisor are supervised" do
        supervisor = start_supervised!(Task.Supervisor)
        {:ok, child} = Task.Supervisor.start_child(supervisor, idle())
        nolink = Task.Supervisor.async_nolink(supervisor, idle())
        async = Task.Supervisor.async(supervisor, idle())

        for pid <- [child, nolink.pid, async.pid] do
          await_up(pid)
          refute orphan(pid)
          send(pid, :stop)
        end
      end

      test "Agent.start and GenServer.start leave orphans, their start_link none" do
        {:ok, agent} = Agent.start(fn -> 0 end)
        {:ok, server} = Worker.start()
        {:ok, linked_agent} = Agent.start_link(fn -> 0 end)
        {:ok, linked_server} = Worker.start_link()
        Enum.each([agent, server], &kill_on_exit/1)

        test = self()
        assert %{kind: :detached, parent: ^test} = orphan(agent)
        assert %{kind: :detached, parent: ^test} = orphan(server)
        refute orphan(linked_agent)
        refute orphan(linked_server)
      end

      test "children of DynamicSupervisor and PartitionSupervisor are supervised" do
        dynamic = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
        {:ok, child} = DynamicSupervisor.start_child(dynamic, Worker)
        refute orphan(child)
        refute orphan(dynamic)

        partitions = __MODULE__.Partitions
        top = start_supervised!({PartitionSupervisor, child_spec: Worker, name: partitions})
        refute orphan(top)

        for {_id, pid, :worker, _modules} <- PartitionSupervisor.which_children(partitions) do
          refute orphan(pid)
        end
      end

      test "a whole tree of Elixir supervisors that hangs on nothing is orphans" do
        {:ok, top} = Supervisor.start_link([Worker], strategy: :one_for_one)
        kill_on_exit(top)
        [{_id, child, :worker, _modules}] = Supervisor.which_children(top)
        refute orphan(top)

        Process.unlink(top)
        assert %{kind: :escaped} = orphan(top)
        assert %{guardian: ^top} = orphan(child)
      end

      test "a Registry's partitions link to who registers, and that tethers nobody" do
        registry = __MODULE__.Registry
        top = start_supervised!({Registry, keys: :unique, name: registry})
        {:ok, server} = Worker.start(name: {:via, Registry, {registry, :someone}})
        kill_on_exit(server)

        {:links, [partition]} = Process.info(server, :links)
        assert partition in for({_, pid, _, _} <- Supervisor.which_children(top), do: pid)
        assert %{kind: :detached} = orphan(server)
        refute orphan(partition)
        refute orphan(top)
      end

      test "a process that unlinks itself has escaped" do
        supervisor = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
        {:ok, child} = DynamicSupervisor.start_child(supervisor, Worker)
        kill_on_exit(child)
        refute orphan(child)

        Worker.run(child, fn -> Process.unlink(supervisor) end)
        assert %{kind: :escaped} = orphan(child)
      end

      test "Task.async_stream's processes are tethered" do
        test = self()

        runner =
          Task.async(fn ->
            1..2
            |> Task.async_stream(fn _ -> idle(test).() end, timeout: :infinity)
            |> Enum.to_list()
          end)

        for _ <- 1..2 do
          assert_receive {:up, pid}
          refute orphan(pid)
          send(pid, :stop)
        end

        assert [ok: :ok, ok: :ok] = Task.await(runner)
      end
    end
  end

  test "the test process is a host: what it links to is tethered, what it spawns is not" do
    linked = spawn_link(idle()) |> await_up()
    loose = spawn(idle()) |> await_up() |> kill_on_exit()

    refute orphan(self())
    refute orphan(linked)
    assert %{kind: :detached} = orphan(loose)
  end

  test "ExUnit, mix and logger themselves leave no orphan" do
    assert Lineage.orphans() == []
  end

  test "what was there before attach is known too" do
    Lineage.detach()
    {:ok, agent} = Agent.start(fn -> 0 end)
    kill_on_exit(agent)
    {:ok, linked} = Agent.start_link(fn -> 0 end)
    supervisor = start_supervised!(Task.Supervisor)
    {:ok, child} = Task.Supervisor.start_child(supervisor, idle())
    await_up(child)

    {:ok, _info} = Lineage.attach()
    assert orphan(agent)
    for pid <- [linked, supervisor, child], do: refute(orphan(pid))
    send(child, :stop)
  end
end

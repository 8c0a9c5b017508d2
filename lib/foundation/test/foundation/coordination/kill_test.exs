defmodule Foundation.Coordination.KillTest do
  @moduledoc """
  The servers of the coordination are killed, and mnesia, while they are used.

  `FOUNDATION_ROUNDS` says how often, 2 unless told.
  """
  use ExUnit.Case, async: false

  alias Foundation.Coordination
  alias Foundation.Coordination.{Consensus, Feed, Ledger, Primitives, Store}
  alias Foundation.Test.{Cluster, Load, Peer, Signals, Worker}

  @rounds String.to_integer(System.get_env("FOUNDATION_ROUNDS", "2"))
  @moduletag timeout: 120_000 + @rounds * 60_000
  @moduletag :capture_log

  @servers [
    Coordination.TableKeeper,
    Coordination.Watchers,
    Feed,
    Coordination.Cluster.Server,
    Coordination.Queue,
    Coordination.Sweeper,
    Coordination.Member
  ]

  describe "on a node of its own" do
    setup do
      # The load's answers outlive the supervisor of tasks, which is killed, too.
      {:ok, tag: make_ref(), supervisor: start_supervised!(Task.Supervisor)}
    end

    for victim <- @servers ++ [Foundation.TaskSupervisor, :mnesia_tm, :mnesia_locker] do
      test "#{inspect(victim)} is killed, and nothing is lost", %{
        tag: tag,
        supervisor: supervisor
      } do
        owner = start_supervised!(Worker)
        :ok = Ledger.subscribe(tag)

        {:ok, _} =
          Ledger.transaction(
            fn ->
              Ledger.write({tag, :kept}, :value)
              Ledger.write({tag, :owned}, :value, owner)
            end,
            5_000
          )

        assert_receive {:foundation_ledger, {^tag, :owned}, :written}, 5_000
        {:ok, lock} = Primitives.acquire_lock(tag)

        acquire = fn -> retry(fn -> Primitives.acquire_lock(tag, timeout: 30_000) end) end
        waiting = Task.Supervisor.async_nolink(supervisor, acquire)

        killed = Process.whereis(unquote(victim))
        Signals.kill(killed)
        counted = for _n <- 1..20, do: count(tag)
        added = Enum.count(counted, &match?({:ok, _}, &1))
        maybe = Enum.count(counted, &match?({:error, :timeout}, &1))

        assert {:ok, {:ok, :value}} =
                 retry(fn -> Ledger.transaction(fn -> Ledger.read({tag, :kept}) end, 5_000) end)

        assert {:ok, n} = retry(fn -> Primitives.get_counter(tag) end)
        assert n in added..(added + maybe)

        # What has an owner goes with it, and who waited is woken.
        stop_supervised!(Worker)
        assert_receive {:foundation_ledger, {^tag, :owned}, :deleted}, 20_000
        assert :ok = retry(fn -> Primitives.release_lock(lock) end)
        assert {:ok, _lock} = Task.await(waiting, 30_000)
        if unquote(victim in @servers), do: settled(unquote(victim), killed)
      end
    end
  end

  test "the queue is killed while a function runs: that ends, too, and others go on" do
    supervisor = start_supervised!(Task.Supervisor)
    test = self()

    endless = fn ->
      send(test, {:in, self()})
      receive do: (:never -> :ok)
    end

    task = Task.Supervisor.async_nolink(supervisor, fn -> Ledger.transaction(endless, 60_000) end)
    assert_receive {:in, pid}, 5_000
    ref = Process.monitor(pid)
    killed = Process.whereis(Coordination.Queue)
    Signals.kill(killed)
    assert_receive {:DOWN, ^ref, :process, ^pid, :killed}, 5_000
    assert Task.await(task) == {:error, :unavailable}
    assert {:ok, :went} = retry(fn -> Ledger.transaction(fn -> :went end, 5_000) end)
    settled(Coordination.Queue, killed)
  end

  test "mnesia is killed while it starts: it is started anew" do
    {supervisor, manager} = starting()
    # It has started, and answers nothing to the last process of mnesia, which waits for it then.
    await_in(manager, {:mnesia_tm, :doit_loop, 1})
    true = :erlang.suspend_process(manager)
    true = :erlang.resume_process(supervisor)
    await_in(await(:mnesia_late_loader), {:mnesia_schema, :schema_transaction, 1})
    Signals.kill(manager)
    assert {:ok, :went} = retry(fn -> Ledger.transaction(fn -> :went end, 30_000) end)
  end

  # The supervisor is suspended before it starts the last one.
  defp starting do
    without_mnesia(fn -> :ok end)
    manager = await(:mnesia_tm)
    supervisor = Process.whereis(:mnesia_kernel_sup)
    true = :erlang.suspend_process(supervisor)

    if Process.whereis(:mnesia_late_loader) do
      true = :erlang.resume_process(supervisor)
      starting()
    else
      {supervisor, manager}
    end
  end

  defp await(name), do: Process.whereis(name) || await(name)

  defp await_in(pid, function) do
    if Process.info(pid, :current_function) != {:current_function, function},
      do: await_in(pid, function)
  end

  # The next test kills another of them. A table outlives its owner or its keeper, not both: so until the
  # one is back, and the others have named it heir, neither may be killed.
  defp settled(server, killed) do
    case List.keyfind(Supervisor.which_children(Coordination.Supervisor), server, 0) do
      {_id, pid, _type, _modules} when is_pid(pid) and pid != killed ->
        for other <- @servers, do: :sys.get_state(other)

      _not_yet ->
        settled(server, killed)
    end
  end

  defp count(tag), do: Primitives.increment_counter(tag)

  describe "while mnesia is away, the sweeper" do
    setup do
      {tag, owner} = {make_ref(), start_supervised!(Worker)}
      :ok = Ledger.subscribe(tag)
      {:ok, tag: tag, write: fn -> Ledger.write({tag, :owned}, :value, owner) end}
    end

    test "hears of what was written before: who owns it is watched", %{tag: tag, write: write} do
      :ok = :sys.suspend(Coordination.Sweeper)
      written(tag, write)

      without_mnesia(fn ->
        :ok = :sys.resume(Coordination.Sweeper)
        :sys.get_state(Coordination.Sweeper)
      end)

      owner_ends(tag)
    end

    test "is started anew: the owners are watched", %{tag: tag, write: write} do
      written(tag, write)

      without_mnesia(fn ->
        :ok = Supervisor.terminate_child(Coordination.Supervisor, Coordination.Sweeper)
        {:ok, _pid} = Supervisor.restart_child(Coordination.Supervisor, Coordination.Sweeper)
      end)

      owner_ends(tag)
    end
  end

  describe "while mnesia is away, the copy" do
    setup do
      tag = make_ref()
      {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, :kept}, :value) end, 5_000)
      {:ok, tag: tag, read: fn -> Ledger.read({tag, :kept}) end}
    end

    test "is whole though the feed is killed", %{read: read} do
      without_mnesia(fn ->
        kill_feed()
        assert Feed.whole?()
      end)

      assert {:ok, {:ok, :value}} = Ledger.transaction(read, 10_000)
    end

    test "is not compared with a table that is only half restored", %{tag: tag, read: read} do
      without_mnesia(fn ->
        assert half_restored() == :ok
        kill_feed()
        assert List.keymember?(Feed.copy(Store.agreed()), {tag, :kept}, 1)
      end)

      assert {:ok, {:ok, :value}} = Ledger.transaction(read, 10_000)
    end

    # What a round has done that is killed in the midst of it.
    defp half_restored do
      true = :ets.insert(Coordination.Cluster, {:kept, true})
      with :ok <- Store.restart(), do: Store.create(Store.agreed(), [])
    end

    defp kill_feed do
      killed = Process.whereis(Feed)
      Signals.kill(killed)
      settled(Feed, killed)
    end
  end

  test "what is written together is copied together, though feed and mnesia are killed meanwhile" do
    supervisor = start_supervised!(Task.Supervisor)
    {tag, feed} = {make_ref(), Process.whereis(Feed)}

    killer =
      Task.Supervisor.async_nolink(supervisor, fn ->
        await_copied([{tag, 1}, {tag, 3_000}])
        # The next feed finds no mnesia to compare with.
        true = :erlang.suspend_process(feed)
        for victim <- [Process.whereis(:mnesia_tm), feed], do: Signals.kill(victim)
      end)

    result = Ledger.transaction(fn -> write_all(tag, 1..3_000) end, 10_000)
    Task.await(killer)
    settled(Feed, feed)
    keys = fn -> Ledger.transaction(fn -> Ledger.keys(tag) end, 10_000) end
    assert {:ok, keys} = retry(keys)
    assert length(keys) in if(match?({:ok, _}, result), do: [3_000], else: [0, 3_000])
  end

  # The first one, in whichever order.
  defp await_copied(keys) do
    if not Enum.any?(keys, &:ets.member(Feed, {Store.agreed(), &1})), do: await_copied(keys)
  end

  defp write_all(tag, numbers), do: Enum.each(numbers, &Ledger.write({tag, &1}, &1))

  test "feed and mnesia are killed in the midst of a commit: none of it is left, or all" do
    supervisor = start_supervised!(Task.Supervisor)

    for _n <- 1..5 do
      {tag, victims} = {make_ref(), Enum.map([Feed, :mnesia_tm], &Process.whereis/1)}
      {:ok, rows} = Store.rows(Store.agreed())

      killer =
        Task.Supervisor.async_nolink(supervisor, fn ->
          await_rows(length(rows) + 200)
          for victim <- victims, do: {Signals.kill(victim), spin(:rand.uniform(5_000))}
        end)

      result = Ledger.transaction(fn -> write_all(tag, 1..20_000) end, 10_000)
      Task.await(killer)
      keys = fn -> Ledger.transaction(fn -> Ledger.keys(tag) end, 10_000) end
      assert {:ok, keys} = retry(keys)
      assert length(keys) in if(match?({:ok, _}, result), do: [20_000], else: [0, 20_000])
      delete = fn -> Enum.each(keys, &Ledger.delete/1) end
      assert {:ok, :ok} = retry(fn -> Ledger.transaction(delete, 10_000) end)
    end
  end

  defp await_rows(count) do
    if :ets.info(Store.agreed(), :size) < count, do: await_rows(count)
  end

  test "mnesia is killed while the feed compares: nothing is taken for deleted" do
    tag = make_ref()

    for n <- 0..9 do
      numbers = (n * 1_000 + 1)..(n * 1_000 + 1_000)
      assert {:ok, :ok} = Ledger.transaction(fn -> write_all(tag, numbers) end, 10_000)
    end

    for _n <- 1..10 do
      manager = await(:mnesia_tm)
      send(Feed, :compare)
      spin(:rand.uniform(5_000))
      Signals.kill(manager)
      keys = fn -> Ledger.transaction(fn -> Ledger.keys(tag) end, 10_000) end
      assert {:ok, keys} = retry(keys)
      assert length(keys) == 10_000
    end

    delete = fn -> Enum.each(Ledger.keys(tag), &Ledger.delete/1) end
    assert {:ok, :ok} = Ledger.transaction(delete, 10_000)
  end

  defp spin(us), do: spin_until(System.monotonic_time(:microsecond) + us)

  defp spin_until(end_us),
    do: if(System.monotonic_time(:microsecond) < end_us, do: spin_until(end_us))

  # The death of a permanent one would end the node.
  test "mnesia is a temporary application" do
    assert {:mnesia, :temporary} in :application.info()[:started]
  end

  # Its transaction has been unlinked from mnesia when it begins again.
  test "who asks mnesia ends with it" do
    supervisor = start_supervised!(Task.Supervisor)
    {test, manager} = {self(), Process.whereis(:mnesia_tm)}

    twice = fn ->
      true = :erlang.suspend_process(manager)
      send(test, :begun)
      :mnesia.abort({:node_not_running, :"nobody@127.0.0.1"})
    end

    ask = fn -> Store.ask(fn -> :mnesia.transaction(twice) end) end
    task = Task.Supervisor.async_nolink(supervisor, ask)
    assert_receive :begun, 5_000
    await_in(task.pid, {:mnesia_tm, :rec, 2})
    {pid, ref} = {task.pid, Process.monitor(task.pid)}
    Signals.kill(manager)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 10_000
    assert {:ok, :went} = retry(fn -> Ledger.transaction(fn -> :went end, 10_000) end)
  end

  test "a table that is there is not made again" do
    tag = make_ref()
    assert {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, 1}, :kept) end, 5_000)
    assert {:error, {:already_exists, _table}} = Store.create(Store.agreed(), [])
    assert Ledger.peek({tag, 1}) == {:ok, :kept}
  end

  # It would connect mnesia to others behind the back of who goes on then.
  test "what mnesia does for one that was killed ends when it is started anew" do
    supervisor = start_supervised!(Task.Supervisor)

    without_mnesia(fn ->
      :ok = Store.restart()
      {mnesia, manager} = {Process.whereis(:mnesia_sup), Process.whereis(:mnesia_tm)}
      assert Store.restart() == :ok
      assert Process.whereis(:mnesia_sup) == mnesia
      true = :erlang.suspend_process(manager)
      asks = fn -> :mnesia.change_config(:extra_db_nodes, [:"nobody@127.0.0.1"]) end
      task = Task.Supervisor.async_nolink(supervisor, asks)
      stray = spawned_by_mnesia()
      await_in(stray, {:mnesia_schema, :schema_transaction, 1})
      Signals.kill(task.pid)
      true = :erlang.suspend_process(stray)
      true = :erlang.resume_process(manager)
      ref = Process.monitor(stray)
      assert Store.restart() == :ok
      assert_received {:DOWN, ^ref, :process, ^stray, :killed}
      assert Process.whereis(:mnesia_sup) != mnesia
    end)

    assert {:ok, :went} = retry(fn -> Ledger.transaction(fn -> :went end, 10_000) end)
  end

  defp spawned_by_mnesia do
    call = {:initial_call, {:mnesia_controller, :connect_nodes2, 3}}
    Enum.find(Process.list(), &(Process.info(&1, :initial_call) == call)) || spawned_by_mnesia()
  end

  # As one that is under way when the feed subscribes may be.
  test "a transaction that mnesia does not report is noticed at the next one" do
    table = {:table, Store.agreed(), :simple}
    tag = make_ref()
    :ok = Ledger.subscribe(tag)
    in_feed(fn -> :mnesia.unsubscribe(table) end)
    task = unreported(tag)
    await_written({tag, 1})
    in_feed(fn -> :mnesia.subscribe(table) end)
    # Not confirmed, it ended the epoch: the next one begins with a transaction.
    assert Task.await(task, 30_000) == {:ok, :ok}
    assert_receive {:foundation_ledger, {^tag, 1}, :written}, 5_000
    refute Feed.apart?()
  end

  test "one that nobody follows up is noticed a little later" do
    tag = make_ref()
    :ok = Ledger.subscribe(tag)
    in_feed(fn -> :mnesia.unsubscribe({:table, Store.agreed(), :simple}) end)
    :ok = Feed.attach()
    in_feed(fn -> :mnesia.unsubscribe({:table, Store.agreed(), :simple}) end)
    task = unreported(tag)
    assert_receive {:foundation_ledger, {^tag, 1}, :written}, 30_000
    :ok = Feed.attach()
    assert Task.await(task, 30_000) == {:ok, :ok}
  end

  defp await_written(key), do: if(Ledger.peek(key) == :error, do: await_written(key))

  defp unreported(tag) do
    supervisor = start_supervised!(Task.Supervisor)
    write = fn -> Ledger.write({tag, 1}, :unreported) end
    Task.Supervisor.async_nolink(supervisor, Ledger, :transaction, [write, 30_000])
  end

  defp in_feed(fun) do
    :sys.replace_state(Coordination.Feed, fn state ->
      {:ok, _node} = fun.()
      state
    end)
  end

  defp written(tag, write) do
    {:ok, :ok} = Ledger.transaction(write, 5_000)
    assert_receive {:foundation_ledger, {^tag, :owned}, :written}, 5_000
  end

  # The sweep that comes with the tables' return must not be what finds it.
  defp owner_ends(tag) do
    assert {:ok, {:ok, :value}} = Ledger.transaction(fn -> Ledger.read({tag, :owned}) end, 10_000)

    :ok = quiet(:sys.get_state(Coordination.Sweeper))
    stop_supervised!(Worker)
    assert_receive {:foundation_ledger, {^tag, :owned}, :deleted}, 20_000
  end

  defp quiet(%{task: nil}), do: :ok

  defp quiet(%{task: %{pid: pid}}) do
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 10_000
    quiet(:sys.get_state(Coordination.Sweeper))
  end

  # The server that would start mnesia again sleeps meanwhile.
  defp without_mnesia(fun) do
    :ok = :sys.suspend(Coordination.Cluster.Server)
    monitor = Process.monitor(:mnesia_sup)
    :mnesia_tm |> Process.whereis() |> Signals.kill()
    assert_receive {:DOWN, ^monitor, :process, _pid, _reason}, 5_000
    fun.()
    :ok = :sys.resume(Coordination.Cluster.Server)
  end

  # A server that is just being restarted is not available: whoever can wait asks again.
  defp retry(fun) do
    with {:error, :unavailable} <- fun.(), do: retry(fun)
  end

  test "on three nodes, again and again" do
    env = [{:foundation, :max_restarts, 1_000_000}]
    cluster = Cluster.start(lineage: true, env: env)
    Cluster.await_view(cluster, cluster.members)

    Enum.reduce(1..@rounds, Load.nothing(), fn round, answers ->
      victims =
        @servers ++
          List.duplicate(:task, 12) ++ if(rem(round, 4) == 0, do: [:mnesia_tm], else: [])

      for node <- cluster.members, do: :ok = Cluster.call(cluster, node, Load, :start, [3_000])

      for _n <- 1..200 do
        Cluster.call(cluster, Enum.random(cluster.members), Peer, :kill, [Enum.random(victims)])
      end

      answers =
        for node <- cluster.members, reduce: answers do
          answers -> Load.add_up(answers, Cluster.call(cluster, node, Load, :stop, []))
        end

      Cluster.await_view(cluster, cluster.members)
      true?(cluster, answers)
      answers
    end)
  end

  defp true?(cluster, answers) do
    assert Enum.uniq(answers.odd) -- [{:error, :unavailable}] == []
    for node <- cluster.members, do: Cluster.call(cluster, node, Peer, :quiet, [])
    logs = for node <- cluster.members, do: Cluster.call(cluster, node, Consensus, :log, [20_000])
    assert [{:ok, log}] = Enum.uniq(logs)
    first = hd(log).index
    assert Enum.map(log, & &1.index) == Enum.to_list(first..List.last(log).index)
    assert Enum.filter(answers.entries, &(&1.index >= first)) -- log == []
    {:ok, count} = Cluster.call(cluster, hd(cluster.members), Primitives, :get_counter, [:load])
    assert count in answers.added..(answers.added + answers.maybe_added)
    assert answers.tokens == Enum.uniq(answers.tokens)

    for node <- cluster.members do
      Cluster.call(cluster, node, Peer, :quiet, [])
      assert Cluster.call(cluster, node, Peer, :orphans, []) == []
    end

    rows =
      for node <- cluster.members do
        {:ok, rows} = Cluster.call(cluster, node, Store, :rows, [Store.agreed()])
        Enum.sort(rows)
      end

    assert length(Enum.uniq(rows)) == 1
  end
end

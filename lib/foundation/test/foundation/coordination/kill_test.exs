defmodule Foundation.Coordination.KillTest do
  @moduledoc """
  The servers of the coordination are killed, and mnesia, while they are used.

  `FOUNDATION_ROUNDS` says how often, 2 unless told.
  """
  use ExUnit.Case, async: false

  alias Foundation.Coordination
  alias Foundation.Coordination.{Consensus, Ledger, Primitives, Store}
  alias Foundation.Test.{Cluster, Load, Peer, Signals, Worker}

  @rounds String.to_integer(System.get_env("FOUNDATION_ROUNDS", "2"))
  @moduletag timeout: 120_000 + @rounds * 60_000
  @moduletag :capture_log

  @servers [
    Coordination.TableKeeper,
    Coordination.Watchers,
    Coordination.Feed,
    Coordination.Cluster.Server,
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

  # As one that is under way when the feed subscribes may be.
  test "a transaction that mnesia does not report is noticed at the next one" do
    table = {:table, Store.agreed(), :simple}
    tag = make_ref()
    :ok = Ledger.subscribe(tag)
    in_feed(fn -> :mnesia.unsubscribe(table) end)
    {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, 1}, :unreported) end, 5_000)
    in_feed(fn -> :mnesia.subscribe(table) end)
    {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, 2}, :reported) end, 5_000)
    for n <- 1..2, do: assert_receive({:foundation_ledger, {^tag, ^n}, :written}, 5_000)
    refute Coordination.Feed.apart?()
  end

  test "one that nobody follows up is noticed a little later" do
    tag = make_ref()
    :ok = Ledger.subscribe(tag)
    in_feed(fn -> :mnesia.unsubscribe({:table, Store.agreed(), :simple}) end)
    :ok = Coordination.Feed.attach()
    in_feed(fn -> :mnesia.unsubscribe({:table, Store.agreed(), :simple}) end)
    {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, 1}, :unreported) end, 5_000)
    assert_receive {:foundation_ledger, {^tag, 1}, :written}, 5_000
    :ok = Coordination.Feed.attach()
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
        cluster |> Cluster.call(node, Store, :rows, [Store.agreed()]) |> Enum.sort()
      end

    assert length(Enum.uniq(rows)) == 1
  end
end

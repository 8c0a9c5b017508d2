defmodule Foundation.Coordination.LedgerTest do
  use ExUnit.Case, async: true

  alias Foundation.Coordination.{Cluster, Head, Ledger, Queue, Request, Store}
  alias Foundation.Test.Worker

  # The ledger is the node's: each test has keys of its own.
  setup do
    {:ok, tag: make_ref()}
  end

  test "what a transaction writes, the next one reads", %{tag: tag} do
    assert {:ok, :written} =
             Ledger.transaction(
               fn ->
                 :error = Ledger.read({tag, 1})
                 :ok = Ledger.write({tag, 1}, :one)
                 :ok = Ledger.write({tag, 2}, :two)
                 {:ok, :one} = Ledger.read({tag, 1})
                 :written
               end,
               5_000
             )

    assert {:ok, {{:ok, :one}, keys}} =
             Ledger.transaction(fn -> {Ledger.read({tag, 1}), Ledger.keys(tag)} end, 5_000)

    assert Enum.sort(keys) == [{tag, 1}, {tag, 2}]
    assert Ledger.peek({tag, 2}) == {:ok, :two}

    assert {:ok, :ok} = Ledger.transaction(fn -> Ledger.delete({tag, 1}) end, 5_000)
    assert {:ok, [{^tag, 2}]} = Ledger.transaction(fn -> Ledger.keys(tag) end, 5_000)
    assert Ledger.peek({tag, 1}) == :error
  end

  test "a transaction that is aborted or fails has written nothing", %{tag: tag} do
    for fail <- [fn -> Ledger.abort(:no) end, fn -> raise "no" end, fn -> throw(:no) end] do
      assert {:error, {:aborted, _reason}} =
               Ledger.transaction(
                 fn ->
                   Ledger.write({tag, 1}, :one)
                   fail.()
                 end,
                 5_000
               )

      assert Ledger.peek({tag, 1}) == :error
    end

    assert Ledger.transaction(fn -> Ledger.abort(:no) end, 5_000) == {:error, {:aborted, :no}}
  end

  test "numbers grow with each transaction that writes", %{tag: tag} do
    numbers =
      for n <- 1..3 do
        {:ok, number} =
          Ledger.transaction(
            fn ->
              Ledger.write({tag, n}, n)
              Ledger.number()
            end,
            5_000
          )

        number
      end

    assert numbers == numbers |> Enum.sort() |> Enum.uniq()
  end

  test "transactions of many processes take place one after the other", %{tag: tag} do
    supervisor = start_supervised!(Task.Supervisor)

    add = fn _n ->
      Ledger.transaction(
        fn ->
          count = with {:ok, count} <- Ledger.read({tag, :count}), do: count
          count = if count == :error, do: 1, else: count + 1
          Ledger.write({tag, :count}, count)
          count
        end,
        5_000
      )
    end

    counts = supervisor |> Task.Supervisor.async_stream(1..50, add) |> Enum.map(&elem(&1, 1))
    assert Enum.sort(counts) == for(n <- 1..50, do: {:ok, n})
  end

  test "watchers hear of what is written and deleted, until they end it", %{tag: tag} do
    :ok = Ledger.subscribe(tag)
    Ledger.transaction(fn -> Ledger.write({tag, 1}, :one) end, 5_000)
    assert_receive {:foundation_ledger, {^tag, 1}, :written}, 5_000
    Ledger.transaction(fn -> Ledger.delete({tag, 1}) end, 5_000)
    assert_receive {:foundation_ledger, {^tag, 1}, :deleted}, 5_000

    :ok = Ledger.unsubscribe(tag)
    other = make_ref()
    :ok = Ledger.subscribe(other)

    Ledger.transaction(
      fn ->
        Ledger.write({tag, 1}, :one)
        Ledger.write({other, 1}, :one)
      end,
      5_000
    )

    assert_receive {:foundation_ledger, {^other, 1}, :written}, 5_000
    refute_received {:foundation_ledger, {^tag, 1}, _}
  end

  test "a key with an owner is deleted when that one dies", %{tag: tag} do
    :ok = Ledger.subscribe(tag)
    owner = start_supervised!(Worker)
    {:ok, _} = Ledger.transaction(fn -> Ledger.write({tag, 1}, :one, owner) end, 5_000)
    assert {:ok, ^owner} = Ledger.transaction(fn -> Ledger.owner({tag, 1}) end, 5_000)
    :ok = stop_supervised(Worker)
    assert_receive {:foundation_ledger, {^tag, 1}, :deleted}, 5_000
  end

  test "a key whose owner is dead already is deleted, too", %{tag: tag} do
    :ok = Ledger.subscribe(tag)
    owner = start_supervised!(Worker)
    :ok = stop_supervised(Worker)
    {:ok, _} = Ledger.transaction(fn -> Ledger.write({tag, 1}, :one, owner) end, 5_000)
    assert_receive {:foundation_ledger, {^tag, 1}, :deleted}, 5_000
  end

  test "a transaction that takes too long is given up, and nothing is left in the mailbox" do
    test = self()

    slow = fn ->
      send(test, {:in, self()})
      receive do: (:never -> :ok)
    end

    assert Ledger.transaction(slow, 2_000) == {:error, :timeout}
    assert_received {:in, pid}
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
    assert {:messages, []} = Process.info(self(), :messages)
  end

  describe "transactions that wait while one is under way" do
    setup do
      {:ok, supervisor: start_supervised!(Task.Supervisor)}
    end

    test "take place together, in their order, each on its own", %{
      tag: tag,
      supervisor: supervisor
    } do
      write = fn n ->
        fn ->
          Ledger.write({tag, n}, n)
          {Ledger.number(), Enum.sort(Ledger.keys(tag))}
        end
      end

      fail = fn fail ->
        fn ->
          Ledger.write({tag, :failed}, 0)
          Ledger.delete({tag, 1})
          fail.()
        end
      end

      {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, 1}, 1) end, 5_000)

      funs = [
        write.(2),
        fail.(fn -> Ledger.abort(:no) end),
        fail.(fn -> raise "no" end),
        fail.(fn -> exit({:aborted, :no}) end),
        write.(3),
        fn -> {Ledger.read({tag, 1}), Ledger.delete({tag, 1}), Ledger.read({tag, 1})} end,
        write.(4),
        fn -> {Ledger.read({tag, 1}), Ledger.read({tag, :failed}), Ledger.owner({tag, 2})} end
      ]

      {:ok, before} = Store.head(Ledger.table())

      answers =
        behind_another(supervisor, fn ->
          Enum.map(funs, &queued(supervisor, fn -> Ledger.transaction(&1, 30_000) end))
        end)

      {:ok, head} = Store.head(Ledger.table())
      [one, two, three, four] = for n <- 1..4, do: {tag, n}
      first = before.number + 1
      {second, last} = {first + 1, first + 3}

      assert [
               {:ok, {^first, [^one, ^two]}},
               {:error, {:aborted, :no}},
               {:error, {:aborted, {%RuntimeError{}, _stack}}},
               {:error, {:aborted, {:aborted, :no}}},
               {:ok, {^second, [^one, ^two, ^three]}},
               {:ok, {{:ok, 1}, :ok, :error}},
               {:ok, {^last, [^two, ^three, ^four]}},
               {:ok, {:error, :error, nil}}
             ] = answers

      assert head.number == last
      assert Store.read(Ledger.table(), two) == {:ok, {Ledger.table(), two, 2, nil, first}}
    end

    # A turn takes no more when it has taken long, and this machine may be busy.
    test "share a process, unless it takes long", %{supervisor: supervisor} do
      until(fn ->
        pids =
          behind_another(supervisor, fn ->
            for _n <- 1..3 do
              queued(supervisor, fn -> Ledger.transaction(fn -> self() end, 30_000) end)
            end
          end)

        match?([{:ok, _pid}], Enum.uniq(pids))
      end)
    end

    test "are given up at their own deadlines, or with their callers", %{
      tag: tag,
      supervisor: supervisor
    } do
      write = fn n -> fn -> Ledger.write({tag, n}, n) end end

      answers =
        behind_another(supervisor, fn ->
          late = queued(supervisor, fn -> Ledger.transaction(write.(:late), 500) end)
          dead = queued(supervisor, fn -> Ledger.transaction(write.(:dead), 30_000) end)
          other = queued(supervisor, fn -> Ledger.transaction(write.(:other), 30_000) end)
          assert Task.await(late) == {:error, :timeout}
          Task.shutdown(dead, :brutal_kill)
          [other]
        end)

      assert answers == [{:ok, :ok}]
      assert Ledger.transaction(fn -> Ledger.keys(tag) end, 5_000) == {:ok, [{tag, :other}]}
    end

    for who <- [:late, :dead] do
      test "take place although one of them never ends, whose caller is #{who}", %{
        tag: tag,
        supervisor: supervisor
      } do
        test = self()

        add = fn ->
          count = with :error <- Ledger.read({tag, :count}), do: {:ok, 0}
          Ledger.write({tag, :count}, elem(count, 1) + 1)
        end

        endless = fn ->
          Ledger.write({tag, :endless}, 1)
          send(test, {:entered, self()})
          receive do: (:never -> :ok)
        end

        timeout = if unquote(who) == :late, do: 2_000, else: 60_000

        [first, caller, last] =
          behind_another(
            supervisor,
            fn ->
              for {fun, timeout} <- [{add, 60_000}, {endless, timeout}, {add, 60_000}] do
                queued(supervisor, fn -> Ledger.transaction(fun, timeout) end)
              end
            end,
            & &1
          )

        assert_receive {:entered, pid}, 5_000
        ref = Process.monitor(pid)

        if unquote(who) == :late,
          do: assert(Task.await(caller) == {:error, :timeout}),
          else: Task.shutdown(caller, :brutal_kill)

        assert_receive {:DOWN, ^ref, :process, ^pid, :killed}, 5_000
        assert Task.await_many([first, last], 30_000) == [{:ok, :ok}, {:ok, :ok}]
        assert Ledger.peek({tag, :count}) == {:ok, 2}
        assert Ledger.peek({tag, :endless}) == :error
      end
    end

    test "take place once when their process is killed", %{tag: tag, supervisor: supervisor} do
      add = fn -> Ledger.write({tag, :added}, Ledger.number()) end
      kill = fn -> Process.exit(self(), :kill) end
      {:ok, before} = Store.head(Ledger.table())

      # It kills its process again and again, until its deadline.
      answers =
        behind_another(supervisor, fn ->
          for {fun, timeout} <- [{add, 30_000}, {kill, 1_000}] do
            queued(supervisor, fn -> Ledger.transaction(fun, timeout) end)
          end
        end)

      assert answers == [{:ok, :ok}, {:error, :timeout}]
      assert Ledger.peek({tag, :added}) == {:ok, before.number + 1}
      assert {:ok, number} = Ledger.transaction(&Ledger.number/0, 5_000)
      assert number == before.number + 2
    end

    test "go on when one is lost in its commit, as mnesia may do", %{supervisor: supervisor} do
      test = self()

      lost =
        Task.Supervisor.async_nolink(supervisor, fn ->
          Ledger.transaction(
            fn ->
              %{requests: [{_from, request}]} = lane()
              # As if it ran for the second time.
              true = Request.ran(request)
              true = Request.committing(request)
              send(test, :in)
              receive do: (:never -> :ok)
            end,
            2_000
          )
        end)

      assert_receive :in, 5_000
      %{task: task} = lane()
      after_it = queued(supervisor, fn -> Ledger.transaction(fn -> :went end, 30_000) end)
      assert Task.await(lost) == {:error, :timeout}
      until(fn -> lane().task != task end)
      # It is left alone, with its lock.
      assert Process.alive?(task.pid)
      Process.exit(task.pid, :kill)
      assert Task.await(after_it, 30_000) == {:ok, :went}
    end

    test "are told of as if each had its own turn", %{tag: tag, supervisor: supervisor} do
      :ok = Ledger.subscribe(tag)

      answers =
        behind_another(supervisor, fn ->
          for fun <- [
                fn -> Ledger.write({tag, 1}, 1) end,
                fn -> Ledger.delete({tag, 1}) end,
                fn -> Ledger.write({tag, 2}, 2) end
              ],
              do: queued(supervisor, fn -> Ledger.transaction(fun, 30_000) end)
        end)

      assert answers == [{:ok, :ok}, {:ok, :ok}, {:ok, :ok}]
      assert_receive {:foundation_ledger, {^tag, 1}, :written}, 5_000
      assert_receive {:foundation_ledger, {^tag, 1}, :deleted}, 5_000
      assert_receive {:foundation_ledger, {^tag, 2}, :written}, 5_000
      assert Ledger.peek({tag, 1}) == :error
    end

    test "are not held up by a long one", %{tag: tag, supervisor: supervisor} do
      {:ok, before} = Store.head(Ledger.table())

      answers =
        behind_another(supervisor, fn ->
          for n <- 1..3 do
            long = fn ->
              busy(20)
              Ledger.write({tag, n}, n)
            end

            queued(supervisor, fn -> Ledger.transaction(long, 30_000) end)
          end
        end)

      assert answers == [{:ok, :ok}, {:ok, :ok}, {:ok, :ok}]
      {:ok, head} = Store.head(Ledger.table())
      # Three turns.
      assert Enum.at(head.recent, 3) == Head.mark(before)
    end
  end

  test "nothing is logged, whatever they do", %{tag: tag} do
    log =
      ExUnit.CaptureLog.capture_log(fn ->
        {:ok, :error} = Ledger.transaction(fn -> Ledger.read({tag, 1}) end, 5_000)
        {:ok, :ok} = Ledger.transaction(fn -> Ledger.write({tag, 1}, 1) end, 5_000)
        {:error, {:aborted, :no}} = Ledger.transaction(fn -> Ledger.abort(:no) end, 5_000)
        :sys.get_state(Queue)
      end)

    refute log =~ "Queue"
  end

  # What the tasks that `begin` starts while a transaction is under way have answered.
  defp behind_another(supervisor, begin, await \\ &Task.await_many(&1, 30_000)) do
    test = self()

    another =
      Task.Supervisor.async_nolink(supervisor, fn ->
        Ledger.transaction(
          fn ->
            send(test, {:in, self()})
            receive do: (:go -> :went)
          end,
          30_000
        )
      end)

    assert_receive {:in, pid}, 5_000
    tasks = begin.()
    send(pid, :go)
    assert Task.await(another) == {:ok, :went}
    await.(tasks)
  end

  # Starts it and returns when it is in the queue.
  defp queued(supervisor, call) do
    before = length(lane().waiting)
    task = Task.Supervisor.async_nolink(supervisor, call)
    until(fn -> length(lane().waiting) > before end)
    task
  end

  defp lane, do: :sys.get_state(Queue)[Ledger.table()]

  defp busy(ms) do
    over = Foundation.Call.deadline(ms)
    until(fn -> Foundation.Call.left(over) == 0 end)
  end

  defp until(done?), do: if(not done?.(), do: until(done?))

  test "arguments that are wrong are refused" do
    assert Ledger.transaction(:no, 100) == {:error, {:aborted, :bad_function}}
    assert Ledger.transaction(fn _ -> :ok end, 100) == {:error, {:aborted, :bad_function}}
    assert Ledger.transaction(fn -> :ok end, 100, :schema) == {:error, {:aborted, :bad_table}}

    for timeout <- [-1, :infinity, 1.5, 0x100000000] do
      assert Ledger.transaction(fn -> :ok end, timeout) == {:error, {:aborted, :bad_timeout}}
    end

    nested = fn -> Ledger.transaction(fn -> :ok end, 100) end
    assert Ledger.transaction(nested, 5_000) == {:ok, {:error, {:aborted, :nested}}}
    assert_raise ArgumentError, fn -> Ledger.read({:a, 1}) end
  end

  test "a node without members is a cluster of its own, in a majority" do
    assert Cluster.members() == [node()]
    assert Cluster.quorum?()
    assert {:ok, {_epoch, nodes}} = Cluster.view()
    assert nodes == [node()]
  end
end

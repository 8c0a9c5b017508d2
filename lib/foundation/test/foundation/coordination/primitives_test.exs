defmodule Foundation.Coordination.PrimitivesTest do
  # Switches phases, which are the node's.
  use ExUnit.Case, async: false

  alias Foundation.Coordination.{Consensus, Ledger, Primitives}
  alias Foundation.Test.Signals

  setup do
    {:ok, id: make_ref(), supervisor: start_supervised!(Task.Supervisor)}
  end

  # All four combinations of the phases that the primitives know.
  for phase_2 <- [true, false], phase_4 <- [true, false] do
    describe "with phase_2 #{phase_2} and phase_4 #{phase_4}" do
      setup do
        Signals.switch(:phase_2, unquote(phase_2))
        Signals.switch(:phase_4, unquote(phase_4))
      end

      test "values get an index one after the other", %{id: id} do
        Signals.listen([:foundation, :events, :stored])
        {:ok, %{index: index, value: {^id, 1}}} = Primitives.consensus({id, 1})
        next = index + 1
        assert {:ok, %{index: ^next, value: {^id, 2}} = entry} = Primitives.consensus({id, 2})

        assert_receive {:telemetry, _, _, %{event: %{type: :consensus_committed, data: ^entry}}},
                       5_000

        assert {:ok, log} = Consensus.log(5_000)
        assert [%{value: {^id, 1}}, ^entry] = Enum.take(log, -2)
      end

      test "the node leads, and its term goes on" do
        Signals.listen([:foundation, :events, :stored])
        assert {:ok, %{leader: leader, term: term} = record} = Primitives.elect_leader()
        assert leader == node()

        assert_receive {:telemetry, _, _, %{event: %{type: :leader_announced, data: ^record}}},
                       5_000

        assert {:ok, %{term: ^term}} = Primitives.elect_leader()
      end

      test "a lock is held by one process at a time, and released", %{id: id} = context do
        {:ok, lock} = Primitives.acquire_lock(id)
        assert Primitives.acquire_lock(id) == {:error, :already_held}
        assert {:error, :timeout} = elsewhere(context, :acquire_lock, [id, [timeout: 100]])

        waiting = begin(context, :acquire_lock, [id, [timeout: 10_000]])
        assert Primitives.release_lock(lock) == :ok
        assert Primitives.release_lock(lock) == {:error, :not_held}
        assert {:ok, next} = Task.await(waiting, 10_000)
        assert next.token > lock.token

        # Its holder has ended since.
        assert {:ok, last} = Primitives.acquire_lock(id)
        assert last.token > next.token
        assert Primitives.release_lock(next) == {:error, :not_held}
        assert Primitives.release_lock(last) == :ok
      end

      test "a lock whose holder dies is free for who waits", %{id: id} = context do
        acquire = fn -> Primitives.acquire_lock(id) end
        holder = start_supervised!({Agent, acquire}, restart: :temporary)
        assert {:ok, lock} = Agent.get(holder, & &1)
        waiting = begin(context, :acquire_lock, [id, [timeout: 10_000]])
        assert {:error, :timeout} = elsewhere(context, :acquire_lock, [id, [timeout: 100]])
        Signals.kill(holder)
        assert {:ok, next} = Task.await(waiting, 10_000)
        assert next.token > lock.token
      end

      test "a barrier lets all go when there are enough, again and again", %{id: id} = context do
        for _round <- 1..2 do
          tasks = for _n <- 1..3, do: begin(context, :barrier_sync, [id, 4, 10_000])
          assert Primitives.barrier_sync(id, 4, 10_000) == :ok
          assert Task.await_many(tasks, 10_000) == [:ok, :ok, :ok]
        end

        assert Primitives.barrier_sync(id, 1, 5_000) == :ok
        assert {:error, :timeout} = Primitives.barrier_sync(id, 2, 100)
      end

      test "counters count", %{id: id} = context do
        assert Primitives.get_counter(id) == {:ok, 0}
        assert Primitives.increment_counter(id) == {:ok, 1}
        assert Primitives.increment_counter(id, -3) == {:ok, -2}
        tasks = for _n <- 1..10, do: begin(context, :increment_counter, [id, 1])
        assert tasks |> Task.await_many() |> Enum.sort() == for(n <- -1..8, do: {:ok, n})
        assert Primitives.get_counter(id) == {:ok, 8}
      end

      test "no message is left in a caller's mailbox", %{id: id} do
        {:ok, lock} = Primitives.acquire_lock(id, timeout: 1_000)
        Primitives.consensus(id)
        Primitives.elect_leader()
        Primitives.barrier_sync(id, 2, 50)
        Primitives.release_lock(lock)
        assert {:messages, []} = Process.info(self(), :messages)
      end
    end
  end

  test "who dies at a barrier is not waited with", %{id: id} = context do
    :ok = Ledger.subscribe({:barrier, id})
    task = begin(context, :barrier_sync, [id, 2, 60_000])
    assert_receive {:foundation_ledger, key, :written}, 5_000
    Signals.kill(task.pid)
    assert_receive {:foundation_ledger, ^key, :deleted}, 5_000
    assert {:error, :timeout} = Primitives.barrier_sync(id, 2, 100)
  end

  test "who waits at a barrier for another number is told", %{id: id} = context do
    :ok = Ledger.subscribe({:barrier, id})
    task = begin(context, :barrier_sync, [id, 2, 60_000])
    assert_receive {:foundation_ledger, _key, :written}, 5_000
    assert Primitives.barrier_sync(id, 3, 5_000) == {:error, {:bad_count, 2}}
    assert Primitives.barrier_sync(id, 2, 5_000) == :ok
    assert Task.await(task) == :ok
  end

  test "a lock belongs to the ledger in which it was acquired", %{id: id} do
    {:ok, lock} = Primitives.acquire_lock(id)
    Signals.switch(:phase_4, false)
    {:ok, other} = Primitives.acquire_lock(id)
    assert Primitives.release_lock(lock) == :ok
    Signals.switch(:phase_4, true)
    assert Primitives.release_lock(other) == :ok
  end

  test "a lock that is handed out too late is given back", %{id: id} = context do
    {:ok, lock} = Primitives.acquire_lock(id)
    holder = start_supervised!({Agent, fn -> nil end})

    late = fn nil -> {Primitives.acquire_lock(id, timeout: 50), nil} end
    assert {:error, :timeout} = Agent.get_and_update(holder, late)
    assert Primitives.release_lock(lock) == :ok
    assert {:ok, _lock} = elsewhere(context, :acquire_lock, [id, [timeout: 5_000]])
  end

  test "calls are timed" do
    Signals.listen([:foundation, :coordination, :get_counter])
    {:ok, _count} = Primitives.get_counter(:timed)
    assert_receive {:telemetry, _event, %{duration: duration}, _metadata}, 5_000
    assert duration > 0
  end

  test "arguments that are wrong are refused", %{id: id} do
    for options <- [[timeout: -1], [timeout: :infinity], [:timeout], [timeout: nil], [a: 1]] do
      [option] = options
      assert Primitives.consensus(id, options) == {:error, {:bad_option, option}}
      assert Primitives.elect_leader(options) == {:error, {:bad_option, option}}
      assert Primitives.acquire_lock(id, options) == {:error, {:bad_option, option}}
    end

    for options <- [nil, %{timeout: 1}, [{:timeout, 1} | :more], 5] do
      assert Primitives.consensus(id, options) == {:error, {:bad_option, options}}
    end

    for bad <- [nil, :lock, %{}, {id, 1}],
        do: assert({:error, :bad_lock} = Primitives.release_lock(bad))

    {:ok, lock} = Primitives.acquire_lock(id)
    assert Primitives.release_lock(%{lock | table: :other}) == {:error, :bad_lock}
    assert Primitives.release_lock(%{lock | claim: nil}) == {:error, :bad_lock}
    assert Primitives.release_lock(lock) == :ok

    for count <- [0, -1, 1.5, nil, :two] do
      assert Primitives.barrier_sync(id, count, 100) == {:error, :bad_count}
    end

    for timeout <- [-1, nil, :infinity, 1.0] do
      assert Primitives.barrier_sync(id, 1, timeout) ==
               {:error, {:bad_option, {:timeout, timeout}}}
    end

    for n <- [1.5, nil, :one, "1"] do
      assert Primitives.increment_counter(id, n) == {:error, :bad_increment}
    end
  end

  defp begin(%{supervisor: supervisor}, function, arguments),
    do: Task.Supervisor.async_nolink(supervisor, Primitives, function, arguments)

  defp elsewhere(context, function, arguments),
    do: context |> begin(function, arguments) |> Task.await(20_000)
end

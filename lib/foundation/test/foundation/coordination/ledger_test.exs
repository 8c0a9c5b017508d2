defmodule Foundation.Coordination.LedgerTest do
  use ExUnit.Case, async: true

  alias Foundation.Coordination.{Cluster, Ledger}
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

  test "arguments that are wrong are refused" do
    assert Ledger.transaction(:no, 100) == {:error, {:aborted, :bad_function}}
    assert Ledger.transaction(fn _ -> :ok end, 100) == {:error, {:aborted, :bad_function}}

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

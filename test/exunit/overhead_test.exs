defmodule Lineage.OverheadTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  setup do
    :ok = Lineage.detach()
    on_exit(&Lineage.detach/0)
  end

  defp attach(options \\ []) do
    {:ok, info} = Lineage.attach([overhead: :continuous] ++ options)
    info
  end

  defp count(supervisor, part \\ :latency) do
    case Enum.find(Lineage.overhead().starts, &(&1.supervisor == supervisor)) do
      nil -> 0
      row -> row[part].count
    end
  end

  test "starts by every supervisor of Elixir are counted once each" do
    attach()
    static = start_supervised!(static())
    dynamic = start_supervised!({DynamicSupervisor, strategy: :one_for_one}, id: :dynamic)
    tasks = start_supervised!({Task.Supervisor, []}, id: :tasks)

    for n <- 1..10 do
      {:ok, _} =
        Supervisor.start_child(static, %{id: n, start: {Agent, :start_link, [fn -> n end]}})

      {:ok, _} = DynamicSupervisor.start_child(dynamic, {Agent, fn -> n end})
      assert n == tasks |> Task.Supervisor.async(fn -> n end) |> Task.await()
      assert n == tasks |> Task.Supervisor.async_nolink(fn -> n end) |> Task.await()
      {:ok, _} = Task.Supervisor.start_child(tasks, fn -> n end)
      {:ok, _} = Task.Supervisor.start_child(tasks, fn -> n end, restart: :temporary)
      {:ok, _} = Task.Supervisor.start_child(tasks, Function, :identity, [n])
    end

    assert [10, 10, 50] == Enum.map([static, dynamic, tasks], &count/1)
    # A task has no init of its own.
    assert 50 == count(tasks, :overhead)
    assert %Lineage.Overhead{mode: :continuous, failed: 0, lost: 0} = Lineage.overhead()
  end

  defp static do
    start = {Supervisor, :start_link, [[], [strategy: :one_for_one]]}
    %{id: :static, type: :supervisor, start: start}
  end

  test "a PartitionSupervisor's starts are those of its partitions" do
    attach()

    start_supervised!(
      {PartitionSupervisor, child_spec: DynamicSupervisor, name: __MODULE__.Parts, partitions: 2}
    )

    for n <- 1..10 do
      via = {:via, PartitionSupervisor, {__MODULE__.Parts, n}}
      {:ok, _} = DynamicSupervisor.start_child(via, {Agent, fn -> n end})
    end

    parts = for {_, pid, _, _} <- PartitionSupervisor.which_children(__MODULE__.Parts), do: pid
    assert 10 == parts |> Enum.map(&count/1) |> Enum.sum()
  end

  test "restarts by a DynamicSupervisor, and stops" do
    attach(exits: :all)
    # Its reports of the deaths are no news.
    %{level: level} = :logger.get_primary_config()
    :ok = :logger.set_primary_config(:level, :none)
    on_exit(fn -> :logger.set_primary_config(:level, level) end)
    dynamic = start_supervised!({DynamicSupervisor, strategy: :one_for_one, max_restarts: 100})

    first =
      for n <- 1..5 do
        {:ok, pid} = DynamicSupervisor.start_child(dynamic, {Agent, fn -> n end})
        Process.exit(pid, :kill)
        pid
      end

    children = successors(dynamic, first)
    assert %{birth: %{count: 5}, ack: %{count: 5}} = row(Lineage.overhead().restarts, dynamic)
    for pid <- children, do: :ok = DynamicSupervisor.terminate_child(dynamic, pid)
    assert %{latency: %{count: 5}, overhead: %{count: 5}} = row(Lineage.overhead().stops, dynamic)
  end

  # When it has heard of all deaths.
  defp successors(dynamic, first) do
    children = for {_, pid, _, _} <- DynamicSupervisor.which_children(dynamic), do: pid
    if children -- first == children, do: children, else: successors(dynamic, first)
  end

  defp row(rows, supervisor), do: Enum.find(rows, &(&1.supervisor == supervisor))

  def place(supervisor), do: DynamicSupervisor.start_child(supervisor, {Agent, fn -> :ok end})

  test "a critical function, shown in iex and printed" do
    attach(critical: [{__MODULE__, :place, 1}])
    dynamic = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
    for _ <- 1..3, do: {:ok, _} = __MODULE__.place(dynamic)
    overhead = Lineage.overhead()

    assert [%{function: {__MODULE__, :place, 1}, latency: %{count: 3}, share: share}] =
             overhead.critical

    assert share > 0 and share <= 1

    for text <- [inspect(overhead, width: 120), capture_io(fn -> Lineage.print(overhead) end)] do
      assert text =~ "Overhead of supervision\n"
      assert text =~ "measured all the time: 1 window, "
      assert text =~ "Starts: from call to return"
      assert text =~ "99.9 %"
      assert text =~ "place/1 "
    end

    assert inspect(overhead) =~ "#Lineage.Overhead<"
  end

  test "without overhead it says how to attach" do
    {:ok, _} = Lineage.attach()
    error = assert_raise ErlangError, fn -> Lineage.overhead() end
    assert error.original == {:lineage, :overhead_off}
  end
end

defmodule Foundation.ProcessRegistryTest do
  use ExUnit.Case, async: true

  alias Foundation.ProcessRegistry, as: Registry
  alias Foundation.Test

  setup do
    reference = make_ref()
    %{namespace: {:test, reference}, reference: reference}
  end

  defp worker(options \\ []) do
    start_supervised!({Test.Worker, options}, id: make_ref(), restart: :temporary)
  end

  test "a name is found, with its metadata, until it is freed", %{namespace: namespace} do
    pid = worker()
    assert Registry.register(namespace, :cache, pid, %{size: 1}) == :ok
    assert Registry.lookup(namespace, :cache) == {:ok, pid}
    assert Registry.registered?(namespace, :cache)
    assert Registry.get_metadata(namespace, :cache) == {:ok, %{size: 1}}
    assert Registry.update_metadata(namespace, :cache, %{size: 2}) == :ok
    assert Registry.get_metadata(namespace, :cache) == {:ok, %{size: 2}}

    assert Registry.unregister(namespace, :cache) == :ok
    assert Registry.lookup(namespace, :cache) == {:error, :not_found}
    refute Registry.registered?(namespace, :cache)
    assert Process.alive?(pid)
  end

  test "a name has one process, a process may have several names", %{namespace: namespace} do
    [first, second] = [worker(), worker()]
    assert Registry.register(namespace, :a, first) == :ok
    assert Registry.register(namespace, :b, first) == :ok
    assert Registry.register(namespace, :a, second) == {:error, :already_registered}
    assert Registry.register(namespace, :a, first) == {:error, :already_registered}
    assert {:ok, services} = Registry.list_services(namespace)
    assert Enum.sort(services) == [:a, :b]

    assert Registry.unregister(namespace, :a) == :ok
    Test.Signals.listen([:foundation, :registry, :dropped])
    Test.Signals.kill(first)
    assert_receive {:telemetry, [:foundation, :registry, :dropped], _, %{pid: ^first}}, 5_000
    assert Registry.count_services(namespace) == {:ok, 0}
  end

  test "a dead process has no name, at once, and the name can be taken", %{namespace: namespace} do
    pid = worker()
    :ok = Registry.register(namespace, :cache, pid)
    Test.Signals.kill(pid)
    assert Registry.lookup(namespace, :cache) == {:error, :not_found}
    assert Registry.get_metadata(namespace, :cache) == {:error, :not_found}
    assert Registry.list_services(namespace) == {:ok, []}
    assert Registry.register(namespace, :other, pid) == {:error, :not_alive}
    next = worker()
    assert Registry.register(namespace, :cache, next) == :ok
    assert Registry.lookup(namespace, :cache) == {:ok, next}
  end

  test "namespaces do not see each other, whatever their reference is" do
    tests = [{:test, :_}, {:test, make_ref()}, {:test, {:a, "b", 1}}, {:test, 1}, {:test, 1.0}]

    on_exit(fn ->
      for {:test, reference} <- tests, do: Registry.cleanup_test_namespace(reference)
    end)

    for namespace <- tests, do: :ok = Registry.register(namespace, :service, worker())
    for namespace <- tests, do: assert(Registry.list_services(namespace) == {:ok, [:service]})
    assert {:error, :not_found} = Registry.lookup(:production, :service)
    assert {:ok, 1} = Registry.cleanup_test_namespace(:_)
    assert Registry.count_services({:test, 1}) == {:ok, 1}
  end

  test "services are found by their metadata", %{namespace: namespace} do
    [small, large] = [worker(), worker()]
    :ok = Registry.register(namespace, :small, small, %{size: 1})
    :ok = Registry.register(namespace, :large, large, %{size: 9})

    assert Registry.find_services_by_metadata(namespace, &(&1.size > 5)) ==
             {:ok, [{:large, large, %{size: 9}}]}
  end

  test "a name that only the server has heard of is counted", %{namespace: namespace} do
    {:ok, before} = Registry.stats()
    :ok = Registry.register(namespace, :service, worker())
    assert {:ok, %{test: test}} = Registry.stats()
    assert test >= 1 and before.test >= 0
  end

  test "as :via module it names servers", %{namespace: namespace} do
    name = Registry.via_tuple(namespace, :server)
    pid = worker(name: name)
    assert GenServer.whereis(name) == pid
    assert {:error, {:already_started, ^pid}} = Test.Worker.start_link(name: name)
    assert Registry.send({namespace, :server}, {:EXIT, self(), :hello}) == pid

    assert catch_exit(Registry.send({namespace, :nobody}, :hello)) ==
             {:badarg, {{namespace, :nobody}, :hello}}

    # By apply: newer compilers see by themselves that this fails.
    bad = [:nowhere, :server]
    assert_raise FunctionClauseError, fn -> apply(Registry, :via_tuple, bad) end
    assert Registry.unregister_name({namespace, :server}) == :ok
    assert Registry.whereis_name({namespace, :server}) == :undefined
  end

  test "clean-up ends all processes of a namespace, and returns when they are gone", context do
    pids = for n <- 1..5, do: worker(name: Registry.via_tuple(context.namespace, n))
    stubborn = worker(trap: true, name: Registry.via_tuple(context.namespace, :stubborn))
    :ok = Registry.register(context.namespace, :second_name, stubborn)
    :ok = Registry.register(context.namespace, :test, self())

    assert Registry.cleanup_test_namespace(context.reference) == {:ok, 6}
    refute Enum.any?([stubborn | pids], &Process.alive?/1)
    assert Registry.count_services(context.namespace) == {:ok, 0}
    assert Registry.cleanup_test_namespace(context.reference) == {:ok, 0}
  end

  test "clean-up does not end a caller that is linked to what it ends", context do
    {:ok, _linked} = Test.Worker.start_link(name: Registry.via_tuple(context.namespace, :linked))
    assert Registry.cleanup_test_namespace(context.reference) == {:ok, 1}
  end

  test "bad input is refused", %{namespace: namespace} do
    dead = worker()
    Test.Signals.kill(dead)

    for bad <- [:nowhere, nil, "production", {:test}, {:test, 1, 2}, {:other, 1}] do
      assert Registry.register(bad, :service, self()) == {:error, :bad_namespace}
      assert Registry.lookup(bad, :service) == {:error, :bad_namespace}
      assert Registry.unregister(bad, :service) == {:error, :bad_namespace}
      assert Registry.get_metadata(bad, :service) == {:error, :bad_namespace}
      assert Registry.update_metadata(bad, :service, %{}) == {:error, :bad_namespace}
      assert Registry.list_services(bad) == {:error, :bad_namespace}
      assert Registry.count_services(bad) == {:error, :bad_namespace}
      assert Registry.find_services_by_metadata(bad, &is_map/1) == {:error, :bad_namespace}
      refute Registry.registered?(bad, :service)
    end

    assert Registry.register(namespace, :service, dead) == {:error, :not_alive}
    assert Registry.register(namespace, :service, :pid) == {:error, :bad_pid}
    assert Registry.register(namespace, :service, self(), []) == {:error, :bad_metadata}
    assert Registry.update_metadata(namespace, :service, %{}) == {:error, :not_found}
    assert Registry.update_metadata(namespace, :service, nil) == {:error, :bad_metadata}
    assert Registry.unregister(namespace, :service) == {:error, :not_found}
    assert Registry.find_services_by_metadata(namespace, :fun) == {:error, :bad_predicate}
  end
end

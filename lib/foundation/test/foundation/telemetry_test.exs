defmodule Foundation.TelemetryTest do
  use ExUnit.Case, async: true

  alias Foundation.{Telemetry, Test}

  def fail(_event, _measurements, _metadata, reason), do: exit(reason)

  test "counters count, gauges show the last value, timers add up" do
    for _ <- 1..3, do: assert(Telemetry.emit_counter([:telemetry_test, :sum, :count]) == :ok)

    for value <- [5, 1.5],
        do: assert(Telemetry.emit_gauge([:telemetry_test, :sum, :gauge], value) == :ok)

    assert Telemetry.time_function([:telemetry_test, :sum, :timer], fn -> :result end) == :result

    assert {:ok, [count, gauge, timer]} = Telemetry.get_metrics_for([:telemetry_test, :sum])
    assert count == %{event: [:telemetry_test, :sum, :count], type: :counter, count: 3}
    assert gauge == %{event: [:telemetry_test, :sum, :gauge], type: :gauge, value: 1.5}
    assert %{event: [:telemetry_test, :sum, :timer], type: :timer, count: 1} = timer
    assert timer.total_us >= 0
    assert Telemetry.get_metrics_for([:telemetry_test, :nothing]) == {:ok, []}
    assert {:ok, [_ | _]} = Telemetry.get_metrics_for([])
  end

  test "counts of many processes at once are all there" do
    event = [:telemetry_test, :many]
    emit = fn _ -> for _ <- 1..1_000, do: Telemetry.emit_counter(event) end

    start_supervised!(Task.Supervisor)
    |> Task.Supervisor.async_stream(1..8, emit, max_concurrency: 8)
    |> Stream.run()

    assert Telemetry.get_metrics_for(event) ==
             {:ok, [%{event: event, type: :counter, count: 8_000}]}
  end

  test "a function that is timed fails as it does untimed" do
    Test.Signals.listen([:telemetry_test, :failing])

    for {kind, fail} <- [throw: &throw/1, exit: &exit/1, error: &:erlang.error/1] do
      assert {^kind, :reason} =
               (try do
                  Telemetry.time_function([:telemetry_test, :failing], fn -> fail.(:reason) end)
                catch
                  kind, reason -> {kind, reason}
                end)

      assert_received {:telemetry, _, %{duration: _}, %{result: :error}}
    end
  end

  test "handlers get what is emitted, until they are detached" do
    event = [:telemetry_test, :handled]
    Test.Signals.listen(event)
    Telemetry.execute(event, %{a: 1}, %{b: 2})
    assert_received {:telemetry, ^event, %{a: 1}, %{b: 2}}
    Telemetry.emit_counter(event, %{c: 3})
    assert_received {:telemetry, ^event, %{count: 1}, %{c: 3}}
    Telemetry.emit_gauge(event, 7)
    assert_received {:telemetry, ^event, %{value: 7}, _}
    Telemetry.execute(event ++ [:longer], %{}, %{})
    refute_received {:telemetry, _, _, _}
  end

  test "an id is attached once, at one event" do
    id = make_ref()
    attach = &Telemetry.attach(id, &1, fn _, _, _, test -> send(test, :called) end, self())
    assert attach.([:telemetry_test, :once]) == :ok
    assert attach.([:telemetry_test, :twice]) == {:error, :already_attached}
    assert Telemetry.detach(id) == :ok
    assert Telemetry.detach(id) == {:error, :not_found}
    Telemetry.execute([:telemetry_test, :once], %{}, %{})
    refute_received :called
  end

  test "a handler that fails is detached and counted, and its emitter goes on" do
    Test.Signals.listen([:foundation, :telemetry, :handler_failed])
    id = make_ref()
    :ok = Telemetry.attach(id, [:telemetry_test, :fails], &__MODULE__.fail/4, :reason)
    assert Telemetry.execute([:telemetry_test, :fails], %{}, %{}) == :ok
    assert_receive {:telemetry, _, _, %{id: ^id}}, 5_000
    assert Telemetry.detach(id) == {:error, :not_found}
  end

  test "bad input is refused, and raises nowhere" do
    for bad <- [:event, "event", [], [1], [:a | :b], nil, [:a, "b"]] do
      assert Telemetry.execute(bad, %{}, %{}) == {:error, :bad_event}
      assert Telemetry.emit_counter(bad) == {:error, :bad_event}
      assert Telemetry.emit_gauge(bad, 1) == {:error, :bad_event}
      assert Telemetry.time_function(bad, fn -> 1 end) == {:error, :bad_event}
      assert Telemetry.attach(make_ref(), bad, &__MODULE__.fail/4, nil) == {:error, :bad_event}
    end

    event = [:telemetry_test, :bad]
    assert Telemetry.execute(event, [], %{}) == {:error, :bad_measurements}
    assert Telemetry.execute(event, %{}, []) == {:error, :bad_metadata}
    assert Telemetry.emit_counter(event, :metadata) == {:error, :bad_metadata}
    assert Telemetry.emit_gauge(event, "7") == {:error, :bad_value}
    assert Telemetry.time_function(event, fn _ -> 1 end) == {:error, :bad_function}
    assert Telemetry.attach(make_ref(), event, &length/1, nil) == {:error, :bad_function}
    assert Telemetry.get_metrics_for(:event) == {:error, :bad_event}
    assert Telemetry.get_metrics_for(event) == {:ok, []}
  end
end

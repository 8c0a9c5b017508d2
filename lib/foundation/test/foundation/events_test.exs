defmodule Foundation.EventsTest do
  use ExUnit.Case, async: true

  alias Foundation.{Event, Events, Test}

  # Each test finds its own events by their correlation.
  setup do
    %{chain: make_ref()}
  end

  defp store(type, data, options) do
    {:ok, event} = Events.new_event(type, data, options)
    {:ok, id} = Events.store(event)
    assert id == event.id
    event
  end

  test "an event says what, when and by whom" do
    assert {:ok, %Event{} = event} = Events.new_event(:placed, %{order: 1})
    assert %{type: :placed, data: %{order: 1}, parent_id: nil, source: source} = event
    assert source == self()
    assert event.correlation_id == event.id
    assert_in_delta event.timestamp, System.system_time(:millisecond), 60_000
    {:ok, later} = Events.new_event(:placed, nil)
    assert later.id > event.id
  end

  test "a chain has its events in the order in which they were made", %{chain: chain} do
    first = store(:placed, 1, correlation_id: chain)
    second = store(:paid, 2, correlation_id: chain, parent_id: first.id)
    _other = store(:paid, 3, correlation_id: make_ref())
    assert Events.get_correlation_chain(chain) == {:ok, [first, second]}
  end

  test "events are found by each filter, and by several", %{chain: chain} do
    [first, second, third] =
      for {type, n} <- [placed: 1, paid: 2, paid: 3], do: store(type, n, correlation_id: chain)

    child = store(:sent, 4, correlation_id: chain, parent_id: third.id)
    query = fn filters -> Events.query([{:correlation_id, chain} | filters]) end

    assert query.(type: :paid) == {:ok, [second, third]}
    assert query.(type: :paid, limit: 1) == {:ok, [third]}
    assert query.(limit: 0) == {:ok, []}
    assert query.(limit: 3, limit: 1) == {:ok, [child]}
    assert query.(parent_id: third.id) == {:ok, [child]}
    assert query.(until: first.timestamp - 1) == {:ok, []}
    assert query.(since: first.timestamp) == {:ok, [first, second, third, child]}
    assert Events.query(%{correlation_id: chain, type: :placed}) == {:ok, [first]}
  end

  test "reporting stores as well, and says so by telemetry", %{chain: chain} do
    Test.Signals.listen([:foundation, :events, :stored])
    assert Events.report(:placed, 1, correlation_id: chain) == :ok

    assert_receive {:telemetry, _, %{count: 1}, %{event: %{correlation_id: ^chain} = event}},
                   5_000

    assert Events.get_correlation_chain(chain) == {:ok, [event]}
    {:ok, recent} = Events.get_recent(10_000)
    assert event in recent
  end

  test "bad input is refused, and a report of it is counted" do
    Test.Signals.listen([:foundation, :events, :dropped])
    {:ok, event} = Events.new_event(:placed, 1)

    assert Events.new_event("placed", 1) == {:error, :bad_type}
    assert Events.new_event(:placed, 1, colour: :red) == {:error, {:bad_option, {:colour, :red}}}

    assert Events.new_event(:placed, 1, parent_id: :me) ==
             {:error, {:bad_option, {:parent_id, :me}}}

    assert Events.new_event(:placed, 1, [:x | :y]) == {:error, {:bad_option, :x}}
    assert Events.new_event(:placed, 1, :options) == {:error, {:bad_option, :options}}
    assert Events.store(:event) == {:error, :bad_event}
    assert Events.store(%{event | id: nil}) == {:error, :bad_event}
    assert Events.query(colour: :red) == {:error, {:bad_filter, {:colour, :red}}}
    assert Events.query(limit: -1) == {:error, {:bad_filter, {:limit, -1}}}
    assert Events.query(:all) == {:error, {:bad_filter, :all}}
    assert Events.query([{:limit, 1} | :x]) == {:error, {:bad_filter, :x}}
    assert Events.get_recent(:all) == {:error, {:bad_filter, {:limit, :all}}}
    assert Events.report("placed", 1) == :ok
    assert_receive {:telemetry, [:foundation, :events, :dropped], _, _}, 5_000
  end
end

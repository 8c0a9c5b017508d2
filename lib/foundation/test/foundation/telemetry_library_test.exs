defmodule Foundation.TelemetryLibraryTest do
  use ExUnit.Case

  alias Foundation.Telemetry

  # The library is not there; what it would do with an event is to call its handlers.
  @library (quote do
              def execute(event, measurements, metadata) do
                send(Foundation.TelemetryLibraryTest, {event, measurements, metadata})
                raise ArgumentError, "no such table: the library has not started"
              end
            end)

  test "events are handed on to the telemetry library where it is loaded" do
    event = [:telemetry_library_test]
    assert Telemetry.execute(event, %{a: 1}, %{b: 2}) == :ok
    refute_received _message

    Process.register(self(), __MODULE__)
    {:module, :telemetry, _binary, _term} = Module.create(:telemetry, @library, __ENV__)

    on_exit(fn ->
      :code.delete(:telemetry)
      :code.purge(:telemetry)
    end)

    assert Telemetry.execute(event, %{a: 1}, %{b: 2}) == :ok
    assert_received {^event, %{a: 1}, %{b: 2}}
  end
end

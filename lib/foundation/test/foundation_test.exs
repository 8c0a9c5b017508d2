defmodule FoundationTest do
  use ExUnit.Case

  test "the status says what runs, and which phases are on" do
    assert Foundation.available?()
    assert {:ok, status} = Foundation.status()
    assert status.version == Foundation.version()
    assert Enum.all?(status.services, fn {_name, state} -> state == :running end)
    assert map_size(status.services) == length(Foundation.Application.services())
    assert status.phases == %{phase_1: true, phase_2: true, phase_3: true, phase_4: true}
    assert %{production: _, test: _, processes: _} = status.names
  end

  test "a service that is missing is told" do
    Foundation.Test.Signals.without_service(Foundation.EventStore, fn ->
      refute Foundation.available?()
      assert {:ok, %{services: %{Foundation.EventStore => :down}}} = Foundation.status()
    end)

    assert Foundation.available?()
  end
end

defmodule MABEAM.AuditedTest do
  # Each test starts work of the kind that was audited, and ends while it is under way. Its test goes with what it
  # has started: nothing of it is left. With FOUNDATION_SUPERVISION=off each but the last fails, and
  # its report names the lines of `lib/mabeam/legacy/` that spawned what is left.
  use ExUnit.Case, async: true

  alias MABEAM.{Comms, Coordination}
  alias MABEAM.Test.{Puppet, Servant}

  test "an agent that is registered, and not started" do
    id = Servant.register!()
    assert MABEAM.Agent.status(id) == {:ok, :registered}
  end

  test "an asynchronous request that is not answered" do
    {id, pid} = Servant.start!()
    {:ok, _reference} = Comms.send_async_request(id, {:hold, 1}, timeout: 60_000)
    assert_receive {:holding, ^pid, 1}, 5_000
  end

  test "a coordination that comes to no end" do
    {:ok, _id} = Coordination.coordinate_async(Puppet.registered!(), [:nobody], %{test: self()})
    assert_receive {:running, _worker, _context}, 5_000
  end

  test "what starts nothing" do
    assert {:error, _reason} = Comms.request(Servant.unknown(), :anything)
  end
end

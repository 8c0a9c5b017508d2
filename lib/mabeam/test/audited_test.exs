defmodule MABEAM.AuditedTest do
  # Each test starts work of the kind that was audited, and ends while it is under way: nothing of it is left. With
  # FOUNDATION_SUPERVISION=off the first two fail, and their reports name the line of
  # `lib/mabeam/legacy/` that spawned what is left; what the third has is a shared server's, of which the
  # suite as a whole is told.
  use ExUnit.Case, async: true

  alias MABEAM.{Comms, Coordination}
  alias MABEAM.Test.{Puppet, Servant}

  defmodule Endless do
    @behaviour MABEAM.Coordination.Protocol

    @impl true
    defdelegate run(agents, params, context), to: MABEAM.Test.Puppet
  end

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
    {:ok, id} =
      Coordination.coordinate_async(Puppet.registered!(Endless), [:nobody], %{test: self()})

    assert_receive {:running, _worker, _context}, 5_000
    # Other tests count sessions. As it was audited it has nobody to end it.
    if Foundation.Supervision.enabled?(:phase_1),
      do: on_exit(fn -> Coordination.cancel_session(id) end)
  end

  test "what starts nothing" do
    assert {:error, _reason} = Comms.request(Servant.unknown(), :anything)
  end
end

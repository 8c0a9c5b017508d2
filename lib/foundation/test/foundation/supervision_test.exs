defmodule Foundation.SupervisionTest do
  use ExUnit.Case

  alias Foundation.{Supervision, Test}

  test "all phases are on unless told otherwise, and switched one by one" do
    assert Supervision.flags() == [phase_1: true, phase_2: true, phase_3: true, phase_4: true]

    for phase <- Supervision.phases() do
      Test.Signals.switch(phase, false)
      assert for({other, false} <- Supervision.flags(), do: other) == [phase]
      Test.Signals.switch(phase, true)
    end
  end

  test "bad input is refused" do
    assert Supervision.switch(:phase_5, true) == {:error, :bad_phase}
    assert Supervision.switch("phase_1", true) == {:error, :bad_phase}
    assert Supervision.switch(:phase_1, :on) == {:error, :bad_flag}
  end

  test "an exchange is done when the switch returns, and is not made without need" do
    Test.Switch.install()
    switch = switch_in_task(:phase_3, false)
    assert_receive {:switch, server, :phase_3, false}, 5_000
    refute Supervision.enabled?(:phase_3)
    send(server, :go)
    assert Task.await(switch) == :ok

    assert Supervision.switch(:phase_3, false) == :ok
    refute_received {:switch, _server, _phase, _enabled?}
  end

  test "an exchange that was cut short by a kill is made once more" do
    Test.Switch.install()
    switch = switch_in_task(:phase_3, false)
    assert_receive {:switch, server, :phase_3, false}, 5_000
    Test.Signals.kill(server)
    assert Task.await(switch) == {:error, :unavailable}

    assert_receive {:switch, next, :phase_3, false}, 5_000
    assert next != server
    # A second kill ends the trying: what crashes again and again must not take all down with it.
    Test.Signals.kill_service(Supervision)
    assert Supervision.switch(:phase_3, false) == :ok
    refute_received {:switch, _server, _phase, _enabled?}
  end

  defp switch_in_task(phase, enabled?) do
    on_exit(fn ->
      Application.delete_env(:ex_unit, :supervision_switch)
      Supervision.switch(phase, not enabled?)
    end)

    start_supervised!(Task.Supervisor)
    |> Task.Supervisor.async_nolink(Supervision, :switch, [phase, enabled?])
  end
end

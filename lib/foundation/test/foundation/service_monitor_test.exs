defmodule Foundation.ServiceMonitorTest do
  use ExUnit.Case

  alias Foundation.{ConfigServer, ServiceMonitor, Test}

  test "a death and the return are noticed, reported and counted" do
    Test.Signals.listen([:foundation, :events, :stored])
    {:ok, %{ConfigServer => before}} = ServiceMonitor.restarts()
    Test.Signals.kill_service(ConfigServer)

    assert {:ok, %{ConfigServer => restarts}} = ServiceMonitor.restarts()
    assert restarts == before + 1

    down = %{service: ConfigServer, reason: :killed}
    assert_receive {:telemetry, _, _, %{event: %{type: :service_down, data: ^down}}}, 5_000
    back = %{service: ConfigServer, restarts: restarts}
    assert_receive {:telemetry, _, _, %{event: %{type: :service_restarted, data: ^back}}}, 5_000
  end

  test "what was restarted while the monitor was away is noticed, and counts go on" do
    Test.Signals.listen([:foundation, :service, :restarted])
    {:ok, %{ConfigServer => before}} = ServiceMonitor.restarts()
    :ok = Supervisor.terminate_child(Foundation.Monitoring, ServiceMonitor)
    :ok = Supervisor.terminate_child(Foundation.Supervisor, ConfigServer)
    {:ok, _pid} = Supervisor.restart_child(Foundation.Supervisor, ConfigServer)
    {:ok, _pid} = Supervisor.restart_child(Foundation.Monitoring, ServiceMonitor)
    assert_receive {:telemetry, _, _, %{service: ConfigServer}}, 5_000
    assert {:ok, %{ConfigServer => restarts}} = ServiceMonitor.restarts()
    assert restarts == before + 1
  end

  test "a service whose needs are not there is reported" do
    Application.put_env(:foundation, :service_interval, 10)
    on_exit(fn -> Application.delete_env(:foundation, :service_interval) end)
    Test.Signals.listen([:foundation, :service, :dependencies])
    # Restarted, the monitor takes up the short interval.
    Test.Signals.kill(Process.whereis(ServiceMonitor))
    assert_receive {:telemetry, _, %{missing: 0}, _}, 5_000

    Test.Signals.without_service(Foundation.BEAM.Watcher, fn ->
      missing = %{service: Foundation.BEAM.EcosystemSupervisor, needs: Foundation.BEAM.Watcher}
      assert_receive {:telemetry, _, %{missing: 1}, %{missing: [^missing]}}, 5_000
    end)
  end
end

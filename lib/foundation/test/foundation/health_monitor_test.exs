defmodule Foundation.HealthMonitorTest do
  use ExUnit.Case

  alias Foundation.{HealthMonitor, Test}

  setup do
    interval = Application.get_env(:foundation, :health_interval)
    Application.put_env(:foundation, :health_interval, 10)

    on_exit(fn ->
      if interval do
        Application.put_env(:foundation, :health_interval, interval)
      else
        Application.delete_env(:foundation, :health_interval)
      end
    end)
  end

  test "all services are well, and the last check says so" do
    assert {:ok, %{status: :healthy} = health} = HealthMonitor.check()
    names = Enum.map(Foundation.Application.services(), & &1.name)
    assert Enum.sort(Map.keys(health.services)) == Enum.sort(names)
    assert Enum.all?(health.services, fn {_name, answer} -> answer == :ok end)
    assert {:ok, %{status: :healthy, checked_at: checked_at}} = Foundation.health()
    assert checked_at >= health.checked_at
  end

  test "checks are made time and again" do
    Test.Signals.listen([:foundation, :health, :check])
    # Restarted, the monitor takes up the short interval.
    Test.Signals.kill(Process.whereis(HealthMonitor))

    for _ <- 1..3 do
      assert_receive {:telemetry, _, %{duration: duration, failing: 0}, %{status: :healthy}},
                     5_000

      assert duration > 0
    end
  end

  test "a service that does not answer is found out, reported and counted" do
    Test.Signals.listen([:foundation, :events, :stored])
    Test.Signals.listen([:foundation, :health, :failure])
    service = Foundation.ConfigServer
    :sys.suspend(service)
    on_exit(fn -> :sys.resume(service) end)

    assert {:ok, %{status: :degraded, services: %{^service => :timeout}}} = HealthMonitor.check()
    assert_receive {:telemetry, _, %{count: 1}, %{service: ^service, answer: :timeout}}, 5_000
    data = %{service: service, answer: :timeout}

    assert_receive {:telemetry, _, _, %{event: %{type: :service_unresponsive, data: ^data}}},
                   5_000

    :sys.resume(service)
    assert {:ok, %{status: :healthy}} = HealthMonitor.check()
  end

  test "a service that is not there is found out" do
    Test.Signals.without_service(Foundation.ConfigServer, fn ->
      assert {:ok, %{status: :degraded, services: services}} = HealthMonitor.check()
      assert [{Foundation.ConfigServer, :down}] = Enum.reject(services, &(elem(&1, 1) == :ok))
    end)

    assert {:ok, %{status: :healthy}} = HealthMonitor.check()
  end

  test "there is no health where there is no monitor" do
    Test.Signals.switch(:phase_1, false)
    assert Foundation.health() == {:error, :unavailable}
    assert HealthMonitor.check() == {:error, :unavailable}
  end
end

defmodule Foundation.Test.Signals do
  @moduledoc """
  What tests wait for, instead of sleeping and looking: telemetry, and deaths.
  """
  import ExUnit.Assertions

  alias Foundation.{Supervision, Telemetry}

  @doc """
  Sends the test `{:telemetry, event, measurements, metadata}` for each such event, until it ends.
  """
  @spec listen(Telemetry.event()) :: :ok
  def listen(event) do
    id = {__MODULE__, self(), event}
    :ok = Telemetry.attach(id, event, &__MODULE__.hear/4, self())
    ExUnit.Callbacks.on_exit(fn -> Telemetry.detach(id) end)
  end

  @doc false
  def hear(event, measurements, metadata, test),
    do: send(test, {:telemetry, event, measurements, metadata})

  @doc "Kills a process, and returns when it is dead."
  @spec kill(pid) :: :ok
  def kill(pid) do
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}, 5_000
    :ok
  end

  @doc """
  Kills a service of Foundation's tree, and returns its new pid when its return was noticed and, of
  a supervisor, its children are gone.
  """
  @spec kill_service(atom) :: pid
  def kill_service(name) do
    pid = Process.whereis(name)
    {:links, links} = Process.info(pid, :links)
    children = links -- [Process.whereis(Foundation.Supervisor)]
    monitors = for child <- children, is_pid(child), do: {child, Process.monitor(child)}
    until_restarted(name, fn -> kill(pid) end)
    for {child, ref} <- monitors, do: assert_receive({:DOWN, ^ref, :process, ^child, _}, 5_000)
    Process.whereis(name)
  end

  @doc "Takes a service away while `fun` runs, and returns when its return was noticed."
  @spec without_service(atom, (() -> term)) :: :ok
  def without_service(name, fun) do
    until_restarted(name, fn ->
      :ok = Supervisor.terminate_child(Foundation.Supervisor, name)

      try do
        fun.()
      after
        {:ok, _pid} = Supervisor.restart_child(Foundation.Supervisor, name)
      end
    end)
  end

  defp until_restarted(name, fun) do
    event = [:foundation, :service, :restarted]
    listen(event)
    fun.()
    assert_receive {:telemetry, ^event, _measurements, %{service: ^name}}, 5_000
    Telemetry.detach({__MODULE__, self(), event})
  end

  @doc "Switches a phase; it is on again when the test has ended."
  @spec switch(Foundation.Supervision.phase(), boolean) :: :ok
  def switch(phase, enabled?) do
    ExUnit.Callbacks.on_exit({:switch, phase}, fn -> Supervision.switch(phase, true) end)
    :ok = Supervision.switch(phase, enabled?)
  end
end

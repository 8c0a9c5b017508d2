defmodule Foundation.Test.Switch do
  @moduledoc """
  An application's part in the switch of a phase, which says so to a test and goes on at its word.

  The test's pid is in ExUnit's environment, key `:switch_test`.
  """
  @behaviour Foundation.Supervision

  @doc "Has this module asked at each switch, for the length of a test."
  @spec install() :: :ok
  def install do
    Application.put_env(:ex_unit, :switch_test, self())
    Application.put_env(:ex_unit, :supervision_switch, __MODULE__)
    ExUnit.Callbacks.on_exit(fn -> Application.delete_env(:ex_unit, :supervision_switch) end)
  end

  @impl true
  def switch(phase, enabled?) do
    test = Application.fetch_env!(:ex_unit, :switch_test)
    ref = Process.monitor(test)
    send(test, {:switch, self(), phase, enabled?})

    receive do
      :go -> Process.demonitor(ref, [:flush])
      {:DOWN, ^ref, :process, ^test, _reason} -> :ok
    end

    :ok
  end
end

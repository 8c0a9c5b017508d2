# Called while this file is compiled, by the process that compiles it.
:real_audit.serve(String.to_integer(System.fetch_env!("LINEAGE_TEST_PORT")))

defmodule ShopTest do
  use ExUnit.Case, async: true
  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  @port String.to_integer(System.fetch_env!("LINEAGE_TEST_PORT"))

  setup_all do
    start_supervised!({Agent, fn -> :all end})
    serve()
    :ok
  end

  setup do
    start_supervised!({Agent, fn -> :each end}, id: :each)
    on_exit(&serve/0)
    :ok
  end

  test "at work, under a deep stack, its output captured" do
    :ok = Shop.open(20)
    task = Task.async(fn -> receive do: (:go -> :ok) end)
    assert capture_log(fn -> capture_io(fn -> deep(50) end) end) == ""
    send(task.pid, :go)
    assert Task.await(task) == :ok
  end

  defp serve, do: :real_audit.serve(@port)

  # Deeper than a stack shows.
  defp deep(0), do: serve()
  defp deep(n), do: [deep(n - 1)]
end

defmodule ShopOtherTest do
  use ExUnit.Case, async: false

  test "in a module that runs alone" do
    assert Process.alive?(self())
  end
end

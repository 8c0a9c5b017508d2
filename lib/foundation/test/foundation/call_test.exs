defmodule Foundation.CallTest do
  use ExUnit.Case, async: true

  alias Foundation.{Call, Test}

  test "a server that does not exist, or dies before it answers, is unavailable" do
    assert Call.call(Foundation.CallTest.Nobody, :ping) == {:error, :unavailable}

    server = start_supervised!({Test.Worker, []}, restart: :temporary)
    :sys.suspend(server)

    task =
      Task.Supervisor.async_nolink(start_supervised!(Task.Supervisor), Call, :call, [
        server,
        :ping
      ])

    Test.Signals.kill(server)
    assert Task.await(task) == {:error, :unavailable}
  end

  test "a server that does not answer in time is a timeout" do
    server = start_supervised!({Test.Worker, []})
    :sys.suspend(server)
    assert Call.call(server, :ping, 0) == {:error, :timeout}
  end

  test "what a server exits with for other reasons still exits" do
    assert catch_exit(Call.call(self(), :ping) && exit(:mine)) == :mine
  end

  test "a deadline leaves less and less, and never less than nothing" do
    assert Call.left(Call.deadline(60_000)) in 1..60_000
    assert Call.left(Call.deadline(0)) == 0
    assert Call.left(Call.deadline(-5)) == 0
    assert Call.left(Call.deadline(:infinity)) == :infinity
  end
end

defmodule Foundation.Coordination.RequestTest do
  use ExUnit.Case, async: true

  alias Foundation.Call
  alias Foundation.Coordination.Request

  defp request(timeout), do: Request.new(fn -> :ok end, Call.deadline(timeout))

  test "one that is carried out may have taken place only when its commit has begun" do
    request = request(60_000)
    assert Request.wanted?(request, 50)
    assert Request.run(request)
    refute Request.under_way?(request)
    assert Request.ran(request)
    assert Request.under_way?(request)
    refute Request.committing?(request)
    assert Request.committing(request)
    assert Request.committing?(request)
    assert Request.withdraw(request) == :under_way
    # mnesia begins anew.
    assert Request.again(request)
    assert Request.withdraw(request) == :withdrawn
    refute Request.run(request)
    refute Request.again(request)
  end

  test "one that is withdrawn while its function runs does not take place" do
    request = request(60_000)
    assert Request.run(request)
    assert Request.withdraw(request) == :stopped
    refute Request.again(request)
    refute Request.ran(request)
    refute Request.committing(request)
    refute Request.kill?(request)
  end

  test "one whose process is to be killed gets no further, whatever its function does" do
    supervisor = start_supervised!(Task.Supervisor)

    for late <- [request(0), request(60_000)] do
      assert Request.run(late)
      if late.timeout > 0, do: assert(Request.withdraw(late) == :stopped)
      assert Request.kill?(late)
      task = Task.Supervisor.async_nolink(supervisor, fn -> Request.ran(late) end)
      assert catch_exit(Task.await(task)) == {:killed, {Task, :await, [task, 5_000]}}
      refute Request.committing(late)
    end
  end

  test "one that somebody waits for is not killed, and waits for one half of its time at least" do
    request = request(60_000)
    assert Request.run(request)
    refute Request.kill?(request)
    assert Request.wanted?(request, 1_000_000)
    refute Request.wanted?(%{request | timeout: 1_000_000}, 1_000_000)
    refute Request.wanted?(request(0), 0)
  end
end

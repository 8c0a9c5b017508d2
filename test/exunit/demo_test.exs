defmodule Lineage.DemoTest do
  @moduledoc "What `make demo` runs, with what was built for the tests."
  use ExUnit.Case, async: true

  @moduletag timeout: 120_000

  defp demo(arm) do
    paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])

    {output, 0} =
      System.cmd("elixir", paths ++ ["test/support/demo.exs", arm], stderr_to_stdout: true)

    output
  end

  test "the node as it was audited: orphans by kind and name, and what has ended at once" do
    output = demo("legacy")

    for name <-
          ~w[health_check_loop/1 Agent.stand_in/1 Processes.work/2 Comms.await_agent/5 coordination_process/2
                   LoadBalancer.stand_in/1 arm_health_check/1 propose_helper/4 propose_on_peer/3] do
      # A long name is cut in front, to its last 15 characters at least.
      assert output =~ String.slice(name, -15, 15), "#{name} is not in\n#{output}"
    end

    assert output =~ ~r/orphans? .*: 2 abandoned, \d+ detached/
  end

  test "under supervision: none" do
    output = demo("supervised")
    assert output =~ "Lineage.orphans()\n\nnone\n"
    assert output =~ ~r/MABEAM.CoordinationWorker.init\/1  supervised\n/
  end
end

defmodule Lineage.ReferenceLeaksTest do
  # The suites of the reference node, which are clean, with the node as it was audited: those of their tests fail that
  # start what was audited, and are told the lines that spawn it.
  use ExUnit.Case, async: false

  import Lineage.User

  @moduletag timeout: 600_000
  @legacy [{"FOUNDATION_SUPERVISION", "off"}]

  test "MABEAM: each test that registers an agent leaves its placeholder" do
    output = suite("lib/mabeam", ["test/audited_test.exs"], @legacy)

    assert failed(output) == [
             "an agent that is registered, and not started",
             "an asynchronous request that is not answered"
           ]

    placeholder =
      line("lib/mabeam", "lib/mabeam/legacy/agent.ex", ~r/spawn\(__MODULE__, :stand_in/)

    assert sites(output) == [placeholder, placeholder]
    assert output =~ ~r/^Lineage: 4 tests checked, 2 leaked$/m

    # What a server that all share has spawned is no test's; the suite as a whole is told.
    for pattern <- [
          ~r/spawn\(__MODULE__, :coordination_process/,
          ~r/Task.async\(__MODULE__, :run_protocol/
        ] do
      [_, number] =
        "lib/mabeam" |> line("lib/mabeam/legacy/coordination.ex", pattern) |> String.split(":")

      assert output =~ ~r/_(process|protocol)\/2 .*ion\.ex:#{number} /
    end

    assert output =~ "the tests have left 6 processes behind that nobody would stop"
  end

  test "MABEAM: under supervision the same tests are clean" do
    output = suite("lib/mabeam", ["test/audited_test.exs"], [])
    assert failed(output) == []
    assert output =~ ~r/^Lineage: 4 tests checked, none leaked$/m
  end

  test "Foundation: work that a failing test leaves under way" do
    output = suite("lib/foundation", ["test/foundation/beam/processes_test.exs"], @legacy)
    assert output =~ ~r/^Lineage: 11 tests checked, 1 leaked$/m

    # Task.start is the last call there, and leaves no frame: it is the only one that it can have been.
    place = line("lib/foundation", "lib/foundation/legacy/processes.ex", ~r/Task.start\(/)

    assert output =~
             ~r/^direct .* Foundation\.Legacy\.Processes\.work\/2, .* tail call, perhaps #{place} by /m
  end

  # Of this run's own build, so that two of them may run at once.
  defp suite(project, arguments, env) do
    build = Path.join(root(), "_build/reference-leaks/#{Path.basename(project)}")
    env = [{"MIX_BUILD_PATH", build}, {"MIX_ENV", "test"} | env]
    path = Path.join(root(), project)

    # Lines of a beam file that is as young as the session are not trusted: it is compiled before.
    {_, 0} = run(path, "mix", ["compile"], env)
    {output, _status} = run(path, "mix", ["test" | arguments], env)
    output
  end

  defp failed(output) do
    for([_, name] <- Regex.scan(~r/^ +\d+\) test (.*) \(\S+\)$/m, output), do: name)
    |> Enum.sort()
  end

  defp sites(output) do
    for [_, place] <-
          Regex.scan(~r/^ +(?:direct|indirect|silent) .*spawned at (\S+) by /m, output),
        do: place
  end

  defp line(project, file, pattern) do
    lines =
      root() |> Path.join(project) |> Path.join(file) |> File.stream!() |> Enum.with_index(1)

    [number] = for {text, number} <- lines, text =~ pattern, do: number
    "#{file}:#{number}"
  end
end

defmodule Lineage.IExTest do
  # A real iex, with its input from a pipe or in a terminal.
  use ExUnit.Case, async: false

  import Lineage.User

  @moduletag timeout: 300_000

  test "a plain iex has no orphan, and what a person spawns there is told apart" do
    output =
      iex([
        "{:ok, _} = Lineage.attach(); nil",
        ~S|IO.puts("at first: #{inspect(Lineage.orphans())}")|,
        "{:ok, loose} = Task.start(fn -> Process.sleep(:infinity) end); nil",
        "task = Task.async(fn -> Process.sleep(:infinity) end); nil",
        "found = Enum.map(Lineage.orphans(), &{&1.pid, &1.kind, &1.parent}); nil",
        ~S|IO.puts("then: #{found == [{loose, :detached, self()}]}")|,
        ~S|IO.puts("task lives: #{Process.alive?(task.pid)}")|,
        ~S|IO.puts("detach: #{Lineage.detach()}")|
      ])

    assert output =~ "at first: []"
    assert output =~ "then: true"
    assert output =~ "task lives: true"
    assert output =~ "detach: ok"
  end

  test "h Lineage.attach names each option and what comes back" do
    output = iex(["h Lineage.attach"])
    assert output =~ "def attach(options \\\\ [])"

    for option <-
          ~w(exits monitors sites wrappers max_bytes for max_spawn_rate runtime hosts services supervisors) do
      assert output =~ ":#{option}", "no :#{option} in:\n#{output}"
    end

    assert output =~ "{:ok, info}"
    assert output =~ "{:error, {tag, sentence}}"
  end

  test "print is in colour and fits in a terminal, and is plain text in a pipe" do
    lines = [
      "{:ok, _} = Lineage.attach(); nil",
      "{:ok, loose} = Task.start(fn -> Process.sleep(:infinity) end); nil",
      ~S|IO.puts("begin\nreport")|,
      "Lineage.print(Lineage.orphans())",
      "Lineage.print(Lineage.tree())",
      "Lineage.print(Lineage.why(loose))",
      ~S|IO.puts("end\nreport")|
    ]

    piped = iex(lines)
    refute piped =~ "\e["
    assert report(piped) =~ "detached"

    shown = iex(lines, tty: true)
    assert report(shown) =~ "\e["
    plain = String.replace(report(shown), ~r/\e\[[0-9;]*m/, "")
    assert plain =~ "detached"

    for line <- String.split(plain, ~r/\r?\n/), not String.starts_with?(line, "iex(") do
      assert String.length(line) <= 80, "wider than the terminal: #{line}"
    end
  end

  test "a query without a session says in a sentence what to do" do
    output = iex(["Lineage.orphans()"])
    assert output =~ "not attached"
    assert output =~ "Lineage.attach()"
  end

  # What is printed between the two marks; the echo of the lines that print them has no line break in it.
  defp report(output) do
    [_, after_mark] = String.split(output, ~r/begin\r?\nreport/, parts: 2)
    [report, _] = String.split(after_mark, ~r/end\r?\nreport/, parts: 2)
    report
  end
end

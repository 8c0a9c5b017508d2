defmodule Lineage.BareSpawnsTest do
  @moduledoc "Nothing in the reference node is spawned without a supervisor, but in the rooms of the audited code."
  use ExUnit.Case, async: true

  # As a call, or by name and arity; also in documentation and comments.
  @bare ~r{(?<![\w.])(?:(?:Kernel|Process|Node|:erlang|:proc_lib)\.)?spawn(?:_link|_monitor|_opt)?(?:\(|\s*/\s*\d)|Node\.spawn|Task\.(?:start|start_link|async|async_stream)\b}

  defp sources do
    for app <- ["foundation", "mabeam"],
        file <- Path.wildcard("lib/#{app}/{lib,test}/**/*.{ex,exs}"),
        do: file
  end

  defp bare(file) do
    for {line, number} <- file |> File.read!() |> String.split("\n") |> Enum.with_index(1),
        line =~ @bare,
        do: "#{file}:#{number}: #{String.trim(line)}"
  end

  test "outside legacy/ there is none, in the applications and in their tests" do
    {legacy, others} = Enum.split_with(sources(), &String.contains?(&1, "/legacy/"))
    assert length(others) > 50
    assert Enum.flat_map(others, &bare/1) == []

    # And each room has at least one.
    assert legacy |> Enum.map(&{Path.basename(&1), bare(&1) != []}) |> Enum.reject(&elem(&1, 1)) ==
             []
  end
end

defmodule Lineage.LeaksTest do
  # The suite of test/user_leaks, a project that a user might have written: 500 clean tests beside those that leak in
  # every way. LINEAGE_LEAK_SEEDS is the number of seeds that it is run with.
  use ExUnit.Case, async: false

  alias Lineage.User

  @moduletag timeout: 1_200_000

  @project Path.join(User.root(), "test/user_leaks")
  @seeds String.to_integer(System.get_env("LINEAGE_LEAK_SEEDS", "2"))
  @formatters ~w[--formatter UserLeaks.Record --formatter ExUnit.CLIFormatter]
  @clean ~w[--exclude leak --exclude also --exclude of_setup_all]

  setup_all do
    build = User.tmp_dir("leaks-build")
    {output, status} = mix(build, ["compile"], [{"MIX_ENV", "test"}])
    assert status == 0, output
    [build: build, marks: marks()]
  end

  for seed <- 1..@seeds do
    @tag seed: seed
    test "exactly the leaking tests fail, and each report names its line: seed #{seed}",
         context do
      seed = unquote(seed)

      # By turns: started before ExUnit and after it, with formatters of the helper's and of the command line's.
      {start, formatters} = Enum.at([{"before", []}, {"after", @formatters}], rem(seed, 2))
      run = suite(context, ["--seed", "#{seed}" | formatters], start: start)
      assert run.status == 2, run.output
      assert length(run.tests) == length(for {:test, _, _, _, tags} <- run.tests, do: tags)
      assert Enum.count(run.tests, &match?({:test, _, _, :passed, _}, &1)) > 500
      fails(run, expected(run, [:leak, :also]))
      reports(run, context.marks, tagged(run, :leak) ++ [:setup_all])

      assert [{:module, UserLeaks.SetupAllTest, {:failed, [{Lineage.LeakError, _}]}}] =
               run.modules

      assert run.output =~
               ~r/^Lineage: #{length(run.tests) - 4} tests and 53 modules checked, \d+ leaked$/m

      assert run.output =~ ~r/^Ignored, and never there: {:label, "never there"}$/m
      own_failure_first(run)
    end
  end

  test "clean tests are clean, and the suite passes", context do
    run = suite(context, @clean)
    assert run.status == 0, run.output
    fails(run, [])
    assert run.output =~ ~r/^Lineage: \d+ tests and 52 modules checked, none leaked$/m
  end

  test "with action: :warn nothing fails of leaks, and all are told", context do
    run = suite(context, ["test/leaks_test.exs"], action: "warn", within: "100")
    fails(run, expected(run, [:also]) ++ expected(run, leak: :block))
    assert run.modules == []
    reports(run, context.marks, tagged(run, :leak) ++ [:setup_all])
  end

  test "with --max-failures", context do
    run = suite(context, ["--max-failures", "3"])
    assert run.status == 2, run.output
    failed = failed(run)
    assert length(failed) in 1..3, run.output
    assert failed -- expected(run, [:leak, :also]) == [], run.output
  end

  test "with --trace, where nothing times out", context do
    run = suite(context, ~w[--trace --exclude timeout test/leaks_test.exs], within: "100")
    run = %{run | tests: Enum.reject(run.tests, &match?({:test, _, _, :excluded, _}, &1))}
    fails(run, expected(run, [:leak, :also]))
    reports(run, context.marks, tagged(run, :leak) ++ [:setup_all])
  end

  # 1.18.0 fails by itself where modules are async.
  if Version.match?(System.version(), ">= 1.17.0") and System.version() != "1.18.0" do
    test "with --repeat-until-failure", context do
      run = suite(context, @clean ++ ["--repeat-until-failure", "2"])
      assert run.status == 0, run.output

      assert length(
               Regex.scan(
                 ~r/^Lineage: \d+ tests and 52 modules checked, none leaked$/m,
                 run.output
               )
             ) == 3

      run = suite(context, ~w[--repeat-until-failure 5 --only leak:sync])
      assert run.status == 2, run.output
      assert [_] = Regex.scan(~r/^Lineage: 1 test checked, 1 leaked$/m, run.output)
    end
  end

  test "without start/1 those are checked that say so", context do
    run = suite(context, ["test/leaks_test.exs"], start: "never")
    checked = [:block, :block_fails, :both, :both_fails, :describetag, :warned]

    fails(
      run,
      expected(run, [:also]) ++ expected(run, leak: :block, leak: :both, leak: :describetag)
    )

    reports(run, context.marks, checked)
    assert run.output =~ ~r/^Lineage: \d+ tests checked, 5 leaked$/m
  end

  test "a session that does less is told of, with what to do", context do
    run = suite(context, ~w[--only leak:spawn], attached: "1")
    assert run.status == 2, run.output
    assert run.output =~ "lineage:detach()"
  end

  ## What is expected

  # `# leak(name)` stands above the line that a report names.
  defp marks do
    for file <- Path.wildcard(Path.join(@project, "{lib,test}/**/*.{ex,exs}")),
        {text, number} <- file |> File.stream!() |> Enum.with_index(1),
        [_, name] <- Regex.scan(~r/^ *# leak\((\w+)\)$/, text),
        reduce: %{} do
      marks ->
        place = "#{Path.relative_to(file, @project)}:#{number + 1}"
        Map.update(marks, String.to_atom(name), [place], &[place | &1])
    end
  end

  defp tagged(run, tag),
    do: for({:test, _, _, _, %{^tag => name}} <- run.tests, do: name) -- [:ignored]

  # Of the tests with such tags, those that must fail: one is only told of.
  defp expected(run, wanted) do
    for {:test, module, name, _, tags} <- run.tests,
        tags[:leak] != :warned or tags[:also],
        Enum.any?(wanted, fn
          {tag, value} -> tags[tag] == value
          tag -> tags[tag] != nil
        end),
        do: {module, name}
  end

  defp failed(run),
    do: for({:test, module, name, {:failed, _}, _} <- run.tests, do: {module, name})

  defp fails(run, expected) do
    same(failed(run), Enum.uniq(expected), run)
  end

  # Each leak is reported once, in all that was printed, with its line or lines.
  defp reports(run, marks, names) do
    expected =
      for name <- names do
        places = Map.fetch!(marks, name)
        {named(run, name, places), Enum.sort(places)}
      end

    same(Enum.sort(run.reports), expected, run)
  end

  defp same(found, expected, run) do
    case {found -- expected, expected -- found} do
      {[], []} ->
        :ok

      {more, less} ->
        flunk("too much: #{inspect(more)}\nmissing: #{inspect(less)}\n#{run.output}")
    end
  end

  defp named(_run, :setup_all, _), do: "setup_all of UserLeaks.SetupAllTest"

  # A block is called by its place, which is the line above the mark.
  defp named(_run, block, [place]) when block in [:block, :block_fails] do
    [file, line] = String.split(place, ":")
    "the block at #{file}:#{String.to_integer(line) - 2}"
  end

  defp named(run, name, _) do
    [called] =
      for {:test, module, test, _, %{leak: ^name}} <- run.tests,
          do: "#{test} (#{inspect(module)})"

    called
  end

  defp own_failure_first(run) do
    [failures, later] = String.split(run.output, ~r/^Finished in .*$/m, parts: 2)

    for {:test, module, name, {:failed, why}, %{leak: leak, also: _}} <- run.tests do
      refute Enum.any?(why, &match?({Lineage.LeakError, _}, &1)), "#{name} fails of its leak"
      assert failures =~ "#{name} (#{inspect(module)})"
      leak == :block_fails or assert(later =~ " in #{name} (#{inspect(module)})")
    end
  end

  ## Running it

  defp suite(%{build: build}, arguments, options \\ []) do
    record = Path.join(User.tmp_dir("leaks"), "record")

    env =
      [{"LEAKS_RECORD", record}] ++
        for {key, value} <- options, do: {"LEAKS_#{String.upcase(to_string(key))}", value}

    {output, status} = mix(build, ["test" | arguments], env)
    rows = if File.exists?(record), do: record |> File.read!() |> terms(), else: []
    {modules, tests} = Enum.split_with(rows, &match?({:module, _, _}, &1))
    %{output: output, status: status, tests: tests, modules: modules, reports: printed(output)}
  end

  defp mix(build, arguments, env),
    do: User.run(@project, "mix", arguments, [{"MIX_BUILD_PATH", build} | env])

  defp terms(text) do
    for line <- String.split(text, "\n", trim: true),
        do: line |> Base.decode64!() |> :erlang.binary_to_term()
  end

  # Reports: lines of processes, and the line that sums them up.
  defp printed(output) do
    {reports, []} =
      for line <- String.split(output, "\n"), line = String.trim(line), reduce: {[], []} do
        {reports, places} ->
          spawned = Regex.run(~r/^(?:direct|indirect|silent) .*spawned at (.*?) by </, line)
          kinds = "(?:direct leak|indirect leak|silent failure)s?"

          summed =
            Regex.run(~r/^\d+ #{kinds}(?:, \d+ #{kinds})* in (.*?)(?: after \d+ ms)?\.$/, line)

          case {spawned, summed} do
            {[_, place], _} -> {reports, [place | places]}
            {_, [_, name]} -> {[{name, Enum.sort(places)} | reports], []}
            _ -> {reports, places}
          end
      end

    reports
  end
end

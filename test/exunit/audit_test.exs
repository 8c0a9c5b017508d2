defmodule Lineage.AuditTest do
  @moduledoc """
  The static audit as a mix task; what it finds is what Elixir's compiler sees, and what stands in the
  reference node.
  """
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO
  import Lineage.User

  @moduletag timeout: 300_000

  @corpus Path.join(root(), "test/audit_corpus/elixir")

  @mix_exs """
  defmodule User.MixProject do
    use Mix.Project

    def project do
      [app: :user, version: "1.0.0", elixir: "~> 1.14", deps: [{:lineage, path: "#{root()}"}]]
    end

    def application, do: []
  end
  """

  # What the task prints, and the status that it ends with.
  defp audit(arguments) do
    caller = self()

    output =
      capture_io(fn ->
        status =
          try do
            Mix.Tasks.Lineage.Audit.run(arguments)
            0
          catch
            :exit, {:shutdown, status} -> status
          end

        send(caller, {:status, status})
      end)

    assert_received {:status, status}
    {output, status}
  end

  defp findings(paths) do
    result = paths |> Enum.map(&String.to_charlist/1) |> :lineage_audit.audit()
    assert result.unreadable == []
    result.findings
  end

  describe "mix lineage.audit" do
    test "has the findings of the corpus, and no others" do
      files = Path.wildcard("#{@corpus}/*.{ex,exs}")

      marks =
        for file <- files,
            {text, line} <- file |> File.stream!() |> Enum.with_index(1),
            [_, marks] <- [String.split(text, "#=> ")],
            mark <- String.split(marks, ";"),
            [severity, call] = String.split(mark),
            do: {file, line, severity, call}

      assert length(marks) > 250
      found = for f <- findings(files), do: {f.file, f.line, "#{f.severity}", f.call}
      assert Enum.uniq(found) -- marks == []
      assert marks -- found == []

      {output, 1} = audit(["--format", "compact" | files])

      for {file, line, severity, _call} <- marks,
          do: assert(output =~ "#{file}:#{line}: #{severity}: ")
    end

    test "ends with 0 when there is none, with 1 and the line when there is one, with 2 when it cannot read" do
      dir =
        tmp_dir("audit")
        |> write(%{
          "clean.ex" => "defmodule Clean do\nend\n",
          "lib/found.ex" => "defmodule Found do\n  def run(fun) do\n    spawn(fun)\n  end\nend\n",
          "broken.ex" => "defmodule Broken do\n",
          "ignore" => "**/found.ex:3  Kernel.spawn/1  # it ends at once\n"
        })

      clean = Path.join(dir, "clean.ex")
      found = Path.join(dir, "lib")
      compact = ["--format", "compact"]

      assert {_, 0} = audit([clean])
      assert {output, 1} = audit(compact ++ [clean, found])
      assert output =~ "#{dir}/lib/found.ex:3: unlinked: "

      assert capture_io(:stderr, fn ->
               {output, status} = audit(compact ++ [dir])
               assert status == 2
               assert output =~ "#{dir}/lib/found.ex:3: unlinked: "
             end) =~ "#{dir}/broken.ex: "

      assert {_, 0} = audit(["--ignore", Path.join(dir, "ignore"), found])
      assert {help, 0} = audit(["--help"])
      assert help =~ "--ignore FILE"
      assert capture_io(:stderr, fn -> assert {"", 2} = audit(["--color"]) end) =~ "--color"
    end

    test "reads the sources of the project that it is called in, and nothing beside them" do
      dir =
        tmp_dir("audit-project")
        |> write(%{
          "mix.exs" => @mix_exs,
          "lib/user.ex" => "defmodule User do\n  def run(fun), do: Task.start(fun)\nend\n",
          "src/user_loop.erl" => "-module(user_loop).\n-export([f/1]).\nf(X) ->\n    spawn(X).\n",
          "scripts/loose.exs" => "spawn(fn -> :ok end)\n"
        })

      {output, status} = run(dir, "mix", ["lineage.audit", "--format", "compact"])
      assert status == 1, output
      assert output =~ "\nlib/user.ex:2: unlinked: "
      assert output =~ "\nsrc/user_loop.erl:4: unlinked: "
      refute output =~ "loose.exs"

      {output, status} = run(dir, "mix", ["lineage.audit", "--format", "compact", "scripts"])
      assert {status, output =~ "scripts/loose.exs:1: unlinked: "} == {1, true}, output
      refute output =~ "user.ex"
    end
  end

  # A tracer is told every call that the compiler resolves. What is not a call to it - `apply`, a
  # delegation, Function.capture - it is not told, and what a supervisor calls is no finding.
  test "the compiler resolves the corpus to the same calls" do
    files = Path.wildcard("#{@corpus}/*.ex")
    script = Path.join(tmp_dir("audit-trace"), "trace.exs")
    File.write!(script, tracing())
    ebin = Path.join(to_string(:code.lib_dir(:lineage)), "ebin")
    {output, status} = run(root(), "elixir", ["-pa", ebin, script | files])
    assert {status, output =~ ~r/^traced \d{3}/m} == {0, true}, output

    found = for f <- findings(files), into: MapSet.new(), do: {f.file, f.line, compiled(f.mfa)}

    traced =
      for ["call", file, line, module, function, arity] <-
            output |> String.split("\n") |> Enum.map(&String.split/1),
          into: MapSet.new(),
          do:
            {file, String.to_integer(line),
             compiled({:"#{module}", :"#{function}", String.to_integer(arity)})}

    # In a function start_link, or one that a child spec names, or an application's start/2; @configured is read when
    # the corpus is compiled.
    missed =
      for {file, line, mfa} <- MapSet.difference(traced, found), do: {line(file, line), mfa}

    supervised = ~r/start_link|spawn_link/

    assert for(
             {text, mfa} <- missed,
             not (text =~ supervised or text =~ "@configured"),
             do: {text, mfa}
           ) == []

    beside =
      for {file, line, mfa} <- MapSet.difference(found, traced), do: {line(file, line), mfa}

    assert for(
             {text, mfa} <- beside,
             not (text =~ ~r/apply\(|defdelegate|capture\(|make_fun\(/),
             do: {text, mfa}
           ) == []
  end

  defp line(file, line), do: file |> File.stream!() |> Enum.at(line - 1) |> String.trim()

  # What the compiler inlines.
  defp compiled({Kernel, function, arity}), do: {:erlang, function, arity}
  defp compiled({Process, :spawn, arity}), do: {:erlang, :spawn_opt, arity}
  defp compiled({Node, :spawn, arity}) when arity in [3, 5], do: {:erlang, :spawn_opt, arity}
  defp compiled({Node, function, arity}), do: {:erlang, function, arity}
  defp compiled({Port, :open, 2}), do: {:erlang, :open_port, 2}
  defp compiled(mfa), do: mfa

  # In a VM of its own: the corpus is no code to have in this one, and makes processes when it is compiled.
  defp tracing do
    ~S"""
    defmodule Trace do
      def trace({kind, meta, module, function, arity}, env)
          when kind in [:remote_function, :imported_function] do
        if :lineage_calls.find(module, function, arity, :unknown) != :none do
          send(:calls, {:call, env.file, meta[:line] || env.line, module, function, arity})
        end

        :ok
      end

      def trace(_event, _env), do: :ok

      def print(count) do
        receive do
          {:call, file, line, module, function, arity} ->
            IO.puts("call #{file} #{line} #{module} #{function} #{arity}")
            print(count + 1)
        after
          0 -> IO.puts("traced #{count}")
        end
      end
    end

    Process.register(self(), :calls)
    Code.put_compiler_option(:tracers, [Trace])
    for file <- System.argv(), do: Code.compile_file(file)
    Trace.print(0)
    """
  end

  describe "the reference node" do
    @legacy ~r{^lib/(foundation|mabeam)/lib/\1/legacy/}
    @spawns ~r/(?<![\w.:])(spawn\(|Node\.spawn\(|Task\.(start|async)\()/

    defp sources(app), do: Path.join([root(), "lib", app])

    defp relative(findings) do
      for f <- findings, do: %{f | file: Path.relative_to(f.file, root())}
    end

    test "has nothing unlinked outside of the legacy rooms" do
      {legacy, others} =
        [sources("foundation"), sources("mabeam")]
        |> findings()
        |> relative()
        |> Enum.split_with(&(&1.file =~ @legacy))

      assert for(f <- others, f.severity == :unlinked, do: {f.file, f.line}) == []
      assert length(legacy) > 15
    end

    test "has in the legacy rooms each line that spawns" do
      for app <- ["foundation", "mabeam"] do
        rooms = Path.join([sources(app), "lib", app, "legacy"])
        found = for f <- findings([rooms]), uniq: true, do: {f.file, f.line}

        written =
          for file <- Path.wildcard("#{rooms}/*.ex"),
              {text, line} <- file |> File.stream!() |> Enum.with_index(1),
              text =~ @spawns,
              do: {file, line}

        assert length(written) >= 5
        assert Enum.sort(found) == Enum.sort(written)
      end
    end
  end
end

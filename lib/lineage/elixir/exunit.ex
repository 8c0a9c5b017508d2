defmodule Lineage.LeakError do
  @moduledoc """
  Raised when something outlived a test or a block: its message is the report.

  `report` is the map that the report was made of (`t:lineage_leak.report/0`), `scope` its number.
  """
  defexception [:message, :report, :scope]

  @doc false
  def new(%{scope: scope} = report),
    do: %__MODULE__{report: report, scope: scope, message: "left behind:\n" <> text(report)}

  @doc false
  # What a whole suite ignores need not be there in each test: `Lineage.ExUnit` tells at the suite's end.
  def text(report), do: :lineage_leak.text(%{report | unused: []})
end

defmodule Lineage.ExUnit do
  @moduledoc """
  Tests that leave no process behind.

  A test *leaks* a process when it is alive after the test has ended, its supervisor (`start_supervised/2`)
  has stopped and all its `on_exit` callbacks have run. It does not matter who spawned it: what a test spawns, what
  its tasks spawn and what servers that it has started spawn belongs to that test, however deep, and
  also when somebody between has died. What a shared server does for a test stays the server's, but the
  child that a shared `DynamicSupervisor` or `Task.Supervisor` starts is the test's that asked for it. So tests
  may run `async`, each is told its own leaks.

  A process that failed with nobody linked to it or monitoring it is a *silent failure*, and is reported, too.

  ## All tests

  One line in `test/test_helper.exs`, before or after `ExUnit.start()`:

      Lineage.ExUnit.start()

  checks every test of the suite, and what `setup_all` has started when the last test of its module is done.
  `start/1` shows the options.

  ## Some tests

      defmodule MyApp.ImporterTest do
        use ExUnit.Case, async: true
        use Lineage.ExUnit

        setup :assert_no_leaks

        test "an import leaves nobody behind" do
          MyApp.Importer.run("users.csv")
        end
      end

  Put it before other setups: it sees what is spawned after it.

  ## One block

      test "a stopped pool has no workers", %{pool: pool} do
        assert_no_leaks within: 100 do
          MyApp.Pool.checkout(pool)
        end
      end

  ## Options

    * `:within` - milliseconds that what is ending is given (500). A clean test does not wait. Never more than half
      of the test's own timeout.
    * `:ignore` - a list of what is no leak. `{module, function, arity}`: it was started with that call; an atom or a
      string: its registered name or its label; `{:label, label}`; `{:app, application}`; `{:site, "path/end.ex"}` or
      `{:site, "path/end.ex:12"}`: the place that spawned it. Each is matched on the process, on who spawned it and
      on its ancestors.
    * `:action` - `:raise` (default) fails the test; `:warn` only prints the report.

  For a test, a `describe` or a module they are tags; `ignore` adds to what the suite ignores, the others replace:

      @tag lineage: [within: 2000, ignore: [{MyApp.Cache, :init, 1}]]
      @tag lineage: false    # is not checked

  ## What is shown

  A failed test shows its own failure first; its leaks are printed at the suite's end, with one line
  that sums up and the ignores that nothing matched. The report of a leak tells the line that spawned it: in modules of
  `.exs` files, too, where the suite is checked or the module says `use Lineage.ExUnit`.

  Lineage attaches by itself, and a session that is there already is used if it has what is needed
  (`exits: :all, sites: :exact, monitors: :exact`).
  """

  alias Lineage.ExUnit.{Formatter, Suite}
  alias Lineage.LeakError

  @type ignore ::
          {module, atom, arity | :_}
          | atom
          | String.t()
          | {:label, term}
          | {:app, atom}
          | {:site, String.t()}
  @type option ::
          {:within, non_neg_integer} | {:ignore, [ignore]} | {:action, :raise | :warn}

  @actions [:raise, :warn]

  @doc """
  Checks every test of the suite, each once: write it in `test/test_helper.exs`.

  The options are those of the module's documentation, for all tests. Raises an `ArgumentError` that tells which
  option is wrong.

      Lineage.ExUnit.start(within: 1000, ignore: [{:app, :my_pool}])
      ExUnit.start()
  """
  @spec start([option]) :: :ok
  def start(options \\ []) do
    Suite.start(options!(options))
  end

  @doc "Imports `assert_no_leaks/1,2`, and lets reports tell the lines of this module."
  defmacro __using__(_options) do
    quote do
      import Lineage.ExUnit, only: [assert_no_leaks: 1, assert_no_leaks: 2]
      @after_compile {Lineage.ExUnit.Suite, :__after_compile__}
    end
  end

  @doc """
  Fails when something outlives a block, or, as a setup, the test.

      setup :assert_no_leaks

      assert_no_leaks do
        MyApp.Importer.run("users.csv")
      end

  A block returns its value, or raises a `Lineage.LeakError`. What the block itself raises is raised; its leaks are then
  printed at the suite's end.
  """
  defmacro assert_no_leaks(block_or_context) do
    case block_or_context do
      [do: block] -> block(block, [], __CALLER__)
      {_name, _meta, _args} -> quote(do: Lineage.ExUnit.Suite.setup(unquote(block_or_context)))
      _ -> raise ArgumentError, "assert_no_leaks takes a do block: assert_no_leaks do ... end"
    end
  end

  @doc "The same for a block, with options: `assert_no_leaks within: 100 do ... end`."
  defmacro assert_no_leaks(options, do: block) do
    block(block, options, __CALLER__)
  end

  # In place and not in a function: there the last call would be a tail call, whose line nobody knows.
  defp block(block, options, caller) do
    place = "the block at #{Path.relative_to_cwd(caller.file)}:#{caller.line}"

    quote do
      opened = Lineage.ExUnit.__open__(unquote(place), unquote(options))

      value =
        try do
          unquote(block)
        catch
          kind, reason -> Lineage.ExUnit.__raised__(opened, kind, reason, __STACKTRACE__)
        end

      Lineage.ExUnit.__ended__(opened)
      value
    end
  end

  @doc false
  def __open__(place, options) do
    # Who writes the assertion into a test wants it to fail, whatever the suite does.
    options = merged!(Map.delete(Suite.options(), :action), options)
    {:lineage_leak.open(place), options}
  end

  @doc false
  def __ended__(opened) do
    case {check(opened), opened} do
      {nil, _} ->
        :ok

      {report, {_, %{action: :warn}}} ->
        Formatter.print(LeakError.text(report))

      {report, _} ->
        {:current_stacktrace, [_info, _here | stack]} = Process.info(self(), :current_stacktrace)
        reraise LeakError.new(report), stack
    end
  end

  @doc false
  def __raised__(opened, kind, reason, stack) do
    # What the block raised is what the user must see, also when its scope cannot be checked any more.
    try do
      if report = check(opened), do: Formatter.later(LeakError.text(report))
    after
      :erlang.raise(kind, reason, stack)
    end
  end

  @doc false
  # The report of a scope that has ended, or nil when nothing is left.
  def check({scope, options}) do
    report = :lineage_leak.check(scope, Map.delete(options, :action))
    if :lineage_leak.is_clean(report), do: nil, else: report
  end

  @doc false
  # Those of the suite, and those of a tag or block with them.
  def merged!(suite, options) do
    Map.merge(suite, options!(options), fn
      :ignore, of_suite, more -> of_suite ++ more
      _key, _of_suite, own -> own
    end)
    |> Map.put_new(:action, :raise)
  end

  defp options!(options) do
    Keyword.keyword?(options) ||
      wrong!(options, "a list of the options within, ignore and action, such as [within: 500]")

    {action, rest} = Map.pop(Map.new(options), :action, :raise)
    action in @actions || wrong!(action, "the action raise or warn")

    case Map.keys(rest) -- [:within, :ignore] do
      [] -> :ok
      [key | _] -> wrong!(key, "the options within, ignore and action")
    end

    case :lineage_leak.check_options(rest) do
      :ok -> Map.new(options)
      {:error, cause} -> raise ArgumentError, :lineage_error.sentence(cause)
    end
  end

  defp wrong!(given, wanted) do
    cause = {:bad_argument, "Lineage.ExUnit", given, wanted}
    raise ArgumentError, :lineage_error.sentence(cause)
  end
end

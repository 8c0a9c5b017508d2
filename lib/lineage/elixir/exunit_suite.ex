defmodule Lineage.ExUnit.Suite do
  @moduledoc false
  # All that knows how ExUnit works inside; the same in 1.14, 1.18 and 1.20:
  #
  #   * `use ExUnit.Case` collects a module's setups in an attribute, newest first, and a `@before_compile` of
  #     ExUnit's makes code of them. A compiler tracer sees the `use` before that, and sets a `@before_compile` that
  #     comes first; what it appends to the setups runs before all others, and its `on_exit` after all others.
  #   * One process runs the tests of a module, one after another. It spawns the process of `setup_all`, that of each
  #     test, and, when that has ended, one for its `on_exit` callbacks: it is put into the test's
  #     scope meanwhile, so that what the callbacks spawn is the test's.
  #   * Its parent is the suite's runner, which is linked to the supervisor of formatters. Formatters that
  #     are named in test_helper.exs do not outlive `mix test --formatter`, and a module that is checked
  #     without `start/1` comes when all are started: so ours is started there by the first test.

  alias Lineage.ExUnit.Formatter
  alias Lineage.LeakError

  @setup :__lineage_setup__
  @setup_all :__lineage_setup_all__

  ## Before the suite

  def start(options) do
    {:ok, _} = Application.ensure_all_started(:lineage)
    Application.put_env(:lineage, __MODULE__, options)
    tracers = Code.get_compiler_option(:tracers)
    __MODULE__ in tracers || Code.put_compiler_option(:tracers, tracers ++ [__MODULE__])
    :ok
  end

  # Those of start/1.
  def options, do: Application.get_env(:lineage, __MODULE__, %{})

  ## As test modules are compiled

  def trace({:remote_macro, _meta, ExUnit.Case, :__using__, 1}, %{module: module})
      when module != nil do
    # ExUnit may run a module's tests as soon as its own callback after the compilation has run.
    for {attribute, function} <- [
          before_compile: :__before_compile__,
          after_compile: :__after_compile__
        ],
        hook = {__MODULE__, function},
        hook not in Module.get_attribute(module, attribute, []),
        do: Module.put_attribute(module, attribute, hook)

    :ok
  end

  # Modules in .exs files are in memory only: their code tells the lines of reports.
  def trace({:on_module, bytecode, _}, %{module: module}),
    do: :lineage_code.keep(module, bytecode)

  def trace(_event, _env), do: :ok

  def __after_compile__(%{module: module}, bytecode), do: :lineage_code.keep(module, bytecode)

  defmacro __before_compile__(%{module: module}) do
    runs_first(module, :ex_unit_setup, @setup)
    # Without a setup_all newer versions have no process for it.
    Module.get_attribute(module, :ex_unit_setup_all, []) == [] ||
      runs_first(module, :ex_unit_setup_all, @setup_all)

    quote do
      @doc false
      def unquote(@setup)(context), do: unquote(__MODULE__).setup(context)
      @doc false
      def unquote(@setup_all)(_context),
        do: unquote(__MODULE__).setup_all(__MODULE__, unquote(Macro.escape(module_tag(module))))
    end
  end

  # The last of the list is the first that was set, so it runs first, and its on_exit last.
  defp runs_first(module, attribute, function) do
    case Module.get_attribute(module, attribute) do
      setups when is_list(setups) -> Module.put_attribute(module, attribute, setups ++ [function])
      nil -> :ok
    end
  end

  # The newest `@moduletag lineage: ...`.
  defp module_tag(module) do
    module
    |> Module.get_attribute(:moduletag, [])
    |> Enum.find_value(fn
      :lineage -> {:ok, true}
      {:lineage, value} -> {:ok, value}
      [_ | _] = tags -> Keyword.has_key?(tags, :lineage) && Keyword.fetch(tags, :lineage)
      _ -> nil
    end)
    |> case do
      {:ok, value} -> value
      _ -> nil
    end
  end

  ## As tests run

  # In the process of the test.
  def setup(%{test: test, module: module} = context) do
    case {Process.put(__MODULE__, :checked), Map.get(context, :lineage)} do
      {:checked, _} -> :ok
      {nil, false} -> unchecked()
      {nil, tag} -> open(:tests, "#{test} (#{inspect(module)})", tag, context)
    end
  end

  # In the process that stands for the module.
  def setup_all(_module, false), do: :ok
  def setup_all(module, tag), do: open(:modules, "setup_all of #{inspect(module)}", tag, %{})

  defp open(what, name, tag, context) do
    options = Lineage.ExUnit.merged!(options(), if(tag in [nil, true], do: [], else: tag))
    options = within(options, Map.get(context, :timeout))
    runner = parent(self())
    formatter(runner)
    scope = :lineage_leak.open(name, runner)
    :lineage_scope.enter(self(), scope)
    ExUnit.Callbacks.on_exit({__MODULE__, what}, fn -> check(what, scope, options) end)
  end

  # In the process of the on_exit callbacks, which is in the scope itself. ExUnit kills it when it takes longer than the
  # test may; what is left is told even then.
  defp check(what, scope, options) do
    :lineage_scope.enter(self(), 0)
    {_pid, monitor} = spawn_monitor(fn -> exit({:told, told(what, scope, options)}) end)

    receive do
      {:DOWN, ^monitor, _, _, {:told, nil}} -> :ok
      {:DOWN, ^monitor, _, _, {:told, error}} -> reraise error, []
      {:DOWN, ^monitor, _, _, reason} -> exit(reason)
    end
  end

  # What there is to raise, if anything.
  defp told(what, scope, %{action: action} = options) do
    case Lineage.ExUnit.check({scope, options}) do
      nil ->
        Formatter.checked(what, scope, nil)
        nil

      report when action == :warn ->
        Formatter.checked(what, scope, nil)
        Formatter.print(LeakError.text(report))
        nil

      report ->
        Formatter.checked(what, scope, LeakError.text(report))
        LeakError.new(report)
    end
  catch
    # With its stack it has its sentence.
    :error, reason -> Exception.normalize(:error, reason, __STACKTRACE__)
  end

  # It is of no scope: not of its module's either.
  defp unchecked do
    runner = parent(self())
    former = :lineage_scope.enter(runner, 0)
    :lineage_scope.enter(self(), 0)

    former == 0 ||
      ExUnit.Callbacks.on_exit(__MODULE__, fn -> :lineage_scope.enter(runner, former) end)

    :ok
  end

  # The check is a callback, for which ExUnit has no more time than for the test.
  defp within(options, timeout) do
    case timeout || Application.get_env(:ex_unit, :timeout, 60_000) do
      :infinity -> options
      ms -> Map.update(options, :within, min(500, div(ms, 2)), &min(&1, div(ms, 2)))
    end
  end

  ## Whom ExUnit has

  defp parent(pid) do
    case Process.info(pid, :parent) do
      {:parent, parent} when is_pid(parent) -> parent
      _ -> pid
    end
  end

  defp formatter(runner) do
    if Process.whereis(Formatter) == nil do
      child = %{
        id: Formatter,
        start: {GenServer, :start_link, [Formatter, [], [name: Formatter]]},
        restart: :temporary
      }

      if Enum.any?(supervisors(parent(runner)), &start_child(&1, child)) do
        callbacks = Application.get_env(:ex_unit, :after_suite, [])
        (&__MODULE__.after_suite/1) in callbacks || ExUnit.after_suite(&__MODULE__.after_suite/1)
      end
    end
  end

  defp start_child(supervisor, child),
    do: match?({:ok, _}, DynamicSupervisor.start_child(supervisor, child))

  # Of the suite's, only one takes such a child.
  defp supervisors(suite) do
    case Process.info(suite, :links) do
      {:links, links} -> Enum.filter(links, &(is_pid(&1) and supervisor?(&1)))
      nil -> []
    end
  end

  defp supervisor?(pid) do
    case Process.info(pid, :dictionary) do
      {:dictionary, dictionary} -> match?({:supervisor, _, 1}, dictionary[:"$initial_call"])
      nil -> false
    end
  end

  ## After it

  # All formatters have stopped: what is printed now comes last.
  def after_suite(_statistics) do
    case Application.get_env(:ex_unit, Formatter.result_key()) do
      nil ->
        :ok

      result ->
        Application.delete_env(:ex_unit, Formatter.result_key())
        Formatter.summary(result, :lineage_leak.unused())
    end
  end
end

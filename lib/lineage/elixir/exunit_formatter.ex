defmodule Lineage.ExUnit.Formatter do
  @moduledoc false
  # What ExUnit does not show. It hears of each check, and from ExUnit how each test has ended: a report that is no
  # failure of its test, since the test had failed before, is printed at the suite's end, when all
  # formatters are done. One process for each run of the suite, started by `Lineage.ExUnit.Suite`.
  use GenServer

  @doc "Where the last run's results are, for who prints them."
  def result_key, do: :lineage_result

  @doc "A test (or a module's `setup_all`) was checked; `report` is what was left, as text, or nil."
  def checked(what, scope, report),
    do: tell({:checked, what, scope, report}, report)

  @doc "Prints a report now."
  def print(text), do: tell({:print, text}, text)

  @doc "Prints a report at the suite's end."
  def later(text), do: tell({:later, text}, text)

  # Where nobody formats, outside of a suite, standard error is the place.
  defp tell(message, text) do
    GenServer.call(__MODULE__, message, :infinity)
  catch
    :exit, _ -> if text, do: IO.puts(:stderr, text), else: :ok
  end

  @impl true
  def init(_options) do
    {:ok, %{tests: 0, modules: 0, leaked: 0, hidden: %{}}}
  end

  @impl true
  def handle_call({:checked, what, scope, report}, _from, state) do
    state = Map.update!(state, what, &(&1 + 1))
    {:reply, :ok, if(report, do: leaked(state, scope, report), else: state)}
  end

  def handle_call({:print, text}, _from, state) do
    IO.puts(["\n", text])
    {:reply, :ok, %{state | leaked: state.leaked + 1}}
  end

  def handle_call({:later, text}, _from, state) do
    {:reply, :ok, leaked(state, make_ref(), text)}
  end

  @impl true
  def handle_cast({finished, %{state: {:failed, failures}}}, state)
      when finished in [:test_finished, :module_finished] do
    shown = for {:error, %Lineage.LeakError{scope: scope}, _stack} <- failures, do: scope
    {:noreply, %{state | hidden: Map.drop(state.hidden, shown)}}
  end

  def handle_cast({:suite_finished, _times}, state) do
    ExUnit.configure([{result_key(), state}])
    {:noreply, state}
  end

  def handle_cast(_event, state), do: {:noreply, state}

  defp leaked(state, scope, report),
    do: %{state | leaked: state.leaked + 1, hidden: Map.put(state.hidden, scope, report)}

  @doc "Prints what the run's failures did not show, and what there was in all."
  def summary(%{tests: tests, modules: modules, leaked: leaked, hidden: hidden}, unused) do
    reports = hidden |> Enum.sort() |> Enum.map(fn {_scope, report} -> report end)

    shown =
      if reports == [],
        do: [],
        else: ["Left behind by tests that had failed already:" | reports]

    checked =
      Enum.map_join(
        [{tests, "test"} | if(modules > 0, do: [{modules, "module"}], else: [])],
        " and ",
        fn {n, word} ->
          :lineage_text.count(n, word)
        end
      )

    line = "Lineage: #{checked} checked, #{if leaked == 0, do: "none", else: leaked} leaked"

    ignores =
      if unused == [],
        do: [],
        else: ["Ignored, and never there: #{Enum.map_join(unused, ", ", &inspect/1)}"]

    IO.puts(["\n", Enum.intersperse(shown ++ [Enum.join([line | ignores], "\n")], "\n\n")])
  end
end

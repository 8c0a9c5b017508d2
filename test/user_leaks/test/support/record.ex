defmodule UserLeaks.Record do
  @moduledoc "A formatter for machines: how each test ended, a term in Base64 a line, in the file that LEAKS_RECORD names."
  use GenServer

  @impl true
  def init(_options), do: {:ok, []}

  @impl true
  def handle_cast({:test_finished, test}, rows) do
    tags = Map.take(test.tags, [:leak, :also])
    {:noreply, [{:test, test.module, test.name, state(test.state), tags} | rows]}
  end

  def handle_cast({:module_finished, %{state: {:failed, _}} = module}, rows) do
    {:noreply, [{:module, module.name, state(module.state)} | rows]}
  end

  def handle_cast({:suite_finished, _times}, rows) do
    if file = System.get_env("LEAKS_RECORD") do
      File.write!(file, Enum.map(Enum.reverse(rows), &line/1), [:append])
    end

    {:noreply, []}
  end

  def handle_cast(_event, rows), do: {:noreply, rows}

  defp line(row), do: [row |> :erlang.term_to_binary() |> Base.encode64(), ?\n]

  defp state(nil), do: :passed

  defp state({:failed, failures}),
    do: {:failed, for({kind, reason, _stack} <- failures, do: why(kind, reason))}

  defp state({other, _}), do: other

  defp why(_kind, %struct{} = error), do: {struct, Exception.message(error)}
  defp why(kind, reason), do: {kind, inspect(reason)}
end

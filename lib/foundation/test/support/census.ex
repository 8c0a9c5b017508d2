defmodule Foundation.Test.Census do
  @moduledoc """
  What Lineage knows of the processes that a test makes.
  """

  @doc """
  With FOUNDATION_SUPERVISION=off the suite tests the node as it was audited: then the tests fail that start such code, for
  what they leave.
  """
  @spec as_told() :: :ok
  def as_told do
    if System.get_env("FOUNDATION_SUPERVISION") == "off" do
      for phase <- [:phase_1, :phase_2, :phase_3],
          do: Foundation.Supervision.switch(phase, false)
    end

    :ok
  end

  @doc """
  Checks each test of the suite for what it leaves behind; and as a whole, for the orphans that servers have made.
  """
  @spec watch_suite() :: :ok
  def watch_suite do
    :ok = Lineage.ExUnit.start()

    ExUnit.after_suite(fn _results ->
      with [_ | _] = orphans <- Lineage.orphans() do
        Lineage.print(orphans)
        raise "the tests have left #{length(orphans)} processes behind that nobody would stop"
      end
    end)
  end

  @doc "The orphans that run functions of `modules`, each with its kind, sorted."
  @spec orphans([module]) :: [{mfa, Lineage.kind()}]
  def orphans(modules) do
    orphans =
      for %{initial_call: {module, _, _} = call, kind: kind} <- Lineage.orphans(),
          module in modules,
          do: {call, kind}

    Enum.sort(orphans)
  end

  @doc """
  The functions of `modules` that dead processes without a link ran, each once, sorted; but for those that were
  among the `dead/0` already.
  """
  @spec recent([module], MapSet.t()) :: [mfa]
  def recent(modules, dead \\ MapSet.new()) do
    calls =
      for %{initial_call: {module, _, _} = call} = row <- Lineage.recent(1_000),
          module in modules,
          id(row) not in dead,
          do: call

    calls |> Enum.uniq() |> Enum.sort()
  end

  @doc "The last dead processes without a link, for `recent/2`."
  @spec dead() :: MapSet.t()
  def dead, do: MapSet.new(Lineage.recent(1_000), &id/1)

  # A pid comes round again.
  defp id(row), do: {row.pid, row.generation}

  @doc "The orphans of Foundation: by their application, or by what they run."
  @spec leaks() :: [Lineage.Orphan.t()]
  def leaks do
    for %{app: app, initial_call: call} = orphan <- Lineage.orphans(),
        app == :foundation or foundation?(call),
        do: orphan
  end

  defp foundation?({module, _function, _arity}),
    do: String.starts_with?(Atom.to_string(module), "Elixir.Foundation.")

  defp foundation?(_unknown), do: false
end

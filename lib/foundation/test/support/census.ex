defmodule Foundation.Test.Census do
  @moduledoc """
  What Lineage knows of the processes that a test makes.
  """

  @doc "Attaches Lineage for the length of a test."
  @spec attach() :: :ok
  def attach do
    {:ok, _info} = Lineage.attach()
    ExUnit.Callbacks.on_exit(&Lineage.detach/0)
    :ok
  end

  @doc "Has the tests fail as a whole when one of them has left an orphan behind, of whatever application."
  @spec watch_suite() :: :ok
  def watch_suite do
    ExUnit.after_suite(fn _results ->
      {:ok, _info} = Lineage.attach()

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

  @doc "The functions of `modules` that dead processes without a link ran, each once, sorted."
  @spec recent([module]) :: [mfa]
  def recent(modules) do
    calls =
      for %{initial_call: {module, _, _} = call} <- Lineage.recent(1_000),
          module in modules,
          do: call

    calls |> Enum.uniq() |> Enum.sort()
  end

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

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

  @doc "The orphans that run what `modules` have written, as `{module, function, arity}`, sorted."
  @spec orphans([module]) :: [mfa]
  def orphans(modules) do
    Enum.sort(
      for %{initial_call: {module, _, _} = call} <- Lineage.orphans(), module in modules, do: call
    )
  end

  @doc "Those that are dead and had no link, likewise, each once."
  @spec recent([module]) :: [mfa]
  def recent(modules) do
    calls =
      for %{initial_call: {module, _, _} = call} <- Lineage.recent(1_000),
          module in modules,
          do: call

    calls |> Enum.uniq() |> Enum.sort()
  end
end

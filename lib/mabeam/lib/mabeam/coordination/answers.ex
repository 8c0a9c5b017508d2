defmodule MABEAM.Coordination.Answers do
  @moduledoc """
  What the built-in protocols have in common: telling answers from failures, and counting
  majorities.
  """

  alias MABEAM.Coordination.Context

  @doc """
  Splits what `MABEAM.Coordination.Context.ask_all/5` returned into what counts and what failed.

  `read` is given each reply, and returns `{:ok, value}` or `:error`; in that case the agent has
  failed with `{:bad_answer, reply}`.
  """
  @spec split([{agent, Context.answer()}], (term -> {:ok, term} | :error)) ::
          {%{agent => term}, %{agent => reason :: term}}
        when agent: MABEAM.Coordination.agent()
  def split(answers, read) do
    Enum.reduce(answers, {%{}, %{}}, fn {agent, answer}, {values, failed} ->
      with {:ok, reply} <- answer, {:ok, value} <- bad_unless(read.(reply), reply) do
        {Map.put(values, agent, value), failed}
      else
        {:error, reason} -> {values, Map.put(failed, agent, reason)}
      end
    end)
  end

  defp bad_unless(:error, reply), do: {:error, {:bad_answer, reply}}
  defp bad_unless({:ok, value}, _reply), do: {:ok, value}

  @doc "How many of `count` agents must agree: more than half, and at least a share `threshold`."
  @spec needed(pos_integer, number) :: pos_integer
  def needed(count, threshold), do: max(div(count, 2) + 1, ceil(count * threshold))

  @doc "Fetches a parameter that must be `good?`, or `default` when it is not given."
  @spec param(map, atom, term, (term -> boolean)) :: {:ok, term} | {:error, {:bad_param, atom}}
  def param(params, key, default, good?) do
    value = Map.get(params, key, default)
    if good?.(value), do: {:ok, value}, else: {:error, {:bad_param, key}}
  end

  @doc "Whether `value` is a share: a number from 0 to 1."
  @spec share?(term) :: boolean
  def share?(value), do: is_number(value) and value >= 0 and value <= 1
end

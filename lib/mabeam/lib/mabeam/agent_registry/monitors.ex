defmodule MABEAM.AgentRegistry.Monitors do
  @moduledoc """
  What the registry's server knows of the processes that it watches: whose they are, how they
  ended, and how often an agent has crashed of late.

  A process is watched as a part of an agent: its `:cell`, its `:pid`, its `:gate`, or the
  `:stopper`, who is just stopping it.
  """

  # watched: reference => {id, part}; references: the other way round; reasons: {id, part} => why
  # it ended; crashes: id => when its agent or gate crashed, in milliseconds, the latest first
  defstruct watched: %{}, references: %{}, reasons: %{}, crashes: %{}

  @type part :: :cell | :pid | :gate | :stopper
  @opaque t :: %__MODULE__{}

  @parts [:cell, :pid, :gate, :stopper]

  @doc "Watches `pid` as this part of the agent, in place of the one before it."
  @spec watch(t, term, part, pid) :: t
  def watch(monitors, id, part, pid) do
    monitors = forget(monitors, id, part)
    reference = Process.monitor(pid)

    %{
      monitors
      | watched: Map.put(monitors.watched, reference, {id, part}),
        references: Map.put(monitors.references, {id, part}, reference)
    }
  end

  @doc "Whose end it is that a monitor tells of, if it is one of these. Its reason is kept."
  @spec down(t, reference, term) :: {:ok, term, part, t} | :error
  def down(monitors, reference, reason) do
    case Map.pop(monitors.watched, reference) do
      {nil, _watched} ->
        :error

      {{id, part} = key, watched} ->
        references = Map.delete(monitors.references, key)
        reasons = Map.put(monitors.reasons, key, reason)
        monitors = %{monitors | watched: watched, references: references, reasons: reasons}
        {:ok, id, part, crash(monitors, id, part, reason)}
    end
  end

  @doc "The monitor of this part of the agent, if it is watched."
  @spec reference(t, term, part) :: reference | nil
  def reference(monitors, id, part), do: monitors.references[{id, part}]

  @doc "Why this part of the agent ended; `nil` if it has not, or that is not known."
  @spec reason(t, term, part) :: term
  def reason(monitors, id, part), do: monitors.reasons[{id, part}]

  @doc "Watches nothing of the agent any more, and forgets how its parts ended."
  @spec forget(t, term) :: t
  def forget(monitors, id), do: Enum.reduce(@parts, monitors, &forget(&2, id, &1))

  @doc "Forgets everything about the agent."
  @spec drop(t, term) :: t
  def drop(monitors, id) do
    monitors = forget(monitors, id)
    %{monitors | crashes: Map.delete(monitors.crashes, id)}
  end

  @doc """
  Whether the agent and its gate have crashed more often than their cell bears.

  The cell counts in whole seconds, and so may see a crash that is up to a second older.
  """
  @spec too_often?(t, term) :: boolean
  def too_often?(monitors, id) do
    length(Map.get(monitors.crashes, id, [])) > intensity(:max_restarts)
  end

  @doc "Whether `reason` is none with which a process ends in order."
  @spec crash?(term) :: boolean
  def crash?(reason), do: reason not in [nil, :normal, :shutdown] and not own_end?(reason)

  @doc "Whether a process that ended so did it by itself, and in order."
  @spec own_end?(term) :: boolean
  def own_end?(:normal), do: true
  def own_end?({:shutdown, _why}), do: true
  def own_end?(_reason), do: false

  defp forget(monitors, id, part) do
    {reference, references} = Map.pop(monitors.references, {id, part})
    if reference, do: Process.demonitor(reference, [:flush])
    watched = Map.delete(monitors.watched, reference)
    reasons = Map.delete(monitors.reasons, {id, part})
    %{monitors | watched: watched, references: references, reasons: reasons}
  end

  defp crash(monitors, id, part, reason) do
    if part in [:pid, :gate] and crash?(reason) do
      now = System.monotonic_time(:millisecond)
      since = now - (intensity(:max_seconds) + 1) * 1_000
      recent = Enum.take_while(Map.get(monitors.crashes, id, []), &(&1 > since))
      %{monitors | crashes: Map.put(monitors.crashes, id, [now | recent])}
    else
      monitors
    end
  end

  defp intensity(key), do: Keyword.fetch!(Foundation.Application.intensity(), key)
end

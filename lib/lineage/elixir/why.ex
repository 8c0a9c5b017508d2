defmodule Lineage.Why do
  @moduledoc """
  What `Lineage.why/1` knows of one process, with the link or the child specification that each answer
  stands on. The type `t:lineage_why.why/0` of the Erlang module explains each key. `:kind` is nil but
  for orphans; what is not known is `:undefined`, and `:unresolved` where a process did not answer.
  """

  defstruct [
    :pid,
    :generation,
    :verdict,
    :kind,
    :name,
    :label,
    :app,
    :initial_call,
    :age_ms,
    :site,
    :seeded,
    :traps_exits,
    :parent,
    :spawner,
    :ancestors,
    :stopped_by,
    :restarted_by,
    :noticed_by,
    :noticed_count,
    :may_survive,
    :survives
  ]

  @type t :: %__MODULE__{
          pid: pid,
          verdict: :supervised | :tethered | :orphan | :runtime | :host | :root | :unresolved,
          kind: Lineage.kind() | nil,
          ancestors: [map],
          stopped_by: [map] | :unresolved,
          restarted_by: map | :nobody | :unresolved,
          noticed_by: [map] | :unresolved,
          may_survive: boolean | :unresolved
        }

  defimpl Inspect do
    def inspect(why, _opts) do
      kind = if why.kind, do: " (#{why.kind})", else: ""

      "#Lineage.Why<#{Kernel.inspect(why.pid)} #{why.verdict}#{kind}, " <>
        "stopped by #{stopped_by(why.stopped_by)}, restarted by #{restarted_by(why.restarted_by)}, " <>
        "noticed by #{noticed_by(why)}>"
    end

    defp stopped_by([]), do: "nobody"
    defp stopped_by([first | _]), do: "#{Kernel.inspect(first.pid)} (#{first.how})"
    defp stopped_by(:unresolved), do: "unresolved"

    defp restarted_by(%{pid: pid, restart: restart}), do: "#{Kernel.inspect(pid)} (#{restart})"
    defp restarted_by(answer), do: "#{answer}"

    defp noticed_by(%{noticed_by: :unresolved}), do: "unresolved"
    defp noticed_by(%{noticed_count: 0}), do: "nobody"
    defp noticed_by(%{noticed_count: count}), do: "#{count}"
  end
end

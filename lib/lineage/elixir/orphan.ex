defmodule Lineage.Orphan do
  @moduledoc """
  One row of `Lineage.orphans/1`: a live process that nobody would stop.

  `:pid`, `:generation` (tells it from others that have borne its pid), `:kind`, `:parent`, `:guardian`
  (the process that it was linked to), `:initial_call`, `:spawner` (its parent's initial call), `:site`,
  `:name`, `:label`, `:app`, `:age_ms`, `:monitored` (`:yes` or `:no`), `:direct` (false below another
  orphan), `:root` (the top of its component) and `:why` (who would stop it otherwise). What is not
  known is `:undefined`.
  """

  defstruct [
    :pid,
    :generation,
    :kind,
    :parent,
    :guardian,
    :initial_call,
    :spawner,
    :site,
    :name,
    :label,
    :app,
    :age_ms,
    :monitored,
    :direct,
    :root,
    :why
  ]

  @type t :: %__MODULE__{
          pid: pid,
          generation: non_neg_integer,
          kind: Lineage.kind(),
          parent: pid | {node, non_neg_integer} | :undefined,
          guardian: pid | :undefined,
          initial_call: mfa | :undefined,
          spawner: mfa | :undefined,
          site: map | :undefined,
          name: atom,
          label: atom | String.t(),
          app: atom,
          age_ms: non_neg_integer,
          monitored: :yes | :no,
          direct: boolean,
          root: pid,
          why: [tuple]
        }

  defimpl Inspect do
    def inspect(orphan, _opts) do
      "#Lineage.Orphan<#{Kernel.inspect(orphan.pid)} #{orphan.kind}, " <>
        "#{:lineage_describe.mfa(orphan.initial_call)}, #{orphan.age_ms} ms, " <>
        "spawned by #{Kernel.inspect(orphan.parent)}>"
    end
  end
end

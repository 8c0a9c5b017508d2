defmodule MABEAM.Coordination.Metrics do
  @moduledoc """
  The events of coordinations, by `Foundation.Telemetry.execute/3`.

  | event | when | measurements |
  | --- | --- | --- |
  | `[:mabeam, :coordination, :start]` | an attempt begins | `:system_time` |
  | `[:mabeam, :coordination, :stop]` | its protocol answered, or it was cancelled | `:duration` |
  | `[:mabeam, :coordination, :exception]` | it crashed or reached its deadline | `:duration` |
  | `[:mabeam, :coordination, :takeover]` | a session of a lost node is settled here | `:count` |

  Times are in native units. The metadata is `:session`, `:protocol`, `:agents` (how many),
  `:attempt`, and

    * at `:stop` the `:status`: `:completed`, `:failed` or `:cancelled`
    * at `:exception` the `:reason`, and whether it will `:retry`
    * at `:takeover` the node that it is taken `:from`, and the `:action`: `:restart` or `:report`

  What went wrong is reported to `Foundation.Events`, too, as `:coordination_failed` and
  `:coordination_taken_over`.
  """

  alias Foundation.{Events, Telemetry}

  @doc "An attempt begins."
  @spec started(MABEAM.Coordination.Session.t()) :: :ok
  def started(session) do
    execute(:start, %{system_time: System.system_time()}, metadata(session))
  end

  @doc "An attempt has ended as it should."
  @spec stopped(MABEAM.Coordination.Session.t(), :completed | :failed | :cancelled) :: :ok
  def stopped(session, status) do
    execute(:stop, duration(session), Map.put(metadata(session), :status, status))
  end

  @doc "An attempt has ended without an answer."
  @spec failed(MABEAM.Coordination.Session.t(), reason :: term, retry? :: boolean) :: :ok
  def failed(session, reason, retry?) do
    metadata = Map.merge(metadata(session), %{reason: reason, retry: retry?})
    execute(:exception, duration(session), metadata)
    Events.report(:coordination_failed, metadata)
  end

  @doc "A session of the node `from` is run again here, or was reported as lost."
  @spec taken_over(map, node, :restart | :report) :: :ok
  def taken_over(record, from, action) do
    metadata = %{
      session: record.id,
      protocol: record.protocol,
      agents: length(record.agents),
      attempt: 1,
      from: from,
      action: action
    }

    execute(:takeover, %{count: 1}, metadata)
    Events.report(:coordination_taken_over, metadata)
  end

  defp execute(name, measurements, metadata) do
    _ = Telemetry.execute([:mabeam, :coordination, name], measurements, metadata)
    :ok
  end

  # Between two attempts.
  defp duration(%{began: nil}), do: %{duration: 0}
  defp duration(session), do: %{duration: System.monotonic_time() - session.began}

  defp metadata(session) do
    %{
      session: session.id,
      protocol: session.protocol,
      agents: length(session.agents),
      attempt: session.attempt
    }
  end
end

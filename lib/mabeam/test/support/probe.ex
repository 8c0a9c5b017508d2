defmodule MABEAM.Test.Probe do
  @moduledoc """
  Hands the events of one coordination to its test, as `{:event, name, measurements, metadata}`.
  """

  alias Foundation.Telemetry

  @doc "Listens to the events of coordinations of `protocol` until the calling test ends."
  @spec listen!(MABEAM.Coordination.protocol()) :: :ok
  def listen!(protocol) do
    for name <- [:start, :stop, :exception, :takeover] do
      id = {__MODULE__, self(), name}
      event = [:mabeam, :coordination, name]
      :ok = Telemetry.attach(id, event, &__MODULE__.handle/4, {self(), protocol})
      ExUnit.Callbacks.on_exit(fn -> Telemetry.detach(id) end)
    end

    :ok
  end

  @doc false
  def handle(event, measurements, %{protocol: protocol} = metadata, {test, protocol}),
    do: send(test, {:event, List.last(event), measurements, metadata})

  def handle(_event, _measurements, _metadata, _config), do: :ok
end

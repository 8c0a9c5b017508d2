defmodule UserLeaks.Application do
  @moduledoc "An application with what all its users share: supervisors, a registry, a server of mocks."
  use Application

  @impl true
  def start(_type, _args) do
    children = [
      {DynamicSupervisor, name: UserLeaks.Dynamic, max_restarts: 1000},
      {Task.Supervisor, name: UserLeaks.Tasks},
      {Registry, keys: :unique, name: UserLeaks.Registry},
      {PartitionSupervisor, child_spec: DynamicSupervisor, name: UserLeaks.Partitions},
      %{
        id: UserLeaks.Static,
        start: {Supervisor, :start_link, [[], [strategy: :one_for_one, name: UserLeaks.Static]]},
        type: :supervisor
      },
      UserLeaks.Mock
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: UserLeaks.Supervisor)
  end
end

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
      %{
        id: UserLeaks.Permanent,
        start:
          {Supervisor, :start_link,
           [
             [{UserLeaks.Server, init: &__MODULE__.up/0}],
             [strategy: :one_for_one, max_restarts: 1000, name: UserLeaks.Permanent]
           ]},
        type: :supervisor
      },
      UserLeaks.Mock
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: UserLeaks.Supervisor)
  end

  @doc "Tells the process that is registered as `UserLeaks.Listener`, if there is one, that the caller is up."
  def up do
    if pid = Process.whereis(UserLeaks.Listener), do: send(pid, {:up, self()})
  end
end

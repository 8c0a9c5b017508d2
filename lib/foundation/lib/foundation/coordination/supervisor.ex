defmodule Foundation.Coordination.Supervisor do
  @moduledoc """
  The servers of the coordination between nodes, in the order in which they need each other.

  They need `Foundation.TaskSupervisor`.
  """
  use Supervisor

  alias Foundation.Coordination.{Cluster, Feed, Member, Sweeper, Watchers}

  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]) do
    children = [
      {Foundation.TableKeeper, name: Foundation.Coordination.TableKeeper, tables: tables()},
      Watchers,
      Feed,
      Cluster.Server,
      Sweeper,
      Member
    ]

    Supervisor.init(children, [strategy: :one_for_one] ++ Foundation.Application.intensity())
  end

  # Public where tasks of the owner write.
  defp tables, do: [{Watchers, [:bag]}, Feed, {Cluster, [:public]}, {Sweeper, [:public]}]
end

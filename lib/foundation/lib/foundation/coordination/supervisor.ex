defmodule Foundation.Coordination.Supervisor do
  @moduledoc """
  The servers of the coordination between nodes, in the order in which they need each other.

  They need `Foundation.TaskSupervisor`.
  """
  use Supervisor

  alias Foundation.Coordination.{Cluster, Feed, Member, Queue, Sweeper, Watchers}

  @keeper Foundation.Coordination.TableKeeper

  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]) do
    # Those of a supervisor that was killed may not have heard of it yet, and still have their
    # names.
    names = [@keeper, Watchers, Feed, Cluster.Server, Queue, Sweeper, Member]
    :ok = Foundation.Termination.await(names)

    children = [
      {Foundation.TableKeeper, name: @keeper, tables: tables()},
      Watchers,
      Feed,
      Cluster.Server,
      Queue,
      Sweeper,
      Member
    ]

    Supervisor.init(children, [strategy: :one_for_one] ++ Foundation.Application.intensity())
  end

  # Public where tasks of the owner write.
  defp tables, do: [{Watchers, [:bag]}, Feed, {Cluster, [:public]}, {Sweeper, [:public]}]
end

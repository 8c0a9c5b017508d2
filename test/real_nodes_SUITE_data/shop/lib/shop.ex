defmodule Shop.Application do
  @moduledoc false
  use Application

  def start(_type, _args) do
    children = [
      {Registry, keys: :unique, name: Shop.Names},
      {Registry, keys: :duplicate, name: Shop.Topics, partitions: 2},
      {DynamicSupervisor, name: Shop.Carts},
      {Task.Supervisor, name: Shop.Tasks},
      {PartitionSupervisor, child_spec: DynamicSupervisor, name: Shop.Parts},
      {Agent, fn -> 0 end}
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: Shop.Supervisor)
  end
end

defmodule Shop do
  @moduledoc false

  # Work of every usual kind, left running: carts, tasks, partitions.
  def open(count) do
    for n <- 1..count do
      name = {:via, Registry, {Shop.Names, {self(), n}}}
      {:ok, _} = DynamicSupervisor.start_child(Shop.Carts, {Agent, fn -> Process.sleep(0) end})
      {:ok, _} = DynamicSupervisor.start_child(Shop.Carts, cart(name))
      {:ok, _} = Task.Supervisor.start_child(Shop.Tasks, Process, :sleep, [:infinity])
      Task.Supervisor.async_nolink(Shop.Tasks, Process, :sleep, [:infinity])
      part = {:via, PartitionSupervisor, {Shop.Parts, n}}
      {:ok, _} = DynamicSupervisor.start_child(part, {Agent, fn -> n end})
    end

    :ok
  end

  defp cart(name) do
    %{id: name, start: {Agent, :start_link, [fn -> [] end, [name: name]]}}
  end
end

defmodule Foundation.BEAM.Ecosystem do
  @moduledoc """
  The supervisor of one ecosystem: a coordinator, and workers.
  """
  use Supervisor, restart: :temporary

  alias Foundation.BEAM.{Processes, Watcher}

  # What a group of workers may have at most: more is a slip.
  @max_count 100_000

  @typep config :: %{coordinator: Processes.child(), workers: [Processes.workers()]}

  @doc false
  @spec start_link(config) :: Supervisor.on_start()
  def start_link(config), do: Supervisor.start_link(__MODULE__, config)

  @impl true
  def init(config) do
    coordinator = Supervisor.child_spec(coordinator(config.coordinator), id: :coordinator)
    children = [coordinator | workers(config)]

    case Watcher.watch(:ecosystem) do
      :ok ->
        Supervisor.init(children, [strategy: :one_for_one] ++ Foundation.Application.intensity())

      {:error, _reason} ->
        :ignore
    end
  end

  @doc "Checks a configuration, and gives it back with all keys."
  @spec check(term) :: {:ok, config} | {:error, Processes.bad_config()}
  def check(config) when is_list(config) do
    if Keyword.keyword?(config), do: config |> Map.new() |> check(), else: {:error, :bad_config}
  end

  def check(%{coordinator: coordinator} = config) do
    workers = Map.get(config, :workers, [])

    cond do
      Map.keys(config) -- [:coordinator, :workers] != [] -> {:error, :bad_config}
      not coordinator?(coordinator) -> {:error, {:bad_coordinator, coordinator}}
      not proper?(workers) -> {:error, {:bad_workers, workers}}
      bad = Enum.find(workers, &(not workers?(&1))) -> {:error, {:bad_workers, bad}}
      true -> {:ok, %{coordinator: coordinator, workers: workers}}
    end
  end

  def check(_config), do: {:error, :bad_config}

  defp coordinator?({module, function, arguments}) do
    is_atom(module) and is_atom(function) and proper?(arguments) and
      Code.ensure_loaded?(module) and function_exported?(module, function, length(arguments))
  end

  defp coordinator?({module, _argument}), do: child?(module)
  defp coordinator?(module), do: child?(module)

  defp workers?({module, _argument, count}),
    do: child?(module) and is_integer(count) and count in 1..@max_count

  defp workers?(_other), do: false

  defp child?(module) do
    is_atom(module) and Code.ensure_loaded?(module) and function_exported?(module, :child_spec, 1)
  end

  defp proper?(list), do: is_list(list) and not List.improper?(list)

  defp coordinator({module, function, arguments}) do
    run = fn -> apply(module, function, arguments) end
    Supervisor.child_spec({Task, run}, restart: :transient)
  end

  defp coordinator(child), do: child

  defp workers(config) do
    for {{module, argument, count}, group} <- Enum.with_index(config.workers), n <- 1..count do
      Supervisor.child_spec({module, argument}, id: {:worker, group, n})
    end
  end
end

defmodule Foundation.BEAM.Processes do
  @moduledoc """
  Processes made together, and work in a process of its own.

  An ecosystem is a coordinator and workers under a supervisor of their own, which restarts those
  that die. It is named by that supervisor's pid:

      {:ok, ecosystem} =
        Foundation.BEAM.Processes.spawn_ecosystem(
          coordinator: {Shop.Till, name: :till},
          workers: [{Shop.Clerk, [], 3}]
        )

      :ok = Foundation.BEAM.Processes.shutdown_ecosystem(ecosystem)

  Work that needs much memory for a while is done by a process whose heap goes with it, instead of
  growing the caller's:

      alias Foundation.BEAM.Processes
      {:ok, _pid} = Processes.isolate_memory_intensive_work(fn -> Report.sum(file) end)

      receive do
        {:work_complete, sum} -> sum
        {:work_error, reason} -> raise "no sum: " <> inspect(reason)
      end
  """
  alias Foundation.{Call, Legacy, Supervision}
  alias Foundation.BEAM.{Ecosystem, EcosystemSupervisor, Watcher, Work}

  # Milliseconds that an ecosystem has to shut down.
  @shutdown 30_000

  @typedoc """
  A module with `child_spec/1`, or it and the argument for that. A coordinator may also be a
  function, its module and its arguments: it runs in a task, and is restarted when it fails.
  """
  @type child ::
          module | {module, argument :: term} | {module, function :: atom, arguments :: list}

  @typedoc """
  So many workers of a module with `child_spec/1`, which gets the argument; at most 100,000.
  """
  @type workers :: {module, argument :: term, count :: pos_integer}

  @type bad_config :: :bad_config | {:bad_coordinator, term} | {:bad_workers, term}

  @doc """
  Starts an ecosystem, and returns its supervisor when the coordinator and all workers have
  started.

  `config` is a keyword list or map with `:coordinator` and, if there are any, `:workers`. When
  one of them does not start, none is left, and the reason is the supervisor's. Ecosystems start
  one after the other: a start that does not return holds up its caller, and the next ones.

  An ecosystem whose supervisor dies is not started anew: that is reported as the event
  `:ecosystem_lost`, and counted.
  """
  @spec spawn_ecosystem(keyword | map) :: {:ok, pid} | {:error, bad_config | :unavailable | term}
  def spawn_ecosystem(config) do
    with {:ok, config} <- Ecosystem.check(config) do
      case DynamicSupervisor.start_child(EcosystemSupervisor, {Ecosystem, config}) do
        {:ok, ecosystem} -> {:ok, ecosystem}
        :ignore -> {:error, :unavailable}
        {:error, reason} -> {:error, reason}
      end
    end
  catch
    :exit, {_reason, {GenServer, :call, _arguments}} -> {:error, :unavailable}
  end

  @doc """
  Ends an ecosystem, and returns when its supervisor, its coordinator and its workers are gone.

  They have the time that their child specifications give them to shut down. `{:error, :timeout}`
  after 30 seconds; it goes on ending then.
  """
  @spec shutdown_ecosystem(pid) :: :ok | {:error, :not_found | :timeout}
  def shutdown_ecosystem(ecosystem) do
    if Watcher.ecosystem?(ecosystem) do
      :ok = Supervisor.stop(ecosystem, {:shutdown, :ecosystem}, @shutdown)
      Watcher.done(ecosystem)
    else
      {:error, :not_found}
    end
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _gone -> {:error, :not_found}
  end

  @doc """
  What an ecosystem consists of now, and the memory that its coordinator and workers take, in
  bytes.

  A process that is just being restarted is not among them; `coordinator` is then `nil`.
  """
  @spec ecosystem_info(pid) ::
          {:ok,
           %{
             supervisor: pid,
             coordinator: pid | nil,
             workers: [pid],
             memory_bytes: non_neg_integer
           }}
          | {:error, :not_found | :timeout}
  def ecosystem_info(ecosystem) do
    with true <- Watcher.ecosystem?(ecosystem),
         children when is_list(children) <- Call.call(ecosystem, :which_children) do
      running = for {id, pid, _type, _modules} <- children, is_pid(pid), do: {id, pid}
      {coordinators, workers} = Enum.split_with(running, &match?({:coordinator, _pid}, &1))

      {:ok,
       %{
         supervisor: ecosystem,
         coordinator: coordinators |> Keyword.values() |> List.first(),
         workers: Enum.map(workers, &elem(&1, 1)),
         memory_bytes: running |> Enum.map(&memory(elem(&1, 1))) |> Enum.sum()
       }}
    else
      {:error, :timeout} -> {:error, :timeout}
      _gone -> {:error, :not_found}
    end
  end

  @doc """
  Calls `fun` in a process of its own, whose pid it returns.

  `caller` gets `{:work_complete, result}`, or `{:work_error, reason}` when `fun` failed: with the
  exception, the reason of the exit, or `{:nocatch, value}`. The caller's end does not end the
  work.

  With phase 1 on, the process is a task of `Foundation.TaskSupervisor`, and the caller gets
  `{:work_error, reason}` also when it is killed. With phase 1 off nobody supervises it, and then
  the caller hears nothing.
  """
  @spec isolate_memory_intensive_work((() -> term), pid) ::
          {:ok, pid} | {:error, :bad_function | :bad_pid | :not_alive | :unavailable | :timeout}
  def isolate_memory_intensive_work(fun, caller \\ self()) do
    cond do
      not is_function(fun, 0) -> {:error, :bad_function}
      not is_pid(caller) -> {:error, :bad_pid}
      node(caller) == node() and not Process.alive?(caller) -> {:error, :not_alive}
      Supervision.enabled?(:phase_1) -> Work.start(fun, caller)
      true -> Legacy.Processes.start(fun, caller)
    end
  end

  defp memory(pid) do
    case Process.info(pid, :memory) do
      {:memory, bytes} -> bytes
      nil -> 0
    end
  end
end

defmodule Foundation.Test.Peer do
  @moduledoc """
  What `Foundation.Test.Cluster` and the tests have done on the cluster's nodes.
  """
  alias Foundation.{Call, Events, Telemetry}
  alias Foundation.Coordination.{Cluster, Ledger, Store}

  @doc """
  Starts `apps`, with `env` set and Lineage attached before if it shall be (`true`, or the options of
  attach); without logging.
  """
  @spec start([atom], [{atom, atom, term}], boolean | keyword) :: :ok
  def start(apps, env, lineage) do
    if lineage, do: {:ok, _info} = Lineage.attach(if lineage == true, do: [], else: lineage)

    for {app, key, value} <- [{:logger, :level, :none} | env] do
      Application.load(app)
      Application.put_env(app, key, value)
    end

    for app <- apps, do: {:ok, _started} = Application.ensure_all_started(app)
    :ok
  end

  @doc "Returns when no task of `supervisor` runs any more, those that are started meanwhile included."
  @spec quiet(Supervisor.supervisor()) :: :ok
  def quiet(supervisor \\ Foundation.TaskSupervisor) do
    case Task.Supervisor.children(supervisor) do
      [] ->
        :ok

      pids ->
        for ref <- Enum.map(pids, &Process.monitor/1) do
          receive do
            {:DOWN, ^ref, :process, _pid, _reason} -> :ok
          end
        end

        quiet(supervisor)
    end
  end

  @doc """
  What runs under Foundation's supervisors but for tasks, each by the names of those above it.
  """
  @spec census() :: [[term]]
  def census, do: Foundation.Supervisor |> children([]) |> Enum.sort()

  defp children(Foundation.TaskSupervisor, _above), do: []

  defp children(supervisor, above) do
    for {id, pid, type, _modules} <- Supervisor.which_children(supervisor),
        row <-
          if(type == :supervisor, do: children(name(pid), [id | above]), else: [[id | above]]),
        do: row
  end

  defp name(pid) do
    {:registered_name, name} = Process.info(pid, :registered_name)
    name
  end

  @doc "The orphans on this node, as Lineage finds them: what each runs, and their kinds."
  @spec orphans() :: [{mfa, atom}]
  def orphans, do: Enum.map(Lineage.orphans(), &{&1.initial_call, &1.kind})

  @doc """
  What processes that are dead and had no link ran of `module`: its functions, each once, sorted.
  """
  @spec recent(module) :: [atom]
  def recent(module) do
    functions =
      for %{initial_call: {^module, function, _arity}} <- Lineage.recent(10_000), do: function

    functions |> Enum.uniq() |> Enum.sort()
  end

  @doc "How many processes have been seen here, alive or dead, that run what `module` has."
  @spec births_of(module) :: non_neg_integer
  def births_of(module) do
    rows = Lineage.recent(10_000) ++ Lineage.orphans()
    Enum.count(rows, &match?(%{initial_call: {^module, _function, _arity}}, &1))
  end

  @doc "Returns when an event with this type and data is stored."
  @spec await_event(atom, term) :: :ok
  def await_event(type, data) do
    wait([:foundation, :events, :stored], fn ->
      {:ok, events} = Events.query(type: type)
      Enum.any?(events, &(&1.data == data))
    end)
  end

  # Looks again whenever `event` is executed.
  defp wait(event, done?) do
    id = make_ref()
    :ok = Telemetry.attach(id, event, &__MODULE__.look_again/4, {self(), id})
    wait_until(id, done?)
    Telemetry.detach(id)
    :ok
  end

  defp wait_until(id, done?) do
    if not done?.() do
      receive do
        ^id -> wait_until(id, done?)
      end
    end
  end

  @doc false
  def look_again(_event, _measurements, _metadata, {pid, id}), do: send(pid, id)

  @doc "Returns when this node has `value` under the ledger's `key`."
  @spec await_value(Ledger.key(), term) :: :ok
  def await_value({tag, _term} = key, value),
    do: watch(tag, fn -> Ledger.peek(key) == {:ok, value} end)

  @doc "Returns when there are `count` keys with `tag`."
  @spec await_keys(term, non_neg_integer) :: :ok
  def await_keys(tag, count) do
    watch(tag, fn ->
      {:ok, keys} = Ledger.transaction(fn -> Ledger.keys(tag) end, 5_000)
      length(keys) == count
    end)
  end

  defp watch(tag, done?) do
    :ok = Ledger.subscribe(tag)
    watch_until(done?)
    Ledger.unsubscribe(tag)
  end

  defp watch_until(done?) do
    if not done?.() do
      receive do
        {:foundation_ledger, _key, _change} -> watch_until(done?)
      end
    end
  end

  @doc "Takes `name`, tells who waits for it, and waits."
  @spec wait_for_ever(atom) :: no_return
  def wait_for_ever(name) do
    Process.register(self(), name)
    Telemetry.execute([:peer, :named], %{}, %{})
    receive do: (:never -> :ok)
  end

  @doc "Returns when a process has `name`."
  @spec await_name(atom) :: :ok
  def await_name(name), do: wait([:peer, :named], fn -> Process.whereis(name) != nil end)

  @doc "Returns when the process with `name` is dead."
  @spec await_end(atom) :: :ok
  def await_end(name) do
    ref = Process.monitor(name)

    receive do
      {:DOWN, ^ref, :process, _name, _reason} -> :ok
    end
  end

  @doc "Kills the process with this name, or any task for `:task`; whether there was one."
  @spec kill(atom) :: boolean
  def kill(name) do
    case victims(name) do
      [] -> false
      pids -> pids |> Enum.random() |> Process.exit(:kill)
    end
  end

  defp victims(:task) do
    load = Process.whereis(Foundation.Test.Load)
    Task.Supervisor.children(Foundation.TaskSupervisor) -- [load]
  end

  defp victims(name), do: List.wrap(Process.whereis(name))

  @doc "Lets mnesia join that of `nodes`, and leave it at once."
  @spec visit([node]) :: :ok
  def visit(nodes) do
    :ok = Store.restart()
    :ok = Store.join(nodes, Call.deadline(10_000))
    Store.stop()
  end

  @doc "Lets connections to and from `node` fail, those that will be tried."
  @spec refuse(node) :: :ok
  def refuse(node) do
    true = :erlang.set_cookie(node, :"apart-#{node()}")
    :ok
  end

  @doc "Lets connections to and from `node` succeed, if that node does, too."
  @spec accept(node, atom) :: :ok
  def accept(node, cookie) do
    true = :erlang.set_cookie(node, cookie)
    :ok
  end

  @doc "Ends the connection to `node`, and returns when this node has noticed."
  @spec disconnect(node) :: :ok
  def disconnect(node) do
    :ok = :net_kernel.monitor_nodes(true)
    :erlang.disconnect_node(node)

    if node in Node.list() do
      receive do
        {:nodedown, ^node} -> :ok
      end
    end

    :ok = :net_kernel.monitor_nodes(false)
  end

  @doc """
  Returns `:ok` when `nodes` are the composition of the majority, else what it is after `timeout`.
  """
  @spec await_view([node], non_neg_integer) :: :ok | term
  def await_view(nodes, timeout), do: subscribed(&(&1 == nodes), timeout)

  @doc """
  Returns `{:ok, nodes}`, the composition of a majority of two, when this node is part of one.
  """
  @spec await_view_of_two(non_neg_integer) :: {:ok, [node]} | term
  def await_view_of_two(timeout) do
    with :ok <- subscribed(&match?([_, _], &1), timeout),
         {:ok, {_epoch, nodes}} <- Cluster.view(),
         do: {:ok, nodes}
  end

  defp subscribed(wanted?, timeout) do
    :ok = Cluster.subscribe()
    timer = Process.send_after(self(), :too_late, timeout)
    result = wait_for_view(wanted?)
    Process.cancel_timer(timer)
    :ok = Cluster.unsubscribe()
    result
  end

  defp wait_for_view(wanted?) do
    with {:ok, {_epoch, nodes}} <- Cluster.view(), true <- wanted?.(nodes) do
      :ok
    else
      other ->
        receive do
          {:foundation_cluster, {:view, _nodes}} -> wait_for_view(wanted?)
          :too_late -> {other, Cluster.view(), Node.list()}
        end
    end
  end
end

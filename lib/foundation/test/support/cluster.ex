defmodule Foundation.Test.Cluster do
  @moduledoc """
  Nodes of their own for a test, each an operating system process, which can be parted and brought
  together.

      cluster = Cluster.start()
      [a, b, c] = cluster.members
      Cluster.await_view(cluster, cluster.members)
      Cluster.part(cluster, [[a], [b, c]])
      Cluster.call(cluster, b, Primitives, :increment_counter, [:n, 1])
      Cluster.heal(cluster)

  They are told what to do through their standard input and output, so that the test reaches them
  whatever becomes of their connections to each other, and needs not be distributed itself. A pair
  of nodes that is parted has different cookies for each other. The nodes end with the test.

  A function that is called there must be in a compiled module: in `lib` or `test/support`, not in
  the test.
  """
  alias Foundation.Test.Peer

  @enforce_keys [:members, :options]
  defstruct [:members, :options]

  @type t :: %__MODULE__{members: [node], options: keyword}

  # For what a node does at once; a loaded machine is slow to schedule three of them.
  @call_ms 30_000
  @cookie :together

  @doc """
  Starts three nodes with Foundation, whose members they are, and returns when they run. They may
  not have come together yet.

    * `:size` - how many nodes
    * `:apps` - the applications to start, `[:foundation]` unless told
    * `:env` - `[{application, key, value}]`, set before they start
    * `:lineage` - whether they attach Lineage before they start the applications: `true`, or the options of attach
  """
  @spec start(keyword) :: t
  def start(options \\ []) do
    tag = System.unique_integer([:positive])
    run = :rand.uniform(1_000_000)

    members = for n <- 1..Keyword.get(options, :size, 3), do: :"m#{n}-#{run}-#{tag}@127.0.0.1"

    cluster = %__MODULE__{members: members, options: options}
    Enum.each(members, &start_node(cluster, &1))
    cluster
  end

  @doc """
  Starts a node of the cluster that has been killed, and returns when it runs: with an empty
  memory.
  """
  @spec start_node(t, node) :: :ok
  def start_node(cluster, node) do
    [name, host] = node |> Atom.to_string() |> String.split("@")

    options = %{
      name: String.to_atom(name),
      host: String.to_charlist(host),
      longnames: true,
      connection: :standard_io,
      args: arguments()
    }

    ExUnit.Callbacks.start_supervised!(%{
      id: node,
      start: {__MODULE__, :start_peer, [node, options]},
      restart: :temporary
    })

    env = [{:foundation, :members, cluster.members} | Keyword.get(cluster.options, :env, [])]
    apps = Keyword.get(cluster.options, :apps, [:foundation])
    :ok = call(cluster, node, Peer, :start, [apps, env, cluster.options[:lineage] || false])
  end

  @doc false
  def start_peer(node, options) do
    with {:ok, pid, ^node} <- :peer.start_link(options) do
      Process.register(pid, node)
      {:ok, pid}
    end
  end

  defp arguments do
    paths = Enum.reject(:code.get_path(), &List.starts_with?(&1, :code.lib_dir()))
    # Several nodes share few cores: none of them is to keep one busy with waiting.
    idle = ~w(+sbwt none +sbwtdcpu none +sbwtdio none)
    flags = idle ++ ~w(-setcookie #{@cookie} -kernel logger_level none -pa)
    Enum.map(flags, &String.to_charlist/1) ++ paths
  end

  @doc "Calls a function on `node`; fails as it fails, or when it takes longer than `timeout`."
  @spec call(t, node, module, atom, [term], timeout) :: term
  def call(_cluster, node, module, function, arguments, timeout \\ @call_ms) do
    :peer.call(node, module, function, arguments, timeout)
  end

  @doc "Calls a function on each of `nodes` at once, and returns the results in their order."
  @spec call_each(t, [node], module, atom, [term], timeout) :: [term]
  def call_each(cluster, nodes, module, function, arguments, timeout \\ @call_ms) do
    supervisor = ExUnit.Callbacks.start_supervised!(Task.Supervisor, id: make_ref())

    nodes
    |> Enum.map(fn node ->
      Task.Supervisor.async(supervisor, __MODULE__, :call, [
        cluster,
        node,
        module,
        function,
        arguments,
        timeout
      ])
    end)
    |> Task.await_many(timeout + @call_ms)
  end

  @doc """
  Parts the nodes into `groups`, and returns when no node is connected to one of another group.

  Within a group they may be apart for a moment, too, as `:global` sees to it that no partitions
  overlap.
  """
  @spec part(t, [[node]]) :: :ok
  def part(cluster, groups) do
    pairs = for group <- groups, a <- group, b <- List.flatten(groups) -- group, do: {a, b}
    Enum.each(pairs, fn {a, b} -> call(cluster, a, Peer, :refuse, [b]) end)
    Enum.each(pairs, fn {a, b} -> call(cluster, a, Peer, :disconnect, [b]) end)
  end

  @doc """
  Cuts the connection between two nodes only: they are parted, and yet both may be connected to
  the others.
  """
  @spec cut(t, node, node) :: :ok
  def cut(cluster, a, b) do
    for {x, y} <- [{a, b}, {b, a}], do: call(cluster, x, Peer, :refuse, [y])
    for {x, y} <- [{a, b}, {b, a}], do: call(cluster, x, Peer, :disconnect, [y])
    :ok
  end

  @doc "Lets two nodes connect to each other again."
  @spec join(t, node, node) :: :ok
  def join(cluster, a, b) do
    for {x, y} <- [{a, b}, {b, a}], do: call(cluster, x, Peer, :accept, [y, @cookie])
    :ok
  end

  @doc "Lets all nodes connect to each other again."
  @spec heal(t) :: :ok
  def heal(cluster) do
    for a <- cluster.members, b <- cluster.members -- [a] do
      call(cluster, a, Peer, :accept, [b, @cookie])
    end

    :ok
  end

  @doc "Ends a node as a crash of its machine would, and returns when it is gone."
  @spec kill(t, node) :: :ok
  def kill(_cluster, node) do
    pid = Process.whereis(node)
    ref = Process.monitor(pid)
    :peer.cast(node, :erlang, :halt, [1, [flush: false]])

    receive do
      {:DOWN, ^ref, :process, ^pid, _reason} -> :ok
    after
      @call_ms -> raise "#{node} lives on"
    end
  end

  @doc """
  Returns when `nodes` are the composition of the majority, as each of them sees it; or fails
  after `timeout`.
  """
  @spec await_view(t, [node], timeout) :: :ok
  def await_view(cluster, nodes, timeout \\ @call_ms) do
    nodes = Enum.sort(nodes)

    for node <- nodes do
      case call(cluster, node, Peer, :await_view, [nodes, timeout], timeout + @call_ms) do
        :ok -> :ok
        other -> raise "#{node} sees #{inspect(other)} instead of #{inspect(nodes)}"
      end
    end

    :ok
  end
end

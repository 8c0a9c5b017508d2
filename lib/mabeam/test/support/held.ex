defmodule MABEAM.Test.Held do
  @moduledoc """
  A coordination protocol for nodes that a test does not share a connection with: it is held until
  the test lets it go, by a call on the node that runs it.

  On each node a server, `start/0`, hears who is held and which events of coordinations there
  were, so that a test can wait for either.
  """
  use GenServer

  alias Foundation.Coordination.Ledger
  alias Foundation.Telemetry
  alias Foundation.Test.Peer
  alias MABEAM.Coordination.Store

  @behaviour MABEAM.Coordination.Protocol

  @await_ms 30_000

  @impl MABEAM.Coordination.Protocol
  def on_node_down, do: :restart

  @impl MABEAM.Coordination.Protocol
  def run(_agents, params, context) do
    GenServer.cast(__MODULE__, {:note, {:held, context.session}, self()})
    GenServer.cast(__MODULE__, {:note, {:tag, params[:tag]}, context.session})
    receive do: ({:let_go, result} -> result)
  end

  defmodule Report do
    @moduledoc "The same; it is not run again when its node goes down."
    @behaviour MABEAM.Coordination.Protocol

    @impl true
    defdelegate run(agents, params, context), to: MABEAM.Test.Held
  end

  @doc "Starts the server on this node, and registers the protocols `:held` and `:report`."
  @spec start() :: :ok
  def start do
    {:ok, _pid} = Supervisor.start_child(MABEAM.Supervisor, __MODULE__)
    :ok = MABEAM.Coordination.register_protocol(:held, __MODULE__)
    :ok = MABEAM.Coordination.register_protocol(:report, Report)
  end

  @doc false
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Returns when the session is held on this node, with the process that runs it."
  @spec await_held(reference) :: pid
  def await_held(session), do: GenServer.call(__MODULE__, {:await, {:held, session}}, @await_ms)

  @doc "Returns the metadata of an event of this session when there was one on this node."
  @spec await_event(atom, reference) :: map
  def await_event(event, session),
    do: GenServer.call(__MODULE__, {:await, {event, session}}, @await_ms)

  @doc "How often the session was held on this node."
  @spec times_held(reference) :: non_neg_integer
  def times_held(session), do: GenServer.call(__MODULE__, {:count, {:held, session}})

  @doc "Lets a session that is held on this node return `result`."
  @spec let_go(reference, term) :: :ok
  def let_go(session, result) do
    send(await_held(session), {:let_go, result})
    :ok
  end

  @doc "A coordination that nobody waits for, held on this node."
  @spec begin(atom, keyword) :: reference
  def begin(protocol, options \\ []) do
    {:ok, id} = MABEAM.Coordination.coordinate_async(protocol, [:nobody], %{}, options)
    await_held(id)
    id
  end

  @doc "A coordination that a process on this node waits for, held."
  @spec begin_waited_for(atom) :: reference
  def begin_waited_for(protocol) do
    tag = make_ref()
    arguments = [protocol, [:nobody], %{tag: tag}, [timeout: 60_000]]

    {:ok, _pid} =
      Task.Supervisor.start_child(
        MABEAM.TaskSupervisor,
        MABEAM.Coordination,
        :coordinate,
        arguments
      )

    GenServer.call(__MODULE__, {:await, {:tag, tag}}, @await_ms)
  end

  @doc "Kills a server of this node, and returns when it is dead."
  @spec kill(atom) :: :ok
  def kill(name) do
    pid = Process.whereis(name)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
  end

  @doc "The keys of all records of coordinations."
  @spec records() :: [term]
  def records do
    tag = MABEAM.Coordination.Record.tag()
    {:ok, keys} = Ledger.transaction(fn -> Ledger.keys(tag) end, @await_ms)
    keys
  end

  @doc "Begins a transaction that does not end; returns when no other one can take place."
  @spec hold_ledger() :: :ok
  def hold_ledger do
    transaction = [fn -> Peer.wait_for_ever(:ledger) end, @await_ms]
    supervisor = MABEAM.TaskSupervisor
    {:ok, _pid} = Task.Supervisor.start_child(supervisor, Ledger, :transaction, transaction)
    Peer.await_name(:ledger)
  end

  @impl GenServer
  def init([]) do
    for name <- [:start, :stop, :exception, :takeover] do
      event = [:mabeam, :coordination, name]
      :ok = Telemetry.attach({__MODULE__, name}, event, &__MODULE__.handle/4, nil)
    end

    # Sessions that this node took as it started, before there was this server.
    held = for %{worker: pid, id: id} <- Store.sessions(:active), pid, do: {{:held, id}, pid}
    {:ok, %{notes: held, waiting: []}}
  end

  @doc false
  def handle(event, _measurements, metadata, _config) do
    GenServer.cast(__MODULE__, {:note, {List.last(event), metadata.session}, metadata})
  end

  @impl GenServer
  def handle_call({:count, key}, _from, state),
    do: {:reply, Enum.count(state.notes, &match?({^key, _value}, &1)), state}

  def handle_call({:await, key}, from, state) do
    case List.keyfind(state.notes, key, 0) do
      {_key, value} -> {:reply, value, state}
      nil -> {:noreply, %{state | waiting: [{key, from} | state.waiting]}}
    end
  end

  @impl GenServer
  def handle_cast({:note, key, value}, state) do
    {ready, waiting} = Enum.split_with(state.waiting, &match?({^key, _from}, &1))
    for {_key, from} <- ready, do: GenServer.reply(from, value)
    {:noreply, %{state | notes: Enum.uniq([{key, value} | state.notes]), waiting: waiting}}
  end
end

defmodule Foundation.TableKeeper do
  @moduledoc """
  Keeps ETS tables alive while the servers that own them are restarted.

  A server that is restarted finds its table as the one before it left it: the keeper makes each
  table, gives it to the server that claims it, and is its heir. While no server owns a table,
  readers still find it under its name.

  When the keeper itself is restarted, it sends `{:table_heir, keeper}` to the owners, who name it
  heir with `renew/2`. Only a table whose owner and keeper die together is lost; the next claim
  makes it anew, empty.
  """
  use GenServer

  alias Foundation.Stray

  @type table :: atom | {atom, list}

  @doc """
  Starts a keeper.

    * `:name` - its registered name
    * `:tables` - the names of the tables it keeps: named, protected, of type `:set`, with read
      concurrency; or `{name, options}` with options of `:ets.new/2` beside these
  """
  @spec start_link(name: atom, tables: [table]) :: GenServer.on_start()
  def start_link(options) do
    name = Keyword.fetch!(options, :name)
    GenServer.start_link(__MODULE__, Keyword.fetch!(options, :tables), name: name)
  end

  @doc "The keeper as a child of a supervisor, its name the child's id."
  @spec child_spec(name: atom, tables: [table]) :: Supervisor.child_spec()
  def child_spec(options) do
    %{id: Keyword.fetch!(options, :name), start: {__MODULE__, :start_link, [options]}}
  end

  @doc """
  Makes the caller, a server that starts, the owner of `table`. Returns when it is.

  Exits when there is no such keeper, or another process owns the table: a server that cannot have
  its table cannot start.
  """
  @spec claim(GenServer.server(), atom) :: :ok
  def claim(keeper, table) do
    :ok = GenServer.call(keeper, {:claim, table})

    receive do
      {:"ETS-TRANSFER", _table, _from, ^table} -> :ok
    end
  end

  @doc """
  Names `keeper` heir of `table`, which the caller owns: what to do on `{:table_heir, keeper}`.
  """
  @spec renew(pid, atom) :: :ok
  def renew(keeper, table) do
    :ets.setopts(table, {:heir, keeper, table})
    :ok
  end

  @impl true
  def init(tables) do
    tables = Map.new(tables, &named/1)
    Enum.each(tables, &keep/1)
    {:ok, tables}
  end

  @impl true
  def handle_call({:claim, table}, {claimant, _tag}, tables) do
    {:reply, give(table, claimant, tables), tables}
  end

  def handle_call(request, _from, tables), do: Stray.call(request, tables)

  @impl true
  def handle_cast(message, tables), do: Stray.message(message, tables)

  @impl true
  def handle_info({:"ETS-TRANSFER", _table, _from, _name}, tables), do: {:noreply, tables}
  def handle_info(message, tables), do: Stray.message(message, tables)

  defp named({table, options}), do: {table, options}
  defp named(table), do: {table, []}

  defp keep({table, options}) do
    case :ets.info(table, :owner) do
      :undefined -> make(table, options)
      owner -> send(owner, {:table_heir, self()})
    end
  end

  defp make(table, options) do
    heir = {:heir, self(), table}
    :ets.new(table, [:named_table, :protected, heir, {:read_concurrency, true} | options])
  end

  defp give(table, _claimant, tables) when not is_map_key(tables, table), do: {:error, :no_table}

  defp give(table, claimant, tables) do
    if :ets.info(table, :owner) == :undefined, do: make(table, tables[table])
    :ets.give_away(table, claimant, table)
    :ok
  rescue
    # The claimant died while it waited, or another process owns the table.
    ArgumentError -> {:error, :not_owner}
  end
end

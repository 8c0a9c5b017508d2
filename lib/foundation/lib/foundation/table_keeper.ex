defmodule Foundation.TableKeeper do
  @moduledoc """
  Keeps ETS tables alive while the servers that own them are restarted.

  A server that is restarted finds its table as the one before it left it: the keeper makes each table, gives it to the
  server that claims it, and is its heir. While no server owns a table, readers still find it under its name.

  When the keeper itself is restarted, it sends `{:table_heir, keeper}` to the owners, who name it heir with `renew/2`.
  """
  use GenServer

  @doc """
  Starts a keeper.

    * `:name` - its registered name
    * `:tables` - the names of the tables it keeps: named, protected, of type `:set`, with read concurrency; or
      `{name, options}` with options of `:ets.new/2` beside these
  """
  @spec start_link(name: atom, tables: [atom | {atom, list}]) :: GenServer.on_start()
  def start_link(options) do
    name = Keyword.fetch!(options, :name)
    GenServer.start_link(__MODULE__, Keyword.fetch!(options, :tables), name: name)
  end

  def child_spec(options) do
    %{id: Keyword.fetch!(options, :name), start: {__MODULE__, :start_link, [options]}}
  end

  @doc "Makes the caller, a server that starts, the owner of `table`. Returns when it is."
  @spec claim(GenServer.server(), atom) :: :ok
  def claim(keeper, table) do
    :ok = GenServer.call(keeper, {:claim, table})

    receive do
      {:"ETS-TRANSFER", _table, _from, ^table} -> :ok
    end
  end

  @doc "Names `keeper` heir of `table`, which the caller owns: what to do on `{:table_heir, keeper}`."
  @spec renew(pid, atom) :: :ok
  def renew(keeper, table) do
    :ets.setopts(table, {:heir, keeper, table})
    :ok
  end

  @impl true
  def init(tables) do
    Enum.each(tables, &keep/1)
    {:ok, nil}
  end

  @impl true
  def handle_call({:claim, table}, {owner, _tag}, state) do
    :ets.give_away(table, owner, table)
    {:reply, :ok, state}
  end

  @impl true
  def handle_info({:"ETS-TRANSFER", _table, _from, _name}, state), do: {:noreply, state}

  defp keep({table, options}) do
    case :ets.info(table, :owner) do
      :undefined ->
        heir = {:heir, self(), table}
        :ets.new(table, [:named_table, :protected, heir, {:read_concurrency, true} | options])

      owner ->
        send(owner, {:table_heir, self()})
    end
  end

  defp keep(table), do: keep({table, []})
end

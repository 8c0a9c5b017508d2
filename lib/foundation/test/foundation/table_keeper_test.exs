defmodule Foundation.TableKeeperTest do
  use ExUnit.Case, async: true

  alias Foundation.{TableKeeper, Test}

  defmodule Owner do
    use GenServer

    def start_link(options), do: GenServer.start_link(__MODULE__, options)

    @impl true
    def init({keeper, table, test}) do
      TableKeeper.claim(keeper, table)
      send(test, {:owner, self()})
      {:ok, {table, test}}
    end

    @impl true
    def handle_call({:put, row}, _from, {table, _test} = state),
      do: {:reply, :ets.insert(table, row), state}

    @impl true
    def handle_info({:table_heir, keeper}, {table, test} = state) do
      TableKeeper.renew(keeper, table)
      send(test, {:renewed, keeper})
      {:noreply, state}
    end
  end

  setup context do
    keeper = :"#{context.test} keeper"
    table = :"#{context.test} table"
    start_supervised!({TableKeeper, name: keeper, tables: [{table, [:ordered_set]}]})
    start_supervised!({Owner, {keeper, table, self()}})
    assert_receive {:owner, owner}
    %{keeper: keeper, table: table, owner: owner}
  end

  test "a table outlives its owner, and the next one gets it", context do
    GenServer.call(context.owner, {:put, {:key, 1}})
    Test.Signals.kill(context.owner)
    assert :ets.lookup(context.table, :key) == [key: 1]

    assert_receive {:owner, owner}, 5_000
    assert :ets.info(context.table, :owner) == owner
    assert GenServer.call(owner, {:put, {:key, 2}})
    assert :ets.lookup(context.table, :key) == [key: 2]
  end

  test "a table outlives its keeper, and the next one is its heir", context do
    GenServer.call(context.owner, {:put, {:key, 1}})
    Test.Signals.kill(Process.whereis(context.keeper))
    assert_receive {:renewed, keeper}, 5_000
    assert :ets.info(context.table, :heir) == keeper

    Test.Signals.kill(context.owner)
    assert_receive {:owner, owner}, 5_000
    assert :ets.info(context.table, :owner) == owner
    assert :ets.lookup(context.table, :key) == [key: 1]
  end

  test "a table that went with owner and keeper is made anew", context do
    GenServer.call(context.owner, {:put, {:key, 1}})
    # A keeper that does not answer: the owner is not restarted before the keeper is dead, too.
    :sys.suspend(context.keeper)
    Test.Signals.kill(context.owner)
    Test.Signals.kill(Process.whereis(context.keeper))
    assert_receive {:owner, owner}, 5_000
    assert :ets.info(context.table, :owner) == owner
    assert :ets.info(context.table, :type) == :ordered_set
  end

  test "who has no right to a table does not get it, and the keeper goes on", context do
    keeper = Process.whereis(context.keeper)
    assert GenServer.call(keeper, {:claim, context.table}) == {:error, :not_owner}
    assert GenServer.call(keeper, {:claim, :no_such_table}) == {:error, :no_table}
    assert GenServer.call(keeper, :nonsense) == {:error, :bad_request}
    send(keeper, :nonsense)
    GenServer.cast(keeper, :nonsense)
    assert GenServer.call(keeper, :ping) == :pong
    assert Process.whereis(context.keeper) == keeper
  end
end

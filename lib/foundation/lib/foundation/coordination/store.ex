defmodule Foundation.Coordination.Store do
  @moduledoc """
  The two mnesia tables of the ledger on this node, with a schema in memory: made, joined, read.

  | table | copies | a write needs |
  | --- | --- | --- |
  | `agreed/0` | one on each member that has joined | a majority of the members |
  | `local/0` | each node has its own content | nothing but this node |

  A row is `{table, key, value, owner, version}`: `owner` is the process with whose life the row
  ends, or `nil`; `version` is the number of the transaction that wrote it. The row under the key
  `:head` is a `Foundation.Coordination.Head`.

  mnesia on a node of Foundation's is Foundation's: it is stopped and started when the node has to
  join others.
  """
  alias Foundation.Call
  alias Foundation.Coordination.{Head, Work}

  @agreed Foundation.Coordination.Agreed
  @local Foundation.Coordination.Local
  @attributes [:key, :value, :owner, :version]
  # mnesia starts, or stops, in a hundredth of that.
  @switch_ms 5_000

  @type table :: atom
  @type row :: {table, key :: term, value :: term, owner :: pid | nil, version :: non_neg_integer}

  @doc "The table on which a majority agrees."
  @spec agreed() :: table
  def agreed, do: @agreed

  @doc "The table that is this node's own."
  @spec local() :: table
  def local, do: @local

  @doc "Both tables."
  @spec tables() :: [table]
  def tables, do: [@agreed, @local]

  @doc "Whether mnesia runs on this node."
  @spec running?() :: boolean
  def running?, do: :mnesia.system_info(:is_running) == :yes

  @doc """
  Calls `fun`, which asks mnesia for something; the caller ends with mnesia, if that dies meanwhile.

  mnesia answers nobody who has asked it just when it died: who waits would wait for ever.
  `{:error, :stopped}` when it does not run.
  """
  @spec ask((() -> result)) :: result | {:error, :stopped} when result: term
  def ask(fun) do
    # Its transactions unlink their process from the transaction manager.
    mnesia = Process.whereis(:mnesia_kernel_sup)
    Process.link(mnesia)

    try do
      fun.()
    after
      Process.unlink(mnesia)
    end
  rescue
    # There is none, or none any more.
    _error in [ArgumentError, ErlangError] -> {:error, :stopped}
  end

  @doc "Stops mnesia, and what it leaves behind."
  @spec stop() :: :ok
  def stop do
    Work.run(:mnesia, :stop, [], Call.deadline(@switch_ms))
    end_rest()
  end

  # Some processes of mnesia wait for ever for one that was killed: those of a schema transaction when
  # mnesia is stopped then, and all that start it when one of them dies before all have started.
  defp end_rest do
    servers = for name <- modules(), pid = Process.whereis(name), do: pid
    rest = servers ++ spawned()
    Enum.each(rest, &Process.exit(&1, :kill))

    for ref <- Enum.map(rest, &Process.monitor/1) do
      receive do: ({:DOWN, ^ref, :process, _pid, _reason} -> :ok)
    end

    :ok
  end

  # What mnesia does for who asked it, and goes on with when that one is dead.
  defp spawned do
    modules = modules()

    for pid <- Process.list(),
        {:initial_call, {module, _function, _arity}} <- [Process.info(pid, :initial_call)],
        module in modules,
        do: pid
  end

  # Its servers have the names of their modules.
  defp modules, do: Application.spec(:mnesia, :modules)

  @doc "Sees to it that mnesia runs with an empty schema in memory: starts it, anew if need be."
  @spec restart() :: :ok | {:error, term}
  def restart do
    if running?() and empty?() and spawned() == [] do
      :ok
    else
      stop()
      Application.put_env(:mnesia, :schema_location, :ram)
      start()
    end
  end

  defp start do
    case Work.run(:mnesia, :start, [], Call.deadline(@switch_ms)) do
      {:ok, result} ->
        result

      {:error, reason} ->
        end_rest()
        {:error, reason}
    end
  end

  defp empty? do
    :mnesia.system_info(:tables) == [:schema] and
      :mnesia.system_info(:db_nodes) == [node()] and
      :mnesia.table_info(:schema, :storage_type) == :ram_copies
  catch
    :exit, _reason -> false
  end

  @doc """
  Makes `table` on this node, with `rows` in it; an error if there is one here, or where mnesia runs
  with this node.
  """
  @spec create(table, [row]) :: :ok | {:error, term}
  def create(table, rows) do
    own = if table == @local, do: [local_content: true], else: [majority: true]
    options = [ram_copies: [node()], attributes: @attributes] ++ own

    case ask(fn -> :mnesia.create_table(table, options) end) do
      {:atomic, :ok} -> write(table, rows)
      {_aborted_or_error, reason} -> {:error, reason}
    end
  end

  @doc """
  Makes this node, whose mnesia has just been restarted, one of `nodes`, and returns when it has
  the tables' rows.

  All of `nodes` must be connected to it. Its own content of the local table is empty then.
  """
  @spec join([node], deadline :: integer) :: :ok | {:error, term}
  def join(nodes, deadline) do
    ask(fn ->
      with :ok <- connect(List.delete(nodes, node())),
           :ok <- copy(@agreed),
           :ok <- copy(@local) do
        case :mnesia.wait_for_tables(tables(), Call.left(deadline)) do
          :ok -> :ok
          other -> {:error, other}
        end
      end
    end)
  end

  defp connect(nodes) do
    with {:ok, _connected} <- :mnesia.change_config(:extra_db_nodes, nodes) do
      case nodes -- :mnesia.system_info(:running_db_nodes) do
        [] -> :ok
        missing -> {:error, {:not_joined, missing}}
      end
    end
  end

  defp copy(table) do
    if node() in :mnesia.table_info(table, :ram_copies) do
      :ok
    else
      case :mnesia.add_table_copy(table, node(), :ram_copies) do
        {:atomic, :ok} -> :ok
        {:aborted, {:already_exists, ^table, _node}} -> :ok
        {:aborted, reason} -> {:error, reason}
      end
    end
  catch
    :exit, reason -> {:error, reason}
  end

  @doc "Deletes the copies of `table` on `nodes`, where mnesia runs."
  @spec drop(table, [node]) :: :ok | {:error, term}
  def drop(_table, []), do: :ok

  def drop(table, [node | nodes]) do
    case ask(fn -> :mnesia.del_table_copy(table, node) end) do
      {:atomic, :ok} -> drop(table, nodes)
      {_aborted_or_error, reason} -> {:error, reason}
    end
  end

  @doc """
  Which nodes mnesia on this node takes for its own, though it does not run with them, sorted.

  A node that joins this one is connected by mnesia to all of these that it can reach.
  """
  @spec lost() :: [node]
  def lost do
    if running?() do
      Enum.sort(:mnesia.system_info(:db_nodes) -- :mnesia.system_info(:running_db_nodes))
    else
      []
    end
  catch
    :exit, _reason -> []
  end

  @doc "Lets mnesia on this node, and on those that run with it, forget `nodes`, which do not."
  @spec forget([node]) :: :ok | {:error, term}
  def forget(nodes) do
    forgotten = for node <- nodes, do: ask(fn -> :mnesia.del_table_copy(:schema, node) end)

    case Enum.reject(forgotten, &(&1 == {:atomic, :ok})) do
      [] -> :ok
      [{_aborted_or_error, reason} | _others] -> {:error, reason}
    end
  end

  @doc """
  Which nodes hold an active copy of `table`, as this node sees it, sorted; none when it holds
  none itself.
  """
  @spec active(table) :: [node]
  def active(table) do
    if :mnesia.table_info(table, :where_to_read) == node() do
      Enum.sort(:mnesia.table_info(table, :where_to_write))
    else
      []
    end
  catch
    :exit, _reason -> []
  end

  @doc "This node's copy of the row under `key`, as it stands."
  @spec read(table, term) :: {:ok, row} | :error
  def read(table, key) do
    case here(table, fn -> :mnesia.read(table, key) end) do
      {:ok, [row]} -> {:ok, row}
      {:ok, []} -> :error
      :error -> :error
    end
  end

  @doc "This node's copy of all rows, as they stand; `:error` when the table is not there."
  @spec rows(table) :: {:ok, [row]} | :error
  def rows(table) do
    here(table, fn -> :mnesia.match_object({table, :_, :_, :_, :_}) end)
  end

  @doc "Whether a transaction that writes into `table` is under way on this node, or not to be told."
  @spec locked?(table) :: boolean
  def locked?(table) do
    Enum.any?(:mnesia.system_info(:held_locks), &match?({{^table, _key}, :write, _tid}, &1))
  catch
    _exit_or_error, _reason -> true
  end

  # Past mnesia's locks, and without asking another node; mnesia may be stopped at any moment.
  defp here(table, fun) do
    if active(table) == [], do: :error, else: {:ok, :mnesia.ets(fun)}
  catch
    _exit_or_error, _reason -> :error
  end

  @doc "The head of this node's copy of `table`; `:error` when it has no copy."
  @spec head(table) :: {:ok, Head.t()} | :error
  def head(table) do
    case here(table, fn -> :mnesia.read(table, :head) end) do
      {:ok, [{_table, :head, head, _owner, _version}]} -> {:ok, head}
      {:ok, []} -> {:ok, Head.beginning()}
      :error -> :error
    end
  end

  @doc """
  Writes `rows` into this node's content of the local table, or of a table of which it has the
  only copy.
  """
  @spec write(table, [row]) :: :ok | {:error, term}
  def write(table, rows) do
    Enum.each(rows, &:mnesia.dirty_write(table, &1))
  catch
    :exit, reason -> {:error, reason}
  end

  @doc "Deletes the rows under `keys` likewise."
  @spec delete(table, [term]) :: :ok | {:error, term}
  def delete(table, keys) do
    Enum.each(keys, &:mnesia.dirty_delete(table, &1))
  catch
    :exit, reason -> {:error, reason}
  end
end

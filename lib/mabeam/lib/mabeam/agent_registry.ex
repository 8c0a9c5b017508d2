defmodule MABEAM.AgentRegistry do
  @moduledoc """
  Knows the agents of this node: what each is, whether it runs, and where.

  An agent is registered before it runs and after it ran: its row then has no pid. Reads go to the
  table, in the caller's process; writes through the server, which monitors the processes of the
  agents that run. The table outlives the server.

  | status | the agent |
  | --- | --- |
  | `:registered` | has never run |
  | `:running` | runs, and has a pid |
  | `:restarting` | crashed or was killed, and is about to run again |
  | `:stopping` | is being stopped |
  | `:stopped` | was stopped, or ended by itself |
  | `:failed` | crashed too often, or could not be started again |

  People use `MABEAM.Agent`; the functions below `list/0` are called by the processes of an agent
  as they start.
  """
  import MABEAM.AgentRegistry.Row

  alias Foundation.Call
  alias MABEAM.AgentRegistry.{Index, Metrics}

  @type id :: atom | String.t()
  @type status :: :registered | :running | :restarting | :stopping | :stopped | :failed
  @type label :: atom | String.t()
  @type info :: %{
          id: id,
          type: label,
          module: module,
          config: term,
          capabilities: [label],
          status: status,
          pid: pid | nil,
          metrics: Metrics.t()
        }

  @table __MODULE__

  @doc """
  Registers an agent, which does not run yet.

  Options are `:type` (an atom or a string, default `:agent`), `:capabilities` (a list of atoms
  and strings, default `[]`) and `:config` (what `module` gets as it starts, default `%{}`).

  Errors: `:already_registered`, `:bad_id`, `:bad_module` (no such module, or it is no agent),
  `:bad_options`.
  """
  @spec register(id, module, keyword) ::
          :ok
          | {:error, :already_registered | :bad_id | :bad_module | :bad_options | Call.reason()}
  def register(id, module, options \\ []) do
    with :ok <- check(label?(id), :bad_id),
         :ok <- check(agent?(module), :bad_module),
         :ok <- check(options?(options), :bad_options) do
      row =
        row(
          id: id,
          module: module,
          type: Keyword.get(options, :type, :agent),
          capabilities: Enum.uniq(Keyword.get(options, :capabilities, [])),
          config: Keyword.get(options, :config, %{}),
          counters: Metrics.new()
        )

      Call.call(@table, {:register, row})
    end
  end

  @doc "Removes an agent that does not run; `{:error, :running}` of one that does."
  @spec deregister(id) :: :ok | {:error, :unknown_agent | :running | Call.reason()}
  def deregister(id), do: Call.call(@table, {:deregister, id})

  @doc "The agent's pid. `{:error, :not_running}` while it has none."
  @spec lookup(id) :: {:ok, pid} | {:error, :unknown_agent | :not_running | :unavailable}
  def lookup(id) do
    case field(id, position(:pid)) do
      {:ok, nil} -> {:error, :not_running}
      answer -> answer
    end
  end

  @doc "The gate through which the agent is asked."
  @spec gate(id) :: {:ok, pid} | {:error, :unknown_agent | :not_running | :unavailable}
  def gate(id) do
    case field(id, position(:gate)) do
      {:ok, nil} -> {:error, :not_running}
      answer -> answer
    end
  end

  @doc "What the agent does just now."
  @spec status(id) :: {:ok, status} | {:error, :unknown_agent | :unavailable}
  def status(id), do: field(id, position(:status))

  @doc "Everything there is to know about an agent."
  @spec info(id) :: {:ok, info} | {:error, :unknown_agent | :unavailable}
  def info(id) do
    case :ets.lookup(@table, id) do
      [row] -> {:ok, describe(row)}
      [] -> {:error, :unknown_agent}
    end
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc "What the agent was asked, see `t:MABEAM.AgentRegistry.Metrics.t/0`."
  @spec metrics(id) :: {:ok, Metrics.t()} | {:error, :unknown_agent | :unavailable}
  def metrics(id) do
    with {:ok, counters} <- field(id, position(:counters)), do: {:ok, Metrics.read(counters)}
  end

  @doc "The ids of the agents that have `capability`, sorted."
  @spec find_by_capability(label) :: {:ok, [id]} | {:error, :bad_capability | :unavailable}
  def find_by_capability(capability) do
    with :ok <- check(label?(capability), :bad_capability),
         do: Index.find(:capability, capability)
  end

  @doc "The ids of the agents of `type`, sorted."
  @spec find_by_type(label) :: {:ok, [id]} | {:error, :bad_type | :unavailable}
  def find_by_type(type) do
    with :ok <- check(label?(type), :bad_type), do: Index.find(:type, type)
  end

  @doc "Id and status of all agents, sorted by id."
  @spec list() :: {:ok, [{id, status}]} | {:error, :unavailable}
  def list do
    every_row = row(_: :_, id: :"$1", status: :"$2")
    {:ok, Enum.sort(:ets.select(@table, [{every_row, [], [{{:"$1", :"$2"}}]}]))}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc false
  @spec cell(id) :: {:ok, pid | nil} | {:error, :unknown_agent | :unavailable}
  def cell(id), do: field(id, position(:cell))

  @doc false
  @spec to_revive() :: [id]
  def to_revive do
    :ets.select(@table, [{row(_: :_, id: :"$1", status: :restarting, cell: nil), [], [:"$1"]}])
  rescue
    # The table was lost. The registry, when it is back, will tell.
    ArgumentError -> []
  end

  @doc false
  @spec claim(id, :start | :revive) :: {:ok, module, config :: term} | {:error, term}
  def claim(id, mode), do: insist({:claim, id, mode, self()})

  @doc false
  @spec running(id, cell :: pid) :: :ok | {:error, term}
  def running(id, cell), do: insist({:running, id, cell, self()})

  @doc false
  @spec open(id, cell :: pid) :: {:ok, row :: tuple} | {:error, term}
  def open(id, cell), do: insist({:open, id, cell, self()})

  @doc false
  @spec adopt(row :: tuple) :: :ok | {:error, term}
  def adopt(row), do: Call.call(@table, {:adopt, row})

  @doc false
  @spec stopping(id) ::
          {:ok, cell :: pid | nil} | {:error, :unknown_agent | :not_running | Call.reason()}
  def stopping(id), do: Call.call(@table, {:stopping, id})

  @doc false
  @spec stopped(id, cell :: pid) :: :ok | {:error, term}
  def stopped(id, cell), do: insist({:stopped, id, cell})

  @doc false
  @spec failed(id, term) :: :ok | {:error, term}
  def failed(id, reason), do: insist({:failed, id, reason})

  @doc """
  Whether `term` can be an id, a type or a capability: an atom other than `nil`, or a string.
  """
  @spec label?(term) :: boolean
  def label?(term), do: (is_atom(term) and term != nil) or is_binary(term)

  @doc "Whether `term` is a list of labels."
  @spec labels?(term) :: boolean
  def labels?(term), do: is_list(term) and not List.improper?(term) and Enum.all?(term, &label?/1)

  # A process of an agent that restarts must not fail because the registry is being restarted just
  # then: each failure would count as one of the agent. It tries again, for as long as a start may
  # take.
  @patience 4_000
  @pause 2

  defp insist(request), do: insist(request, Call.deadline(@patience))

  defp insist(request, deadline) do
    case Call.call(@table, request, Call.left(deadline)) do
      {:error, :unavailable} ->
        if Call.left(deadline) > 0 do
          Process.sleep(@pause)
          insist(request, deadline)
        else
          {:error, :unavailable}
        end

      answer ->
        answer
    end
  end

  defp field(id, position) do
    {:ok, :ets.lookup_element(@table, id, position)}
  rescue
    ArgumentError ->
      if :ets.whereis(@table) == :undefined,
        do: {:error, :unavailable},
        else: {:error, :unknown_agent}
  end

  defp describe(row) do
    %{
      id: row(row, :id),
      type: row(row, :type),
      module: row(row, :module),
      config: row(row, :config),
      capabilities: row(row, :capabilities),
      status: row(row, :status),
      pid: row(row, :pid),
      metrics: Metrics.read(row(row, :counters))
    }
  end

  defp check(true, _reason), do: :ok
  defp check(false, reason), do: {:error, reason}

  defp agent?(module) do
    is_atom(module) and Code.ensure_loaded?(module) and
      function_exported?(module, :init, 1) and function_exported?(module, :handle_request, 2)
  end

  defp options?(options), do: Keyword.keyword?(options) and Enum.all?(options, &option?/1)

  defp option?({:type, type}), do: label?(type)
  defp option?({:capabilities, list}), do: labels?(list)
  defp option?({:config, _config}), do: true
  defp option?(_other), do: false
end

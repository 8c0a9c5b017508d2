defmodule Foundation.ProcessRegistry do
  @moduledoc """
  Names for processes of this node, with metadata, in namespaces.

  A namespace is `:production`, or `{:test, reference}` with any term as the reference: each test
  has names of its own. A service is any term. A name is free again when its process has died.

  Readers read the table, in their own process; `Foundation.ProcessRegistry.Server` writes it.

      :ok = Foundation.ProcessRegistry.register(:production, :cache, self(), %{size: 100})
      {:ok, pid} = Foundation.ProcessRegistry.lookup(:production, :cache)

  As a `:via` module it names servers at their start:

      name = Foundation.ProcessRegistry.via_tuple(:production, :cache)
      GenServer.start_link(Cache, [], name: name)
  """
  alias Foundation.{Call, Legacy, Supervision, Termination}

  @table __MODULE__
  @server __MODULE__

  @type namespace :: :production | {:test, term}
  @type service :: term
  @type error(reason) :: {:error, reason | :bad_namespace | :unavailable}

  defguardp is_namespace(namespace)
            when namespace == :production or
                   (is_tuple(namespace) and tuple_size(namespace) == 2 and
                      elem(namespace, 0) == :test)

  @doc """
  Registers `pid`, a living process of this node, as `service`.

  A process may have several names. `{:error, :already_registered}` when a living process, be it
  `pid` itself, has the name.
  """
  @spec register(namespace, service, pid, map) ::
          :ok
          | error(:already_registered | :not_alive | :bad_pid | :bad_metadata | :timeout)
  def register(namespace, service, pid, metadata \\ %{}) do
    cond do
      not is_namespace(namespace) -> {:error, :bad_namespace}
      not is_pid(pid) or node(pid) != node() -> {:error, :bad_pid}
      not is_map(metadata) -> {:error, :bad_metadata}
      true -> Call.call(@server, {:register, {namespace, service}, pid, metadata})
    end
  end

  @doc "The process that has the name."
  @spec lookup(namespace, service) :: {:ok, pid} | error(:not_found)
  def lookup(namespace, service) do
    with {:ok, {pid, _metadata}} <- row(namespace, service), do: {:ok, pid}
  end

  @doc "Frees the name. The process lives on."
  @spec unregister(namespace, service) :: :ok | error(:not_found | :timeout)
  def unregister(namespace, service) do
    if is_namespace(namespace) do
      Call.call(@server, {:unregister, {namespace, service}})
    else
      {:error, :bad_namespace}
    end
  end

  @doc "The metadata of a name."
  @spec get_metadata(namespace, service) :: {:ok, map} | error(:not_found)
  def get_metadata(namespace, service) do
    with {:ok, {_pid, metadata}} <- row(namespace, service), do: {:ok, metadata}
  end

  @doc "Puts `metadata` in the place of a name's metadata."
  @spec update_metadata(namespace, service, map) ::
          :ok | error(:not_found | :bad_metadata | :timeout)
  def update_metadata(namespace, service, metadata) do
    cond do
      not is_namespace(namespace) -> {:error, :bad_namespace}
      not is_map(metadata) -> {:error, :bad_metadata}
      true -> Call.call(@server, {:update_metadata, {namespace, service}, metadata})
    end
  end

  @doc "The services of a namespace, in no order."
  @spec list_services(namespace) :: {:ok, [service]} | {:error, :bad_namespace | :unavailable}
  def list_services(namespace) do
    with {:ok, rows} <- rows(namespace), do: {:ok, for({service, _, _} <- rows, do: service)}
  end

  @doc "How many services a namespace has."
  @spec count_services(namespace) ::
          {:ok, non_neg_integer} | {:error, :bad_namespace | :unavailable}
  def count_services(namespace) do
    with {:ok, rows} <- rows(namespace), do: {:ok, length(rows)}
  end

  @doc "Whether a living process has the name."
  @spec registered?(namespace, service) :: boolean
  def registered?(namespace, service), do: match?({:ok, _pid}, lookup(namespace, service))

  @doc """
  The services of a namespace for whose metadata `predicate` is true, with pid and metadata.

  `predicate` is called in the caller's process, and may fail there.
  """
  @spec find_services_by_metadata(namespace, (map -> as_boolean(term))) ::
          {:ok, [{service, pid, map}]} | error(:bad_predicate)
  def find_services_by_metadata(_namespace, predicate) when not is_function(predicate, 1),
    do: {:error, :bad_predicate}

  def find_services_by_metadata(namespace, predicate) do
    with {:ok, rows} <- rows(namespace) do
      {:ok, Enum.filter(rows, fn {_service, _pid, metadata} -> predicate.(metadata) end)}
    end
  end

  @doc """
  Ends the processes of the namespace `{:test, reference}`. The caller itself is spared.

  With phase 3 on it returns `{:ok, ended}`, their number, when they are gone and all names of the
  namespace are free: they are told to shut down, and killed when they have not after a second.
  With phase 3 off it returns at once, and processes of their own do that.
  """
  @spec cleanup_test_namespace(term) :: {:ok, non_neg_integer} | {:error, :unavailable | :timeout}
  def cleanup_test_namespace(reference) do
    with {:ok, rows} <- rows({:test, reference}) do
      pids = for({_service, pid, _metadata} <- rows, pid != self(), uniq: true, do: pid)

      if Supervision.enabled?(:phase_3) do
        with :ok <- Termination.stop_all(pids),
             :ok <- Call.call(@server, {:drop, {:test, reference}}),
             do: {:ok, length(pids)}
      else
        Legacy.ProcessRegistry.terminate(pids)
        {:ok, length(pids)}
      end
    end
  end

  @doc "How many names there are, by kind of namespace, and how many processes have them."
  @spec stats() ::
          {:ok, %{production: non_neg_integer, test: non_neg_integer, processes: non_neg_integer}}
          | {:error, :unavailable}
  def stats do
    pairs = for {{namespace, _service}, pid, _metadata} <- table(), do: {namespace, pid}
    production = Enum.count(pairs, &match?({:production, _pid}, &1))
    processes = pairs |> Enum.uniq_by(&elem(&1, 1)) |> length()
    {:ok, %{production: production, test: length(pairs) - production, processes: processes}}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  @doc "The name as OTP's servers take it. Raises for a bad namespace."
  @spec via_tuple(namespace, service) :: {:via, module, {namespace, service}}
  def via_tuple(namespace, service) when is_namespace(namespace),
    do: {:via, __MODULE__, {namespace, service}}

  @doc "For `:via`: registers `pid`. Exits when the registry does not run."
  @spec register_name({namespace, service}, pid) :: :yes | :no
  def register_name({namespace, service} = name, pid) do
    case register(namespace, service, pid) do
      :ok -> :yes
      {:error, :already_registered} -> :no
      {:error, reason} -> exit({reason, {__MODULE__, :register_name, [name, pid]}})
    end
  end

  @doc "For `:via`: frees the name."
  @spec unregister_name({namespace, service}) :: :ok | error(:not_found | :timeout)
  def unregister_name({namespace, service}), do: unregister(namespace, service)

  @doc "For `:via`: the process that has the name."
  @spec whereis_name({namespace, service}) :: pid | :undefined
  def whereis_name({namespace, service}) do
    case lookup(namespace, service) do
      {:ok, pid} -> pid
      {:error, _reason} -> :undefined
    end
  end

  @doc "For `:via`: sends a message to the process that has the name. Exits when there is none."
  @spec send({namespace, service}, term) :: pid
  def send(name, message) do
    case whereis_name(name) do
      :undefined ->
        exit({:badarg, {name, message}})

      pid ->
        Kernel.send(pid, message)
        pid
    end
  end

  # A row whose process has died is one that the server has not dropped yet.
  defp row(namespace, service) do
    with true <- is_namespace(namespace),
         [{_key, pid, metadata}] <- :ets.lookup(@table, {namespace, service}),
         true <- Process.alive?(pid) do
      {:ok, {pid, metadata}}
    else
      _none -> {:error, if(is_namespace(namespace), do: :not_found, else: :bad_namespace)}
    end
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  defp rows(namespace) when not is_namespace(namespace), do: {:error, :bad_namespace}

  # By a guard: a test's reference may be any term, `:_` as well, and no match pattern can name
  # it.
  defp rows(namespace) do
    guard = [{:"=:=", :"$1", {:const, namespace}}]

    rows =
      :ets.select(@table, [{{{:"$1", :"$2"}, :"$3", :"$4"}, guard, [{{:"$2", :"$3", :"$4"}}]}])

    {:ok, Enum.filter(rows, fn {_service, pid, _metadata} -> Process.alive?(pid) end)}
  rescue
    ArgumentError -> {:error, :unavailable}
  end

  defp table, do: :ets.tab2list(@table)
end

defmodule Foundation.Config do
  @moduledoc """
  Configuration that may change while the node runs.

  It is a map of maps; a path is a list of keys. It starts as the environment's `:config`, and
  what was updated is kept while Foundation runs:

      config :foundation, config: %{pool: %{size: 10}}

      {:ok, 10} = Foundation.Config.get([:pool, :size])
      :ok = Foundation.Config.update([:pool, :size], 20)
  """
  alias Foundation.{Call, ConfigServer}

  @type path :: [term]

  @doc "The value at `path`; the whole configuration at `[]`. Read in the caller's process."
  @spec get(path) :: {:ok, term} | {:error, :not_found | :bad_path | :unavailable}
  def get(path) do
    with :ok <- check(path), {:ok, config} <- ConfigServer.read(), do: fetch(config, path)
  end

  @doc """
  Puts `value` at `path`, and the maps on the way to it where there are none.

  When it returns, all subscribers have been sent `{:config_changed, path, value}`, unless the
  value was this one already. `{:error, {:not_a_map, path}}` names the place on the way where
  another value stands.
  """
  @spec update(path, term) :: :ok | {:error, :bad_path | {:not_a_map, path} | Call.reason()}
  def update([], _value), do: {:error, :bad_path}

  def update(path, value) do
    with :ok <- check(path), do: Call.call(ConfigServer, {:update, path, value})
  end

  @doc """
  Sends `subscriber` `{:config_changed, path, value}` for each change from now on, until it dies
  or is unsubscribed. To subscribe twice changes nothing.
  """
  @spec subscribe(pid) :: :ok | {:error, :bad_pid | Call.reason()}
  def subscribe(subscriber \\ self())
  def subscribe(subscriber) when not is_pid(subscriber), do: {:error, :bad_pid}
  def subscribe(subscriber), do: Call.call(ConfigServer, {:subscribe, subscriber})

  @doc "Ends a subscription. Nothing is sent for later changes."
  @spec unsubscribe(pid) :: :ok | {:error, :not_subscribed | :bad_pid | Call.reason()}
  def unsubscribe(subscriber \\ self())
  def unsubscribe(subscriber) when not is_pid(subscriber), do: {:error, :bad_pid}
  def unsubscribe(subscriber), do: Call.call(ConfigServer, {:unsubscribe, subscriber})

  defp check(path) do
    if is_list(path) and not List.improper?(path), do: :ok, else: {:error, :bad_path}
  end

  defp fetch(value, []), do: {:ok, value}
  defp fetch(%{} = map, [key | path]) when is_map_key(map, key), do: fetch(map[key], path)
  defp fetch(_value, _path), do: {:error, :not_found}
end

defmodule Foundation.ConfigTest do
  use ExUnit.Case, async: true

  alias Foundation.{Config, Test}

  # Each test has a branch of its own.
  setup do
    %{branch: make_ref()}
  end

  test "what was put at a path is found there and above it", %{branch: branch} do
    assert Config.get([branch, :pool, :size]) == {:error, :not_found}
    assert Config.update([branch, :pool, :size], 10) == :ok
    assert Config.get([branch, :pool, :size]) == {:ok, 10}
    assert Config.get([branch]) == {:ok, %{pool: %{size: 10}}}
    assert {:ok, %{^branch => %{pool: %{size: 10}}}} = Config.get([])
    assert Config.update([branch, :pool, :size], nil) == :ok
    assert Config.get([branch, :pool, :size]) == {:ok, nil}
  end

  test "another value on the way is named, and stays", %{branch: branch} do
    :ok = Config.update([branch, :pool], 10)
    assert Config.update([branch, :pool, :size], 1) == {:error, {:not_a_map, [branch, :pool]}}
    assert Config.get([branch, :pool]) == {:ok, 10}
    assert Config.get([branch, :pool, :size]) == {:error, :not_found}
  end

  test "subscribers hear of each change once, until they unsubscribe", %{branch: branch} do
    assert Config.subscribe() == :ok
    assert Config.subscribe() == :ok
    :ok = Config.update([branch], 1)
    :ok = Config.update([branch], 1)
    :ok = Config.update([branch], 2)
    assert_received {:config_changed, [^branch], 1}
    assert_received {:config_changed, [^branch], 2}
    refute_received {:config_changed, [^branch], _value}

    assert Config.unsubscribe() == :ok
    :ok = Config.update([branch], 3)
    refute_received {:config_changed, [^branch], 3}
    assert Config.unsubscribe() == {:error, :not_subscribed}
  end

  test "a subscriber that dies is forgotten" do
    subscriber = start_supervised!({Test.Worker, []}, restart: :temporary)
    :ok = Config.subscribe(subscriber)
    Test.Signals.kill(subscriber)
    # The death is known to the server when it answers whoever subscribes and dies later.
    later = start_supervised!({Test.Worker, []}, id: :later, restart: :temporary)
    :ok = Config.subscribe(later)
    assert Config.unsubscribe(later) == :ok
  end

  test "bad input is refused", %{branch: branch} do
    for bad <- [:path, "path", %{}, nil, [:a | :b]] do
      assert Config.get(bad) == {:error, :bad_path}
      assert Config.update(bad, 1) == {:error, :bad_path}
    end

    assert Config.update([], %{branch => 1}) == {:error, :bad_path}
    assert Config.subscribe(:me) == {:error, :bad_pid}
    assert Config.unsubscribe("me") == {:error, :bad_pid}
  end
end

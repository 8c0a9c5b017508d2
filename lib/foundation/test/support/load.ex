defmodule Foundation.Test.Load do
  @moduledoc """
  Uses the coordination primitives on a node of `Foundation.Test.Cluster`, one after the other,
  until it is stopped, and remembers what they answered.

  It is a task of `Foundation.TaskSupervisor`, registered under the name of this module.
  """
  alias Foundation.Coordination.Primitives

  @doc "What has been answered so far, before anything has."
  @spec nothing() :: map
  def nothing,
    do: %{entries: [], unknown: [], added: 0, maybe_added: 0, tokens: [], refused: 0, odd: []}

  @doc "Both answers together."
  @spec add_up(map, map) :: map
  def add_up(a, b) do
    Map.merge(a, b, fn
      _key, x, y when is_list(x) -> x ++ y
      _key, x, y -> x + y
    end)
  end

  @doc "Starts it, with `timeout` milliseconds for each call."
  @spec start(non_neg_integer) :: :ok
  def start(timeout) do
    {:ok, pid} =
      Task.Supervisor.start_child(Foundation.TaskSupervisor, __MODULE__, :run, [timeout])

    send(pid, {:started, self()})

    receive do
      {:running, ^pid} -> :ok
    end
  end

  @doc "Stops it after the call that is under way, and returns what was answered."
  @spec stop() :: map
  def stop do
    pid = Process.whereis(__MODULE__)
    send(pid, {:stop, self()})

    receive do
      {:stopped, ^pid, answers} -> answers
    end
  end

  @doc false
  def run(timeout) do
    Process.register(self(), __MODULE__)

    receive do
      {:started, from} -> send(from, {:running, self()})
    end

    loop(timeout, 1, nothing())
  end

  defp loop(timeout, n, answers) do
    receive do
      {:stop, from} -> send(from, {:stopped, self(), answers})
    after
      0 -> loop(timeout, n + 1, answers |> agree(timeout, n) |> add() |> lock(timeout))
    end
  end

  defp agree(answers, timeout, n) do
    value = {node(), System.unique_integer(), n}

    case Primitives.consensus(value, timeout: timeout) do
      {:ok, %{value: ^value} = entry} -> %{answers | entries: [entry | answers.entries]}
      {:error, :timeout} -> %{answers | unknown: [value | answers.unknown]}
      {:error, reason} when reason in [:no_quorum, :rejected] -> refused(answers)
      other -> odd(answers, other)
    end
  end

  defp add(answers) do
    case Primitives.increment_counter(:load, 1) do
      {:ok, _value} -> %{answers | added: answers.added + 1}
      {:error, :timeout} -> %{answers | maybe_added: answers.maybe_added + 1}
      {:error, :no_quorum} -> refused(answers)
      other -> odd(answers, other)
    end
  end

  defp lock(answers, timeout) do
    case Primitives.acquire_lock(:load, timeout: timeout) do
      {:ok, lock} ->
        answers = %{answers | tokens: [lock.token | answers.tokens]}
        result = Primitives.release_lock(lock)

        if result in [:ok, {:error, :not_held}, {:error, :no_quorum}, {:error, :timeout}],
          do: answers,
          else: odd(answers, result)

      {:error, reason} when reason in [:no_quorum, :timeout] ->
        refused(answers)

      # Its last release was not carried out for want of a majority.
      {:error, :already_held} ->
        refused(answers)

      other ->
        odd(answers, other)
    end
  end

  defp refused(answers), do: %{answers | refused: answers.refused + 1}
  defp odd(answers, answer), do: %{answers | odd: [answer | answers.odd]}
end

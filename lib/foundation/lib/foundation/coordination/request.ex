defmodule Foundation.Coordination.Request do
  @moduledoc """
  A transaction that somebody asks for, and how far it has come.

  Its progress is shared by who asks, who carries it out and who watches over that: whoever gives
  up learns whether that was in time.

  | progress | what it means |
  | --- | --- |
  | waiting | nothing has happened |
  | running | its function runs |
  | ran | its function has ended; nothing has been written yet |
  | committing | it may have taken place |
  | withdrawn | who asked has given it up, and it will not take place |
  | stopped | likewise, and its function still runs |
  | killed | its function runs though nobody waits for it, and its process will be killed |
  """

  alias Foundation.Call

  @enforce_keys [:fun, :caller, :timeout, :deadline, :progress]
  defstruct @enforce_keys

  @typedoc "`:timeout` are the milliseconds that there were until the deadline when it was made."
  @type t :: %__MODULE__{
          fun: (() -> term),
          caller: pid,
          timeout: non_neg_integer,
          deadline: integer,
          progress: :atomics.atomics_ref()
        }

  @waiting 0
  @running 1
  @ran 2
  @committing 3
  @withdrawn 4
  @stopped 5
  @killed 6

  @doc "The caller asks for `fun`, until `deadline` (`Foundation.Call.deadline/1`)."
  @spec new((() -> term), integer) :: t
  def new(fun, deadline) do
    %__MODULE__{
      fun: fun,
      caller: self(),
      timeout: Call.left(deadline),
      deadline: deadline,
      progress: :atomics.new(1, [])
    }
  end

  @doc "Whether somebody waits for it."
  @spec awaited?(t) :: boolean
  def awaited?(request), do: Call.left(request.deadline) > 0 and Process.alive?(request.caller)

  @doc """
  Whether it is worth while to begin it, if it takes `margin` milliseconds.

  What would end after its deadline is not begun: else, with too many callers, each would be begun
  just before that, and none would be in time. But one half of its time it waits in any case.
  """
  @spec wanted?(t, non_neg_integer) :: boolean
  def wanted?(request, margin) do
    Call.left(request.deadline) > min(margin, div(request.timeout, 2)) and
      Process.alive?(request.caller)
  end

  @doc "From waiting to running; false when it has been withdrawn."
  @spec run(t) :: boolean
  def run(request), do: step(request, @waiting, @running)

  @doc "Its function has ended, in the process that runs it; false when it has been withdrawn."
  @spec ran(t) :: boolean
  def ran(request) do
    cond do
      step(request, @running, @ran) -> true
      step(request, @stopped, @withdrawn) -> false
      true -> Process.exit(self(), :kill)
    end
  end

  @doc "The commit begins, if it ran."
  @spec committing(t) :: boolean
  def committing(request), do: step(request, @ran, @committing)

  @doc "It waits again, as nothing of it took place; unless it has been withdrawn."
  @spec again(t) :: boolean
  def again(request), do: Enum.any?([@running, @ran, @committing], &step(request, &1, @waiting))

  @doc "Withdraws it, and returns what it is now; one that is under way may take place."
  @spec withdraw(t) :: :withdrawn | :stopped | :under_way
  def withdraw(request) do
    cond do
      step(request, @waiting, @withdrawn) -> :withdrawn
      step(request, @running, @stopped) -> :stopped
      true -> :under_way
    end
  end

  @doc """
  Whether its process has to be killed, as its function runs though nobody waits for it.

  If so, that process will not go beyond this function, even if it ends just now.
  """
  @spec kill?(t) :: boolean
  def kill?(request) do
    step(request, @stopped, @killed) or
      (not awaited?(request) and step(request, @running, @killed))
  end

  @doc "Whether its function has ended, and it may take place."
  @spec under_way?(t) :: boolean
  def under_way?(request), do: :atomics.get(request.progress, 1) in [@ran, @committing]

  @doc "Whether it may have taken place."
  @spec committing?(t) :: boolean
  def committing?(request), do: :atomics.get(request.progress, 1) == @committing

  defp step(request, from, to),
    do: :atomics.compare_exchange(request.progress, 1, from, to) == :ok
end

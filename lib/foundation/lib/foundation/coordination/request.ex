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

  @enforce_keys [:fun, :caller, :latest, :progress]
  defstruct @enforce_keys

  @typedoc "`:latest` is when it is too late to begin (`Foundation.Call.deadline/1`)."
  @type t :: %__MODULE__{
          fun: (() -> term),
          caller: pid,
          latest: integer,
          progress: :atomics.atomics_ref()
        }

  @waiting 0
  @running 1
  @ran 2
  @committing 3
  @withdrawn 4
  @stopped 5
  @killed 6

  # What would end after its deadline is not begun: else, with too many callers, each would be
  # begun just before that, and none would be in time.
  @margin_ms 5

  @doc "The caller asks for `fun`, until `deadline` (`Foundation.Call.deadline/1`)."
  @spec new((() -> term), integer) :: t
  def new(fun, deadline) do
    latest = deadline - min(@margin_ms, div(Call.left(deadline), 2))
    %__MODULE__{fun: fun, caller: self(), latest: latest, progress: :atomics.new(1, [])}
  end

  @doc "Whether it is worth while to begin it."
  @spec wanted?(t) :: boolean
  def wanted?(request), do: Call.left(request.latest) > 0 and Process.alive?(request.caller)

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

  @doc "Withdraws it: true when it will not take place, false when it may."
  @spec withdraw(t) :: boolean
  def withdraw(request) do
    step(request, @waiting, @withdrawn) or step(request, @running, @stopped)
  end

  @doc """
  Whether its process has to be killed, as its function runs though nobody waits for it.

  If so, that process will not go beyond this function, even if it ends just now.
  """
  @spec kill?(t) :: boolean
  def kill?(request) do
    step(request, @stopped, @killed) or
      (not wanted?(request) and step(request, @running, @killed))
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

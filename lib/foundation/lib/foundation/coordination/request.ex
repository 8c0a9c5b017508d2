defmodule Foundation.Coordination.Request do
  @moduledoc """
  A transaction that somebody asks for, and how far it has come.

  Its progress is shared by who asks and who carries it out: whoever gives up learns whether it
  has given up in time, and what became of one whose process died.

  | progress | what it means |
  | --- | --- |
  | waiting | nothing has happened |
  | running | its function runs |
  | ran | its function has returned; nothing has been written yet |
  | committing | it may have taken place |
  | withdrawn | who asked has given it up, and it will not take place |
  """

  @enforce_keys [:fun, :caller, :deadline, :progress]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          fun: (() -> term),
          caller: pid,
          deadline: integer,
          progress: :atomics.atomics_ref()
        }

  @waiting 0
  @running 1
  @ran 2
  @committing 3
  @withdrawn 4

  @doc "The caller asks for `fun`, until `deadline` (`Foundation.Call.deadline/1`)."
  @spec new((() -> term), integer) :: t
  def new(fun, deadline) do
    %__MODULE__{fun: fun, caller: self(), deadline: deadline, progress: :atomics.new(1, [])}
  end

  @doc "Whether somebody still waits for it."
  @spec wanted?(t) :: boolean
  def wanted?(request) do
    Foundation.Call.left(request.deadline) > 0 and Process.alive?(request.caller)
  end

  @doc "From waiting to running; false when it has been withdrawn."
  @spec running(t) :: boolean
  def running(request), do: step(request, @waiting, @running)

  @doc "From running to ran; false when it has been withdrawn."
  @spec ran(t) :: boolean
  def ran(request), do: step(request, @running, @ran)

  @doc "The commit begins, if it ran."
  @spec committing(t) :: boolean
  def committing(request), do: step(request, @ran, @committing)

  @doc "It waits again, as nothing of it took place; unless it has been withdrawn."
  @spec again(t) :: boolean
  def again(request), do: Enum.any?([@running, @ran, @committing], &step(request, &1, @waiting))

  @doc """
  Withdraws it, and returns where it was: it will not take place if it was waiting or running.
  """
  @spec withdraw(t) :: :waiting | :running | :under_way
  def withdraw(request) do
    cond do
      step(request, @waiting, @withdrawn) -> :waiting
      step(request, @running, @withdrawn) -> :running
      true -> :under_way
    end
  end

  @doc "Whether it may have taken place."
  @spec committing?(t) :: boolean
  def committing?(request), do: :atomics.get(request.progress, 1) == @committing

  defp step(request, from, to),
    do: :atomics.compare_exchange(request.progress, 1, from, to) == :ok
end

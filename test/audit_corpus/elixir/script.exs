# A script: calls at the top, outside of any module.
import Task, only: [async: 1]
alias Agent, as: Memory

{:ok, memory} = Memory.start(fn -> 0 end) #=> unlinked Agent.start/1
pid = spawn(fn -> Memory.get(memory, & &1) end) #=> unlinked Kernel.spawn/1
task = async(fn -> pid end) #=> tethered Task.async/1

defmodule Corpus.Script do
  def run(fun), do: fun |> async() |> Task.await() #=> tethered Task.async/1
end

Task.await(task)
Supervisor.start_link([], strategy: :one_for_one) #=> tethered Supervisor.start_link/2

defmodule Corpus.Forms do
  @moduledoc "The ways in which a call can be written."
  require Logger

  def captures(list) do
    Enum.each(list, &spawn/1) #=> unlinked Kernel.spawn/1
    Enum.each(list, &Kernel.spawn/1) #=> unlinked Kernel.spawn/1
    Enum.each(list, &Task.start/1) #=> unlinked Task.start/1
    Enum.each(list, &Task.start(&1)) #=> unlinked Task.start/1
    Enum.each(list, &:erlang.spawn/1) #=> unlinked erlang:spawn/1
    Enum.each(list, &spawn(fn -> &1 end)) #=> unlinked Kernel.spawn/1
    Enum.each(list, &spawn(__MODULE__, :run, [&1])) #=> unlinked Kernel.spawn/3
    Enum.each(list, &Process.spawn(&1, [:link])) #=> tethered Process.spawn/2
    Enum.each(list, &(&1 |> Task.async() |> Task.await())) #=> tethered Task.async/1
    Enum.each(list, &Function.capture(&1, :spawn, 1))
    start = &Process.spawn/2 #=> unlinked Process.spawn/2
    link = &GenServer.start_link/3 #=> tethered GenServer.start_link/3
    made = Function.capture(Kernel, :spawn, 1) #=> unlinked Kernel.spawn/1
    erlang = :erlang.make_fun(:erlang, :spawn_link, 1) #=> tethered erlang:spawn_link/1
    {start, link, made, erlang, &Task.await/1, &run/1, &(&1 / 2)}
  end

  def run(fun), do: fun.()

  def applies(fun, module, function, arguments) do
    apply(Kernel, :spawn, [fun]) #=> unlinked Kernel.spawn/1
    apply(Task, :async, [fun]) #=> tethered Task.async/1
    apply(:erlang, :spawn_opt, [fun, [:link]]) #=> tethered erlang:spawn_opt/2
    apply(:erlang, :spawn_opt, [fun, []]) #=> unlinked erlang:spawn_opt/2
    Kernel.apply(Task, :start, [fun]) #=> unlinked Task.start/1
    :erlang.apply(Agent, :start, [fun]) #=> unlinked Agent.start/1
    apply(&spawn/1, [fun]) #=> unlinked Kernel.spawn/1
    apply(fn f -> Task.start(f) end, [fun]) #=> unlinked Task.start/1
    Task |> apply(:start, [fun]) #=> unlinked Task.start/1
    apply(Kernel, :apply, [Task, :start, [fun]]) #=> unlinked Task.start/1
    apply(Task, :start, arguments) #=> unlinked Task.start/1
    apply(Task, :await, [fun])
    apply(Task, :start, [fun, fun])
    apply(module, :spawn, [fun])
    apply(Kernel, function, [fun])
    apply(module, function, arguments)
  end

  def pipes(fun, list) do
    fun |> spawn() #=> unlinked Kernel.spawn/1
    fun |> spawn #=> unlinked Kernel.spawn/1
    fun |> Task.start() #=> unlinked Task.start/1
    fun |> Task.start #=> unlinked Task.start/1
    __MODULE__ |> spawn(:run, [fun]) #=> unlinked Kernel.spawn/3
    fun |> Process.spawn([:link]) #=> tethered Process.spawn/2
    fun |> :proc_lib.spawn() #=> unlinked proc_lib:spawn/1
    fun |> then(&spawn/1) #=> unlinked Kernel.spawn/1
    fun |> then(&Task.start(&1)) #=> unlinked Task.start/1
    fun |> then(fn f -> Task.async(f) end) #=> tethered Task.async/1
    fun |> tap(&spawn/1) |> run() #=> unlinked Kernel.spawn/1
    then(fun, &spawn/1) #=> unlinked Kernel.spawn/1
    fun |> (&spawn/1).() #=> unlinked Kernel.spawn/1
    fun |> Task.start(:run, []) #=> unlinked Task.start/3
    fun |> Task.start(:run)

    list
    |> Enum.filter(&is_function/1)
    |> Enum.map(&Task.async/1) #=> tethered Task.async/1
    |> Task.await_many()

    list
    |> Task.async_stream( #=> tethered Task.async_stream/3
      fn f -> spawn(f) end, #=> unlinked Kernel.spawn/1
      timeout: 1_000
    )
    |> Stream.run()

    fun
    |> case do
      nil -> spawn(fn -> :ok end) #=> unlinked Kernel.spawn/1
      other -> other |> Task.start() #=> unlinked Task.start/1
    end
  end

  def nested(fun) do
    spawn(fn -> #=> unlinked Kernel.spawn/1
      Task.start(fn -> #=> unlinked Task.start/1
        send(self(), spawn_link(fun)) #=> tethered Kernel.spawn_link/1
      end)
    end)

    outer = fn ->
      inner = fn -> Agent.start(fun) end #=> unlinked Agent.start/1
      inner.()
    end

    {outer, [spawn(fun), spawn(fun)], %{pid: spawn(fun)}, {:ok, spawn(fun)}} #=> unlinked Kernel.spawn/1
  end

  def comprehensions(list) do
    for fun <- list, do: spawn(fun) #=> unlinked Kernel.spawn/1
    for fun <- list, pid = spawn(fun), into: %{}, do: {pid, Task.async(fun)} #=> unlinked Kernel.spawn/1; tethered Task.async/1
    for <<byte <- "ab">>, do: spawn(fn -> byte end) #=> unlinked Kernel.spawn/1

    for fun <- Enum.map(list, &Task.async/1), reduce: [] do #=> tethered Task.async/1
      all -> [spawn(fun) | all] #=> unlinked Kernel.spawn/1
    end
  end

  def branches(fun, what) do
    with {:ok, pid} <- Task.start(fun), #=> unlinked Task.start/1
         other = spawn(fun), #=> unlinked Kernel.spawn/1
         true <- is_pid(pid) do
      spawn_link(fn -> other end) #=> tethered Kernel.spawn_link/1
    else
      {:error, _} -> Agent.start(fun) #=> unlinked Agent.start/1
    end

    case spawn(fun) do #=> unlinked Kernel.spawn/1
      pid when is_pid(pid) -> Task.async(fun) #=> tethered Task.async/1
    end

    cond do
      what == 1 -> spawn(fun) #=> unlinked Kernel.spawn/1
      Process.alive?(spawn(fun)) -> :ok #=> unlinked Kernel.spawn/1
      true -> if what, do: spawn(fun), else: Task.start(fun) #=> unlinked Kernel.spawn/1; unlinked Task.start/1
    end

    unless what, do: spawn(fun) #=> unlinked Kernel.spawn/1
    what || spawn(fun) #=> unlinked Kernel.spawn/1
    what && !spawn(fun) #=> unlinked Kernel.spawn/1
    not is_pid(spawn(fun)) #=> unlinked Kernel.spawn/1
  end

  def waits(fun) do
    receive do
      :start -> spawn(fun) #=> unlinked Kernel.spawn/1
    after
      100 -> Task.start(fun) #=> unlinked Task.start/1
    end

    try do
      spawn(fun) #=> unlinked Kernel.spawn/1
    rescue
      _ -> Task.start(fun) #=> unlinked Task.start/1
    catch
      :exit, _ -> spawn_link(fun) #=> tethered Kernel.spawn_link/1
    else
      _ -> Agent.start(fun) #=> unlinked Agent.start/1
    after
      Task.async(fun) #=> tethered Task.async/1
    end
  end

  def implicit_try(fun) do
    fun.()
  rescue
    _ -> spawn(fun) #=> unlinked Kernel.spawn/1
  after
    Task.start(fun) #=> unlinked Task.start/1
  end

  def lines(fun) do
    pid =
      spawn( #=> unlinked Kernel.spawn/3
        __MODULE__,
        :run,
        [
          fun
        ]
      )

    Task.
      start(fun) #=> unlinked Task.start/1

    Elixir
    .Task
    .async(fun) #=> tethered Task.async/1

    {:ok, other} =
      GenServer.start( #=> unlinked GenServer.start/2
        __MODULE__,
        pid
      )

    spawn(fn -> other end); Task.start(fun) #=> unlinked Kernel.spawn/1; unlinked Task.start/1
  end

  def interpolated(fun) do
    Logger.info("started #{inspect(spawn(fun))}") #=> unlinked Kernel.spawn/1
    ~s(a sigil with #{inspect(Task.start(fun))}) #=> unlinked Task.start/1
    :"name #{inspect(spawn(fun))}" #=> unlinked Kernel.spawn/1
    ~w(spawn #{inspect(spawn(fun))}) #=> unlinked Kernel.spawn/1

    """
    spawn(fun) in a text, and in code:
    #{inspect(spawn(fun))} #=> unlinked Kernel.spawn/1
    """
  end

  def defaults(fun, pid \\ spawn(fn -> :ok end)), do: {fun, pid} #=> unlinked Kernel.spawn/1

  def guarded(fun) when is_function(fun, 0), do: spawn(fun) #=> unlinked Kernel.spawn/1

  defp hidden(fun), do: spawn(fun) #=> unlinked Kernel.spawn/1

  def calls_hidden(fun), do: hidden(fun)

  for name <- [:one, :two] do
    def unquote(name)(fun), do: spawn(fun) #=> unlinked Kernel.spawn/1
  end

  @at_compile_time Task.async(fn -> :ok end) |> Task.await() #=> tethered Task.async/1
  def at_compile_time, do: @at_compile_time
end

defprotocol Corpus.Runs do
  @doc "spawn(fun)"
  def spawn(what)
end

defimpl Corpus.Runs, for: [Function, Atom] do
  import Kernel, except: [spawn: 1]
  def spawn(what), do: Kernel.spawn(fn -> what end) #=> unlinked Kernel.spawn/1
end

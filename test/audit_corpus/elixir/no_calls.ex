defmodule Corpus.NoCalls do
  @moduledoc """
  Nothing in here is a call that makes a process: spawn(fun), Task.start(fun).

      iex> spawn(fn -> :ok end)
      iex> Task.async(fn -> :ok end)
  """

  # spawn(fun), Task.start(fun)
  @doc "As `spawn/1` and `Task.start/1`."
  @doc since: "1.0.0", guards: "spawn(fun)"
  @typedoc "spawn(fun)"
  @type spawn(fun) :: {:spawn, fun}
  @type start_link :: spawn(fun)
  @typep async(t) :: t
  @opaque spawned :: async(spawn(fun))
  @callback spawn_link(fun) :: spawn(fun)
  @macrocallback spawn_monitor(fun) :: spawn(fun)
  @optional_callbacks spawn_link: 1
  @spawn :spawn
  @spec strings(fun) :: spawn(fun)
  def strings(fun) do
    "spawn(fun)"
    'spawn(fun)'
    ~s[Task.start(fun)]
    ~S|#{spawn(fun)}|
    ~w(spawn Task.start)a
    ~r/spawn(fun)/
    :"spawn(fun)"

    """
    spawn(fun)
    Task.start(fun)
    """

    ~S"""
    #{spawn(fun)}
    """

    {:spawn, fun}
  end

  def variables(spawn, fun) do
    spawn_link = spawn
    spawn.(fun)
    spawn_link.(fun)
    fun.(spawn, spawn_link)
    %{spawn: spawn, start: fun}.start.(fun)
    %{spawn: start} = %{spawn: spawn}
    start
  end

  def data(map, fun) do
    [spawn: 1, start_link: 2, async: fun]
    map.spawn
    map[:spawn]
    {Task, :start, [fun]}
    {Kernel, :spawn, 1}
    %{start: {Task, :start_link, [fun]}}
    @spawn
    [Task, Agent, :spawn]
  end

  def unknown(module, name, fun) do
    module.spawn(fun)
    module.start_link(fun, [])
    apply(module, name, [fun])
    (&module.spawn/1).(fun)
    Function.capture(module, name, 1)
  end

  def others(fun) do
    Corpus.Helper.spawn(fun)
    Corpus.Helper.start_link(fun)
    Corpus.Task.start(fun)
    Task.Corpus.start(fun)
    :corpus.spawn(fun)
    :gen_server.cast(fun, :spawn)
    Port.close(fun)
    Node.list()
    Task.shutdown(fun)
  end

  # Not with these many arguments.
  def arities(fun) do
    Task.start(fun, fun)
    Kernel.spawn(fun, fun)
    Process.spawn(fun)
    Agent.start()
    &Task.start/2
  end

  def binaries(<<spawn::8, rest::binary-size(spawn)>>), do: <<spawn::8, rest::binary>>
  def patterns(%{start: {Task, :start_link, [spawn]}}, [start | _]), do: {spawn, start}

  defstruct spawn: nil, start_link: nil
  def struct(%__MODULE__{spawn: spawn} = all), do: %__MODULE__{all | start_link: spawn}
end

defmodule Corpus.Children do
  @moduledoc "A function that a child spec names is started by a supervisor: what it starts with a link is supervised."
  use Supervisor

  def start_link(argument), do: Supervisor.start_link(__MODULE__, argument)

  @impl true
  def init(argument) do
    children = [
      Corpus.Server,
      {Corpus.Server, argument},
      %{id: :map, start: {Corpus.Children.Started, :begin, [argument]}},
      %{:id => :arrow, :start => {Corpus.Children.Started, :arrow, [argument, argument]}},
      {:tuple, {Corpus.Children.Started, :tuple, [argument]}, :permanent, 5_000, :worker, :dynamic},
      Supervisor.child_spec({Corpus.Server, argument}, start: {Corpus.Children.Started, :override, [argument]}),
      %{id: :any, start: {Corpus.Children.Started, :any, argument}}
    ]

    Supervisor.init(children, strategy: :one_for_one)
  end

  def more(supervisor, argument) do
    spec = %{id: :late, start: {Corpus.Children.Started, :late, [argument]}}
    Supervisor.start_child(supervisor, spec)
    DynamicSupervisor.start_child(supervisor, {Corpus.Server, argument})
  end
end

defmodule Corpus.Children.Started do
  @moduledoc "What the specs name, and what they do not."
  def begin(argument), do: GenServer.start_link(__MODULE__, argument)
  def arrow(argument, _), do: Agent.start_link(fn -> argument end)
  def tuple(argument), do: {:ok, spawn_link(fn -> argument end)}
  def override(argument), do: :gen_server.start_link(__MODULE__, argument, [])
  def late(argument), do: Task.start_link(fn -> argument end)
  def any(argument, _, _), do: Task.start_link(fn -> argument end)
  def begin(argument, _), do: GenServer.start_link(__MODULE__, argument) #=> tethered GenServer.start_link/2
  def other(argument), do: GenServer.start_link(__MODULE__, argument) #=> tethered GenServer.start_link/2

  # That a spec names it makes no link, and does not restart what is beside it.
  def begin(argument, _, _), do: GenServer.start(__MODULE__, argument) #=> unlinked GenServer.start/2
end

defmodule Corpus.Children.Own do
  @moduledoc "A module that says itself how it is started."
  use GenServer, start: {__MODULE__, :launch, [nil]}, restart: :transient

  def launch(argument), do: GenServer.start_link(__MODULE__, argument)
  def launch, do: GenServer.start_link(__MODULE__, nil) #=> tethered GenServer.start_link/2
  def run, do: {:ok, spawn_link(fn -> :ok end)}
  def child_spec(_argument), do: %{id: __MODULE__, start: {__MODULE__, :run, []}}

  @impl true
  def init(argument), do: {:ok, argument}
end

defmodule Corpus.Children.Old do
  @moduledoc "By the specs of old."
  import Supervisor.Spec

  def children(argument) do
    [
      worker(Corpus.Server, [argument]),
      worker(Corpus.Children.Old, [argument], function: :boot),
      supervisor(Corpus.Children.Old, [], function: :top, restart: :permanent)
    ]
  end

  def boot(argument), do: Agent.start_link(fn -> argument end)
  def top, do: Supervisor.start_link([], strategy: :one_for_one)
  def off, do: Supervisor.start_link([], strategy: :one_for_one) #=> tethered Supervisor.start_link/2
end

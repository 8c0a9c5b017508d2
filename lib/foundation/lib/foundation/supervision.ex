defmodule Foundation.Supervision do
  @moduledoc """
  Which phases of the supervision plan are on.

  Each phase has a flag, on unless told otherwise, which can be switched while the node runs,
  forth and back, each on its own:

      config :foundation, supervision: [phase_1: true, phase_2: false]

      Foundation.Supervision.switch(:phase_2, true)

  | phase | what runs under a supervisor when it is on |
  | --- | --- |
  | `:phase_1` | the health and service monitors, the coordinations of MABEAM, memory-intensive work |
  | `:phase_2` | the messages of the coordination primitives, asynchronous requests, agents without a pid, barriers |
  | `:phase_3` | what tests make: clean-up of a test's namespace, assignments of the load balancer in test mode |
  | `:phase_4` | agreement between nodes stands on a majority of fixed members; a coordination outlives its node |

  With a phase off, the code in the `legacy/` rooms runs in its place: as it was when it was
  audited, with processes that nobody supervises. Work under way when a phase is switched ends in
  the way in which it began; long-lived processes are exchanged before `switch/2` returns, by the
  applications' own `c:switch/2`.
  """
  use GenServer

  alias Foundation.{Call, Stray}

  @phases [:phase_1, :phase_2, :phase_3, :phase_4]

  @type phase :: :phase_1 | :phase_2 | :phase_3 | :phase_4

  @doc """
  Exchanges an application's long-lived processes for those of the other state of `phase`, and
  returns when this is done.

  The module is named by the application's environment, key `:supervision_switch`. The flag is
  already set. It may be asked again for what it has done already, or done in part: after a crash.
  """
  @callback switch(phase, enabled? :: boolean) :: :ok

  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The phases, in the plan's order."
  @spec phases() :: [phase]
  def phases, do: @phases

  @doc "Whether `phase` is on."
  @spec enabled?(phase) :: boolean
  def enabled?(phase) when phase in @phases do
    :foundation |> Application.get_env(:supervision, []) |> Keyword.get(phase, true)
  end

  @doc "All flags."
  @spec flags() :: [{phase, boolean}]
  def flags, do: Enum.map(@phases, &{&1, enabled?(&1)})

  @doc """
  Switches `phase` on or off.

  Returns when the processes of its other state are gone. `{:error, :bad_phase}` and `{:error,
  :bad_flag}` name what is wrong; `{:error, :unavailable}` says that Foundation does not run.
  """
  @spec switch(phase, boolean) :: :ok | {:error, :bad_phase | :bad_flag | Call.reason()}
  def switch(phase, _enabled?) when phase not in @phases, do: {:error, :bad_phase}
  def switch(_phase, enabled?) when not is_boolean(enabled?), do: {:error, :bad_flag}
  def switch(phase, enabled?), do: Call.call(__MODULE__, {:switch, phase, enabled?}, 30_000)

  @impl true
  def init([]), do: {:ok, nil, {:continue, :resume}}

  # The one before this server may have been killed in the midst of an exchange. It is made once
  # more, and not a third time: were it the exchange that crashes, all of Foundation would go down
  # with it.
  @impl true
  def handle_continue(:resume, state) do
    with {:ok, phase} <- Application.fetch_env(:foundation, :supervision_exchange) do
      Application.delete_env(:foundation, :supervision_exchange)
      exchange(phase)
    end

    {:noreply, state}
  end

  @impl true
  def handle_call({:switch, phase, enabled?}, _from, state) do
    if enabled?(phase) != enabled? do
      flags = Keyword.put(flags(), phase, enabled?)
      Application.put_env(:foundation, :supervision, flags)
      Application.put_env(:foundation, :supervision_exchange, phase)
      exchange(phase)
      Application.delete_env(:foundation, :supervision_exchange)
    end

    {:reply, :ok, state}
  end

  def handle_call(request, _from, state), do: Stray.call(request, state)

  @impl true
  def handle_cast(message, state), do: Stray.message(message, state)

  @impl true
  def handle_info(message, state), do: Stray.message(message, state)

  defp exchange(phase), do: Enum.each(switches(), & &1.switch(phase, enabled?(phase)))

  defp switches do
    for {application, _description, _version} <- Application.started_applications(),
        module = Application.get_env(application, :supervision_switch),
        do: module
  end
end

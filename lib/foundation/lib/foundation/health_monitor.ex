defmodule Foundation.HealthMonitor do
  @moduledoc """
  Asks every service of the tree, time and again, whether it answers.

  The first check is made at the start, the next ones each `:health_interval` milliseconds of the
  environment, 30,000 unless told otherwise. All services are asked at once, and have a second
  together: one that hangs delays a check by no more than that.

  Each check executes `[:foundation, :health, :check]` with the measurements `duration` (native
  units), `services` and `failing`, and the health as metadata. Each service that did not answer
  is reported as the event `:service_unresponsive`, and counted as
  `[:foundation, :health, :failure]`.
  """
  use GenServer

  alias Foundation.{Call, Events, Stray, Telemetry}

  # Milliseconds in which all services must have answered.
  @deadline 1_000

  @typedoc """
  What a check found.

    * `:status` - `:healthy` when all services answered
    * `:services` - for each: `:ok`, `:timeout` when it did not answer in time, `:down` when there
      was none or it died before it answered
    * `:checked_at` - when, in milliseconds of the system's time
  """
  @type health :: %{
          status: :healthy | :degraded,
          services: %{atom => :ok | :timeout | :down},
          checked_at: integer
        }

  @doc "Starts the monitor."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "What the last check found."
  @spec health() :: {:ok, health} | {:error, Call.reason()}
  def health, do: Call.call(__MODULE__, :health)

  @doc "Makes a check now, and returns what it found."
  @spec check() :: {:ok, health} | {:error, Call.reason()}
  def check, do: Call.call(__MODULE__, :check)

  # Not within init: while the tree starts, or a phase is switched, whoever waits for this monitor
  # could not answer it. A question for the health that comes early waits behind the first check.
  @impl true
  def init([]), do: {:ok, nil, {:continue, :check}}

  @impl true
  def handle_continue(:check, _health) do
    arm()
    {:noreply, examine()}
  end

  @impl true
  def handle_call(:health, _from, health), do: {:reply, {:ok, health}, health}

  def handle_call(:check, _from, _health) do
    health = examine()
    {:reply, {:ok, health}, health}
  end

  def handle_call(request, _from, health), do: Stray.call(request, health)

  @impl true
  def handle_cast(message, health), do: Stray.message(message, health)

  @impl true
  def handle_info(:check, _health) do
    arm()
    {:noreply, examine()}
  end

  def handle_info(message, health), do: Stray.message(message, health)

  defp arm do
    interval = Application.get_env(:foundation, :health_interval, 30_000)
    Process.send_after(self(), :check, interval)
  end

  defp examine do
    started = System.monotonic_time()
    services = Foundation.Application.services() |> ask() |> gather(Call.deadline(@deadline), %{})
    failing = for {name, answer} <- services, answer != :ok, do: {name, answer}

    health = %{
      status: if(failing == [], do: :healthy, else: :degraded),
      services: services,
      checked_at: System.system_time(:millisecond)
    }

    duration = System.monotonic_time() - started
    measurements = %{duration: duration, services: map_size(services), failing: length(failing)}
    Enum.each(failing, &report/1)
    Telemetry.execute([:foundation, :health, :check], measurements, health)
    health
  end

  defp ask(services) do
    Enum.reduce(services, :gen_server.reqids_new(), fn service, requests ->
      :gen_server.send_request(service.name, service.ping, service.name, requests)
    end)
  end

  defp gather(requests, deadline, answers) do
    case :gen_server.receive_response(requests, {:abs, deadline}, true) do
      {{:reply, _answer}, name, requests} ->
        gather(requests, deadline, Map.put(answers, name, :ok))

      {{:error, _reason}, name, requests} ->
        gather(requests, deadline, Map.put(answers, name, :down))

      # This gives the requests up: what answers later answers nobody.
      :timeout ->
        for {_id, name} <- :gen_server.reqids_to_list(requests),
            into: answers,
            do: {name, :timeout}

      :no_request ->
        answers
    end
  end

  defp report({name, answer}) do
    Events.report(:service_unresponsive, %{service: name, answer: answer})
    Telemetry.emit_counter([:foundation, :health, :failure], %{service: name, answer: answer})
  end
end

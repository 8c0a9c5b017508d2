defmodule MABEAM.CoreTest do
  # The last test coordinates all agents that there are.
  use ExUnit.Case, async: false

  alias Foundation.Test.Signals
  alias MABEAM.{Agent, Core}
  alias MABEAM.Test.{Actor, Servant, Tree}

  setup do
    name = "variable-#{System.unique_integer([:positive])}"
    on_exit(fn -> Core.delete_variable(name) end)
    {:ok, name: name}
  end

  # A process that is subscribed, and hands on to the test what it gets.
  defmodule Subscriber do
    use GenServer

    def start_link({test, name}), do: GenServer.start_link(__MODULE__, {test, name})

    @impl true
    def init({test, name}) do
      :ok = MABEAM.Core.subscribe(name)
      {:ok, test}
    end

    @impl true
    def handle_info(message, test) do
      send(test, {:relayed, message})
      {:noreply, test}
    end
  end

  test "a variable has a value, within its constraint, until it is deleted", %{name: name} do
    assert Core.register_variable(name, 0.5, {:range, 0, 1}) == :ok
    assert Core.register_variable(name, 0.6, {:range, 0, 1}) == {:error, :already_registered}
    assert Core.get_variable(name) == {:ok, 0.5}
    assert Core.update_variable(name, 1) == :ok
    assert Core.get_variable(name) == {:ok, 1}
    assert Core.update_variable(name, 1.1) == {:error, :not_allowed}
    assert Core.update_variable(name, "1") == {:error, :not_allowed}
    assert {:ok, variables} = Core.list_variables()
    assert {name, 1, {:range, 0, 1}} in variables
    assert Core.delete_variable(name) == :ok
    assert Core.get_variable(name) == {:error, :unknown_variable}
    assert Core.update_variable(name, 1) == {:error, :unknown_variable}
    assert Core.delete_variable(name) == {:error, :unknown_variable}
  end

  test "constraints", %{name: name} do
    assert Core.register_variable(name, :green, {:one_of, [:red, :amber]}) ==
             {:error, :not_allowed}

    assert Core.register_variable(name, :red, {:one_of, [:red, :amber]}) == :ok
    assert Core.update_variable(name, :amber) == :ok
    assert Core.delete_variable(name) == :ok
    assert Core.register_variable(name, %{any: "thing"}) == :ok
    assert Core.update_variable(name, self()) == :ok
  end

  test "subscribers are told, until they unsubscribe, or the variable is gone", %{name: name} do
    :ok = Core.register_variable(name, 1)
    :ok = Core.subscribe(name)
    :ok = Core.update_variable(name, 2)
    assert_receive {:mabeam_variable, ^name, {:updated, 2}}, 5_000
    :ok = Core.unsubscribe(name)
    :ok = Core.update_variable(name, 3)
    refute_received {:mabeam_variable, ^name, _what}
    assert Core.unsubscribe(name) == {:error, :not_subscribed}
    :ok = Core.subscribe(name)
    :ok = Core.delete_variable(name)
    assert_receive {:mabeam_variable, ^name, :deleted}, 5_000
    assert Core.unsubscribe(name) == {:error, :not_subscribed}
    assert Core.subscribe(name) == {:error, :unknown_variable}
  end

  test "the server is killed: variables and subscriptions are there", %{name: name} do
    :ok = Core.register_variable(name, 1, {:range, 0, 9})
    start_supervised!({Subscriber, {self(), name}})
    Tree.kill!(Core)
    assert Core.get_variable(name) == {:ok, 1}
    assert Core.update_variable(name, 10) == {:error, :not_allowed}
    assert Core.update_variable(name, 2) == :ok
    assert_receive {:relayed, {:mabeam_variable, ^name, {:updated, 2}}}, 5_000
  end

  test "a subscriber that died while the server was killed is forgotten", %{name: name} do
    :ok = Core.register_variable(name, 1)
    subscriber = start_supervised!({Subscriber, {self(), name}}, restart: :temporary)
    :ok = :sys.suspend(Core)
    Signals.kill(subscriber)
    Tree.kill!(Core)
    # The monitor of a dead process tells at once, before this question.
    assert GenServer.call(Core, :ping) == :pong
    assert :ets.match(Core.Subscribers, {{name, :_}}) == []
  end

  test "the keeper of the tables is killed, and then the server", %{name: name} do
    :ok = Core.register_variable(name, 1)
    Tree.kill_keeper!()
    assert Core.update_variable(name, 2) == :ok
    Tree.kill!(Core)
    assert Core.get_variable(name) == {:ok, 2}
  end

  test "the status counts everything", %{name: name} do
    :ok = Core.register_variable(name, 1)
    {_id, _pid} = Servant.start!()
    assert {:ok, status} = Core.system_status()
    assert status.agents.running >= 1
    assert status.variables >= 1
    assert %{comms: %{requests: _}, coordination: %{active: _}, load: %{strategy: _}} = status
  end

  test "the health is that of all services" do
    assert {:ok, %{status: :healthy, services: services}} = Core.health_check()
    assert Enum.sort(Map.keys(services)) == Enum.sort(Keyword.keys(MABEAM.Supervisor.services()))
    :ok = :sys.suspend(MABEAM.LoadBalancer)
    assert {:ok, %{status: :degraded, services: services}} = Core.health_check()

    assert for({name, answer} <- services, answer != :ok, do: {name, answer}) == [
             {MABEAM.LoadBalancer, :timeout}
           ]

    :ok = :sys.resume(MABEAM.LoadBalancer)
    assert {:ok, %{status: :healthy}} = Core.health_check()
    refute_received _late_answer
  end

  test "the agents agree on each variable, or do not", %{name: name} do
    {:ok, agents} = Agent.list()
    for {id, :running} <- agents, do: Agent.stop(id)
    assert Core.coordinate_system() == {:error, :no_agents}

    choose = fn {:coordination, :consensus, :vote, %{proposals: proposals}} ->
      case proposals do
        [{_name, :red} | _] = all -> {:vote, List.last(all)}
        [{_name, 1}] -> {:vote, hd(proposals)}
        _other -> :abstain
      end
    end

    for _ <- 1..3, do: Actor.start!(choose)
    :ok = Core.register_variable(name, :red, {:one_of, [:red, :amber, :green]})
    confirmed = name <> "-confirmed"
    refused = name <> "-refused"
    on_exit(fn -> Enum.each([confirmed, refused], &Core.delete_variable/1) end)
    :ok = Core.register_variable(confirmed, 1)
    :ok = Core.register_variable(refused, 2, {:range, 0, 9})
    :ok = Core.subscribe(name)

    assert {:ok, results} = Core.coordinate_system()
    assert results[name] == {:ok, :green}
    assert results[confirmed] == {:ok, 1}
    assert {:error, {:no_agreement, _outcome}} = results[refused]
    assert Core.get_variable(name) == {:ok, :green}
    assert Core.get_variable(refused) == {:ok, 2}
    assert_receive {:mabeam_variable, ^name, {:updated, :green}}, 5_000
  end

  test "messages that are not its own do no harm", %{name: name} do
    send(Core, :hello)
    GenServer.cast(Core, :hello)
    assert GenServer.call(Core, :hello) == {:error, :bad_request}
    assert Core.register_variable(name, 1) == :ok
  end
end

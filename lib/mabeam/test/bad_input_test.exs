defmodule MABEAM.BadInputTest do
  # It broadcasts to all agents, and looks whether all services lived through it.
  use ExUnit.Case, async: false

  alias MABEAM.{Agent, AgentRegistry, AgentSupervisor, Comms, Core, LoadBalancer}
  alias MABEAM.Test.Servant

  @improper [:a | :b]

  # {module, function, arguments, reason}
  @refused [
    {Agent, :register, [nil, Servant], :bad_id},
    {Agent, :register, [1, Servant], :bad_id},
    {Agent, :register, [{:a, 1}, Servant, []], :bad_id},
    {Agent, :register, ["a", :no_such_module], :bad_module},
    {Agent, :register, ["a", String], :bad_module},
    {Agent, :register, ["a", "Servant"], :bad_module},
    {Agent, :register, ["a", Servant, :type], :bad_options},
    {Agent, :register, ["a", Servant, [type: 1]], :bad_options},
    {Agent, :register, ["a", Servant, [type: nil]], :bad_options},
    {Agent, :register, ["a", Servant, [capabilities: :a]], :bad_options},
    {Agent, :register, ["a", Servant, [capabilities: [1]]], :bad_options},
    {Agent, :register, ["a", Servant, [capabilities: @improper]], :bad_options},
    {Agent, :register, ["a", Servant, [colour: :red]], :bad_options},
    {Agent, :register, ["a", Servant, @improper], :bad_options},
    {Agent, :deregister, ["nobody"], :unknown_agent},
    {Agent, :start, ["nobody"], :unknown_agent},
    {Agent, :start, [%{}], :unknown_agent},
    {Agent, :stop, ["nobody"], :unknown_agent},
    {Agent, :restart, ["nobody"], :unknown_agent},
    {Agent, :status, ["nobody"], :unknown_agent},
    {Agent, :info, ["nobody"], :unknown_agent},
    {Agent, :metrics, ["nobody"], :unknown_agent},
    {Agent, :find_by_capability, [1], :bad_capability},
    {Agent, :find_by_type, [nil], :bad_type},
    {AgentRegistry, :lookup, ["nobody"], :unknown_agent},
    {AgentRegistry, :gate, ["nobody"], :unknown_agent},
    {Comms, :request, ["nobody", :hello], :unknown_agent},
    {Comms, :request, ["nobody", :hello, :infinity], :bad_timeout},
    {Comms, :request, ["nobody", :hello, -1], :bad_timeout},
    {Comms, :request, ["nobody", :hello, 4_294_967_296], :bad_timeout},
    {Comms, :request_all, ["nobody", :hello], :bad_agents},
    {Comms, :request_all, [@improper, :hello], :bad_agents},
    {Comms, :request_all, [["nobody"], :hello, :infinity], :bad_timeout},
    {Comms, :notify, ["nobody", :hello], :unknown_agent},
    {Comms, :send_async_request, ["nobody", :hello, [timeout: :infinity]], :bad_options},
    {Comms, :send_async_request, ["nobody", :hello, [colour: :red]], :bad_options},
    {Comms, :send_async_request, ["nobody", :hello, 5_000], :bad_options},
    {Comms, :broadcast, [:some, :hello], :bad_selector},
    {Comms, :broadcast, [{:type, 1}, :hello], :bad_selector},
    {Comms, :broadcast, [{:capability, nil}, :hello], :bad_selector},
    {Comms, :broadcast, [:all, :hello, [timeout: -1]], :bad_options},
    {Comms, :multicast, ["nobody", :hello], :bad_agents},
    {Comms, :multicast, [@improper, :hello], :bad_agents},
    {Comms, :multicast, [[], :hello, [:timeout]], :bad_options},
    {Comms, :subscribe, [1, :topic], :bad_subscriber},
    {Comms, :subscribe, ["nobody", :topic], :unknown_agent},
    {Comms, :unsubscribe, ["nobody", :topic], :not_subscribed},
    {Comms, :publish_event, [nil, :data], :bad_topic},
    {Comms, :publish_event, [{:topic, 1}, :data], :bad_topic},
    {Comms, :publish_event, [:topic, :data, :now], :bad_options},
    {Core, :register_variable, [nil, 1], :bad_name},
    {Core, :register_variable, ["a", 1, {:range, 2, 1}], :bad_constraint},
    {Core, :register_variable, ["a", 1, {:range, :a, :b}], :bad_constraint},
    {Core, :register_variable, ["a", 1, {:one_of, []}], :bad_constraint},
    {Core, :register_variable, ["a", 1, {:one_of, @improper}], :bad_constraint},
    {Core, :register_variable, ["a", 3, {:range, 1, 2}], :not_allowed},
    {Core, :get_variable, ["none"], :unknown_variable},
    {Core, :update_variable, ["none", 1], :unknown_variable},
    {Core, :delete_variable, ["none"], :unknown_variable},
    {Core, :subscribe, ["none"], :unknown_variable},
    {Core, :unsubscribe, ["none"], :not_subscribed},
    {LoadBalancer, :register_agent, ["nobody"], :unknown_agent},
    {LoadBalancer, :register_agent, [1], :bad_id},
    {LoadBalancer, :register_agent, ["a", [capacity: 0]], :bad_options},
    {LoadBalancer, :register_agent, ["a", [capacity: 1.5]], :bad_options},
    {LoadBalancer, :register_agent, ["a", [capabilities: [1]]], :bad_options},
    {LoadBalancer, :register_agent, ["a", :capacity], :bad_options},
    {LoadBalancer, :unregister_agent, ["nobody"], :unknown_agent},
    {LoadBalancer, :assign_task, [[capability: :a]], :bad_task},
    {LoadBalancer, :assign_task, [%{capability: 1}], :bad_task},
    {LoadBalancer, :update_agent_metrics, ["nobody", %{active: 1}], :unknown_agent},
    {LoadBalancer, :update_agent_metrics, ["nobody", %{active: -1}], :bad_metrics},
    {LoadBalancer, :update_agent_metrics, ["nobody", %{load: 1}], :bad_metrics},
    {LoadBalancer, :update_agent_metrics, ["nobody", %{}], :bad_metrics},
    {LoadBalancer, :update_agent_metrics, ["nobody", [active: 1]], :bad_metrics},
    {LoadBalancer, :set_load_strategy, [:fastest], :bad_strategy},
    {LoadBalancer, :set_load_strategy, ["round_robin"], :bad_strategy}
  ]

  for {module, function, arguments, reason} <- @refused do
    call = "#{inspect(module)}.#{function}#{inspect(List.to_tuple(arguments))}"

    test "#{reason}: #{call}" do
      answer = apply(unquote(module), unquote(function), unquote(Macro.escape(arguments)))
      assert answer == {:error, unquote(reason)}
    end
  end

  test "a dead pid, and a name that is taken" do
    dead = start_supervised!({Task, fn -> :ok end}, restart: :temporary)
    ref = Process.monitor(dead)
    assert_receive {:DOWN, ^ref, :process, ^dead, _reason}, 5_000
    assert Comms.subscribe(dead, :topic) == {:error, :not_alive}

    {id, _pid} = Servant.start!()
    assert Agent.register(id, Servant) == {:error, :already_registered}
    assert Agent.start(id) == {:error, :already_running}
    assert AgentRegistry.deregister(id) == {:error, :running}
    assert Agent.stop(id) == :ok
    assert Agent.stop(id) == {:error, :not_running}
    assert Agent.restart(id) == {:error, :not_running}
    assert Comms.notify(id, :hello) == {:error, :not_running}
  end

  # Every public function but those that the processes of an agent call of themselves.
  @functions for {module, functions} <- [
                   {Agent, Agent.__info__(:functions)},
                   {AgentSupervisor, [start: 1, stop: 1, restart: 1]},
                   {Comms, Comms.__info__(:functions)},
                   {Core, Core.__info__(:functions)},
                   {LoadBalancer, LoadBalancer.__info__(:functions)}
                 ],
                 {function, arity} <- functions,
                 {module, function} != {Agent, :switch},
                 do: {module, function, arity}

  @terms Macro.escape([
           nil,
           true,
           :a,
           "a",
           "",
           1,
           -1,
           1.5,
           [],
           [:a],
           [a: 1],
           {},
           {:a, 1},
           %{},
           %{a: 1}
         ])

  test "nothing that a function is given crashes it, or a service" do
    terms = [self(), make_ref(), &is_atom/1, @improper | unquote(@terms)]
    services = for {name, _question} <- MABEAM.Supervisor.services(), do: Process.whereis(name)
    :ok = Agent.register("a", Servant.Deaf)
    on_exit(fn -> for id <- ["a", :a], do: Agent.deregister(id) end)
    atoms = :erlang.system_info(:atom_count)

    for {module, function, arity} <- @functions, arguments <- tuples(terms, arity) do
      case apply(module, function, arguments) do
        :ok -> :ok
        {:ok, _result} -> :ok
        {:error, _reason} -> :ok
        other -> flunk("#{inspect({module, function, arguments})} returned #{inspect(other)}")
      end
    end

    # A few of the runtime's own; none for each of the thousands of calls.
    assert :erlang.system_info(:atom_count) - atoms < 100

    assert services ==
             for({name, _question} <- MABEAM.Supervisor.services(), do: Process.whereis(name))

    for name <- [true, :a, "a", ""], do: Core.delete_variable(name)
  end

  defp tuples(_terms, 0), do: [[]]

  defp tuples(terms, arity),
    do: for(term <- terms, rest <- tuples(terms, arity - 1), do: [term | rest])
end

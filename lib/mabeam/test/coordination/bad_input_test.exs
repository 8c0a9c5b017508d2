defmodule MABEAM.Coordination.BadInputTest do
  use ExUnit.Case, async: true

  alias MABEAM.Coordination

  defmodule Mute do
    def run(_agents, _params), do: :ok
  end

  defmodule Wrong do
    def run(_agents, _params, _context), do: {:ok, 1}
    def retries, do: :often
  end

  defmodule Raising do
    def run(_agents, _params, _context), do: {:ok, 1}
    def on_node_down, do: raise("how should I know")
  end

  defp coordinate(options) do
    protocol = Keyword.get(options, :protocol, :consensus)
    agents = Keyword.get(options, :agents, [:a])
    params = Keyword.get(options, :params, %{value: 1})
    arguments = [protocol, agents, params, Keyword.get(options, :options, [])]

    assert apply(Coordination, :coordinate, arguments) ==
             apply(Coordination, :coordinate_async, arguments)

    apply(Coordination, :coordinate, arguments)
  end

  test "what cannot be coordinated is refused, whatever it is" do
    for {key, values, reason} <- [
          {:protocol, [1, nil, {:consensus}, ~c"consensus", self()], :bad_protocol},
          {:protocol, [:dictatorship, "consensus", ""], :unknown_protocol},
          {:agents, [[], :a, %{}, nil, [1], [nil], [:a | :b], [:a, :a], [:a, self()]],
           :bad_agents},
          {:params, [nil, [], [value: 1], 1, "", 1..2], :bad_params},
          {:options, [nil, %{}, [:timeout], [time: 1], [{"timeout", 1}], [timeout: 1, x: 2]],
           :bad_options},
          {:options, for(t <- [0, -1, 1.5, :infinity, nil, 0x100000000], do: [timeout: t]),
           :bad_timeout}
        ],
        value <- values do
      assert {key, value, coordinate([{key, value}])} == {key, value, {:error, reason}}
    end
  end

  test "what is no protocol is not registered" do
    for {name, module, reason} <- [
          {1, Coordination.Auction, :bad_name},
          {nil, Coordination.Auction, :bad_name},
          {self(), Coordination.Auction, :bad_name},
          {:new, nil, :bad_protocol},
          {:new, "Auction", :bad_protocol},
          {:new, NoSuchModule, :bad_protocol},
          {:new, Mute, :bad_protocol},
          {:new, Wrong, :bad_protocol},
          {:new, Raising, :bad_protocol},
          {:new, {Coordination.Auction, 1}, :bad_protocol},
          {:new, {Coordination.Auction, [:type]}, :bad_protocol},
          {:new, {Coordination.Auction, [], []}, :bad_protocol},
          {:auction, Coordination.Auction, :already_registered},
          {:consensus, {Coordination.Auction, []}, :already_registered}
        ] do
      assert {name, module, Coordination.register_protocol(name, module)} ==
               {name, module, {:error, reason}}
    end
  end

  test "what is no session has no result and is not cancelled" do
    for id <- [nil, 1, "id", :id, self()] do
      assert Coordination.get_session_results(id, 100) == {:error, :bad_session}
      assert Coordination.cancel_session(id) == {:error, :bad_session}
    end

    assert Coordination.get_session_results(make_ref(), 100) == {:error, :unknown_session}
    assert Coordination.cancel_session(make_ref()) == {:error, :unknown_session}

    for timeout <- [-1, 1.0, :infinity, nil, 0x100000000] do
      assert Coordination.get_session_results(make_ref(), timeout) == {:error, :bad_timeout}
    end
  end

  test "what is no session is not started" do
    import MABEAM.CoordinationSupervisor, only: [start_coordination_process: 2]

    assert start_coordination_process("auction", %{}) == {:error, :bad_protocol}
    assert start_coordination_process(Coordination.Auction, %{}) == {:error, :bad_session}
  end

  test "the server does not mind what it does not know" do
    log =
      ExUnit.CaptureLog.capture_log(fn ->
        server = Process.whereis(Coordination)
        send(server, :whatever)
        GenServer.cast(server, :whatever)
        assert GenServer.call(server, :whatever) == {:error, :bad_request}
        assert Process.whereis(Coordination) == server
      end)

    assert log =~ "whatever"
  end
end

defmodule Foundation.Coordination.NamingTest do
  @moduledoc """
  A node that is given a name, and takes it off, while it runs.
  """
  use ExUnit.Case, async: true

  alias Foundation.Coordination.Primitives
  alias Foundation.Test.Peer

  @call_ms 30_000

  test "it is its own cluster under each name, and keeps its ledger" do
    paths = Enum.reject(:code.get_path(), &List.starts_with?(&1, :code.lib_dir()))

    # Distribution starts in a node that runs: nobody else needs to have started epmd, so it goes without.
    without_epmd = ["-start_epmd", "false", "-erl_epmd_port", "#{free_port()}", "-pa"]
    options = %{connection: :standard_io, args: Enum.map(without_epmd, &to_charlist/1) ++ paths}
    peer = start_supervised!(%{id: :peer, start: {:peer, :start_link, [options]}})

    call = fn module, function, arguments ->
      :peer.call(peer, module, function, arguments, @call_ms)
    end

    :ok = call.(Peer, :start, [[:foundation], [], false])
    assert call.(:erlang, :node, []) == :nonode@nohost
    assert {:ok, 1} = call.(Primitives, :increment_counter, [:named])
    assert {:ok, %{leader: :nonode@nohost, term: 1}} = call.(Primitives, :elect_leader, [])

    name = :"named-#{:rand.uniform(1_000_000)}@127.0.0.1"
    {:ok, _pid} = call.(:net_kernel, :start, [[name, :longnames]])
    assert call.(:erlang, :node, []) == name
    assert {:ok, 2} = call.(Primitives, :increment_counter, [:named])
    assert {:ok, %{leader: ^name, term: 2}} = call.(Primitives, :elect_leader, [])

    :ok = call.(:net_kernel, :stop, [])
    assert {:ok, 3} = call.(Primitives, :increment_counter, [:named])
    assert {:ok, %{leader: :nonode@nohost, term: 3}} = call.(Primitives, :elect_leader, [])
  end

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :ok = :gen_tcp.close(socket)
    port
  end
end

%% The port driver with the NIF alone: whatever is sent to its ports, and in whatever order ports, NIF and driver come and
%% go while processes are born and die, nothing is lost without a count, nothing leaks, and the node goes on.
-module(lineage_driver_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0]).
-export([any_operation/1, sums_are_exact/1, subscribers_in_a_storm/1, pumps_in_a_storm/1, driver_and_nif_come_and_go/1,
         unload_is_deferred/1, halt_in_a_storm/1]).
%% Called on peers.
-export([run_operations/2, run_sums/1, run_subscribers/1, run_pumps/1, run_reloads/1, run_deferred/0, run_halt/0]).

-define(BIRTH, (1 bsl 1)).

all() ->
    [any_operation, sums_are_exact, subscribers_in_a_storm, pumps_in_a_storm, driver_and_nif_come_and_go,
     unload_is_deferred, halt_in_a_storm].

%% LINEAGE_SOAK=1: at full size.
size(Small, Full) ->
    case os:getenv("LINEAGE_SOAK") of
        "1" -> Full;
        _ -> Small
    end.

%% Anything to any operation of any port, and any binary to the decoder: an answer, or badarg.
any_operation(_Config) ->
    Seed = erlang:system_time(),
    ct:pal("operations from seed ~b", [Seed]),
    on_peer(run_operations, [Seed, size(100, 5000)]).

run_operations(Seed, Count) ->
    rand:seed(exsss, Seed),
    Hook = attach(),
    Storm = storm(1),
    ?assertError(badarg, open_port({spawn_driver, "lineage"}, [])),
    ?assertError(badarg, open_port({spawn_driver, "lineage other"}, [])),
    [begin
         Ports = [P || P <- [pump_or_not(), port("subscriber")], is_port(P)],
         [operation(pick(Ports)) || _ <- lists:seq(1, 40)],
         [close(P) || P <- Ports],
         [decode(batch()) || _ <- lists:seq(1, 40)]
     end || _ <- lists:seq(1, Count)],
    stop(Storm),
    detach(Hook).

pump_or_not() ->
    case rand:uniform(3) of 1 -> none; _ -> port("pump") end.

operation(Port) ->
    {Op, Data} = pick([{rand:uniform(30) - 1, rand:bytes(rand:uniform(100) - 1)},
                       {1, <<(rand:uniform(300) - 1):32/native, (rand:uniform(1 bsl 25)):64/native>>},
                       {1, <<15:32/native, (16 bsl 20):64/native>>},
                       {1, <<(rand:uniform(70000)):32/native, (rand:uniform(1100)):32/native, 0:32, 0:96>>},
                       {1, <<(rand:uniform(70000)):32/native, (rand:uniform(1100)):32/native, (rand:uniform(3000)):32/native,
                             (pick([0, 2, 64, 65])):32/native, (pick([0, 1, 1 bsl 31])):32/native,
                             (pick([0, 1, 3, 513])):32/native, (rand:bytes(rand:uniform(300) - 1))/binary>>},
                       {2, <<(pick([0, 1, 16#ffffffff])):32/native>>}, {2, <<>>}, {3, <<>>}]),
    ?assertMatch(<<Failed, _/binary>> when Failed < 2, port_control(Port, Op, Data)),
    ?assertError(badarg, erlang:port_call(Port, Op, Data)),
    true = port_command(Port, Data).

%% Words that are pids by their tag, but nobody's, among others.
batch() ->
    pick([any_term, <<1>>, binary:copy(<<0>>, 32 * 4097), rand:bytes(32 * rand:uniform(5)),
          << <<(event())/binary>> || _ <- lists:seq(1, rand:uniform(5)) >>]).

event() ->
    <<Word:64>> = rand:bytes(8),
    Pid = Word band bnot 15 bor 3,
    <<(rand:uniform(1 bsl 62)):64/native, Pid:64/native, (pick([0, Pid, Word, 1 bsl 40])):64/native,
      (pick([0, 1, 77, 16#ffffffff])):32/native, (rand:uniform(65536) - 1):16/native, (rand:uniform(12) - 1), (rand:uniform(256) - 1)>>.

decode(Batch) ->
    try lineage_nif:events(Batch) of
        Events -> _ = io_lib:format("~p", [binary_to_term(term_to_binary(Events))])
    catch
        error:badarg -> ok
    end.

%% Births and gaps are what happened: with room for all; with rings, and with buffers, that overflow.
sums_are_exact(_Config) ->
    on_peer(run_sums, [size(20000, 1000000)]).

run_sums(Births) ->
    [sum(Births, Bytes, Buffer, Credit) || {Bytes, Buffer, Credit} <- [{16 bsl 20, 65536, 1000000}, {2200000, 65536, 4},
                                                                       {16 bsl 20, 500, 4}, {2200000, 1, 1}]],
    ok.

sum(Births, Bytes, Buffer, Credit) ->
    Hook = attach(),
    Pump = pump(15, Bytes),
    Port = subscriber(Buffer, 1024, ?BIRTH),
    grant(Port, Credit),
    #{births := Before} = lineage_nif:info(),
    Spawners = [spawn_monitor(fun() -> [spawn(fun() -> ok end) || _ <- lists:seq(1, Births)] end) || _ <- [1, 2]],
    await(Spawners),
    close(Pump),
    #{births := After} = lineage_nif:info(),
    {Told, Missing} = take_all(Port, 0, 0),
    ?assertEqual(After - Before, Told + Missing),
    close(Port),
    detach(Hook).

take_all(Port, Told, Missing) ->
    receive
        {lineage_events, Port, closed} -> {Told, Missing};
        {lineage_events, Port, Batch} ->
            grant(Port, 1),
            Events = lineage_nif:events(Batch),
            Gaps = [N || {gap, _, N, _} <- Events],
            Births = [P || {birth, _, P, _, _, _, _} <- Events],
            ?assertEqual(length(Events), length(Gaps) + length(Births)),
            take_all(Port, Told + length(Births), Missing + lists:sum(Gaps))
    end.

%% They come and go, and their owners are killed in the middle of a batch.
subscribers_in_a_storm(_Config) ->
    on_peer(run_subscribers, [size(500, 10000)]).

run_subscribers(Count) ->
    Before = blocks(),
    Ports = length(erlang:ports()),
    Hook = attach(),
    Pump = pump(),
    Storm = storm(2),
    [come_and_go(I) || I <- lists:seq(1, Count)],
    stop(Storm),
    close(Pump),
    detach(Hook),
    await_ports(Ports),
    unload(),
    settle(Before, 200).

%% One that is closed is struck off a moment later.
await_ports(Ports) ->
    length(erlang:ports()) =< Ports orelse await_ports(Ports).

come_and_go(I) when I rem 4 =:= 0 ->
    {Owner, Monitor} = spawn_monitor(fun() ->
                                             Port = subscriber(5000, 1 + I rem 100, 0),
                                             grant(Port, 1000000),
                                             receive {lineage_events, Port, _} -> exit(kill) end
                                     end),
    receive {'DOWN', Monitor, process, Owner, _} -> ok end;
come_and_go(I) ->
    Port = subscriber(1 + I rem 2000, 1 + I rem 1024, 0),
    grant(Port, 3),
    I rem 4 =:= 1 andalso receive {lineage_events, Port, _} -> ok end,
    close(Port),
    ?assertMatch(N when N =< 3, flush(Port, 0)).

flush(Port, N) ->
    receive {lineage_events, Port, _} -> flush(Port, N + 1) after 0 -> N end.

%% The pump is closed, told to exit, and killed, while its subscribers have credit or none: each hears of it behind its
%% last batch.
pumps_in_a_storm(_Config) ->
    on_peer(run_pumps, [size(20, 1000)]).

run_pumps(Count) ->
    Before = blocks(),
    Hook = attach(),
    Storm = storm(2),
    process_flag(trap_exit, true),
    [pump_goes(I) || I <- lists:seq(1, Count)],
    stop(Storm),
    detach(Hook),
    unload(),
    settle(Before, 200).

pump_goes(I) ->
    Pump = pump(),
    ?assertError(ebusy, open_port({spawn_driver, "lineage pump"}, [binary])),
    Rich = subscriber(60000, 1000, 0),
    Poor = subscriber(60000, 7, 0),
    grant(Rich, 1000),
    grant(Poor, 3),
    receive {lineage_events, Rich, _} -> ok end,
    case I rem 3 of
        0 -> port_close(Pump);
        1 -> exit(Pump, kill);
        2 -> exit(Pump, enough)
    end,
    _ = take_all_batches(Rich),
    Late = port("subscriber"),
    ?assertEqual(<<1, "closed">>, port_control(Late, 1, wish(10, 10, 0))),
    case I rem 2 of
        0 -> grant(Poor, 1000000), _ = take_all_batches(Poor);
        1 -> ok
    end,
    receive {Pump, flushed} -> ok end,
    [close(P) || P <- [Rich, Poor, Late]].

take_all_batches(Port) ->
    receive
        {lineage_events, Port, closed} -> 0;
        {lineage_events, Port, _} -> 1 + take_all_batches(Port)
    end.

%% Either may be there before the other, and stay when the other goes; the census may be closed, or its library go, while
%% the pump is open.
driver_and_nif_come_and_go(_Config) ->
    on_peer(run_reloads, [size(60, 1000)]).

run_reloads(Count) ->
    Before = blocks(),
    Storm = storm(2),
    [reload(I) || I <- lists:seq(1, Count)],
    stop(Storm),
    %% The last may have left its census open, which keeps its library.
    {module, lineage_nif} = code:ensure_loaded(lineage_nif),
    ok = lineage_nif:close(),
    unload(),
    settle(Before, 200).

reload(I) ->
    I rem 2 =:= 0 andalso load_driver(),
    {module, lineage_nif} = code:ensure_loaded(lineage_nif),
    ok = lineage_nif:close(),
    Hook = attach(),
    Pump = pump(),
    Port = subscriber(5000, 100, 0),
    grant(Port, 1),
    receive {lineage_events, Port, _} -> ok end,
    case I rem 3 of
        0 -> close(Port), close(Pump), detach(Hook), unload();
        1 -> detach(Hook), unload_nif(), grant(Port, 1), close(Pump), close(Port), unload_driver();
        2 -> disarm(Hook), unload_nif(), close(Pump), close(Port), unload_driver()
    end.

%% OTP unloads the driver when its last port is closed; until then it works.
unload_is_deferred(_Config) ->
    on_peer(run_deferred, []).

run_deferred() ->
    Hook = attach(),
    Pump = pump(),
    Port = subscriber(1000, 100, 0),
    Storm = storm(1),
    {ok, pending_driver, Monitor} = erl_ddll:try_unload("lineage", [{monitor, pending}]),
    grant(Port, 2),
    receive {lineage_events, Port, _} -> ok end,
    close(Pump),
    close(Port),
    receive {'DOWN', Monitor, driver, lineage, unloaded} -> ok end,
    ?assertError(badarg, open_port({spawn_driver, "lineage pump"}, [])),
    stop(Storm),
    detach(Hook).

%% An OS process of its own: its exit status tells whether it ended as it should.
halt_in_a_storm(_Config) ->
    [halt_once() || _ <- lists:seq(1, size(3, 100))].

halt_once() ->
    Args = ["-noinput", "-pa", filename:dirname(code:which(lineage_hook)), filename:dirname(code:which(?MODULE)),
            "-eval", atom_to_list(?MODULE) ++ ":run_halt()."],
    Node = open_port({spawn_executable, os:find_executable("erl")}, [exit_status, {args, Args}]),
    receive {Node, {exit_status, Status}} -> ?assertEqual(0, Status) end.

run_halt() ->
    put(hook, attach()),   % a trace session lasts as long as somebody has its handle
    _ = pump(),
    Ports = [subscriber(60000, 100, 0) || _ <- lists:seq(1, 8)],
    [grant(P, 1000000) || P <- Ports],
    _ = storm(3),
    receive {lineage_events, _, _} -> halt(0) end.

attach() ->
    {ok, Session} = lineage_nif:open(#{exits => all, sites => closure, max_bytes => 1 bsl 28,
                                       process_limit => erlang:system_info(process_limit)}),
    {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
    Hook.

disarm(Hook) ->
    ok = lineage_hook:disarm(Hook),
    ok = lineage_hook:destroy(Hook).

detach(Hook) ->
    disarm(Hook),
    ok = lineage_nif:close().

load_driver() ->
    ok = erl_ddll:load(filename:join([filename:dirname(code:which(lineage_hook)), "..", "priv"]), "lineage").

port(Kind) ->
    load_driver(),
    Port = open_port({spawn_driver, "lineage " ++ Kind}, [binary]),
    %% The port keeps it from now on.
    ok = erl_ddll:unload("lineage"),
    Port.

pump() ->
    pump(15, 16 bsl 20).

pump(Rings, Bytes) ->
    Pump = port("pump"),
    <<0>> = port_control(Pump, 1, <<Rings:32/native, Bytes:64/native>>),
    Pump.

wish(Buffer, Batch, Kinds) ->
    <<Buffer:32/native, Batch:32/native, Kinds:32/native, 0:96>>.

subscriber(Buffer, Batch, Kinds) ->
    Port = port("subscriber"),
    subscribe(Port, wish(Buffer, Batch, Kinds)),
    Port.

%% A thread that may still decide for who had the place before may be waiting for a processor.
subscribe(Port, Wish) ->
    case port_control(Port, 1, Wish) of
        <<0>> -> ok;
        <<1, "again">> -> erlang:yield(), subscribe(Port, Wish)
    end.

grant(Port, Batches) ->
    <<0>> = port_control(Port, 2, <<Batches:32/native>>).

%% A pump is gone when it says so; a subscriber's port at once.
close(Port) ->
    {name, Name} = erlang:port_info(Port, name),
    port_close(Port),
    Name =:= "lineage pump" andalso receive {Port, flushed} -> ok end.

unload() ->
    unload_nif(),
    unload_driver().

unload_nif() ->
    true = code:delete(lineage_nif),
    _ = code:purge(lineage_nif),
    ok.

unload_driver() ->
    _ = erl_ddll:unload("lineage"),
    ok.

pick(Terms) ->
    lists:nth(rand:uniform(length(Terms)), Terms).

%% Births of each kind, without end.
storm(Count) ->
    [spawn_monitor(fun Again() ->
                           {_, M} = spawn_monitor(fun() -> spawn_link(fun() -> ok end), ok end),
                           spawn(erlang, exit, [normal]),
                           receive {'DOWN', M, process, _, _} -> ok end,
                           receive stop -> ok after 0 -> Again() end
                   end) || _ <- lists:seq(1, Count)].

stop(Storm) ->
    [P ! stop || {P, _} <- Storm],
    await(Storm).

await(Processes) ->
    [receive {'DOWN', M, process, P, Reason} -> ?assertEqual(normal, Reason) end || {P, M} <- Processes],
    ok.

%% As in lineage_fuzz_SUITE: what is held of the memory that enif_alloc serves.
blocks() ->
    case instrument:allocations(#{histogram_start => 64, histogram_width => 24}) of
        {ok, {64, 0, Origins}} ->
            maps:from_list([{{Origin, Type}, Histogram} || {Origin, Types} <- maps:to_list(Origins),
                                                           {Type, Histogram} <- maps:to_list(Types),
                                                           Origin =:= lineage_nif orelse Type =:= nif_internal]);
        {error, not_enabled} ->
            none
    end.

settle(Before, 0) ->
    ?assertEqual(Before, blocks());
settle(Before, Tries) ->
    Runs = [spawn_opt(fun() -> erlang:garbage_collect(), erlang:yield() end, [monitor, {scheduler, Id}])
            || Id <- lists:seq(1, erlang:system_info(schedulers_online))],
    await(Runs),
    case blocks() of
        Before -> ok;
        _ -> settle(Before, Tries - 1)
    end.

on_peer(Function, Args) ->
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000,
                                 args => ["-pa", filename:dirname(code:which(lineage_hook)),
                                          filename:dirname(code:which(?MODULE))]}),
    try
        _ = peer:call(Peer, ?MODULE, Function, Args, 600000),
        ok
    after
        %% A node that crashed is gone, which is not what is to be told then.
        try peer:stop(Peer) catch exit:_ -> ok end
    end.

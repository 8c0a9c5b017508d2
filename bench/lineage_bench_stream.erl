%% What a stream of events costs, how late it is, and whether it keeps up. All in one attach with `exits => all'. Cost: births and
%% exits of one worker; each arm stands between two turns without a subscriber, and its difference is to their mean. The process
%% that subscribes is there in all of them: one process more is alone worth some ns of a spawn. Latency: from just before a spawn
%% until its birth is in the subscriber's hands, one after another on a node at rest. Rate: so many spawns a second, paced by the
%% ms, while one process reads all that it is sent.
-module(lineage_bench_stream).

-export([run/1, births/1]).

-define(EVENT_BAR_NS, 25).
-define(EVENTS, 3). % of an operation: birth, born, exit
-define(LATENCY_BAR_US, 5000).
-define(PER_S, 50000).
-define(ARMS, [tap, read]).

%% Returns for each figure that has a bar whether it holds.
-spec run(lineage_bench:options()) -> [boolean()].
run(#{rounds := Count, ops := Ops, ms := Ms} = Options) ->
    {ok, _} = application:ensure_all_started(lineage),
    {ok, _} = lineage:attach(#{exits => all}),
    Reader = reader(),
    Rounds = [round(Reader, Ops) || _ <- lists:seq(1, Count)],
    Lines = cost(Rounds) ++ latency(Count * 5) ++ rate(Reader, Ms),
    Reader ! stop,
    ok = lineage:detach(),
    [lineage_bench_figure:tell(stream, Line, Options) || Line <- Lines].

%% Cost

%% `tap': somebody has subscribed, and takes nothing; `read': and reads all.
round(Reader, Ops) ->
    maps:from_list([{Arm, more(Reader, Arm, Ops)} || Arm <- ?ARMS]).

%% What an event costs more, and an operation without events, in ns.
more(Reader, Arm, Ops) ->
    Before = turn(Ops),
    subscribe(Reader, Arm),
    Ns = turn(Ops),
    unsubscribe(Reader),
    Off = (Before + turn(Ops)) / 2,
    {(Ns - Off) / ?EVENTS, Off}.

turn(Ops) ->
    births(Ops div 10),
    {Us, ok} = timer:tc(fun() -> births(Ops) end),
    1000 * Us / Ops.

%% So many, one after another, each awaited.
-spec births(non_neg_integer()) -> ok.
births(0) ->
    ok;
births(N) ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Pid, _} -> births(N - 1) end.

reader() ->
    spawn_link(fun idle/0).

idle() ->
    receive
        {subscribe, Credit, To} ->
            {ok, Sub} = lineage:subscribe(#{credit => Credit}),
            To ! {self(), ready},
            take(lineage_stream:port(Sub), Sub, []);
        stop ->
            ok
    end.

take(Port, Sub, Batches) ->
    receive
        {lineage_events, Port, Batch} ->
            ok = lineage:grant(Sub, 1),
            take(Port, Sub, [Batch | Batches]);
        {unsubscribe, To} ->
            ok = lineage:unsubscribe(Sub),
            To ! {self(), Batches},
            idle()
    end.

subscribe(Reader, Arm) ->
    Reader ! {subscribe, case Arm of tap -> 0; read -> 8 end, self()},
    receive {Reader, ready} -> ok end.

%% The batches that came.
unsubscribe(Reader) ->
    Reader ! {unsubscribe, self()},
    receive {Reader, Batches} -> Batches end.

cost(Rounds) ->
    Off = [Ns || Round <- Rounds, {_, Ns} <- maps:values(Round)],
    [lineage_bench_figure:spread(<<"spawn and exit, tap off">>, Off, ns, null)] ++
        [lineage_bench_figure:spread(What, [Ns || #{Arm := {Ns, _}} <- Rounds], ns, Bar)
         || {Arm, What, Bar} <- [
                {tap, <<"an event more: in a ring, and in a buffer that nobody empties">>, ?EVENT_BAR_NS},
                {read, <<"an event more: read by a process of the same node">>, null}
            ]].

%% Latency

latency(Count) ->
    {ok, Sub} = lineage:subscribe(#{kinds => [birth]}),
    Us = lists:sort([late(Sub) || _ <- lists:seq(1, Count)]),
    ok = lineage:unsubscribe(Sub),
    P = fun(Q) -> lists:nth(max(1, ceil(Q * Count)), Us) end,
    [
        #{figure => <<"from a birth to its subscriber, at rest, p50">>, value => P(0.5), unit => us, rounds => Count, bar => ?LATENCY_BAR_US},
        #{figure => <<"the same, p99">>, value => P(0.99), unit => us, rounds => Count, bar => ?LATENCY_BAR_US}
    ].

%% At rest: what came before has been handed out, and the pump sleeps.
late(Sub) ->
    receive after 10 -> ok end,
    T0 = erlang:monotonic_time(),
    Pid = spawn(fun() -> ok end),
    until(Sub, Pid),
    erlang:convert_time_unit(erlang:monotonic_time() - T0, native, nanosecond) / 1000.

until(Sub, Pid) ->
    {ok, Events} = lineage_stream:next(Sub, infinity),
    case [ok || #{pid := Of} <- Events, Of =:= Pid] of
        [] -> until(Sub, Pid);
        _ -> ok
    end.

%% Rate

%% What is still in a ring at the end is handed out within some ms. Of an event's 32 bytes the 31st is its kind, a gap's is 10,
%% and the third 8 how many are missing (c_src/core/event.h).
rate(Reader, Ms) ->
    subscribe(Reader, read),
    T0 = erlang:monotonic_time(millisecond),
    Made = paced(T0, Ms, 0),
    Took = erlang:monotonic_time(millisecond) - T0,
    receive after 1000 -> ok end,
    Batches = unsubscribe(Reader),
    Events = lists:sum([byte_size(Batch) || Batch <- Batches]) div 32,
    Missing = lists:sum([A || Batch <- Batches, <<_:16/binary, A:64/native, _:6/binary, 10, _>> <= Batch]),
    [
        #{figure => <<"spawns a second, streamed">>, value => 1000 * Made / Took, unit => <<"1/s">>, rounds => 1, bar => null},
        #{figure => <<"events a second, streamed">>, value => 1000 * Events / Took, unit => <<"1/s">>, rounds => 1, bar => null},
        #{figure => <<"events missing in gaps">>, value => Missing, unit => events, rounds => 1, bar => 0}
    ].

%% As many as are due.
paced(T0, Ms, Made) ->
    Now = erlang:monotonic_time(millisecond) - T0,
    Due = min(Now, Ms) * ?PER_S div 1000,
    births(max(0, Due - Made)),
    case Now >= Ms of
        true -> max(Made, Due);
        false -> receive after 1 -> paced(T0, Ms, max(Made, Due)) end
    end.

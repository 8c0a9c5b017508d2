%% What a stream of events costs, how late it is, and whether it keeps up. Cost: births and exits of one worker, attached with
%% `exits => all', in arms that differ by what is done with the events; ratios and differences are within a round, whose arms
%% come in a new order each time. Latency: from just before a spawn until its birth is in the subscriber's hands, one after
%% another on a node at rest. Rate: so many spawns a second, paced by the ms, while one process reads all that it is sent.
-module(lineage_bench_stream).

-export([run/1, births/1]).

-define(EVENT_BAR_NS, 25).
-define(LATENCY_BAR_US, 5000).
-define(PER_S, 50000).
-define(ARMS, [off, tap, read]).

%% Returns for each figure that has a bar whether it holds.
-spec run(lineage_bench:options()) -> [boolean()].
run(#{rounds := Rounds, ops := Ops, ms := Ms} = Options) ->
    {ok, _} = application:ensure_all_started(lineage),
    {ok, _} = lineage:attach(#{exits => all}),
    Turns = rounds(Rounds, Ops, rand:seed_s(exsss, {7, 8, 9})),
    ok = lineage:detach(),
    [lineage_bench_figure:tell(stream, Line, Options) || Line <- cost(Turns) ++ latency(Rounds * 5) ++ rate(Ms)].

%% Cost

rounds(0, _Ops, _Rand) ->
    [];
rounds(Left, Ops, Rand0) ->
    {Order, Rand} = lineage_bench:shuffled(?ARMS, Rand0),
    [maps:from_list([{Arm, turn(Arm, Ops)} || Arm <- Order]) | rounds(Left - 1, Ops, Rand)].

%% `tap': somebody has subscribed, and takes nothing; `read': and reads all.
turn(Arm, Ops) ->
    Reader = reader(Arm),
    births(Ops div 10),
    {Us, ok} = timer:tc(fun() -> births(Ops) end),
    {Events, _} = stop(Reader),
    {1000 * Us / Ops, Events / (Ops + Ops div 10)}.

%% So many, one after another, each awaited.
-spec births(non_neg_integer()) -> ok.
births(0) ->
    ok;
births(N) ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Pid, _} -> births(N - 1) end.

reader(off) ->
    undefined;
reader(Arm) ->
    Self = self(),
    Credit = case Arm of tap -> 0; read -> 8 end,
    Reader = spawn_link(fun() ->
        {ok, Sub} = lineage:subscribe(#{credit => Credit}),
        Self ! {self(), ready},
        take(lineage_stream:port(Sub), Sub, 0, 0)
    end),
    receive {Reader, ready} -> Reader end.

%% Events, and how many gaps tell of (their kind is 10; c_src/core/event.h), without making terms of them.
take(Port, Sub, Events, Missing) ->
    receive
        {lineage_events, Port, Batch} ->
            ok = lineage:grant(Sub, 1),
            Gaps = lists:sum([A || <<_:16/binary, A:64/native, _:6/binary, 10, _>> <= Batch]),
            take(Port, Sub, Events + byte_size(Batch) div 32, Missing + Gaps);
        {stop, To} ->
            #{buffered := Buffered, dropped := Dropped} = lineage_stream:counts(Sub),
            ok = lineage:unsubscribe(Sub),
            To ! {self(), Events + Buffered + Dropped, Missing}
    end.

stop(undefined) ->
    {0, 0};
stop(Reader) ->
    Reader ! {stop, self()},
    receive {Reader, Events, Missing} -> unlink(Reader), {Events, Missing} end.

cost(Turns) ->
    Off = [Ns || #{off := {Ns, _}} <- Turns],
    [lineage_bench_figure:spread(<<"spawn and exit, tap off">>, Off, ns, null)] ++
        lists:append([
            begin
                More = [(Ns - Base) / max(1.0, Events) || #{off := {Base, _}, Arm := {Ns, Events}} <- Turns],
                [lineage_bench_figure:spread(What, More, ns, Bar)]
            end
         || {Arm, What, Bar} <- [
                {tap, <<"an event more: in a ring, and in a buffer that nobody empties">>, ?EVENT_BAR_NS},
                {read, <<"an event more: read by a process of the same node">>, null}
            ]
        ]).

%% Latency

latency(Count) ->
    {ok, _} = lineage:attach(#{exits => all}),
    {ok, Sub} = lineage:subscribe(#{kinds => [birth]}),
    Us = lists:sort([late(Sub) || _ <- lists:seq(1, Count)]),
    ok = lineage:unsubscribe(Sub),
    ok = lineage:detach(),
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

rate(Ms) ->
    {ok, _} = lineage:attach(#{exits => all}),
    Reader = reader(read),
    T0 = erlang:monotonic_time(millisecond),
    Made = paced(T0, Ms, 0),
    Took = erlang:monotonic_time(millisecond) - T0,
    {Events, Lost} = stop(Reader),
    ok = lineage:detach(),
    [
        #{figure => <<"spawns a second, streamed">>, value => 1000 * Made / Took, unit => <<"1/s">>, rounds => 1, bar => null},
        #{figure => <<"events a second, streamed">>, value => 1000 * Events / Took, unit => <<"1/s">>, rounds => 1, bar => null},
        #{figure => <<"events missing in gaps">>, value => Lost, unit => events, rounds => 1, bar => 0}
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

%% What the hook costs: births (cost) and messages (ping), each arm's time as a ratio to its peer's within a round; what counts
%% is the ratio's median over the rounds and its spread.
-module(lineage_bench_cost).

-export([run/1]).

%% Bars from the design: each arm of Lineage against the no-op tracer that sheds or keeps as it does.
-define(COST_BAR, 1.10).
-define(CLOSURE_BAR, 1.15).
-define(PING_BAR, 1.01).

%% Runs all cells. Returns for each arm whether its bar holds; what is within the noise, or has no bar, counts as held.
-spec run(lineage_bench:options()) -> [boolean()].
run(#{table := Table} = Options) ->
    ok = prepare(Table),
    io:format("process limit ~b, ~s table, a pid's step ~b~n", [
        erlang:system_info(process_limit), Table, lineage_bench_load:pid_step()
    ]),
    lists:append([population(Live, Options) || Live <- populations(Options)]).

prepare(fresh) ->
    ok;
prepare(aged) ->
    _ = lineage_bench_load:age(),
    ok.

populations(#{run := ping}) -> [20];
populations(#{live := Live}) -> Live.

%% The idle processes stand beside the load; the rolling loads bring their own.
population(Live, Options) ->
    Holder = lineage_bench_load:hold(Live),
    Held = lists:append([
        cell(Load, Options)
     || Load <- loads(Live, Options), not is_rolling(Load)
    ]),
    ok = lineage_bench_load:release(Holder),
    Held ++ lists:append([cell(Load, Options) || Load <- loads(Live, Options), is_rolling(Load)]).

is_rolling(#{what := What}) -> What =:= rolling_link orelse What =:= rolling_monitor.

loads(_Live, #{run := ping, ops := Ops}) ->
    [#{what => ping_pong, workers => 1, live => 20, ops => Ops}];
loads(Live, #{what := Whats, workers := Workers, ops := Ops}) ->
    [#{what => What, workers => N, live => Live, ops => Ops} || What <- Whats, N <- Workers].

cell(Load, #{arms := Chosen, rounds := Rounds} = Options) ->
    Arms = [untraced | lists:delete(untraced, Chosen)],
    #{what := What, workers := Workers, live := Live} = Load,
    io:format("~n~s, ~b worker(s), ~b live~n", [What, Workers, Live]),
    Results = rounds(Rounds, Load, Arms, rand:seed_s(exsss, {4, 5, 6})),
    [arm(Arm, Load, Results, Options) || Arm <- Arms].

rounds(0, _Load, _Arms, _Rand) ->
    [];
rounds(Left, Load, Arms, Rand0) ->
    {Order, Rand} = lineage_bench:shuffled(Arms, Rand0),
    Round = maps:from_list([{Arm, once(Arm, Load)} || Arm <- Order]),
    [Round | rounds(Left - 1, Load, Arms, Rand)].

%% One arm's workers are there before its tracer; see lineage_bench_arm.
once(Arm, Load) ->
    case lineage_bench_arm:workers(Arm) of
        before ->
            Self = self(),
            try
                lineage_bench_load:run(Load, fun() -> Self ! {handle, lineage_bench_arm:on(Arm)} end)
            after
                receive
                    {handle, Handle} -> lineage_bench_arm:off(Handle)
                after 0 -> ok
                end
            end;
        later ->
            Handle = lineage_bench_arm:on(Arm),
            try
                lineage_bench_load:run(Load, fun() -> ok end)
            after
                lineage_bench_arm:off(Handle)
            end
    end.

arm(Arm, #{what := What, workers := Workers, live := Live, ops := Ops} = Load, Results, #{table := Table} = Options) ->
    Base = base(Arm, What, Results),
    Wall = lineage_bench_stat:spread(ratios(wall_ns, Arm, Base, Results)),
    Cpu = lineage_bench_stat:spread(ratios(cpu_ns, Arm, Base, Results)),
    Against = lineage_bench_stat:median(ratios(wall_ns, Arm, untraced, Results)),
    Bar = bar(Arm, What),
    Ns = lineage_bench_stat:median([maps:get(wall_ns, maps:get(Arm, Round)) / Ops || Round <- Results]),
    Verdict = verdict(Bar, Wall, Cpu),
    io:format("  ~-17s ~9.1f ns  ~6.3f x ~-10s [~.3f ~.3f]  cpu ~.3f [~.3f ~.3f]  ~.3f x untraced~s~n", [
        Arm, Ns, maps:get(median, Wall), Base, maps:get(q1, Wall), maps:get(q3, Wall),
        maps:get(median, Cpu), maps:get(q1, Cpu), maps:get(q3, Cpu), Against, mark(Bar, Verdict)
    ]),
    lineage_bench:emit(Options, #{
        bench => maps:get(run, Options),
        what => What,
        arm => Arm,
        base => Base,
        table => Table,
        process_limit => erlang:system_info(process_limit),
        otp => lineage_bench:otp(),
        workers => Workers,
        live => Live,
        rounds => length(Results),
        ops => maps:get(ops, Load),
        ns_per_op => Ns,
        ratio => Wall,
        cpu_ratio => Cpu,
        ratio_untraced => Against,
        bar => Bar,
        holds => Verdict
    }),
    Verdict =/= false.

ratios(Key, Arm, Base, Results) ->
    [maps:get(Key, maps:get(Arm, Round)) / maps:get(Key, maps:get(Base, Round)) || Round <- Results].

%% `exits: suspects' sheds what is linked and keeps the rest, `exits: all' keeps everything: each has its no-op peer.
base(Arm, What, Results) ->
    Peer = peer(Arm, What),
    case Results of
        [#{Peer := _} | _] -> Peer;
        _ -> untraced
    end.

peer(_Arm, ping_pong) -> untraced;
peer(Arm, What) when Arm =:= lineage_suspects; Arm =:= closure_suspects; Arm =:= exact_suspects ->
    case What =:= spawn_link orelse What =:= rolling_link of
        true -> noop_shed;
        false -> noop_mixed
    end;
peer(Arm, _What) when Arm =:= lineage_all; Arm =:= closure_all; Arm =:= exact_all -> noop_keep;
peer(_Arm, _What) -> untraced.

bar(Arm, ping_pong) when Arm =:= lineage_suspects; Arm =:= closure_suspects -> ?PING_BAR;
bar(_Arm, ping_pong) -> undefined;
bar(Arm, _What) when Arm =:= lineage_suspects; Arm =:= lineage_all -> ?COST_BAR;
bar(Arm, _What) when Arm =:= closure_suspects; Arm =:= closure_all -> ?CLOSURE_BAR;
bar(_Arm, _What) -> undefined.

%% The node's CPU time is judged: other programs on the machine disturb it least, and on a quiet machine it is the wall time.
%% The wall time must not contradict it: time spent waiting is no CPU time.
verdict(undefined, _Wall, _Cpu) -> null;
verdict(Bar, _Wall, #{low := Low}) when Low > Bar -> false;
verdict(Bar, #{low := Low}, #{median := Cpu}) when Low > Bar, Cpu > Bar -> false;
verdict(Bar, #{low := Low}, #{median := Cpu}) when Low =< Bar, Cpu =< Bar -> true;
verdict(_Bar, _Wall, _Cpu) -> unclear.

mark(undefined, _) -> "";
mark(Bar, true) -> io_lib:format("  (bar ~.2f holds)", [Bar]);
mark(Bar, unclear) -> io_lib:format("  (bar ~.2f: within the noise)", [Bar]);
mark(Bar, false) -> io_lib:format("  (bar ~.2f MISSED)", [Bar]).

%% What it costs to measure overhead on a living node, and whether what is measured there is true.
%%
%% Throughput: 8 callers start children as fast as they can under a `supervisor' and a DynamicSupervisor, without Lineage and in
%% each of its modes. Ratios are within a round, of the mode to a plain `attach' and of that to no Lineage. The turns of what must
%% see some windows of the default duty are the longest.
%%
%% Truth: the callers time their own starts while Lineage does. With `continuous' both see the same starts, at rest and at
%% saturation: they agree when the medians are within 5 % or 1 us of each other, or their intervals overlap, and so do those of p99
%% and p99.9. The callers see besides what the VM does before it announces a call to the tracer, and after it has told the return:
%% next to nothing when all is in the processor's caches, 1 to 3 us when the caller has just woken. At rest it is measured, on
%% calls of a traced function that does nothing, made by the same callers in between: it is taken off what they say, at each
%% percentile that of these calls.
%%
%% Likewise the live percentiles of duty and of `continuous', which take turns at rest. One turn is not like the next, in the clock
%% of the processor or in who shares a scheduler: their intervals are a bootstrap's over whole turns. (Not at saturation, where the
%% median is 13 us or 100, as the supervisor and its callers come to share a scheduler or not.)
-module(lineage_bench_modes).

-export([run/1, nothing/0]).

-define(CALLERS, 8).
-define(DUTY_BAR, 0.95).
-define(NOTHING, {?MODULE, nothing, 0}).
-define(RESAMPLES, 500).
%% So many starts of one caller are kept; a turn ends by its time.
-define(MOST, 400000).

-type arm() :: none | attached | exact | exits_all | duty | continuous.

%% Runs both parts. Returns whether duty is above its bar, and whether live and callers agree.
-spec run(lineage_bench:options()) -> [boolean()].
run(Options) ->
    ok = logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    Kinds = [Kind || Kind <- [one_for_one, dynamic], lists:member(Kind, lineage_bench_starts:arms())],
    Subjects = [{Kind, lineage_bench_starts:starts(lineage_bench_starts:open(Kind, 0))} || Kind <- Kinds],
    lists:append([throughput(Kind, Job, Options) ++ truth(Kind, Job, Options) || {Kind, Job} <- Subjects]).

-spec attach(arm(), lineage_bench:options()) -> #{atom() => term()}.
attach(attached, _) -> #{};
attach(exact, _) -> #{sites => exact};
attach(exits_all, _) -> #{exits => all};
attach(duty, #{duty := 0}) -> #{overhead => duty};
attach(duty, #{duty := Percent}) -> #{overhead => {duty, Percent}};
attach(continuous, _) -> #{overhead => continuous}.

%% At rest, also of calls that do nothing.
attach(Arm, rest, Options) -> (attach(Arm, Options))#{critical => [?NOTHING]};
attach(Arm, saturation, Options) -> attach(Arm, Options).

base(none) -> none;
base(attached) -> none;
base(_) -> attached.

%% Runs the job in one mode, and with it Then, while Lineage is attached.
turn(none, Job, Pace, Ms, _Options, _Then) ->
    {callers(Job, Pace, Ms), none};
turn(Arm, Job, Pace, Ms, Options, Then) ->
    {ok, _} = lineage:attach(attach(Arm, Pace, Options)),
    try
        Result = callers(Job, Pace, Ms),
        {Result, Then()}
    after
        lineage:detach()
    end.

callers(Job, Pace, Ms) ->
    lineage_bench_callers:turn(Job, #{callers => ?CALLERS, pace => Pace, each => ?MOST, warm => 0, limit_ms => Ms}).

%% Milliseconds of a turn.
long(#{ms := Ms}) -> Ms.
short(#{ms := Ms}) -> max(100, Ms div 10).

throughput(Kind, Job, #{rounds := Rounds} = Options) ->
    Arms = [none, attached, exact, exits_all, duty, continuous],
    io:format("~nstarts a second under ~s, ~b callers at saturation~n", [Kind, ?CALLERS]),
    Rates = rates(Rounds, Arms, Job, Options, rand:seed_s(exsss, {4, 5, 6})),
    [Held || Arm <- Arms, Held <- rate(Arm, Kind, Rates, Options)].

rates(0, _Arms, _Job, _Options, _Rand) ->
    [];
rates(Left, Arms, Job, Options, Rand0) ->
    {Order, Rand} = lineage_bench:shuffled(Arms, Rand0),
    Round = maps:from_list([{Arm, per_second(Arm, Job, Options)} || Arm <- Order]),
    [Round | rates(Left - 1, Arms, Job, Options, Rand)].

per_second(Arm, Job, Options) ->
    Ms = case Arm =:= duty orelse Arm =:= attached of true -> long(Options); false -> short(Options) end,
    {Result, _} = turn(Arm, Job, saturation, Ms, Options, fun() -> none end),
    #{parts := #{latency := Ns}, failed := 0, wall_ns := Wall, cpu_ns := Cpu} = Result,
    #{wall => length(Ns) * 1.0e9 / Wall, cpu => length(Ns) * 1.0e9 / Cpu}.

rate(Arm, Kind, Rates, Options) ->
    PerSecond = lineage_bench_stat:median([maps:get(wall, maps:get(Arm, Round)) || Round <- Rates]),
    Wall = ratio(wall, Arm, base(Arm), Rates),
    Cpu = ratio(cpu, Arm, base(Arm), Rates),
    Bar = case Arm of duty -> ?DUTY_BAR; _ -> null end,
    Holds = verdict(Bar, Wall, Cpu),
    io:format("  ~-12s~10b a second~ts~n", [Arm, round(PerSecond), beside(base(Arm), Wall, Cpu, Bar, Holds)]),
    lineage_bench:emit(Options, #{
        bench => modes,
        measure => throughput,
        kind => Kind,
        arm => Arm,
        base => case Arm of none -> null; _ -> base(Arm) end,
        callers => ?CALLERS,
        rounds => length(Rates),
        otp => lineage_bench:otp(),
        per_s => PerSecond,
        ratio => Wall,
        cpu_ratio => Cpu,
        bar => Bar,
        holds => Holds
    }),
    [Holds =/= false || Bar =/= null].

ratio(_Clock, none, _Base, _Rates) ->
    null;
ratio(Clock, Arm, Base, Rates) ->
    lineage_bench_stat:spread([maps:get(Clock, maps:get(Arm, Round)) / maps:get(Clock, maps:get(Base, Round)) || Round <- Rates]).

%% As with births, the node's CPU time is judged, which other programs disturb least, and the wall time must not contradict it.
verdict(null, _Wall, _Cpu) -> null;
verdict(Bar, _Wall, #{high := High}) when High < Bar -> false;
verdict(Bar, #{high := High}, #{median := Cpu}) when High < Bar, Cpu < Bar -> false;
verdict(Bar, #{high := High}, #{median := Cpu}) when High >= Bar, Cpu >= Bar -> true;
verdict(_Bar, _Wall, _Cpu) -> unclear.

beside(_Base, null, null, null, null) ->
    "";
beside(Base, #{median := Wall}, #{median := Cpu, low := Low, high := High}, Bar, Holds) ->
    [io_lib:format("  ~.3f x ~-9s cpu ~.3f [~.3f ~.3f]", [Wall, base_text(Base), Cpu, Low, High]), bar(Bar, Holds)].

base_text(none) -> "without";
base_text(attached) -> "attached".

bar(null, null) -> "";
bar(Bar, true) -> io_lib:format("  (bar ~.2f holds)", [Bar]);
bar(Bar, unclear) -> io_lib:format("  (bar ~.2f: within the noise)", [Bar]);
bar(Bar, false) -> io_lib:format("  (bar ~.2f MISSED)", [Bar]).

truth(Kind, Job, #{rounds := Rounds} = Options) ->
    io:format("~nstart latency under ~s, ~b callers, live and by the callers~n", [Kind, ?CALLERS]),
    Busy = seen(continuous, saturation, Job, short(Options), Options),
    AtRest = between(Job),
    Turns = [
        {seen(continuous, rest, AtRest, long(Options) div 4, Options), seen(duty, rest, AtRest, long(Options), Options)}
     || _ <- lists:seq(1, max(4, Rounds))
    ],
    {Continuous, Duty} = lists:unzip(Turns),
    [
        told(continuous, callers, saturation, Kind, live([Busy]), own([Busy]), nowhere(), Options),
        told(continuous, callers, rest, Kind, live(Continuous), own(Continuous), outside(Continuous), Options),
        told(duty, continuous, rest, Kind, by_turns(Duty), by_turns(Continuous), nowhere(), Options)
    ].

%% The job, and after another pause a traced call that does nothing.
between(#{parts := Parts, once := Once} = Job) ->
    Job#{
        parts := Parts ++ [nothing],
        once := fun(State) ->
            case Once(State) of
                {failed, Next} -> {failed, Next};
                {Times, Next} -> {Times ++ [nothing_once()], Next}
            end
        end
    }.

nothing_once() ->
    receive
    after rand:uniform(?CALLERS + 1) -> ok
    end,
    Before = erlang:monotonic_time(),
    ok = ?MODULE:nothing(),
    erlang:monotonic_time() - Before.

-spec nothing() -> ok.
nothing() -> ok.

%% What is seen live while the job runs, as buckets, and by the callers themselves, of starts and of calls that do nothing.
seen(Arm, Pace, Job, Ms, Options) ->
    {#{parts := Parts}, Live} = turn(Arm, Job, Pace, Ms, Options, fun buckets/0),
    Live#{own => maps:get(latency, Parts), own_nothing => maps:get(nothing, Parts, [])}.

buckets() ->
    #{series := Series} = lineage_nif:timings(),
    #{
        live => merge([Buckets || {Who, #{latency := {_, Buckets}}} <- Series, not is_nothing(Who)]),
        live_nothing => merge([Buckets || {Who, #{latency := {_, Buckets}}} <- Series, is_nothing(Who)])
    }.

is_nothing(Who) -> Who =:= {critical, ?NOTHING}.

%% All histograms have the same buckets.
merge(Histograms) ->
    Counts = lists:foldl(
        fun({Low, High, Count}, Sum) -> maps:update_with({Low, High}, fun(N) -> N + Count end, Count, Sum) end,
        #{},
        lists:append(Histograms)
    ),
    [{Low, High, Count} || {{Low, High}, Count} <- lists:sort(maps:to_list(Counts))].

live(Turns) -> figures(merge([Buckets || #{live := Buckets} <- Turns])).

figures(Buckets) -> lineage_bench_latency:figures(lineage_quantile:buckets(Buckets)).

own(Turns) -> lineage_bench_latency:figures(samples(own, Turns)).

samples(Key, Turns) -> lineage_quantile:samples(lists:sort(lists:append([maps:get(Key, Turn) || Turn <- Turns]))).

%% How much longer a call is for its caller than it is seen live, by the calls that do nothing, in microseconds.
outside(Turns) ->
    Own = samples(own_nothing, Turns),
    Live = lineage_quantile:buckets(merge([Buckets || #{live_nothing := Buckets} <- Turns])),
    Of = fun(P) ->
        case {lineage_quantile:interval(Own, P), lineage_quantile:interval(Live, P)} of
            {#{value := A}, #{value := B}} when is_number(A), is_number(B) -> max(0.0, (A - B) / 1000);
            _ -> 0.0
        end
    end,
    %% They are too few to tell p99.9.
    #{p50 => Of(0.5), p99 => Of(0.99), p999 => Of(0.99)}.

nowhere() -> #{p50 => 0.0, p99 => 0.0, p999 => 0.0}.

less(Figures, Outside) ->
    maps:map(
        fun
            (count, Count) -> Count;
            (Key, Figure) -> maps:map(fun(_, none) -> none; (_, Us) -> Us - maps:get(Key, Outside) end, Figure)
        end,
        Figures
    ).

%% The live percentiles, with the intervals of a bootstrap over the turns.
by_turns(Turns) ->
    All = list_to_tuple([Buckets || #{live := Buckets} <- Turns]),
    {Drawn, _} = lists:mapfoldl(fun(_, Rand) -> drawn(All, Rand) end, rand:seed_s(exsss, {7, 8, 9}), lists:seq(1, ?RESAMPLES)),
    maps:map(
        fun
            (count, Count) ->
                Count;
            (Key, #{value := Value}) ->
                Values = list_to_tuple(lists:sort([V || #{Key := #{value := V}} <- Drawn])),
                #{value => Value, low => element(floor(0.025 * ?RESAMPLES), Values), high => element(ceil(0.975 * ?RESAMPLES), Values)}
        end,
        live(Turns)
    ).

%% As many turns as there are, drawn with replacement.
drawn(All, Rand0) ->
    {Turns, Rand} = lists:mapfoldl(
        fun(_, R0) ->
            {N, R} = rand:uniform_s(tuple_size(All), R0),
            {element(N, All), R}
        end,
        Rand0,
        lists:seq(1, tuple_size(All))
    ),
    {figures(merge(Turns)), Rand}.

told(Arm, Peer, Pace, Kind, Live, All, #{p50 := Outside, p99 := OutsideP99} = Off, Options) ->
    Other = less(All, Off),
    Agrees = agree(Live, Other),
    io:format("  ~-12s at ~-10s ~8b live: ~s~n  ~34s: ~s~n  ~s~s~n", [
        Arm, Pace, maps:get(count, Live), texts(Live), Peer, texts(Other),
        [io_lib:format("less ~.1f us (p99: ~.1f) outside of what is seen live; ", [Outside, OutsideP99]) || Outside > 0],
        case Agrees of true -> "they agree"; false -> "they DISAGREE" end
    ]),
    lineage_bench:emit(Options, #{
        bench => modes,
        measure => truth,
        kind => Kind,
        arm => Arm,
        base => Peer,
        pace => Pace,
        callers => ?CALLERS,
        otp => lineage_bench:otp(),
        samples => maps:get(count, Live),
        base_samples => maps:get(count, Other),
        latency_us => lineage_bench_latency:json(maps:remove(count, Live)),
        base_us => lineage_bench_latency:json(maps:remove(count, Other)),
        outside_us => Outside,
        holds => Agrees
    }),
    Agrees.

texts(Figures) ->
    lists:join(", ", [
        io_lib:format("~s [~s ~s]", [lineage_bench_plot:us(V) || V <- [Value, Low, High]])
     || {P, _} <- lineage_bench_latency:percentiles(), #{value := Value, low := Low, high := High} <- [maps:get(P, Figures)]
    ]).

agree(#{p50 := #{value := A}} = Live, #{p50 := #{value := B}} = Other) when is_number(A), is_number(B) ->
    Near = abs(A - B) =< max(1.0, 0.05 * B) orelse overlap(maps:get(p50, Live), maps:get(p50, Other)),
    Near andalso overlap(maps:get(p99, Live), maps:get(p99, Other)) andalso
        overlap(maps:get(p999, Live), maps:get(p999, Other));
agree(_, _) ->
    false.

%% An end that there is none of is as far as can be.
overlap(#{low := LowA, high := HighA}, #{low := LowB, high := HighB}) ->
    below(LowA, HighB) andalso below(LowB, HighA).

below(none, _High) -> true;
below(_Low, none) -> true;
below(Low, High) -> Low =< High.

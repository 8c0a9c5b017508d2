%% What it costs to measure overhead on a living node, and whether what is measured there is true.
%%
%% Throughput: 8 callers start children as fast as they can under a `supervisor' and a DynamicSupervisor, without Lineage and in
%% each of its modes. Ratios are within a round, of the mode to a plain `attach' and of that to no Lineage. The turns of what must
%% see some windows of the default duty are the longest.
%%
%% Truth: the callers time their own starts while Lineage does. With `continuous' both see the same starts, at rest and at
%% saturation: they agree when the medians are within 5 % or 1 us of each other, or their intervals overlap, and so do those of p99
%% and p99.9. Likewise the live percentiles of duty and of `continuous', which take turns at rest. (Not at saturation, where one
%% turn is not like the next: as the supervisor and its callers come to share a scheduler or not, the median is 13 us or 100.)
%% The callers see what the trace of the call itself takes before and after, which Lineage does not: about 1 us when all is
%% in the processor's caches, some us when the caller has just woken.
-module(lineage_bench_modes).

-export([run/1]).

-define(CALLERS, 8).
-define(DUTY_BAR, 0.95).
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

base(none) -> none;
base(attached) -> none;
base(_) -> attached.

%% Runs the job in one mode, and with it Then, while Lineage is attached.
turn(none, Job, Pace, Ms, _Options, _Then) ->
    {callers(Job, Pace, Ms), none};
turn(Arm, Job, Pace, Ms, Options, Then) ->
    {ok, _} = lineage:attach(attach(Arm, Options)),
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
    {_, Busy, BusyOwn} = seen(continuous, saturation, Job, short(Options), Options),
    Turns = [
        {seen(continuous, rest, Job, long(Options) div 2, Options), seen(duty, rest, Job, 2 * long(Options), Options)}
     || _ <- lists:seq(1, (Rounds + 2) div 3)
    ],
    {Continuous, Duty} = lists:unzip(Turns),
    All = live(Continuous),
    [
        told(continuous, callers, saturation, Kind, figures(Busy), own([BusyOwn]), Options),
        told(continuous, callers, rest, Kind, All, own([Own || {_, _, Own} <- Continuous]), Options),
        told(duty, continuous, rest, Kind, live(Duty), All, Options)
    ].

%% The latencies that are seen live while the job runs, as buckets, and the callers' own.
seen(Arm, Pace, Job, Ms, Options) ->
    {#{parts := #{latency := Ns}}, Live} = turn(Arm, Job, Pace, Ms, Options, fun buckets/0),
    {Arm, Live, Ns}.

buckets() ->
    #{series := Series} = lineage_nif:timings(),
    merge([Buckets || {_, #{latency := {_Sum, Buckets}}} <- Series]).

%% All histograms have the same buckets.
merge(Histograms) ->
    Counts = lists:foldl(
        fun({Low, High, Count}, Sum) -> maps:update_with({Low, High}, fun(N) -> N + Count end, Count, Sum) end,
        #{},
        lists:append(Histograms)
    ),
    [{Low, High, Count} || {{Low, High}, Count} <- lists:sort(maps:to_list(Counts))].

live(Turns) -> figures(merge([Buckets || {_, Buckets, _} <- Turns])).

figures(Buckets) -> lineage_bench_latency:figures(lineage_quantile:buckets(Buckets)).

own(Samples) -> lineage_bench_latency:figures(lineage_quantile:samples(lists:sort(lists:append(Samples)))).

told(Arm, Peer, Pace, Kind, Live, Other, Options) ->
    Agrees = agree(Live, Other),
    io:format("  ~-12s at ~-10s ~8b live: ~s~n  ~34s: ~s~n  ~s~n", [
        Arm, Pace, maps:get(count, Live), texts(Live), Peer, texts(Other), case Agrees of true -> "they agree"; false -> "they DISAGREE" end
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

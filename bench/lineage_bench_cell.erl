%% The arms of a cell: they take turns, round by round in a new order, and are shown and written beside each other.
-module(lineage_bench_cell).

-export([rounds/3, show/5]).

-type arm() :: atom().
%% What an arm's overhead is taken against: the median of another arm, or the same percentile of it; `zero', its latency itself is
%% judged; `none', it is not judged.
-type base() :: {arm(), lineage_bench_latency:against()} | zero | none.

%% Has each arm take its turn in each round, and returns all turns of each as one.
-spec rounds(pos_integer(), [arm(), ...], fun((arm()) -> lineage_bench_callers:result())) ->
    #{arm() => lineage_bench_callers:result()}.
rounds(Rounds, Arms, Turn) ->
    Turns = rounds(Rounds, Arms, Turn, rand:seed_s(exsss, {4, 5, 6})),
    maps:from_list([{Arm, lineage_bench_callers:join([maps:get(Arm, Round) || Round <- Turns])} || Arm <- Arms]).

rounds(0, _Arms, _Turn, _Rand) ->
    [];
rounds(Left, Arms, Turn, Rand0) ->
    {Order, Rand} = lineage_bench:shuffled(Arms, Rand0),
    Round = maps:from_list([{Arm, Turn(Arm)} || Arm <- Order]),
    [Round | rounds(Left - 1, Arms, Turn, Rand)].

%% Prints one part of a cell, an arm a line and the overhead of a judged one below it, and writes the JSON lines, each with
%% Fields. Arms without that part are left out. Returns for each judged arm whether no percentile of it is over the target.
-spec show(iodata(), atom(), [{arm(), base(), lineage_bench_callers:result()}], Fields, lineage_bench:options()) -> [boolean()]
    when Fields :: #{atom() => lineage_bench_stat:json()}.
show(Title, Part, Results, Fields, Options) ->
    Arms = [
        {Arm, Base, lineage_bench_latency:sorted(Ns), Result}
     || {Arm, Base, #{parts := #{Part := Ns}} = Result} <- Results
    ],
    io:format("~n~ts~n  ~-12s~8s ~s  ~s~n", [
        Title, "arm", "samples", columns(["p50", "p99", "p99.9"]), lineage_bench_plot:heading()
    ]),
    [Held || {_, Base, _, _} = Arm <- Arms, Held <- [arm(Part, Arm, Arms, Fields, Options)], Base =/= none].

arm(Part, {Arm, Base, Samples, #{failed := Failed, wall_ns := Wall}}, Arms, Fields, Options) ->
    Latency = lineage_bench_latency:latency(Samples),
    N = tuple_size(Samples),
    io:format("  ~-12s~8b ~s  ~s~n", [Arm, N, values(Latency), lineage_bench_plot:strip(Latency)]),
    Overhead = overhead(Base, Samples, Arms),
    Overhead =/= none andalso
        io:format("  ~20s ~s  ~s~n", [against(Base), values(Overhead), lineage_bench_latency:told(Overhead)]),
    lineage_bench:emit(Options, Fields#{
        bench => maps:get(run, Options),
        part => Part,
        arm => Arm,
        base => json(Base),
        otp => lineage_bench:otp(),
        samples => N,
        failed => Failed,
        per_s => (N + Failed) * 1.0e9 / Wall,
        latency_us => lineage_bench_latency:json(Latency),
        overhead_us => lineage_bench_latency:json(Overhead),
        target_us => lineage_bench_latency:target_us(),
        curve => lineage_bench_latency:curve(Samples)
    }),
    Overhead =:= none orelse not lineage_bench_latency:bad(Overhead).

overhead(none, _Samples, _Arms) ->
    none;
overhead(zero, Samples, _Arms) ->
    lineage_bench_latency:verdicts(Samples);
overhead({Base, Against}, Samples, Arms) ->
    {Base, _, Peer, _} = lists:keyfind(Base, 1, Arms),
    lineage_bench_latency:overhead(Samples, Peer, Against).

against(zero) -> "judged";
against(_) -> "overhead".

json(none) -> null;
json(zero) -> zero;
json({Arm, _Against}) -> Arm.

values(Figures) ->
    columns([lineage_bench_plot:us(maps:get(value, maps:get(P, Figures))) || {P, _} <- lineage_bench_latency:percentiles()]).

columns(Texts) ->
    [io_lib:format("~9s", [Text]) || Text <- Texts].

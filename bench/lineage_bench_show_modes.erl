%% The report's section on what it costs to measure overhead on a living node, and whether it is true.
-module(lineage_bench_show_modes).

-export([modes/1]).

-import(lineage_bench_page, [figure/3, table/2, details/2, count/1, time/1, keyed/2]).

%% The answers that stand at the top of the page, and the section.
-spec modes([#{binary() => term()}]) -> {[tuple()], lineage_bench_page:node_()}.
modes(Lines) ->
    Rates = [L || #{<<"measure">> := <<"throughput">>} = L <- Lines],
    Truths = [L || #{<<"measure">> := <<"truth">>} = L <- Lines],
    Duty = [{Median, L} || #{<<"arm">> := <<"duty">>, <<"cpu_ratio">> := #{<<"median">> := Median}} = L <- Rates],
    {
        [
            {verdict(Holds), [ratio(Worst), " ", 215], "of the starts a second remain when overhead is measured as it is by default",
                ["bar ", ratio(Bar), "; ", supervisor(L)]}
         || [{Worst, #{<<"bar">> := Bar, <<"holds">> := Holds} = L} | _] <- [lists:sort(Duty)]
        ],
        [
            {p, [], truth(Truths)},
            {p, [{class, "how"}],
                "Throughput: 8 callers start children as fast as they can. Ratios are within a round: of a mode to a plain attach, and of that "
                "to no Lineage. By default overhead is measured in windows of 100 ms, 2 % of the time. Latencies: the callers time "
                "their own starts while Lineage does; they see what the trace of a call takes before and after it, which Lineage "
                "does not."},
            figure("Starts a second, as a ratio", "Starts in a second of the node's CPU time (dot, with its 95 % interval over the rounds) and of wall time (grey); red: the bar. At the right: starts a second.", [
                lineage_bench_svg:rows(#{
                    title => supervisor(L),
                    axis => Axis,
                    lines => [],
                    header => "a second",
                    rows => [rate(Line) || Line <- Of]
                })
             || Axis <- [ratios(Rates)], {_, [L | _] = Of} <- keyed(fun kind/1, Rates)
            ]),
            figure("The same starts, seen live and timed by their callers",
                "A dot is p50, a diamond p99, a triangle p99.9; pale: the 95 % interval. At the right: the median.", [
                lineage_bench_svg:rows(#{
                    title => supervisor(L),
                    axis => Axis,
                    lines => [],
                    header => "p50",
                    rows => lists:append([seen(Line) || Line <- Of])
                })
             || Axis <- [times(Truths)], {_, [L | _] = Of} <- keyed(fun kind/1, Truths)
            ]),
            details("All figures", [
                table(["supervisor", "mode", "compared with", "starts a second", "wall", "low", "high", "CPU", "low", "high", "bar",
                    "holds"], [
                    [supervisor(L), arm(Arm), base(L), count(round(PerSecond))] ++ spread(maps:get(<<"ratio">>, L)) ++
                        spread(maps:get(<<"cpu_ratio">>, L)) ++
                        [bar(Bar), holds(Holds)]
                 || #{<<"arm">> := Arm, <<"per_s">> := PerSecond, <<"bar">> := Bar, <<"holds">> := Holds} = L <- Rates
                ]),
                table(["supervisor", "seen", "samples", "p50", "p99", "p99.9"], [
                    [supervisor(L), Who, count(N)] ++ [interval(maps:get(P, Figures)) || P <- [<<"p50">>, <<"p99">>, <<"p999">>]]
                 || L <- Truths, {Who, N, Figures} <- both(L)
                ])
            ])
        ]
    }.

truth([]) ->
    [];
truth(Truths) ->
    lists:join(" ", [
        [
            "Under ", supervisor(L), ", at ", Pace, ", what is seen live with ", arm(Arm), " and ", base_seen(L),
            case Holds of true -> " agree."; false -> " do not agree." end
        ]
     || #{<<"arm">> := Arm, <<"pace">> := Pace, <<"holds">> := Holds} = L <- Truths
    ]).

kind(#{<<"kind">> := Kind}) -> Kind.

supervisor(#{<<"kind">> := <<"one_for_one">>}) -> "a supervisor";
supervisor(#{<<"kind">> := <<"dynamic">>}) -> "a DynamicSupervisor".

arm(<<"none">>) -> "no Lineage";
arm(<<"attached">>) -> "attached";
arm(<<"exact">>) -> "sites: exact";
arm(<<"exits_all">>) -> "exits: all";
arm(<<"duty">>) -> "overhead: duty";
arm(<<"continuous">>) -> "overhead: continuous".

base(#{<<"base">> := null}) -> "";
base(#{<<"base">> := Arm}) -> arm(Arm).

base_seen(#{<<"base">> := <<"callers">>, <<"outside_us">> := Outside}) when Outside > 0 ->
    ["by the callers themselves, less ", lineage_bench_plot:us(Outside), " that the trace of a call takes outside of it,"];
base_seen(#{<<"base">> := <<"callers">>}) -> "by the callers themselves";
base_seen(#{<<"base">> := <<"continuous">>}) -> "with overhead: continuous".

colour(<<"none">>) -> 0;
colour(<<"attached">>) -> 1;
colour(<<"duty">>) -> 4;
colour(<<"continuous">>) -> 2;
colour(_) -> 3.

ratios(Rates) ->
    lineage_bench_svg:axis(ratio, [
        V
     || #{<<"ratio">> := #{<<"median">> := Wall}, <<"cpu_ratio">> := #{<<"low">> := Low, <<"high">> := High}, <<"bar">> := Bar} <- Rates,
        V <- [Wall, Low, High | [Bar || Bar =/= null]]
    ]).

rate(#{<<"arm">> := Arm, <<"per_s">> := PerSecond, <<"ratio">> := Wall, <<"cpu_ratio">> := Ratio, <<"bar">> := Bar} = L) ->
    #{<<"holds">> := Holds} = L,
    #{
        label => arm(Arm),
        marks => ratio_marks(Wall, Ratio, colour(Arm)) ++ [{bar, Bar} || Bar =/= null],
        text => count(round(PerSecond)),
        class => verdict(Holds),
        title => [arm(Arm), ": ", count(round(PerSecond)), " a second", [[", CPU ", ratio(M), " of ", base(L)] || #{<<"median">> := M} <- [Ratio]]]
    }.

ratio_marks(null, null, Colour) -> [{dot, 1, Colour}];
ratio_marks(#{<<"median">> := Wall}, #{<<"median">> := Median, <<"low">> := Low, <<"high">> := High}, Colour) ->
    [{diamond, Wall, 1}, {interval, Low, High, Colour}, {dot, Median, Colour}].

times(Truths) ->
    lineage_bench_svg:axis(us, [V || L <- Truths, {_, _, Figures} <- both(L), #{<<"value">> := V} <- maps:values(Figures), V =/= null]).

%% A mode's live figures, and the callers' own where they are what it is compared with.
both(#{<<"arm">> := Arm, <<"pace">> := Pace, <<"samples">> := N, <<"latency_us">> := Live, <<"base">> := Base} = L) ->
    [{[Arm, ", ", Pace], N, Live}] ++
        [{"callers", Of, Own} || Base =:= <<"callers">>, #{<<"base_samples">> := Of, <<"base_us">> := Own} <- [L]].

seen(#{<<"holds">> := Holds, <<"arm">> := Arm} = L) ->
    [
        #{
            label => Who,
            marks => [Mark || #{<<"p50">> := #{<<"value">> := V}} <- [Figures], V =/= null,
                              Mark <- lineage_bench_svg:latency(Figures, case Who of "callers" -> 0; _ -> colour(Arm) end)],
            text => time(maps:get(<<"value">>, maps:get(<<"p50">>, Figures))),
            class => case Who of "callers" -> soft; _ -> verdict(Holds) end,
            title => [Who, ": p50 ", interval(maps:get(<<"p50">>, Figures)), "; ", count(N), " samples"]
        }
     || {Who, N, Figures} <- both(L)
    ].

interval(#{<<"value">> := Value, <<"low">> := Low, <<"high">> := High}) ->
    [time(Value), " [", time(Low), " ", time(High), "]"].

spread(null) -> ["", "", ""];
spread(#{<<"median">> := Median, <<"low">> := Low, <<"high">> := High}) -> [ratio(X) || X <- [Median, Low, High]].

ratio(X) -> io_lib:format("~.3f", [float(X)]).

bar(null) -> "";
bar(Bar) -> io_lib:format("~.2f", [float(Bar)]).

holds(null) -> "";
holds(Holds) when is_atom(Holds) -> atom_to_list(Holds);
holds(Holds) -> Holds.

verdict(true) -> pass;
verdict(false) -> fail;
verdict(<<"unclear">>) -> more;
verdict(null) -> soft.

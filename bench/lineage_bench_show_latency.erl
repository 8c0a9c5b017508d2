%% The report's sections of latencies: the reference node, and supervision. Each returns the answers
%% that stand at the top of the page, and the section.
-module(lineage_bench_show_latency).

-export([reference/1, overhead/1]).

-import(lineage_bench_page, [figure/3, table/2, details/2, count/1, time/1, keyed/2]).

-type line() :: #{binary() => term()}.
-type tile() :: {pass | fail | more, unicode:chardata(), unicode:chardata(), unicode:chardata()}.
-type section() :: {[tile()], lineage_bench_page:node_()}.

%% Each place of the audit, as it was and supervised.
-spec reference([line()]) -> section().
reference(Lines) ->
    Judged = [L || #{<<"phase">> := Phase} = L <- judged(Lines), Phase =/= <<"phase_4">>],
    Coordinate = [L || #{<<"call">> := <<"MABEAM.Coordination.coordinate/3">>, <<"nodes">> := 1} = L <- Judged],
    {
        [
            tile(worst(Coordinate), "is what supervision adds to MABEAM.Coordination.coordinate/3 at p99.9"),
            tile(worst([L || #{<<"nodes">> := 1} = L <- Judged]), "is the most that it adds to any call of one node, at p99.9")
        ],
        [
            {p, [], answer(Judged, "the public calls behind the audit's places")},
            {p, [{class, "how"}],
                "Grey: the code as it was audited. Blue: the same call under supervision, in turns on the same node. At the right "
                "the overhead: the supervised call at p99.9 less the audited one at p99.9. \"To answer\" and \"to death\" "
                "last until what the call began is over: the audited code returns before. A recorded coordination is agreed "
                "on by both nodes, so that it outlives one: supervised in both arms, it is compared with one that is not recorded, "
                "and not counted above."},
            [
                figure(
                    [integer_to_list(Callers), " caller", [$s || Callers > 1], " at once, each again when it has been answered"],
                    marks(),
                    [rows("", [group(L) || L <- keyed(fun place/1, Of)], Axis) || Of <- halves(Of0)]
                )
             || Axis <- [axis(Lines)], {Callers, Of0} <- keyed(fun(#{<<"callers">> := N}) -> N end, Lines)
            ],
            details("All figures", latencies([<<"call">>, <<"part">>, <<"nodes">>, <<"callers">>, <<"arm">>], Lines))
        ]
    }.

place(#{<<"call">> := Call, <<"part">> := Part, <<"nodes">> := Nodes}) -> {Call, Part, Nodes}.

group({{Call, Part, Nodes}, Lines}) ->
    [
        {group, [last(Call), to(Part), [", 2 nodes" || Nodes =:= 2]]}
        | [row(Line, arm_word(Line), arm_colour(Line)) || Line <- Lines]
    ].

%% In phase 4 both are supervised.
arm_word(#{<<"phase">> := <<"phase_4">>, <<"arm">> := <<"legacy">>}) -> "not recorded";
arm_word(#{<<"phase">> := <<"phase_4">>}) -> "recorded";
arm_word(#{<<"arm">> := Arm}) -> Arm.

arm_colour(#{<<"arm">> := <<"legacy">>}) -> 0;
arm_colour(_) -> 2.

last(Call) -> re:replace(Call, "^(Foundation|MABEAM)\\.(Coordination\\.(?=P)|BEAM\\.)?", "").

to(<<"call">>) -> "";
to(<<"answer">>) -> ", to answer";
to(<<"gone">>) -> ", to death".

%% Two columns of about the same length.
halves(Lines) ->
    Groups = keyed(fun place/1, Lines),
    {A, B} = lists:split((length(Groups) + 1) div 2, Groups),
    [lists:append([L || {_, L} <- Half]) || Half <- [A, B], Half =/= []].

%% Starts, restarts and stops under each kind of supervisor.
-spec overhead([line()]) -> section().
overhead(Lines) ->
    Judged = judged(Lines),
    Usual = [L || #{<<"children">> := N} = L <- Judged, N =< 1000],
    Kinds = [{Kind, [L || #{<<"kind">> := K} = L <- Usual, K =:= Kind]} || Kind <- [<<"start">>, <<"restart">>]],
    {
        [tile(worst(Of), [tile_word(Kind), " at p99.9, with at most 1,000 children"]) || {Kind, [_ | _] = Of} <- Kinds],
        [
            {p, [], answer(Usual, "starts, restarts and stops with at most 1,000 children")},
            {p, [{class, "how"}],
                "A start's overhead is its latency at a percentile, less the median of the same child started bare (grey) in "
                "the same cell; a stop's likewise. A restart has no bare peer and is judged as it is. At rest all callers "
                "together start one or two children in a millisecond; at saturation each the next one when its last is gone, so that its "
                "exit is still in the supervisor's queue. Percentile bootstrap of 2,000 resamples for overheads, order statistics "
                "for latencies, 95 %."},
            starts([L || #{<<"kind">> := <<"start">>} = L <- Lines]),
            kind("Restarts: from a child's death to its successor's ack", fun by_children/1, fun callers/1,
                [L || #{<<"kind">> := <<"restart">>, <<"part">> := Part, <<"arm">> := Arm} = L <- Lines,
                      Part =:= <<"ack">> orelse Arm =:= <<"task">>]),
            kind("Stops: from the order to the child's death", fun by_children/1, fun callers_paced/1,
                [L || #{<<"kind">> := <<"stop">>} = L <- Lines]),
            details("All figures",
                latencies([<<"kind">>, <<"part">>, <<"state">>, <<"pace">>, <<"callers">>, <<"children">>, <<"arm">>], Lines))
        ]
    }.

tile_word(<<"start">>) -> "is the most that a supervisor adds to a start";
tile_word(<<"restart">>) -> "is the slowest restart".

starts(Lines) ->
    [
        [
            kind(["Starts, ", Population], fun by_pace/1, fun callers/1, Of),
            figure(
                ["Every start at saturation, ", Population],
                "Each curve is all starts of an arm: how long the fastest 50, 90, 99 % and so on took at most. Dashed: the target.",
                [
                    lineage_bench_svg:curves(
                        #{title => caller_text(Callers), axis => Axis, target => target(Of)},
                        [{arm_text(L), colour(L), Curve} || #{<<"curve">> := Curve} = L <- Cell]
                    )
                 || Saturated <- [[L || #{<<"pace">> := <<"saturation">>} = L <- Of]],
                    Axis <- [lineage_bench_svg:axis(us, [Us || #{<<"curve">> := Curve} <- Saturated, [_, Us] <- Curve])],
                    {Callers, Cell} <- keyed(fun(#{<<"callers">> := N}) -> N end, Saturated)
                ]
            )
        ]
     || {Population, Of} <- keyed(fun population/1, Lines)
    ].

population(#{<<"state">> := <<"cold">>}) -> "cold: a supervisor's first 100";
population(#{<<"children">> := N}) -> [count(N), " children besides"].

by_pace(#{<<"pace">> := Pace}) -> ["at ", Pace].
by_children(#{<<"children">> := N}) -> [count(N), " children besides"].
callers(#{<<"callers">> := N}) -> caller_text(N).
callers_paced(#{<<"callers">> := N, <<"pace">> := Pace}) -> [caller_text(N), " at ", Pace].

caller_text(1) -> "1 caller";
caller_text(N) -> [integer_to_list(N), " callers"].

%% A figure with a panel for each value of one key and groups of rows for those of another.
kind(_Title, _Panel, _Group, []) ->
    [];
kind(Title, Panel, Group, Lines) ->
    Axis = axis(Lines),
    figure(Title, marks(), [
        rows(Name, [[{group, Text} | [row(L, arm_text(L), colour(L)) || L <- in_order(Cell)]] || {Text, Cell} <- keyed(Group, Of)], Axis)
     || {Name, Of} <- keyed(Panel, Lines)
    ]).

in_order(Lines) -> lists:sort(fun(A, B) -> colour(A) =< colour(B) end, Lines).

arm_text(#{<<"arm">> := Arm}) -> arm(Arm).

arm(<<"bare">>) -> "bare";
arm(<<"bare_task">>) -> "bare task";
arm(<<"one_for_one">>) -> "supervisor";
arm(<<"dynamic">>) -> "DynamicSupervisor";
arm(<<"task">>) -> "Task.Supervisor";
arm(<<"partition">>) -> "PartitionSupervisor";
arm(Other) -> Other.

colour(#{<<"arm">> := Arm}) ->
    proplists:get_value(Arm, [
        {<<"bare">>, 0}, {<<"bare_task">>, 1}, {<<"one_for_one">>, 2}, {<<"dynamic">>, 3}, {<<"task">>, 4}, {<<"partition">>, 5}
    ], 0).

%% Lines with a verdict.
judged(Lines) -> [L || #{<<"overhead_us">> := Overhead} = L <- Lines, Overhead =/= null].

%% The line whose p99.9 is the largest; none of nothing.
worst([]) -> none;
worst(Lines) -> lists:last(lists:sort(fun(A, B) -> p999(A) =< p999(B) end, Lines)).

p999(#{<<"overhead_us">> := #{<<"p999">> := #{<<"value">> := V}}}) -> V.

tile(none, _What) ->
    [];
tile(#{<<"overhead_us">> := #{<<"p999">> := #{<<"value">> := Us, <<"verdict">> := Verdict}}} = Line, What) ->
    {binary_to_atom(Verdict), time(Us), What, ["of ", time(target([Line])), "; ", where(Line)]}.

where(#{<<"call">> := Call, <<"callers">> := N}) -> [last(Call), ", ", caller_text(N)];
where(#{<<"callers">> := N, <<"pace">> := Pace} = Line) -> [arm_text(Line), ", ", caller_text(N), " at ", Pace].

target([#{<<"target_us">> := Us} | _]) -> Us.

%% What the verdicts say in sum.
answer([], _What) ->
    "Nothing was measured.";
answer(Judged, What) ->
    Verdicts = [V || #{<<"overhead_us">> := #{<<"p999">> := #{<<"verdict">> := V}}} <- Judged],
    Count = fun(V) -> length([V || Each <- Verdicts, Each =:= V]) end,
    Fail = [L || #{<<"overhead_us">> := #{<<"p999">> := #{<<"verdict">> := <<"fail">>}}} = L <- Judged],
    [
        ["Of ", What, ", ", count(Count(<<"pass">>)), " of ", count(length(Judged)), " stay below ", time(target(Judged))],
        " at p99.9",
        [[", ", count(length(Fail)), " do not (", lists:join("; ", [where(L) || L <- lists:sublist(Fail, 3)]), ")"] || Fail =/= []],
        [[", and of ", count(Open), " there are too few samples to tell"] || Open <- [Count(<<"more">>)], Open > 0],
        "."
    ].

marks() ->
    "A dot is p50, a diamond p99, a triangle p99.9, on a logarithmic axis; pale: the 95 % interval, dotted where so few samples "
    "give it no upper end. At the right the overhead at p99.9: green below the target, red above, amber undecided.".

axis(Lines) ->
    Values = [V || #{<<"latency_us">> := Figures} <- Lines, #{<<"value">> := V} <- maps:values(Figures)],
    lineage_bench_svg:axis(us, [target(Lines) | Values]).

rows(Title, Groups, Axis) ->
    Rows = lists:append(Groups),
    lineage_bench_svg:rows(#{
        title => Title,
        axis => Axis,
        lines => [{lineage_bench_latency:target_us(), time(lineage_bench_latency:target_us())}],
        header => "p99.9",
        rows => Rows
    }).

row(#{<<"latency_us">> := Latency, <<"overhead_us">> := Overhead, <<"samples">> := N} = Line, Label, Colour) ->
    {Text, Class} = verdict(Overhead),
    #{
        label => Label,
        marks => lineage_bench_svg:latency(Latency, Colour),
        text => Text,
        class => Class,
        title => [
            [Label, ": p50 ", figure_text(<<"p50">>, Latency), ", p99 ", figure_text(<<"p99">>, Latency)],
            [", p99.9 ", figure_text(<<"p999">>, Latency), "; ", count(N), " samples", told(Line)]
        ]
    }.

verdict(null) -> {"", soft};
verdict(#{<<"p999">> := #{<<"value">> := V, <<"verdict">> := Verdict}}) -> {time(V), binary_to_atom(Verdict)}.

figure_text(P, Figures) ->
    #{P := #{<<"value">> := V, <<"low">> := Low, <<"high">> := High}} = Figures,
    [time(V), " [", time(Low), " ", time(High), "]"].

told(#{<<"overhead_us">> := null}) ->
    "";
told(#{<<"overhead_us">> := Overhead}) ->
    ["; overhead p50 ", figure_text(<<"p50">>, Overhead), ", p99 ", figure_text(<<"p99">>, Overhead), ", p99.9 ",
        figure_text(<<"p999">>, Overhead)].

%% The same as a table, with the cell that each line is of.
latencies(Keys, Lines) ->
    Headings = [Key || Key <- Keys] ++ ["samples", "p50", "p99", "p99.9", "overhead p50", "p99", "p99.9", "verdict", "failed"],
    table(Headings, [
        [text(maps:get(Key, Line)) || Key <- Keys] ++ [count(N)] ++ [figure_text(P, Latency) || P <- ps()] ++
            overhead_texts(Overhead) ++ [count(Failed)]
     || #{<<"samples">> := N, <<"latency_us">> := Latency, <<"overhead_us">> := Overhead, <<"failed">> := Failed} = Line <- Lines
    ]).

ps() -> [<<"p50">>, <<"p99">>, <<"p999">>].

overhead_texts(null) -> ["", "", "", ""];
overhead_texts(Overhead) -> [figure_text(P, Overhead) || P <- ps()] ++ [verdict_text(maps:get(<<"p999">>, Overhead))].

verdict_text(#{<<"verdict">> := <<"more">>, <<"more">> := N}) -> [count(N), " more"];
verdict_text(#{<<"verdict">> := Verdict}) -> Verdict.

text(N) when is_integer(N) -> count(N);
text(Text) -> Text.

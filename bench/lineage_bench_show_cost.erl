%% The report's sections of what Lineage costs: births, messages, and a million processes. Each returns the answers that stand at
%% the top of the page, and the section.
-module(lineage_bench_show_cost).

-export([cost/1, ping/1, big/1, stream/1, witness/1]).

-import(lineage_bench_page, [figure/3, table/2, details/2, count/1, keyed/2]).

-type line() :: #{binary() => term()}.
-type section() :: {[tuple()], lineage_bench_page:node_()}.

%% Births: each mode against the no-op tracer that sheds or keeps as it does.
-spec cost([line()]) -> section().
cost(Lines) ->
    Judged = judged(Lines),
    Default = [L || #{<<"arm">> := <<"closure_suspects">>, <<"what">> := <<"spawn_link">>} = L <- Lines],
    {
        [
            {class(Default), ratio(middle([cpu(L) || L <- Default])), "a tracer that does nothing is what the default costs a birth", [
                ratio(middle([X || #{<<"ratio_untraced">> := X} <- Default])), " untraced; bar ", ratio(bar(Default))
            ]}
         || Default =/= []
        ],
        [
            {p, [], [
                "Of the ", count(length([L || #{<<"bar">> := Bar} = L <- Judged, Bar =/= null])), " cells with a bar ",
                count(holding(true, Judged)), " hold, ", count(holding(false, Judged)), " do not, ",
                count(holding(<<"unclear">>, Judged)), " are within the noise."
            ]},
            {p, [{class, "how"}],
                "Spawn and exit, in rounds in which all arms take turns. The ratio is to the tracer that does nothing and "
                "sheds or keeps as the mode does, of the node's CPU time (dot, with its 95 % interval) and of the wall time (grey)."},
            births(Lines),
            [
                figure(["Ratio to a tracer that does nothing: ", words(What)], "At the right the CPU ratio; red: its bar.", [
                    rows(Table, ratio_axis(Of), "cpu", [
                        [{group, Cell} | [ratio_row(L) || L <- In]]
                     || {Cell, In} <- keyed(fun cell/1, Panel)
                    ])
                 || {Table, Panel} <- keyed(fun table_text/1, Of)
                ])
             || {What, Of} <- keyed(fun(#{<<"what">> := W}) -> W end, Judged)
            ],
            details("All figures", ratios([<<"what">>, <<"table">>, <<"process_limit">>, <<"live">>, <<"workers">>], Lines))
        ]
    }.

%% Of the first table and cell that was run: how long a birth takes in each arm.
births([#{<<"table">> := Table, <<"process_limit">> := Limit, <<"live">> := Live, <<"workers">> := Workers} | _] = Lines) ->
    First = [
        L
     || #{<<"table">> := T, <<"process_limit">> := P, <<"live">> := N, <<"workers">> := W} = L <- Lines,
        {T, P, N, W} =:= {Table, Limit, Live, Workers}
    ],
    Axis = lineage_bench_svg:axis(ns, [Ns || #{<<"ns_per_op">> := Ns} <- First]),
    figure("Nanoseconds for a spawn and its exit", [table_text(hd(First)), "; ", cell(hd(First)), "; the median round."], [
        rows(words(What), Axis, "", [[
            #{
                label => arm(Arm),
                marks => [{column, 0, Ns, colour(Arm)}],
                text => count(round(Ns)),
                class => soft,
                title => [arm(Arm), ": ", count(round(Ns)), " ns, ", ratio(Untraced), " untraced"]
            }
         || #{<<"arm">> := Arm, <<"ns_per_op">> := Ns, <<"ratio_untraced">> := Untraced} <- Of
        ]])
     || {What, Of} <- keyed(fun(#{<<"what">> := W}) -> W end, First)
    ]).

table_text(#{<<"table">> := Table, <<"process_limit">> := Limit}) -> [Table, " table, +P ", count(Limit)].

cell(#{<<"live">> := Live, <<"workers">> := Workers}) ->
    [count(Live), " live, ", integer_to_list(Workers), " worker", [$s || Workers > 1]].

words(<<"spawn_link">>) -> "linked";
words(<<"spawn_monitor">>) -> "without a link";
words(<<"rolling_link">>) -> "linked, birth and death far apart";
words(<<"rolling_monitor">>) -> "without a link, birth and death far apart";
words(Other) -> Other.

arm(<<"untraced">>) -> "untraced";
arm(<<"noop_shed">>) -> "no-op, sheds";
arm(<<"noop_mixed">>) -> "no-op, as suspects";
arm(<<"noop_keep">>) -> "no-op, keeps";
arm(<<"lineage_", Exits/binary>>) -> [Exits, ", sites off"];
arm(<<"closure_", Exits/binary>>) -> [Exits, ", closure"];
arm(<<"exact_", Exits/binary>>) -> [Exits, ", exact"].

colour(<<"untraced">>) -> 1;
colour(<<"noop_", _/binary>>) -> 0;
colour(<<"lineage_", _/binary>>) -> 2;
colour(<<"closure_", _/binary>>) -> 4;
colour(<<"exact_", _/binary>>) -> 3.

%% Messages between linked processes.
-spec ping([line()]) -> section().
ping(Lines) ->
    Judged = judged(Lines),
    Default = [L || #{<<"arm">> := <<"closure_suspects">>} = L <- Lines],
    {
        [
            {class(Default), ratio(cpu(L)), "untraced is what messages between linked processes cost", ["bar ", ratio(bar(Default))]}
         || L <- Default
        ],
        [
            {p, [{class, "how"}],
                "A process and one that it is linked to send each other messages. Who has a link when it is born is not traced when "
                "it runs, so nothing is paid here; what is kept pays one call at each turn."},
            figure("Ratio to no tracer: a message and its answer", "At the right the CPU ratio; grey: the wall time.", [
                rows("", ratio_axis(Judged), "cpu", [[ratio_row(L) || L <- Judged]])
            ]),
            details("All figures", ratios([<<"what">>], Lines))
        ]
    }.

%% All arms that are compared with another one.
judged(Lines) -> [L || #{<<"arm">> := Arm} = L <- Lines, Arm =/= <<"untraced">>, is_lineage(L)].

is_lineage(#{<<"what">> := <<"ping_pong">>}) -> true;
is_lineage(#{<<"arm">> := <<"noop_", _/binary>>}) -> false;
is_lineage(_) -> true.

holding(Holds, Lines) -> length([L || #{<<"holds">> := H} = L <- Lines, H =:= Holds]).

class(Lines) -> class(holding(false, Lines), holding(<<"unclear">>, Lines)).

class(0, 0) -> pass;
class(0, _) -> more;
class(_, _) -> fail.

cpu(#{<<"cpu_ratio">> := #{<<"median">> := Median}}) -> Median.

bar([#{<<"bar">> := null} | _]) -> 0;
bar([#{<<"bar">> := Bar} | _]) -> Bar.

middle(Values) -> lineage_bench_stat:median(Values).

ratio(X) -> [io_lib:format("~.2f", [float(X)]), " ", 215].

ratio_axis(Lines) ->
    lineage_bench_svg:axis(ratio, [
        V
     || #{<<"cpu_ratio">> := #{<<"low">> := Low, <<"high">> := High}, <<"ratio">> := #{<<"median">> := Wall}, <<"bar">> := Bar} <- Lines,
        V <- [Low, High, Wall | [Bar || Bar =/= null]]
    ]).

rows(Title, Axis, Header, Groups) ->
    lineage_bench_svg:rows(#{title => Title, axis => Axis, lines => [], header => Header, rows => lists:append(Groups)}).

ratio_row(#{<<"arm">> := Arm, <<"ratio">> := Wall, <<"cpu_ratio">> := Cpu, <<"bar">> := Bar, <<"holds">> := Holds}) ->
    #{<<"median">> := Median, <<"low">> := Low, <<"high">> := High} = Cpu,
    #{
        label => arm(Arm),
        marks => [{diamond, maps:get(<<"median">>, Wall), 1}, {interval, Low, High, colour(Arm)}, {dot, Median, colour(Arm)}] ++
            [{bar, Bar} || Bar =/= null],
        text => ratio(Median),
        class => holds(Holds),
        title => [arm(Arm), ": cpu ", spread(Cpu), ", wall ", spread(Wall), [[", bar ", ratio(Bar)] || Bar =/= null]]
    }.

holds(true) -> pass;
holds(false) -> fail;
holds(null) -> soft;
holds(<<"unclear">>) -> more.

spread(#{<<"median">> := Median, <<"low">> := Low, <<"high">> := High}) ->
    io_lib:format("~.3f [~.3f ~.3f]", [float(X) || X <- [Median, Low, High]]).

ratios(Keys, Lines) ->
    table(["arm" | Keys] ++ ["ns", "compared with", "cpu", "wall", "times untraced", "bar", "holds"], [
        [arm(Arm)] ++ [text(maps:get(Key, Line)) || Key <- Keys] ++
            [count(round(Ns)), arm(Base), spread(Cpu), spread(Wall), ratio(Untraced), number(Bar), text(Holds)]
     || #{<<"arm">> := Arm, <<"base">> := Base, <<"ns_per_op">> := Ns, <<"cpu_ratio">> := Cpu, <<"ratio">> := Wall,
          <<"ratio_untraced">> := Untraced, <<"bar">> := Bar, <<"holds">> := Holds} = Line <- Lines
    ]).

text(N) when is_integer(N) -> count(N);
text(null) -> "";
text(Atom) when is_atom(Atom) -> atom_to_list(Atom);
text(Text) -> Text.

number(null) -> "";
number(Bar) -> io_lib:format("~.2f", [float(Bar)]).

%% A million processes: each figure as a part of its bar.
-spec big([line()]) -> section().
big(Lines) ->
    Barred = [L || #{<<"bar">> := Bar, <<"figure">> := Figure} = L <- Lines, Bar =/= null, Figure =/= <<"closed_after_detach">>],
    Summaries = [L || #{<<"figure">> := <<"summary_ms">>} = L <- Lines],
    Part = fun(#{<<"value">> := Value, <<"bar">> := Bar}) -> max(0.02, 100 * Value / Bar) end,
    Axis = lineage_bench_svg:axis(percent, [100, 0.1 | [Part(L) || L <- Barred]]),
    {
        [
            {class(Summaries), [io_lib:format("~b", [round(lists:max([V || #{<<"value">> := V} <- Summaries]))]), " ms"],
                ["is a summary of ", count(Size), " processes at most"], ["bar ", count(Bar), " ms"]}
         || [#{<<"size">> := Size, <<"bar">> := Bar} | _] <- [Summaries]
        ],
        [
            {p, [{class, "how"}],
                "Each figure as a part of its bar, on a logarithmic axis. Holds are how long a scheduler did nothing else, in CPU "
                "time of its thread; how long a supervisor took to answer is wall time, and bears what else the machine does."},
            figure("Figures, as a part of their bars", "Amber: over the bar, and so was the control run beside it.", [
                lineage_bench_svg:rows(#{
                    title => [count(Size), " processes, ", shape(Shape)],
                    axis => Axis,
                    lines => [{100, "the bar"}],
                    header => "",
                    rows => [
                        #{
                            label => name(Figure),
                            marks => [{column, maps:get(from, Axis), Part(L), 2}],
                            text => value(Figure, Value),
                            class => holds(Holds),
                            title => [name(Figure), ": ", value(Figure, Value), " of ", value(Figure, Bar)]
                        }
                     || #{<<"figure">> := Figure, <<"value">> := Value, <<"bar">> := Bar, <<"holds">> := Holds} = L <- Of
                    ]
                })
             || {{Shape, Size}, Of} <- keyed(fun(#{<<"shape">> := S, <<"size">> := N}) -> {S, N} end, Barred)
            ]),
            details("All figures", table(["figure", "shape", "processes", "value", "bar", "holds"], [
                [name(Figure), Shape, count(Size), value(Figure, Value), [value(Figure, Bar) || Bar =/= null], text(Holds)]
             || #{<<"figure">> := Figure, <<"shape">> := Shape, <<"size">> := Size, <<"value">> := Value, <<"bar">> := Bar,
                  <<"holds">> := Holds} <- Lines
            ]))
        ]
    }.

-spec stream([#{binary() => term()}]) -> {[tuple()], lineage_bench_page:node_()}.
stream(Lines) ->
    Barred = [{L, max(0.02, 100 * Value / Bar)} || #{<<"bar">> := Bar, <<"value">> := Value} = L <- Lines, is_number(Bar), Bar > 0],
    Axis = lineage_bench_svg:axis(percent, [100, 0.1 | [Part || {_, Part} <- Barred]]),
    {[], [
        {p, [{class, "how"}],
            "Costs are differences within a round, of the same node with the tap on and off. Latencies are of one event at a time, on a node at rest."},
        figure("Figures, as a part of their bars", "The events that are missing must be none.", [
            lineage_bench_svg:rows(#{
                title => "A stream of events",
                axis => Axis,
                lines => [{100, "the bar"}],
                header => "",
                rows => [
                    #{
                        label => What,
                        marks => [{column, maps:get(from, Axis), Part, 2}],
                        text => io_lib:format("~.1f ~s", [float(Value), Unit]),
                        class => holds(Holds),
                        title => What
                    }
                 || {#{<<"figure">> := What, <<"value">> := Value, <<"unit">> := Unit, <<"holds">> := Holds}, Part} <- Barred
                ]
            })
        ]),
        all_figures(Lines)
    ]}.

-spec witness([#{binary() => term()}]) -> {[tuple()], lineage_bench_page:node_()}.
witness(Lines) ->
    {[], [
        {p, [{class, "how"}], "What a birth and its exit cost more while the probe watches the node from outside: differences within a round."},
        all_figures(Lines)
    ]}.

all_figures(Lines) ->
    details("All figures", table(["figure", "value", "unit", "bar", "holds"], [
        [What, io_lib:format("~.1f", [float(Value)]), Unit, [io_lib:format("~b", [Bar]) || Bar =/= null], text(Holds)]
     || #{<<"figure">> := What, <<"value">> := Value, <<"unit">> := Unit, <<"bar">> := Bar, <<"holds">> := Holds} <- Lines
    ])).

shape(<<"one">>) -> "under one supervisor";
shape(<<"thousand">>) -> "under a thousand";
shape(<<"orphans">>) -> "all orphans".

name(Figure) ->
    string:replace(re:replace(Figure, "_(ms|us)$", ""), "_", " ", all).

value(Figure, Value) ->
    case re:run(Figure, "(_ms|_us|bytes)", [{capture, first, binary}]) of
        {match, [<<"_ms">>]} -> [digits(Value), " ms"];
        {match, [<<"_us">>]} -> lineage_bench_page:time(Value);
        {match, [<<"bytes">>]} -> [digits(Value / 1048576), " MiB"];
        nomatch -> digits(Value)
    end.

digits(Value) when Value >= 100 -> count(round(Value));
digits(Value) -> io_lib:format("~.1f", [float(Value)]).

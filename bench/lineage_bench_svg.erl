%% Plots as inline SVG: rows of marks on one axis, and curves of percentiles. Colours are classes that the page's CSS gives.
-module(lineage_bench_svg).

-export([axis/2, rows/1, curves/2, latency/2]).

-export_type([axis/0, row/0]).

-type node_() :: lineage_bench_page:node_().
-type axis() :: #{log := boolean(), from := float(), to := float(), ticks := [{float(), unicode:chardata()}]}.
-type mark() ::
    {span | interval | open | column, From :: number(), To :: number(), Colour :: 0..5}
    | {dot | diamond | triangle, number(), Colour :: 0..5}
    | {bar, number()}.
-type row() ::
    {group, unicode:chardata()}
    | #{
        label := unicode:chardata(),
        marks := [mark()],
        %% What stands at the right, and its class: pass, fail, more or soft.
        text := unicode:chardata(),
        class := atom(),
        %% What the pointer shows.
        title := unicode:chardata()
    }.

-define(WIDTH, 540).
-define(LEFT, 142).
-define(RIGHT, 72).
-define(ROW, 17).
-define(PLOT, (?WIDTH - ?LEFT - ?RIGHT)).

%% An axis that has room for all of the values: `us' and `percent' are logarithmic, of microseconds and of percents, `ratio'
%% is linear around 1, `ns' linear from 0.
-spec axis(us | percent | ratio | ns, [number()]) -> axis().
axis(ns, Values) ->
    High = lists:max([1 | Values]),
    Step = step(High / 5),
    Ticks = [N * Step || N <- lists:seq(0, ceil(High / Step))],
    #{log => false, from => 0.0, to => lists:last(Ticks), ticks => [{Tick, [lineage_bench_page:count(round(Tick)), " ns"]} || Tick <- Ticks]};
axis(ratio, Values) ->
    Low = lists:min([1 | Values]),
    High = lists:max([1 | Values]),
    Step = step((High - Low) / 5),
    From = max(0, floor(Low / Step - 0.2)) * Step,
    To = ceil(High / Step + 0.2) * Step,
    Ticks = [From + N * Step || N <- lists:seq(0, round((To - From) / Step))],
    #{log => false, from => From, to => To, ticks => [{Tick, io_lib:format("~.2f", [float(Tick)])} || Tick <- Ticks]};
axis(Unit, Values) ->
    Positive = [V || V <- Values, V > 0],
    From = floor(math:log10(lists:min([1.0e6 | Positive]))),
    To = max(From + 1, ceil(math:log10(lists:max([1.0e-6 | Positive])))),
    Ticks = [math:pow(10, N) || N <- lists:seq(From, To)],
    #{log => true, from => math:pow(10, From), to => math:pow(10, To), ticks => [{Tick, tick(Unit, Tick)} || Tick <- Ticks]}.

step(About) ->
    Power = math:pow(10, floor(math:log10(max(About, 0.01)))),
    hd([N * Power || N <- [1, 2, 5, 10], N * Power >= About * 0.999]).

tick(percent, V) when V < 0.05 -> "0.01 %";
tick(percent, V) when V < 1 -> "0.1 %";
tick(percent, V) -> [integer_to_list(round(V)), " %"];
tick(us, V) when V < 0.99 -> [integer_to_list(round(V * 1000)), " ns"];
tick(us, V) when V < 999 -> [integer_to_list(round(V)), 32, 181, "s"];
tick(us, V) when V < 999999 -> [integer_to_list(round(V / 1000)), " ms"];
tick(us, V) -> [integer_to_list(round(V / 1000000)), " s"].

place(#{log := true, from := From, to := To}, V) ->
    within(math:log10(max(V, From)) - math:log10(From), math:log10(To) - math:log10(From));
place(#{from := From, to := To}, V) ->
    within(V - From, To - From).

within(Part, Whole) -> max(0.0, min(1.0, Part / Whole)).

x(Axis, V) -> ?LEFT + ?PLOT * place(Axis, V).

%% Rows of marks. `lines' are drawn through all of them, with their texts; `header' is what stands above the texts at the right.
-spec rows(#{
    title := unicode:chardata(),
    axis := axis(),
    lines := [{number(), unicode:chardata()}],
    header := unicode:chardata(),
    rows := [row()]
}) -> node_().
rows(#{title := Title, axis := #{ticks := Ticks} = Axis, lines := Lines, header := Header, rows := Rows}) ->
    Top = top(Title),
    Bottom = Top + ?ROW * length(Rows),
    svg(Bottom + 20, [
        text(0, 12, "head", start, Title),
        text(?WIDTH, Top - 8, "soft", 'end', Header),
        [line("grid", x(Axis, V), Top, x(Axis, V), Bottom) || {V, _} <- Ticks],
        [text(x(Axis, V), Bottom + 14, "soft", middle, Text) || {V, Text} <- every(Ticks)],
        [
            [line("target", x(Axis, V), Top - 4, x(Axis, V), Bottom), text(x(Axis, V), Top - 8, "targettext", middle, Text)]
         || {V, Text} <- Lines
        ],
        [row(Row, Top + ?ROW * N + ?ROW / 2, Axis) || {N, Row} <- lists:zip(lists:seq(0, length(Rows) - 1), Rows)]
    ]).

%% Without a title there is no room for one.
top("") -> 22;
top(_Title) -> 40.

%% So many ticks have room for their texts.
every(Ticks) when length(Ticks) =< 7 -> Ticks;
every(Ticks) -> [Tick || {N, Tick} <- lists:zip(lists:seq(1, length(Ticks)), Ticks), N rem 2 =:= 1].

row({group, Text}, Y, _Axis) ->
    text(0, Y + 5, "soft", start, Text);
row(#{label := Label, marks := Marks, text := Text, class := Class, title := Title}, Y, Axis) ->
    {g, [{class, "row"}], [
        {title, [], Title},
        text(?LEFT - 10, Y + 4, "", 'end', Label),
        [mark(Mark, Y, Axis) || Mark <- Marks],
        text(?WIDTH, Y + 4, atom_to_list(Class), 'end', Text)
    ]}.

mark({bar, V}, Y, Axis) ->
    line("bar", x(Axis, V), Y - 6, x(Axis, V), Y + 6);
mark({open, From, _To, Colour}, Y, Axis) ->
    X = x(Axis, From),
    line(class("open", s, Colour), X, Y, min(X + 22, float(?LEFT + ?PLOT)), Y);
mark({Kind, From, To, Colour}, Y, Axis) ->
    %% A mark is never too short to be seen.
    X = x(Axis, From),
    line(["mark ", class(atom_to_list(Kind), s, Colour)], X, Y, max(X + 0.8, x(Axis, To)), Y);
mark({dot, V, Colour}, Y, Axis) ->
    {circle, [{class, class("mark", f, Colour)}, {cx, x(Axis, V)}, {cy, Y}, {r, 3.4}], []};
mark({diamond, V, Colour}, Y, Axis) ->
    shape(x(Axis, V), Y, [{0, -4.4}, {4.4, 0}, {0, 4.4}, {-4.4, 0}], Colour);
mark({triangle, V, Colour}, Y, Axis) ->
    shape(x(Axis, V), Y, [{0, -4.6}, {4.6, 3.8}, {-4.6, 3.8}], Colour).

shape(X, Y, Points, Colour) ->
    Path = [io_lib:format("~s~.1f ~.1f", [Move, X + Dx, Y + Dy]) || {Move, {Dx, Dy}} <- lists:zip(moves(Points), Points)],
    {path, [{class, class("mark", f, Colour)}, {d, [Path, "Z"]}], []}.

moves([_ | Rest]) -> ["M" | ["L" || _ <- Rest]].

%% The marks of a latency from a JSON line's figures: p50 a dot, p99 a diamond, p99.9 a triangle, each with its interval.
-spec latency(#{binary() => term()}, 0..5) -> [mark()].
latency(#{<<"p50">> := P50, <<"p99">> := P99, <<"p999">> := P999}, Colour) ->
    #{<<"value">> := From} = P50,
    #{<<"value">> := To} = P999,
    [{span, From, To, Colour}] ++
        lists:append([interval(P, Colour) || P <- [P50, P99, P999]]) ++
        [{dot, From, Colour}, {diamond, maps:get(<<"value">>, P99), Colour}, {triangle, To, Colour}].

interval(#{<<"value">> := V, <<"low">> := Low, <<"high">> := null}, Colour) ->
    [{interval, first(Low, V), V, Colour}, {open, V, V, Colour}];
interval(#{<<"value">> := V, <<"low">> := Low, <<"high">> := High}, Colour) ->
    [{interval, first(Low, V), High, Colour}].

first(null, V) -> V;
first(Low, _V) -> Low.

-define(CURVE_WIDTH, 430).
-define(CURVE_HEIGHT, 300).
-define(CURVE_LEFT, 46).
-define(CURVE_RIGHT, 112).

%% Curves over the percentiles, from 0 to 99.99 and each nine as far as the one before. The axis is that of all panels.
-spec curves(#{title := unicode:chardata(), axis := axis(), target := number()}, [{unicode:chardata(), 0..5, [[number()]]}]) ->
    node_().
curves(#{title := Title, axis := #{ticks := Ticks} = Axis, target := Target}, Curves) ->
    Bottom = ?CURVE_HEIGHT - 34,
    Y = fun(Us) -> Bottom - (Bottom - 24) * place(Axis, Us) end,
    X = fun(Nines) -> ?CURVE_LEFT + (?CURVE_WIDTH - ?CURVE_LEFT - ?CURVE_RIGHT) * min(1.0, Nines / 4) end,
    Right = X(4),
    Ends = apart(lists:sort([{Y(lists:last(lists:last(Points))), Label, Colour} || {Label, Colour, Points} <- Curves]), 12),
    {svg, [{viewBox, io_lib:format("0 0 ~b ~b", [?CURVE_WIDTH, ?CURVE_HEIGHT])}, {role, "img"}], [
        text(0, 12, "head", start, Title),
        [
            [line("grid", ?CURVE_LEFT, Y(V), Right, Y(V)), text(?CURVE_LEFT - 6, Y(V) + 4, "soft", 'end', Text)]
         || {V, Text} <- Ticks
        ],
        [
            [line("grid", X(Nines), 24, X(Nines), Bottom), text(X(Nines), Bottom + 14, "soft", middle, Text)]
         || {Nines, Text} <- [{0, "0"}, {0.301, "50"}, {1, "90"}, {2, "99"}, {3, "99.9"}, {4, "99.99 %"}]
        ],
        [line("target", ?CURVE_LEFT, Y(Target), Right, Y(Target)) || Target =< maps:get(to, Axis)],
        [
            {g, [], [
                {title, [], Label},
                {polyline, [{class, class("mark curve", s, Colour)}, {points, points(Points, X, Y)}], []}
            ]}
         || {Label, Colour, Points} <- Curves
        ],
        [text(Right + 6, At + 4, class("", f, Colour), start, Label) || {At, Label, Colour} <- Ends]
    ]}.

points(Points, X, Y) ->
    lists:join($\s, [io_lib:format("~.1f,~.1f", [float(X(-math:log10(1 - P / 100))), float(Y(Us))]) || [P, Us] <- Points]).

%% Labels that are at least so far from each other, from above to below.
apart([{Y, _, _} = First, {Next, Label, Colour} | Rest], By) ->
    [First | apart([{max(Next, Y + By), Label, Colour} | Rest], By)];
apart(Few, _By) ->
    Few.

svg(Height, Content) ->
    {svg, [{viewBox, io_lib:format("0 0 ~b ~b", [?WIDTH, Height])}, {role, "img"}], Content}.

line(Class, X1, Y1, X2, Y2) ->
    {line, [{class, Class}, {x1, X1}, {y1, Y1}, {x2, X2}, {y2, Y2}], []}.

text(X, Y, Class, Anchor, Text) ->
    {text, [{x, X}, {y, Y}, {class, Class}, {'text-anchor', atom_to_list(Anchor)}], Text}.

class(Name, Kind, Colour) ->
    [Name, $\s, atom_to_list(Kind), integer_to_list(Colour)].

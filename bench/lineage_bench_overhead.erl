%% What supervision costs: starts under each kind of supervisor against the same child started bare, restarts, and stops.
%%
%% One node runs one size: how many children each supervisor has besides. Its cells are: so many callers, at rest (all together
%% start one or two children in a millisecond) or at saturation (each starts the next when the last one is gone), cold (the
%% first 100 starts of a supervisor or some more, so that each caller has as many; code is loaded) or warm. In each cell the arms take turns, round by round in a new order.
%%
%% "Start overhead, bench" is the latency of the supervised start at a percentile, less the *median* of the same child started
%% bare in the same cell. (The live one is a start's own latency less its child's init: another thing, another name.) Likewise
%% "stop overhead, bench". A restart has no bare peer: its verdict stands on the time itself. Logging is off, which would add
%% to each restart.
-module(lineage_bench_overhead).

-export([run/1]).

%% Starts of a cold supervisor that count.
-define(COLD, 100).
%% Rounds of cold cells are short and there are more of them.
-define(COLD_ROUNDS, 4).
%% A turn ends after so long, whatever it has done by then.
-define(LIMIT_MS, 2000).

%% Runs all cells of one size. Returns for each supervised arm whether no percentile of it is over the target. That is asked at
%% rest and with at most 1,000 children; the others are answers and not bars: at saturation callers wait for each other by design.
-spec run(lineage_bench:options()) -> [boolean()].
run(#{children := Children} = Options) ->
    ok = logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    Warm = [{Arm, lineage_bench_starts:open(Arm, Children)} || Arm <- lineage_bench_starts:arms()],
    lists:append([judged(Cell, cell(Cell, Warm, Options)) || Cell <- cells(Options)]).

judged(#{pace := rest, children := Children}, Held) when Children =< 1000 -> Held;
judged(_Cell, _Held) -> [].

cells(#{callers := Callers, children := Children, ops := Ops, rounds := Rounds}) ->
    Paced = [{N, Pace} || N <- Callers, Pace <- [rest, saturation]],
    Starts = [cell(start, warm, N, Pace, Children, Rounds, turn_ops(Pace, Ops)) || {N, Pace} <- Paced],
    Cold = [cell(start, cold, N, Pace, 0, Rounds * ?COLD_ROUNDS, min(?COLD, Ops)) || Children =:= 0, {N, Pace} <- Paced],
    %% Restarts never at saturation: a supervisor looks through all restarts of the last second at each one.
    Restarts = [cell(restart, warm, N, rest, Children, Rounds, turn_ops(rest, Ops)) || N <- lists:sublist(Callers, 2)],
    Stops = [cell(stop, warm, N, Pace, Children, Rounds, turn_ops(Pace, Ops)) || {N, Pace} <- Paced, N =< 8],
    Starts ++ Cold ++ Restarts ++ Stops.

turn_ops(rest, Ops) -> max(1, Ops div 2);
turn_ops(saturation, Ops) -> Ops.

cell(Kind, State, Callers, Pace, Children, Rounds, Ops) ->
    #{
        kind => Kind,
        state => State,
        callers => Callers,
        pace => Pace,
        children => Children,
        rounds => Rounds,
        each => (Ops + Callers - 1) div Callers
    }.

cell(#{kind := Kind, rounds := Rounds} = Cell, Warm, Options) ->
    Bases = [{Arm, base(Kind, lineage_bench_starts:base(Arm))} || {Arm, _} <- Warm],
    Arms = [Arm || {Arm, Base} <- Bases, Kind =/= restart orelse Base =/= none],
    Results = lineage_bench_cell:rounds(Rounds, Arms, fun(Arm) -> turn(Arm, Cell, Warm) end),
    Shown = [{Arm, Base, maps:get(Arm, Results)} || {Arm, Base} <- Bases, is_map_key(Arm, Results)],
    Fields = maps:with([kind, state, callers, pace, children, rounds], Cell),
    lists:append([lineage_bench_cell:show(title(Part, Cell), Part, Shown, Fields, Options) || Part <- parts(Kind)]).

parts(restart) -> [birth, ack];
parts(_) -> [latency].

base(_, none) -> none;
base(restart, _Bare) -> zero;
base(_, Bare) -> {Bare, median}.

turn(Arm, #{state := cold} = Cell, _Warm) ->
    Subject = lineage_bench_starts:open(Arm, 0),
    Result = lineage_bench_callers:turn(lineage_bench_starts:starts(Subject), load(0, Cell)),
    ok = lineage_bench_starts:close(Subject),
    Result;
turn(Arm, #{kind := Kind, each := Each} = Cell, Warm) ->
    {Arm, Subject} = lists:keyfind(Arm, 1, Warm),
    lineage_bench_callers:turn(job(Kind, Subject), load(min(20, 1 + Each div 5), Cell)).

job(start, Subject) -> lineage_bench_starts:starts(Subject);
job(stop, Subject) -> lineage_bench_starts:stops(Subject);
job(restart, Subject) -> lineage_bench_starts:restarts(Subject).

load(Warm, Cell) ->
    (maps:with([callers, pace, each], Cell))#{warm => Warm, limit_ms => ?LIMIT_MS}.

title(Part, #{kind := Kind, state := State, callers := Callers, pace := Pace, children := Children}) ->
    io_lib:format("~s, ~b caller(s) at ~s, ~s, ~b children", [words(Kind, Part), Callers, Pace, State, Children]).

words(start, _) -> "start";
words(stop, _) -> "stop";
words(restart, birth) -> "restart, death to birth";
words(restart, ack) -> "restart, death to ack".

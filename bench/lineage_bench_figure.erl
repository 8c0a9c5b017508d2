%% One figure of a benchmark, beside its bar: a line for people, and a JSON line.
-module(lineage_bench_figure).

-export([spread/4, tell/3]).

-export_type([figure/0]).

-type figure() :: #{figure := binary(), value := number(), unit := atom() | binary(), rounds := pos_integer(), bar := number() | null,
                    low => number(), high => number()}.

%% The median of several, with its 95 % interval. A difference that drowns in noise may be negative, and is shown so.
-spec spread(binary(), [number(), ...], atom(), number() | null) -> figure().
spread(What, Values, Unit, Bar) ->
    #{median := Median, low := Low, high := High} = lineage_bench_stat:spread(Values),
    #{figure => What, value => Median, low => Low, high => High, unit => Unit, rounds => length(Values), bar => Bar}.

%% Whether it holds: its bar, if it has one, is not below the value.
-spec tell(atom(), figure(), lineage_bench:options()) -> boolean().
tell(Bench, #{figure := What, value := Value, unit := Unit, bar := Bar} = Line, Options) ->
    Holds = Bar =:= null orelse Value =< Bar,
    Interval = case Line of
                   #{low := Low, high := High} -> io_lib:format(" [~.1f ~.1f]", [float(Low), float(High)]);
                   _ -> ""
               end,
    io:format("~-66ts ~12.1f ~s~s~s~n", [What, float(Value), Unit, Interval, bar(Bar, Holds)]),
    lineage_bench:emit(Options, (maps:with([figure, value, unit, rounds, bar], Line))#{
        bench => Bench, otp => lineage_bench:otp(), holds => case Bar of null -> null; _ -> Holds end}),
    Holds.

bar(null, _Holds) -> "";
bar(Bar, true) -> io_lib:format("  bar ~b", [Bar]);
bar(Bar, false) -> io_lib:format("  bar ~b: MISSED", [Bar]).

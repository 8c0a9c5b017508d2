%% Lineage on a million live processes: attach and detach, summary and verdict, and the memory it takes, with what each of them
%% holds up.
-module(lineage_bench_big).

-export([run/1]).

-define(QUERY_BAR_MS, 250).
-define(QUERY_HOLD_BAR_US, 1000).
-define(SUPERVISOR_BAR_US, 10000).
-define(ATTACH_BAR_MS, 20000).
-define(ATTACH_HOLD_BAR_US, 10000).

%% How often what may hold a scheduler is repeated.
-define(TURNS, 2).

%% Ghosts that `exits: suspects' may keep beside the live ones.
-define(GHOSTS, 65536).

%% Runs one shape. Returns for each figure that has a bar whether it holds (`unclear' counts as held).
-spec run(#{atom() => term()}) -> [boolean()].
run(#{shape := Shape, size := Size} = Options) ->
    io:format("~n~b processes, ~s, process limit ~b~n", [Size, words(Shape), erlang:system_info(process_limit)]),
    Forest = lineage_bench_forest:plant(Shape, Size),
    Supervisors = lineage_bench_forest:supervisors(Forest),
    Say = fun(Figure) -> say(Options, Figure) end,
    Control = control(Supervisors, min(500, 20 + Size div 2000)),
    Passed =
        attach(Say, Supervisors, Control) ++
            queries(Say, Supervisors, Control) ++
            memory(Say, at_peak) ++
            fall(Say, Forest, Size) ++
            [released(Say)],
    Passed.

words(one) -> "under one supervisor";
words(thousand) -> "under a thousand supervisors";
words(orphans) -> "all orphans".

%% What the machine does to the same measurement while a dirty scheduler is as busy as a query would make it. The first
%% turn is not counted: it loads code, and the planting's garbage is freed in it.
control(Supervisors, Ms) ->
    Burn = fun() -> lineage_bench_noop:burn(Ms) end,
    _ = gaps(spin, Burn),
    #{
        gaps => lineage_bench_hold:least([gaps(spin, Burn) || _ <- lists:seq(1, ?TURNS)]),
        pings => lineage_bench_hold:least([pings(spin, Supervisors, Burn) || _ <- lists:seq(1, ?TURNS)])
    }.

gaps(Pause, Fun) ->
    {_, Gaps} = lineage_bench_hold:during(Pause, Fun),
    Gaps.

pings(Pause, Supervisors, Fun) ->
    {_, Pings} = lineage_bench_hold:pinging(Pause, Supervisors, Fun),
    Pings.

%% Once timed, a few times with the probes, a few times with the supervisors asked; it stays attached.
attach(Say, Supervisors, Control) ->
    {AttachMs, ok} = timed(fun attach/0),
    {DetachMs, ok} = timed(fun lineage:detach/0),
    {AttachGaps, DetachGaps} = both(fun(Fun) -> gaps(sleep, Fun) end),
    {AttachPings, DetachPings} = both(fun(Fun) -> pings(sleep, Supervisors, Fun) end),
    ok = attach(),
    [
        Say(#{figure => attach_ms, value => AttachMs}),
        Say(#{figure => detach_ms, value => DetachMs}),
        Say(#{figure => attach_and_detach_ms, value => AttachMs + DetachMs, bar => ?ATTACH_BAR_MS}),
        Say(hold(attach_hold_us, AttachGaps, Control, ?ATTACH_HOLD_BAR_US)),
        Say(hold(detach_hold_us, DetachGaps, Control, ?ATTACH_HOLD_BAR_US)),
        Say(ping(attach_supervisor_us, AttachPings, AttachGaps, Control)),
        Say(ping(detach_supervisor_us, DetachPings, DetachGaps, Control))
    ].

both(Measure) ->
    Turns = [{Measure(fun attach/0), Measure(fun lineage:detach/0)} || _ <- lists:seq(1, ?TURNS)],
    {Attach, Detach} = lists:unzip(Turns),
    {lineage_bench_hold:least(Attach), lineage_bench_hold:least(Detach)}.

attach() ->
    {ok, _Info} = lineage:attach(#{}),
    ok.

queries(Say, Supervisors, Control) ->
    Queries = [
        {summary, fun() -> lineage:summary() end},
        {verdict, fun() -> lineage_nif:verdict(1000) end}
    ],
    lists:append([query(Say, Name, Query, Supervisors, Control) || {Name, Query} <- Queries]).

query(Say, Name, Query, Supervisors, Control) ->
    Times = [Ms || _ <- lists:seq(1, 7), {Ms, _} <- [timed(Query)]],
    Gaps = lineage_bench_hold:least([gaps(spin, Query) || _ <- lists:seq(1, 2 * ?TURNS)]),
    Pings = lineage_bench_hold:least([pings(spin, Supervisors, Query) || _ <- lists:seq(1, 2 * ?TURNS)]),
    [
        Say(#{
            figure => suffix(Name, "_ms"),
            value => lineage_bench_stat:median(Times),
            spread => lineage_bench_stat:spread(Times),
            answer => answer(Query()),
            bar => ?QUERY_BAR_MS
        }),
        Say(hold(suffix(Name, "_hold_us"), Gaps, Control, ?QUERY_HOLD_BAR_US)),
        Say(ping(suffix(Name, "_supervisor_us"), Pings, Gaps, Control))
    ].

%% The counts, which show that the right thing was timed.
answer({Counts, _Candidates}) -> answer(Counts);
answer(Counts) -> maps:with([live, orphans, births, deaths, lost], Counts).

suffix(Name, End) ->
    list_to_atom(atom_to_list(Name) ++ End).

timed(Fun) ->
    Before = erlang:monotonic_time(microsecond),
    Result = Fun(),
    {(erlang:monotonic_time(microsecond) - Before) / 1000, Result}.

%% The CPU gap is judged. Where it is over the bar, but the control's is as well, it says nothing.
hold(Figure, #{cpu_max_us := Cpu} = Gaps, #{gaps := #{cpu_max_us := ControlCpu} = Control}, Bar) ->
    #{figure => Figure, value => Cpu, bar => Bar, gaps => Gaps, control => Control, unclear => ControlCpu > Bar}.

%% Answers are timed in wall time, which other programs disturb. A supervisor that is kept busy keeps its scheduler busy: where
%% no scheduler was held as long in CPU time, or the control's answers are late as well, a late answer says nothing.
ping(Figure, #{max_us := Max} = Pings, #{cpu_max_us := Cpu}, #{pings := #{max_us := ControlMax} = Control}) ->
    #{
        figure => Figure,
        value => Max,
        bar => ?SUPERVISOR_BAR_US,
        pings => Pings,
        control => Control,
        unclear => ControlMax > ?SUPERVISOR_BAR_US orelse Cpu =< ?SUPERVISOR_BAR_US
    }.

%% Bytes held now, and the most that were ever held (a verdict's scratch included), against the bar for so many live.
memory(Say, When) ->
    #{live := Live, bytes := Bytes, peak_bytes := Peak} = lineage:summary(),
    [
        Say(#{figure => suffix(bytes, "_" ++ atom_to_list(When)), value => Bytes, live => Live, bar => allowed(Live, 0)}),
        Say(#{figure => suffix(peak_bytes, "_" ++ atom_to_list(When)), value => Peak, live => Live, bound => allowed(Live, 0)})
    ].

allowed(Live, Ghosts) ->
    64 * (Live + Ghosts) + 4 * erlang:system_info(process_limit) + 4 * 1024 * 1024.

%% After the many are gone: first what is held before anyone asks, ghosts and all, then after a summary, which sweeps.
fall(Say, Forest, Size) ->
    ok = lineage_bench_forest:thin(Forest, min(1000, Size div 2)),
    Live = erlang:system_info(process_count),
    Bar = allowed(Live, Live + ?GHOSTS),
    {Ms, Bytes} = timed(fun() -> settle(Bar, erlang:monotonic_time(millisecond) + 10000) end),
    [
        Say(#{figure => bytes_after_fall_unasked, value => Bytes, live => Live, after_ms => Ms, bar => Bar})
        | memory(Say, after_fall)
    ].

settle(Bar, Until) ->
    #{bytes := Bytes} = lineage_nif:info(),
    case Bytes =< Bar orelse erlang:monotonic_time(millisecond) > Until of
        true ->
            Bytes;
        false ->
            receive
            after 50 -> settle(Bar, Until)
            end
    end.

%% Detached, nothing may be left of the census.
released(Say) ->
    ok = lineage:detach(),
    Say(#{figure => closed_after_detach, value => closed(lineage_nif:info()), bar => 1}).

closed({error, closed}) -> 1;
closed(_) -> 2.

%% Prints a figure and writes its line: true unless it is clearly over its bar.
say(#{shape := Shape, size := Size} = Options, #{figure := Figure, value := Value} = Line) ->
    Holds = holds(Line),
    io:format("  ~-26s ~14.1f~s~s~n", [Figure, float(Value), bar(Line, Holds), beside(Line)]),
    lineage_bench:emit(Options, (maps:without([unclear], Line))#{
        bench => big,
        shape => Shape,
        size => Size,
        process_limit => erlang:system_info(process_limit),
        otp => lineage_bench:otp(),
        bar => maps:get(bar, Line, null),
        holds => Holds
    }),
    Holds =/= false.

holds(#{bar := Bar, value := Value}) when Value =< Bar -> true;
holds(#{bar := _, unclear := true}) -> unclear;
holds(#{bar := _}) -> false;
holds(_) -> null.

bar(#{bar := Bar}, true) -> io_lib:format("  (bar ~b holds)", [Bar]);
bar(#{bar := Bar}, unclear) -> io_lib:format("  (bar ~b: within the noise)", [Bar]);
bar(#{bar := Bar}, false) -> io_lib:format("  (bar ~b MISSED)", [Bar]);
bar(_, null) -> "".

beside(#{gaps := #{wall_max_us := Wall, cpu_over_1ms := N}, control := #{wall_max_us := Wall0, cpu_max_us := Cpu0}}) ->
    io_lib:format("  ~b over 1 ms; wall ~b; control: cpu ~b, wall ~b", [N, Wall, Cpu0, Wall0]);
beside(#{pings := #{pings := Count, total_us := Total}, control := #{max_us := Max0}}) ->
    io_lib:format("  mean ~.1f; control: max ~b", [Total / max(1, Count), Max0]);
beside(#{answer := Answer}) ->
    io_lib:format("  ~0p", [Answer]);
beside(#{live := Live}) ->
    io_lib:format("  ~b live", [Live]);
beside(_) ->
    "".

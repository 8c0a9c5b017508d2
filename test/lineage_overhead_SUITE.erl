%% What supervision costs on a living node, and why a start was slow.
-module(lineage_overhead_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2]).
-export([off/1, starts/1, failures/1, many_callers/1, restarts_and_stops/1, critical/1, windows/1, followed_to_the_end/1, with_scopes/1,
         detached/1, yielded/1, hook_taken/1, points_come_back/1, explainer_dies/1, critical_unknown/1, session_dies/1, own_processes/1, monitor_taken/1,
         scheduler_offline/1, slow_init/1, busy_init/1, busy_supervisor/1, collection/1, hogs/1, one_hog/1, suspended/1, sys_suspended/1]).
-export([init/1, start_child/1, child/2, place/2, hog/1]).

all() ->
    [off, starts, failures, many_callers, restarts_and_stops, critical, windows, followed_to_the_end, with_scopes, detached, yielded, hook_taken,
     points_come_back, explainer_dies, critical_unknown, session_dies, own_processes, monitor_taken, scheduler_offline,
     slow_init, busy_init, busy_supervisor, collection, hogs, one_hog, suspended, sys_suspended].

init_per_testcase(_Case, Config) ->
    ok = lineage:detach(),
    Config.

end_per_testcase(_Case, _Config) ->
    lineage:detach().

attach(Options) ->
    {ok, Info} = lineage:attach(maps:merge(#{overhead => continuous, target_ms => 5}, Options)),
    Info.

%% A supervisor of any number of children, which do as they are told before they acknowledge.

init({supervisor, Restart}) ->
    Child = #{id => child, start => {?MODULE, start_child, []}, restart => Restart},
    {ok, {#{strategy => simple_one_for_one, intensity => 1000, period => 1}, [Child]}};
init({heap, Size}) ->
    put(heap, lists:seq(1, Size)),
    init({supervisor, temporary}).

start_child(ignore) -> ignore;
start_child(fail) -> {error, on_purpose};
start_child(crash) -> error(on_purpose);
start_child(collect) -> garbage_collect(), start_child(none);
start_child(bare) -> {ok, spawn_link(fun() -> receive stop -> ok end end)};
start_child(Do) -> proc_lib:start_link(?MODULE, child, [self(), Do]).

child(Parent, Do) ->
    do(Do),
    proc_lib:init_ack(Parent, {ok, self()}),
    receive stop -> ok; crash -> exit(on_purpose) end.

do(none) -> ok;
do({wait, Ms}) -> receive after Ms -> ok end;
do({tell, Pid, Then}) -> Pid ! {in_init, self()}, do(Then);
do(until_told) -> receive go -> ok end;
do({busy, Ms}) -> busy_until(erlang:monotonic_time(millisecond) + Ms).

busy_until(End) ->
    _ = lists:sum(lists:seq(1, 100)),
    erlang:monotonic_time(millisecond) < End andalso busy_until(End).

supervisor() -> supervisor({supervisor, temporary}).

supervisor(Args) ->
    {ok, Sup} = supervisor:start_link(?MODULE, Args),
    Sup.

start(Sup, Do) ->
    {ok, Child} = supervisor:start_child(Sup, [Do]),
    Child.

stop(Pid) ->
    Monitor = monitor(process, Pid),
    unlink(Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

row(Kind, Whose) ->
    #{Kind := Rows} = lineage:overhead(),
    case [Row || #{supervisor := S} = Row <- Rows, S =:= Whose] of
        [Row] -> Row;
        [] -> none
    end.

count(Kind, Part, Whose) ->
    case row(Kind, Whose) of
        #{Part := #{count := Count}} -> Count;
        none -> 0
    end.

%% Cases

off(_) ->
    {ok, #{overhead := off}} = lineage:attach(),
    ?assertError({lineage, overhead_off}, lineage:overhead()),
    ok = lineage:detach(),
    ?assertError({lineage, not_attached}, lineage:overhead()),
    ?assertMatch({error, {bad_option, _}}, lineage:attach(#{overhead => {duty, 0}})),
    ?assertMatch({error, {bad_option, _}}, lineage:attach(#{critical => [{m, f, 0}]})),
    ?assertMatch(#{overhead := {duty, 2}, target_ms := 5, critical := []}, attach(#{overhead => duty})).

%% Each start is counted once, and its parts are all that its latency is made of.
starts(_) ->
    attach(#{}),
    Sup = supervisor(),
    Other = supervisor(),
    [start(Sup, none) || _ <- lists:seq(1, 300)],
    [start(Sup, bare) || _ <- lists:seq(1, 50)],
    [start(Other, none) || _ <- lists:seq(1, 20)],
    #{starts := [All | _], mode := continuous, windows := 1, restarts := {error, {exits_unknown, Sentence}}, failed := 0,
      elsewhere := 0, lost := 0} = Overhead = lineage:overhead(),
    ?assert(is_binary(Sentence)),
    ?assertEqual([350, 20], [count(starts, latency, S) || S <- [Sup, Other]]),
    ?assertMatch(#{supervisor := all, latency := #{count := 370}, overhead := #{count := 370}}, All),
    Mean = fun(Part) -> maps:get(mean_us, maps:get(Part, All)) end,
    ?assert(abs(Mean(latency) - Mean(queue) - Mean(work) - Mean(init) - Mean(back)) < 1),
    ?assert(abs(Mean(latency) - Mean(overhead) - Mean(init)) < 1),
    [?assert(P50 =< P99 andalso P99 =< P999)
     || Part <- [latency, overhead, queue], #{p50 := #{value := P50}, p99 := #{value := P99}, p999 := #{value := P999}} <- [maps:get(Part, All)]],
    ?assertMatch(#{verdict := #{p50 := _, p99 := _, p999 := _}}, All),
    ok = lineage:print(Overhead),
    [stop(S) || S <- [Sup, Other]],
    %% The dead are told too.
    ?assertEqual(370, count(starts, latency, all)).

failures(_) ->
    attach(#{}),
    Sup = supervisor(),
    {error, on_purpose} = supervisor:start_child(Sup, [fail]),
    {error, {'EXIT', _}} = supervisor:start_child(Sup, [crash]),
    ?assertExit({noproc, _}, supervisor:start_child(no_such_supervisor, [none])),
    start(Sup, none),
    ?assertMatch(#{failed := 3}, lineage:overhead()),
    ?assertEqual(1, count(starts, latency, all)),
    stop(Sup).

many_callers(_) ->
    attach(#{}),
    Sups = [supervisor() || _ <- lists:seq(1, 4)],
    Callers = [spawn_monitor(fun() -> [start(S, none) || _ <- lists:seq(1, 25), S <- Sups] end) || _ <- lists:seq(1, 16)],
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Callers],
    ?assertMatch(#{lost := 0, failed := 0}, lineage:overhead()),
    ?assertEqual([400, 400, 400, 400, 1600], [count(starts, overhead, S) || S <- Sups ++ [all]]),
    [stop(S) || S <- Sups].

restarts_and_stops(_) ->
    attach(#{exits => all}),
    Sup = supervisor({supervisor, permanent}),
    Children = [start(Sup, none) || _ <- lists:seq(1, 20)],
    [C ! crash || C <- Children],
    Now = fun() -> [Pid || {_, Pid, _, _} <- supervisor:which_children(Sup)] end,
    wait_until(fun() -> length(Now() -- Children) =:= 20 end),
    Successors = Now(),
    ?assertEqual([20, 20], [count(restarts, Part, Sup) || Part <- [birth, ack]]),
    [ok = supervisor:terminate_child(Sup, Pid) || Pid <- lists:sublist(Successors, 10)],
    ?assertEqual([10, 10], [count(stops, Part, Sup) || Part <- [latency, overhead]]),
    #{latency := #{mean_us := Latency}, overhead := #{mean_us := Overhead}} = row(stops, Sup),
    ?assert(Overhead =< Latency),
    ?assertEqual(20, count(starts, latency, Sup)),
    stop(Sup).

%% A function that waits 20 ms in the inits of two children, and does nothing else for long.
critical(_) ->
    attach(#{critical => [{?MODULE, place, 2}, {nowhere, f, 1}]}),
    Sup = supervisor(),
    [ok = ?MODULE:place(Sup, 10) || _ <- lists:seq(1, 3)],
    #{critical := [Row]} = lineage:overhead(),
    ?assertMatch(#{function := {?MODULE, place, 2}, latency := #{count := 3, mean_us := Latency}, starts := #{count := 3}, share := Share}
                     when Latency > 20000 andalso Share > 0.5 andalso Share =< 1, Row),
    ?assertMatch(#{verdict := #{p50 := {more, 3}}}, Row),
    stop(Sup).

place(Sup, Ms) ->
    [start(Sup, {wait, Ms}) || _ <- [1, 2]],
    ok.

%% Starts go on until there have been some windows: only those that began in one are counted.
windows(_) ->
    attach(#{overhead => {duty, 20}}),
    Sup = supervisor(),
    Made = start_until(fun(#{windows := Windows}) -> Windows >= 3 end, Sup, 0),
    #{armed_ms := Armed, observed_ms := Observed, mode := {duty, 20}, lost := 0} = lineage:overhead(),
    Counted = count(starts, latency, all),
    ?assert(Counted > 0),
    ?assert(Counted < Made),
    ?assert(Armed > 0 andalso Armed < Observed),
    stop(Sup).

start_until(Done, Sup, Made) ->
    [start(Sup, none) ! stop || _ <- lists:seq(1, 100)],
    case Done(lineage:overhead()) of
        true -> Made + 100;
        false -> start_until(Done, Sup, Made + 100)
    end.

%% A start that begins in a window is followed beyond its end, and one that begins after that is not taken.
followed_to_the_end(_) ->
    attach(#{overhead => {duty, 50}}),
    {Sup, Later} = {supervisor(), supervisor()},
    Child = begun_in_a_window(Sup, 200),
    wait_until(fun() -> phase() =:= drain end),
    start(Later, none),
    ?assertEqual(drain, phase()),
    Child ! go,
    wait_until(fun() -> count(starts, latency, Sup) =:= 1 end),
    ?assertEqual(0, count(starts, latency, Later)),
    #{latency := #{mean_us := Latency}, init := #{mean_us := Init}} = row(starts, Sup),
    ?assert(Latency > 50000 andalso Init > 50000),
    [stop(S) || S <- [Sup, Later]].

begun_in_a_window(Sup, Tries) when Tries > 0 ->
    wait_until(fun() -> phase() =:= on end),
    Self = self(),
    spawn_link(fun() -> start(Sup, {tell, Self, until_told}) end),
    Child = receive {in_init, Pid} -> Pid end,
    case phase() of
        on -> Child;
        _ -> Child ! go, begun_in_a_window(Sup, Tries - 1)
    end.

phase() ->
    lineage_duty:phase(lineage_session:lookup(duty)).

wait_until(True) ->
    case True() of
        true -> ok;
        false -> receive after 1 -> wait_until(True) end
    end.

%% Scopes, exact sites and exact monitors beside it, on the same functions.
with_scopes(_) ->
    attach(#{exits => all, sites => exact, monitors => exact}),
    Sup = supervisor(),
    {Child, #{leaks := [#{pid := Child, kind := supervised}]}} = lineage:scope("with overhead", fun() -> start(Sup, none) end),
    lineage_session:check(),
    start(Sup, none),
    ?assertEqual(2, count(starts, latency, Sup)),
    {Second, #{leaks := [#{pid := Second, site := #{kind := call, module := ?MODULE}}]}} =
        lineage:scope("again", fun() -> start(Sup, bare) end),
    ?assertEqual(3, count(starts, latency, Sup)),
    stop(Sup).

%% Nothing is left behind, from any phase of a window.
detached(_) ->
    attach(#{}),
    ?assert(is_traced()),
    ok = lineage:detach(),
    ?assertNot(is_traced()),
    attach(#{overhead => {duty, 50}, exits => all, critical => [{?MODULE, place, 2}]}),
    [begin
         wait_until(fun() -> phase() =:= Phase end),
         ok = lineage:detach(),
         ?assertNot(is_traced()),
         ?assertEqual(undefined, whereis(lineage_outliers)),
         ?assertEqual(undefined, erlang:system_monitor()),
         attach(#{overhead => {duty, 50}, exits => all})
     end || Phase <- [on, pause]].

%% Before 27; a trace session of ours is seen by us only. A point whose session has crashed ends at the next call.
is_traced() ->
    case lineage_hook:api() of
        single ->
            lists:any(fun(MFA) -> not lists:member(erlang:trace_info(MFA, meta), [{meta, false}, {meta, []}]) end,
                      [{supervisor, start_child, 2}, {supervisor, handle_call, 3}, {proc_lib, init_ack, 2}, {?MODULE, place, 2}]);
        sessions ->
            is_pid(whereis(lineage_outliers))
    end.

%% The flags and the points are given up, and the window ends; another one follows.
yielded(_) ->
    attach(#{}),
    Sup = supervisor(),
    start(Sup, none),
    case lineage_hook:api() of
        single ->
            lineage:yield(fun() -> ?assertNot(is_traced()), start(Sup, none) end),
            start(Sup, none),
            ?assertMatch(#{windows := 2}, lineage:overhead()),
            ?assertEqual(2, count(starts, latency, Sup));
        sessions ->
            lineage:yield(fun() -> start(Sup, none) end),
            ?assertEqual(2, count(starts, latency, Sup))
    end,
    stop(Sup).

%% While another tool has the hook births are not seen, and nothing is measured.
hook_taken(_) ->
    attach(#{}),
    Sup = supervisor(),
    start(Sup, none),
    lineage_hook:api() =:= single andalso
        begin
            Thief = spawn_link(fun Loop() -> receive stop -> ok; _ -> Loop() end end),
            erlang:trace(new_processes, true, [procs, {tracer, Thief}]),
            lineage_session:check(),
            ?assertNot(is_traced()),
            start(Sup, none),
            erlang:trace(new_processes, false, [all]),
            Thief ! stop,
            lineage_session:check(),
            start(Sup, none),
            ?assertMatch(#{windows := 2, unfinished := 0}, lineage:overhead()),
            ?assertEqual(2, count(starts, latency, Sup))
        end,
    stop(Sup).

%% Another tool has cleared them.
points_come_back(_) ->
    attach(#{}),
    Sup = supervisor(),
    start(Sup, none),
    erlang:trace_pattern({'_', '_', '_'}, false, [meta]),
    lineage_session:check(),
    start(Sup, none),
    ?assertEqual(2, count(starts, latency, Sup)),
    stop(Sup).

%% The windows end with it, and begin again with the next one.
explainer_dies(_) ->
    attach(#{}),
    Sup = supervisor(),
    start(Sup, none),
    stop(whereis(lineage_outliers)),
    wait_until(fun() -> lineage_session:check(), is_pid(whereis(lineage_outliers)) end),
    start(Sup, none),
    ?assertMatch(#{windows := 2, outliers := []}, lineage:overhead()),
    ?assertEqual(2, count(starts, latency, Sup)),
    stop(Sup).

%% A name that was mistyped would never be measured, and nobody told.
critical_unknown(_) ->
    #{notes := Notes} = attach(#{critical => [{?MODULE, nonesuch, 0}, {?MODULE, all, 0}, {no_such_module, f, 1}]}),
    [Told] = [N || N <- Notes, binary:match(N, <<"measured as critical">>) =/= nomatch],
    ?assertMatch({_, _}, binary:match(Told, <<":nonesuch/0, no_such_module:f/1;">>)),
    ?assertEqual(nomatch, binary:match(Told, <<":all/0">>)).

session_dies(_) ->
    attach(#{}),
    Sup = supervisor(),
    Outliers = whereis(lineage_outliers),
    Monitor = monitor(process, Outliers),
    exit(whereis(lineage_session), kill),
    receive {'DOWN', Monitor, process, Outliers, _} -> ok end,
    start(Sup, none),
    wait_until(fun() -> is_pid(whereis(lineage_session)) end),
    ok = lineage:detach(),
    ?assertNot(is_traced()),
    %% Nobody knows any more which points the dead session had.
    lineage_hook:api() =:= single andalso ?assertEqual({meta, false}, erlang:trace_info({supervisor, handle_call, 3}, meta)),
    ?assertEqual(undefined, erlang:system_monitor()),
    attach(#{}),
    start(Sup, none),
    ?assertEqual(1, count(starts, latency, Sup)),
    stop(Sup).

own_processes(_) ->
    attach(#{}),
    {links, Links} = process_info(whereis(lineage_outliers), links),
    Own = [whereis(lineage_outliers) | [P || P <- Links, P =/= whereis(lineage_session)]],
    ?assertEqual(1 + erlang:system_info(schedulers_online), length(Own)),
    [?assertMatch(#{flags := Flags} when is_list(Flags), lineage_nif:record(P)) || P <- Own],
    ?assert(lists:all(fun(P) -> lists:member(own, maps:get(flags, lineage_nif:record(P))) end, Own)),
    ?assertEqual([], [O || #{pid := P} = O <- lineage:orphans(), lists:member(P, Own)]).

monitor_taken(_) ->
    Keeper = spawn_link(fun() -> receive stop -> ok end end),
    undefined = erlang:system_monitor(Keeper, [{long_gc, 10000}]),
    #{notes := Notes} = attach(#{}),
    Told = [N || N <- Notes, binary:match(N, <<"gc and long schedules are not known">>) =/= nomatch],
    ?assertEqual(not lineage_hook:has_system(), Told =/= []),
    ok = lineage:detach(),
    ?assertMatch({Keeper, _}, erlang:system_monitor(undefined)),
    Keeper ! stop,
    #{notes := Without} = attach(#{}),
    ?assertEqual([], [N || N <- Without, binary:match(N, <<"system monitor">>) =/= nomatch]).

%% Causes. Each is injected so many times, and each time it is told from the outlier of the very child. A time in which
%% the machine itself was elsewhere proves nothing: it is done again, but not for ever.

times() ->
    case os:getenv("LINEAGE_SOAK", "") of
        "1" -> 100;
        _ -> 25
    end.

all_told(Expected, Try) ->
    all_told(Expected, Try, times(), 20 * times()).

all_told(_Expected, _Try, 0, _Tries) ->
    ok;
all_told(Expected, Try, Left, Tries) when Tries > 0 ->
    Child = Try(),
    #{outliers := Outliers} = lineage:overhead(),
    case [O || #{child := C} = O <- Outliers, C =:= Child] of
        [#{cause := Cause} = Outlier] ->
            case is_void(Expected, Outlier) of
                true ->
                    all_told(Expected, Try, Left, Tries - 1);
                false ->
                    %% The window is open: what the VM has told is still in there.
                    is_expected(Expected, Cause) orelse ct:fail({told, Outlier, sys:get_state(lineage_outliers)}),
                    all_told(Expected, Try, Left - 1, Tries - 1)
            end;
        [] ->
            all_told(Expected, Try, Left, Tries - 1)
    end.

is_void(unexplained, _Outlier) ->
    false;
is_void(Expected, #{cause := Cause, latency_us := Latency, stalled_us := Stalled}) ->
    %% What holds a scheduler is a stall too: it may be missed, and not be called anything else.
    Stalled > Latency / 3 andalso (Expected =:= init orelse Expected =:= queue orelse Cause =:= unexplained).

is_expected(Expected, {Kind, Pid}) -> Expected =:= {Kind, Pid} orelse Expected =:= Kind;
is_expected(Expected, Cause) -> Expected =:= Cause.

slow_init(_) ->
    attach(#{}),
    Sup = supervisor(),
    all_told(init, fun() -> start(Sup, {wait, 50}) end),
    stop(Sup).

busy_init(_) ->
    attach(#{}),
    Sup = supervisor(),
    all_told(init, fun() -> start(Sup, {busy, 50}) end),
    stop(Sup).

%% Somebody else's child takes its time.
busy_supervisor(_) ->
    attach(#{}),
    Sup = supervisor(),
    Self = self(),
    all_told(queue, fun() ->
                            spawn_link(fun() -> start(Sup, {tell, Self, {wait, 50}}) end),
                            receive {in_init, _} -> ok end,
                            start(Sup, none)
                    end),
    stop(Sup).

collection(_) ->
    attach(#{}),
    Sup = supervisor({heap, heap_for(50)}),
    all_told({gc, Sup}, fun() -> start(Sup, collect) end),
    stop(Sup).

%% How long a list takes so long to collect, when nothing is in the way.
heap_for(Ms) ->
    {_, Monitor} = spawn_monitor(fun() ->
                                         Size = 500000,
                                         put(heap, lists:seq(1, Size)),
                                         Us = lists:min([element(1, timer:tc(fun() -> garbage_collect() end)) || _ <- lists:seq(1, 10)]),
                                         exit(round(Size * 1000 * Ms / max(1, Us)))
                                 end),
    receive {'DOWN', Monitor, process, _, Size} when is_integer(Size) -> min(8000000, Size) end.

%% A built-in function that does not give its scheduler back, on every scheduler.
hogs(_) ->
    attach(#{}),
    Sup = supervisor(),
    with_hogs(fun() ->
        all_told(long_schedule, fun() ->
                                        Hogs = [hog_on(N) || N <- lists:seq(1, erlang:system_info(schedulers_online))],
                                        [Hog ! go || Hog <- Hogs],
                                        Child = start(Sup, none),
                                        [receive {'EXIT', Hog, normal} -> ok end || Hog <- Hogs],
                                        Child
                                end)
    end),
    stop(Sup).

%% On one of several it keeps nobody: it is never called the cause, and nothing else is wrongly.
one_hog(_) ->
    attach(#{}),
    Sup = supervisor(),
    erlang:system_info(schedulers_online) > 1 andalso
        with_hogs(fun() ->
            [begin
                 Hog = hog_on(1),
                 Hog ! go,
                 Child = start(Sup, {wait, 50}),
                 receive {'EXIT', Hog, normal} -> ok end,
                 #{outliers := Outliers} = lineage:overhead(),
                 [#{cause := Cause}] = [O || #{child := C} = O <- Outliers, C =:= Child],
                 ?assert(lists:member(Cause, [init, unexplained]))
             end || _ <- lists:seq(1, times())]
        end),
    stop(Sup).

with_hogs(Fun) ->
    false = erts_debug:set_internal_state(available_internal_state, true),
    process_flag(trap_exit, true),
    try Fun()
    after
        process_flag(trap_exit, false),
        erts_debug:set_internal_state(available_internal_state, false)
    end.

hog_on(Scheduler) ->
    Hog = lineage_hook:vm(spawn_opt, [?MODULE, hog, [60], [link, {scheduler, Scheduler}]]),
    wait_until(fun() -> process_info(Hog, status) =:= {status, waiting} end),
    Hog.

hog(Ms) ->
    receive go -> erts_debug:set_internal_state(sleep, Ms) end.

%% Nobody can know why the supervisor did not run.
suspended(_) ->
    attach(#{}),
    Sup = supervisor(),
    all_told(unexplained, fun() -> held(Sup, fun erlang:suspend_process/1, fun erlang:resume_process/1) end),
    stop(Sup).

sys_suspended(_) ->
    attach(#{}),
    Sup = supervisor(),
    all_told(unexplained, fun() -> held(Sup, fun sys:suspend/1, fun sys:resume/1) end),
    stop(Sup).

held(Sup, Hold, Release) ->
    Self = self(),
    Hold(Sup),
    spawn_link(fun() -> Self ! {started, start(Sup, none)} end),
    wait_until(fun() -> process_info(Sup, message_queue_len) =:= {message_queue_len, 1} end),
    do({wait, 50}),
    Release(Sup),
    receive {started, Child} -> Child end.

%% Windows come more often than a look may take, and a scheduler goes offline meanwhile.
scheduler_offline(_Config) ->
    attach(#{overhead => {duty, 50}}),
    Online = erlang:system_flag(schedulers_online, 1),
    try
        %% Windows follow each other faster than a pulse that does not run is given up.
        wait_until(fun() -> maps:get(windows, lineage:overhead()) >= 5 end)
    after
        erlang:system_flag(schedulers_online, Online)
    end.

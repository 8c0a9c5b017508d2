%% The report that is made of the NIF's series.
-module(lineage_overhead_tests).

-include_lib("eunit/include/eunit.hrl").

-define(US, 1000).

%% So many of 10, and so many of 20 us.
hist(A, B) -> {A * 10 * ?US + B * 20 * ?US, [{10 * ?US, 10 * ?US + 63, A} || A > 0] ++ [{20 * ?US, 20 * ?US + 127, B} || B > 0]}.

starts(A, B) -> maps:from_list([{Part, hist(A, B)} || Part <- [latency, overhead, queue, work, init, back]]).

rows_test() ->
    Self = self(),
    Other = spawn(fun() -> ok end),
    Series = [{{supervisor, Other}, starts(10, 0)}, {{supervisor, Self}, starts(300, 100)}, {gone, starts(0, 50)},
              {{critical, {m, f, 1}}, #{latency => hist(0, 10), starts => hist(10, 0)}}],
    #{starts := [All, Mine, Gone, Its], critical := [Critical], restarts := {error, {exits_unknown, _}}, stops := {error, {exits_unknown, _}}} =
        lineage_overhead:report(Series, suspects, 5, #{Self => #{name => me, initial_call => {m, i, 1}}}),
    ?assertMatch(#{supervisor := all, overhead := #{count := 460}}, All),
    ?assertMatch(#{supervisor := Self, name := me, latency := #{count := 400, mean_us := 12.5},
                   queue := _, work := _, init := _, back := _}, Mine),
    ?assertMatch(#{supervisor := gone, overhead := #{count := 50}}, Gone),
    ?assertMatch(#{supervisor := Other, overhead := #{count := 10}}, Its),
    ?assertMatch(#{function := {m, f, 1}, share := 0.5, latency := #{count := 10}, starts := #{count := 10}}, Critical),
    #{overhead := #{p50 := #{value := P50, low := Low, high := High}, p99 := #{value := P99, high := P99High}, p999 := #{high := none}}} = All,
    ?assert(Low =< P50 andalso P50 =< High andalso High < 10.1 andalso P99 > 20 andalso P99High < 20.2),
    ?assertMatch(#{verdict := #{p50 := pass, p99 := pass, p999 := {more, 3228}}}, All),
    ?assertMatch(#{verdict := #{p50 := pass, p99 := {more, 358}, p999 := {more, 3678}}}, Its).

%% Against a target between the two.
fail_test() ->
    #{starts := [#{verdict := Verdict} | _]} = lineage_overhead:report([{gone, starts(300, 100)}], suspects, 0.015, #{}),
    ?assertEqual(#{p50 => pass, p99 => fail, p999 => fail}, Verdict).

%% With every exit known; supervisors without such events have no row.
exits_test() ->
    Series = [{{supervisor, self()}, #{restart_birth => hist(6, 0), restart_ack => hist(0, 6)}}, {gone, starts(1, 0)},
              {others, #{stop_latency => hist(0, 2), stop_overhead => hist(2, 0)}}],
    #{starts := Starts, restarts := Restarts, stops := Stops, critical := []} = lineage_overhead:report(Series, all, 5, #{}),
    ?assertMatch([#{supervisor := all}, #{supervisor := gone}], Starts),
    ?assertMatch([#{supervisor := all, birth := #{count := 6}, ack := #{count := 6}, verdict := #{p50 := pass}}, #{supervisor := _}], Restarts),
    ?assertMatch([#{supervisor := all, latency := #{count := 2}, overhead := #{count := 2}}, #{supervisor := others}], Stops),
    ?assertEqual(#{starts => [], restarts => [], stops => [], critical => []}, lineage_overhead:report([], all, 5, #{})).

%% Merging series loses no count, whatever their buckets.
merge_test() ->
    rand:seed(exsss, {9, 9, 9}),
    Buckets = fun() -> [{L * ?US, L * ?US + 999, rand:uniform(9)} || L <- lists:seq(1, 40), rand:uniform(3) =:= 1] end,
    Many = [{{supervisor, spawn(fun() -> ok end)}, #{overhead => {0, B}}} || _ <- lists:seq(1, 50), B <- [Buckets()], B =/= []],
    #{starts := [#{supervisor := all, overhead := #{count := Count}} | Each]} = lineage_overhead:report(Many, suspects, 5, #{}),
    ?assertEqual(lists:sum([N || {_, #{overhead := {_, B}}} <- Many, {_, _, N} <- B]), Count),
    ?assertEqual(length(Many), length(Each)),
    Counts = [N || #{overhead := #{count := N}} <- Each],
    ?assertEqual(lists:reverse(lists:sort(Counts)), Counts).

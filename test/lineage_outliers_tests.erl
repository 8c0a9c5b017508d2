%% Which cause is named, and that none is named where it accounts for less than half.
-module(lineage_outliers_tests).

-include_lib("eunit/include/eunit.hrl").

-define(MS, 1000000).

%% Caller, supervisor, child, and two that have nothing to do with it.
pids() ->
    [spawn(fun() -> ok end) || _ <- lists:seq(1, 5)].

cause(Times, Busy, Events, Stalls, [Caller, Supervisor, Child | _]) ->
    #{cause := Cause} = lineage_outliers:explain(#{caller => Caller, supervisor => Supervisor, child => Child,
                                                   times => [?MS * T || T <- Times], busy => ?MS * Busy},
                                                 [{What, Pid, {?MS * From, ?MS * To}} || {What, Pid, From, To} <- Events],
                                                 [{?MS * From, ?MS * To} || {From, To} <- Stalls], [], 2),
    Cause.

queued() -> [0, 60, 61, 62, 63].       % 60 ms of 63 until the supervisor took it
slow_init() -> [0, 1, 2, 62, 63].

named_test() ->
    [Caller, Sup, Child, Other, Other2] = Pids = pids(),
    Cause = fun(Times, Busy, Events, Stalls) -> cause(Times, Busy, Events, Stalls, Pids) end,
    ?assertEqual(queue, Cause(queued(), 60, [], [])),
    ?assertEqual(init, Cause(slow_init(), 0, [], [])),
    ?assertEqual(unexplained, Cause(queued(), 0, [], [])),
    ?assertEqual(unexplained, Cause([0, 1, 50, 51, 60], 1, [], [])),
    [?assertEqual({What, P}, Cause(Times, Busy, [{What, P, 5, 55}], []))
     || {What, P} <- [{What, P} || What <- [gc, long_schedule], P <- [Caller, Sup]] ++ [{gc, Child}],
        {Times, Busy} <- [{queued(), 60}, {slow_init(), 0}]],
    %% A child that runs without a pause in its init, and after it.
    ?assertEqual(init, Cause(slow_init(), 0, [{long_schedule, Child, 5, 55}], [])),
    ?assertEqual({long_schedule, Child}, Cause([0, 1, 2, 3, 60], 0, [{long_schedule, Child, 5, 55}], [])),
    %% The first in the order.
    ?assertEqual({gc, Sup}, Cause(queued(), 60, [{long_schedule, Sup, 4, 60}, {gc, Sup, 5, 55}], [])),
    %% Two halves of one cause.
    ?assertEqual({gc, Sup}, Cause(queued(), 0, [{gc, Sup, 5, 25}, {gc, Sup, 30, 50}], [])),
    ?assertEqual(unexplained, Cause(queued(), 0, [{gc, Sup, 5, 25}, {gc, Caller, 30, 50}], [])),
    %% A collection elsewhere, one before, and one after.
    ?assertEqual(unexplained, Cause(queued(), 0, [{gc, Other, 5, 60}, {gc, Sup, -60, 0}, {gc, Sup, 63, 120}], [])),
    %% One of two schedulers held: the other was free. Both: the longer one is named.
    ?assertEqual(unexplained, Cause(queued(), 0, [{long_schedule, Other, 0, 63}], [])),
    ?assertEqual(unexplained, Cause(queued(), 0, [{long_schedule, Other, 0, 30}, {long_schedule, Other2, 30, 63}], [])),
    ?assertEqual({long_schedule, Other}, Cause(queued(), 0, [{long_schedule, Other2, 1, 50}, {long_schedule, Other, 0, 60}], [])),
    ?assertEqual(unexplained, Cause(queued(), 0, [{long_schedule, Other2, 30, 61}, {long_schedule, Other, 0, 60}], [])).

%% What else held it up is no part of a queue or an init.
subtracted_test() ->
    [_, Sup, Child, Other | _] = Pids = pids(),
    Cause = fun(Times, Busy, Events, Stalls) -> cause(Times, Busy, Events, Stalls, Pids) end,
    ?assertEqual(queue, Cause(queued(), 60, [], [{5, 30}])),
    ?assertEqual(unexplained, Cause(queued(), 60, [], [{5, 20}, {15, 35}])),
    ?assertEqual(unexplained, Cause(queued(), 60, [{long_schedule, Other, 5, 35}], [])),
    ?assertEqual(unexplained, Cause(queued(), 60, [{gc, Sup, 5, 35}], [])),
    ?assertEqual(unexplained, Cause(slow_init(), 0, [], [{5, 35}])),
    ?assertEqual(unexplained, Cause(slow_init(), 0, [{gc, Child, 5, 35}], [])),
    ?assertEqual(init, Cause(slow_init(), 0, [{gc, Other, 5, 60}], [])).

%% What the kernel saw: other programs in place of all schedulers, or of one where a pulse was late too, come before all else;
%% one alone, and what the node does itself, last.
kernel_test() ->
    [_, Sup, Child | _] = Pids = pids(),
    Cause = fun(Times, Busy, Events, Stalls, Kernel) ->
                    Spans = [Stall#{span := {?MS * From, ?MS * To}} || #{span := {From, To}} = Stall <- Kernel],
                    [C, S, Ch | _] = Pids,
                    #{cause := Named} = lineage_outliers:explain(#{caller => C, supervisor => S, child => Ch, times => [?MS * T || T <- Times], busy => ?MS * Busy},
                                                                 [{What, Pid, {?MS * From, ?MS * To}} || {What, Pid, From, To} <- Events],
                                                                 [{?MS * From, ?MS * To} || {From, To} <- Stalls], Spans, 2),
                    case Named of {stall, #{by := By}} -> {stall, By}; _ -> Named end
            end,
    Stall = fun(Kind, Number, OsPid, By, Span) -> #{kind => Kind, thread => scheduler, number => Number, span => Span, os_pid => OsPid, by => By} end,
    Own = list_to_integer(os:getpid()),
    Hog = fun(Number, Span) -> Stall(waited, Number, Own + 1, <<"hog">>, Span) end,
    _ = [[?assertEqual({stall, <<"hog">>}, Cause(Times, Busy, Events, [], [Hog(1, {5, 55}), Hog(2, {4, 60})])),
      ?assertEqual({stall, <<"hog">>}, Cause(Times, Busy, Events, [{6, 50}], [Hog(2, {5, 55})]))]
     || {Times, Busy} <- [{queued(), 60}, {slow_init(), 0}], Events <- [[], [{gc, Sup, 5, 55}], [{long_schedule, Child, 5, 55}]]],
    ?assertEqual({stall, <<>>}, Cause(queued(), 0, [], [], [Stall(stopped, 1, 0, <<>>, {5, 55})])),
    %% One of two, of which nothing else is a sign.
    ?assertEqual(queue, Cause(queued(), 60, [], [], [Hog(1, {5, 55})])),
    ?assertEqual({gc, Sup}, Cause(queued(), 60, [{gc, Sup, 5, 55}], [], [Hog(1, {5, 55})])),
    ?assertEqual({stall, <<"hog">>}, Cause(queued(), 0, [], [], [Hog(1, {5, 55})])),
    %% One after the other, never both.
    ?assertEqual(queue, Cause(queued(), 60, [], [], [Hog(1, {5, 30}), Hog(2, {31, 60})])),
    %% Our own threads in each other's place, and too short a time.
    ?assertEqual(unexplained, Cause(queued(), 0, [], [], [Hog(1, {5, 30}), Hog(2, {5, 30})])),
    ?assertEqual({gc, Sup}, Cause(queued(), 0, [{gc, Sup, 5, 55}], [], [Stall(waited, N, Own, <<"1_scheduler">>, {5, 55}) || N <- [1, 2]])),
    ?assertEqual({stall, <<"1_scheduler">>}, Cause(queued(), 0, [], [], [Stall(waited, 1, Own, <<"1_scheduler">>, {5, 55})])),
    ?assertEqual({stall, <<"slow.so">>}, Cause(queued(), 0, [], [], [Stall(busy, 1, 0, <<"slow.so">>, {5, 55})])),
    ?assertEqual(init, Cause(slow_init(), 0, [], [], [Stall(blocked, 1, 0, <<"fsync">>, {5, 55})])).

%% For any times, events and stalls: the cause that is named accounts for more than half.
half_test() ->
    rand:seed(exsss, {6, 0, 6}),
    [_, _, Child | _] = Pids = pids(),
    [begin
         [T0, _, T2, T3, T4] = Times = lists:sort([rand:uniform(100) || _ <- lists:seq(1, 5)]),
         Span = fun() -> lists:sort([rand:uniform(120) - 10, rand:uniform(120) - 10]) end,
         Events = [{pick([gc, long_schedule]), pick(Pids), From, To} || _ <- lists:seq(1, rand:uniform(6)), [From, To] <- [Span()]],
         Stalls = [{From, To} || _ <- lists:seq(1, rand:uniform(3)), [From, To] <- [Span()]],
         Busy = rand:uniform(100),
         %% Millisecond by millisecond.
         Within = fun(Spans, From, To) -> length([Ms || Ms <- lists:seq(From, To - 1), lists:any(fun({A, B}) -> A =< Ms andalso Ms < B end, Spans)]) end,
         Half = (T4 - T0) / 2,
         case cause(Times, Busy, Events, Stalls, Pids) of
             unexplained -> ok;
             init -> ?assert(T3 - T2 - Within(Stalls, T2, T3) > Half);
             queue -> ?assert(Busy > Half);
             {gc, P} -> ?assert(Within([{A, B} || {gc, P1, A, B} <- Events, P1 =:= P], T0, T4) > Half);
             {long_schedule, P} when P =:= Child -> ?assert(Within([{A, B} || {long_schedule, P1, A, B} <- Events, P1 =:= P], T3, T4) > Half);
             {long_schedule, P} -> ?assert(Within([{A, B} || {long_schedule, P1, A, B} <- Events, P1 =:= P], T0, T4) > Half)
         end,
         %% Without any sign of a cause there is none.
         ?assertEqual(unexplained, cause(Times, 0, [], [{T0, T4}], Pids))
     end || _ <- lists:seq(1, 5000)].

pick(List) -> lists:nth(rand:uniform(length(List)), List).

row_test() ->
    [Caller, Sup, Child | _] = pids(),
    Row = lineage_outliers:explain(#{caller => Caller, supervisor => Sup, child => Child, times => [0, 1000, 3000, 6000, 10000], busy => 500},
                                   [], [{2000, 3000}], [], 2),
    ?assertMatch(#{caller := Caller, supervisor := Sup, child := Child, latency_us := 10.0, queue_us := 1.0, work_us := 2.0,
                   init_us := 3.0, back_us := 4.0, busy_us := 0.5, stalled_us := 1.0, cause := unexplained}, Row),
    ?assert(abs(erlang:system_time(millisecond) - erlang:monotonic_time(millisecond) - maps:get(at, Row)) < 1000).

%% A message comes late: the stall that is as long tells when it was.
placed_test() ->
    Ms = fun(N) -> N * 1000000 end,
    Event = {gc, self(), {Ms(150), Ms(200)}},
    At = fun(Stalls) -> element(3, lineage_outliers:placed(Event, [{Ms(F), Ms(T)} || {F, T} <- Stalls])) end,
    ?assertEqual({Ms(100), Ms(150)}, At([{100, 151}, {160, 164}])),
    ?assertEqual({Ms(100), Ms(150)}, At([{40, 91}, {100, 148}])),
    %% None that it could be.
    ?assertEqual({Ms(150), Ms(200)}, At([{100, 140}, {155, 205}])),
    ?assertEqual({Ms(150), Ms(200)}, At([])).

%% What only grows, on simulated populations with fixed seeds. The figures of false alarms and of the time until a leak is
%% found are those that the module's documentation tells.
-module(lineage_growth_tests).

-include_lib("eunit/include/eunit.hrl").

-define(S, lineage_growth_sim).
-define(HOUR, 3600).

%% Populations that are no leak, with how many of so many may be told.
no_leak_test_() ->
    [quiet(io_lib:format("~p births a minute that live ~p minutes", [Rate, Minutes]), Series, 0,
           fun() -> ?S:windows(?S:stationary(Rate, Minutes, 4 * ?HOUR), 4 * ?HOUR) end)
     || {Rate, Minutes, Series} <- [{0.1, 30, 250}, {0.2, 30, 250}, {0.4, 30, 1000}, {0.4, 120, 1000}, {0.7, 30, 1000}, {1, 10, 1000},
                                    {1, 60, 500}, {5, 5, 250}, {5, 60, 100}, {20, 1, 100}, {20, 60, 50}, {100, 1, 20}, {100, 10, 20}]] ++
    [quiet(io_lib:format("~p children and noise of ~p", [Mean, Sd]), 500, 0, fun() -> ?S:noisy(Mean, Sd, 480) end)
     || {Mean, Sd} <- [{100000, 300}, {100000, 0.5}, {20, 3}]] ++
    [quiet(io_lib:format("a warm-up to ~p with a time constant of ~p minutes", [Many, Minutes]), 100, 0,
           fun() -> ?S:windows(?S:warm_up(Many, Minutes, 4 * ?HOUR), 4 * ?HOUR) end)
     || {Many, Minutes} <- [{20, 1}, {100, 1}, {1000, 2}, {1000, 5}, {1000, 10}, {10000, 10}]] ++
    [quiet(io_lib:format("a batch of ~p a minute for ~p of ~p minutes", [Rate, Up, Period]), 100, 0,
           fun() -> ?S:windows(?S:ramps(Rate, Up, Period, 6 * ?HOUR), 6 * ?HOUR) end)
     || {Rate, Up, Period} <- [{100, 1, 10}, {100, 1, 60}, {20, 5, 15}, {20, 5, 60}]] ++
    [quiet(io_lib:format("~p children started anew each ~p minutes", [Many, Minutes]), 100, 0,
           fun() -> ?S:windows(?S:restarts(Many, Minutes, 4 * ?HOUR), 4 * ?HOUR) end)
     || {Many, Minutes} <- [{1, 5}, {10, 20}, {100, 60}]] ++
    [quiet(io_lib:format("a day of ~p births a minute that live ~p minutes", [Rate, Minutes]), Series, 0,
           fun() -> ?S:windows(?S:load(Rate, 0.8, 24, Minutes, 24 * ?HOUR), 24 * ?HOUR) end)
     || {Rate, Minutes, Series} <- [{1, 10, 50}, {1, 60, 50}, {5, 1, 20}, {5, 10, 20}, {5, 60, 20}, {20, 10, 5}]].

%% What cannot be told from a leak when it is told: it is told once, and no more when it has levelled off.
taken_for_leaks_test_() ->
    [quiet("a warm-up to 50 with a time constant of 10 minutes", 100, 70,
           fun() -> ?S:windows(?S:warm_up(50, 10, 4 * ?HOUR), 4 * ?HOUR) end),
     quiet("a batch of 5 a minute for 30 of 60 minutes", 100, 60,
           fun() -> ?S:windows(?S:ramps(5, 30, 60, 6 * ?HOUR), 6 * ?HOUR) end),
     quiet("a day of 20 births a minute that live 4 hours", 10, 5,
           fun() -> ?S:windows(?S:load(20, 0.8, 24, 240, 24 * ?HOUR), 24 * ?HOUR) end)].

quiet(Title, Count, Most, Windows) ->
    {lists:flatten(Title), {timeout, 60, fun() ->
        Told = [T || N <- lists:seq(1, Count), T <- [begin ?S:seed(N), ?S:found(Windows()) end], T =/= never],
        ?assert(length(Told) =< Most, Told)
    end}}.

%% Leaks, with the minutes in which half of them and all are found.
leak_test_() ->
    [found(io_lib:format("~p a minute from the start", [Rate]), 0, Half, All, 50,
           fun() -> ?S:windows(?S:leak(Rate, 0, ?HOUR), ?HOUR) end)
     || {Rate, Half, All} <- [{0.2, 45, 45}, {0.5, 18, 18}, {1, 10, 10}, {10, 10, 10}, {1000, 10, 10}]] ++
    [found("1 a minute beside 50 that stay", 60, 10, 10, 50,
           fun() -> ?S:windows([{-1, 1.0e12} || _ <- lists:seq(1, 50)] ++ ?S:leak(1, ?HOUR, 2 * ?HOUR), 2 * ?HOUR) end)] ++
    [found(io_lib:format("~p a minute at random", [Rate]), 0, Half, All, 50,
           fun() -> ?S:windows(?S:poisson_leak(Rate, 0, 2 * ?HOUR), 2 * ?HOUR) end)
     || {Rate, Half, All} <- [{1, 20, 80}, {10, 10, 40}, {100, 10, 40}]] ++
    [found(io_lib:format("~p a minute below ~p that live ~p minutes", [Leak, Rate, Minutes]), 60, Half, All, Series,
           fun() -> ?S:windows(?S:stationary(Rate, Minutes, 6 * ?HOUR) ++ ?S:leak(Leak, ?HOUR, 6 * ?HOUR), 6 * ?HOUR) end)
     || {Leak, Rate, Minutes, Half, All, Series} <-
            [{1, 600, 0.01, 10, 10, 3}, {1, 10, 0.1, 20, 40, 20}, {1, 100, 0.1, 20, 40, 5}, {1, 1, 10, 75, 150, 20},
             {1, 10, 1, 130, 180, 10}, {10, 10, 1, 15, 20, 20}, {10, 5, 10, 15, 20, 20}, {10, 100, 1, 45, 60, 5},
             {1000, 100, 1, 12, 12, 2}]].

found(Title, From, Half, All, Count, Windows) ->
    {lists:flatten(Title), {timeout, 60, fun() ->
        Times = lists:sort([begin ?S:seed(N), ?S:found(Windows()) end || N <- lists:seq(1, Count)]),
        ?assert(lists:nth((Count + 1) div 2, Times) - From =< Half, Times),
        ?assertNot(lists:member(never, Times)),
        ?assert(lists:last(Times) - From =< All, Times),
        ?assert(hd(Times) > From, Times)
    end}}.

%% A leak of one a minute, its numbers, and its end.
life_test() ->
    Feed = fun(Values, S) -> lists:foldl(fun(V, Acc) -> lineage_growth:add(V, 0, false, Acc) end, S, Values) end,
    S0 = Feed([7 || _ <- lists:seq(1, 30)], lineage_growth:new()),
    ?assertEqual(undefined, lineage_growth:growth(S0)),
    S1 = Feed([7 + N div 2 || N <- lists:seq(1, 20)], S0),
    ?assertMatch(#{first := 7, last := 17, windows := 40, window_ms := 30000, values := [7 | _], confidence := _},
                 lineage_growth:growth(S1)),
    #{slope := Slope} = lineage_growth:growth(S1),
    ?assert(abs(Slope - 1) < 0.05),
    S2 = Feed([17 || _ <- lists:seq(1, 14)], S1),
    ?assertEqual(undefined, lineage_growth:growth(S2)).

%% What a series takes does not grow.
memory_test() ->
    S = lists:foldl(fun(N, Acc) -> lineage_growth:add(N, N, false, Acc) end, lineage_growth:new(), lists:seq(1, 20000)),
    ?assert(erts_debug:flat_size(S) < 1200).

%% Kendall 1975, and by hand.
mann_kendall_test() ->
    ?assertMatch({45, _}, lineage_growth:mann_kendall(lists:seq(1, 10))),
    {_, P} = lineage_growth:mann_kendall(lists:seq(1, 10)),
    ?assert(abs(P - 4.15e-5) < 1.0e-6),
    ?assertEqual({0, 1.0}, lineage_growth:mann_kendall([5, 5, 5, 5])),
    ?assertEqual({-3, 1.0}, lineage_growth:mann_kendall([3, 2, 1])),
    %% S is 8 - 1; the tie takes 2 * 1 * 9 from the variance.
    {7, Tied} = lineage_growth:mann_kendall([1, 3, 2, 4, 4]),
    ?assert(abs(Tied - math:erfc(6 / math:sqrt(2 * (300 - 18) / 18)) / 2) < 1.0e-12).

theil_sen_test() ->
    ?assertEqual(2.0, lineage_growth:theil_sen([1, 3, 5, 7])),
    ?assertEqual(1.0, lineage_growth:theil_sen([1, 2, 3, 100, 5])),
    ?assertEqual(0.0, lineage_growth:theil_sen([4])).

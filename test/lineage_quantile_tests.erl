-module(lineage_quantile_tests).

-include_lib("eunit/include/eunit.hrl").

-define(PS, [0.5, 0.99, 0.999]).

%% The ranks against the binomial distribution, summed term by term in another way.
ranks_test_() ->
    {timeout, 60, fun() -> [is_exact(N, P) || P <- [0.01, 0.3 | ?PS], N <- lists:seq(1, 60) ++ [367, 368, 700, 1000, 3687, 3688, 5000]] end}.

is_exact(N, P) ->
    {L, U} = lineage_quantile:ranks(N, P),
    Lower = case L of none -> 0; _ -> L end,
    Upper = case U of none -> N + 1; _ -> U end,
    %% P(number < L) and P(number >= U) are within the tail, and not so one rank further in.
    [?assert(below(N, P, Lower) =< 0.025 + 1.0e-9),
     ?assert(below(N, P, Lower + 1) > 0.025 - 1.0e-9),
     ?assert(1 - below(N, P, Upper) =< 0.025 + 1.0e-9),
     ?assert(1 - below(N, P, Upper - 1) > 0.025 - 1.0e-9)].

%% P(number < K), from the logarithms of its terms, the first first.
below(N, P, K) ->
    Next = fun(J, {Log, Sum}) ->
                   {Log + math:log(max(N - J, 1) * P / ((J + 1) * (1 - P))), Sum + math:exp(Log)}
           end,
    {_, Sum} = lists:foldl(Next, {N * math:log(1 - P), 0.0}, lists:seq(0, min(K, N + 1) - 1)),
    Sum.

first_upper_ends_test() ->
    [begin
         ?assertMatch({_, none}, lineage_quantile:ranks(N - 1, P)),
         ?assertEqual(N, element(2, lineage_quantile:ranks(N, P)))
     end || {P, N} <- [{0.5, 6}, {0.99, 368}, {0.999, 3688}]].

%% Where the approximation takes over it is at most two ranks wider, never narrower.
normal_test_() ->
    {timeout, 60, fun() ->
        [begin
             Last = floor(10000 / (P * (1 - P))),
             {L, U} = lineage_quantile:ranks(Last, P),
             {L1, U1} = lineage_quantile:ranks(Last + 1, P),
             ?assert(L1 =< L + 1 andalso L1 >= L - 2),
             ?assert(U1 >= U andalso U1 =< U + 3)
         end || P <- ?PS],
        ?assertMatch({L, U} when L < 999000000 andalso U > 999000000, lineage_quantile:ranks(1000000000, 0.999))
    end}.

%% The interval holds the true quantile at least 95 times of 100, within what 2,000 tries can tell.
coverage_test_() ->
    {timeout, 120, fun() ->
        rand:seed(exsss, {6, 6, 6}),
        [begin
             Held = length([hit || _ <- lists:seq(1, Tries), holds(N, P)]),
             ?assert(Held >= 0.935 * Tries)
         end || {N, P, Tries} <- [{20, 0.5, 2000}, {501, 0.5, 500}, {500, 0.99, 500}]]
    end}.

%% Exponential: its quantile at P is -log(1 - P).
holds(N, P) ->
    Values = lineage_quantile:samples(lists:sort([-math:log(rand:uniform_real()) || _ <- lists:seq(1, N)])),
    #{low := Low, high := High} = lineage_quantile:interval(Values, P),
    True = -math:log(1 - P),
    (Low =:= none orelse Low =< True) andalso (High =:= none orelse True =< High).

%% The same values as samples and as buckets: the buckets' interval is the wider one, by a bucket at most.
buckets_test() ->
    rand:seed(exsss, {1, 2, 3}),
    [begin
         Samples = lists:sort([rand:uniform(10000) || _ <- lists:seq(1, N)]),
         S = lineage_quantile:samples(Samples),
         B = lineage_quantile:buckets(buckets(Samples)),
         ?assertEqual(N, lineage_quantile:count(B)),
         [begin
              #{value := V, low := L, high := H} = lineage_quantile:interval(S, P),
              #{value := Vb, low := Lb, high := Hb} = lineage_quantile:interval(B, P),
              ?assert(abs(V - Vb) =< 50),
              ?assert(wider(L, Lb, L, 100)),
              ?assert(wider(H, H, Hb, 100))
          end || P <- ?PS]
     end || N <- [1, 5, 6, 100, 1000, 4000]].

wider(none, _, _, _) -> true;
wider(_, Less, More, Most) -> More - Less >= 0 andalso More - Less < Most.

buckets(Samples) ->
    Counts = lists:foldl(fun(V, M) -> maps:update_with(V div 100, fun(C) -> C + 1 end, 1, M) end, #{}, Samples),
    [{100 * B, 100 * B + 99, C} || {B, C} <- lists:sort(maps:to_list(Counts))].

empty_test() ->
    None = lineage_quantile:samples([]),
    [begin
         ?assertEqual(#{value => none, low => none, high => none}, lineage_quantile:interval(None, P)),
         ?assertEqual({more, N}, lineage_quantile:verdict(None, P, 5))
     end || {P, N} <- [{0.5, 6}, {0.99, 368}, {0.999, 3688}]].

verdicts_test() ->
    All = fun(Value, N) -> lineage_quantile:samples(lists:duplicate(N, Value)) end,
    ?assertEqual(pass, lineage_quantile:verdict(All(4, 6), 0.5, 5)),
    ?assertEqual(fail, lineage_quantile:verdict(All(5, 6), 0.5, 5)),
    ?assertEqual({more, 1}, lineage_quantile:verdict(All(4, 5), 0.5, 5)),
    ?assertEqual({more, 268}, lineage_quantile:verdict(All(4, 100), 0.99, 5)),
    ?assertEqual(pass, lineage_quantile:verdict(All(4, 368), 0.99, 5)),
    %% That the highest percentile is too high is seen soon.
    ?assertEqual(fail, lineage_quantile:verdict(All(5, 1), 0.999, 5)),
    ?assertMatch({more, _}, lineage_quantile:verdict(lineage_quantile:samples([1, 2, 3, 4, 6, 7, 8, 9]), 0.5, 5)).

%% As many more as it says do decide, within a factor: the share below the target stays what it was.
more_test() ->
    [begin
         Values = split(N, Share),
         {more, More} = lineage_quantile:verdict(Values, P, 5),
         ?assertNotMatch({more, _}, lineage_quantile:verdict(split(2 * (N + More), Share), P, 5)),
         ?assertMatch({more, _}, lineage_quantile:verdict(split((N + More) div 2, Share), P, 5))
     end || {N, P, Share} <- [{50, 0.5, 0.55}, {50, 0.5, 0.45}, {2000, 0.99, 0.992}, {2000, 0.99, 0.988}]].

%% So many of them are below 5.
split(N, Share) ->
    Below = round(N * Share),
    lineage_quantile:buckets([{1, 2, Below}, {8, 9, N - Below}]).

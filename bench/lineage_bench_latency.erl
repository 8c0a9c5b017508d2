%% What samples of a latency say: percentiles with their 95 % intervals, how far they are above a base, and the verdict against
%% a target. Samples are nanoseconds, what is told is microseconds.
%%
%% Intervals of percentiles stand on order statistics (lineage_quantile). That of an overhead, a percentile less one of the base,
%% is a percentile bootstrap's of 2,000 resamples from a fixed seed. No resample is drawn out: the k-th smallest of n draws from n
%% sorted samples is the one at ceil(n B), where B has the distribution Beta(k, n - k + 1), so B is drawn. Where order statistics
%% give no end, the bootstrap has none either: it cannot see beyond the largest sample.
%%
%% Both take samples as independent. Those of one turn are somewhat alike, so the intervals are somewhat too narrow.
-module(lineage_bench_latency).

-export([sorted/1, percentiles/0, latency/1, figures/1, overhead/3, verdicts/1, curve/1, target_us/0, bad/1, told/1, json/1]).

-export_type([samples/0, figures/0, against/0]).

-type against() :: median | same.

-opaque samples() :: tuple().
-type figure() :: #{
    value := number() | none,
    low := number() | none,
    high := number() | none,
    verdict => pass | fail | more,
    %% With the verdict `more': so many more samples would probably decide.
    more => pos_integer() | none
}.
-type figures() :: #{p50 := figure(), p99 := figure(), p999 := figure(), count => non_neg_integer()}.

-define(TARGET_NS, 5000000).
-define(RESAMPLES, 2000).
-define(SEED, {7, 8, 9}).

%% The plan's target.
-spec target_us() -> pos_integer().
target_us() -> ?TARGET_NS div 1000.

-spec sorted([integer()]) -> samples().
sorted(Ns) -> list_to_tuple(lists:sort(Ns)).

%% The percentiles that are told, as keys and as probabilities.
-spec percentiles() -> [{p50 | p99 | p999, float()}].
percentiles() -> [{p50, 0.5}, {p99, 0.99}, {p999, 0.999}].

%% The percentiles and their intervals.
-spec latency(samples()) -> figures().
latency(Samples) ->
    maps:remove(count, figures(values(Samples))).

%% The same of any values in nanoseconds, and how many they are.
-spec figures(lineage_quantile:values()) -> figures().
figures(Values) ->
    Figures = maps:from_list([{Key, us(lineage_quantile:interval(Values, P))} || {Key, P} <- percentiles()]),
    Figures#{count => lineage_quantile:count(Values)}.

%% The percentiles with the verdict of each against the target.
-spec verdicts(samples()) -> figures().
verdicts(Samples) ->
    Values = values(Samples),
    maps:from_list([
        {Key, judged(lineage_quantile:interval(Values, P), Values, P, ?TARGET_NS)}
     || {Key, P} <- percentiles()
    ]).

%% The percentiles less the base's `median', or less the `same' percentile of the base, with the verdict of each against the
%% target.
-spec overhead(samples(), samples(), against()) -> figures().
overhead(Samples, Base, Against) when tuple_size(Samples) > 0, tuple_size(Base) > 0 ->
    {Figures, _} = lists:mapfoldl(
        fun({Key, P}, Rand) ->
            {Figure, Next} = difference(Samples, P, Base, base(Against, P), Rand),
            {{Key, Figure}, Next}
        end,
        rand:seed_s(exsss, ?SEED),
        percentiles()
    ),
    maps:from_list(Figures);
overhead(_None, _Base, _Against) ->
    verdicts({}).

base(median, _P) -> 0.5;
base(same, P) -> P.

difference(Samples, P, Base, Q, Rand0) ->
    {Lows, Rand1} = resampled(Base, Q, Rand0),
    {Highs, Rand} = resampled(Samples, P, Rand1),
    Boot = list_to_tuple(lists:sort(lists:zipwith(fun(A, B) -> A - B end, Highs, Lows))),
    {Low, High} = lineage_quantile:ranks(tuple_size(Samples), P),
    {LowBase, HighBase} = lineage_quantile:ranks(tuple_size(Base), Q),
    Interval = #{
        value => at(Samples, P) - at(Base, Q),
        low => ended(HighBase, ended(Low, at(Boot, 0.025))),
        high => ended(LowBase, ended(High, at(Boot, 0.975)))
    },
    {judged(Interval, values(Samples), P, ?TARGET_NS + at(Base, Q)), Rand}.

ended(none, _End) -> none;
ended(_Rank, End) -> End.

%% The interval is of what is judged, the values and their target say how many more there should be.
judged(#{} = Interval, Values, P, Target) ->
    Us = us(Interval),
    case lineage_quantile:judge(Interval, ?TARGET_NS) of
        open -> Us#{verdict => more, more => lineage_quantile:more(Values, P, Target)};
        Verdict -> Us#{verdict => Verdict, more => none}
    end.

us(Interval) ->
    maps:map(fun(_, none) -> none; (_, Ns) -> Ns / 1000 end, Interval).

values(Samples) -> lineage_quantile:samples(tuple_to_list(Samples)).

at(Sorted, P) -> element(rank(tuple_size(Sorted), P), Sorted).

rank(Size, P) -> max(1, min(Size, ceil(P * Size))).

%% The quantile at P of each resample.
resampled(Samples, P, Rand0) ->
    Size = tuple_size(Samples),
    Rank = rank(Size, P),
    lists:mapfoldl(
        fun(_, R0) ->
            {Below, R1} = gamma(Rank, R0),
            {Above, R} = gamma(Size - Rank + 1, R1),
            {element(max(1, ceil(Size * Below / (Below + Above))), Samples), R}
        end,
        Rand0,
        lists:seq(1, ?RESAMPLES)
    ).

%% A draw from the Gamma distribution of a shape of at least 1 (Marsaglia and Tsang, 2000).
gamma(Shape, Rand0) ->
    D = Shape - 1 / 3,
    {X, Rand1} = rand:normal_s(Rand0),
    V = math:pow(max(0.0, 1 + X / math:sqrt(9 * D)), 3),
    {U, Rand} = rand:uniform_s(Rand1),
    case V > 0 andalso math:log(U) < X * X / 2 + D * (1 - V + math:log(V)) of
        true -> {D * V, Rand};
        false -> gamma(Shape, Rand)
    end.

%% The whole distribution for a plot: at most 40 pairs of a percentage and microseconds, denser towards the largest.
-spec curve(samples()) -> [[number()]].
curve({}) ->
    [];
curve(Samples) ->
    Size = tuple_size(Samples),
    [[100 * (1 - Q), at(Samples, 1 - Q) / 1000] || N <- lists:seq(0, 39), Q <- [math:pow(10, -N / 8)], Q * Size >= 0.5].

%% Whether a percentile of these is over the target, all of its interval.
-spec bad(figures()) -> boolean().
bad(Figures) ->
    lists:any(fun(#{verdict := Verdict}) -> Verdict =:= fail end, maps:values(Figures)).

%% The verdicts in words.
-spec told(figures()) -> iodata().
told(Figures) ->
    lists:join(", ", [[name(Key), " ", word(maps:get(Key, Figures))] || {Key, _} <- percentiles()]).

name(p50) -> "p50";
name(p99) -> "p99";
name(p999) -> "p99.9".

word(#{verdict := more, more := N}) -> io_lib:format("~b samples more", [N]);
word(#{verdict := Verdict}) -> atom_to_list(Verdict).

%% The figures as they stand in a JSON line; `none' is null.
-spec json(figures() | none) -> lineage_bench_stat:json().
json(none) -> null;
json(Figures) -> maps:map(fun(_, Figure) -> maps:map(fun(_, none) -> null; (_, Value) -> Value end, Figure) end, Figures).

%% @private Quantiles with 95 % intervals, and whether they are below a target.
%%
%% The interval of the quantile at P stands on order statistics, whatever the distribution: of N values that were drawn
%% independently, the number below the true quantile is binomial (N, P), so it lies between the values at ranks L and U
%% where that number is below L, and U or more, with a probability of 2.5 % at most each. The ranks are exact up to a
%% variance of 10,000; beyond, they come from the normal approximation with its term for skewness, and are one wider.
%% Where there are too few values for a rank, that end is `none': 6 give an upper end at P = 0.5, 368 at 0.99, 3,688 at
%% 0.999.
%%
%% Values are sorted samples, or the buckets of a histogram; an interval that is read off a histogram reaches to the far
%% ends of its buckets. Any unit: what comes in goes out.
-module(lineage_quantile).

-export([samples/1, buckets/1, count/1, interval/2, verdict/3, judge/2, more/3, ranks/2]).

-export_type([values/0, interval/0, verdict/0]).

-type bucket() :: {Low :: number(), High :: number(), Count :: non_neg_integer()}.
-opaque values() :: {samples | buckets, non_neg_integer(), [number()] | [bucket()]}.
-type interval() :: #{value := number() | none, low := number() | none, high := number() | none}.
-type verdict() :: pass | fail | {more, pos_integer()}.

-define(Z, 1.959963984540054).    % 97.5 % of the normal distribution
-define(TAIL, 0.025).
-define(EXACT, 10000).            % the variance up to which the ranks are exact
-define(NOTHING, 1.0e-18).        % of the most probable number's probability: it no longer counts
-define(MOST, 1000000000000).

%% @doc Samples, sorted, the least first.
-spec samples([number()]) -> values().
samples(Sorted) ->
    {samples, length(Sorted), Sorted}.

%% @doc Buckets of a histogram, ascending.
-spec buckets([bucket()]) -> values().
buckets(Buckets) ->
    {buckets, lists:sum([Count || {_, _, Count} <- Buckets]), Buckets}.

-spec count(values()) -> non_neg_integer().
count({_, Count, _}) -> Count.

%% @doc The quantile at P, 0 < P < 1: the value at rank ceil(P N), of a bucket its middle, and its interval. All `none'
%% without any value.
-spec interval(values(), float()) -> interval().
interval({_, 0, _}, _P) ->
    #{value => none, low => none, high => none};
interval({_, N, _} = Values, P) ->
    {Low, High} = at(Values, max(1, min(N, ceil(P * N)))),
    {L, U} = ranks(N, P),
    #{value => case Low == High of true -> Low; false -> (Low + High) / 2 end,
      low => case L of none -> none; _ -> element(1, at(Values, L)) end,
      high => case U of none -> none; _ -> element(2, at(Values, U)) end}.

%% @doc Whether the quantile at P is below the target: `pass' when its whole interval is, `fail' when none of it is, else
%% how many more values would probably decide it.
-spec verdict(values(), float(), number()) -> verdict().
verdict(Values, P, Target) ->
    case judge(interval(Values, P), Target) of
        open -> {more, more(Values, P, Target)};
        Verdict -> Verdict
    end.

%% @doc The same for any interval, `open' when it does not tell.
-spec judge(interval(), number()) -> pass | fail | open.
judge(#{high := High}, Target) when High =/= none, High < Target -> pass;
judge(#{low := Low}, Target) when Low =/= none, Low >= Target -> fail;
judge(_Interval, _Target) -> open.

%% @doc How many more values would probably tell on which side of the target the quantile at P is: as many as the missing
%% end of the interval needs; and where there are values on both sides of the target, as many as put the distance between
%% P and the share of those below outside the interval, by the normal approximation. At most 10^12: it is on the target, as far as can be told.
-spec more(values(), float(), number()) -> pos_integer().
more({_, N, _} = Values, P, Target) ->
    Below = below(Values, Target),
    %% Without a value it may well pass.
    Passes = Below >= P * N,
    End = case Passes of
              true -> ceil(math:log(?TAIL) / math:log(P));
              false -> ceil(math:log(?TAIL) / math:log(1 - P))
          end,
    Far = case Below == N orelse Below == 0 of
              true -> 0;
              false -> ceil(?Z * ?Z * P * (1 - P) / math:pow(max(abs(Below / N - P), 1 / (2 * N)), 2))
          end,
    max(1, min(?MOST, max(End, Far) - N)).

%% @doc The ranks of the interval's ends among N values, 1 the least; `none' where there is no such rank.
-spec ranks(non_neg_integer(), float()) -> {pos_integer() | none, pos_integer() | none}.
ranks(N, P) when N * P * (1 - P) =< ?EXACT -> rank(exact(N, P), N);
ranks(N, P) -> rank(normal(N, P), N).

rank({L, U}, N) ->
    {case L >= 1 of true -> L; false -> none end, case U =< N of true -> U; false -> none end}.

%% Probabilities as parts of the most probable number's, summed from far outside: nothing under- or overflows.
exact(N, P) ->
    Mode = min(N, floor((N + 1) * P)),
    Down = weights(Mode, fun(K) -> K * (1 - P) / ((N - K + 1) * P) end, -1, 1.0, []),
    [_ | Up] = lists:reverse(weights(Mode, fun(K) -> (N - K) * P / ((K + 1) * (1 - P)) end, 1, 1.0, [])),
    Tail = ?TAIL * (lists:sum(Down) + lists:sum(Up)),
    %% The first of the numbers that Down has, and the last of Up.
    First = Mode - length(Down) + 1,
    Last = Mode + length(Up),
    {lower(Down ++ Up, Tail, First), upper(lists:reverse(Up) ++ lists:reverse(Down), Tail, Last)}.

%% The farthest first.
weights(_K, _Ratio, _Step, Weight, Weights) when Weight < ?NOTHING -> Weights;
weights(K, Ratio, Step, Weight, Weights) -> weights(K + Step, Ratio, Step, Weight * Ratio(K), [Weight | Weights]).

%% The largest L with P(number < L) within the tail.
lower([Weight | Weights], Tail, K) when Weight =< Tail -> lower(Weights, Tail - Weight, K + 1);
lower(_, _Tail, K) -> K.

%% The smallest U with P(number >= U) within the tail.
upper([Weight | Weights], Tail, K) when Weight =< Tail -> upper(Weights, Tail - Weight, K - 1);
upper(_, _Tail, K) -> K + 1.

normal(N, P) ->
    Deviation = ?Z * math:sqrt(N * P * (1 - P)),
    Middle = N * P + (1 - 2 * P) * (?Z * ?Z - 1) / 6,
    {floor(Middle - Deviation - 0.5), ceil(Middle + Deviation + 1.5)}.

at({samples, _, Sorted}, Rank) ->
    Value = lists:nth(Rank, Sorted),
    {Value, Value};
at({buckets, _, Buckets}, Rank) ->
    in(Buckets, Rank).

in([{_, _, Count} | Buckets], Rank) when Rank > Count -> in(Buckets, Rank - Count);
in([{Low, High, _} | _], _Rank) -> {Low, High}.

%% Of the target's own bucket nothing is known: half.
below({samples, _, Sorted}, Target) ->
    length(lists:takewhile(fun(Value) -> Value < Target end, Sorted));
below({buckets, _, Buckets}, Target) ->
    lists:sum([case High < Target of true -> Count; false -> Count / 2 end || {Low, High, Count} <- Buckets, Low < Target]).

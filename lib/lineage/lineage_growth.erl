%% @doc Tells a population that only grows from one that is large, noisy, warming up or busy.
%%
%% A series is fed one window after the other, 30 seconds each: how many of a population lived through the window (the
%% least of its samples, of those that were 30 seconds old; what lives for less does not show), how many were younger at
%% its end, which stands for the load, and whether any of the old ones died. It keeps 40 windows, 40 of three times that
%% length, and so on: 20 minutes, 1, 3, 9 and 27 hours. Whenever a window closes, its level is looked at. A series grows
%% when all of this holds, at two looks in a row:
%%
%% <ol>
%% <li>Against noise: the Mann-Kendall test over the level's windows, at least 16, gives p of a millionth at most (Mann
%%   1945, Kendall 1975; normal approximation, ties corrected for).</li>
%% <li>Against chance that adds up, as with sessions that last for hours, whose windows are not independent, so that the
%%   first test says nothing: the change over all windows, divided by the root of the sum of the squared changes from
%%   window to window, is 4.2 or more. Where changes go either way alike, the probability of that is below
%%   exp(-4.2^2/2), 0.00015, whatever their distribution (Efron 1969), and far below for normal ones. Where none of the
%%   old ones has died in the last two hours, or since the series began, 2.8 is enough (eight births and no death), or
%%   3.5 where the growth had pauses of more than four windows.</li>
%% <li>It is real: by 6 at least; the least of the last third is above all of the first third; and all of the last seven
%%   minutes is above all that was seen before the last twenty. What comes back to an old peak, as a batch job or a
%%   second morning does, is not growing; a leak below an old peak is told when it has passed it.</li>
%% <li>It goes on: the second half grew as much as the first, to a quarter of a standard error, and not much slower than
%%   what was before all these windows (two thirds of its Theil-Sen slope). So a warm-up levels off before it is told.</li>
%% <li>Load does not explain it, where old ones die: in spans of an hour and less it is by a quarter for each 20 minutes,
%%   and in longer ones births did not vary by as much as the population has grown.</li>
%% </ol>
%%
%% It grows until it has not for a third of its windows. The slope is Theil and Sen's, the median of the slopes of all
%% pairs of windows (Theil 1950, Sen 1968), from the last window on that had the least.
%%
%% == How often it is wrong, and how long it takes ==
%% On simulated populations, looked at every half minute (lineage_growth_tests has a part of these). False alarms: none
%% in 9,600 series of 4 hours of births and deaths in balance, 0.1 to 100 births a minute that live 1 to 120 minutes,
%% nor in 2,000 of independent noise. Minutes until a leak is known:
%%
%% <table>
%% <tr><td>1, 10 or 1,000 a minute, evenly, where nothing dies</td><td>9 to 10</td></tr>
%% <tr><td>0.5; 0.2 a minute</td><td>18; 44</td></tr>
%% <tr><td>1 a minute, at random times</td><td>16, or 30 in one case of ten</td></tr>
%% <tr><td>1 a minute below any number that live less than 30 seconds</td><td>9 to 10</td></tr>
%% <tr><td>1 a minute below 10 a minute that live 6 seconds on average (some live for 30)</td><td>19</td></tr>
%% <tr><td>1 a minute below 1 a minute that live 10 minutes; 10 that live 1 minute</td><td>60; 120</td></tr>
%% <tr><td>10 a minute below 10 that live 1 minute, or 5 that live 10</td><td>13</td></tr>
%% <tr><td>10 a minute below 100 that live 1 minute</td><td>25</td></tr>
%% </table>
%%
%% What does nothing but grow for ten minutes at an even rate, for the first time, is taken for a leak also where it
%% would have levelled off: a batch job whose workers all stay until its end, a warm-up of some dozens of processes
%% over ten minutes (of 50, time constant 10 minutes, one in two; of 100, one in five; of 1,000, none) or of more over
%% an hour, the first day of sessions that last for hours. It is no growth any more when it has levelled off, and the
%% next of its kind is not told.
-module(lineage_growth).

-export([new/0, add/4, growth/1, is_growing/1, window_ms/0]).
-export([mann_kendall/1, theil_sen/1]).

-export_type([series/0, growth/0]).

-define(WINDOW_MS, 30000).
-define(WINDOWS, 40).
-define(LEVELS, 5).
-define(FACTOR, 3).            % windows of one level in one of the next
-define(LEAST_WINDOWS, 16).
-define(LEAST_GROWTH, 6).
-define(P, 1.0e-6).
-define(SURE, 2.8).            % where nothing ever fell
-define(SURE_BY_FITS, 3.5).     % the same, with pauses
-define(PAUSE, 5).             % windows of the same value
-define(SURE_AMONG_FALLS, 4.2).
-define(QUIET, 240).           % windows without a fall: two hours
-define(RECENT, 13).           % the last third of the shortest level

%% Newest first. `part': what the window of this level that is not full yet is made of.
-record(level, {values = [] :: [non_neg_integer()],
                young = [] :: [non_neg_integer()],
                part = [] :: [{non_neg_integer(), non_neg_integer()}],
                found = false :: boolean()}).

-record(series, {levels :: [#level{}],
                 windows = 0 :: non_neg_integer(),
                 last = 0 :: non_neg_integer(),
                 quiet = 0 :: non_neg_integer(),     % windows since one was below the one before it
                 peak = 0 :: non_neg_integer(),      % of all that left the shortest level
                 growth :: undefined | pos_integer()}).

-opaque series() :: #series{}.

%% `values': the windows looked at, oldest first, each `window_ms' long. `slope': a minute. `confidence': one less the
%% larger of the bounds of the two tests' errors, for one look.
-type growth() :: #{first := non_neg_integer(), last := non_neg_integer(), slope := float(), windows := pos_integer(),
                    window_ms := pos_integer(), confidence := float(), values := [non_neg_integer(), ...]}.

%% @doc A series without windows.
-spec new() -> series().
new() ->
    #series{levels = lists:duplicate(?LEVELS, #level{})}.

%% @doc The length of the shortest windows, in milliseconds.
-spec window_ms() -> pos_integer().
window_ms() -> ?WINDOW_MS.

%% @doc How it grows, where it is known to: until it has not grown for a third of its windows.
-spec growth(series()) -> growth() | undefined.
growth(#series{growth = undefined}) -> undefined;
growth(#series{growth = No, levels = Levels}) -> described((lists:nth(No, Levels))#level.values, No).

%% @doc Whether it is known to grow.
-spec is_growing(series()) -> boolean().
is_growing(#series{growth = Growth}) -> Growth =/= undefined.

%% @doc A window has closed: so many lived through it, so many were young at its end, and whether any that was not died
%% in it.
-spec add(Value :: non_neg_integer(), Young :: non_neg_integer(), Fell :: boolean(), series()) -> series().
add(Value, Young, Fell, #series{windows = N, last = Last, quiet = Quiet, levels = [Shortest | _], peak = Peak} = S) ->
    Left = case length(Shortest#level.values) of
               ?WINDOWS -> lists:last(Shortest#level.values);
               _ -> 0
           end,
    close(1, Value, Young, S#series{windows = N + 1, last = Value, peak = max(Peak, Left),
                                    quiet = case Fell orelse Value < Last of true -> 0; false -> Quiet + 1 end}).

close(No, Value, Young, #series{levels = Levels} = S) ->
    #level{values = Values, young = Youngs, part = Part} = Level = lists:nth(No, Levels),
    Full = Level#level{values = lists:sublist([Value | Values], ?WINDOWS),
                       young = lists:sublist([Young | Youngs], ?WINDOWS)},
    {Passed, Part1} = case [{Value, Young} | Part] of
                          Whole when length(Whole) =:= ?FACTOR -> {Whole, []};
                          Some -> {[], Some}
                      end,
    S1 = look(No, Full#level{part = Part1}, S),
    case Passed of
        [_ | _] when No < ?LEVELS ->
            close(No + 1, lists:min([V || {V, _} <- Passed]), lists:sum([Y || {_, Y} <- Passed]), S1);
        _ ->
            S1
    end.

look(No, #level{values = Values, found = Before} = Level, #series{levels = Levels, growth = Growth} = S) ->
    Found = case Growth of
                No -> not levelled_off(Values);
                _ -> found(Level, No, S)
            end,
    Growth1 = case Found of
                  false when Growth =:= No -> undefined;
                  true when Growth =:= undefined, Before -> No;
                  _ -> Growth
              end,
    S#series{levels = lists:sublist(Levels, No - 1) ++ [Level#level{found = Found} | lists:nthtail(No, Levels)],
             growth = Growth1}.

levelled_off([Last | _] = Values) ->
    Last =< lists:nth(length(Values) div 3 + 1, Values).

described(Values, No) ->
    Old = lists:reverse(Values),
    WindowMs = ?WINDOW_MS * pow(?FACTOR, No - 1),
    {_S, P} = mann_kendall(Old),
    #{first => hd(Old), last => hd(Values), slope => theil_sen(rising(Old)) * 60000 / WindowMs, windows => length(Old),
      window_ms => WindowMs, values => Old, confidence => 1 - max(P, math:exp(-square(drift(Old)) / 2))}.

%% From the last window that had no more than any before it: a leak may have begun in the midst of them.
rising([First | Rest] = Values) ->
    case lists:any(fun(V) -> V =< First end, Rest) of
        true -> rising(Rest);
        false -> Values
    end.

pow(_, 0) -> 1;
pow(B, N) -> B * pow(B, N - 1).

%% The cheap questions first: most populations do not grow.
found(#level{values = [Last | _] = Values, young = Young}, No, #series{levels = [#level{values = Recent} | _]} = S) ->
    N = length(Values),
    N >= ?LEAST_WINDOWS
        andalso Last - lists:last(Values) >= ?LEAST_GROWTH
        andalso above(recent(No, Values, Recent), S#series.peak)
        andalso real(Values, N)
        andalso drift(lists:reverse(Values)) >= needed(Values, S)
        andalso goes_on(Values, N)
        andalso not load(Values, Young, N, No, S)
        andalso element(2, mann_kendall(lists:reverse(Values))) =< ?P
        andalso not slows_down(Values, N, No, S).

recent(1, Values, _) -> Values;
recent(_, _, Recent) -> Recent.

above(Recent, Peak) ->
    lists:min(lists:sublist(Recent, ?RECENT)) > Peak.

needed(Values, S) ->
    case is_quiet(S) of
        false -> ?SURE_AMONG_FALLS;
        true ->
            case is_even(Values) of
                true -> ?SURE;
                false -> ?SURE_BY_FITS
            end
    end.

is_quiet(#series{quiet = Quiet, windows = N}) ->
    Quiet >= min(?QUIET, N).

%% No pause in its growth is longer than four windows.
is_even([_]) -> true;
is_even([V, V | _] = Values) ->
    {Same, Older} = lists:splitwith(fun(W) -> W =:= V end, Values),
    Older =:= [] orelse (length(Same) =< ?PAUSE andalso is_even(Older));
is_even([_ | Older]) -> is_even(Older).

%% A warm-up's end is slower than what was before it. A jump is none of it: the slope is a median.
slows_down(Values, N, No, #series{levels = Levels}) ->
    Before = case No < ?LEVELS of
                 true -> [V || V <- nthtail(N div ?FACTOR, (lists:nth(No + 1, Levels))#level.values)];
                 false -> []
             end,
    length(Before) >= 8 andalso theil_sen(lists:reverse(Before)) / ?FACTOR > 1.5 * theil_sen(lists:reverse(Values)).

nthtail(N, List) when N =< length(List) -> lists:nthtail(N, List);
nthtail(_, _) -> [].

real(Values, N) ->
    {First, Last} = thirds(Values, N),
    lists:min(Last) > lists:max(First).

%% The first and the last third, of what is newest first.
thirds(Values, N) ->
    {lists:nthtail(N - N div 3, Values), lists:sublist(Values, N div 3)}.

%% The change over all windows in units of what chance makes of so many changes.
drift([First | _] = Values) ->
    Squares = squares(Values, 0),
    case Squares of
        0 -> 0.0;
        _ -> (lists:last(Values) - First) / math:sqrt(Squares)
    end.

squares([A | [B | _] = Rest], Sum) -> squares(Rest, Sum + (B - A) * (B - A));
squares([_], Sum) -> Sum.

%% Both halves are as many steps long, without the first two, in which a new population is not old enough to count; what chance makes of the difference is seen in the steps themselves.
goes_on([Last | _] = Values, N) ->
    Half = (N - 3) div 2,
    First = lists:last(Values),
    Late = Last - lists:nth(1 + Half, Values),
    Early = lists:nth(N - 2 - Half, Values) - lists:nth(N - 2, Values),
    Noise = squares(Values, 0) - (Last - First) * (Last - First) / (N - 1),
    Late > 0 andalso Early - Late =< max(1, math:sqrt(max(0, Noise)) / 4).

%% Nobody is held to leak because more work is done. Where all that is born stays, nothing excuses it. Else, in a span of
%% an hour and less, in which sessions that last for hours show no more than that they began, it is to be by a quarter
%% for each 20 minutes; and within this span and twice as long before it, births did not vary (by more than three
%% standard errors) as much as the population has grown.
load([Last | _] = Values, Young, N, No, #series{levels = Levels} = S) ->
    First = lists:last(Values),
    case is_quiet(S) of
        true -> false;
        _ when No =< 2 -> (Last - First) * 4 * ?WINDOWS < First * N * pow(?FACTOR, No - 1);
        _ ->
            Longer = case No < ?LEVELS andalso lists:nth(No + 1, Levels) of
                         #level{young = [_ | _] = More} when length(More) * ?FACTOR >= N -> More;
                         _ -> Young
                     end,
            Sums = [lists:sum(Part) + 1 || Part <- parts(Longer, max(1, length(Longer) div 6))],
            {Least, Most} = {lists:min(Sums), lists:max(Sums)},
            {Few, Many} = thirds(Values, N),
            Most - Least > 3 * math:sqrt(Least)
                andalso (lists:sum(Many) + 1) / (lists:sum(Few) + 1) =< Most / Least * (1 + 2 * math:sqrt(1 / Least + 1 / Most))
    end.

parts(List, Size) when length(List) < Size -> [];
parts(List, Size) ->
    {Part, Rest} = lists:split(Size, List),
    [Part | parts(Rest, Size)].

%% @doc Kendall's S of these values, oldest first, and the probability of one as large or larger where there is no trend
%% and the values are independent (one-sided; normal approximation with continuity correction and corrected for ties,
%% good from 10 values on).
-spec mann_kendall([number(), ...]) -> {integer(), float()}.
mann_kendall(Values) ->
    S = concordance(Values, 0),
    N = length(Values),
    Variance = (spread(N) - lists:sum([spread(T) || T <- ties(lists:sort(Values))])) / 18,
    case Variance > 0 andalso S > 0 of
        true -> {S, math:erfc((S - 1) / math:sqrt(2 * Variance)) / 2};
        false -> {S, 1.0}
    end.

concordance([], S) -> S;
concordance([V | Later], S) -> concordance(Later, signs(V, Later, S)).

signs(_V, [], S) -> S;
signs(V, [W | Later], S) when W > V -> signs(V, Later, S + 1);
signs(V, [W | Later], S) when W < V -> signs(V, Later, S - 1);
signs(V, [_ | Later], S) -> signs(V, Later, S).

spread(N) -> N * (N - 1) * (2 * N + 5).

ties([]) -> [];
ties([V | Rest]) ->
    {Same, Others} = lists:splitwith(fun(W) -> W == V end, Rest),
    [length(Same) + 1 | ties(Others)].

%% @doc The median of the slopes of all pairs of these values, oldest first; a window.
-spec theil_sen([number(), ...]) -> float().
theil_sen(Values) ->
    Indexed = lists:zip(lists:seq(1, length(Values)), Values),
    Slopes = lists:sort([(B - A) / (J - I) || {I, A} <- Indexed, {J, B} <- Indexed, J > I]),
    case length(Slopes) of
        0 -> 0.0;
        N -> (lists:nth((N + 1) div 2, Slopes) + lists:nth(N div 2 + 1, Slopes)) / 2
    end.

square(X) -> X * X.

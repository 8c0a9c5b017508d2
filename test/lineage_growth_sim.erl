%% Simulated populations, as the sampler of lineage_leaks would see them: each is a list of windows {Value, Young}.
-module(lineage_growth_sim).

-export([seed/1, found/1, windows/2]).
-export([stationary/3, leak/3, poisson_leak/3, warm_up/3, load/5, ramps/4, restarts/3, noisy/3]).

-define(SAMPLE, 15.0).      % seconds
-define(AGE, 30.0).

seed(N) -> rand:seed(exsss, N).

%% When the growth of these windows is first known, in minutes; or never.
found(Windows) -> found(Windows, lineage_growth:new(), 1).

found([], _S, _N) -> never;
found([{Value, Young, Fell} | Rest], S, N) ->
    S1 = lineage_growth:add(Value, Young, Fell, S),
    case lineage_growth:is_growing(S1) of
        false -> found(Rest, S1, N + 1);
        true -> N / 2
    end.

%% Lives are {Birth, Death} in seconds; those born before 0 are old at once.
windows(Lives, Seconds) ->
    Samples = trunc(Seconds / ?SAMPLE),
    Live = counters:new(Samples + 2, []),
    Old = counters:new(Samples + 2, []),
    Deaths = counters:new(Samples + 2, []),
    lists:foreach(fun({Birth, Death}) ->
                          Aged = case Birth < 0 of true -> 0; false -> Birth + ?AGE end,
                          count(Live, Birth, Death, Samples),
                          count(Old, Aged, Death, Samples),
                          Death > Aged andalso Death < Seconds andalso
                              index(Aged, Samples) < index(Death, Samples) andalso add(Deaths, index(Death, Samples), 1)
                  end, Lives),
    pairs(zip(1, Samples, Live, 0, Old, 0, Deaths)).

count(Counters, From, To, Samples) when To > From ->
    add(Counters, index(From, Samples), 1),
    add(Counters, index(To, Samples), -1);
count(_, _, _, _) -> ok.

index(Time, Samples) ->
    case Time >= Samples * ?SAMPLE of
        true -> Samples + 1;
        false -> max(1, ceil(Time / ?SAMPLE))
    end.

add(Counters, I, N) -> counters:add(Counters, I, N).

zip(I, Samples, _, _, _, _, _) when I > Samples -> [];
zip(I, Samples, Live, L, Old, O, Deaths) ->
    L1 = L + counters:get(Live, I),
    O1 = O + counters:get(Old, I),
    [{L1, O1, counters:get(Deaths, I)} | zip(I + 1, Samples, Live, L1, Old, O1, Deaths)].

pairs([{_, O1, D1}, {L2, O2, D2} | Rest]) -> [{min(O1, O2), L2 - O2, D1 + D2 > 0} | pairs(Rest)];
pairs(_) -> [].

%% Births at `Rate' a minute, each living `Minutes' on average, in balance from the start.
stationary(Rate, Minutes, Seconds) ->
    There = poisson(Rate * Minutes),
    [{-1, exponential(Minutes * 60)} || _ <- lists:seq(1, There)]
        ++ [{T, T + exponential(Minutes * 60)} || T <- arrivals(0, Rate, Seconds)].

%% One each 60/Rate seconds, for ever.
leak(Rate, From, Seconds) ->
    Phase = rand:uniform() * 60 / Rate,
    [{T, infinity()} || T <- steps(From + Phase, 60 / Rate, Seconds)].

poisson_leak(Rate, From, Seconds) ->
    [{T, infinity()} || T <- arrivals(From, Rate, Seconds)].

%% To `Many', who stay, with a time constant in minutes.
warm_up(Many, Minutes, Seconds) ->
    [{T, infinity()} || _ <- lists:seq(1, Many), T <- [exponential(Minutes * 60)], T < Seconds].

%% Births at Rate * (1 + Depth * sin), the phase at random; a period in hours.
load(Rate, Depth, Hours, Minutes, Seconds) ->
    Phase = rand:uniform() * 2 * math:pi(),
    At = fun(T) -> 1 + Depth * math:sin(Phase + 2 * math:pi() * T / (Hours * 3600)) end,
    Warm = 5 * Minutes * 60,
    Births = [T || T <- arrivals(-Warm, Rate * (1 + Depth), Seconds), rand:uniform() * (1 + Depth) < At(T)],
    [{T, D} || T <- Births, D <- [T + exponential(Minutes * 60)], D > 0].

%% A batch job: births for `Up' minutes, who all end at the end of a period of `Period' minutes.
ramps(Rate, Up, Period, Seconds) ->
    [{T, End} || Start <- steps(-rand:uniform() * Period * 60, Period * 60, Seconds),
                 T <- arrivals(Start, Rate, Start + Up * 60), End <- [Start + Period * 60 - 5], End > 0].

%% `Many' children, who are all started anew each so many minutes.
restarts(Many, Minutes, Seconds) ->
    Times = arrivals(0, 1 / Minutes, Seconds),
    [{From, To} || {From, To} <- lists:zip([-1 | Times], Times ++ [infinity()]), _ <- lists:seq(1, Many)].

%% Windows of independent noise around `Mean'.
noisy(Mean, Sd, Windows) ->
    [{max(0, round(Mean + Sd * rand:normal())), 0, false} || _ <- lists:seq(1, Windows)].

steps(T, _, To) when T >= To -> [];
steps(T, Step, To) -> [T | steps(T + Step, Step, To)].

arrivals(T, Rate, To) ->
    case T + exponential(60 / Rate) of
        Next when Next >= To -> [];
        Next -> [Next | arrivals(Next, Rate, To)]
    end.

exponential(Mean) -> -Mean * math:log(1 - rand:uniform()).

poisson(Mean) when Mean > 500 -> max(0, round(Mean + math:sqrt(Mean) * rand:normal()));
poisson(Mean) -> poisson(math:exp(-Mean), 0, rand:uniform()).

poisson(Limit, N, P) when P < Limit -> N;
poisson(Limit, N, P) -> poisson(Limit, N + 1, P * rand:uniform()).

infinity() -> 1.0e12.

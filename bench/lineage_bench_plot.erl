%% Percentiles on a logarithmic scale, as text: one line of an arm shows where its p50, p99 and p99.9 are, and the target.
-module(lineage_bench_plot).

-export([heading/0, strip/1, us/1]).

-define(WIDTH, 51).
%% The scale: 1 us to 100 ms, 10 columns for each power of ten.
-define(DECADE, 10).

%% The scale above the strips.
-spec heading() -> string().
heading() ->
    lists:flatten(string:pad("1 us      10 us     100 us    1 ms      10 ms     100 ms", ?WIDTH + 6)).

%% One arm's strip: `o' is p50, `+' p99 and `#' p99.9, dots join them, the bar is the target. What is beyond the scale
%% is at its end.
-spec strip(lineage_bench_latency:figures()) -> string().
strip(#{p50 := P50, p99 := P99, p999 := P999}) ->
    case {column(P50), column(P999)} of
        {none, _} ->
            lists:duplicate(?WIDTH, $\s);
        {From, To} ->
            Between = [{Column, $.} || Column <- lists:seq(From, To)],
            Target = {place(lineage_bench_latency:target_us()), $|},
            Marks = maps:from_list([Target | Between] ++ [{To, $#}, {column(P99), $+}, {From, $o}]),
            [maps:get(Column, Marks, $\s) || Column <- lists:seq(1, ?WIDTH)]
    end.

column(#{value := none}) -> none;
column(#{value := Us}) -> place(Us).

place(Us) -> max(1, min(?WIDTH, 1 + round(?DECADE * math:log10(max(1, Us))))).

%% A time with its unit, three digits.
-spec us(number() | none) -> string().
us(none) -> "-";
us(Us) when Us == 0 -> "0 us";
us(Us) when abs(Us) < 9.995 -> lists:flatten(io_lib:format("~.2f us", [float(Us)]));
us(Us) when abs(Us) < 99.95 -> lists:flatten(io_lib:format("~.1f us", [float(Us)]));
us(Us) when abs(Us) < 999.5 -> lists:flatten(io_lib:format("~b us", [round(Us)]));
us(Us) when abs(Us) < 9995 -> lists:flatten(io_lib:format("~.2f ms", [Us / 1000]));
us(Us) when abs(Us) < 99950 -> lists:flatten(io_lib:format("~.1f ms", [Us / 1000]));
us(Us) -> lists:flatten(io_lib:format("~b ms", [round(Us / 1000)])).

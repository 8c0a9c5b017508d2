%% Checks the form of the benchmarks' JSON lines: that each is one, and has the keys and types of its kind.
-module(lineage_bench_check).

-export([main/0, file/1, decode/1]).

-type value() :: number() | boolean() | null | binary() | [value()] | #{binary() => value()}.

%% Checks the file that the command line names, and ends the node: 0, or 1 with what is wrong.
-spec main() -> no_return().
main() ->
    [File] = init:get_plain_arguments(),
    case file(File) of
        {ok, Lines} ->
            io:format("~n~b JSON lines in ~ts~n", [Lines, File]),
            erlang:halt(0);
        {error, Line, Why} ->
            io:format(standard_error, "~ts:~b: ~0tp~n", [File, Line, Why]),
            erlang:halt(1)
    end.

%% How many lines there are, at least one, or the first that is wrong.
-spec file(file:name()) -> {ok, pos_integer()} | {error, pos_integer(), term()}.
file(File) ->
    {ok, Text} = file:read_file(File),
    lines(binary:split(Text, <<"\n">>, [global]), 1).

lines([<<>>], N) when N > 1 ->
    {ok, N - 1};
lines([Line | Rest], N) ->
    try check(decode(Line)) of
        [] -> lines(Rest, N + 1);
        Wrong -> {error, N, Wrong}
    catch
        error:Reason -> {error, N, Reason}
    end.

%% The two measures of modes have a form each besides.
check(#{<<"bench">> := Bench} = Line) ->
    Form = form(Bench) ++ lists:append([form(Measure) || #{<<"measure">> := Measure} <- [Line]]),
    [{Key, maps:get(Key, Line, missing)} || {Key, Is} <- Form, not is(Is, maps:get(Key, Line, missing))].

form(<<"about">>) ->
    [{Key, text} || Key <- [<<"when">>, <<"otp">>, <<"erts">>, <<"elixir">>, <<"os">>, <<"cpu">>]] ++
        [{Key, number} || Key <- [<<"memory_kb">>, <<"schedulers">>]] ++ [{<<"small">>, [true, false]}];
form(<<"overhead">>) ->
    [
        {<<"kind">>, [<<"start">>, <<"stop">>, <<"restart">>]},
        {<<"part">>, [<<"latency">>, <<"birth">>, <<"ack">>]},
        {<<"arm">>, text},
        {<<"base">>, [<<"bare">>, <<"bare_task">>, <<"zero">>, null]},
        {<<"state">>, [<<"warm">>, <<"cold">>]},
        {<<"children">>, number}
        | timed()
    ];
form(<<"reference">>) ->
    [
        {<<"row">>, text},
        {<<"call">>, text},
        {<<"phase">>, text},
        {<<"part">>, text},
        {<<"arm">>, [<<"legacy">>, <<"supervised">>]},
        {<<"base">>, [<<"legacy">>, null]},
        {<<"nodes">>, [1, 2]}
        | timed()
    ];
form(<<"modes">>) ->
    [
        {<<"measure">>, [<<"throughput">>, <<"truth">>]},
        {<<"kind">>, [<<"one_for_one">>, <<"dynamic">>]},
        {<<"arm">>, [<<"none">>, <<"attached">>, <<"exact">>, <<"exits_all">>, <<"duty">>, <<"continuous">>]},
        {<<"base">>, [<<"none">>, <<"attached">>, <<"callers">>, <<"continuous">>, null]},
        {<<"callers">>, number},
        {<<"otp">>, text},
        {<<"holds">>, [true, false, null, <<"unclear">>]}
    ];
form(Figures) when Figures =:= <<"stream">>; Figures =:= <<"witness">> ->
    [
        {<<"figure">>, text},
        {<<"value">>, difference},
        {<<"unit">>, text},
        {<<"rounds">>, number},
        {<<"otp">>, text},
        {<<"bar">>, number_or_null},
        {<<"holds">>, [true, false, null]}
    ];
form(<<"throughput">>) ->
    [{<<"rounds">>, number}, {<<"per_s">>, number}, {<<"ratio">>, spread_or_null}, {<<"cpu_ratio">>, spread_or_null},
     {<<"bar">>, number_or_null}];
form(<<"truth">>) ->
    [{<<"pace">>, [<<"rest">>, <<"saturation">>]}, {<<"samples">>, number}, {<<"base_samples">>, number}, {<<"latency_us">>, percentiles}, {<<"base_us">>, percentiles},
     {<<"outside_us">>, number}];
form(<<"big">>) ->
    [
        {<<"figure">>, text},
        {<<"value">>, number},
        {<<"shape">>, [<<"one">>, <<"thousand">>, <<"orphans">>]},
        {<<"size">>, number},
        {<<"process_limit">>, number},
        {<<"otp">>, text},
        {<<"bar">>, number_or_null},
        {<<"holds">>, [true, false, null, <<"unclear">>]}
    ];
form(Bench) when Bench =:= <<"cost">>; Bench =:= <<"ping">> ->
    [
        {<<"what">>, text},
        {<<"arm">>, [atom_to_binary(Arm) || Arm <- lineage_bench_arm:all()]},
        {<<"base">>, [atom_to_binary(Arm) || Arm <- lineage_bench_arm:all()]},
        {<<"table">>, [<<"fresh">>, <<"aged">>]},
        {<<"process_limit">>, number},
        {<<"otp">>, text},
        {<<"workers">>, number},
        {<<"live">>, number},
        {<<"rounds">>, number},
        {<<"ops">>, number},
        {<<"ns_per_op">>, number},
        {<<"ratio">>, spread},
        {<<"cpu_ratio">>, spread},
        {<<"ratio_untraced">>, number},
        {<<"bar">>, number_or_null},
        {<<"holds">>, [true, false, null, <<"unclear">>]}
    ].

%% What lines of latencies have in common.
timed() ->
    [
        {<<"callers">>, number},
        {<<"pace">>, [<<"rest">>, <<"saturation">>]},
        {<<"rounds">>, number},
        {<<"otp">>, text},
        {<<"samples">>, number},
        {<<"failed">>, number},
        {<<"per_s">>, number},
        {<<"latency_us">>, percentiles},
        {<<"overhead_us">>, verdicts},
        {<<"target_us">>, number},
        {<<"curve">>, curve}
    ].

is(number, Value) -> is_number(Value) andalso Value >= 0;
is(difference, Value) -> is_number(Value);
is(number_or_null, Value) -> Value =:= null orelse is(number, Value);
is(spread_or_null, Value) -> Value =:= null orelse is(spread, Value);
is(text, Value) -> is_binary(Value) andalso Value =/= <<>>;
is(spread, #{<<"median">> := M, <<"q1">> := Q1, <<"q3">> := Q3, <<"low">> := L, <<"high">> := H}) ->
    Q1 =< M andalso M =< Q3 andalso L =< H;
is(percentiles, #{<<"p50">> := P50, <<"p99">> := P99, <<"p999">> := P999} = Figures) ->
    intervals(Figures) andalso ascending([V || #{<<"value">> := V} <- [P50, P99, P999]]);
is(verdicts, null) ->
    true;
is(verdicts, #{<<"p50">> := _, <<"p99">> := _, <<"p999">> := _} = Figures) ->
    intervals(Figures) andalso lists:all(fun verdict/1, maps:values(Figures));
is(curve, [_ | _] = Curve) ->
    lists:all(fun([P, Us]) -> is(number, P) andalso P < 100 andalso is(number, Us) end, Curve) andalso
        ascending([Us || [_, Us] <- Curve]);
is(Values, Value) when is_list(Values) -> lists:member(Value, Values);
is(_, _) -> false.

intervals(Figures) ->
    lists:all(fun interval/1, maps:values(Figures)).

%% An end that there are too few samples for is null.
interval(#{<<"value">> := V, <<"low">> := L, <<"high">> := H}) ->
    is_number(V) andalso (L =:= null orelse L =< V) andalso (H =:= null orelse V =< H).

ascending(Values) ->
    Values =:= lists:sort(Values).

verdict(#{<<"verdict">> := <<"more">>, <<"more">> := N}) -> is_integer(N) andalso N > 0;
verdict(#{<<"verdict">> := Verdict, <<"more">> := null}) -> Verdict =:= <<"pass">> orelse Verdict =:= <<"fail">>;
verdict(_) -> false.

%% Decodes one JSON value that takes the whole text; raises on anything else. (OTP has no decoder before 27.)
-spec decode(binary()) -> value().
decode(Text) ->
    {Value, <<>>} = value(Text),
    Value.

value(<<"{}", Rest/binary>>) -> {#{}, Rest};
value(<<"{", Rest/binary>>) -> members(Rest, #{});
value(<<"[]", Rest/binary>>) -> {[], Rest};
value(<<"[", Rest/binary>>) -> elements(Rest, []);
value(<<"\"", Rest/binary>>) -> string(Rest, <<>>);
value(<<"true", Rest/binary>>) -> {true, Rest};
value(<<"false", Rest/binary>>) -> {false, Rest};
value(<<"null", Rest/binary>>) -> {null, Rest};
value(Text) -> number(Text).

members(Text, Map) ->
    {Key, <<":", AfterColon/binary>>} = value(Text),
    true = is_binary(Key) andalso not is_map_key(Key, Map),
    case value(AfterColon) of
        {Value, <<",", Rest/binary>>} -> members(Rest, Map#{Key => Value});
        {Value, <<"}", Rest/binary>>} -> {Map#{Key => Value}, Rest}
    end.

elements(Text, List) ->
    case value(Text) of
        {Value, <<",", Rest/binary>>} -> elements(Rest, [Value | List]);
        {Value, <<"]", Rest/binary>>} -> {lists:reverse([Value | List]), Rest}
    end.

string(<<"\"", Rest/binary>>, Text) -> {Text, Rest};
string(<<"\\u", Code:4/binary, Rest/binary>>, Text) -> string(Rest, <<Text/binary, (binary_to_integer(Code, 16))/utf8>>);
string(<<"\\", Char, Rest/binary>>, Text) when Char =:= $"; Char =:= $\\ -> string(Rest, <<Text/binary, Char>>);
string(<<Char/utf8, Rest/binary>>, Text) when Char >= 32, Char =/= $\\ -> string(Rest, <<Text/binary, Char/utf8>>).

number(Text) ->
    {match, [{0, Length} | _]} = re:run(Text, "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?"),
    <<Digits:Length/binary, Rest/binary>> = Text,
    case binary:match(Digits, <<".">>) of
        nomatch -> {binary_to_integer(Digits), Rest};
        _ -> {binary_to_float(Digits), Rest}
    end.

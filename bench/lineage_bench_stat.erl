%% Medians and their spread, and the JSON that the benchmarks write (OTP has no encoder before 27).
-module(lineage_bench_stat).

-export([median/1, spread/1, json/1]).

-type json() :: number() | boolean() | null | atom() | binary() | [json()] | #{atom() | binary() => json()}.

-export_type([json/0]).

%% The middle value, of an even number the mean of the two middle ones. The list must not be empty.
-spec median([number(), ...]) -> float().
median(Values) ->
    quantile(0.5, list_to_tuple(lists:sort(Values))).

%% Median, quartiles, and the 95 % interval of the median by bootstrap (1,000 resamples from a fixed seed).
-spec spread([number(), ...]) -> #{median := float(), q1 := float(), q3 := float(), low := float(), high := float()}.
spread(Values) ->
    Sorted = list_to_tuple(lists:sort(Values)),
    {Medians, _} = lists:mapfoldl(
        fun(_, Rand) -> resample(Sorted, Rand) end, rand:seed_s(exsss, {1, 2, 3}), lists:seq(1, 1000)
    ),
    Boot = list_to_tuple(lists:sort(Medians)),
    #{
        median => quantile(0.5, Sorted),
        q1 => quantile(0.25, Sorted),
        q3 => quantile(0.75, Sorted),
        low => quantile(0.025, Boot),
        high => quantile(0.975, Boot)
    }.

resample(Values, Rand0) ->
    Size = tuple_size(Values),
    {Sample, Rand} = lists:mapfoldl(
        fun(_, R0) ->
            {N, R} = rand:uniform_s(Size, R0),
            {element(N, Values), R}
        end,
        Rand0,
        lists:seq(1, Size)
    ),
    {median(Sample), Rand}.

quantile(Q, Sorted) ->
    Position = Q * (tuple_size(Sorted) - 1),
    Below = trunc(Position),
    Low = element(Below + 1, Sorted),
    High = element(min(Below + 2, tuple_size(Sorted)), Sorted),
    float(Low + (High - Low) * (Position - Below)).

%% One JSON value on one line. Keys come sorted; floats have four decimals.
-spec json(json()) -> iodata().
json(Map) when is_map(Map) ->
    Members = [[string(to_binary(Key)), $:, json(Value)] || {Key, Value} <- lists:sort(maps:to_list(Map))],
    [${, lists:join($,, Members), $}];
json(List) when is_list(List) ->
    [$[, lists:join($,, [json(Value) || Value <- List]), $]];
json(Integer) when is_integer(Integer) ->
    integer_to_binary(Integer);
json(Float) when is_float(Float) ->
    float_to_binary(Float, [{decimals, 4}]);
json(Word) when Word =:= true; Word =:= false; Word =:= null ->
    atom_to_binary(Word);
json(undefined) ->
    <<"null">>;
json(Text) ->
    string(to_binary(Text)).

to_binary(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
to_binary(Binary) when is_binary(Binary) -> Binary.

string(Binary) ->
    [$", [escape(Char) || <<Char/utf8>> <= Binary], $"].

escape($") -> <<"\\\"">>;
escape($\\) -> <<"\\\\">>;
escape(Char) when Char < 32 -> io_lib:format("\\u~4.16.0b", [Char]);
escape(Char) -> <<Char/utf8>>.

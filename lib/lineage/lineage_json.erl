%% @doc JSON for snapshots, on releases without OTP's own: objects are maps with binary keys, arrays
%% lists, strings binaries in UTF-8, `null' an atom.
-module(lineage_json).
-compile({no_auto_import, [float/1]}).

-export([encode/1, decode/1]).

-export_type([value/0]).

-type value() :: null | boolean() | number() | binary() | [value()] | #{binary() => value()}.

-spec encode(value()) -> iodata().
encode(null) -> <<"null">>;
encode(true) -> <<"true">>;
encode(false) -> <<"false">>;
encode(Integer) when is_integer(Integer) -> integer_to_binary(Integer);
encode(Float) when is_float(Float) -> float_to_binary(Float, [{decimals, 6}, compact]);
encode(Text) when is_binary(Text) -> [$", [escape(C) || <<C/utf8>> <= Text], $"];
encode(List) when is_list(List) -> [$[, lists:join($,, [encode(V) || V <- List]), $]];
encode(Map) when is_map(Map) ->
    Pairs = [[encode(K), $:, encode(V)] || {K, V} <- lists:sort(maps:to_list(Map))],
    [${, lists:join(<<",\n">>, Pairs), $}].

escape($") -> <<"\\\"">>;
escape($\\) -> <<"\\\\">>;
escape($\n) -> <<"\\n">>;
escape($\r) -> <<"\\r">>;
escape($\t) -> <<"\\t">>;
escape(C) when C < 16#20; C =:= 16#7f -> io_lib:format("\\u~4.16.0b", [C]);
escape(C) -> <<C/utf8>>.

%% @doc `error' when it is no JSON, or more than one value.
-spec decode(binary()) -> {ok, value()} | error.
decode(Text) ->
    try value(skip(Text)) of
        {Value, Rest} ->
            case skip(Rest) of
                <<>> -> {ok, Value};
                _ -> error
            end
    catch
        error:_ -> error
    end.

value(<<"null", Rest/binary>>) -> {null, Rest};
value(<<"true", Rest/binary>>) -> {true, Rest};
value(<<"false", Rest/binary>>) -> {false, Rest};
value(<<$", Rest/binary>>) -> string(Rest, []);
value(<<$[, Rest/binary>>) -> array(skip(Rest), []);
value(<<${, Rest/binary>>) -> object(skip(Rest), #{});
value(Text) -> number(Text).

array(<<$], Rest/binary>>, []) ->
    {[], Rest};
array(Text, Values) ->
    {Value, After} = value(Text),
    case skip(After) of
        <<$,, Rest/binary>> -> array(skip(Rest), [Value | Values]);
        <<$], Rest/binary>> -> {lists:reverse(Values, [Value]), Rest}
    end.

object(<<$}, Rest/binary>>, Map) when map_size(Map) =:= 0 ->
    {Map, Rest};
object(<<$", Text/binary>>, Map) ->
    {Key, AfterKey} = string(Text, []),
    <<$:, ValueText/binary>> = skip(AfterKey),
    {Value, After} = value(skip(ValueText)),
    Map1 = Map#{Key => Value},
    case skip(After) of
        <<$,, Rest/binary>> -> object(skip(Rest), Map1);
        <<$}, Rest/binary>> -> {Map1, Rest}
    end.

string(<<$", Rest/binary>>, Acc) ->
    {unicode:characters_to_binary(lists:reverse(Acc)), Rest};
string(<<"\\u", Hex:4/binary, Rest/binary>>, Acc) ->
    code_unit(binary_to_integer(Hex, 16), Rest, Acc);
string(<<$\\, C, Rest/binary>>, Acc) ->
    string(Rest, [unescape(C) | Acc]);
string(<<C/utf8, Rest/binary>>, Acc) when C >= 16#20 ->
    string(Rest, [C | Acc]).

%% Characters beyond the first plane come as a pair.
code_unit(High, <<"\\u", Hex:4/binary, Rest/binary>>, Acc) when High >= 16#D800, High < 16#DC00 ->
    Low = binary_to_integer(Hex, 16),
    string(Rest, [16#10000 + (High - 16#D800) * 16#400 + (Low - 16#DC00) | Acc]);
code_unit(C, Rest, Acc) ->
    string(Rest, [C | Acc]).

unescape($n) -> $\n;
unescape($r) -> $\r;
unescape($t) -> $\t;
unescape($b) -> $\b;
unescape($f) -> $\f;
unescape(C) when C =:= $"; C =:= $\\; C =:= $/ -> C.

number(Text) ->
    {match, [{0, Length}]} = re:run(Text, "^-?[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]+)?", [{capture, first}]),
    <<Digits:Length/binary, Rest/binary>> = Text,
    case re:run(Digits, "[.eE]", [{capture, none}]) of
        nomatch -> {binary_to_integer(Digits), Rest};
        match -> {float(Digits), Rest}
    end.

%% Erlang wants a fraction before an exponent.
float(Digits) ->
    try binary_to_float(Digits)
    catch
        error:badarg ->
            [Mantissa, Exponent] = re:split(Digits, "[eE]"),
            binary_to_float(<<Mantissa/binary, ".0e", Exponent/binary>>)
    end.

skip(<<C, Rest/binary>>) when C =:= $\s; C =:= $\n; C =:= $\r; C =:= $\t -> skip(Rest);
skip(Text) -> Text.

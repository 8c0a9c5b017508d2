%% @doc Macros of one Erlang source, on its tokens. Those that it defines are expanded, on the line of the use; others
%% become an atom, or nothing between strings.
-module(lineage_audit_macros).

-export([new/0, define/3, undefine/2, first/1, expand/2, arguments/1]).

-export_type([macros/0, token/0]).

-type token() :: tuple().                       % of erl_scan, with lines only
-type key() :: {Name :: atom(), arity() | none}.
-type value() :: {Parameters :: none | [atom()], [token()]}.
-type macros() :: #{key() => value(),
                    module => atom(), function => atom(),           % where the tokens stand
                    first => #{key() => value()}}.                  % the first of several definitions

%% What stands for a macro that is not known here; no call of it is anyone's.
-define(UNKNOWN, '?').

-spec new() -> macros().
new() -> #{module => ?UNKNOWN, function => ?UNKNOWN, first => #{}}.

%% @doc After `-define(Name'. A body runs to the parenthesis before the dot.
-spec define(atom(), [token()], macros()) -> macros().
define(Name, [{',', _} | Rest], Macros) ->
    store({Name, none}, {none, body(Rest)}, Macros);
define(Name, [{'(', _} = Open | Rest], Macros) ->
    case arguments([Open | Rest]) of
        {Arguments, [{',', _} | Body]} ->
            Parameters = [P || [{var, _, P}] <- Arguments],
            store({Name, length(Parameters)}, {Parameters, body(Body)}, Macros);
        _ -> Macros
    end;
define(_Name, _Tokens, Macros) ->
    Macros.

store(Key, Value, #{first := First} = Macros) ->
    case Macros of
        #{Key := Before} when not is_map_key(Key, First) -> Macros#{Key := Value, first := First#{Key => Before}};
        _ -> Macros#{Key => Value}
    end.

body(Tokens) ->
    case lists:reverse(Tokens) of
        [{dot, _}, {')', _} | Body] -> lists:reverse(Body);
        _ -> []
    end.

%% @doc After `-undef(Name'.
-spec undefine(atom(), macros()) -> macros().
undefine(Name, #{first := First} = Macros) ->
    Other = fun({N, _}, _) -> N =/= Name; (_, _) -> true end,
    (maps:filter(Other, Macros))#{first := maps:filter(Other, First)}.

%% @doc The same with the first definition of each macro that has two.
-spec first(macros()) -> macros().
first(#{first := First} = Macros) -> maps:merge(Macros, First).

%% @doc The tokens of a form without macros.
-spec expand([token()], macros()) -> [token()].
expand(Tokens, Macros) ->
    case lists:keymember('?', 1, Tokens) of
        true -> expand(Tokens, Macros, []);
        false -> Tokens
    end.

%% `Before' holds what was expanded, the last token first.
expand(Tokens, Macros, Before) -> lists:reverse(expand(Tokens, Macros, [], Before)).

expand([{'?', _}, {'?', _}, {var, L, Name} | Rest], Macros, Active, Before) ->
    expand(Rest, Macros, Active, [{string, L, atom_to_list(Name)} | Before]);
expand([{'?', _}, {Kind, L, Name} | Rest], Macros, Active, Before) when Kind =:= atom; Kind =:= var ->
    {Tokens, After} = macro(Name, L, Rest, Macros, Active, Before),
    expand(After, Macros, Active, lists:reverse(Tokens, Before));
expand([Token | Rest], Macros, Active, Before) ->
    expand(Rest, Macros, Active, [Token | Before]);
expand([], _Macros, _Active, Before) ->
    Before.

macro(Name, L, Rest, Macros, Active, Before) ->
    {Arguments, After} = arguments(Rest),
    case {use(Name, Arguments, Macros, Active), use(Name, none, Macros, Active)} of
        {{Key, Parameters, Body}, _} when is_list(Parameters) ->
            Given = [inner(A, Macros, Active) || A <- Arguments],
            Tokens = substitute(Body, L, maps:from_list(lists:zip(Parameters, Given))),
            {inner(Tokens, Macros, [Key | Active]), After};
        {_, {Key, none, Body}} ->
            {inner([setelement(2, T, L) || T <- Body], Macros, [Key | Active]), Rest};
        {none, none} ->
            {[predefined(Name, L, Macros, Before, Rest)], Rest}
    end.

inner(Tokens, Macros, Active) -> lists:reverse(expand(Tokens, Macros, Active, [])).

use(Name, Arguments, Macros, Active) ->
    Key = {Name, if is_list(Arguments) -> length(Arguments); true -> none end},
    case Macros of
        #{Key := {Parameters, Body}} ->
            case lists:member(Key, Active) of
                true -> none;
                false -> {Key, Parameters, Body}
            end;
        _ -> none
    end.

substitute([{'?', _}, {'?', _}, {var, _, Name} | Rest], L, Given) when is_map_key(Name, Given) ->
    [{string, L, atom_to_list(Name)} | substitute(Rest, L, Given)];
substitute([{var, _, Name} | Rest], L, Given) when is_map_key(Name, Given) ->
    map_get(Name, Given) ++ substitute(Rest, L, Given);
substitute([Token | Rest], L, Given) ->
    [setelement(2, Token, L) | substitute(Rest, L, Given)];
substitute([], _L, _Given) ->
    [].

predefined('MODULE', L, #{module := Module}, _, _) -> {atom, L, Module};
predefined('FUNCTION_NAME', L, #{function := Function}, _, _) -> {atom, L, Function};
predefined('LINE', L, _, _, _) -> {integer, L, L};
predefined('FUNCTION_ARITY', L, _, _, _) -> {integer, L, 0};
predefined('OTP_RELEASE', L, _, _, _) -> {integer, L, 0};
predefined('FILE', L, _, _, _) -> {string, L, ""};
predefined('MODULE_STRING', L, _, _, _) -> {string, L, ""};
predefined(_, L, _, [{string, _, _} | _], _) -> {string, L, ""};
predefined(_, L, _, _, [{string, _, _} | _]) -> {string, L, ""};
predefined(_, L, _, _, [{'?', _} | _]) -> {string, L, ""};
predefined(_, L, _, _, _) -> {atom, L, ?UNKNOWN}.

%% @doc The tokens of each argument between parentheses, and what follows; `none' where no parenthesis opens.
-spec arguments([token()]) -> {[[token()]] | none, [token()]}.
arguments([{'(', _}, {')', _} | Rest]) -> {[], Rest};
arguments([{'(', _} | Rest] = All) -> arguments(Rest, [], [], [], All);
arguments(Rest) -> {none, Rest}.

arguments([{',', _} | Rest], [], Argument, Arguments, All) ->
    arguments(Rest, [], [], [lists:reverse(Argument) | Arguments], All);
arguments([{')', _} | Rest], [], Argument, Arguments, _All) ->
    {lists:reverse(Arguments, [lists:reverse(Argument)]), Rest};
arguments([{dot, _} | _], _Open, _Argument, _Arguments, All) ->
    {none, All};
arguments([Token | Rest], Open, Argument, Arguments, All) ->
    arguments(Rest, nest(Token, Rest, Open), [Token | Argument], Arguments, All);
arguments([], _Open, _Argument, _Arguments, All) ->
    {none, All}.

%% `fun' opens a block when a clause follows, and none in `fun f/1' and `fun M:f/1'.
nest({Open, _}, _, Stack) when Open =:= '('; Open =:= '['; Open =:= '{'; Open =:= '<<'; Open =:= 'begin'; Open =:= 'if';
                               Open =:= 'case'; Open =:= 'receive'; Open =:= 'try' ->
    [Open | Stack];
nest({'fun', _}, [{'(', _} | _], Stack) -> ['fun' | Stack];
nest({'fun', _}, [{var, _, _}, {'(', _} | _], Stack) -> ['fun' | Stack];
nest({Close, _}, _, [_ | Stack]) when Close =:= ')'; Close =:= ']'; Close =:= '}'; Close =:= '>>'; Close =:= 'end' ->
    Stack;
nest(_, _, Stack) -> Stack.

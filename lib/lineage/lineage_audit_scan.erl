%% @doc Erlang source as abstract forms, without compiling it: headers and macros may be missing.
%%
%% Every branch of `-ifdef' is read. Macros that the file itself defines are expanded, their tokens on the line
%% of the use; others become an atom. A function that does not parse for want of a macro is read roughly: its
%% calls are picked out of its tokens. One that could not be right under any macro is reported as damage, and
%% is read roughly too. Attributes that hold no code are left out, `-record' and `-define' among them.
-module(lineage_audit_scan).

-export([forms/1]).

-export_type([damage/0]).

-type damage() :: {Line :: pos_integer(), Message :: binary()}.

-define(UNKNOWN, '?').

%% @doc The forms of a file, in its order, and what in it cannot be read.
-spec forms(binary()) -> {[erl_parse:abstract_form()], [damage()]}.
forms(Text) ->
    scan(characters(code(Text)), 1, lineage_audit_macros:new(), [], []).

%% The line that tells a shell to run the file is none of it.
code(<<"#!", _/binary>> = Text) -> <<"%%", Text/binary>>;
code(Text) -> Text.

characters(Text) ->
    case epp:read_encoding_from_binary(Text) of
        latin1 -> binary_to_list(plain_strings(Text));
        _ ->
            case unicode:characters_to_list(plain_strings(Text)) of
                Chars when is_list(Chars) -> Chars;
                _ -> binary_to_list(Text)
            end
    end.

%% Triple-quoted strings came with OTP 27; an older scanner would take the quotes within for ends of strings.
%% They are made empty, with as many lines.
plain_strings(Text) ->
    case binary:match(Text, <<"\"\"\"\n">>) of
        nomatch -> Text;
        {At, 4} ->
            <<Before:At/binary, "\"\"\"", Rest/binary>> = Text,
            case re:run(Rest, "\n[ \t]*\"\"\"", [{capture, first}]) of
                {match, [{End, Length}]} ->
                    <<Inside:End/binary, Close:Length/binary, After/binary>> = Rest,
                    Lines = binary:copy(<<"\n">>, lines(Inside) + lines(Close)),
                    <<Before/binary, "\"", Lines/binary, "\"", (plain_strings(After))/binary>>;
                nomatch -> Text
            end
    end.

lines(Text) -> length(binary:matches(Text, <<"\n">>)).

scan(Chars, Line, Macros, Forms, Damage) ->
    case tokens(Chars, Line) of
        {ok, Tokens, Next, Rest} ->
            {NewForms, NewMacros, NewDamage} = form(Tokens, Macros),
            scan(Rest, Next, NewMacros, NewForms ++ Forms, NewDamage ++ Damage);
        {error, At, Message} ->
            {Skipped, Rest} = skip_form(Chars, 0),
            scan(Rest, Line + Skipped, Macros, Forms, [{At, Message} | Damage]);
        eof ->
            {lists:reverse(Forms), lists:reverse(Damage)}
    end.

tokens(Chars, Line) ->
    Result = case erl_scan:tokens([], Chars, Line, [{reserved_word_fun, fun reserved/1}]) of
                 {more, Continuation} -> erl_scan:tokens(Continuation, eof, Line);
                 Done -> Done
             end,
    case Result of
        {done, {ok, Tokens, Next}, eof} -> {ok, Tokens, Next, []};
        {done, {ok, Tokens, Next}, Rest} -> {ok, Tokens, Next, Rest};
        {done, {error, {At, Module, Reason}, _}, _} -> {error, At, message(Module, Reason)};
        {done, {eof, _}, _} -> eof
    end.

%% Words that became reserved with OTP 25 and 27 are names in older code: they are tried as names first.
reserved('maybe') -> false;
reserved('else') -> false;
reserved(Word) -> erl_scan:reserved_word(Word).

skip_form(".\n" ++ Rest, Lines) -> {Lines + 1, Rest};
skip_form("\n" ++ Rest, Lines) -> skip_form(Rest, Lines + 1);
skip_form([_ | Rest], Lines) -> skip_form(Rest, Lines);
skip_form([], Lines) -> {Lines, []}.

message(Module, Reason) -> unicode:characters_to_binary(Module:format_error(Reason)).

%% Forms

form([{'-', _}, {atom, _, define}, {'(', _}, {Kind, _, Name} | Rest], Macros) when Kind =:= atom; Kind =:= var ->
    {[], lineage_audit_macros:define(Name, Rest, Macros), []};
form([{'-', _}, {atom, _, undef}, {'(', _}, {_, _, Name} | _], Macros) ->
    {[], lineage_audit_macros:undefine(Name, Macros), []};
form([{'-', _}, {atom, _, Name} | _] = Tokens, Macros)
  when Name =:= module; Name =:= export; Name =:= import; Name =:= compile; Name =:= behaviour; Name =:= behavior ->
    case erl_parse:parse_form(lineage_audit_macros:expand(Tokens, Macros)) of
        {ok, {attribute, _, module, Module} = Form} when is_atom(Module) -> {[Form], Macros#{module := Module}, []};
        {ok, {attribute, _, module, {Module, _}} = Form} -> {[Form], Macros#{module := Module}, []};
        {ok, Form} -> {[Form], Macros, []};
        {error, _} -> {[], Macros, []}
    end;
form([{'-', _} | _], Macros) ->
    {[], Macros, []};
form([First | _] = Tokens, Macros) ->
    Function = case First of
                   {atom, _, Name} -> Name;
                   _ -> ?UNKNOWN
               end,
    {Forms, Damage} = function(Tokens, Macros#{function := Function}),
    {others(Tokens, Macros#{function := Function}, Forms), Macros, Damage};
form([], Macros) ->
    {[], Macros, []}.

function(Tokens, Macros) ->
    Expanded = lineage_audit_macros:expand(Tokens, Macros),
    case parse(Expanded) of
        {ok, Form} -> {[Form], []};
        {error, {At, Module, Reason}} ->
            Damage = case lists:keymember('?', 1, Tokens) of
                         true -> [];
                         false -> [{At, message(Module, Reason)}]
                     end,
            {[rough(Expanded)], Damage}
    end.

%% A macro that has two definitions is one of two branches: a function that uses it is read with either.
others(Tokens, Macros, Forms) ->
    case lists:keymember('?', 1, Tokens) andalso lineage_audit_macros:first(Macros) of
        None when None =:= false; None =:= Macros -> Forms;
        First ->
            {Others, _} = function(Tokens, First),
            lists:usort(Others ++ Forms)
    end.

parse(Tokens) ->
    case erl_parse:parse_form(Tokens) of
        {ok, Form} -> {ok, Form};
        {error, Reason} ->
            case modern(Tokens) of
                Tokens -> {error, Reason};
                Modern ->
                    case erl_parse:parse_form(Modern) of
                        {ok, Form} -> {ok, Form};
                        {error, _} -> {error, Reason}
                    end
            end
    end.

%% What newer releases write, in words that OTP 25 has: maybe, sigils, strict and zipped generators.
modern([{atom, L, 'maybe'} | Rest]) -> [{'maybe', L} | modern(Rest)];
modern([{atom, L, 'else'} | Rest]) -> [{'else', L} | modern(Rest)];
modern([{'~', _}, {string, _, _} = String | Rest]) -> [String | modern(Rest)];
modern([{'~', _}, {_, _, _}, {string, _, _} = String | Rest]) -> [String | modern(Rest)];
modern([{'<', L}, {':', _}, {'-', _} | Rest]) -> [{'<-', L} | modern(Rest)];
modern([{'<', L}, {':', _}, {'=', _} | Rest]) -> [{'<=', L} | modern(Rest)];
modern([{'&', L}, {'&', _} | Rest]) -> [{',', L} | modern(Rest)];
modern([Token | Rest]) -> [Token | modern(Rest)];
modern([]) -> [].

%% Rough reading

%% A function whose only clause is a list of the calls found, each with the arguments that parse.
rough([{_, L, _} = First | Rest] = Tokens) ->
    Name = case First of
               {atom, _, Atom} -> Atom;
               _ -> ?UNKNOWN
           end,
    Arity = case lineage_audit_macros:arguments(Rest) of
                {Head, _} when is_list(Head) -> length(Head);
                _ -> 0
            end,
    {function, L, Name, Arity, [{clause, L, [], [], calls(Tokens)}]};
rough([{_, L} | _] = Tokens) ->
    {function, L, ?UNKNOWN, 0, [{clause, L, [], [], calls(Tokens)}]}.

calls([{'#', _}, {atom, _, _} | Rest]) -> calls(Rest);
calls([{'fun', L}, {atom, _, _} = M, {':', _}, {atom, _, _} = F, {'/', _}, {integer, _, _} = A | Rest]) ->
    [{'fun', L, {function, M, F, A}} | calls(Rest)];
calls([{'fun', L}, {atom, _, F}, {'/', _}, {integer, _, A} | Rest]) ->
    [{'fun', L, {function, F, A}} | calls(Rest)];
calls([{atom, L, _} = M, {':', _}, {atom, _, _} = F, {'(', _} = Open | Rest]) ->
    call(L, {remote, L, M, F}, [Open | Rest]);
calls([{':', _}, {atom, _, _} | Rest]) ->
    calls(Rest);
calls([{atom, L, _} = F, {'(', _} = Open | Rest]) ->
    call(L, F, [Open | Rest]);
calls([_ | Rest]) ->
    calls(Rest);
calls([]) ->
    [].

call(L, Callee, Rest) ->
    case lineage_audit_macros:arguments(Rest) of
        {Arguments, _After} when is_list(Arguments) ->
            [{call, L, Callee, [argument(A, L) || A <- Arguments]} | calls(Rest)];
        {none, _} -> calls(Rest)
    end.

argument(Tokens, L) ->
    case erl_parse:parse_exprs(Tokens ++ [{dot, L}]) of
        {ok, [Expression]} -> Expression;
        _ -> {var, L, '_'}
    end.

%% @doc What names mean at a place of an Elixir source: the aliases and imports that hold there, the
%% module and the function that it stands in.
%%
%% All of it is lexical: an environment is handed down into a block, and what the block adds to it ends
%% with the block. What a `use' brings in is not known, since nothing is expanded.
-module(lineage_audit_ex_env).

-export([new/0, directive/3, attribute/3, module/2, owner/3]).
-export([enter_module/3, enter_implementation/4, enter_function/3, code/1, held/2, where/1, is_place/2]).

-export_type([ast/0, env/0]).

%% Elixir's quoted form: `{Name | Ast, Meta, Args | Context}' for calls and variables; pairs, lists,
%% atoms, numbers and binaries stand for themselves.
-type ast() :: {atom() | tuple(), [{atom(), term()}], [ast()] | atom()} | {ast(), ast()} | [ast()]
             | atom() | number() | binary().
-type filter() :: all | {only | except, [{atom(), arity()}]}.
-opaque env() :: #{module := module() | undefined,
                   function := {atom(), arity()} | undefined,
                   code := [ast()],                       % the function's arguments and body
                   application := boolean(),              % the module is an application's callback module
                   aliases := #{atom() => module()},      % first segment => what it stands for
                   imports := [{module(), filter()}],     % the last one first
                   attributes := #{atom() => module() | [ast()]},   % @name that holds a literal
                   locals := #{{atom(), arity()} => []}}. % what the module defines

%% @doc The environment at the top of a file.
-spec new() -> env().
new() ->
    #{module => undefined, function => undefined, code => [], application => false, aliases => #{},
      imports => [{'Elixir.Kernel', all}], attributes => #{}, locals => #{}}.

%% @doc The environment after a `use', `alias', `require' or `import'. One that is not literal changes
%% nothing.
-spec directive(alias | require | import | use, [ast()], env()) -> env().
directive(Name, [{{'.', _, [Base, '{}']}, _, Parts} | _Options], Env) ->
    Each = fun(Part, E) ->
               case {module(Base, Env), segments(Part)} of
                   {undefined, _} -> E;
                   {_, undefined} -> E;
                   {Module, Segments} -> directive(Name, [concat([Module | Segments])], E)
               end
           end,
    lists:foldl(Each, Env, Parts);
directive(Name, [Target], Env) ->
    directive(Name, [Target, []], Env);
directive(Name, [Target, Options], Env) ->
    case module(Target, Env) of
        undefined -> Env;
        Module -> named(Name, Module, Options, Env)
    end;
directive(_Name, _Args, Env) ->
    Env.

named(alias, Module, Options, Env) ->
    add_alias(option(as, Options, {'__aliases__', [], [last_segment(Module)]}), Module, Env);
named(require, Module, Options, Env) ->
    add_alias(option(as, Options, undefined), Module, Env);
named(import, Module, Options, Env) ->
    import(Module, option(only, Options, undefined), option(except, Options, undefined),
           add_alias(option(as, Options, undefined), Module, Env));
named(use, 'Elixir.Application', _Options, Env) ->
    Env#{application := true};
named(use, _Module, _Options, Env) ->
    Env.

add_alias({'__aliases__', _, [Name]}, Module, #{aliases := Aliases} = Env) when is_atom(Name) ->
    Env#{aliases := Aliases#{Name => Module}};
add_alias(_NoName, _Module, Env) ->
    Env.

%% A later import of a module stands for the earlier one, but `except' takes from an earlier `only'.
import(Module, Only, Except, #{imports := Imports} = Env) ->
    Filter = filter(Only, Except, proplists:get_value(Module, Imports, all)),
    Env#{imports := [{Module, Filter} | lists:keydelete(Module, 1, Imports)]}.

filter(Only, _Except, _Earlier) when Only =:= macros; Only =:= sigils -> {only, []};
filter(Only, _Except, _Earlier) when is_list(Only) -> {only, Only};
filter(_All, Except, {only, Named}) when is_list(Except) -> {only, Named -- Except};
filter(_All, Except, _Earlier) when is_list(Except) -> {except, Except};
filter(_All, _Except, _Earlier) -> all.

option(Key, Options, Default) when is_list(Options) ->
    case lists:keyfind(Key, 1, Options) of
        {Key, Value} -> Value;
        false -> Default
    end;
option(_Key, _NotLiteral, Default) ->
    Default.

%% @doc The environment after `@name value'.
-spec attribute(atom(), ast(), env()) -> env().
attribute(behaviour, Value, Env) ->
    case module(Value, Env) of
        'Elixir.Application' -> Env#{application := true};
        application -> Env#{application := true};
        _ -> Env
    end;
attribute(Name, Value, #{attributes := Attributes} = Env) when is_list(Value) ->
    Env#{attributes := Attributes#{Name => Value}};
attribute(Name, Value, #{attributes := Attributes} = Env) ->
    case module(Value, Env) of
        undefined -> Env#{attributes := maps:remove(Name, Attributes)};
        Module -> Env#{attributes := Attributes#{Name => Module}}
    end.

%% @doc The module that an expression names literally: an alias, an atom, `__MODULE__', or an attribute
%% that holds one of these.
-spec module(ast(), env()) -> module() | undefined.
module(Name, _Env) when is_boolean(Name); Name =:= nil ->
    undefined;
module(Name, _Env) when is_atom(Name) ->
    Name;
module({'__MODULE__', _, Context}, #{module := Module}) when is_atom(Context) ->
    Module;
module({'@', _, [{Name, _, Context}]}, Env) when is_atom(Context) ->
    case held(Name, Env) of
        Module when is_atom(Module) -> Module;
        _List -> undefined
    end;
module({'__aliases__', _, ['Elixir' | Segments]}, _Env) ->
    concat(Segments);
module({'__aliases__', _, [First]}, #{aliases := Aliases}) when is_map_key(First, Aliases) ->
    maps:get(First, Aliases);
module({'__aliases__', _, [First | Segments]}, #{aliases := Aliases}) when is_atom(First) ->
    concat([maps:get(First, Aliases, First) | Segments]);
module({'__aliases__', _, [First | Segments]}, Env) ->
    case module(First, Env) of
        undefined -> undefined;
        Module -> concat([Module | Segments])
    end;
module(_Other, _Env) ->
    undefined.

%% The segments of a plain alias, before anything that is known of it.
segments({'__aliases__', _, Segments}) ->
    case lists:all(fun is_atom/1, Segments) of
        true -> Segments;
        false -> undefined
    end;
segments(_Other) ->
    undefined.

concat(Segments) ->
    list_to_atom(lists:append(["Elixir" | [[$. | plain(atom_to_list(S))] || S <- Segments, S =/= 'Elixir']])).

plain("Elixir." ++ Name) -> Name;
plain(Name) -> Name.

last_segment(Module) ->
    list_to_atom(lists:last(string:split(atom_to_list(Module), ".", all))).

%% @doc Whose function a call without a module is: `local' when the module defines it, `undefined' when
%% it is nobody's that the audit knows.
-spec owner(atom(), arity(), env()) -> module() | local | undefined.
owner(Name, Arity, #{locals := Locals}) when is_map_key({Name, Arity}, Locals) ->
    local;
owner(Name, Arity, #{imports := Imports}) ->
    case [Module || {Module, Filter} <- Imports, imports(Filter, Module, Name, Arity)] of
        [Module | _] -> Module;
        [] -> undefined
    end.

imports({only, Named}, _Module, Name, Arity) ->
    lists:member({Name, Arity}, Named);
imports({except, Named}, Module, Name, Arity) ->
    not lists:member({Name, Arity}, Named) andalso exports(Module, Name, Arity);
imports(all, Module, Name, Arity) ->
    exports(Module, Name, Arity).

%% What a module exports is known as far as it matters here.
exports('Elixir.Kernel', apply, Arity) -> Arity =:= 2 orelse Arity =:= 3;
exports(Module, Name, Arity) -> lineage_calls:find(Module, Name, Arity, unknown) =/= none.

%% @doc `{Inside, After}' of a `defmodule' or `defprotocol': a nested module is named after the one
%% around it, which has an alias for it from then on.
-spec enter_module(ast(), ast(), env()) -> {env(), env()}.
enter_module({'__aliases__', _, [First | Segments]} = Name, Body, #{module := Around} = Env) when
      Around =/= undefined, is_atom(First), First =/= 'Elixir' ->
    Nested = concat([Around, First]),
    After = add_alias({'__aliases__', [], [First]}, Nested, Env),
    {inside(case Name of {_, _, [_]} -> Nested; _ -> concat([Nested | Segments]) end, Body, After), After};
enter_module(Name, Body, Env) ->
    {inside(module(Name, Env), Body, Env), Env}.

%% @doc Inside a `defimpl'. One for several types is named after the first.
-spec enter_implementation(ast(), ast(), ast(), env()) -> env().
enter_implementation(Protocol, For, Body, Env) ->
    Type = case For of
               [First | _] -> module(First, Env);
               _ -> module(For, Env)
           end,
    case {module(Protocol, Env), Type} of
        {P, T} when P =:= undefined; T =:= undefined -> inside(undefined, Body, Env);
        {P, T} -> inside(concat([P, T]), Body, Env)
    end.

inside(Module, Body, Env) ->
    Locals = maps:from_list([{Definition, []} || Definition <- definitions(Body)]),
    Env#{module := Module, function := undefined, code := [], application := false, attributes := #{},
         locals := Locals}.

%% Also what stands in a block of some macro: an `if', a `for', a `describe'. Nested modules and quoted
%% code define nothing here.
definitions({'__block__', _, Exprs}) ->
    lists:flatmap(fun definitions/1, Exprs);
definitions({Define, _, [Head | _]}) when
      Define =:= def; Define =:= defp; Define =:= defmacro; Define =:= defmacrop;
      Define =:= defdelegate; Define =:= defguard; Define =:= defguardp ->
    heads(Head);
definitions({Name, _, Args}) when
      is_list(Args), Name =/= quote, Name =/= defmodule, Name =/= defimpl, Name =/= defprotocol ->
    lists:append([definitions(Block) || Arg <- Args, is_list(Arg), {do, Block} <- Arg]);
definitions(_Other) ->
    [].

heads({'when', _, [Head | _]}) -> heads(Head);
heads({unquote, _, _}) -> [];
heads({Name, _, Context}) when is_atom(Name), is_atom(Context) -> [{Name, 0}];
heads({Name, _, Args}) when is_atom(Name), is_list(Args) ->
    Defaults = length([Arg || {'\\\\', _, _} = Arg <- Args]),
    [{Name, Arity} || Arity <- lists:seq(length(Args) - Defaults, length(Args))];
heads(_Other) -> [].

%% @doc Inside a function, with its arguments and body; `undefined' when its name is only made by a macro.
-spec enter_function({atom(), arity()} | undefined, Code :: [ast()], env()) -> env().
enter_function(Function, Code, Env) ->
    Env#{function := Function, code := Code}.

%% @doc The arguments and the body of the function that the place stands in.
-spec code(env()) -> [ast()].
code(#{code := Code}) ->
    Code.

%% @doc The module or the list that stands in an attribute.
-spec held(atom(), env()) -> module() | [ast()] | undefined.
held(Name, #{attributes := Attributes}) ->
    maps:get(Name, Attributes, undefined).

%% @doc The module and the function that the place stands in.
-spec where(env()) -> {module() | undefined, {atom(), arity()} | undefined}.
where(#{module := Module, function := Function}) ->
    {Module, Function}.

%% @doc Whether what the call starts with a link is supervised, since the place is in a function that a
%% supervisor calls, or that the application controller calls to have the top of a tree.
-spec is_place(mfa(), env()) -> boolean().
is_place(_Mfa, #{function := {start_link, _}}) -> true;
is_place({M, F, A}, #{function := {start, 2}, application := true}) -> lineage_calls:supervisor(M, F, A);
is_place(_Mfa, _Env) -> false.

%% @doc Goes through the quoted form of an Elixir source, and gathers the calls that create a process and
%% the functions that child specs name.
-module(lineage_audit_ex_walk).

-export([file/2]).

-define(IS_DEFINITION(D), (D =:= def orelse D =:= defp orelse D =:= defmacro orelse D =:= defmacrop)).
-define(IS_DIRECTIVE(D), (D =:= alias orelse D =:= require orelse D =:= import orelse D =:= use)).
-define(IS_TYPE(A), (A =:= spec orelse A =:= type orelse A =:= typep orelse A =:= opaque orelse
                     A =:= callback orelse A =:= macrocallback)).

-record(found, {file :: binary(), findings = [] :: [lineage_audit_ex:finding()],
                specs = [] :: [lineage_audit_ex_specs:spec()]}).

%% @doc The findings, by line, and the child specs' functions.
-spec file(lineage_audit_ex_env:ast(), File :: binary()) ->
          {[lineage_audit_ex:finding()], [lineage_audit_ex_specs:spec()]}.
file(Quoted, File) ->
    #found{findings = Findings, specs = Specs} = expr(Quoted, lineage_audit_ex_env:new(), #found{file = File}),
    ByLine = fun(#{line := A}, #{line := B}) -> A =< B end,
    {lists:sort(ByLine, lists:reverse(Findings)), lists:usort(Specs)}.

%% Of the forms of a sequence, some change what names mean in those that follow.
statement({'__block__', _, Exprs}, Env, Found) when is_list(Exprs) ->
    lists:foldl(fun(E, {Env1, Found1}) -> statement(E, Env1, Found1) end, {Env, Found}, Exprs);
statement({Name, _, Args}, Env, Found) when ?IS_DIRECTIVE(Name), is_list(Args) ->
    {lineage_audit_ex_env:directive(Name, Args, Env), exprs(Args, Env, Found)};
statement({'@', _, [{Name, _, [Value]}]}, Env, Found) when is_atom(Name) ->
    case ?IS_TYPE(Name) of
        true -> {Env, Found};
        false -> {lineage_audit_ex_env:attribute(Name, Value, Env), expr(Value, Env, Found)}
    end;
statement({Name, _, [Module, Body]}, Env, Found) when Name =:= defmodule; Name =:= defprotocol ->
    {Inside, After} = lineage_audit_ex_env:enter_module(Module, block(Body), Env),
    {After, expr(Body, Inside, Found)};
statement({defimpl, _, [Protocol | Rest]}, Env, Found) ->
    Options = lists:append([Arg || Arg <- Rest, is_list(Arg)]),
    For = proplists:get_value(for, Options, {'__MODULE__', [], nil}),
    {Env, expr(block(Options), lineage_audit_ex_env:enter_implementation(Protocol, For, block(Options), Env), Found)};
statement(Expr, Env, Found) ->
    {Env, call(Expr, Env, Found)}.

block(Body) when is_list(Body) -> proplists:get_value(do, Body, []);
block(_NoBlock) -> [].

expr(Expr, Env, Found) ->
    {_, Found1} = statement(Expr, Env, Found),
    Found1.

exprs(Exprs, Env, Found) ->
    lists:foldl(fun(E, F) -> expr(E, Env, F) end, Found, Exprs).

call({'@', _, _}, _Env, Found) ->
    Found;
call({quote, _, Args}, Env, Found) when is_list(Args) ->
    quoted(Args, Env, Found);
%% The right side is a type, or how a segment of a binary is written.
call({'::', _, [Left, _Type]}, Env, Found) ->
    expr(Left, Env, Found);
call({'|>', _, [Left, Right]}, Env, Found) ->
    piped(Left, Right, Env, Found);
call({'&', _, [{'/', _, [{_, _, Args} = Callee, Arity]}]}, Env, Found) when
      is_integer(Arity) andalso (is_atom(Args) orelse Args =:= []) ->
    case callee(Callee, Arity, Env) of
        undefined -> children(Callee, Env, Found);
        {Mfa, Meta} -> report(Mfa, unknown, Meta, Env, Found)
    end;
call({Define, _, [Head | Body]}, Env, Found) when ?IS_DEFINITION(Define) ->
    definition(Head, Body, Env, Found);
call({defdelegate, Meta, [Head, Options]}, Env, Found) when is_list(Options) ->
    delegate(Head, Options, Meta, Env, Found);
call({_Callee, _, Args} = Call, Env, Found) when is_list(Args) ->
    Found1 = children(Call, Env, specs(Call, Env, Found)),
    case callee(Call, length(Args), Env) of
        undefined -> Found1;
        {Mfa, Meta} -> named(Mfa, Args, Meta, Env, Found1)
    end;
call({_Variable, _, _Context}, _Env, Found) ->
    Found;
call(Other, Env, Found) ->
    children(Other, Env, specs(Other, Env, Found)).

children({{'.', _, [Target | _]}, _, Args}, Env, Found) when is_list(Args) ->
    exprs(Args, Env, expr(Target, Env, Found));
children({Callee, _, Args}, Env, Found) when is_tuple(Callee), is_list(Args) ->
    exprs(Args, Env, expr(Callee, Env, Found));
children({_Name, _, Args}, Env, Found) when is_list(Args) ->
    exprs(Args, Env, Found);
children({Left, Right}, Env, Found) ->
    expr(Right, Env, expr(Left, Env, Found));
children([Expr | Rest], Env, Found) when is_list(Rest) ->
    children(Rest, Env, expr(Expr, Env, Found));
children(_Leaf, _Env, Found) ->
    Found.

%% What a call, or the name in a capture, names literally, and where that name stands.
callee({{'.', _, [Target, Name]}, Meta, _}, Arity, Env) when is_atom(Name) ->
    mfa(lineage_audit_ex_env:module(Target, Env), Name, Arity, Meta);
callee({Name, Meta, _}, Arity, Env) when is_atom(Name) ->
    mfa(lineage_audit_ex_env:owner(Name, Arity, Env), Name, Arity, Meta);
callee(_Other, _Arity, _Env) ->
    undefined.

mfa(Module, _Name, _Arity, _Meta) when Module =:= undefined; Module =:= local -> undefined;
mfa(Module, Name, Arity, Meta) -> {{Module, Name, Arity}, Meta}.

%% A call of something known. Some functions name in their arguments the one that is called.
named({Kernel, apply, 3}, [Module, Name, Args], Meta, Env, Found) when
      Kernel =:= 'Elixir.Kernel'; Kernel =:= erlang ->
    applied(lineage_audit_ex_env:module(Module, Env), Name, Args, Meta, Env, Found);
named({'Elixir.Function', capture, 3}, Args, Meta, Env, Found) ->
    referred(Args, Meta, Env, Found);
named({erlang, make_fun, 3}, Args, Meta, Env, Found) ->
    referred(Args, Meta, Env, Found);
named({Module, Name, Arity} = Mfa, Args, Meta, Env, Found) ->
    Options = case lineage_calls:options(Module, Name, Arity) of
                  none -> unknown;
                  Position -> lineage_audit_ex_options:known(lists:nth(Position, Args), Env)
              end,
    report(Mfa, Options, Meta, Env, Found).

referred([Module, Name, Arity], Meta, Env, Found) ->
    case lineage_audit_ex_env:module(Module, Env) of
        Literal when Literal =/= undefined, is_atom(Name), is_integer(Arity) ->
            report({Literal, Name, Arity}, unknown, Meta, Env, Found);
        _ -> Found
    end.

%% With arguments that are not written out, the fewest that the function can have are named.
applied(Module, Name, Args, Meta, Env, Found) when Module =/= undefined, is_atom(Name) ->
    case {is_list(Args) andalso not lists:any(fun is_tail/1, Args), lineage_calls:arities(Module, Name)} of
        {true, _} -> named({Module, Name, length(Args)}, Args, Meta, Env, Found);
        {false, [Arity | _]} -> report({Module, Name, Arity}, unknown, Meta, Env, Found);
        {false, []} -> Found
    end;
applied(_Module, _Name, _Args, _Meta, _Env, Found) ->
    Found.

is_tail({'|', _, [_, _]}) -> true;
is_tail(_Other) -> false.

%% A pipe's left side is the first argument of its right side.
piped(Left, {Callee, Meta, Args}, Env, Found) when is_list(Args) ->
    call({Callee, Meta, [Left | Args]}, Env, Found);
piped(Left, {Name, Meta, _Context}, Env, Found) when is_atom(Name) ->
    call({Name, Meta, [Left]}, Env, Found);
piped(Left, Right, Env, Found) ->
    expr(Right, Env, expr(Left, Env, Found)).

definition(Head, Body, Env, Found) ->
    {Guards, Function, Args} = head(Head),
    Defaults = [Default || {'\\\\', _, [_, Default]} <- Args],
    Inside = lineage_audit_ex_env:enter_function(Function, [Args | Body], Env),
    exprs(Body, Inside, exprs(Guards ++ Defaults, Inside, Found)).

%% A pattern calls nothing, but defaults and guards do. A name made by `unquote' is not known.
head({'when', _, [Head | Guards]}) ->
    {More, Function, Args} = head(Head),
    {Guards ++ More, Function, Args};
head({unquote, _, Args}) when is_list(Args) ->
    {Args, undefined, []};
head({Name, _, Args}) when is_atom(Name), is_list(Args) ->
    {[], {Name, length(Args)}, Args};
head({Name, _, _Context}) when is_atom(Name) ->
    {[], {Name, 0}, []};
head({{unquote, _, Made}, _, Args}) when is_list(Args) ->
    {Made, undefined, Args};
head(_Other) ->
    {[], undefined, []}.

%% A delegation is a call.
delegate(Head, Options, Meta, Env, Found) ->
    {_, Function, Args} = head(Head),
    Found1 = definition(Head, [Options], Env, Found),
    case {Function, lineage_audit_ex_env:module(proplists:get_value(to, Options), Env)} of
        {undefined, _} -> Found1;
        {_, undefined} -> Found1;
        {{Name, Arity}, Module} ->
            Inside = lineage_audit_ex_env:enter_function(Function, [], Env),
            Mfa = {Module, proplists:get_value(as, Options, Name), Arity},
            case is_atom(element(2, Mfa)) of
                true -> named(Mfa, Args, Meta, Inside, Found1);
                false -> Found1
            end
    end.

%% Quoted code is called where it is expanded; only what is unquoted in it is called here.
quoted(Args, Env, Found) ->
    Options = lists:append([[O || {Key, _} = O <- Arg, Key =/= do] || Arg <- Args, is_list(Arg)]),
    Found1 = exprs([Value || {_, Value} <- Options], Env, Found),
    Bound = lists:keymember(bind_quoted, 1, Options),
    case proplists:get_value(unquote, Options, not Bound) of
        false -> Found1;
        _ -> unquoted([block(Arg) || Arg <- Args], Env, Found1)
    end.

%% Nothing is unquoted in a quotation within another.
unquoted({quote, _, Args}, _Env, Found) when is_list(Args) ->
    Found;
unquoted({Unquote, _, [Expr]}, Env, Found) when Unquote =:= unquote; Unquote =:= unquote_splicing ->
    expr(Expr, Env, Found);
unquoted({{'.', _, [Target, unquote]}, _, [Expr]}, Env, Found) ->
    unquoted(Target, Env, expr(Expr, Env, Found));
unquoted({Callee, _, Args}, Env, Found) ->
    unquoted(Args, Env, unquoted(Callee, Env, Found));
unquoted({Left, Right}, Env, Found) ->
    unquoted(Right, Env, unquoted(Left, Env, Found));
unquoted([Expr | Rest], Env, Found) ->
    unquoted(Rest, Env, unquoted(Expr, Env, Found));
unquoted(_Leaf, _Env, Found) ->
    Found.

specs(Expr, Env, #found{specs = Specs} = Found) ->
    Found#found{specs = lineage_audit_ex_specs:of_expr(Expr, Env) ++ Specs}.

report({Module, Name, Arity} = Mfa, Options, Meta, Env, Found) ->
    case lineage_calls:find(Module, Name, Arity, Options) of
        none ->
            Found;
        {start_link, Hint} ->
            case lineage_audit_ex_env:is_place(Mfa, Env) of
                true -> Found;
                false -> add(finding(Mfa, tethered, Hint, Meta, Env, #{start_link => true}), Found)
            end;
        {Severity, Hint} ->
            add(finding(Mfa, Severity, Hint, Meta, Env, #{}), Found)
    end.

finding({M, F, A} = Mfa, Severity, Hint, Meta, Env, Finding) ->
    {Module, Function} = lineage_audit_ex_env:where(Env),
    Finding#{line => proplists:get_value(line, Meta, 1), call => lineage_calls:name(M, F, A), mfa => Mfa,
             severity => Severity, module => Module, function => Function, hint => Hint}.

add(Finding, #found{file = File, findings = Findings} = Found) ->
    Found#found{findings = [Finding#{file => File} | Findings]}.

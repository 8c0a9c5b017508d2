%% @doc What an Elixir source tells of the options of a call: whether `:link' is among them.
-module(lineage_audit_ex_options).

-export([known/2]).

-type ast() :: lineage_audit_ex_env:ast().

%% @doc The atoms among the options, or `unknown' when not all are written out; then `link' alone, where it
%% is seen, is enough. A single atom counts as a list of one.
-spec known(ast(), lineage_audit_ex_env:env()) -> [atom()] | unknown.
known(Option, _Env) when is_atom(Option) ->
    [Option];
known(Expr, Env) ->
    case list(Expr, Env) of
        Options when is_list(Options) -> known([atom(O) || O <- Options]);
        _ -> unknown
    end.

known(Atoms) ->
    case lists:member(unknown, Atoms) andalso not lists:member(link, Atoms) of
        true -> unknown;
        false -> Atoms
    end.

atom(Option) when is_atom(Option) -> Option;
atom({Option, _Value}) when is_atom(Option) -> Option;
atom({'|', _, [link, _Rest]}) -> link;
atom(_Other) -> unknown.

%% Written out there, or in the attribute or the variable that is given. A variable counts when the function
%% binds it in one place only.
list({'@', _, [{Name, _, Context}]}, Env) when is_atom(Context) ->
    lineage_audit_ex_env:held(Name, Env);
list({Name, _, Context}, Env) when is_atom(Name), is_atom(Context) ->
    case [Value || {Variable, Value} <- bound(lineage_audit_ex_env:code(Env)), Variable =:= Name] of
        [Value] -> Value;
        _ -> unknown
    end;
list(Expr, _Env) ->
    Expr.

%% The variables that the arguments and the body of a function bind, once for each place; with a list where
%% one is written out there.
bound([]) ->
    [];
bound([Args | Body]) ->
    patterns(Args, bindings(Body, [])).

bindings({'=', _, [{Name, _, Context}, Value]}, Found) when is_atom(Name), is_atom(Context), is_list(Value) ->
    bindings(Value, [{Name, Value} | Found]);
bindings({Binds, _, [Left, Right]}, Found) when Binds =:= '='; Binds =:= '<-'; Binds =:= '->' ->
    bindings(Right, patterns(Left, Found));
bindings({Name, _, Args}, Found) ->
    bindings(Args, bindings(Name, Found));
bindings({Left, Right}, Found) ->
    bindings(Right, bindings(Left, Found));
bindings([Expr | Rest], Found) ->
    bindings(Rest, bindings(Expr, Found));
bindings(_Leaf, Found) ->
    Found.

%% Each variable in a pattern; that some are only read there does no harm.
patterns({Name, _, Context}, Found) when is_atom(Name), is_atom(Context) ->
    [{Name, unknown} | Found];
patterns({Name, _, Args}, Found) ->
    patterns(Args, patterns(Name, Found));
patterns({Left, Right}, Found) ->
    patterns(Right, patterns(Left, Found));
patterns([Expr | Rest], Found) ->
    patterns(Rest, patterns(Expr, Found));
patterns(_Leaf, Found) ->
    Found.

%% @doc The functions that child specs in an Elixir source name.
%%
%% A child is known by its form, wherever it stands: a list of children may be built in many steps before a
%% supervisor gets it.
-module(lineage_audit_ex_specs).

-export([of_expr/2]).

-export_type([spec/0]).

-type spec() :: {module(), atom(), arity() | '_'}.

%% @doc What one expression names, its parts not counted.
-spec of_expr(lineage_audit_ex_env:ast(), lineage_audit_ex_env:env()) -> [spec()].
of_expr({start, {'{}', _, [_, _, _] = Start}}, Env) ->
    start(Start, Env);
of_expr({'{}', _, [_Id, {'{}', _, [_, _, _] = Start}, _Restart, _Shutdown, _Type, _Modules]}, Env) ->
    start(Start, Env);
of_expr({{'.', _, [_Supervisor, Name]}, _, Args}, Env) ->
    of_call(Name, Args, Env);
of_expr({Name, _, Args}, Env) when is_atom(Name), is_list(Args) ->
    of_call(Name, Args, Env);
of_expr([_ | _] = List, Env) ->
    lists:flatmap(fun(Expr) -> child(Expr, Env) end, List);
of_expr(_Other, _Env) ->
    [].

of_call(start_child, [_Supervisor, Child | _], Env) -> child(Child, Env);
of_call(child_spec, [Child, _Overrides], Env) -> child(Child, Env);
of_call(Start, [Child | _], Env) when
      Start =:= start_supervised; Start =:= 'start_supervised!'; Start =:= start_link_supervised;
      Start =:= 'start_link_supervised!' -> child(Child, Env);
%% Of Supervisor.Spec, which is deprecated.
of_call(Old, [Module, Args], Env) when Old =:= worker; Old =:= supervisor ->
    start([Module, start_link, Args], Env);
of_call(Old, [Module, Args, Options], Env) when (Old =:= worker orelse Old =:= supervisor), is_list(Options) ->
    start([Module, proplists:get_value(function, Options, start_link), Args], Env);
of_call(_Name, _Args, _Env) ->
    [].

%% A module, or a module with the argument of its start_link/1.
child({Module, _Arg}, Env) ->
    child(Module, Env);
child(Module, Env) when is_tuple(Module) ->
    case lineage_audit_ex_env:module(Module, Env) of
        undefined -> [];
        Name -> [{Name, start_link, 1}]
    end;
child(_Other, _Env) ->
    [].

start([Module, Function, Args], Env) ->
    case lineage_audit_ex_env:module(Module, Env) of
        Name when Name =/= undefined, is_atom(Function) -> [{Name, Function, arity(Args)}];
        _ -> []
    end.

arity(Args) when is_list(Args) ->
    case lists:any(fun({'|', _, [_, _]}) -> true; (_) -> false end, Args) of
        true -> '_';
        false -> length(Args)
    end;
arity(_NotLiteral) ->
    '_'.

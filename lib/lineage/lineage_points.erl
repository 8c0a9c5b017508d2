%% @private The trace points: meta tracing of calls, for what several parts of Lineage want of them.
%%
%% Each group of points has its own times. `base', of `monitors => exact' and `sites => exact', is armed as long as the
%% session lives: the calls that set monitors, and those that spawn. `requests', while a scope is open: the requests to
%% supervisors. `overhead', while its windows are open (see lineage_duty): starts and stops of children, what
%% supervisors do for them, and the user's critical functions. A function has one point, which does what all groups want
%% of it, so that a group that goes leaves the others theirs.
%%
%% It needs no process flag and costs only the traced calls. The points' tracer state is the session's
%% number negated: a tracer that answers `remove' at a trace point ends it for all processes, so the NIF
%% must tell its calls from those of the process flags.
-module(lineage_points).

-export([new/1, arm/3, disarm/2, check/1, release/1, destroy/1, load/0, clear_stale/0, is_armed/2, forgetful/0]).

-export_type([points/0, group/0]).

-type group() :: base | requests | overhead.
-opaque points() :: #{api := single | sessions, state := integer(), handle := term(),
                      groups := #{group() => #{mfa() => [term()]}}}.

-define(TRACER, lineage_nif).
-define(SUPERVISORS, [supervisor, 'Elixir.DynamicSupervisor', 'Elixir.ConsumerSupervisor']).

%% @doc No points yet, for a hook.
-spec new(lineage_hook:hook()) -> points().
new(Hook) ->
    #{api => lineage_hook:api(), state => -lineage_hook:state(Hook), handle => none, groups => #{}}.

%% @doc Sets the trace points of a group, as the options of attach ask for them. On 27+ all points have a trace session
%% of their own, which lives as long as the calling process. Set those of `base' before the hook, so that no monitor,
%% and no call, of a process that the hook has seen is missed. On error the others are as they were.
-spec arm(group(), map(), points()) -> {ok, points()} | {error, lineage_error:cause()}.
arm(Group, Options, #{api := Api, groups := Groups} = Points) ->
    Wanted = unite([{MFA, Actions} || {MFA, Actions} <- wanted(Group, Api, Options)]),
    try
        Armed = (session(Wanted, Points))#{groups := Groups#{Group => Wanted}},
        set_again(maps:keys(Wanted), Armed),
        {ok, Armed}
    catch
        error:_ ->
            restore(maps:keys(Wanted), Points),
            {error, points_unavailable}
    end.

session(Wanted, #{api := sessions, handle := none, state := State} = Points) when map_size(Wanted) > 0 ->
    Points#{handle := lineage_hook:session(session_create, [lineage_points, {?TRACER, State}, []])};
session(_Wanted, Points) ->
    Points.

%% @doc Takes back the trace points of a group, but for what the others want of them.
-spec disarm(group(), points()) -> points().
disarm(Group, #{groups := Groups} = Points) ->
    case Groups of
        #{Group := Wanted} ->
            Left = Points#{groups := maps:remove(Group, Groups)},
            restore(maps:keys(Wanted), Left),
            Left;
        _ ->
            Points
    end.

%% @doc Whether the group is armed, and has any point.
-spec is_armed(group(), points()) -> boolean().
is_armed(Group, #{groups := Groups}) ->
    map_size(maps:get(Group, Groups, #{})) > 0.

%% @doc Sets again those trace points that have vanished (the module was reloaded, or another tool
%% cleared them), and tells how many that were. One that another meta tracer holds is left alone.
-spec check(points()) -> non_neg_integer().
check(Points) ->
    Forgets = forgetful(),
    length([MFA || {MFA, Match} <- maps:to_list(matches(Points)), is_gone(Points, MFA, Match, Forgets)]).

is_gone(Points, MFA, Match, Forgets) ->
    case point(Points, MFA) of
        none -> try set(Points, MFA, Match) > 0 catch error:_ -> false end;
        ours when Forgets -> set(Points, MFA, Match), false;
        _ -> false
    end.

%% @doc Whether another tool that clears its own trace points ends ours too, while trace:info/3 goes
%% on naming them. Seen on 27.3, not on 29; there they are set again at each look.
-spec forgetful() -> boolean().
forgetful() ->
    lineage_hook:api() =:= sessions andalso list_to_integer(erlang:system_info(otp_release)) < 29.

%% @doc Takes all trace points back, for now: {@link check/1} sets them again.
-spec release(points()) -> ok.
release(#{api := single} = Points) ->
    [set(Points, MFA, false) || MFA <- maps:keys(matches(Points)), point(Points, MFA) =:= ours],
    ok;
release(#{api := sessions}) ->
    ok.

%% @doc Takes all trace points back.
-spec destroy(points()) -> ok.
destroy(#{api := single} = Points) ->
    release(Points);
destroy(#{handle := none}) ->
    ok;
destroy(#{handle := Handle}) ->
    try lineage_hook:session(session_destroy, [Handle]) of
        _ -> ok
    catch
        error:_ -> ok
    end.

%% @doc Loads the supervisors' modules that this node has, so that windows of overhead need not look for them.
-spec load() -> ok.
load() ->
    lists:foreach(fun code:ensure_loaded/1, ['Elixir.Supervisor', 'Elixir.Task.Supervisor' | ?SUPERVISORS]).

%% @doc Takes back the points that a session which crashed has left (before 27; a trace session ends with its creator).
%% Which they were died with it: so each function of the node is looked at.
-spec clear_stale() -> ok.
clear_stale() ->
    lineage_hook:api() =:= single andalso
        [erlang:trace_pattern({M, F, A}, false, [meta])
         || {M, _} <- code:all_loaded(), {F, A} <- functions(M), is_stale(lineage_hook:vm(trace_info, [{M, F, A}, meta]))],
    ok.

%% A module may be unloaded meanwhile.
functions(Module) ->
    try Module:module_info(functions)
    catch error:_ -> []
    end.

is_stale({meta, {?TRACER, _}}) -> true;
is_stale({meta, ?TRACER}) -> true;
is_stale({meta, []}) -> true;    % called since
is_stale(_) -> false.

%% What each group wants

wanted(base, Api, #{monitors := Monitors, sites := Sites, wrappers := Wrappers}) ->
    [Point || Monitors =:= exact, Point <- monitor_points()]
        ++ [{MFA, [stack(Api)]} || Sites =:= exact, MFA <- lineage_site:points({Api, Wrappers})];
%% Supervisors that start a child at somebody's request, or in place of a dead one (only a DynamicSupervisor starts just
%% that one then); and with exact sites, the requests where they are made.
wanted(requests, Api, #{sites := Sites}) ->
    IsThere = fun is_there/1,
    traced(served(IsThere) ++ here(IsThere, ['Elixir.DynamicSupervisor'], handle_info, 2))
        ++ [{MFA, [stack(Api)]} || Sites =:= exact, MFA <- lineage_site:requests(IsThere)];
%% Deaths are known, and so restarts and stops, when every process is watched until it exits.
wanted(overhead, _Api, #{exits := Exits, critical := Critical}) ->
    IsThere = fun erlang:module_loaded/1,
    Starts = [MFA || {_, F, _} = MFA <- lineage_site:requests(IsThere), lists:member(F, [start_child, async, async_nolink])],
    Stops = [MFA || Exits =:= all,
                    MFA <- here(IsThere, [supervisor, 'Elixir.Supervisor', 'Elixir.DynamicSupervisor', 'Elixir.Task.Supervisor'],
                                terminate_child, 2)
                        ++ here(IsThere, [supervisor, 'Elixir.DynamicSupervisor'], handle_info, 2)],
    Acks = [{proc_lib, F, A} || {F, A} <- [{init_ack, 2}, {init_fail, 3}], erlang:function_exported(proc_lib, F, A)],
    traced(Starts ++ served(IsThere) ++ Stops ++ Critical) ++ [{MFA, []} || MFA <- Acks].

served(IsThere) -> here(IsThere, ?SUPERVISORS, handle_call, 3).

%% A module that is not there is looked for along the whole code path: only when a scope opens after none was. Those
%% of overhead have been loaded at attach.
here(IsThere, Modules, F, A) ->
    [{M, F, A} || M <- Modules, IsThere(M)].

is_there(Module) ->
    code:ensure_loaded(Module) =:= {module, Module}.

%% An exception_trace, since a return_trace says nothing when the function raises.
traced(MFAs) ->
    [{MFA, [{exception_trace}]} || MFA <- MFAs].

stack(sessions) -> {message, {current_stacktrace}};
stack(single) -> {message, {caller_line}}.

monitor_points() ->
    traced([{erlang, monitor, 2}, {erlang, monitor, 3}, {erlang, spawn_opt, 4}, {erts_internal, spawn_request, 4}])
        ++ [{{erlang, demonitor, 1}, []}, {{erlang, demonitor, 2}, []}].

%% What is done at each function

unite(Points) ->
    lists:foldl(fun({MFA, Actions}, All) ->
                        maps:update_with(MFA, fun(Before) -> lists:usort(Before ++ Actions) end, Actions, All)
                end, #{}, Points).

matches(#{groups := Groups}) ->
    maps:map(fun(_MFA, Actions) -> match(Actions) end, unite(lists:append([maps:to_list(W) || W <- maps:values(Groups)]))).

match([]) -> [];
match(Actions) -> [{'_', [], Actions}].

%% The same, where the trace session may have gone.
restore(MFAs, Points) ->
    try set_again(MFAs, Points)
    catch error:_ -> ok
    end.

%% As the groups that are armed now want them.
set_again(MFAs, Points) ->
    Matches = matches(Points),
    lists:foreach(fun(MFA) ->
                          case Matches of
                              #{MFA := Match} -> is_free(Points, MFA) andalso set(Points, MFA, Match);
                              _ -> point(Points, MFA) =:= ours andalso set(Points, MFA, false)
                          end
                  end, MFAs).

%% Before 27 a function has one meta tracer: another tool's is left to it.
is_free(#{api := sessions}, _MFA) -> true;
is_free(Points, MFA) -> point(Points, MFA) =/= other.

%% How many functions have the point now: none when the module is not loaded.
set(#{api := sessions, handle := Handle}, MFA, Match) ->
    lineage_hook:session(function, [Handle, MFA, Match, [meta]]);
set(#{api := single}, MFA, false) ->
    erlang:trace_pattern(MFA, false, [meta]);
set(#{api := single, state := State}, MFA, Match) ->
    erlang:trace_pattern(MFA, Match, [{meta, ?TRACER, State}]).

%% A point whose tracer has said `remove' is named `[]' and traces nothing; `undefined': no such function is loaded.
point(#{api := sessions, handle := none}, _MFA) ->
    none;
point(#{api := sessions, handle := Handle}, MFA) ->
    try lineage_hook:session(info, [Handle, MFA, meta]) of
        {meta, false} -> none;
        {meta, []} -> none;
        {meta, undefined} -> none;
        {meta, _} -> ours
    catch
        error:_ -> other
    end;
point(#{api := single}, MFA) ->
    case lineage_hook:vm(trace_info, [MFA, meta]) of
        {meta, {?TRACER, _}} -> ours;
        {meta, ?TRACER} -> ours;
        {meta, false} -> none;
        {meta, []} -> none;
        {meta, undefined} -> none;
        _ -> other
    end.

%% @private The trace points of `monitors => exact' and `sites => exact': meta tracing of the calls that set
%% monitors, and of those that spawn; and of the requests to supervisors, while a scope is open.
%%
%% It needs no process flag and costs only the traced calls. The points' tracer state is the session's
%% number negated: a tracer that answers `remove' at a trace point ends it for all processes, so the NIF
%% must tell its calls from those of the process flags.
-module(lineage_points).

-export([arm/2, arm_requests/2, check/1, disarm/1, forgetful/0]).

-export_type([points/0]).

-type points() :: none | #{api := single | sessions, state := integer(), handle := term(),
                             matches := #{mfa() => [term()]}}.

-define(TRACER, lineage_nif).

%% @doc Sets the trace points that the options ask for. On 27+ they have a trace session of their own,
%% which lives as long as the calling process. Set them before the hook, so that no monitor, and no call,
%% of a process that the hook has seen is missed.
-spec arm(lineage_hook:hook(), map()) -> {ok, points()} | {error, lineage_error:cause()}.
arm(Hook, Options) ->
    case matches(lineage_hook:api(), Options) of
        Matches when map_size(Matches) =:= 0 -> {ok, none};
        Matches -> armed(Hook, Matches)
    end.

%% @doc Sets the trace points of supervisors that start a child at somebody's request, or in place of a dead one (only
%% a DynamicSupervisor starts just that one then); and with exact sites, those of the requests where they are made.
-spec arm_requests(lineage_hook:hook(), map()) -> {ok, points()} | {error, lineage_error:cause()}.
arm_requests(Hook, #{sites := Sites, wrappers := Wrappers}) ->
    Api = lineage_hook:api(),
    Served = [{M, handle_call, 3} || M <- [supervisor, 'Elixir.DynamicSupervisor', 'Elixir.ConsumerSupervisor'], is_there(M)],
    Deaths = [{M, handle_info, 2} || M <- ['Elixir.DynamicSupervisor'], is_there(M)],
    Asked = case Sites of
                exact -> lineage_site:requests() -- lineage_site:points({Api, Wrappers});
                _ -> []
            end,
    armed(Hook, maps:from_list([{MFA, match([{exception_trace}])} || MFA <- Served ++ Deaths] ++
                                   [{MFA, match([stack(Api)])} || MFA <- Asked])).

%% A module that is not there is looked for along the whole code path: only when a scope opens after none was.
is_there(Module) ->
    code:ensure_loaded(Module) =:= {module, Module}.

armed(Hook, Matches) ->
    arm(#{api => lineage_hook:api(), state => -lineage_hook:state(Hook), handle => none, matches => Matches}).

arm(#{api := Api, state := State, matches := Matches} = Points) ->
    try
        Handle = case Api of
                     sessions -> lineage_hook:session(session_create, [lineage_points, {?TRACER, State}, []]);
                     single -> none
                 end,
        Armed = Points#{handle := Handle},
        maps:foreach(fun(MFA, Match) -> set(Armed, MFA, Match) end, Matches),
        {ok, Armed}
    catch
        error:_ ->
            disarm(Points),
            {error, points_unavailable}
    end.

%% What each function's match spec does. An exception_trace, since a return_trace says nothing when the
%% function raises.
matches(Api, #{monitors := Monitors, sites := Sites, wrappers := Wrappers}) ->
    Wanted = [{MFA, Action} || Monitors =:= exact, {MFA, Action} <- monitor_points()] ++
             [{MFA, [stack(Api)]} || Sites =:= exact, MFA <- lineage_site:points({Api, Wrappers})],
    Actions = lists:foldl(fun({MFA, Action}, Map) ->
                                  maps:update_with(MFA, fun(Before) -> Before ++ Action end, Action, Map)
                          end, #{}, Wanted),
    maps:map(fun(_MFA, List) -> match(List) end, Actions).

match([]) -> [];
match(Actions) -> [{'_', [], Actions}].

stack(sessions) -> {message, {current_stacktrace}};
stack(single) -> {message, {caller_line}}.

monitor_points() ->
    Returns = [{exception_trace}],
    [{{erlang, monitor, 2}, Returns},
     {{erlang, monitor, 3}, Returns},
     {{erlang, demonitor, 1}, []},
     {{erlang, demonitor, 2}, []},
     {{erlang, spawn_opt, 4}, Returns},
     {{erts_internal, spawn_request, 4}, Returns}].

%% @doc Sets again those trace points that have vanished (the module was reloaded, or another tool
%% cleared them), and tells how many that were. One that another meta tracer holds is left alone.
-spec check(points()) -> non_neg_integer().
check(none) ->
    0;
check(#{matches := Matches} = Points) ->
    Forgets = forgetful(),
    length([MFA || {MFA, Match} <- maps:to_list(Matches), is_gone(Points, MFA, Match, Forgets)]).

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

%% @doc Takes the trace points back.
-spec disarm(points()) -> ok.
disarm(none) ->
    ok;
disarm(#{api := sessions, handle := none}) ->
    ok;
disarm(#{api := sessions, handle := Handle}) ->
    try lineage_hook:session(session_destroy, [Handle]) of
        _ -> ok
    catch
        error:_ -> ok
    end;
disarm(#{matches := Matches} = Points) ->
    [set(Points, MFA, false) || MFA <- maps:keys(Matches), point(Points, MFA) =:= ours],
    ok.

%% How many functions have the point now: none when the module is not loaded.
set(#{api := sessions, handle := Handle}, MFA, Match) ->
    lineage_hook:session(function, [Handle, MFA, Match, [meta]]);
set(#{api := single}, MFA, false) ->
    erlang:trace_pattern(MFA, false, [meta]);
set(#{api := single, state := State}, MFA, Match) ->
    erlang:trace_pattern(MFA, Match, [{meta, ?TRACER, State}]).

%% A point whose tracer has said `remove' is named `[]' and traces nothing.
point(#{api := sessions, handle := Handle}, MFA) ->
    try lineage_hook:session(info, [Handle, MFA, meta]) of
        {meta, false} -> none;
        {meta, []} -> none;
        {meta, _} -> ours;
        undefined -> other
    catch
        error:_ -> other
    end;
point(#{api := single}, MFA) ->
    case lineage_hook:vm(trace_info, [MFA, meta]) of
        {meta, {?TRACER, _}} -> ours;
        {meta, ?TRACER} -> ours;
        {meta, false} -> none;
        {meta, []} -> none;
        _ -> other
    end.

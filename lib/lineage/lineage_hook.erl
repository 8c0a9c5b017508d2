%% @private The trace flags, and nothing else: who holds them, setting, clearing, looking after them.
%%
%% Before OTP 27 the node has one tracer for all tools (`erlang:trace/3'); from 27 on Lineage has a
%% trace session of its own. Nothing here ever uses `all', `existing' or `processes': those block
%% every scheduler while the VM walks its process table. Flags go pid by pid.
-module(lineage_hook).

-export([api/0, holder/0, new/1, arm/1, check/1, disarm/1, destroy/1, clear_stale/0,
         flag/2, unflag/2, arm_monitors/1, check_monitors/1, disarm_monitors/1,
         forgets_points/0]).

-export_type([hook/0, holder/0]).

-type holder() :: pid() | port() | {module(), term()}.
-opaque hook() :: #{api := single | sessions, state := integer(), handle := term(),
                    monitors => term()}.

-define(TRACER, lineage_nif).

%% @doc `sessions' on OTP 27 and later, where tools do not disturb each other; `single' before.
-spec api() -> single | sessions.
api() ->
    %% The release first: a module that is not there is looked for along the whole code path each time.
    Module = session_module(),
    case list_to_integer(erlang:system_info(otp_release)) >= 27 andalso code:ensure_loaded(Module) of
        {module, _} ->
            case erlang:function_exported(Module, session_create, 3) of
                true -> sessions;
                false -> single
            end;
        _ ->
            single
    end.

%% @doc Who traces new processes on this node already, as far as that is in our way.
-spec holder() -> none | holder().
holder() ->
    case api() of
        sessions -> none;
        single -> tracer_of(new_processes)
    end.

%% @doc A hook that is not armed yet. `State' is the session number of the NIF.
-spec new(integer()) -> hook().
new(State) ->
    #{api => api(), state => State, handle => none}.

%% @doc Hooks every process born from now on; again, too, after {@link check/1} said `none'. On 27+ the
%% trace session lives as long as the calling process.
-spec arm(hook()) -> {ok, hook()} | {error, lineage_error:cause()}.
arm(#{api := sessions, state := State} = Hook) ->
    try
        Handle = session(session_create, [lineage, {?TRACER, State}, []]),
        session(process, [Handle, new_processes, true, [procs]]),
        {ok, Hook#{handle := Handle}}
    catch
        error:Reason -> {error, {hook_failed, Reason}}
    end;
arm(#{api := single, state := State} = Hook) ->
    %% The VM would let us take the flag from another tool without a word; so look first.
    case tracer_of(new_processes) of
        none ->
            try
                erlang:trace(new_processes, true, [procs, {tracer, ?TRACER, State}]),
                {ok, Hook}
            catch
                error:Reason -> {error, {hook_failed, Reason}}
            end;
        {?TRACER, _Old} ->
            erlang:trace(new_processes, false, [all]),
            arm(Hook);
        Holder ->
            {error, {tracer_held, Holder}}
    end.

%% @doc Whether new processes are hooked at this moment, and by whom if not by us.
-spec check(hook()) -> ok | none | {held, holder()}.
check(#{api := sessions, handle := Handle, state := State}) ->
    try session(info, [Handle, new_processes, tracer]) of
        {tracer, {?TRACER, State}} -> ok;
        {tracer, ?TRACER} -> ok;
        _ -> none
    catch
        error:_ -> none
    end;
check(#{api := single, state := State}) ->
    case tracer_of(new_processes) of
        {?TRACER, State} -> ok;
        none -> none;
        Holder -> {held, Holder}
    end.

%% @doc New processes are left alone from now on. Those that are flagged stay so.
-spec disarm(hook()) -> ok.
disarm(#{handle := none, api := sessions}) ->
    ok;
disarm(#{api := sessions, handle := Handle}) ->
    try session(process, [Handle, new_processes, false, [procs]]) of
        _ -> ok
    catch
        error:_ -> ok
    end;
disarm(#{api := single} = Hook) ->
    %% Only what is ours: another tool may have taken the flag meanwhile.
    case check(Hook) of
        ok -> erlang:trace(new_processes, false, [all]), ok;
        _ -> ok
    end.

%% @doc Frees the trace session of 27+. Call it after the pids were cleared one by one: what is left
%% then is small.
-spec destroy(hook()) -> ok.
destroy(#{api := single}) ->
    ok;
destroy(#{api := sessions, handle := Handle}) ->
    try session(session_destroy, [Handle]) of
        _ -> ok
    catch
        error:_ -> ok
    end.

%% @doc Takes back a hook that a session which crashed has left on the new processes (before 27; a
%% trace session ends with its creator).
-spec clear_stale() -> ok.
clear_stale() ->
    case holder() of
        {?TRACER, _} -> erlang:trace(new_processes, false, [all]), ok;
        _ -> ok
    end.

%% @doc Watches one process that was there before. `held': another tool traces it.
-spec flag(hook(), pid()) -> ok | dead | {held, holder()}.
flag(#{api := sessions, handle := Handle}, Pid) ->
    try session(process, [Handle, Pid, true, [procs]]) of
        _ -> ok
    catch
        error:_ -> dead
    end;
flag(#{api := single, state := State}, Pid) ->
    try erlang:trace(Pid, true, [procs, {tracer, ?TRACER, State}]) of
        _ -> ok
    catch
        error:_ ->
            case tracer_of(Pid) of
                none -> dead;
                {?TRACER, State} -> ok;
                Holder -> {held, Holder}
            end
    end.

%% @doc Lets go of one process, if it is ours.
-spec unflag(hook(), pid()) -> ok.
unflag(#{api := sessions, handle := Handle}, Pid) ->
    try session(process, [Handle, Pid, false, [procs]]) of
        _ -> ok
    catch
        error:_ -> ok
    end;
unflag(#{api := single}, Pid) ->
    %% Whatever session number it has: a hook that is left over from a crash is ours too.
    case tracer_of(Pid) of
        {?TRACER, _} ->
            try erlang:trace(Pid, false, [all]) of
                _ -> ok
            catch
                error:_ -> ok
            end;
        _ ->
            ok
    end.

%% Monitors: exact. Meta tracing needs no process flag and costs only the traced calls. An
%% exception_trace, since a return_trace says nothing when the function raises.
monitor_points() ->
    Returns = [{'_', [], [{exception_trace}]}],
    [{{erlang, monitor, 2}, Returns},
     {{erlang, monitor, 3}, Returns},
     {{erlang, demonitor, 1}, []},
     {{erlang, demonitor, 2}, []},
     {{erlang, spawn_opt, 4}, Returns},
     {{erts_internal, spawn_request, 4}, Returns}].

%% @doc Sets the trace points of `monitors => exact'. Their tracer state is the session's number
%% negated: a tracer that answers `remove' at a trace point ends it for all processes, so the NIF must
%% tell its calls from those of the process flags. On 27+ they need a trace session of their own for
%% that, which lives as long as the calling process. Set them before the hook, so that no monitor of a
%% process that the hook has seen is missed.
-spec arm_monitors(hook()) -> {ok, hook()} | {error, lineage_error:cause()}.
arm_monitors(#{api := Api, state := State} = Hook) ->
    try
        Handle = case Api of
                     sessions -> session(session_create, [lineage_monitors, {?TRACER, -State}, []]);
                     single -> none
                 end,
        Armed = Hook#{monitors => Handle},
        lists:foreach(fun({MFA, Match}) -> set_point(Armed, MFA, Match) end, monitor_points()),
        {ok, Armed}
    catch
        error:_ ->
            disarm_monitors(Hook),
            {error, monitors_unavailable}
    end.

%% @doc Sets again those trace points that have vanished (the module was reloaded, or another tool
%% cleared them), and tells how many that were. One that another meta tracer holds is left alone.
-spec check_monitors(hook()) -> non_neg_integer().
check_monitors(Hook) ->
    Forgets = forgets_points(),
    length([MFA || {MFA, Match} <- monitor_points(), is_gone(Hook, MFA, Match, Forgets)]).

is_gone(Hook, MFA, Match, Forgets) ->
    case point(Hook, MFA) of
        none -> try set_point(Hook, MFA, Match) =:= ok catch error:_ -> false end;
        ours when Forgets -> set_point(Hook, MFA, Match), false;
        _ -> false
    end.

%% @doc Whether another tool that clears its own trace points ends ours too, while trace:info/3 goes
%% on naming them. Seen on 27.3, not on 29; there they are set again at each look.
-spec forgets_points() -> boolean().
forgets_points() ->
    api() =:= sessions andalso list_to_integer(erlang:system_info(otp_release)) < 29.

%% @doc Takes the trace points back.
-spec disarm_monitors(hook()) -> ok.
disarm_monitors(#{api := sessions, monitors := Handle}) ->
    try session(session_destroy, [Handle]) of
        _ -> ok
    catch
        error:_ -> ok
    end;
disarm_monitors(Hook) ->
    lists:foreach(
      fun({MFA, _}) ->
              case point(Hook, MFA) of
                  ours -> set_point(Hook, MFA, false);
                  _ -> ok
              end
      end,
      monitor_points()).

set_point(#{api := sessions, monitors := Handle}, MFA, Match) ->
    session(function, [Handle, MFA, Match, [meta]]),
    ok;
set_point(#{api := single}, MFA, false) ->
    erlang:trace_pattern(MFA, false, [meta]),
    ok;
set_point(#{api := single, state := State}, MFA, Match) ->
    erlang:trace_pattern(MFA, Match, [{meta, ?TRACER, -State}]),
    ok.

%% A point whose tracer has said `remove' is named `[]' and traces nothing.
point(#{api := sessions, monitors := Handle}, MFA) ->
    try session(info, [Handle, MFA, meta]) of
        {meta, false} -> none;
        {meta, []} -> none;
        {meta, _} -> ours;
        undefined -> other
    catch
        error:_ -> other
    end;
point(#{api := single}, MFA) ->
    case vm(trace_info, [MFA, meta]) of
        {meta, {?TRACER, _}} -> ours;
        {meta, ?TRACER} -> ours;
        {meta, false} -> none;
        {meta, []} -> none;
        _ -> other
    end;
point(#{api := sessions}, _MFA) ->
    other.

tracer_of(PidOrNew) ->
    try vm(trace_info, [PidOrNew, tracer]) of
        {tracer, []} -> none;
        {tracer, Holder} -> Holder;
        undefined -> none
    catch
        error:_ -> none
    end.

%% The contract of erlang:trace_info/2 forgets that a tracer may be a module.
vm(Function, Args) ->
    apply(erlang, Function, Args).

session(Function, Args) ->
    apply(session_module(), Function, Args).

%% The module `trace' is there from 27 on only, and this file compiles and is checked on 25 too.
session_module() ->
    binary_to_atom(<<"trace">>).

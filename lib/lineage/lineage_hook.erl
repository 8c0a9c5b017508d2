%% @private The trace flags, and nothing else: who holds them, setting, clearing, looking after them.
%%
%% Before OTP 27 the node has one tracer for all tools (`erlang:trace/3'); from 27 on Lineage has a
%% trace session of its own. Nothing here ever uses `all', `existing' or `processes': those block
%% every scheduler while the VM walks its process table. Flags go pid by pid.
-module(lineage_hook).

-export([api/0, has_system/0, holder/0, holder/1, new/1, arm/1, weak/1, check/1, disarm/1, destroy/1, clear_stale/0,
         flag/2, unflag/2, state/1, session/2, vm/2]).

-export_type([hook/0, holder/0]).

-type holder() :: pid() | port() | {module(), term()}.
-opaque hook() :: #{api := single | sessions, state := integer(), handle := term()}.

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

%% @doc Whether a trace session may have a system monitor of its own (28 and later).
-spec has_system() -> boolean().
has_system() ->
    api() =:= sessions andalso erlang:function_exported(session_module(), system, 3).

%% @doc Who traces new processes on this node already, as far as that is in our way.
-spec holder() -> none | holder().
holder() ->
    case api() of
        sessions -> none;
        single -> tracer_of(new_processes)
    end.

%% @doc As {@link holder/0}, but a process that traces gets `Patience' milliseconds to end: `dbg:stop/0'
%% returns while its tracer still writes what it has.
-spec holder(non_neg_integer()) -> none | holder().
holder(Patience) ->
    case holder() of
        Tracer when is_pid(Tracer) ->
            Ref = monitor(process, Tracer),
            receive
                {'DOWN', Ref, process, _, _} -> holder()
            after Patience ->
                demonitor(Ref, [flush]),
                Tracer
            end;
        Other ->
            Other
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

%% @doc The same to look with only: whoever has it does not keep the trace session of 27+ alive.
-spec weak(hook()) -> hook().
weak(#{api := sessions, handle := {_Strong, Weak}} = Hook) -> Hook#{handle := Weak};
weak(Hook) -> Hook.

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

tracer_of(PidOrNew) ->
    try vm(trace_info, [PidOrNew, tracer]) of
        {tracer, []} -> none;
        {tracer, Holder} -> Holder;
        undefined -> none
    catch
        error:_ -> none
    end.

%% @doc The session number of the NIF.
-spec state(hook()) -> integer().
state(#{state := State}) -> State.

%% @doc `erlang:Function'. The contract of erlang:trace_info/2 forgets that a tracer may be a module.
-spec vm(atom(), [term()]) -> term().
vm(Function, Args) ->
    apply(erlang, Function, Args).

%% @doc `trace:Function', on 27+.
-spec session(atom(), [term()]) -> term().
session(Function, Args) ->
    apply(session_module(), Function, Args).

%% The module `trace' is there from 27 on only, and this file compiles and is checked on 25 too.
session_module() ->
    binary_to_atom(<<"trace">>).

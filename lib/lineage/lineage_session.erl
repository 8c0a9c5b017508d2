%% @private The one session of a node: it owns the hook, the census and what the reports share.
%%
%% Idle, attaching (a collector reads the processes that were there before), attached, or yielded (the
%% flags are given up for another tool). Whoever called attach may die; the session goes on. When the
%% session itself dies, the NIF, which watches it, answers `remove' and the hook melts away; its
%% supervisor starts an idle one in its place.
-module(lineage_session).

-behaviour(gen_server).

-export([start_link/0, attach/1, detach/0, yield/1, lookup/1, lookup/2, checked/1, check/0, caught_up/0, requests/0, stream/0, journal/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, collect/4]).

-record(st, {phase = idle :: idle | attaching | attached | yielded,
             options = #{} :: map(),
             rules :: lineage_baseline:rules() | undefined,
             names = #{} :: map(),
             hook :: lineage_hook:hook() | undefined,
             points :: lineage_points:points() | undefined,
             session = 0 :: integer(),
             started = 0 :: integer(),              % monotonic ms
             warnings = [] :: [lineage_error:cause()],
             caller :: reference() | undefined,     % alias of who waits for attach
             collector :: pid() | undefined,
             result :: lineage_baseline:result() | undefined,
             yields = [] :: [reference()],
             watch :: lineage_watch:watch() | undefined,
             sampler :: pid() | undefined,          % lineage_leaks
             duty :: lineage_duty:duty() | undefined,
             outliers :: pid() | undefined,         % lineage_outliers
             pump :: lineage_pump:pump() | undefined,
             teller :: pid() | undefined,           % lineage_journal
             rates = [] :: [{integer(), non_neg_integer()}],   % {monotonic ms, births}, newest first
             checked_at = 0 :: integer(),
             fuse :: reference() | undefined,
             tick :: reference() | undefined}).

-define(TABLE, lineage).
-define(TICK_MS, 500).        % quiet
-define(BUSY_TICK_MS, 100).   % while processes are being born, or a spawn rate is watched
-define(CHECK_MS, 1000).
-define(IDLE_MS, 5000).        % a killed process's scope is left to those who may check it
-define(GHOSTS, 65536).      % records of the dead that may stay beside as many as are live
-define(FREE, 49152).        % free records: 3 MiB
-define(PATIENCE, 500).       % ms that a tool which was stopped gets to leave the hook

-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Attaches. The options were checked. Returns when every process is known.
-spec attach(map()) -> {ok, map()} | {error, {atom(), binary()}}.
attach(Options) ->
    Alias = erlang:monitor(process, ?MODULE, [{alias, explicit_unalias}]),
    try
        gen_server:cast(?MODULE, {attach, Alias, maps:remove(progress, Options)}),
        await(Alias, maps:get(progress, Options, fun(_, _) -> ok end))
    after
        %% A progress function may have raised: leave nothing in the caller's mailbox.
        erlang:unalias(Alias),
        erlang:demonitor(Alias, [flush]),
        flush(Alias)
    end.

await(Alias, Progress) ->
    receive
        {Alias, progress, Done, Total} -> Progress(Done, Total), await(Alias, Progress);
        {Alias, reply, Reply} -> Reply;
        {'DOWN', Alias, process, _, Reason} -> lineage_error:tagged({session_failed, Reason})
    end.

flush(Alias) ->
    receive
        {Alias, progress, _, _} -> flush(Alias);
        {Alias, reply, _} -> flush(Alias)
    after 0 -> ok
    end.

-spec detach() -> ok.
detach() ->
    try
        gen_server:call(?MODULE, detach, infinity)
    catch
        %% Not started, or stopped while we asked: nothing is attached then.
        exit:{_, {gen_server, call, _}} -> ok
    end.

%% @doc Runs `Fun' while the trace flags are given up (before OTP 27; trace sessions need not).
-spec yield(fun(() -> Result)) -> Result.
yield(Fun) ->
    _ = lookup(options, [Fun]),
    case gen_server:call(?MODULE, yield, infinity) of
        {ok, Yield} ->
            try Fun() after ok = gen_server:call(?MODULE, {resume, Yield}, infinity) end;
        free ->
            Fun();
        {error, Cause} ->
            lineage_error:raise(Cause, [Fun])
    end.

%% @doc What the session shares: `options', `since' (system time, ms), `orphans_checked', `blind_ms',
%% `notes'. Raises a sentence when nothing is attached.
-spec lookup(atom()) -> term().
lookup(Key) ->
    lookup(Key, []).

%% @doc The same, for a function that was called with `Args'.
-spec lookup(atom(), [term()]) -> term().
lookup(Key, Args) ->
    case row(phase) of
        {attaching, Done, Total} -> lineage_error:raise({attaching, Done, Total}, Args);
        attached -> shared(Key, Args);
        _ -> lineage_error:raise({not_attached, row(ended)}, Args)
    end.

shared(blind_ms, _Args) ->
    row(blind_ms) + case row(blind_from) of
                        undefined -> 0;
                        From -> now_ms() - From
                    end;
shared(Key, Args) ->
    try ets:lookup_element(?TABLE, Key, 2)
    catch error:badarg -> lineage_error:raise({not_attached, row(ended)}, Args)
    end.

row(Key) ->
    try ets:lookup_element(?TABLE, Key, 2)
    catch error:badarg -> undefined
    end.

%% @doc How many orphans a report has just confirmed, and what it stands on.
-spec checked([{orphans_checked, non_neg_integer()} | {coverage, map()}]) -> ok.
checked(Rows) ->
    gen_server:call(?MODULE, {checked, Rows}, infinity).

%% @doc Looks after the hook at once, as the session does each second by itself: whether another tool
%% has taken it, and whether anything was born unseen. Returns when what can be mended is mended.
-spec check() -> ok.
check() ->
    try
        gen_server:call(?MODULE, check, infinity)
    catch
        exit:{_, {gen_server, call, _}} -> ok   % it has just ended
    end.

%% @doc Returns when the census has what was born before this call and lives, though the hook was taken or given up.
%% What is born past a hook that is ours, by another tool's `set_on_spawn', the session finds by itself in seconds.
-spec caught_up() -> ok.
caught_up() ->
    Hook = row(hook),
    case Hook =/= undefined andalso lineage_hook:check(Hook) =:= ok andalso row(hook) =:= Hook of
        true -> ok;
        false -> check()
    end.

%% @doc Has the trace points of supervisors set, for a scope that is there already.
-spec requests() -> ok.
requests() ->
    case row(requests) of
        true -> ok;
        _ -> gen_server:call(?MODULE, requests, infinity)
    end.

%% @doc Has events streamed from now on, for subscribers: the pump runs when it returns.
-spec stream() -> ok | {error, lineage_error:cause()}.
stream() ->
    try
        gen_server:call(?MODULE, stream, infinity)
    catch
        exit:{_, {gen_server, call, _}} -> {error, {not_attached, undefined}}
    end.

%% @doc Who records, and where; `undefined' when nobody does.
-spec journal() -> {lineage_pump:pump(), Dir :: binary()} | undefined.
journal() ->
    row(journal).

%% The server

-spec init([]) -> {ok, #st{}}.
init([]) ->
    process_flag(trap_exit, true),
    ?TABLE = ets:new(?TABLE, [named_table, protected, {read_concurrency, true}]),
    ok = lineage_code:new_cache(),
    ok = lineage_scope:new_table(),
    case atomics:exchange(attached(), 1, 0) of
        1 ->
            %% The one before us died without a word.
            clear_after_crash(),
            rows([{ended, lineage_error:sentence(session_crashed)}]);
        0 ->
            ok
    end,
    {ok, #st{}}.

%% 1 while a session is attached, also when it has crashed. No environment of the application: the application controller,
%% which would have to write it, waits for us when the application stops.
attached() ->
    case persistent_term:get(?MODULE, none) of
        none ->
            New = atomics:new(1, []),
            persistent_term:put(?MODULE, New),
            New;
        Known ->
            Known
    end.

clear_after_crash() ->
    lineage_hook:clear_stale(),
    lineage_points:clear_stale(),
    case nif() of
        ok ->
            ok = lineage_pump:settle(),
            lineage_nif:close();
        _ ->
            ok
    end.

-spec handle_call(term(), gen_server:from(), #st{}) -> {reply, term(), #st{}}.
handle_call(detach, _From, #st{phase = idle} = St) ->
    {reply, ok, St};
handle_call(detach, _From, St) ->
    {reply, ok, undo(lineage_error:tagged(detached_meanwhile), undefined, St)};
handle_call({checked, Rows}, _From, #st{phase = Phase} = St) ->
    Phase =/= idle andalso rows(Rows),
    {reply, ok, St};
handle_call(yield, {Pid, _}, #st{phase = Phase} = St) when Phase =:= attached; Phase =:= yielded ->
    case lineage_hook:api() of
        sessions ->
            {reply, free, St};
        single ->
            Yield = monitor(process, Pid),
            {reply, {ok, Yield}, give_up(St#st{yields = [Yield | St#st.yields]})}
    end;
handle_call(yield, _From, St) ->
    {reply, {error, {not_attached, row(ended)}}, St};
handle_call(check, _From, #st{phase = attached, watch = Watch} = St) ->
    {reply, ok, check(mark(St#st{watch = lineage_watch:due(Watch)}))};
handle_call(check, _From, #st{phase = yielded, watch = Watch} = St) ->
    {reply, ok, St#st{watch = lineage_watch:seed_unseen(Watch)}};
handle_call(check, _From, St) ->
    {reply, ok, St};
handle_call(requests, _From, #st{phase = attached} = St) ->
    {reply, ok, arm_requests(St)};
handle_call(requests, _From, St) ->
    {reply, ok, St};
handle_call(stream, _From, #st{phase = Phase, pump = undefined} = St) when Phase =:= attached; Phase =:= yielded ->
    case lineage_pump:open() of
        {ok, Pump} -> {reply, ok, St#st{pump = Pump}};
        {error, Cause} -> {reply, {error, Cause}, St}
    end;
handle_call(stream, _From, #st{phase = Phase} = St) when Phase =:= attached; Phase =:= yielded ->
    {reply, ok, St};
handle_call(stream, _From, St) ->
    Cause = case row(phase) of
                {attaching, _, _} = Attaching -> Attaching;
                _ -> {not_attached, row(ended)}
            end,
    {reply, {error, Cause}, St};
handle_call({resume, Yield}, _From, St) ->
    demonitor(Yield, [flush]),
    {reply, ok, resume(Yield, St)};
handle_call(_Other, _From, St) ->
    {reply, {error, badarg}, St}.

-spec handle_cast(term(), #st{}) -> {noreply, #st{}}.
handle_cast({attach, Alias, Options}, #st{phase = idle} = St) ->
    case open(Options) of
        {ok, Open} ->
            {noreply, start_collecting(Open#st{phase = attaching, options = Options, caller = Alias,
                                               started = now_ms()})};
        {error, Cause} ->
            Alias ! {Alias, reply, lineage_error:tagged(Cause)},
            {noreply, St}
    end;
handle_cast({attach, Alias, _Options}, #st{phase = attaching} = St) ->
    Alias ! {Alias, reply, lineage_error:tagged({already_attached, attaching})},
    {noreply, St};
handle_cast({attach, Alias, _Options}, #st{options = #{exits := Exits}, started = Started} = St) ->
    Seconds = (now_ms() - Started) div 1000,
    Alias ! {Alias, reply, lineage_error:tagged({already_attached, Exits, Seconds})},
    {noreply, St};
handle_cast(_Other, St) ->
    {noreply, St}.

-spec handle_info(term(), #st{}) -> {noreply, #st{}}.
handle_info({progress, Collector, Done, Total}, #st{collector = Collector, caller = Alias} = St) ->
    rows([{phase, {attaching, Done, Total}}]),
    Alias ! {Alias, progress, Done, Total},
    {noreply, St};
handle_info({collected, Collector, Result}, #st{collector = Collector} = St) ->
    unlink(Collector),
    {noreply, attached(Result, St#st{collector = undefined})};
handle_info({'EXIT', Collector, Reason}, #st{collector = Collector} = St) when is_pid(Collector) ->
    {noreply, undo(lineage_error:tagged({session_failed, Reason}), undefined, St#st{collector = undefined})};
handle_info({'EXIT', Sampler, _}, #st{sampler = Sampler} = St) when is_pid(Sampler) ->
    %% Its supervisor in all but name: the next check starts another.
    {noreply, St#st{sampler = undefined}};
handle_info({'EXIT', Outliers, _}, #st{outliers = Outliers} = St) when is_pid(Outliers) ->
    %% The same.
    {noreply, unmeasured(St#st{outliers = undefined})};
handle_info({'EXIT', Pump, _}, #st{pump = Pump} = St) when is_port(Pump) ->
    %% Somebody has closed it. Whoever subscribes next opens another.
    ok = lineage_pump:gone(Pump),
    {noreply, hear([{journal_closed, Dir} || {_, Dir} <- [row(journal)]], St#st{pump = undefined})};
handle_info({Pump, {recorder, State, Errno, Missing}}, #st{pump = Pump} = St) ->
    {noreply, hear([{journal, State, Dir, Errno, Missing} || {_, Dir} <- [row(journal)]], St)};
handle_info({'EXIT', Teller, _}, #st{teller = Teller} = St) when is_pid(Teller) ->
    %% As the sampler.
    {noreply, St#st{teller = undefined}};
handle_info({duty, Timer}, #st{phase = attached, duty = Duty, points = Points} = St) when Duty =/= undefined ->
    {News, Points1, Duty1} = lineage_duty:handle(Timer, Points, Duty),
    say(News),
    {noreply, measuring(Points1, Duty1, St)};
handle_info({tick, Tick}, #st{tick = Tick} = St) ->
    {noreply, tick(St)};
handle_info({fuse, Fuse}, #st{fuse = Fuse, options = #{for := Ms}} = St) ->
    {noreply, blow({fuse, for, Ms}, St)};
handle_info({'DOWN', Yield, process, _, _}, St) ->
    %% Whoever yielded died before it could say that it was done.
    {noreply, resume(Yield, St)};
handle_info(_Other, St) ->
    {noreply, St}.

-spec terminate(term(), #st{}) -> ok.
terminate(_Reason, #st{phase = idle}) ->
    ok;
terminate(Reason, #st{pump = Pump} = St) ->
    %% The journal does not say `detached': the node stops, or something went wrong.
    ok = lineage_pump:close(Pump),
    _ = undo(lineage_error:tagged({session_failed, Reason}), undefined, St#st{pump = undefined}),
    ok.

%% Attaching

open(Options) ->
    case nif() of
        ok ->
            case lineage_hook:holder(?PATIENCE) of
                none -> open_marked(Options);
                {lineage_nif, _Stale} -> open_marked(Options);
                Holder -> {error, {tracer_held, Holder}}
            end;
        Error ->
            Error
    end.

%% Who comes after a session that died in here has something to clear away.
open_marked(Options) ->
    atomics:put(attached(), 1, 1),
    case open_census(Options) of
        {ok, St} ->
            {ok, St};
        Error ->
            atomics:put(attached(), 1, 0),
            Error
    end.

open_census(#{exits := Exits, max_bytes := Bytes} = Options) ->
    case lineage_nif:open(#{exits => Exits, max_bytes => Bytes,
                            process_limit => erlang:system_info(process_limit),
                            sites => maps:get(sites, Options),
                            overhead => maps:get(overhead, Options) =/= off,
                            target_ns => round(1000000 * maps:get(target_ms, Options)),
                            critical => lists:usort(maps:get(critical, Options)),
                            monitors => case Options of #{monitors := exact} -> exact; _ -> unknown end}) of
        {ok, Session} ->
            [ok = lineage_nif:wrapper(M, F) || {M, F} <- lineage_site:wrappers(maps:get(wrappers, Options))],
            lineage_code:clear_cache(),
            Rules = lineage_baseline:rules(Options),
            ok = lineage_baseline:apply_rules(Rules),
            Hook = lineage_hook:new(Session),
            opened(Session, Rules, Hook, Options);
        {error, enomem} -> {error, {enomem, Bytes}};
        {error, Reason} -> {error, Reason}
    end.

%% The journal before the hook: it is to have each birth.
opened(Session, Rules, Hook, Options) ->
    case open_journal(Options) of
        {ok, Pump, News} ->
            {Points, Warnings} = arm_points(Hook, Options),
            case lineage_hook:arm(Hook) of
                {ok, Armed} ->
                    {ok, #st{session = Session, hook = Armed, points = Points, rules = Rules, pump = Pump,
                             warnings = Warnings ++ News}};
                {error, Cause} ->
                    lineage_points:destroy(Points),
                    close_journal(Pump),
                    lineage_nif:close(),
                    {error, Cause}
            end;
        {error, Cause} ->
            lineage_nif:close(),
            {error, Cause}
    end.

open_journal(#{journal := #{dir := Dir} = Journal}) ->
    case lineage_journal:open(Journal) of
        {ok, Pump, News} ->
            rows([{journal, {Pump, Dir}}]),
            {ok, Pump, News};
        Error ->
            Error
    end;
open_journal(_Options) ->
    {ok, undefined, []}.

close_journal(Pump) ->
    case row(journal) of
        {Pump, _Dir} -> lineage_journal:detached(Pump);
        _ -> ok
    end,
    ets:delete(?TABLE, journal),
    ok = lineage_pump:close(Pump).

nif() ->
    case code:ensure_loaded(lineage_nif) of
        {module, _} ->
            try lineage_nif:info() of
                _ -> ok
            catch
                error:Reason when Reason =/= badarg -> nif_missing()
            end;
        {error, _} ->
            nif_missing()
    end.

nif_missing() ->
    Path = case code:priv_dir(lineage) of
               {error, bad_name} -> "priv/lineage.so";
               Dir -> filename:join(Dir, "lineage.so")
           end,
    Reason = case filelib:is_regular(Path) of
                 true -> "it was built for another OTP or another machine, or is damaged";
                 false -> "there is no such file"
             end,
    {error, {nif_missing, Path, Reason}}.

start_collecting(#st{hook = Hook, options = #{exits := Exits}, rules = Rules} = St) ->
    Args = [self(), Hook, Exits, Rules],
    Collector = spawn_opt(?MODULE, collect, Args, [link, {min_heap_size, lineage_walk:room()}]),
    rows([{phase, {attaching, 0, 0}}]),
    St#st{collector = Collector}.

%% @private Runs in a process of its own, so that the session answers while a large node is read.
-spec collect(pid(), lineage_hook:hook(), suspects | all, lineage_baseline:rules()) -> term().
collect(Session, Hook, Exits, Rules) ->
    Pids = processes(),
    Total = length(Pids),
    Self = self(),
    Result = lineage_baseline:seed(Hook, Pids, #{exits => Exits, rules => Rules},
                                   fun(Done) -> Session ! {progress, Self, Done, Total} end),
    Session ! {collected, Self, Result}.

attached(Result, #st{options = Options, hook = Hook, started = Started, caller = Alias} = St) ->
    St1 = mark(St),
    Took = now_ms() - Started,
    Fuse = case Options of
               #{for := Ms} ->
                   Ref = make_ref(),
                   erlang:send_after(Ms, self(), {fuse, Ref}),
                   Ref;
               _ -> undefined
           end,
    Notes = notes(Options, Result, St#st.warnings),
    Since = erlang:system_time(millisecond),
    Duty = case Options of
               #{overhead := off} -> undefined;
               #{overhead := Mode} -> lineage_duty:new(Mode, Options)
           end,
    rows([{duty, Duty}, {hook, lineage_hook:weak(Hook)}, {phase, attached}, {options, Options}, {since, Since}, {orphans_checked, undefined}, {coverage, undefined},
          {blind_ms, 0}, {blind_from, undefined}, {notes, Notes}, {ended, undefined}]),
    #{births := Births} = lineage_nif:info(),
    St2 = St1#st{phase = attached, fuse = Fuse, result = Result, caller = undefined, duty = Duty,
                 rates = [{now_ms(), Births}], checked_at = now_ms(),
                 watch = lineage_watch:new(Hook, Options, St1#st.rules)},
    St3 = measure(sample(St2)),
    Alias ! {Alias, reply, {ok, described(St3, Since, Took, Notes)}},
    schedule(?TICK_MS, St3).

sample(#st{sampler = undefined} = St) ->
    case lineage_leaks:start_link() of
        {ok, Sampler} -> teller(St#st{sampler = Sampler});
        _ -> teller(St)
    end;
sample(St) ->
    teller(St).

teller(#st{teller = undefined, pump = Pump, options = #{journal := _}} = St) when is_port(Pump) ->
    case lineage_journal:start_link(Pump) of
        {ok, Teller} -> St#st{teller = Teller};
        _ -> St
    end;
teller(St) ->
    St.

%% Windows, while the hook is ours.
measure(#st{duty = undefined} = St) ->
    St;
measure(#st{outliers = undefined} = St) ->
    case lineage_outliers:start_link() of
        {ok, Outliers} -> measure(St#st{outliers = Outliers});
        _ -> St
    end;
measure(#st{duty = Duty, points = Points} = St) ->
    case row(blind_from) of
        undefined ->
            {News, Points1, Duty1} = lineage_duty:start(Points, Duty),
            say(News),
            measuring(Points1, Duty1, St);
        _ ->
            unmeasured(St)
    end.

unmeasured(#st{duty = undefined} = St) ->
    St;
unmeasured(#st{duty = Duty, points = Points} = St) ->
    {Points1, Duty1} = lineage_duty:stop(Points, Duty),
    measuring(Points1, Duty1, St).

measuring(Points, Duty, St) ->
    rows([{duty, Duty}]),
    St#st{points = Points, duty = Duty}.

arm_points(Hook, Options) ->
    None = lineage_points:new(Hook),
    case lineage_points:arm(base, Options, None) of
        {ok, Points} -> {Points, [{coexistence, forgets_points} || lineage_points:is_armed(base, Points), lineage_points:forgetful()]};
        {error, Cause} -> {None, [Cause]}
    end.

%% While a scope is open.
arm_requests(#st{points = Points, options = Options} = St) ->
    case lineage_points:is_armed(requests, Points) orelse lineage_points:arm(requests, Options, Points) of
        true ->
            St;
        {ok, Armed} ->
            rows([{requests, true}]),
            St#st{points = Armed};
        {error, Cause} ->
            say([Cause]),
            St
    end.

%% A scope may open at this moment: it writes its row, then looks whether the points are set.
disarm_requests(#st{points = Points} = St) ->
    rows([{requests, false}]),
    case lineage_points:is_armed(requests, Points) andalso lineage_scope:is_open() of
        true ->
            rows([{requests, true}]),
            St;
        false ->
            St#st{points = lineage_points:disarm(requests, Points)}
    end.

described(#st{session = Session, options = Options, result = Result}, Since, Took, Notes) ->
    #{seeded := Seeded, flagged := Flagged, held := Held, big := Big, unresolved := Unresolved} = Result,
    maps:merge(
      maps:with([exits, monitors, sites, wrappers, overhead, target_ms, critical, journal, max_bytes, for, max_spawn_rate], Options),
      #{session => Session, release => list_to_integer(erlang:system_info(otp_release)),
        tracing => lineage_hook:api(), existing => Seeded, flagged => Flagged,
        tracers => [tracer(H) || H <- maps:keys(Held)], sampled => Big, unresolved => Unresolved,
        since => Since, took_ms => Took, notes => Notes}).

tracer({Module, _State}) -> Module;
tracer(Holder) -> Holder.

notes(#{exits := Exits, overhead := Overhead, critical := Critical}, #{held := Held}, Warnings) ->
    Api = lineage_hook:api(),
    Causes = [{coexistence, Api}] ++
        [{coexistence, all} || Api =:= single, Exits =:= all] ++
        [{coexistence, {foreign, lists:sum(maps:values(Held)), maps:keys(Held)}} || map_size(Held) > 0] ++
        [{critical_unknown, Unknown} || Unknown <- [[MFA || {M, F, A} = MFA <- Critical, not is_function_of(M, F, A)]], Unknown =/= []] ++
        [{coexistence, {system_monitor, Holder}} || Overhead =/= off, Holder <- [lineage_outliers:holder()], Holder =/= none] ++
        Warnings,
    [lineage_error:sentence(Cause) || Cause <- Causes].

%% Also one that is not exported can be traced.
is_function_of(Module, Function, Arity) ->
    code:ensure_loaded(Module) =:= {module, Module} andalso lists:member({Function, Arity}, Module:module_info(functions)).

%% Lineage's own: the session and its supervisor; helpers are known by their initial calls. Its
%% application master stays a root like any other.
mark(#st{rules = Rules, names = Names} = St) ->
    [lineage_nif:mark(Pid, own) || Pid <- [self(), whereis(lineage_sup)], is_pid(Pid)],
    St#st{names = lineage_baseline:mark_names(Rules, Names)}.

%% Detaching

blow(Cause, St) ->
    Sentence = lineage_error:sentence(Cause),
    Idle = undo(lineage_error:tagged(detached_meanwhile), Sentence, St),
    logger:notice("Lineage has detached by itself, because ~ts.", [Sentence]),
    Idle.

%% From any phase to idle, leaving nothing behind. `Reply' is for a caller who still waits for attach.
undo(Reply, Ended, #st{hook = Hook, collector = Collector, caller = Alias, yields = Yields, sampler = Sampler,
                       outliers = Outliers, pump = Pump, teller = Teller} = St) ->
    stop(Collector),
    lineage_hook:disarm(Hook),
    #st{points = Points} = unmeasured(St),
    lineage_points:destroy(Points),
    Phase = row(phase),
    rows([{phase, idle}, {ended, Ended}, {requests, false}]),
    [stop(Helper) || Helper <- [Sampler, Outliers, Teller]],
    lineage_scope:clear(),
    lineage_walk:apart(fun() -> lineage_baseline:unflag(Hook, flagged_pids(Phase), #{}) end),
    lineage_hook:destroy(Hook),
    close_journal(Pump),   % it reads the census
    lineage_nif:close(),
    [demonitor(Yield, [flush]) || Yield <- Yields],
    atomics:put(attached(), 1, 0),
    [ets:delete(?TABLE, Key) || Key <- [options, hook, since, orphans_checked, coverage, blind_ms, blind_from, notes, duty]],
    is_reference(Alias) andalso (Alias ! {Alias, reply, Reply}),
    #st{}.

%% The census names all that may be flagged, except what it had no room for, or did not come to.
flagged_pids(Phase) ->
    case lineage_nif:info() of
        #{lost := 0} when Phase =:= attached -> lineage_nif:pids();
        _ -> processes()
    end.

stop(undefined) ->
    ok;
stop(Helper) ->
    Monitor = monitor(process, Helper),
    unlink(Helper),
    exit(Helper, kill),
    receive {'DOWN', Monitor, process, Helper, _} -> ok end,
    receive {'EXIT', Helper, _} -> ok after 0 -> ok end.

%% Yielding (before OTP 27)

give_up(#st{phase = yielded} = St) ->
    St;
give_up(#st{hook = Hook, watch = Watch} = St) ->
    lineage_hook:disarm(Hook),
    #st{points = Points} = St1 = unmeasured(St),
    lineage_points:release(Points),
    lineage_walk:apart(fun() -> lineage_baseline:unflag(Hook, lineage_nif:pids(), #{}) end),
    tell(lineage_watch:blind(Watch), St1#st{phase = yielded}).

resume(Yield, #st{phase = yielded, yields = Yields} = St) ->
    case lists:delete(Yield, Yields) of
        [] ->
            St1 = St#st{phase = attached, yields = []},
            _ = rearm_points(St1),   % given up on purpose: no news
            %% A scope may have opened meanwhile.
            check(case lineage_scope:is_open() of true -> arm_requests(St1); false -> St1 end);
        Left ->
            St#st{yields = Left}
    end;
resume(_Yield, St) ->
    St.

%% A trace point vanishes when its module is loaded anew, or another tool takes or clears it.
rearm_points(#st{points = Points}) ->
    case lineage_points:check(Points) of
        0 -> [];
        Count -> [{coexistence, {points, Count}}]
    end.

%% The pulse: sweeps, fuses, and a look at the hook each second

tick(#st{phase = attached} = St) ->
    #{births := Births} = Info = lineage_nif:info(),
    Now = now_ms(),
    _ = sweep(Info),
    [{_, Last} | _] = St#st.rates,
    St2 = St#st{rates = window(Now, [{Now, Births} | St#st.rates])},
    case over_rate(St2) of
        false ->
            St3 = case Now - St2#st.checked_at >= ?CHECK_MS of
                      true -> check(mark(St2#st{checked_at = Now}));
                      false -> St2
                  end,
            Busy = Births - Last > 100 orelse is_map_key(max_spawn_rate, St3#st.options),
            schedule(case Busy of true -> ?BUSY_TICK_MS; false -> ?TICK_MS end, St3);
        Cause ->
            blow(Cause, St2)
    end;
tick(St) ->
    schedule(?TICK_MS, St).

%% Shed processes die unseen: their records are bounded by the live count and a slack. What a peak left
%% behind is given back.
sweep(#{live := Records, free_records := Free}) ->
    Live = erlang:system_info(process_count),
    case Records > 2 * Live + ?GHOSTS orelse Free > ?FREE of
        true -> lineage_nif:sweep();
        false -> 0
    end.

%% One sample that is a second old or older is kept: the rate is over at least a second.
window(Now, Samples) ->
    case lists:splitwith(fun({At, _}) -> Now - At < 1000 end, Samples) of
        {Recent, [Old | _]} -> Recent ++ [Old];
        {Recent, []} -> Recent
    end.

over_rate(#st{options = #{max_spawn_rate := Max}, rates = [{Now, Births} | _] = Rates}) ->
    {At, Before} = lists:last(Rates),
    Rate = (Births - Before) * 1000 div max(1000, Now - At),
    case Rate > Max of
        true -> {fuse, max_spawn_rate, Rate, Max};
        false -> false
    end;
over_rate(_) ->
    false.

check(#st{watch = Watch} = St0) ->
    lineage_scope:reap(?IDLE_MS),
    St = sample(disarm_requests(St0)),
    say(rearm_points(St)),
    %% Who looks for the hook must not find it set again before all is known that was born without it.
    lineage_hook:check(St#st.hook) =:= ok orelse ets:delete(?TABLE, hook),
    St1 = tell(lineage_watch:check(Watch), St),
    %% A trace session that was destroyed has been replaced.
    Hook = lineage_watch:hook(St1#st.watch),
    rows([{hook, lineage_hook:weak(Hook)}]),
    measure(St1#st{hook = Hook}).

tell(Watch, St) ->
    #{blind_ms := Ms, blind_from := From, news := News} = lineage_watch:told(Watch),
    rows([{blind_ms, Ms}, {blind_from, From}]),
    say(News),
    St#st{watch = lineage_watch:forget(Watch)}.

%% Also while the notes of this session are still to be written.
hear(Causes, #st{phase = attaching, warnings = Warnings} = St) ->
    [logger:notice("~ts", [lineage_error:sentence(Cause)]) || Cause <- Causes],
    St#st{warnings = Warnings ++ Causes};
hear(Causes, St) ->
    say(Causes),
    St.

say([]) ->
    ok;
say(Causes) ->
    Sentences = [lineage_error:sentence(Cause) || Cause <- Causes],
    [logger:notice("~ts", [Sentence]) || Sentence <- Sentences],
    Kept = [Note || Note <- row(notes), not lists:member(Note, Sentences)],
    rows([{notes, lists:sublist(Kept ++ Sentences, 20)}]).

schedule(Ms, St) ->
    Tick = make_ref(),
    erlang:send_after(Ms, self(), {tick, Tick}),
    St#st{tick = Tick}.

rows(Rows) ->
    true = ets:insert(?TABLE, Rows).

now_ms() -> erlang:monotonic_time(millisecond).

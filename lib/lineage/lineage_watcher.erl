%% @private Tells leaks of a living node as they appear: `lineage:watch/1'.
%%
%% It asks for the leaks after each sample, but spends no more than a hundredth of the time on that. It ends with the
%% session, with its receiver, or by {@link unwatch/1}.
-module(lineage_watcher).

-behaviour(gen_server).

-export([watch/1, unwatch/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-record(st, {options :: map(),
             to :: pid() | print,
             told = #{} :: #{term() => pid() | none},     % a pid that dies is never told again
             sampler :: reference() | undefined,          % its monitor
             count = 0 :: non_neg_integer(),              % told in the running minute
             held = 0 :: non_neg_integer(),               % held back in it
             due :: integer(),                            % the next look, monotonic ms
             waiting = false :: boolean()}).

-define(MAX_PER_MINUTE, 10).
-define(MINUTE_MS, 60000).
-define(AGAIN_MS, 1000).

-spec watch(map()) -> {ok, pid()}.
watch(Options) ->
    More = [{to, fun is_pid/1, "the pid of a process that gets the messages"},
            {max_per_minute, fun(N) -> is_integer(N) andalso N > 0 end, "a number of leaks, 1 or more"}],
    case lineage_leaks:check_options("watch", Options, More) of
        ok -> ok;
        {error, Cause} -> lineage_error:raise(Cause, [Options])
    end,
    _ = lineage_session:lookup(options, [Options]),
    {ok, Pid} = gen_server:start(?MODULE, Options, []),
    {ok, Pid}.

-spec unwatch(pid()) -> ok.
unwatch(Pid) when is_pid(Pid), node(Pid) =:= node() ->
    %% Another's pid, or one that has ended, is let be.
    case proc_lib:translate_initial_call(Pid) of
        {?MODULE, init, 1} ->
            Monitor = monitor(process, Pid),
            exit(Pid, shutdown),
            receive {'DOWN', Monitor, process, Pid, _} -> ok end;
        _ ->
            ok
    end;
unwatch(Other) ->
    lineage_error:raise({bad_argument, "unwatch", Other, "the pid that watch returned"}, [Other]).

-spec init(map()) -> {ok, #st{}}.
init(Options) ->
    %% Who started it may be a shell, whose group leader is what is printed to.
    Receiver = maps:get(to, Options, group_leader()),
    _ = monitor(process, Receiver),
    self() ! subscribe,
    {ok, #st{options = Options, to = maps:get(to, Options, print), due = now_ms()}}.

-spec handle_call(term(), gen_server:from(), #st{}) -> {reply, term(), #st{}}.
handle_call(_Other, _From, St) ->
    {reply, {error, badarg}, St}.

-spec handle_cast(term(), #st{}) -> {noreply, #st{}}.
handle_cast(_Other, St) ->
    {noreply, St}.

-spec handle_info(term(), #st{}) -> {noreply, #st{}} | {stop, normal, #st{}}.
handle_info(subscribe, St) ->
    Sampler = whereis(lineage_leaks),
    try is_pid(Sampler) andalso lineage_leaks:subscribe() of
        ok ->
            {noreply, look(St#st{sampler = monitor(process, Sampler)})};
        false ->
            again(St)
    catch
        exit:_ -> again(St)
    end;
handle_info({lineage_leaks, sampled}, St) ->
    {noreply, look(St)};
handle_info(look, St) ->
    {noreply, look(St#st{waiting = false})};
handle_info(minute, St) ->
    {noreply, minute(St)};
handle_info({'DOWN', Sampler, process, _, _}, #st{sampler = Sampler} = St) ->
    again(St#st{sampler = undefined});
handle_info({'DOWN', _Receiver, process, _, _}, St) ->
    {stop, normal, St};
handle_info(_Other, St) ->
    {noreply, St}.

%% The sampler is gone: with the session, or it crashed and comes again.
again(St) ->
    case is_attached() of
        true ->
            erlang:send_after(?AGAIN_MS, self(), subscribe),
            {noreply, St};
        false ->
            {stop, normal, St}
    end.

is_attached() ->
    try lineage_session:lookup(options) of
        _ -> true
    catch
        error:{lineage, _} -> false
    end.

look(#st{waiting = true} = St) ->
    St;
look(#st{due = Due, options = Options} = St) ->
    Start = now_ms(),
    case Due - Start of
        Left when Left > 0 ->
            erlang:send_after(Left, self(), look),
            St#st{waiting = true};
        _ ->
            %% A session that ends meanwhile is told by the sampler's death.
            Leaks = try lineage_leaks:leaks(maps:with([min_age_ms, ignore], Options))
                    catch error:{lineage, _} -> #{orphans => [], growing => [], scopes => []}
                    end,
            Each = each(Leaks),
            St1 = lists:foldl(fun tell/2, forget([Key || {{scope, _} = Key, _, _} <- Each], St), Each),
            End = now_ms(),
            St1#st{due = End + 100 * (End - Start)}
    end.

%% What hangs below an orphan is counted with it.
each(#{orphans := Orphans, growing := Growing, scopes := Scopes}) ->
    [{{supervisor, Pid, Generation}, Pid, G} || #{pid := Pid, generation := Generation} = G <- Growing]
        ++ [{{site, Id}, none, G} || #{site := #{id := Id}} = G <- Growing]
        ++ [{{scope, Scope}, none, S#{leak => scope}} || #{scope := Scope} = S <- Scopes]
        ++ [{{orphan, Pid, Generation}, Pid,
             O#{leak => orphan, indirect => length([1 || #{root := Pid1, direct := false} <- Orphans, Pid1 =:= Pid])}}
            || #{pid := Pid, generation := Generation, direct := true} = O <- Orphans].

%% The number of a scope that is listed no more never comes again.
forget(Scopes, #st{told = Told} = St) ->
    St#st{told = maps:filter(fun({scope, _} = Key, none) -> lists:member(Key, Scopes);
                                (_Key, Pid) -> Pid =:= none orelse is_process_alive(Pid)
                             end, Told)}.

tell({Key, _Pid, _Leak}, #st{told = Told} = St) when is_map_key(Key, Told) ->
    St;
tell({Key, Pid, Leak}, #st{told = Told, count = Count, held = Held, options = Options} = St) ->
    St1 = started(St#st{told = Told#{Key => Pid}}),
    case Count < maps:get(max_per_minute, Options, ?MAX_PER_MINUTE) of
        true ->
            send(Leak, St1),
            St1#st{count = Count + 1};
        false ->
            St1#st{held = Held + 1}
    end.

%% The first of a minute starts it.
started(#st{count = 0} = St) ->
    erlang:send_after(?MINUTE_MS, self(), minute),
    St;
started(St) ->
    St.

minute(#st{held = Held} = St) ->
    Held > 0 andalso send(#{leak => held_back, count => Held}, St),
    St#st{count = 0, held = 0}.

send(Leak, #st{to = To}) ->
    event(Leak),
    case To of
        print -> try lineage_print:print(Leak) catch error:terminated -> ok end;     % the receiver's death is under way
        Pid -> Pid ! {lineage, leak, Leak}, ok
    end.

%% For those who have telemetry, which nothing here depends on.
event(Leak) ->
    Module = telemetry(),
    case code:ensure_loaded(Module) of
        {module, Module} ->
            erlang:function_exported(Module, execute, 3) andalso Module:execute([lineage, leak], measured(Leak), Leak);
        {error, _} ->
            false
    end.

telemetry() -> binary_to_atom(<<"telemetry">>).

measured(#{leak := orphan, indirect := Indirect} = L) -> (maps:with([age_ms], L))#{count => 1 + Indirect};
measured(#{leak := scope, leaks := Leaks}) -> #{count => length(Leaks)};
measured(#{leak := held_back, count := Count}) -> #{count => Count};
measured(#{live := Live} = L) -> (maps:with([slope, births, live], L))#{count => Live}.

now_ms() -> erlang:monotonic_time(millisecond).

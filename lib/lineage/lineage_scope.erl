%% @doc Scopes: a number that a process hands down to all that it spawns, however deep, and also when the parent
%% between has died. What still lives when its scope has ended has outlived it.
%%
%% What a server spawns is in the server's scope, whoever asked for it. A supervisor is no such server: what
%% `supervisor', `DynamicSupervisor' (and so `Task.Supervisor' and `PartitionSupervisor') or `ConsumerSupervisor'
%% spawns between the call of its `handle_call/3' and the return is born in the scope of whoever asked, and so is
%% what a DynamicSupervisor starts in its place when it died. Trace points on these functions tell it; they are set
%% while a scope is open, and read only who asks. A request from another node is the supervisor's own.
-module(lineage_scope).

-export([open/1, open/2, enter/2, close/1, checking/2, forget/1, run/2, ended/0, ended/1, new_table/0, clear/0, is_open/0, reap/1, within/1,
         name/1, blind/1, silent/1, keep/2]).

-export_type([scope/0]).

-type scope() :: pos_integer().

-define(TABLE, lineage_scopes).
-define(IGNORES, lineage_ignores).
-define(KEPT, 1000).           % scopes with survivors that are remembered
-define(IDLE_MS, 5000).

-record(scope, {id :: scope() | '_' | '$1',
                parent = '_' :: non_neg_integer() | '_',      % the scope that its owner was in
                owner = '_' :: pid() | '_' | '$2',
                name = '_' :: binary() | '_',
                nested = '_' :: boolean() | '_',              % whether others were opened within it
                state = '_' :: open | ended | '_',
                at = '_' :: integer() | '_' | '$3',                  % monotonic ms: opened, then ended or checked until
                blind = '_' :: non_neg_integer() | '_',       % ms of the session's blind time so far
                silent = '_' :: non_neg_integer() | '_',      % silent failures of the node so far
                report = '_' :: lineage_leak:report() | undefined | '_'}).

%% @doc Opens a scope for the calling process: it and all that it spawns from now on are in it, until
%% {@link close/1}. Scopes nest. `Name' is what reports call it, any term. Any session will do; without one
%% `{lineage, not_attached}' is raised.
-spec open(term()) -> scope().
open(Name) ->
    open(Name, self()).

%% @doc The same for another process of this node; `{lineage, unknown_pid}' where there is no such one.
-spec open(term(), pid()) -> scope().
open(Name, Pid) ->
    open(Name, Pid, true).

open(Name, Pid, First) ->
    _ = lineage_session:lookup(options, [Name, Pid]),
    %% Before the row is there: the session asks whether its owner lives.
    is_pid(Pid) andalso node(Pid) =:= node() orelse lineage_error:raise({unknown_pid, Pid}, [Name, Pid]),
    %% What is learnt of later than born gets the scope that its parent has then.
    lineage_session:caught_up(),
    Id = atomics:add_get(persistent_term:get(?MODULE), 1, 1),
    Scope = #scope{id = Id, parent = 0, owner = Pid, name = text(Name), nested = false, state = open, at = now_ms(),
                   blind = lineage_session:lookup(blind_ms, [Name, Pid]), silent = silent_failures(), report = undefined},
    true = ets:insert(?TABLE, Scope),
    lineage_journal:scope(Id, Scope#scope.name),
    %% After the row is there: who takes the trace points back looks at the rows last.
    lineage_session:requests(),
    case lineage_nif:scope(Pid, Id) of
        {ok, Parent} ->
            Parent =/= 0 andalso ets:update_element(?TABLE, Parent, {#scope.nested, true}),
            ets:update_element(?TABLE, Id, {#scope.parent, Parent}),
            Id;
        {error, closed} ->
            ets:delete(?TABLE, Id),
            lineage_error:raise({not_attached, undefined}, [Name, Pid]);
        dead ->
            ets:delete(?TABLE, Id),
            case First andalso is_process_alive(Pid) of
                %% It was born past a hook that is ours.
                true -> lineage_session:check(), open(Name, Pid, false);
                false -> lineage_error:raise({unknown_pid, Pid}, [Name, Pid])
            end
    end.

%% @doc Puts a process into a scope, 0 for none, beside the owner's: it hands it down from now on. Returns the one that
%% it was in, 0 also for a process that is not known. Who has put it there takes it back: {@link close/1} does not.
-spec enter(pid(), scope() | 0) -> scope() | 0.
enter(Pid, Id) ->
    case lineage_nif:scope(Pid, Id) of
        {ok, Former} -> Former;
        _ -> 0
    end.

%% @doc Ends a scope: its owner, if it lives, goes back to the scope that it was in before. What it has spawned stays
%% in this one. Again, and for a scope that is not known, it does nothing.
-spec close(scope()) -> ok.
close(Id) ->
    case row(Id) of
        [#scope{state = open, owner = Owner, parent = Parent}] ->
            case lineage_nif:record(Owner) of
                #{scope := Id} -> lineage_nif:scope(Owner, Parent);
                _ -> dead
            end,
            ets:update_element(?TABLE, Id, [{#scope.state, ended}, {#scope.at, now_ms()}]),
            ok;
        _ ->
            ok
    end.

%% Without a session there is none.
row(Id) ->
    try ets:lookup(?TABLE, Id)
    catch error:badarg -> []
    end.

%% @private It has ended, and is being checked until then: others let it be.
-spec checking(scope(), integer()) -> ok.
checking(Id, Until) ->
    ets:update_element(?TABLE, Id, {#scope.at, Until}),
    ok.

%% @doc Nobody asks for it any more.
-spec forget(scope()) -> ok.
forget(Id) ->
    ets:delete(?TABLE, Id),
    ok.

%% @doc Runs `Fun' in the calling process, in a scope of its own, and returns its result and what outlived it, as
%% {@link lineage_leak:check/2} reports it. What `Fun' raises is raised; then {@link ended/0} tells what is left.
-spec run(term(), fun(() -> Result)) -> {Result, lineage_leak:report()}.
run(Name, Fun) when is_function(Fun, 0) ->
    Scope = open(Name),
    try Fun() of
        Result -> {Result, lineage_leak:check(Scope, #{})}
    catch
        Class:Reason:Stack ->
            close(Scope),
            erlang:raise(Class, Reason, Stack)
    end;
run(Name, Fun) ->
    lineage_error:raise({bad_argument, "scope", Fun, "a name and a function without arguments"}, [Name, Fun]).

%% @doc The scopes that ended with survivors which still live, oldest first: of the last 1,000.
-spec ended() -> [lineage_leak:report()].
ended() ->
    ended(?IDLE_MS).

%% @private Those that nobody has checked are left to those who may, for so long after their end.
-spec ended(IdleMs :: non_neg_integer()) -> [lineage_leak:report()].
ended(IdleMs) ->
    _ = lineage_session:lookup(options),
    trim(),
    Ended = lists:keysort(#scope.id, ets:match_object(?TABLE, #scope{state = ended, _ = '_'})),
    [Report || Scope <- Ended, Report <- survivors(Scope, IdleMs)].

survivors(#scope{id = Id, report = #{leaks := Leaks} = Report}, _IdleMs) ->
    Scopes = within(Id),
    case [Leak || #{pid := Pid} = Leak <- Leaks, is_in(Scopes, Pid)] of
        [] -> forget(Id), [];
        Left -> [Report#{leaks := Left}]
    end;
survivors(#scope{id = Id, at = At}, IdleMs) ->
    %% Its block raised, or its check is under way.
    case now_ms() - At >= IdleMs of
        true -> [R || #{leaks := [_ | _]} = R <- check(Id)];
        false -> []
    end.

%% Another one may ask at this moment, and have forgotten it.
check(Id) ->
    try [lineage_leak:check(Id, #{within => 0})]
    catch error:{lineage, unknown_scope} -> []
    end.

%% Not the next process that was given that pid.
is_in(Scopes, Pid) ->
    case is_process_alive(Pid) andalso lineage_nif:record(Pid) of
        #{scope := Scope} -> lists:member(Scope, Scopes);
        _ -> false
    end.

%% @private The report of a scope that was checked: kept while there are survivors.
-spec keep(scope(), lineage_leak:report()) -> ok.
keep(Id, #{leaks := []}) ->
    forget(Id);
keep(Id, Report) ->
    ets:update_element(?TABLE, Id, {#scope.report, Report}),
    trim().

trim() ->
    Ended = ets:select(?TABLE, [{#scope{id = '$1', state = ended, _ = '_'}, [], ['$1']}]),
    [forget(Old) || Old <- lists:sublist(lists:sort(Ended), max(0, length(Ended) - ?KEPT))],
    ok.

%% @private What nobody will close or ask for: the scopes of those who were killed have ended, and {@link ended/0} tells what
%% is left of them; and those beyond the last 1,000.
-spec reap(IdleMs :: non_neg_integer()) -> ok.
reap(IdleMs) ->
    Open = ets:select(?TABLE, [{#scope{id = '$1', owner = '$2', state = open, at = '$3', _ = '_'},
                                [{'=<', '$3', now_ms() - IdleMs}], [{{'$1', '$2'}}]}]),
    [ets:update_element(?TABLE, Id, [{#scope.state, ended}, {#scope.at, now_ms()}])
     || {Id, Owner} <- Open, not is_process_alive(Owner)],
    trim().

%% @private The scope and those that were opened within it, but for those that were checked: what is left of them
%% was reported.
-spec within(scope()) -> [scope()].
within(Id) ->
    case row(Id) of
        [#scope{nested = true}] ->
            Inner = ets:select(?TABLE, [{#scope{id = '$1', parent = Id, report = undefined, _ = '_'}, [], ['$1']}]),
            [Id | lists:append([within(I) || I <- Inner])];
        _ ->
            [Id]
    end.

%% @private What reports call it.
-spec name(scope()) -> binary() | undefined.
name(Id) ->
    case row(Id) of
        [#scope{name = Name}] -> Name;
        [] -> undefined
    end.

%% @private For how long, since it was opened, the session may have missed what was born, in ms; at most.
-spec blind(scope()) -> non_neg_integer().
blind(Id) ->
    case row(Id) of
        [#scope{blind = Before}] -> lineage_session:lookup(blind_ms) - Before;
        [] -> 0
    end.

%% @private How many silent failures the node has had since.
-spec silent(scope()) -> non_neg_integer().
silent(Id) ->
    case row(Id) of
        [#scope{silent = Before}] -> max(0, silent_failures() - Before);
        [] -> 0
    end.

silent_failures() ->
    case lineage_nif:info() of
        #{silent_failures := Count} -> Count;
        {error, closed} -> 0
    end.

%% @private Made by the session, and as old as it; the numbers of scopes go on, so that none is used twice: whoever has
%% one of a session that crashed must not ask for another's.
-spec new_table() -> ok.
new_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {keypos, #scope.id}, {read_concurrency, true}, {write_concurrency, true}]),
    ?IGNORES = ets:new(?IGNORES, [named_table, public]),
    persistent_term:get(?MODULE, none) =:= none andalso persistent_term:put(?MODULE, atomics:new(1, [{signed, false}])),
    ok.

%% @private A session has ended, and the numbers of its scopes mean nothing to the next.
-spec clear() -> ok.
clear() ->
    true = ets:delete_all_objects(?TABLE),
    true = ets:delete_all_objects(?IGNORES),
    ok.

%% @private Whether a scope is open whose owner lives, or was opened moments ago.
-spec is_open() -> boolean().
is_open() ->
    Open = ets:match_object(?TABLE, #scope{state = open, _ = '_'}),
    lists:any(fun(#scope{owner = Owner, at = At}) -> is_process_alive(Owner) orelse now_ms() - At < ?IDLE_MS end, Open).

%% At most 200 characters of it, on one line.
text(Name) when is_binary(Name) ->
    short(Name);
text(Name) ->
    short(try unicode:characters_to_binary(Name) of
              Text when is_binary(Text) -> Text;
              _ -> print(Name)
          catch
              error:_ -> print(Name)
          end).

print(Name) -> unicode:characters_to_binary(io_lib:format("~0tP", [Name, 12])).

short(Text) ->
    try string:slice(string:replace(Text, "\n", " ", all), 0, 200) of
        Short -> unicode:characters_to_binary(Short)
    catch
        error:_ -> <<"(a name that is no text)">>
    end.

now_ms() -> erlang:monotonic_time(millisecond).

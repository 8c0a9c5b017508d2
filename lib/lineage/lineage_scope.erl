%% @doc Scopes: a number that a process hands down to all that it spawns, however deep, and also when the parent
%% between has died. What still lives when its scope has ended has outlived it.
%%
%% What a server spawns is in the server's scope, whoever asked for it. A supervisor is no such server: what
%% `supervisor', `DynamicSupervisor' (and so `Task.Supervisor' and `PartitionSupervisor') or `ConsumerSupervisor'
%% spawns between the call of its `handle_call/3' and the return is born in the scope of whoever asked, and so is
%% what a DynamicSupervisor starts in its place when it died. Trace points on these functions tell it; they are set
%% while a scope is open, and read only who asks. A request from another node is the supervisor's own.
-module(lineage_scope).

-export([open/1, open/2, enter/2, close/1, forget/1, run/2, ended/0, new_table/0, clear/0, is_open/0, within/1, name/1, keep/2]).

-export_type([scope/0]).

-type scope() :: pos_integer().

-define(TABLE, lineage_scopes).
-define(IGNORES, lineage_ignores).
-define(NEXT, next).           % the row that numbers scopes: in all sessions, none twice
-define(KEPT, 1000).           % scopes with survivors that are remembered
-define(IDLE_MS, 5000).

-record(scope, {id :: scope() | '_' | '$1',
                parent = '_' :: non_neg_integer() | '_',      % the scope that its owner was in
                owner = '_' :: pid() | '_',
                name = '_' :: binary() | '_',
                state = '_' :: open | ended | '_',
                at = '_' :: integer() | '_',                  % monotonic ms: opened, then ended
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
    _ = lineage_session:lookup(options, [Name, Pid]),
    Id = ets:update_counter(?TABLE, ?NEXT, 1),
    Scope = #scope{id = Id, parent = 0, owner = Pid, name = text(Name), state = open, at = now_ms(), report = undefined},
    true = ets:insert(?TABLE, Scope),
    %% After the row is there: who takes the trace points back looks at the rows last.
    lineage_session:requests(),
    case is_pid(Pid) andalso node(Pid) =:= node() andalso lineage_nif:scope(Pid, Id) of
        {ok, Parent} ->
            ets:update_element(?TABLE, Id, {#scope.parent, Parent}),
            Id;
        {error, closed} ->
            ets:delete(?TABLE, Id),
            lineage_error:raise({not_attached, undefined}, [Name, Pid]);
        _ ->
            ets:delete(?TABLE, Id),
            lineage_error:raise({unknown_pid, Pid}, [Name, Pid])
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
    case ets:lookup(?TABLE, Id) of
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
    _ = lineage_session:lookup(options),
    Ended = lists:keysort(#scope.id, ets:match_object(?TABLE, #scope{state = ended, _ = '_'})),
    [Report || Scope <- Ended, Report <- survivors(Scope)].

survivors(#scope{id = Id, report = #{leaks := Leaks} = Report}) ->
    case [Leak || #{pid := Pid} = Leak <- Leaks, is_in(Id, Pid)] of
        [] -> forget(Id), [];
        Left -> [Report#{leaks := Left}]
    end;
survivors(#scope{id = Id, at = At}) ->
    %% Its block raised, or its check is under way.
    case now_ms() - At > ?IDLE_MS of
        true -> [R || #{leaks := [_ | _]} = R <- [lineage_leak:check(Id, #{within => 0})]];
        false -> []
    end.

%% Not the next process that was given that pid.
is_in(Id, Pid) ->
    case is_process_alive(Pid) andalso lineage_nif:record(Pid) of
        #{scope := Scope} -> lists:member(Scope, within(Id));
        _ -> false
    end.

%% @private The report of a scope that was checked: kept while there are survivors.
-spec keep(scope(), lineage_leak:report()) -> ok.
keep(Id, #{leaks := []}) ->
    forget(Id);
keep(Id, Report) ->
    ets:update_element(?TABLE, Id, {#scope.report, Report}),
    Kept = ets:select(?TABLE, [{#scope{id = '$1', state = ended, _ = '_'}, [], ['$1']}]),
    [forget(Old) || length(Kept) > ?KEPT, Old <- [lists:min(Kept)]],
    ok.

%% @private The scope and those that were opened within it, but for those that were checked: what is left of them
%% was reported.
-spec within(scope()) -> [scope()].
within(Id) ->
    [Id | lists:append([within(Child) || Child <- ets:select(?TABLE, [{#scope{id = '$1', parent = Id, report = undefined, _ = '_'},
                                                                       [], ['$1']}])])].

%% @private What reports call it.
-spec name(scope()) -> binary() | undefined.
name(Id) ->
    case ets:lookup(?TABLE, Id) of
        [#scope{name = Name}] -> Name;
        [] -> undefined
    end.

%% @private Made by the session, and as old as it: numbers of scopes are never used twice.
-spec new_table() -> ok.
new_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {keypos, #scope.id}, {read_concurrency, true}, {write_concurrency, true}]),
    ?IGNORES = ets:new(?IGNORES, [named_table, public]),
    true = ets:insert(?TABLE, {scope, ?NEXT, 0}),
    ok.

%% @private A session has ended, and the numbers of its scopes mean nothing to the next.
-spec clear() -> ok.
clear() ->
    [{scope, ?NEXT, Last}] = ets:lookup(?TABLE, ?NEXT),
    true = ets:delete_all_objects(?TABLE),
    true = ets:delete_all_objects(?IGNORES),
    true = ets:insert(?TABLE, {scope, ?NEXT, Last}),
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

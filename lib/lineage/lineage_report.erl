%% @doc The orphans of this node, each checked against the live process, and the last dead.
%%
%% The census gives candidates: processes whose chain of guardians leads to no root. The links of each
%% candidate are then read from the process itself. A candidate that reaches a rooted process over live
%% bonds is tethered, and the census is told so; what is left is an orphan. One whose links could not
%% be read in time, or that depends on such a one, is not listed but counted as unresolved.
-module(lineage_report).

-export([orphans/1, orphans_report/1, recent/1, attached/2, kind/4, lives/2, near/2, is_match/2]).

-export_type([orphan/0, options/0, kind/0, basis/0]).

-type kind() :: foreign | escaped | abandoned | detached.
-type pattern() :: {module(), atom(), arity() | '_'} | atom().
-type options() :: #{kind => kind() | [kind()], app => atom(), min_age_ms => non_neg_integer(),
                     ignore => [pattern()], max => pos_integer()}.
%% Who would stop it otherwise: listed: a supervisor lists it without a link (by pid; nobody notices its
%% crash); group_leader: killed, not shut down, when that application stops; remote_link: it dies when
%% that process of another node dies or the connection is lost; unresolved: that supervisor did not answer.
-type basis() :: {listed, pid(), Id :: term()} | {group_leader, App :: atom()} | {remote_link, pid()}
               | {unresolved, Supervisor :: pid()}.
%% root: the orphan that this one hangs below (itself when direct). age_ms: since attach for those that
%% were there before it.
-type orphan() :: #{pid := pid(), generation := non_neg_integer(), kind := kind(),
                    parent := pid() | {node(), non_neg_integer()} | undefined, guardian := pid() | undefined,
                    initial_call := mfa() | undefined, spawner := mfa() | undefined, site := lineage_site:site() | undefined,
                    name := atom(), label := atom() | binary(), age_ms := non_neg_integer(),
                    monitored := no | yes | unknown, direct := boolean(), root := pid(), app := atom(),
                    why := [basis()]}.

-define(DEADLINE, 300).         % ms, for each process asked
-define(BUDGET, 4000).          % ms, for all candidates of one report
-define(ROWS, 10000).           % candidates checked unless `max' says otherwise
-define(ALL, 16#7ffffff).       % more than there can be processes
-define(ROUNDS, 4).             % of recognising hosts in one report
-define(BATCH, 200).
-define(SUPERVISORS, 100).      % asked for their children in one report

%% @doc The orphans, oldest first. Options: `kind' (one, or a list), `app', `min_age_ms', `ignore' (initial
%% calls, `{M, F, A}' where A may be `_', and registered names or labels; below an ignored orphan all are
%% ignored), `max' (how many candidates are checked, 10,000).
-spec orphans(options()) -> [orphan()].
orphans(Options) ->
    {Rows, _Coverage} = orphans_report(Options),
    Rows.

%% @private Runs a query of a session that must be there, and that somebody may end meanwhile.
-spec attached([term()], fun(() -> Result)) -> Result.
attached(Args, Query) ->
    _ = lineage_session:lookup(options, Args),
    Session = session(),
    try
        Query()
    catch
        Class:Reason:Stack ->
            %% Another session may be there already.
            case session() of
                Session when Session =/= closed -> erlang:raise(Class, Reason, Stack);
                _ -> lineage_error:raise({not_attached, undefined}, Args)
            end
    end.

session() ->
    case lineage_nif:info() of
        #{session := Session} -> Session;
        {error, closed} -> closed
    end.

%% @doc The same, with what the report stands on: `checked' and `unchecked' candidates, `unresolved' ones,
%% `tethered' ones that the census was wrong about, and the link check's `unanswered' and `sampled'.
-spec orphans_report(options()) -> {[orphan()], map()}.
orphans_report(Options) ->
    attached([Options], fun() -> report(Options) end).

report(Options) ->
    ok = validate(Options),
    _ = lineage_nif:sweep(),
    #{counts := Counts} = Check = lineage_links:check(),
    {Candidates, Chosen, Unchecked} = candidates(Options, Counts, ?ROUNDS),
    Set = maps:from_keys(Candidates, true),
    End = now_ms() + ?BUDGET,
    Graph = graph(Chosen, Set, #{}, End),
    {Orphans, Tethered, Unresolved} = settle(Graph),
    Rows = rows(Orphans, Counts),
    Listed = filter(Rows, Options),
    Coverage = #{checked => map_size(Graph), unchecked => Unchecked, unresolved => Unresolved,
                 tethered => length(Tethered), unanswered => length(maps:get(unanswered, Check)),
                 sampled => maps:get(sampled, Check)},
    ok = lineage_session:checked([{coverage, Coverage} | whole(Options, length(Rows), Unchecked)]),
    {Listed, Coverage}.

%% A host that only its stack gives away is recognised now; what hangs on it is no candidate then. A
%% host may have been started by another such host, hence the rounds.
candidates(Options, Counts, Rounds) ->
    {_Totals, Candidates} = lineage_nif:verdict(?ALL),
    {Chosen, Unchecked} = choose(Candidates, Counts, Options),
    case Rounds > 0 andalso lineage_lists:mark(Chosen, ?DEADLINE) of
        Marked when is_integer(Marked), Marked > 0 -> candidates(Options, Counts, Rounds - 1);
        _ -> {Candidates, Chosen, Unchecked}
    end.

%% Only a whole report says how many orphans there are.
whole(Options, Count, 0) when not is_map_key(min_age_ms, Options) -> [{orphans_checked, Count}];
whole(_Options, _Count, _Unchecked) -> [].

%% @doc The last dead that had no link, newest first; at most 1,000.
-spec recent(pos_integer()) -> [map()].
recent(Count) when is_integer(Count), Count > 0 ->
    attached([Count], fun() ->
                              Dead = lineage_nif:recent(1000),
                              Shown = lists:sublist([D || #{initial_call := Call} = D <- Dead, not helper(Call)], Count),
                              Sites = lineage_site:describe_all([S || #{site := S} <- Shown]),
                              [D#{site := map_get(S, Sites)} || #{site := S} = D <- Shown]
                      end);
recent(Count) ->
    lineage_error:raise({bad_count, "recent", Count}, [Count]).

helper({lineage_proc, _, _}) -> true;
helper(_) -> false.

%% Age is in the census, so it narrows the candidates before they are asked anything. Where there are more
%% than can be asked, the guardians among them come first: what a host tethers would fill the list, and
%% the host itself never be recognised.
choose(Candidates, Counts, Options) ->
    Aged = case Options of
               #{min_age_ms := Min} when Min > 0 ->
                   [Pid || Pid <- Candidates, #{age_ms := Age} <- [lineage_nif:record(Pid)], Age >= Min];
               _ ->
                   Candidates
           end,
    Max = maps:get(max, Options, ?ROWS),
    case length(Aged) of
        All when All =< Max ->
            {Aged, 0};
        All ->
            {Guardians, Others} = lists:partition(fun(Pid) -> is_map_key(Pid, Counts) end, Aged),
            {lists:sublist(Guardians ++ Others, Max), All - Max}
    end.

%% #{Pid => dead | unresolved | {Bonds among candidates, Anchors, Info}}; bonds to candidates that were
%% not chosen pull these in, so that every component is complete.
graph([], _Set, Graph, _End) ->
    Graph;
graph(Pids, Set, Graph, End) ->
    {Batch, Rest} = lists:split(min(?BATCH, length(Pids)), Pids),
    New = lists:usort([P || P <- Batch, not is_map_key(P, Graph)]),
    Answers = case now_ms() < End of
                  true -> lineage_proc:info_many(New, [links, monitored_by | lineage_describe:items()], ?DEADLINE);
                  false -> [{Pid, unresolved} || Pid <- New]
              end,
    {Graph1, Found} = lists:foldl(fun(A, Acc) -> node_of(A, Set, Acc) end, {Graph, []}, Answers),
    graph(Rest ++ [P || P <- Found, not is_map_key(P, Graph1)], Set, Graph1, End).

node_of({Pid, #{links := Links} = Info}, Set, {Graph, Found}) ->
    Sorted = [{rooted(Bond, Set), Bond} || Bond <- lineage_links:bonds(Pid, Links)],
    Anchors = [Bond || {true, Bond} <- Sorted],
    Unknown = [Bond || {unknown, Bond} <- Sorted],
    Peers = [Bond || {false, Bond} <- Sorted],
    {Graph#{Pid => {Peers, Anchors, Unknown, Info}}, Peers ++ Found};
node_of({Pid, Other}, _Set, {Graph, Found}) ->
    {Graph#{Pid => Other}, Found}.

%% A process that was born since the verdict is no candidate yet: its own chain tells.
rooted(Bond, Set) ->
    lineage_links:rooted(Bond, Set).

%% By components: one anchor tethers all of it; else one that could not be asked leaves all of it unresolved.
settle(Graph) ->
    Edges = maps:fold(fun edges/3, #{}, Graph),
    settle(maps:keys(Graph), Graph, Edges, #{}, {[], [], []}).

settle([], _Graph, _Edges, _Seen, Acc) ->
    Acc;
settle([Pid | Rest], Graph, Edges, Seen, {Orphans, Tethered, Unresolved} = Acc) ->
    case is_map_key(Pid, Seen) orelse map_get(Pid, Graph) =:= dead of
        true ->
            settle(Rest, Graph, Edges, Seen, Acc);
        false ->
            Members = component([Pid], Edges, #{}),
            Seen1 = maps:merge(Seen, Members),
            Nodes = [{P, map_get(P, Graph)} || P <- maps:keys(Members), is_map_key(P, Graph),
                                               map_get(P, Graph) =/= dead],
            Anchors = [{P, A} || {P, {_, [A | _], _, _}} <- Nodes],
            Silent = [P || {P, unresolved} <- Nodes] ++ [P || {P, {_, _, [_ | _], _}} <- Nodes],
            Pids = [P || {P, _} <- Nodes],
            Acc1 = case {Anchors, Silent} of
                       {[_ | _], _} ->
                           repair(Anchors, Edges, Members),
                           {Orphans, Pids ++ Tethered, Unresolved};
                       {[], [_ | _]} ->
                           {Orphans, Tethered, Pids ++ Unresolved};
                       {[], []} ->
                           {[{P, Info} || {P, {_, _, _, Info}} <- Nodes, is_map(Info)] ++ Orphans, Tethered, Unresolved}
                   end,
            settle(Rest, Graph, Edges, Seen1, Acc1)
    end.

edges(Pid, {Peers, _, _, _}, Edges) ->
    lists:foldl(fun(Peer, E) -> edge(Peer, Pid, edge(Pid, Peer, E)) end, Edges, Peers);
edges(_Pid, _, Edges) ->
    Edges.

edge(From, To, Edges) ->
    maps:update_with(From, fun(L) -> [To | L] end, [To], Edges).

component([], _Edges, Seen) ->
    Seen;
component([Pid | Rest], Edges, Seen) when is_map_key(Pid, Seen) ->
    component(Rest, Edges, Seen);
component([Pid | Rest], Edges, Seen) ->
    component(maps:get(Pid, Edges, []) ++ Rest, Edges, Seen#{Pid => true}).

%% The census learns the guardians that the hook could not see: outwards from the anchors.
repair([], _Edges, _Left) ->
    ok;
repair([{Pid, Guardian} | Rest], Edges, Left) when is_map_key(Pid, Left) ->
    _ = lineage_nif:set_guardian(Pid, Guardian),
    Next = [{Peer, Pid} || Peer <- maps:get(Pid, Edges, [])],
    repair(Rest ++ Next, Edges, maps:remove(Pid, Left));
repair([_ | Rest], Edges, Left) ->
    repair(Rest, Edges, Left).

%% One row for each orphan, the oldest first.
rows(Orphans, Counts) ->
    Known = [{Record, Info} || {Pid, Info} <- Orphans, #{flags := Flags} = Record <- [lineage_nif:record(Pid)],
                               not lists:member(own, Flags)],
    Pids = maps:from_list([{Pid, Record} || {#{pid := Pid} = Record, _} <- Known]),
    Held = held(Known, Counts),
    Apps = lineage_describe:apps(),
    Roots = roots(Known, Pids),
    Sites = lineage_site:describe_all([S || {#{site := S}, _} <- Known]),
    Rows = [row(Record#{site := map_get(S, Sites)}, Info, Pids, Held, Apps, Roots)
            || {#{site := S} = Record, Info} <- Known],
    lists:sort(fun(A, B) -> order(A) =< order(B) end, Rows).

order(#{generation := Generation, pid := Pid}) -> {Generation, Pid}.

row(#{pid := Pid, guardian := Guardian, parent := Parent} = Record, Info, Pids, Held, Apps, Roots) ->
    Call = lineage_describe:initial_call(maps:get(initial_call, Record), Info),
    Leader = maps:get(group_leader, Info),
    {Listed, Silent} = listed(Record, Info, Held),
    Root = maps:get(Pid, Roots, Pid),
    #{pid => Pid, generation => maps:get(generation, Record), kind => kind(Record, Info, fun(G) -> is_map_key(G, Pids) end, Listed),
      parent => Parent, guardian => other(Guardian, Pid), initial_call => Call,
      spawner => maps:get(spawner, Record, undefined), site => maps:get(site, Record),
      name => lineage_describe:name(Info), label => lineage_describe:label(Info),
      age_ms => maps:get(age_ms, Record), monitored => monitored(Info), direct => Root =:= Pid, root => Root,
      app => lineage_describe:app(Leader, Call, Apps),
      why => [{listed, Sup, Id} || {Sup, Id} <- Listed] ++ [{group_leader, App} || #{Leader := App} <- [Apps]]
             ++ [{remote_link, R} || R <- lineage_links:remote(maps:get(links, Info))]
             ++ [{unresolved, Sup} || Sup <- Silent]}.

%% Its own guardian: how the link check marks one whose guardian is gone.
other(Pid, Pid) -> undefined;
other(Guardian, _Pid) -> Guardian.

%% @private The first that fits. A guardian that is an orphan itself never tethered anybody, and one that died
%% did not let go of a link: then the parent tells.
-spec kind(map(), map(), fun((pid()) -> boolean()), list()) -> kind().
kind(#{pid := Pid, flags := Flags, guardian := Guardian, parent := Parent, generation := Generation},
     #{links := Links}, IsOrphan, Listed) ->
    Was = is_pid(Guardian) andalso Guardian =/= Pid andalso node(Guardian) =:= node()
        andalso is_process_alive(Guardian) andalso not IsOrphan(Guardian)
        andalso not lists:member(Guardian, Links),
    %% An unlink that the hook saw: the guardian is no longer in the record.
    Loosened = lists:member(escaped, Flags) andalso not (is_pid(Parent) andalso IsOrphan(Parent)),
    case {lists:member(foreign, Flags), Listed =/= [] orelse Was orelse Loosened} of
        {true, _} -> foreign;
        {false, true} -> escaped;
        {false, false} ->
            case is_pid(Parent) andalso lives(Parent, Generation) of
                true -> detached;
                false -> abandoned
            end
    end.

%% @private A pid comes round again: a parent is older than its child.
-spec lives(pid(), non_neg_integer()) -> boolean().
lives(Parent, _Generation) when node(Parent) =/= node() ->
    false;
lives(Parent, Generation) ->
    case lineage_nif:record(Parent) of
        #{generation := Older} -> Older =< Generation andalso is_process_alive(Parent);
        undefined -> is_process_alive(Parent)
    end.

%% The process is alive, so the VM knows its monitors; Lineage's own do not count.
monitored(#{monitored_by := By}) ->
    case [P || P <- By, not (is_pid(P) andalso node(P) =:= node() andalso lineage_links:has(own, P))] of
        [] -> no;
        [_ | _] -> yes
    end.

%% Direct: the top of a component; indirect: what hangs below it over live bonds.
roots(Known, Pids) ->
    Edges = lists:foldl(
              fun({#{pid := Pid}, #{links := Links}}, Acc) ->
                      lists:foldl(fun(P, E) -> edge(P, Pid, edge(Pid, P, E)) end, Acc,
                                  [P || P <- lineage_links:bonds(Pid, Links), is_map_key(P, Pids)])
              end, #{}, Known),
    roots(maps:keys(Pids), Pids, Edges, #{}).

roots([], _Pids, _Edges, Roots) ->
    Roots;
roots([Pid | Rest], Pids, Edges, Roots) when is_map_key(Pid, Roots) ->
    roots(Rest, Pids, Edges, Roots);
roots([Pid | Rest], Pids, Edges, Roots) ->
    Members = component([Pid], Edges, #{}),
    Records = [map_get(M, Pids) || M <- maps:keys(Members)],
    Tops = [R || #{parent := Parent} = R <- Records, not is_map_key(Parent, Members)],
    #{pid := Top} = hd(lists:sort(fun(A, B) -> order(A) =< order(B) end, case Tops of [] -> Records; _ -> Tops end)),
    roots(Rest, Pids, Edges, maps:merge(Roots, maps:map(fun(_, true) -> Top end, Members))).

%% The supervisors that might list an orphan: its guardian, parent and ancestors. Each is asked once.
held(Known, Counts) ->
    Near = lists:usort(lists:append([near(Record, Info) || {Record, Info} <- Known])),
    Sups = lineage_child:supervisors(Near),
    {Asked, Others} = lists:split(min(?SUPERVISORS, length(Sups)), Sups),
    maps:merge(maps:from_keys(Others, unresolved),
               maps:from_list([{Sup, lineage_child:children(Sup, maps:get(Sup, Counts, 0))} || Sup <- Asked])).

%% @private
-spec near(map(), map()) -> [pid()].
near(#{pid := Pid, guardian := Guardian, parent := Parent}, Info) ->
    Ancestors = case Info of
                    #{otp := #{ancestors := List}} -> [resolve(A) || A <- List];
                    _ -> []
                end,
    lists:usort([P || P <- [Guardian, Parent | Ancestors], is_pid(P), P =/= Pid, node(P) =:= node()]).

resolve(Name) when is_atom(Name) -> whereis(Name);
resolve(Pid) -> Pid.

listed(#{pid := Pid} = Record, #{links := Links} = Info, Held) ->
    Sups = [Sup || Sup <- near(Record, Info), is_map_key(Sup, Held), not lists:member(Sup, Links)],
    {[{Sup, map_get(Pid, Children)} || Sup <- Sups, #{Pid := _} = Children <- [map_get(Sup, Held)]],
     [Sup || Sup <- Sups, map_get(Sup, Held) =:= unresolved]}.

filter(Rows, Options) ->
    Ignored = maps:from_list([{Pid, true} || #{pid := Pid} = Row <- Rows, ignored(Row, maps:get(ignore, Options, []))]),
    [Row || #{pid := Pid, root := Root, kind := Kind, app := App, age_ms := Age} = Row <- Rows,
            not is_map_key(Pid, Ignored), not is_map_key(Root, Ignored),
            lists:member(Kind, kinds(maps:get(kind, Options, [foreign, escaped, abandoned, detached]))),
            App =:= maps:get(app, Options, App), Age >= maps:get(min_age_ms, Options, 0)].

kinds(Kinds) when is_list(Kinds) -> Kinds;
kinds(Kind) -> [Kind].

%% By the call that is shown, the one it was born with, or its spawner's.
ignored(_Row, []) ->
    false;
ignored(#{pid := Pid, initial_call := Call, spawner := Spawner, name := Name, label := Label}, Patterns) ->
    Calls = [Call, Spawner | [Born || #{initial_call := Born} <- [lineage_nif:record(Pid)]]],
    lists:any(fun(Pattern) -> is_match(Pattern, #{calls => Calls, name => Name, label => Label}) end, Patterns).

%% @private Whether a pattern of `ignore' names a process: by one of these calls, or by its name or label.
-spec is_match(pattern() | binary(), #{calls := [mfa() | undefined], name := atom(), label := atom() | binary(), _ => _}) ->
          boolean().
is_match({M, F, '_'}, #{calls := Calls}) -> lists:any(fun({M1, F1, _}) -> M1 =:= M andalso F1 =:= F; (_) -> false end, Calls);
is_match({_, _, _} = Call, #{calls := Calls}) -> lists:member(Call, Calls);
is_match(Wanted, #{name := Name, label := Label}) -> Wanted =:= Name orelse Wanted =:= Label.

validate(Options) when is_map(Options) ->
    validate(maps:to_list(Options), Options);
validate(Options) ->
    lineage_error:raise({bad_argument, "orphans", Options, "a map of options"}, [Options]).

validate([], _All) ->
    ok;
validate([{Key, Value} | Rest], All) ->
    case wanted(Key, Value) of
        ok -> validate(Rest, All);
        unknown ->
            lineage_error:raise({bad_argument, <<"orphans">>, Key, <<"the options kind, app, min_age_ms, ignore and max">>},
                                [All]);
        Wanted ->
            lineage_error:raise({bad_argument, [<<"orphans's option ">>, atom_to_binary(Key)], Value, Wanted}, [All])
    end.

wanted(kind, Value) ->
    Kinds = kinds(Value),
    Good = Kinds =/= [] andalso lists:all(fun(K) -> lists:member(K, [foreign, escaped, abandoned, detached]) end, Kinds),
    good(Good, <<"foreign, escaped, abandoned or detached, or a list of these">>);
wanted(app, Value) ->
    good(is_atom(Value), <<"the name of an application">>);
wanted(min_age_ms, Value) ->
    good(is_integer(Value) andalso Value >= 0, <<"milliseconds, 0 or more">>);
wanted(max, Value) ->
    good(is_integer(Value) andalso Value > 0, <<"a number of processes, 1 or more">>);
wanted(ignore, Value) ->
    Good = is_list(Value) andalso lists:all(fun({M, F, A}) when is_atom(M), is_atom(F) -> A =:= '_' orelse is_integer(A);
                                               (Other) -> is_atom(Other) orelse is_binary(Other)
                                            end, Value),
    good(Good, <<"a list of {Module, Function, Arity}, registered names and labels">>);
wanted(_Key, _Value) ->
    unknown.

good(true, _Wanted) -> ok;
good(false, Wanted) -> Wanted.

now_ms() ->
    erlang:monotonic_time(millisecond).

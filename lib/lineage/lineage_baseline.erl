%% @private The processes that were there before the hook: who they are, and what they hang on.
%%
%% The hook is armed first; then every process is seeded into the census from what `process_info/2'
%% says, except those that the hook saw being born meanwhile. Two walks: the first counts the children
%% of each parent, so that the second never asks a process with more than 10,000 of them for its
%% links (that call takes half a second inside a supervisor of 1,000,000). What a big one hangs on is
%% learnt from its parent's links instead.
%%
%% The guardian of a process that was there before: its parent if linked, else a linked supervisor,
%% else the first link. Links to services do not count, nor, while there is a better one, links to
%% its own children.
-module(lineage_baseline).

-export([rules/1, apply_rules/1, mark_names/2, seed/4, flag/3, unflag/3, class_of/2]).

-export_type([rules/0, result/0]).

-type class() :: root | runtime | host | service | supervisor | own.
%% What is asked for each process is found in a map; patterns with a wild function are few.
-type rules() :: #{calls := #{mfa_pattern() => [class()]}, wild := [{mfa_pattern(), class()}],
                   names := [{atom(), class()}]}.
-type mfa_pattern() :: {module() | '_', atom(), arity() | '_'}.
%% How many processes were seeded or flagged, and what stood in the way.
-type result() :: #{seeded := non_neg_integer(), flagged := non_neg_integer(),
                    held := #{lineage_hook:holder() => pos_integer()},
                    big := [pid()], unresolved := [pid()]}.

-define(BIG, 10000).
%% A process that was not answering when it was seeded.
-define(UNRESOLVED, {lineage, unresolved, 0}).

%% @doc The classes of processes, by initial call and by name: the built-in lists, extended by the
%% options `runtime', `hosts', `services' and `supervisors' of attach.
-spec rules(map()) -> rules().
rules(Options) ->
    Lists = [{runtime, builtin(runtime), runtime}, {host, builtin(hosts), hosts},
             {service, builtin(services), services}, {supervisor, builtin(supervisors), supervisors}],
    Rules = [{Match, Class} || {Class, Builtin, Key} <- Lists,
                               Match <- Builtin ++ maps:get(Key, Options, [])],
    Own = [{{M, F, '_'}, own} || {M, F} <- [{lineage_walk, worker}, {lineage_walk, run_apart},
                                            {lineage_proc, helper},
                                            {lineage_proc, run}, {lineage_session, collect},
                                            {lineage_session, init}, {lineage_leaks, init},
                                            {lineage_watcher, init}, {lineage_outliers, init},
                                            {lineage_outliers, pulse}, {lineage_journal, init}]],
    Roots = [{{application_master, init, '_'}, root}, {{application_master, start_it, '_'}, root}],
    lists:foldl(fun rule/2, #{calls => #{}, wild => [], names => []}, Roots ++ Own ++ Rules).

builtin(List) ->
    [Match || {Match, _Reason} <- lineage_lists:List()].

rule({{registered, Name}, Class}, Rules) ->
    rule({Name, Class}, Rules);
rule({Name, Class}, #{names := Names} = Rules) when is_atom(Name) ->
    Rules#{names := [{Name, Class} | Names]};
rule({{M, F, _A} = Call, Class}, #{wild := Wild} = Rules) when M =:= '_'; F =:= '_' ->
    Rules#{wild := [{Call, Class} | Wild]};
rule({{_M, _F, _A} = Call, Class}, #{calls := Calls} = Rules) ->
    Rules#{calls := maps:update_with(Call, fun(Cs) -> lists:usort([Class | Cs]) end, [Class], Calls)};
rule({_FrameOrChild, _Class}, Rules) ->
    %% A stack is read of the few that a report is about to name; see lineage_lists.
    Rules.

%% @doc Tells the NIF, so that births get their class without asking anybody.
-spec apply_rules(rules()) -> ok.
apply_rules(#{calls := Calls}) ->
    maps:foreach(
      fun({M, F, A}, Classes) -> [ok = lineage_nif:classify(C, M, F, A) || C <- Classes], ok end,
      Calls).

%% @doc Marks whoever bears a listed name now, unmarks whoever bore it when `Before' was returned.
%% Call it again now and then: names move when a server is restarted.
-spec mark_names(rules(), #{{atom(), class()} => pid()}) -> #{{atom(), class()} => pid()}.
mark_names(#{names := Names}, Before) ->
    Now = maps:from_list([{{Name, Class}, Pid} || {Name, Class} <- Names,
                                                  Pid <- [whereis(Name)], is_pid(Pid)]),
    maps:foreach(fun({_, Class} = Key, Pid) ->
                         case Now of
                             #{Key := Pid} -> ok;
                             _ -> lineage_nif:unmark(Pid, Class)
                         end
                 end, Before),
    maps:foreach(fun({_, Class}, Pid) -> lineage_nif:mark(Pid, Class) end, Now),
    Now.

%% @doc Seeds `Pids' and flags those that the mode `exits' wants watched, unless there is no hook. `Progress' gets the
%% number of processes that are done.
-spec seed(lineage_hook:hook() | none, [pid()], #{exits := suspects | all, rules := rules()},
           fun((non_neg_integer()) -> term())) -> result().
seed(Hook, Pids, #{exits := Exits, rules := Rules}, Progress) ->
    Table = ets:new(lineage_baseline, [public, {write_concurrency, true}, {read_concurrency, true}]),
    try
        {ok, Stuck0} = lineage_walk:each(Pids, fun(Note, Batch) -> count(Table, Note, Batch) end,
                                         {fun(ok, Acc) -> Acc end, ok}, #{}),
        Context = #{hook => Hook, exits => Exits, rules => Rules, table => Table, pass => 1},
        Merge = {fun merge/2, empty()},
        {Acc1, Stuck1} = lineage_walk:each(
                           Pids -- Stuck0, fun(Note, Batch) -> batch(Context, Note, Batch) end, Merge,
                           #{progress => Progress}),
        #{deferred := Deferred} = Acc1,
        {Acc2, Stuck2} = lineage_walk:each(
                           Deferred, fun(Note, Batch) -> batch(Context#{pass := 2}, Note, Batch) end,
                           {fun merge/2, Acc1#{deferred := []}}, #{}),
        Stuck = Stuck0 ++ Stuck1 ++ Stuck2,
        %% They live, so they are in the census; the reports ask them again.
        [lineage_nif:seed(P, undefined, undefined, ?UNRESOLVED, []) || P <- Stuck],
        maps:remove(deferred, Acc2#{unresolved := Stuck})
    after
        ets:delete(Table)
    end.

%% @doc Flags processes that the census knows already, after another tool took the flags away.
-spec flag(lineage_hook:hook(), [pid()], #{exits := suspects | all, rules := rules()}) -> result().
flag(Hook, Pids, #{exits := Exits, rules := Rules}) ->
    Context = #{hook => Hook, exits => Exits, rules => Rules},
    {Acc, Stuck} = lineage_walk:each(
                     Pids,
                     fun(Note, Batch) ->
                             numbered(fun(P, Acc) -> reflag(Context, P, Acc) end, empty(), Note, Batch)
                     end,
                     {fun merge/2, empty()}, #{}),
    maps:remove(deferred, Acc#{unresolved := Stuck}).

%% @doc Lets go of all of `Pids', one by one.
-spec unflag(lineage_hook:hook(), [pid()], lineage_walk:options()) -> ok.
unflag(Hook, Pids, Options) ->
    {ok, _Stuck} = lineage_walk:each(
                     Pids,
                     fun(Note, Batch) ->
                             numbered(fun(P, ok) -> lineage_hook:unflag(Hook, P) end, ok, Note, Batch)
                     end,
                     {fun(ok, ok) -> ok end, ok}, Options),
    ok.

empty() ->
    #{seeded => 0, flagged => 0, held => #{}, big => [], unresolved => [], deferred => []}.

merge(#{seeded := S1, flagged := F1, held := H1, big := B1, deferred := D1},
      #{seeded := S2, flagged := F2, held := H2, big := B2, deferred := D2} = Acc) ->
    Acc#{seeded := S1 + S2, flagged := F1 + F2, big := B1 ++ B2, deferred := D1 ++ D2,
         held := maps:fold(fun(K, V, M) -> M#{K => V + maps:get(K, M, 0)} end, H2, H1)}.

numbered(Fun, Acc, Note, Batch) ->
    {_, Acc1} = lists:foldl(fun(P, {N, A}) ->
                                    Note(N),
                                    breathe(N),
                                    {N + 1, Fun(P, A)}
                            end, {1, Acc}, Batch),
    Acc1.

%% Setting a flag takes microseconds and counts as one reduction: without this, a turn of 4,000
%% reductions could hold a scheduler for longer than 10 ms.
breathe(N) when N rem 50 =:= 0 -> erlang:yield();
breathe(_) -> true.

%% First walk: a row {Pid, Children, Mentions} for each parent and each process with a name (a
%% Registry partition has links, a name and no children).
count(Table, Note, Batch) ->
    Counts = numbered(
               fun(Pid, Acc) ->
                       case process_info(Pid, [parent, registered_name]) of
                           undefined ->
                               Acc;
                           [{parent, Parent}, {registered_name, Name}] ->
                               is_atom(Name) andalso ets:insert_new(Table, {Pid, 0, 0}),
                               plus_one(Parent, Acc)
                       end
               end, #{}, Note, Batch),
    maps:foreach(fun(P, N) -> ets:update_counter(Table, P, {2, N}, {P, 0, 0}) end, Counts).

plus_one(Pid, Counts) when is_pid(Pid), node(Pid) =:= node() ->
    maps:update_with(Pid, fun(N) -> N + 1 end, 1, Counts);
plus_one(_, Counts) ->
    Counts.

%% Second walk, in two passes: those with children or a name come last, when it is known how many
%% processes are linked to them.
batch(#{table := Table} = Context, Note, Batch) ->
    {Acc, Mentions} = numbered(fun(P, A) -> one(Context, P, A) end, {empty(), #{}}, Note, Batch),
    maps:foreach(fun(P, N) -> ets:member(Table, P) andalso ets:update_counter(Table, P, {3, N}) end,
                 Mentions),
    erase(),
    Acc.

one(#{pass := 1, table := Table} = Context, Pid, {#{deferred := Deferred} = Acc, Mentions} = A) ->
    case ets:member(Table, Pid) of
        true -> {Acc#{deferred := [Pid | Deferred]}, Mentions};
        false -> seed_one(Context, Pid, false, A)
    end;
one(#{table := Table} = Context, Pid, A) ->
    [{_, Children, Mentioned}] = ets:lookup(Table, Pid),
    seed_one(Context, Pid, Children > ?BIG orelse Mentioned > ?BIG, A).

seed_one(#{exits := all} = Context, Pid, Big, {Acc, Mentions}) ->
    %% Flagged before its links are read: what it links from then on is an event.
    Acc1 = watch(Context, Pid, Acc),
    {_, A} = seed_read(Context, Pid, Big, {Acc1, Mentions}),
    A;
seed_one(#{exits := suspects} = Context, Pid, Big, A) ->
    case seed_read(Context, Pid, Big, A) of
        {[], {Acc, Mentions}} ->
            %% It may have linked between the reading and the flag: read again after it.
            Acc1 = watch(Context, Pid, Acc),
            relink(Context, Pid),
            {Acc1, Mentions};
        {_, A1} ->
            A1
    end.

%% What a suspect linked while nobody looked is read; a shed process stays shed.
reflag(#{exits := Exits} = Context, Pid, Acc) ->
    Acc1 = watch(Context, Pid, Acc),
    Exits =:= suspects andalso relink(Context, Pid),
    Acc1.

watch(#{hook := none}, _Pid, Acc) ->
    Acc;
watch(#{hook := Hook}, Pid, #{flagged := Flagged, held := Held} = Acc) ->
    case lineage_hook:flag(Hook, Pid) of
        ok -> Acc#{flagged := Flagged + 1};
        dead -> Acc;
        {held, Holder} -> Acc#{held := Held#{Holder => maps:get(Holder, Held, 0) + 1}}
    end.

relink(Context, Pid) ->
    case process_info(Pid, links) of
        {links, [_ | _] = Links} ->
            case process_info(Pid, parent) of
                {parent, Parent} -> set_guardian(Pid, guardian(Context, Pid, local(Parent), Links));
                undefined -> ok
            end;
        _ ->
            ok
    end.

set_guardian(_Pid, undefined) -> ok;
set_guardian(Pid, Guardian) -> lineage_nif:set_guardian(Pid, Guardian).

%% Returns the links that were read (`unread' for a big one, `none' where there was nothing to do).
seed_read(Context, Pid, Big, {Acc, Mentions} = A) ->
    case read(Pid, Big) of
        undefined ->
            {none, A};
        #{parent := Parent, call := Call, links := Links} ->
            Guardian = guardian(Context, Pid, local(Parent), Links),
            #{rules := Rules} = Context,
            {Initial, Classes} = class_of(Call, Rules),
            case lineage_nif:seed(Pid, Parent, Guardian, Initial, Classes) of
                ok ->
                    #{seeded := Seeded, big := Bigs} = Acc,
                    Acc1 = Acc#{seeded := Seeded + 1,
                                big := case Big of true -> [Pid | Bigs]; false -> Bigs end},
                    {Links, {Acc1, mentions(Links, Mentions)}};
                known ->
                    {none, {Acc, mentions(Links, Mentions)}};
                _DeadOrLost ->
                    {none, {Acc, mentions(Links, Mentions)}}
            end
    end.

mentions(unread, Mentions) -> Mentions;
mentions(Links, Mentions) -> lists:foldl(fun plus_one/2, Mentions, Links).

read(Pid, Big) ->
    case process_info(Pid, [parent, initial_call]) of
        undefined ->
            undefined;
        [{parent, Parent}, {initial_call, Raw}] ->
            SaysMore = lineage_proc:says_more(Raw),
            case ask([Pid, [links || not Big] ++ key_items(SaysMore)]) of
                undefined ->
                    undefined;
                Items ->
                    #{parent => Parent, call => {Raw, inner(Items)},
                      links => proplists:get_value(links, Items, unread)}
            end
    end.

%% The contract of process_info/2 knows {dictionary, Key} only from OTP 26.2 on.
ask(Args) ->
    apply(erlang, process_info, Args).

%% Single keys of a dictionary can be read since OTP 26.2; before, only all of it.
key_items(false) ->
    [];
key_items(true) ->
    case persistent_term:get({?MODULE, keys}, undefined) of
        undefined ->
            Items = try ask([self(), [{dictionary, '$initial_call'}]]) of
                        _ -> [{dictionary, '$initial_call'}]
                    catch
                        error:badarg -> [dictionary]
                    end,
            persistent_term:put({?MODULE, keys}, Items),
            Items;
        Items ->
            Items
    end.

inner([{dictionary, Dictionary} | _]) -> call(proplists:get_value('$initial_call', Dictionary));
inner([{{dictionary, '$initial_call'}, Call} | _]) -> call(Call);
inner([_ | Rest]) -> inner(Rest);
inner([]) -> undefined.

call({M, F, A}) when is_atom(M), is_atom(F), is_integer(A) -> {M, F, A};
call({M, F, A}) when is_atom(M), is_atom(F), is_list(A) -> {M, F, length(A)};
call(_) -> undefined.

%% @doc The initial call that a process is known by, and its classes: of `{InitialCall, Inner}', the
%% second being what `$initial_call' says.
-spec class_of({mfa(), mfa() | undefined}, rules()) -> {mfa(), [class()]}.
class_of({Raw, undefined}, Rules) ->
    {Raw, classes(Raw, Rules)};
class_of({Raw, Inner}, Rules) ->
    Supervisor = case Inner of
                     {supervisor, _, 1} -> [supervisor];
                     {supervisor_bridge, _, 1} -> [supervisor];
                     _ -> []
                 end,
    {Inner, lists:usort(Supervisor ++ classes(Inner, Rules) ++ classes(Raw, Rules))}.

classes({M, F, _} = Call, #{calls := Calls, wild := Wild}) ->
    maps:get(Call, Calls, []) ++ maps:get({M, F, '_'}, Calls, []) ++
        [Class || {Pattern, Class} <- Wild, is_like(Pattern, Call)].

is_like({M, F, A}, {M1, F1, A1}) ->
    (M =:= '_' orelse M =:= M1) andalso (F =:= '_' orelse F =:= F1) andalso (A =:= '_' orelse A =:= A1).

local(Pid) when is_pid(Pid), node(Pid) =:= node() -> Pid;
local(_) -> undefined.

guardian(#{table := Table}, Pid, Parent, unread) ->
    %% Its parent's links say it, unless the parent is a big one too: then it is its parent's child.
    case Parent =/= undefined andalso ets:lookup(Table, Parent) of
        false -> undefined;
        [{_, C, M}] when C > ?BIG; M > ?BIG -> Parent;
        _ ->
            case process_info(Parent, links) of
                {links, Links} -> case lists:member(Pid, Links) of true -> Parent; false -> undefined end;
                undefined -> undefined
            end
    end;
guardian(Context, Pid, Parent, Links) ->
    case Parent =/= undefined andalso lists:member(Parent, Links) of
        true -> Parent;
        false -> guardian_among([L || L <- lists:sublist(Links, 100), is_pid(L), node(L) =:= node()],
                                Pid, Context, undefined, undefined)
    end.

%% A supervisor that is not below it, else the first that is not below it, else the first.
guardian_among([], _Pid, _Context, Good, Any) ->
    case Good of undefined -> Any; _ -> Good end;
guardian_among([L | Rest], Pid, Context, Good, Any) ->
    {Parent, Classes} = peer(L, Context),
    Below = Parent =:= Pid,
    Service = lists:member(service, Classes),
    Supervisor = lists:member(supervisor, Classes),
    if
        Service -> guardian_among(Rest, Pid, Context, Good, Any);
        Supervisor, not Below -> L;
        not Below, Good =:= undefined -> guardian_among(Rest, Pid, Context, L, Any);
        Any =:= undefined -> guardian_among(Rest, Pid, Context, Good, L);
        true -> guardian_among(Rest, Pid, Context, Good, Any)
    end.

%% Many processes link to the same service, so what is known of it is kept for the batch.
peer(Pid, #{rules := Rules}) ->
    case get({?MODULE, Pid}) of
        undefined ->
            Peer = case read(Pid, true) of
                       undefined -> {undefined, []};
                       #{parent := Parent, call := Call} ->
                           {_, Classes} = class_of(Call, Rules),
                           {Parent, Classes ++ named_classes(Pid, Rules)}
                   end,
            put({?MODULE, Pid}, Peer),
            Peer;
        Peer ->
            Peer
    end.

named_classes(Pid, #{names := Names}) ->
    case process_info(Pid, registered_name) of
        {registered_name, Name} when is_atom(Name) -> [C || {N, C} <- Names, N =:= Name];
        _ -> []
    end.

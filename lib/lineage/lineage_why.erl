%% @doc All about one process: who spawned it, what it hangs on, and who stops it, restarts it and
%% notices its death, each with the link or the child specification that the answer stands on.
-module(lineage_why).

-export([why/1, why_each/1, resolve/1]).

-export_type([why/0, verdict/0, stopper/0, restarter/0, watcher/0, relative/0]).

%% root, runtime, host: what trees hang on; unresolved: it, or one it hangs on, did not answer in time.
-type verdict() :: supervised | tethered | orphan | runtime | host | root | unresolved.
%% One process of the ancestry. via: link (a live link to the one before it) or parent (spawned it).
-type relative() :: #{pid := pid() | {node(), non_neg_integer()}, via := link | parent, alive := boolean(),
                      name := atom(), initial_call := mfa() | undefined, class := [atom()]}.
%% how: child (a supervisor shuts it down, by child specification), link (an exit signal over that
%% link), application (the application master stops this tree), group_leader (killed, not shut down,
%% when that application stops), listed (a supervisor lists it without a link: by pid), remote_link.
-type stopper() :: #{how := child | link | application | group_leader | listed | remote_link, pid := pid(),
                     name := atom(), basis := term()}.
-type restarter() :: #{pid := pid(), name := atom(), id := term(), restart := atom()}.
-type watcher() :: #{pid := pid() | atom() | {atom(), node()}, name := atom(), initial_call := mfa() | undefined,
                     by := link | monitor}.
%% may_survive: a shutdown above could pass it by; survives says why. kind: of an orphan. noticed_by holds at
%% most 50, noticed_count all. unsupervised: who would notice only learns it by a link or monitor.
-type why() :: #{pid := pid(), generation := non_neg_integer(), verdict := verdict(), kind => lineage_report:kind(),
                 name := atom(), label := atom() | binary(), app := atom(), initial_call := mfa() | undefined,
                 age_ms := non_neg_integer(), site := lineage_site:site() | undefined, seeded := boolean(), traps_exits := boolean() | unresolved,
                 parent := pid() | {node(), non_neg_integer()} | undefined, spawner := relative() | undefined,
                 ancestors := [relative()], stopped_by := [stopper()] | unresolved,
                 restarted_by := restarter() | nobody | unresolved,
                 noticed_by := [watcher()] | unresolved, noticed_count := non_neg_integer(),
                 may_survive := boolean() | unresolved, survives := [binary()]}.

-define(DEADLINE, 1000).        % ms
-define(WATCHERS, 50).
-define(ANCESTORS, 100).

%% @doc Takes a pid, a registered name, or a string such as `"0.123.0"', `"<0.123.0>"' or `"#PID<0.123.0>"'.
%% `{error, {unknown_pid | dead_pid | remote_pid, Sentence}}' when there is no such process here.
-spec why(pid() | atom() | string() | binary()) -> why() | {error, {atom(), binary()}}.
why(What) ->
    lineage_report:attached([What], fun() ->
                                            case resolve(What) of
                                                {ok, Pid} -> why_pid(Pid);
                                                {error, Cause} -> lineage_error:tagged(Cause)
                                            end
                                    end).

%% @private The same for many pids of this node: the links that the answers stand on are read once.
-spec why_each([pid()]) -> #{pid() => why() | {error, {atom(), binary()}}}.
why_each([]) ->
    #{};
why_each(Pids) ->
    lineage_report:attached([Pids], fun() ->
                                            #{counts := Counts} = lineage_links:check(),
                                            maps:from_list([{Pid, why_pid(Pid, Counts)} || Pid <- Pids])
                                    end).

%% @doc The process of this node that a person means.
-spec resolve(term()) -> {ok, pid()} | {error, lineage_error:cause()}.
resolve(Pid) when is_pid(Pid), node(Pid) =/= node() ->
    {error, {remote_pid, Pid}};
resolve(Pid) when is_pid(Pid) ->
    case is_process_alive(Pid) of
        true -> {ok, Pid};
        false -> {error, {dead_pid, Pid}}
    end;
resolve(Name) when is_atom(Name) ->
    case whereis(Name) of
        Pid when is_pid(Pid) -> {ok, Pid};
        _ -> {error, {unknown_pid, Name}}
    end;
resolve(Text) when is_binary(Text); is_list(Text) ->
    case parse(Text) of
        {ok, Pid} -> resolve(Pid);
        error -> {error, {unknown_pid, Text}}
    end;
resolve(Other) ->
    {error, {unknown_pid, Other}}.

parse(Text) ->
    try
        Bare = re:replace(Text, "^\\s*(#PID)?<?|>?\\s*$", "", [global, {return, list}]),
        {match, _} = re:run(Bare, "^\\d+\\.\\d+\\.\\d+$"),
        {ok, list_to_pid("<" ++ Bare ++ ">")}
    catch
        error:_ -> error
    end.

why_pid(Pid) ->
    #{counts := Counts} = lineage_links:check(),
    why_pid(Pid, Counts).

why_pid(Pid, Counts) ->
    Items = [links, monitored_by, parent | lineage_describe:items()],
    %% The links of a supervisor of very many are not read: that would hold it.
    Asked = case maps:get(Pid, Counts, 0) > 10000 of
                true -> Items -- [links, monitored_by];
                false -> Items
            end,
    case lineage_proc:info(Pid, Asked, ?DEADLINE) of
        dead -> lineage_error:tagged({dead_pid, Pid});
        unresolved -> unanswered(Pid, record(Pid, #{}));
        Info -> answered(Pid, record(Pid, Info), Info, Counts)
    end.

%% A process beyond max_bytes is not in the census; the VM still says who its parent was.
record(Pid, Info) ->
    case lineage_nif:record(Pid) of
        undefined ->
            Parent = maps:get(parent, Info, undefined),
            #{pid => Pid, generation => 0, parent => Parent, guardian => undefined, spawner => undefined, age_ms => 0,
              initial_call => undefined, site => undefined, flags => []};
        Record ->
            Record
    end.

base(Pid, Record, Info) ->
    Call = lineage_describe:initial_call(maps:get(initial_call, Record), Info),
    Flags = maps:get(flags, Record),
    #{pid => Pid, generation => maps:get(generation, Record), name => lineage_describe:name(Info),
      label => lineage_describe:label(Info), initial_call => Call, age_ms => maps:get(age_ms, Record),
      app => lineage_describe:app(maps:get(group_leader, Info, undefined), Call, lineage_describe:apps()),
      site => lineage_site:describe(maps:get(site, Record)), seeded => lists:member(seeded, Flags),
      parent => maps:get(parent, Record), spawner => spawner(Record)}.

unanswered(Pid, Record) ->
    (base(Pid, Record, #{}))#{verdict => unresolved, traps_exits => unresolved, ancestors => parents(Record),
                              stopped_by => unresolved, restarted_by => unresolved, noticed_by => unresolved,
                              noticed_count => 0, may_survive => unresolved, survives => []}.

answered(Pid, Record, Info, Counts) ->
    Base = (base(Pid, Record, Info))#{traps_exits => maps:get(trap_exit, Info)},
    {Watchers, Count} = watchers(Info),
    Noticed = Base#{noticed_by => Watchers, noticed_count => Count},
    case class(maps:get(flags, Record)) of
        none -> hanging(Noticed, Record, Info, Counts);
        Class -> rooted(Noticed, Class, Record, Info)
    end.

class(Flags) ->
    case [Class || Class <- [root, runtime, host], lists:member(Class, Flags)] of
        [Class | _] -> Class;
        [] -> none
    end.

%% What trees hang on has nobody above it by design; an application master stops with its
%% application, and a host with the process that it is linked to, if there is one.
rooted(#{pid := Pid} = Why, Class, Record, Info) ->
    Bonds = lineage_links:bonds(Pid, maps:get(links, Info, [])),
    Stops = case Class of
                root -> applications(Pid, Info);
                host -> [stopper(link, P, {link, Pid, P}) || P <- guardians(Record), lists:member(P, Bonds), not below(P, Pid)];
                runtime -> []
            end,
    Why#{verdict => Class, ancestors => parents(Record), stopped_by => Stops, restarted_by => nobody,
         may_survive => false, survives => []}.

%% An application has two masters: the one it is known by, and the one its top supervisor is linked to.
applications(Top, Info) ->
    Apps = lineage_describe:apps(),
    Parent = maps:get(parent, record(Top, #{})),
    Leader = maps:get(group_leader, Info, undefined),
    case [{Master, App} || Master <- [Top, Parent, Leader], #{Master := App} <- [Apps]] of
        [{Master, App} | _] -> [stopper(application, Master, {application, App})];
        [] -> []
    end.

hanging(#{pid := Pid} = Why, Record, Info, Counts) ->
    Held = holders(Pid, Record, Info, Counts),
    case {path(Pid, Held, Counts), Held} of
        {unresolved, _} ->
            Why#{verdict => unresolved, ancestors => parents(Record), stopped_by => unresolved,
                 restarted_by => restarted(Held, doubt(Held)), may_survive => unresolved, survives => []};
        {none, _} ->
            orphan(Why, Record, Info, Held);
        {{ok, Path}, _} ->
            joined(Why, Path, Record, Info, Held, Counts)
    end.

%% The supervisors that it is linked to and those that might list it, with what each one says.
holders(Pid, Record, Info, Counts) ->
    Linked = lineage_links:bonds(Pid, maps:get(links, Info, guardians(Record))),
    Sups = lineage_child:supervisors(lineage_report:near(Record, Info) ++ lists:sublist(Linked, ?WATCHERS)),
    [{Sup, lists:member(Sup, Linked), lineage_child:lookup(Sup, Pid, maps:get(Sup, Counts, 0))}
     || Sup <- lists:sublist(Sups, 10)].

guardians(#{guardian := Guardian}) when is_pid(Guardian) -> [Guardian];
guardians(_) -> [].

%% Through the supervisor that holds it, where there is one; else by whatever links there are.
path(Pid, Held, Counts) ->
    case [Sup || {Sup, true, {child, _}} <- Held] of
        [Sup | _] ->
            case lineage_links:path(Sup, Counts) of
                {ok, Path} -> {ok, [Pid | lists:delete(Pid, Path)]};
                _ -> lineage_links:path(Pid, Counts)
            end;
        [] ->
            lineage_links:path(Pid, Counts)
    end.

joined(#{pid := Pid} = Why, [Pid, Guardian | _] = Path, Record, Info, Held, Counts) ->
    Survives = survives(Path, Held, Counts),
    Supervised = is_supervised(Guardian, Record, Held),
    Top = lists:last(Path),
    Apps = case lineage_links:has(root, Top) of
               true -> applications(Top, #{});
               false -> []
           end,
    First = case child_of(Guardian, Held) of
                #{} = Child -> stopper(child, Guardian, {child, Child});
                none -> stopper(link, Guardian, {link, Pid, Guardian})
            end,
    Others = [stopper(link, P, {link, Pid, P})
              || P <- lists:sublist(lineage_links:bonds(Pid, maps:get(links, Info, [])), ?WATCHERS), P =/= Guardian,
                 not below(P, Pid)],
    Verdict = case Supervised of true -> supervised; false -> tethered end,
    Why#{verdict => Verdict, ancestors => relatives(tl(Path), link), stopped_by => [First | Others] ++ Apps,
         restarted_by => restarted(Held, doubt(Held)), may_survive => Survives =/= [], survives => Survives};
joined(#{pid := Pid} = Why, [Pid], Record, Info, Held, _Counts) ->
    %% Recognised as a host only now, by its stack.
    case class(lineage_links:flags(Pid)) of
        none -> orphan(Why, Record, Info, Held);
        Class -> rooted(Why, Class, Record, Info)
    end.

%% Its own helpers do not stop it, though their crash might.
below(P, Pid) ->
    case lineage_nif:record(P) of
        #{guardian := Guardian, parent := Parent} -> Guardian =:= Pid orelse Parent =:= Pid;
        undefined -> false
    end.

%% A supervisor that does not answer, or is too large to be asked: a link to it since birth, from the one
%% it was born of, is what a child has.
is_supervised(Guardian, #{parent := Parent}, Held) ->
    case lists:keyfind(Guardian, 1, Held) of
        {Guardian, true, {child, _}} -> true;
        {Guardian, _, unresolved} -> Parent =:= Guardian;
        {Guardian, _, no_child} -> is_bridge(Guardian) andalso Parent =:= Guardian;
        false -> false
    end.

is_bridge(Pid) ->
    case lineage_proc:otp_keys(Pid, ?DEADLINE) of
        #{initial_call := {supervisor_bridge, _, _}} -> true;
        _ -> false
    end.

child_of(Guardian, Held) ->
    case [Child || {Sup, _, {child, Child}} <- Held, Sup =:= Guardian] of
        [Child | _] -> Child;
        [] -> none
    end.

doubt(Held) ->
    [Sup || {Sup, true, unresolved} <- Held].

%% `Doubt': those that did not say whether they hold it.
restarted(Held, Doubt) ->
    case {[Child || {_, _, {child, Child}} <- Held], Doubt} of
        {[#{supervisor := Sup, id := Id, restart := Restart} | _], _} ->
            #{pid => Sup, name => name(Sup), id => Id, restart => Restart};
        {[], [_ | _]} -> unresolved;
        {[], []} -> nobody
    end.

%% Each bond of the path that a shutdown may fail to pass.
survives(Path, Held, Counts) ->
    [{Pid, Guardian} | Steps] = lists:zip(lists:droplast(Path), tl(Path)),
    lists:append([survives_step(Pid, Guardian, Held, Counts)
                  | [survives_step(P, G, [], Counts) || {P, G} <- Steps]]).

survives_step(Pid, Guardian, Held, Counts) ->
    Supervisor = lineage_links:has(supervisor, Guardian),
    %% The node stops when one of the runtime's own does.
    Sure = lineage_links:has(root, Guardian) orelse lineage_links:has(runtime, Guardian)
        %% A supervisor traps exits, and still ends when the one that started it does, whatever the reason.
        orelse (lineage_links:has(supervisor, Pid) andalso born_of(Pid, Guardian))
        orelse (Supervisor andalso is_held(Pid, Guardian, Held, Counts)),
    case Sure of
        true -> [];
        false -> traps(Pid, Guardian) ++ returns(Guardian, Supervisor)
    end.

is_held(Pid, Guardian, Held, Counts) ->
    Answer = case [A || {Sup, _, A} <- Held, Sup =:= Guardian] of
                 [Known] -> Known;
                 [] -> lineage_child:lookup(Guardian, Pid, maps:get(Guardian, Counts, 0))
             end,
    case Answer of
        {child, _} -> true;
        unresolved -> born_of(Pid, Guardian);
        no_child -> false
    end.

born_of(Pid, Parent) ->
    case lineage_nif:record(Pid) of
        #{parent := Parent} -> true;
        _ -> false
    end.

traps(Pid, Guardian) ->
    case lineage_proc:info(Pid, [trap_exit], ?DEADLINE) of
        #{trap_exit := true} -> [text("~ts traps exits, and may outlive ~ts", [called(Pid), called(Guardian)])];
        unresolved -> [text("~ts did not say whether it traps exits", [called(Pid)])];
        _ -> []
    end.

returns(_Guardian, true) ->
    [];
returns(Guardian, false) ->
    [text("~ts is no supervisor and could return normally, which a link does not carry", [called(Guardian)])].

called(Pid) ->
    case name(Pid) of
        undefined -> lineage_describe:pid(Pid);
        Name -> [lineage_describe:pid(Pid), " (", lineage_describe:atom(Name), ")"]
    end.

text(Format, Args) ->
    unicode:characters_to_binary(io_lib:format(Format, Args)).

orphan(#{pid := Pid} = Why, Record, Info, Held) ->
    Listed = [stopper(listed, Sup, {child, Child}) || {Sup, false, {child, Child}} <- Held],
    Leader = maps:get(group_leader, Info),
    ByLeader = [stopper(group_leader, Leader, {application, App}) || #{Leader := App} <- [lineage_describe:apps()]],
    Remote = [stopper(remote_link, R, {link, Pid, R}) || R <- lineage_links:remote(maps:get(links, Info, []))],
    Adrift = fun(G) -> lineage_links:rooted(G, #{}) =/= true end,
    Kind = lineage_report:kind(Record, Info, Adrift, [Sup || {Sup, false, {child, _}} <- Held]),
    Why#{verdict => orphan, kind => Kind, ancestors => parents(Record), stopped_by => Listed ++ ByLeader ++ Remote,
         restarted_by => restarted(Held, [Sup || {Sup, _, unresolved} <- Held]), may_survive => true, survives => []}.

stopper(How, Pid, Basis) ->
    #{how => How, pid => Pid, name => name(Pid), basis => Basis}.

name(Pid) when node(Pid) =/= node() ->
    undefined;
name(Pid) ->
    case lineage_proc:info(Pid, [registered_name], ?DEADLINE) of
        #{} = Info -> lineage_describe:name(Info);
        _ -> undefined
    end.

%% Lineage's own processes notice nothing that a user could count on.
watchers(Info) ->
    Links = [{P, link} || P <- maps:get(links, Info, []), is_pid(P)],
    Monitors = [{P, monitor} || P <- maps:get(monitored_by, Info, [])],
    Seen = [{P, By} || {P, By} <- Monitors ++ Links, not own(P)],
    {[watcher(P, By) || {P, By} <- lists:sublist(Seen, ?WATCHERS)], length(Seen)}.

own(P) -> is_pid(P) andalso node(P) =:= node() andalso lineage_links:has(own, P).

watcher(P, By) when is_pid(P) ->
    (maps:with([pid, name, initial_call], relative(P, link)))#{by => By};
watcher(P, By) ->
    #{pid => P, name => undefined, initial_call => undefined, by => By}.

spawner(#{parent := undefined}) ->
    undefined;
spawner(#{parent := Parent, spawner := Call, generation := Generation}) ->
    Alive = is_pid(Parent) andalso lineage_report:lives(Parent, Generation),
    case Alive of
        true -> relative(Parent, parent);
        false -> dead(Parent, Call)
    end.

dead(Pid, Call) ->
    #{pid => Pid, via => parent, alive => false, name => undefined, initial_call => Call, class => []}.

%% Who spawned whom, as far as the census knows: a dead one is the last.
parents(Record) ->
    parents(Record, ?ANCESTORS).

parents(_Record, 0) ->
    [];
parents(Record, Left) ->
    case spawner(Record) of
        undefined -> [];
        #{alive := false} = Dead -> [Dead];
        #{pid := Parent} = Relative ->
            case lineage_nif:record(Parent) of
                #{pid := Pid} = Above when Left > 0, Pid =/= map_get(pid, Record) -> [Relative | parents(Above, Left - 1)];
                _ -> [Relative]
            end
    end.

relatives(Pids, Via) ->
    [relative(Pid, Via) || Pid <- Pids].

relative(Pid, Via) when node(Pid) =/= node() ->
    #{pid => Pid, via => Via, alive => true, name => undefined, initial_call => undefined, class => []};
relative(Pid, Via) ->
    #{flags := Flags, initial_call := Call} = record(Pid, #{}),
    Info = lineage_proc:info(Pid, lineage_describe:items(), ?DEADLINE),
    {Name, Readable} = case Info of
                           #{} -> {lineage_describe:name(Info), lineage_describe:initial_call(Call, Info)};
                           _ -> {undefined, Call}
                       end,
    #{pid => Pid, via => Via, alive => Info =/= dead, name => Name, initial_call => Readable,
      class => [F || F <- Flags, lists:member(F, [root, runtime, host, service, supervisor, own])]}.

%% @doc What outlived a scope: the common part of the leak assertions of ExUnit, EUnit and Common Test, and of
%% `lineage:scope/2'.
%%
%% A leak is a process of the scope that lives when the scope has ended and its deadline has passed. A silent failure
%% is one that died abnormally, and nobody was linked to it or monitored it; that it was killed is no failure: someone
%% did that. Waiting is on the deaths themselves, and ends with the last one.
-module(lineage_leak).

-export([open/1, open/2, check/2, is_clean/1, text/1, check_options/1, unused/0]).

-export_type([options/0, ignore/0, report/0, leak/0]).

-type ignore() :: {module(), atom(), arity() | '_'} | atom() | binary() | {label, atom() | binary()} | {app, atom()}
                | {site, file:filename() | binary()}.
%% What is no leak: by the call that it was started with, its registered name or label, its application, or the end of
%% the path of the file that spawned it, with `:Line' or without. Matched on the process, its spawner and its ancestors.

-type options() :: #{within => non_neg_integer(),     % ms for what is ending, 500
                     ignore => [ignore()]}.

-type leak() :: #{pid := pid(), kind := supervised | tethered | unresolved | lineage_report:kind(),
                  direct := boolean(), root := pid(), initial_call := mfa() | undefined, name := atom(),
                  label := atom() | binary(), age_ms := non_neg_integer(), site := lineage_site:site() | undefined,
                  parent := pid() | {node(), non_neg_integer()} | undefined, spawner := mfa() | undefined,
                  app := atom(), supervisor := pid() | undefined}.
%% `direct' where no other leak has started it, or holds it; else `root' is the direct one that it hangs below.
%% `supervisor': whose child it is.

-type report() :: #{scope := lineage_scope:scope(), name := binary(), leaks := [leak()], silent := [map()],
                    ignored := [{ignore() | lazy, pid()}], unused := [ignore()], notes := [binary()],
                    waited_ms := non_neg_integer()}.
%% `leaks': each direct one, and those below it. `silent': rows as of `lineage:recent/1'. `ignored': `lazy' where
%% Erlang or Elixir starts such a process when it is first needed. `unused': what was to be ignored and was not there.
%% `notes': what could not be known.

-define(WITHIN, 500).
-define(FIRST_MS, 5).          % most of what is ending does so within this
-define(ATTACHING_MS, 10).     % between two looks at a session that another one attaches
-define(DEADLINE, 300).        % ms, for each process asked
-define(DEPTH, 50).            % of ancestors that are matched
-define(USED, lineage_ignores).

%% @doc Opens a scope for the calling process. Attaches Lineage with what an assertion needs when nothing is attached;
%% that session stays. Raises a sentence when one is attached that does less.
-spec open(term()) -> lineage_scope:scope().
open(Name) ->
    open(Name, self()).

%% @doc The same for another process of this node.
-spec open(term(), pid()) -> lineage_scope:scope().
open(Name, Pid) ->
    ready(Name),
    lineage_scope:open(Name, Pid).

ready(Name) ->
    try lineage_session:lookup(options) of
        Options ->
            case [{Key, map_get(Key, Options)} || {Key, Value} <- needs(), map_get(Key, Options) =/= Value] of
                [] -> ok;
                Missing -> lineage_error:raise({leaks_need, Missing}, [Name])
            end
    catch
        error:{lineage, not_attached} ->
            attach(Name);
        error:{lineage, attaching} ->
            %% Another one does it: of many tests that begin at once, or the application under test.
            timer:sleep(?ATTACHING_MS),
            ready(Name)
    end.

%% One of many tests that run at once does it; the session refuses the others.
attach(Name) ->
    case lineage:attach(maps:from_list(needs())) of
        {ok, _Info} -> ok;
        {error, {already_attached, _}} -> ready(Name);
        {error, {Tag, Sentence}} -> lineage_error:raise({told, Tag, Sentence}, [Name])
    end.

needs() -> [{exits, all}, {sites, exact}, {monitors, exact}].

%% @doc Ends the scope, waits until its processes are gone or `within' milliseconds have passed, and reports what is
%% left. Any process may ask, for any number of scopes at once. Raises a sentence for options that
%% {@link check_options/1} refuses, and for a scope that is not known (`unknown_scope').
-spec check(lineage_scope:scope(), options()) -> report().
check(Scope, Options) ->
    case check_options(Options) of
        ok -> ok;
        {error, Cause} -> lineage_error:raise(Cause, [Scope, Options])
    end,
    Name = case lineage_scope:name(Scope) of
               undefined -> lineage_error:raise({unknown_scope, Scope}, [Scope, Options]);
               Known -> Known
           end,
    lineage_report:attached([Scope, Options], fun() -> checked(Scope, Name, Options) end).

checked(Scope, Name, Options) ->
    Start = now_ms(),
    Deadline = Start + maps:get(within, Options, ?WITHIN),
    ok = lineage_scope:close(Scope),
    ok = lineage_scope:checking(Scope, Deadline),
    Ignore = [normal(I) || I <- maps:get(ignore, Options, [])],
    noted([{I, false} || I <- Ignore]),
    Found = left(Scope, Ignore, Deadline),
    #{leaks := Rows, ignored := Ignored, silent := Silent} = Found,
    noted([{I, true} || {I, _} <- Ignored]),
    Report = #{scope => Scope, name => Name, leaks => describe(Rows), silent => sited(Silent), ignored => Ignored,
               unused => Ignore -- [I || {I, _} <- Ignored], notes => notes(Scope, Rows),
               waited_ms => now_ms() - Start},
    ok = lineage_scope:keep(Scope, Report),
    Report.

%% @doc Whether there is neither a leak nor a silent failure.
-spec is_clean(report()) -> boolean().
is_clean(#{leaks := Leaks, silent := Silent}) -> Leaks =:= [] andalso Silent =:= [].

%% @doc Whether these are options, or what is wrong with them.
-spec check_options(term()) -> ok | {error, lineage_error:cause()}.
check_options(Options) when is_map(Options) ->
    case [Cause || {Key, Value} <- lists:sort(maps:to_list(Options)), Cause <- wrong(Key, Value)] of
        [] -> ok;
        [Cause | _] -> {error, Cause}
    end;
check_options(Options) ->
    {error, {bad_argument, "the assertion of leaks", Options, "a map of the options within and ignore"}}.

wrong(within, Ms) when is_integer(Ms), Ms >= 0, Ms =< 16#ffffffff -> [];
wrong(within, Ms) -> [{bad_argument, "within", Ms, "a number of milliseconds, 0 or more"}];
wrong(ignore, List) ->
    case is_list(List) andalso length_of(List) >= 0 andalso [I || I <- List, not is_ignore(I)] of
        [] -> [];
        Bad -> [{bad_argument, "ignore", case Bad of [First | _] -> First; false -> List end,
                 "a list whose elements are each {Module, Function, Arity}, a registered name or a label, {label, Label}, "
                 "{app, Application}, or {site, \"file\"} or {site, \"file:line\"}"}]
    end;
wrong(Key, _) ->
    [{bad_argument, "the assertion of leaks", Key, "the options within and ignore"}].

%% What has neither name nor label is `undefined' inside: that would be to ignore all of these.
is_ignore(undefined) -> false;
is_ignore({label, undefined}) -> false;
is_ignore({site, File}) -> (is_binary(File) orelse io_lib:printable_unicode_list(File)) andalso is_binary(unicode:characters_to_binary(File));
is_ignore({app, App}) -> is_atom(App);
is_ignore({label, Label}) -> is_atom(Label) orelse is_binary(Label);
is_ignore({M, F, A}) when is_atom(M), is_atom(F) -> A =:= '_' orelse (is_integer(A) andalso A >= 0 andalso A =< 255);
is_ignore(Name) -> is_atom(Name) orelse is_binary(Name).

length_of(List) ->
    try length(List) catch error:badarg -> -1 end.

normal({site, File}) -> {site, unicode:characters_to_binary(File)};
normal(Ignore) -> Ignore.

%% @doc What was to be ignored by checks of this session, and never was there to be.
-spec unused() -> [ignore()].
unused() ->
    try ets:tab2list(?USED) of
        Rows -> [Ignore || {Ignore, false} <- lists:sort(Rows)]
    catch
        error:badarg -> []                       % the application is not started
    end.

noted([]) ->
    ok;
noted(Rows) ->
    {Used, Given} = lists:partition(fun({_, Is}) -> Is end, Rows),
    ets:insert_new(?USED, Given),
    [ets:insert(?USED, Row) || {Ignore, _} = Row <- Used, Ignore =/= lazy],
    ok.

%% What is left

left(Scope, Ignore, Deadline) ->
    Scopes = lineage_scope:within(Scope),
    case scoped(Scopes) of
        {[], Silent} -> settled([], [], Silent, Ignore);
        {_, _} -> apart(fun() -> wait(Scopes, Ignore, Deadline, ?FIRST_MS) end)
    end.

%% What is raised there is raised here: the session may end meanwhile.
apart(Fun) ->
    case lineage_walk:apart(fun() -> try {ok, Fun()} catch Class:Reason:Stack -> {Class, Reason, Stack} end end) of
        {ok, Result} -> Result;
        {Class, Reason, Stack} -> erlang:raise(Class, Reason, Stack)
    end.

scoped(Scopes) ->
    case lineage_nif:scoped(Scopes) of
        {Live, Silent} when is_list(Silent) -> {Live, [Dead || #{reason := Reason} = Dead <- Silent, Reason =/= killed]};
        {_, {error, enomem}} -> lineage_error:raise({enomem, verdict}, []);
        {error, closed} -> lineage_error:raise({not_attached, undefined}, [])
    end.

%% First all for a moment, and what is left then for longer, but for what is to be ignored.
wait(Scopes, Ignore, Deadline, First) ->
    {Live, Silent} = scoped(Scopes),
    Now = now_ms(),
    case {Live, Now < Deadline} of
        {[], _} ->
            settled([], [], Silent, Ignore);
        {_, true} when First > 0 ->
            gone(Live, min(Deadline, Now + First)),
            wait(Scopes, Ignore, Deadline, 0);
        {_, More} ->
            {Ignored, Leaks} = sort(Live, Ignore),
            case Leaks =/= [] andalso More of
                true -> gone(Leaks, Deadline), wait(Scopes, Ignore, Deadline, 0);
                false -> settled(Leaks, Ignored, Silent, Ignore)
            end
    end.

gone(Rows, Deadline) ->
    Monitors = [{monitor(process, Pid), Pid} || #{pid := Pid} <- Rows],
    _ = [receive {'DOWN', Monitor, process, Pid, _} -> ok after max(0, Deadline - now_ms()) -> late end
         || {Monitor, Pid} <- Monitors],
    [demonitor(Monitor, [flush]) || {Monitor, _} <- Monitors],
    ok.

settled(Leaks, Ignored, Silent, Ignore) ->
    {Noticed, Unheard} = lists:partition(fun({_, Why}) -> Why =/= no end, [{Dead, first(Ignore, [dead_facts(Dead)])} || Dead <- Silent]),
    #{leaks => Leaks, ignored => Ignored ++ [{Why, Pid} || {#{pid := Pid}, {yes, Why}} <- Noticed],
      silent => [Dead || {Dead, no} <- Unheard]}.

%% Ignoring

sort(Rows, Ignore) ->
    Lazy = [Match || {Match, _Reason} <- lineage_lists:lazy()],
    Chains = chains(Rows),
    Judged = [{Row, first([{lazy, Lazy} | Ignore], maps:get(Pid, Chains))} || #{pid := Pid} = Row <- Rows],
    {[{Why, Pid} || {#{pid := Pid}, {yes, Why}} <- Judged], [Row || {Row, no} <- Judged]}.

first([], _Chain) ->
    no;
first([{lazy, Matches} | Rest], Chain) ->
    case lists:any(fun(Match) -> is_ignored(Match, Chain) end, Matches) of
        true -> {yes, lazy};
        false -> first(Rest, Chain)
    end;
first([Ignore | Rest], Chain) ->
    case is_ignored(Ignore, Chain) of
        true -> {yes, Ignore};
        false -> first(Rest, Chain)
    end.

is_ignored(Ignore, Chain) ->
    lists:any(fun(Facts) -> is_match(Ignore, Facts) end, Chain).

is_match({registered, Name}, #{name := Known}) -> Name =:= Known;
is_match({site, Text}, #{site := Site}) -> is_place(Text, Site);
is_match({app, App}, #{app := Known}) -> App =:= Known;
is_match({label, Label}, #{label := Known}) -> Label =:= Known;
is_match(Wanted, Facts) -> lineage_report:is_match(Wanted, Facts).

is_place(Text, #{file := File, line := Line}) ->
    ends_with(File, Text) orelse ends_with(<<File/binary, $:, (integer_to_binary(Line))/binary>>, Text);
is_place(_Text, _Site) ->
    false.

%% Of a path only whole names.
ends_with(Path, End) ->
    Size = byte_size(Path) - byte_size(End),
    Size >= 0 andalso binary:part(Path, Size, byte_size(End)) =:= End andalso (Size =:= 0 orelse binary:at(Path, Size - 1) =:= $/).

%% What is known of each process and of its living ancestors; of one that is dead only what it ran.
chains(Rows) ->
    Lines = maps:from_list([{Pid, line(Row, ?DEPTH)} || #{pid := Pid} = Row <- Rows]),
    Records = maps:from_list([{Pid, Record} || Line <- maps:values(Lines), #{pid := Pid} = Record <- Line]),
    Infos = maps:from_list(lineage_proc:info_many(maps:keys(Records), lineage_describe:items(), ?DEADLINE)),
    Sites = lineage_site:describe_all([Site || #{site := Site} <- maps:values(Records)]),
    Apps = lineage_describe:apps(),
    Facts = maps:map(fun(Pid, #{site := Site} = Record) ->
                             facts(Record, info(map_get(Pid, Infos)), map_get(Site, Sites), Apps)
                     end, Records),
    maps:map(fun(_, Line) -> [map_get(Pid, Facts) || #{pid := Pid} <- Line] end, Lines).

line(#{parent := Parent, generation := Generation} = Record, Depth) when is_pid(Parent), Depth > 0 ->
    case node(Parent) =:= node() andalso lineage_nif:record(Parent) of
        %% A pid comes round again: a parent is older than its child.
        #{generation := Older} = Above when Older =< Generation -> [Record | line(Above, Depth - 1)];
        _ -> [Record]
    end;
line(Record, _Depth) ->
    [Record].

info(#{} = Info) -> Info;
info(_) -> #{}.

facts(#{initial_call := Born, spawner := Spawner}, Info, Site, Apps) ->
    Call = lineage_describe:initial_call(Born, Info),
    #{calls => [Born, Call, Spawner], name => lineage_describe:name(Info), label => lineage_describe:label(Info),
      app => lineage_describe:app(maps:get(group_leader, Info, undefined), Call, Apps), site => Site}.

dead_facts(#{initial_call := Born, spawner := Spawner, site := Site}) ->
    #{calls => [Born, Spawner], name => undefined, label => undefined, app => lineage_describe:app(undefined, Born, #{}),
      site => lineage_site:describe(Site)}.

%% Describing

sited(Silent) ->
    [Dead#{site := lineage_site:describe(Site)} || #{site := Site} = Dead <- Silent].

%% Each direct leak, oldest first, and what hangs below it.
describe(Rows) ->
    Rowed = maps:from_list([{Pid, Row} || #{pid := Pid} = Row <- Rows]),
    Known = maps:map(fun(_, Row) -> of_older(Row, Rowed) end, Rowed),
    Whys = lineage_why:why_each(maps:keys(Rowed)),
    Leaks = [leak(Row, root(Pid, Known, #{}), map_get(Pid, Whys)) || #{pid := Pid} = Row <- Rows],
    Key = fun(#{root := Root, direct := Direct, pid := Pid}) -> {age_of(Root, Known), not Direct, age_of(Pid, Known)} end,
    lists:sort(fun(A, B) -> Key(A) =< Key(B) end, Leaks).

%% A pid comes round again: a parent is older than its child.
of_older(#{parent := Parent, generation := Generation} = Row, Known) ->
    case Known of
        #{Parent := #{generation := Older}} when Older > Generation -> Row#{parent := undefined};
        #{} -> Row
    end.

%% Up to who is to blame: the spawner; of one whose spawner is gone, an older process that holds it.
root(Pid, Known, Seen) ->
    #{parent := Parent, guardian := Guardian} = map_get(Pid, Known),
    Above = [P || P <- [Parent, Guardian], is_map_key(P, Known), not is_map_key(P, Seen),
                  P =:= Parent orelse (age_of(P, Known) < age_of(Pid, Known) andalso not is_below(P, Pid, Known))],
    case Above of
        [P | _] -> root(P, Known, Seen#{Pid => true});
        [] -> Pid
    end.

age_of(Pid, Known) ->
    #{generation := Generation} = map_get(Pid, Known),
    {Generation, Pid}.

is_below(Pid, Above, Known) ->
    case Known of
        #{Pid := #{parent := Above}} -> true;
        #{Pid := #{parent := Parent}} -> is_below(Parent, Above, Known);
        #{} -> false
    end.

leak(#{pid := Pid} = Row, Root, Known) ->
    Shown = case Known of
                #{verdict := _} = Why -> shown(Why);
                _ -> shown(#{verdict => unresolved, initial_call => maps:get(initial_call, Row), name => undefined,
                             label => undefined, age_ms => maps:get(age_ms, Row), app => undefined,
                             site => lineage_site:describe(maps:get(site, Row)), restarted_by => unresolved})
            end,
    Shown#{pid => Pid, direct => Root =:= Pid, root => Root, parent => maps:get(parent, Row),
           spawner => maps:get(spawner, Row)}.

shown(#{verdict := Verdict, restarted_by := By} = Why) ->
    Supervisor = case By of
                     #{pid := Sup} -> Sup;
                     _ -> undefined
                 end,
    (maps:with([initial_call, name, label, age_ms, app, site], Why))#{kind => maps:get(kind, Why, Verdict),
                                                                       supervisor => Supervisor}.

%% What may have kept a process from being seen, or a failure from being named.
notes(Scope, Rows) ->
    #{lost := Lost, scope_overflows := Served} = lineage_nif:info(),
    [note("For ~b ms at most another tool had the hook: what was born then may have been missed.", [Ms])
     || Ms <- [lineage_scope:blind(Scope)], Ms > 0] ++
    [note("~b births were beyond max_bytes and belong to no scope: raise it.", [Lost]) || Lost > 0]
        ++ [note("More supervisors served requests at once than there is room for: ~b times a child was born in its "
                 "supervisor's scope.", [Served]) || Served > 0]
        ++ [note("Of silent failures only the last 1,000 of the node are looked through.", []) || lineage_scope:silent(Scope) > 1000]
        ++ [note("These did not answer, and may be ending: ~ts.", [lists:join(", ", [lineage_describe:pid(P) || P <- Stuck])])
            || Stuck <- [[P || #{pid := P} <- Rows, lineage_proc:info(P, [registered_name], ?DEADLINE) =:= unresolved]], Stuck =/= []].

note(Format, Args) -> unicode:characters_to_binary(io_lib:format(Format, Args)).

%% The report as people read it

%% @doc One line for each direct leak, those that hang below it, each silent failure, a line that sums up, and how to
%% mend it. No newline at the end.
-spec text(report()) -> binary().
text(#{name := Name, leaks := Leaks, silent := Silent, notes := Notes, waited_ms := Waited, unused := Unused} = Report) ->
    case is_clean(Report) of
        true -> unicode:characters_to_binary(lists:join($\s, [note("Nothing outlived ~ts.", [Name]) | Notes]));
        false ->
            Lines = [leak_line(L) || L <- Leaks] ++ [silent_line(S) || S <- Silent]
                ++ [summary(Leaks, Silent, Name, Waited)] ++ hints(Leaks, Silent)
                ++ [["Unused in ignore: ", lists:join(", ", [note("~0tp", [U]) || U <- Unused])] || Unused =/= []] ++ Notes,
            unicode:characters_to_binary(lists:join($\n, Lines))
    end.

leak_line(#{direct := Direct} = Leak) ->
    #{pid := Pid, initial_call := Call, age_ms := Age, site := Site, parent := Parent, spawner := Spawner} = Leak,
    [case Direct of true -> "direct    "; false -> "  indirect " end, lineage_describe:pid(Pid), $\s, kind(Leak), $\s,
     lineage_describe:mfa(Call), called(Leak), ", ", age(Age), ", spawned at ", lineage_site:text(Site),
     " by ", lineage_describe:pid(Parent), [[$\s, lineage_describe:mfa(Spawner)] || Spawner =/= undefined]].

kind(#{kind := supervised, supervisor := Sup}) when is_pid(Sup) -> ["supervised by ", process(Sup)];
kind(#{kind := Kind}) -> atom_to_binary(Kind).

process(Pid) ->
    case lineage_proc:info(Pid, [registered_name], ?DEADLINE) of
        #{registered_name := Name} when is_atom(Name), Name =/= undefined -> lineage_describe:atom(Name);
        _ -> lineage_describe:pid(Pid)
    end.

called(#{name := Name}) when Name =/= undefined -> [" (", lineage_describe:atom(Name), ")"];
called(#{label := Label}) when is_binary(Label) -> [" (", Label, ")"];
called(#{label := Label}) when Label =/= undefined -> [" (", lineage_describe:atom(Label), ")"];
called(_) -> [].

age(Ms) when Ms < 1000 -> [integer_to_binary(Ms), " ms old"];
age(Ms) -> [float_to_binary(Ms / 1000, [{decimals, 1}]), " s old"].

silent_line(#{pid := Pid, initial_call := Call, reason := Reason, site := Site, parent := Parent, spawner := Spawner}) ->
    ["silent    ", lineage_describe:pid(Pid), $\s, lineage_describe:mfa(Call), " died of ", lineage_describe:atom(Reason),
     ", unlinked and unmonitored, spawned at ", lineage_site:text(Site), " by ", lineage_describe:pid(Parent),
     [[$\s, lineage_describe:mfa(Spawner)] || Spawner =/= undefined]].

summary(Leaks, Silent, Name, Waited) ->
    {Direct, Indirect} = lists:partition(fun(#{direct := Is}) -> Is end, Leaks),
    Counts = [lineage_text:count(length(List), Word)
              || {List, Word} <- [{Direct, <<"direct leak">>}, {Indirect, <<"indirect leak">>}, {Silent, <<"silent failure">>}],
                 List =/= []],
    [lists:join(", ", Counts), " in ", Name, [[" after ", integer_to_binary(Waited), " ms"] || Leaks =/= []], "."].

hints(Leaks, Silent) ->
    Kinds = [Kind || #{kind := Kind, direct := true} <- Leaks],
    ["A supervisor that others use holds them: terminate the children, or start them under a supervisor of the test's own."
     || lists:member(supervised, Kinds)]
        ++ ["Start them under a supervisor that stops with the test (in ExUnit: start_supervised!), or link them to it, or stop them before it ends."
            || lists:any(fun(Kind) -> Kind =/= supervised end, Kinds)]
        ++ ["Link or monitor what may fail, so that somebody hears of it." || Silent =/= []].

now_ms() -> erlang:monotonic_time(millisecond).

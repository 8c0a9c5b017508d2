%% @doc Shows to people what the queries return: tables and trees that fit the terminal.
%%
%% Colour and lines of box characters are for terminals that have them; everything else gets plain text.
%% The environment variable NO_COLOR is respected.
-module(lineage_print).

-export([print/1, format/2]).

-import(lineage_text, [table/4, wrap/3, fold/2, line/2, pad/2, count/2, text/1]).

-type options() :: #{columns => pos_integer(), colour => boolean(), unicode => boolean()}.

-define(COLUMNS, 100).      % where there is no terminal to ask
-define(NARROW, 40).

%% @doc Prints to the calling process's group leader.
-spec print(term()) -> ok.
print(Data) ->
    Options = case io:columns() of
                  {ok, Columns} -> #{columns => Columns, colour => colour(), unicode => unicode()};
                  {error, _} -> #{columns => ?COLUMNS, colour => false, unicode => unicode()}
              end,
    io:put_chars(unicode:characters_to_binary(format(Data, Options))).

colour() ->
    os:getenv("NO_COLOR", "") =:= "" andalso os:getenv("TERM", "dumb") =/= "dumb".

unicode() ->
    case io:getopts() of
        Options when is_list(Options) -> proplists:get_value(encoding, Options, latin1) =:= unicode;
        {error, _} -> false
    end.

%% @doc The same as text. `columns': the width of the terminal (100); `colour' (false); `unicode' (false):
%% box characters and dots.
-spec format(term(), options()) -> unicode:chardata().
format(Data, Given) ->
    Options = maps:merge(#{columns => ?COLUMNS, colour => false, unicode => false}, Given),
    O = Options#{columns => max(?NARROW, maps:get(columns, Options))},
    [[line(L, O), $\n] || L <- lines(Data, O)].

%% A line is a list of {Style, Text}; it is cut at the terminal's edge, and only then coloured.
lines([], _O) -> [[{dim, <<"nothing to show">>}]];
lines(#{growing := _, scopes := _} = Leaks, O) -> leaks(Leaks, O);
lines(#{leak := _} = Leak, O) -> leak(Leak, O);
lines([#{leak := _, values := _} | _] = Growing, O) -> growing(Growing, O);
lines([#{kind := _, root := _} | _] = Orphans, O) -> orphans(Orphans, O);
lines([#{os_pid := _} | _] = Orphans, O) -> os_orphans(Orphans, O);
lines([#{lifetime_us := _} | _] = Dead, O) -> recent(Dead, O);
lines([#{site := _, births := _} | _] = Sites, O) -> sites(Sites, O);
lines(#{verdict := _, stopped_by := _} = Why, O) -> why(Why, O);
lines(#{apps := _, orphans := _} = Tree, O) when is_list(map_get(orphans, Tree)) -> tree(Tree, O);
lines(#{seen := _, never := _, unfound := _} = Report, O) -> reconciled(Report, O);
lines(#{starts := _, outliers := _} = Overhead, O) -> lineage_print_overhead:lines(Overhead, O);
lines(#{counters := _} = Diff, O) -> diff(Diff, O);
lines(#{births := _} = Summary, O) -> summary(Summary, O);
lines({error, {Tag, Sentence}}, O) when is_atom(Tag), is_binary(Sentence) -> wrap([{red, Sentence}], 0, O);
lines(Other, _O) -> [[{plain, L}] || L <- string:split(term(Other), "\n", all)].

%% Leaks of a living node

leaks(#{orphans := [], growing := [], scopes := [], sampling := Sampling}, O) ->
    [[{green, <<"no leaks">>}] | sampling(Sampling, O)];
leaks(#{orphans := Orphans, growing := Growing, scopes := Scopes, sampling := Sampling}, O) ->
    lists:append([[[{bold, <<"Only growing">>}] | growing(Growing, O)] || Growing =/= []])
        ++ lists:append([[[{bold, <<"Lingering orphans">>}] | orphans(Orphans, O)] || Orphans =/= []])
        ++ lists:append([[[{bold, <<"Scopes that ended with survivors">>}] | lists:append([scope(S) || S <- Scopes])] || Scopes =/= []])
        ++ sampling(Sampling, O).

scope(Report) -> [[{plain, L}] || L <- string:split(lineage_leak:text(Report), "\n", all)].

sampling(#{windows := Windows, window_ms := Ms, followed := Followed, dropped := Dropped}, O) ->
    Early = [<<"; fewer than 16 windows say nothing about growth">> || Windows < 16],
    More = [[<<"; ">>, integer_to_binary(Dropped), <<" smaller ones are not followed">>] || Dropped > 0],
    wrap([{dim, text([count(Windows, <<"window">>), <<" of ">>, duration(Ms), <<", ">>, count(Followed, <<"population">>),
                      <<" followed">>, More, Early])}], 0, O).

growing(Growing, O) ->
    Head = [<<"LIVE">>, <<"FROM">>, <<"TO">>, <<"A MINUTE">>, <<"IN">>, <<"BIRTHS">>, <<"SURE">>, <<"TREND">>, <<"WHAT">>],
    Rows = [[integer_to_binary(Live), integer_to_binary(First), integer_to_binary(Last), slope(Slope), duration(N * Ms),
             births(G), text(io_lib:format("~.1f %", [100 * min(Sure, 0.9994)])), spark(Values, O), whose(G)]
            || #{live := Live, first := First, last := Last, slope := Slope, windows := N, window_ms := Ms,
                 confidence := Sure, values := Values} = G <- Growing],
    table(Head, Rows, [bold, plain, plain, red, plain, plain, plain, yellow, plain], O).

slope(Slope) when Slope < 10 -> text(io_lib:format("+~.2f", [Slope]));
slope(Slope) -> text(io_lib:format("+~b", [round(Slope)])).

births(#{births := Births}) -> integer_to_binary(Births);
births(_) -> <<"-">>.

whose(#{leak := site, site := Site}) -> lineage_site:text(Site);
whose(#{pid := Pid} = Supervisor) -> text([<<"children of ">>, lineage_describe:pid(Pid), $\s, what(Supervisor)]).

%% At most 20 steps, each the least of the windows that it stands for.
spark(Values, O) ->
    Shown = lists:reverse(thin(lists:reverse(Values))),
    {Least, Most} = {lists:min(Shown), lists:max(Shown)},
    Steps = steps(O),
    text([element(1 + (V - Least) * (tuple_size(Steps) - 1) div max(1, Most - Least), Steps) || V <- Shown]).

thin(Values) when length(Values) =< 20 -> Values;
thin(Values) -> thin(pairs(Values)).

pairs([A, B | Rest]) -> [min(A, B) | pairs(Rest)];
pairs(Rest) -> Rest.

steps(#{unicode := true}) -> {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
steps(_) -> {"_", ".", "-", "=", "+", "*", "#"}.

%% One that a watch tells.
leak(#{leak := held_back, count := Count}, O) ->
    wrap([{yellow, text([<<"lineage: ">>, count(Count, <<"more leak">>), <<" in the last minute: lineage:leaks() has them">>])}], 0, O);
leak(#{leak := scope} = Report, _O) ->
    [[{red, <<"lineage: a scope ended with survivors">>}] | scope(maps:remove(leak, Report))];
leak(#{leak := orphan, pid := Pid, kind := Kind, age_ms := Age, indirect := Indirect} = Orphan, O) ->
    Below = [[<<", and ">>, integer_to_binary(Indirect), <<" below it">>] || Indirect > 0],
    wrap([{red, text([<<"lineage: orphan ">>, lineage_describe:pid(Pid), $\s, what(Orphan), <<", ">>, atom_to_binary(Kind), <<", for ">>,
                      duration(Age), <<", ">>, by(Orphan), Below])}], 0, O);
leak(#{slope := Slope, first := First, last := Last, windows := N, window_ms := Ms, values := Values} = Growing, O) ->
    wrap([{red, text([<<"lineage: only growing: ">>, integer_to_binary(First), <<" to ">>, integer_to_binary(Last), <<" in ">>, duration(N * Ms),
                      <<" (">>, slope(Slope), <<" a minute) ">>, spark(Values, O), $\s, whose(Growing)])}], 0, O).

%% Orphans

orphans(Orphans, O) ->
    Direct = [R || #{direct := true} = R <- Orphans],
    Shown = maps:from_list([{Pid, true} || #{pid := Pid} <- Direct]),
    Rows = lists:append([[row(R, <<>>) | [row(I, branch(O)) || #{direct := false, root := Top} = I <- Orphans, Top =:= Pid]]
                         || #{pid := Pid} = R <- Direct])
        %% What hangs below one that was filtered out still stands for itself.
        ++ [row(R, <<>>) || #{direct := false, root := Top} = R <- Orphans, not is_map_key(Top, Shown)],
    Head = [<<"PID">>, <<"KIND">>, <<"AGE">>, <<"MONITORED">>, <<"APP">>, <<"WHAT">>, <<"SPAWNED">>, <<"OTHERWISE">>],
    Kinds = [{K, length([1 || #{kind := Kind} <- Orphans, Kind =:= K])} || K <- [foreign, escaped, abandoned, detached]],
    Total = [count(length(Orphans), <<"orphan">>), <<" (">>, integer_to_binary(length(Direct)), <<" direct): ">>,
             lists:join(<<", ">>, [[integer_to_binary(N), $\s, atom_to_binary(K)] || {K, N} <- Kinds, N > 0])],
    table(Head, Rows, [cyan, red, plain, plain, plain, plain, dim, dim], O) ++ [[{bold, text(Total)}]].

row(#{pid := Pid, kind := Kind, age_ms := Age, monitored := Monitored, app := App} = R, Prefix) ->
    [<<Prefix/binary, (lineage_describe:pid(Pid))/binary>>, atom_to_binary(Kind), duration(Age), atom_to_binary(Monitored),
     atom(App), what(R), by(R), otherwise(maps:get(why, R, []))].

os_orphans(Orphans, O) ->
    Rows = [[integer_to_binary(OsPid), Program, duration(Age), atom_to_binary(Adopted), lineage_describe:pid(Owner),
             case Alive of true -> <<"alive">>; false when Owner =:= undefined -> <<"-">>; false -> <<"dead">> end,
             case Call of undefined -> <<"-">>; _ -> lineage_describe:mfa(Call) end,
             case Site of undefined -> <<"-">>; _ -> lineage_site:text(Site) end]
            || #{os_pid := OsPid, program := Program, age_ms := Age, adopted := Adopted, owner := Owner, owner_alive := Alive,
                 initial_call := Call, site := Site} <- Orphans],
    Head = [<<"OS PID">>, <<"PROGRAM">>, <<"AGE">>, <<"ADOPTED">>, <<"OWNER">>, <<"IS">>, <<"WHAT">>, <<"SPAWNED">>],
    table(Head, Rows, [cyan, red, plain, plain, cyan, plain, plain, dim], O)
        ++ [[{bold, text([count(length(Orphans), <<"OS process">>), <<" without a port">>])}]].

branch(#{unicode := true}) -> <<"└ "/utf8>>;
branch(_) -> <<"+ ">>.

%% Where, else by whom.
by(#{site := #{candidate := _} = Site}) ->
    text([lineage_site:candidate(Site), $?]);
by(#{site := #{kind := Kind} = Site}) when Kind =/= start ->
    lineage_site:text(Site);
by(#{parent := Parent, spawner := Spawner}) ->
    text([<<"by ">>, lineage_describe:pid(Parent) | [[$\s, lineage_describe:mfa(Spawner)] || Spawner =/= undefined]]).

otherwise(Bases) ->
    text(lists:join(<<"; ">>, [basis(B) || B <- Bases])).

basis({listed, Sup, Id}) -> [<<"listed by ">>, lineage_describe:pid(Sup), id(Id), <<", by pid">>];
basis({group_leader, App}) -> [<<"killed when ">>, atom_to_binary(App), <<" stops">>];
basis({remote_link, Pid}) -> [<<"linked to ">>, lineage_describe:pid(Pid), <<" on ">>, atom_to_binary(node(Pid))];
basis({unresolved, Sup}) -> [<<"unresolved: ">>, lineage_describe:pid(Sup), <<" was not asked, or did not answer">>].

id(undefined) -> [];
id(Id) when is_atom(Id) -> [<<" as ">>, lineage_describe:atom(Id)];
id(Id) -> [<<" as ">>, term(Id)].

what(#{initial_call := Call} = R) ->
    Names = [lineage_describe:atom(N) || #{name := N} <- [R], N =/= undefined] ++ [[$", any(L), $"] || #{label := L} <- [R], L =/= undefined],
    text(lists:join($\s, Names ++ [lineage_describe:mfa(Call)])).

any(Atom) when is_atom(Atom) -> lineage_describe:atom(Atom);
any(Binary) -> Binary.

%% The last dead

recent(Dead, O) ->
    Head = [<<"PID">>, <<"LIVED">>, <<"DIED">>, <<"REASON">>, <<"MONITORED">>, <<"WHAT">>, <<"SPAWNED">>],
    Rows = [[lineage_describe:pid(Pid), lived(Us), <<(duration(Ago))/binary, " ago">>, reason(D), atom_to_binary(Monitored),
             lineage_describe:mfa(Call), by(D)]
            || #{pid := Pid, lifetime_us := Us, ago_ms := Ago, monitored := Monitored, initial_call := Call} = D <- Dead],
    table(Head, Rows, [cyan, plain, plain, red, plain, plain, dim], O).

lived(Us) when Us < 1000 -> <<(integer_to_binary(Us))/binary, " us">>;
lived(Us) -> duration(Us div 1000).

reason(#{abnormal := true, reason := Reason}) -> <<"! ", (atom_to_binary(Reason))/binary>>;
reason(#{reason := Reason}) -> atom_to_binary(Reason).

%% Sites

sites(Sites, O) ->
    Head = [<<"ORPHANS">>, <<"LIVE">>, <<"BIRTHS">>, <<"UNHEARD">>, <<"SITE">>],
    Rows = [[integer_to_binary(N) || N <- [Orphans, Live, Births, Unheard]] ++ [lineage_site:text(Site)]
            || #{site := Site, births := Births, live := Live, orphans := Orphans, unheard := Unheard} <- Sites],
    table(Head, Rows, [red, plain, plain, red, plain], O).

reconciled(#{seen := Seen, never := Never, unfound := Unfound, elsewhere := Elsewhere}, O) ->
    Head = [<<"ORPHANS">>, <<"LIVE">>, <<"BIRTHS">>, <<"SEVERITY">>, <<"CALL">>, <<"PLACE">>],
    Styles = [red, plain, plain, yellow, plain, plain],
    Live = [amounts(Counts) ++ static(F, case Sure of true -> <<>>; false -> <<"?">> end)
            || #{finding := F, sure := Sure, counts := Counts} <- Seen],
    Gaps = [amounts(Counts) ++ [<<>>, <<>>, Text] || #{text := Text, counts := Counts} <- Unfound],
    section(<<"seen live">>, Live, Head, Styles, O)
        ++ section(<<"never seen">>, [[<<>>, <<>>, <<>> | static(F, <<>>)] || F <- Never], Head, Styles, O)
        ++ section(<<"live, not found: a gap to look at">>, Gaps, Head, Styles, O)
        ++ [[{bold, text([count(length(Seen), <<"finding">>), <<" seen live, ">>, integer_to_binary(length(Never)),
                          <<" never, ">>, count(length(Unfound), <<"gap">>)])},
             {dim, text([<<"; ">>, count(Elsewhere, <<"birth">>), <<" without a sure place, or in other files">>])}]].

section(_Title, [], _Head, _Styles, _O) -> [];
section(Title, Rows, Head, Styles, O) -> [[{bold, Title}] | table(Head, Rows, Styles, O)] ++ [[]].

amounts(#{orphans := Orphans, live := Live, births := Births}) -> [integer_to_binary(N) || N <- [Orphans, Live, Births]].

static(#{severity := Severity, call := Call, file := File, line := Line}, Mark) ->
    [atom_to_binary(Severity), Call, text([File, $:, integer_to_binary(Line), Mark])].

%% Why

why(#{pid := Pid, verdict := Verdict} = W, O) ->
    Kind = case W of #{kind := K} when Verdict =:= orphan -> [<<", ">>, atom_to_binary(K)]; _ -> [] end,
    Survive = case W of #{may_survive := true, verdict := V} when V =/= orphan -> <<", may survive">>; _ -> <<>> end,
    Title = [{bold, text([lineage_describe:pid(Pid), $\s, what(W)])}, {plain, <<"  ">>},
             {shade(Verdict), text([atom_to_binary(Verdict), Kind])}, {yellow, Survive}],
    About = text(lists:join(<<", ">>, [[<<"age ">>, duration(maps:get(age_ms, W)), [<<" (since attach)">> || maps:get(seeded, W)]]]
                            ++ [[<<"application ">>, atom_to_binary(A)] || #{app := A} <- [W], A =/= undefined]
                            ++ [<<"traps exits">> || maps:get(traps_exits, W) =:= true])),
    [Title]
        ++ fact(<<"about">>, [About], O)
        ++ fact(<<"spawned at">>, spawned_at(W), O)
        ++ fact(<<"spawned by">>, [relative(S) || #{spawner := S} <- [W], S =/= undefined], O)
        ++ fact(<<"ancestors">>, chain(maps:get(ancestors, W)), O)
        ++ fact(<<"stopped by">>, several(maps:get(stopped_by, W), fun stopper/1), O)
        ++ fact(<<"restarted by">>, [restarter(maps:get(restarted_by, W))], O)
        ++ fact(<<"noticed by">>, noticed(W), O)
        ++ [L || [_ | _] = Survives <- [maps:get(survives, W)], L <- fact(<<"may survive">>, Survives, O)].

%% What it was started as is told already, and by whom is below.
spawned_at(#{site := #{kind := start} = Site}) ->
    [text([<<"perhaps ">>, lineage_site:candidate(Site)]) || is_map_key(candidate, Site)];
spawned_at(#{site := #{} = Site}) ->
    [lineage_site:text(Site)];
spawned_at(_Why) ->
    [].

shade(supervised) -> green;
shade(V) when V =:= root; V =:= runtime; V =:= host -> blue;
shade(orphan) -> red;
shade(_) -> yellow.

fact(_Name, [], _O) ->
    [];
fact(Name, [First | Rest], #{columns := Columns}) ->
    Width = 14,
    Pad = binary:copy(<<" ">>, Width),
    Titled = <<(string:slice(<<"  ", Name/binary, Pad/binary>>, 0, Width))/binary, " ">>,
    Wrapped = fun(Text) -> fold(Text, Columns - Width - 1) end,
    [F | More] = Wrapped(First),
    [[{dim, Titled}, {plain, F}]
     | [[{plain, <<Pad/binary, " ", L/binary>>}] || L <- More ++ lists:append([Wrapped(T) || T <- Rest])]].

several(unresolved, _Fun) -> [<<"unresolved: it did not answer in time">>];
several([], _Fun) -> [<<"nobody">>];
several(List, Fun) -> [text(Fun(E)) || E <- lists:sublist(List, 8)] ++ more(length(List) - 8).

more(N) when N > 0 -> [text([<<"and ">>, integer_to_binary(N), <<" more">>])];
more(_) -> [].

chain(Relatives) ->
    [relative(R) || R <- lists:sublist(Relatives, 12)] ++ more(length(Relatives) - 12).

relative(#{pid := Pid, alive := Alive, initial_call := Call, name := Name, class := Class, via := Via}) ->
    text([lineage_describe:pid(Pid), [[$\s, lineage_describe:atom(Name)] || Name =/= undefined], $\s, lineage_describe:mfa(Call),
          [[<<", ">>, atom_to_binary(C)] || C <- Class], [<<", dead">> || not Alive],
          [<<", linked">> || Via =:= link]]).

stopper(#{how := How, pid := Pid, name := Name, basis := Basis}) ->
    Who = [lineage_describe:pid(Pid) | [[$\s, lineage_describe:atom(Name)] || Name =/= undefined]],
    stopped(How, Who, Basis, Pid).

stopped(child, Who, {child, Child}, _) -> [<<"supervisor ">>, Who, <<": its child">>, child(Child)];
stopped(link, Who, _, _) -> [<<"the exit of ">>, Who, <<", over their link">>];
stopped(application, Who, {application, App}, _) -> [<<"the stop of application ">>, atom_to_binary(App), <<" (master ">>, Who, $)];
stopped(group_leader, Who, {application, App}, _) ->
    [<<"killed, not shut down, when application ">>, atom_to_binary(App), <<" stops (group leader ">>, Who, $)];
stopped(listed, Who, {child, Child}, _) ->
    [<<"supervisor ">>, Who, <<" lists it">>, child(Child), <<" without a link: stopped by pid, and nobody notices its crash">>];
stopped(remote_link, Who, _, Pid) ->
    [<<"the exit of ">>, Who, <<" on ">>, atom_to_binary(node(Pid)), <<", or the loss of that connection">>].

child(#{id := Id, restart := Restart, shutdown := Shutdown}) ->
    [id(Id), <<" (">>, atom_to_binary(Restart), <<", shutdown ">>, term(Shutdown), $)].

restarter(nobody) -> <<"nobody">>;
restarter(unresolved) -> <<"unresolved: the supervisor did not answer in time, or has too many children to be asked">>;
restarter(#{restart := temporary} = R) -> text([<<"nobody: ">>, holder(R), <<" holds it as temporary">>]);
restarter(#{restart := transient} = R) -> text([holder(R), <<" (transient: after an abnormal exit)">>]);
restarter(#{restart := Restart} = R) -> text([holder(R), <<" (">>, atom_to_binary(Restart), $)]).

holder(#{pid := Pid, name := Name, id := Id}) ->
    [<<"supervisor ">>, lineage_describe:pid(Pid), [[$\s, lineage_describe:atom(Name)] || Name =/= undefined], id(Id)].

noticed(#{noticed_by := unresolved}) -> [<<"unresolved: it did not answer in time">>];
noticed(#{noticed_by := []}) -> [<<"nobody">>];
noticed(#{noticed_by := Watchers, noticed_count := Count}) ->
    [watcher(W) || W <- lists:sublist(Watchers, 8)] ++ more(Count - 8).

watcher(#{pid := Pid, name := Name, initial_call := Call, by := By}) when is_pid(Pid) ->
    text([lineage_describe:pid(Pid), [[$\s, lineage_describe:atom(Name)] || Name =/= undefined],
          [[$\s, lineage_describe:mfa(Call)] || Call =/= undefined], <<", by ">>, atom_to_binary(By)]);
watcher(#{pid := Other, by := By}) ->
    text([term(Other), <<", by ">>, atom_to_binary(By)]).

%% The forest

tree(#{root := Root} = Tree, O) ->
    branches([Root], O) ++ cut_off(Tree);
tree(#{live := Live} = Tree, O) ->
    Sections = [{apps, <<"Applications">>}, {hosts, <<"Hosts">>}, {runtime, <<"Runtime">>}, {orphans, <<"Orphans">>},
                {unresolved, <<"Unresolved">>}],
    [[{bold, text(count(Live, <<"live process">>))}]]
        ++ lists:append([[[{bold, Title}] | branches(Nodes, O)] || {Key, Title} <- Sections,
                                                                    #{Key := [_ | _] = Nodes} <- [Tree]])
        ++ cut_off(Tree).

cut_off(#{truncated := true}) -> [[{yellow, <<"There is more: ask for a part of it, or give tree a larger `max`.">>}]];
cut_off(_) -> [].

branches(Nodes, O) ->
    lists:append([branch(Node, <<"  ">>, <<"  ">>, O) || Node <- Nodes]).

branch(Node, First, Rest, O) ->
    [[{dim, First} | title(Node, O)] | below(maps:get(below, Node, []), Rest, O)].

below([], _Prefix, _O) ->
    [];
below([Last], Prefix, O) ->
    {End, _} = arms(O),
    branch(Last, <<Prefix/binary, End/binary>>, <<Prefix/binary, "   ">>, O);
below([Node | Rest], Prefix, O) ->
    {_, {Arm, Trunk}} = arms(O),
    branch(Node, <<Prefix/binary, Arm/binary>>, <<Prefix/binary, Trunk/binary>>, O) ++ below(Rest, Prefix, O).

arms(#{unicode := true}) -> {<<"└─ "/utf8>>, {<<"├─ "/utf8>>, <<"│  "/utf8>>}};
arms(_) -> {<<"+- ">>, {<<"|- ">>, <<"|  ">>}}.

title(#{more := Count, initial_call := Call}, _O) ->
    [{dim, text([integer_to_binary(Count), <<" more ">>, lineage_describe:mfa(Call)])}];
title(#{app := App, pid := Pid, class := root}, _O) ->
    [{bold, atom_to_binary(App)}, {dim, text([$\s, lineage_describe:pid(Pid)])}];
title(#{pid := Pid, class := Class, children := Children, below := Below} = Node, _O) ->
    Kind = [{red, text([<<"  ">>, atom_to_binary(K)])} || #{kind := K} <- [Node]],
    Hidden = [{dim, text([<<"  ">>, count(Children, <<"child">>)])} || Below =:= [], Children > 0],
    [{cyan, lineage_describe:pid(Pid)}, {tone(Class), <<" ", (what(Node))/binary>>}] ++ Kind ++ Hidden.

tone(supervisor) -> green;
tone(host) -> blue;
tone(_) -> plain.

%% Counts

summary(#{notes := Notes} = Summary, O) ->
    summary(maps:remove(notes, Summary), O) ++ lists:append([wrap([{dim, N}], 2, O) || N <- Notes, is_binary(N)]);
summary(Summary, _O) ->
    First = [live, orphans, orphans_checked, coverage, births, deaths, seen, swept, lost, silent_failures, unheard_unknown, blind_ms],
    Keys = [K || K <- First, is_map_key(K, Summary)] ++ lists:sort(maps:keys(Summary) -- First),
    Width = lists:max([string:length(atom_to_binary(K)) || K <- Keys]),
    [[{dim, pad(atom_to_binary(K), Width + 2)}, {value_shade(K, map_get(K, Summary)), value(K, map_get(K, Summary))}] || K <- Keys].

value_shade(K, N) when is_integer(N), N > 0, (K =:= orphans orelse K =:= silent_failures orelse K =:= lost) -> red;
value_shade(_, _) -> plain.

value(K, Ms) when is_integer(Ms), (K =:= since orelse K =:= taken_ms) ->
    list_to_binary(calendar:system_time_to_rfc3339(Ms div 1000, [{offset, "Z"}]));
value(K, N) when is_integer(N), (K =:= bytes orelse K =:= peak_bytes) -> bytes(N);
value(coverage, #{} = Coverage) ->
    text(lists:join(<<", ">>, [[integer_to_binary(amount(V)), $\s, atom_to_binary(K)]
                               || {K, V} <- lists:sort(maps:to_list(Coverage)), K =:= checked orelse amount(V) > 0]));
value(blind_ms, N) when is_integer(N) -> duration(N);
value(_, Value) -> text(term(Value)).

amount(List) when is_list(List) -> length(List);
amount(N) -> N.

bytes(N) when N < 1048576 -> text(io_lib:format("~.1f KiB", [N / 1024]));
bytes(N) -> text(io_lib:format("~.1f MiB", [N / 1048576])).

%% What is new

diff(#{counters := Counters, elapsed_ms := Elapsed} = Diff, O) ->
    Head = [[{bold, text([<<"since then">> | [[<<" (">>, duration(Elapsed), $)] || is_integer(Elapsed)]])}]],
    Other = [[{yellow, <<"another session: only populations can be compared">>}] || maps:get(same_session, Diff) =:= false],
    Changed = [[atom_to_binary(K), integer_to_binary(A), integer_to_binary(B), signed(B - A)] || {K, A, B} <- Counters],
    Table = table([<<"COUNT">>, <<"WAS">>, <<"IS">>, <<"CHANGE">>], Changed, [dim, plain, plain, bold], O),
    Grown = [[atom_to_binary(What), Title, integer_to_binary(A), integer_to_binary(B), signed(B - A)]
             || {What, Title, A, B} <- lists:sublist(maps:get(grown, Diff, []), 20)],
    Grew = [L || [_ | _] <- [Grown],
                 L <- table([<<"GREW">>, <<"WHAT">>, <<"WAS">>, <<"IS">>, <<"CHANGE">>], Grown, [dim, plain, plain, plain, bold], O)],
    New = case Diff of
              #{new_orphans := []} -> [[{green, <<"no new orphans">>}]];
              #{new_orphans := Orphans} -> [[{bold, <<"new orphans">>}] | orphans(Orphans, O)];
              _ -> []
          end,
    Head ++ Other ++ Table ++ Grew ++ New.

signed(N) when N > 0 -> <<"+", (integer_to_binary(N))/binary>>;
signed(N) -> integer_to_binary(N).

%% Words

duration(Ms) when Ms < 1000 -> <<(integer_to_binary(Ms))/binary, " ms">>;
duration(Ms) when Ms < 60000 -> text(io_lib:format("~.1f s", [Ms / 1000]));
duration(Ms) when Ms < 3600000 -> text(io_lib:format("~b min ~b s", [Ms div 60000, Ms rem 60000 div 1000]));
duration(Ms) when Ms < 86400000 -> text(io_lib:format("~b h ~b min", [Ms div 3600000, Ms rem 3600000 div 60000]));
duration(Ms) -> text(io_lib:format("~b d ~b h", [Ms div 86400000, Ms rem 86400000 div 3600000])).

atom(undefined) -> <<"-">>;
atom(Atom) -> atom_to_binary(Atom).

term(Term) -> text(io_lib:format("~0tP", [Term, 20])).

%% The flight recorder: nodes that are killed, disks that fail, and what is left of them. What a node did is counted outside
%% of it (lineage_counter), and what its journal says is asked of `priv/lineage-journal'.
-module(lineage_journal_SUITE).

-include_lib("kernel/include/file.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([options/1, records/1, kill/1, kill_quiet/1, rate/1, forest_at_death/1, recovery/1, recovery_of_oneself/1, killed_at_the_beginning/1, rings_of_another/1, killed_behind_the_end/1, read_while_running/1, torn_tail/1,
         segments_alone/1, bound/1, later_runs/1, many_segments/1, lock/1, bad_dir/1, no_shm/1, disk_full/1, disk_hangs/1, port_killed_meanwhile/1, killed_in_attach/1, dir_removed/1, dir_removed_for_good/1, paused_costs_nobody/1,
         kill_while_paused/1, session_crash/1, port_killed/1, port_closed/1, cycles/1, stops_with_the_node/1, scopes_and_places/1,
         fsync/1, foreign_parents/1]).
-export([run/3, tree/1, init/1, named_early/0]).

all() ->
    [options, records, kill, kill_quiet, rate, forest_at_death, recovery, recovery_of_oneself, killed_at_the_beginning, rings_of_another,
     killed_behind_the_end, read_while_running, torn_tail, segments_alone, bound, later_runs, many_segments, lock, bad_dir, no_shm, disk_full, disk_hangs, port_killed_meanwhile, killed_in_attach, dir_removed, dir_removed_for_good, paused_costs_nobody, kill_while_paused, session_crash, port_killed,
     port_closed, cycles, stops_with_the_node, scopes_and_places, fsync, foreign_parents].

-define(WORKERS, 2).
-define(MIB, 1048576).

%% LINEAGE_SOAK=1: at full size.
rounds() ->
    case os:getenv("LINEAGE_SOAK", "") of "" -> 20; _ -> 200 end.

init_per_suite(Config) ->
    Library = lineage_counter:build(proplists:get_value(priv_dir, Config)),
    Tool = filename:join(code:priv_dir(lineage), "lineage-journal"),
    true = filelib:is_regular(Tool),
    [{library, Library}, {tool, Tool} | Config].

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config) ->
    Dir = filename:join(["/tmp", "lineage-journal-" ++ os:getpid() ++ "-" ++ atom_to_list(Case)]),
    "" = os:cmd("rm -rf " ++ Dir ++ " && mkdir " ++ Dir),
    [{dir, filename:join(Dir, "journal")}, {base, Dir} | Config].

%% Nothing stays behind.
end_per_testcase(_Case, Config) ->
    Base = proplists:get_value(base, Config),
    lineage:detach(),
    Left = rings(Config),
    os:cmd("umount " ++ Base ++ "/disk 2>/dev/null; rm -rf " ++ Base),
    [file:delete(File) || File <- Left],
    Left =:= [] orelse proplists:get_value(tc_status, Config) =/= ok orelse {fail, {left, Left}}.

%% The files of rings of all runs below the test's directory. Another node's are none of ours.
rings(Config) ->
    Runs = filelib:fold_files(proplists:get_value(base, Config), "\\.journal$", true,
                              fun(Segment, Acc) -> [string:slice(filename:basename(Segment), 8, 16) | Acc] end, []),
    [File || Run <- lists:usort(Runs), File <- filelib:wildcard("/dev/shm/lineage-*-" ++ Run ++ ".rings")].

%% Nodes

%% In a process of its own that ends with the test, so that no node outlives it.
start(Config) ->
    start(Config, []).

start(Config, Args) ->
    Paths = ["-pa", filename:dirname(code:which(lineage)), filename:dirname(code:which(?MODULE))],
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000, args => Args ++ Paths}),
    Counts = proplists:get_value(base, Config) ++ "/counts-" ++ integer_to_list(erlang:unique_integer([positive])),
    ok = ask(Peer, lineage_counter, load, [proplists:get_value(library, Config)]),
    ok = ask(Peer, lineage_counter, open, [Counts, 4 * ?WORKERS]),
    put({counts, Peer}, Counts),
    Peer.

%% With SIGKILL, and waits until the process is gone.
kill_node(Peer) ->
    Pid = ask(Peer, os, getpid, []),
    Monitor = monitor(process, Peer),
    "" = os:cmd("kill -9 " ++ Pid),
    receive {'DOWN', Monitor, process, Peer, _} -> ok end,
    "" = os:cmd("while [ -e /proc/" ++ Pid ++ " ] && ! grep -q '^State:.Z' /proc/" ++ Pid ++ "/status 2>/dev/null; do :; done"),
    ok.

attach(Peer, Journal) ->
    {ok, Info} = ask(Peer, lineage, attach, [#{journal => Journal}]),
    begun(fun() -> ask(Peer, lineage, summary, []) end),
    Info.

%% The journal's first segment is there.
begun(Summary) ->
    case Summary() of
        #{journal := #{segments := Segments}} when Segments > 0 -> ok;
        _ -> begun(Summary)
    end.

%% Runs a fun of this module's in the peer.
call(Peer, Fun) ->
    ask(Peer, ?MODULE, run, [self(), Fun, []]).

%% A node that writes a journal may wait for the disk.
ask(Peer, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, 120000).

run(_From, Fun, Args) ->
    apply(Fun, Args).

%% A process that stays there, and what it says of itself.
storm(Peer, Rate) ->
    Storm = call(Peer, fun() ->
                               Self = self(),
                               Holder = spawn(fun() ->
                                                      Workers = lineage_counter:storm(?WORKERS, Rate),
                                                      [receive {ready, Worker} -> ok end || Worker <- Workers],
                                                      Self ! {self(), Workers},
                                                      receive {stop, From} -> lineage_counter:stop(Workers), From ! {self(), stopped} end,
                                                      receive after infinity -> ok end
                                              end),
                               receive {Holder, Workers} -> {Holder, [pid_to_list(Worker) || Worker <- Workers]} end
                       end),
    {_, _} = Storm.

stop_storm(Peer, {Holder, _}) ->
    call(Peer, fun() -> Holder ! {stop, self()}, receive {Holder, stopped} -> ok end end).

%% Until so many births are begun, as read from outside.
await_births(Peer, Births) ->
    Begun = lists:sum([B || {B, _, _, _} <- counts(Peer)]),
    Begun >= Births orelse await_births(Peer, Births).

counts(Peer) ->
    slots(lineage_counter:read(get({counts, Peer}))).

slots([Begun, Done, Dying, Heard | Rest]) -> [{Begun, Done, Dying, Heard} | slots(Rest)];
slots([]) -> [].

%% The tool

tool(Config, Arguments) ->
    Tool = proplists:get_value(tool, Config),
    Port = open_port({spawn_executable, Tool}, [{args, Arguments}, exit_status, binary, stderr_to_stdout]),
    collect(Port, []).

collect(Port, Acc) ->
    receive
        {Port, {data, Data}} -> collect(Port, [Data | Acc]);
        {Port, {exit_status, 0}} -> iolist_to_binary(lists:reverse(Acc));
        {Port, {exit_status, Status}} -> error({status, Status, iolist_to_binary(lists:reverse(Acc))})
    end.

lines(Config, Arguments) ->
    [json(Line) || Line <- binary:split(tool(Config, Arguments), <<"\n">>, [global, trim_all])].

%% Flat objects of strings and numbers, as the tool writes them.
json(Line) ->
    {match, Pairs} = re:run(Line, <<"\"([a-z_]+)\":(\"((?:[^\"\\\\]|\\\\.)*)\"|[^,}]+)">>, [global, {capture, [1, 2, 3], binary}]),
    maps:from_list([{binary_to_atom(Key), value(All, Text)} || [Key, All, Text] <- Pairs]).

value(<<"\"", _/binary>>, Text) -> Text;
value(<<"null">>, _) -> null;
value(<<"true">>, _) -> true;
value(<<"false">>, _) -> false;
value(Number, _) -> binary_to_integer(Number).

%% Of all runs, oldest first.
info(Config) ->
    lines(Config, ["info", "--json", proplists:get_value(dir, Config)]).

%% Births and exits of a worker's children, as a run's events tell them: #{worker => {births, exits}}, and events missing.
told(Config, Run, Workers) ->
    told(Config, proplists:get_value(dir, Config), Run, Workers).

told(Config, Dir, Run, Workers) ->
    Script = filename:join(proplists:get_value(base, Config), "count.awk"),
    ok = file:write_file(Script,
        "function field(name,   at) { at = index($0, \"\\\"\" name \"\\\":\\\"\"); if (!at) return \"\";\n"
        "  rest = substr($0, at + length(name) + 4); return substr(rest, 1, index(rest, \"\\\"\") - 1) }\n"
        "/\"event\":\"birth\"/ { p = field(\"parent\"); births[p]++; parent[field(\"pid\")] = p }\n"
        "/\"event\":\"(exit|swept)\"/ { dead[field(\"pid\")]++ }\n"
        "END { for (q in dead) exits[parent[q]] += dead[q]; for (p in births) print p, births[p] + 0, exits[p] + 0 }\n"),
    Command = lists:flatten([proplists:get_value(tool, Config), " dump --json --run ", Run, " ", Dir, " | env -u LD_PRELOAD awk -f ", Script]),
    Rows = [string:lexemes(Row, " ") || Row <- string:lexemes(os:cmd(Command), "\n")],
    Told = maps:from_list([{Pid, {list_to_integer(Births), list_to_integer(Exits)}} || [Pid, Births, Exits] <- Rows]),
    [maps:get(Worker, Told, {0, 0}) || Worker <- Workers].

%% What is told lies between what was done and what was begun, but for what is missing.
check(Config, Peer, #{run := Run, gaps := Missing} = Info, Workers) ->
    %% A batch that the kill has torn is none, and its events are in the rings.
    ?assertMatch(#{missing_blocks := 0, damaged_bytes := Damaged} when Damaged =< ?MIB, Info),
    Counts = counts(Peer),
    Told = told(Config, binary_to_list(Run), Workers),
    Wrong = [Both || {{Births, Exits}, {Begun, Done, Dying, Heard}} = Both <- lists:zip(Told, Counts),
                     not (Births =< Begun andalso Births + Missing >= Done andalso Exits =< Dying andalso Exits + Missing >= Heard)],
    ?assertEqual({[], Info}, {Wrong, Info}),
    Missing.

%% So many births and deaths, of a process of their own, all heard of: the text of its pid.
births(Count) ->
    births(Count, fun() -> ok end).

births(Count, Fun) ->
    {Parent, Monitor} = spawn_monitor(fun() ->
        Children = [spawn_monitor(Fun) || _ <- lists:seq(1, Count)],
        [receive {'DOWN', Child, process, _, _} -> ok end || {_, Child} <- Children]
    end),
    receive {'DOWN', Monitor, process, Parent, normal} -> pid_to_list(Parent) end.

%% Tests

options(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "never_made"),
    Bad = [#{}, 1, foo, [], <<>>, "", [0], <<0>>, #{dir => 1}, #{dir => Dir, max_bytes => 1}, #{dir => Dir, segment_bytes => 1},
           #{dir => Dir, fsync => sometimes}, #{dir => Dir, fsync => {every, 0}}, #{dir => Dir, what => 1},
           #{dir => Dir, max_bytes => 16 * ?MIB}, #{dir => Dir, segment_bytes => ?MIB, max_bytes => 2 * ?MIB}, #{dir => lists:duplicate(5000, $a)}, #{max_bytes => 1 bsl 30}, [1 bsl 40]],
    [?assertMatch({Journal, {error, {bad_option, _}}}, {Journal, lineage:attach(#{journal => Journal})}) || Journal <- Bad],
    {error, {bad_option, Sentence}} = lineage:attach(#{journal => Dir, exits => suspects}),
    ?assertMatch({_, _}, binary:match(Sentence, <<"exits">>)),
    ?assertNot(filelib:is_file(Dir)).

%% Everything that happened is in it, and the state of it in the summary.
records(Config) ->
    Dir = proplists:get_value(dir, Config),
    {ok, #{exits := all, notes := Notes, journal := #{dir := _}}} = lineage:attach(#{journal => Dir}),
    ?assertEqual([], [Note || Note <- Notes, binary:match(Note, <<"memory">>) =/= nomatch]),
    Parent = births(1000, fun() -> exit(lineage_reason) end),
    ?assertMatch(#{journal := #{paused := false, missing := 0, dir := _}}, lineage:summary()),
    begun(fun lineage:summary/0),
    [Rings] = rings(Config),
    ?assertEqual(8#600, mode(Rings)),
    lineage:detach(),
    ?assertEqual([], rings(Config)),
    ?assertEqual(8#700, mode(Dir)),
    [?assertEqual(8#600, mode(File)) || File <- filelib:wildcard(Dir ++ "/*")],
    [#{run := Run, fate := <<"detached">>, gaps := 0, missing_blocks := 0, damaged_bytes := 0}] = info(Config),
    [{1000, 1000}] = told(Config, binary_to_list(Run), [Parent]),
    Last = lines(Config, ["last", "-n", "2000", "--json", Dir]),
    ?assertEqual(1000, length([1 || #{reason := <<"lineage_reason">>} <- Last])).

mode(File) ->
    {ok, #file_info{mode = Mode}} = file:read_file_info(File),
    Mode band 8#777.

%% kill -9 at random moments of a storm, each in a journal of its own.
kill(Config) ->
    Missing = [kill_round(Config, N, infinity) || N <- lists:seq(1, rounds())],
    ct:pal("missing events of each round: ~w", [Missing]).

kill_round(Config, N, Rate) ->
    Dir = filename:join(proplists:get_value(base, Config), integer_to_list(N)),
    Here = lists:keystore(dir, 1, Config, {dir, Dir}),
    Peer = start(Here),
    attach(Peer, Dir),
    {_, Workers} = storm(Peer, Rate),
    await_births(Peer, 1000 + rand:uniform(60000)),
    kill_node(Peer),
    [#{fate := <<"died">>} = Info] = info(Here),
    Missing = check(Here, Peer, Info, Workers),
    %% The next attach takes the rings in: the same is told.
    Rings = rings(Config),
    ?assertMatch([_], Rings),
    {ok, #{notes := Notes}} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    ?assertEqual(1, ended(Notes)),
    ?assertEqual([], rings(Config)),
    [#{fate := <<"died">>, run := Run} = Closed, #{fate := <<"detached">>}] = info(Here),
    ?assertEqual(maps:get(run, Info), Run),
    ?assertEqual(maps:get(events, Info) + maps:get(in_rings, Info), maps:get(events, Closed)),
    ?assertEqual(0, maps:get(in_rings, Closed)),
    ?assertEqual(Missing, check(Here, Peer, Closed, Workers)),
    "" = os:cmd("rm -rf " ++ Dir),
    Missing.

%% The storm was over: then it is exact.
kill_quiet(Config) ->
    [begin
         Dir = filename:join(proplists:get_value(base, Config), "quiet" ++ integer_to_list(N)),
         Here = lists:keystore(dir, 1, Config, {dir, Dir}),
         Peer = start(Here),
         attach(Peer, Dir),
         {_, Workers} = Storm = storm(Peer, 20000),
         await_births(Peer, 500 + rand:uniform(10000)),
         stop_storm(Peer, Storm),
         kill_node(Peer),
         [#{fate := <<"died">>, gaps := 0} = Info] = info(Here),
         0 = check(Here, Peer, Info, Workers),
         Counts = counts(Peer),
         [?assertEqual({B, B, B, B}, Count) || {B, _, _, _} = Count <- Counts],
         ?assertEqual([{B, B} || {B, _, _, _} <- Counts], told(Here, binary_to_list(maps:get(run, Info)), Workers)),
         forget_rings(Here)
     end || N <- lists:seq(1, max(3, rounds() div 10))],
    ok.

%% Without another attach.
forget_rings(Config) ->
    [file:delete(File) || File <- rings(Config)].

%% 50,000 births a second, and none is missing.
rate(Config) ->
    Peer = start(Config),
    attach(Peer, proplists:get_value(dir, Config)),
    {_, Workers} = Storm = storm(Peer, 25000),
    await_births(Peer, 150000),
    stop_storm(Peer, Storm),
    ?assertMatch(#{missing := 0, paused := false}, maps:get(journal, ask(Peer, lineage, summary, []))),
    kill_node(Peer),
    [#{gaps := 0} = Info] = info(Config),
    0 = check(Config, Peer, Info, Workers),
    forget_rings(Config).

%% A tree that is quiet beside the storm: as a second node saw it last, so it is at death.
forest_at_death(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, Dir),
    Seen = call(Peer, fun() -> tree(self()) end),
    _ = storm(Peer, infinity),
    await_births(Peer, 20000),
    Census = call(Peer, fun() -> lineage_nif:records() end),
    Orphans = call(Peer, fun() -> [pid_to_list(Pid) || #{pid := Pid} <- lineage:orphans()] end),
    Layout = call(Peer, fun() -> [{pid_to_list(Pid), Guardian =/= undefined andalso pid_to_list(Guardian)}
                                  || {Pid, _, _, Guardian, _, _, _} <- lineage_nif:records()] end),
    kill_node(Peer),
    true = length(Census) > length(Seen),
    Forest = maps:from_list([{binary_to_list(Pid), Row} || #{pid := Pid} = Row <- lines(Config, ["forest", "--json", Dir])]),
    [begin
         Row = maps:get(Pid, Forest),
         {_, Guardian} = lists:keyfind(Pid, 1, Layout),
         ?assertEqual({Pid, Guardian}, {Pid, case maps:get(guardian, Row) of null -> false; G -> binary_to_list(G) end}),
         ?assertEqual({Pid, lists:member(Pid, Orphans)}, {Pid, is_map_key(orphan, Row)})
     end || Pid <- Seen],
    %% No other is there, but what the storm, or a helper, had in hand.
    ?assert(length(maps:keys(Forest) -- [Pid || {Pid, _} <- Layout]) =< 10),
    forget_rings(Config).

%% A supervisor with children, and orphans; returns the text of their pids.
tree(_Owner) ->
    Self = self(),
    Holder = spawn(fun() ->
                           {ok, Sup} = supervisor:start_link(?MODULE, []),
                           Children = [Pid || {_, Pid, _, _} <- supervisor:which_children(Sup)],
                           Orphans = [spawn(fun() -> receive after infinity -> ok end end) || _ <- lists:seq(1, 20)],
                           Self ! {self(), [self(), Sup | Children ++ Orphans]},
                           receive after infinity -> ok end
                   end),
    receive {Holder, Pids} -> [pid_to_list(Pid) || Pid <- Pids] end.

init([]) ->
    Child = fun(Id) -> #{id => Id, start => {proc_lib, start_link, [?MODULE, run, [self(), fun child/0, []]]}} end,
    {ok, {#{}, [Child(Id) || Id <- lists:seq(1, 50)]}}.

child() ->
    proc_lib:init_ack({ok, self()}),
    receive after infinity -> ok end.

%% How many runs attach has ended.
ended(Notes) ->
    length([1 || Note <- Notes, binary:match(Note, <<"ended at">>) =/= nomatch]).

%% Killed runs one after another, each ended by the next; their events stay.
recovery(Config) ->
    Dir = proplists:get_value(dir, Config),
    Runs = [begin
                Peer = start(Config),
                #{notes := Notes} = attach(Peer, Dir),
                ?assertEqual(min(N, 1), ended(Notes)),
                {_, Workers} = storm(Peer, 20000),
                await_births(Peer, 5000),
                kill_node(Peer),
                {Peer, Workers}
            end || N <- [0, 1, 2]],
    Infos = info(Config),
    ?assertEqual([<<"died">>, <<"died">>, <<"died">>], [Fate || #{fate := Fate} <- Infos]),
    [check(Config, Peer, Info, Workers) || {{Peer, Workers}, Info} <- lists:zip(Runs, Infos)],
    %% Once it is told, it is not told again.
    {ok, _} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    {ok, #{notes := Last}} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    ?assertEqual(0, ended(Last)).

%% The port was killed, the node lives on: its next attach takes its own rings in.
recovery_of_oneself(Config) ->
    Dir = proplists:get_value(dir, Config),
    {ok, _} = lineage:attach(#{journal => Dir}),
    {Pump, _} = lineage_session:journal(),
    Parent = births(100),
    exit(Pump, kill),
    lineage:detach(),
    {ok, #{notes := Notes}} = attach_unlocked(#{journal => Dir}),
    lineage:detach(),
    ?assertEqual(1, ended(Notes)),
    [#{run := Run, gaps := 0}, #{fate := <<"detached">>}] = info(Config),
    [{100, 100}] = told(Config, binary_to_list(Run), [Parent]).

%% A run with some events that is killed. Its files, in order, and the file of its rings.
killed(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, Dir),
    _ = storm(Peer, 20000),
    await_births(Peer, 2000),
    kill_node(Peer),
    [Rings] = rings(Config),
    {lists:sort(filelib:wildcard(Dir ++ "/*.journal")), Rings}.

%% Of its newest segment nothing is in the file yet.
killed_at_the_beginning(Config) ->
    {[Segment], Rings} = killed(Config),
    [#{events := Events, in_rings := InRings}] = info(Config),
    ok = file:write_file(string:replace(Segment, "-000000.", "-000001."), <<>>),
    {ok, #{notes := Notes}} = lineage:attach(#{journal => proplists:get_value(dir, Config)}),
    lineage:detach(),
    ?assertEqual(1, ended(Notes)),
    ?assertMatch([#{fate := <<"died">>, events := All, in_rings := 0} | _] when All =:= Events + InRings, info(Config)),
    ?assertNot(filelib:is_file(Rings)).

%% A file that is not its rings stays, whatever a segment says.
rings_of_another(Config) ->
    {_, Rings} = killed(Config),
    ok = file:write_file(Rings, <<"precious">>),
    {ok, _} = lineage:attach(#{journal => proplists:get_value(dir, Config)}),
    lineage:detach(),
    ?assertEqual({ok, <<"precious">>}, file:read_file(Rings)),
    forget_rings(Config).

%% Its end was written, and its rings were not removed any more.
killed_behind_the_end(Config) ->
    Dir = proplists:get_value(dir, Config),
    {_, Rings} = killed(Config),
    {ok, Whole} = file:read_file(Rings),
    {ok, _} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    ok = file:write_file(Rings, Whole),
    {ok, #{notes := Notes}} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    ?assertEqual(0, ended(Notes)),
    ?assertNot(filelib:is_file(Rings)).

%% What the recorder writes while it is read is told once: reading so much takes longer than it lets things lie in the rings.
read_while_running(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, Dir),
    Storm = storm(Peer, infinity),
    await_births(Peer, 100000),
    Twice = " --json " ++ Dir ++ " | grep '\"exit\"\\|\"reason\"' | grep -o '\"pid\":\"[^\"]*\"' | sort | uniq -d | wc -l",
    [?assertEqual({What, "0\n"}, {What, os:cmd(proplists:get_value(tool, Config) ++ " " ++ What ++ Twice)})
     || What <- ["dump", "last -n 100000", "dump"]],
    stop_storm(Peer, Storm),
    ok = ask(Peer, lineage, detach, []),
    peer:stop(Peer).

%% What was not written in full is left out, and what is behind is found.
torn_tail(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, Dir),
    {_, Workers} = storm(Peer, infinity),
    await_births(Peer, 20000),
    kill_node(Peer),
    [#{events := Events, run := Run}] = info(Config),
    forget_rings(Config),
    Last = lists:last(lists:sort(filelib:wildcard(Dir ++ "/*.journal"))),
    {ok, Whole} = file:read_file(Last),
    [begin
         ok = file:write_file(Last, binary:part(Whole, 0, byte_size(Whole) - Cut)),
         [#{events := Fewer, damaged_bytes := Damaged}] = info(Config),
         ?assert(Fewer =< Events andalso (Fewer < Events orelse Damaged =:= 0)),
         _ = told(Config, binary_to_list(Run), Workers)
     end || Cut <- [1, 8, 100, 1000, 50000]],
    %% And the next attach ends it behind the torn tail.
    {ok, #{notes := Notes}} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    ?assertEqual(1, ended(Notes)),
    ?assertMatch([#{fate := <<"died">>}, #{fate := <<"detached">>}], info(Config)).

%% The oldest segments are gone: the others tell the same forest.
segments_alone(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, #{dir => Dir, segment_bytes => ?MIB}),
    %% A function that nobody runs later: its name stays known, for who runs it at the last moment.
    call(Peer, fun() -> {Pid, Ref} = spawn_monitor(?MODULE, named_early, []), receive {'DOWN', Ref, process, Pid, _} -> ok end end),
    Seen = call(Peer, fun() -> tree(self()) end),
    Storm = storm(Peer, infinity),
    await_births(Peer, 60000),
    stop_storm(Peer, Storm),
    await_written(Peer), % a segment that was just begun has no census
    kill_node(Peer),
    Segments = lists:sort(filelib:wildcard(Dir ++ "/*.journal")),
    ?assert(length(Segments) > 3),
    [{Segment, {_, _}} = {Segment, binary:match(element(2, file:read_file(Segment)), <<"named_early">>)} || Segment <- Segments],
    Whole = forest(Config),
    [] = Seen -- [Pid || {Pid, _} <- Whole],
    [begin
         ok = file:delete(Segment),
         ?assertEqual(Whole, forest(Config))
     end || Segment <- lists:droplast(Segments)],
    forget_rings(Config).

named_early() -> ok.

forest(Config) ->
    %% Who is registered is told anew in each segment, but not at once.
    lists:sort([{binary_to_list(Pid), maps:without([pid, name], Row)} || #{pid := Pid} = Row <- lines(Config, ["forest", "--json", proplists:get_value(dir, Config)])]).

%% Never more than it may take, and a batch; earlier runs go first.
bound(Config) ->
    Dir = proplists:get_value(dir, Config),
    Journal = #{dir => Dir, segment_bytes => ?MIB, max_bytes => 4 * ?MIB},
    {ok, _} = lineage:attach(#{journal => Journal}),
    lineage:detach(),
    [#{run := First}] = info(Config),
    Peer = start(Config),
    attach(Peer, Journal),
    Storm = storm(Peer, infinity),
    Most = most(Peer, Dir, 100000, 0),
    stop_storm(Peer, Storm),
    #{bytes := Bytes, segments := Segments} = maps:get(journal, ask(Peer, lineage, summary, [])),
    ok = ask(Peer, lineage, detach, []),
    peer:stop(Peer),
    ?assert(Most =< 5 * ?MIB),
    ?assert(Bytes =< 5 * ?MIB andalso Segments =< 5),
    [#{run := Second, first_segment := Number}] = info(Config),
    ?assert(Number > 0 andalso First =/= Second).

%% A clock that was set back: those of other runs go first, however late they say that they are.
later_runs(Config) ->
    Dir = proplists:get_value(dir, Config),
    ok = file:make_dir(Dir),
    Later = [filename:join(Dir, "lineage-fffffffffffffff0-00000" ++ [N] ++ ".journal") || N <- "012"],
    [ok = file:write_file(File, binary:copy(<<0>>, ?MIB)) || File <- Later],
    Peer = start(Config),
    attach(Peer, #{dir => Dir, segment_bytes => ?MIB, max_bytes => 4 * ?MIB}),
    Storm = storm(Peer, infinity),
    await_births(Peer, 30000),
    stop_storm(Peer, Storm),
    ok = ask(Peer, lineage, detach, []),
    peer:stop(Peer),
    ?assertMatch([_, _ | _], filelib:wildcard(Dir ++ "/*.journal") -- Later),
    ?assertNot(filelib:is_file(hd(Later))).

%% Six digits are not all.
many_segments(Config) ->
    {[Segment], _} = killed(Config),
    [#{events := Events}] = info(Config),
    ok = file:rename(Segment, string:replace(Segment, "-000000.", "-1000000.")),
    ?assertMatch([#{events := Events, first_segment := 1000000}], info(Config)),
    forget_rings(Config).

most(Peer, Dir, Births, Most) ->
    Size = lists:sum([filelib:file_size(File) || File <- filelib:wildcard(Dir ++ "/*.journal")]),
    case lists:sum([B || {B, _, _, _} <- counts(Peer)]) of
        Begun when Begun < Births -> most(Peer, Dir, Births, max(Size, Most));
        _ -> max(Size, Most)
    end.

lock(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, Dir),
    {error, {journal_locked, Sentence}} = lineage:attach(#{journal => Dir}),
    ?assertMatch({_, _}, binary:match(Sentence, list_to_binary(ask(Peer, os, getpid, [])))),
    {ok, _} = lineage:attach(#{}),
    lineage:detach(),
    kill_node(Peer),
    {ok, _} = lineage:attach(#{journal => Dir}),
    lineage:detach().

bad_dir(Config) ->
    Base = proplists:get_value(base, Config),
    ok = file:write_file(Base ++ "/file", <<>>),
    Bad = [Base ++ "/no/such", Base ++ "/file", Base ++ "/file/in", "/proc/lineage"],
    [?assertMatch({Dir, {error, {journal_failed, _}}}, {Dir, lineage:attach(#{journal => Dir})}) || Dir <- Bad],
    ?assertEqual([], rings(Config)),
    ?assertMatch({error, {not_attached, _}}, try lineage:summary() catch error:{lineage, Tag} -> {error, {Tag, none}} end).

%% The rings lie in memory, and attach says what that means.
no_shm(Config) ->
    Dir = proplists:get_value(dir, Config),
    ok = application:set_env(lineage, rings_dir, "/no/such/dir"),
    try
        {ok, #{notes := Notes}} = lineage:attach(#{journal => Dir}),
        ?assertMatch([_], [Note || Note <- Notes, binary:match(Note, <<"would not survive">>) =/= nomatch]),
        Parent = births(100),
        lineage:detach(),
        [#{run := Run, fate := <<"detached">>}] = info(Config),
        [{100, 100}] = told(Config, binary_to_list(Run), [Parent])
    after
        application:unset_env(lineage, rings_dir)
    end.

%% A small disk of our own; where none can be mounted there is nothing to try.
with_disk(Config, Bytes, Fun) ->
    Disk = filename:join(proplists:get_value(base, Config), "disk"),
    ok = file:make_dir(Disk),
    case os:cmd("mount -t tmpfs -o size=" ++ integer_to_list(Bytes) ++ " tmpfs " ++ Disk ++ " 2>&1") of
        "" -> Fun(Disk);
        Why -> lineage_counter:cannot("No disk can be mounted: " ++ Why)
    end.

%% It is full, then there is room again: what is missing is counted, exactly, and each change is told once.
disk_full(Config) ->
    with_disk(Config, 3 * ?MIB, fun(Disk) ->
        Dir = Disk ++ "/journal",
        Here = lists:keystore(dir, 1, Config, {dir, Dir}),
        Peer = start(Here),
        attach(Peer, #{dir => Dir, segment_bytes => ?MIB}),
        {_, Workers} = Storm = storm(Peer, infinity),
        await_notes(Peer, <<"is paused">>),
        ?assertMatch(#{paused := enospc}, maps:get(journal, ask(Peer, lineage, summary, []))),
        Begun = lists:sum([B || {B, _, _, _} <- counts(Peer)]),
        await_births(Peer, Begun + 100000),
        "" = os:cmd("mount -o remount,size=200m " ++ Disk),
        await_notes(Peer, <<"in a new segment">>),
        stop_storm(Peer, Storm),
        #{paused := false, missing := Missing} = maps:get(journal, ask(Peer, lineage, summary, [])),
        ok = ask(Peer, lineage, detach, []),
        peer:stop(Peer),
        [#{fate := <<"detached">>, gaps := Gaps, run := Run, missing_blocks := 0}] = info(Here),
        ?assertEqual(Missing, Gaps),
        ?assert(Gaps > 0),
        %% Births are four events or fewer each, and none is told twice.
        Told = told(Here, binary_to_list(Run), Workers),
        [?assert(Births =< B andalso Births + Gaps >= B) || {{Births, _}, {B, _, _, _}} <- lists:zip(Told, counts(Peer))]
    end).

%% It does not answer: the node goes on, and so does who detaches. When it answers again, what was in hand is written.
disk_hangs(Config) ->
    with_frozen(Config, fun(Disk) -> disk_hangs(Config, Disk) end).

%% A disk that can be frozen, and is not when the test is over.
with_frozen(Config, Fun) ->
    Base = proplists:get_value(base, Config),
    Disk = Base ++ "/disk",
    Image = Base ++ "/image",
    Mount = "mkdir " ++ Disk ++ " && truncate -s 64M " ++ Image ++ " && mkfs.ext4 -q " ++ Image ++ " && mount -o loop " ++ Image ++ " " ++ Disk ++
        " && fsfreeze -f " ++ Disk ++ " && fsfreeze -u " ++ Disk ++ " && echo can",
    case os:cmd("{ " ++ Mount ++ "; } 2>&1") of
        "can\n" -> try Fun(Disk) after os:cmd("fsfreeze -u " ++ Disk) end;
        Why -> lineage_counter:cannot("No disk can be frozen: " ++ Why)
    end.

%% The pump is killed with a job in hand, and the driver is unloaded: the job ends by itself.
port_killed_meanwhile(Config) ->
    with_frozen(Config, fun(Disk) ->
        Peer = start(Config),
        attach(Peer, Disk ++ "/journal"),
        await_written(Peer),
        "" = os:cmd("fsfreeze -f " ++ Disk),
        _ = call(Peer, fun() -> births(1000) end),
        call(Peer, fun() ->
            {Pump, _} = lineage_session:journal(),
            await_hanging(),
            Monitor = monitor(port, Pump),
            exit(Pump, kill),
            receive {'DOWN', Monitor, port, Pump, _} -> ok end,
            lineage:detach(),
            Session = whereis(lineage_session),
            Gone = monitor(process, Session),
            exit(Session, kill),
            receive {'DOWN', Gone, process, Session, _} -> ok end
        end),
        %% The directory is locked until the job is over; another one is not.
        {ok, _} = call(Peer, fun() -> attach_again(#{journal => proplists:get_value(dir, Config)}) end),
        {_, _} = Storm = storm(Peer, 20000),
        await_births(Peer, 1000),
        "" = os:cmd("fsfreeze -u " ++ Disk),
        await_births(Peer, 5000),
        stop_storm(Peer, Storm),
        ok = ask(Peer, lineage, detach, []),
        call(Peer, fun() -> ok = application:stop(lineage), true = code:delete(lineage_nif), code:purge(lineage_nif) end),
        ok = call(Peer, fun() -> {ok, _} = lineage:attach(#{journal => proplists:get_value(dir, Config)}), lineage:detach() end),
        peer:stop(Peer),
        [#{fate := <<"detached">>, gaps := 0}, #{fate := <<"detached">>}] = info(Config),
        forget_rings(Config)
    end).

%% The session dies while attach waits for the disk: the next one clears away what was open by then.
killed_in_attach(Config) ->
    with_frozen(Config, fun(Disk) ->
        Peer = start(Config),
        {ok, _} = ask(Peer, application, ensure_all_started, [lineage]),
        "" = os:cmd("fsfreeze -f " ++ Disk),
        call(Peer, fun() ->
            spawn(fun() -> lineage:attach(#{journal => Disk ++ "/journal"}) end),
            await_hanging(),
            exit(whereis(lineage_session), kill)
        end),
        "" = os:cmd("fsfreeze -u " ++ Disk),
        {ok, _} = call(Peer, fun() -> attach_again(#{journal => proplists:get_value(dir, Config)}) end),
        ok = ask(Peer, lineage, detach, []),
        %% Nor does the lock stay that was got for nobody.
        {ok, _} = call(Peer, fun() -> attach_unlocked(#{journal => Disk ++ "/journal"}) end),
        ok = ask(Peer, lineage, detach, []),
        peer:stop(Peer)
    end).

%% Until a thread of the node waits for the disk: the job that hangs.
await_hanging() ->
    Waits = [Stat || Stat <- filelib:wildcard("/proc/self/task/*/stat"), {ok, Text} <- [file:read_file(Stat)],
                     [_, <<" D", _/binary>>] <- [binary:split(Text, <<")">>)]],
    Waits =/= [] orelse await_hanging().

disk_hangs(Config, Disk) ->
    Dir = Disk ++ "/journal",
    Here = lists:keystore(dir, 1, Config, {dir, Dir}),
    Peer = start(Here),
    attach(Peer, Dir),
    {_, Workers} = Storm = storm(Peer, infinity),
    await_births(Peer, 2000),
    "" = os:cmd("fsfreeze -f " ++ Disk),
    await_births(Peer, lists:sum([B || {B, _, _, _} <- counts(Peer)]) + 300000),
    "" = os:cmd("fsfreeze -u " ++ Disk),
    stop_storm(Peer, Storm),
    await_written(Peer),
    "" = os:cmd("fsfreeze -f " ++ Disk),
    %% Something to write, so that there is a job that hangs.
    _ = call(Peer, fun() -> births(1000) end),
    ok = ask(Peer, lineage, detach, []),
    %% The port is gone, and left the writer alone with the disk: another directory is as good as ever.
    Other = proplists:get_value(base, Config) ++ "/other",
    {ok, _} = ask(Peer, lineage, attach, [#{journal => Other}]),
    ok = ask(Peer, lineage, detach, []),
    "" = os:cmd("fsfreeze -u " ++ Disk),
    {ok, _} = call(Peer, fun() -> attach_unlocked(#{journal => Dir}) end),
    ok = ask(Peer, lineage, detach, []),
    [#{run := Run, gaps := Gaps, missing_blocks := 0, damaged_bytes := 0} | _] = info(Here),
    [?assert(Births =< B andalso Births + Gaps >= B)
     || {{Births, _}, {B, _, _, _}} <- lists:zip(told(Here, binary_to_list(Run), Workers), counts(Peer))],
    peer:stop(Peer).

%% Until all that happened before is in the files.
await_written(Peer) ->
    #{events := Events} = maps:get(journal, ask(Peer, lineage, summary, [])),
    _ = call(Peer, fun() -> births(10) end),
    await_more(Peer, Events).

await_more(Peer, Events) ->
    case maps:get(journal, ask(Peer, lineage, summary, [])) of
        #{events := More} when More > Events -> ok;
        _ -> await_more(Peer, Events)
    end.

%% Until the writer that was left alone has let go of the directory.
attach_unlocked(Options) ->
    case lineage:attach(Options) of
        {error, {journal_locked, _}} -> attach_unlocked(Options);
        Answer -> Answer
    end.

await_notes(Peer, Text) ->
    Notes = maps:get(notes, ask(Peer, lineage, summary, [])),
    case [Note || Note <- Notes, binary:match(Note, Text) =/= nomatch] of
        [_ | _] -> ok;
        [] -> await_notes(Peer, Text)
    end.

%% The directory is removed under it, and comes again.
dir_removed(Config) ->
    Dir = proplists:get_value(dir, Config),
    Peer = start(Config),
    attach(Peer, Dir),
    {_, Workers} = Storm = storm(Peer, 10000),
    await_births(Peer, 2000),
    "" = os:cmd("rm -rf " ++ Dir),
    await_notes(Peer, <<"is paused">>),
    ?assertMatch(#{paused := enoent}, maps:get(journal, ask(Peer, lineage, summary, []))),
    ok = file:make_dir(Dir),
    await_notes(Peer, <<"in a new segment">>),
    Begun = counts(Peer),
    await_births(Peer, lists:sum([B || {B, _, _, _} <- Begun]) + 5000),
    stop_storm(Peer, Storm),
    kill_node(Peer),
    [#{gaps := Gaps, run := Run, damaged_bytes := 0}] = info(Config),
    %% All that was born since it is written again, up to what was in hand when that was told.
    [?assert(Births + Gaps >= Last - First andalso Births =< Last)
     || {{Births, _}, {First, _, _, _}, {Last, _, _, _}} <- lists:zip3(told(Config, binary_to_list(Run), Workers), Begun, counts(Peer))],
    forget_rings(Config).

%% And does not come again: nobody would find its rings.
dir_removed_for_good(Config) ->
    Dir = proplists:get_value(dir, Config),
    {ok, _} = lineage:attach(#{journal => Dir}),
    begun(fun lineage:summary/0),
    Rings = rings(Config),
    ?assertMatch([_], Rings),
    "" = os:cmd("rm -rf " ++ Dir),
    _ = births(100),
    lineage:detach(),
    ?assertEqual([], [File || File <- Rings, filelib:is_file(File)]).

%% A subscriber gets everything while nothing can be written.
paused_costs_nobody(Config) ->
    with_disk(Config, 2 * ?MIB, fun(Disk) ->
        Peer = start(Config),
        attach(Peer, #{dir => Disk ++ "/journal", segment_bytes => ?MIB}),
        Storm = storm(Peer, 20000),
        await_notes(Peer, <<"is paused">>),
        Counted = call(Peer, fun() ->
            Port = open_port({spawn_driver, "lineage subscriber"}, [binary]),
            <<0>> = port_control(Port, 1, <<65536:32/native, 1024:32/native, 0:32/native, 0:32, 0:32, 0:32>>),
            <<0>> = port_control(Port, 2, <<1000000:32/native>>),
            [Gaps || Gaps <- [gaps(Port, 300000, 0)], port_close(Port)]
        end),
        ?assertEqual([0], Counted),
        stop_storm(Peer, Storm),
        peer:stop(Peer),
        forget_rings(Config)
    end).

gaps(_Port, Events, Gaps) when Events =< 0 -> Gaps;
gaps(Port, Events, Gaps) ->
    receive
        {lineage_events, Port, Batch} ->
            gaps(Port, Events - byte_size(Batch) div 32, Gaps + length([1 || <<_:30/binary, 10, _>> <= Batch]))
    end.

%% What the rings hold is the newest, and what was dropped before is counted.
kill_while_paused(Config) ->
    with_disk(Config, 2 * ?MIB, fun(Disk) ->
        Dir = Disk ++ "/journal",
        Here = lists:keystore(dir, 1, Config, {dir, Dir}),
        Peer = start(Here),
        attach(Peer, #{dir => Dir, segment_bytes => ?MIB}),
        {_, Workers} = Storm = storm(Peer, infinity),
        await_notes(Peer, <<"is paused">>),
        await_births(Peer, lists:sum([B || {B, _, _, _} <- counts(Peer)]) + 100000),
        stop_storm(Peer, Storm),
        kill_node(Peer),
        [#{in_rings := InRings} = Info] = info(Here),
        ?assert(InRings > 1000),
        ?assert(check(Here, Peer, Info, Workers) > 0),
        forget_rings(Config)
    end).

%% The session's crash ends the run, as one that nobody detached; another can begin at once.
session_crash(Config) ->
    Dir = proplists:get_value(dir, Config),
    {ok, _} = lineage:attach(#{journal => Dir}),
    Session = whereis(lineage_session),
    Monitor = monitor(process, Session),
    exit(Session, kill),
    receive {'DOWN', Monitor, process, Session, _} -> ok end,
    {ok, #{notes := Notes}} = attach_again(#{journal => Dir}),
    lineage:detach(),
    ?assertEqual(0, ended(Notes)),
    ?assertMatch([#{fate := <<"closed">>}, #{fate := <<"detached">>}], info(Config)).

%% Until the supervisor has started another session.
attach_again(Options) ->
    case lineage:attach(Options) of
        {error, {session_failed, _}} -> attach_again(Options);
        Answer -> Answer
    end.

port_killed(Config) ->
    port_goes(Config, fun(Pump) -> exit(Pump, kill) end).

port_closed(Config) ->
    port_goes(Config, fun(Pump) -> exit(Pump, whatever) end).

port_goes(Config, Go) ->
    Dir = proplists:get_value(dir, Config),
    {ok, _} = lineage:attach(#{journal => Dir}),
    {Pump, _} = lineage_session:journal(),
    Monitor = monitor(port, Pump),
    Go(Pump),
    receive {'DOWN', Monitor, port, Pump, _} -> ok end,
    %% The session has heard it when it answers.
    _ = lineage_session:check(),
    ?assertMatch(#{journal := #{paused := closed}}, lineage:summary()),
    ?assertMatch([_], [1 || Note <- maps:get(notes, lineage:summary()), binary:match(Note, <<"nothing is recorded any more">>) =/= nomatch]),
    lineage:detach(),
    {ok, _} = attach_unlocked(#{journal => Dir}),
    lineage:detach().

%% Nothing stays: no port, no descriptor, no file of rings, no memory of the driver.
cycles(Config) ->
    Dir = proplists:get_value(dir, Config),
    Storm = spawn_link(fun Again() -> {_, M} = spawn_monitor(fun() -> ok end), receive {'DOWN', M, _, _, _} -> Again() end end),
    Cycle = fun() -> {ok, _} = lineage:attach(#{journal => #{dir => Dir, max_bytes => 4 * ?MIB, segment_bytes => ?MIB}}), ok = lineage:detach() end,
    [Cycle() || _ <- lists:seq(1, 5)],
    Before = {descriptors(), length(erlang:ports())},
    [Cycle() || _ <- lists:seq(1, case rounds() of 20 -> 50; _ -> 1000 end)],
    %% The port says that it is gone a moment before the VM has struck it off its list.
    await_left(Before),
    ?assertEqual([], rings(Config)),
    unlink(Storm),
    exit(Storm, kill).

await_left({Descriptors, Ports} = Before) ->
    (descriptors() =< Descriptors andalso length(erlang:ports()) =< Ports) orelse await_left(Before).

descriptors() ->
    {ok, Names} = file:list_dir("/proc/self/fd"),
    length(Names).

%% init:stop and halt, in a storm: the first ends the run, the second leaves it to the next attach.
stops_with_the_node(Config) ->
    Dir = proplists:get_value(dir, Config),
    [begin
         Peer = start(Config),
         attach(Peer, Dir),
         _ = storm(Peer, infinity),
         await_births(Peer, 5000),
         Monitor = monitor(process, Peer),
         peer:cast(Peer, erlang, apply, [Stop, []]),
         receive {'DOWN', Monitor, process, Peer, _} -> ok end
     end || Stop <- [fun() -> init:stop() end, fun() -> halt() end, fun() -> halt(0, [{flush, false}]) end]],
    {ok, _} = lineage:attach(#{journal => Dir}),
    lineage:detach(),
    [#{fate := First} | _] = Infos = info(Config),
    ?assertEqual(<<"closed">>, First),
    ?assertEqual(4, length(Infos)),
    [?assertMatch(#{missing_blocks := 0, damaged_bytes := 0}, Info) || Info <- Infos].

%% Their texts come from Erlang.
scopes_and_places(Config) ->
    Dir = proplists:get_value(dir, Config),
    {ok, _} = lineage:attach(#{journal => Dir, sites => exact}),
    begun(fun lineage:summary/0),
    Scope = lineage_scope:open("the scope of the test"),
    Pid = spawn(fun() -> receive after infinity -> ok end end),
    await_place(Config, pid_to_list(Pid)),
    lineage_scope:close(Scope),
    exit(Pid, kill),
    lineage:detach().

await_place(Config, Pid) ->
    Rows = [Row || Row <- lines(Config, ["forest", "--json", "--all", proplists:get_value(dir, Config)]), maps:get(pid, Row) =:= list_to_binary(Pid)],
    case Rows of
        [#{site := Site, scope := Scope}] ->
            case binary:match(Site, <<"lineage_journal_SUITE.erl:">>) of
                {_, _} -> ?assertMatch({_, _}, binary:match(Scope, <<"the scope of the test">>));
                nomatch -> await_place(Config, Pid)
            end;
        _ ->
            await_place(Config, Pid)
    end.

fsync(Config) ->
    Dir = proplists:get_value(dir, Config),
    [begin
         {ok, _} = lineage:attach(#{journal => #{dir => Dir, fsync => Fsync}}),
         _ = births(100),
         lineage:detach()
     end || Fsync <- [never, segment, {every, 1}]],
    ?assertMatch([#{fate := <<"detached">>}, #{fate := <<"detached">>}, #{fate := <<"detached">>}], info(Config)).

%% Of a process that another node has spawned the node is named.
foreign_parents(Config) ->
    Dir = proplists:get_value(dir, Config),
    Name = peer:random_name(),
    {ok, Peer, Node} = peer:start(#{name => Name, host => "127.0.0.1", longnames => true, connection => standard_io, wait_boot => 120000,
                                    args => ["-setcookie", "lineage", "-pa", filename:dirname(code:which(lineage)), filename:dirname(code:which(?MODULE))]}),
    {ok, Other, _} = peer:start(#{name => peer:random_name(), host => "127.0.0.1", longnames => true, connection => standard_io, wait_boot => 120000,
                                  args => ["-setcookie", "lineage", "-pa", filename:dirname(code:which(?MODULE))]}),
    attach(Peer, Dir),
    Pid = ask(Other, erlang, spawn, [Node, timer, sleep, [infinity]]),
    Text = ask(Peer, erlang, pid_to_list, [Pid]),
    _ = ask(Peer, lineage, detach, []),
    From = atom_to_binary(ask(Other, erlang, node, [])),
    [Row] = [Row || Row <- lines(Config, ["forest", "--json", "--all", Dir]), maps:get(pid, Row) =:= list_to_binary(Text)],
    ?assertMatch({_, _}, binary:match(maps:get(parent, Row), From)),
    peer:stop(Other),
    peer:stop(Peer).

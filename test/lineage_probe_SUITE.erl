%% The probe, on nodes of their own: what the kernel counts is what was done, and what Lineage has; stalls and OS processes that
%% are made on purpose are found, and nothing else is called so.
-module(lineage_probe_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2, end_per_testcase/2]).
-export([census/1, failed_births/1, sampled/1, verify/1, verify_lost/1, verify_cut/1, verify_unrecorded/1, unnamed_functions/1, stalls/1, no_stall/1,
         explained/1, ospids/1, ospids_at_death/1, ospids_busy/1, ospids_of_node/1, feeds/1, by_name/1, in_a_namespace/1, wrong_nodes/1, other_users/1,
         privileges/1, replaced/1, node_ends/1, command_line/1]).
-export([run/3, starts/1, start_link/0, init/1]).

suite() ->
    [{timetrap, {minutes, case soak() of true -> 30; false -> 2 end}}].

%% On a VM that does not name its functions, the rest.
all() ->
    [stalls, no_stall, explained, ospids, ospids_at_death, ospids_busy, ospids_of_node, feeds, wrong_nodes, privileges, command_line,
     in_a_namespace]
        ++ case named() of
               true -> [census, failed_births, sampled, verify, verify_lost, verify_cut, verify_unrecorded, by_name, other_users,
                        replaced, node_ends];
               false -> [unnamed_functions]
           end.

%% Whether this VM names erl_create_process: Debian's OTP 29 does not.
named() ->
    [Beam | _] = filelib:wildcard(filename:join([code:root_dir(), "erts-" ++ erlang:system_info(version), "bin", "beam.smp"])),
    os:cmd("{ nm " ++ Beam ++ "; nm -D " ++ Beam ++ "; } 2>/dev/null | grep -c ' T erl_create_process$'") =/= "0\n".

%% LINEAGE_SOAK=1: at full size.
soak() ->
    os:getenv("LINEAGE_SOAK", "") =/= "".

births() ->
    case soak() of true -> 1000000; false -> 50000 end.

rounds() ->
    case soak() of true -> 50; false -> 5 end.

%% Where the kernel does not let us, nothing here can run: in CI that is a failure.
init_per_suite(Config) ->
    Probe = filename:join(code:priv_dir(lineage), "lineage-probe"),
    case filelib:is_regular(Probe) andalso execute(Probe, ["stalls", "-p", os:getpid(), "-d", "0.01"]) of
        {0, _} ->
            Priv = proplists:get_value(priv_dir, Config),
            [{probe, Probe}, {slow, lineage_slow:build(Priv)} | Config];
        Why ->
            Text = case Why of
                       false -> "priv/lineage-probe was not built: it takes clang, bpftool and libbpf-dev";
                       {_, Said} -> string:trim(Said)
                   end,
            lineage_counter:cannot("The probe is not tested: " ++ Text)
    end.

end_per_suite(_Config) ->
    ok.

init_per_testcase(Case, Config) ->
    Base = filename:join("/tmp", "lineage-probe-" ++ os:getpid() ++ "-" ++ atom_to_list(Case)),
    Probe = Base ++ "/lineage-probe",
    "" = os:cmd("rm -rf " ++ Base ++ " && mkdir " ++ Base ++ " && chmod 755 " ++ Base ++ " && cp " ++ proplists:get_value(probe, Config) ++ " " ++ Probe),
    [{base, Base}, {probe, Probe} | Config].

%% What a test has leaked on purpose, or has not come to end, ends here: programs that lie in the test's directory.
end_per_testcase(_Case, Config) ->
    Base = proplists:get_value(base, Config),
    os:cmd("for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in " ++ Base ++ "/*) pid=${exe%/exe}; kill -9 ${pid#/proc/};; esac; done 2>&1"),
    os:cmd("rm -rf " ++ Base),
    proplists:get_value(tc_status, Config) =:= ok orelse [file:delete(File) || File <- filelib:wildcard("/dev/shm/lineage-{stalls,ospids}-*")],
    [] = filelib:wildcard("/dev/shm/lineage-stalls-*") ++ filelib:wildcard("/dev/shm/lineage-ospids-*"),
    ok.

%% Nodes

start(Args) ->
    start(#{}, Args).

start(Options, Args) ->
    Paths = ["-pa", filename:dirname(code:which(lineage)), filename:dirname(code:which(?MODULE))],
    {ok, Peer, _} = peer:start(Options#{connection => standard_io, wait_boot => 120000, args => Args ++ Paths}),
    Peer.

os_pid(Peer) ->
    peer:call(Peer, os, getpid, []).

%% Runs a fun of this module's in the peer.
call(Peer, Fun) ->
    peer:call(Peer, ?MODULE, run, [self(), Fun, []], 120000).

run(_From, Fun, Args) ->
    apply(Fun, Args).

%% A process in the peer that is in the storm each time that it is told.
storm_waits(Peer, Config, Workers, Each) ->
    Base = proplists:get_value(base, Config),
    call(Peer, fun() -> spawn(lineage_slow, wait, [Base, Workers, Each]), ok end).

storm(Config) ->
    Base = proplists:get_value(base, Config),
    ok = file:write_file(Base ++ "/go", <<>>),
    await_file(Base ++ "/done"),
    ok = file:delete(Base ++ "/done").

await_file(Path) ->
    case filelib:is_file(Path) of
        true -> ok;
        false -> receive after 5 -> await_file(Path) end
    end.

%% The probe

execute(Program, Args) ->
    Port = open_port({spawn_executable, Program}, [{args, Args}, exit_status, binary, stderr_to_stdout]),
    collect(Port, []).

collect(Port, Acc) ->
    receive
        {Port, {data, Data}} -> collect(Port, [Data | Acc]);
        {Port, {exit_status, Status}} -> {Status, unicode:characters_to_list(iolist_to_binary(lists:reverse(Acc)))}
    end.

probe(Config, Args) ->
    execute(proplists:get_value(probe, Config), Args).

%% Runs until it is told to end; watches already when this returns.
begin_probe(Config, Args) ->
    Port = open_port({spawn_executable, proplists:get_value(probe, Config)}, [{args, Args}, exit_status, {line, 65536}, stderr_to_stdout]),
    await_watching(Port, []).

await_watching(Port, Said) ->
    receive
        {Port, {data, {eol, Line}}} ->
            case string:find(Line, " watches ") of
                nomatch -> await_watching(Port, [Line | Said]);
                _ -> Port
            end;
        {Port, {exit_status, Status}} ->
            error({probe, Status, lists:reverse(Said)})
    end.

%% Its status, and the objects that it printed.
end_probe(Port) ->
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    "" = os:cmd("kill -INT " ++ integer_to_list(OsPid)),
    rest(Port, []).

rest(Port, Lines) ->
    receive
        {Port, {data, {eol, Line}}} -> rest(Port, [Line | Lines]);
        {Port, {exit_status, Status}} -> {Status, [json(Line) || [${ | _] = Line <- lists:reverse(Lines)]}
    end.

json(Line) ->
    {ok, Object} = lineage_json:decode(list_to_binary(string:trim(Line))),
    Object.

%% The last object of a run.
end_with(Port, Status) ->
    {Status, Objects} = end_probe(Port),
    lists:last(Objects).

%% Births and deaths

%% Nothing else is born: the counts are the storm's own.
census(Config) ->
    Peer = start([]),
    storm_waits(Peer, Config, 2, births() div 2),
    Port = begin_probe(Config, ["census", "-p", os_pid(Peer), "--json"]),
    storm(Config),
    Told = end_with(Port, 0),
    Count = births() + 2,
    ?assertMatch(#{<<"births">> := Count, <<"deaths">> := Count, <<"live_change">> := 0, <<"failed">> := 0, <<"dropped">> := 0,
                   <<"ended">> := <<"signal">>}, Told),
    peer:stop(Peer).

%% A creation that gives no process.
failed_births(Config) ->
    Peer = start(["+P", "1024"]),
    OsPid = os_pid(Peer),
    Port = begin_probe(Config, ["census", "-p", OsPid, "--json"]),
    Failed = call(Peer, fun() ->
        Pids = fill([]),
        [exit(Pid, kill) || Pid <- Pids],
        1
    end),
    #{<<"failed">> := Told, <<"births">> := Births} = end_with(Port, 0),
    ?assertEqual(Failed, Told),
    ?assert(Births > 500),
    peer:stop(Peer).

fill(Pids) ->
    try spawn(fun() -> receive after infinity -> ok end end) of
        Pid -> fill([Pid | Pids])
    catch
        error:system_limit -> Pids
    end.

%% Of a storm that goes on at one rate, what the whole says lies in what the samples say.
sampled(Config) ->
    Peer = start([]),
    {_, Stop} = call(Peer, fun() -> P = spawn(fun() -> paced(2000) end), {P, pid_to_list(P)} end),
    Port = begin_probe(Config, ["census", "-p", os_pid(Peer), "--json", "--sample", "20"]),
    receive after 6000 -> ok end,
    #{<<"windows">> := Windows, <<"births_per_s">> := Rate, <<"births_error">> := Error} = end_with(Port, 0),
    ?assert(Windows >= 4),
    ?assert(Error >= 0),
    %% The machine may have slowed it, and its timers be late by some births a window.
    ?assert(Rate > 500 andalso Rate < 2000 * 1.5 + Error),
    call(Peer, fun() -> exit(list_to_pid(Stop), kill) end),
    peer:stop(Peer).

paced(PerS) ->
    Start = erlang:monotonic_time(microsecond),
    paced(PerS, Start, 0).

paced(PerS, Start, N) ->
    receive after max(0, (Start + N * 1000000 div PerS - erlang:monotonic_time(microsecond)) div 1000) -> ok end,
    spawn(fun() -> ok end),
    paced(PerS, Start, N + 1).

%% Verify

attach(Peer, Journal) ->
    {ok, _} = peer:call(Peer, lineage, attach, [#{exits => all, journal => Journal}]),
    ok.

verify(Config) ->
    Peer = start([]),
    Dir = proplists:get_value(base, Config) ++ "/journal",
    storm_waits(Peer, Config, 2, births() div 2),
    attach(Peer, #{dir => Dir, max_bytes => 1073741824}),
    Port = begin_probe(Config, ["verify", "-p", os_pid(Peer), "--journal", Dir, "--json"]),
    storm(Config),
    %% The window's edges are not judged: what was in the storm must not lie there.
    receive after 600 -> ok end,
    Told = end_with(Port, 0),
    ?assertMatch(#{<<"verdict">> := <<"equal">>, <<"dropped">> := 0, <<"missing">> := 0}, Told),
    [begin
         ?assertMatch(#{<<"only_kernel">> := 0, <<"only_lineage">> := 0}, Side),
         ?assert(map_get(<<"both">>, Side) + map_get(<<"edge">>, Side) >= births() + 2)
     end || Side <- [map_get(<<"births">>, Told), map_get(<<"deaths">>, Told)]],
    call(Peer, fun() -> lineage:detach() end),
    peer:stop(Peer).

%% A part of the record is taken away: that is a difference, and nothing explains it.
verify_lost(Config) ->
    Peer = start([]),
    Dir = proplists:get_value(base, Config) ++ "/journal",
    storm_waits(Peer, Config, 2, 20000),
    attach(Peer, #{dir => Dir, segment_bytes => 1048576}),
    Port = begin_probe(Config, ["verify", "-p", os_pid(Peer), "--journal", Dir, "--json"]),
    receive after 600 -> ok end,
    storm(Config),
    receive after 600 -> ok end,
    Second = second_segment(Dir),
    ok = file:delete(Second),
    #{<<"verdict">> := Verdict, <<"births">> := #{<<"only_kernel">> := Only}} = end_with(Port, 1),
    ?assertEqual(<<"different">>, Verdict),
    ?assert(Only > 1000),
    call(Peer, fun() -> lineage:detach() end),
    peer:stop(Peer).

%% It is whole when a third one has begun.
second_segment(Dir) ->
    case lists:sort(filelib:wildcard(Dir ++ "/*.journal")) of
        [_First, Second, _Third | _] -> Second;
        _ -> receive after 10 -> second_segment(Dir) end
    end.

%% A journal that is bounded has let go of what was in the window: that is no difference, and no proof.
verify_cut(Config) ->
    Peer = start([]),
    Dir = proplists:get_value(base, Config) ++ "/journal",
    storm_waits(Peer, Config, 2, 40000),
    attach(Peer, #{dir => Dir, segment_bytes => 1048576, max_bytes => 3145728}),
    Port = begin_probe(Config, ["verify", "-p", os_pid(Peer), "--journal", Dir, "--json"]),
    storm(Config),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    "" = os:cmd("kill -INT " ++ integer_to_list(OsPid)),
    {1, Said} = last_line(Port, ""),
    one_sentence(Said, "has let go of a part of the window"),
    call(Peer, fun() -> lineage:detach() end),
    peer:stop(Peer).

last_line(Port, Last) ->
    receive
        {Port, {data, {eol, Line}}} -> last_line(Port, Line);
        {Port, {exit_status, Status}} -> {Status, Last}
    end.

verify_unrecorded(Config) ->
    Peer = start([]),
    Base = proplists:get_value(base, Config),
    [begin
         {5, Said} = probe(Config, ["verify", "-p", os_pid(Peer), "--journal", Dir, "-d", "0.1"]),
         one_sentence(Said, "is not recorded in")
     end || Dir <- [Base, Base ++ "/none"]],
    %% Of suspects' exits alone no comparison is made.
    {2, Usage} = probe(Config, ["verify", "-p", os_pid(Peer)]),
    one_sentence(Usage, "--journal DIR"),
    peer:stop(Peer).

%% OTP 29 as Debian builds it.
unnamed_functions(Config) ->
    Peer = start([]),
    Dir = proplists:get_value(base, Config) ++ "/journal",
    attach(Peer, Dir),
    [begin
         {4, Said} = probe(Config, Args ++ ["-p", os_pid(Peer), "-d", "0.1"]),
         one_sentence(Said, "without the name of its function erl_create_process")
     end || Args <- [["census"], ["verify", "--journal", Dir]]],
    call(Peer, fun() -> lineage:detach() end),
    peer:stop(Peer).

%% Stalls

-define(STALL_MS, 60).
-define(THRESHOLD_MS, 20).

%% One scheduler, on the first CPU.
start_pinned(Args) ->
    start(#{exec => {os:find_executable("taskset"), ["-c", "0", os:find_executable("erl")]}}, ["+S", "1:1", "+SDcpu", "1:1" | Args]).

%% A program that takes the first CPU from everybody for some 150 ms: a loop of the shell at real-time priority.
hog(Config) ->
    Hog = proplists:get_value(base, Config) ++ "/lineage_hog",
    filelib:is_file(Hog) orelse begin {ok, _} = file:copy("/bin/sh", Hog), "" = os:cmd("chmod 755 " ++ Hog) end,
    %% It must not let go of the CPU for a moment: no other program, and nothing to wait for.
    "done\n" = os:cmd("taskset -c 0 chrt -f 50 " ++ Hog ++ " -c 'i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done; echo done'").

%% Each kind on purpose, in turn: each time one is told, at that time, with the right name.
stalls(Config) ->
    Peer = start_pinned([]),
    OsPid = os_pid(Peer),
    ok = peer:call(Peer, lineage_slow, load, [proplists:get_value(slow, Config)]),
    call(Peer, fun() -> spawn(lineage_slow, work, []), ok end),
    Port = begin_probe(Config, ["stalls", "-p", OsPid, "--json", "--threshold", integer_to_list(?THRESHOLD_MS)]),
    Made = [{Round, What, made(fun() -> make(What, Peer, OsPid, Config) end)} || Round <- lists:seq(1, rounds()), What <- [hog, spin, nap, stop]],
    {0, Told} = end_probe(Port),
    Stalls = [Stall || #{<<"kind">> := _} = Stall <- Told],
    #{<<"dropped">> := 0, <<"ended">> := <<"signal">>} = lists:last(Told),
    Unnamed = [{Round, What} || {Round, What, Span} <- Made, not lists:any(fun(Stall) -> is_right(What, Span, Stall) end, Stalls)],
    ?assertEqual({[], Stalls}, {Unnamed, Stalls}),
    peer:stop(Peer).

make(hog, _Peer, _OsPid, Config) -> hog(Config);
make(spin, Peer, _OsPid, _Config) -> ok = peer:call(Peer, lineage_slow, spin, [?STALL_MS]);
make(nap, Peer, _OsPid, _Config) -> ok = peer:call(Peer, lineage_slow, nap, [?STALL_MS]);
make(stop, _Peer, OsPid, _Config) ->
    "" = os:cmd("kill -STOP " ++ OsPid),
    stopped(OsPid),
    receive after ?STALL_MS -> ok end,
    "" = os:cmd("kill -CONT " ++ OsPid).

%% A thread stops when it has the CPU next.
stopped(OsPid) ->
    Stats = [Stat || File <- filelib:wildcard("/proc/" ++ OsPid ++ "/task/*/stat"), {ok, Stat} <- [file:read_file(File)]],
    lists:all(fun(Stat) -> re:run(Stat, "^.*\\) T ", [{capture, none}]) =:= match end, Stats) orelse stopped(OsPid).

%% When, on the kernel's clock.
made(Fun) ->
    From = kernel_ns(),
    Fun(),
    {From, kernel_ns()}.

kernel_ns() ->
    erlang:convert_time_unit(proplists:get_value(time, erlang:system_info(os_monotonic_time_source)), native, nanosecond).

is_right(What, {From, To}, #{<<"thread">> := <<"scheduler">>, <<"number">> := 1, <<"from_ns">> := At, <<"ms">> := Ms, <<"kind">> := Kind} = Stall) ->
    At + round(1000000 * Ms) > From andalso At < To andalso Ms >= ?THRESHOLD_MS andalso
        case {What, Kind, Stall} of
            {hog, <<"waited">>, #{<<"by">> := <<"lineage_hog">>}} -> true;
            {spin, <<"busy">>, #{<<"library">> := <<"lineage_slow.so">>}} -> true;
            {nap, <<"blocked">>, #{<<"library">> := <<"lineage_slow.so">>, <<"in">> := <<"clock_nanosleep">>}} -> true;
            {stop, <<"stopped">>, _} -> true;
            _ -> false
        end;
is_right(_, _, _) ->
    false.

%% A node that waits for work has none, however long it waits, nor has one that is in a library for a moment, often; and its end
%% is none.
no_stall(Config) ->
    Peer = start([]),
    ok = peer:call(Peer, lineage_slow, load, [proplists:get_value(slow, Config)]),
    call(Peer, fun() -> spawn(fun Often() -> lineage_slow:spin(2), receive after 300 -> Often() end end), ok end),
    Port = begin_probe(Config, ["stalls", "-p", os_pid(Peer), "--json", "--threshold", "250"]),
    receive after 6000 -> ok end,
    "" = os:cmd("kill -9 " ++ os_pid(Peer)),
    {0, Told} = rest(Port, []),
    ?assertMatch(#{<<"ended">> := <<"node">>}, lists:last(Told)),
    ?assertEqual([], [Stall || #{<<"kind">> := Kind} = Stall <- Told, Kind =/= <<"waited">>]).

%% An outlier of lineage:overhead/0 that the kernel explains.
explained(Config) ->
    Peer = start_pinned([]),
    {ok, _} = peer:call(Peer, lineage, attach, [#{overhead => continuous}]),
    call(Peer, fun() -> {ok, Sup} = supervisor:start_link(?MODULE, []), unlink(Sup), spawn(?MODULE, starts, [Sup]), ok end),
    Port = begin_probe(Config, ["stalls", "-p", os_pid(Peer), "--json", "--feed"]),
    Stall = await_explained(Peer, Config, 20),
    ?assertMatch(#{kind := waited, thread := scheduler, number := 1}, Stall),
    Printed = call(Peer, fun() -> unicode:characters_to_list(lineage_print:format(lineage:overhead(), #{columns => 200})) end),
    ?assertMatch([_ | _], string:find(Printed, "stall: scheduler 1 waited for ")),
    {0, _} = end_probe(Port),
    peer:call(Peer, lineage, detach, []),
    peer:stop(Peer).

await_explained(_Peer, _Config, 0) ->
    error(no_outlier_is_explained_by_a_stall);
await_explained(Peer, Config, Tries) ->
    hog(Config),
    #{outliers := Outliers} = peer:call(Peer, lineage, overhead, [], 60000),
    case [Stall || #{cause := {stall, #{by := By} = Stall}} <- Outliers, By =:= <<"lineage_hog">>] of
        [Stall | _] -> Stall;
        [] -> await_explained(Peer, Config, Tries - 1)
    end.

starts(Sup) ->
    {ok, Pid} = supervisor:start_child(Sup, []),
    ok = supervisor:terminate_child(Sup, Pid),
    starts(Sup).

start_link() ->
    proc_lib:start_link(?MODULE, run, [self(), fun() -> proc_lib:init_ack({ok, self()}), receive after infinity -> ok end end, []]).

init([]) ->
    {ok, {#{strategy => simple_one_for_one}, [#{id => child, start => {?MODULE, start_link, []}}]}}.

%% OS processes

%% Programs that sleep, each with a name of its own.
sleeper(Config, Name) ->
    Path = proplists:get_value(base, Config) ++ "/" ++ Name,
    {ok, _} = file:copy("/bin/sleep", Path),
    "" = os:cmd("chmod 755 " ++ Path),
    Path.

%% Leaked, exec'd and adopted ones, and such as a port holds: itself, by a shell that has ended, and by one that has not.
leak(Peer, Config) ->
    [Leaked, Execd, Adopted, Held, Behind, Child] =
        [sleeper(Config, Name) || Name <- ["leaked", "execd", "adopted", "held", "behind", "child"]],
    call(Peer, fun() ->
        Self = self(),
        Owner = spawn(fun() ->
            close(open_port({spawn_executable, Leaked}, [{args, ["1000"]}])),
            close(open_port({spawn, "sh -c 'exec " ++ Execd ++ " 1000'"}, [])),
            "" = os:cmd("(setsid " ++ Adopted ++ " 1000 </dev/null >/dev/null 2>&1 &)"),
            Self ! {self(), leaked}
        end),
        receive {Owner, leaked} -> ok end,
        Holder = spawn(fun() ->
            Ports = [open_port({spawn_executable, Held}, [{args, ["1000"]}]),
                     open_port({spawn, "sh -c '" ++ Behind ++ " 1000 & exit 0'"}, [exit_status]),
                     open_port({spawn, "sh -c '" ++ Child ++ " 1000 </dev/null >/dev/null 2>&1; true'"}, [])],
            Self ! {self(), held},
            receive {stop, Ports} -> ok end
        end),
        receive {Holder, held} -> ok end,
        pid_to_list(Owner)
    end).

%% Once its program runs: it is exec'd by its forker.
close(Port) ->
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    running(integer_to_list(OsPid)),
    port_close(Port).

running(OsPid) ->
    case file:read_file("/proc/" ++ OsPid ++ "/comm") of
        {ok, <<"erl_child_setup", _/binary>>} -> running(OsPid);
        {ok, <<"sh\n">>} -> running(OsPid);
        _ -> ok
    end.

names(Told, Orphan) ->
    #{<<"processes">> := Processes} = Told,
    lists:sort([Name || #{<<"program">> := Name, <<"orphan">> := Is} <- Processes, Is =:= Orphan, Name =/= <<"sh">>]).

ospids(Config) ->
    Peer = start([]),
    OsPid = os_pid(Peer),
    Port = begin_probe(Config, ["ospids", "-p", OsPid, "--json"]),
    leak(Peer, Config),
    await_programs(6, Config),
    #{<<"processes">> := Processes, <<"dropped">> := 0} = Told = end_with(Port, 0),
    ?assertEqual([<<"adopted">>, <<"execd">>, <<"leaked">>], names(Told, true)),
    ?assertEqual([<<"behind">>, <<"child">>, <<"held">>], names(Told, false)),
    ?assertEqual([<<"adopted">>, <<"behind">>], lists:sort([Name || #{<<"program">> := Name, <<"adopted">> := true} <- Processes])),
    %% One that came later sees all but what was adopted before.
    {0, Said} = probe(Config, ["ospids", "-p", OsPid, "--json", "-d", "0.1"]),
    Late = json(string:find(Said, "{")),
    ?assertEqual([<<"execd">>, <<"leaked">>], names(Late, true)),
    ?assertEqual([<<"child">>, <<"held">>], names(Late, false)),
    peer:stop(Peer).

%% Until all of them run.
await_programs(Count, Config) ->
    Base = proplists:get_value(base, Config),
    case length(string:lexemes(os:cmd("readlink /proc/[0-9]*/exe | grep '^" ++ Base ++ "/' | grep -v '/lineage-probe$'"), "\n")) of
        Count -> ok;
        _ -> await_programs(Count, Config)
    end.

%% When the node dies its programs see that their pipes are closed, and end; that takes them a moment.
ospids_at_death(Config) ->
    Peer = start([]),
    OsPid = os_pid(Peer),
    Leaked = sleeper(Config, "leaked"),
    call(Peer, fun() ->
        spawn(fun() -> open_port({spawn, "sh -c 'cat; true'"}, []), open_port({spawn, "cat"}, []), receive after infinity -> ok end end),
        close(open_port({spawn_executable, Leaked}, [{args, ["1000"]}]))
    end),
    Port = begin_probe(Config, ["ospids", "-p", OsPid, "--json"]),
    "" = os:cmd("kill -9 " ++ OsPid),
    {0, [Told]} = rest(Port, []),
    ?assertEqual([<<"leaked">>], names(Told, true)).

%% A node that starts one after another has none, whenever it is looked at.
ospids_busy(Config) ->
    Peer = start([]),
    OsPid = os_pid(Peer),
    call(Peer, fun() -> [spawn(fun Again() -> os:cmd("true"), Again() end) || _ <- lists:seq(1, 3)], ok end),
    [begin
         {0, Said} = probe(Config, ["ospids", "-p", OsPid, "--json", "-d", "0.1"]),
         #{<<"processes">> := Processes, <<"dropped">> := 0} = json(string:find(Said, "{")),
         ?assertEqual([], [P || #{<<"orphan">> := true} = P <- Processes])
     end || _ <- lists:seq(1, 2 * rounds())],
    peer:stop(Peer).

%% lineage:orphans(os), with who has opened the port, alive or not.
ospids_of_node(Config) ->
    Peer = start([]),
    {ok, _} = peer:call(Peer, lineage, attach, []),
    Tag = call(Peer, fun() -> try lineage:orphans(os) catch error:{lineage, T} -> T end end),
    ?assertEqual(probe_missing, Tag),
    Port = begin_probe(Config, ["ospids", "-p", os_pid(Peer), "--json", "--feed"]),
    call(Peer, fun() -> [spawn(fun Again() -> os:cmd("true"), Again() end) || _ <- lists:seq(1, 3)], ok end),
    Owner = leak(Peer, Config),
    await_programs(6, Config),
    Orphans = await_orphans(Peer, 3),
    ?assertEqual([<<"adopted">>, <<"execd">>, <<"leaked">>], lists:sort([Name || #{program := Name} <- Orphans])),
    ?assertEqual([<<"adopted">>], [Name || #{program := Name, adopted := true} <- Orphans]),
    Owners = [{O, Call, Alive} || #{owner := O, initial_call := Call, owner_alive := Alive} <- Orphans],
    case named() of
        true -> ?assertEqual(lists:duplicate(3, {Owner, {erlang, apply, 2}, false}), [{call(Peer, fun() -> pid_to_list(O) end), C, A} || {O, C, A} <- Owners]);
        false -> ?assertEqual(lists:duplicate(3, {undefined, undefined, false}), Owners)
    end,
    Printed = call(Peer, fun() -> unicode:characters_to_list(lineage_print:format(Orphans, #{})) end),
    ?assertMatch([_ | _], string:find(Printed, "3 OS processes without a port")),
    end_with(Port, 0),
    ?assertEqual(probe_missing, call(Peer, fun() -> try lineage:orphans(os) catch error:{lineage, T} -> T end end)),
    peer:call(Peer, lineage, detach, []),
    peer:stop(Peer).

%% A feed is a fraction of a second late.
await_orphans(Peer, Count) ->
    case peer:call(Peer, lineage, orphans, [os], 60000) of
        Orphans when length(Orphans) =:= Count -> Orphans;
        _ -> await_orphans(Peer, Count)
    end.

%% One probe feeds a node; what a killed one has left is taken away; a file that is another's is not believed.
feeds(Config) ->
    Peer = start([]),
    OsPid = os_pid(Peer),
    Path = "/dev/shm/lineage-ospids-" ++ OsPid,
    Args = ["ospids", "-p", OsPid, "--json", "--feed"],
    Port = begin_probe(Config, Args),
    {ok, Info} = file:read_file_info(Path),
    ?assertEqual(8#100600, element(8, Info)),
    {1, Said} = probe(Config, Args ++ ["-d", "0.1"]),
    one_sentence(lists:last(string:lexemes(Said, "\n")), "another probe feeds this node"),
    {os_pid, ProbePid} = erlang:port_info(Port, os_pid),
    "" = os:cmd("kill -9 " ++ integer_to_list(ProbePid)),
    {137, _} = rest(Port, []),
    true = filelib:is_file(Path),
    {0, _} = probe(Config, Args ++ ["-d", "0.1"]),
    false = filelib:is_file(Path),
    %% Bytes of anybody's, and another user's file.
    [begin
         ok = file:write_file(Path, Bytes),
         [] = peer:call(Peer, lineage_probe, stalls, []),
         ?assertEqual(probe_missing, call(Peer, fun() -> try lineage:orphans(os) catch error:{lineage, T} -> T end end))
     end || Bytes <- [<<>>, <<0:512>>, binary:copy(<<255>>, 1000)]],
    ok = file:delete(Path),
    %% What is there and is none of ours is left alone, and waited for by nobody.
    [begin
         "" = os:cmd(Make ++ " " ++ Path ++ " && chown 65534 " ++ Path),
         {1, There} = probe(Config, Args ++ ["-d", "0.1"]),
         one_sentence(lists:last(string:lexemes(There, "\n")), "is another user's: take it away"),
         "" = os:cmd("rm " ++ Path)
     end || Make <- ["mkfifo", "touch"]],
    peer:stop(Peer).

%% Which node

by_name(Config) ->
    [One, Two] = [Name ++ os:getpid() || Name <- ["lineage_one_", "lineage_two_"]],
    Peers = [start(["-sname", Name]) || Name <- [One, Two]],
    [begin
         {0, Said} = probe(Config, ["census", "--node", Name ++ At, "-d", "0.1", "--json"]),
         #{<<"pid">> := Pid} = json(string:find(Said, "{")),
         ?assertEqual(os_pid(Peer), integer_to_list(Pid))
     end || {Name, Peer} <- lists:zip([One, Two], Peers), At <- ["", "@localhost"]],
    [peer:stop(Peer) || Peer <- Peers],
    [forgotten(Name) || Name <- [One, Two]],
    {5, Gone} = probe(Config, ["census", "--node", One]),
    one_sentence(Gone, "knows no node " ++ One),
    {5, Far} = probe(Config, ["census", "--node", One ++ "@192.0.2.1"]),
    one_sentence(Far, "another host").

%% peer:stop/1 does not wait for the node's end.
forgotten(Name) ->
    {ok, Names} = erl_epmd:names("localhost"),
    case lists:keymember(Name, 1, Names) of
        true -> receive after 10 -> forgotten(Name) end;
        false -> ok
    end.

%% A node in a pid namespace of its own, as in a container: from outside, and from inside, where it has another number.
in_a_namespace(Config) ->
    Base = proplists:get_value(base, Config),
    Probe = proplists:get_value(probe, Config),
    Leaked = sleeper(Config, "leaked"),
    Script = Base ++ "/inside.sh",
    ok = file:write_file(Script,
        ["erl -noshell -eval 'Port = open_port({spawn_executable, \"", Leaked, "\"}, [{args, [\"1000\"]}]), {os_pid, P} = erlang:port_info(Port, os_pid),"
         " (fun Wait() -> case file:read_file(\"/proc/\" ++ integer_to_list(P) ++ \"/comm\") of {ok, <<\"leaked\\n\">>} -> ok; _ -> Wait() end end)(),"
         " port_close(Port), file:write_file(\"", Base, "/ready\", os:getpid()),"
         " (fun Births() -> spawn(fun() -> ok end), receive after 5 -> Births() end end)()' < /dev/null &\n"
         "while [ ! -s ", Base, "/ready ]; do :; done\n"
         "for command in ", [["census "] || named()], "'stalls --threshold 1' ospids; do ", Probe, " $command --json -p $(cat ", Base, "/ready) -d 2 2>&1 || exit; done\n"
         "kill -9 $(cat ", Base, "/ready)\n"]),
    %% In a chroot the root's mount cannot be made private, and is already.
    Said = os:cmd("if unshare --mount true 2>/dev/null; then unshare --pid --fork --mount-proc --kill-child sh " ++ Script ++
                  "; else unshare --pid --fork --mount --propagation unchanged --kill-child sh -c 'mount -t proc proc /proc && exec sh " ++ Script ++ "'; fi"),
    Told = [json(Line) || [${ | _] = Line <- string:lexemes(Said, "\n")],
    [?assert(Births > 10) || named(), #{<<"births">> := Births} <- [hd([T || #{<<"births">> := _} = T <- Told])]],
    [#{<<"threads">> := Threads}] = [T || #{<<"threads">> := _} = T <- Told],
    ?assert(Threads > 2),
    [#{<<"processes">> := [#{<<"program">> := <<"leaked">>, <<"orphan">> := true}]}] = [T || #{<<"processes">> := _} = T <- Told].

%% What is no node, in one sentence each.
wrong_nodes(Config) ->
    Sleep = open_port({spawn_executable, sleeper(Config, "sleeper")}, [{args, ["1000"]}]),
    {os_pid, OsPid} = erlang:port_info(Sleep, os_pid),
    running(integer_to_list(OsPid)),
    Dead = string:trim(os:cmd("sh -c 'echo $$'")),
    [begin
         {5, Said} = probe(Config, [Command, "-p", Pid, "-d", "0.1"]),
         one_sentence(Said, Word)
     end || Command <- ["census", "stalls", "ospids"],
            {Pid, Word} <- [{Dead, "there is no process " ++ Dead}, {integer_to_list(OsPid), "is no Erlang VM (it runs "}]],
    port_close(Sleep).

other_users(Config) ->
    Peer = start([]),
    Own = proplists:get_value(probe, Config),
    {3, Said} = execute(os:find_executable("setpriv"), ["--reuid", "65534", "--regid", "65534", "--clear-groups", Own, "census", "-p", os_pid(Peer)]),
    one_sentence(Said, "is another user's"),
    peer:stop(Peer).

%% Neither root nor able: which capability is missing is said, and with those that it names it runs.
privileges(Config) ->
    Base = proplists:get_value(base, Config),
    Own = proplists:get_value(probe, Config),
    Nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"],
    %% Its port's program is one that only root may look into.
    Held = sleeper(Config, "held"),
    "" = os:cmd("chmod 711 " ++ Held),
    Node = open_port({spawn_executable, os:find_executable("setpriv")},
                     [{args, Nobody ++ [os:find_executable("erl"), "-noshell", "-eval", "open_port({spawn, \"" ++ Held ++ " 1000\"}, []),"
                                        " io:format(\"~s~n\", [os:getpid()]), io:get_line(\"\"), halt()"]},
                      {env, [{"HOME", Base}]}, {line, 100}]),
    OsPid = receive {Node, {data, {eol, Line}}} -> Line end,
    As = fun(Command) -> execute(os:find_executable("setpriv"), Nobody ++ [Own, Command, "-p", OsPid, "-d", "0.1"]) end,
    [{3, None}, {3, None}, {3, None}] = [As(Command) || Command <- ["census", "stalls", "ospids"]],
    one_sentence(None, "CAP_BPF and CAP_PERFMON are missing: as root, run `setcap cap_bpf,cap_perfmon+ep " ++ Own),
    "" = os:cmd("setcap cap_bpf+ep " ++ Own),
    {3, Half} = As("stalls"),
    one_sentence(Half, "CAP_PERFMON is missing"),
    "" = os:cmd("setcap cap_bpf,cap_perfmon+ep " ++ Own),
    [{0, _}, {0, OsPids}] = [As(Command) || Command <- ["stalls", "ospids"]],
    ?assertMatch([_ | _], string:find(OsPids, "held")),
    ?assertEqual(nomatch, string:find(OsPids, "ORPHAN")),
    %% Some kernels want one more for uprobes: then that is said.
    case named() andalso As("census") of
        false ->
            ok;
        {0, _} ->
            ok;
        {3, More} ->
            one_sentence(lists:last(string:lexemes(More, "\n")), "setcap cap_bpf,cap_perfmon,cap_sys_admin+ep " ++ Own),
            "" = os:cmd("setcap cap_bpf,cap_perfmon,cap_sys_admin+ep " ++ Own),
            {0, _} = As("census")
    end,
    %% At the end of its input it halts.
    port_close(Node).

%% The VM's file was replaced by an upgrade: what runs is what is watched.
replaced(Config) ->
    Base = proplists:get_value(base, Config),
    Bin = filename:join(code:root_dir(), "erts-" ++ erlang:system_info(version)) ++ "/bin",
    "" = os:cmd("cp -r " ++ Bin ++ " " ++ Base ++ "/bin && rm " ++ Base ++ "/bin/erl"),
    Peer = start(#{exec => {Base ++ "/bin/erlexec", []}, env => [{"BINDIR", Base ++ "/bin"}, {"ROOTDIR", code:root_dir()}, {"EMU", "beam"}, {"PROGNAME", "erl"}]}, []),
    storm_waits(Peer, Config, 1, 1000),
    "" = os:cmd("echo other > " ++ Base ++ "/bin/new && mv " ++ Base ++ "/bin/new " ++ Base ++ "/bin/beam.smp"),
    Port = begin_probe(Config, ["census", "-p", os_pid(Peer), "--json"]),
    storm(Config),
    ?assertMatch(#{<<"births">> := 1001, <<"deaths">> := 1001}, end_with(Port, 0)),
    peer:stop(Peer).

%% What was counted until then is told.
node_ends(Config) ->
    Peer = start([]),
    storm_waits(Peer, Config, 1, 1000),
    Port = begin_probe(Config, ["census", "-p", os_pid(Peer), "--json", "-d", "600"]),
    storm(Config),
    peer:stop(Peer),
    {0, [Told]} = rest(Port, []),
    ?assertMatch(#{<<"ended">> := <<"node">>}, Told),
    ?assert(map_get(<<"births">>, Told) >= 1001).

command_line(Config) ->
    [begin
         {2, Said} = probe(Config, Args),
         one_sentence(Said, Word)
     end || {Args, Word} <- [{["census"], "it takes one node"}, {["census", "-p", "1", "--node", "x"], "it takes one node"},
                             {["census", "-p", "x"], "-p takes"}, {["census", "-p", "-5"], "-p takes"},
                             {["census", "-p", "1", "-d", "0"], "-d takes"}, {["census", "-p", "1", "--feed"], "no option of it"},
                             {["stalls", "-p", "1", "--sample", "5"], "no option of it"}, {["stalls", "-p", "1", "--threshold", "nan"], "--threshold takes"},
                             {["census", "-p", "1", "x"], "options only"}, {["verify", "-p", "1"], "--journal DIR"}]],
    {2, None} = probe(Config, []),
    ?assertMatch([_ | _], string:find(None, "usage: lineage-probe")),
    {2, Unknown} = probe(Config, ["nothing"]),
    ?assertMatch([_ | _], string:find(Unknown, "nothing is no command")),
    [{0, [_ | _]} = probe(Config, [Command, "--help"]) || Command <- ["census", "verify", "stalls", "ospids"]].

%% One line, that says so.
one_sentence(Said, Word) ->
    ?assertMatch({[_ | _], [_]}, {string:find(Said, Word), string:lexemes(Said, "\n")}).

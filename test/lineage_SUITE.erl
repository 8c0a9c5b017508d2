%% The session on real nodes: storms, other tracers, crashes, fuses.
-module(lineage_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([on_peer/1, storm_size/0, in_parallel/2, rough/1, same_sets/1, wait_for/1]).
-export([all/0, groups/0, init_per_testcase/2, end_per_testcase/2]).
-export([storm/1, rough_storm/1, cycles/1, second_attach/1, bad_options/1, many_listed/1, caller_dies/1, session_dies/1,
         detach_while_attaching/1, existing_processes/1, big_supervisor/1, listed_names/1, yield_to_dbg/1,
         yielder_dies/1, dbg_takes_the_hook/1, flags_cleared/1, set_on_spawn/1, another_tracer_first/1, tracer_ends/1,
         tracees_of_another/1, fuse_time/1, fuse_rate/1, sensitive/1, upgrade_refused/1, nif_missing/1,
         application_stops/1, not_attached/1, memory_full/1, other_sessions/1, flags_are_gone/1, exact_monitors/1,
         exact_monitors_cleared/1]).
%% Called on peers.
-export([run_storm/2, run_rough_storm/2, run_cycles/1, run_memory_full/1]).
%% A logger handler.
-export([log/2]).

all() ->
    [storm, rough_storm, cycles, memory_full, nif_missing, second_attach, bad_options, many_listed, caller_dies,
     session_dies, detach_while_attaching, existing_processes, big_supervisor, listed_names, fuse_time,
     fuse_rate, sensitive, upgrade_refused, application_stops, not_attached, flags_are_gone,
     exact_monitors, exact_monitors_cleared] ++
        case lineage_hook:api() of
            single -> [{group, one_tracer}];
            sessions -> [other_sessions]
        end.

groups() ->
    [{one_tracer, [], [yield_to_dbg, yielder_dies, dbg_takes_the_hook, flags_cleared, set_on_spawn,
                       another_tracer_first, tracer_ends, tracees_of_another]}].

init_per_testcase(_Case, Config) ->
    ok = lineage:detach(),
    Config.

end_per_testcase(_Case, _Config) ->
    _ = dbg:stop(),
    ok = lineage:detach().

%% 4 workers, each N times spawn_monitor: births exact, census equal to processes(), in both modes.
storm(_Config) ->
    on_peer(fun(Node) ->
                    [ok = peer:call(Node, ?MODULE, run_storm, [Exits, storm_size()], 120000)
                     || Exits <- [suspects, all]]
            end).

storm_size() ->
    list_to_integer(os:getenv("LINEAGE_STORM", "25000")).

run_storm(Exits, N) ->
    {ok, _} = lineage:attach(#{exits => Exits}),
    count_own(true),
    #{births := Before} = lineage:summary(),
    in_parallel(4, fun() -> spawn_and_wait(N) end),
    #{births := After} = lineage:summary(),
    ?assertEqual(4 * N + 4, After - Before - own()),
    count_own(false),
    same_sets(2),
    #{seen := Seen, swept := Swept, deaths := Deaths, lost := Lost} = lineage:summary(),
    ?assertEqual(Deaths, Seen + Swept),
    ?assertEqual(0, Lost),
    ?assert(Deaths >= 4 * N + 4),
    lineage:detach().

%% Lineage starts a process by itself every few seconds, and a storm may last longer: births of its own are
%% counted at the functions that they run.
-define(OWN, [{lineage_walk, run_apart, 3}, {lineage_walk, worker, 3}, {lineage_proc, run, 3},
              {lineage_proc, helper, 3}]).

count_own(Switch) ->
    ok = code:ensure_modules_loaded([lineage_walk, lineage_proc]),
    [1 = erlang:trace_pattern(MFA, Switch, [local, call_count]) || MFA <- ?OWN].

own() ->
    lists:sum([element(2, erlang:trace_info(MFA, call_count)) || MFA <- ?OWN]).

%% Sensitive processes, killed at birth, linked and unlinked.
rough_storm(_Config) ->
    on_peer(fun(Node) ->
                    [ok = peer:call(Node, ?MODULE, run_rough_storm, [Exits, storm_size() div 10], 120000)
                     || Exits <- [suspects, all]]
            end).

run_rough_storm(Exits, N) ->
    {ok, _} = lineage:attach(#{exits => Exits}),
    in_parallel(4, fun() -> process_flag(trap_exit, true), [rough(I) || I <- lists:seq(1, N)] end),
    same_sets(2),
    lineage:detach().

rough(I) ->
    case I rem 4 of
        0 -> wait_for(spawn_monitor(fun() -> process_flag(sensitive, true) end));
        1 ->
            {Pid, _} = Killed = spawn_monitor(fun() -> exit(too_late) end),
            exit(Pid, kill),
            wait_for(Killed);
        2 ->
            {Pid, _} = Linked = spawn_opt(fun() -> receive go -> ok end end, [link, monitor]),
            unlink(Pid),
            Pid ! go,
            wait_for(Linked);
        3 ->
            Me = self(),
            wait_for(spawn_monitor(fun() -> link(Me), unlink(Me), link(Me) end)),
            flush_exits()
    end.

%% The worker traps exits; each wait would look through all that came before.
flush_exits() ->
    receive {'EXIT', _, _} -> flush_exits() after 0 -> ok end.

spawn_and_wait(0) -> ok;
spawn_and_wait(N) ->
    wait_for(spawn_monitor(fun() -> ok end)),
    spawn_and_wait(N - 1).

wait_for({Pid, Monitor}) ->
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

in_parallel(Workers, Fun) ->
    [wait_for(W) || W <- [spawn_monitor(Fun) || _ <- lists:seq(1, Workers)]].

%% Attaching and detaching while processes are born and die all the time.
cycles(_Config) ->
    Cycles = list_to_integer(os:getenv("LINEAGE_CYCLES", "50")),
    on_peer(fun(Node) -> ok = peer:call(Node, ?MODULE, run_cycles, [Cycles], 300000) end).

run_cycles(Cycles) ->
    Storms = [spawn_monitor(fun Storm() -> wait_for(spawn_monitor(fun() -> ok end)), Storm() end)
              || _ <- [1, 2]],
    lists:foreach(fun(I) ->
                          Exits = case I rem 2 of 0 -> suspects; 1 -> all end,
                          {ok, #{exits := Exits}} = lineage:attach(#{exits => Exits}),
                          #{live := Live} = lineage:summary(),
                          true = Live > 10,
                          ok = lineage:detach()
                  end, lists:seq(1, Cycles)),
    [exit(Pid, kill) || {Pid, _} <- Storms],
    [wait_for(Storm) || Storm <- Storms],
    {error, closed} = lineage_nif:info(),
    ok.

second_attach(_Config) ->
    {ok, #{exits := suspects}} = lineage:attach(),
    {error, {already_attached, Sentence}} = lineage:attach(#{exits => all}),
    ?assertMatch({_, _}, binary:match(Sentence, <<"lineage:detach()">>)),
    ok = lineage:detach(),
    {ok, #{exits := all}} = lineage:attach(#{exits => all}).

bad_options(_Config) ->
    [begin
         {error, {bad_option, Sentence}} = lineage:attach(#{Key => Value}),
         ?assertMatch({_, _}, binary:match(Sentence, atom_to_binary(Key)), Key)
     end || {Key, Value} <- [{exits, some}, {monitors, yes}, {sites, line}, {wrappers, [1]}, {max_bytes, 0}, {for, -1},
                             {max_spawn_rate, 1.5}, {runtime, [1]}, {hosts, x}, {services, [{a, b}]},
                             {supervisors, [{a, b, 256}]}, {progress, 1}, {colour, blue}]],
    {error, {bad_options, _}} = lineage:attach([{exits, all}]),
    {error, {bad_option, _}} = lineage:attach(#{hosts => [a | b]}).

%% As many as may be given have room.
many_listed(_Config) ->
    Listed = fun(List, Many) -> [{list_to_atom(atom_to_list(List) ++ integer_to_list(N)), f, '_'} || N <- lists:seq(1, Many)] end,
    {error, {bad_option, Sentence}} = lineage:attach(#{hosts => Listed(hosts, 51)}),
    ?assertMatch({_, _}, binary:match(Sentence, <<"at most 50">>)),
    {ok, _} = lineage:attach(#{hosts => [{M, F, 0} || {M, F, _} <- Listed(hosts, 200)]}),
    ok = lineage:detach(),
    {ok, _} = lineage:attach(maps:from_list([{List, Listed(List, 50)} || List <- [runtime, hosts, services, supervisors]])),
    ok = lineage:detach().

caller_dies(_Config) ->
    wait_for(spawn_monitor(fun() -> {ok, _} = lineage:attach() end)),
    #{births := Births} = lineage:summary(),
    wait_for(spawn_monitor(fun() -> ok end)),
    ?assert(maps:get(births, lineage:summary()) > Births).

session_dies(_Config) ->
    {ok, _} = lineage:attach(#{exits => all}),
    Session = whereis(lineage_session),
    Monitor = monitor(process, Session),
    exit(Session, kill),
    wait_for({Session, Monitor}),
    %% which_children answers when the supervisor has started another one.
    [{lineage_session, _, _, _}] = supervisor:which_children(lineage_sup),
    Sentence = sentence(fun() -> lineage:summary() end),
    ?assertMatch({_, _}, binary:match(Sentence, <<"crashed">>)),
    none = lineage_hook:holder(),
    {ok, _} = lineage:attach(#{exits => all}),
    same_sets(1).

detach_while_attaching(_Config) ->
    Me = self(),
    %% The first progress report comes from a session that is attaching; the caller is held there.
    Sleepers = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 20000)],
    Attach = fun Attach() ->
                     Caller = spawn_monitor(
                                fun() ->
                                        Progress = fun(_, _) -> lineage:detach() end,
                                        Me ! {answer, lineage:attach(#{progress => Progress})}
                                end),
                     wait_for(Caller),
                     receive
                         {answer, {error, {detached_meanwhile, _}}} -> ok;
                         %% It was kept waiting until the session had attached.
                         {answer, {ok, _}} -> Attach()
                     end
             end,
    Attach(),
    {error, closed} = lineage_nif:info(),
    none = lineage_hook:holder(),
    [P ! stop || P <- Sleepers],
    {ok, _} = lineage:attach().

existing_processes(_Config) ->
    {ok, Supervisor} = logger_sup(),
    Orphan = spawn(fun() -> receive stop -> ok end end),
    {ok, #{existing := Existing, flagged := Flagged}} = lineage:attach(),
    ?assert(Existing >= length(processes()) - 5),
    ?assert(Flagged < Existing),
    #{flags := Flags, guardian := Guardian} = lineage_nif:record(Supervisor),
    ?assert(lists:member(supervisor, Flags)),
    ?assert(lists:member(Guardian, element(2, process_info(Supervisor, links)))),
    #{flags := Seeded, guardian := undefined, parent := Parent} = lineage_nif:record(Orphan),
    ?assertEqual(self(), Parent),
    ?assert(lists:member(suspect, Seeded)),
    Masters = [Pid || {App, _, _} <- application:which_applications(),
                      Pid <- [application_controller:get_master(App)], is_pid(Pid)],
    ?assert(length(Masters) >= 2),
    [?assert(lists:member(root, maps:get(flags, lineage_nif:record(Pid))), Pid) || Pid <- Masters],
    Starters = [Pid || {Pid, _, _, _, {application_master, start_it, _}, Fs, _} <- lineage_nif:records(),
                       lists:member(root, Fs)],
    ?assertEqual(length(Masters), length(Starters)),
    exit(Orphan, kill).

logger_sup() ->
    {ok, whereis(logger_sup)}.

%% A process with more than 10,000 children is not asked for its links.
big_supervisor(_Config) ->
    Me = self(),
    Parent = spawn_link(
               fun() ->
                       Big = spawn_link(
                               fun() ->
                                       [spawn_link(fun() -> receive stop -> ok end end)
                                        || _ <- lists:seq(1, 10001)],
                                       Me ! {big, self()},
                                       receive stop -> ok end
                               end),
                       receive stop -> exit(Big, kill) end
               end),
    Big = receive {big, Pid} -> Pid end,
    {ok, #{sampled := Sampled}} = lineage:attach(),
    ?assert(lists:member(Big, Sampled)),
    #{guardian := Parent} = lineage_nif:record(Big),
    unlink(Parent),
    exit(Big, kill),
    Parent ! stop.

listed_names(_Config) ->
    Host = spawn(fun() -> receive stop -> ok end end),
    register(lineage_test_host, Host),
    {ok, _} = lineage:attach(#{hosts => [lineage_test_host], runtime => [{?MODULE, no_such, 0}]}),
    #{flags := Flags} = lineage_nif:record(Host),
    ?assert(lists:member(host, Flags)),
    %% The name moves, and so does what it means.
    unregister(lineage_test_host),
    register(lineage_test_host, self()),
    lineage_session:check(),
    #{flags := Moved} = lineage_nif:record(Host),
    ?assertNot(lists:member(host, Moved)),
    #{flags := Mine} = lineage_nif:record(self()),
    ?assert(lists:member(host, Mine)),
    unregister(lineage_test_host),
    exit(Host, kill).

yield_to_dbg(_Config) ->
    {ok, _} = lineage:attach(#{exits => all}),
    Me = self(),
    Seen = lineage:yield(
             fun() ->
                     {ok, _} = dbg:tracer(process, {fun(M, S) -> Me ! M, S end, []}),
                     {ok, _} = dbg:p(new, [procs]),
                     Pid = spawn(fun() -> receive stop -> ok end end),
                     receive {trace, Pid, spawned, _, _} -> ok end,
                     stop_dbg(),
                     Pid
             end),
    #{flags := Flags} = lineage_nif:record(Seen),
    ?assert(lists:member(seeded, Flags)),
    #{blind_ms := Blind} = lineage:summary(),
    ?assert(is_integer(Blind)),
    {tracer, {lineage_nif, _}} = erlang:trace_info(Seen, tracer),
    same_sets(1),
    Seen ! stop,
    ?assertError({lineage, bad_fun}, lineage:yield(no_fun)).

yielder_dies(_Config) ->
    {ok, _} = lineage:attach(),
    wait_for(spawn_monitor(fun() -> lineage:yield(fun() -> exit(gone) end) end)),
    wait_for(spawn_monitor(fun() -> lineage:yield(fun() -> exit(self(), kill), receive never -> ok end end) end)),
    resumed().

%% The session hears of the yielder's end by a monitor of its own, it may be later than we by ours.
resumed() ->
    lineage_session:check(),
    case lineage_hook:holder() of
        {lineage_nif, _} -> ok;
        none -> resumed()
    end.

dbg_takes_the_hook(_Config) ->
    {ok, _} = lineage:attach(),
    {ok, _} = dbg:tracer(process, {fun(_, S) -> S end, []}),
    {ok, _} = dbg:p(new, [procs]),
    lineage_session:check(),
    Unseen = spawn(fun() -> receive stop -> ok end end),
    undefined = lineage_nif:record(Unseen),
    ?assertMatch([_ | _], [N || N <- lineage_session:lookup(notes), matches(N, <<"hook on new processes is gone">>)]),
    stop_dbg(),
    lineage_session:check(),
    #{flags := Flags} = lineage_nif:record(Unseen),
    ?assert(lists:member(seeded, Flags)),
    {lineage_nif, _} = lineage_hook:holder(),
    same_sets(1),
    Unseen ! stop.

%% dbg:stop/0 returns before its tracer is gone, which holds the hook for as long.
stop_dbg() ->
    {ok, Tracer} = dbg:get_tracer(),
    Gone = {Tracer, monitor(process, Tracer)},
    dbg:stop(),
    wait_for(Gone).

%% erlang:trace(all, false, [all]) takes every flag from everybody.
flags_cleared(_Config) ->
    Old = spawn(fun() -> receive stop -> ok end end),
    {ok, _} = lineage:attach(),
    erlang:trace(all, false, [all]),
    Unseen = spawn(fun() -> receive stop -> ok end end),
    lineage_session:check(),
    [{tracer, {lineage_nif, _}} = erlang:trace_info(P, tracer) || P <- [Old, Unseen, new_processes]],
    same_sets(1),
    [P ! stop || P <- [Old, Unseen]].

%% A child by set_on_spawn of another's tracee passes the hook by; the comparison finds it.
set_on_spawn(_Config) ->
    {ok, _} = lineage:attach(),
    Tracer = spawn(fun Drain() -> receive stop -> ok; _ -> Drain() end end),
    Me = self(),
    {Parent, Monitor} = spawn_monitor(
                          fun() ->
                                  receive go -> ok end,
                                  Me ! {child, spawn(fun() -> receive stop -> ok end end)}
                          end),
    %% Ours until it links; the other tool can have it once it is shed.
    lineage:yield(fun() -> 1 = erlang:trace(Parent, true, [call, set_on_spawn, {tracer, Tracer}]) end),
    Parent ! go,
    Child = receive {child, Pid} -> Pid end,
    wait_for({Parent, Monitor}),
    lineage_session:check(),
    #{pid := Child} = lineage_nif:record(Child),
    same_sets(1),
    [P ! stop || P <- [Child, Tracer]].

another_tracer_first(_Config) ->
    {ok, _} = dbg:tracer(process, {fun(_, S) -> S end, []}),
    {ok, _} = dbg:p(new, [procs]),
    {error, {tracer_held, Sentence}} = lineage:attach(),
    ?assert(matches(Sentence, <<"dbg:stop()">>)),
    {error, closed} = lineage_nif:info(),
    stop_dbg(),
    {ok, _} = lineage:attach().

%% A tool was stopped, and its tracer has something to do still.
tracer_ends(_Config) ->
    Tracer = spawn(fun() -> receive stop -> ok end, receive after 50 -> ok end end),
    0 = erlang:trace(new_processes, true, [procs, {tracer, Tracer}]),
    Tracer ! stop,
    {ok, _} = lineage:attach().

tracees_of_another(_Config) ->
    Tracer = spawn(fun Drain() -> receive stop -> ok; _ -> Drain() end end),
    Tracee = spawn(fun() -> receive stop -> ok end end),
    1 = erlang:trace(Tracee, true, [procs, {tracer, Tracer}]),
    {ok, #{tracers := [Tracer]}} = lineage:attach(),
    ok = lineage:detach(),
    {tracer, Tracer} = erlang:trace_info(Tracee, tracer),
    [P ! stop || P <- [Tracee, Tracer]].

fuse_time(_Config) ->
    listen(),
    {ok, #{for := 50}} = lineage:attach(#{for => 50}),
    heard(<<"fuse `for`">>),
    ?assert(matches(sentence(fun() -> lineage:pids() end), <<"fuse `for` of 50 ms ran out">>)),
    {error, closed} = lineage_nif:info().

fuse_rate(_Config) ->
    listen(),
    {ok, _} = lineage:attach(#{max_spawn_rate => 1000}),
    Storm = spawn_monitor(fun Storm() -> wait_for(spawn_monitor(fun() -> ok end)), Storm() end),
    heard(<<"max_spawn_rate">>),
    exit(element(1, Storm), kill),
    wait_for(Storm),
    ?assert(matches(sentence(fun() -> lineage:summary() end), <<"max_spawn_rate">>)).

%% The session says it in the log; that is the event to wait for.
listen() ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{to => self()}, level => notice}).

log(#{msg := {Format, Args}}, #{config := #{to := Pid}}) when is_list(Format) ->
    Pid ! {logged, unicode:characters_to_binary(io_lib:format(Format, Args))};
log(_Event, _Config) ->
    ok.

heard(Words) ->
    receive
        {logged, Text} ->
            case matches(Text, Words) of
                true -> ok = logger:remove_handler(?MODULE);
                false -> heard(Words)
            end
    end.

sensitive(_Config) ->
    {ok, _} = lineage:attach(#{exits => all}),
    {Pid, _} = Sensitive = spawn_monitor(fun() -> process_flag(sensitive, true), receive stop -> ok end end),
    #{pid := Pid} = lineage_nif:record(Pid),
    Pid ! stop,
    wait_for(Sensitive),
    ?assertNot(lists:member(Pid, lineage:pids())),
    same_sets(1).

upgrade_refused(_Config) ->
    {ok, _} = lineage:attach(),
    code:purge(lineage_nif),
    {error, on_load_failure} = code:load_file(lineage_nif),
    #{live := _} = lineage:summary(),
    {Pid, _} = spawn_monitor(fun() -> receive stop -> ok end end),
    #{pid := Pid} = lineage_nif:record(Pid),
    Pid ! stop.

nif_missing(Config) ->
    Dir = filename:join([?config(priv_dir, Config), "lineage-0", "ebin"]),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    [{ok, _} = file:copy(File, filename:join(Dir, filename:basename(File)))
     || File <- filelib:wildcard(filename:join(ebin(), "lineage*"))],
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000, args => ["-pa", Dir]}),
    {error, {nif_missing, Sentence}} = peer:call(Peer, lineage, attach, []),
    ?assert(matches(Sentence, <<"make">>)),
    ?assert(matches(Sentence, list_to_binary(erlang:system_info(otp_release)))),
    peer:stop(Peer).

application_stops(_Config) ->
    {ok, _} = lineage:attach(#{exits => all}),
    ok = application:stop(lineage),
    {error, closed} = lineage_nif:info(),
    none = lineage_hook:holder(),
    ok = lineage:detach(),
    ?assertError({lineage, not_attached}, lineage:summary()),
    {ok, _} = lineage:attach().

not_attached(_Config) ->
    [?assert(matches(sentence(Query), <<"lineage:attach()">>))
     || Query <- [fun() -> lineage:summary() end, fun() -> lineage:pids() end,
                  fun() -> lineage:orphans() end, fun() -> lineage:recent(1) end,
                  fun() -> lineage:tree() end, fun() -> lineage:yield(fun() -> ok end) end]].

%% Births beyond max_bytes are counted, not recorded; and detach lets go of them too.
memory_full(_Config) ->
    on_peer(fun(Node) -> ok = peer:call(Node, ?MODULE, run_memory_full, [30000], 60000) end,
            ["+P", "32768"]).

run_memory_full(N) ->
    {ok, _} = lineage:attach(#{max_bytes => 1700000, exits => all}),
    Pids = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, N)],
    #{lost := Lost, births := Births, bytes := Bytes} = lineage:summary(),
    true = Lost > 0,
    true = Births >= N,
    %% Tables of names, which do not grow with the processes, come on top.
    true = Bytes =< 1700000 + 65536,
    ok = lineage:detach(),
    [{flags, []} = erlang:trace_info(P, flags) || P <- Pids],
    [P ! stop || P <- Pids],
    ok.

flags_are_gone(_Config) ->
    Old = spawn(fun() -> receive stop -> ok end end),
    {ok, _} = lineage:attach(#{exits => all}),
    New = spawn(fun() -> receive stop -> ok end end),
    ok = lineage:detach(),
    [{flags, []} = erlang:trace_info(P, flags) || P <- [Old, New, new_processes]],
    [P ! stop || P <- [Old, New]].

%% monitors => exact: who would have noticed is known of all that were born since.
exact_monitors(_Config) ->
    Old = spawn(fun() -> exits_when_told(old_failed) end),
    OldMonitor = monitor(process, Old),
    {ok, #{monitors := exact, notes := Notes}} = lineage:attach(#{monitors => exact}),
    ?assertEqual(lineage_points:forgetful(), [] =/= [N || N <- Notes, matches(N, <<"monitors">>)]),
    Old ! go,
    receive {'DOWN', OldMonitor, _, _, _} -> ok end,
    wait_for(spawn_monitor(fun() -> exit(spawned_monitored) end)),
    Later = spawn(fun() -> exits_when_told(monitored_later) end),
    LaterMonitor = monitor(process, Later),
    Later ! go,
    receive {'DOWN', LaterMonitor, _, _, _} -> ok end,
    unheard(no_monitor, fun(_) -> ok end),
    unheard(given_up, fun(Pid) -> demonitor(monitor(process, Pid)) end),
    unheard(bad_call, fun(Pid) -> try erlang:monitor(process, Pid, [nonsense]) catch error:badarg -> ok end end),
    Monitored = maps:from_list([{Reason, M} || #{reason := Reason, monitored := M} <- lineage_nif:recent(100)]),
    ?assertMatch(#{spawned_monitored := yes, monitored_later := yes, no_monitor := no, given_up := no,
                   bad_call := no}, Monitored),
    %% Of one that was there before, what was monitored before is not known to be nothing.
    ?assertNotEqual(no, maps:get(old_failed, Monitored)),
    #{silent_failures := 3} = lineage:summary().

exits_when_told(Reason) ->
    receive go -> exit(Reason) end.

%% A table's heir is told of a death without a link and without a monitor.
unheard(Reason, Do) ->
    Me = self(),
    Pid = spawn(fun() ->
                        ets:new(unheard, [{heir, Me, Reason}]),
                        Me ! {ready, self()},
                        exits_when_told(Reason)
                end),
    receive {ready, Pid} -> Do(Pid) end,
    Pid ! go,
    receive {'ETS-TRANSFER', _, Pid, Reason} -> ok end.

%% Another tool clears every trace point; each is set again, and that is told.
exact_monitors_cleared(_Config) ->
    {ok, _} = lineage:attach(#{monitors => exact}),
    erlang:trace_pattern({'_', '_', '_'}, false, [meta]),
    lineage_session:check(),
    wait_for(spawn_monitor(fun() -> exit(after_all) end)),
    [yes] = [M || #{reason := after_all, monitored := M} <- lineage_nif:recent(10)],
    Told = [N || N <- lineage_session:lookup(notes), matches(N, <<"trace points of">>)],
    ?assertEqual(case lineage_hook:api() of single -> 1; sessions -> 0 end, length(Told)),
    ok = lineage:detach(),
    [{meta, false} = erlang:trace_info({erlang, F, A}, meta)
     || {F, A} <- [{monitor, 2}, {monitor, 3}, {demonitor, 1}, {demonitor, 2}, {spawn_opt, 4}]].

%% From 27 on another tool's session and ours do not disturb each other.
other_sessions(_Config) ->
    {ok, #{tracing := sessions}} = lineage:attach(#{exits => all}),
    Me = self(),
    {ok, _} = dbg:tracer(process, {fun(M, S) -> Me ! M, S end, []}),
    {ok, _} = dbg:p(new, [procs]),
    Pid = spawn(fun() -> receive stop -> ok end end),
    receive {trace, Pid, spawned, _, _} -> ok end,
    #{pid := Pid} = lineage_nif:record(Pid),
    dbg:stop(),
    lineage_session:check(),
    ?assertEqual(0, maps:get(blind_ms, lineage:summary())),
    same_sets(1),
    Pid ! stop.

%% Equal as sets, so many times in a row. A process that is born or dies between the two readings
%% makes one try fail, so there are more.
same_sets(Times) ->
    same_sets(Times, Times, 1000).

same_sets(0, _Times, _Tries) ->
    ok;
same_sets(_Left, _Times, 0) ->
    Census = lineage:pids(),
    ct:fail({census_differs, {only_census, Census -- processes()}, {only_vm, processes() -- Census}});
same_sets(Left, Times, Tries) ->
    case lists:sort(lineage:pids()) =:= lists:sort(processes()) of
        true -> same_sets(Left - 1, Times, Tries);
        false -> erlang:yield(), same_sets(Times, Times, Tries - 1)
    end.

sentence(Query) ->
    try Query() of
        Result -> ct:fail({no_error, Result})
    catch
        error:{lineage, _} = Reason:Stack ->
            #{general := Sentence} = lineage_error:format_error(Reason, Stack),
            Sentence
    end.

matches(Text, Words) ->
    binary:match(Text, Words) =/= nomatch.

on_peer(Fun) ->
    on_peer(Fun, []).

on_peer(Fun, Args) ->
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000,
                                 args => Args ++ ["-pa", ebin(), filename:dirname(code:which(?MODULE))]}),
    try Fun(Peer) after peer:stop(Peer) end.

ebin() ->
    filename:dirname(code:which(lineage)).

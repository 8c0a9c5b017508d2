%% Every kind, trap and host of the design, on a live node: this one, and peers where it takes two.
-module(lineage_report_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, groups/0, init_per_testcase/2, end_per_testcase/2]).
-export([detached/1, abandoned/1, escaped_by_unlink/1, escaped_listed_without_a_link/1, foreign/1]).
-export([ancestors_prove_nothing/1, a_link_to_an_orphan_proves_nothing/1, a_service_tethers_nobody/1,
         a_service_is_held_by_its_parent/1, a_path_that_traps_exits_may_survive/1,
         a_guardian_could_return_normally/1, a_supervised_child_does_not_survive/1, a_link_set_later_tethers/1,
         a_link_set_while_shed_is_seen/1, a_guardian_that_ended_normally/1, a_tree_that_hangs_on_nothing/1,
         a_bridge_supervises/1, a_foreign_supervisor_supervises/1, a_foreign_supervisor_lists_without_a_link/1,
         ignored_children_are_nobody/1, a_suspended_supervisor_is_unresolved/1,
         a_starting_supervisor_is_unresolved/1, a_stuck_process_is_unresolved/1, a_remote_link_joins_no_root/1,
         a_guardian_of_many_is_sampled/1, own_processes_are_left_out/1, a_group_leader_kills/1]).
-export([a_test_process_is_a_host/1, eunit_processes_are_hosts/1, a_shell_is_a_host/1, the_runtime_is_no_orphan/1]).
-export([filters/1, bad_options/1, not_attached/1, a_detach_in_mid_report/1]).
-export([why_of_a_dynamic_child/1, why_by_name_and_text/1, why_of_the_unknown/1, why_knows_a_dead_spawner/1,
         why_of_roots/1, monitors_notice/1, labels/1, recent_names_the_short_lived/1]).
-export([prompt/1]).

-define(T, lineage_report_things).

suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [{group, kinds}, {group, traps}, {group, hosts}, {group, options}, {group, why}].

groups() ->
    [{kinds, [], [detached, abandoned, escaped_by_unlink, escaped_listed_without_a_link, foreign]},
     {traps, [], [ancestors_prove_nothing, a_link_to_an_orphan_proves_nothing, a_service_tethers_nobody,
                  a_service_is_held_by_its_parent, a_path_that_traps_exits_may_survive,
                  a_guardian_could_return_normally, a_supervised_child_does_not_survive, a_link_set_later_tethers,
                  a_link_set_while_shed_is_seen, a_guardian_that_ended_normally, a_tree_that_hangs_on_nothing,
                  a_bridge_supervises, a_foreign_supervisor_supervises, a_foreign_supervisor_lists_without_a_link,
                  ignored_children_are_nobody, a_suspended_supervisor_is_unresolved,
                  a_starting_supervisor_is_unresolved, a_stuck_process_is_unresolved, a_remote_link_joins_no_root,
                  a_guardian_of_many_is_sampled, own_processes_are_left_out, a_group_leader_kills]},
     {hosts, [], [a_test_process_is_a_host, eunit_processes_are_hosts, a_shell_is_a_host, the_runtime_is_no_orphan]},
     {options, [], [filters, bad_options, not_attached, a_detach_in_mid_report]},
     {why, [], [why_of_a_dynamic_child, why_by_name_and_text, why_of_the_unknown, why_knows_a_dead_spawner, why_of_roots,
                monitors_notice, labels, recent_names_the_short_lived]}].

init_per_testcase(a_service_tethers_nobody, Config) ->
    ?T:attach(#{services => [{?T, wait, 1}]}, Config);
init_per_testcase(a_service_is_held_by_its_parent, Config) ->
    ?T:attach(#{services => [{?T, wait, 1}]}, Config);
init_per_testcase(_Case, Config) ->
    ?T:attach(#{}, Config).

end_per_testcase(_Case, Config) ->
    ?T:detach(Config).

%% Kinds

detached(_) ->
    Pid = spawn(?T, wait, []),
    #{kind := detached, parent := Parent, direct := true, monitored := no, initial_call := {?T, wait, 0},
      guardian := undefined, age_ms := Age, generation := Generation} = orphan(Pid),
    ?assertEqual(self(), Parent),
    ?assert(is_integer(Age) andalso Generation > 0),
    ?assertMatch(#{verdict := orphan, kind := detached, restarted_by := nobody}, lineage:why(Pid)).

abandoned(_) ->
    Pid = abandon(fun() -> spawn(?T, wait, []) end),
    #{kind := abandoned, parent := Parent} = orphan(Pid),
    ?assertNot(is_process_alive(Parent)).

escaped_by_unlink(_) ->
    Pid = spawn_link(?T, wait, []),
    ?assertEqual(none, orphan(Pid)),
    unlink(Pid),
    #{kind := escaped, guardian := Guardian} = orphan(Pid),
    ?assertEqual(self(), Guardian).

escaped_listed_without_a_link(_) ->
    Sup = ?T:start_sup([#{id => bare, start => {?T, bare_child, []}}]),
    [{bare, Pid, _, _}] = supervisor:which_children(Sup),
    #{kind := escaped, why := Why} = orphan(Pid),
    ?assert(lists:member({listed, Sup, bare}, Why)),
    #{verdict := orphan, kind := escaped, stopped_by := [Stopper | _], restarted_by := Restarter} = lineage:why(Pid),
    ?assertMatch(#{how := listed, pid := Sup, basis := {child, #{id := bare, restart := permanent}}}, Stopper),
    ?assertMatch(#{pid := Sup, id := bare, restart := permanent}, Restarter).

foreign(_) ->
    {Peer, Node} = node_with_lineage(?FUNCTION_NAME),
    {Other, OtherNode} = plain_node(other),
    Pid = peer:call(Other, erlang, spawn, [Node, ?T, wait, []]),
    [#{kind := foreign, parent := {OtherNode, Number}}] = [O || #{pid := P} = O <- peer:call(Peer, lineage, orphans, []), P =:= Pid],
    ?assert(is_integer(Number)),
    ?assertMatch(#{verdict := orphan, kind := foreign, spawner := #{pid := {OtherNode, _}}}, peer:call(Peer, lineage, why, [Pid])),
    stop_nodes([Peer, Other]).

%% Traps

ancestors_prove_nothing(_) ->
    Sup = ?T:start_sup([#{id => worker, start => {?T, linked_child, []}}]),
    Pid = in(Sup, fun() -> proc_lib:spawn(?T, wait, []) end),
    ?assertMatch(#{ancestors := [Sup | _]}, lineage_proc:otp_keys(Pid, 1000)),
    ?assertMatch(#{kind := detached, why := []}, orphan(Pid)).

a_link_to_an_orphan_proves_nothing(_) ->
    Orphan = ?T:start_server(),
    Helper = ?T:ask(Orphan, fun() -> spawn_link(?T, wait, []) end),
    ?assertMatch(#{direct := true, root := Orphan}, orphan(Orphan)),
    ?assertMatch(#{direct := false, root := Orphan, kind := detached}, orphan(Helper)).

a_service_tethers_nobody(_) ->
    Service = service(),
    Client = ?T:start_server(),
    ?T:ask(Client, fun() -> link(Service) end),
    ?assertEqual(none, orphan(Service)),
    ?assertMatch(#{kind := detached}, orphan(Client)),
    ?assertMatch(#{verdict := orphan}, lineage:why(Client)),
    unlink(Service).

a_service_is_held_by_its_parent(_) ->
    Service = service(),
    ?assertMatch(#{verdict := tethered}, lineage:why(Service)),
    ?assertEqual(none, orphan(Service)).

a_path_that_traps_exits_may_survive(_) ->
    Sup = below_kernel([#{id => w, start => {?T, linked_child, []}}]),
    [{w, Worker, _, _}] = supervisor:which_children(Sup),
    Pid = in(Sup, fun() -> spawn_link(?T, trap, []) end),
    ?T:wait_for(fun() -> process_info(Pid, trap_exit) =:= {trap_exit, true} end, Pid),
    Why = lineage:why(Pid),
    Safe = lineage:why(Worker),
    remove_from_kernel(),
    #{verdict := tethered, may_survive := true, survives := [Reason]} = Why,
    ?assertNotEqual(nomatch, string:find(Reason, "traps exits")),
    ?assertMatch(#{verdict := supervised, may_survive := false, survives := []}, Safe).

a_guardian_could_return_normally(_) ->
    Sup = below_kernel([#{id => w, start => {?T, server_child, []}}]),
    [{w, Worker, _, _}] = supervisor:which_children(Sup),
    Pid = ?T:ask(Worker, fun() -> spawn_link(?T, wait, []) end),
    Why = lineage:why(Pid),
    remove_from_kernel(),
    #{verdict := tethered, may_survive := true, survives := [Reason], restarted_by := nobody, stopped_by := Stops} = Why,
    ?assertNotEqual(nomatch, string:find(Reason, "could return normally")),
    ?assertMatch([#{how := link, pid := Worker, basis := {link, Pid, Worker}} | _], Stops).

%% A supervisor in a real application's tree.
below_kernel(Children) ->
    Spec = #{id => ?MODULE, start => {?T, sup_child, [Children]}, type => supervisor},
    {ok, Sup} = supervisor:start_child(kernel_safe_sup, Spec),
    Sup.

remove_from_kernel() ->
    ok = supervisor:terminate_child(kernel_safe_sup, ?MODULE),
    ok = supervisor:delete_child(kernel_safe_sup, ?MODULE).

a_supervised_child_does_not_survive(_) ->
    %% Below kernel's own supervisor, up to the application's master.
    Spec = #{id => ?FUNCTION_NAME, start => {?T, linked_child, []}, restart => transient, shutdown => 100},
    {ok, Pid} = supervisor:start_child(kernel_safe_sup, Spec),
    Why = lineage:why(Pid),
    ok = supervisor:terminate_child(kernel_safe_sup, ?FUNCTION_NAME),
    _ = supervisor:delete_child(kernel_safe_sup, ?FUNCTION_NAME),
    Sup = whereis(kernel_safe_sup),
    #{verdict := supervised, may_survive := false, survives := [], stopped_by := Stops, restarted_by := Restarter,
      ancestors := Ancestors} = Why,
    ?assertMatch([#{how := child, pid := Sup, name := kernel_safe_sup,
                    basis := {child, #{id := ?FUNCTION_NAME, restart := transient, shutdown := 100}}} | _], Stops),
    ?assertMatch(#{how := application, basis := {application, kernel}}, lists:last(Stops)),
    ?assertMatch(#{name := kernel_safe_sup, id := ?FUNCTION_NAME, restart := transient}, Restarter),
    ?assertMatch([#{pid := Sup, via := link}, #{name := kernel_sup}, #{class := [root]}], Ancestors).

a_link_set_later_tethers(_) ->
    Pid = ?T:start_server(),
    ?assertMatch(#{kind := detached}, orphan(Pid)),
    Self = self(),
    ?T:ask(Pid, fun() -> link(Self) end),
    ?assertEqual(none, orphan(Pid)),
    ?assertMatch(#{verdict := tethered}, lineage:why(Pid)).

%% A shed process lets its guardian go and links to another: the hook sees neither.
a_link_set_while_shed_is_seen(_) ->
    Orphan = ?T:start_server(),
    Pid = ?T:ask(Orphan, fun() -> spawn_link(fun() -> unlinker(Orphan) end) end),
    ?assertMatch(#{direct := false}, orphan(Pid)),
    Self = self(),
    ask_fun(Pid, fun() -> link(Self), unlink(Orphan) end),
    ?assertEqual(none, orphan(Pid)),
    ?assertMatch(#{guardian := Self}, lineage_nif:record(Pid)),
    ask_fun(Pid, fun() -> unlink(Self) end),
    ?assertMatch(#{kind := escaped}, orphan(Pid)).

a_guardian_that_ended_normally(_) ->
    Self = self(),
    Guardian = spawn_link(fun() ->
                                  Self ! {child, spawn_link(?T, wait, [])},
                                  receive stop -> ok end
                          end),
    Pid = receive {child, P} -> P end,
    ?assertEqual(none, orphan(Pid)),
    ?assertMatch(#{verdict := tethered, may_survive := true}, lineage:why(Pid)),
    stop(Guardian),
    ?assertMatch(#{kind := abandoned}, orphan(Pid)).

a_tree_that_hangs_on_nothing(_) ->
    Starter = ?T:start_server(),
    Sup = ?T:ask(Starter, fun() -> ?T:start_sup([#{id => w, start => {?T, linked_child, []}}]) end),
    [{w, Worker, _, _}] = supervisor:which_children(Sup),
    ?assertMatch(#{direct := true}, orphan(Starter)),
    ?assertMatch(#{direct := false, root := Starter}, orphan(Sup)),
    ?assertMatch(#{direct := false, root := Starter}, orphan(Worker)),
    %% Its starter gone (normally, so a supervisor goes too; a killed link set later does not).
    ?T:ask(Starter, fun() -> unlink(Sup) end),
    ?assertMatch(#{direct := true}, orphan(Sup)),
    ?assertMatch(#{direct := false, root := Sup}, orphan(Worker)).

a_bridge_supervises(_) ->
    {Bridge, Pid} = lineage_report_bridge:start(),
    #{verdict := supervised, ancestors := [#{pid := Bridge, class := Class} | _], restarted_by := nobody} = lineage:why(Pid),
    ?assert(lists:member(supervisor, Class)).

a_foreign_supervisor_supervises(_) ->
    {ok, Sup, Pid} = ?T:start_foreign(link),
    #{verdict := supervised, restarted_by := Restarter, stopped_by := [Stopper | _]} = lineage:why(Pid),
    ?assertMatch(#{pid := Sup, id := conn, restart := unresolved}, Restarter),
    ?assertMatch(#{how := child, pid := Sup}, Stopper),
    ?assert(is_process_alive(Sup)).

a_foreign_supervisor_lists_without_a_link(_) ->
    {ok, Sup, Pid} = ?T:start_foreign(bare),
    ?assertMatch(#{kind := escaped, why := [{listed, Sup, conn} | _]}, orphan(Pid)).

ignored_children_are_nobody(_) ->
    Sup = ?T:start_sup([#{id => ignored, start => {?T, ignored_child, []}}, #{id => w, start => {?T, linked_child, []}}]),
    Pid = in(Sup, fun() -> proc_lib:spawn(?T, wait, []) end),
    ?assertMatch(#{kind := detached}, orphan(Pid)),
    [Worker] = [P || {w, P, _, _} <- supervisor:which_children(Sup)],
    ?assertMatch(#{verdict := supervised, restarted_by := #{id := w}}, lineage:why(Worker)).

a_suspended_supervisor_is_unresolved(_) ->
    Sup = ?T:start_sup([#{id => w, start => {?T, linked_child, []}}, #{id => bare, start => {?T, bare_child, []}}]),
    [Linked] = [P || {w, P, _, _} <- supervisor:which_children(Sup)],
    [Bare] = [P || {bare, P, _, _} <- supervisor:which_children(Sup)],
    ok = sys:suspend(Sup),
    #{verdict := supervised, restarted_by := unresolved} = lineage:why(Linked),
    #{kind := Kind, why := Why} = orphan(Bare),
    ?assertEqual(detached, Kind),
    ?assert(lists:member({unresolved, Sup}, Why)),
    ?assertMatch(#{verdict := orphan, restarted_by := unresolved}, lineage:why(Bare)),
    ok = sys:resume(Sup).

a_starting_supervisor_is_unresolved(_) ->
    Sup = ?T:start_sup([#{id => w, start => {?T, linked_child, []}}]),
    [{w, Pid, _, _}] = supervisor:which_children(Sup),
    Asker = spawn(fun() -> supervisor:start_child(Sup, #{id => never, start => {?T, never, []}}) end),
    ?T:wait_for(fun() -> {current_function, {?T, never, 0}} =:= process_info(Sup, current_function) end, Sup),
    ?assertMatch(#{verdict := supervised, restarted_by := unresolved}, lineage:why(Pid)),
    exit(Asker, kill),
    Sup ! never.

%% One that does not answer in time is neither called an orphan nor waited for.
a_stuck_process_is_unresolved(_) ->
    Stuck = spawn(?T, wait, []),
    true = erlang:suspend_process(Stuck),
    Suspended = lineage_proc:info(Stuck, [links], 200),
    {Elapsed, Rows} = timer:tc(fun lineage:orphans/0),
    {_, Coverage} = lineage_report:orphans_report(#{}),
    true = erlang:resume_process(Stuck),
    case Suspended of
        unresolved ->
            ?assertEqual([], [P || #{pid := P} <- Rows, P =:= Stuck]),
            ?assertMatch(#{unresolved := N} when N > 0, Coverage);
        #{links := []} ->
            ?assertMatch([_], [P || #{pid := P} <- Rows, P =:= Stuck])
    end,
    ?assert(Elapsed < 10000000),
    ?assertMatch(#{kind := detached}, orphan(Stuck)).

a_remote_link_joins_no_root(_) ->
    {Peer, Node} = node_with_lineage(?FUNCTION_NAME),
    {Other, OtherNode} = plain_node(other),
    Far = peer:call(Other, erlang, whereis, [kernel_sup]),
    Pid = peer:call(Peer, ?T, start_server, []),
    true = peer:call(Peer, ?T, ask, [Pid, link, Far]),
    ?assertEqual(Node, node(Pid)),
    [#{kind := abandoned, why := Why}] = [O || #{pid := P} = O <- peer:call(Peer, lineage, orphans, []), P =:= Pid],
    ?assertEqual([{remote_link, Far}], Why),
    #{verdict := orphan, stopped_by := Stops} = peer:call(Peer, lineage, why, [Pid]),
    ?assertMatch([#{how := remote_link, pid := Far}], Stops),
    ?assertMatch({error, {remote_pid, _}}, peer:call(Peer, lineage, why, [Far])),
    ?assertEqual(OtherNode, node(Far)),
    stop_nodes([Peer, Other]).

%% Links of more than 10,000 are not read; the children are asked instead, and the report says so.
a_guardian_of_many_is_sampled(_) ->
    Holder = spawn_link(fun() -> many(10100) end),
    ?T:ask(Holder, fun() -> ok end),
    {Rows, #{sampled := Sampled}} = lineage_report:orphans_report(#{}),
    ?assertMatch([#{children := 10100, looked := Looked, unlinked := 0}] when Looked > 0,
                 [S || #{guardian := G} = S <- Sampled, G =:= Holder]),
    ?assertEqual([], [R || #{guardian := G} = R <- Rows, G =:= Holder]),
    ?assertMatch(#{verdict := tethered, noticed_by := []}, lineage:why(Holder)),
    unlink(Holder),
    exit(Holder, kill).

own_processes_are_left_out(_) ->
    Own = [whereis(lineage_sup), whereis(lineage_session)],
    ?assertEqual([], [P || #{pid := P} <- lineage:orphans(), lists:member(P, Own)]),
    ?assertEqual([], [P || P <- ?T:shown(lineage:tree()), lists:member(P, Own)]),
    ?assertEqual([], [D || #{initial_call := {lineage_proc, _, _}} = D <- lineage:recent(1000)]).

a_group_leader_kills(_) ->
    Master = application_controller:get_master(kernel),
    Pid = ?T:start_server(),
    group_leader(Master, Pid),
    ?assertMatch(#{app := kernel, why := [{group_leader, kernel}]}, orphan(Pid)),
    ?assertMatch([#{how := group_leader, basis := {application, kernel}}], maps:get(stopped_by, lineage:why(Pid))).

%% Hosts

a_test_process_is_a_host(_) ->
    ?assertEqual(none, orphan(self())),
    #{ancestors := Ancestors, verdict := Verdict} = lineage:why(self()),
    %% The runner is linked to whoever started it, or a host itself.
    ?assert(Verdict =:= host orelse Verdict =:= tethered),
    ?assert(Verdict =:= host orelse lists:any(fun(#{class := C}) -> C =/= [] end, Ancestors)),
    Pid = spawn_link(?T, wait, []),
    ?assertMatch(#{verdict := tethered, ancestors := [#{pid := Self} | _]} when Self =:= self(), lineage:why(Pid)).

eunit_processes_are_hosts(_) ->
    Self = self(),
    Test = fun() ->
                   Linked = spawn_link(?T, wait, []),
                   Bare = spawn(?T, wait, []),
                   Self ! {eunit, orphan(self()), orphan(Linked), orphan(Bare), lineage:why(Linked)},
                   exit(Bare, kill)
           end,
    ok = eunit:test(Test, [no_tty]),
    receive
        {eunit, Runner, Linked, Bare, Why} ->
            ?assertEqual(none, Runner),
            ?assertEqual(none, Linked),
            ?assertMatch(#{kind := detached}, Bare),
            ?assertMatch(#{verdict := tethered}, Why)
    end.

%% A real shell that waits for a line: its own processes are no orphans.
a_shell_is_a_host(_) ->
    Self = self(),
    Leader = spawn_link(?MODULE, prompt, [Self]),
    Shell = spawn(fun() -> group_leader(Leader, self()), shell:server(false, false) end),
    Reader = receive {asked_for_a_line, From} -> From end,
    Before = proplists:get_value(links, process_info(Shell, [links])),
    Its = lists:usort([Shell, Reader | [P || P <- Before, is_pid(P)]]),
    ?assertEqual([], [O || #{pid := P} = O <- lineage:orphans(), lists:member(P, Its)]),
    ?assertMatch(#{verdict := host}, lineage:why(Shell)),
    exit(Shell, kill).

%% Takes the shell's output, tells of its first question, and leaves it unanswered.
prompt(Teller) ->
    receive
        {io_request, From, As, Request} ->
            case kind(Request) of
                put_chars -> From ! {io_reply, As, ok};
                get_until -> Teller ! {asked_for_a_line, From};
                get_line -> Teller ! {asked_for_a_line, From};
                _ -> From ! {io_reply, As, {error, request}}
            end;
        _ ->
            ok
    end,
    prompt(Teller).

kind(Request) when is_tuple(Request) -> element(1, Request);
kind(Request) -> Request.

the_runtime_is_no_orphan(_) ->
    Names = [init, erl_prim_loader, application_controller, erts_code_purger],
    [?assertMatch(#{verdict := runtime, stopped_by := []}, lineage:why(Name)) || Name <- Names],
    ?assertEqual([], [P || #{pid := P, age_ms := _, generation := 0} <- lineage:orphans(), pid_number(P) < 40]).

pid_number(Pid) ->
    [_, Number, _] = string:split(pid_to_list(Pid), ".", all),
    list_to_integer(Number).

%% Options and errors

filters(_) ->
    Detached = spawn(?T, wait, []),
    Abandoned = abandon(fun() -> spawn(?T, trap, []) end),
    Helper = ?T:start_server(),
    Below = ?T:ask(Helper, fun() -> spawn_link(?T, wait, []) end),
    register(lineage_report_named, Helper),
    Pids = fun(Options) -> [P || #{pid := P} <- lineage:orphans(Options), lists:member(P, [Detached, Abandoned, Helper, Below])] end,
    ?assertEqual(4, length(Pids(#{}))),
    ?assertEqual([Abandoned], Pids(#{kind => abandoned})),
    ?assertEqual(4, length(Pids(#{kind => [abandoned, detached]}))),
    ?assertEqual([], Pids(#{min_age_ms => 3600000})),
    ?assertEqual([], Pids(#{app => kernel})),
    ?assertEqual([Abandoned], Pids(#{ignore => [{?T, wait, 0}, lineage_report_named]})),
    %% What hangs below an ignored one is ignored with it.
    ?assertEqual(lists:sort([Detached, Abandoned]), lists:sort(Pids(#{ignore => [lineage_report_named]}))),
    %% Guardians come first, and what hangs together is told together.
    ?assertEqual(lists:sort([Helper, Below]), lists:sort([P || #{pid := P} <- lineage:orphans(#{max => 1})])).

bad_options(_) ->
    ?assertError({lineage, bad_argument}, lineage:orphans(#{kind => nonsense})),
    ?assertError({lineage, bad_argument}, lineage:orphans(#{app => "kernel"})),
    ?assertError({lineage, bad_argument}, lineage:orphans(#{min_age_ms => -1})),
    ?assertError({lineage, bad_argument}, lineage:orphans(#{ignore => [1]})),
    ?assertError({lineage, bad_argument}, lineage:orphans(#{max => 0})),
    ?assertError({lineage, bad_argument}, lineage:orphans([])),
    ?assertError({lineage, bad_count}, lineage:recent(0)),
    ?assertError({lineage, bad_argument}, lineage:tree(#{width => 0})),
    ?assertNotEqual(nomatch, string:find(sentence(fun() -> lineage:orphans(#{knd => foreign}) end), "knd")),
    ?assertNotEqual(nomatch, string:find(sentence(fun() -> lineage:tree(#{wdth => 1}) end), "wdth")).

not_attached(_) ->
    ok = lineage:detach(),
    [?assertNotEqual(nomatch, string:find(sentence(Query), "attach"))
     || Query <- [fun() -> lineage:orphans() end, fun() -> lineage:recent(1) end, fun() -> lineage:why(self()) end,
                  fun() -> lineage:tree() end, fun() -> lineage:diff("x") end, fun() -> lineage:save("x") end]].

%% Whoever asks while another detaches is told so, and nothing else.
a_detach_in_mid_report(_) ->
    Pid = ?T:start_server(),
    Queries = [fun lineage:orphans/0, fun() -> lineage:why(Pid) end, fun lineage:tree/0, fun lineage:summary/0],
    {Asker, Monitor} = spawn_monitor(fun() -> ask_until_stopped(Queries, #{}) end),
    [begin
         ok = lineage:detach(),
         {ok, _} = lineage:attach()
     end || _ <- lists:seq(1, 10)],
    Asker ! stop,
    receive {'DOWN', Monitor, process, Asker, Reason} -> ?assertEqual(all_answered, Reason) end.

%% Stops once each has been answered.
ask_until_stopped([Query | Rest], Answered) ->
    New = try Query() of
              _ -> Answered#{Query => true}
          catch
              error:{lineage, Tag} when Tag =:= not_attached; Tag =:= attaching -> Answered
          end,
    Done = map_size(New) =:= length([Query | Rest]),
    receive
        stop when Done -> exit(all_answered)
    after 0 ->
        erlang:yield(),
        ask_until_stopped(Rest ++ [Query], New)
    end.

sentence(Fun) ->
    try Fun() of
        _ -> no_error
    catch
        error:Reason:Stack ->
            #{general := Sentence} = lineage_error:format_error(Reason, Stack),
            Sentence
    end.

%% Why

why_of_a_dynamic_child(_) ->
    Spec = #{id => any, start => {?T, linked_child, []}, restart => temporary, shutdown => brutal_kill},
    Sup = ?T:start_sup(simple_one_for_one, [Spec]),
    {ok, Pid} = supervisor:start_child(Sup, []),
    #{verdict := supervised, restarted_by := Restarter, stopped_by := [Stopper | _]} = lineage:why(Pid),
    ?assertMatch(#{pid := Sup, restart := temporary, id := undefined}, Restarter),
    ?assertMatch(#{how := child, basis := {child, #{shutdown := brutal_kill}}}, Stopper).

why_by_name_and_text(_) ->
    Pid = whereis(kernel_sup),
    Text = pid_to_list(Pid),
    Bare = string:trim(Text, both, "<>"),
    [?assertMatch(#{pid := Pid, name := kernel_sup, verdict := tethered, may_survive := false}, lineage:why(What))
     || What <- [Pid, kernel_sup, Text, Bare, list_to_binary(Bare), "#PID" ++ Text]].

why_of_the_unknown(_) ->
    {Dead, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Dead, _} -> ok end,
    ?assertMatch({error, {dead_pid, _}}, lineage:why(Dead)),
    [?assertMatch({error, {unknown_pid, _}}, lineage:why(What)) || What <- [no_such_name, "no pid", <<"1.2">>, 17, {a}, [a]]],
    ?assertMatch({error, {_, <<_/binary>>}}, lineage:why("0.268435455.0")).

why_knows_a_dead_spawner(_) ->
    Pid = abandon(fun() -> spawn(?T, wait, []) end),
    #{spawner := Spawner, ancestors := [Spawner]} = lineage:why(Pid),
    ?assertMatch(#{alive := false, initial_call := {erlang, apply, 2}, via := parent}, Spawner).

why_of_roots(_) ->
    Master = application_controller:get_master(kernel),
    ?assertMatch(#{verdict := root, stopped_by := [#{how := application, basis := {application, kernel}}]}, lineage:why(Master)),
    ?assertMatch(#{stopped_by := [#{how := link}, #{how := application, basis := {application, kernel}, pid := Master}]},
                 lineage:why(kernel_sup)).

monitors_notice(_) ->
    Pid = spawn(?T, wait, []),
    ?assertMatch(#{monitored := no}, orphan(Pid)),
    Monitor = monitor(process, Pid),
    ?assertMatch(#{monitored := yes}, orphan(Pid)),
    Self = self(),
    ?assertMatch(#{noticed_count := 1, noticed_by := [#{pid := Self, by := monitor}]}, lineage:why(Pid)),
    demonitor(Monitor),
    ?assertMatch(#{noticed_count := 0, noticed_by := []}, lineage:why(Pid)).

labels(_) ->
    Self = self(),
    Labelled = fun(Label) ->
                       Pid = proc_lib:spawn(fun() -> put('$process_label', Label), ?T:wait(Self) end),
                       receive {ready, Pid} -> ok end,
                       #{label := Shown} = orphan(Pid),
                       Shown
               end,
    ?assertEqual(shop, Labelled(shop)),
    ?assertEqual(<<"shop 1">>, Labelled(<<"shop 1">>)),
    ?assertEqual(<<"shop 2">>, Labelled("shop 2")),
    ?assertEqual(64, byte_size(Labelled(binary:copy(<<"a">>, 100)))),
    ?assertEqual(undefined, Labelled({secret, "pass", #{key => word}})),
    ?assertEqual(undefined, Labelled(<<0, 1, 2>>)).

recent_names_the_short_lived(_) ->
    {Pid, Monitor} = spawn_monitor(?T, bare_child, []),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    ?assertMatch([#{initial_call := {?T, bare_child, 0}, lifetime_us := _, reason := normal, abnormal := false}],
                 [D || #{pid := P} = D <- lineage:recent(1000), P =:= Pid]),
    ?assertEqual(1, length(lineage:recent(1))).

%% Help

orphan(Pid) ->
    case [O || #{pid := P} = O <- lineage:orphans(), P =:= Pid] of
        [Orphan] -> Orphan;
        [] -> none
    end.

%% Runs a function in a process that then dies.
abandon(Fun) ->
    Self = self(),
    {Parent, Monitor} = spawn_monitor(fun() -> Self ! {abandoned, self(), Fun()} end),
    Pid = receive {abandoned, Parent, P} -> P end,
    receive {'DOWN', Monitor, process, Parent, _} -> Pid end.

%% Runs a function inside a gen_server that knows nothing of it: as its own code would.
in(Server, Fun) ->
    Self = self(),
    _ = sys:replace_state(Server, fun(State) -> Self ! {inside, Fun()}, State end),
    receive {inside, Result} -> Result end.

service() ->
    Pid = spawn_link(?T, wait, [self()]),
    receive {ready, Pid} -> Pid end.

unlinker(Orphan) ->
    receive
        {From, Ref, Fun} -> From ! {Ref, Fun()}, unlinker(Orphan);
        stop -> ok
    end.

ask_fun(Pid, Fun) ->
    ?T:ask(Pid, Fun).

many(N) ->
    _ = [spawn_link(?T, wait, []) || _ <- lists:seq(1, N)],
    unlinker(self()).

stop(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% Nodes of our own: one with Lineage attached, and plain ones.
node_with_lineage(Name) ->
    {Peer, Node} = plain_node(Name),
    {ok, _} = peer:call(Peer, lineage, attach, []),
    {Peer, Node}.

plain_node(Name) ->
    Full = peer:random_name(Name),
    Paths = lists:append([["-pa", filename:dirname(code:which(M))] || M <- [lineage, ?T]]),
    {ok, Peer, Node} = peer:start_link(#{name => Full, connection => standard_io, wait_boot => 120000, args => Paths}),
    {Peer, Node}.

stop_nodes(Peers) ->
    lists:foreach(fun peer:stop/1, Peers).

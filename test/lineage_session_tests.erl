%% What the session is built from, without a session: options, sentences, classes, walks.
-module(lineage_session_tests).

-include_lib("eunit/include/eunit.hrl").

defaults_test() ->
    {ok, Options} = lineage_options:check(#{}),
    ?assertMatch(#{exits := suspects, monitors := off, sites := closure, wrappers := [], max_bytes := 268435456,
                   overhead := off, target_ms := 5, critical := [],
                   runtime := [], hosts := [], services := [], supervisors := []}, Options),
    ?assertNot(is_map_key(for, Options)),
    ?assertNot(is_map_key(max_spawn_rate, Options)).

good_options_test() ->
    Given = #{exits => all, monitors => exact, sites => exact, wrappers => [m, {m, f}], max_bytes => 1 bsl 30, for => 1000, max_spawn_rate => 5,
              progress => fun(_, _) -> ok end, hosts => [{m, f, 1}, {m, f, '_'}, name]},
    {ok, Options} = lineage_options:check(Given),
    ?assertEqual(Given, maps:with(maps:keys(Given), Options)).

overhead_options_test() ->
    Checked = fun(Given) -> {ok, Options} = lineage_options:check(Given), maps:get(overhead, Options) end,
    ?assertEqual([{duty, 2}, {duty, 0.5}, {duty, 50}, continuous, off],
                 [Checked(#{overhead => V}) || V <- [duty, {duty, 0.5}, {duty, 50}, continuous, off]]),
    ?assertEqual(continuous, Checked(#{overhead => continuous, target_ms => 1.5, critical => [{m, f, 0}]})),
    [?assertMatch({error, {bad_option, Key, _, _}}, lineage_options:check(maps:merge(#{overhead => duty}, #{Key => V})))
     || {Key, Vs} <- [{overhead, [{duty, 0}, {duty, 51}, {duty, -1}, {duty, x}, {continuous, 2}, on]},
                      {target_ms, [0, -1, 0.0001, 3600001, infinity]},
                      {critical, [{m, f, 1}, [{m, f, '_'}], [{m, f, 256}], [{m, f, 1} | x], [m], lists:duplicate(17, {m, f, 1})]}],
        V <- Vs],
    %% It says what is missing.
    [{error, {bad_option, critical, _, _}} = lineage_options:check(#{overhead => duty, critical => [C]})
     || C <- [{'_', f, 1}, {m, '_', 1}]],
    {error, Cause} = lineage_options:check(#{critical => [{m, f, 1}]}),
    ?assertMatch({_, _}, binary:match(lineage_error:sentence(Cause), <<"together with overhead => duty">>)).

%% Any term may be given, and each wrong one is named.
bad_options_test() ->
    Wrong = [0, -1, 1.5, foo, "foo", <<"foo">>, {}, {m, f, a}, #{}, self(), [self()], [a | b], fun() -> ok end],
    [begin
         {error, Cause} = lineage_options:check(#{Key => Value}),
         ?assertMatch({error, {bad_option, _}}, lineage_error:tagged(Cause))
     end || Key <- [exits, monitors, sites, wrappers, overhead, critical, max_bytes, for, max_spawn_rate, progress, runtime, nonsense, 7],
            Value <- Wrong],
    [?assertMatch({error, {bad_options, _}}, lineage_options:check(Given))
     || Given <- [[], [{exits, all}], all, 7]].

sentences_end_test() ->
    Causes = [{not_attached, undefined}, {not_attached, <<"x">>}, {attaching, 1, 2},
              {already_attached, all, 3}, {already_attached, attaching}, detached_meanwhile,
              {nif_missing, "priv", "no"}, pid_layout, {enomem, 1}, {tracer_held, self()},
              {tracer_held, {m, 1}}, {hook_failed, badarg}, {session_failed, x}, {not_started, x},
              {bad_options, 1}, {bad_option, for, 1, "a number"}, {bad_option, x, [a, b]}, {bad_fun, 1},
              {unknown_pid, 1}, {dead_pid, self()}, {remote_pid, self()},
              {bad_argument, <<"recent">>, 0, <<"a number">>}, {coexistence, single}, {coexistence, all},
              {coexistence, sessions}, {coexistence, {foreign, 1, [self()]}},
              {coexistence, {taken, self()}}, {coexistence, lost_hook}, {coexistence, {missed, 1}},
              {coexistence, {system_monitor, self()}}, points_unavailable, overhead_off, exits_unknown, {something, 'else'}],
    [begin
         {error, {Tag, Sentence}} = lineage_error:tagged(Cause),
         ?assert(is_atom(Tag)),
         ?assertEqual($., binary:last(Sentence)),
         ?assertEqual(nomatch, binary:match(Sentence, <<"\n">>))
     end || Cause <- Causes].

raised_test() ->
    try lineage_error:raise({not_attached, undefined}, [1]) of
        _ -> error(unreachable)
    catch
        error:Reason:Stack ->
            ?assertEqual({lineage, not_attached}, Reason),
            #{general := Sentence} = lineage_error:format_error(Reason, Stack),
            ?assertMatch({_, _}, binary:match(Sentence, <<"lineage:attach()">>))
    end,
    ?assertEqual(#{}, lineage_error:format_error(badarg, [])).

classes_test_() ->
    Rules = lineage_baseline:rules(#{hosts => [{my, host, 0}, my_name], services => [{my, service, '_'}]}),
    [?_assertEqual({Call, Classes}, lineage_baseline:class_of({Raw, Inner}, Rules))
     || {Raw, Inner, Call, Classes} <-
            [{{my, host, 0}, undefined, {my, host, 0}, [host]},
             {{proc_lib, init_p, 5}, {my, service, 3}, {my, service, 3}, [service]},
             {{proc_lib, init_p, 5}, {supervisor, my, 1}, {supervisor, my, 1}, [supervisor]},
             {{proc_lib, init_p, 5}, {supervisor_bridge, my, 1}, {supervisor_bridge, my, 1}, [supervisor]},
             {{proc_lib, init_p, 5}, {application_master, init, 4}, {application_master, init, 4}, [root]},
             {{application_master, start_it, 4}, undefined, {application_master, start_it, 4}, [root]},
             {{erts_code_purger, start, 0}, undefined, {erts_code_purger, start, 0}, [runtime]},
             {{erlang, apply, 2}, undefined, {erlang, apply, 2}, []}]].

walk_all_test() ->
    Pids = processes(),
    Work = fun(Note, Batch) -> [begin Note(N), P end || {N, P} <- numbered(Batch)] end,
    {Seen, []} = lineage_walk:each(Pids, Work, {fun(Ps, Acc) -> Ps ++ Acc end, []}, #{batch => 3}),
    ?assertEqual(lists:sort(Pids), lists:sort(Seen)),
    ?assertEqual({[], []}, lineage_walk:each([], Work, {fun(Ps, Acc) -> Ps ++ Acc end, []}, #{})).

%% One that does not answer is put aside, and the rest of its batch is done.
walk_stuck_test() ->
    Pids = [_, Second | _] = processes(),
    Work = fun(Note, Batch) ->
                   [begin
                        Note(N),
                        case P of
                            Second -> receive never -> ok end;
                            _ -> P
                        end
                    end || {N, P} <- numbered(Batch)]
           end,
    {Seen, Stuck} = lineage_walk:each(Pids, Work, {fun(Ps, Acc) -> Ps ++ Acc end, []},
                                      #{batch => 4, stall_ms => 20}),
    %% A worker that is kept waiting looks as if it stood still.
    ?assert(lists:member(Second, Stuck)),
    ?assertEqual(lists:sort(Pids), lists:sort(Seen ++ Stuck)).

%% The walk dies with what it does, and takes its workers along.
walk_fails_test() ->
    {Pid, Monitor} = spawn_monitor(
                       fun() ->
                               lineage_walk:each(processes(), fun(_, _) -> exit(oops) end,
                                                 {fun(_, Acc) -> Acc end, ok}, #{})
                       end),
    receive {'DOWN', Monitor, process, Pid, oops} -> ok end.

numbered(Batch) ->
    lists:zip(lists:seq(1, length(Batch)), Batch).

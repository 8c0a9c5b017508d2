%% Common Test's leaks: runs of lineage_ct_SUITE_data/leaks_SUITE.erl in nodes of their own, with the hook.
-module(lineage_ct_SUITE).
-behaviour(gen_event).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_suite/1, end_per_suite/1]).
-export([exactly/1, right_lines/1, own_failures/1, suites_and_groups/1, logged/1, warns/1, ignores/1, bad_options/1, lesser_session/1,
         other_hooks/1]).
%% Called on peers, and the event handler there.
-export([run_there/1, init/1, handle_event/2, handle_call/2]).
%% A hook beside ours.
-export([id/1, init/2, post_init_per_testcase/4, post_end_per_testcase/4]).

-define(DONE, ?MODULE).

all() ->
    [exactly, right_lines, own_failures, suites_and_groups, logged, warns, ignores, bad_options, lesser_session, other_hooks].

init_per_suite(Config) ->
    Source = filename:join(?config(data_dir, Config), "leaks_SUITE.erl"),
    Dir = ?config(priv_dir, Config),
    {ok, _} = compile:file(Source, [debug_info, {outdir, Dir}]),
    {ok, Text} = file:read_file(Source),
    Marks = [{list_to_atom(binary_to_list(lists:last(Parts))), N}
             || {N, Line} <- numbered(binary:split(Text, <<"\n">>, [global])),
                [_, _ | _] = Parts <- [binary:split(Line, <<" % ">>)]],
    Run = run(Config, #{within => 50}),
    [{marks, Marks}, {full, Run} | Config].

end_per_suite(_Config) ->
    ok.

numbered(List) -> lists:zip(lists:seq(1, length(List)), List).

%% Which fail, and which do not, of some 80 cases, 56 of them at once.
exactly(Config) ->
    {Result, All, _} = ?config(full, Config),
    Done = cases(All),
    Leaking = [direct, direct, direct, end_leaks, indirect, linked, own_config, skipped_leak],
    Own = [end_fails, failing, failing, late, late, late_again],
    ?assertEqual(Leaking, lists:sort([Case || {Case, {failed, _} = Why} <- Done, report(Why) =/= none])),
    ?assertEqual(Own, lists:sort([Case || {Case, {failed, _} = Why} <- Done, report(Why) =:= none])),
    ?assertEqual([skipped, skips], lists:sort([Case || {Case, {skipped, _}} <- Done])),
    %% clean is the one of the group whose init fails.
    ?assertEqual([bad_init, clean, late_init], lists:sort([Case || {Case, {auto_skipped, _}} <- Done])),
    Clean = 50 + 2 + 2 + 1 + 1 + 2 + 2,
    ?assertEqual(Clean, length([clean || {clean, ok} <- Done])),
    ?assertEqual([asks_server, uses_timer], lists:sort([Case || {Case, ok} <- Done, Case =/= clean])),
    ?assertEqual({Clean + 2, length(Leaking) + length(Own), {2, 3}}, Result).

right_lines(Config) ->
    {_, Done, _} = ?config(full, Config),
    [?assertEqual([line(Case, Config)], lines(report(Why)), Case)
     || {Case, {failed, _} = Why} <- cases(Done), report(Why) =/= none].

own_failures(Config) ->
    {_, Done, _} = ?config(full, Config),
    [?assertMatch({failed, {error, {mine, _}}}, Why) || {failing, Why} <- Done],
    [?assertMatch({failed, {timetrap_timeout, _}}, Why) || {Case, Why} <- Done, Case =:= late orelse Case =:= late_again],
    [?assertMatch({failed, {error, own_reason}}, Why) || {end_fails, Why} <- Done],
    [?assertMatch({auto_skipped, {failed, {leaks_SUITE, init_per_testcase, _}}}, Why)
     || {Case, Why} <- Done, Case =:= bad_init orelse Case =:= late_init].

suites_and_groups(Config) ->
    {_, Done, _} = ?config(full, Config),
    [Suite] = [report(Why) || {end_per_suite, {failed, _} = Why} <- Done],
    ?assertEqual(lists:sort([line(suite, Config), line(asks_server, Config)]), lines(Suite)),
    ?assert(has(Suite, "1 direct leak, 1 indirect leak in suite leaks_SUITE")),
    Groups = [{Group, lines(report(Why))} || {{end_per_group, Group, _}, {failed, _} = Why} <- Done],
    ?assertEqual([{leaking, [line(leaking, Config)]}, {leaking_end, [line(leaking_end, Config)]}], lists:sort(Groups)),
    ?assertMatch([bad], [Group || {{init_per_group, Group, _}, {failed, {error, {bad, _}}}} <- Done]).

%% The reports of those that keep their own failures, and of the rest as well.
logged(Config) ->
    {_, _, Logs} = ?config(full, Config),
    [begin
         Files = filelib:wildcard(filename:join([Logs, "**", "leaks_suite." ++ Name ++ "{,.[0-9]*}.html"])),
         ?assertNotEqual([], Files),
         [begin
              {ok, Text} = file:read_file(File),
              ?assert(has(Text, "leaks_SUITE.erl:" ++ integer_to_list(line(list_to_atom(Name), Config))), File),
              %% Pids are not taken for HTML.
              ?assert(has(Text, "direct    &lt;0."), File)
          end || File <- Files]
     end || Name <- ["failing", "late", "late_again", "end_fails", "bad_init", "late_init", "direct", "indirect", "skipped_leak"]].

%% Nothing fails that does not fail by itself.
warns(Config) ->
    {{_, 6, {3, 3}}, Done, Logs} = run(Config, [{within, 50}, {action, warn}]),
    ?assertEqual([], [Function || {Function, {failed, _} = Why} <- Done, report(Why) =/= none]),
    [File] = filelib:wildcard(filename:join([Logs, "**", "leaks_suite.own_config.html"])),
    {ok, Text} = file:read_file(File),
    ?assert(has(Text, "leaks_SUITE.erl:" ++ integer_to_list(line(own_config, Config)))).

ignores(Config) ->
    Ignore = [{site, <<"leaks_SUITE.erl">>}],
    {{_, 6, {3, 3}}, Done, _} = run(Config, #{within => 50, ignore => Ignore}),
    ?assertEqual([], [Function || {Function, {failed, _} = Why} <- Done, report(Why) =/= none]).

bad_options(Config) ->
    [begin
         {{0, 0, {0, _}}, Done, _} = run(Config, Options),
         [{failed, {error, Sentence}}] = [Why || {init_per_suite, Why} <- Done],
         ?assert(has(Sentence, "and was given"))
     end || Options <- [#{within => soon}, [{action, shout}], #{what => 1}, nonsense]].

lesser_session(Config) ->
    {{0, 0, {0, _}}, Done, _} = run(Config, #{}, [], fun(Peer) -> {ok, _} = peer:call(Peer, lineage, attach, [], 120000), ok end),
    [{failed, {error, Sentence}}] = [Why || {init_per_suite, Why} <- Done],
    ?assert(has(Sentence, "exits")).

%% Ours is first before a case and last after it: what another hook starts, and ends, is in the case.
other_hooks(Config) ->
    {Result, _, _} = ?config(full, Config),
    {Result, _, _} = run(Config, #{within => 50}, [?MODULE], fun(_) -> ok end).

id(_) -> ?MODULE.
init(_, _) -> {ok, #{}}.

post_init_per_testcase(_Case, _Config, ok, State) ->
    put(?MODULE, spawn(fun() -> receive stop -> ok end end)),
    {ok, State};
post_init_per_testcase(_Case, _Config, Return, State) ->
    {Return, State}.

post_end_per_testcase(_Case, _Config, Return, State) ->
    [Pid ! stop || Pid <- [get(?MODULE)], is_pid(Pid)],
    {Return, State}.

%% Runs

run(Config, Options) ->
    run(Config, Options, [], fun(_) -> ok end).

%% What ct:run_test returned, what each function has come to, in order, and where the logs are.
run(Config, Options, Hooks, Before) ->
    Dir = ?config(priv_dir, Config),
    Logs = filename:join(Dir, "logs" ++ integer_to_list(erlang:unique_integer([positive]))),
    ok = file:make_dir(Logs),
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000,
                                 args => ["-pa", filename:dirname(code:which(lineage)), filename:dirname(code:which(?MODULE)), Dir]}),
    try
        ok = Before(Peer),
        Run = [{dir, Dir}, {suite, leaks_SUITE}, {logdir, Logs}, {auto_compile, false}, {basic_html, true},
               {ct_hooks, [{lineage_ct, Options} | Hooks]}, {event_handler, ?MODULE}],
        {Result, Done} = peer:call(Peer, ?MODULE, run_there, [Run], 180000),
        {Result, Done, Logs}
    after
        peer:stop(Peer)
    end.

run_there(Run) ->
    ?DONE = ets:new(?DONE, [named_table, public, ordered_set]),
    Result = ct:run_test(Run),
    {Result, [Done || {_, Done} <- ets:tab2list(?DONE)]}.

init(_) -> {ok, []}.

handle_event({event, tc_done, _Node, {leaks_SUITE, Function, Result}}, State) ->
    noted({Function, Result}, State);
handle_event({event, tc_auto_skip, _Node, {leaks_SUITE, {Function, _Group}, Why}}, State) ->
    noted({Function, {auto_skipped, Why}}, State);
handle_event({event, tc_auto_skip, _Node, {leaks_SUITE, Function, Why}}, State) ->
    noted({Function, {auto_skipped, Why}}, State);
handle_event(_Event, State) ->
    {ok, State}.

noted(Done, State) ->
    ets:insert(?DONE, {erlang:unique_integer([monotonic]), Done}),
    {ok, State}.

handle_call(_, State) -> {ok, ok, State}.

cases(Done) ->
    [Row || {Function, _} = Row <- Done, is_atom(Function), not lists:member(Function, [init_per_suite, end_per_suite, end_per_group])].

%% The report in a reason.
report({failed, {error, Reason}}) ->
    report({failed, Reason});
report({failed, {test_case_failed, Text}}) ->
    case has(Text, " leak in ") orelse has(Text, " leaks in ") of
        true -> Text;
        false -> none
    end;
report(_) ->
    none.

line(Mark, Config) -> proplists:get_value(Mark, ?config(marks, Config)).

%% Of the inner suite, that a report names.
lines(Report) ->
    {match, Found} = re:run(Report, "spawned at [^,\\n]*leaks_SUITE\\.erl:([0-9]+)", [global, {capture, [1], list}]),
    lists:sort([list_to_integer(Line) || [Line] <- Found]).

has(Text, Part) -> string:find(Text, Part) =/= nomatch.

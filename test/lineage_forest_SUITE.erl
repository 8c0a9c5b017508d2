%% The forest, the snapshots and the printer, on a live node.
-module(lineage_forest_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([the_forest/1, alike_collapse/1, a_part_of_the_forest/1]).
-export([snapshot_round_trip/1, snapshot_errors/1, diff_since_a_summary/1, json/1, printing/1]).

-define(T, lineage_report_things).

suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [the_forest, alike_collapse, a_part_of_the_forest, snapshot_round_trip, snapshot_errors, diff_since_a_summary, json,
     printing].

init_per_testcase(_Case, Config) ->
    ?T:attach(#{}, Config).

end_per_testcase(_Case, Config) ->
    ?T:detach(Config).

%% The forest

the_forest(_) ->
    Orphan = ?T:start_server(),
    Helper = ?T:ask(Orphan, fun() -> spawn_link(?T, wait, []) end),
    #{apps := Apps, orphans := Orphans, runtime := Runtime, truncated := false, live := Live} = Tree = lineage:tree(),
    [#{below := [#{name := kernel_sup, class := supervisor, below := [_ | _]}]}] = [N || #{app := kernel} = N <- Apps],
    ?assertMatch([#{below := [#{pid := Helper, kind := detached}]}], [N || #{pid := P} = N <- Orphans, P =:= Orphan]),
    ?assert(lists:any(fun(#{name := Name}) -> Name =:= init end, Runtime)),
    Pids = ?T:shown(Tree),
    ?assertEqual(length(Pids), length(lists:usort(Pids))),
    ?assert(Live >= length(Pids)).

alike_collapse(_) ->
    Sup = ?T:start_sup(simple_one_for_one, [#{id => any, start => {?T, linked_child, []}}]),
    _ = [{ok, _} = supervisor:start_child(Sup, []) || _ <- lists:seq(1, 20)],
    #{root := #{pid := Sup, children := 20, below := Below}} = lineage:tree(Sup),
    ?assertEqual(6, length(Below)),
    ?assertMatch(#{more := 15, initial_call := {?T, wait, 0}}, lists:last(Below)),
    #{root := #{below := Wider}} = lineage:tree(#{root => Sup, width => 30}),
    ?assertEqual(20, length(Wider)),
    ?assertMatch(#{truncated := true}, lineage:tree(#{max => 3})).

a_part_of_the_forest(_) ->
    ?assertMatch(#{root := #{app := kernel, below := [#{name := kernel_sup}]}, apps := []}, lineage:tree(kernel)),
    ?assertMatch(#{root := #{name := kernel_safe_sup}}, lineage:tree(kernel_safe_sup)),
    ?assertMatch(#{root := #{below := [], children := N}} when N > 3, lineage:tree(#{root => kernel_sup, depth => 1})),
    ?assertMatch({error, {unknown_pid, _}}, lineage:tree(no_such_name)).

%% Files

snapshot_round_trip(Config) ->
    File = filename:join(?config(priv_dir, Config), "snapshot.json"),
    Before = spawn(?T, wait, []),
    ok = lineage:save(File),
    {ok, Info} = file:read_file_info(File),
    ?assertEqual(8#600, element(8, Info) band 8#777),
    {ok, Text} = file:read_file(File),
    {ok, Snapshot} = lineage_json:decode(Text),
    ?assertMatch(#{<<"format">> := <<"lineage-snapshot">>, <<"version">> := 1, <<"summary">> := #{<<"live">> := _}}, Snapshot),
    ?assert(lists:any(fun(#{<<"pid">> := P}) -> P =:= list_to_binary(pid_to_list(Before)) end, maps:get(<<"orphans">>, Snapshot))),
    New = spawn(?T, trap, []),
    Grown = [spawn_link(?T, wait, []) || _ <- lists:seq(1, 10)],
    exit(Before, kill),
    ?T:wait_for(fun() -> not is_process_alive(Before) end, Before),
    #{same_session := true, new_orphans := NewOrphans, gone_orphans := Gone, grown := Growth, counters := Counters} = lineage:diff(File),
    ?assertEqual([New], [P || #{pid := P} <- NewOrphans]),
    ?assert(Gone >= 1),
    ?assertMatch([{initial_call, _, 1, 10}], [G || {_, <<"lineage_report_things:wait/0">>, _, _} = G <- Growth]),
    ?assertMatch({births, Was, Is} when Is > Was, lists:keyfind(births, 1, Counters)),
    ?assertMatch(#{same_session := true, gone_orphans := Gone}, lineage:diff(Snapshot)),
    [unlink(P) || P <- Grown].

snapshot_errors(Config) ->
    Missing = filename:join(?config(priv_dir, Config), "missing.json"),
    Bad = filename:join(?config(priv_dir, Config), "bad.json"),
    ok = file:write_file(Bad, "{\"format\": 1}"),
    ?assertMatch({error, {file, _}}, lineage:diff(Missing)),
    ?assertMatch({error, {bad_snapshot, _}}, lineage:diff(Bad)),
    ?assertMatch({error, {bad_snapshot, _}}, lineage:diff(#{some => map})),
    ?assertMatch({error, {file, _}}, lineage:save(filename:join(Missing, "deeper.json"))),
    ?assertError({lineage, bad_argument}, lineage:save(17)),
    ?assertError({lineage, bad_argument}, lineage:diff(17)).

diff_since_a_summary(_) ->
    _ = lineage:orphans(),
    Summary = lineage:summary(),
    Pid = spawn(?T, wait, []),
    #{same_session := true, elapsed_ms := Elapsed, new_orphans := New, counters := Counters} = lineage:diff(Summary),
    ?assert(Elapsed >= 0),
    ?assert(lists:any(fun(#{pid := P}) -> P =:= Pid end, New)),
    ?assertMatch({orphans, Was, Is} when Is > Was, lists:keyfind(orphans, 1, Counters)).

json(_) ->
    Values = [null, true, false, 0, -17, 1 bsl 70, 1.5, <<"">>, <<"a\"\\\n\t\x01é€𝄞"/utf8>>, [], [1, [2, #{}]],
              #{<<"k">> => [#{<<"l">> => null}], <<"">> => <<"v">>}],
    [?assertEqual({ok, V}, lineage_json:decode(iolist_to_binary(lineage_json:encode(V)))) || V <- Values],
    ?assertEqual({ok, [1.0e3, <<"𝄞/"/utf8>>]}, lineage_json:decode(<<" [ 1e3 , \"\\ud834\\udd1e\\/\" ] ">>)),
    [?assertEqual(error, lineage_json:decode(Bad)) || Bad <- [<<>>, <<"{">>, <<"[1,]">>, <<"1 2">>, <<"\"a">>, <<"nul">>, <<"{1:2}">>]].

printing(_) ->
    Sup = ?T:start_sup([#{id => w, start => {?T, linked_child, []}}, #{id => bare, start => {?T, bare_child, []}}]),
    [Worker] = [P || {w, P, _, _} <- supervisor:which_children(Sup)],
    Pid = ?T:start_server(),
    Summary = lineage:summary(),
    Data = [lineage:orphans(), lineage:recent(10), lineage:why(Pid), lineage:why(Worker), lineage:why(kernel_sup),
            lineage:tree(), lineage:tree(kernel), Summary, lineage:diff(Summary), lineage:why(no_such_name), [], whatever],
    [begin
         Text = unicode:characters_to_list(lineage_print:format(D, #{columns => Columns, colour => false, unicode => Unicode})),
         [?assert(length(Line) =< Columns) || Line <- string:split(Text, "\n", all)],
         ?assertEqual(nomatch, string:find(Text, "\e")),
         ?assert(Unicode orelse lists:all(fun(C) -> C < 128 end, Text))
     end || D <- Data, Columns <- [40, 80, 200], Unicode <- [true, false]],
    Coloured = unicode:characters_to_list(lineage_print:format(lineage:why(Pid), #{columns => 80, colour => true})),
    ?assertNotEqual(nomatch, string:find(Coloured, "\e[31m")),
    ?assertNotEqual(nomatch, string:find(lineage_print:format(lineage:why(Worker), #{}), "permanent")),
    ?assertEqual(ok, lineage:print(lineage:orphans())).

%% The leaks of a living node. Windows are fed by lineage_leaks:sample/1, so that hours pass at once.
-module(lineage_leaks_SUITE).

-behaviour(supervisor).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([a_slow_leak_is_found/1, a_leak_below_churn_is_found/1, a_large_stable_population_is_none/1,
         what_levels_off_is_none/1, what_is_ignored/1, orphans_that_linger/1, scopes_with_survivors/1,
         a_watch_sends_each_once/1, a_watch_holds_back/1, a_watch_ends/1, a_watch_prints/1, telemetry_is_told/1,
         bad_options/1, not_attached/1, the_sampler_is_the_sessions/1, population/1, population_of_bad_terms/1,
         leaks_are_printed/1]).
-export([init/1, child/0, wait/0]).

suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [a_slow_leak_is_found, a_leak_below_churn_is_found, a_large_stable_population_is_none, what_levels_off_is_none,
     what_is_ignored, orphans_that_linger, scopes_with_survivors, a_watch_sends_each_once, a_watch_holds_back,
     a_watch_ends, a_watch_prints, telemetry_is_told, bad_options, not_attached, the_sampler_is_the_sessions, population,
     population_of_bad_terms, leaks_are_printed].

init_per_testcase(_Case, Config) ->
    {ok, _} = lineage:attach(#{sites => exact}),
    Orphans = lineage:orphans(),
    %% Of whoever runs the tests.
    put(others, [Name || #{name := Name} <- Orphans, Name =/= undefined]),
    [end_leftover(Orphan) || #{name := undefined} = Orphan <- Orphans],
    Config.

%% What another suite has left behind would be a leak here; and ignoring it by its call would ignore ours too, where
%% both were spawned with a fun.
end_leftover(#{pid := Pid} = Orphan) ->
    ct:pal("Left behind by an earlier suite, and ended: ~p", [Orphan]),
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% Many children take their time to end, and are no orphans of the next test's.
end_per_testcase(_Case, _Config) ->
    ok = lineage:detach(),
    case get(sup) of
        undefined ->
            ok;
        Sup ->
            Monitor = monitor(process, Sup),
            unlink(Sup),
            exit(Sup, shutdown),
            receive {'DOWN', Monitor, process, Sup, _} -> ok end
    end.

%% A supervisor of children that only wait; its processes end with the test's.

init([]) ->
    {ok, {#{strategy => simple_one_for_one}, [#{id => child, start => {?MODULE, child, []}, restart => temporary}]}}.

child() ->
    {ok, proc_lib:spawn_link(?MODULE, wait, [])}.

wait() ->
    receive stop -> ok end.

start_sup() ->
    {ok, Sup} = supervisor:start_link(?MODULE, []),
    put(sup, Sup),
    Sup.

start(Sup, N) ->
    [element(2, {ok, _} = supervisor:start_child(Sup, [])) || _ <- lists:seq(1, N)].

stop(Pids) ->
    [begin
         Monitor = monitor(process, Pid),
         Pid ! stop,
         receive {'DOWN', Monitor, process, Pid, _} -> ok end
     end || Pid <- Pids],
    ok.

%% Half a minute each; Fun gets the number of the window.
windows(From, To, Fun) ->
    [begin
         Fun(N),
         ok = lineage_leaks:sample(N * 30000)
     end || N <- lists:seq(From, To)],
    ok.

%% One more in every second window.
one_a_minute(Sup) ->
    fun(N) -> start(Sup, (N + 1) rem 2) end.

growing() ->
    maps:get(growing, lineage:leaks()).

a_slow_leak_is_found(_) ->
    Sup = start_sup(),
    start(Sup, 20),
    windows(0, 40, fun(_) -> ok end),
    ?assertEqual([], growing()),
    windows(41, 60, one_a_minute(Sup)),
    Rows = growing(),
    [#{first := 20, last := Last, slope := Slope, live := Live, values := Values, windows := 40, window_ms := 30000,
       confidence := Sure, initial_call := {supervisor, ?MODULE, 1}}] = [R || #{leak := supervisor, pid := Pid} = R <- Rows, Pid =:= Sup],
    ?assertEqual(30, Live),
    ?assertEqual(Last, lists:last(Values)),
    ?assert(Last >= 29),
    ?assert(abs(Slope - 1.0) < 0.01),
    ?assert(Sure > 0.98),
    [#{births := 30, live := 30, site := #{line := _, file := _}}] = [R || #{leak := site} = R <- Rows],
    ?assertEqual(2, length(Rows)).

a_leak_below_churn_is_found(_) ->
    Sup = start_sup(),
    windows(0, 20, churn(Sup, 0)),
    ?assertEqual([], growing()),
    windows(21, 110, churn(Sup, 1)),
    [#{last := Last}] = [R || #{leak := supervisor, pid := Pid} = R <- growing(), Pid =:= Sup],
    ?assert(Last >= 80).

%% Between two samples 20 are born and die, and some live over one.
churn(Sup, Leak) ->
    fun(N) ->
            stop(start(Sup, 20)),
            stop(get_list(passing)),
            put(passing, start(Sup, 3 + N * 7 rem 5)),
            start(Sup, Leak)
    end.

get_list(Key) ->
    case get(Key) of
        undefined -> [];
        List -> List
    end.

%% With restarts, here and there.
a_large_stable_population_is_none(_) ->
    Sup = start_sup(),
    Pids = start(Sup, 20000),
    windows(0, 400, fun(N) when N rem 7 =:= 0 ->
                            stop([lists:nth(1 + N div 7, Pids)]),
                            start(Sup, 1);
                       (_) ->
                            ok
                    end),
    ?assertEqual([], growing()).

what_levels_off_is_none(_) ->
    Sup = start_sup(),
    windows(0, 30, fun(_) -> start(Sup, 2) end),
    ?assertMatch([_, _], growing()),
    windows(31, 60, fun(_) -> ok end),
    ?assertEqual([], growing()),
    %% Nor is it one again when it comes back to where it was.
    Pids = [P || {_, P, _, _} <- supervisor:which_children(Sup)],
    stop(Pids),
    windows(61, 80, fun(_) -> start(Sup, 2) end),
    ?assertEqual([], growing()).

what_is_ignored(_) ->
    Sup = start_sup(),
    windows(0, 20, one_a_minute(Sup)),
    ?assertMatch([_, _], growing()),
    ?assertMatch(#{growing := [#{leak := site}]}, lineage:leaks(#{ignore => [{supervisor, ?MODULE, '_'}]})),
    #{growing := [#{site := #{module := M, function := {F, A}}}]} = lineage:leaks(#{ignore => [{supervisor, ?MODULE, 1}]}),
    ?assertMatch(#{growing := [#{leak := supervisor}]}, lineage:leaks(#{ignore => [{M, F, A}]})).

orphans_that_linger(_) ->
    Pid = spawn(?MODULE, wait, []),
    ?assertMatch([_], [O || #{pid := P} = O <- maps:get(orphans, lineage:leaks(#{min_age_ms => 0})), P =:= Pid]),
    ?assertEqual([], [O || #{pid := P} = O <- maps:get(orphans, lineage:leaks()), P =:= Pid]),
    stop([Pid]).

scopes_with_survivors(_) ->
    {Pid, _} = lineage:scope("a block", fun() -> spawn_link(?MODULE, wait, []) end),
    ?assertMatch(#{scopes := [#{name := <<"a block">>, leaks := [#{pid := Pid}]}]}, lineage:leaks()),
    unlink(Pid),
    stop([Pid]),
    ?assertMatch(#{scopes := []}, lineage:leaks()).

%% Watching

watch(Options) ->
    {ok, Watch} = lineage:watch(Options#{min_age_ms => 0, ignore => get(others)}),
    Watch.

leak() ->
    receive {lineage, leak, Leak} -> Leak end.

%% All that was sent so far: the watcher has handled what came before this call.
flush(Watch) ->
    _ = sys:get_state(Watch),
    (fun Flush() -> receive {lineage, leak, Leak} -> [Leak | Flush()] after 0 -> [] end end)().

a_watch_sends_each_once(_) ->
    Orphan = spawn(?MODULE, wait, []),
    Watch = watch(#{to => self()}),
    ?assertMatch(#{leak := orphan, pid := Orphan, indirect := 0}, leak()),
    Sup = start_sup(),
    windows(0, 20, one_a_minute(Sup)),
    Watch ! look,
    ?assertMatch([#{leak := site, births := _}, #{leak := supervisor, pid := Sup}],
                 lists:sort(fun(#{leak := A}, #{leak := B}) -> A =< B end, [leak(), leak()])),
    windows(21, 22, one_a_minute(Sup)),
    Watch ! look,
    ?assertEqual([], flush(Watch)),
    stop([Orphan]),
    ok = lineage:unwatch(Watch).

a_watch_holds_back(_) ->
    Orphans = [spawn(?MODULE, wait, []) || _ <- lists:seq(1, 5)],
    Watch = watch(#{to => self(), max_per_minute => 2}),
    [#{leak := orphan}, #{leak := orphan}] = [leak(), leak()],
    ?assertEqual([], flush(Watch)),
    Watch ! minute,
    ?assertEqual(#{leak => held_back, count => 3}, leak()),
    Watch ! minute,
    ?assertEqual([], flush(Watch)),
    stop(Orphans),
    ok = lineage:unwatch(Watch).

a_watch_ends(_) ->
    {ok, First} = lineage:watch(#{to => self()}),
    Monitor1 = monitor(process, First),
    ok = lineage:unwatch(First),
    receive {'DOWN', Monitor1, process, First, shutdown} -> ok end,
    ok = lineage:unwatch(First),
    %% Nobody else's process.
    ok = lineage:unwatch(self()),
    Receiver = spawn(?MODULE, wait, []),
    {ok, Second} = lineage:watch(#{to => Receiver}),
    Monitor2 = monitor(process, Second),
    stop([Receiver]),
    receive {'DOWN', Monitor2, process, Second, normal} -> ok end,
    {ok, Third} = lineage:watch(#{to => self()}),
    Monitor3 = monitor(process, Third),
    _ = sys:get_state(Third),
    lineage:detach(),
    receive {'DOWN', Monitor3, process, Third, normal} -> ok end.

a_watch_prints(_) ->
    Orphan = spawn(?MODULE, wait, []),
    Self = self(),
    Leader = group_leader(),
    %% The io protocol's other end.
    Terminal = spawn_link(fun Serve() ->
                                  receive {io_request, From, Ref, Request} ->
                                          Reply = case Request of
                                                      {put_chars, unicode, Chars} -> Self ! {printed, unicode:characters_to_binary(Chars)}, ok;
                                                      _ -> {error, enotsup}
                                                  end,
                                          From ! {io_reply, Ref, Reply},
                                          Serve()
                                  end
                          end),
    group_leader(Terminal, self()),
    Watch = watch(#{}),
    group_leader(Leader, self()),
    Text = receive {printed, T} -> T end,
    ?assertMatch({_, _}, binary:match(Text, <<"lineage: orphan ", (list_to_binary(pid_to_list(Orphan)))/binary>>)),
    unlink(Terminal),
    Monitor = monitor(process, Watch),
    exit(Terminal, kill),
    receive {'DOWN', Monitor, process, Watch, normal} -> ok end,
    stop([Orphan]).

telemetry_is_told(_) ->
    register(?MODULE, self()),
    Forms = [{attribute, 1, module, telemetry}, {attribute, 1, export, [{execute, 3}]},
             {function, 1, execute, 3,
              [{clause, 1, [{var, 1, 'E'}, {var, 1, 'M'}, {var, 1, 'D'}], [],
                [{op, 1, '!', {atom, 1, ?MODULE}, {tuple, 1, [{var, 1, 'E'}, {var, 1, 'M'}, {var, 1, 'D'}]}}]}]}],
    {ok, telemetry, Beam} = compile:forms(Forms),
    {module, telemetry} = code:load_binary(telemetry, "telemetry.erl", Beam),
    Orphan = spawn(?MODULE, wait, []),
    Watch = watch(#{to => self()}),
    receive
        {[lineage, leak], Measurements, Metadata} ->
            ?assertMatch(#{count := 1, age_ms := _}, Measurements),
            ?assertMatch(#{leak := orphan, pid := Orphan}, Metadata)
    end,
    ok = lineage:unwatch(Watch),
    unregister(?MODULE),
    code:purge(telemetry),
    code:delete(telemetry),
    code:purge(telemetry),
    stop([Orphan]).

bad_options(_) ->
    Terms = [0, x, [], [{a, b}], "x", #{nonsense => 1}, #{min_age_ms => -1}, #{min_age_ms => x}, #{ignore => x},
             #{ignore => [1 | 2]}, #{ignore => [{a, 1, 2}]}, #{1 => 2}],
    [?assertError({lineage, bad_argument}, lineage:Function(Options)) || Function <- [leaks, watch], Options <- Terms],
    [?assertError({lineage, bad_argument}, lineage:watch(Options))
     || Options <- [#{to => x}, #{max_per_minute => 0}, #{max_per_minute => 1.5}]],
    ?assertError({lineage, bad_argument}, lineage:leaks(#{to => self()})),
    [?assertError({lineage, bad_argument}, lineage:unwatch(Other)) || Other <- [x, 1, make_ref()]],
    try lineage:watch(#{max_per_minute => 0}) of
        _ -> error(unreachable)
    catch
        error:Reason:Stack ->
            #{general := Sentence} = lineage_error:format_error(Reason, Stack),
            ?assertEqual(<<"watch's option max_per_minute takes a number of leaks, 1 or more, and was given 0: correct it and ask again.">>,
                         Sentence)
    end.

not_attached(_) ->
    lineage:detach(),
    ?assertError({lineage, not_attached}, lineage:leaks()),
    ?assertError({lineage, not_attached}, lineage:watch(#{})),
    ?assertEqual({error, closed}, lineage_nif:population(0, 0, 0)),
    ?assertEqual(undefined, whereis(lineage_leaks)).

the_sampler_is_the_sessions(_) ->
    Session = whereis(lineage_session),
    Sampler = whereis(lineage_leaks),
    #{flags := Flags} = lineage_nif:record(Sampler),
    ?assert(lists:member(own, Flags)),
    {ok, Watch} = lineage:watch(#{to => self()}),
    _ = sys:get_state(Watch),
    Monitor = monitor(process, Sampler),
    exit(Sampler, kill),
    receive {'DOWN', Monitor, process, Sampler, killed} -> ok end,
    ok = lineage_session:check(),
    ?assertEqual(Session, whereis(lineage_session)),
    ?assert(is_pid(whereis(lineage_leaks))),
    ?assertNotEqual(Sampler, whereis(lineage_leaks)),
    %% The watch finds the new one.
    Watch ! subscribe,
    _ = sys:get_state(Watch),
    ?assertMatch(#{growing := []}, lineage:leaks()),
    ok = lineage:unwatch(Watch),
    Next = whereis(lineage_leaks),
    Monitors = [{monitor(process, Pid), Pid} || Pid <- [Next, Session]],
    exit(Session, kill),
    [receive {'DOWN', M, process, Pid, _} -> ok end || {M, Pid} <- Monitors],
    %% which_children answers when the supervisor has started another one.
    [{lineage_session, _, _, _}] = supervisor:which_children(lineage_sup).

%% The counts

population(_) ->
    Sup = start_sup(),
    start(Sup, 7),
    {Sites, Sups, At, 0} = lineage_nif:population(0, 0, 1000),
    ?assertMatch([{Sup, _, 7, 7, 7}], [S || {Pid, _, _, _, _} = S <- Sups, Pid =:= Sup]),
    ?assertMatch([{_, 7, 7, 7, 7}], [S || {_, 7, _, _, _} = S <- Sites]),
    start(Sup, 2),
    {_, Sups2, _, 0} = lineage_nif:population(0, At, 1000),
    ?assertMatch([{Sup, _, 9, 9, 2}], [S || {Pid, _, _, _, _} = S <- Sups2, Pid =:= Sup]),
    %% None of them is an hour old, but what was there before attach may be.
    {_, Sups3, _, 0} = lineage_nif:population(3600000, 0, 1000),
    ?assertMatch([{Sup, _, 9, 0, 0}], [S || {Pid, _, _, _, _} = S <- Sups3, Pid =:= Sup]),
    Kernel = whereis(kernel_sup),
    ?assertMatch([{_, _, N, N, 0}], [S || {Pid, _, _, _, _} = S <- Sups3, Pid =:= Kernel]),
    %% Those with most are told where not all are.
    start(Sup, 200),
    {_, [{Sup, _, 209, _, _}], _, Others} = lineage_nif:population(0, 0, 1),
    ?assert(Others > 0),
    %% More than 16 bits.
    start(Sup, 66000),
    ?assertMatch({_, [{Sup, _, 66209, 66209, _}], _, _}, lineage_nif:population(0, 0, 1)).

population_of_bad_terms(_) ->
    Bad = [x, -1, 1.5, 1 bsl 64, 1 bsl 63, [], [1], {}, #{}, self(), make_ref(), <<"1">>, fun() -> ok end],
    [?assertError(badarg, apply(lineage_nif, population, Args)) || B <- Bad, Args <- [[B, 0, 0], [0, B, 0], [0, 0, B]]],
    ?assertMatch({_, [], _, _}, lineage_nif:population(0, 0, 0)).

leaks_are_printed(_) ->
    Sup = start_sup(),
    ?assertMatch({_, _}, binary:match(shown(lineage:leaks(#{ignore => get(others)}), #{}), <<"no leaks">>)),
    windows(0, 20, one_a_minute(Sup)),
    Orphan = spawn(?MODULE, wait, []),
    {Survivor, _} = lineage:scope("a block", fun() -> spawn_link(?MODULE, wait, []) end),
    Leaks = lineage:leaks(#{min_age_ms => 0, ignore => get(others)}),
    Plain = shown(Leaks, #{columns => 200}),
    [?assertMatch({Part, {_, _}}, {Part, binary:match(Plain, Part)})
     || Part <- [<<"Only growing">>, <<"Lingering orphans">>, <<"a block">>, <<"20 windows of 30.0 s">>, <<"children of ">>,
                 list_to_binary(pid_to_list(Orphan)), list_to_binary(pid_to_list(Survivor)), <<"_">>, <<"#">>]],
    Unicode = shown(Leaks, #{columns => 200, unicode => true}),
    [?assertMatch({_, _}, binary:match(Unicode, Part)) || Part <- [<<"▁"/utf8>>, <<"█"/utf8>>]],
    [?assertMatch({_, _}, binary:match(shown(G#{values := V}, #{columns => 60}), <<"only growing">>))
     || #{values := [_ | _]} = G <- maps:get(growing, Leaks), V <- [[0], [5, 5], lists:seq(1, 40)]],
    ct:pal("~ts", [Unicode]),
    unlink(Survivor),
    stop([Survivor, Orphan]).

shown(Report, Options) ->
    unicode:characters_to_binary(lineage_print:format(Report, Options)).

%% Whose a process is, and what is told of those that outlived their scope.
-module(lineage_scope_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2]).
-export([handed_down/1, nested/1, owner_elsewhere/1, requests/1, asked/1, requests_nest/1, servers_work_is_theirs/1, failed_request/1,
         many_at_once/1, points_come_and_go/1, block/1, block_raises/1, waits_for_the_end/1, direct_and_indirect/1,
         ignored/1, ignored_by_an_ancestor/1, lazy_servers/1, silent_failures/1, bad_arguments/1, attaches_by_itself/1,
         less_is_refused/1, ended_scopes/1, silent_among_many/1, opened_while_yielded/1, hook_taken/1, hook_held/1, asker_dies/1, asks_a_busy_one/1, stops_at_once/1, attaching_meanwhile/1, numbers_go_on/1, of_the_killed/1, long_suites/1, ended_at_once/1,
         own_error_first/1, detached_meanwhile/1, links_are_read_once/1]).
-export([init/1, handle_call/3, handle_cast/2, start_child/1, start_below/1, wait/0, named/1]).

all() ->
    [handed_down, nested, owner_elsewhere, requests, asked, requests_nest, servers_work_is_theirs, failed_request, many_at_once,
     points_come_and_go, block, block_raises, waits_for_the_end, direct_and_indirect, ignored, ignored_by_an_ancestor,
     lazy_servers, silent_failures, bad_arguments, attaches_by_itself, less_is_refused, ended_scopes, silent_among_many, opened_while_yielded, hook_taken, asker_dies, asks_a_busy_one, stops_at_once, attaching_meanwhile,
     numbers_go_on, of_the_killed, long_suites, ended_at_once, own_error_first, detached_meanwhile, links_are_read_once]
        ++ [hook_held || lineage_hook:api() =:= single].

init_per_testcase(Case, Config) when Case =:= attaches_by_itself; Case =:= less_is_refused; Case =:= attaching_meanwhile ->
    ok = lineage:detach(),
    Config;
init_per_testcase(_Case, Config) ->
    ok = lineage:detach(),
    {ok, _} = lineage:attach(#{exits => all, sites => exact, monitors => exact}),
    Config.

end_per_testcase(_Case, _Config) ->
    lineage:detach().

%% A supervisor of any number of children, a server that spawns for whoever asks, and what runs below them.

init(supervisor) ->
    Child = #{id => child, start => {?MODULE, start_child, []}, restart => temporary},
    {ok, {#{strategy => simple_one_for_one}, [Child]}};
init(static) ->
    {ok, {#{}, []}};
init(server) ->
    {ok, none}.

start_child(wait) -> {ok, proc_lib:spawn_link(?MODULE, wait, [])};
start_child({busy, Pid}) -> Pid ! {busy, self()}, receive go -> ignore end;
start_child(fail) -> {error, on_purpose};
start_child(crash) -> error(on_purpose);
%% A request to another supervisor, from within this one.
start_child({below, Sup}) -> supervisor:start_child(Sup, [wait]).

start_below(Sup) -> supervisor:start_child(Sup, [wait]).

wait() -> receive stop -> ok end.

named(Name) ->
    register(Name, self()),
    wait().

handle_call(spawn, _From, St) -> {reply, spawn(?MODULE, wait, []), St};
handle_call({start, Sup}, _From, St) -> {reply, supervisor:start_child(Sup, [wait]), St}.

handle_cast(_, St) -> {noreply, St}.

supervisor() ->
    {ok, Sup} = supervisor:start_link(?MODULE, supervisor),
    Sup.

stop(Pid) ->
    Monitor = monitor(process, Pid),
    unlink(Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

scope_of(Pid) ->
    #{scope := Scope} = lineage_nif:record(Pid),
    Scope.

%% Runs in a process of its own, and returns what that returned.
elsewhere(Fun) ->
    {_, Monitor} = spawn_monitor(fun() -> exit({result, Fun()}) end),
    receive {'DOWN', Monitor, process, _, {result, Result}} -> Result end.

pids(#{leaks := Leaks}) -> [Pid || #{pid := Pid} <- Leaks].

%% Cases

handed_down(_) ->
    Scope = lineage_scope:open("handed down"),
    Self = self(),
    {Child, Monitor} = spawn_monitor(fun() -> Self ! {grandchild, spawn(?MODULE, wait, [])} end),
    Grandchild = receive {grandchild, Pid} -> Pid end,
    receive {'DOWN', Monitor, process, Child, normal} -> ok end,
    ok = lineage_scope:close(Scope),
    After = spawn(?MODULE, wait, []),
    ?assertEqual([Scope, 0, 0], [scope_of(P) || P <- [Grandchild, After, self()]]),
    #{leaks := [#{pid := Grandchild, direct := true, kind := abandoned, parent := Child}]} =
        lineage_leak:check(Scope, #{within => 0}),
    [stop(P) || P <- [Grandchild, After]].

nested(_) ->
    Outer = lineage_scope:open(outer),
    Inner = lineage_scope:open(inner),
    Leak = spawn(?MODULE, wait, []),
    ok = lineage_scope:close(Inner),
    ?assertEqual(Outer, scope_of(self())),
    %% What is in the inner one is in the outer one too.
    ?assertEqual([Leak], pids(lineage_leak:check(Outer, #{within => 0}))),
    ?assertEqual([Leak], pids(lineage_leak:check(Inner, #{within => 0}))),
    stop(Leak).

owner_elsewhere(_) ->
    Other = spawn(fun() -> receive {go, From} -> From ! {child, spawn(?MODULE, wait, [])} end, wait() end),
    Scope = lineage_scope:open("of another process", Other),
    Other ! {go, self()},
    Child = receive {child, Pid} -> Pid end,
    stop(Other),
    ?assertEqual([Child], pids(lineage_leak:check(Scope, #{within => 0}))),
    ?assertError({lineage, unknown_pid}, lineage_scope:open("of the dead", Other)),
    ?assertError({lineage, unknown_pid}, lineage_scope:open("of none", none)),
    stop(Child).

requests(_) ->
    Sup = supervisor(),
    {ok, Before} = supervisor:start_child(Sup, [wait]),
    {Scope, Mine} = elsewhere(fun() ->
                                      S = lineage_scope:open(requests),
                                      {ok, Child} = supervisor:start_child(Sup, [wait]),
                                      {S, Child}
                              end),
    {ok, After} = supervisor:start_child(Sup, [wait]),
    ?assertEqual([0, Scope, 0, 0], [scope_of(P) || P <- [Before, Mine, After, Sup]]),
    #{leaks := [#{pid := Mine, kind := supervised, supervisor := Sup, direct := true} = Leak]} = Report =
        lineage_leak:check(Scope, #{within => 0}),
    %% The call that started it is a line of this file; it was made in the supervisor.
    #{site := #{kind := call, module := ?MODULE, function := {start_child, 1}}} = Leak,
    match = re:run(lineage_leak:text(Report), "direct +<[0-9.]+> supervised by .*lineage_scope_SUITE:wait/0", [{capture, none}]),
    stop(Sup).

%% Where no code of the user's spawns, the line is that of the request.
asked(_) ->
    {ok, Sup} = supervisor:start_link(?MODULE, static),
    Child = #{id => child, start => {gen_server, start_link, [?MODULE, server, []]}},
    {Scope, {line, Line}} = elsewhere(fun() ->
                                              S = lineage_scope:open(asked),
                                              {line, Here} = line(),
                                              {ok, _} = supervisor:start_child(Sup, Child),
                                              {S, {line, Here + 1}}
                                      end),
    #{leaks := [#{site := Site}]} = lineage_leak:check(Scope, #{within => 0}),
    ?assertMatch(#{kind := call, line := Line, module := ?MODULE}, Site),
    stop(Sup).

requests_nest(_) ->
    Upper = supervisor(),
    Lower = supervisor(),
    {Scope, Child} = elsewhere(fun() ->
                                       S = lineage_scope:open(nested),
                                       {ok, C} = supervisor:start_child(Upper, [{below, Lower}]),
                                       {S, C}
                               end),
    ?assertEqual(Scope, scope_of(Child)),
    [stop(P) || P <- [Upper, Lower]].

servers_work_is_theirs(_) ->
    {ok, Server} = gen_server:start_link(?MODULE, server, []),
    Sup = supervisor(),
    {Scope, Spawned, {ok, Started}} =
        elsewhere(fun() ->
                          S = lineage_scope:open("asks a server"),
                          {S, gen_server:call(Server, spawn, infinity), gen_server:call(Server, {start, Sup}, infinity)}
                  end),
    ?assertEqual([0, 0], [scope_of(P) || P <- [Spawned, Started]]),
    ?assert(lineage_leak:is_clean(lineage_leak:check(Scope, #{within => 0}))),
    [stop(P) || P <- [Spawned, Sup, Server]].

%% However the request ends, the supervisor is done with it.
failed_request(_) ->
    Sup = supervisor(),
    elsewhere(fun() ->
                      _ = lineage_scope:open("fails"),
                      {error, on_purpose} = supervisor:start_child(Sup, [fail]),
                      {error, {'EXIT', _}} = supervisor:start_child(Sup, [crash])
              end),
    Other = spawn_monitor(fun() -> supervisor:start_child(Sup, [wait]) end),
    receive {'DOWN', Monitor, process, Pid, normal} when {Pid, Monitor} =:= Other -> ok end,
    [{_, Child, _, _}] = supervisor:which_children(Sup),
    ?assertEqual(0, scope_of(Child)),
    stop(Sup).

%% 64 at once share supervisors and servers; each finds what it started, and nothing else.
many_at_once(_) ->
    Sups = [supervisor() || _ <- lists:seq(1, 4)],
    {ok, Server} = gen_server:start_link(?MODULE, server, []),
    Workers = [spawn_monitor(fun() -> exit({result, busy(N, Sups, Server)}) end) || N <- lists:seq(1, 64)],
    Results = [receive {'DOWN', Monitor, process, Pid, {result, Result}} -> Result end || {Pid, Monitor} <- Workers],
    ?assertEqual([], [Wrong || {Expected, Found} = Wrong <- Results, Expected =/= Found]),
    ?assertEqual(64 * 20, lists:sum([length(Expected) || {Expected, _} <- Results])),
    [stop(P) || P <- [Server | Sups]].

busy(N, Sups, Server) ->
    rand:seed(exsss, N),
    Scope = lineage_scope:open(N),
    %% Only the first supervisor asks others, which never ask it.
    Mine = [case rand:uniform(4) of
                1 -> spawn(?MODULE, wait, []);
                2 -> element(2, supervisor:start_child(hd(Sups), [{below, pick(tl(Sups))}]));
                _ -> _ = gen_server:call(Server, spawn, infinity), element(2, supervisor:start_child(pick(Sups), [wait]))
            end || _ <- lists:seq(1, 20)],
    {lists:sort(Mine), lists:sort(pids(lineage_leak:check(Scope, #{within => 0})))}.

pick(List) -> lists:nth(rand:uniform(length(List)), List).

points_come_and_go(_) ->
    Armed = fun() -> lineage_session:check(), element(2, lineage_points_info()) end,
    ?assertEqual(false, Armed()),
    Owner = spawn(?MODULE, wait, []),
    Scope = lineage_scope:open(points, Owner),
    ?assertEqual(true, Armed()),
    _ = lineage_leak:check(Scope, #{within => 0}),
    ?assertEqual(false, Armed()),
    stop(Owner).

lineage_points_info() ->
    {requests, ets:lookup_element(lineage, requests, 2)}.

block(_) ->
    {7, #{leaks := [#{pid := Pid}], name := <<"a block">>} = Report} =
        lineage:scope("a block", fun() -> spawn(?MODULE, wait, []), 7 end),
    ?assertNot(lineage_leak:is_clean(Report)),
    stop(Pid),
    {8, #{leaks := []} = Clean} = lineage:scope([a, {term, 1}], fun() -> 8 end),
    ?assert(lineage_leak:is_clean(Clean)).

block_raises(_) ->
    ?assertError(on_purpose, lineage:scope(raises, fun() -> error(on_purpose) end)),
    ?assertEqual(0, scope_of(self())).

%% It waits for a death, not for its deadline.
waits_for_the_end(_) ->
    Self = self(),
    Scope = lineage_scope:open("ends"),
    Leaver = spawn(fun() -> receive go -> ok end, Self ! gone end),
    spawn_link(fun() ->
                       %% Ends when the check has asked: a monitor on it says so.
                       await_monitor(Leaver),
                       Leaver ! go
               end),
    #{leaks := [], waited_ms := Waited} = lineage_leak:check(Scope, #{within => 60000}),
    receive gone -> ok end,
    ?assert(Waited < 30000).

await_monitor(Pid) ->
    case process_info(Pid, monitored_by) of
        {monitored_by, [_ | _]} -> ok;
        {monitored_by, []} -> erlang:yield(), await_monitor(Pid)
    end.

direct_and_indirect(_) ->
    Self = self(),
    Scope = lineage_scope:open("below"),
    Top = spawn(fun() ->
                        A = spawn(?MODULE, wait, []),
                        B = spawn_link(fun() -> Self ! {c, spawn(?MODULE, wait, [])}, wait() end),
                        Self ! {ab, A, B},
                        wait()
                end),
    {A, B} = receive {ab, A0, B0} -> {A0, B0} end,
    C = receive {c, C0} -> C0 end,
    #{leaks := [First | Below]} = Report = lineage_leak:check(Scope, #{within => 0}),
    #{pid := Top, direct := true, root := Top} = First,
    ?assertEqual(lists:sort([{P, Top, false} || P <- [A, B, C]]),
                 lists:sort([{P, R, D} || #{pid := P, root := R, direct := D} <- Below])),
    Text = lineage_leak:text(Report),
    match = re:run(Text, "1 direct leak, 3 indirect leaks in below after [0-9]+ ms\\.", [{capture, none}]),
    [stop(P) || P <- [Top, A, B, C]].

ignored(_) ->
    Line = 1 + element(2, line()),
    Start = fun() -> {spawn(?MODULE, wait, []), spawn(?MODULE, named, [scope_suite_name])} end,
    Place = ["lineage_scope_SUITE.erl:" ++ integer_to_list(Line)],
    Ways = [{?MODULE, wait, 0}, {?MODULE, wait, '_'}, {?MODULE, '_never_', 0}, scope_suite_name,
            {site, hd(Place)}, {site, <<"lineage_scope_SUITE.erl">>}, {site, <<"SUITE.erl">>}, {app, no_such_app}],
    Found = [begin
                 {Scope, {Plain, Named}} = {lineage_scope:open(ignored), Start()},
                 await_name(scope_suite_name),
                 #{ignored := Ignored, unused := Unused, leaks := Leaks} =
                     lineage_leak:check(Scope, #{within => 0, ignore => [Way]}),
                 [stop(P) || P <- [Plain, Named]],
                 {Way, [N || {N, P} <- [{plain, Plain}, {named, Named}], lists:member(P, [I || {_, I} <- Ignored])],
                  Unused, length(Leaks)}
             end || Way <- Ways],
    Site = fun(Way) -> {Way, [plain, named], [], 0} end,
    ?assertEqual([{{?MODULE, wait, 0}, [plain], [], 1}, {{?MODULE, wait, '_'}, [plain], [], 1},
                  {{?MODULE, '_never_', 0}, [], [{?MODULE, '_never_', 0}], 2}, {scope_suite_name, [named], [], 1},
                  Site({site, hd(Place)}), Site({site, <<"lineage_scope_SUITE.erl">>}),
                  %% Half a file's name is none.
                  {{site, <<"SUITE.erl">>}, [], [{site, <<"SUITE.erl">>}], 2},
                  {{app, no_such_app}, [], [{app, no_such_app}], 2}], Found),
    ?assertEqual(lists:sort([{?MODULE, '_never_', 0}, {site, <<"SUITE.erl">>}, {app, no_such_app}]),
                 lists:sort(lineage_leak:unused())).

line() ->
    {current_stacktrace, [_, {_, _, _, Where} | _]} = process_info(self(), current_stacktrace),
    {line, proplists:get_value(line, Where)}.

await_name(Name) ->
    case whereis(Name) of
        undefined -> erlang:yield(), await_name(Name);
        Pid -> Pid
    end.

ignored_by_an_ancestor(_) ->
    Self = self(),
    Scope = lineage_scope:open(ancestor),
    Top = spawn(fun() ->
                        register(scope_suite_name, self()),
                        Self ! {child, spawn(?MODULE, wait, [])},
                        wait()
                end),
    Child = receive {child, Pid} -> Pid end,
    #{leaks := [], ignored := Ignored} = lineage_leak:check(Scope, #{within => 0, ignore => [scope_suite_name]}),
    ?assertEqual(lists:sort([{scope_suite_name, P} || P <- [Top, Child]]), lists:sort(Ignored)),
    [stop(P) || P <- [Top, Child]].

lazy_servers(_) ->
    [supervisor:terminate_child(kernel_safe_sup, Id) || {Id, _, _, [timer]} <- supervisor:which_children(kernel_safe_sup)],
    [supervisor:delete_child(kernel_safe_sup, Id) || {Id, undefined, _, [timer]} <- supervisor:which_children(kernel_safe_sup)],
    undefined = whereis(timer_server),
    {_, #{leaks := [], ignored := [{lazy, Timer}]}} = lineage:scope(lazy, fun() -> {ok, _} = timer:apply_after(60000, ?MODULE, wait, []) end),
    ?assertEqual(whereis(timer_server), Timer).

silent_failures(_) ->
    Ended = fun(Pid) -> gone(Pid) end,
    {Dead, #{silent := Silent, leaks := []} = Report} =
        lineage:scope(silent, fun() ->
                                      A = spawn(fun() -> exit(on_purpose) end),
                                      B = spawn(fun() -> ok end),
                                      C = spawn(?MODULE, wait, []),
                                      exit(C, kill),
                                      {D, _} = spawn_monitor(fun() -> exit(on_purpose) end),
                                      [Ended(P) || P <- [A, B, C, D]],
                                      A
                              end),
    [#{pid := Dead, reason := on_purpose, site := #{kind := call}}] = Silent,
    ?assertNot(lineage_leak:is_clean(Report)),
    match = re:run(lineage_leak:text(Report), "1 silent failure in silent\\.", [{capture, none}]).

%% Without a monitor, which would be one who notices.
gone(Pid) ->
    case is_process_alive(Pid) of
        true -> erlang:yield(), gone(Pid);
        false -> ok
    end.

bad_arguments(_) ->
    ?assertError({lineage, bad_argument}, lineage:scope(x, y)),
    [begin
         Scope = lineage_scope:open(bad),
         ?assertError({lineage, bad_argument}, lineage_leak:check(Scope, Options)),
         lineage_scope:close(Scope)
     end || Options <- [x, #{within => soon}, #{within => -1}, #{ignore => x}, #{ignore => [1]}, #{ignore => [{site, 1}]},
                        #{ignore => [{m, f, 256}]}, #{ignore => [a | b]}, #{ignore => [undefined]}, #{ignore => [{label, undefined}]},
                        #{ignore => [{site, <<255>>}]}, #{what => 1}]],
    ?assertError({lineage, unknown_scope}, lineage_leak:check(999999, #{})),
    ok = lineage_scope:close(999999),
    [?assertError(badarg, apply(lineage_nif, F, Args)) ||
        {F, Args} <- [{scope, [x, 1]}, {scope, [self(), -1]}, {scope, [self(), 1 bsl 32]}, {scope, [self(), x]},
                      {scoped, [x]}, {scoped, [[x]]}, {scoped, [[1 | 2]]}, {scoped, [[-1]]}]].

%% Many tests that begin at once need one session, and one of them makes it.
attaches_by_itself(_) ->
    Workers = [spawn_monitor(fun() -> exit({scope, lineage_leak:open(N)}) end) || N <- lists:seq(1, 64)],
    Scopes = [receive {'DOWN', Monitor, process, Pid, {scope, Scope}} -> Scope end || {Pid, Monitor} <- Workers],
    ?assertEqual(64, length(lists:usort(Scopes))),
    #{exits := all, sites := exact, monitors := exact} = lineage_session:lookup(options).

less_is_refused(_) ->
    {ok, _} = lineage:attach(#{exits => all, sites => exact}),
    [{_, _, _, Error} | _] = try lineage_leak:open(x) catch error:{lineage, leaks_need}:Stack -> Stack end,
    #{cause := #{sentence := Sentence}} = proplists:get_value(error_info, Error),
    match = re:run(Sentence, "monitors => off.*lineage:detach\\(\\)", [{capture, none}]),
    %% A session that does less still has scopes.
    {ok, #{leaks := []}} = lineage:scope(x, fun() -> ok end).

ended_scopes(_) ->
    {Pid, _} = lineage:scope("survived", fun() -> spawn(?MODULE, wait, []) end),
    {_, _} = lineage:scope("clean", fun() -> ok end),
    [#{name := <<"survived">>, leaks := [#{pid := Pid}]}] = lineage_scope:ended(),
    stop(Pid),
    ?assertEqual([], lineage_scope:ended()).

%% The application controller waits for the session, so the session must not wait for it: that took 5 s, and crashed.
stops_at_once(_) ->
    Stops = [begin
                 {Us, ok} = timer:tc(fun() -> application:stop(lineage) end),
                 {ok, _} = application:ensure_all_started(lineage),
                 Us
             end || _ <- [1, 2, 3]],
    ?assert(lists:min(Stops) < 4000000).

%% Somebody else attaches: the tests wait for that, and none fails of it.
attaching_meanwhile(_) ->
    Many = [spawn(?MODULE, wait, []) || _ <- lists:seq(1, 30000)],
    {_, Monitor} = spawn_monitor(fun() -> exit(lineage:attach(#{exits => all, sites => exact, monitors => exact})) end),
    is_attaching(),
    ?assert(is_integer(lineage_leak:open("meanwhile"))),
    receive {'DOWN', Monitor, process, _, {ok, _}} -> ok end,
    [exit(P, kill) || P <- Many].

is_attaching() ->
    try lineage_session:lookup(options) of
        _ -> error(too_late)
    catch
        error:{lineage, attaching} -> ok;
        error:{lineage, not_attached} -> erlang:yield(), is_attaching()
    end.

%% What a crashed session has numbered must not be another's scope in the next.
numbers_go_on(_) ->
    Old = lineage_scope:open("before"),
    Session = whereis(lineage_session),
    stop(Session),
    attach_again(),
    New = elsewhere(fun() -> lineage_scope:open("after") end),
    ?assert(New > Old),
    ?assertError({lineage, unknown_scope}, lineage_leak:check(Old, #{within => 0})),
    ?assertEqual(<<"after">>, lineage_scope:name(New)).

attach_again() ->
    case lineage:attach(#{exits => all, sites => exact, monitors => exact}) of
        {ok, _} -> ok;
        {error, _} -> erlang:yield(), attach_again()
    end.

%% Nobody closes their scopes; what is left of them is told.
of_the_killed(_) ->
    Self = self(),
    {Owner, Monitor} = spawn_monitor(fun() ->
                                             lineage:scope("killed", fun() ->
                                                                             Self ! {left, spawn(?MODULE, wait, [])},
                                                                             wait()
                                                                     end)
                                     end),
    Left = receive {left, Pid} -> Pid end,
    exit(Owner, kill),
    receive {'DOWN', Monitor, process, Owner, killed} -> ok end,
    ok = lineage_scope:reap(0),
    [#{name := <<"killed">>, leaks := [#{pid := Left}]}] = lineage_scope:ended(0),
    stop(Left),
    ?assertEqual([], lineage_scope:ended(0)).

%% Whatever ends without a check is forgotten some day.
long_suites(_) ->
    [?assertError(on_purpose, lineage:scope(N, fun() -> error(on_purpose) end)) || N <- lists:seq(1, 1200)],
    ok = lineage_session:check(),
    ?assert(ets:info(lineage_scopes, size) =< 1000).

ended_at_once(_) ->
    [?assertError(on_purpose, lineage:scope(N, fun() -> error(on_purpose) end)) || N <- lists:seq(1, 300)],
    Askers = [spawn_monitor(fun() -> exit({ended, lineage_scope:ended(0)}) end) || _ <- lists:seq(1, 4)],
    [receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual({ended, []}, Reason) end || {_, Monitor} <- Askers].

%% What a block raised is what its user sees, also when Lineage has stopped meanwhile.
own_error_first(_) ->
    Stop = fun() -> ok = application:stop(lineage), error(on_purpose) end,
    ?assertError(on_purpose, lineage:scope("stopped", Stop)),
    {ok, _} = application:ensure_all_started(lineage),
    {ok, _} = lineage:attach(#{exits => all, sites => exact, monitors => exact}),
    ?assertError(on_purpose, lineage_eunit:assert(Stop, #{}, [{module, ?MODULE}, {line, ?LINE}])),
    {ok, _} = application:ensure_all_started(lineage).

%% Who checks gets an error, and is not killed.
detached_meanwhile(_) ->
    {Checker, Monitor} = spawn_monitor(fun() ->
                                               Scope = lineage_scope:open("detached"),
                                               Left = spawn(?MODULE, wait, []),
                                               spawn_link(fun() -> await_monitor(Left), lineage:detach(), stop(Left) end),
                                               exit(try lineage_leak:check(Scope, #{within => 600000})
                                                    catch error:{lineage, Tag} -> {caught, Tag}
                                                    end)
                                       end),
    receive {'DOWN', Monitor, process, Checker, Reason} -> ?assertEqual({caught, not_attached}, Reason) end.

%% Not once for each leak: that is a walk over the node.
links_are_read_once(_) ->
    Scope = lineage_scope:open("many"),
    Many = [spawn(?MODULE, wait, []) || _ <- lists:seq(1, 50)],
    {module, _} = code:ensure_loaded(lineage_links),
    1 = erlang:trace_pattern({lineage_links, check, 0}, true, [call_count]),
    #{leaks := Leaks} = lineage_leak:check(Scope, #{within => 0}),
    {call_count, Calls} = erlang:trace_info({lineage_links, check, 0}, call_count),
    1 = erlang:trace_pattern({lineage_links, check, 0}, false, [call_count]),
    ?assertEqual({50, 1}, {length(Leaks), Calls}),
    [stop(P) || P <- Many].

%% Killed while the supervisor has others to serve first: the child is started all the same, and nobody else's.
asker_dies(_) ->
    Sup = supervisor(),
    Self = self(),
    spawn(fun() -> supervisor:start_child(Sup, [{busy, Self}]) end),
    receive {busy, Sup} -> ok end,
    Scope = lineage_scope:open("asker dies"),
    Asker = spawn(fun() -> {ok, _} = supervisor:start_child(Sup, [wait]), ok end),
    await_message(Sup),
    stop(Asker),
    Sup ! go,
    ok = lineage_scope:close(Scope),
    [{_, Child, _, _}] = supervisor:which_children(Sup),
    ?assertEqual([Child], pids(lineage_leak:check(Scope, #{within => 0}))),
    unlink(Sup),
    stop(Sup).

await_message(Pid) ->
    case process_info(Pid, message_queue_len) of
        {message_queue_len, 0} -> erlang:yield(), await_message(Pid);
        {message_queue_len, _} -> ok
    end.

%% However long a request waits, it is known which line made it.
asks_a_busy_one(_) ->
    {ok, Sup} = supervisor:start_link(?MODULE, static),
    Busy = #{id => busy, start => {?MODULE, start_child, [{busy, self()}]}},
    spawn(fun() -> supervisor:start_child(Sup, Busy) end),
    receive {busy, Sup} -> ok end,
    %% A frame that waits for a birth of its own is too old after a tenth of a second.
    erlang:send_after(400, Sup, go),
    Child = #{id => child, start => {gen_server, start_link, [?MODULE, server, []]}},
    {Scope, {line, Line}} = elsewhere(fun() ->
                                              S = lineage_scope:open(asked),
                                              {line, Here} = line(),
                                              {ok, _} = supervisor:start_child(Sup, Child),
                                              {S, {line, Here + 1}}
                                      end),
    #{leaks := [#{site := Site}]} = lineage_leak:check(Scope, #{within => 0}),
    ?assertMatch(#{line := Line}, Site),
    unlink(Sup),
    stop(Sup).

%% Before OTP 27 the trace points are given up meanwhile.
opened_while_yielded(_) ->
    Sup = supervisor(),
    Self = self(),
    Opener = spawn(fun() ->
                           receive open -> ok end,
                           Self ! {scope, lineage_scope:open("yielded")},
                           receive go -> ok end,
                           supervisor:start_child(Sup, [wait]),
                           Self ! asked,
                           wait()
                   end),
    Scope = lineage:yield(fun() ->
                                  Opener ! open,
                                  receive {scope, S} -> await_blind(S), S end
                          end),
    Opener ! go,
    receive asked -> ok end,
    [{_, Child, _, _}] = supervisor:which_children(Sup),
    #{leaks := [#{pid := Child}], notes := Notes} = lineage_leak:check(Scope, #{within => 0}),
    ?assertEqual(lineage_hook:api() =:= single, [Note || <<"For ", _/binary>> = Note <- Notes] =/= []),
    stop(Opener),
    stop(Sup).

await_blind(Scope) ->
    lineage_hook:api() =:= sessions orelse lineage_scope:blind(Scope) > 0 orelse await_blind(Scope).

%% What its owner spawned before it was opened is not of it, though nobody saw it; what it spawned after that is.
hook_taken(_) ->
    Another = lineage_scope:open("another"),
    [hook_taken(Released, Many) || Released <- case lineage_hook:api() of
                                                   single -> [before_open, while_mended, after_open, yielded];
                                                   sessions -> [before_open]
                                               end, Many <- [1, 3000]],
    lineage_scope:close(Another).

hook_taken(yielded, Many) ->
    Owner = spawner(),
    {Before, Scope} = lineage:yield(fun() -> {spawned_by(Owner, Many), lineage_scope:open("yielded", Owner)} end),
    only_later(Scope, Before, Owner);
hook_taken(Released, Many) ->
    Owner = spawner(),
    take_hook(),
    Before = spawned_by(Owner, Many),
    Released =:= before_open andalso release_hook(),
    Released =:= while_mended andalso begin release_hook(), begin_mending() end,
    Scope = lineage_scope:open("taken", Owner),
    Released =:= after_open andalso release_hook(),
    only_later(Scope, Before, Owner).

%% The session has just set the hook again, and not yet learnt of what was born without it.
begin_mending() ->
    spawn(fun lineage_session:check/0),
    await_hook().

await_hook() ->
    case erlang:trace_info(new_processes, tracer) of
        {tracer, []} -> await_hook();
        {tracer, {lineage_nif, _}} -> ok
    end.

only_later(Scope, Before, Owner) ->
    [After] = spawned_by(Owner, 1),
    lineage_session:check(),
    ?assertEqual([After], pids(lineage_leak:check(Scope, #{within => 0}))),
    [stop(Pid) || Pid <- [After, Owner | Before]].

%% What another tool lets go while it has the hook stays its own to trace. Before 27: then none can take it.
hook_held(_) ->
    Owner = spawner(),
    take_hook(),
    [Pid] = spawned_by(Owner, 1),
    1 = erlang:trace(Pid, false, [all]),
    lineage_session:check(),
    #{pid := Pid} = lineage_nif:record(Pid),
    ?assertEqual({tracer, []}, erlang:trace_info(Pid, tracer)),
    release_hook(),
    lineage_session:check(),
    ?assertMatch({tracer, {lineage_nif, _}}, erlang:trace_info(Pid, tracer)),
    [stop(P) || P <- [Pid, Owner]].

spawner() ->
    spawn(fun Spawner() -> receive {spawn, To} -> To ! {spawned, spawn(?MODULE, wait, [])}, Spawner() end end).

spawned_by(Owner, Many) ->
    [begin Owner ! {spawn, self()}, receive {spawned, Pid} -> Pid end end || _ <- lists:seq(1, Many)].

take_hook() ->
    case lineage_hook:api() of
        single ->
            0 = erlang:trace(new_processes, true, [procs]);
        sessions ->
            [{hook, #{handle := Handle}}] = ets:lookup(lineage, hook),
            lineage_hook:session(session_destroy, [Handle])
    end.

release_hook() ->
    lineage_hook:api() =:= single andalso erlang:trace(new_processes, false, [procs]).

%% One that more of others' have pushed out is not told: that is.
silent_among_many(_) ->
    Scope = lineage_scope:open("silent"),
    gone(spawn(fun() -> exit(on_purpose) end)),
    ok = lineage_scope:close(Scope),
    [gone(spawn(fun() -> exit(on_purpose) end)) || _ <- lists:seq(1, 4000)],
    #{notes := Notes} = lineage_leak:check(Scope, #{within => 0}),
    ?assertMatch([_], [Note || <<"Of silent failures", _/binary>> = Note <- Notes]).

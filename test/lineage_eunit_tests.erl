%% EUnit's leaks: the macro and the fixture, seen through runs of EUnit of their own.
-module(lineage_eunit_tests).

-include_lib("eunit/include/eunit.hrl").
-include("../include/lineage.hrl").

%% The listener of the inner runs.
-export([start/1, init/1, handle_begin/3, handle_end/3, handle_cancel/3, terminate/2]).
%% What inner runs test by name.
-export([named_leak/0, named_clean/0]).

-define(SOON, #{within => 50}).

%% Each of these attaches by itself; the session is one for all.
all_test_() ->
    {setup, fun lineage:detach/0, fun(_) -> lineage:detach() end,
     [{timeout, 60, {atom_to_list(Name), Test}}
      || {Name, Test} <- [{macro_value, fun macro_value/0}, {macro_leak, fun macro_leak/0}, {macro_raises, fun macro_raises/0},
                          {macro_silent, fun macro_silent/0}, {macro_options, fun macro_options/0}, {parallel, fun parallel/0},
                          {representations, fun representations/0}, {as_before, fun as_before/0},
                          {fixtures, fun fixtures/0}, {fixture_leaks, fun fixture_leaks/0}, {failing, fun failing/0},
                          {late, fun late/0}, {modules, fun modules/0}, {bad_options, fun bad_options/0},
                          {lesser_session, fun lesser_session/0}]]}.

%% A process without a link that waits to be ended by the test that made it, and the line that spawns it. No tail call: its
%% line is then known even where the beam file is so new that it could have changed since attach.
loiter() ->
    Pid = spawn(fun() -> receive stop -> ok end end),
    put(loiter, Pid),
    Pid.
loiter_line() -> ?LINE - 3.

stop(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% The macro

macro_value() ->
    ?assertEqual({value, 3}, ?assertNoLeaks({value, 1 + 2})),
    ?assertEqual(ok, ?assertNoLeaks(stop(loiter()))),
    ?assertEqual(self(), ?assertNoLeaks(self())).

macro_leak() ->
    Me = self(),
    {Reason, Line} = try ?assertNoLeaks(Me ! {leaked, spawn(fun() -> receive stop -> ok end end)}, ?SOON) of
                         _ -> error(unreachable)
                     catch
                         error:R -> {R, ?LINE - 3}
                     end,
    {assertNoLeaks, [{module, ?MODULE}, {line, Line}, {expression, Expression}, {report, Report}]} = Reason,
    ?assertMatch("Me ! { leaked" ++ _, Expression),
    ?assert(has(Report, place(Line))),
    receive {leaked, Pid} -> stop(Pid) end.

macro_raises() ->
    Me = self(),
    Test = fun() -> ?assertNoLeaks(begin Me ! {leaked, loiter()}, throw(mine) end, ?SOON) end,
    [{_, {error, {throw, mine, _}}, Output}] = run(Test),
    ?assert(has(Output, place(loiter_line()))),
    receive {leaked, Pid} -> stop(Pid) end.

%% Its table is handed on when it dies, which is no way to hear of it that counts.
macro_silent() ->
    Me = self(),
    Fail = fun() ->
                   spawn(fun() -> ets:new(table, [{heir, Me, gone}]), exit(unheard) end),
                   receive {'ETS-TRANSFER', Table, _, gone} -> ets:delete(Table) end
           end,
    Line = ?LINE - 3,
    try ?assertNoLeaks(Fail()) of
        _ -> error(unreachable)
    catch
        error:{assertNoLeaks, Info} ->
            Report = proplists:get_value(report, Info),
            [?assert(has(Report, Text)) || Text <- [place(Line), "died of unheard"]]
    end.

macro_options() ->
    Me = self(),
    Leak = fun() -> Me ! {leaked, loiter()} end,
    ?assertMatch({leaked, _}, ?assertNoLeaks(Leak(), #{within => 10, ignore => [{site, place(loiter_line())}]})),
    receive {leaked, Pid} -> stop(Pid) end.

%% The fixture

%% 100 tests at once, each the spawner of a tree; those that leak wait until all leak.
parallel() ->
    Leaking = [3, 17, 42, 64, 99],
    Keeper = spawn_link(fun() -> keep([]) end),
    Tests = [{integer_to_list(N), {N, fun() -> work(N, lists:member(N, Leaking), Keeper) end}} || N <- lists:seq(1, 100)],
    Results = run(lineage_eunit:no_leaks(?SOON, {inparallel, Tests})),
    ?assertEqual(100, length(Results)),
    ?assertEqual(lists:seq(1, 100), lists:sort([Line || {{_, Line}, _, _} <- Results])),
    ?assertEqual(Leaking, lists:sort([Line || {{_, Line}, {error, _}, _} <- Results])),
    [begin
         ?assertEqual(Line, proplists:get_value(line, Info)),
         ?assertEqual(?MODULE, proplists:get_value(module, Info)),
         ?assert(has(proplists:get_value(report, Info), place(loiter_line()))),
         ?assert(has(proplists:get_value(report, Info), "1 direct leak in "))
     end || {{_, Line}, {error, {error, {assertNoLeaks, Info}, _}}, _} <- Results],
    Keeper ! {stop, self()},
    receive {Keeper, stopped} -> ok end.

work(_N, Leaks, Keeper) ->
    Me = self(),
    %% The process between is dead when the test ends.
    {Between, Monitor} = spawn_monitor(fun() -> Me ! {self(), loiter()} end),
    Pid = receive {Between, Child} -> Child end,
    receive {'DOWN', Monitor, process, Between, normal} -> ok end,
    case Leaks of
        true -> Keeper ! {keep, Pid};
        false -> stop(Pid)
    end.

keep(Pids) ->
    receive
        {keep, Pid} -> keep([Pid | Pids]);
        {stop, From} -> lists:foreach(fun stop/1, Pids), From ! {self(), stopped}
    end.

named_leak() -> register(?MODULE, loiter()).
named_clean() -> ok.

named_stop() -> stop(whereis(?MODULE)).

%% Each way to write a test, leaking: one failure, and where EUnit says that it is as without the fixture.
representations() ->
    Leak = fun named_leak/0,
    X = fun(_) -> named_leak() end,
    Sets = [Leak, {7, Leak}, {?MODULE, named_leak}, {test, ?MODULE, named_leak}, {{?MODULE, named_leak, 0}, Leak},
            {"a title", Leak}, {<<"a title">>, 7, Leak}, {"a title", ?MODULE, named_leak}, [[Leak]], [[], [Leak, []]], [Leak | fun named_clean/0],
            {generator, fun() -> [Leak] end}, [{7, fun named_clean/0} | {generator, fun() -> Leak end}],
            {spawn, Leak}, {inorder, [Leak]}, {inparallel, [Leak]}, {inparallel, 2, Leak}, {timeout, 3, Leak},
            {timeout, 3, {inorder, {spawn, {"deep", [Leak]}}}},
            {setup, fun() -> ok end, Leak}, {setup, fun() -> x end, fun(x) -> ok end, fun(x) -> Leak end},
            {setup, local, fun() -> x end, fun(x) -> [Leak] end}, {setup, spawn, fun() -> x end, fun(x) -> ok end, [Leak]},
            {setup, fun() -> x end, {with, [X]}}, {setup, [{one, fun() -> x end, fun(x) -> ok end}, {two, fun() -> y end}], fun([x, y]) -> Leak end},
            {foreach, fun() -> x end, [fun(x) -> Leak end]}, {foreach, local, fun() -> x end, fun(x) -> ok end, [Leak]},
            {foreachx, fun(a) -> x end, [{a, fun(a, x) -> Leak end}]},
            {foreachx, local, fun(a) -> x end, fun(a, x) -> ok end, [{a, fun(a, x) -> Leak end}]},
            {with, a, [X]}],
    [begin
         Bare = run(Set),
         ?assertEqual([], [R || {_, {error, _}, _} = R <- Bare]),
         named_stop(),
         Checked = run(lineage_eunit:no_leaks(?SOON, Set)),
         named_stop(),
         ?assertEqual([Where || {Where, _, _} <- Bare], [Where || {Where, _, _} <- Checked]),
         ?assertMatch([{error, {error, {assertNoLeaks, _}, _}}], [Why || {_, {error, _} = Why, _} <- Checked], Set)
     end || Set <- Sets].

%% Clean tests pass, and the bad ones are as bad as without.
as_before() ->
    Clean = [fun named_clean/0, {"t", {7, fun named_clean/0}}, {generator, fun() -> [{8, fun named_clean/0}] end}],
    ?assertEqual(run(Clean), run(lineage_eunit:no_leaks(Clean))),
    [?assertMatch([{_, {cancel, _}, _} | _], run(lineage_eunit:no_leaks(Bad)), Bad)
     || Bad <- [17, {foo, bar, baz}, {setup, fun() -> ok end, fun() -> ok end, ok}, {foreachx, fun(_) -> ok end, [ok]},
                {generator, fun() -> ok end}, fun(_) -> ok end]],
    [?assertError({lineage, bad_argument}, lineage_eunit:no_leaks(Other))
     || Other <- ["some/dir", {dir, "d"}, {file, "f"}, {application, stdlib}, [fun named_clean/0, ["ebin"]]]].

%% What a setup has started may live through the tests, in whatever process they run, and not after the cleanup.
fixtures() ->
    Test = fun(Pid) -> [{7, fun() -> true = is_process_alive(Pid) end}, {8, fun() -> stop(loiter()) end}] end,
    [?assertMatch([{{_, 7}, ok, _}, {{_, 8}, ok, _}], run(lineage_eunit:no_leaks(?SOON, {setup, P, fun loiter/0, fun stop/1, Test})))
     || P <- [local, spawn]],
    %% A fixture within a fixture.
    Inner = fun(Outer) -> {setup, fun loiter/0, fun stop/1, fun(Pid) -> [Test(Outer), Test(Pid)] end} end,
    ?assertMatch([{_, ok, _}, {_, ok, _}, {_, ok, _}, {_, ok, _}],
                 run(lineage_eunit:no_leaks(?SOON, {setup, fun loiter/0, fun stop/1, Inner}))).

fixture_leaks() ->
    Setup = fun() -> named_leak(), x end,
    Test = {7, fun named_clean/0},
    Leaks = fun(Set, Place) ->
                    Results = run(lineage_eunit:no_leaks(?SOON, Set)),
                    named_stop(),
                    [?assert(has(io_lib:format("~p", [Results]), Text)) || Text <- [place(Place)]],
                    Results
            end,
    [begin
         [{_, {cancel, {abort, {cleanup_failed, {error, {assertNoLeaks, Info}, _}}}}, _}, {{_, 7}, ok, _}] =
             Leaks({setup, P, Setup, fun(x) -> ok end, Test}, loiter_line()),
         ?assertEqual(?MODULE, proplists:get_value(module, Info))
     end || P <- [local, spawn]],
    %% Of the cleanup itself.
    [{_, {cancel, {abort, {cleanup_failed, _}}}, _}, {{_, 7}, ok, _}] =
        Leaks({setup, fun() -> x end, fun(x) -> named_leak() end, Test}, loiter_line()),
    %% A leaking test is not its fixture's.
    [{{_, 7}, {error, _}, _}] = Leaks({setup, fun() -> x end, fun(x) -> ok end, {7, fun named_leak/0}}, loiter_line()).

%% Its own failure stays, and the report is its output.
failing() ->
    [{{_, 7}, {error, {error, mine, _}}, Output}] =
        run(lineage_eunit:no_leaks(?SOON, {7, fun() -> named_leak(), error(mine) end})),
    named_stop(),
    ?assert(has(Output, place(loiter_line()))).

%% EUnit kills a test that is late: what it leaves is told to user, here a process of the test's own.
late() ->
    User = whereis(user),
    Me = self(),
    true = unregister(user),
    true = register(user, spawn_link(fun() -> printer(Me, User) end)),
    try
        Results = run(lineage_eunit:no_leaks(?SOON, {timeout, 2, {7, fun() -> named_leak(), receive never -> ok end end}})),
        ?assertMatch([{_, {cancel, _}, _} | _], Results),
        receive {printed, Text} -> ?assert(has(Text, place(loiter_line()))) end
    after
        unregister(user),
        register(user, User),
        named_stop()
    end.

printer(To, User) ->
    receive
        {io_request, From, As, {put_chars, _, Text}} -> From ! {io_reply, As, ok}, To ! {printed, Text}, printer(To, User);
        Other -> User ! Other, printer(To, User)
    end.

modules() ->
    Module = lineage_eunit_made,
    Tests = [made(clean_test, [], {atom, 1, ok}), made(leak_test, [], call(?MODULE, named_leak, [])),
             made(all_test_, [], {'fun', 1, {function, clean_test, 0}})],
    Wrapper = made(eunit_wrapper_, [{var, 1, 'Tests'}], call(lineage_eunit, no_leaks, [erl_parse:abstract(?SOON), {var, 1, 'Tests'}])),
    [begin
         {ok, Module, Beam} = compile:forms([{attribute, 1, module, Module} | Functions], [export_all, nowarn_export_all]),
         {module, Module} = code:load_binary(Module, "lineage_eunit_made.erl", Beam),
         Results = run(Set),
         named_stop(),
         ?assertMatch([{{{Module, leak_test, 0}, _}, {error, _}, _}], [R || {_, {error, _}, _} = R <- Results]),
         ?assertEqual(3, length(Results)),
         code:purge(Module),
         code:delete(Module)
     end || {Functions, Set} <- [{Tests, lineage_eunit:no_leaks(?SOON, M)} || M <- [Module, {module, Module}, [{"title", Module}]]]
                ++ [{[Wrapper | Tests], Module}]],
    code:purge(Module).

made(Name, Args, Body) -> {function, 1, Name, length(Args), [{clause, 1, Args, [], [Body]}]}.

call(M, F, Args) -> {call, 1, {remote, 1, {atom, 1, M}, {atom, 1, F}}, Args}.

bad_options() ->
    [begin
         ?assertError({lineage, bad_argument}, lineage_eunit:no_leaks(Options, [])),
         ?assertError({lineage, bad_argument}, ?assertNoLeaks(ok, Options))
     end || Options <- [#{within => soon}, #{ignore => [7]}, #{what => 1}, []]].

%% A session that does less: one clear error, and the session stays.
lesser_session() ->
    ok = lineage:detach(),
    {ok, _} = lineage:attach(),
    [{_, {error, {error, {lineage, leaks_need}, _}}, _}] = run(lineage_eunit:no_leaks(fun named_clean/0)),
    ?assertMatch(#{}, lineage:summary()),
    ok = lineage:detach().

%% Runs of EUnit

%% What each test has come to, in the order of their ids: {{Where, Line}, ok | {error, Exception} | {cancel, Why}, Output}.
run(Tests) ->
    Me = self(),
    Ref = make_ref(),
    _ = eunit:test(Tests, [no_tty, {report, {?MODULE, [{to, {Me, Ref}}]}}]),
    receive {Ref, Results} -> [Result || {_Id, Result} <- lists:sort(Results)] end.

start(Options) -> eunit_listener:start(?MODULE, Options).

init(Options) ->
    receive {start, _Reference} -> {proplists:get_value(to, Options), []} end.

handle_begin(_Kind, _Data, State) -> State.

handle_end(test, Data, {To, Results}) ->
    {To, [{id(Data), {where(Data), proplists:get_value(status, Data), proplists:get_value(output, Data)}} | Results]};
handle_end(group, _Data, State) ->
    State.

handle_cancel(_Kind, Data, {To, Results}) ->
    {To, [{id(Data), {where(Data), {cancel, proplists:get_value(reason, Data)}, []}} | Results]}.

terminate(_, {{To, Ref}, Results}) ->
    To ! {Ref, Results}.

id(Data) -> proplists:get_value(id, Data).

where(Data) -> {proplists:get_value(source, Data), proplists:get_value(line, Data)}.

has(Text, Part) -> string:find(Text, Part) =/= nomatch.

place(Line) -> "test/" ?MODULE_STRING ".erl:" ++ integer_to_list(Line).

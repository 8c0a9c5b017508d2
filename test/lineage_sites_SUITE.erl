%% Where processes were spawned: each form of a spawn in generated code, whose lines are known.
-module(lineage_sites_SUITE).

-include_lib("kernel/include/file.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2]).
-export([exact_lines/1, closures/1, off/1, wrappers/1, tail_candidate/1, many_on_a_line/1, stale_calls/1,
         counted_after_death/1, table_is_bounded/1, dead_code/1, recent_and_why/1, saved/1, bad_options/1,
         points_come_back/1, reconciled/1, never_wrong/1, stale_frames/1]).

all() ->
    [exact_lines, closures, off, wrappers, tail_candidate, many_on_a_line, stale_calls, counted_after_death,
     table_is_bounded, dead_code, recent_and_why, saved, bad_options, points_come_back, reconciled, never_wrong, stale_frames].

init_per_testcase(Case, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), Case),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    true = code:add_patha(Dir),
    [{dir, Dir} | Config].

end_per_testcase(_Case, Config) ->
    lineage:detach(),
    code:del_path(proplists:get_value(dir, Config)),
    ok.

%% The forms. `@' marks the line that is the site. sure: that line must be shown as the site. tail: either it is
%% shown, or what is shown says that it is not sure, and names no other line as the call.
forms() ->
    [{sure, ["P = spawn(fun() -> wait() end), % @", "hold(P)"]},
     {sure, ["P = spawn(fun wait/0), % @", "hold(P)"]},
     {sure, ["P = spawn(?MODULE, wait, []), % @", "hold(P)"]},
     {sure, ["hold(spawn_link(fun() -> wait() end)) % @"]},
     {sure, ["hold(spawn_link(?MODULE, wait, [])) % @"]},
     {sure, ["{P, _} = spawn_monitor(?MODULE, wait, []), % @", "hold(P)"]},
     {sure, ["{P, _} = spawn_monitor(fun wait/0), % @", "hold(P)"]},
     {sure, ["P = spawn_opt(fun() -> wait() end, [link]), % @", "hold(P)"]},
     {sure, ["P = spawn_opt(?MODULE, wait, [], []), % @", "hold(P)"]},
     {sure, ["R = spawn_request(?MODULE, wait, []), % @", "receive {spawn_reply, R, ok, P} -> hold(P) end"]},
     {sure, ["R = spawn_request(fun() -> wait() end), % @", "receive {spawn_reply, R, ok, P} -> hold(P) end"]},
     {sure, ["P = proc_lib:spawn(fun() -> wait() end), % @", "hold(P)"]},
     {sure, ["P = proc_lib:spawn(?MODULE, wait, []), % @", "hold(P)"]},
     {sure, ["P = proc_lib:spawn_link(?MODULE, wait, []), % @", "hold(P)"]},
     {sure, ["P = proc_lib:spawn_opt(?MODULE, wait, [], [monitor]), % @", "case P of {Q, _} -> hold(Q) end"]},
     {sure, ["{ok, P} = proc_lib:start(?MODULE, acked, []), % @", "hold(P)"]},
     {sure, ["{ok, P} = proc_lib:start_link(?MODULE, acked, [], 5000), % @", "hold(P)"]},
     {sure, ["{ok, P} = gen_server:start(?MODULE, [], []), % @", "hold(P)"]},
     {sure, ["{ok, P} = gen_server:start_link(?MODULE, [], []), % @", "hold(P)"]},
     {sure, ["{ok, P} = gen_statem:start(?MODULE, statem, []), % @", "hold(P)"]},
     {sure, ["{ok, P} = gen_event:start(), % @", "hold(P)"]},
     {sure, ["{ok, {P, _}} = gen_server:start_monitor(?MODULE, [], []), % @", "hold(P)"]},
     {sure, ["P = apply(erlang, spawn, [?MODULE, wait, []]), % @", "hold(P)"]},
     {sure, ["P = spawn(", "  ?MODULE, % over several lines", "  wait,", "  []),", "hold(P)"], 1},
     {sure, ["Ps = [spawn(?MODULE, wait, []) || _ <- [1]], % @", "hold(hd(Ps))"]},
     {sure, ["Ps = lists:map(fun(_) ->", "  P = spawn(?MODULE, wait, []), % @", "  hold(P) end, [1]),", "hd(Ps)"]},
     {sure, ["F = fun() -> P = spawn(?MODULE, wait, []), % @", "    hold(P) end,", "hold(F())"]},
     {sure, ["P = case self() of", "  S when is_pid(S) ->", "    spawn(?MODULE, wait, []); % @", "  _ -> no end,", "hold(P)"]},
     {sure, ["P = try", "  spawn(?MODULE, wait, []) % @", "catch _:_ -> no end,", "hold(P)"]},
     {sure, ["Started = gen_server:start(?MODULE, [], []), % @", "hold(element(2, Started))"]},
     {sure, ["spawn(fun() -> wait() end) % @"]},
     {sure, ["proc_lib:spawn(fun() -> wait() end) % @"]},
     {sure, ["lists:foldl(fun(_, _) -> spawn(fun() -> wait() end) end, no, [1]) % @"]},
     {tail, ["spawn(?MODULE, wait, []) % @"]},
     {tail, ["spawn_link(?MODULE, wait, []) % @"]},
     {tail, ["proc_lib:spawn(?MODULE, wait, []) % @"]},
     {tail, ["proc_lib:spawn_link(?MODULE, wait, []) % @"]},
     {tail, ["element(2, gen_server:start(?MODULE, [], [])) % @"]},
     {tail, ["started(?MODULE) % @"]},
     {tail, ["F = fun wait/0,", "spawn(F) % @"]},
     {tail, ["lists:foldl(fun(_, _) -> spawn(?MODULE, wait, []) end, no, [1]) % @"]}].

source(Name, Count) ->
    Forms = forms(),
    Bodies = [{N, lists:nth((N - 1) rem length(Forms) + 1, Forms)} || N <- lists:seq(1, Count)],
    Head = ["-module(" ++ Name ++ ").", "-compile([export_all, nowarn_export_all]).",
            "hold(P) -> P.", "wait() -> receive stop -> ok end.", "acked() -> proc_lib:init_ack({ok, self()}), wait().",
            "init(statem) -> {ok, here, data};", "init(_) -> {ok, here}.", "callback_mode() -> handle_event_function.",
            "handle_event(_, _, _, _) -> keep_state_and_data.", "handle_cast(_, S) -> {noreply, S}.",
            "handle_call(_, _, S) -> {reply, ok, S}.", "handle_info(_, S) -> {noreply, S}."],
    lists:foldl(fun({N, Form}, {Lines, Expected}) ->
                        [Sure, Body | _] = tuple_to_list(Form),
                        Start = length(Lines) + 1,
                        Function = ["f" ++ integer_to_list(N) ++ "() ->"] ++ ["  " ++ L || L <- Body],
                        Dotted = lists:droplast(Function) ++ [dot(lists:last(Function))],
                        {Lines ++ Dotted, [{N, Sure, Start + at(Form, Body)} | Expected]}
                end, {Head, []}, Bodies).

dot(Line) ->
    case string:split(Line, " % @") of
        [Code, _] -> Code ++ ". % @";
        [_] -> Line ++ "."
    end.

at({_, _, Line}, _Body) -> Line;
at(_, Body) -> hd([I || {I, L} <- lists:zip(lists:seq(1, length(Body)), Body), string:find(L, "% @") =/= nomatch]).

%% Compiles source text into a module that is loaded from its file.
load(Config, Name, Lines) ->
    Dir = proplists:get_value(dir, Config),
    File = filename:join(Dir, Name ++ ".erl"),
    ok = file:write_file(File, lists:join($\n, Lines ++ [""])),
    {ok, Module} = compile:file(File, [{outdir, Dir}, return_errors]),
    code:purge(Module),
    {module, Module} = code:load_file(Module),
    settled(filename:join(Dir, Name ++ ".beam")),
    Module.

%% A file of the very second of attach is not trusted: the clock of files has no finer times.
settled(Beam) ->
    {ok, #file_info{ctime = Changed}} = file:read_file_info(Beam, [{time, posix}]),
    case erlang:system_time(second) > Changed of
        true -> ok;
        false -> receive after 50 -> settled(Beam) end
    end.

%% Runs a function in a process of its own, and returns its answer.
apart(Fun) ->
    Self = self(),
    Ref = make_ref(),
    %% It stays, so that what is linked to it lives.
    Pid = spawn(fun() -> Self ! {Ref, Fun()}, receive stop -> ok end end),
    Answer = receive {Ref, A} -> A end,
    {Pid, Answer}.

site(Pid) ->
    #{site := Site} = lineage_nif:record(Pid),
    lineage_site:describe(Site).

pid(Pid) when is_pid(Pid) -> Pid;
pid({ok, Pid}) -> Pid.

stop(Pids) -> [exit(P, kill) || P <- Pids].

exact_lines(Config) ->
    Count = 1000,
    {Lines, Expected} = source("generated_spawns", Count),
    Module = load(Config, "generated_spawns", started(Lines)),
    {ok, _} = lineage:attach(#{sites => exact}),
    {Runner, Pids} = apart(fun() -> [{N, pid(Module:(list_to_atom("f" ++ integer_to_list(N)))())}
                                     || N <- lists:seq(1, Count)] end),
    Judged = [judge(Sure, Line, site(Pid), N) || {N, Pid} <- Pids, {M, Sure, Line} <- Expected, M =:= N],
    stop([Runner | [P || {_, P} <- Pids]]),
    ?assertEqual([], [J || J <- Judged, J =/= right, J =/= said]),
    ?assertEqual(Count, length(Judged)),
    ct:pal("~b right, ~b said to be less sure", [length([J || right = J <- Judged]), length([J || said = J <- Judged])]).

%% A function that ends with a spawn, in the last line.
started(Lines) -> Lines ++ ["started(M) -> proc_lib:spawn(M, wait, [])."].

judge(_, Line, #{kind := call, line := Line}, _N) -> right;
judge(tail, _Line, #{kind := Kind}, _N) when Kind =/= call -> said;
judge(Sure, Line, Site, N) -> {Sure, Line, Site, N}.

closures(Config) ->
    Module = load(Config, "closure_spawns",
                  ["-module(closure_spawns).", "-compile([export_all, nowarn_export_all]).",
                   "literal() -> spawn(fun() -> wait() end).",                       % 3
                   "handed() ->", "  F = fun() -> wait() end,", "  other(F).",       % 5
                   "other(F) -> spawn(F).",
                   "call() -> spawn(?MODULE, wait, []).",
                   "twice(X) ->", "  F = fun() -> wait(X) end,", "  [spawn(F), spawn(F)].",   % 10
                   "external() -> spawn(fun ?MODULE:wait/0).",
                   "nested() ->", "  G = fun() ->", "    spawn(fun() -> wait() end) end,", "  G().",   % 15
                   "wait() -> receive stop -> ok end.", "wait(_) -> wait()."]),
    {ok, #{sites := closure}} = lineage:attach(),
    {Runner, [Literal, Handed, Call, [One, Two], External, Nested] = Pids} =
        apart(fun() -> [Module:literal(), Module:handed(), Module:call(), Module:twice(1), Module:external(),
                        Module:nested()] end),
    ?assertMatch(#{kind := call, line := 3, function := {literal, 0}, module := Module}, site(Literal)),
    ?assertMatch(#{kind := closure, line := 5, function := {handed, 0}}, site(Handed)),
    %% Spawned by name: the only call in that module which does so.
    ?assertMatch(#{kind := start, runs := {Module, wait, 0}, candidate := {_, 8}}, site(Call)),
    ?assertMatch(#{kind := closure, line := 10, function := {twice, 1}}, site(One)),
    ?assertEqual(site(One), site(Two)),
    ?assertMatch(#{kind := start, runs := {Module, wait, 0}}, site(External)),
    ?assertMatch(#{kind := call, line := 15, function := {nested, 0}}, site(Nested)),
    ?assertMatch({match, _}, re:run(lineage_site:text(site(Handed)), "^closure of closure_spawns:handed/0 at .*:5$")),
    stop([Runner | lists:flatten(Pids)]).

off(_Config) ->
    {ok, #{sites := off}} = lineage:attach(#{sites => off}),
    {Runner, Pid} = apart(fun() -> spawn(fun() -> receive stop -> ok end end) end),
    ?assertEqual(undefined, site(Pid)),
    ?assertEqual([], lineage:sites()),
    ?assertMatch([#{site := undefined}], [O || #{pid := P} = O <- lineage:orphans(), P =:= Pid]),
    stop([Runner, Pid]).

%% A module that spawns for its callers, named by the user: in all modes the site is the caller's line.
wrappers(Config) ->
    Wrapper = load(Config, "my_wrapper", ["-module(my_wrapper).", "-export([go/1, go/3, also/1]).",
                                          "go(F) -> P = spawn(F), {here, P}.",
                                          "go(M, F, A) -> P = spawn(M, F, A), {here, P}.",
                                          "also(F) -> P = spawn(F), {here, P}."]),
    User = load(Config, "wrapper_user", ["-module(wrapper_user).", "-export([all/0, wait/0]).",
                                         "all() ->",
                                         "  {_, A} = my_wrapper:go(fun() -> wait() end),",
                                         "  {_, B} = my_wrapper:go(?MODULE, wait, []),",
                                         "  {_, C} = my_wrapper:also(fun() -> wait() end),",
                                         "  [A, B, C].", "wait() -> receive stop -> ok end."]),
    Seen = fun(Options) ->
                   {ok, _} = lineage:attach(Options),
                   {Runner, Pids} = apart(fun() -> User:all() end),
                   Sites = [site(P) || P <- Pids],
                   stop([Runner | Pids]),
                   lineage:detach(),
                   [case S of
                        #{kind := call, module := User, line := L} -> L;
                        #{kind := call, module := Wrapper} -> wrapper;
                        #{kind := Kind} -> Kind
                    end || S <- Sites]
           end,
    ?assertEqual([wrapper, wrapper, wrapper], Seen(#{sites => exact})),
    ?assertEqual([4, 5, 6], Seen(#{sites => exact, wrappers => [Wrapper]})),
    ?assertEqual([4, 5, wrapper], Seen(#{sites => exact, wrappers => [{Wrapper, go}]})),
    ?assertEqual([4, start, 6], Seen(#{sites => closure, wrappers => [Wrapper]})),
    ?assertEqual([closure, start, closure], Seen(#{sites => closure})).

%% The frame of a tail call is gone: a caller's line is named as such, with the only call it can have been.
tail_candidate(Config) ->
    Module = load(Config, "tail_spawns",
                  ["-module(tail_spawns).", "-compile([export_all, nowarn_export_all]).",
                   "one() ->", "  P = first(),", "  {P}.",                                   % 4
                   "first() ->", "  second().",
                   "second() ->", "  proc_lib:spawn(?MODULE, wait, []).",                     % 9
                   "two(X) ->", "  P = either(X),", "  {P}.",                                 % 11
                   "either(1) -> proc_lib:spawn(?MODULE, wait, []);",
                   "either(2) -> proc_lib:spawn_link(?MODULE, wait, []).",
                   "wait() -> receive stop -> ok end."]),
    {ok, _} = lineage:attach(#{sites => exact}),
    {Runner, [{One}, {Two}] = Pids} = apart(fun() -> [Module:one(), Module:two(1)] end),
    #{candidate := {File, 9}} = S1 = site(One),
    ?assertMatch(#{kind := via, tail := true, line := 4, function := {one, 0}}, S1),
    ?assertEqual("tail_spawns.erl", filename:basename(binary_to_list(File))),
    ?assertMatch({match, _}, re:run(lineage_site:text(S1), "via tail_spawns:one/0 \\(.*:4\\), tail call, perhaps .*:9$")),
    S2 = site(Two),
    ?assertMatch(#{kind := via, tail := true, line := 11}, S2),
    ?assertNot(is_map_key(candidate, S2)),
    stop([Runner | [P || {P} <- Pids]]).

%% A line that holds more than one call that may have spawned is not said to be the site.
many_on_a_line(Config) ->
    Module = load(Config, "many_spawns",
                  ["-module(many_spawns).", "-compile([export_all, nowarn_export_all]).",
                   "both() -> [hold(proc_lib:spawn(?MODULE, wait, [])), hold(helper())].",
                   "harmless() -> [hold(proc_lib:spawn(?MODULE, wait, [length(atom_to_list(x))])), hold(quiet())].",
                   "helper() -> proc_lib:spawn(?MODULE, wait, []).",
                   "hold(P) -> {P}.", "quiet() -> self().",
                   "wait() -> receive stop -> ok end.", "wait(_) -> wait()."]),
    {ok, _} = lineage:attach(#{sites => exact}),
    {Runner, [[{A}, {B}], [{C}, _]]} = apart(fun() -> [Module:both(), Module:harmless()] end),
    ?assertMatch(#{kind := via, line := 3}, site(A)),
    ?assertMatch(#{kind := via, line := 3}, site(B)),
    ?assertMatch(#{kind := call, line := 4}, site(C)),
    stop([Runner, A, B, C]).

%% Calls that spawned nothing leave nothing behind for the next birth.
stale_calls(Config) ->
    Module = load(Config, "stale_spawns",
                  ["-module(stale_spawns).", "-compile([export_all, nowarn_export_all]).",
                   "go(Fun) ->",
                   "  {error, {already_started, _}} = gen_server:start({local, init}, ?MODULE, [], []),",
                   "  {'EXIT', _} = (catch spawn(not_a_fun)),",
                   "  {'EXIT', _} = (catch gen_server:start(?MODULE, [], not_a_list)),",
                   "  Fun().",
                   "wait() -> receive stop -> ok end."]),
    {ok, _} = lineage:attach(#{sites => exact}),
    {Runner, Pids} = apart(fun() ->
                                   [Module:go(fun() -> proc_lib:spawn(Module, wait, []) end),
                                    Module:go(fun() -> hd([spawn(Module, wait, []) || _ <- [1]]) end),
                                    Module:go(fun() -> erpc:call(node(), fun() -> spawn(Module, wait, []) end) end)]
                           end),
    [?assertNotMatch(#{kind := call, module := Module}, site(P)) || P <- Pids],
    stop([Runner | Pids]).

counted_after_death(Config) ->
    Module = load(Config, "short_spawns",
                  ["-module(short_spawns).", "-export([go/1, fail/0]).",
                   "go(N) -> [begin {P, R} = spawn_monitor(fun() -> ok end),",
                   "            receive {'DOWN', R, _, P, _} -> ok end end || _ <- lists:seq(1, N)], ok.",
                   "fail() -> spawn(fun() -> exit(wrong) end)."]),
    {ok, _} = lineage:attach(#{sites => closure, exits => all}),
    {Runner, ok} = apart(fun() -> Module:go(500) end),
    {Runner2, Failed} = apart(fun() -> Module:fail() end),
    gone(Failed),
    Rows = maps:from_list([{L, R} || #{site := #{module := M, line := L}} = R <- lineage:sites(), M =:= Module]),
    ?assertMatch(#{3 := #{births := 500, live := 0, orphans := 0, unheard := 0}}, Rows),
    ?assertMatch(#{5 := #{births := 1, live := 0, orphans := 0, unheard := 1}}, Rows),
    stop([Runner, Runner2]).

gone(Pid) ->
    Ref = monitor(process, Pid),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    %% Its exit event may come a moment after the monitor's message.
    _ = [ok || _ <- lineage:recent(1)],
    case lineage_nif:record(Pid) of undefined -> ok; _ -> lineage_nif:sweep() end.

%% More sites than there is room for: births go on being counted, and the summary tells how many have none.
table_is_bounded(Config) ->
    Module = load(Config, "many_sites",
                  ["-module(many_sites).", "-compile([export_all, nowarn_export_all])." |
                   ["f" ++ integer_to_list(N) ++ "() -> ok." || N <- lists:seq(1, 9000)]]),
    {ok, _} = lineage:attach(#{sites => closure}),
    {Runner, ok} = apart(fun() ->
                                 [begin
                                      {P, R} = spawn_monitor(Module, list_to_atom("f" ++ integer_to_list(N)), []),
                                      receive {'DOWN', R, _, P, _} -> ok end
                                  end || N <- lists:seq(1, 9000)],
                                 ok
                         end),
    #{unsited := Unsited, births := Births} = lineage:summary(),
    ?assert(Unsited >= 9000 - 8191),
    ?assert(Births >= 9000),
    ?assert(length(lineage:sites()) =< 8191),
    stop([Runner]).

%% The code that is loaded is not the one on disk, or is nowhere: nothing is said that may be wrong.
dead_code(Config) ->
    Lines = ["-module(changing).", "-compile([export_all, nowarn_export_all]).",
             "go() -> P = spawn(fun() -> wait() end), {P}.", "wait() -> receive stop -> ok end."],
    Module = load(Config, "changing", Lines),
    {ok, _} = lineage:attach(#{sites => exact}),
    {Runner, {Old}} = apart(fun() -> Module:go() end),
    ok = file:write_file(filename:join(proplists:get_value(dir, Config), "changing.erl"),
                         lists:join($\n, [hd(Lines), "" | tl(Lines)])),
    {ok, _} = compile:file(filename:join(proplists:get_value(dir, Config), "changing.erl"),
                           [{outdir, proplists:get_value(dir, Config)}]),
    %% Nothing but the lines differs, so the file's time alone tells.
    ?assertMatch(#{kind := via, tail := false, line := 3}, site(Old)),
    code:purge(Module),
    {module, Module} = code:load_file(Module),
    ?assertNotMatch(#{kind := call}, site(Old)),
    stop([Runner, Old]).

recent_and_why(Config) ->
    Module = load(Config, "told_spawns", ["-module(told_spawns).", "-export([go/0]).",
                                          "go() -> {spawn(fun() -> ok end),", "  spawn(fun() -> receive stop -> ok end end)}."]),
    {ok, _} = lineage:attach(),
    {Runner, {Dead, Live}} = apart(fun() -> Module:go() end),
    gone(Dead),
    ?assertMatch([#{site := #{kind := call, line := 3}}], [D || #{pid := P} = D <- lineage:recent(1000), P =:= Dead]),
    ?assertMatch(#{site := #{kind := call, line := 4}}, lineage:why(Live)),
    ?assertMatch([#{site := #{kind := call, line := 4}}], [O || #{pid := P} = O <- lineage:orphans(), P =:= Live]),
    Printed = unicode:characters_to_list(lineage_print:format(lineage:sites(), #{columns => 200})),
    ?assertMatch({match, _}, re:run(Printed, "told_spawns.erl:4")),
    ?assertMatch({match, _}, re:run(unicode:characters_to_list(lineage_print:format(lineage:why(Live), #{columns => 200})),
                                    "spawned at +.*told_spawns.erl:4")),
    stop([Runner, Live]).

saved(Config) ->
    Module = load(Config, "saved_spawns", ["-module(saved_spawns).", "-export([go/0]).",
                                           "go() -> spawn(fun() -> receive stop -> ok end end)."]),
    {ok, _} = lineage:attach(),
    {Runner, Live} = apart(fun() -> Module:go() end),
    File = filename:join(proplists:get_value(dir, Config), "snapshot.json"),
    ok = lineage:save(File),
    {ok, Text} = file:read_file(File),
    {ok, #{<<"sites">> := Sites, <<"orphans">> := Orphans}} = lineage_json:decode(Text),
    Mine = fun(#{<<"file">> := F}) -> filename:basename(F) =:= <<"saved_spawns.erl">>; (_) -> false end,
    ?assertMatch([#{<<"line">> := 3, <<"kind">> := <<"call">>, <<"births">> := 1, <<"live">> := 1, <<"orphans">> := 1}],
                 lists:filter(Mine, Sites)),
    ?assertMatch([#{<<"line">> := 3}], [S || #{<<"site">> := S} <- Orphans, is_map(S), Mine(S)]),
    stop([Runner, Live]).

bad_options(_Config) ->
    ?assertMatch({error, {bad_option, _}}, lineage:attach(#{sites => some})),
    [?assertMatch({error, {bad_option, _}}, lineage:attach(#{wrappers => W}))
     || W <- [x, [1], [{a, b, c}], [a | b], lists:duplicate(101, m), [erlang], [{proc_lib, spawn}], [lists]]].

%% Programs in which a line that is not the site looks like it.
never_wrong(Config) ->
    Module = load(Config, "tricky_spawns",
                  ["-module(tricky_spawns).", "-compile([export_all, nowarn_export_all]).",
                   "returned() -> F = fun() -> wait() end, spawn(F), F.",                           % 3
                   "sent(To) -> F = fun() -> wait() end, To ! F, spawn(F), ok.",                    % 4
                   "init(F) when is_function(F) -> P = spawn(F), {ok, P};", "init(_) -> {ok, none}.",
                   "handle_call(_, _, S) -> {reply, S, S}.", "handle_cast(_, S) -> {noreply, S}.",
                   "argument() -> {ok, S} = gen_server:start(?MODULE, fun() -> wait() end, []),",   % 9
                   "  P = gen_server:call(S, get), exit(S, kill), P.",
                   "applied(A) -> [proc_lib:spawn(?MODULE, wait, []), run(?MODULE, tail, A)].",      % 11
                   "run(M, F, A) -> apply(M, F, A).",
                   "tail() -> proc_lib:spawn(?MODULE, wait, []).",
                   "branch(X) ->", "  P = case X of", "    a -> proc_lib:spawn(?MODULE, wait, []);", "    _ -> no end,",
                   "  {ok, E} = gen_event:start(),",                                                  % 18
                   "  {P, E}.",
                   "wait() -> receive stop -> ok end."]),
    Run = fun() ->
                  F = Module:returned(),
                  Returned = spawn(F),
                  ok = Module:sent(self()),
                  Sent = receive G when is_function(G) -> spawn(G) end,
                  [_, Applied] = Module:applied([]),
                  {Branch, Event} = Module:branch(a),
                  #{3 => Returned, 4 => Sent, 9 => Module:argument(), 11 => Applied, 18 => Branch, event => Event}
          end,
    [begin
         {ok, _} = lineage:attach(#{sites => Sites}),
         {Runner, Found} = apart(Run),
         Wrong = [{Sites, Line, site(P)} || {Line, P} <- maps:to_list(Found), is_integer(Line),
                                            #{kind := call, module := M, line := L} <- [site(P)], M =:= Module, L =:= Line],
         stop([Runner | maps:values(Found)]),
         lineage:detach(),
         ?assertEqual([], Wrong)
     end || Sites <- [closure, exact]].

%% A frame of a call that failed must not be given to a birth whose own call was not told: that of a process that
%% has become sensitive. A wrapper's fun that was handed out spawns for nobody.
stale_frames(Config) ->
    load(Config, "my_pool", ["-module(my_pool).", "-export([worker/0, size/0, wait/0]).",
                             "worker() -> fun() -> P = spawn(?MODULE, wait, []), {P} end.", "size() -> 7.",
                             "wait() -> receive stop -> ok end."]),
    Module = load(Config, "stale_user",
                  ["-module(stale_user).", "-compile([export_all, nowarn_export_all]).",
                   "sensitive() ->", "  {'EXIT', _} = (catch spawn_opt(?MODULE, wait, [], [{priority, bad}])),",     % 4
                   "  process_flag(sensitive, true),", "  receive after 1000 -> ok end,",
                   "  P = spawn(?MODULE, wait, []),", "  process_flag(sensitive, false),", "  {P}.",
                   "pool() ->", "  F = my_pool:worker(),", "  7 = my_pool:size(),",                                   % 12
                   "  {P} = F(),", "  {P}.",
                   "wait() -> receive stop -> ok end."]),
    {ok, _} = lineage:attach(#{sites => exact, wrappers => [my_pool]}),
    {Runner, {{Sensitive}, {Pool}}} = apart(fun() -> {Module:sensitive(), Module:pool()} end),
    ?assertNotMatch(#{kind := call, line := 4}, site(Sensitive)),
    ?assertNotMatch(#{kind := call, line := 12}, site(Pool)),
    stop([Runner, Sensitive, Pool]).

%% Static findings against live sites, in this node and from a snapshot. What comes from a header has no finding.
reconciled(Config) ->
    Dir = proplists:get_value(dir, Config),
    ok = file:write_file(filename:join(Dir, "go.hrl"), "-define(GO, spawn(?MODULE, wait, [])).\n"),
    Module = load(Config, "both_spawns", ["-module(both_spawns).", "-compile([export_all, nowarn_export_all]).",
                                          "-include(\"go.hrl\").",
                                          "seen() -> spawn(fun() -> wait() end).",
                                          "never() -> spawn(fun() -> wait() end).",
                                          "gap() -> P = ?GO, {P}.",
                                          "wait() -> receive stop -> ok end."]),
    {ok, _} = lineage:attach(#{sites => exact}),
    {Runner, {One, Two, {Gap}}} = apart(fun() -> {Module:seen(), Module:seen(), Module:gap()} end),
    Source = filename:join(Dir, "both_spawns.erl"),
    Report = lineage:reconcile([Source]),
    ?assertMatch(#{seen := [#{finding := #{line := 4, severity := unlinked}, sure := true,
                              counts := #{births := 2, live := 2, orphans := 2, unheard := 0}}],
                   never := [#{line := 5}], unfound := [#{line := 6, counts := #{births := 1}}], unreadable := []}, Report),
    ?assertMatch(#{seen := [], never := [], unfound := [], unreadable := [{_, _}]}, lineage:reconcile(["nowhere"])),
    ?assertError({lineage, _}, lineage:reconcile([])),
    ?assertError({lineage, _}, lineage:reconcile(foo)),
    File = filename:join(Dir, "snapshot.json"),
    ok = lineage:save(File),
    ?assertEqual(maps:remove(elsewhere, Report), maps:remove(elsewhere, lineage_reconcile:saved(File, [Source]))),
    ?assertMatch({error, {file, _}}, lineage_reconcile:saved("nowhere", [Source])),
    ?assertMatch({error, {bad_snapshot, _}}, lineage_reconcile:saved(Source, [Source])),
    Printed = unicode:characters_to_list(lineage_print:format(Report, #{columns => 250})),
    [?assertMatch({match, _}, re:run(Printed, Part))
     || Part <- ["seen live", "never seen", "a gap to look at", "both_spawns.erl:6", "1 finding seen live, 1 never, 1 gap"]],
    stop([Runner, One, Two, Gap]).

%% Loading code ends its trace points: they are set again within a second, and it is said.
points_come_back(Config) ->
    Module = load(Config, "again_spawns", ["-module(again_spawns).", "-compile([export_all, nowarn_export_all]).",
                                           "go() -> P = proc_lib:spawn(?MODULE, wait, []), {P}.",
                                           "wait() -> receive stop -> ok end."]),
    Wrapper = fun() -> load(Config, "again_wrapper", ["-module(again_wrapper).", "-export([go/0]).", "go() -> again_spawns:go()."]) end,
    W = Wrapper(),
    {ok, _} = lineage:attach(#{sites => exact, wrappers => [W]}),
    W = Wrapper(),
    lineage_session:check(),
    {Runner, {P}} = apart(fun() -> Module:go() end),
    ?assertMatch(#{kind := call, line := 3}, site(P)),
    stop([Runner, P]).

%% Real nodes, started as people start them, at work and at rest: none of their processes is called an
%% orphan, and one that is an orphan is found among them, whenever Lineage was attached.
-module(real_nodes_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([erl_attached_late/1, erl_attached_early/1, erl_with_everything_open/1, erl_loading/1, services_tether_nobody/1, erl_terminal/1,
    erl_remote_shell/1, iex_terminal/1, iex_remote_shell/1, mix_test_attached_early/1,
    mix_test_attached_late/1, eunit_run/1, common_test_run/1, peers/1, calls_from_another_node/1,
    ejabberd_attached_early/1, ejabberd_attached_late/1, every_entry_was_seen/1]).

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    [erl_attached_late, erl_attached_early, erl_with_everything_open, erl_loading, services_tether_nobody, erl_terminal, erl_remote_shell,
        iex_terminal, iex_remote_shell, mix_test_attached_early, mix_test_attached_late, eunit_run,
        common_test_run, peers, calls_from_another_node, ejabberd_attached_early,
        ejabberd_attached_late, every_entry_was_seen].

init_per_suite(Config) ->
    persistent_term:put(?MODULE, []),
    Runners = filename:join(?config(data_dir, Config), "runners"),
    Options = [{outdir, ?config(priv_dir, Config)}],
    [{ok, _} = compile:file(filename:join(Runners, File), Options)
     || File <- ["inner_tests", "inner_SUITE", "slow_load"]],
    Shop = filename:join(?config(priv_dir, Config), "shop"),
    copy(filename:join(?config(data_dir, Config), "shop"), Shop),
    [{shop, Shop} | Config].

end_per_suite(_Config) ->
    persistent_term:erase(?MODULE),
    ok.

copy(From, To) ->
    case filelib:is_dir(From) of
        true ->
            ok = filelib:ensure_dir(filename:join(To, "x")),
            {ok, Names} = file:list_dir(From),
            [copy(filename:join(From, Name), filename:join(To, Name)) || Name <- Names],
            ok;
        false ->
            {ok, _} = file:copy(From, To),
            ok
    end.

%%% Plain erl

erl_attached_late(_Config) ->
    {Connection, Node} = erl([]),
    ok = real_node:call(Connection, churn, [50]),
    attach(Connection),
    nobody_is_an_orphan(Connection),
    real_node:stop(Connection, Node).

erl_attached_early(_Config) ->
    {Connection, Node} = erl(["-eval", "{ok, _} = lineage:attach(#{exits => all})"]),
    ok = real_node:call(Connection, churn, [50]),
    nobody_is_an_orphan(Connection),
    real_node:stop(Connection, Node).

erl_with_everything_open(Config) ->
    [begin
        Dir = filename:join(?config(priv_dir, Config), Name),
        ok = filelib:ensure_dir(filename:join(Dir, "x")),
        {Connection, Node} = erl(["-heart" || Name =:= "early"]),
        [attach(Connection) || Name =:= "early"],
        ok = real_node:call(Connection, open_things, [Dir]),
        [attach(Connection) || Name =:= "late"],
        nobody_is_an_orphan(Connection),
        real_node:stop(Connection, Node)
     end || Name <- ["early", "late"]],
    ok.

%% A module's on_load runs in a process that nobody is linked to.
erl_loading(Config) ->
    {Listener, Node} = runner(Config, "loaded = slow_load:state(), halt()"),
    {Connection, _, Loader} = real_node:accept(Listener),
    attach(Connection),
    nobody_is_an_orphan(Connection),
    ?assertEqual(runtime, real_node:call(Connection, verdict, [Loader])),
    real_node:done(Connection),
    all_passed(Node).

%% An orphan that uses a service is linked to it, and still an orphan.
services_tether_nobody(Config) ->
    [services_tether_nobody(When, filename:join(?config(priv_dir, Config), atom_to_list(When)))
     || When <- [attached_before_they_start, attached_afterwards]],
    ok.

services_tether_nobody(When, Dir) ->
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    {Connection, Node} = erl(["-mnesia", "dir", "\"" ++ Dir ++ "\""]),
    [attach(Connection) || When =:= attached_before_they_start],
    {ok, _} = real_node:call(Connection, application, ensure_all_started, [mnesia]),
    Before = use_services(Connection, filename:join(Dir, "first")),
    [attach(Connection) || When =:= attached_afterwards],
    Users = Before ++ use_services(Connection, filename:join(Dir, "second")),
    Orphans = [Pid || #{pid := Pid} <- real_node:call(Connection, orphans)],
    ?assertEqual([], [Used || {Pid, Used} <- Users, not lists:member(Pid, Orphans)]),
    ?assertEqual(length(Users), length(Orphans)),
    [?assertMatch({_, [_ | _]}, real_node:call(Connection, erlang, process_info, [Pid, links]))
     || {Pid, _} <- Users],
    real_node:stop(Connection, Node).

use_services(Connection, File) ->
    [begin
        {Pid, Result} = real_node:call(Connection, stray, [M, F, A]),
        ?assertMatch({M, Error} when Error =/= error, {M, is_tuple(Result) andalso element(1, Result)}),
        {Pid, {M, F}}
     end || {M, F, A} <- [
        {disk_log, open, [[{name, File}, {file, File}]]},
        {dets, open_file, [File, [{file, File ++ ".dets"}]]},
        {mnesia, subscribe, [system]},
        {gen_event, add_sup_handler, [erl_signal_server, {erl_signal_handler, File}, []]}
    ]].

erl_terminal(_Config) ->
    Listener = real_node:listen(),
    Node = real_node:terminal(["erl" | paths()], #{}),
    real_node:expect(Node, "1>"),
    real_node:type(Node, serve(Listener)),
    {Connection, _, _} = real_node:accept(Listener),
    attach(Connection),
    nobody_is_an_orphan(Connection),
    real_node:stop(Connection, Node).

erl_remote_shell(_Config) ->
    {Name, Dist, Connection, Node} = named_erl(),
    attach(Connection),
    Listener = real_node:listen(),
    Shell = real_node:terminal(["erl", "-remsh", Name, "-name", "shell" ++ os:getpid() ++ "@127.0.0.1", "-dist_listen", "false" | Dist], #{}),
    real_node:expect(Shell, "1>"),
    %% The shell waits for a line, and knows nobody on this node.
    nobody_is_an_orphan(Connection),
    real_node:type(Shell, serve(Listener)),
    {Remote, There, _} = real_node:accept(Listener),
    ?assertEqual(Name, atom_to_list(There)),
    nobody_is_an_orphan(Remote),
    real_node:done(Remote),
    real_node:stop(Connection, Node),
    real_node:kill(Shell).

%%% iex

iex_terminal(_Config) ->
    Listener = real_node:listen(),
    Node = real_node:terminal(["iex" | iex_paths()], #{}),
    real_node:expect(Node, "iex(1)>"),
    real_node:type(Node, [":", serve_elixir(Listener)]),
    {Connection, _, Evaluator} = real_node:accept(Listener),
    attach(Connection),
    nobody_is_an_orphan(Connection),
    ?assertEqual(host, real_node:call(Connection, verdict, [Evaluator])),
    real_node:done(Connection),
    %% At rest, asked by what is typed next.
    real_node:expect(Node, "iex(2)>"),
    real_node:type(Node, "IO.inspect(:lineage.orphans(), label: :at_rest)"),
    real_node:expect(Node, "at_rest: []"),
    real_node:kill(Node).

iex_remote_shell(_Config) ->
    {Name, Dist, Connection, Node} = named_elixir(),
    attach(Connection),
    Listener = real_node:listen(),
    Shell = real_node:terminal(["iex", "--remsh", Name | Dist], #{}),
    real_node:expect(Shell, ")1>"),
    nobody_is_an_orphan(Connection),
    real_node:type(Shell, [":", serve_elixir(Listener)]),
    {Remote, There, _} = real_node:accept(Listener),
    ?assertEqual(Name, atom_to_list(There)),
    nobody_is_an_orphan(Remote),
    real_node:done(Remote),
    real_node:stop(Connection, Node),
    real_node:kill(Shell).

%%% Test runners

%% The order in which a mix project's parts call: while the file is compiled, setup_all, the test, on_exit.
mix_test_attached_early(Config) ->
    {Listener, Node} = mix_test(Config),
    [begin
        {Connection, _, Caller} = real_node:accept(Listener),
        [attach(Connection) || Part =:= compiling],
        nobody_is_an_orphan(Connection),
        ?assertEqual(host, real_node:call(Connection, verdict, [Caller])),
        [registered_orphan(Connection) || Part =:= test],
        real_node:done(Connection)
     end || Part <- [compiling, setup_all, test, on_exit]],
    all_passed(Node).

%% A Registry is linked to whoever registers, and stops nobody.
registered_orphan(Connection) ->
    {Pid, {ok, Partition}} =
        real_node:call(Connection, stray, ['Elixir.Registry', register, ['Elixir.Shop.Names', stray, 1]]),
    {links, Links} = real_node:call(Connection, erlang, process_info, [Pid, links]),
    ?assert(lists:member(Partition, Links)),
    ?assertMatch([#{pid := Pid}], real_node:call(Connection, orphans)),
    ?assertEqual(orphan, real_node:call(Connection, verdict, [Pid])),
    real_node:call(Connection, end_stray, [Pid]).

mix_test_attached_late(Config) ->
    {Listener, Node} = mix_test(Config),
    [begin {C, _, _} = real_node:accept(Listener), real_node:done(C) end || _ <- [compiling, setup_all]],
    {Test, _, _} = real_node:accept(Listener),
    attach(Test),
    nobody_is_an_orphan(Test),
    real_node:done(Test),
    {OnExit, _, _} = real_node:accept(Listener),
    nobody_is_an_orphan(OnExit),
    real_node:done(OnExit),
    all_passed(Node).

mix_test(Config) ->
    Listener = real_node:listen(),
    Ebins = lists:flatten(lists:join(":", real_node:ebins())),
    Node = real_node:start("mix", #{args => ["test"], cd => ?config(shop, Config),
        env => [{"LINEAGE_TEST_EBINS", Ebins}, port_env(Listener), {"MIX_ENV", "test"}]}),
    {Listener, Node}.

all_passed(Node) ->
    {Status, Printed} = real_node:wait_exit(Node),
    ?assertEqual({0, Printed}, {Status, Printed}).

eunit_run(Config) ->
    {Listener, Node} = runner(Config, "ok = eunit:test(inner_tests), halt()"),
    [begin
        {Connection, _, _} = real_node:accept(Listener),
        [attach(Connection) || Which =:= plain],
        nobody_is_an_orphan(Connection),
        real_node:done(Connection)
     end || Which <- [plain, deep]],
    all_passed(Node).

common_test_run(Config) ->
    Run = io_lib:format(
        "{3, 0, {0, 0}} = ct:run_test([{dir, ~p}, {suite, inner_SUITE}, {auto_compile, false}, {logdir, ~p}]), halt()",
        [?config(priv_dir, Config), ?config(priv_dir, Config)]),
    {Listener, Node} = runner(Config, lists:flatten(Run)),
    [begin
        {Connection, _, _} = real_node:accept(Listener),
        [attach(Connection) || Which =:= plain],
        nobody_is_an_orphan(Connection),
        real_node:done(Connection)
     end || Which <- [plain, parallel]],
    all_passed(Node).

runner(Config, Eval) ->
    Listener = real_node:listen(),
    Args = ["-noshell", "-pa", ?config(priv_dir, Config) | paths()] ++ ["-eval", Eval],
    {Listener, real_node:start("erl", #{args => Args, env => [port_env(Listener)]})}.

%%% Other nodes

peers(_Config) ->
    {_, Dist, Connection, Node} = named_erl(),
    attach(Connection),
    Peer = fun(Paths, Options) ->
        Started = real_node:call(Connection, peer, start, [Options#{args => Paths}]),
        ok = element(1, Started),
        {element(2, Started), node_of(Started)}
    end,
    Own = paths(),
    Standard = Peer(Own, #{connection => standard_io}),
    Tcp = Peer(Own, #{connection => {{127, 0, 0, 1}, 0}}),
    Distributed = Peer(Own ++ Dist ++ ["-dist_listen", "false"],
        #{name => "peer" ++ os:getpid(), host => "127.0.0.1", longnames => true}),
    Peers = [Standard, Tcp, Distributed],
    nobody_is_an_orphan(Connection),
    [begin
        {ok, _} = in_peer(Connection, One, lineage, attach),
        ?assertEqual([], in_peer(Connection, One, real_audit, orphans)),
        seen(in_peer(Connection, One, real_audit, lists))
     end || One <- Peers],
    [ok = real_node:call(Connection, peer, stop, [Origin]) || {Origin, _} <- Peers],
    nobody_is_an_orphan(Connection),
    real_node:stop(Connection, Node).

%% One that is reached by the distribution is asked as any other node is.
in_peer(Connection, {Origin, nonode@nohost}, M, F) ->
    real_node:call(Connection, peer, call, [Origin, M, F, []]);
in_peer(Connection, {_Origin, There}, M, F) ->
    real_node:call(Connection, erpc, call, [There, M, F, []]).

node_of({ok, _Origin, There}) -> There;
node_of({ok, _Origin}) -> nonode@nohost.

calls_from_another_node(_Config) ->
    {Name, Dist, Connection, Node} = named_erl(),
    attach(Connection),
    Listener = real_node:listen(),
    There = list_to_atom(Name),
    Port = real_node:port(Listener),
    Eval = io_lib:format(
        "ok = erpc:cast(~p, real_audit, serve, [~b]), ok = erpc:call(~p, real_audit, serve, [~b]), halt()",
        [There, Port, There, Port]),
    Caller = real_node:start("erl", #{args => ["-noshell" | Dist] ++
        ["-name", "caller" ++ os:getpid() ++ "@127.0.0.1", "-dist_listen", "false",
            "-eval", lists:flatten(Eval)]}),
    {Cast, There, CastPid} = real_node:accept(Listener),
    {Call, There, CallPid} = real_node:accept(Listener),
    nobody_is_an_orphan(Cast),
    nobody_is_an_orphan(Call),
    [?assertEqual(host, real_node:call(Call, verdict, [Pid])) || Pid <- [CastPid, CallPid]],
    real_node:done(Cast),
    real_node:done(Call),
    all_passed(Caller),
    nobody_is_an_orphan(Connection),
    real_node:stop(Connection, Node).

%%% ejabberd, Debian's package, with clients

ejabberd_attached_early(Config) ->
    real_ejabberd:with(Config, early, fun(Connection, Clients) ->
        {ok, _} = real_node:call(Connection, lineage, attach, [#{exits => all}]),
        real_ejabberd:boot(Connection),
        ejabberd_at_work(Connection, Clients)
    end).

ejabberd_attached_late(Config) ->
    real_ejabberd:with(Config, late, fun(Connection, Clients) ->
        real_ejabberd:boot(Connection),
        Before = Clients(20),
        attach(Connection),
        ejabberd_at_work(Connection, Clients),
        real_ejabberd:leave(Before),
        nobody_is_an_orphan(Connection)
    end).

ejabberd_at_work(Connection, Clients) ->
    %% Jobs of its start: processes without a link, that end by themselves. They are orphans while they last.
    _ = real_node:call(Connection, wait_for_jobs, [[{ejabberd, "-check_app"}, {misc, "-peach"}]]),
    nobody_is_an_orphan(Connection),
    Load = real_ejabberd:load(Clients),
    Reports = under_load(Connection, Load, 0),
    ct:pal("~b reports under load", [Reports]),
    Online = Clients(30),
    nobody_is_an_orphan(Connection),
    real_ejabberd:leave(Online),
    nobody_is_an_orphan(Connection).

%% Asks for orphans again and again while clients come and go.
under_load(Connection, Load, Reports) ->
    ?assertEqual([], real_node:call(Connection, orphans)),
    case real_ejabberd:finished(Load) of
        true -> Reports + 1;
        false -> under_load(Connection, Load, Reports + 1)
    end.

%%% The lists

%% No entry is there for a process that no node has: each was seen above, or it says here why not.
every_entry_was_seen(_Config) ->
    Seen = persistent_term:get(?MODULE),
    Unseen = [Entry || {_, Reason} = Entry <- lineage_lists:runtime() ++ lineage_lists:hosts(),
        not lists:member(Reason, Seen)],
    ?assertEqual([], [Entry || {Match, _} = Entry <- Unseen, not excused(Match)]).

%% Of another release.
excused({otp_ring0, start, 2}) -> true;
excused({erts_trace_cleaner, start, 0}) -> release() < 27;
excused({frame, {timer, interval_loop, '_'}}) -> release() < 27;
%% Older releases of Elixir only.
excused({'Elixir.ExUnit.CaptureLog', init_proxy, '_'}) -> true;
%% They live for a moment: while types are checked, while code is purged, while two nodes connect.
excused({frame, {'Elixir.Module.ParallelChecker', _, _}}) -> true;
excused({child, {registered, elixir_code_server}}) -> true;
excused({net_kernel, passive_connect_monitor, 2}) -> true;
excused({frame, {global, timer, 2}}) -> true;
excused({frame, {global, resolver, 2}}) -> true;
%% On newer releases of Elixir only: on older ones it is linked to who opened it.
excused({alone, {'Elixir.StringIO', init, 1}}) -> true;
excused(_) -> false.

release() -> list_to_integer(erlang:system_info(otp_release)).

%%% Shared

%% The one statement of this suite: of all that lives here nothing is an orphan, but what is one is found.
nobody_is_an_orphan(Connection) ->
    ?assertEqual([], real_node:call(Connection, orphans)),
    Child = real_node:call(Connection, child),
    Stray = real_node:call(Connection, stray),
    ?assertMatch([#{pid := Stray, kind := detached}], real_node:call(Connection, orphans)),
    ?assertEqual(tethered, real_node:call(Connection, verdict, [Child])),
    [ok = real_node:call(Connection, end_stray, [Pid]) || Pid <- [Stray, Child]],
    ?assertEqual([], real_node:call(Connection, orphans)),
    none_is_counted(Connection, 100),
    seen(real_node:call(Connection, lists)).

%% Such a count takes in processes that are there for a moment: a node that works has some, now and then.
none_is_counted(Connection, Tries) ->
    case real_node:call(Connection, summary) of
        #{orphans := 0, orphans_checked := 0} -> ok;
        #{orphans_checked := 0} when Tries > 0 -> none_is_counted(Connection, Tries - 1);
        Summary -> error({counted, Summary})
    end.

seen(Reasons) ->
    persistent_term:put(?MODULE, lists:usort(Reasons ++ persistent_term:get(?MODULE))).

attach(Connection) ->
    {ok, _} = real_node:call(Connection, lineage, attach, []).

paths() ->
    lists:append([["-pa", Ebin] || Ebin <- real_node:ebins()]).

iex_paths() -> paths().

port_env(Listener) ->
    {"LINEAGE_TEST_PORT", integer_to_list(real_node:port(Listener))}.

serve(Listener) ->
    io_lib:format("real_audit:serve(~b).", [real_node:port(Listener)]).

serve_elixir(Listener) ->
    io_lib:format("real_audit.serve(~b)", [real_node:port(Listener)]).

erl(Before) ->
    Listener = real_node:listen(),
    Args = ["-noshell" | paths()] ++ Before ++ ["-eval", lists:flatten(serve(Listener))],
    Node = real_node:start("erl", #{args => Args}),
    {Connection, _, _} = real_node:accept(Listener),
    {Connection, Node}.

%% A node with a name, and how others find it: by a port of our own, so that no epmd is started.
named_erl() ->
    Listener = real_node:listen(),
    {Name, Port} = name(),
    Dist = dist(Port),
    Args = ["-noshell", "-name", Name | paths()] ++ Dist ++ ["-eval", lists:flatten(serve(Listener))],
    Node = real_node:start("erl", #{args => Args}),
    {Connection, _, _} = real_node:accept(Listener),
    {Name, Dist, Connection, Node}.

named_elixir() ->
    Listener = real_node:listen(),
    {Name, Port} = name(),
    Dist = ["--cookie", "lineage", "--erl", "-start_epmd false -erl_epmd_port " ++ integer_to_list(Port)],
    Args = ["--name", Name | paths()] ++ Dist ++ ["-e", lists:flatten([":", serve_elixir(Listener)])],
    Node = real_node:start("elixir", #{args => Args}),
    {Connection, _, _} = real_node:accept(Listener),
    {Name, ["--name", "shell" ++ os:getpid() ++ "@127.0.0.1" | paths()] ++
        ["--cookie", "lineage", "--erl",
            "-dist_listen false -start_epmd false -erl_epmd_port " ++ integer_to_list(Port)],
        Connection, Node}.

name() ->
    Port = real_node:free_port(),
    {"audited" ++ integer_to_list(Port) ++ "@127.0.0.1", Port}.

dist(Port) ->
    ["-setcookie", "lineage", "-start_epmd", "false", "-erl_epmd_port", integer_to_list(Port)].

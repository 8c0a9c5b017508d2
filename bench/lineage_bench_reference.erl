%% The plan's own number: what supervision costs Foundation and MABEAM, for each place that their audit found.
%%
%% One node runs both arms of a row: `supervised', and `legacy' with the phase switched off that the place belongs to, which
%% brings back the code as it was audited. They take turns. What is judged is the public call's latency under supervision at a
%% percentile, less that of the legacy one at the same percentile: both do the same work, and have its tail in common (a bare child
%% of bench/overhead has no work, and is only subtracted as a constant). At saturation: each caller calls again when it has
%% been answered.
%% Rows of messages between nodes are measured with a second node beside this one, on the same machine.
-module(lineage_bench_reference).

-export([run/1, boot/1]).

-define(SUPERVISION, 'Elixir.Foundation.Supervision').
-define(CLUSTER, 'Elixir.Foundation.Coordination.Cluster').
-define(LIMIT_MS, 2000).
-define(START_MS, 30000).

%% Runs all rows. Returns for each whether no percentile of it is over the target, but for what phase 4 adds: agreement between
%% nodes is no supervision.
-spec run(lineage_bench:options()) -> [boolean()].
run(Options) ->
    ok = logger:set_primary_config(level, none),
    Rows = lineage_bench_rows:rows(),
    ok = boot([node()]),
    Alone = lists:append([row(Row, [node()], Options) || #{nodes := 1} = Row <- Rows]),
    ok = application:stop(mabeam),
    ok = application:stop(foundation),
    Peered =
        case start_peer() of
            {ok, Peer, Members} ->
                Held = peered(Peer, Members, Rows, Options),
                ok = peer:stop(Peer),
                Held;
            {error, Reason} ->
                io:format("~nno second node, its rows are left out: ~0tp~n", [Reason]),
                []
        end,
    Alone ++ Peered.

%% Members of a cluster that is not one node are those with names: this one has one since the peer has started.
peered(Peer, Members, Rows, Options) ->
    true = peer:call(Peer, net_kernel, connect_node, [node()]),
    ok = peer:call(Peer, ?MODULE, boot, [Members], ?START_MS),
    ok = boot(Members),
    ok = together(lists:sort(Members)),
    lists:append([row(Row, Members, Options) || #{nodes := 2} = Row <- Rows]).

%% Starts Foundation and MABEAM; also on the peer.
-spec boot([node()]) -> ok.
boot(Members) ->
    ok = logger:set_primary_config(level, none),
    _ = application:load(foundation),
    _ = application:load(mabeam),
    ok = application:set_env(foundation, members, Members),
    ok = application:set_env(mabeam, load_balancer_test_mode, true),
    {ok, _} = application:ensure_all_started(mabeam),
    ok.

%% The peer is named first, for that starts the daemon without which this node cannot be.
start_peer() ->
    Unique = os:getpid(),
    Here = list_to_atom("bench-" ++ Unique ++ "@127.0.0.1"),
    Paths = [Path || Path <- code:get_path(), not lists:prefix(code:lib_dir(), Path), Path =/= "."],
    Cookie = "bench" ++ Unique,
    Options = #{
        name => list_to_atom("peer-" ++ Unique),
        host => "127.0.0.1",
        longnames => true,
        connection => standard_io,
        args => ["-setcookie", Cookie, "-kernel", "logger_level", "none", "-pa" | Paths]
    },
    case peer:start(Options) of
        {ok, Peer, There} ->
            case net_kernel:start(Here, #{name_domain => longnames}) of
                {ok, _} ->
                    true = erlang:set_cookie(list_to_atom(Cookie)),
                    {ok, Peer, [Here, There]};
                {error, Reason} ->
                    ok = peer:stop(Peer),
                    {error, Reason}
            end;
        {error, Reason} ->
            {error, Reason}
    end.

%% Returns when the members are the majority's composition.
together(Members) ->
    ok = ?CLUSTER:subscribe(),
    together(Members, ?CLUSTER:view()).

together(Members, {ok, {_Epoch, Members}}) ->
    ok;
together(Members, _NotYet) ->
    receive
        {foundation_cluster, _} -> together(Members, ?CLUSTER:view())
    after ?START_MS -> error(not_together)
    end.

row(#{callers := Callers} = Row, Members, #{callers := Asked} = Options) ->
    Cells = [N || N <- Callers, N =< lists:max(Asked)],
    lists:append([cell(Row, N, Members, Options) || N <- Cells]).

cell(#{row := Name, call := Call, phase := Phase, nodes := Nodes, most := Most, job := Job}, Callers, Members, Options) ->
    #{rounds := Rounds, ops := Ops} = Options,
    Each = max(1, min(Ops, Most) div Callers),
    Load = #{callers => Callers, pace => saturation, each => Each, warm => min(20, 1 + Each div 5), limit_ms => ?LIMIT_MS},
    Results = lineage_bench_cell:rounds(Rounds, [legacy, supervised], fun(Arm) ->
        ok = switch(Members, Phase, Arm =:= supervised),
        lineage_bench_callers:turn(Job, Load)
    end),
    ok = switch(Members, Phase, true),
    Shown = [{legacy, none, maps:get(legacy, Results)}, {supervised, {legacy, same}, maps:get(supervised, Results)}],
    Fields = #{
        row => Name,
        call => Call,
        phase => Phase,
        nodes => Nodes,
        callers => Callers,
        pace => saturation,
        rounds => Rounds
    },
    Title = fun(Part) ->
        io_lib:format("~s: ~s, ~s, ~b caller(s), ~b node(s)", [Name, Call, words(Part), Callers, Nodes])
    end,
    Held = lists:append([lineage_bench_cell:show(Title(Part), Part, Shown, Fields, Options) || Part <- maps:get(parts, Job)]),
    [Holds || Holds <- Held, Phase =/= phase_4].

words(call) -> "call to return";
words(answer) -> "call to answer";
words(gone) -> "call to death".

switch(Members, Phase, On) ->
    lists:foreach(fun(Node) -> ok = erpc:call(Node, ?SUPERVISION, switch, [Phase, On]) end, Members).

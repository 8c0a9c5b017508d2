%% What only looks like it: spawn(F), erlang:spawn_link(F). No line of this file is a finding.
-module(not_findings).
-compile({no_auto_import, [spawn/1, spawn_link/3]}).
-export([spawn/1, spawn_link/3, spawn_monitor/1, names/2, texts/0, variables/3, calls/2, fields/1, start/3]).
-import(my_own, [spawn_opt/2, open_port/2]).
-type spawn() :: fun((spawn) -> erlang:timestamp()).
-type spawn(A) :: {spawn_link, A}.
-record(spawn, {spawn = spawn, start_link :: spawn(pid()), pid = erlang:spawn(fun() -> ok end)}).
-export_type([spawn/0, spawn/1]).
-callback spawn(F :: fun()) -> pid().
-deprecated([{spawn, 1, "use erlang:spawn(F)"}]).
-define(NEVER_USED(F), erlang:spawn(F)).
-spawn(erlang:spawn).

-spec spawn(spawn(atom())) -> spawn(spawn()).
spawn(F) -> F.

-spec spawn_link(module(), atom(), [term()]) -> spawn().
spawn_link(M, F, A) -> {M, F, A}.

spawn_monitor(F) -> F.

names(F, N) ->
    spawn(F),
    spawn_link(m, f, [N]),
    spawn_monitor(F),
    spawn_opt(F, [link]),
    open_port(F, N),
    not_findings:spawn(F),
    ?MODULE:spawn(F),
    my_own:spawn_link(F),
    fun spawn/1,
    fun not_findings:spawn/1,
    fun my_own:spawn/1,
    start(F, N, []),
    start_link(F, N, []).

start(A, B, C) -> {A, B, C}.

start_link(A, B, C) -> {A, B, C}.

texts() ->
    _ = "spawn(F) and erlang:spawn(F)",
    _ = <<"spawn_link(F)">>,
    _ = 'spawn(F)',
    _ = $s,
    % spawn(F),
    %% erlang:spawn(F)
    "a long one
     spawn(F),
     erlang:spawn_link(F)".

variables(Spawn, M, F) ->
    Spawn(F),
    M:spawn(F),
    erlang:F(Spawn),
    M:F(Spawn),
    apply(M, spawn, [F]),
    apply(erlang, F, [Spawn]),
    apply(Spawn, [F]),
    fun M:spawn/1,
    {erlang, spawn, [F]},
    [spawn, spawn_link, start_link].

calls(F, N) ->
    erlang:spawn(),
    erlang:spawn(F, N, F, N, F),
    gen_server:start_link(F),
    gen_server:start(F, N),
    proc_lib:start(F),
    supervisor:start_child(F, N),
    timer:apply(F, N),
    erpc:call(N, F).

fields(#spawn{spawn = spawn} = S) ->
    S#spawn.spawn,
    S#spawn{spawn = spawn, pid = self()},
    #{spawn => spawn, start_link => [spawn]}.

%% What supervision takes, as the NIF times it: its windows, against supervisors at work. The trace points are set here.
-module(lineage_timing_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2]).
-export([starts/1]).
-export([init/1, start_link/1, critical/1]).

all() ->
    [starts].

-define(TARGET, 5000000).

init_per_testcase(_Case, Config) ->
    {module, lineage_nif} = code:ensure_loaded(lineage_nif),
    Config.

end_per_testcase(_Case, _Config) ->
    lineage_nif:close().

%% A supervisor of servers whose init is a fun.
init({supervisor, Strategy}) ->
    {ok, {#{strategy => Strategy, intensity => 1000, period => 1},
          [#{id => child, start => {?MODULE, start_link, []}} || Strategy =:= simple_one_for_one]}};
init(Fun) ->
    Fun().

start_link(Fun) ->
    gen_server:start_link(?MODULE, Fun, []).

starts(_Config) ->
    with_window(#{}, fun() ->
        {ok, Sup} = supervisor:start_link(?MODULE, {supervisor, simple_one_for_one}),
        [{ok, _} = supervisor:start_child(Sup, [fun() -> {ok, none} end]) || _ <- lists:seq(1, 10)],
        #{series := Series} = Timings = lineage_nif:timings(),
        ct:pal("~p", [Timings]),
        {_, Parts} = lists:keyfind({supervisor, Sup}, 1, Series),
        ?assertEqual([back, init, latency, overhead, queue, work], lists:sort(maps:keys(Parts)))
    end).

critical(Fun) ->
    Fun().

with_window(More, Fun) ->
    {ok, Session} = lineage_nif:open(maps:merge(#{exits => all, max_bytes => 1 bsl 28, overhead => true,
                                                  target_ns => ?TARGET,
                                                  process_limit => erlang:system_info(process_limit)}, More)),
    Points = arm(Session),
    {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
    try
        0 = lineage_nif:timing(on),
        Fun(),
        lineage_nif:timing(off)
    after
        disarm(Points),
        lineage_hook:disarm(Hook),
        lineage_hook:destroy(Hook),
        lineage_nif:close()
    end.

points() ->
    [MFA || {M, Functions} <- [{supervisor, [start_child, terminate_child, handle_call, handle_info]},
                               {'Elixir.Supervisor', [start_child, terminate_child]},
                               {'Elixir.DynamicSupervisor', [start_child, terminate_child, handle_call, handle_info]},
                               {'Elixir.Task.Supervisor', [start_child, async, async_nolink, terminate_child]},
                               {proc_lib, [init_ack, init_fail]},
                               {?MODULE, [critical]}],
            {module, _} <- [code:ensure_loaded(M)],
            {F, A} = FA <- M:module_info(exports), lists:member(F, Functions),
            M =/= proc_lib orelse lists:member(FA, [{init_ack, 2}, {init_fail, 3}]),
            MFA <- [{M, F, A}]].

match({proc_lib, _, _}) -> [];
match(_) -> [{'_', [], [{exception_trace}]}].

arm(Session) ->
    case lineage_hook:api() of
        sessions ->
            Handle = lineage_hook:session(session_create, [timing_points, {lineage_nif, -Session}, []]),
            [1 = lineage_hook:session(function, [Handle, MFA, match(MFA), [meta]]) || MFA <- points()],
            Handle;
        single ->
            [1 = erlang:trace_pattern(MFA, match(MFA), [{meta, lineage_nif, -Session}]) || MFA <- points()],
            single
    end.

disarm(single) ->
    [erlang:trace_pattern(MFA, false, [meta]) || MFA <- points()];
disarm(Handle) ->
    lineage_hook:session(session_destroy, [Handle]).

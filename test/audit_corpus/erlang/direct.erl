%% Calls by their full name, and those that need none.
-module(direct).
-export([run/3, run/4, gens/2, others/3, bodies/1]).

run(F, N, L) ->
    spawn(F),                                       %=> unlinked erlang:spawn/1
    spawn(N, F),                                    %=> unlinked erlang:spawn/2
    spawn(?MODULE, run, [F, N, L]),                 %=> unlinked erlang:spawn/3
    spawn(N, ?MODULE, run, L),                      %=> unlinked erlang:spawn/4
    erlang:spawn(F),                                %=> unlinked erlang:spawn/1
    erlang:spawn(N, F),                             %=> unlinked erlang:spawn/2
    erlang:spawn(direct, run, L),                   %=> unlinked erlang:spawn/3
    erlang:spawn(N, direct, run, L),                %=> unlinked erlang:spawn/4
    spawn_link(F),                                  %=> tethered erlang:spawn_link/1
    spawn_link(N, F),                               %=> tethered erlang:spawn_link/2
    spawn_link(direct, run, L),                     %=> tethered erlang:spawn_link/3
    erlang:spawn_link(N, direct, run, L),           %=> tethered erlang:spawn_link/4
    spawn_monitor(F),                               %=> unlinked erlang:spawn_monitor/1
    spawn_monitor(N, F),                            %=> unlinked erlang:spawn_monitor/2
    spawn_monitor(direct, run, L),                  %=> unlinked erlang:spawn_monitor/3
    erlang:spawn_monitor(N, direct, run, L),        %=> unlinked erlang:spawn_monitor/4
    spawn_request(F),                               %=> unlinked erlang:spawn_request/1
    open_port({spawn, "cat"}, []),                  %=> tethered erlang:open_port/2
    erlang:open_port({spawn, "cat"}, [binary]).     %=> tethered erlang:open_port/2

run(M, F, A, N) ->
    proc_lib:spawn(F),                              %=> unlinked proc_lib:spawn/1
    proc_lib:spawn(N, F),                           %=> unlinked proc_lib:spawn/2
    proc_lib:spawn(M, F, A),                        %=> unlinked proc_lib:spawn/3
    proc_lib:spawn(N, M, F, A),                     %=> unlinked proc_lib:spawn/4
    proc_lib:spawn_link(F),                         %=> tethered proc_lib:spawn_link/1
    proc_lib:spawn_link(N, F),                      %=> tethered proc_lib:spawn_link/2
    proc_lib:spawn_link(M, F, A),                   %=> tethered proc_lib:spawn_link/3
    proc_lib:spawn_link(N, M, F, A),                %=> tethered proc_lib:spawn_link/4
    proc_lib:start(M, F, A),                        %=> unlinked proc_lib:start/3
    proc_lib:start(M, F, A, 1000),                  %=> unlinked proc_lib:start/4
    proc_lib:start_link(M, F, A),                   %=> tethered proc_lib:start_link/3
    proc_lib:start_link(M, F, A, 1000),             %=> tethered proc_lib:start_link/4
    proc_lib:start_link(M, F, A, 1000, []),         %=> tethered proc_lib:start_link/5
    proc_lib:start_monitor(M, F, A).                %=> unlinked proc_lib:start_monitor/3

gens(Name, O) ->
    gen_server:start(?MODULE, [], O),               %=> unlinked gen_server:start/3
    gen_server:start(Name, ?MODULE, [], O),         %=> unlinked gen_server:start/4
    gen_server:start_link(?MODULE, [], O),          %=> tethered gen_server:start_link/3
    gen_server:start_link(Name, ?MODULE, [], O),    %=> tethered gen_server:start_link/4
    gen_server:start_monitor(?MODULE, [], O),       %=> unlinked gen_server:start_monitor/3
    gen_server:start_monitor(Name, ?MODULE, [], O), %=> unlinked gen_server:start_monitor/4
    gen_statem:start(?MODULE, [], O),               %=> unlinked gen_statem:start/3
    gen_statem:start_link(Name, ?MODULE, [], O),    %=> tethered gen_statem:start_link/4
    gen_statem:start_monitor(?MODULE, [], O),       %=> unlinked gen_statem:start_monitor/3
    gen_event:start(),                              %=> unlinked gen_event:start/0
    gen_event:start(Name),                          %=> unlinked gen_event:start/1
    gen_event:start(Name, O),                       %=> unlinked gen_event:start/2
    gen_event:start_link(),                         %=> tethered gen_event:start_link/0
    gen_event:start_link(Name),                     %=> tethered gen_event:start_link/1
    gen_event:start_monitor(),                      %=> unlinked gen_event:start_monitor/0
    gen_fsm:start(?MODULE, [], O),                  %=> unlinked gen_fsm:start/3
    gen_fsm:start_link(?MODULE, [], O),             %=> tethered gen_fsm:start_link/3
    wx_object:start(?MODULE, [], O),                %=> unlinked wx_object:start/3
    wx_object:start_link(?MODULE, [], O),           %=> tethered wx_object:start_link/3
    supervisor:start_link(?MODULE, []),             %=> tethered supervisor:start_link/2
    supervisor:start_link(Name, ?MODULE, []),       %=> tethered supervisor:start_link/3
    supervisor_bridge:start_link(?MODULE, []),      %=> tethered supervisor_bridge:start_link/2
    gen:start(gen_server, nolink, ?MODULE, [], O),  %=> unlinked gen:start/5
    gen:start(gen_server, monitor, ?MODULE, [], O), %=> unlinked gen:start/5
    gen:start(gen_server, link, Name, m, [], O).    %=> tethered gen:start/6

others(N, F, A) ->
    timer:apply_after(10, direct, run, A),          %=> deferred timer:apply_after/4
    timer:apply_after(10, F),                       %=> deferred timer:apply_after/2
    timer:apply_interval(10, direct, run, A),       %=> deferred timer:apply_interval/4
    timer:apply_repeatedly(10, F, A),               %=> deferred timer:apply_repeatedly/3
    erpc:cast(N, F),                                %=> deferred erpc:cast/2
    erpc:cast(N, direct, run, A),                   %=> deferred erpc:cast/4
    erpc:multicast([N], F),                         %=> deferred erpc:multicast/2
    erpc:send_request(N, F),                        %=> deferred erpc:send_request/2
    rpc:cast(N, direct, run, A),                    %=> deferred rpc:cast/4
    rpc:async_call(N, direct, run, A),              %=> deferred rpc:async_call/4
    rpc:eval_everywhere(direct, run, A),            %=> deferred rpc:eval_everywhere/3
    pg:start(F),                                    %=> unlinked pg:start/1
    pg:start_link(),                                %=> tethered pg:start_link/0
    peer:start(#{}),                                %=> unlinked peer:start/1
    peer:start_link(),                              %=> tethered peer:start_link/0
    pool:pspawn(direct, run, A),                    %=> unlinked pool:pspawn/3
    pool:pspawn_link(direct, run, A).               %=> tethered pool:pspawn_link/3

%% What waits for an answer, or starts nothing, is none.
bodies(N) ->
    rpc:call(N, direct, run, []),
    erpc:call(N, direct, run, []),
    timer:send_after(10, self(), hello),
    erlang:send_after(10, self(), hello),
    gen_server:cast(direct, hello),
    gen_server:call(direct, hello),
    supervisor:start_child(direct_sup, [N]),
    gen_event:add_handler(N, direct, []),
    spawned(N).

spawned(N) -> N.

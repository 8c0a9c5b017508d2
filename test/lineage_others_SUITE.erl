%% A storm in which other tracers come and go: dbg takes the hook before OTP 27; from then on it has a
%% session of its own, beside others.
-module(lineage_others_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([suite/0, all/0, suspects/1, exits/1, run/2]).

suite() ->
    [{timetrap, {minutes, 30}}].

all() ->
    [suspects, exits].

suspects(_Config) ->
    on_peer(suspects).

exits(_Config) ->
    on_peer(all).

on_peer(Exits) ->
    lineage_SUITE:on_peer(fun(Node) ->
                                  {Visits, Blind} = peer:call(Node, ?MODULE, run,
                                                              [Exits, lineage_SUITE:storm_size()], infinity),
                                  ct:pal("~b visits, blind for ~b ms", [Visits, Blind])
                          end).

%% Sensitive processes, such as are killed at birth, and links that come and go, while somebody else
%% traces. What the hook did not see must be found again, and counted as blind time.
run(Exits, N) ->
    {ok, #{tracing := Api}} = lineage:attach(#{exits => Exits}),
    Visitor = spawn_link(fun() -> visit(Api, 0) end),
    lineage_SUITE:in_parallel(4, fun() -> process_flag(trap_exit, true), births(N, Visitor) end),
    Visitor ! {self(), enough},
    Visits = receive {Visitor, V} -> V end,
    lineage_session:check(),
    lineage_SUITE:same_sets(2),
    #{births := Births, lost := 0, blind_ms := Blind} = lineage:summary(),
    ?assert(Visits > 0),
    case Api of
        single -> ?assert(Blind > 0);
        sessions -> ?assert(Blind =:= 0 andalso Births >= 4 * N)
    end,
    ok = lineage:detach(),
    {Visits, Blind}.

%% Each worker lets the visitor in 50 times: dbg looks at every function of the node when it stops, so
%% that one visit after the other would leave no time for births.
births(N, Visitor) ->
    Pause = max(N div 50, 1),
    [begin
         lineage_SUITE:rough(I),
         I rem Pause =:= 0 andalso (Visitor ! visit)
     end || I <- lists:seq(1, N)].

visit(Api, Visits) ->
    receive
        {From, enough} -> From ! {self(), Visits}
    after 0 ->
            receive
                visit -> visit_once(Api), visit(Api, Visits + 1);
                {From, enough} -> From ! {self(), Visits}
            end
    end.

visit_once(Api) ->
    {ok, _} = dbg:tracer(process, {fun(_, S) -> S end, []}),
    {ok, _} = dbg:p(new, [procs]),
    Other = other_session(Api),
    lineage_session:check(),
    %% dbg:stop/0 returns before its tracer is gone, which holds the hook for as long.
    Gone = [{Pid, monitor(process, Pid)} || {ok, Pid} <- [dbg:get_tracer()], is_pid(Pid)],
    dbg:stop(),
    [lineage_SUITE:wait_for(G) || G <- Gone],
    end_session(Other),
    lineage_session:check().

other_session(single) ->
    none;
other_session(sessions) ->
    Drain = spawn_link(fun Drain() -> receive stop -> ok; _ -> Drain() end end),
    Session = apply(trace, session_create, [visitor, Drain, []]),
    apply(trace, process, [Session, new_processes, true, [procs]]),
    {Session, Drain}.

end_session(none) ->
    ok;
end_session({Session, Drain}) ->
    apply(trace, session_destroy, [Session]),
    Drain ! stop.

%% The places that the audit of Foundation and MABEAM found, each as the public call behind which it stands: jobs that
%% lineage_bench_callers runs on a node where both are started.
%%
%% `call' is the public call, from call to return. Where what it began ends later, that is a second part: `answer', from the
%% call to the message that it promises, or `gone', to the death of what it was to end.
-module(lineage_bench_rows).

-export([rows/0]).

-export_type([row/0]).

-type row() :: #{
    %% The place, as the plan names it, and the public call.
    row := binary(),
    call := binary(),
    %% The phase that is off in the legacy arm.
    phase := phase_1 | phase_2 | phase_3 | phase_4,
    %% The members of the cluster it is measured on.
    nodes := 1 | 2,
    callers := [pos_integer()],
    %% At most so many times in a round, all callers together.
    most := pos_integer(),
    job := lineage_bench_callers:job()
}.

-define(COORDINATION, 'Elixir.MABEAM.Coordination').
-define(COMMS, 'Elixir.MABEAM.Comms').
-define(AGENT, 'Elixir.MABEAM.Agent').
-define(BALANCER, 'Elixir.MABEAM.LoadBalancer').
-define(PROCESSES, 'Elixir.Foundation.BEAM.Processes').
-define(PRIMITIVES, 'Elixir.Foundation.Coordination.Primitives').
-define(REGISTRY, 'Elixir.Foundation.ProcessRegistry').

-define(MANY, 1000000).

%% All rows, those of one node first.
-spec rows() -> [row(), ...].
rows() ->
    [
        row(<<"MABEAM.Coordination 912">>, <<"MABEAM.Coordination.coordinate/3">>, phase_1, 1, [1, 8, 64], coordinate()),
        row(<<"Foundation.BEAM.Processes 229">>, <<"Foundation.BEAM.Processes.isolate_memory_intensive_work/1">>, phase_1, 1,
            [1, 8], memory()),
        row(<<"MABEAM.Comms">>, <<"MABEAM.Comms.send_async_request/2">>, phase_2, 1, [1, 8], comms()),
        row(<<"MABEAM.Agent, registered">>, <<"MABEAM.Agent.register/2">>, phase_2, 1, [1, 8], register()),
        row(<<"MABEAM.Agent, stopped">>, <<"MABEAM.Agent.stop/1">>, phase_2, 1, [1, 8], stop()),
        row(<<"MABEAM.LoadBalancer">>, <<"MABEAM.LoadBalancer.assign_task/1">>, phase_3, 1, [1, 8], balancer()),
        row(<<"Foundation.ProcessRegistry">>, <<"Foundation.ProcessRegistry.cleanup_test_namespace/1">>, phase_3, 1, [1, 8],
            cleanup()),
        row(<<"Foundation.Coordination, barrier">>, <<"Foundation.Coordination.Primitives.barrier_sync/2">>, phase_2, 1, [1, 8],
            barrier()),
        (row(<<"Foundation.Application 505 to 896">>, <<"Application.start(:foundation)">>, phase_1, 1, [1], application()))#{
            most := 20
        },
        row(<<"Foundation.Coordination.Primitives">>, <<"Foundation.Coordination.Primitives.consensus/1">>, phase_2, 2, [1, 8],
            primitive(fun() -> ?PRIMITIVES:consensus(blue) end)),
        row(<<"Foundation.Coordination.Primitives">>, <<"Foundation.Coordination.Primitives.elect_leader/0">>, phase_2, 2, [1, 8],
            primitive(fun() -> ?PRIMITIVES:elect_leader() end)),
        %% Supervised in both arms. With phase 4 it is also recorded on both nodes, in two transactions, so that it outlives
        %% this one: what that costs is the price of agreement, not of supervision.
        row(<<"MABEAM.Coordination 912, recorded">>, <<"MABEAM.Coordination.coordinate/3">>, phase_4, 2, [1, 8], coordinate())
    ].

row(Row, Call, Phase, Nodes, Callers, Job) ->
    #{row => Row, call => Call, phase => Phase, nodes => Nodes, callers => Callers, most => ?MANY, job => Job}.

%% A job of one part whose call needs no more than its result.
job(Open, Call, Close) ->
    #{
        parts => [call],
        open => Open,
        once => fun(State) -> {timed(fun() -> Call(State) end), State} end,
        close => Close
    }.

timed(Call) ->
    Before = erlang:monotonic_time(),
    Result = Call(),
    After = erlang:monotonic_time(),
    case Result of
        {error, _} -> failed;
        _ -> [After - Before]
    end.

nothing(_) -> none.

%% Two agents of its own vote on a value: each caller's coordination asks nobody whom another one asks.
coordinate() ->
    job(fun(N) -> agents(N, 2) end,
        fun(Agents) -> ?COORDINATION:coordinate(consensus, Agents, #{value => blue}) end,
        fun remove/1).

agents(Caller, Count) ->
    Ids = [id([Caller, N]) || N <- lists:seq(1, Count)],
    lists:foreach(
        fun(Id) ->
            ok = ?AGENT:register(Id, lineage_bench_agent),
            {ok, _} = ?AGENT:start(Id)
        end,
        Ids
    ),
    Ids.

remove(Ids) ->
    lists:foreach(fun(Id) -> ok = ?AGENT:deregister(Id) end, Ids).

id(Numbers) ->
    iolist_to_binary(["bench" | [[$-, integer_to_list(N)] || N <- Numbers]]).

memory() ->
    promised(fun nothing/1, fun(_) -> ?PROCESSES:isolate_memory_intensive_work(fun() -> done end) end, fun(_) ->
        receive
            {work_complete, done} -> ok
        end
    end, fun nothing/1).

comms() ->
    promised(fun(N) -> agents(N, 1) end, fun([Agent]) -> ?COMMS:send_async_request(Agent, ping) end, fun(Ref) ->
        receive
            {mabeam_response, Ref, {ok, pong}} -> ok
        end
    end, fun remove/1).

promised(Open, Call, Await, Close) ->
    #{
        parts => [call, answer],
        open => Open,
        once => fun(State) ->
            Before = erlang:monotonic_time(),
            Result = Call(State),
            Called = erlang:monotonic_time(),
            {answered(Result, Before, Called, Await), State}
        end,
        close => Close
    }.

answered({ok, Promise}, Before, Called, Await) ->
    ok = Await(Promise),
    [Called - Before, erlang:monotonic_time() - Before];
answered({error, _}, _Before, _Called, _Await) ->
    failed.

register() ->
    #{
        parts => [call],
        open => fun(N) -> id([N]) end,
        once => fun(Id) ->
            Times = timed(fun() -> ?AGENT:register(Id, lineage_bench_agent) end),
            ok = ?AGENT:deregister(Id),
            {Times, Id}
        end,
        close => fun nothing/1
    }.

stop() ->
    #{
        parts => [call],
        open => fun(N) -> N end,
        once => fun(N) ->
            [Id] = Ids = agents(N, 1),
            Times = timed(fun() -> ?AGENT:stop(Id) end),
            ok = remove(Ids),
            {Times, N}
        end,
        close => fun nothing/1
    }.

balancer() ->
    #{
        parts => [call],
        open => fun(N) ->
            ok = ?BALANCER:register_agent(id([N]), [{capacity, ?MANY}]),
            id([N])
        end,
        once => fun(Own) ->
            Before = erlang:monotonic_time(),
            Result = ?BALANCER:assign_task(#{}),
            After = erlang:monotonic_time(),
            Times =
                case Result of
                    {ok, Id} ->
                        ok = ?BALANCER:update_agent_metrics(Id, #{completed => 1}),
                        [After - Before];
                    {error, _} ->
                        failed
                end,
            {Times, Own}
        end,
        close => fun(Own) -> ok = ?BALANCER:unregister_agent(Own) end
    }.

cleanup() ->
    #{
        parts => [call, gone],
        open => fun(_) -> process_flag(trap_exit, true) end,
        once => fun(State) ->
            {ok, Sitter} = lineage_bench_starts:start_child(),
            Test = make_ref(),
            ok = ?REGISTRY:register({test, Test}, sitter, Sitter, #{}),
            %% As a supervised one is not linked to the caller.
            unlink(Sitter),
            Monitor = monitor(process, Sitter),
            Before = erlang:monotonic_time(),
            {ok, 1} = ?REGISTRY:cleanup_test_namespace(Test),
            Called = erlang:monotonic_time(),
            receive
                {'DOWN', Monitor, process, Sitter, shutdown} -> {[Called - Before, erlang:monotonic_time() - Before], State}
            end
        end,
        close => fun nothing/1
    }.

%% Nobody else is waited for, so what is timed is the barrier itself.
barrier() ->
    job(fun nothing/1, fun(_) -> ?PRIMITIVES:barrier_sync(make_ref(), 1) end, fun nothing/1).

application() ->
    #{
        parts => [call],
        open => fun nothing/1,
        once => fun(none) ->
            ok = application:stop(mabeam),
            ok = application:stop(foundation),
            Times = timed(fun() -> application:start(foundation) end),
            ok = application:start(mabeam),
            {Times, none}
        end,
        close => fun nothing/1
    }.

primitive(Call) ->
    job(fun nothing/1, fun(_) -> Call() end, fun nothing/1).

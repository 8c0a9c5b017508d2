%% The loads that the cost cells time, and the state of the node that they run on: how many processes live beside them, and
%% whether its process table is a young one or an aged one.
%%
%% A load is run by workers that are linked to their starter, for a worker without a link would be a suspect itself and pay
%% for the trace at each of its own schedule-ins.
-module(lineage_bench_load).

-export([run/2, hold/1, release/1, age/0, pid_step/0]).

-type load() :: #{
    what := spawn_link | spawn_monitor | rolling_link | rolling_monitor | ping_pong,
    workers := pos_integer(),
    live := pos_integer(),
    ops := pos_integer()
}.
-type result() :: #{wall_ns := pos_integer(), cpu_ns := pos_integer()}.

-export_type([load/0, result/0]).

%% Runs the load once: wall time and the node's CPU time (all its threads) of its timed part. Started is called when the
%% workers are there and have done nothing yet. A fifth of the load runs first, untimed: a tracer that was just attached
%% touches its memory for the first time then.
%%
%% `spawn_link' and `spawn_monitor': each worker spawns a process that ends at once, waits for its end, and goes on.
%% `rolling_*': each worker keeps its share of the `live' children; it spawns one, then tells the oldest to go and waits for
%% its end, so that birth and death of a process are `live' births apart. The children are there before the clock starts.
%% `ping_pong': each worker and a partner that it is linked to send each other a message and wait for the answer.
-spec run(load(), fun(() -> term())) -> result().
run(#{what := What, workers := Workers, live := Live, ops := Ops}, Started) ->
    Self = self(),
    Bench = make_ref(),
    Each = max(1, Ops div Workers),
    Pids = [
        spawn_link(fun() -> worker(Self, Bench, What, max(1, Live div Workers), Each) end)
     || _ <- lists:seq(1, Workers)
    ],
    await(Bench, started, Pids),
    _ = Started(),
    tell(Bench, prepare, Pids),
    await(Bench, ready, Pids),
    Cpu0 = lineage_bench_noop:process_cpu_ns(),
    Wall0 = erlang:monotonic_time(nanosecond),
    tell(Bench, go, Pids),
    await(Bench, done, Pids),
    Wall1 = erlang:monotonic_time(nanosecond),
    Cpu1 = lineage_bench_noop:process_cpu_ns(),
    tell(Bench, finish, Pids),
    await(Bench, gone, Pids),
    #{wall_ns => max(1, Wall1 - Wall0), cpu_ns => max(1, Cpu1 - Cpu0)}.

tell(Bench, Tag, Pids) ->
    lists:foreach(fun(Pid) -> Pid ! {Bench, Tag} end, Pids).

await(Bench, Tag, Pids) ->
    lists:foreach(
        fun(Pid) ->
            receive
                {Bench, Tag, Pid} -> ok
            end
        end,
        Pids
    ).

worker(Starter, Bench, What, Share, Each) ->
    process_flag(trap_exit, true),
    step(Starter, Bench, started, prepare),
    Warm = work(What, max(1, Each div 5), prepare(What, Share)),
    step(Starter, Bench, ready, go),
    Left = work(What, Each, Warm),
    step(Starter, Bench, done, finish),
    clear(What, Left),
    unlink(Starter),
    Starter ! {Bench, gone, self()}.

step(Starter, Bench, Say, Wait) ->
    Starter ! {Bench, Say, self()},
    receive
        {Bench, Wait} -> ok
    end.

prepare(rolling_link, Share) -> fill(spawn_link, Share, queue:new());
prepare(rolling_monitor, Share) -> fill(spawn_monitor, Share, queue:new());
prepare(ping_pong, _Share) -> spawn_link(pong(self()));
prepare(_, _Share) -> none.

fill(_How, 0, Queue) -> Queue;
fill(How, Left, Queue) -> fill(How, Left - 1, queue:in(waiting(How), Queue)).

clear(rolling_link, Queue) -> lists:foreach(fun go/1, queue:to_list(Queue));
clear(rolling_monitor, Queue) -> lists:foreach(fun go/1, queue:to_list(Queue));
clear(ping_pong, Partner) -> go(Partner);
clear(_, none) -> ok.

work(_What, 0, State) ->
    State;
work(spawn_link, Left, State) ->
    Pid = spawn_link(fun() -> ok end),
    receive
        {'EXIT', Pid, _} -> work(spawn_link, Left - 1, State)
    end;
work(spawn_monitor, Left, State) ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Monitor, process, Pid, _} -> work(spawn_monitor, Left - 1, State)
    end;
work(rolling_link, Left, Queue) ->
    work(rolling_link, Left - 1, turn(spawn_link, Queue));
work(rolling_monitor, Left, Queue) ->
    work(rolling_monitor, Left - 1, turn(spawn_monitor, Queue));
work(ping_pong, Left, Partner) ->
    Partner ! ping,
    receive
        pong -> work(ping_pong, Left - 1, Partner)
    end.

turn(How, Queue) ->
    {{value, Oldest}, Shorter} = queue:out(Queue),
    Child = waiting(How),
    go(Oldest),
    queue:in(Child, Shorter).

waiting(How) ->
    Body = fun() ->
        receive
            go -> ok
        end
    end,
    erlang:How(Body).

go({Pid, Monitor}) ->
    Pid ! go,
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end;
go(Pid) ->
    Pid ! go,
    receive
        {'EXIT', Pid, _} -> ok
    end.

pong(Worker) ->
    fun() -> answer(Worker) end.

answer(Worker) ->
    receive
        ping ->
            Worker ! pong,
            answer(Worker);
        go ->
            ok
    end.

%% Starts Live idle processes that are linked to a holder, which is linked to the caller. Returns when all are there.
-spec hold(non_neg_integer()) -> pid().
hold(Live) ->
    Self = self(),
    Holder = spawn_link(fun() ->
        Idle = fun() ->
            receive
                never -> ok
            end
        end,
        lists:foreach(fun(_) -> spawn_link(Idle) end, lists:seq(1, Live)),
        Self ! {self(), held},
        receive
            release -> ok
        end,
        unlink(Self),
        exit(shutdown)
    end),
    receive
        {Holder, held} -> Holder
    end.

%% Ends a holder and all that it holds. Returns when the holder is dead.
-spec release(pid()) -> ok.
release(Holder) ->
    Monitor = monitor(process, Holder),
    Holder ! release,
    receive
        {'DOWN', Monitor, process, Holder, _} -> ok
    end.

%% Fills the process table once and frees it in random order (from a fixed seed), so that later pids come from all over it.
%% Returns how many processes that took.
-spec age() -> pos_integer().
age() ->
    rand:seed(exsss, {25, 27, 29}),
    Room = erlang:system_info(process_limit) - erlang:system_info(process_count) - 64,
    Idle = fun() ->
        receive
            never -> ok
        end
    end,
    Pids = [spawn(Idle) || _ <- lists:seq(1, Room)],
    lists:foreach(fun kill/1, [Pid || {_, Pid} <- lists:keysort(1, [{rand:uniform(), Pid} || Pid <- Pids])]),
    erlang:garbage_collect(),
    Room.

kill(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end.

%% How far apart the numbers of pids born one after the other are, in the median: a few on a young node, a good part of the
%% process limit on an aged one. Shows in the output that an aged node is aged.
-spec pid_step() -> non_neg_integer().
pid_step() ->
    Numbers = [pid_number() || _ <- lists:seq(1, 1001)],
    Steps = lists:sort([abs(B - A) || {A, B} <- lists:zip(lists:droplast(Numbers), tl(Numbers))]),
    lists:nth(501, Steps).

pid_number() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end,
    [_, Number, _] = string:split(pid_to_list(Pid), ".", all),
    list_to_integer(Number).

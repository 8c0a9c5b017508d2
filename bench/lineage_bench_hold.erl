%% How long a scheduler, or a supervisor, was held up while something ran.
%%
%% A probe is bound to each normal scheduler; it does nothing but pause and look at two clocks. A gap between two looks is time
%% in which that scheduler ran something else without a break. A probe that spins yields between its looks: it sees holds of
%% microseconds, but whatever goes through the schedulers' queues meanwhile waits for it at every turn. A probe that sleeps
%% asks to be woken after 1 ms, before all others; the VM's timer may be 1 ms late, so 2 ms are taken off each gap. In wall time other programs on the machine make gaps too, so
%% the gap is also taken in CPU time of the scheduler's own thread: that one shows what the node itself did there. A thread
%% that waits for a lock uses no CPU time, so both are kept, and both are compared with a control run.
-module(lineage_bench_hold).

-export([during/2, pinging/3, least/1]).

-type pause() :: spin | sleep.

-define(SLEEP_NS, 2000000).

-type gaps() :: #{
    cpu_max_us := non_neg_integer(),
    wall_max_us := non_neg_integer(),
    cpu_over_1ms := non_neg_integer(),
    wall_over_1ms := non_neg_integer(),
    looks := non_neg_integer()
}.
-type pings() :: #{max_us := non_neg_integer(), total_us := non_neg_integer(), pings := non_neg_integer()}.

-export_type([gaps/0, pings/0]).

%% Runs Fun with a probe on each normal scheduler. Fun is slower for it: time it elsewhere.
-spec during(pause(), fun(() -> Result)) -> {Result, gaps()}.
during(Pause, Fun) ->
    Self = self(),
    Probes = [
        spawn_opt(fun() -> probe(Self, Pause) end, [link, {scheduler, Id}, {priority, priority(Pause)}])
     || Id <- lists:seq(1, erlang:system_info(schedulers_online))
    ],
    lists:foreach(
        fun(Probe) ->
            receive
                {Probe, ready} -> ok
            end
        end,
        Probes
    ),
    Result = Fun(),
    {Result, lists:foldl(fun join/2, none, [stop(Probe) || Probe <- Probes])}.

%% Of several runs of the same thing the least of each maximum: what holds a scheduler each time is ours, the rest is chance.
-spec least([Figures, ...]) -> Figures when Figures :: gaps() | pings().
least([First | Rest]) ->
    lists:foldl(
        fun(Figures, Least) -> maps:map(fun(Key, Value) -> min(Value, maps:get(Key, Figures)) end, Least) end, First, Rest
    ).

stop(Probe) ->
    Probe ! stop,
    receive
        {Probe, Gaps} -> Gaps
    end.

join(Gaps, none) ->
    Gaps;
join(A, B) ->
    maps:map(
        fun
            (Key, Value) when Key =:= cpu_max_us; Key =:= wall_max_us -> max(Value, maps:get(Key, B));
            (Key, Value) -> Value + maps:get(Key, B)
        end,
        A
    ).

priority(spin) -> normal;
priority(sleep) -> max.

probe(Owner, Pause) ->
    %% The first looks load code; they do not count.
    _ = looks(Pause, 64),
    Owner ! {self(), ready},
    {Looks, CpuMax, WallMax, Cpu1, Wall1} = looks(Pause, infinity),
    unlink(Owner),
    Owner !
        {self(), #{
            looks => Looks,
            cpu_max_us => CpuMax div 1000,
            wall_max_us => WallMax div 1000,
            cpu_over_1ms => Cpu1,
            wall_over_1ms => Wall1
        }}.

looks(Pause, Count) ->
    look(Pause, Count, lineage_bench_noop:thread_cpu_ns(), erlang:monotonic_time(nanosecond), {0, 0, 0, 0, 0}).

look(_Pause, 0, _Cpu, _Wall, Seen) ->
    Seen;
look(Pause, Left, Cpu0, Wall0, {Looks, CpuMax, WallMax, Cpu1, Wall1} = Seen) ->
    pause(Pause),
    Cpu = lineage_bench_noop:thread_cpu_ns(),
    Wall = erlang:monotonic_time(nanosecond),
    receive
        stop -> Seen
    after 0 ->
        CpuGap = gap(Pause, Cpu - Cpu0),
        WallGap = gap(Pause, Wall - Wall0),
        look(
            Pause,
            less(Left),
            Cpu,
            Wall,
            {Looks + 1, max(CpuMax, CpuGap), max(WallMax, WallGap), Cpu1 + over(CpuGap), Wall1 + over(WallGap)}
        )
    end.

pause(spin) ->
    erlang:yield();
pause(sleep) ->
    receive
    after 1 -> ok
    end.

gap(spin, Ns) -> Ns;
gap(sleep, Ns) -> max(0, Ns - ?SLEEP_NS).

less(infinity) -> infinity;
less(Left) -> Left - 1.

over(Gap) when Gap > 1000000 -> 1;
over(_Gap) -> 0.

%% Runs Fun while a process keeps asking the supervisors in turn, one call at a time, and measures how long each takes to
%% answer. The list must not be empty.
-spec pinging(pause(), [pid(), ...], fun(() -> Result)) -> {Result, pings()}.
pinging(Pause, Supervisors, Fun) ->
    Self = self(),
    Pinger = spawn_link(fun() ->
        _ = [ask(Supervisor) || Supervisor <- Supervisors],
        Self ! {self(), ready},
        ping({Self, Pause, Supervisors}, Supervisors, {0, 0, 0}, erlang:monotonic_time(microsecond))
    end),
    receive
        {Pinger, ready} -> ok
    end,
    Result = Fun(),
    Pinger ! stop,
    receive
        {Pinger, Pings} -> {Result, Pings}
    end.

%% What counts is the time from one answer to the next, so that a hold is seen also where this process was not waiting for the
%% answer but for its own turn.
ping({Owner, Pause, All} = Run, [], {Count, Total, Max} = Pings, Before) ->
    receive
        stop ->
            Last = since(Pause, Before),
            unlink(Owner),
            Owner ! {self(), #{pings => Count, total_us => Total, max_us => max(Max, Last)}}
    after 0 ->
        pause(Pause),
        ping(Run, All, Pings, Before)
    end;
ping({_Owner, Pause, _All} = Run, [Supervisor | Rest], {Count, Total, Max}, Before) ->
    ok = ask(Supervisor),
    Us = since(Pause, Before),
    ping(Run, Rest, {Count + 1, Total + Us, max(Max, Us)}, erlang:monotonic_time(microsecond)).

since(Pause, Before) ->
    gap(Pause, (erlang:monotonic_time(microsecond) - Before) * 1000) div 1000.

%% It costs the supervisor nothing: no supervisor knows the id.
ask(Supervisor) ->
    {error, not_found} = supervisor:get_childspec(Supervisor, ?MODULE),
    ok.

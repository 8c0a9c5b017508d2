%% Callers that do the same thing over and over, each in a process of its own, and note how long it took each time.
%%
%% What one does next begins when what it did is over, so with N callers at most N are under way: at saturation at once, at rest
%% after a pause of 1 to N + 1 ms, so that one or two begin in a millisecond, however many they are. (The VM's timers go off
%% once in a millisecond: with a pause of 1 ms all would begin together.) Times are noted in arrays outside of the heaps, so that
%% noting makes no garbage.
-module(lineage_bench_callers).

-export([turn/2, join/1]).

-export_type([job/0, load/0, result/0]).

-type job() :: #{
    %% What `once' times, the first one is the latency that throughput is counted by.
    parts := [atom(), ...],
    %% In the caller, before; it is told its number, 1 to N.
    open := fun((pos_integer()) -> State :: term()),
    %% The thing itself. Times in native units, one per part; it times itself, so what comes before and after is not in them.
    once := fun((State :: term()) -> {[integer()] | failed, State :: term()}),
    %% In the caller, after.
    close := fun((State :: term()) -> term())
}.
-type load() :: #{
    callers := pos_integer(),
    pace := rest | saturation,
    %% How often each caller does it, and before that untimed; the turn ends early after so many milliseconds.
    each := pos_integer(),
    warm := non_neg_integer(),
    limit_ms := pos_integer()
}.
-type result() :: #{
    %% For each part, in no order, nanoseconds.
    parts := #{atom() => [integer()]},
    failed := non_neg_integer(),
    %% Of the whole turn, from the first to the last, and the CPU time of all the node's threads in it.
    wall_ns := pos_integer(),
    cpu_ns := pos_integer()
}.

%% One turn of a job. Raises when a caller crashes.
-spec turn(job(), load()) -> result().
turn(#{parts := Parts} = Job, #{callers := Callers} = Load) ->
    Turn = make_ref(),
    Self = self(),
    Pids = [spawn_link(fun() -> caller(Self, Turn, N, Job, Load) end) || N <- lists:seq(1, Callers)],
    _ = [receive {Turn, ready, Pid} -> ok end || Pid <- Pids],
    Cpu = lineage_bench_noop:process_cpu_ns(),
    Before = erlang:monotonic_time(),
    _ = [Pid ! {Turn, go} || Pid <- Pids],
    Told = [receive {Turn, done, Pid, Times, Failed} -> {Times, Failed} end || Pid <- Pids],
    After = erlang:monotonic_time(),
    Used = lineage_bench_noop:process_cpu_ns() - Cpu,
    _ = [Pid ! {Turn, close} || Pid <- Pids],
    _ = [receive {Turn, closed, Pid} -> ok end || Pid <- Pids],
    #{
        parts => maps:from_list([
            {Part, [Ns || {Times, _} <- Told, Ns <- ns(lists:nth(Nth, Times))]}
         || {Nth, Part} <- lists:zip(lists:seq(1, length(Parts)), Parts)
        ]),
        failed => lists:sum([Failed || {_, Failed} <- Told]),
        wall_ns => max(1, erlang:convert_time_unit(After - Before, native, nanosecond)),
        cpu_ns => max(1, Used)
    }.

caller(Starter, Turn, Number, #{parts := Parts, open := Open, close := Close} = Job, Load) ->
    #{each := Each, warm := Warm, limit_ms := Limit} = Load,
    State = warm(Warm, Open(Number), Job),
    Arrays = [atomics:new(Each, []) || _ <- Parts],
    Starter ! {Turn, ready, self()},
    receive
        {Turn, go} -> ok
    end,
    Until = erlang:monotonic_time() + erlang:convert_time_unit(Limit, millisecond, native),
    {Last, Done, Failed} = work(1, 0, State, Job, Load, Arrays, Until),
    Starter ! {Turn, done, self(), [{Done, Array} || Array <- Arrays], Failed},
    receive
        {Turn, close} -> Close(Last)
    end,
    unlink(Starter),
    Starter ! {Turn, closed, self()}.

warm(0, State, _Job) ->
    State;
warm(Left, State, #{once := Once} = Job) ->
    {_, Next} = Once(State),
    warm(Left - 1, Next, Job).

work(N, Failed, State, _Job, #{each := Each}, _Arrays, _Until) when N + Failed > Each ->
    {State, N - 1, Failed};
work(N, Failed, State, #{once := Once} = Job, #{pace := Pace, callers := Callers} = Load, Arrays, Until) ->
    ok = pause(Pace, Callers),
    {Times, Next} = Once(State),
    {Count, Bad} =
        case Times of
            failed ->
                {N, Failed + 1};
            _ ->
                ok = note(N, Arrays, Times),
                {N + 1, Failed}
        end,
    case erlang:monotonic_time() > Until of
        true -> {Next, Count - 1, Bad};
        false -> work(Count, Bad, Next, Job, Load, Arrays, Until)
    end.

note(_N, [], []) ->
    ok;
note(N, [Array | Arrays], [Time | Times]) ->
    ok = atomics:put(Array, N, Time),
    note(N, Arrays, Times).

pause(saturation, _Callers) ->
    ok;
pause(rest, Callers) ->
    receive
    after rand:uniform(Callers + 1) -> ok
    end.

%% The nanoseconds in an array's first places.
ns({Count, Array}) ->
    [erlang:convert_time_unit(atomics:get(Array, N), native, nanosecond) || N <- lists:seq(1, Count)].

%% The turns of one arm as one.
-spec join([result(), ...]) -> result().
join([#{parts := Parts} | _] = Results) ->
    #{
        parts => maps:map(fun(Part, _) -> lists:append([maps:get(Part, P) || #{parts := P} <- Results]) end, Parts),
        failed => lists:sum([Failed || #{failed := Failed} <- Results]),
        wall_ns => lists:sum([Ns || #{wall_ns := Ns} <- Results]),
        cpu_ns => lists:sum([Ns || #{cpu_ns := Ns} <- Results])
    }.

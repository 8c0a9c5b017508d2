%% @private Does something with each of many processes: in parallel, in batches, and without ever
%% hanging on one that does not answer.
%%
%% A few workers take batches of pids. Each notes which pid it is at, so that when one stands still
%% for `stall_ms' the worker is killed, that pid is put aside as stuck, and the rest of its batch is
%% done again. Work must therefore be idempotent. All processes of a walk are Lineage's own, and
%% die with the caller.
-module(lineage_walk).

-export([each/4, apart/1, room/0, worker/3, run_apart/3]).

-export_type([options/0]).

-type options() :: #{workers => pos_integer(),          % default: 8
                     batch => pos_integer(),            % pids, default 500
                     stall_ms => pos_integer(),         % default 2000
                     progress => fun((non_neg_integer()) -> term())}.  % pids done so far

-define(LOOK_MS, 250).

%% @doc Calls `Work' for each batch; its first argument notes the place, and must be called with each
%% pid's number (1..) before that pid is touched. The results are folded with `Merge'. Returns the
%% accumulator and the stuck pids.
-spec each([pid()], fun((fun((pos_integer()) -> ok), [pid()]) -> Result),
           {fun((Result, Acc) -> Acc), Acc}, options()) -> {Acc, [pid()]}.
each(Pids, Work, {Merge, Acc}, Options) ->
    Tag = make_ref(),
    %% An answer takes as long as it takes the asked to be scheduled: where others keep the schedulers
    %% busy, 8 who ask are ten times as fast as 2, and as fast as 32.
    Workers = maps:get(workers, Options, 8),
    Walk = #{tag => Tag, work => Work, merge => Merge, done => 0, stuck => [],
             rest => Pids, again => [],
             batch => maps:get(batch, Options, 500),
             stall => maps:get(stall_ms, Options, 2000),
             progress => maps:get(progress, Options, fun(_) -> ok end)},
    {Running, Walk1} = start(Workers, #{}, Walk),
    loop(Running, Acc, Walk1).

%% @doc Runs `Fun' in a process of its own, linked to the caller, that has room for lists of all
%% processes; exits as it does.
-spec apart(fun(() -> Result)) -> Result.
apart(Fun) ->
    Tag = make_ref(),
    {Pid, Monitor} = spawn_opt(?MODULE, run_apart, [self(), Tag, Fun],
                               [link, monitor, {min_heap_size, room()}]),
    receive
        {Tag, Result} ->
            stop(Pid, Monitor),
            Result;
        {'DOWN', Monitor, process, Pid, Reason} ->
            exit(Reason)
    end.

%% @doc Words of heap in which a walk over all processes needs no garbage collection: with a million,
%% one holds its scheduler for 100 ms. Only what is used of it takes memory.
-spec room() -> pos_integer().
room() ->
    4096 + 16 * erlang:system_info(process_count).

%% @private
-spec run_apart(pid(), reference(), fun(() -> term())) -> term().
run_apart(Caller, Tag, Fun) ->
    own(),
    Caller ! {Tag, Fun()}.

start(0, Running, Walk) ->
    {Running, Walk};
start(N, Running, Walk) ->
    case take(Walk) of
        {[], Walk1} -> {Running, Walk1};
        {Batch, Walk1} -> start(N - 1, spawn_worker(Batch, Running, Walk), Walk1)
    end.

spawn_worker(Batch, Running, #{work := Work, tag := Tag}) ->
    Place = atomics:new(1, [{signed, false}]),
    Args = [self(), Tag, fun(Note, Pids) -> Work(Note, Pids) end],
    {Pid, Monitor} = spawn_opt(?MODULE, worker, Args, [link, monitor]),
    give(Pid, Monitor, Place, Batch, Running, Tag).

give(Pid, Monitor, Place, Batch, Running, Tag) ->
    atomics:put(Place, 1, 0),
    Pid ! {Tag, Place, Batch},
    Running#{Pid => #{monitor => Monitor, place => Place, batch => Batch, seen => 0, at => now_ms()}}.

take(#{again := [Batch | Again]} = Walk) ->
    {Batch, Walk#{again := Again}};
take(#{rest := Rest, batch := Size} = Walk) ->
    {Batch, Rest1} = split(Size, Rest, []),
    {Batch, Walk#{rest := Rest1}}.

split(N, [P | Rest], Acc) when N > 0 -> split(N - 1, Rest, [P | Acc]);
split(_, Rest, Acc) -> {lists:reverse(Acc), Rest}.

loop(Running, Acc, #{stuck := Stuck}) when map_size(Running) =:= 0 ->
    {Acc, Stuck};
loop(Running, Acc, #{tag := Tag, merge := Merge, done := Done, progress := Progress} = Walk) ->
    receive
        {Tag, done, Pid, Result} when is_map_key(Pid, Running) ->
            #{Pid := #{batch := Batch, monitor := Monitor, place := Place}} = Running,
            Done1 = Done + length(Batch),
            Progress(Done1),
            Acc1 = Merge(Result, Acc),
            case take(Walk#{done := Done1}) of
                {[], Walk1} ->
                    stop(Pid, Monitor),
                    loop(maps:remove(Pid, Running), Acc1, Walk1);
                {Next, Walk1} ->
                    loop(give(Pid, Monitor, Place, Next, Running, Tag), Acc1, Walk1)
            end;
        %% It had stood still until just when it was killed: its batch is being done again.
        {Tag, done, _Late, _Result} ->
            loop(Running, Acc, Walk);
        {'DOWN', Monitor, process, Pid, Reason} when is_map_key(Pid, Running),
                                                     map_get(monitor, map_get(Pid, Running)) =:= Monitor ->
            %% Only for a caller that traps exits; another one went down by the link.
            stop_all(maps:remove(Pid, Running)),
            exit({walk_failed, Reason})
    after ?LOOK_MS ->
            {Running1, Walk1} = look(maps:to_list(Running), Running, Walk),
            loop(Running1, Acc, Walk1)
    end.

%% Who stands still?
look([], Running, Walk) ->
    {Running, Walk};
look([{Pid, #{place := Place, seen := Seen, at := At} = W} | Rest], Running, #{stall := Stall} = Walk) ->
    Now = now_ms(),
    case atomics:get(Place, 1) of
        Seen when Now - At > Stall ->
            {Running1, Walk1} = put_aside(Pid, max(Seen, 1), W, maps:remove(Pid, Running), Walk),
            look(Rest, Running1, Walk1);
        Seen ->
            look(Rest, Running, Walk);
        Place1 ->
            look(Rest, Running#{Pid := W#{seen := Place1, at := Now}}, Walk)
    end.

put_aside(Pid, N, #{batch := Batch, monitor := Monitor}, Running, Walk) ->
    #{stuck := Stuck, again := Again, done := Done} = Walk,
    stop(Pid, Monitor),
    {Before, [Bad | After]} = lists:split(N - 1, Batch),
    Walk1 = Walk#{stuck := [Bad | Stuck], done := Done + 1,
                  again := [B || B <- [Before ++ After], B =/= []] ++ Again},
    case take(Walk1) of
        {[], Walk2} -> {Running, Walk2};
        {Next, Walk2} -> {spawn_worker(Next, Running, Walk2), Walk2}
    end.

stop_all(Running) ->
    maps:foreach(fun(Pid, #{monitor := Monitor}) -> stop(Pid, Monitor) end, Running).

stop(Pid, Monitor) ->
    erlang:demonitor(Monitor, [flush]),
    unlink(Pid),
    receive {'EXIT', Pid, _} -> ok after 0 -> ok end,
    exit(Pid, kill).

%% @private
-spec worker(pid(), reference(), fun((fun((pos_integer()) -> ok), [pid()]) -> term())) -> no_return().
worker(Caller, Tag, Work) ->
    own(),
    work(Caller, Tag, Work).

work(Caller, Tag, Work) ->
    receive
        {Tag, Place, Batch} ->
            Result = Work(fun(N) -> atomics:put(Place, 1, N) end, Batch),
            Caller ! {Tag, done, self(), Result},
            erlang:yield(),
            work(Caller, Tag, Work)
    end.

own() ->
    _ = lineage_nif:mark(self(), own),
    ok.

now_ms() -> erlang:monotonic_time(millisecond).

%% What supervision takes, as the NIF times it in its windows: against supervisors at work. The trace points are set here.
-module(lineage_timing_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, init_per_testcase/2, end_per_testcase/2]).
-export([starts/1, init_is_no_overhead/1, refused/1, killed_caller/1, killed_supervisor/1, nested/1, handed_on/1,
         elsewhere/1, drain/1, window_ends/1, from_before/1, restarts/1, restarts_of_all/1, tried_again/1, stops/1,
         suspects/1, critical_paths/1, outliers/1, ring_is_full/1, busy/1, elixir/1, partitions/1, many_supervisors/1,
         beside_monitors/1, off/1, options/1, owner_dies/1]).
-export([init/1, handle_call/3, handle_cast/2, start_link/1, spawn_child/1, critical/1, recursive/2]).

all() ->
    [starts, init_is_no_overhead, refused, killed_caller, killed_supervisor, nested, handed_on, elsewhere, drain,
     window_ends, from_before, restarts, restarts_of_all, tried_again, stops, suspects, critical_paths, outliers,
     ring_is_full, busy, elixir, partitions, many_supervisors, beside_monitors, off, options, owner_dies].

-define(HOUR, 3600000000000).
-define(PARTS, [latency, overhead, queue, work, init, back]).

init_per_testcase(Case, Config) when Case =:= elixir; Case =:= partitions ->
    case elixir_path() of
        none -> lineage_counter:cannot("Elixir is not installed");
        Path -> true = code:add_path(Path), {ok, _} = application:ensure_all_started(elixir), Config
    end;
init_per_testcase(_Case, Config) ->
    Config.

%% Where the `elixir' on the PATH has its library.
elixir_path() ->
    case os:find_executable("elixir") of
        false -> none;
        Elixir ->
            Resolved = string:trim(os:cmd("readlink -f " ++ Elixir)),
            Path = filename:join([filename:dirname(filename:dirname(Resolved)), "lib", "elixir", "ebin"]),
            case filelib:is_dir(Path) of true -> Path; false -> none end
    end.

end_per_testcase(_Case, _Config) ->
    lineage_nif:close().

%% Supervisors, and servers whose init is a fun.
init({supervisor, simple_one_for_one}) ->
    {ok, {flags(simple_one_for_one), [#{id => child, start => {?MODULE, start_link, []}}]}};
init({supervisor, {Strategy, Children}}) ->
    {ok, {flags(Strategy), Children}};
init(Fun) ->
    Fun().

flags(Strategy) ->
    #{strategy => Strategy, intensity => 100000, period => 1}.

handle_call(Fun, _From, State) -> {reply, Fun(), State}.

handle_cast(_, State) -> {noreply, State}.

start_link(Fun) ->
    gen_server:start_link(?MODULE, Fun, []).

%% One that acknowledges nothing.
spawn_child(Fun) ->
    {ok, spawn_link(Fun)}.

ready() -> {ok, none}.

%% An init that tells that it is running, and goes on when told to.
waiting() ->
    Test = self(),
    fun() -> Test ! {init, self()}, receive go -> {ok, none} end end.

child(Id, Fun) ->
    #{id => Id, start => {?MODULE, start_link, [Fun]}, shutdown => 60000}.

supervisor() -> supervisor(simple_one_for_one).

supervisor(What) ->
    {ok, Sup} = supervisor:start_link(?MODULE, {supervisor, What}),
    unlink(Sup),
    put(supervisors, [Sup | supervisors()]),
    Sup.

%% Those that this process has started; open/2 stops them.
supervisors() ->
    case get(supervisors) of
        undefined -> [];
        Sups -> Sups
    end.

stop(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% Each part of a start is timed, and they sum up.
starts(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(),
        [{ok, _} = supervisor:start_child(Sup, [fun ready/0]) || _ <- lists:seq(1, 50)],
        0 = lineage_nif:timing(off),
        Parts = parts({supervisor, Sup}),
        ?assertEqual([{Part, 50} || Part <- lists:sort(?PARTS)], [{Part, count(Part, Parts)} || Part <- lists:sort(maps:keys(Parts))]),
        ?assertEqual([], [Part || Part <- ?PARTS, not is_sound(maps:get(Part, Parts))]),
        Sum = lists:sum([sum(Part, Parts) || Part <- [queue, work, init, back]]),
        %% Each is rounded down.
        ?assert(abs(sum(latency, Parts) - Sum) =< 4 * 50),
        ?assert(abs(sum(latency, Parts) - sum(overhead, Parts) - sum(init, Parts)) =< 2 * 50),
        ?assertEqual(#{failed => 0, elsewhere => 0, unfinished => 0, lost => 0, outliers_lost => 0}, counts())
    end).

%% What a child takes to begin is its own. Of one that acknowledges nothing it is nothing.
init_is_no_overhead(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(),
        Test = self(),
        Slow = fun() ->
                       From = erlang:monotonic_time(nanosecond),
                       spin_until(From + 20000000),
                       Test ! {took, erlang:monotonic_time(nanosecond) - From},
                       {ok, none}
               end,
        {ok, _} = supervisor:start_child(Sup, [Slow]),
        Took = receive {took, Ns} -> Ns end,
        Static = supervisor({one_for_one, []}),
        {ok, _} = supervisor:start_child(Static, #{id => bare, start => {?MODULE, spawn_child, [fun wait/0]}}),
        Parts = parts({supervisor, Sup}),
        %% The VM may slew its clock by a hundredth.
        ?assert(sum(init, Parts) >= Took * 0.98),
        ?assert(sum(overhead, Parts) =< sum(latency, Parts) - Took * 0.98),
        Bare = parts({supervisor, Static}),
        ?assertEqual([{Part, 1} || Part <- ?PARTS], [{Part, count(Part, Bare)} || Part <- ?PARTS]),
        ?assertEqual(0, sum(init, Bare))
    end).

spin_until(Until) ->
    case erlang:monotonic_time(nanosecond) >= Until of
        true -> ok;
        false -> spin_until(Until)
    end.

%% What fails is counted and in no distribution; a child that wants to be ignored was a start.
refused(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(),
        {error, _} = supervisor:start_child(Sup, [fun() -> {stop, no} end]),
        {error, _} = supervisor:start_child(Sup, [fun() -> error(no) end]),
        {error, _} = supervisor:start_child(Sup, [fun() -> exit(shutdown) end]),
        ?assertExit({noproc, _}, supervisor:start_child(no_supervisor, [fun ready/0])),
        Static = supervisor({one_for_one, [child(a, fun ready/0)]}),
        {error, {already_started, _}} = supervisor:start_child(Static, child(a, fun ready/0)),
        {error, not_found} = supervisor:terminate_child(Static, b),
        ?assertEqual(#{failed => 6}, counted()),
        ?assertEqual([], series()),
        {ok, undefined} = supervisor:start_child(Sup, [fun() -> ignore end]),
        ?assertEqual(1, count(latency, parts({supervisor, Sup}))),
        %% Before OTP 26 it is acknowledged first, and its end is awaited.
        wait_until(fun() -> lineage_nif:timing(drain) =:= 0 end),
        0 = lineage_nif:timing(off)
    end).

%% A caller that dies is no start; the next one is.
killed_caller(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(),
        Init = waiting(),
        {Caller, Monitor} = spawn_monitor(fun() -> supervisor:start_child(Sup, [Init]) end),
        Child = receive {init, C} -> C end,
        ?assertEqual(1, lineage_nif:timing(drain)),
        exit(Caller, kill),
        receive {'DOWN', Monitor, process, Caller, killed} -> ok end,
        ?assertEqual(0, lineage_nif:timing(drain)),
        Child ! go,
        [_] = supervisor:which_children(Sup),
        %% Some VMs tell that its call was left, some do not.
        ?assertEqual([1], maps:values(maps:with([failed, unfinished], counted()))),
        0 = lineage_nif:timing(on),
        {ok, _} = supervisor:start_child(Sup, [fun ready/0]),
        ?assertEqual(1, count(latency, parts({supervisor, Sup}))),
        0 = lineage_nif:timing(off)
    end).

killed_supervisor(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(),
        Init = waiting(),
        {_, Monitor} = spawn_monitor(fun() -> supervisor:start_child(Sup, [Init]) end),
        receive {init, _} -> exit(Sup, kill) end,
        receive {'DOWN', Monitor, process, _, {killed, _}} -> ok end,
        ?assertEqual(0, lineage_nif:timing(drain)),
        ?assertEqual(#{failed => 1}, counted()),
        ?assertEqual([], series())
    end).

%% A child's init that starts another one below another supervisor: each is a start.
nested(_Config) ->
    open(#{}, fun() ->
        Outer = supervisor(), Inner = supervisor(),
        {ok, _} = supervisor:start_child(Outer, [fun() -> {ok, _} = supervisor:start_child(Inner, [fun ready/0]), ready() end]),
        %% And one in the supervisor itself.
        Static = supervisor({one_for_one, []}),
        Below = fun() -> supervisor:start_child(Inner, [fun ready/0]) end,
        {ok, _} = supervisor:start_child(Static, #{id => a, start => {?MODULE, critical, [Below]}}),
        ?assertEqual(1, count(latency, parts({supervisor, Outer}))),
        ?assertEqual(1, count(latency, parts({supervisor, Static}))),
        ?assertEqual(2, count(latency, parts({supervisor, Inner}))),
        ?assert(sum(init, parts({supervisor, Outer})) >= lists:min(lows(latency, parts({supervisor, Inner})))),
        0 = lineage_nif:timing(off)
    end).

%% A supervisor that gives birth to nobody, because another one does: all of it is its work.
handed_on(_Config) ->
    open(#{}, fun() ->
        Static = supervisor({one_for_one, []}),
        Server = erlang:spawn(fun wait/0),
        {ok, Server} = supervisor:start_child(Static, #{id => a, start => {?MODULE, critical, [fun() -> {ok, Server} end]}}),
        Parts = parts({supervisor, Static}),
        ?assertEqual(0, sum(init, Parts)),
        ?assertEqual(1, count(work, Parts)),
        exit(Server, kill)
    end).

%% Somebody answers who is not seen to serve, as on another node.
elsewhere(_Config) ->
    open(#{}, fun() ->
        Far = spawn_link(fun() -> receive {'$gen_call', From, _} -> gen:reply(From, {ok, self()}) end end),
        {ok, Far} = supervisor:start_child(Far, []),
        ?assertEqual(#{elsewhere => 1}, counted()),
        ?assertEqual([], series()),
        0 = lineage_nif:timing(off)
    end).

%% In a drain nothing new is taken, and what goes on is followed to its end.
drain(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(), Other = supervisor(),
        Init = waiting(),
        {_, Monitor} = spawn_monitor(fun() -> {ok, _} = supervisor:start_child(Sup, [Init]) end),
        Child = receive {init, C} -> C end,
        ?assertEqual(1, lineage_nif:timing(drain)),
        {ok, _} = supervisor:start_child(Other, [fun ready/0]),
        ?assertEqual(1, lineage_nif:timing(drain)),
        ?assertEqual([], series()),
        Child ! go,
        receive {'DOWN', Monitor, process, _, normal} -> ok end,
        ?assertEqual(0, lineage_nif:timing(drain)),
        ?assertEqual(0, lineage_nif:timing(off)),
        ?assertEqual(0, lineage_nif:timing(drain)),
        ?assertEqual([{supervisor, Sup}], [Name || {Name, _} <- series()]),
        ?assertEqual(#{}, counted())
    end).

%% What goes on when a window ends is dropped, also when another one has begun since.
window_ends(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor(), Other = supervisor(),
        Init = waiting(),
        {_, Monitor} = spawn_monitor(fun() -> {ok, _} = supervisor:start_child(Sup, [Init]) end),
        Child = receive {init, C} -> C end,
        ?assertEqual(1, lineage_nif:timing(off)),
        ?assertEqual(0, lineage_nif:timing(off)),
        {ok, _} = supervisor:start_child(Other, [fun ready/0]),
        0 = lineage_nif:timing(on),
        Child ! go,
        receive {'DOWN', Monitor, process, _, normal} -> ok end,
        ?assertEqual([], series()),
        ?assertEqual(#{unfinished => 1}, counted()),
        {ok, _} = supervisor:start_child(Sup, [fun ready/0]),
        ?assertEqual(1, count(latency, parts({supervisor, Sup}))),
        0 = lineage_nif:timing(off)
    end).

%% What began before the window is none of it.
from_before(_Config) ->
    open(#{}, fun() ->
        0 = lineage_nif:timing(off),
        Sup = supervisor(),
        Init = waiting(),
        {_, Monitor} = spawn_monitor(fun() -> {ok, _} = supervisor:start_child(Sup, [Init]) end),
        Child = receive {init, C} -> C end,
        0 = lineage_nif:timing(on),
        Child ! go,
        receive {'DOWN', Monitor, process, _, normal} -> ok end,
        ?assertEqual(0, lineage_nif:timing(off)),
        ?assertEqual([], series()),
        ?assertEqual(#{}, counted())
    end).

%% From the death to the successor's birth, and to its acknowledgement.
restarts(_Config) ->
    open(#{}, fun() ->
        Test = self(),
        Init = fun() -> Test ! {init, self()}, {ok, none} end,
        Sup = supervisor({one_for_one, [child(a, Init)]}),
        receive {init, First} -> exit(First, kill) end,
        receive {init, Second} -> exit(Second, oops) end,
        receive {init, Third} -> gen_server:stop(Third) end,
        receive {init, _} -> ok end,
        1 = length(supervisor:which_children(Sup)),
        Parts = parts({supervisor, Sup}),
        ?assertEqual([restart_ack, restart_birth], lists:sort(maps:keys(Parts))),
        ?assertEqual({3, 3}, {count(restart_birth, Parts), count(restart_ack, Parts)}),
        ?assert(sum(restart_ack, Parts) >= sum(restart_birth, Parts)),
        %% One that is not brought back is nothing.
        {ok, Gone} = supervisor:start_child(Sup, maps:put(restart, temporary, child(b, fun ready/0))),
        exit(Gone, kill),
        wait_until(fun() -> length(supervisor:which_children(Sup)) =:= 1 end),
        0 = lineage_nif:timing(drain),
        ?assertEqual(3, count(restart_birth, parts({supervisor, Sup}))),
        ?assertEqual(#{}, counted()),
        0 = lineage_nif:timing(off)
    end).

%% The dead child's successor is what counts, not what is started again beside it; a task acknowledges nothing.
restarts_of_all(_Config) ->
    open(#{}, fun() ->
        Test = self(),
        Init = fun(Name) -> fun() -> Test ! {Name, self()}, {ok, none} end end,
        Task = fun() -> Test ! {task, self()}, wait() end,
        Sup = supervisor({one_for_all, [child(a, Init(a)), child(b, Init(b)),
                                        #{id => task, start => {?MODULE, spawn_child, [Task]}, shutdown => brutal_kill}]}),
        Born = fun() -> [receive {Name, Pid} -> Pid end || Name <- [a, b, task]] end,
        [A, _, T] = Born(),
        exit(A, kill),
        [_, _, T2] = Born(),
        [_, _, _] = supervisor:which_children(Sup),
        ?assertEqual(1, count(restart_ack, parts({supervisor, Sup}))),
        ?assertNot(is_process_alive(T)),
        exit(T2, kill),
        [_, _, _] = Born(),
        [_, _, _] = supervisor:which_children(Sup),
        ?assertEqual(2, count(restart_ack, parts({supervisor, Sup})))
    end).

%% A restart that fails at first: when it works at last, nobody knows any more since when it was due.
tried_again(_Config) ->
    open(#{}, fun() ->
        Test = self(),
        Tries = counters:new(1, []),
        Init = fun() ->
                       ok = counters:add(Tries, 1, 1),
                       case counters:get(Tries, 1) of
                           2 -> {stop, not_yet};
                           3 -> error(not_yet);
                           N -> Test ! {init, N, self()}, {ok, none}
                       end
               end,
        Sup = supervisor({one_for_one, [child(a, Init)]}),
        receive {init, 1, First} -> exit(First, kill) end,
        receive {init, 4, _} -> ok end,
        [_] = supervisor:which_children(Sup),
        ?assertEqual([], series()),
        %% A try that ended outside of what is traced is waited for, but not for ever.
        wait_until(fun() -> lineage_nif:timing(drain) =:= 0 end),
        ?assertEqual(#{}, counted()),
        0 = lineage_nif:timing(off)
    end).

%% A shutdown's length, and what of it was not the child's.
stops(_Config) ->
    open(#{}, fun() ->
        Sup = supervisor({one_for_one, [child(a, fun ready/0)]}),
        ok = supervisor:terminate_child(Sup, a),
        Parts = parts({supervisor, Sup}),
        ?assertEqual([stop_latency, stop_overhead], lists:sort(maps:keys(Parts))),
        ?assertEqual({1, 1}, {count(stop_latency, Parts), count(stop_overhead, Parts)}),
        ?assert(sum(stop_latency, Parts) > sum(stop_overhead, Parts)),
        %% There is none to stop any more.
        ok = supervisor:terminate_child(Sup, a),
        ?assertEqual(1, count(stop_latency, parts({supervisor, Sup}))),
        0 = lineage_nif:timing(drain),
        ?assertEqual(#{}, counted()),
        0 = lineage_nif:timing(off)
    end).

%% Without exits there are neither restarts nor stops.
suspects(_Config) ->
    open(#{exits => suspects}, fun() ->
        Test = self(),
        Init = fun() -> Test ! {init, self()}, {ok, none} end,
        Sup = supervisor({one_for_one, [child(a, Init)]}),
        receive {init, First} -> exit(First, kill) end,
        receive {init, _} -> ok end,
        ok = supervisor:terminate_child(Sup, a),
        {ok, _} = supervisor:start_child(Sup, child(b, fun ready/0)),
        ?assertEqual(lists:sort(?PARTS), lists:sort(maps:keys(parts({supervisor, Sup})))),
        0 = lineage_nif:timing(off),
        ?assertEqual(#{}, counted())
    end).

%% Functions that the user has named: the outermost call of each, and how much of it were starts.
critical_paths(_Config) ->
    Critical = [{?MODULE, critical, 1}, {?MODULE, recursive, 2}, {supervisor, start_child, 2}],
    [Path, Recursion, Start] = [{critical, MFA} || MFA <- Critical],
    open(#{critical => Critical}, fun() ->
        Sup = supervisor(),
        {ok, _} = critical(fun() -> supervisor:start_child(Sup, [fun ready/0]) end),
        ?assertEqual({1, 1}, {count(latency, parts(Path)), count(starts, parts(Path))}),
        ?assert(sum(starts, parts(Path)) > 0),
        ?assert(sum(latency, parts(Path)) >= sum(starts, parts(Path))),
        %% That function is a start itself, and all of it.
        ?assertEqual(1, count(latency, parts(Start))),
        ?assertEqual(sum(latency, parts(Start)), sum(starts, parts(Start))),
        Before = sum(starts, parts(Path)),
        ok = critical(fun() -> ok end),
        ?assertEqual({2, Before}, {count(latency, parts(Path)), sum(starts, parts(Path))}),
        100 = recursive(100, fun() -> supervisor:start_child(Sup, [fun ready/0]) end),
        ?assertEqual(1, count(latency, parts(Recursion))),
        ?assertError(oops, critical(fun() -> error(oops) end)),
        ?assertThrow(oops, critical(fun() -> throw(oops) end)),
        ?assertEqual(2, count(latency, parts(Path))),
        ?assertEqual(#{failed => 2}, counted()),
        Inside = waiting(),
        {Caller, Monitor} = spawn_monitor(fun() -> critical(Inside) end),
        receive {init, Caller} -> ok end,
        ?assertEqual(1, lineage_nif:timing(drain)),
        exit(Caller, kill),
        receive {'DOWN', Monitor, process, Caller, _} -> ok end,
        ?assertEqual(0, lineage_nif:timing(off))
    end).

critical(Fun) -> Fun().

recursive(0, _Fun) -> 0;
recursive(N, Fun) -> {ok, _} = Fun(), 1 + recursive(N - 1, Fun).

%% Starts above the target, with their times on the VM's clock.
outliers(_Config) ->
    open(#{target_ns => 0}, fun() ->
        Sup = supervisor(),
        Before = erlang:monotonic_time(nanosecond),
        {ok, Child} = supervisor:start_child(Sup, [fun ready/0]),
        After = erlang:monotonic_time(nanosecond),
        [#{caller := Caller, supervisor := Of, child := Is, times := Times, busy := Busy}] = lineage_nif:outliers(),
        ?assertEqual({self(), Sup, Child}, {Caller, Of, Is}),
        ?assertEqual(5, length(Times)),
        ?assertEqual(Times, lists:sort(Times)),
        ?assertEqual(0, Busy),
        %% What two clocks may differ by in a second, and more.
        ?assert(hd(Times) >= Before - 1000000),
        ?assert(lists:last(Times) =< After + 1000000),
        ?assertEqual([], lineage_nif:outliers()),
        {error, _} = supervisor:start_child(Sup, [fun() -> {stop, no} end]),
        ?assertEqual([], lineage_nif:outliers())
    end).

ring_is_full(_Config) ->
    open(#{target_ns => 0}, fun() ->
        Sup = supervisor(),
        First = [supervisor:start_child(Sup, [fun ready/0]) || _ <- lists:seq(1, 300)],
        Told = lineage_nif:outliers(),
        ?assertEqual(256, length(Told)),
        ?assertEqual([Pid || {ok, Pid} <- lists:sublist(First, 256)], [Pid || #{child := Pid} <- Told]),
        ?assertEqual(#{outliers_lost => 44}, counted()),
        {ok, Child} = supervisor:start_child(Sup, [fun ready/0]),
        ?assertMatch([#{child := Child}], lineage_nif:outliers())
    end).

%% Who waits while the supervisor works for others: that is what it was busy with, all the time. A supervisor that the machine
%% kept from its next request for longer than a pause was not: then it is tried again.
busy(_Config) ->
    open(#{target_ns => 0}, fun() ->
        Sup = supervisor(),
        Tries = [queued_and_busy(Sup) || _ <- lists:seq(1, 20)],
        ?assertEqual([], [Try || {Queued, Busy} = Try <- Tries, Busy > Queued + 2]),
        ?assertMatch([_ | _], [Try || {Queued, Busy} = Try <- Tries, Queued - Busy =< 2])
    end).

queued_and_busy(Sup) ->
    Init = waiting(),
    One = spawn_monitor(fun() -> {ok, _} = supervisor:start_child(Sup, [Init]) end),
    Child = receive {init, C} -> C end,
    Two = {Waiter, _} = spawn_monitor(fun() -> {ok, _} = supervisor:start_child(Sup, [fun ready/0]) end),
    wait_until(fun() -> {message_queue_len, 1} =:= process_info(Sup, message_queue_len) end),
    Child ! go,
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- [One, Two]],
    [#{times := [T0, T1 | _], busy := Busy}] = [O || #{caller := Caller} = O <- lineage_nif:outliers(), Caller =:= Waiter],
    {T1 - T0, Busy}.

elixir(_Config) ->
    open(#{}, fun() ->
        {ok, Dynamic} = 'Elixir.DynamicSupervisor':start_link([{strategy, one_for_one}]),
        {ok, Static} = 'Elixir.Supervisor':start_link([], [{strategy, one_for_one}]),
        {ok, Tasks} = 'Elixir.Task.Supervisor':start_link([]),
        {ok, D} = 'Elixir.DynamicSupervisor':start_child(Dynamic, child(a, fun ready/0)),
        {ok, _} = 'Elixir.Supervisor':start_child(Static, child(a, fun ready/0)),
        {ok, T} = 'Elixir.Task.Supervisor':start_child(Tasks, fun wait/0),
        [wait_for_task(Task) || Task <- [
            'Elixir.Task.Supervisor':async(Tasks, fun ready/0),
            'Elixir.Task.Supervisor':async(Tasks, ?MODULE, critical, [fun ready/0]),
            'Elixir.Task.Supervisor':async_nolink(Tasks, fun ready/0)]],
        ?assertEqual(1, count(latency, parts({supervisor, Dynamic}))),
        ?assertEqual(1, count(latency, parts({supervisor, Static}))),
        ?assertEqual(4, count(latency, parts({supervisor, Tasks}))),
        ?assertEqual(0, sum(init, parts({supervisor, Tasks}))),
        %% Born, and not what handle_call took.
        ?assert(sum(back, parts({supervisor, Tasks})) > 0),
        ok = 'Elixir.DynamicSupervisor':terminate_child(Dynamic, D),
        ok = 'Elixir.Supervisor':terminate_child(Static, a),
        ok = 'Elixir.Task.Supervisor':terminate_child(Tasks, T),
        ?assertEqual([1, 1, 1], [count(stop_overhead, parts({supervisor, Sup})) || Sup <- [Dynamic, Static, Tasks]]),
        {ok, D2} = 'Elixir.DynamicSupervisor':start_child(Dynamic, child(a, fun ready/0)),
        exit(D2, kill),
        wait_until(fun() -> case 'Elixir.DynamicSupervisor':which_children(Dynamic) of
                                [{_, Pid, _, _}] when is_pid(Pid), Pid =/= D2 -> true;
                                _ -> false
                            end
                   end),
        ?assertEqual(1, count(restart_ack, parts({supervisor, Dynamic}))),
        ?assertEqual(#{}, counted()),
        [begin unlink(Sup), exit(Sup, kill) end || Sup <- [Dynamic, Static, Tasks]]
    end).

wait_for_task(#{ref := Ref}) ->
    receive {Ref, _} -> erlang:demonitor(Ref, [flush]) end.

%% The name leads to one of several supervisors: each has its own line.
partitions(_Config) ->
    open(#{}, fun() ->
        Spec = #{id => x, start => {'Elixir.DynamicSupervisor', start_link, [[{strategy, one_for_one}]]}, type => supervisor},
        {ok, Sup} = 'Elixir.PartitionSupervisor':start_link([{child_spec, Spec}, {name, lineage_partitions}, {partitions, 2}]),
        [{ok, _} = 'Elixir.DynamicSupervisor':start_child(
                     {via, 'Elixir.PartitionSupervisor', {lineage_partitions, Key}}, child(a, fun ready/0))
         || Key <- [0, 1, 2]],
        ?assertEqual([1, 2], lists:sort([count(latency, Parts) || {{supervisor, _}, Parts} <- series()])),
        unlink(Sup), exit(Sup, kill)
    end).

%% More supervisors than lines. Those that died make room, and no count is lost.
many_supervisors(_Config) ->
    open(#{}, fun() ->
        Start = fun(Sup) -> {ok, _} = supervisor:start_child(Sup, [fun ready/0]), Sup end,
        Sups = [Start(supervisor()) || _ <- lists:seq(1, 70)],
        Lines = series(),
        ?assertEqual(64, length([x || {{supervisor, _}, _} <- Lines])),
        ?assertEqual(6, count(latency, parts(others))),
        stop_all(lists:nthtail(10, Sups)),
        Rest = series(),
        ?assertEqual(10, length([x || {{supervisor, _}, _} <- Rest])),
        ?assertEqual(54, count(latency, parts(gone))),
        [Start(supervisor()) || _ <- lists:seq(1, 10)],
        ?assertEqual(20, length([x || {{supervisor, _}, _} <- series()])),
        ?assertEqual(80, lists:sum([count(latency, Parts) || {_, Parts} <- series()])),
        %% While there is room nothing is merged.
        stop_all(lists:sublist(Sups, 10)),
        ?assertEqual(20, length([x || {{supervisor, _}, _} <- series()]))
    end).

stop_all(Sups) ->
    Monitors = [{Sup, monitor(process, Sup)} || Sup <- Sups],
    [exit(Sup, kill) || Sup <- Sups],
    [receive {'DOWN', Monitor, process, Sup, _} -> ok end || {Sup, Monitor} <- Monitors].

%% Points of exact monitors are beside those of overhead: a start's return is no monitor's.
beside_monitors(_Config) ->
    open(#{monitors => exact, sites => exact}, fun() ->
        Sup = supervisor(),
        Test = self(),
        {Watched, Monitor} = spawn_monitor(fun() -> {ok, _} = supervisor:start_child(Sup, [fun ready/0]),
                                                    Test ! ready, receive go -> exit(oops) end end),
        receive ready -> Watched ! go end,
        receive {'DOWN', Monitor, process, Watched, oops} -> ok end,
        #{silent_failures := 0} = lineage_nif:info(),
        ?assertEqual(1, count(latency, parts({supervisor, Sup})))
    end).

%% Closed, or opened without.
off(_Config) ->
    lineage_nif:close(),
    [?assertEqual({error, closed}, Answer) || Answer <- answers()],
    {ok, _} = lineage_nif:open(options()),
    [?assertEqual({error, off}, Answer) || Answer <- answers()],
    [?assertError(badarg, lineage_nif:timing(Bad)) || Bad <- [true, 1, "on", undefined]],
    ok = lineage_nif:close().

answers() ->
    [lineage_nif:timing(on), lineage_nif:timing(drain), lineage_nif:timing(off), lineage_nif:timings(), lineage_nif:outliers()].

%% What is no option is refused; what it takes is counted, and only where it is wanted.
options(_Config) ->
    MFA = {m, f, 1},
    Good = #{overhead => true, target_ns => 1},
    [begin
         ?assertError(badarg, lineage_nif:open(maps:merge(options(), Bad))),
         ?assertEqual({error, closed}, lineage_nif:info())
     end || Bad <- [#{overhead => true}, #{overhead => 1, target_ns => 1}, #{overhead => true, target_ns => -1},
                    #{overhead => true, target_ns => 1.0}, Good#{critical => MFA}, Good#{critical => [m]},
                    Good#{critical => [{m, f, 256}]}, Good#{critical => [{m, f, -1}]}, Good#{critical => [{m, "f", 1}]},
                    Good#{critical => [MFA | MFA]}, Good#{critical => lists:duplicate(17, MFA)}]],
    Bytes = [begin
                 {ok, _} = lineage_nif:open(maps:merge(options(), More)),
                 #{bytes := B} = lineage_nif:info(),
                 ok = lineage_nif:close(),
                 B
             end || More <- [#{}, #{overhead => false}, Good, Good#{critical => lists:duplicate(16, MFA)}]],
    [Without, Without, With, Most] = Bytes,
    ?assert(With > Without),
    ?assert(Most > With),
    ?assertEqual({error, enomem}, lineage_nif:open(maps:merge(options(), Good#{max_bytes => Without + 1000}))).

%% A window of an owner that died tells nothing more, and does not hang.
owner_dies(_Config) ->
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() -> open(#{}, fun() -> Test ! open, receive stop -> exit(owner) end end) end),
    receive open -> ok end,
    Sup = supervisor(),
    {ok, _} = supervisor:start_child(Sup, [fun ready/0]),
    Owner ! stop,
    receive {'DOWN', Monitor, process, Owner, owner} -> ok end,
    ?assertEqual({error, closed}, lineage_nif:timings()).

options() ->
    #{exits => all, max_bytes => 1 bsl 28, process_limit => erlang:system_info(process_limit)}.

%% In a window, with the points set and the hook armed.
open(More, Fun) ->
    Options = maps:merge(maps:merge(options(), #{overhead => true, target_ns => ?HOUR}), More),
    {ok, Session} = lineage_nif:open(Options),
    Points = arm(Session, points(Options)),
    {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
    [_ = lineage_nif:seed(P, undefined, undefined, {m, f, 0}, []) || P <- processes()],
    [ok = lineage_nif:classify(supervisor, M, init, 1) || M <- [supervisor, 'Elixir.DynamicSupervisor']],
    try
        0 = lineage_nif:timing(on),
        Fun()
    after
        disarm(Points),
        lineage_hook:disarm(Hook),
        lineage_hook:destroy(Hook),
        lineage_nif:close(),
        [stop(Sup) || Sup <- supervisors()]
    end.

points(Options) ->
    Supervisors = [supervisor, 'Elixir.Supervisor', 'Elixir.DynamicSupervisor', 'Elixir.Task.Supervisor'],
    Names = [start_child, async, async_nolink, terminate_child, handle_call, handle_info],
    Returned = [{M, F, A} || M <- Supervisors, {module, _} <- [code:ensure_loaded(M)],
                             {F, A} <- M:module_info(exports), lists:member(F, Names)] ++ maps:get(critical, Options, []),
    Acks = [{proc_lib, F, A} || {F, A} <- proc_lib:module_info(exports), lists:member({F, A}, [{init_ack, 2}, {init_fail, 3}])],
    Monitors = [{M, F, 4} || {M, F} <- [{erlang, spawn_opt}, {erts_internal, spawn_request}],
                             maps:get(monitors, Options, unknown) =:= exact],
    lists:usort([{MFA, [{'_', [], [{exception_trace}]}]} || MFA <- Returned ++ Monitors] ++ [{MFA, []} || MFA <- Acks]).

arm(Session, Points) ->
    case lineage_hook:api() of
        sessions ->
            Handle = lineage_hook:session(session_create, [timing_points, {lineage_nif, -Session}, []]),
            [1 = lineage_hook:session(function, [Handle, MFA, Match, [meta]]) || {MFA, Match} <- Points],
            {Handle, Points};
        single ->
            [1 = erlang:trace_pattern(MFA, Match, [{meta, lineage_nif, -Session}]) || {MFA, Match} <- Points],
            {single, Points}
    end.

disarm({single, Points}) ->
    [erlang:trace_pattern(MFA, false, [meta]) || {MFA, _} <- Points];
disarm({Handle, _Points}) ->
    lineage_hook:session(session_destroy, [Handle]).

series() ->
    #{series := Series} = lineage_nif:timings(),
    Series.

parts(Name) ->
    proplists:get_value(Name, series(), #{}).

counts() ->
    maps:remove(series, lineage_nif:timings()).

%% Those that are not 0.
counted() ->
    maps:filter(fun(_, N) -> N > 0 end, counts()).

count(Part, Parts) ->
    lists:sum([N || {_, _, N} <- element(2, maps:get(Part, Parts, {0, []}))]).

sum(Part, Parts) ->
    element(1, maps:get(Part, Parts, {0, []})).

lows(Part, Parts) ->
    [Low || {Low, _, _} <- element(2, maps:get(Part, Parts))].

%% Buckets ascend, are not empty, and hold the sum.
is_sound({Sum, Buckets}) ->
    Buckets =:= lists:usort(Buckets) andalso
        lists:all(fun({Low, High, N}) -> Low < High andalso N > 0 end, Buckets) andalso
        Sum >= lists:sum([Low * N || {Low, _, N} <- Buckets]) andalso
        Sum =< lists:sum([High * N || {_, High, N} <- Buckets]).

wait() ->
    receive stop -> ok end.

wait_until(Holds) ->
    case Holds() of
        true -> ok;
        false -> erlang:yield(), wait_until(Holds)
    end.

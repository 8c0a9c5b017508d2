%% The NIF takes any term from anyone: it answers, or raises badarg, and what it held is given back.
-module(lineage_nif_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, random_calls/1, nothing_leaks/1]).
%% Called on peers.
-export([run_random/2, run_leaks/1]).

all() ->
    [random_calls, nothing_leaks].

%% LINEAGE_SOAK=1: at full size.
calls() ->
    case os:getenv("LINEAGE_SOAK") of
        "1" -> 100000;
        _ -> 2000
    end.

random_calls(_Config) ->
    Seed = erlang:system_time(),
    ct:pal("random calls from seed ~b", [Seed]),
    on_peer(fun(Node) -> ok = peer:call(Node, ?MODULE, run_random, [Seed, calls()], 600000) end).

%% Four processes call at once, while others are born and die under a hook that is told random things.
run_random(Seed, Calls) ->
    Others = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 20)],
    Storm = spawn(fun Again() -> {_, M} = spawn_monitor(fun() -> ok end),
                                 receive {'DOWN', M, _, _, _} -> Again() end end),
    Callers = [spawn_monitor(fun() -> call_often(Seed + I, Calls div 4, Others) end)
               || I <- lists:seq(1, 4)],
    [receive {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual(normal, Reason) end
     || {Pid, Monitor} <- Callers],
    exit(Storm, kill),
    ok = lineage_nif:close(),
    ?assertEqual({error, closed}, lineage_nif:info()),
    %% After all that it still knows the node.
    {ok, _} = lineage:attach(),
    ?assertEqual([], [P || P <- Others, not lists:member(P, lineage:pids())]),
    ok = lineage:detach(),
    [P ! stop || P <- Others],
    ok.

call_often(Seed, Calls, Pids) ->
    rand:seed(exsss, Seed),
    Gone = spawn(fun() -> ok end),
    lists:foreach(fun(_) -> call([Gone | Pids]) end, lists:seq(1, Calls)).

call(Pids) ->
    {Name, Args} = pick(calls_of(Pids)),
    %% One argument in three is not of the kind that the function asks for.
    Given = [case rand:uniform(3) of 1 -> any(Pids, 3); _ -> Arg end || Arg <- Args],
    try apply(lineage_nif, Name, Given) of
        _ -> ok
    catch
        error:badarg -> ok
    end.

calls_of(Pids) ->
    Pid = pick(Pids),
    Class = pick([root, runtime, host, service, supervisor, own]),
    Session = case lineage_nif:info() of #{session := S} -> S; _ -> 1 end,
    Event = pick([{spawned, Pid}, {spawn, Pid}, {exit, {shutdown, any(Pids, 1)}}, {exit, kill}, {link, pick(Pids)},
                  {getting_linked, pick(Pids)}, {unlink, pick(Pids)}, {getting_unlinked, foreign()},
                  {register, name}, {unregister, name}, {call, {erlang, monitor, [process, pick(Pids)]}},
                  {call, {erlang, spawn, [m, f, []]}}, {return_from, {erlang, monitor, 2}}, {exception_from, {erlang, monitor, 2}}
                  | supervision(Pids)]),
    [{open, [#{overhead => pick([true, false, any(Pids, 1)]), target_ns => pick([0, 1 bsl 40, -1]),
               critical => pick([[], [{m, f, 1}], [{m, f, 1}, {supervisor, start_child, 2}], any(Pids, 2)]),
               exits => pick([suspects, all]), monitors => pick([unknown, exact]),
               sites => pick([off, closure, exact, any(Pids, 1)]), process_limit => pick([1024, 1000, 262144]), max_bytes => pick([1, 100000, 100000000])}]},
     {close, []}, {info, []}, {sweep, []}, {pids, []}, {records, []}, {guardians, []},
     {classify, [Class, pick([m, proc_lib]), f, pick([0, 255, 256, '_'])]},
     {mark, [Pid, Class]}, {unmark, [Pid, Class]}, {record, [Pid]},
     {seed, [Pid, pick(Pids), pick(Pids), {m, f, pick([0, 1])}, [Class]]},
     {set_guardian, [Pid, pick([undefined | Pids])]}, {confirm, [Pid, Pids]},
     {verdict, [pick([0, 5, 1 bsl 70])]}, {recent, [pick([0, 1000, 1 bsl 40])]},
     {enabled, [pick([trace_status, spawned, exit, call]), Session, pick([undefined, Pid])]},
     {trace, [element(1, Event), Session, Pid, element(2, Event), opts(Pids)]},
     {wrapper, [pick([m, proc_lib, 1]), pick(['_', f])]}, {sites, []},
     {scope, [Pid, pick([0, 1, 1 bsl 40])]}, {scoped, [[1, 2]]}, {population, [pick([0, 1000]), 0, pick([0, 10])]},
     {timing, [pick([on, drain, off])]}, {timing, [on]}, {timings, []}, {outliers, []},
     {events, [pick([<<>>, <<0:256>>, rand:bytes(32), rand:bytes(33), binary:copy(<<1>>, 32 * 4096)])]}].

%% What trace points of supervision tell, in any order and of anyone.
supervision(Pids) ->
    [Pid, Other] = [pick(Pids), pick(Pids)],
    Module = pick([supervisor, 'Elixir.DynamicSupervisor', 'Elixir.Task.Supervisor']),
    Asked = {Module, pick([start_child, terminate_child, async]), 2},
    Served = {Module, pick([handle_call, handle_info]), pick([2, 3])},
    Request = pick([{start_child, x}, {terminate_child, x}, which_children, {start_task, [], x}, any(Pids, 2)]),
    From = {pick([Other, foreign(), any(Pids, 1)]), [alias | make_ref()]},
    [{call, setelement(3, Asked, [Other, x])}, {pick([return_from, exception_from]), Asked},
     {call, {Module, handle_call, [Request, From, any(Pids, 1)]}}, {call, {Module, handle_call, any(Pids, 2)}},
     {call, {Module, handle_info, [pick([{'EXIT', Other, x}, {'EXIT', any(Pids, 1), x}, any(Pids, 2)]), x]}},
     {pick([return_from, exception_from]), Served},
     {call, {proc_lib, pick([init_ack, init_fail]), [pick([Pid, name, any(Pids, 1)]) | pick([[{ok, Pid}], [x, y], x])]}},
     {call, {m, f, [x]}}, {pick([return_from, exception_from]), {m, f, 1}}].

opts(Pids) ->
    Fun = pick([fun() -> Pids end, fun lists:seq/2, fun ?MODULE:all/0]),
    Start = pick([{m, f, []}, {erlang, apply, [Fun, []]}, {proc_lib, init_p, [self(), [], Fun]},
                  {'Elixir.Task.Supervised', reply, [1, {erlang, apply, [Fun, []]}]}, any(Pids, 2)]),
    Place = pick([undefined, {"f.erl", 7}, {any(Pids, 1), any(Pids, 1)}, [{file, "g.erl"}, {line, 8}],
                  [{file, lists:duplicate(600, $a)}, {line, -1}], any(Pids, 2)]),
    Frame = {pick([m, 1]), f, pick([0, -1]), Place},
    #{extra => Start, match_spec_result => pick([undefined, Frame, [Frame, Frame], [any(Pids, 2)], any(Pids, 2)])}.

any(Pids, Depth) ->
    case rand:uniform(14) of
        1 -> pick(Pids);
        2 -> foreign();
        3 -> make_ref();
        4 -> hd(erlang:ports());
        5 -> fun() -> Pids end;
        6 -> rand:uniform() * 1.0e300;
        7 -> pick([0, -1, 1 bsl 31, 1 bsl 32, 1 bsl 59, 1 bsl 64, -(1 bsl 200)]);
        8 -> pick([[], undefined, kill, '', process, trace_status]);
        9 -> pick([<<>>, <<1:3>>, <<0:800>>, binary:copy(<<"a">>, 70)]);
        10 when Depth > 0 -> [any(Pids, Depth - 1) | any(Pids, Depth - 1)];
        11 when Depth > 0 -> [any(Pids, Depth - 1) || _ <- lists:seq(1, rand:uniform(5))];
        12 when Depth > 0 -> list_to_tuple([any(Pids, Depth - 1) || _ <- lists:seq(0, rand:uniform(4) - 1)]);
        13 when Depth > 0 -> #{any(Pids, Depth - 1) => any(Pids, Depth - 1), exits => any(Pids, 0)};
        _ -> pick([gen, init_it, proc_lib, init_p, erts_internal])
    end.

%% A pid of a node that is not there.
foreign() ->
    Node = <<"far@away">>,
    binary_to_term(<<131, 88, 100, (byte_size(Node)):16, Node/binary, 77:32, 1:32, 5:32>>).

pick(Terms) ->
    lists:nth(rand:uniform(length(Terms)), Terms).

%% What the sessions took from the VM's allocators is given back, to the byte.
nothing_leaks(_Config) ->
    Cycles = calls() div 100,
    %% The counted allocator, also where all of them are off for AddressSanitizer.
    on_peer(["+MRe", "true"], fun(Node) -> ok = peer:call(Node, ?MODULE, run_leaks, [Cycles], 600000) end).

run_leaks(Cycles) ->
    %% A thread's own structure is made once: first every thread has to have been here. Those that are dirty wait for
    %% one another in the NIF, so as many calls as there are of them find them all.
    on_every_dirty_scheduler(),
    cycles(min(50, Cycles)),
    Before = settled(),
    cycles(Cycles),
    ?assertEqual(0, max(0, settled() - Before)),
    ok.

on_every_dirty_scheduler() ->
    Callers = [spawn_monitor(fun() -> [lineage_nif:sweep() || _ <- lists:seq(1, 1000)] end)
               || _ <- lists:seq(1, 4 * erlang:system_info(dirty_cpu_schedulers))],
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Callers].

%% A block that another thread freed is counted until its own thread, at work again, takes it back: the least counts.
settled() ->
    lists:min([begin
                   on_every_scheduler(fun() -> [erlang:yield() || _ <- lists:seq(1, 200)] end),
                   allocated()
               end || _ <- lists:seq(1, 100)]).

%% Sessions begin and end while processes are born and die on every scheduler.
cycles(Count) ->
    Storms = [spawn_opt(fun storm/0, [{scheduler, Id}]) || Id <- lists:seq(1, erlang:system_info(schedulers_online))],
    lists:foreach(fun(I) ->
                          Exits = case I rem 2 of 0 -> suspects; 1 -> all end,
                          {ok, _} = lineage:attach(#{exits => Exits, monitors => exact}),
                          on_every_scheduler(fun turn/0),
                          _ = lineage:summary(),
                          _ = lineage_nif:guardians(),
                          _ = lineage:recent(1000),
                          ok = lineage:detach()
                  end, lists:seq(1, Count)),
    [exit(Storm, kill) || Storm <- Storms].

storm() ->
    turn(),
    storm().

turn() ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit(unheard) end),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

on_every_scheduler(Fun) ->
    Runs = [spawn_opt(Fun, [monitor, {scheduler, Id}])
            || Id <- lists:seq(1, erlang:system_info(schedulers_online))],
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Runs].

%% Bytes in blocks of the allocator that serves enif_alloc.
allocated() ->
    lists:sum([Size || {instance, _, Kinds} <- erlang:system_info({allocator_sizes, driver_alloc}),
                       {Kind, Sizes} <- Kinds, lists:member(Kind, [mbcs, sbcs]),
                       {blocks, Blocks} <- Sizes, {driver_alloc, Figures} <- Blocks,
                       {size, Size, _, _} <- Figures]).

on_peer(Fun) ->
    on_peer([], Fun).

on_peer(Args, Fun) ->
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000,
                                 args => Args ++ ["-pa", filename:dirname(code:which(lineage)),
                                          filename:dirname(code:which(?MODULE))]}),
    try Fun(Peer) after peer:stop(Peer) end.

%% Storms against the NIF and its hook, without the rest of Lineage: it is opened and closed, owned by
%% processes that die, swept, and unloaded, while thousands are born and die under it.
-module(lineage_fuzz_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0]).
-export([cycles_in_a_storm/1, reloads_in_a_storm/1, crashes_under_sweeps/1, sets_under_everything/1]).
%% Called on peers.
-export([run_cycles/1, run_reloads/1, run_crashes/2, run_sets/2]).

all() ->
    [cycles_in_a_storm, reloads_in_a_storm, crashes_under_sweeps, sets_under_everything].

%% LINEAGE_SOAK=1: at full size.
size(Small, Full) ->
    case os:getenv("LINEAGE_SOAK") of
        "1" -> Full;
        _ -> Small
    end.

%% Open, arm, use, and let go in one of four ways, again and again. Nothing of the library's memory is
%% left once it is unloaded, whichever thread took it.
cycles_in_a_storm(_Config) ->
    on_peer(run_cycles, [size(40, 1000)]).

run_cycles(Count) ->
    Before = blocks(),
    Storm = storm(),
    [cycle(I) || I <- lists:seq(1, Count)],
    stop(Storm),
    ?assertEqual({error, closed}, lineage_nif:info()),
    unload(),
    settle(Before, 200).

cycle(I) ->
    {ok, Session} = lineage_nif:open(options(I)),
    {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
    Seeds = lists:sublist(processes(), 50),
    [_ = lineage_nif:seed(P, undefined, undefined, {m, f, 0}, []) || P <- Seeds],
    meet_births(20),
    use(I),
    let_go(I rem 4, Hook).

%% Disarmed and closed; closed under the hook; the owner dies, before and after.
let_go(0, Hook) ->
    ok = lineage_hook:disarm(Hook),
    ok = lineage_hook:destroy(Hook),
    ok = lineage_nif:close();
let_go(1, Hook) ->
    ok = lineage_nif:close(),
    ok = lineage_hook:disarm(Hook),
    ok = lineage_hook:destroy(Hook);
let_go(2, Hook) ->
    {Closer, Monitor} = spawn_monitor(fun lineage_nif:close/0),
    ok = lineage_hook:disarm(Hook),
    receive {'DOWN', Monitor, process, Closer, normal} -> ok end,
    ok = lineage_hook:destroy(Hook);
let_go(3, Hook) ->
    ok = lineage_hook:disarm(Hook),
    ok = lineage_hook:destroy(Hook),
    ok = lineage_nif:close(),
    {Owner, Monitor} = spawn_monitor(
                         fun() ->
                                 {ok, Session} = lineage_nif:open(options(1)),
                                 {ok, Own} = lineage_hook:arm(lineage_hook:new(Session)),
                                 meet_births(10),
                                 exit({owned, Own})
                         end),
    Orphaned = receive {'DOWN', Monitor, process, Owner, {owned, Own}} -> Own end,
    wait_until(fun() -> not maps:get(hooked, lineage_nif:info()) end),
    ok = lineage_hook:disarm(Orphaned),
    ok = lineage_hook:destroy(Orphaned),
    ok = lineage_nif:close().

options(I) ->
    #{exits => case I rem 2 of 0 -> suspects; 1 -> all end,
      monitors => case I rem 3 of 0 -> exact; _ -> unknown end,
      overhead => I rem 2 =:= 0, target_ns => 0,
      max_bytes => 1 bsl 28,
      process_limit => erlang:system_info(process_limit)}.

use(I) ->
    _ = lineage_nif:sweep(),
    _ = lineage_nif:timing(lists:nth(1 + I rem 3, [on, drain, off])),
    _ = lineage_nif:timings(),
    {#{live := _}, _} = lineage_nif:verdict(10),
    Guardians = lineage_nif:guardians(),
    [ok = lineage_nif:confirm(G, []) || {G, _} <- lists:sublist(Guardians, 3)],
    _ = lineage_nif:recent(I rem 1500),
    case I rem 5 of
        0 -> _ = lineage_nif:records();
        _ -> _ = lineage_nif:pids()
    end.

meet_births(More) ->
    #{births := Births} = lineage_nif:info(),
    wait_until(fun() -> maps:get(births, lineage_nif:info()) >= Births + More end).

%% Unloaded and loaded again while the storm goes on; each time it works.
reloads_in_a_storm(_Config) ->
    on_peer(run_reloads, [size(6, 100)]).

run_reloads(Count) ->
    Before = blocks(),
    Storm = storm(),
    [begin
         {module, lineage_nif} = code:ensure_loaded(lineage_nif),
         {ok, Session} = lineage_nif:open(options(I)),
         {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
         meet_births(10),
         let_go(I rem 2, Hook),
         unload()
     end || I <- lists:seq(1, Count)],
    stop(Storm),
    settle(Before, 200).

%% Sweeps look at processes that are on their way out, and never take one whose exit is still to be
%% told: every crash of a process without a link is counted, in both modes.
crashes_under_sweeps(_Config) ->
    on_peer(run_crashes, [size(9000, 300000), suspects]),
    on_peer(run_crashes, [size(9000, 300000), all]).

run_crashes(Count, Exits) ->
    logger:set_primary_config(level, none),
    {ok, Session} = lineage_nif:open(#{exits => Exits, max_bytes => 1 bsl 28,
                                       process_limit => erlang:system_info(process_limit)}),
    {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
    Sweepers = [spawn_monitor(fun sweep_until_told/0) || _ <- [1, 2]],
    Crashers = [spawn_monitor(fun() -> crash(Count) end) || _ <- [1, 2]],
    [receive {'DOWN', M, process, P, Reason} -> ?assertEqual(normal, Reason) end || {P, M} <- Crashers],
    [P ! stop || {P, _} <- Sweepers],
    Sweeps = [receive {'DOWN', M, process, P, {sweeps, N}} -> N end || {P, M} <- Sweepers],
    ?assertEqual([], [N || N <- Sweeps, N =:= 0]),
    ok = lineage_hook:disarm(Hook),
    ok = lineage_hook:destroy(Hook),
    %% The sweepers ended with a reason of their own, unlinked.
    ?assertEqual(2 * Count + 2, maps:get(unheard_unknown, lineage_nif:info())),
    ok = lineage_nif:close().

sweep_until_told() -> sweep_until_told(0).

sweep_until_told(N) ->
    true = is_integer(lineage_nif:sweep()),
    receive stop -> exit({sweeps, N}) after 0 -> sweep_until_told(N + 1) end.

crash(0) ->
    ok;
crash(N) ->
    {_, Monitor} = case N rem 3 of
                       0 -> spawn_monitor(erlang, exit, [boom]);
                       1 -> killed(kill);
                       2 -> spawn_monitor(fun() -> _ = lists:seq(1, N rem 100), error(boom) end)
                   end,
    receive {'DOWN', Monitor, process, _, _} -> ok end,
    crash(N - 1).

killed(Reason) ->
    {Pid, Monitor} = spawn_monitor(fun() -> receive never -> ok end end),
    exit(Pid, Reason),
    {Pid, Monitor}.

%% Processes that hide, kill each other, link and unlink, in a table so small that slots are used again
%% at once: when all is quiet the census is processes(), and the sums are right.
sets_under_everything(_Config) ->
    [on_peer(run_sets, [size(3000, 200000), Exits], ["+P", "1024"]) || Exits <- [suspects, all]].

run_sets(Count, Exits) ->
    {ok, Session} = lineage_nif:open(#{exits => Exits, max_bytes => 1 bsl 26,
                                       process_limit => erlang:system_info(process_limit)}),
    {ok, Hook} = lineage_hook:arm(lineage_hook:new(Session)),
    [_ = lineage_nif:seed(P, undefined, undefined, {m, f, 0}, []) || P <- processes()],
    #{births := Earlier} = lineage_nif:info(),
    Workers = [spawn_monitor(fun() -> rand:seed(exsss, I), rough(Count, []) end) || I <- lists:seq(1, 4)],
    Sweeper = spawn_monitor(fun sweep_until_told/0),
    [receive {'DOWN', M, process, P, Reason} -> ?assertEqual(normal, Reason) end || {P, M} <- Workers],
    stop([Sweeper]),
    wait_until(fun() -> lists:sort(processes()) =:= lists:sort(lineage_nif:pids()) end),
    ?assertEqual(lists:sort(processes()), lists:sort(lineage_nif:pids())),
    #{births := Births, seeded := Seeded, seen := Seen, swept := Swept, live := Live, lost := 0} =
        lineage_nif:info(),
    ?assertEqual(4 * Count + 5, Births - Earlier),
    ?assertEqual(Births + Seeded - Seen - Swept, Live),
    ?assertEqual(length(processes()), Live),
    ok = lineage_hook:disarm(Hook),
    ok = lineage_hook:destroy(Hook),
    ok = lineage_nif:close().

%% Each turn is one birth. At most 20 of a worker's processes wait at a time.
rough(0, Waiting) ->
    end_all(Waiting);
rough(N, Waiting) when length(Waiting) > 20 ->
    {Victims, Rest} = lists:split(15, Waiting),
    end_all(Victims),
    rough(N, Rest);
rough(N, Waiting) ->
    Pid = case rand:uniform(7) of
              1 -> spawn(fun() -> process_flag(sensitive, true), wait() end);
              2 -> spawn(fun() -> ok end);
              3 -> spawn_linked();
              4 -> P = spawn(fun wait/0), exit(P, kill), P;
              5 -> spawn(fun() -> [link_or_not(W) || W <- Waiting], [unlink(W) || W <- Waiting], wait() end);
              6 -> element(1, spawn_monitor(fun() -> exit(boom) end));
              7 -> spawn_opt(fun wait/0, [{priority, high}])
          end,
    receive {'DOWN', _, process, _, _} -> ok after 0 -> ok end,
    rough(N - 1, [Pid | Waiting]).

end_all(Pids) ->
    Monitors = [monitor(process, P) || P <- Pids],
    [exit(P, kill) || P <- Pids],
    [receive {'DOWN', M, process, _, _} -> ok end || M <- Monitors],
    ok.

spawn_linked() ->
    Pid = spawn_link(fun wait/0),
    unlink(Pid),
    Pid.

link_or_not(Pid) ->
    try link(Pid) catch error:noproc -> true end.

wait() ->
    receive stop -> ok end.

%% Births of each kind, without end.
storm() ->
    [spawn_monitor(fun Again() ->
                           {_, M} = spawn_monitor(fun() -> spawn_link(fun() -> ok end), ok end),
                           P = spawn_link(fun() -> ok end),
                           unlink(P),
                           spawn(erlang, exit, [normal]),
                           receive {'DOWN', M, process, _, _} -> ok end,
                           receive stop -> ok after 0 -> Again() end
                   end) || _ <- [1, 2]].

stop(Storm) ->
    [P ! stop || {P, _} <- Storm],
    [receive {'DOWN', M, process, P, _} -> ok end || {P, M} <- Storm],
    ok.

unload() ->
    true = code:delete(lineage_nif),
    _ = code:purge(lineage_nif),
    ok.

%% What is held of the memory that enif_alloc serves: how many blocks of each size, and whose. Those
%% that a tracer's callback takes are told as the system's. `none': built without the figures, as under
%% AddressSanitizer, which then looks at every block itself.
blocks() ->
    case instrument:allocations(#{histogram_start => 64, histogram_width => 24}) of
        {ok, {64, 0, Origins}} ->
            maps:from_list([{{Origin, Type}, Histogram} || {Origin, Types} <- maps:to_list(Origins),
                                                           {Type, Histogram} <- maps:to_list(Types),
                                                           Origin =:= lineage_nif orelse Type =:= nif_internal]);
        {error, not_enabled} ->
            none
    end.

%% Blocks that another thread freed are given back when their own thread is at work again.
settle(Before, 0) ->
    ?assertEqual(Before, blocks());
settle(Before, Tries) ->
    on_every_scheduler(fun() -> erlang:garbage_collect(), erlang:yield() end),
    case blocks() of
        Before -> ok;
        _ -> settle(Before, Tries - 1)
    end.

on_every_scheduler(Fun) ->
    Runs = [spawn_opt(Fun, [monitor, {scheduler, Id}])
            || Id <- lists:seq(1, erlang:system_info(schedulers_online))],
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Runs].

%% The run's time limit is what ends a wait in vain.
wait_until(Holds) ->
    case Holds() of
        true -> ok;
        false -> erlang:yield(), wait_until(Holds)
    end.

on_peer(Function, Args) ->
    on_peer(Function, Args, []).

on_peer(Function, Args, Flags) ->
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 120000,
                                 args => Flags ++ ["-pa", filename:dirname(code:which(lineage_hook)),
                                                   filename:dirname(code:which(?MODULE))]}),
    try
        _ = peer:call(Peer, ?MODULE, Function, Args, 600000),
        ok
    after
        %% A node that crashed is gone, which is not what is to be told then.
        try peer:stop(Peer) catch exit:_ -> ok end
    end.

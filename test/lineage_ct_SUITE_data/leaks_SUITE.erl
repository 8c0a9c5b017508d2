%% What lineage_ct_SUITE runs in a node of its own. A line that leaks ends in the name that the outer suite looks for.
-module(leaks_SUITE).

-export([suite/0, all/0, groups/0, init_per_suite/1, end_per_suite/1, init_per_group/2, end_per_group/2,
         init_per_testcase/2, end_per_testcase/2]).
-export([clean/1, indirect/1, direct/1, linked/1, failing/1, late/1, late_again/1, skips/1, skipped/1, skipped_leak/1,
         own_config/1, bad_init/1, late_init/1, end_leaks/1, end_fails/1, asks_server/1, uses_timer/1]).

-define(LEAK, put(leak, spawn(fun wait/0))).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [{group, many}, {group, outer}, {group, leaking}, {group, leaking_end}, {group, bad}, {group, twice},
     clean, direct, failing, late, late_again, skips, skipped, skipped_leak, own_config, bad_init, late_init, end_leaks,
     end_fails, asks_server, uses_timer, clean].

groups() ->
    [{many, [parallel], lists:duplicate(25, clean) ++ [indirect, direct] ++ lists:duplicate(25, clean) ++ [linked, failing, late]},
     {outer, [parallel], [clean, {group, inner}, clean]},
     {inner, [parallel], [clean, direct, clean]},
     {leaking, [], [clean]},
     {leaking_end, [parallel], [clean]},
     {bad, [], [clean]},
     {twice, [{repeat, 2}, sequence], [clean]}].

init_per_suite(Config) ->
    ?LEAK, % suite
    [{server, get(leak)} | Config].

end_per_suite(_Config) -> ok.

init_per_group(leaking, _Config) ->
    ?LEAK, % leaking
    [];
init_per_group(bad, _Config) ->
    ?LEAK, % bad
    error(bad);
init_per_group(outer, Config) ->
    [{mine, loiter()} | Config];
init_per_group(_Group, Config) ->
    Config.

end_per_group(leaking_end, _Config) ->
    ?LEAK, % leaking_end
    ok;
end_per_group(outer, Config) ->
    stop(proplists:get_value(mine, Config));
end_per_group(_Group, _Config) ->
    ok.

init_per_testcase(own_config, _Config) ->
    [{own, 1}];
init_per_testcase(skipped, _Config) ->
    ct:timetrap(fun() -> 5000 end),
    {skip, "for a reason"};
init_per_testcase(skipped_leak, _Config) ->
    ?LEAK, % skipped_leak
    {skip, "for a reason"};
init_per_testcase(bad_init, _Config) ->
    ?LEAK, % bad_init
    error(bad_init);
init_per_testcase(late_init, _Config) ->
    ?LEAK, % late_init
    late();
init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(end_leaks, _Config) ->
    ?LEAK, % end_leaks
    ok;
end_per_testcase(late_again, _Config) ->
    ?LEAK, % late_again
    ok;
end_per_testcase(end_fails, _Config) ->
    {fail, own_reason};
end_per_testcase(_Case, _Config) ->
    ok.

clean(_Config) ->
    Me = self(),
    spawn(fun() -> Me ! {child, loiter()} end),
    receive {child, Pid} -> stop(Pid) end.

%% Who has spawned it is dead.
indirect(_Config) ->
    {Between, Monitor} = spawn_monitor(fun() -> ?LEAK end), % indirect
    receive {'DOWN', Monitor, process, Between, normal} -> ok end.

direct(_Config) ->
    ?LEAK, % direct
    ok.

%% By a server that it has started itself.
linked(_Config) ->
    Me = self(),
    Server = spawn_link(fun() -> ?LEAK, Me ! started, receive stop -> ok end end), % linked
    receive started -> stop(Server) end.

failing(_Config) ->
    ?LEAK, % failing
    error(mine).

late(_Config) ->
    ?LEAK, % late
    late().

late_again(_Config) ->
    late().

late() ->
    ct:timetrap(500),
    receive never -> ok end.

skips(_Config) -> {skip, "for a reason"}.

skipped(_Config) -> ok.

skipped_leak(_Config) -> ok.

own_config([_ | _] = Config) ->
    1 = proplists:get_value(own, Config),
    ?LEAK, % own_config
    ok.

bad_init(_Config) -> ok.

late_init(_Config) -> ok.

end_leaks(_Config) -> ok.

end_fails(_Config) ->
    ?LEAK, % end_fails
    ok.

%% What a server of the suite does for a case is the server's.
asks_server(Config) ->
    proplists:get_value(server, Config) ! {spawn, self()},
    receive {spawned, Pid} when is_pid(Pid) -> ok end.

uses_timer(_Config) ->
    {ok, _} = timer:send_after(1, done),
    receive done -> ok end.

loiter() ->
    spawn(fun wait/0).

wait() ->
    receive
        stop -> ok;
        {spawn, From} ->
            ?LEAK, % asks_server
            From ! {spawned, get(leak)},
            wait()
    end.

stop(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

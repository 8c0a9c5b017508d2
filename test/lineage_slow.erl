%% What a node under the probe does in its tests: NIFs that do not come back for a while (test/support/lineage_slow.c), and a
%% storm that waits for a file, so that nothing else is born around it.
-module(lineage_slow).

-export([build/1, load/1, spin/1, nap/1]).
-export([wait/3, storm/2, work/0]).

%% Compiles the library into a directory.
build(Dir) ->
    lineage_counter:build(Dir, "lineage_slow").

load(Library) ->
    erlang:load_nif(filename:rootname(Library), 0).

spin(_Ms) -> erlang:nif_error(not_loaded).

nap(_Ms) -> erlang:nif_error(not_loaded).

%% Each time that `Dir/go' is there, takes it away, runs the storm and makes `Dir/done'. It waits without any other process.
wait(Dir, Workers, Each) ->
    case prim_file:delete(Dir ++ "/go") of
        ok ->
            storm(Workers, Each),
            ok = prim_file:write_file(Dir ++ "/done", <<>>);
        {error, enoent} ->
            receive after 5 -> ok end
    end,
    wait(Dir, Workers, Each).

%% Births and deaths: Workers * (Each + 1).
storm(Workers, Each) ->
    Started = [spawn_monitor(fun() -> births(Each) end) || _ <- lists:seq(1, Workers)],
    [receive {'DOWN', Monitor, process, _, _} -> ok end || {_, Monitor} <- Started].

births(0) ->
    ok;
births(N) ->
    {_, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, _, _} -> births(N - 1) end.

%% A process that has always something to do.
work() ->
    _ = lists:sum(lists:seq(1, 1000)),
    work().

%% Counts in a file that outlives the node, see test/support/lineage_counter.c; and the storm that is counted.
-module(lineage_counter).

-export([build/1, build/2, load/1, open/2, add/1, read/1]).
-export([storm/2, stop/1, worker/3]).
-export([cannot/1]).

%% Compiles the library into a directory.
build(Dir) ->
    build(Dir, "lineage_counter").

%% Another one of test/support.
build(Dir, Name) ->
    Source = filename:join([filename:dirname(source()), "support", Name ++ ".c"]),
    Library = filename:join(Dir, Name ++ ".so"),
    Include = filename:join([code:root_dir(), "usr", "include"]),
    "" = os:cmd("cc -std=c11 -O2 -D_GNU_SOURCE -Wall -Wextra -fPIC -shared -isystem " ++ Include ++ " -o " ++ Library ++ " " ++ Source ++ " 2>&1"),
    Library.

%% Where the tests lie, also when they run from a copy.
source() ->
    proplists:get_value(source, ?MODULE:module_info(compile)).

load(Library) ->
    erlang:load_nif(filename:rootname(Library), 0).

open(_Path, _Slots) -> erlang:nif_error(not_loaded).

add(_Slot) -> erlang:nif_error(not_loaded).

read(Path) ->
    {ok, Bytes} = file:read_file(Path),
    [Count || <<Count:64/native>> <= Bytes].

%% `Workers' processes that give birth, one birth after another; each counts in four slots of its own: births begun and
%% done, deaths begun and heard of. `Rate': births a second of each, `infinity' without a pause. Returns them, by slot.
storm(Workers, Rate) ->
    [spawn(?MODULE, worker, [4 * N, Rate, self()]) || N <- lists:seq(0, Workers - 1)].

worker(Slot, Rate, Owner) ->
    Owner ! {ready, self()},
    again(Slot, Rate, erlang:monotonic_time(microsecond), 0).

again(Slot, Rate, Start, N) ->
    receive
        {stop, From} -> From ! {stopped, self()}, receive after infinity -> ok end
    after wait(Rate, Start, N) ->
        add(Slot),
        {_, Monitor} = spawn_monitor(fun() -> add(Slot + 2) end),
        add(Slot + 1),
        receive {'DOWN', Monitor, process, _, _} -> add(Slot + 3) end,
        again(Slot, Rate, Start, N + 1)
    end.

%% A timer is late by up to a ms: what was missed is made up for.
wait(infinity, _Start, _N) -> 0;
wait(Rate, Start, N) ->
    Due = Start + N * 1000000 div Rate,
    max(0, (Due - erlang:monotonic_time(microsecond)) div 1000).

%% They stay, so that the forest is one that can be asked for.
stop(Workers) ->
    [Worker ! {stop, self()} || Worker <- Workers],
    [receive {stopped, Worker} -> ok end || Worker <- Workers],
    ok.

%% What a test says where the machine does not let it run: in CI that is a failure.
cannot(Why) ->
    io:format(user, "~nNOT TESTED: ~ts~n", [Why]),
    case os:getenv("CI", "") of
        Not when Not =:= ""; Not =:= "false" -> {skip, Why};
        _ -> error({cannot, Why})
    end.

%% A supervisor_bridge to a process of another make.
-module(lineage_report_bridge).

-behaviour(supervisor_bridge).

-export([start/0, init/1, terminate/2]).

start() ->
    {ok, Bridge} = supervisor_bridge:start_link(?MODULE, self()),
    receive {bridged, Pid} -> {Bridge, Pid} end.

init(Caller) ->
    Pid = spawn_link(lineage_report_things, wait, []),
    Caller ! {bridged, Pid},
    {ok, Pid, Pid}.

terminate(_Reason, Pid) ->
    exit(Pid, shutdown).

%% The supervisors, servers and bare processes that lineage_report_SUITE looks at.
-module(lineage_report_things).

-behaviour(supervisor).

-export([attach/2, detach/1, wait_for/2, shown/1]).
-export([start_sup/1, start_sup/2, init/1]).
-export([bare_child/0, linked_child/0, server_child/0, sup_child/1, ignored_child/0, never/0, wait/0, wait/1, trap/0]).
-export([start_foreign/1, foreign/2]).
-export([start_server/0, ask/2, ask/3]).

%% A supervisor of these children, linked to the caller.
start_sup(Children) ->
    start_sup(one_for_one, Children).

start_sup(Strategy, Children) ->
    {ok, Sup} = supervisor:start_link(?MODULE, {Strategy, Children}),
    Sup.

init({Strategy, Children}) ->
    {ok, {#{strategy => Strategy}, Children}}.

%% Children: without a link, with one, and none at all.
bare_child() -> {ok, proc_lib:spawn(?MODULE, wait, [])}.

linked_child() -> {ok, proc_lib:spawn_link(?MODULE, wait, [])}.

server_child() -> {ok, spawn_link(fun server/0)}.

sup_child(Children) -> supervisor:start_link(?MODULE, {one_for_one, Children}).

ignored_child() -> ignore.

%% A child that never comes up: its supervisor answers nobody meanwhile.
never() ->
    receive never -> ok end.

wait() ->
    receive stop -> ok end.

wait(Ready) ->
    Ready ! {ready, self()},
    wait().

trap() ->
    process_flag(trap_exit, true),
    wait().

%% A supervisor of its own make, as ranch has: it says so in `$initial_call', and answers the calls that
%% every supervisor does.
start_foreign(Link) ->
    proc_lib:start_link(?MODULE, foreign, [self(), Link]).

foreign(Parent, Link) ->
    put('$initial_call', {supervisor, ?MODULE, 1}),
    process_flag(trap_exit, true),
    Child = case Link of
                link -> proc_lib:spawn_link(?MODULE, wait, []);
                bare -> proc_lib:spawn(?MODULE, wait, [])
            end,
    proc_lib:init_ack(Parent, {ok, self(), Child}),
    foreign_loop(Parent, Child).

foreign_loop(Parent, Child) ->
    receive
        {'$gen_call', {To, Tag}, which_children} ->
            To ! {Tag, [{conn, Child, worker, [?MODULE]}]},
            foreign_loop(Parent, Child);
        {'EXIT', Parent, Reason} ->
            exit(Child, kill),
            exit(Reason);
        _ ->
            foreign_loop(Parent, Child)
    end.

%% A process that does what it is told, linked to nobody: {link, Pid}, {unlink, Pid}, fun(), stop.
start_server() ->
    spawn(fun server/0).

server() ->
    receive
        {From, Ref, Fun} ->
            From ! {Ref, Fun()},
            server();
        stop ->
            ok
    end.

%% Runs a function in it and returns the result.
ask(Server, Fun) ->
    Ref = make_ref(),
    Server ! {self(), Ref, Fun},
    receive {Ref, Result} -> Result end.

%% The same, for one that is asked from another node.
ask(Server, link, Pid) ->
    ask(Server, fun() -> link(Pid) end).

%% Before and after a test case. Whatever it left without a link ends with it.
attach(Options, Config) ->
    {ok, _} = lineage:attach(Options),
    [{before, processes()} | Config].

detach(Config) ->
    Left = try lineage:orphans() catch error:{lineage, not_attached} -> [] end,
    Before = proplists:get_value(before, Config),
    _ = [exit(Pid, kill) || #{pid := Pid} <- Left, not lists:member(Pid, Before)],
    ok = lineage:detach().

%% Until it is so, or the process that it is about is dead.
wait_for(Fun, Pid) ->
    case Fun() of
        false ->
            true = is_process_alive(Pid),
            erlang:yield(),
            wait_for(Fun, Pid);
        Value ->
            Value
    end.

%% The pids of a forest, as often as they are shown.
shown(#{apps := Apps, hosts := Hosts, runtime := Runtime, orphans := Orphans, unresolved := Unresolved}) ->
    lists:append([shown_node(N) || N <- Apps ++ Hosts ++ Runtime ++ Orphans ++ Unresolved]).

shown_node(#{pid := Pid, below := Below}) -> [Pid | lists:append([shown_node(N) || N <- Below])];
shown_node(#{more := _}) -> [].

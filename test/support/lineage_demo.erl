%% A node as many are: OTP's own applications, a supervision tree, and processes that nobody would stop,
%% one of each kind, half of them there before Lineage attaches and half started under its eyes. Then what
%% Lineage tells about them. Run by `make demo'; no part of the product.
-module(lineage_demo).
-behaviour(application).
-behaviour(supervisor).

-export([main/0]).
-export([start/2, stop/1, init/1, start_worker/2, worker/2, forever/0, fail/0]).

-spec main() -> no_return().
main() ->
    logger:set_primary_config(level, none), %% what fails below fails on purpose
    lists:foreach(fun(App) -> {ok, _} = application:ensure_all_started(App) end,
                  [sasl, ssl, inets, runtime_tools]),
    ok = start_shop(),
    detached(whereis(shop_cart)),
    abandoned(),
    unsupervised_tree(),
    say("A node with sasl, ssl, inets, runtime_tools and a small shop. "
        "lineage:attach(#{monitors => exact}):"),
    {ok, Info} = lineage:attach(#{monitors => exact}),
    io:format("  ~b processes were there already, read in ~b ms~n",
              [maps:get(existing, Info), maps:get(took_ms, Info)]),
    [io:format("  ~ts~n", [Note]) || Note <- maps:get(notes, Info)],
    Escaped = escaped(whereis(shop_stock)),
    Peer = foreign(),
    silent_failure(),
    show("The forest: lineage:print(lineage:tree())", fun lineage:tree/0),
    show("What no tree holds: lineage:print(lineage:orphans())", fun lineage:orphans/0),
    show("One of them: lineage:print(lineage:why(Pid))", fun() -> lineage:why(Escaped) end),
    show("And a supervised one: lineage:print(lineage:why(shop_stock))",
         fun() -> lineage:why(shop_stock) end),
    show("What died without a link: lineage:print(lineage:recent(5))", fun() -> lineage:recent(5) end),
    show("The counts: lineage:print(lineage:summary())", fun lineage:summary/0),
    ok = lineage:detach(),
    stop_peer(Peer),
    halt().

say(Line) ->
    io:format("~n~ts~n~n", [Line]).

show(Title, Query) ->
    say(Title),
    Data = Query(),
    lineage:print(Data).

%% --- the shop: a real tree -------------------------------------------------------------------------

start_shop() ->
    ok = application:load({application, shop, [{vsn, "1"}, {modules, [?MODULE]}, {registered, []},
                                               {applications, [kernel, stdlib]},
                                               {mod, {?MODULE, []}}]}),
    application:start(shop).

start(_Type, []) ->
    supervisor:start_link({local, shop_sup}, ?MODULE, tree).

stop(_State) ->
    ok.

init(stray) ->
    {ok, {#{strategy => one_for_one},
          [#{id => stray, start => {?MODULE, start_worker, [shop_stray, self()]}}]}};
init(tree) ->
    {ok, {#{strategy => one_for_one},
          [#{id => Name, start => {?MODULE, start_worker, [Name, self()]}}
           || Name <- [shop_cart, shop_stock]]}}.

start_worker(Name, Parent) ->
    proc_lib:start_link(?MODULE, worker, [Name, Parent]).

%% Runs what it is sent, in its own name.
worker(Name, Parent) ->
    register(Name, self()),
    proc_lib:init_ack(Parent, {ok, self()}),
    serve().

serve() ->
    receive
        {run, From, Fun} -> From ! {self(), Fun()}
    end,
    serve().

run_in(Worker, Fun) ->
    Worker ! {run, self(), Fun},
    receive
        {Worker, Result} -> Result
    end.

%% --- orphans, one of each kind -----------------------------------------------------------------------

%% Its parent lives, and has no link to it.
detached(Worker) ->
    run_in(Worker, fun() -> spawn(?MODULE, forever, []) end).

%% Its parent is dead.
abandoned() ->
    {Parent, Ref} = spawn_monitor(fun() -> spawn(?MODULE, forever, []) end),
    receive
        {'DOWN', Ref, process, Parent, normal} -> ok
    end.

%% Was linked to a supervised worker, and is no more.
escaped(Worker) ->
    run_in(Worker, fun() ->
                           Pid = spawn_link(?MODULE, forever, []),
                           unlink(Pid),
                           Pid
                   end).

%% A supervisor whose starter has let go of it: a whole tree that hangs on nothing.
unsupervised_tree() ->
    {Starter, Ref} = spawn_monitor(fun() ->
                                           {ok, Sup} = supervisor:start_link(?MODULE, stray),
                                           unlink(Sup)
                                   end),
    receive
        {'DOWN', Ref, process, Starter, normal} -> ok
    end.

%% Spawned from another node; without a network, there is none, and it is left out.
foreign() ->
    case net_kernel:start([lineage_demo, shortnames]) of
        {ok, _} ->
            {ok, Peer, Node} = peer:start(#{name => peer:random_name(), connection => standard_io}),
            true = peer:call(Peer, net_kernel, connect_node, [node()]),
            _ = peer:call(Peer, erlang, spawn, [node(), ?MODULE, forever, []]),
            {Peer, Node};
        {error, _} ->
            io:format("  (no distribution on this machine: the orphan from another node is left out)~n"),
            none
    end.

stop_peer(none) -> ok;
stop_peer({Peer, _Node}) -> peer:stop(Peer).

%% Crashes, and nobody learns of it.
silent_failure() ->
    Pid = spawn(?MODULE, fail, []),
    Pid ! now,
    wait_dead(Pid).

wait_dead(Pid) ->
    case is_process_alive(Pid) of
        true -> erlang:yield(), wait_dead(Pid);
        false -> ok
    end.

fail() ->
    receive
        now -> exit(out_of_stock)
    end.

forever() ->
    receive
        stop -> ok
    end.

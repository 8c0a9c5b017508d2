%% Where a start_link is at home. places_sup names some of these functions in its child specs.
-module(places).
-export([start_link/0, start_link/1, start/0, begin_it/1, other/1, other/2, via_list/1, worker/0, start_local/0]).

start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

start_link(How) ->
    case How of
        spawned -> {ok, spawn_link(fun() -> ok end)};
        lib -> proc_lib:start_link(places, worker, []);
        opt -> {ok, spawn_opt(fun() -> ok end, [link, {priority, high}])};
        loose -> {ok, spawn(fun() -> ok end)};          %=> unlinked erlang:spawn/1
        port -> {ok, open_port({spawn, "cat"}, [])};    %=> tethered erlang:open_port/2
        sup -> supervisor:start_link(places, [])
    end.

%% Named by a child spec in a map.
start() -> gen_server:start_link(?MODULE, [], []).

%% Named by a tuple of six, and by a variable.
begin_it(X) -> gen_statem:start_link(?MODULE, X, []).

worker() -> {ok, spawn_link(fun() -> ok end)}.

%% One of the two is named.
other(X) -> gen_server:start_link(?MODULE, X, []).
other(X, Y) -> gen_server:start_link(?MODULE, [X | Y], []).     %=> tethered gen_server:start_link/3

%% Named with a list of arguments that is not written out.
via_list(X) -> gen_server:start_link(?MODULE, X, []).

%% Named by nobody.
start_local() -> gen_server:start_link(?MODULE, [], []).        %=> tethered gen_server:start_link/3

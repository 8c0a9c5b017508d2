%% A child of simple_one_for_one is started with more arguments than its spec has.
-module(places_pool_sup).
-behaviour(supervisor).
-export([start_link/0, init/1, begin_child/2, begin_none/2]).

start_link() -> supervisor:start_link(?MODULE, []).

init([]) ->
    {ok, {#{strategy => simple_one_for_one},
          [#{id => child, start => {?MODULE, begin_child, [first]}, restart => temporary}]}}.

begin_child(first, More) -> gen_server:start_link(?MODULE, More, []).

begin_none(first, More) -> gen_server:start_link(?MODULE, More, []).    %=> tethered gen_server:start_link/3

-module(places_application).
-behaviour(application).
-export([start/2, stop/1, run_it/0]).

start(_Type, _Args) ->
    spawn(fun() -> warm_up end),                                %=> unlinked erlang:spawn/1
    {ok, _} = gen_server:start_link(places, [], []),            %=> tethered gen_server:start_link/3
    supervisor:start_link({local, places_sup}, places_sup, []).

stop(_) ->
    supervisor:start_link(places_sup, []).                      %=> tethered supervisor:start_link/2

run_it() ->
    gen_server:start_link(?MODULE, [], []).

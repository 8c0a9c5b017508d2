%% An application that does not say so.
-module(places_old_app).
-export([start/2, stop/1]).

start(normal, []) -> supervisor:start_link(places_sup, []).

stop(_) -> ok.

-module(places_helped).
-export([begin_it/0, begin_other/0]).

begin_it() -> {ok, spawn_link(fun() -> ok end)}.

begin_other() -> {ok, spawn_link(fun() -> ok end)}.             %=> tethered erlang:spawn_link/1

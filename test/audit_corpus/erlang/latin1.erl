%% -*- coding: latin-1 -*-
-module(latin1).
-export([run/1]).

%% été
run(F) ->
    "äöü", spawn(F).    %=> unlinked erlang:spawn/1

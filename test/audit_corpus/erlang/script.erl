#!/usr/bin/env escript
%% A script of Erlang.
main(F) ->
    spawn(F).                                           %=> unlinked erlang:spawn/1

%% Run by EUnit in a node under audit.
-module(inner_tests).

-include_lib("eunit/include/eunit.hrl").

port() -> list_to_integer(os:getenv("LINEAGE_TEST_PORT")).

plain_test_() ->
    {timeout, 60, fun() -> real_audit:serve(port()) end}.

deep_test_() ->
    {setup, fun() -> ok end, fun(_) -> ok end,
        {inparallel, [{spawn, {timeout, 60, fun() -> deep(50) end}}]}}.

%% Deeper than a stack shows.
deep(0) -> real_audit:serve(port());
deep(N) -> [deep(N - 1)].

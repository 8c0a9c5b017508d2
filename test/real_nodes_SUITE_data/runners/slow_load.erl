%% Takes as long to load as the suite wants.
-module(slow_load).

-export([state/0]).

-on_load(load/0).

load() -> real_audit:serve(list_to_integer(os:getenv("LINEAGE_TEST_PORT"))).

state() -> loaded.

%% Run by Common Test in a node under audit.
-module(inner_SUITE).

-export([suite/0, all/0, groups/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_group/2, end_per_group/2, plain/1, parallel/1, neighbour/1]).

suite() -> [{timetrap, {seconds, 60}}].
all() -> [plain, {group, side_by_side}].
groups() -> [{side_by_side, [parallel], [parallel, neighbour]}].

port() -> list_to_integer(os:getenv("LINEAGE_TEST_PORT")).

init_per_suite(Config) -> Config.
end_per_suite(_Config) -> ok.
init_per_group(_Group, Config) -> Config.
end_per_group(_Group, _Config) -> ok.

plain(_Config) -> real_audit:serve(port()).
parallel(_Config) -> real_audit:serve(port()).
neighbour(_Config) -> ok.

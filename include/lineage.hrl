%% Assertions of leaks, for EUnit, Common Test and any other code:
%%
%%     -include_lib("lineage/include/lineage.hrl").
%%
%% Both are lineage_eunit:assert/3, which says what they raise and print.

-ifndef(LINEAGE_HRL).
-define(LINEAGE_HRL, true).

%% The value of Expr, evaluated in the calling process, when nothing outlived it.
-define(assertNoLeaks(Expr), ?assertNoLeaks(Expr, #{})).

%% Options: a map of within (milliseconds for what is ending, 500) and ignore (lineage_leak:ignore()).
-define(assertNoLeaks(Expr, Options),
        lineage_eunit:assert(fun() -> Expr end, Options,
                             [{module, ?MODULE}, {line, ?LINE}, {expression, (??Expr)}])).

-endif.

%% Headers that are not there, macros of one's own, and branches of which a compiler would see one.
-module(macros).
-include("not_there.hrl").
-include_lib("nowhere/include/not_there.hrl").
-export([run/2]).
-define(SPAWN(F), spawn(F)).
-define(SERVER, ?MODULE).
-define(TWO_LINES(F),
        begin
            spawn_link(F)
        end).
-define(START(Mod, Args), gen_server:start(?SERVER, Mod, Args, [])).
-define(NESTED(F), ?SPAWN(fun() -> F end)).
-define(NAME, erlang).
-define(SHOW(X), {??X, X}).
-define(EMPTY(), spawn(fun() -> ok end)).
-define(OVER(A), A).
-define(OVER(A, B), spawn_monitor(A, B)).
-ifdef(TEST).
-define(ARM, spawn_link).
-define(EITHER(F), spawn(F)).
-else.
-define(ARM, spawn_link).
-define(EITHER(F), F()).
-endif.
-define(GONE(F), spawn(F)).
-undef(GONE).
-define(GONE(F), F).

run(F, S) when ?IS_GOOD(F) ->
    ?SPAWN(F),                                          %=> unlinked erlang:spawn/1
    ?TWO_LINES(F),                                      %=> tethered erlang:spawn_link/1
    spawn(F),                                           %=> unlinked erlang:spawn/1
    ?START(m, []),                                      %=> unlinked gen_server:start/4
    ?NESTED(F),                                         %=> unlinked erlang:spawn/1
    ?NAME:spawn(F),                                     %=> unlinked erlang:spawn/1
    ?SHOW(spawn(F)),                                    %=> unlinked erlang:spawn/1
    ?EMPTY(),                                           %=> unlinked erlang:spawn/1
    ?OVER(F), ?OVER(F, S),                              %=> unlinked erlang:spawn_monitor/2
    ?ARM(F),                                            %=> tethered erlang:spawn_link/1
    ?SPAWN(fun() ->                                     %=> unlinked erlang:spawn/1
                   spawn_link(F)                        %=> tethered erlang:spawn_link/1
           end),
    ?EITHER(F),                                         %=> unlinked erlang:spawn/1
    ?GONE(F),
    ?UNKNOWN:spawn(F),
    ?UNKNOWN(F),
    ?UNKNOWN(spawn(F)),                                 %=> unlinked erlang:spawn/1
    ?LOG("a text " ?AND " more", [spawn(F)]),           %=> unlinked erlang:spawn/1
    io:format(?BEFORE "~p" ?AFTER, [spawn(F)]),         %=> unlinked erlang:spawn/1
    #?RECORD{pid = spawn(F)},                           %=> unlinked erlang:spawn/1
    S#?RECORD.pid,
    spawn(?UNKNOWN).                                    %=> unlinked erlang:spawn/1

-ifdef(NEVER).
never(F) -> spawn(F).                                   %=> unlinked erlang:spawn/1
-else.
ever(F) -> spawn_link(F).                               %=> tethered erlang:spawn_link/1
-endif.

%% These do not parse without their macros: they are read word by word.
rough(F) ->
    ?assertMatch(X when is_pid(X), spawn(F)),           %=> unlinked erlang:spawn/1
    erlang:spawn_link(F),                               %=> tethered erlang:spawn_link/1
    ?IF(F) spawn_opt(F, [{priority, low}, link]) ?END,  %=> tethered erlang:spawn_opt/2
    spawn_opt(F, [monitor]),                            %=> unlinked erlang:spawn_opt/2
    lists:map(fun spawn/1, [F]),                        %=> unlinked erlang:spawn/1
    lists:map(fun erlang:spawn_link/1, [F]),            %=> tethered erlang:spawn_link/1
    apply(erlang, spawn, [F]),                          %=> unlinked erlang:spawn/1
    gen_server:start(                                   %=> unlinked gen_server:start/4
      {local, F}, m, [case F of {a, b} -> c end], [fun(A) -> A end]),
    my_own:spawn(F),
    "spawn(F)",
    F:spawn(F),
    spawn.

rough_start() ->
    ?IF x ?END, start_link(spawn(fun() -> ok end)).     %=> unlinked erlang:spawn/1

start_link(F) ->
    ?IF x ?END, {ok, spawn_link(F)}.

?GENERATED(spawn_it, fun() -> spawn(fun() -> ok end) end).  %=> unlinked erlang:spawn/1

last(F) ->
    spawn(F).                                           %=> unlinked erlang:spawn/1

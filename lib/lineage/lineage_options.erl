%% @private The options of attach: their defaults, and what is wrong with those given.
-module(lineage_options).

-export([check/1]).

-define(MAX_BYTES, 268435456).
-define(LISTS, [runtime, hosts, services, supervisors]).
-define(KNOWN, [exits, monitors, sites, wrappers, max_bytes, for, max_spawn_rate, progress | ?LISTS]).

%% @doc The options with their defaults, or the cause that names the first wrong one.
-spec check(term()) -> {ok, map()} | {error, lineage_error:cause()}.
check(Given) when is_map(Given) ->
    Wrong = [Cause || {Key, Value} <- lists:sort(maps:to_list(Given)), Cause <- wrong(Key, Value)],
    case Wrong of
        [] -> {ok, maps:merge(defaults(), Given)};
        [Cause | _] -> {error, Cause}
    end;
check(Given) ->
    {error, {bad_options, Given}}.

defaults() ->
    maps:from_list([{exits, suspects}, {monitors, off}, {sites, closure}, {wrappers, []}, {max_bytes, ?MAX_BYTES} |
                    [{List, []} || List <- ?LISTS]]).

wrong(exits, V) when V =:= suspects; V =:= all -> [];
wrong(exits, V) -> [{bad_option, exits, V, "suspects or all"}];
wrong(monitors, V) when V =:= off; V =:= exact -> [];
wrong(monitors, V) -> [{bad_option, monitors, V, "off or exact"}];
wrong(sites, V) when V =:= off; V =:= closure; V =:= exact -> [];
wrong(sites, V) -> [{bad_option, sites, V, "off, closure or exact"}];
wrong(wrappers, V) ->
    Wanted = "a list of at most 100 elements that are each a Module of yours or {Module, Function}",
    case is_proper(V) andalso length(V) =< 100 andalso lists:all(fun is_wrapper/1, V) of
        true -> [];
        false -> [{bad_option, wrappers, V, Wanted}]
    end;
wrong(max_bytes, V) when is_integer(V), V >= 4096 -> [];
wrong(max_bytes, V) -> [{bad_option, max_bytes, V, "a number of bytes, 4096 or more"}];
wrong(for, V) when is_integer(V), V > 0, V =< 16#ffffffff -> [];
wrong(for, V) -> [{bad_option, for, V, "a number of milliseconds, from 1 to 4294967295"}];
wrong(max_spawn_rate, V) when is_integer(V), V > 0 -> [];
wrong(max_spawn_rate, V) -> [{bad_option, max_spawn_rate, V, "a number of births a second, 1 or more"}];
wrong(progress, V) when is_function(V, 2) -> [];
wrong(progress, V) -> [{bad_option, progress, V, "a function of two numbers: processes done, and in all"}];
wrong(Key, V) ->
    case lists:member(Key, ?LISTS) of
        true -> wrong_list(Key, V);
        false -> [{bad_option, Key, ?KNOWN}]
    end.

wrong_list(Key, List) ->
    Wanted = "a list whose elements are each {Module, Function, Arity} or a registered name",
    case is_proper(List) andalso [Match || Match <- List, not is_match(Match)] of
        false -> [{bad_option, Key, List, Wanted}];
        [] -> [];
        [Bad | _] -> [{bad_option, Key, Bad, Wanted}]
    end.

is_proper(List) when length(List) >= 0 -> true;
is_proper(_) -> false.

%% Those that are looked through anyway are no user's.
is_wrapper({M, F}) -> is_wrapper(M) andalso is_atom(F);
is_wrapper(M) -> is_atom(M) andalso not lineage_site:is_through(M).

is_match({M, F, A}) when is_atom(M), is_atom(F) ->
    A =:= '_' orelse (is_integer(A) andalso A >= 0 andalso A =< 255);
is_match(Name) ->
    is_atom(Name) andalso Name =/= undefined.

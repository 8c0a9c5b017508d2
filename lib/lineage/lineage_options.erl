%% @private The options of attach: their defaults, and what is wrong with those given.
-module(lineage_options).

-export([check/1]).

-define(MAX_BYTES, 268435456).
-define(LISTS, [runtime, hosts, services, supervisors]).
-define(MAX_WILD, 50).  % LIN_MFA_WILDCARDS in c_src/core/mfa.h has room for all four, and for our own
-define(PERCENT, 2).
-define(TARGET_MS, 5).
-define(MAX_TARGET_MS, 3600000).
-define(CRITICAL, 16).
-define(KNOWN, [exits, monitors, sites, wrappers, overhead, target_ms, critical, journal, max_bytes, for, max_spawn_rate, progress | ?LISTS]).

%% @doc The options with their defaults, or the cause that names the first wrong one.
-spec check(term()) -> {ok, map()} | {error, lineage_error:cause()}.
check(Given) when is_map(Given) ->
    Options = maps:merge(defaults(Given), Given),
    Wrong = [Cause || {Key, Value} <- lists:sort(maps:to_list(Given)), Cause <- wrong(Key, Value)],
    case Wrong ++ together(Options) of
        [] -> {ok, maps:map(fun normal/2, Options)};
        [Cause | _] -> {error, Cause}
    end;
check(Given) ->
    {error, {bad_options, Given}}.

%% A journal without exits would say of most processes that they live for ever.
defaults(Given) ->
    Exits = case Given of #{journal := _} -> all; _ -> suspects end,
    maps:from_list([{exits, Exits}, {monitors, off}, {sites, closure}, {wrappers, []}, {max_bytes, ?MAX_BYTES},
                    {overhead, off}, {target_ms, ?TARGET_MS}, {critical, []} | [{List, []} || List <- ?LISTS]]).

normal(overhead, duty) -> {duty, ?PERCENT};
normal(journal, Journal) ->
    {ok, Options} = lineage_journal:check(Journal),
    Options;
normal(_Key, Value) -> Value.

together(#{journal := _, exits := suspects}) ->
    [{bad_option, exits, suspects, "all, or left out, beside journal"}];
together(#{critical := [_ | _] = Critical, overhead := off}) ->
    [{bad_option, critical, Critical, "given together with overhead => duty, or continuous"}];
together(_) ->
    [].

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
wrong(overhead, V) when V =:= off; V =:= duty; V =:= continuous -> [];
wrong(overhead, {duty, Percent}) when is_number(Percent), Percent > 0, Percent =< 50 -> [];
wrong(overhead, V) -> [{bad_option, overhead, V, "off, duty, {duty, Percent} with Percent above 0 and at most 50, or continuous"}];
wrong(target_ms, V) when is_number(V), V >= 0.001, V =< ?MAX_TARGET_MS -> [];
wrong(target_ms, V) -> [{bad_option, target_ms, V, "a number of milliseconds, from 0.001 to 3600000"}];
wrong(critical, V) ->
    case is_proper(V) andalso length(V) =< ?CRITICAL andalso lists:all(fun is_critical/1, V) of
        true -> [];
        false -> [{bad_option, critical, V, "a list of at most 16 elements {Module, Function, Arity}"}]
    end;
wrong(journal, V) ->
    case lineage_journal:check(V) of
        {ok, _} -> [];
        {error, Wanted} -> [{bad_option, journal, V, Wanted}]
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
    Wanted = "a list whose elements are each {Module, Function, Arity} or a registered name, at most 50 of them with '_' as arity",
    case is_proper(List) andalso length([any || {_, _, '_'} <- List]) =< ?MAX_WILD andalso [Match || Match <- List, not is_match(Match)] of
        false -> [{bad_option, Key, List, Wanted}];
        [] -> [];
        [Bad | _] -> [{bad_option, Key, Bad, Wanted}]
    end.

is_proper(List) when length(List) >= 0 -> true;
is_proper(_) -> false.

%% Those that are looked through anyway are no user's.
is_wrapper({M, F}) -> is_wrapper(M) andalso is_atom(F);
is_wrapper(M) -> is_atom(M) andalso not lineage_site:is_through(M).

is_function_name({M, F, A}) -> is_atom(M) andalso is_atom(F) andalso is_integer(A) andalso A >= 0 andalso A =< 255.

%% The VM refuses trace points of '_', and with one all of them.
is_critical({M, F, _} = Call) -> M =/= '_' andalso F =/= '_' andalso is_function_name(Call);
is_critical(_) -> false.

is_match({M, F, '_'}) -> is_atom(M) andalso is_atom(F);
is_match({_, _, _} = Call) -> is_function_name(Call);
is_match(Name) ->
    is_atom(Name) andalso Name =/= undefined.

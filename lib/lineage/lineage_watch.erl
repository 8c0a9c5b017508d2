%% @private Looks after the hook while others may take it: is it still ours, and has anything been born
%% that it did not see?
%%
%% A blind time is an upper bound: it begins at the last moment when all was known to be well, and ends
%% when the hook is set and every process that was missed is in the census. Before OTP 27 another tool
%% can take the hook, clear it, or spawn past it (`set_on_spawn' of its own tracee), which only a
%% comparison of `processes()' with the census finds.
-module(lineage_watch).

-export([new/3, check/1, seed_unseen/1, due/1, blind/1, told/1, forget/1, hook/1]).

-export_type([watch/0]).

-record(watch, {hook :: lineage_hook:hook(),
                context :: map(),
                ok_at :: integer(),               % monotonic ms, as all times here
                compared_at :: integer(),         % when the last comparison found nothing, or all was seeded
                compare_due :: integer(),
                behind = false :: boolean(),      % the count was short the last time
                blind_from :: integer() | undefined,
                blind_ms = 0 :: non_neg_integer(),
                news = [] :: [lineage_error:cause()]}).

-opaque watch() :: #watch{}.

-define(COMPARE_MS, 5000).
%% Above this many processes the counts are compared first, and the sets only when they differ twice.
-define(COMPARE_ALL, 50000).

-spec new(lineage_hook:hook(), map(), lineage_baseline:rules()) -> watch().
new(Hook, #{exits := Exits}, Rules) ->
    Now = now_ms(),
    #watch{hook = Hook, context = #{exits => Exits, rules => Rules}, ok_at = Now, compared_at = Now,
           compare_due = Now + ?COMPARE_MS}.

-spec hook(watch()) -> lineage_hook:hook().
hook(#watch{hook = Hook}) -> Hook.

%% @doc Compare at the next check, however short ago the last comparison was.
-spec due(watch()) -> watch().
due(Watch) ->
    Watch#watch{compare_due = now_ms()}.

%% @doc The flags are being given up on purpose.
-spec blind(watch()) -> watch().
blind(Watch) ->
    Watch#watch{blind_from = now_ms()}.

%% @doc What is to be told: blind milliseconds so far, since when it is blind now, and what happened.
-spec told(watch()) -> #{blind_ms := non_neg_integer(), blind_from := integer() | undefined,
                         news := [lineage_error:cause()]}.
told(#watch{blind_ms = Ms, blind_from = From, news = News}) ->
    #{blind_ms => Ms, blind_from => From, news => News}.

-spec forget(watch()) -> watch().
forget(Watch) ->
    Watch#watch{news = []}.

%% @doc Looks, and mends what can be mended.
-spec check(watch()) -> watch().
check(#watch{hook = Hook, blind_from = Blind} = Watch) ->
    case lineage_hook:check(Hook) of
        ok when Blind =:= undefined ->
            seldom(fun compare/1, Watch#watch{ok_at = now_ms()});
        ok ->
            mend(Hook, Watch);
        none ->
            case lineage_hook:arm(Hook) of
                {ok, Hook1} -> mend(Hook1, Watch);
                {error, {tracer_held, Holder}} -> taken(Holder, seldom(fun seed_unseen/1, Watch));
                {error, _} -> blind_since(Watch)
            end;
        {held, Holder} ->
            taken(Holder, seldom(fun seed_unseen/1, Watch))
    end.

taken(Holder, #watch{blind_from = undefined} = Watch) ->
    blind_since(Watch#watch{news = [{coexistence, {taken, Holder}}]});
taken(_Holder, Watch) ->
    Watch.

blind_since(#watch{blind_from = undefined, ok_at = At} = Watch) ->
    Watch#watch{blind_from = At};
blind_since(Watch) ->
    Watch.

%% The hook is set again: learn what was missed, and watch again whom it watched.
mend(Hook, #watch{context = #{exits := Exits} = Context} = Watch) ->
    #watch{blind_from = From} = Blind = blind_since(Watch),
    lineage_walk:apart(fun() ->
        _ = seed_missing(Hook, Context),
        lineage_baseline:flag(Hook, watched(Exits), Context)
    end),
    Now = now_ms(),
    Yielded = Watch#watch.blind_from =/= undefined,
    Blind#watch{hook = Hook, blind_from = undefined, ok_at = Now, compared_at = Now,
                blind_ms = Watch#watch.blind_ms + Now - From,
                news = [{coexistence, lost_hook} || not Yielded] ++ Watch#watch.news}.

watched(all) ->
    lineage_nif:pids();
watched(suspects) ->
    [Pid || {Pid, _Generation, _Parent, _Guardian, _Call, Flags, _Age} <- lineage_nif:records(),
            lists:member(suspect, Flags)].

%% Never more than a hundredth of the time goes into comparing.
seldom(Compare, #watch{compare_due = Due} = Watch) ->
    Start = now_ms(),
    case Start >= Due of
        false ->
            Watch;
        true ->
            Watch1 = Compare(Watch),
            Took = now_ms() - Start,
            Watch1#watch{compare_due = Start + max(?COMPARE_MS, 100 * Took)}
    end.

compare(#watch{behind = Behind} = Watch) ->
    Count = erlang:system_info(process_count),
    case Count =< ?COMPARE_ALL orelse short(Count) of
        false -> Watch#watch{behind = false, compared_at = now_ms()};
        true when Count > ?COMPARE_ALL, not Behind -> Watch#watch{behind = true};
        true -> compare_sets(Watch)
    end.

short(Count) ->
    lineage_nif:sweep(),
    #{live := Live} = lineage_nif:info(),
    Live < Count.

compare_sets(#watch{hook = Hook, context = Context, compared_at = At} = Watch) ->
    Missed = lineage_walk:apart(fun() -> seed_missing(Hook, Context) end),
    Now = now_ms(),
    Watch1 = Watch#watch{behind = false, compared_at = Now},
    case Missed of
        0 -> Watch1;
        _ -> Watch1#watch{blind_ms = Watch#watch.blind_ms + Now - At,
                          news = [{coexistence, {missed, Missed}} | Watch#watch.news]}
    end.

%% @doc Learns of what was born while the hook is another's: it is not flagged before the hook is ours again, which
%% ends the blind time, too.
-spec seed_unseen(watch()) -> watch().
seed_unseen(#watch{context = Context} = Watch) ->
    _ = lineage_walk:apart(fun() -> seed_missing(none, Context) end),
    Watch.

%% How many live processes the census did not know. The census is read first, so that what is born
%% between the two readings is asked for once more, and not taken for missed.
seed_missing(Hook, Context) ->
    Known = maps:from_keys(lineage_nif:pids(), true),
    Missing = [Pid || Pid <- processes(), not is_map_key(Pid, Known),
                      lineage_nif:record(Pid) =:= undefined],
    case Missing of
        [] ->
            0;
        _ ->
            #{seeded := Seeded} = lineage_baseline:seed(Hook, Missing, Context, fun(_) -> ok end),
            Seeded
    end.

now_ms() -> erlang:monotonic_time(millisecond).

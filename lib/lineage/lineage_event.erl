%% @doc The events of a stream: what happened to a process, and when.
%%
%% A batch is what a subscriber's port sends (see {@link lineage_stream}). {@link decode/1} makes a list of maps of it, in
%% the order in which they came: by time, those of one process always in their own order. Each has `kind', and all but a
%% gap have `pid' and `no', the process's own number of its events from 1 on, which wraps at 65,536.
%%
%% <dl>
%% <dt>`birth'</dt><dd>`parent' (`{Node, Number}' on another node), `site' (as `id' in {@link lineage:sites/0}), `flags'
%%   (`seeded': it was there before, and is known only now), `scope', `generation' (tells it from others that have had its
%%   pid), `initial_call'.</dd>
%% <dt>`born'</dt><dd>The last three of a birth whose first part is missing: it came before the subscription, or is in the gap
%%   before it. The other way round a birth lacks these keys.</dd>
%% <dt>`link', `unlink'</dt><dd>`peer' (`undefined': on another node), and `guardian', whether the peer is its guardian from
%%   now on, or was.</dd>
%% <dt>`exit'</dt><dd>`reason', an atom (of a tuple its first element, of other terms `unknown'), and whether it is `abnormal'.</dd>
%% <dt>`swept'</dt><dd>It was found dead, some time after its death, and why it died is not known.</dd>
%% <dt>`name'</dt><dd>`name', under which it is registered now; `undefined': it is not any more.</dd>
%% <dt>`flags'</dt><dd>`flags', all that it has, after Lineage has changed them or its `scope'.</dd>
%% <dt>`guardian'</dt><dd>`guardian', as Lineage has read it from the process's links.</dd>
%% <dt>`gap'</dt><dd>`missing', how many events are missing at this place: the node was faster than the `ring' (for everybody:
%%   also such as this subscriber does not want), or the subscriber slower than its `buffer'; `where' says which.</dd>
%% </dl>
%%
%% `ns' is when it happened, in nanoseconds since attach. That, and `initial_call', is `undefined' when the session has ended
%% before the batch is decoded, also when another one has begun. Names and reasons are `undefined' when there have been some 16,000 different ones.
-module(lineage_event).

-export([decode/1]).

-export_type([event/0, kind/0]).

-type kind() :: birth | born | link | unlink | exit | swept | name | flags | guardian | gap.

-type event() ::
    #{kind := birth, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), parent := lineage_nif:parent(),
      site := pos_integer() | undefined, flags := [lineage_nif:flag()], scope => non_neg_integer(),
      generation => non_neg_integer(), initial_call => mfa() | undefined}
    | #{kind := born, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), scope := non_neg_integer(),
        generation := non_neg_integer(), initial_call := mfa() | undefined}
    | #{kind := link | unlink, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), peer := pid() | undefined,
        guardian := boolean()}
    | #{kind := exit, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), reason := atom(), abnormal := boolean()}
    | #{kind := swept, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no()}
    | #{kind := name, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), name := atom()}
    | #{kind := flags, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), flags := [lineage_nif:flag()],
        scope := non_neg_integer()}
    | #{kind := guardian, ns := lineage_nif:ns(), pid := pid(), no := lineage_nif:no(), guardian := pid() | undefined}
    | #{kind := gap, ns := lineage_nif:ns(), missing := pos_integer(), where := ring | buffer}.

-define(NEAR, 64).

%% @doc The events of a batch. Raises `badarg' for what is none.
-spec decode(binary()) -> [event()].
decode(Batch) ->
    events(lineage_nif:events(Batch)).

events([{birth, Ns, Pid, No, Parent, Site, Flags} | Rest]) ->
    Birth = #{kind => birth, ns => Ns, pid => Pid, no => No, parent => Parent, site => Site, flags => Flags},
    case take_born(Pid, Rest) of
        {{born, _, _, _, Scope, Generation, Call}, Left} ->
            [Birth#{scope => Scope, generation => Generation, initial_call => Call} | events(Left)];
        none ->
            [Birth | events(Rest)]
    end;
events([Event | Rest]) ->
    [event(Event) | events(Rest)];
events([]) ->
    [].

%% It is the next one, but for threads that share a ring.
take_born(Pid, [{born, _, Pid, _, _, _, _} = Born | Rest]) -> {Born, Rest};
take_born(Pid, Events) -> take_born(Pid, Events, ?NEAR, []).

take_born(_Pid, _Events, 0, _Before) -> none;
take_born(_Pid, [], _Left, _Before) -> none;
take_born(Pid, [{born, _, Pid, _, _, _, _} = Born | Rest], _Left, Before) -> {Born, lists:reverse(Before, Rest)};
%% Of its next life, perhaps.
take_born(Pid, [Event | _], _Left, _Before) when element(3, Event) =:= Pid -> none;
take_born(Pid, [Event | Rest], Left, Before) -> take_born(Pid, Rest, Left - 1, [Event | Before]).

event({gap, Ns, Missing, Where}) ->
    #{kind => gap, ns => Ns, missing => Missing, where => Where};
event(Event) ->
    maps:merge(#{kind => element(1, Event), ns => element(2, Event), pid => element(3, Event), no => element(4, Event)},
               detail(Event)).

detail({born, _, _, _, Scope, Generation, Call}) -> #{scope => Scope, generation => Generation, initial_call => Call};
detail({link, _, _, _, Peer, Guardian}) -> #{peer => Peer, guardian => Guardian};
detail({unlink, _, _, _, Peer, Guardian}) -> #{peer => Peer, guardian => Guardian};
detail({exit, _, _, _, Reason, Abnormal}) -> #{reason => Reason, abnormal => Abnormal};
detail({swept, _, _, _}) -> #{};
detail({name, _, _, _, Name}) -> #{name => Name};
detail({flags, _, _, _, Flags, Scope}) -> #{flags => Flags, scope => Scope};
detail({guardian, _, _, _, Guardian}) -> #{guardian => Guardian}.

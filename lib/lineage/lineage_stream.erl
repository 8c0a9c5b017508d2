%% @doc A stream of events, as they happen, to one process: births, links, exits and the rest of {@link lineage_event}.
%%
%% A subscription is a port of the process that made it. It sends batches as `{lineage_events, Port, Batch}', as long as it has
%% credit: each batch takes one, {@link grant/2} gives more, so no mailbox ever holds more batches than were granted. What
%% happens meanwhile waits in the subscription's own buffer; when that is full, events are counted, and a gap stands in their
%% place. After the session has ended, and the last batch, `{lineage_events, Port, closed}' is sent, which needs no credit.
%%
%% ```
%% {ok, Subscription} = lineage:subscribe(#{kinds => [birth, exit], application => my_app}),
%% {ok, Events} = lineage_stream:next(Subscription, infinity),
%% ok = lineage:unsubscribe(Subscription).
%% '''
%%
%% {@link next/2} receives, grants and decodes; a process that has other messages to receive matches those of {@link port/1},
%% and calls {@link lineage_event:decode/1} and {@link grant/2} itself. The port is closed with {@link unsubscribe/1}, and with
%% its owner. Whoever is slow, or dies, costs nobody else.
-module(lineage_stream).

-export([subscribe/1, open/1, next/2, grant/2, unsubscribe/1, counts/1, port/1]).

-export_type([subscription/0, options/0, kind/0, counts/0]).

-type kind() :: birth | link | unlink | exit | swept | name | flags | guardian.

-type options() :: #{kinds => [kind(), ...],
                     sites => [SiteId :: pos_integer(), ...],
                     scopes => [lineage_scope:scope() | 0, ...],
                     application => atom(),
                     applications => [atom(), ...],
                     credit => non_neg_integer(),
                     batch => pos_integer(),
                     buffer => pos_integer()}.
%% What {@link lineage:subscribe/1} takes; each is explained there.

-type counts() :: #{credit := non_neg_integer(), buffered := non_neg_integer(), delivered := non_neg_integer(),
                    dropped := non_neg_integer()}.

-opaque subscription() :: {lineage_subscription, port()}.

-define(COMMAND, "lineage subscriber").
-define(SUBSCRIBE, 1).
-define(GRANT, 2).
-define(COUNTS, 3).
%% As in c_src/core/stream.h.
-define(SUBSCRIBERS, 8).
-define(MAX_BATCH, 1024).
-define(MAX_BUFFER, 65536).
-define(MAX_IDS, 64).
-define(MAX_MODULES, 512).
-define(MAX_UINT, 16#ffffffff).
-define(CREDIT, 4).
-define(KINDS, [birth, link, unlink, exit, swept, name, flags, guardian]).
-define(KEYS, [kinds, sites, scopes, application, applications, credit, batch, buffer]).
-define(TRIES, 200).
-define(TRY_MS, 5).

%% @doc As {@link lineage:subscribe/1}, which explains the options.
-spec subscribe(options()) -> {ok, subscription()} | lineage:error().
subscribe(Options) ->
    case check(Options) of
        {ok, Wish} ->
            case lineage_session:stream() of
                ok -> connect(Wish, maps:get(credit, Options, ?CREDIT), ?TRIES);
                {error, Cause} -> lineage_error:tagged(Cause)
            end;
        {error, Cause} ->
            lineage_error:tagged(Cause)
    end.

%% @doc The same, and raises `{lineage, Tag}' where that returns an error.
-spec open(options()) -> subscription().
open(Options) ->
    case subscribe(Options) of
        {ok, Subscription} -> Subscription;
        {error, {Tag, Sentence}} -> lineage_error:raise({told, Tag, Sentence}, [Options])
    end.

%% @doc The events of the next batch, at least one, for which credit is granted anew; `closed' when the session has ended
%% and all was taken, or the subscription has been closed. Only for the process that subscribed: raises `{lineage, not_owner}'
%% in others.
-spec next(subscription(), timeout()) -> {ok, [lineage_event:event(), ...]} | timeout | closed.
next({lineage_subscription, Port} = Subscription, Timeout) ->
    receive
        {lineage_events, Port, Batch} -> took(Batch, Subscription)
    after 0 ->
        case erlang:port_info(Port, connected) of
            {connected, Owner} when Owner =:= self() -> await(Subscription, Timeout);
            {connected, Owner} -> lineage_error:raise({not_owner, Owner}, [Subscription, Timeout]);
            undefined -> closed
        end
    end.

await({lineage_subscription, Port} = Subscription, Timeout) ->
    Monitor = erlang:monitor(port, Port),
    try
        receive
            {lineage_events, Port, Batch} -> took(Batch, Subscription);
            {'DOWN', Monitor, port, Port, _} -> closed
        after Timeout -> timeout
        end
    after
        erlang:demonitor(Monitor, [flush])
    end.

took(closed, {lineage_subscription, Port}) ->
    ok = close(Port),
    closed;
took(Batch, Subscription) ->
    _ = grant(Subscription, 1),
    {ok, lineage_event:decode(Batch)}.

%% @doc As {@link lineage:grant/2}.
-spec grant(subscription(), pos_integer()) -> ok | lineage:error().
grant({lineage_subscription, Port}, Batches) when is_integer(Batches), Batches > 0, Batches =< ?MAX_UINT ->
    case control(Port, ?GRANT, <<Batches:32/native>>) of
        {ok, _} -> ok;
        {error, Name} -> lineage_error:tagged(cause(Name))
    end;
grant({lineage_subscription, _} = Subscription, Batches) ->
    lineage_error:raise({bad_argument, "grant", Batches, "a number of batches, from 1 to 4294967295"}, [Subscription, Batches]).

%% @doc As {@link lineage:unsubscribe/1}.
-spec unsubscribe(subscription()) -> ok.
unsubscribe({lineage_subscription, Port}) ->
    close(Port).

%% @doc How much credit a subscription has, how many events are in its buffer, how many it has sent (gaps included), and how
%% many found no room in its buffer: all of them are in gaps. `closed' when it is.
-spec counts(subscription()) -> counts() | closed.
counts({lineage_subscription, Port}) ->
    case control(Port, ?COUNTS, <<>>) of
        {ok, <<Credit:64/native, Buffered:64/native, Delivered:64/native, Dropped:64/native>>} ->
            #{credit => Credit, buffered => Buffered, delivered => Delivered, dropped => Dropped};
        {error, _} ->
            closed
    end.

%% @doc The port that the messages name.
-spec port(subscription()) -> port().
port({lineage_subscription, Port}) ->
    Port.

%% The driver's side

connect(Wish, Credit, Tries) ->
    try open_port({spawn_driver, ?COMMAND}, [binary]) of
        Port ->
            case control(Port, ?SUBSCRIBE, Wish) of
                {ok, _} -> {ok, credited({lineage_subscription, Port}, Credit)};
                {error, Name} -> refused(Name, close(Port), Wish, Credit, Tries)
            end
    catch
        %% The session has ended, and the driver with it.
        error:Reason when Reason =:= badarg; Reason =:= enoent -> lineage_error:tagged({not_attached, undefined});
        error:Reason -> lineage_error:tagged({subscribe_failed, Reason})
    end.

%% A place is free again when no thread decides for who had it before: a matter of microseconds, unless one sleeps.
refused(<<"again">>, ok, Wish, Credit, Tries) when Tries > 0 ->
    receive after ?TRY_MS -> connect(Wish, Credit, Tries - 1) end;
refused(Name, ok, _Wish, _Credit, _Tries) ->
    lineage_error:tagged(cause(Name)).

credited(Subscription, 0) ->
    Subscription;
credited(Subscription, Credit) ->
    _ = grant(Subscription, Credit),
    Subscription.

cause(<<"closed">>) -> {not_attached, undefined};
cause(<<"full">>) -> {subscribers_full, ?SUBSCRIBERS};
cause(<<"enomem">>) -> {subscribe_failed, enomem};
cause(<<"again">>) -> {subscribe_failed, again};
cause(Name) -> {subscribe_failed, Name}.

control(Port, Op, Data) ->
    try port_control(Port, Op, Data) of
        <<0, Answer/binary>> -> {ok, Answer};
        <<1, Name/binary>> -> {error, Name}
    catch
        error:badarg -> {error, <<"closed">>}
    end.

%% Leaves nothing in the caller's mailbox.
close(Port) ->
    unlink(Port),
    try port_close(Port) catch error:badarg -> true end,
    flush(Port).

flush(Port) ->
    receive
        {lineage_events, Port, _} -> flush(Port);
        {'EXIT', Port, _} -> flush(Port)
    after 0 -> ok
    end.

%% Options, as the driver reads them

check(Options) when is_map(Options) ->
    Wrong = [Cause || {Key, Value} <- lists:sort(maps:to_list(Options)), Cause <- wrong(Key, Value)],
    case Wrong of
        [] -> wish(Options);
        [Cause | _] -> {error, Cause}
    end;
check(Options) ->
    {error, {bad_argument, "subscribe", Options, "a map of options"}}.

wrong(kinds, Kinds) ->
    [bad(kinds, Kinds, ["a list of one or more of ", lineage_error:list(?KINDS)]) ||
        not is_list_of(fun(Kind) -> lists:member(Kind, ?KINDS) end, Kinds, infinity)];
wrong(sites, Ids) ->
    [bad(sites, Ids, "a list of 1 to 64 numbers of sites, each the id of one in lineage:sites()") ||
        not is_list_of(fun(Id) -> is_integer(Id) andalso Id > 0 andalso Id =< ?MAX_UINT end, Ids, ?MAX_IDS)];
wrong(scopes, Ids) ->
    [bad(scopes, Ids, "a list of 1 to 64 numbers of scopes (0: none)") ||
        not is_list_of(fun(Id) -> is_integer(Id) andalso Id >= 0 andalso Id =< ?MAX_UINT end, Ids, ?MAX_IDS)];
wrong(application, App) ->
    [bad(application, App, "the name of an application") || not is_atom(App)];
wrong(applications, Apps) ->
    [bad(applications, Apps, "a list of one or more names of applications") || not is_list_of(fun is_atom/1, Apps, infinity)];
wrong(credit, N) ->
    [bad(credit, N, "a number of batches, from 0 to 4294967295") || not is_number_in(N, 0, ?MAX_UINT)];
wrong(batch, N) ->
    [bad(batch, N, "a number of events, from 1 to 1024") || not is_number_in(N, 1, ?MAX_BATCH)];
wrong(buffer, N) ->
    [bad(buffer, N, "a number of events, from 1 to 65536") || not is_number_in(N, 1, ?MAX_BUFFER)];
wrong(Key, _Value) ->
    [{bad_argument, "subscribe", Key, ["the options ", lineage_error:list(?KEYS)]}].

bad(Key, Value, Wanted) ->
    {bad_argument, ["subscribe's option ", atom_to_list(Key)], Value, Wanted}.

%% Atoms compare above numbers: `infinity' is no bound.
is_list_of(Is, [_ | _] = List, Max) ->
    is_proper(List) andalso length(List) =< Max andalso lists:all(Is, List);
is_list_of(_Is, _Other, _Max) ->
    false.

is_proper(List) when length(List) >= 0 -> true;
is_proper(_) -> false.

is_number_in(N, Low, High) ->
    is_integer(N) andalso N >= Low andalso N =< High.

wish(Options) ->
    case modules(applications(Options), []) of
        {ok, Modules} when length(Modules) > ?MAX_MODULES -> {error, {too_many_modules, length(Modules), ?MAX_MODULES}};
        {ok, Modules} -> {ok, wish(Options, Modules)};
        Error -> Error
    end.

wish(Options, Modules) ->
    Sites = lists:usort(maps:get(sites, Options, [])),
    Scopes = lists:usort(maps:get(scopes, Options, [])),
    [<<(maps:get(buffer, Options, ?MAX_BUFFER)):32/native, (maps:get(batch, Options, ?MAX_BATCH)):32/native,
       (kinds(maps:get(kinds, Options, []))):32/native, (length(Sites)):32/native, (length(Scopes)):32/native,
       (length(Modules)):32/native>>,
     [<<Id:32/native>> || Id <- Sites ++ Scopes],
     [[byte_size(Name), Name] || Module <- Modules, Name <- [atom_to_binary(Module)]]].

applications(Options) ->
    lists:usort([App || {ok, App} <- [maps:find(application, Options)]] ++ maps:get(applications, Options, [])).

%% An application without modules is one that matches nothing: the name of none is asked for.
modules([], Modules) ->
    {ok, lists:usort(lists:append(Modules))};
modules([App | Apps], Modules) ->
    case application:get_key(App, modules) of
        {ok, []} -> {error, {unknown_application, App}};
        {ok, Of} -> modules(Apps, [Of | Modules]);
        undefined -> {error, {unknown_application, App}}
    end.

%% A birth is two events.
kinds(Kinds) ->
    lists:foldl(fun(Kind, Bits) -> Bits bor bits(Kind) end, 0, Kinds).

bits(birth) -> 1 bsl 1 bor (1 bsl 2);
bits(link) -> 1 bsl 3;
bits(unlink) -> 1 bsl 4;
bits(exit) -> 1 bsl 5;
bits(swept) -> 1 bsl 6;
bits(name) -> 1 bsl 7;
bits(flags) -> 1 bsl 8;
bits(guardian) -> 1 bsl 9.

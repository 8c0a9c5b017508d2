%% Streams of events, on this node and from real processes: what is told, to whom, and how much of it at once.
-module(lineage_stream_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([every_kind/1, births_are_those_of_the_census/1, what_is_shed_is_swept/1, filters/1, filter_by_site/1, filter_by_scope/1,
         filter_by_application/1, credit_is_never_exceeded/1, a_slow_one_has_its_gap_in_place/1, a_suspended_one/1,
         death_in_mid_batch/1, closed_under_load/1, pump_closed_under_load/1, unload_with_a_port_open/1, session_is_killed/1,
         open_and_close/1, detach_while_subscribed/1, attached_again/1, eight_and_no_more/1, handed_over/1, bad_options/1, bad_uses/1,
         not_attached/1, bad_batches/1, bad_controls/1, sums/1, sums_with_gaps/1, halt_in_a_storm/1]).

suite() ->
    [{timetrap, {minutes, 2}}].

all() ->
    [every_kind, births_are_those_of_the_census, what_is_shed_is_swept, filters, filter_by_site, filter_by_scope,
     filter_by_application, credit_is_never_exceeded, a_slow_one_has_its_gap_in_place, a_suspended_one, death_in_mid_batch,
     closed_under_load, pump_closed_under_load, unload_with_a_port_open, session_is_killed, open_and_close,
     detach_while_subscribed, attached_again, eight_and_no_more, handed_over, bad_options, bad_uses, not_attached, bad_batches,
     bad_controls, sums, sums_with_gaps, halt_in_a_storm].

-define(STORM, 4000).    % births of each of a storm's workers
-define(WORKERS, 4).

init_per_testcase(what_is_shed_is_swept, Config) ->
    attach(#{exits => suspects}, Config);
init_per_testcase(_Case, Config) ->
    attach(#{exits => all, sites => exact}, Config).

attach(Options, Config) ->
    {ok, _} = lineage:attach(Options),
    [{ports, length(erlang:ports())} | Config].

%% Whatever happened, no port is left of it.
end_per_testcase(_Case, Config) ->
    ok = lineage:detach(),
    [lineage:unsubscribe(Sub) || Sub <- put_back()],
    await(fun() -> length(erlang:ports()) =< proplists:get_value(ports, Config) end),
    ok.

subscribe(Options) ->
    {ok, Sub} = lineage:subscribe(Options),
    put(subscriptions, [Sub | put_back()]),
    Sub.

put_back() ->
    case get(subscriptions) of
        undefined -> [];
        Subs -> Subs
    end.

%% As the old `catch' would tell it.
caught(Fun) ->
    try Fun() catch error:Reason:Stack -> {'EXIT', {Reason, Stack}} end.

%% Asks again until it is so; the timetrap ends what never is.
await(Is) ->
    case Is() of
        true -> ok;
        false -> receive after 5 -> await(Is) end
    end.

%% The events up to that which is it, and that one.
until(Sub, Is) ->
    {ok, Events} = lineage_stream:next(Sub, 60000),
    case lists:splitwith(fun(Event) -> not Is(Event) end, Events) of
        {Before, [That | _]} -> Before ++ [That];
        {All, []} -> All ++ until(Sub, Is)
    end.

%% What happened until now, gaps included, ending with the birth of a process that passes the filter.
so_far(Sub) ->
    Sentinel = sentinel(),
    lists:droplast(until(Sub, fun(Event) -> is_birth_of(Sentinel, Event) end)).

sentinel() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, process, Pid, _} -> Pid end.

is_birth_of(Pid, #{kind := birth, pid := Of}) -> Pid =:= Of;
is_birth_of(_Pid, _Event) -> false.

of_pid(Pid, Events) ->
    [Event || #{pid := Of} = Event <- Events, Of =:= Pid].

of_kind(Kind, Events) ->
    [Event || #{kind := Of} = Event <- Events, Of =:= Kind].

%% Each worker has as many processes, one after another, that live no longer than it takes them to end.
storm(Births) ->
    Workers = [spawn_monitor(fun() -> births(Births) end) || _ <- lists:seq(1, ?WORKERS)],
    [receive {'DOWN', Monitor, process, Pid, normal} -> ok end || {Pid, Monitor} <- Workers],
    ok.

births(0) ->
    ok;
births(Left) ->
    _ = sentinel(),
    births(Left - 1).

%% A storm that goes on until it is told to end.
start_storm() ->
    [spawn_link(fun storming/0) || _ <- lists:seq(1, ?WORKERS)].

storming() ->
    births(100),
    receive
        {stop, Monitor, To} -> To ! {Monitor, stopped}
    after 0 -> storming()
    end.

stop_storm(Workers) ->
    [begin
         Ref = make_ref(),
         Worker ! {stop, Ref, self()},
         receive {Ref, stopped} -> unlink(Worker) end
     end || Worker <- Workers],
    ok.

scale(Few, Many) ->
    case os:getenv("LINEAGE_SOAK") of
        "1" -> Many;
        _ -> Few
    end.

%% A process that reads all that it is sent, and gives it when asked up to a process's birth.
reader(Options) ->
    Self = self(),
    Reader = spawn_link(fun() -> {ok, Sub} = lineage:subscribe(Options), Self ! {self(), ready, Sub}, reading(Sub, []) end),
    receive {Reader, ready, Sub} -> put(Reader, Sub), Reader end.

reading(Sub, Read) ->
    receive
        {To, Sentinel} ->
            Had = lists:append(lists:reverse(Read)),
            IsIt = fun(Event) -> is_birth_of(Sentinel, Event) end,
            To ! {self(), case lists:any(IsIt, Had) of true -> upto(Had, IsIt); false -> Had ++ until(Sub, IsIt) end}
    after 0 ->
        case lineage_stream:next(Sub, 10) of
            {ok, Events} -> reading(Sub, [Events | Read]);
            timeout -> reading(Sub, Read)
        end
    end.

%% All until now. It may have read of the sentinel's birth before it is asked.
read(Reader) ->
    Monitor = monitor(process, Reader),
    Sentinel = sentinel(),
    Reader ! {self(), Sentinel},
    receive
        {Reader, Events} ->
            demonitor(Monitor, [flush]),
            lists:droplast(Events);
        {'DOWN', Monitor, process, Reader, Reason} ->
            error({reader, Reason})
    end.

suspend(Pid) -> true = erlang:suspend_process(Pid).
resume(Pid) -> true = erlang:resume_process(Pid).

waiting() ->
    receive Fun -> Fun(), waiting() end.

do(Pid, Fun) ->
    Self = self(),
    Ref = make_ref(),
    Pid ! fun() -> Fun(), Self ! Ref end,
    receive Ref -> ok end.

%% What happens to one process is told in its order, with all that belongs to it.
every_kind(_Config) ->
    Sub = subscribe(#{}),
    Peer = spawn(fun waiting/0),
    Pid = spawn(fun waiting/0),
    do(Pid, fun() -> register(a_name, self()), unregister(a_name), link(Peer), unlink(Peer) end),
    ok = lineage_nif:mark(Pid, host),
    ok = lineage_nif:set_guardian(Pid, Peer),
    {ok, 0} = lineage_nif:scope(Pid, 7),
    do(Pid, fun() -> link(Peer) end),
    Pid ! fun() -> exit({boom, 1}) end,
    Monitor = monitor(process, Peer),
    receive {'DOWN', Monitor, process, Peer, {boom, 1}} -> ok end,
    Events = so_far(Sub),
    Self = self(),
    ?assertMatch([#{kind := birth, parent := Self, initial_call := {erlang, apply, 2}, scope := 0, generation := _, flags := [suspect]},
                  #{kind := name, name := a_name},
                  #{kind := name, name := undefined},
                  #{kind := link, peer := Peer, guardian := true},
                  #{kind := unlink, peer := Peer, guardian := true},
                  #{kind := flags, scope := 0},
                  #{kind := guardian, guardian := Peer},
                  #{kind := flags, scope := 7},
                  #{kind := link, peer := Peer},
                  #{kind := exit, reason := boom, abnormal := true}], of_pid(Pid, Events)),
    [#{flags := Marked}, _] = of_kind(flags, of_pid(Pid, Events)),
    ?assert(lists:member(host, Marked)),
    ?assertEqual([], of_kind(gap, Events)),
    %% Each has its time, and they come in its order; the numbers go up.
    Times = [Ns || #{ns := Ns} <- Events],
    ?assertEqual(Times, lists:sort(Times)),
    ?assertEqual(lists:seq(1, 11) -- [2], [No || #{no := No} <- of_pid(Pid, Events)]),
    ?assertMatch([#{reason := boom}], of_kind(exit, of_pid(Peer, Events))).

births_are_those_of_the_census(_Config) ->
    Sub = subscribe(#{kinds => [birth]}),
    Scope = lineage_scope:open(stream),
    Pids = [spawn(fun waiting/0) || _ <- lists:seq(1, 3000)],
    ok = lineage_scope:close(Scope),
    Births = [Birth || #{pid := Pid} = Birth <- so_far(Sub), lists:member(Pid, Pids)],
    ?assertEqual(Pids, [Pid || #{pid := Pid} <- Births]),
    Told = [maps:with([pid, parent, initial_call, generation, scope, site], Birth) || Birth <- Births],
    Known = [(maps:with([pid, parent, initial_call, generation, scope], Record))#{site => element(1, maps:get(site, Record))} ||
                Pid <- Pids, Record <- [lineage_nif:record(Pid)]],
    ?assertEqual(Known, Told),
    ?assertEqual([Scope], lists:usort([S || #{scope := S} <- Told])),
    [exit(Pid, kill) || Pid <- Pids],
    ok = lineage_scope:forget(Scope).

%% Of a process that has a link nothing more is known than that it is dead, when somebody looks.
what_is_shed_is_swept(_Config) ->
    Sub = subscribe(#{kinds => [birth, swept, exit]}),
    Self = self(),
    Pid = spawn_link(fun() -> Self ! {self(), up}, receive stop -> ok end end),
    receive {Pid, up} -> ok end,
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    _ = lineage_nif:sweep(),
    ?assertMatch([#{kind := birth}, #{kind := swept}], of_pid(Pid, so_far(Sub))).

%% Of one storm each subscriber has what its filter lets pass, and that whole.
filters(_Config) ->
    Filters = [[Kind] || Kind <- [birth, link, unlink, exit, name]] ++ [[exit, name], [birth, link]],
    All = subscribe(#{}),
    Some = [{Kinds, subscribe(#{kinds => Kinds})} || Kinds <- Filters],
    Pids = [spawn(fun waiting/0) || _ <- lists:seq(1, 200)],
    [do(Pid, fun() -> register(a_name, self()), unregister(a_name), link(hd(Pids)), unlink(hd(Pids)) end) || Pid <- tl(Pids)],
    [exit(Pid, kill) || Pid <- Pids],
    await(fun() -> not lists:any(fun is_process_alive/1, Pids) end),
    Mark = spawn(fun waiting/0),
    do(Mark, fun() -> register(a_mark, self()), link(hd(Pids) == self() orelse whereis(init)), unlink(whereis(init)) end),
    exit(Mark, done),
    IsLast = fun(Event) -> maps:get(kind, Event) =:= exit andalso maps:get(pid, Event) =:= Mark end,
    Events = until(All, IsLast),
    Marked = fun(Kinds, #{pid := Pid, kind := Kind}) -> Pid =:= Mark andalso Kind =:= lists:last(Kinds) end,
    [begin
         Wanted = upto([Event || #{kind := Kind} = Event <- Events, lists:member(Kind, Kinds)], fun(E) -> Marked(Kinds, E) end),
         Told = until(Sub, fun(E) -> Marked(Kinds, E) end),
         %% Others' processes may be born before the last has subscribed.
         %% The clock's rate is known better with time: a tick is told by it when it is decoded.
         Ours = fun(Any) -> [maps:remove(ns, Event) || #{pid := Pid} = Event <- Any, lists:member(Pid, [Mark | Pids])] end,
         ?assertEqual({Kinds, Ours(Wanted)}, {Kinds, Ours(Told)}),
         ?assertEqual([], [K || #{kind := K} <- Told, not lists:member(K, Kinds)])
     end || {Kinds, Sub} <- Some].

upto(Events, Is) ->
    {Before, [That | _]} = lists:splitwith(fun(Event) -> not Is(Event) end, Events),
    Before ++ [That].

filter_by_site(_Config) ->
    Here = fun here/0,
    There = fun there/0,
    [First, Other] = [Here(), There()],
    [{Site, _, _}, {Elsewhere, _, _}] = [maps:get(site, lineage_nif:record(Pid)) || Pid <- [First, Other]],
    ?assertNotEqual(Site, Elsewhere),
    Sub = subscribe(#{sites => [Site]}),
    Both = subscribe(#{sites => [Elsewhere, Site], kinds => [birth]}),
    Pids = [Make() || Make <- [Here, There, There, Here]],
    [begin
         Monitor = monitor(process, Pid),
         exit(Pid, kill),
         receive {'DOWN', Monitor, process, Pid, _} -> ok end
     end || Pid <- Pids],
    Last = Here(),
    Events = until(Sub, fun(Event) -> is_birth_of(Last, Event) end),
    ?assertEqual([lists:nth(1, Pids), lists:nth(4, Pids), Last], [Pid || #{pid := Pid} <- of_kind(birth, Events)]),
    ?assertEqual(lists:sort([lists:nth(1, Pids), lists:nth(4, Pids)]), lists:sort([Pid || #{pid := Pid} <- of_kind(exit, Events)])),
    ?assertEqual(Pids ++ [Last], [Pid || #{pid := Pid} <- until(Both, fun(Event) -> is_birth_of(Last, Event) end)]),
    [exit(Pid, kill) || Pid <- [First, Other, Last]].

%% Not in tail position: each has its line.
here() ->
    Pid = spawn(fun waiting/0),
    true = is_process_alive(Pid),
    Pid.

there() ->
    Pid = spawn(fun waiting/0),
    true = is_process_alive(Pid),
    Pid.

%% From the moment on in which it is in the scope.
filter_by_scope(_Config) ->
    Outside = spawn(fun waiting/0),
    Scope = lineage_scope:open(a),
    Sub = subscribe(#{scopes => [Scope], kinds => [birth, exit]}),
    Inside = spawn(fun waiting/0),
    ok = lineage_scope:close(Scope),
    _ = sentinel(),
    exit(Outside, kill),
    exit(Inside, kill),
    Events = until(Sub, fun(#{kind := Kind}) -> Kind =:= exit end),
    ?assertMatch([#{kind := birth, pid := Inside, scope := Scope}, #{kind := exit, pid := Inside}], Events),
    ?assertEqual(timeout, lineage_stream:next(Sub, 50)),
    ok = lineage_scope:forget(Scope).

%% By what it runs, and by where it was spawned.
filter_by_application(_Config) ->
    Module = stream_guest,
    {ok, Module, Code} = compile:forms([{attribute, 1, module, Module}, {attribute, 1, export, [{run, 0}]},
                                        {function, 2, run, 0, [{clause, 2, [], [], [{atom, 2, ok}]}]}]),
    {module, Module} = code:load_binary(Module, "stream_guest.erl", Code),
    ok = application:load({application, Module, [{vsn, "1"}, {modules, [Module, never_loaded_module]}]}),
    Sub = subscribe(#{application => Module, kinds => [birth]}),
    Stdlib = subscribe(#{applications => [Module, stdlib], kinds => [birth]}),
    _ = sentinel(),
    Guests = [spawn(Module, run, []) || _ <- lists:seq(1, 3)],
    Proc = proc_lib:spawn(timer, sleep, [0]),
    Last = spawn(Module, run, []),
    IsLast = fun(Event) -> is_birth_of(Last, Event) end,
    ?assertEqual(Guests ++ [Last], [Pid || #{pid := Pid} <- until(Sub, IsLast)]),
    Both = [Pid || #{pid := Pid} <- until(Stdlib, IsLast)],
    ?assertEqual(Guests ++ [Proc, Last], [Pid || Pid <- Both, lists:member(Pid, [Proc, Last | Guests])]),
    ok = application:unload(Module),
    code:delete(Module), code:purge(Module).

%% A storm is no reason to be sent more than was granted.
credit_is_never_exceeded(_Config) ->
    Sub = subscribe(#{credit => 2, batch => 10}),
    Port = lineage_stream:port(Sub),
    Workers = start_storm(),
    await(fun() -> maps:get(buffered, lineage_stream:counts(Sub)) > 1000 end),
    await(fun() -> batches(Port) >= 2 end),
    ?assertEqual(2, batches(Port)),
    ok = lineage:grant(Sub, 3),
    await(fun() -> batches(Port) >= 5 end),
    ?assertEqual(5, batches(Port)),
    await(fun() -> maps:get(dropped, lineage_stream:counts(Sub)) > 1000 end),
    ?assertEqual(5, batches(Port)),
    stop_storm(Workers),
    Sizes = [byte_size(Batch) div 32 || {lineage_events, P, Batch} <- messages(), P =:= Port],
    ?assertEqual(5, length(Sizes)),
    ?assert(lists:all(fun(Size) -> Size > 0 andalso Size =< 10 end, Sizes)).

messages() ->
    element(2, process_info(self(), messages)).

batches(Port) ->
    length([P || {lineage_events, P, _} <- messages(), P =:= Port]).

%% Its gaps have their places and their numbers, by what another one has been told.
a_slow_one_has_its_gap_in_place(_Config) ->
    Wish = #{kinds => [exit]},
    Whole = reader(Wish#{kinds => [exit, birth]}),
    Slow = subscribe(Wish#{buffer => 50, batch => 16, credit => 1}),
    storm(?STORM div 10),
    await(fun() -> #{dropped := Dropped} = lineage_stream:counts(Slow), Dropped > 0 end),    % the pump is a thread of its own
    ok = lineage:grant(Slow, 1),
    storm(50),
    All = untimed(of_kind(exit, read(Whole))),
    ?assertEqual([], of_kind(gap, All)),
    Told = untimed(drained(Slow)),
    Gaps = of_kind(gap, Told),
    ?assertMatch([_, _ | _], Gaps),
    ?assertEqual([buffer], lists:usort([Where || #{where := Where} <- Gaps])),
    %% From the first that both have.
    {_, From} = lists:splitwith(fun(Event) -> Event =/= hd(Told) end, All),
    aligned(Told, From).

%% The same event may be 1 ns apart when it is read again: how long a tick takes is known better by then.
untimed(Events) ->
    [maps:remove(ns, Event) || Event <- Events].

%% Takes what is there until nothing is for half a second: of a subscriber whose events have an end.
drained(Sub) ->
    case lineage_stream:next(Sub, 500) of
        {ok, Events} -> Events ++ drained(Sub);
        timeout -> []
    end.

%% What the slow one was told behind the end of the other's is not compared.
aligned([#{kind := gap, missing := Missing} | Told], All) ->
    case length(All) of
        Length when Length < Missing -> ok;
        _ -> aligned(Told, lists:nthtail(Missing, All))
    end;
aligned([Event | Told], [Event | All]) ->
    aligned(Told, All);
aligned(_Told, []) ->
    ok;
aligned([], All) ->
    ?assertEqual([], All).

%% Others are told all meanwhile; and so is it, when it goes on, or how much it has missed.
a_suspended_one(_Config) ->
    Wish = #{kinds => [birth]},
    Whole = reader(Wish),
    Stopped = reader(Wish#{buffer => 1000, batch => 100}),
    suspend(Stopped),
    storm(?STORM),
    All = read(Whole),
    ?assertEqual([], of_kind(gap, All)),
    ?assert(length(All) >= ?WORKERS * ?STORM),
    {message_queue_len, Queued} = process_info(Stopped, message_queue_len),
    ?assert(Queued =< 4),
    resume(Stopped),
    %% With its buffer full it would miss the one that it is to read up to.
    await(fun() -> maps:get(buffered, lineage_stream:counts(get(Stopped))) =:= 0 end),
    Told = read(Stopped),
    Missing = lists:sum([N || #{missing := N} <- of_kind(gap, Told)]),
    ?assert(Missing > 0),
    %% Its own birth is none of its, the other's sentinel is.
    ?assertEqual(2 * length(All), halves(Told) + Missing).

%% How many events the births are that were told.
halves(Events) ->
    lists:sum([case Event of
                   #{kind := birth, scope := _} -> 2;
                   #{kind := gap} -> 0;
                   #{kind := Kind} when Kind =:= birth; Kind =:= born -> 1
               end || Event <- Events]).

death_in_mid_batch(_Config) ->
    %% The pump's port comes with the first subscriber, and stays.
    ok = lineage:unsubscribe(subscribe(#{})),
    Ports = length(erlang:ports()),
    Workers = start_storm(),
    Self = self(),
    [begin
         {Pid, Monitor} = spawn_monitor(fun() ->
             {ok, Sub} = lineage:subscribe(#{batch => 1 + N rem 50, credit => 1000}),
             {ok, _} = lineage_stream:next(Sub, infinity),
             Self ! {self(), took},
             {ok, _} = lineage_stream:next(Sub, infinity),
             receive after infinity -> ok end
         end),
         receive {Pid, took} -> exit(Pid, kill) end,
         receive {'DOWN', Monitor, process, Pid, killed} -> ok end
     end || N <- lists:seq(1, scale(50, 1000))],
    stop_storm(Workers),
    %% Who comes after them has their places, and all that happens.
    Whole = reader(#{kinds => [birth]}),
    storm(?STORM div 10),
    ?assertEqual([], of_kind(gap, read(Whole))),
    unlink(Whole),
    exit(Whole, kill),
    await(fun() -> length(erlang:ports()) =:= Ports end).

%% By its owner and by another process.
closed_under_load(_Config) ->
    Whole = reader(#{kinds => [birth]}),
    Workers = start_storm(),
    Subs = [subscribe(#{batch => 32}) || _ <- lists:seq(1, 5)],
    [{ok, _} = lineage_stream:next(Sub, infinity) || Sub <- Subs],
    [First, Second | Others] = Subs,
    ok = lineage:unsubscribe(First),
    ok = lineage:unsubscribe(First),
    {Closer, Monitor} = spawn_monitor(fun() -> true = port_close(lineage_stream:port(Second)) end),
    receive {'DOWN', Monitor, process, Closer, normal} -> ok end,
    ?assertEqual(closed, upto_closed(Second)),
    ?assertEqual(closed, lineage_stream:counts(Second)),
    ?assertMatch({error, {not_attached, _}}, lineage:grant(Second, 1)),
    [?assertMatch({ok, [_ | _]}, lineage_stream:next(Sub, infinity)) || Sub <- Others],
    stop_storm(Workers),
    ?assertEqual([], of_kind(gap, read(Whole))),
    ?assertEqual(0, batches(lineage_stream:port(First))).

upto_closed(Sub) ->
    case lineage_stream:next(Sub, infinity) of
        {ok, _} -> upto_closed(Sub);
        Closed -> Closed
    end.

pump() ->
    [Pump] = [Port || Port <- erlang:ports(), erlang:port_info(Port, name) =:= {name, "lineage pump"}],
    Pump.

%% Its subscribers hear it; the next one has another.
pump_closed_under_load(_Config) ->
    Workers = start_storm(),
    [begin
         Sub = subscribe(#{batch => 100}),
         {ok, _} = lineage_stream:next(Sub, infinity),
         true = Close(pump()),
         ?assertEqual(closed, upto_closed(Sub))
     end || Close <- [fun port_close/1, fun(Pump) -> exit(Pump, kill) end, fun port_close/1]],
    stop_storm(Workers),
    Sub = subscribe_again(),
    ?assertMatch({ok, _}, begin _ = sentinel(), lineage_stream:next(Sub, infinity) end).

%% The session may not have heard yet that its pump was closed.
subscribe_again() ->
    case lineage:subscribe(#{}) of
        {ok, Sub} -> put(subscriptions, [Sub | put_back()]), Sub;
        {error, {_, _}} -> receive after 5 -> subscribe_again() end
    end.

%% OTP waits until the last port is closed; events come until then.
unload_with_a_port_open(_Config) ->
    Sub = subscribe(#{kinds => [birth]}),
    ok = lineage_pump:load(),
    ok = erl_ddll:unload("lineage"),
    Pid = sentinel(),
    _ = until(Sub, fun(Event) -> is_birth_of(Pid, Event) end),
    {Loader, Monitor} = spawn_monitor(fun() -> ok = lineage_pump:load() end),
    receive {'DOWN', Monitor, process, Loader, normal} -> ok end,
    Workers = start_storm(),
    ok = lineage:detach(),
    stop_storm(Workers),
    ?assertEqual(closed, upto_closed(Sub)),
    {ok, _} = lineage:attach(#{exits => all}),
    Again = subscribe(#{}),
    _ = sentinel(),
    ?assertMatch({ok, _}, lineage_stream:next(Again, infinity)).

%% The driver goes with who has loaded it, but for the port that is still open.
%% Under a supervisor of its own, which has restarted none for another test.
session_is_killed(_Config) ->
    ok = application:stop(lineage),
    {ok, _} = lineage:attach(#{exits => all, sites => exact}),
    [begin
         Sub = subscribe(#{batch => 50}),
         Workers = start_storm(),
         {ok, _} = lineage_stream:next(Sub, infinity),
         Session = whereis(lineage_session),
         Monitor = monitor(process, Session),
         exit(Session, kill),
         receive {'DOWN', Monitor, process, Session, killed} -> ok end,
         ?assertEqual(closed, upto_closed(Sub)),
         stop_storm(Workers),
         await(fun() -> is_pid(whereis(lineage_session)) end),
         {ok, _} = lineage:attach(#{exits => all})
     end || _ <- lists:seq(1, 3)],
    Sub = subscribe(#{}),
    _ = sentinel(),
    ?assertMatch({ok, _}, lineage_stream:next(Sub, infinity)).

%% Nothing stays behind: a buffer is 2 MiB.
open_and_close(_Config) ->
    Warm = subscribe(#{}),
    ok = lineage:unsubscribe(Warm),
    Before = {Ports, _} = {length(erlang:ports()), length(processes())},
    Memory = erlang:memory(total),
    Workers = start_storm(),
    [begin
         {ok, Sub} = lineage:subscribe(#{credit => N rem 3}),
         N rem 5 =:= 0 andalso ({ok, _} = (lineage:grant(Sub, 1) =:= ok) andalso lineage_stream:next(Sub, infinity)),
         ok = lineage:unsubscribe(Sub)
     end || N <- lists:seq(1, scale(500, 10000))],
    stop_storm(Workers),
    await(fun() -> {length(erlang:ports()), length(processes())} =:= Before orelse length(erlang:ports()) =:= Ports end),
    ?assertEqual([], [Message || {lineage_events, _, _} = Message <- messages()]),
    erlang:garbage_collect(),
    await(fun() -> erlang:memory(total) < Memory + 64 * 1048576 end).

%% The last events, then the news.
detach_while_subscribed(_Config) ->
    Sub = subscribe(#{kinds => [birth]}),
    Pid = sentinel(),
    ok = lineage:detach(),
    _ = until(Sub, fun(Event) -> is_birth_of(Pid, Event) end),
    ?assertEqual(closed, upto_closed(Sub)),
    ?assertEqual(closed, lineage_stream:next(Sub, infinity)),
    ?assertEqual(closed, lineage_stream:counts(Sub)),
    ?assertEqual(ok, lineage:unsubscribe(Sub)),
    {ok, _} = lineage:attach(#{exits => all}),
    %% One without credit hears it when it has taken what is its own.
    Late = subscribe(#{credit => 0, batch => 5, kinds => [birth]}),
    [_ | _] = Pids = [sentinel() || _ <- lists:seq(1, 20)],
    ok = lineage:detach(),
    ?assertEqual(timeout, lineage_stream:next(Late, 0)),
    ok = lineage:grant(Late, 1),
    {ok, [#{pid := First} | _]} = lineage_stream:next(Late, infinity),
    ?assertEqual(hd(Pids), First),
    ?assertEqual(closed, upto_closed(Late)).

%% What belongs to a session that has ended is not told from the next one's tables.
attached_again(_Config) ->
    Sub = subscribe(#{kinds => [birth]}),
    Port = lineage_stream:port(Sub),
    Pid = sentinel(),
    Batch = receive {lineage_events, Port, B} -> B end,
    [#{pid := Pid, ns := Ns, initial_call := {erlang, apply, 2}}] = lineage_event:decode(Batch),
    ?assert(is_integer(Ns)),
    ok = lineage:detach(),
    Unknown = [#{pid => Pid, ns => undefined, initial_call => undefined}],
    Keys = maps:keys(hd(Unknown)),
    ?assertEqual(Unknown, [maps:with(Keys, Event) || Event <- lineage_event:decode(Batch)]),
    {ok, _} = lineage:attach(),
    ?assertEqual(Unknown, [maps:with(Keys, Event) || Event <- lineage_event:decode(Batch)]).

eight_and_no_more(_Config) ->
    [First | _] = [subscribe(#{kinds => [birth]}) || _ <- lists:seq(1, 8)],
    {error, {subscribers_full, Sentence}} = lineage:subscribe(#{}),
    ?assertMatch({match, _}, re:run(Sentence, "8 subscribers.*unsubscribe")),
    ok = lineage:unsubscribe(First),
    Next = subscribe(#{kinds => [birth]}),
    ?assertMatch({error, {subscribers_full, _}}, lineage:subscribe(#{})),
    Pid = sentinel(),
    [?assertMatch([#{pid := Pid}], until(Sub, fun(Event) -> is_birth_of(Pid, Event) end)) ||
        Sub <- [Next | tl(lists:reverse(put_back()))], Sub =/= First, Sub =/= Next].

%% A port may be given to another process, as any.
handed_over(_Config) ->
    Sub = subscribe(#{kinds => [birth], credit => 0}),
    Self = self(),
    Heir = spawn_link(fun() ->
        receive go -> ok end,
        ok = lineage:grant(Sub, 1),
        Self ! {self(), lineage_stream:next(Sub, infinity)},
        receive stop -> ok end
    end),
    true = port_connect(lineage_stream:port(Sub), Heir),
    unlink(lineage_stream:port(Sub)),
    Pid = sentinel(),
    Heir ! go,
    receive {Heir, {ok, [#{pid := Of} | _]}} -> ?assert(Of =:= Heir orelse Of =:= Pid) end,
    ?assertError({lineage, not_owner}, lineage_stream:next(Sub, 0)),
    Heir ! stop.

bad_options(_Config) ->
    Bad = [{[], "a map of options"}, {#{kind => [birth]}, "the options kinds, sites"}, {#{kinds => birth}, "birth, link"},
           {#{kinds => []}, "one or more"}, {#{kinds => [gap]}, "one or more"}, {#{kinds => [birth | exit]}, "one or more"},
           {#{sites => [0]}, "1 to 64"}, {#{sites => lists:seq(1, 65)}, "1 to 64"}, {#{sites => []}, "1 to 64"},
           {#{scopes => [-1]}, "1 to 64"}, {#{scopes => [16#100000000]}, "1 to 64"}, {#{application => "kernel"}, "the name"},
           {#{applications => []}, "one or more"}, {#{credit => -1}, "from 0"}, {#{credit => 16#100000000}, "from 0"},
           {#{batch => 0}, "1 to 1024"}, {#{batch => 1025}, "1 to 1024"}, {#{buffer => 0}, "1 to 65536"},
           {#{buffer => 65537}, "1 to 65536"}, {#{buffer => infinity}, "1 to 65536"}],
    [begin
         {error, {bad_argument, Sentence}} = lineage:subscribe(Options),
         ?assertMatch({_, {match, _}}, {Options, re:run(Sentence, Wanted)})
     end || {Options, Wanted} <- Bad],
    {error, {unknown_application, Unknown}} = lineage:subscribe(#{application => no_such_application}),
    ?assertMatch({match, _}, re:run(Unknown, "application:load")),
    Modules = [list_to_atom("stream_module_" ++ integer_to_list(N)) || N <- lists:seq(1, 513)],
    ok = application:load({application, stream_many, [{vsn, "1"}, {modules, Modules}]}),
    {error, {too_many_modules, Many}} = lineage:subscribe(#{application => stream_many}),
    ?assertMatch({match, _}, re:run(Many, "513 modules.*512")),
    ok = application:unload(stream_many),
    ?assertEqual([], [Port || Port <- erlang:ports(), erlang:port_info(Port, name) =:= {name, "lineage subscriber"}]).

bad_uses(_Config) ->
    Sub = subscribe(#{kinds => [birth]}),
    [?assertError({lineage, bad_argument}, lineage:grant(Sub, N)) || N <- [0, -1, 16#100000000, a, 1.0]],
    [?assertError(function_clause, lineage_stream:next(Other, 0)) || Other <- [self(), a, {}]],
    ?assertEqual(timeout, lineage_stream:next(Sub, 0)),
    ?assertEqual(timeout, lineage_stream:next(Sub, 1)),
    Self = self(),
    spawn_link(fun() -> Self ! {other, caught(fun() -> lineage_stream:next(Sub, 0) end)} end),
    receive {other, {'EXIT', {{lineage, Tag}, _}}} -> ?assertEqual(not_owner, Tag) end,
    ?assertError({lineage, bad_argument}, lineage_stream:open(#{kinds => 1})).

not_attached(_Config) ->
    ok = lineage:detach(),
    {error, {not_attached, Sentence}} = lineage:subscribe(#{}),
    ?assertMatch({match, _}, re:run(Sentence, "lineage:attach")),
    ?assertError({lineage, not_attached}, lineage_stream:open(#{})),
    ok = application:stop(lineage),
    ?assertMatch({error, {not_attached, _}}, lineage:subscribe(#{})).

%% Whatever is in a binary: it is a batch, or badarg.
bad_batches(_Config) ->
    Sub = subscribe(#{}),
    Port = lineage_stream:port(Sub),
    storm(20),
    Batch = receive {lineage_events, Port, B} -> B end,
    Flip = fun(At) ->
               <<Before:At/binary, Byte, After/binary>> = Batch,
               [<<Before/binary, (Byte bxor (1 bsl Bit)), After/binary>> || Bit <- lists:seq(0, 7)]
           end,
    Flipped = lists:append([Flip(At) || At <- lists:seq(0, min(byte_size(Batch), 640) - 1)]),
    Random = [rand:bytes(32 * rand:uniform(4)) || _ <- lists:seq(1, scale(2000, 100000))],
    Told = [caught(fun() -> lineage_event:decode(Binary) end) || Binary <- Flipped ++ Random],
    ?assertEqual([], [Term || Term <- Told, not is_list(Term), not is_badarg(Term)]),
    %% Terms that are whole can be printed and sent anywhere.
    _ = term_to_binary(Told),
    [?assertError(badarg, lineage_event:decode(Bad)) ||
        Bad <- [<<1>>, rand:bytes(31), binary:copy(<<0:256>>, 4097), a, [], self(), <<1:7>>]],
    ?assertEqual([], lineage_event:decode(<<>>)).

is_badarg({'EXIT', {badarg, _}}) -> true;
is_badarg(_) -> false.

%% Whatever a port is told.
bad_controls(_Config) ->
    Sub = subscribe(#{kinds => [birth]}),
    Ports = [pump(), lineage_stream:port(Sub)],
    Data = fun() -> rand:bytes(rand:uniform(64) - 1) end,
    [begin
         %% 1 and 2 of a subscriber are its own business.
         Op = case rand:uniform(4) of 1 -> rand:uniform(20) + 2; _ -> rand:uniform(16#ffffffff) - 1 end,
         <<Status, _/binary>> = port_control(Port, Op, Data()),
         ?assert(Status =:= 0 orelse Status =:= 1)
     end || Port <- Ports, _ <- lists:seq(1, scale(2000, 100000))],
    [<<1, _/binary>> = port_control(Port, 1, Data()) || Port <- Ports, _ <- lists:seq(1, 500)],
    Fresh = open_port({spawn_driver, "lineage subscriber"}, [binary]),
    [<<1, _/binary>> = port_control(Fresh, 1, <<1:32/native, 1:32/native, (Data())/binary>>) || _ <- lists:seq(1, 2000)],
    true = port_command(Fresh, <<"anything">>),
    true = port_close(Fresh),
    ?assertError(ebusy, open_port({spawn_driver, "lineage pump"}, [])),
    ?assertError(badarg, open_port({spawn_driver, "lineage"}, [])),
    ?assertError(badarg, open_port({spawn_driver, "lineage other"}, [])),
    Pid = sentinel(),
    ?assertMatch([_ | _], until(Sub, fun(Event) -> is_birth_of(Pid, Event) end)).

%% As many births as the census counts.
sums(_Config) ->
    {Sub, Before} = at_once(fun() -> subscribe(#{kinds => [birth], credit => 16}) end),
    Workers = [spawn_monitor(fun() -> births(?STORM) end) || _ <- lists:seq(1, ?WORKERS)],
    Storm = gathered(Sub, Workers, []),
    {Sentinel, After} = at_once(fun sentinel/0),
    Events = Storm ++ until(Sub, fun(Event) -> is_birth_of(Sentinel, Event) end),
    Missing = lists:sum([N || #{missing := N} <- Events]),
    ?assertEqual(2 * (After + 1 - Before), halves(Events) + Missing),
    #{delivered := Delivered} = lineage_stream:counts(Sub),
    ?assert(Delivered >= 2 * ?WORKERS * ?STORM).

%% And so where most of them find no room.
sums_with_gaps(_Config) ->
    {Sub, Before} = at_once(fun() -> subscribe(#{kinds => [birth], credit => 1, buffer => 100, batch => 30}) end),
    storm(?STORM),
    {_, After} = at_once(fun sentinel/0),
    await(fun() -> #{dropped := Dropped} = lineage_stream:counts(Sub), Dropped > ?STORM end),    % the pump is a thread of its own
    Told = drained(Sub),
    {Last, Total} = at_once(fun sentinel/0),
    Events = Told ++ until(Sub, fun(Event) -> is_birth_of(Last, Event) end),
    Missing = lists:sum([N || #{missing := N, where := buffer} <- Events]),
    ?assertEqual([], [Gap || #{kind := gap, where := ring} = Gap <- Events]),
    ?assert(Total > After),
    ?assertEqual(2 * (Total + 1 - Before), halves(Events) + Missing).

%% Does it at a moment when nobody else is born, with the number of births before it.
at_once(Do) ->
    Births = births_now(),
    Result = Do(),
    Own = case is_pid(Result) of true -> 1; false -> 0 end,
    case births_now() of
        Now when Now =:= Births + Own -> {Result, Births};
        _ ->
            Own =:= 0 andalso lineage:unsubscribe(Result),
            at_once(Do)
    end.

births_now() ->
    maps:get(births, lineage_nif:info()).

gathered(_Sub, [], Events) ->
    Events;
gathered(Sub, [{Pid, Monitor} | Left] = Workers, Events) ->
    receive
        {'DOWN', Monitor, process, Pid, normal} -> gathered(Sub, Left, Events)
    after 0 ->
        case lineage_stream:next(Sub, 10) of
            {ok, More} -> gathered(Sub, Workers, Events ++ More);
            timeout -> gathered(Sub, Workers, Events)
        end
    end.

%% A node that ends in a storm ends well, with a subscriber that reads and one that does not.
halt_in_a_storm(_Config) ->
    Erl = os:find_executable("erl"),
    Code = "{ok, _} = lineage:attach(#{exits => all}), {ok, S} = lineage:subscribe(#{}), {ok, _} = lineage:subscribe(#{credit => 1}),"
        " F = fun F() -> spawn(fun() -> ok end), F() end, [spawn(F) || _ <- [1, 2]],"
        " [{ok, _} = lineage_stream:next(S, infinity) || _ <- lists:seq(1, 20)], ",
    Ways = ["halt(7).", "halt(7, [{flush, false}]).", "lineage:detach(), halt(7).", "erlang:halt(7, [{flush, true}]).",
            "spawn(fun() -> lineage:detach() end), halt(7).", "init:stop(7), receive after infinity -> ok end."],
    [begin
         Port = open_port({spawn_executable, Erl}, [{args, ["-noinput", "-pa", filename:dirname(code:which(lineage)), "-eval", Code ++ Way]},
                                                    {env, [{"ERL_CRASH_DUMP", "/dev/null"}]}, exit_status, stderr_to_stdout, binary]),
         ?assertEqual({Way, 7}, {Way, status(Port)})
     end || Way <- Ways, _ <- lists:seq(1, scale(1, 20))].

status(Port) ->
    receive
        {Port, {data, _}} -> status(Port);
        {Port, {exit_status, Status}} -> Status
    end.

%% @doc The leaks of a living node: orphans that linger, places and supervisors whose live population only grows, and
%% scopes that ended with survivors.
%%
%% While Lineage is attached, a process of its own looks each 15 seconds at how many live at each site and below each
%% supervisor, and feeds {@link lineage_growth}, which has the method and its errors. A look is one walk of the
%% census on a dirty scheduler; where one takes longer than 150 ms, they are further apart, so that a hundredth of the
%% time goes into them at most. The 500 sites and the 500 supervisors with most live processes are followed, in 8 MB at
%% most; how many there are beside these is told. What was there before attach has no site, but a supervisor.
-module(lineage_leaks).

-behaviour(gen_server).

-export([leaks/1, check_options/3]).
-export([start_link/0, subscribe/0, sample/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([leaks/0, options/0, growing/0]).

-type options() :: #{min_age_ms => non_neg_integer(),    % of orphans, 60,000
                     ignore => [{module(), atom(), arity() | '_'} | atom() | binary()]}.

-type leaks() :: #{orphans := [lineage_report:orphan()], growing := [growing()], scopes := [lineage_leak:report()],
                   sampling := sampling()}.

-type growing() :: #{leak := site | supervisor,
                     first := non_neg_integer(), last := non_neg_integer(), live := non_neg_integer(),
                     slope := float(), windows := pos_integer(), window_ms := pos_integer(), confidence := float(),
                     values := [non_neg_integer(), ...],
                     site => lineage_site:site(), births => non_neg_integer(),
                     pid => pid(), generation => non_neg_integer(), name => atom(), label => atom() | binary(),
                     initial_call => mfa() | undefined, app => atom()}.
%% `values' are the windows that it was told from, oldest first, each `window_ms' long: how many lived through it;
%% `first' and `last' are the ends of these, `live' is how many there are now. `slope': a minute. `confidence': for one
%% look at this one; it is a lower bound. A site has `site' and `births' (since attach), a supervisor the rest.

-type sampling() :: #{windows := non_neg_integer(), window_ms := pos_integer(), followed := non_neg_integer(),
                      dropped := non_neg_integer()}.
%% `windows' so far: fewer than 16 say nothing. `dropped': sites and supervisors beyond those that are followed.

-type key() :: {site, pos_integer()} | {supervisor, pid(), non_neg_integer()}.

-define(EVERY_MS, 15000).
-define(AGE_MS, 30000).        % no more than a window is long
-define(FOLLOWED, 500).        % sites, and as many supervisors
-define(LISTED, 2000).         % supervisors in one sample
-define(GONE, 40).             % windows without a process, and it is followed no more
-define(LINGERS_MS, 60000).

%% The window that is not closed yet, and the last sample.
-record(population, {series = lineage_growth:new() :: lineage_growth:series(),
                     least :: non_neg_integer() | undefined,
                     fell = false :: boolean(),
                     live = 0 :: non_neg_integer(),
                     old = 0 :: non_neg_integer(),
                     births = 0 :: non_neg_integer(),
                     empty = 0 :: non_neg_integer()}).    % windows

-record(st, {followed = #{} :: #{key() => #population{}},
             dropped = 0 :: non_neg_integer(),
             previous_us = 0 :: non_neg_integer(),
             first_at :: integer() | undefined,           % monotonic ms, as all times here
             window_at = 0 :: integer(),
             windows = 0 :: non_neg_integer(),
             subscribers = #{} :: #{reference() => pid()},
             timer :: reference() | undefined}).

%% @doc See `lineage:leaks/1'.
-spec leaks(options()) -> leaks().
leaks(Options) ->
    case check_options("leaks", Options, []) of
        ok -> lineage_report:attached([Options], fun() -> current(Options) end);
        {error, Cause} -> lineage_error:raise(Cause, [Options])
    end.

current(Options) ->
    Ignore = maps:get(ignore, Options, []),
    {Orphans, _} = lineage_report:orphans_report(#{min_age_ms => maps:get(min_age_ms, Options, ?LINGERS_MS), ignore => Ignore}),
    {Growing, Sampling} = growing(),
    #{orphans => Orphans, growing => [G || G <- described(Growing), not ignored(G, Ignore)],
      scopes => lineage_scope:ended(), sampling => Sampling}.

%% Between a crash of the sampler and the session's next check there is none.
growing() ->
    try gen_server:call(?MODULE, growing, infinity)
    catch exit:{_, {gen_server, call, _}} -> {[], sampling(#st{})}
    end.

%% @private What is wrong with these options of `Function', which also has `More', each with its check.
-spec check_options(string(), term(), [{atom(), fun((term()) -> boolean()), string()}]) ->
    ok | {error, lineage_error:cause()}.
check_options(Function, Options, More) when is_map(Options) ->
    Known = [{min_age_ms, fun(Ms) -> is_integer(Ms) andalso Ms >= 0 end, "milliseconds, 0 or more"},
             {ignore, fun is_ignore/1, "a list of {Module, Function, Arity}, registered names and labels"} | More],
    Wrong = [case lists:keyfind(Key, 1, Known) of
                 {Key, _, Wanted} -> {bad_argument, [Function, "'s option ", atom_to_list(Key)], Value, Wanted};
                 false -> {bad_argument, Function, Key, ["the options ", lineage_error:list([K || {K, _, _} <- Known])]}
             end || {Key, Value} <- lists:sort(maps:to_list(Options)), not is_good(Key, Value, Known)],
    case Wrong of
        [] -> ok;
        [Cause | _] -> {error, Cause}
    end;
check_options(Function, Options, _More) ->
    {error, {bad_argument, Function, Options, "a map of options"}}.

is_good(Key, Value, Known) ->
    case lists:keyfind(Key, 1, Known) of
        {Key, Check, _} -> Check(Value);
        false -> false
    end.

is_ignore([]) -> true;
is_ignore([{M, F, A} | Rest]) when is_atom(M), is_atom(F) -> (A =:= '_' orelse is_integer(A)) andalso is_ignore(Rest);
is_ignore([Name | Rest]) when is_atom(Name); is_binary(Name) -> is_ignore(Rest);
is_ignore(_) -> false.

%% What grows, as people know it

described([]) ->
    [];
described(Growing) ->
    Sites = case [Id || {{site, Id}, _} <- Growing] of
                [] -> #{};
                Ids -> maps:from_list([{Id, lineage_site:describe(Site)} || {{Id, _, _} = Site, _, _, _, _} <- lineage_nif:sites(),
                                                                           lists:member(Id, Ids)])
            end,
    Infos = maps:from_list(lineage_proc:info_many([Pid || {{supervisor, Pid, _}, _} <- Growing], lineage_describe:items(), 300)),
    Apps = lineage_describe:apps(),
    Rows = lists:append([row(Key, Row, Sites, Infos, Apps) || {Key, Row} <- Growing]),
    lists:sort(fun(#{slope := A}, #{slope := B}) -> A >= B end, Rows).

row({site, Id}, Row, Sites, _Infos, _Apps) ->
    [Row#{leak => site, site => Site} || #{Id := Site} <- [Sites]];
row({supervisor, Pid, Generation}, Row, _Sites, Infos, Apps) ->
    case lineage_nif:record(Pid) of
        #{generation := Generation, initial_call := Born} ->
            Info = case Infos of #{Pid := #{} = Known} -> Known; _ -> #{} end,
            Call = lineage_describe:initial_call(Born, Info),
            [(maps:remove(births, Row))#{leak => supervisor, pid => Pid, generation => Generation, initial_call => Call,
                                         name => lineage_describe:name(Info), label => lineage_describe:label(Info),
                                         app => lineage_describe:app(maps:get(group_leader, Info, undefined), Call, Apps)}];
        _ ->
            []
    end.

ignored(#{leak := supervisor, initial_call := Call, name := Name, label := Label}, Ignore) ->
    lists:any(fun(I) -> is_call(I, Call) orelse I =:= Name orelse I =:= Label end, Ignore);
ignored(#{site := Site}, Ignore) ->
    Within = case Site of
                 #{module := Module, function := {F, A}} -> {Module, F, A};
                 _ -> undefined
             end,
    lists:any(fun(I) -> lists:any(fun(Call) -> is_call(I, Call) end, [Within, maps:get(runs, Site, undefined), maps:get(spawner, Site, undefined)])
              end, Ignore).

is_call({M, F, '_'}, {M, F, _}) -> true;
is_call({_, _, _} = Call, Call) -> true;
is_call(_, _) -> false.

%% The sampler

%% @private Linked to the session, which outlives it, and which it does not outlive.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @private The caller gets `{lineage_leaks, sampled}' after each sample, until it dies.
-spec subscribe() -> ok.
subscribe() ->
    gen_server:call(?MODULE, {subscribe, self()}, infinity).

%% @private For tests: all begins anew, and from now on there is a sample when it is asked for, at the time that is said,
%% in which every process is old enough.
-spec sample(AtMs :: integer()) -> ok.
sample(AtMs) ->
    gen_server:call(?MODULE, {sample, AtMs}, infinity).

-spec init([]) -> {ok, #st{}}.
init([]) ->
    %% What the lists of one sample are made of is garbage by the next.
    process_flag(fullsweep_after, 0),
    self() ! sample,
    {ok, #st{}}.

-spec handle_call(term(), gen_server:from(), #st{}) -> {reply, term(), #st{}}.
handle_call(growing, _From, St) ->
    {reply, {growing(St), sampling(St)}, St};
handle_call({subscribe, Pid}, _From, #st{subscribers = Subscribers} = St) ->
    {reply, ok, St#st{subscribers = Subscribers#{monitor(process, Pid) => Pid}}};
handle_call({sample, At}, _From, #st{timer = undefined} = St) ->
    {reply, ok, sampled(At, 0, St)};
handle_call({sample, At}, _From, #st{timer = Timer, subscribers = Subscribers}) ->
    _ = erlang:cancel_timer(Timer),
    {reply, ok, sampled(At, 0, #st{subscribers = Subscribers})};
handle_call(_Other, _From, St) ->
    {reply, {error, badarg}, St}.

-spec handle_cast(term(), #st{}) -> {noreply, #st{}}.
handle_cast(_Other, St) ->
    {noreply, St}.

-spec handle_info(term(), #st{}) -> {noreply, #st{}}.
handle_info(sample, St) ->
    Start = now_ms(),
    St1 = sampled(Start, ?AGE_MS, St),
    Pause = max(?EVERY_MS, 100 * (now_ms() - Start)),
    {noreply, St1#st{timer = erlang:send_after(Pause, self(), sample)}};
handle_info({'DOWN', Monitor, process, _, _}, #st{subscribers = Subscribers} = St) ->
    {noreply, St#st{subscribers = maps:remove(Monitor, Subscribers)}};
handle_info(_Other, St) ->
    {noreply, St}.

sampled(At, AgeMs, #st{previous_us = Previous} = St) ->
    case lineage_nif:population(AgeMs, Previous, ?LISTED) of
        {Sites, Supervisors, AtUs, Others} ->
            St1 = close(At, follow(Sites, Supervisors, Others, St#st{previous_us = AtUs})),
            [Pid ! {?MODULE, sampled} || Pid <- maps:values(St1#st.subscribers)],
            St1;
        {error, _} ->
            %% No memory at this moment, or the session is just ending.
            St
    end.

follow(Sites, Supervisors, Others, #st{followed = Followed} = St) ->
    SiteRows = [{{site, Id}, {Live, Old, Aged, Births}} || {Id, Live, Old, Aged, Births} <- Sites],
    SupRows = [{{supervisor, Pid, Generation}, {Live, Old, Aged, 0}} || {Pid, Generation, Live, Old, Aged} <- Supervisors],
    {Known1, Dropped1} = admit(SiteRows, [K || {site, _} = K <- maps:keys(Followed)], Followed),
    {Known2, Dropped2} = admit(SupRows, [K || {supervisor, _, _} = K <- maps:keys(Known1)], Known1),
    Rows = maps:from_list(SiteRows ++ SupRows),
    Now = maps:map(fun(Key, P) -> counted(maps:get(Key, Rows, {0, 0, 0, P#population.births}), P) end, Known2),
    St#st{followed = Now, dropped = Dropped1 + Dropped2 + Others}.

%% The largest first. One that is followed gives way only to one that has twice as many, and not while it grows.
admit(Rows, Keys, Followed) ->
    New = lists:reverse(lists:keysort(2, [Row || {Key, _} = Row <- Rows, not is_map_key(Key, Followed)])),
    Smallest = case length(New) + length(Keys) > ?FOLLOWED of
                   true -> lists:sort([{(map_get(Key, Followed))#population.live, Key}
                                       || Key <- Keys, not lineage_growth:is_growing((map_get(Key, Followed))#population.series)]);
                   false -> []
               end,
    admit(New, ?FOLLOWED - length(Keys), Smallest, Followed, 0).

admit([{Key, _} | New], Room, Smallest, Followed, Dropped) when Room > 0 ->
    admit(New, Room - 1, Smallest, Followed#{Key => #population{}}, Dropped);
admit([{Key, {Live, _, _, _}} | New], 0, [{Least, Small} | Smallest], Followed, Dropped) when Live > 2 * Least + 10 ->
    admit(New, 0, Smallest, (maps:remove(Small, Followed))#{Key => #population{}}, Dropped + 1);
admit(New, _Room, _Smallest, Followed, Dropped) ->
    {Followed, Dropped + length(New)}.

%% Who was old, and is not among those that have become old since, has died.
counted({Live, Old, Aged, Births}, #population{least = Least, old = Before, fell = Fell} = P) ->
    P#population{live = Live, old = Old, births = Births,
                 least = case Least of undefined -> Old; _ -> min(Least, Old) end,
                 fell = Fell orelse (Least =/= undefined andalso Before + Aged > Old)}.

close(At, #st{first_at = undefined} = St) ->
    St#st{first_at = At, window_at = At};
close(At, #st{window_at = From, windows = Windows, followed = Followed} = St) ->
    case At - From >= lineage_growth:window_ms() of
        false -> St;
        true ->
            Closed = maps:map(fun(_Key, P) -> closed(P) end, Followed),
            St#st{window_at = At, windows = Windows + 1,
                  followed = maps:filter(fun(_Key, #population{empty = Empty}) -> Empty < ?GONE end, Closed)}
    end.

%% The next window begins with the sample that ends this one.
closed(#population{series = Series, least = Least, fell = Fell, live = Live, old = Old, empty = Empty} = P) ->
    P#population{series = lineage_growth:add(Least, Live - Old, Fell, Series), least = Old, fell = false,
                 empty = case Live of 0 -> Empty + 1; _ -> 0 end}.

%% Where samples are further apart than a window is long, so is each window.
growing(#st{followed = Followed} = St) ->
    Longer = window_ms(St) / lineage_growth:window_ms(),
    [{Key, Growth#{slope := Slope / Longer, window_ms := round(Ms * Longer), live => P#population.live,
                   births => P#population.births}}
     || {Key, P} <- maps:to_list(Followed),
        #{slope := Slope, window_ms := Ms} = Growth <- [lineage_growth:growth(P#population.series)]].

sampling(#st{windows = Windows, followed = Followed, dropped = Dropped} = St) ->
    #{windows => Windows, window_ms => round(window_ms(St)), followed => map_size(Followed), dropped => Dropped}.

window_ms(#st{windows = 0}) -> lineage_growth:window_ms();
window_ms(#st{windows = Windows, first_at = First, window_at = Last}) -> max(lineage_growth:window_ms(), (Last - First) / Windows).

now_ms() -> erlang:monotonic_time(millisecond).

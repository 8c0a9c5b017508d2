%% @private Starts that took longer than the target, each with its cause where that is known.
%%
%% The NIF keeps the times of such starts. A cause is named only when it accounts for more than half of a start's
%% latency, the first of these that does:
%% <ol>
%% <li>`{stall, Stall}': all schedulers at once, or one in a stall as below, could have run, and the kernel ran other programs; or
%%   somebody had stopped them. Known only while `priv/lineage-probe stalls --feed' runs ({@link lineage_probe}).</li>
%% <li>`{gc, Pid}': garbage collections of the caller, the supervisor or the child, of 2 ms or longer each.</li>
%% <li>`{long_schedule, Pid}': one of the three ran for 2 ms or longer without giving its scheduler back, the child after it
%%   had acknowledged; else others did so on all schedulers at once, the one named the longest.</li>
%% <li>`queue': the supervisor was serving others, one right after the other, when the request came.</li>
%% <li>`init': the child's own, until it acknowledged, however long it ran at a time.</li>
%% <li>`{stall, Stall}' again: one scheduler was so, or was in a system call or the code of one shared library. On which scheduler
%%   the three were is not known: one of any is taken.</li>
%% </ol>
%% Else it is `unexplained'. From a queue and an init is taken away what the first two, or a stall, overlap. A stall is a
%% time in which a process of high priority that was owed a wake-up did not get it: whatever was not running
%% then, the cause may lie outside this node. What the machine takes away while a process runs looks like a long
%% schedule of that process. There are as many of these processes as schedulers, bound to none: one that is bound to a
%% scheduler can neither be asked nor killed while that is offline, and a node that stops would wait for it for ever.
%%
%% Long collections and long schedules come as messages of the VM's system monitor: from 28 on of one of our own
%% (trace:system/3), before of the node's only one, if nobody has it; it is given back after each window. They carry no
%% time but their length, and a thread of the VM hands them on: they are taken to end when they are read here, at high
%% priority, and where that explains nothing, to be the last stall that is as long. They are waited for a moment when all
%% schedulers have been heard of, and longer while a start is unexplained. One that is later still leaves it so. They are
%% asked for, and the pulses that find stalls beat, only while a window is open (see lineage_duty).
-module(lineage_outliers).

-behaviour(gen_server).

-export([start_link/0, window/1, outliers/0, holder/0, explain/5, placed/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, pulse/1]).

-export_type([outlier/0, cause/0]).

-type cause() :: {stall, lineage_probe:stall()} | {gc, pid()} | {long_schedule, pid() | port()} | queue | init | unexplained.
-type outlier() :: #{caller := pid(), supervisor := pid(), child := pid() | undefined, at := integer(),
                     latency_us := float(), queue_us := float(), work_us := float(), init_us := float(), back_us := float(),
                     busy_us := float(), stalled_us := float(), cause := cause()}.
%% `at': system time in ms. `busy_us': the part of `queue_us' in which the supervisor was known to serve others;
%% `stalled_us': the part of the latency that stalls overlap. `child' is undefined where another process than the
%% supervisor started it.

-type span() :: {FromNs :: integer(), ToNs :: integer()}.
-type event() :: {gc | long_schedule, pid() | port(), span()}.

-record(st, {source :: none | monitor | {session, term()},
             pulses :: [pid()],
             open = false :: boolean(),             % a window
             events = [] :: [event()],              % newest first, as all lists here
             stalls = [] :: [span()],
             taken = [] :: [lineage_nif:outlier()],            % not explained yet
             asked = [] :: [pid() | settled | late], % pulses that have not told their stalls
             answering = [] :: [gen_server:from()],
             again = false :: boolean(),            % another look is due after this one
             waiting = [] :: [gen_server:from()],   % for that
             outliers = [] :: [outlier()],
             timer :: reference() | undefined}).

-define(LONG_MS, 2).
-define(BEAT_MS, 1).
-define(LATE_NS, 3000000).
-define(LAG_NS, 500000000).  % of a message of the VM's, at most
-define(LOOK_MS, 1000).      % how often the NIF's ring is emptied while a window is open
-define(ANSWER_MS, 5000).    % then a look goes without the pulses that have not answered
-define(SETTLE_MS, 50).      % from the last answer until what the VM has told is here, mostly
-define(LATE_MS, 200).       % and from then until it no longer is waited for
-define(KEPT, 100).
-define(EVENTS, 5000).       % each of events and stalls

%% @doc Linked to the session.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc A window opens, or has ended.
-spec window(on | off) -> ok.
window(OnOff) ->
    gen_server:cast(?MODULE, {window, OnOff}).

%% @doc The last 100, newest first.
-spec outliers() -> [outlier()].
outliers() ->
    %% Between a crash and the session's next check there is none.
    try gen_server:call(?MODULE, outliers, infinity)
    catch exit:{_, {gen_server, call, _}} -> []
    end.

%% @doc Who else has the system monitor, so that long collections and long schedules cannot be known.
-spec holder() -> none | pid() | port().
holder() ->
    case lineage_hook:has_system() orelse erlang:system_monitor() of
        true -> none;
        undefined -> none;
        {Holder, _} -> Holder
    end.

%% The server

-spec init([]) -> {ok, #st{}}.
init([]) ->
    process_flag(priority, high),
    Pulses = [lineage_hook:vm(spawn_opt, [?MODULE, pulse, [self()], [link, {priority, high}]])
              || _ <- lists:seq(1, erlang:system_info(schedulers_online))],
    {ok, #st{source = none, pulses = Pulses}}.

-spec handle_call(term(), gen_server:from(), #st{}) -> {reply, term(), #st{}} | {noreply, #st{}}.
handle_call(outliers, From, #st{waiting = Waiting} = St) ->
    {noreply, look(St#st{waiting = [From | Waiting]})};
handle_call(_Other, _From, St) ->
    {reply, {error, badarg}, St}.

-spec handle_cast(term(), #st{}) -> {noreply, #st{}}.
handle_cast({window, on}, #st{pulses = Pulses, source = Source} = St) ->
    [Pulse ! {beat, self()} || Pulse <- Pulses],
    Open = St#st{open = true, source = listen(Source)},
    %% A look that is under way has its own timer: windows that follow each other quickly must not put it off for ever.
    {noreply, case St#st.asked of [] -> timer(?LOOK_MS, Open); _ -> Open end};
handle_cast({window, off}, #st{pulses = Pulses} = St) ->
    [Pulse ! {rest, self()} || Pulse <- Pulses],
    {noreply, look(St#st{open = false})};
handle_cast(_Other, St) ->
    {noreply, St}.

-spec handle_info(term(), #st{}) -> {noreply, #st{}}.
handle_info({monitor, Pid, long_gc, Info}, St) ->
    {noreply, event(gc, Pid, Info, St)};
handle_info({monitor, Pid, long_schedule, Info}, St) ->
    {noreply, event(long_schedule, Pid, Info, St)};
handle_info({stalls, Pulse, Stalls}, #st{asked = Asked} = St) ->
    St1 = St#st{asked = lists:delete(Pulse, Asked), stalls = lists:sublist(Stalls ++ St#st.stalls, ?EVENTS)},
    {noreply, case Asked of
                  [Pulse] when St#st.taken =:= [] -> explained([], St1);
                  [Pulse] -> timer(?SETTLE_MS, St1#st{asked = [settled]});
                  _ -> St1
              end};
handle_info({look, Timer}, #st{timer = Timer, asked = []} = St) ->
    {noreply, look(St)};
handle_info({look, Timer}, #st{timer = Timer, asked = [settled]} = St) ->
    New = explain_all(St),
    {noreply, case lists:any(fun({_, #{cause := Cause}}) -> Cause =:= unexplained end, New) of
                  true -> timer(?LATE_MS, St#st{asked = [late]});
                  false -> explained(New, St#st{asked = []})
              end};
handle_info({look, Timer}, #st{timer = Timer} = St) ->
    {noreply, explained(explain_all(St), St#st{asked = []})};
handle_info(_Other, St) ->
    {noreply, St}.

%% A port may be scheduled for long too.
event(What, Pid, Info, #st{events = Events} = St) ->
    To = erlang:monotonic_time(nanosecond),
    From = To - 1000000 * proplists:get_value(timeout, Info, 0),
    St#st{events = [{What, Pid, {From, To}} | Events]}.

%% When a pulse answers, what held its scheduler has let go of it.
look(#st{asked = [], pulses = Pulses, taken = Taken, waiting = Waiting, events = Events} = St) ->
    [Pulse ! {look, self()} || Pulse <- Pulses],
    New = case lineage_nif:outliers() of
              {error, _} -> [];
              List -> List
          end,
    timer(?ANSWER_MS, St#st{asked = Pulses, taken = New ++ Taken, answering = Waiting, again = false, waiting = [],
                            events = lists:sublist(Events, ?EVENTS)});
look(St) ->
    St#st{again = true}.

explained(New, #st{answering = Answering} = St) ->
    Newest = lists:reverse(lists:keysort(1, New)),
    Outliers = lists:sublist([Outlier || {_, Outlier} <- Newest] ++ St#st.outliers, ?KEPT),
    [gen_server:reply(From, Outliers) || From <- Answering],
    settle(St#st{outliers = Outliers, taken = [], answering = []}).

%% Each with its beginning. What the VM told may have come late: where it explains nothing as it was read, it is looked
%% at in its probable place.
explain_all(#st{taken = []}) ->
    [];
explain_all(#st{taken = Taken, events = Events, stalls = Stalls}) ->
    Schedulers = erlang:system_info(schedulers_online),
    Kernel = [Stall || #{thread := scheduler} = Stall <- lineage_probe:stalls()],
    [case explain(Outlier, Events, Stalls, Kernel, Schedulers) of
         #{cause := unexplained} ->
             Its = [Stall || {F, T} = Stall <- Stalls, F < lists:last(Times), T > T0],
             Placed = [placed(Event, Its) || {_, _, {_, To}} = Event <- Events, To > T0, To < lists:last(Times) + ?LAG_NS],
             {T0, explain(Outlier, Placed, Stalls, Kernel, Schedulers)};
         Explained ->
             {T0, Explained}
     end || #{times := [T0 | _] = Times} = Outlier <- Taken].

settle(#st{again = true} = St) ->
    look(St);
settle(#st{open = true} = St) ->
    timer(?LOOK_MS, St);
settle(#st{source = Source} = St) ->
    St#st{source = forget(Source), events = [], stalls = [], timer = undefined}.

timer(Ms, St) ->
    Timer = make_ref(),
    erlang:send_after(Ms, self(), {look, Timer}),
    St#st{timer = Timer}.

%% The VM's word on long collections and long schedules

listen(none) ->
    try lineage_hook:has_system() of
        true ->
            Session = lineage_hook:session(session_create, [lineage_system, self(), []]),
            [lineage_hook:session(system, [Session, What, ?LONG_MS]) || What <- [long_gc, long_schedule]],
            {session, Session};
        false ->
            Self = self(),
            case erlang:system_monitor() of
                Holder when Holder =:= undefined; element(1, Holder) =:= Self -> take_monitor();
                _ -> none
            end
    catch
        error:_ -> none
    end;
listen(Source) ->
    Source.

%% Somebody may have taken it since it was looked at.
take_monitor() ->
    Self = self(),
    case erlang:system_monitor(Self, [{long_gc, ?LONG_MS}, {long_schedule, ?LONG_MS}]) of
        {Holder, _} = Theirs when Holder =/= Self -> erlang:system_monitor(Theirs), none;
        _ -> monitor
    end.

forget({session, Session}) ->
    lineage_hook:session(session_destroy, [Session]),
    none;
forget(monitor) ->
    Self = self(),
    case erlang:system_monitor() of
        {Self, _} -> erlang:system_monitor(undefined);
        _ -> ok
    end,
    none;
forget(none) ->
    none.

%% @private Beats, and notes when it was woken late.
-spec pulse(pid()) -> no_return().
pulse(Owner) ->
    receive
        {beat, Owner} -> beat(Owner, []);
        {look, Owner} -> Owner ! {stalls, self(), []}, pulse(Owner);
        {rest, Owner} -> pulse(Owner)
    end.

beat(Owner, Stalls) ->
    Due = erlang:monotonic_time(nanosecond) + 1000000 * ?BEAT_MS,
    Message = receive {What, Owner} -> What after ?BEAT_MS -> none end,
    Now = erlang:monotonic_time(nanosecond),
    Told = [{Due, Now} || Now - Due > ?LATE_NS] ++ Stalls,
    case Message of
        look -> Owner ! {stalls, self(), Told}, beat(Owner, []);
        rest -> rest(Owner, Told);
        _ -> beat(Owner, Told)
    end.

%% Until it has told its stalls.
rest(Owner, Stalls) ->
    receive
        {look, Owner} -> Owner ! {stalls, self(), Stalls}, pulse(Owner);
        {beat, Owner} -> beat(Owner, Stalls)
    end.

%% Causes

%% @private An event at the time of the stall that it was, if it can be told: what takes a scheduler keeps its pulse.
-spec placed(event(), [span()]) -> event().
placed({What, Pid, {From, To}} = Event, Stalls) ->
    Length = To - From,
    %% The last: a pulse may beat again a little later than the message is read.
    Before = [{T, F} || {F, T} <- Stalls, T < To + ?LATE_NS, T > To - ?LAG_NS, T - F > Length - ?LATE_NS],
    case Before of
        [] -> Event;
        _ -> {_, Began} = lists:max(Before), {What, Pid, {Began, Began + Length}}
    end.

%% @doc An outlier of the NIF with its cause; what the VM has told, stalls, those that the kernel has seen, and how many
%% schedulers there are.
-spec explain(lineage_nif:outlier(), [event()], [span()], [lineage_probe:stall()], pos_integer()) -> outlier().
explain(#{times := [T0, T1, T2, T3, T4], busy := Busy} = Outlier, Events, Stalls, Kernel, Schedulers) ->
    Whole = {T0, T4},
    Near = [Event || {_, _, Span} = Event <- Events, covered(Whole, [Span]) > 0],
    Us = fun(Ns) -> Ns / 1000 end,
    (maps:with([caller, supervisor, child], Outlier))#{
        at => erlang:convert_time_unit(T0 + erlang:time_offset(nanosecond), nanosecond, millisecond),
        latency_us => Us(T4 - T0), queue_us => Us(T1 - T0), work_us => Us(T2 - T1), init_us => Us(T3 - T2), back_us => Us(T4 - T3),
        busy_us => Us(Busy), stalled_us => Us(covered(Whole, Stalls)),
        cause => cause(Outlier, Near, Stalls, Kernel, Schedulers)}.

cause(#{times := [T0, T1, T2, T3, T4], busy := Busy, caller := Caller, supervisor := Supervisor, child := Child}, Events, Stalls, Kernel, Schedulers) ->
    Whole = {T0, T4},
    Three = [Caller, Supervisor, Child],
    Of = fun(What, Pid) -> [Span || {W, P, Span} <- Events, W =:= What, P =:= Pid] end,
    Others = lists:usort([P || {long_schedule, P, _} <- Events, not lists:member(P, Three)]),
    Aside = lists:append([Of(gc, P) || P <- Three]) ++ [Span || {long_schedule, P, Span} <- Events, P =/= Child] ++ Stalls,
    Seen = [Stall || #{span := Span} = Stall <- Kernel, covered(Whole, [Span]) > 0],
    Outside = [Stall || Stall <- Seen, is_outside(Stall)],
    Spans = [Span || #{span := Span} <- Outside],
    %% Where a pulse was late too, one of them kept the node from running.
    Sure = covered(Whole, at_once(Spans, Schedulers) ++ [Span || Span <- Spans, 2 * covered(Span, Stalls) > covered(Span, [Span])]),
    Stalled = [{{stall, Stall}, covered(Whole, [Span])} || #{span := Span} = Stall <- Seen],
    Causes = [{{stall, longest_stall(Whole, Outside)}, Sure} || Outside =/= []] ++ [{{gc, P}, covered(Whole, Of(gc, P))} || P <- Three]
        ++ [{{long_schedule, P}, covered(Span, Of(long_schedule, P))} || {P, Span} <- [{Caller, Whole}, {Supervisor, Whole}, {Child, {T3, T4}}]]
        ++ [{{long_schedule, longest(Whole, [{P, Of(long_schedule, P)} || P <- Others])},
             covered(Whole, at_once(lists:append([Of(long_schedule, P) || P <- Others]), Schedulers))} || Others =/= []]
        ++ [{queue, uncovered({T1 - min(Busy, T1 - T0), T1}, Aside)}, {init, uncovered({T2, T3}, Aside)}]
        ++ Stalled,
    hd([Cause || {Cause, Ns} <- Causes, 2 * Ns > T4 - T0] ++ [unexplained]).

%% Another program than this node had the CPU, or its schedulers were stopped.
is_outside(#{kind := waited, os_pid := OsPid}) -> integer_to_list(OsPid) =/= os:getpid();
is_outside(#{kind := Kind}) -> Kind =:= stopped.

longest_stall(Whole, Stalls) ->
    {_, Stall} = lists:max([{covered(Whole, [Span]), Stall} || #{span := Span} = Stall <- Stalls]),
    Stall.

longest(Whole, Pids) ->
    {_, Pid} = lists:max([{covered(Whole, Spans), P} || {P, Spans} <- Pids]),
    Pid.

%% How much of a span these cover together, and how much they do not.
covered({From, To}, Spans) ->
    Clipped = lists:sort([{max(From, F), min(To, T)} || {F, T} <- Spans, F < To, T > From]),
    {Sum, _} = lists:foldl(fun({F, T}, {Before, End}) -> {Before + max(0, T - max(F, End)), max(T, End)} end, {0, From}, Clipped),
    Sum.

uncovered({From, To} = Span, Spans) ->
    To - From - covered(Span, Spans).

%% The times in which at least so many of these go on.
at_once(Spans, Many) ->
    %% Where one ends as another begins, the end is first.
    Steps = lists:sort(lists:append([[{F, 1}, {T, -1}] || {F, T} <- Spans])),
    at_once(Steps, 0, Many).

at_once([{At, Step}, {Next, _} = Then | Steps], Before, Many) ->
    Depth = Before + Step,
    [{At, Next} || Depth >= Many, Next > At] ++ at_once([Then | Steps], Depth, Many);
at_once(_, _, _) ->
    [].

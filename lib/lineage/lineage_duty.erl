%% @private When overhead is measured: the windows in which the trace points of starts are armed.
%%
%% `{duty, Percent}': the points are armed, and 20 ms later a window takes what begins within 100 ms, then follows that to
%% its end, for 5 s at most, with the points still armed. (The first calls at a fresh point take longer: they would be one in
%% a hundred of a quiet supervisor's.) The next one begins when `Percent' of the time was armed on average: the pause is drawn evenly from
%% half to one and a half of what that takes, so that its moment does not depend on the load. What arming and disarming
%% takes counts as armed. `continuous': one window without an end.
%%
%% The session owns it, and calls: it is told when to begin (attached, or the hook is back) and when to stop (detached,
%% yielded, or the hook is gone). A window that is stopped counts what it had not seen the end of as unfinished.
-module(lineage_duty).

-export([new/2, start/2, stop/2, handle/3, told/1, phase/1, pause_ms/3]).

-export_type([duty/0, mode/0]).

-type mode() :: {duty, Percent :: number()} | continuous.

-record(duty, {mode :: mode(),
               options :: map(),
               phase = stopped :: stopped | pause | settle | on | drain,
               started :: integer() | undefined,      % monotonic us, as all times here
               opened :: integer() | undefined,
               until = 0 :: integer(),                % of draining
               timer :: reference() | undefined,
               windows = 0 :: non_neg_integer(),
               armed = 0 :: non_neg_integer(),
               observed = 0 :: non_neg_integer()}).

-opaque duty() :: #duty{}.

-define(SETTLE_MS, 20).
-define(WINDOW_MS, 100).
-define(DRAIN_MS, 5000).
-define(LOOK_MS, 20).        % how often what is pending is asked for
-define(RETRY_MS, 5000).     % after points were refused
-define(LONGEST_MS, 86400000).

-type told() :: #{windows := non_neg_integer(), armed_ms := non_neg_integer(), observed_ms := non_neg_integer()}.

%% @doc Nothing is measured yet.
-spec new(mode(), map()) -> duty().
new(Mode, Options) ->
    lineage_points:load(),
    #duty{mode = Mode, options = Options}.

%% @doc Begins with a window, unless it has begun; the calling process gets `{duty, Timer}' for {@link handle/3}.
-spec start(lineage_points:points(), duty()) -> {[lineage_error:cause()], lineage_points:points(), duty()}.
start(Points, #duty{phase = stopped} = Duty) ->
    open(Points, Duty#duty{started = now_us()});
start(Points, Duty) ->
    {[], Points, Duty}.

%% @doc Ends the window, if one is open; none begins until {@link start/2}.
-spec stop(lineage_points:points(), duty()) -> {lineage_points:points(), duty()}.
stop(Points, #duty{phase = stopped} = Duty) ->
    {Points, Duty};
stop(Points, #duty{started = Started} = Duty) ->
    {Points1, Duty1} = close(Points, Duty),
    {Points1, Duty1#duty{phase = stopped, started = undefined, timer = undefined,
                         observed = Duty1#duty.observed + now_us() - Started}}.

%% @doc The timer has run out.
-spec handle(reference(), lineage_points:points(), duty()) -> {[lineage_error:cause()], lineage_points:points(), duty()}.
handle(Timer, Points, #duty{timer = Timer, phase = pause} = Duty) ->
    open(Points, Duty);
handle(Timer, Points, #duty{timer = Timer, phase = settle} = Duty) ->
    _ = lineage_nif:timing(on),
    {[], Points, timer(?WINDOW_MS, Duty#duty{phase = on})};
handle(Timer, Points, #duty{timer = Timer, phase = on} = Duty) ->
    drained(lineage_nif:timing(drain), Points, Duty#duty{phase = drain, until = now_us() + 1000 * ?DRAIN_MS});
handle(Timer, Points, #duty{timer = Timer, phase = drain} = Duty) ->
    drained(lineage_nif:timing(drain), Points, Duty);
handle(_Earlier, Points, Duty) ->
    {[], Points, Duty}.

%% @doc The windows so far and the running one, for how long points were armed, and in how long a time.
-spec told(duty()) -> told().
told(#duty{windows = Windows, armed = Armed, observed = Observed, started = Started, opened = Opened}) ->
    Now = now_us(),
    Since = fun(undefined) -> 0; (From) -> Now - From end,
    #{windows => Windows, armed_ms => (Armed + Since(Opened)) div 1000, observed_ms => (Observed + Since(Started)) div 1000}.

%% @doc `settle': the points are armed, nothing is taken yet; `on': what begins is taken; `drain': it is followed to its end.
-spec phase(duty()) -> stopped | pause | settle | on | drain.
phase(#duty{phase = Phase}) -> Phase.

%% @private How long a pause follows what was armed for so long; `Random' is between 0 and 1.
-spec pause_ms(ArmedUs :: non_neg_integer(), Percent :: number(), Random :: float()) -> non_neg_integer().
pause_ms(ArmedUs, Percent, Random) ->
    %% Below, it is the longest one anyway, and the quotient might overflow.
    Least = max(Percent, 1.0e-12),
    min(?LONGEST_MS, ceil(ArmedUs / 1000 * (100 / Least - 1) * (0.5 + Random))).

%% Windows

open(Points, #duty{options = Options, mode = Mode} = Duty) ->
    Opened = Duty#duty{opened = now_us(), windows = Duty#duty.windows + 1},
    lineage_outliers:window(on),
    case lineage_points:arm(overhead, Options, Points) of
        {ok, Armed} ->
            {[], Armed, begin_window(Mode, Opened)};
        {error, Cause} ->
            {Points1, Duty1} = close(Points, Opened),
            {[Cause], Points1, timer(?RETRY_MS, Duty1#duty{phase = pause})}
    end.

begin_window(continuous, Duty) ->
    _ = lineage_nif:timing(on),
    Duty#duty{phase = on, timer = undefined};
begin_window({duty, _Percent}, Duty) ->
    timer(?SETTLE_MS, Duty#duty{phase = settle}).

drained(Pending, Points, #duty{until = Until} = Duty) ->
    case is_integer(Pending) andalso Pending > 0 andalso now_us() < Until of
        true ->
            {[], Points, timer(?LOOK_MS, Duty)};
        false ->
            {Points1, Duty1} = close(Points, Duty),
            {[], Points1, pause(Duty, Duty1)}
    end.

close(Points, #duty{opened = undefined} = Duty) ->
    {Points, Duty};
close(Points, #duty{opened = Opened, armed = Armed} = Duty) ->
    _ = lineage_nif:timing(off),
    Disarmed = lineage_points:disarm(overhead, Points),
    lineage_outliers:window(off),
    {Disarmed, Duty#duty{opened = undefined, armed = Armed + now_us() - Opened}}.

pause(#duty{armed = Before}, #duty{armed = Armed, mode = {duty, Percent}} = Duty) ->
    timer(pause_ms(Armed - Before, Percent, rand:uniform()), Duty#duty{phase = pause}).

timer(Ms, Duty) ->
    Timer = make_ref(),
    erlang:send_after(Ms, self(), {duty, Timer}),
    Duty#duty{timer = Timer}.

now_us() -> erlang:monotonic_time(microsecond).

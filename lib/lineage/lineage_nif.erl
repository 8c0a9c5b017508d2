%% @doc The NIF: the tracer's two callbacks, and the census's queries. Internal: use {@link lineage}.
%%
%% Any term may be passed to any function; one of a wrong type raises `badarg', and a query without
%% an open census answers `{error, closed}'. Pids are local ones. The functions marked dirty run on
%% a dirty CPU scheduler and wait for one another.
-module(lineage_nif).

-export([enabled/3, trace/5]).
-export([dir/0]).
-export([open/1, close/0, info/0, sweep/0]).
-export([classify/4, mark/2, unmark/2, named/2, pid/1, seed/5, set_guardian/2]).
-export([pids/0, record/1, records/0, guardians/0, confirm/2, verdict/1, recent/1]).
-export([wrapper/2, sites/0, population/3]).
-export([scope/2, scoped/1]).
-export([timing/1, timings/0, outliers/0]).
-export([events/1]).
-export([site/1, journal/4, journal_drop/0]).
-on_load(init/0).

-type class() :: root | runtime | host | service | supervisor | own.
-type flag() :: class() | suspect | linked | escaped | foreign | seeded | remote_link.
-type parent() :: pid() | {node(), non_neg_integer()} | undefined.
-type closed() :: {error, closed}.
-type entry() :: #{
    pid := pid(),
    generation := non_neg_integer(),
    parent := parent(),
    guardian := pid() | undefined,
    initial_call := mfa() | undefined,
    spawner := mfa() | undefined,
    site := site(),
    scope := non_neg_integer(),
    age_ms := non_neg_integer(),
    flags := [flag()]
}.
-type row() ::
    {pid(), non_neg_integer(), parent(), pid() | undefined, mfa() | undefined, [flag()],
        non_neg_integer()}.
%% What was spawned, and the frame that called (exact sites, else `undefined'; so are a file and a line
%% that are not known). `undefined': there before attach, sites are off, or their table was full.
-type site() :: undefined | {Id :: pos_integer(), what(), undefined | frame()}.
-type what() ::
    {closure, module() | undefined, Index :: non_neg_integer(), Uniq :: non_neg_integer()}
    | {call, mfa() | undefined, Spawner :: mfa() | undefined}.
-type frame() :: {module(), atom(), arity(), string() | undefined, pos_integer() | undefined}.
-type dead() :: #{
    pid := pid(),
    generation := non_neg_integer(),
    parent := parent(),
    initial_call := mfa() | undefined,
    spawner := mfa() | undefined,
    site := site(),
    lifetime_us := non_neg_integer(),
    ago_ms := non_neg_integer(),
    reason := atom(),
    abnormal := boolean(),
    monitored := no | yes | unknown,
    scope := non_neg_integer()
}.
%% Of a start `latency', from call to return, is the sum of `queue' (until the supervisor turns to it), `work' (until the
%% birth), `init' (until the child acknowledges) and `back'; `overhead' is all but `init'. A restart is from the child's
%% exit to its successor's birth, and to its acknowledgement; a stop's overhead is its latency less the child's own. Of a
%% critical path: `latency' of its calls, and how much of each its process spent in `starts'.
-type part() ::
    latency | overhead | queue | work | init | back | restart_birth | restart_ack | stop_latency | stop_overhead | starts.
%% In ns: the sum of all values, and how many were at or above `Low' and below `High', ascending, where any were. A bucket
%% is at most 1/128 of `Low' wide from 512 ns to 73 minutes; below it is 4 ns wide, above there is one, up to 2^64 - 1.
-type distribution() ::
    {Sum :: non_neg_integer(), [{Low :: non_neg_integer(), High :: pos_integer(), Count :: pos_integer()}]}.
-type timings() :: #{
    series := [{{supervisor, pid()} | gone | others | {critical, mfa()}, #{part() => distribution()}}],
    failed := non_neg_integer(),
    elsewhere := non_neg_integer(),
    unfinished := non_neg_integer(),
    lost := non_neg_integer(),
    outliers_lost := non_neg_integer()
}.
%% What comes behind pid and number: of a birth its parent, site and flags (`seeded': there before attach); `born', which
%% follows it, has scope, generation and initial call; of a link or unlink its peer (`undefined': on another node) and
%% whether it is its guardian from now on, or was; of an exit its reason's atom, and whether it was abnormal; of flags all
%% that it has, and its scope. Names and reasons are `undefined' when there were too many different ones. A gap's events are
%% missing at this place: a ring, or the subscriber's own buffer, was full.
-type event() ::
    {birth, ns(), pid(), no(), parent(), SiteId :: pos_integer() | undefined, [flag()]}
    | {born, ns(), pid(), no(), Scope :: non_neg_integer(), Generation :: non_neg_integer(), mfa() | undefined}
    | {link | unlink, ns(), pid(), no(), Peer :: pid() | undefined, boolean()}
    | {exit, ns(), pid(), no(), Reason :: atom(), Abnormal :: boolean()}
    | {swept, ns(), pid(), no()}
    | {name, ns(), pid(), no(), Name :: atom()}
    | {flags, ns(), pid(), no(), [flag()], Scope :: non_neg_integer()}
    | {guardian, ns(), pid(), no(), pid() | undefined}
    | {gap, ns(), Missing :: non_neg_integer(), ring | buffer}.
-type ns() :: non_neg_integer() | undefined.
-type no() :: 0..65535.
%% `times': call, the supervisor turns to it, birth, acknowledgement, return, in ns of the VM's monotonic time. `busy': for
%% how long of the first stretch the supervisor had been at work for others without a pause.
-type outlier() :: #{
    caller := pid(),
    supervisor := pid(),
    child := pid() | undefined,
    times := [integer(), ...],
    busy := non_neg_integer()
}.
-export_type([part/0, distribution/0, timings/0, outlier/0]).
-export_type([event/0, ns/0, no/0]).
-export_type([class/0, flag/0, parent/0, entry/0, row/0, dead/0, site/0, what/0, frame/0]).

init() ->
    erlang:load_nif(filename:join(dir(), "lineage"), 0).

%% Where the library lies, which the port driver is in, too.
-spec dir() -> file:filename().
dir() ->
    case code:priv_dir(lineage) of
        {error, bad_name} -> filename:join([filename:dirname(code:which(?MODULE)), "..", "priv"]);
        Dir -> Dir
    end.

%% Called by the VM.
-spec enabled(atom(), term(), term()) -> trace | discard | remove.
enabled(_Tag, _Session, _Tracee) ->
    remove.

%% Called by the VM.
-spec trace(atom(), term(), term(), term(), map()) -> ok.
trace(_Tag, _Session, _Tracee, _Term, _Opts) ->
    ok.

%% Dirty. Opens the census; the caller owns it: when it dies the hook answers `remove' and melts
%% away. `Session' is the tracer's state. `enomem' also where `max_bytes' does not hold the index of
%% 4 bytes for each process of `process_limit'. With `overhead' the durations of starts, restarts and stops can be
%% measured, see timing/1: then `target_ns' is needed, above which a start is an outlier; `critical' names 16 functions at
%% most.
-spec open(#{
    exits := suspects | all,
    max_bytes := pos_integer(),
    process_limit := pos_integer(),
    monitors => exact | unknown,
    sites => off | closure | exact,
    overhead => boolean(),
    target_ns => non_neg_integer(),
    critical => [mfa()]
}) -> {ok, Session :: pos_integer()} | {error, open | enomem | pid_layout}.
open(_Options) ->
    erlang:nif_error(not_loaded).

%% Dirty. Ok also when nothing is open. All memory of the session is free when it returns.
-spec close() -> ok.
close() ->
    erlang:nif_error(not_loaded).

%% The counters. `live' counts what was not found dead yet: sweep first.
-spec info() -> #{atom() => term()} | closed().
info() ->
    erlang:nif_error(not_loaded).

%% Dirty. Removes the dead from the census, gives memory back, and returns how many were dead.
-spec sweep() -> non_neg_integer() | closed().
sweep() ->
    erlang:nif_error(not_loaded).

%% Processes whose initial call is `M:F/A' are of this class, from their birth on.
-spec classify(class(), module(), atom(), arity() | '_') -> ok | closed() | {error, enomem}.
classify(_Class, _M, _F, _A) ->
    erlang:nif_error(not_loaded).

-spec mark(pid(), class()) -> ok | dead | closed().
mark(_Pid, _Class) ->
    erlang:nif_error(not_loaded).

-spec unmark(pid(), class()) -> ok | dead | closed().
unmark(_Pid, _Class) ->
    erlang:nif_error(not_loaded).

%% Tells who follows events that a process is registered so; also of one whose registration was not seen.
-spec named(pid(), atom()) -> ok | closed().
named(_Pid, _Name) ->
    erlang:nif_error(not_loaded).

%% The process of this node whose pid is this word in the VM's memory; `badarg' for what is no pid.
-spec pid(pos_integer()) -> pid().
pid(_Word) ->
    erlang:nif_error(not_loaded).

%% A process that was there before the hook. `lost': beyond `max_bytes'.
-spec seed(pid(), pid() | undefined, pid() | undefined, mfa(), [class()]) ->
    ok | known | dead | lost | closed().
seed(_Pid, _Parent, _Guardian, _InitialCall, _Classes) ->
    erlang:nif_error(not_loaded).

%% Corrects a guardian by a link that the hook did not see.
-spec set_guardian(pid(), pid() | undefined) -> ok | dead | closed().
set_guardian(_Pid, _Guardian) ->
    erlang:nif_error(not_loaded).

%% Dirty. The live processes.
-spec pids() -> [pid()] | closed().
pids() ->
    erlang:nif_error(not_loaded).

-spec record(pid()) -> entry() | undefined | closed().
record(_Pid) ->
    erlang:nif_error(not_loaded).

%% Dirty. `{Pid, Generation, Parent, Guardian, InitialCall, Flags, AgeMs}' of each live process.
-spec records() -> [row()] | closed().
records() ->
    erlang:nif_error(not_loaded).

%% Dirty. Starts a link check and returns each guardian with its number of children (at most 65,535).
-spec guardians() -> [{pid(), pos_integer()}] | closed() | {error, enomem}.
guardians() ->
    erlang:nif_error(not_loaded).

%% Dirty. Tells the link check what `process_info(Guardian, links)' said.
-spec confirm(pid(), [pid() | port()]) -> ok | closed().
confirm(_Guardian, _Links) ->
    erlang:nif_error(not_loaded).

%% Dirty. Counts, and at most `Max' of the processes that no chain of guardians joins to a root.
-spec verdict(non_neg_integer()) ->
    {#{atom() => non_neg_integer()}, [pid()]} | closed() | {error, enomem}.
verdict(_Max) ->
    erlang:nif_error(not_loaded).

%% Dirty. The last dead that had no link, newest first, at most 1,000.
-spec recent(non_neg_integer()) -> [dead()] | closed() | {error, enomem}.
recent(_Count) ->
    erlang:nif_error(not_loaded).

%% Frames of a module (function `'_'), or of a function of it, are looked through: they spawn for their
%% caller. `enomem': there is room for 192.
-spec wrapper(module(), atom()) -> ok | closed() | {error, enomem}.
wrapper(_Module, _Function) ->
    erlang:nif_error(not_loaded).

%% Dirty. Each site with the births there since attach, the live processes, how many of those no chain
%% of guardians joins to a root, and the abnormal exits that nobody is known to have heard of.
-spec sites() ->
    [{site(), Births :: non_neg_integer(), Live :: non_neg_integer(), Orphans :: non_neg_integer(),
        Unheard :: non_neg_integer()}] | closed() | {error, enomem}.
sites() ->
    erlang:nif_error(not_loaded).

%% Puts a process into a scope, which it hands down from now on; `Former' is the one that it was in.
-spec scope(pid(), non_neg_integer()) -> {ok, Former :: non_neg_integer()} | dead | closed().
scope(_Pid, _Scope) ->
    erlang:nif_error(not_loaded).

%% Dirty. The live processes in these scopes, but for Lineage's own, and the silent failures among those
%% that were, newest first: of the last 1,000 of the node.
-spec scoped([pos_integer()]) -> {[entry()], [dead()] | {error, enomem}} | closed().
scoped(_Scopes) ->
    erlang:nif_error(not_loaded).

%% Dirty. How many live at each site where any do, and below each supervisor: of these, those that are `AgeMs' old or
%% older (or were there before attach), and of these, those that were not at `PreviousUs'. `AtUs' is when that was, in
%% microseconds since open: `PreviousUs' of the next call. Lineage's own are left out. Of supervisors those with the most
%% children are told, at most `Max', and how many `Others' have any.
-spec population(AgeMs :: non_neg_integer(), PreviousUs :: non_neg_integer(), Max :: non_neg_integer()) ->
    {[{SiteId :: pos_integer(), Live :: pos_integer(), Old :: non_neg_integer(), Aged :: non_neg_integer(),
        Births :: non_neg_integer()}],
        [{Supervisor :: pid(), Generation :: non_neg_integer(), Children :: pos_integer(), Old :: non_neg_integer(),
            Aged :: non_neg_integer()}],
        AtUs :: non_neg_integer(), Others :: non_neg_integer()}
    | closed() | {error, enomem}.
population(_AgeMs, _PreviousUs, _Max) ->
    erlang:nif_error(not_loaded).

%% Dirty. A window in which starts, restarts, stops and critical calls are timed by the trace points on them, which are to
%% be set before `on' and until `off'. `on': what begins is taken. `drain': nothing new is, and what goes on is followed.
%% `off': what still goes on is dropped and counted as unfinished. Returns how much is going on that began in the window;
%% of `off', how much was dropped. Restarts and stops are timed under `exits => all' only.
-spec timing(on | drain | off) -> Pending :: non_neg_integer() | {error, closed | off}.
timing(_Phase) ->
    erlang:nif_error(not_loaded).

%% Dirty. All that was timed since open. `gone' are supervisors that have died, merged when many have been seen; `others'
%% those beyond the 64 that are told apart. `failed' starts and stops were refused or raised, as critical calls may;
%% `elsewhere' are starts by a supervisor on another node; `lost' what found no room to be followed. These, and what is
%% unfinished, are in no distribution.
-spec timings() -> timings() | {error, closed | off}.
timings() ->
    erlang:nif_error(not_loaded).

%% Takes the starts above the target, the eldest first, of 256 at most: those beyond are counted in `outliers_lost'.
-spec outliers() -> [outlier()] | {error, closed | off}.
outliers() ->
    erlang:nif_error(not_loaded).

%% A batch that a subscriber's port sent, as events in the order in which they came: each with how many nanoseconds after
%% attach it happened and the process's own number for it, which tells the order of one process's events and wraps at 65,536.
%% What belongs to a census that is not open any more is `undefined'. At most 4,096 events.
-spec events(binary()) -> [event()].
events(_Batch) ->
    erlang:nif_error(not_loaded).

%% The site of an id; `undefined' for 0, and for one that was never given.
-spec site(non_neg_integer()) -> site() | closed().
site(_Id) ->
    erlang:nif_error(not_loaded).

%% Dirty. Makes a journal ready for the pump's OPEN, which names it by the ticket: the directory and its lock, the rings
%% in a file in `RingsDir' (or in memory: then `Rings' says why), and the dead runs of the directory, ended. One at a
%% time. `Numbers': {rings, bytes of rings at most, of a segment, of all segments, nanoseconds between syncs (0: at the end
%% of a segment, 2^64 - 1: never), OTP release, process limit}.
-spec journal(Dir :: binary(), RingsDir :: binary(), Node :: binary(), Numbers :: tuple()) ->
    {ok, Ticket :: pos_integer(), Rings :: ok | atom(),
        [{Run :: non_neg_integer(), Node :: binary(), WallNs :: non_neg_integer(), Events :: non_neg_integer(),
            Missing :: non_neg_integer()}]}
    | {error, {locked, Holder :: binary()} | {dir | lock | rings | memory, Errno :: atom()}}.
journal(_Dir, _RingsDir, _Node, _Numbers) ->
    erlang:nif_error(not_loaded).

%% Dirty. Forgets a journal that was made ready and is not opened.
-spec journal_drop() -> ok.
journal_drop() ->
    erlang:nif_error(not_loaded).

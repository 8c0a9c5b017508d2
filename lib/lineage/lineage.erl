%% @doc Lineage tells which live processes of this node nobody would stop.
%%
%% It hooks every process creation and exit, keeps a census of every live pid and its ancestry, and
%% answers three questions about each process: who stops it, who restarts it, who notices that it died.
%%
%% ```
%% 1> {ok, Info} = lineage:attach().
%% 2> lineage:print(lineage:orphans()).
%% 3> lineage:print(lineage:why(whereis(my_server))).
%% 4> lineage:detach().
%% '''
%%
%% Queries return data; {@link print/1} shows it to people. A query without a session raises
%% `{lineage, not_attached}', and the shell prints a sentence that says what to do. Times that end in
%% `_ms' are milliseconds, those in `_us' microseconds; memory is in bytes.
%%
%% == On a production node ==
%% With `exits => suspects', the default, a process costs nothing more once it has a link; a birth costs
%% a fraction of a microsecond. `exits => all' keeps every process watched, which slows message passing
%% by 12 to 40 %. Give `for' and `max_spawn_rate' as a fuse. {@link pids/0} and {@link tree/0} build
%% lists as long as the node has processes; {@link summary/0} does not.
-module(lineage).

-export([attach/0, attach/1, detach/0, yield/1]).
-export([summary/0, pids/0, orphans/0, orphans/1, recent/1, why/1, tree/0, tree/1, sites/0]).
-export([reconcile/1, scope/2, leaks/0, leaks/1, watch/1, unwatch/1, overhead/0]).
-export([subscribe/1, grant/2, unsubscribe/1]).
-export([diff/1, save/1, print/1]).

-export_type([match/0, options/0, info/0, summary/0, orphans_options/0, kind/0, name/0, error/0]).

-type match() :: {module(), atom(), arity() | '_'} | atom().
%% Names a kind of process by its initial call, or one process by its registered name.

-type options() :: #{exits => suspects | all,
                     monitors => off | exact,
                     sites => off | closure | exact,
                     wrappers => [module() | {module(), Function :: atom()}],
                     overhead => off | duty | {duty, Percent :: number()} | continuous,
                     target_ms => number(),
                     critical => [mfa()],
                     journal => lineage_journal:option(),
                     max_bytes => pos_integer(),
                     for => pos_integer(),
                     max_spawn_rate => pos_integer(),
                     progress => fun((non_neg_integer(), non_neg_integer()) -> term()),
                     runtime => [match()],
                     hosts => [match()],
                     services => [match()],
                     supervisors => [match()]}.
%% What {@link attach/1} takes; each is explained there.

-type info() :: #{session := integer(),
                  release := pos_integer(),
                  tracing := single | sessions,
                  exits := suspects | all,
                  monitors := off | exact,
                  sites := off | closure | exact,
                  wrappers := [module() | {module(), Function :: atom()}],
                  overhead := off | lineage_duty:mode(),
                  target_ms := number(),
                  critical := [mfa()],
                  journal => lineage_journal:options(),
                  max_bytes := pos_integer(),
                  for => pos_integer(),
                  max_spawn_rate => pos_integer(),
                  existing := non_neg_integer(),
                  flagged := non_neg_integer(),
                  tracers := [pid() | port() | module()],
                  sampled := [pid()],
                  unresolved := [pid()],
                  since := integer(),
                  took_ms := non_neg_integer(),
                  notes := [binary()]}.
%% What {@link attach/1} found; each key is explained there.

-type summary() :: #{live := non_neg_integer(),
                     births := non_neg_integer(),
                     existing := non_neg_integer(),
                     deaths := non_neg_integer(),
                     seen := non_neg_integer(),
                     swept := non_neg_integer(),
                     lost := non_neg_integer(),
                     orphans := non_neg_integer(),
                     orphans_checked := non_neg_integer() | undefined,
                     coverage := map() | undefined,
                     unsited := non_neg_integer(),
                     silent_failures := non_neg_integer(),
                     unheard_unknown := non_neg_integer(),
                     blind_ms := non_neg_integer(),
                     since := integer(),
                     taken_ms := integer(),
                     exits := suspects | all,
                     bytes := non_neg_integer(),
                     peak_bytes := non_neg_integer(),
                     notes := [binary()],
                     journal => lineage_journal:state(),
                     atom() => term()}.
%% What {@link summary/0} returns; each key is explained there.

-type kind() :: foreign | escaped | abandoned | detached.
%% Why an orphan is one, the first that fits.

-type orphans_options() :: #{kind => kind() | [kind()], app => atom(), min_age_ms => non_neg_integer(),
                             ignore => [match()], max => pos_integer()}.

-type name() :: pid() | atom() | string() | binary().
%% A process: a pid, a registered name, or the text of a pid (`"0.123.0"', `"<0.123.0>"').

-type error() :: {error, {Tag :: atom(), Sentence :: binary()}}.
%% The sentence says what to do next.

%% @doc Attaches with the default options.
%% @see attach/1
-spec attach() -> {ok, info()} | error().
attach() ->
    attach(#{}).

%% @doc Attaches Lineage to this node: from now on every birth and death is counted, and every process
%% that is there already is known. Starts the application by itself. The session lives on when the
%% caller dies; it ends with {@link detach/0}, with its fuse, or with the application.
%%
%% Options:
%% <dl>
%% <dt>`exits'</dt><dd>`suspects' (default): a process is watched until its first link, and costs nothing
%%   from then on. `all': every process is watched until it exits, for the time and reason of each.</dd>
%% <dt>`monitors'</dt><dd>`exact': the calls that set monitors are traced too, so that it is known whether
%%   anybody noticed an abnormal exit. `off' (default): that is `unknown'.</dd>
%% <dt>`sites'</dt><dd>Where processes are spawned, see {@link sites/0}. `closure' (default): a spawned fun
%%   tells which one it is. `exact': the calls that spawn are traced too, for the line of each; that costs
%%   a microsecond or so a spawn. `off': only what a process runs is known.</dd>
%% <dt>`wrappers'</dt><dd>Modules, and `{Module, Function}', that spawn for their caller, as `proc_lib' and `Task'
%%   do: the site is the line that calls them.</dd>
%% <dt>`overhead'</dt><dd>Whether it is measured what supervision costs, see {@link overhead/0}. `off' (default).
%%   `{duty, Percent}': at random moments, in so much of the time, above 0 and at most 50; `duty' is 2. `continuous': all
%%   the time, which makes a start some 14 to 73 % slower.</dd>
%% <dt>`target_ms'</dt><dd>What overhead is judged by; starts that take longer are looked into. 5 by default.</dd>
%% <dt>`critical'</dt><dd>At most 16 functions, `{Module, Function, Arity}', that return (no loop of a server), whose
%%   calls are measured too, with the share of them that starts take.</dd>
%% <dt>`journal'</dt><dd>A directory, or `#{dir := Dir, max_bytes => 268435456, segment_bytes => 16777216, fsync => never}':
%%   every event is recorded there, for `priv/lineage-journal', which shows the forest as it was when the node died, also by
%%   kill -9. `exits' is then `all'. The directory is made if need be, and holds one node's journal. Its oldest segments go
%%   when all would pass `max_bytes', three times `segment_bytes' or more; a segment holds a census besides, some 70 bytes for each
%%   process. `fsync': `never', `segment' (when one is full) or `{every, Ms}'; a killed node loses
%%   nothing either way, a machine that loses power what was not synced.</dd>
%% <dt>`max_bytes'</dt><dd>Bytes that the census may take, 256 MiB by default. Births beyond are counted as
%%   `lost', and not recorded.</dd>
%% <dt>`for'</dt><dd>Milliseconds after which Lineage detaches by itself. No default.</dd>
%% <dt>`max_spawn_rate'</dt><dd>Births within one second; when there are more, Lineage detaches by
%%   itself. No default. Either fuse writes a notice to the log, and the next query's error says it.</dd>
%% <dt>`progress'</dt><dd>A function of two numbers, called in the calling process while the processes
%%   that are there already are read: how many are done, and how many there are in all.</dd>
%% <dt>`runtime', `hosts', `services', `supervisors'</dt><dd>Lists that extend the built-in ones: processes
%%   that nothing supervises by design; processes that stand for their user; processes whose links tether
%%   nobody; processes that supervise others.</dd>
%% </dl>
%%
%% The map that it returns has the options, and `session' (a number), `release' (of OTP), `tracing'
%% (`sessions' on OTP 27 and later, else `single': one tracer for all tools), `existing' (processes that
%% were there already), `flagged' (those of them that are watched), `tracers' (who else traces processes),
%% `sampled' (processes with more than 10,000 links, which were not asked for them), `unresolved'
%% (processes that did not answer), `since' (system time, ms), `took_ms', and `notes': sentences on what
%% to know about other tracers.
%%
%% Errors, by tag: `bad_options', `bad_option', `already_attached', `tracer_held', `nif_missing',
%% `pid_layout', `enomem', `hook_failed', `not_started', `session_failed', `detached_meanwhile'; with a journal
%% `journal_locked', `journal_failed', `driver_missing', `pump_failed'.
-spec attach(options()) -> {ok, info()} | error().
attach(Options) ->
    case lineage_options:check(Options) of
        {ok, Checked} ->
            case application:ensure_all_started(lineage) of
                {ok, _} -> lineage_session:attach(Checked);
                {error, Reason} -> lineage_error:tagged({not_started, Reason})
            end;
        {error, Cause} ->
            lineage_error:tagged(Cause)
    end.

%% @doc Ends the session, clears every trace flag that it set, and frees all its memory. `ok' also when
%% nothing is attached.
-spec detach() -> ok.
detach() ->
    lineage_session:detach().

%% @doc Runs `Fun' in the calling process, with Lineage's trace flags given up for as long as it runs, and
%% returns its result. Before OTP 27 another tool (`dbg', `recon_trace') can work inside it; stop that
%% tool before `Fun' returns. What is born meanwhile is found again afterwards, and the time is added to
%% `blind_ms'. On OTP 27 and later nothing has to be given up, and `Fun' just runs.
%%
%% Raises `{lineage, not_attached}', `{lineage, bad_fun}', and whatever `Fun' raises.
-spec yield(fun(() -> Result)) -> Result.
yield(Fun) when is_function(Fun, 0) ->
    lineage_session:yield(Fun);
yield(Other) ->
    lineage_error:raise({bad_fun, Other}, [Other]).

%% @doc Counts, from the census alone: no process is asked anything, and no list of processes is made.
%%
%% `live'; `births' since attach; `existing' (known from before); `deaths', of which `seen' by their exit
%% and `swept' by liveness; `lost' (births beyond `max_bytes'). `orphans' is an upper bound, and
%% `orphans_checked' the number that the last {@link orphans/1} confirmed (`undefined' before the first).
%% `coverage' says what that report stands on: how many candidates were `checked', `unchecked' (beyond `max'),
%% `unresolved' (they did not answer in time, so they are not listed) and `tethered' after all, how many guardians
%% were `unanswered', and those of more than 10,000 children, of which only some were `sampled'.
%% `unsited': births whose site found no room, of which there is for 8,191 different ones.
%% `silent_failures': abnormal exits of processes known to have had no link and no monitor;
%% `unheard_unknown': those of processes without a link, of whose monitors nothing is known.
%% `blind_ms': milliseconds, at most, in which another tool kept births from being seen. `since' (system
%% time, ms), `exits', `bytes' and `peak_bytes' of the census's memory, and `notes' (sentences).
%% `taken_ms' (system time, ms) is when it was taken, for {@link diff/1}. `journal', where there is one: its `dir', the
%% `bytes' and `segments' in there, the `events' that this session wrote, those `missing' (counted gaps), and `paused': an
%% errno while it cannot be written, else `false'.
%% `rooted', `runtime', `hosts' and `supervisors' count the live processes of these kinds.
-spec summary() -> summary().
summary() ->
    Options = lineage_session:lookup(options),
    Shared = maps:from_list([{Key, lineage_session:lookup(Key)} ||
                                Key <- [since, orphans_checked, coverage, blind_ms, notes]]),
    try
        _ = lineage_nif:sweep(),
        {Verdict, []} = lineage_nif:verdict(0),
        Info = #{seeded := Seeded, seen := Seen, swept := Swept} = lineage_nif:info(),
        Counts = maps:with([live, births, seen, swept, lost, silent_failures, unheard_unknown, bytes,
                            peak_bytes], Info),
        Journal = maps:from_list([{journal, State} || #{} = State <- [lineage_journal:state()]]),
        maps:merge(maps:merge(maps:merge(Journal, maps:without([own], Verdict)), Counts#{unsited => maps:get(site_overflows, Info)}),
                   Shared#{taken_ms => erlang:system_time(millisecond), existing => Seeded, deaths => Seen + Swept, exits => maps:get(exits, Options)})
    catch
        %% Somebody detached while we counted.
        error:{badmatch, {error, closed}} -> lineage_error:raise({not_attached, undefined}, []);
        error:{badmatch, {error, enomem}} -> lineage_error:raise({enomem, verdict}, [])
    end.

%% @doc The live pids that the census knows, in no order. A list as long as the node has processes.
-spec pids() -> [pid()].
pids() ->
    _ = lineage_session:lookup(options),
    case lineage_nif:pids() of
        Pids when is_list(Pids) -> Pids;
        {error, closed} -> lineage_error:raise({not_attached, undefined}, [])
    end.

%% @doc All orphans, each checked against the live process.
%% @see orphans/1
-spec orphans() -> [map()].
orphans() ->
    orphans(#{}).

%% @doc The orphans: live processes that no path of links joins to a supervision tree or a host. Each
%% is a map with at least `pid', `generation', `kind', `parent', `guardian', `initial_call', `site',
%% `label', `age_ms' and `monitored', and was checked against the live process.
%%
%% Options: `kind' (only that kind, or those kinds), `app' (only that application's), `min_age_ms' (only those
%% that have lived that long), `ignore' (all but those with that initial call, spawner's initial call, name or
%% label, and what hangs below them) and `max' (how many candidates are checked, 10,000: a report of more says
%% so under `coverage' of {@link summary/0}). Children of an orphan are rows too, with `direct' false and `root'
%% naming the orphan that they hang below.
%%
%% Kinds, the first that fits: `foreign' (spawned from another node), `escaped' (was supervised or
%% tethered, then unlinked, or a supervisor lists it without a link), `abandoned' (its parent is dead),
%% `detached' (its parent lives).
%%
%% `orphans(os)': the OS processes that a port of this node has started, and what they have started, whose port is gone: nobody
%% in the node can end them. They are seen by the probe, which must run: as root,
%% `priv/lineage-probe ospids -p PID --feed'. Each is a map with `os_pid', `program', `age_ms', `adopted' (by init, since
%% whoever forked it has ended), and of the process that opened the port `owner' (`undefined' where the port
%% was opened before the probe came, or the VM's build does not tell), `owner_alive', `initial_call' and `site'. An attach is
%% needed for the last two only. Takes half a second when there are any.
-spec orphans(orphans_options()) -> [map()];
             (os) -> [lineage_probe:os_process()].
orphans(os) ->
    lineage_probe:orphans([os]);
orphans(Options) ->
    lineage_report:orphans(Options).

%% @doc The last dead that had no link, newest first: at most `Count', and at most 1,000. Even a process
%% that lived for microseconds is named here.
-spec recent(pos_integer()) -> [map()].
recent(Count) ->
    lineage_report:recent(Count).

%% @doc All about one process: its spawner, its ancestors up to the root, and who stops it, restarts it
%% and notices its death, each with the link or the child spec that the answer stands on.
-spec why(name()) -> map() | error().
why(Name) ->
    lineage_why:why(Name).

%% @doc The forest of this node: applications, supervisors, what hangs below them, and the orphans apart.
-spec tree() -> term().
tree() ->
    lineage_tree:tree().

%% @doc The same for a part of it; see {@link lineage_tree:tree/1}.
-spec tree(term()) -> term().
tree(Root) ->
    lineage_tree:tree(Root).

%% @doc The places in code where processes were spawned since attach: those with the most orphans first, then the
%% most live, then the most births. Each has `site', `births', `live', `orphans' (an upper bound, as in
%% {@link summary/0}) and `unheard' (abnormal exits that nobody is known to have heard of).
%%
%% A site is a map. Its `kind' says how sure it is: `call': `file' and `line' of the call that spawns; `closure':
%% where the fun was made, which was spawned elsewhere; `via': the line of a
%% caller, which may be the site itself, or, where `tail' is true, is none (the call that spawns was a tail call, and
%% `candidate' is the only one that it can have been, where there is but one, as far as the code tells); `start': what
%% the process runs, and what the one runs that spawned it. The file is as the compiler was given it.
-spec sites() -> [map()].
sites() ->
    lineage_report:attached([], fun lineage_site:sites/0).

%% @doc The static findings in sources and beams below these paths (see {@link lineage_audit:audit/1}), against the sites
%% of this session: `seen' live, each with its `counts' and whether the match is `sure'; `never' seen; and
%% `unfound', live without a finding: each a gap to look at. `elsewhere': births without a sure place, or in files
%% that were not read. `unreadable': what could not be read, and why. With `sites => closure' what is spawned as
%% module, function and arguments is matched by name; `exact' knows the line.
%%
%% The sources are read in this node: the names in them become atoms. For a node whose atoms are scarce, save a
%% snapshot and use `priv/lineage reconcile'.
-spec reconcile([file:filename()]) -> lineage_reconcile:report().
reconcile(Paths) ->
    Good = is_list(Paths) andalso Paths =/= [] andalso lists:all(fun(P) -> is_list(P) orelse is_binary(P) end, Paths),
    Good orelse lineage_error:raise({bad_argument, "reconcile", Paths, "a list of files and directories"}, [Paths]),
    lineage_report:attached([Paths], fun() -> lineage_reconcile:live([unicode:characters_to_list(P) || P <- Paths]) end).

%% @doc Runs `Fun' in a scope of its own, and returns its result and what outlived it: `leaks', processes that it
%% spawned, however deep, and that live half a second after it; and `silent', failures that nobody heard of (known
%% with `monitors => exact'). {@link lineage_leak} has the report, and {@link lineage_scope} whose a process is.
-spec scope(Name :: term(), fun(() -> Result)) -> {Result, lineage_leak:report()}.
scope(Name, Fun) ->
    lineage_scope:run(Name, Fun).

%% @doc The leaks of this node, with the default options.
%% @see leaks/1
-spec leaks() -> lineage_leaks:leaks().
leaks() ->
    leaks(#{}).

%% @doc The leaks of this node: `orphans' that linger (rows as of {@link orphans/1}); sites and supervisors whose live
%% population only is `growing', the fastest first; `scopes' that ended with survivors (reports as of {@link scope/2});
%% and `sampling', what the second stands on.
%%
%% Each that grows has the numbers: `first' and `last' of its windows' `values', `slope' (processes a minute), `windows'
%% and `window_ms', `live' now, `births' since attach (of a site), and `confidence'. A site has `site', a supervisor
%% `pid', `name', `initial_call' and `app'. A leak of one a minute is known within ten minutes where nothing else ends
%% there, and later below churn; {@link lineage_growth} has the method and what it gets wrong. Nothing is known to grow
%% in the first eight minutes after attach.
%%
%% Options: `min_age_ms' of orphans (60,000); `ignore', as of {@link orphans/1}, also the initial calls and names of
%% supervisors, and the function that a site is in, what is run there, or by what. Raises `{lineage, bad_argument}' and
%% `{lineage, not_attached}'.
-spec leaks(lineage_leaks:options()) -> lineage_leaks:leaks().
leaks(Options) ->
    lineage_leaks:leaks(Options).

%% @doc Tells leaks as they appear, each once, and those first that are there already: prints them to the caller's
%% group leader, or, with `to => Pid', sends `{lineage, leak, Map}'. Returns the pid for {@link unwatch/1}. It ends with
%% the session, and when the receiver dies.
%%
%% The map has `leak', which is `site' or `supervisor' (as in {@link leaks/1}), `orphan' (a direct one, with how many are
%% `indirect' below it), `scope', or `held_back' (with `count'). Where the module `telemetry' is there, the event
%% `[lineage, leak]' is executed too: measurements `count', and `age_ms' or `slope', `live' and `births'; metadata the map.
%%
%% Options: those of {@link leaks/1}, `to', and `max_per_minute' (10): of more in one minute the number is told at its
%% end, and they are not told later: `leaks/1' has them. Looking takes a hundredth of the time at most. Raises
%% `{lineage, bad_argument}' and `{lineage, not_attached}'.
-spec watch(#{min_age_ms => non_neg_integer(), ignore => [term()], to => pid(), max_per_minute => pos_integer()}) ->
    {ok, pid()}.
watch(Options) ->
    lineage_watcher:watch(Options).

%% @doc Ends what {@link watch/1} returned; `ok' also when it has ended. Raises `{lineage, bad_argument}' for what is
%% no pid of this node.
-spec unwatch(pid()) -> ok.
unwatch(Watch) ->
    lineage_watcher:unwatch(Watch).

%% @doc What supervision costs on this node, with a session that was attached with `overhead': the latency of starts,
%% restarts and stops of supervised children, and of critical functions, in microseconds; for each supervisor, and for
%% `all'. {@link lineage_overhead} has the method, the parts of a start, and the keys.
%%
%% Each part has `count', `mean_us' and the percentiles `p50', `p99' and `p999', each with `value' and the ends `low' and
%% `high' of its 95 % interval (`none' where there are too few values). A row's `verdict' says of each percentile
%% whether it is below `target_ms': `pass', `fail', or `{more, N}': about so many more are needed to tell.
%%
%% `outliers' are the last 100 starts above the target, newest first, each with its times and its `cause': `{gc, Pid}',
%% `{long_schedule, Pid}', `queue', `init', `{stall, Stall}' (while the probe runs), or `unexplained'; {@link lineage_outliers} says what each stands on.
%%
%% Restarts and stops need `exits => all', and are an error that says so without. Raises `{lineage, overhead_off}' and
%% `{lineage, not_attached}'.
-spec overhead() -> lineage_overhead:overhead().
overhead() ->
    lineage_overhead:overhead().

%% @doc Has the calling process sent what happens on this node, as it happens: `{lineage_events, Port, Batch}' for each batch
%% of events, as long as it has granted batches, and `{lineage_events, Port, closed}' when the session has ended.
%% {@link lineage_stream} has the port and what reads from it, {@link lineage_event} what the events are.
%%
%% Options; an event is sent when all of the filters that are given let it pass, and gaps always are:
%% <dl>
%% <dt>`kinds'</dt><dd>Only events of these kinds: `birth', `link', `unlink', `exit', `swept', `name', `flags' and `guardian'.
%%   With `exits => suspects' nothing more is known of a process that has a link than that it was `swept'.</dd>
%% <dt>`sites'</dt><dd>Only events of processes that were spawned at one of these, at most 64, sites: each the `id' of a site in
%%   {@link sites/0}.</dd>
%% <dt>`scopes'</dt><dd>Only events of processes in one of these, at most 64, scopes; 0 is none.</dd>
%% <dt>`application', `applications'</dt><dd>Only events of processes that run a module of that application, or of one of these,
%%   or were spawned in one; of 512 modules at most.</dd>
%% <dt>`credit'</dt><dd>How many batches it is sent before it grants more (4).</dd>
%% <dt>`batch'</dt><dd>How many events are in a batch at most: 1 to 1,024 (1,024).</dd>
%% <dt>`buffer'</dt><dd>How many events wait for credit at most: 1 to 65,536 (65,536), of 32 bytes each. What finds no room is
%%   counted, and told as a gap in its place.</dd>
%% </dl>
%%
%% The subscription is the calling process's, and ends with it. There are 8 at most. Errors, by tag: `bad_argument',
%% `not_attached', `attaching', `subscribers_full', `too_many_modules', `unknown_application', `driver_missing', `pump_failed',
%% `subscribe_failed'.
-spec subscribe(lineage_stream:options()) -> {ok, lineage_stream:subscription()} | error().
subscribe(Options) ->
    lineage_stream:subscribe(Options).

%% @doc Lets a subscription send so many batches more. Raises `{lineage, bad_argument}'; an error when it has been closed.
-spec grant(lineage_stream:subscription(), pos_integer()) -> ok | error().
grant(Subscription, Batches) ->
    lineage_stream:grant(Subscription, Batches).

%% @doc Ends a subscription, and takes what it has sent out of the caller's mailbox. `ok' also when it has ended.
-spec unsubscribe(lineage_stream:subscription()) -> ok.
unsubscribe(Subscription) ->
    lineage_stream:unsubscribe(Subscription).

%% @doc What is new since an earlier {@link summary/0}, or since a snapshot that {@link save/1} wrote.
-spec diff(term()) -> term().
diff(Earlier) ->
    lineage_snapshot:diff(Earlier).

%% @doc Writes a snapshot of the census to a file, as JSON; `lineage_snapshot' documents the format.
-spec save(file:name_all()) -> ok | error().
save(Path) ->
    lineage_snapshot:save(Path).

%% @doc Prints what any of the queries returned: tables and trees that fit the terminal.
-spec print(term()) -> ok.
print(Report) ->
    lineage_print:print(Report).

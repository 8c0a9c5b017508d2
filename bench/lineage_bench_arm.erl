%% The arms that a benchmark compares: nothing, the no-op tracers, Lineage in its two modes without sites, with those of
%% closures, and with exact ones.
%%
%% `noop_shed' sheds each process at its first schedule-in, `noop_keep' none. `noop_mixed' does what `exits: suspects' does to
%% a load whose workers are linked and their children not: it keeps the children, and the workers are free of it, because
%% they were there before it. (To know by itself which process has a link it would have to keep a census.)
-module(lineage_bench_arm).

-export([all/0, workers/1, on/1, off/1]).

-type arm() :: untraced | noop_shed | noop_mixed | noop_keep | lineage_suspects | lineage_all
    | closure_suspects | closure_all | exact_suspects | exact_all.
-type handle() :: none | noop | {session, term()} | lineage.

-export_type([arm/0, handle/0]).

%% All arms, the one that the others are compared with first.
-spec all() -> [arm(), ...].
all() -> [untraced, noop_shed, noop_mixed, noop_keep, lineage_suspects, lineage_all, closure_suspects, closure_all,
     exact_suspects, exact_all].

%% Whether a load's workers start before the arm's tracer is on, or later.
-spec workers(arm()) -> before | later.
workers(noop_mixed) -> before;
workers(_) -> later.

%% Switches the arm's tracer on. Raises when Lineage does not attach, with what it said.
-spec on(arm()) -> handle().
on(untraced) -> none;
on(noop_shed) -> noop(shed);
on(noop_mixed) -> noop(keep);
on(noop_keep) -> noop(keep);
on(lineage_suspects) -> attach(suspects, off);
on(lineage_all) -> attach(all, off);
on(closure_suspects) -> attach(suspects, closure);
on(closure_all) -> attach(all, closure);
on(exact_suspects) -> attach(suspects, exact);
on(exact_all) -> attach(all, exact).

%% Switches it off again.
-spec off(handle()) -> ok.
off(none) ->
    ok;
off(noop) ->
    _ = erlang:trace(new_processes, false, [procs]),
    ok;
off({session, Session}) ->
    _ = trace:session_destroy(Session),
    ok;
off(lineage) ->
    ok = lineage:detach().

%% The tracer's module must be loaded before a session is made with it.
noop(Kind) ->
    {module, Module} = code:ensure_loaded(lineage_bench_noop),
    case sessions() of
        true ->
            Session = trace:session_create(lineage_bench, {Module, Kind}, []),
            _ = trace:process(Session, new_processes, true, [procs]),
            {session, Session};
        false ->
            _ = erlang:trace(new_processes, true, [procs, {tracer, Module, Kind}]),
            noop
    end.

%% Trace sessions came with OTP 27.
sessions() ->
    list_to_integer(erlang:system_info(otp_release)) >= 27.

attach(Exits, Sites) ->
    {ok, _Info} = lineage:attach(#{exits => Exits, sites => Sites}),
    lineage.

%% The arms that a benchmark compares: nothing, the two no-op tracers, Lineage in its two modes.
-module(lineage_bench_arm).

-export([all/0, on/1, off/1]).

-type arm() :: untraced | noop_shed | noop_keep | lineage_suspects | lineage_all.
-type handle() :: none | noop | {session, term()} | lineage.

-export_type([arm/0, handle/0]).

%% All arms, the one that the others are compared with first.
-spec all() -> [arm(), ...].
all() -> [untraced, noop_shed, noop_keep, lineage_suspects, lineage_all].

%% Switches the arm's tracer on. Raises when Lineage does not attach, with what it said.
-spec on(arm()) -> handle().
on(untraced) -> none;
on(noop_shed) -> noop(shed);
on(noop_keep) -> noop(keep);
on(lineage_suspects) -> attach(suspects);
on(lineage_all) -> attach(all).

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

attach(Exits) ->
    {ok, _Info} = lineage:attach(#{exits => Exits}),
    lineage.

%% What the probe costs the node that it watches: births and exits of one worker, in arms that differ by what the probe does
%% meanwhile; differences are within a round, whose arms come in a new order each time. It is attached before the time is taken.
-module(lineage_bench_witness).

-export([run/1]).

-define(ARMS, [off, census, stalls, ospids]).

%% No figure has a bar.
-spec run(lineage_bench:options()) -> [boolean()].
run(#{rounds := Rounds, ops := Ops} = Options) ->
    {ok, _} = application:ensure_all_started(lineage),
    Probe = filename:join(code:priv_dir(lineage), "lineage-probe"),
    case [Arm || Arm <- ?ARMS, works(Probe, Arm)] of
        [off] ->
            io:format("witness is left out: the probe was not built, or is not allowed to run here~n"),
            [];
        Arms ->
            Turns = rounds(Rounds, Ops, Probe, Arms, rand:seed_s(exsss, {8, 1, 0})),
            [lineage_bench_figure:tell(witness, Line, Options) || Line <- figures(Turns, Arms)]
    end.

works(_Probe, off) ->
    true;
works(Probe, Arm) ->
    filelib:is_regular(Probe) andalso
        case start(Probe, Arm) of
            {error, Status, Said} -> io:format("~s is left out (status ~b): ~ts~n", [Arm, Status, Said]), false;
            Port -> stop(Port)
        end.

rounds(0, _Ops, _Probe, _Arms, _Rand) ->
    [];
rounds(Left, Ops, Probe, Arms, Rand0) ->
    {Order, Rand} = lineage_bench:shuffled(Arms, Rand0),
    [maps:from_list([{Arm, turn(Probe, Arm, Ops)} || Arm <- Order]) | rounds(Left - 1, Ops, Probe, Arms, Rand)].

%% Nanoseconds of a birth and its exit.
turn(_Probe, off, Ops) ->
    timed(Ops);
turn(Probe, Arm, Ops) ->
    Port = start(Probe, Arm),
    Ns = timed(Ops),
    stop(Port),
    Ns.

timed(Ops) ->
    lineage_bench_stream:births(Ops div 10),
    {Us, ok} = timer:tc(fun() -> lineage_bench_stream:births(Ops) end),
    1000 * Us / Ops.

start(Probe, Arm) ->
    Port = open_port({spawn_executable, Probe},
                     [{args, [atom_to_list(Arm), "-p", os:getpid(), "--json"]}, {line, 65536}, exit_status, stderr_to_stdout]),
    await(Port, "").

await(Port, Said) ->
    receive
        {Port, {data, {eol, Line}}} ->
            case string:find(Line, " watches ") of
                nomatch -> await(Port, Line);
                _ -> Port
            end;
        {Port, {exit_status, Status}} ->
            {error, Status, Said}
    end.

stop(Port) ->
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    "" = os:cmd("kill -INT " ++ integer_to_list(OsPid)),
    ended(Port).

ended(Port) ->
    receive
        {Port, {exit_status, 0}} -> true;
        {Port, {data, _}} -> ended(Port)
    end.

figures(Turns, Arms) ->
    [lineage_bench_figure:spread(<<"spawn and exit, nobody watches">>, [Ns || #{off := Ns} <- Turns], ns, null)
     | [lineage_bench_figure:spread(<<"more while ", (atom_to_binary(Arm))/binary, " runs">>, [Ns - Off || #{off := Off, Arm := Ns} <- Turns], ns, null)
        || Arm <- Arms, Arm =/= off]].

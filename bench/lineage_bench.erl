%% The benchmarks' entry: what a node runs for bench/run.sh. Arms are compared within one run of one node, round by round in a
%% new order each time.
%%
%% Arguments (after -extra), all optional:
%%   cost | ping | big | overhead | reference | modes | stream | witness | about    what to run (default cost)
%%   --table fresh|aged      cost, ping: the state of this node's process table
%%   --workers 1,2  --live 20,20000  --what spawn_link,...  --arms untraced,...   cost, ping: which cells and arms
%%   --rounds N  --ops N     rounds of a cell; births, messages, starts or calls of each arm in a round
%%   --shape one|thousand|orphans  --size N    for big
%%   --children N            for overhead: how many children each supervisor has besides
%%   --callers 1,8,64        for overhead and reference: how many ask at once
%%   --ms N                  for modes and stream: how long a turn is
%%   --duty PERCENT          for modes: 0 is Lineage's default
%%   --small yes             for about: that the figures are of a run that checks the form only
%%   --out FILE              append one JSON line per arm or figure; without it they go to standard output
%%   --bars                  a figure beyond its bar makes the exit status 1
-module(lineage_bench).

-export([main/0, emit/2, shuffled/2, otp/0]).

-export_type([options/0]).

-type options() :: #{atom() => term()}.

%% Runs what the command line says, and ends the node: 0, or 1 where --bars was given and one does not hold.
-spec main() -> no_return().
main() ->
    Options = options(init:get_plain_arguments(), defaults()),
    Status =
        try run(Options) of
            Held -> status(Options, Held)
        catch
            Class:Reason:Stack ->
                io:format(standard_error, "~p:~p~n~p~n", [Class, Reason, Stack]),
                2
        end,
    erlang:halt(Status).

%% Without --bars all figures are only shown.
status(#{bars := false}, _Held) -> 0;
status(#{bars := true}, Held) ->
    case lists:member(false, Held) of
        true -> 1;
        false -> 0
    end.

defaults() ->
    #{
        run => cost,
        table => fresh,
        workers => [1, 2],
        live => [20, 20000],
        what => [spawn_link, spawn_monitor],
        arms => lineage_bench_arm:all(),
        rounds => 21,
        ops => 20000,
        shape => one,
        size => 1000000,
        children => 0,
        callers => [1, 8, 64],
        ms => 10000,
        duty => 0,
        small => no,
        out => undefined,
        bars => false
    }.

options([], Options) ->
    Options;
options(["--bars" | Rest], Options) ->
    options(Rest, Options#{bars := true});
options(["--out", File | Rest], Options) ->
    options(Rest, Options#{out := File});
options(["--" ++ Name, Value | Rest], Options) ->
    Key = list_to_atom(Name),
    options(Rest, Options#{Key := value(Key, Value)});
options([Run | Rest], Options) ->
    options(Rest, Options#{run := list_to_atom(Run)}).

value(Key, Value) when Key =:= rounds; Key =:= ops; Key =:= size; Key =:= children; Key =:= ms; Key =:= duty -> list_to_integer(Value);
value(Key, Value) when Key =:= workers; Key =:= live; Key =:= callers -> [list_to_integer(N) || N <- string:split(Value, ",", all)];
value(Key, Value) when Key =:= what; Key =:= arms -> [list_to_atom(A) || A <- string:split(Value, ",", all)];
value(Key, Value) when Key =:= table; Key =:= shape; Key =:= small -> list_to_atom(Value).

%% Each benchmark returns for its figures that have a bar whether it holds.
run(#{run := Run} = Options) when Run =:= cost; Run =:= ping -> lineage_bench_cost:run(Options);
run(#{run := big} = Options) -> lineage_bench_big:run(Options);
run(#{run := overhead} = Options) -> lineage_bench_overhead:run(Options);
run(#{run := reference} = Options) -> lineage_bench_reference:run(Options);
run(#{run := modes} = Options) -> lineage_bench_modes:run(Options);
run(#{run := stream} = Options) -> lineage_bench_stream:run(Options);
run(#{run := witness} = Options) -> lineage_bench_witness:run(Options);
run(#{run := about} = Options) -> lineage_bench_about:run(Options).

%% Writes one JSON line, to the file of --out or to standard output.
-spec emit(options(), #{atom() => lineage_bench_stat:json()}) -> ok.
emit(#{out := undefined}, Line) ->
    io:put_chars([lineage_bench_stat:json(Line), $\n]);
emit(#{out := File}, Line) ->
    ok = file:write_file(File, [lineage_bench_stat:json(Line), $\n], [append]).

%% The arms of a round in a random order, and what the next round is shuffled with.
-spec shuffled([Arm], rand:state()) -> {[Arm], rand:state()}.
shuffled(Arms, Rand0) ->
    {Keyed, Rand} = lists:mapfoldl(
        fun(Arm, R0) ->
            {Key, R} = rand:uniform_s(R0),
            {{Key, Arm}, R}
        end,
        Rand0,
        Arms
    ),
    {[Arm || {_, Arm} <- lists:sort(Keyed)], Rand}.

%% This node's release, as the lines name it.
-spec otp() -> binary().
otp() ->
    list_to_binary(erlang:system_info(otp_release)).

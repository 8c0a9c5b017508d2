%% @doc What supervision costs on this node: the latency of starts, restarts and stops of supervised children, where it
%% goes, and whether it is below the target.
%%
%% == Method ==
%% While a window is open (all the time with `overhead => continuous', else 100 ms at random moments, as often as
%% `{duty, Percent}' says), trace points take these times, in microseconds here, of each start that begins in it:
%% <ul>
%% <li>the call of `start_child' (`supervisor', `Supervisor', `DynamicSupervisor'), or of `start_child', `async' or
%%   `async_nolink' of `Task.Supervisor', in the caller;</li>
%% <li>the entry of the supervisor's `handle_call/3': `queue' is until then;</li>
%% <li>the birth of the child: `work' is from there;</li>
%% <li>its `proc_lib:init_ack': `init' is from birth to there, 0 for a task and a bare process;</li>
%% <li>the return to the caller: `back' is from there.</li>
%% </ul>
%% `latency' is from call to return, and `overhead' is that without `init': what supervision adds. That is start overhead,
%% *live*. The benchmarks measure another one, *bench*, against the same child started bare.
%%
%% With `exits => all' also restarts, from the death of a child to the birth of its successor (`birth') and to its
%% acknowledgement (`ack'); and stops by `terminate_child', from call to return (`latency'), and that without the child's
%% own, from the supervisor's entry to the child's exit (`overhead'). A restart that had to be tried again is not counted.
%%
%% A critical path is a function that `critical' names: its `latency', and how much of that its own process spent in
%% starts (`starts', the child's own init included); `share' is the part of all its time that was.
%%
%% Values come from histograms whose buckets are 1/128 of the value wide at most. Each percentile has the interval that
%% holds the true one with a probability of 95 %, from order statistics and whatever the distribution (see
%% {@link lineage_quantile}), as if starts were independent of each other. The verdict of a percentile is `pass' when the
%% whole interval is below the target, `fail' when none of it is, else `{more, N}': about so many more are needed.
%%
%% A traced start takes longer than one that is not: a start of 7 us by 14 to 73 %, tried on OTP 25. That is in the values;
%% against a target of milliseconds it is nothing.
-module(lineage_overhead).

-export([overhead/0, report/4]).

-export_type([overhead/0, row/0, part/0, quantile/0]).

-type overhead() :: #{mode := lineage_duty:mode(), target_ms := number(),
                      windows := non_neg_integer(), armed_ms := non_neg_integer(), observed_ms := non_neg_integer(),
                      starts := [row()], restarts := [row()] | {error, {atom(), binary()}},
                      stops := [row()] | {error, {atom(), binary()}}, critical := [row()],
                      outliers := [lineage_outliers:outlier()], outliers_lost := non_neg_integer(),
                      failed := non_neg_integer(), elsewhere := non_neg_integer(), unfinished := non_neg_integer(),
                      lost := non_neg_integer()}.
%% `windows' so far, `armed_ms' of `observed_ms'. `failed': starts that returned no child; `elsewhere': starts by a
%% supervisor of another node; `unfinished': what a window's end cut off; `lost': what there was no room to follow.

-type row() :: #{supervisor => pid() | all | gone | others, name => atom(), initial_call => mfa() | undefined, function => mfa(),
                 share => float(),
                 verdict := #{p50 := lineage_quantile:verdict(), p99 := lineage_quantile:verdict(),
                              p999 := lineage_quantile:verdict()},
                 Part :: atom() => part()}.
%% First the row of `all' supervisors, then each by the number of its starts; `gone' are those that have died, `others'
%% those beyond the first 64. The verdict is on `overhead' of starts and stops, `birth' of restarts, and `starts' of
%% critical functions.

-type part() :: #{count := pos_integer(), mean_us := float(), p50 := quantile(), p99 := quantile(), p999 := quantile()}.
-type quantile() :: lineage_quantile:interval().    % microseconds

-type series() :: {{supervisor, pid()} | gone | others | {critical, mfa()}, #{lineage_nif:part() => lineage_nif:distribution()}}.

-define(PERCENTILES, [{p50, 0.5}, {p99, 0.99}, {p999, 0.999}]).
%% Of the rows of each kind: their parts as the NIF names them, and the one that the verdict is on.
-define(STARTS, {[{K, K} || K <- [latency, overhead, queue, work, init, back]], overhead}).
-define(RESTARTS, {[{restart_birth, birth}, {restart_ack, ack}], birth}).
-define(STOPS, {[{stop_latency, latency}, {stop_overhead, overhead}], overhead}).
-define(CRITICAL, {[{latency, latency}, {starts, starts}], starts}).

%% @doc See `lineage:overhead/0'.
-spec overhead() -> overhead().
overhead() ->
    lineage_report:attached([], fun measured/0).

measured() ->
    #{overhead := Mode} = Options = lineage_session:lookup(options),
    Mode =:= off andalso lineage_error:raise(overhead_off, []),
    #{series := Series} = Timings = lineage_nif:timings(),
    Duty = lineage_duty:told(lineage_session:lookup(duty)),
    Report = report(Series, maps:get(exits, Options), maps:get(target_ms, Options), describe(Series)),
    Counts = maps:with([failed, elsewhere, unfinished, lost, outliers_lost], Timings),
    maps:merge(maps:merge(Report, Duty),
               Counts#{mode => Mode, target_ms => maps:get(target_ms, Options), outliers => lineage_outliers:outliers()}).

%% What to call the supervisors.
describe(Series) ->
    Infos = lineage_proc:info_many([Pid || {{supervisor, Pid}, _} <- Series], lineage_describe:items(), 300),
    maps:from_list([{Pid, named(Pid, Info)} || {Pid, Info} <- Infos]).

named(Pid, Info) ->
    Known = case Info of #{} -> Info; _ -> #{} end,
    Born = case lineage_nif:record(Pid) of #{initial_call := Call} -> Call; _ -> undefined end,
    #{name => lineage_describe:name(Known), initial_call => lineage_describe:initial_call(Born, Known)}.

%% @private The rows, from the NIF's series; `Names' is what to add to the row of a pid.
-spec report([series()], suspects | all, number(), #{pid() => map()}) -> map().
report(Series, Exits, TargetMs, Names) ->
    TargetUs = 1000 * TargetMs,
    Supervisors = [{#{supervisor => case Key of {supervisor, Pid} -> Pid; _ -> Key end}, Parts}
                   || {Key, Parts} <- Series, element(1, tag(Key)) =/= critical],
    Of = fun(Kind) -> [maps:merge(Row, maps:get(maps:get(supervisor, Row), Names, #{})) || Row <- with_all(Supervisors, Kind, TargetUs)] end,
    Deaths = fun(Kind) when Exits =:= all -> Of(Kind);
                (_) -> lineage_error:tagged(exits_unknown)
             end,
    #{starts => Of(?STARTS), restarts => Deaths(?RESTARTS), stops => Deaths(?STOPS),
      critical => [Row#{share => share(Parts)}
                   || {{critical, MFA}, Parts} <- Series, Row <- rows([{#{function => MFA}, Parts}], ?CRITICAL, TargetUs)]}.

tag(Key) when is_tuple(Key) -> Key;
tag(Key) -> {Key}.

share(#{latency := {Latency, _}, starts := {Starts, _}}) when Latency > 0 -> Starts / Latency;
share(_) -> 0.0.

with_all([], _Kind, _TargetUs) ->
    [];
with_all(Supervisors, Kind, TargetUs) ->
    All = {#{supervisor => all}, lists:foldl(fun merge/2, #{}, [Parts || {_, Parts} <- Supervisors])},
    rows([All], Kind, TargetUs) ++ lists:sort(fun(A, B) -> size(A, Kind) >= size(B, Kind) end, rows(Supervisors, Kind, TargetUs)).

size(Row, {_, Judged}) ->
    #{Judged := #{count := Count}} = Row,
    Count.

%% All histograms have the same buckets.
merge(Parts, Sum) ->
    maps:fold(fun(Part, {Ns, Buckets}, All) ->
                      maps:update_with(Part, fun({N, B}) -> {N + Ns, add(B, Buckets)} end, {Ns, Buckets}, All)
              end, Sum, Parts).

add([{Low, High, A} | As], [{Low, High, B} | Bs]) -> [{Low, High, A + B} | add(As, Bs)];
add([A | As], [B | _] = Bs) when A < B -> [A | add(As, Bs)];
add([_ | _] = As, [B | Bs]) -> [B | add(As, Bs)];
add([], Bs) -> Bs;
add(As, []) -> As.

%% None for whom there was nothing of the kind.
rows(Series, {Parts, Judged}, TargetUs) ->
    [Row#{verdict => verdict(Values, TargetUs)}
     || {Key, Timings} <- Series,
        {Row, #{Judged := Values}} <- [lists:foldl(fun({Of, Part}, {Row, All}) ->
                                                           case Timings of
                                                               #{Of := {Sum, [_ | _] = Buckets}} ->
                                                                   Us = lineage_quantile:buckets([{L / 1000, ended(L, H) / 1000, N} || {L, H, N} <- Buckets]),
                                                                   {Row#{Part => part(Sum, Us)}, All#{Part => Us}};
                                                               _ ->
                                                                   {Row, All}
                                                           end
                                                   end, {Key, #{}}, Parts)]].

%% What is longer than the histogram reaches is as long at least: its last bucket has no end.
ended(Low, High) when High > 2 * Low, Low > 1000000000 -> Low;
ended(_Low, High) -> High.

part(SumNs, Values) ->
    Count = lineage_quantile:count(Values),
    maps:from_list([{count, Count}, {mean_us, SumNs / 1000 / Count} |
                    [{Key, lineage_quantile:interval(Values, P)} || {Key, P} <- ?PERCENTILES]]).

verdict(Values, TargetUs) ->
    maps:from_list([{Key, lineage_quantile:verdict(Values, P, TargetUs)} || {Key, P} <- ?PERCENTILES]).

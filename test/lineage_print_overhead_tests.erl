-module(lineage_print_overhead_tests).

-include_lib("eunit/include/eunit.hrl").

-export([overhead/0]).

hist(Us, Count) -> {Us * 1000 * Count, [{Us * 1000, Us * 1008, Count}]}.

series(N) ->
    #{latency => hist(40, N), overhead => hist(22, N), queue => hist(2, N), work => hist(5, N), init => hist(18, N), back => hist(15, N),
      restart_birth => hist(900, N), restart_ack => hist(1000, N), stop_latency => hist(70000, N), stop_overhead => hist(60000, N)}.

overhead() ->
    Pid = self(),
    Series = [{{supervisor, Pid}, series(400)}, {gone, series(20)}, {{critical, {my, coordinate, 3}}, #{latency => hist(2000, 9), starts => hist(500, 9)}}],
    Outlier = #{caller => Pid, supervisor => Pid, child => Pid, at => erlang:system_time(millisecond) - 12000, latency_us => 61000.0,
                queue_us => 500.0, work_us => 20.0, init_us => 60000.0, back_us => 5.0, busy_us => 0.0, stalled_us => 0.0, cause => init},
    maps:merge(lineage_overhead:report(Series, all, 5, #{Pid => #{name => my_sup, initial_call => {m, init, 1}}}),
               #{mode => {duty, 2}, target_ms => 5, windows => 12, armed_ms => 1300, observed_ms => 64000,
                 outliers => [Outlier, Outlier#{cause => {gc, Pid}}, Outlier#{cause => {long_schedule, list_to_pid("<0.0.0>")}}],
                 outliers_lost => 0, failed => 3, elsewhere => 0, unfinished => 1, lost => 0}).

print(Overhead, Options) ->
    unicode:characters_to_list(lineage_print:format(Overhead, Options)).

whole_test() ->
    Text = print(overhead(), #{columns => 140, unicode => true}),
    [?assertMatch({match, _}, re:run(Text, Part, [unicode]))
     || Part <- ["measured 2 % of the time: 12 windows, 1.3 s of 1 min 4 s; target 5.00 ms", "all +420 +50 % +22 us +22 us - 22 us .*pass",
                 "99.9 % .* - \\? .*3268 more", "my_sup", "those that have died", "means: 40 us in all: 2.0 us in the supervisor's queue",
                 "Restarts: .*birth", "Stops", "60.[0-9] ms .*fail", "my:coordinate/3 25.0 %", "took longer than 5.00 ms, the last 3: 1 gc, 1 init, 1 long schedule",
                 "gc of the supervisor", "long schedule of <0.0.0>", "not counted: 3 started no child, 1 were cut off"]],
    ?assertEqual([], [L || L <- string:split(Text, "\n", all), string:length(L) > 140]).

%% The bar is dark up to the lower end, and the target stands where it belongs on the scale.
bar_test() ->
    Text = print(overhead(), #{columns => 140}),
    %% 22 us: 1 + floor(4 * log10(22)) signs; 5 ms: the 15th.
    ?assertMatch({match, _}, re:run(Text, "50 % +22 us .* #{6}\\.{8}\\|\\.{13} +pass")),
    ?assertMatch({match, _}, re:run(Text, "50 % +60.. ms .* #{14}\\|#{5}\\.{8} +fail")),
    ?assertMatch({match, _}, re:run(Text, "1 us {4}100 us {2}10 ms {3}1 s")).

narrow_test() ->
    %% Two signs for a decade.
    ?assertMatch({match, _}, re:run(print(overhead(), #{columns => 100}), "50 % +22 us .* #{3}\\.{4}\\|\\.{6} +pass")),
    [?assertEqual([], [L || L <- string:split(print(overhead(), #{columns => C, unicode => U}), "\n", all), string:length(L) > C])
     || C <- [40, 60, 80, 100, 120], U <- [true, false]].

colour_test() ->
    Text = print(overhead(), #{columns => 140, colour => true}),
    [?assertMatch({match, _}, re:run(Text, Code ++ "[^\\n]*" ++ Word)) || {Code, Word} <- [{"\e\\[32m", "pass"}, {"\e\\[31m", "fail"}, {"\e\\[33m", "more"}]].

nothing_yet_test() ->
    Empty = maps:merge(overhead(), lineage_overhead:report([], suspects, 5, #{})),
    Text = print(Empty#{outliers := [], failed := 0, unfinished := 0, mode := continuous}, #{columns => 400}),
    [?assertMatch({match, _}, re:run(Text, Part)) || Part <- ["all the time", "no start of a child was seen", "attach with exits => all"]],
    ?assertEqual(nomatch, re:run(Text, "not counted")).

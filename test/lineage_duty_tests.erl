-module(lineage_duty_tests).

-include_lib("eunit/include/eunit.hrl").

%% Over many windows, of whatever length, so much of the time is armed, within what so many windows can tell.
share_test() ->
    rand:seed(exsss, {1, 2, 3}),
    [begin
         Windows = [100000 + rand:uniform(20000) || _ <- lists:seq(1, 4000)],
         Pauses = [lineage_duty:pause_ms(Us, Percent, rand:uniform()) || Us <- Windows],
         Armed = lists:sum(Windows) / 1000,
         Share = 100 * Armed / (Armed + lists:sum(Pauses)),
         ?assert(abs(Share - Percent) < 0.03 * Percent)
     end || Percent <- [0.1, 1, 2, 10, 33.3, 50]].

%% No pause is so short, or so long, that the moment of the next window could be told.
spread_test() ->
    ?assertEqual({2450, 7350}, {lineage_duty:pause_ms(100000, 2, 0.0), lineage_duty:pause_ms(100000, 2, 1.0)}),
    ?assertEqual(86400000, lineage_duty:pause_ms(5000000, 0.0001, 0.5)),
    ?assertEqual(86400000, lineage_duty:pause_ms(5000000, 1.0e-307, 0.5)).

told_test() ->
    ?assertEqual(#{windows => 0, armed_ms => 0, observed_ms => 0}, lineage_duty:told(lineage_duty:new({duty, 2}, #{}))).

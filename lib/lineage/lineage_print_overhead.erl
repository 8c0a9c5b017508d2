%% @private What `lineage:overhead/0' returns, as lines: a bar for each percentile, on a logarithmic scale from 1 us to 10 s
%% with the target marked, dark up to the lower end of the 95 % interval and light to the upper one.
-module(lineage_print_overhead).

-export([lines/2]).

-import(lineage_text, [table/4, wrap/3, count/2, text/1]).

-define(ROWS, 8).            % supervisors, and outliers
-define(WIDE, 96).           % columns
-define(DECADES, 7).
-define(PERCENTILES, [{p50, <<"50 %">>}, {p99, <<"99 %">>}, {p999, <<"99.9 %">>}]).

-spec lines(lineage_overhead:overhead(), lineage_text:options()) -> [lineage_text:line()].
lines(#{target_ms := TargetMs} = Overhead, O) ->
    Section = fun(Title, Part, Rows) -> section(Title, Part, Rows, 1000 * TargetMs, O) end,
    head(Overhead, O)
        ++ starts(Overhead, Section, O)
        ++ deaths(Overhead, Section, O)
        ++ Section(<<"Critical functions: how much of each call is spent in starts">>, starts, maps:get(critical, Overhead))
        ++ outliers(Overhead, O)
        ++ counts(Overhead, O).

head(#{mode := Mode, windows := Windows, armed_ms := Armed, observed_ms := Observed, target_ms := TargetMs}, O) ->
    How = case Mode of
              {duty, Percent} -> [number(Percent), <<" % of the time: ">>];
              continuous -> <<"all the time: ">>
          end,
    [[{bold, <<"Overhead of supervision">>}]
     | dim([<<"measured ">>, How, count(Windows, <<"window">>), <<", ">>, micros(1000 * Armed), <<" of ">>, micros(1000 * Observed),
            <<"; target ">>, micros(1000 * TargetMs)], O)].

dim(Text, O) -> wrap([{dim, text(Text)}], 0, O).

number(N) when is_integer(N) -> integer_to_binary(N);
number(N) -> io_lib:format("~p", [N]).

starts(#{starts := []}, _Section, O) ->
    dim(<<"no start of a child was seen so far">>, O);
starts(#{starts := [All | _] = Rows}, Section, O) ->
    Mean = fun(Part) -> case All of #{Part := #{mean_us := Us}} -> micros(Us); _ -> <<"-">> end end,
    Section(<<"Starts: from call to return, less the child's own init">>, overhead, Rows)
        ++ dim([<<"means: ">>, Mean(latency), <<" in all: ">>, Mean(queue), <<" in the supervisor's queue, ">>, Mean(work), <<" its work, ">>,
                Mean(init), <<" init, ">>, Mean(back), <<" the way back">>], O).

deaths(#{restarts := {error, {_, Sentence}}}, _Section, O) ->
    dim(Sentence, O);
deaths(#{restarts := Restarts, stops := Stops}, Section, _O) ->
    Section(<<"Restarts: from death to the successor's birth">>, birth, Restarts)
        ++ Section(<<"Stops: from call to return, less the child's own">>, overhead, Stops).

section(_Title, _Part, [], _Target, _O) ->
    [];
section(Title, Part, Rows, Target, O) ->
    Shown = lists:sublist(Rows, ?ROWS),
    Lines = [{Verdict, Cells} || Row <- Shown, {Verdict, Cells} <- percentiles(Part, Row, Target, O)],
    [Head | Body] = table([<<"WHOSE">>, <<"COUNT">>, <<"OF">>, <<"AT MOST">>] ++ interval(<<"95 % SURE">>, O) ++ [scale(O), <<"VERDICT">>],
                          [Cells || {_, Cells} <- Lines], [cyan, plain, dim, bold] ++ interval(dim, O) ++ [plain, plain], O),
    [[{bold, Title}], Head] ++ [shaded(Verdict, Line) || {{Verdict, _}, Line} <- lists:zip(Lines, Body)]
        ++ [[{dim, text([<<"and ">>, integer_to_binary(length(Rows) - ?ROWS), <<" more">>])}] || length(Rows) > ?ROWS].

percentiles(Part, #{verdict := Verdicts} = Row, Target, O) ->
    #{Part := #{count := Count} = Values} = Row,
    [begin
         #{P := #{value := Value, low := Low, high := High} = Interval} = Values,
         Verdict = maps:get(P, Verdicts),
         First = P =:= p50,
         {Verdict, [case First of true -> whose(Row); false -> <<>> end,
                    case First of true -> integer_to_binary(Count); false -> <<>> end,
                    Name, micros(Value)] ++ interval(text([micros(Low), <<" - ">>, micros(High)]), O) ++ [bar(Interval, Target, O), verdict(Verdict)]}
     end || {P, Name} <- ?PERCENTILES].

%% Where it is narrow, the bar alone shows it.
interval(Cell, #{columns := Columns}) when Columns >= ?WIDE -> [Cell];
interval(_Cell, _O) -> [].

whose(#{supervisor := all}) -> <<"all">>;
whose(#{supervisor := gone}) -> <<"those that have died">>;
whose(#{supervisor := others}) -> <<"all others">>;
whose(#{supervisor := Pid} = Row) ->
    Name = case Row of
               #{name := N} when N =/= undefined -> [$\s, lineage_describe:atom(N)];
               #{initial_call := Call} when Call =/= undefined -> [$\s, lineage_describe:mfa(Call)];
               _ -> []
           end,
    text([lineage_describe:pid(Pid), Name]);
whose(#{function := MFA, share := Share}) ->
    text([lineage_describe:mfa(MFA), io_lib:format(" ~.1f %", [100 * Share])]).

verdict(pass) -> <<"pass">>;
verdict(fail) -> <<"fail">>;
verdict({more, N}) -> <<(integer_to_binary(N))/binary, " more">>.

shade(pass) -> green;
shade(fail) -> red;
shade({more, _}) -> yellow.

%% The last two cells are the bar and the verdict.
shaded(Verdict, Line) ->
    {Before, [{_, Bar}, {_, Word}]} = lists:split(length(Line) - 2, Line),
    Before ++ [{shade(Verdict), Bar}, {shade(Verdict), Word}].

%% Bars

per_decade(#{columns := Columns}) when Columns >= 120 -> 4;
per_decade(_) -> 2.

scale(O) ->
    case per_decade(O) of
        4 -> <<"1 us    100 us  10 ms   1 s">>;
        2 -> <<"1 us    10 ms">>
    end.

bar(#{value := Value, low := Low, high := High}, Target, O) ->
    Dark = place(case Low of none -> Value; _ -> Low end, O),
    Light = place(case High of none -> Value; _ -> High end, O),
    Mark = place(Target, O),
    {D, L, M, None} = signs(O),
    text([if
              N =:= Mark -> M;
              N =< Dark -> D;
              N =< Light -> L;
              true -> None
          end || N <- lists:seq(1, ?DECADES * per_decade(O))]).

%% Which sign, 1 the first.
place(Us, O) when Us > 0 ->
    Last = ?DECADES * per_decade(O),
    max(0, min(Last, 1 + floor(per_decade(O) * math:log10(Us))));
place(_, _O) ->
    0.

signs(#{unicode := true}) -> {"█", "▒", "┃", "·"};
signs(_) -> {"#", "+", "|", "."}.

%% Outliers and what was not measured

outliers(#{outliers := []}, _O) ->
    [];
outliers(#{outliers := Outliers, target_ms := TargetMs}, O) ->
    Now = erlang:system_time(millisecond),
    Head = [<<"AGO">>, <<"TOOK">>, <<"QUEUE">>, <<"WORK">>, <<"INIT">>, <<"BACK">>, <<"SUPERVISOR">>, <<"CAUSE">>],
    Rows = [[micros(1000 * max(0, Now - At)), micros(Took), micros(Queue), micros(Work), micros(Init), micros(Back),
             lineage_describe:pid(Supervisor), cause(Outlier)]
            || #{at := At, latency_us := Took, queue_us := Queue, work_us := Work, init_us := Init, back_us := Back,
                 supervisor := Supervisor} = Outlier <- lists:sublist(Outliers, ?ROWS)],
    Kinds = [case Cause of {Kind, _} -> Kind; Kind -> Kind end || #{cause := Cause} <- Outliers],
    Sums = [[integer_to_binary(length([1 || K <- Kinds, K =:= Kind])), $\s, word(Kind)] || Kind <- lists:usort(Kinds)],
    [[{bold, text([<<"Starts that took longer than ">>, micros(1000 * TargetMs), <<", the last ">>, integer_to_binary(length(Outliers)), <<": ">>,
                   lists:join(<<", ">>, Sums)])}]
     | table(Head, Rows, [dim, bold, plain, plain, plain, plain, cyan, yellow], O)].

word(long_schedule) -> <<"long schedule">>;
word(Kind) -> atom_to_binary(Kind).

cause(#{cause := {stall, #{number := Number, kind := Kind, by := By, os_pid := OsPid}}}) ->
    Why = case Kind of
              waited when By =:= <<>> -> <<"had no CPU">>;
              waited -> [<<"waited for ">>, By, <<" (">>, integer_to_binary(OsPid), <<")">>];
              stopped -> <<"was stopped">>;
              _ -> [atom_to_binary(Kind), <<" in ">>, By]
          end,
    text([<<"stall: scheduler ">>, integer_to_binary(Number), $\s, Why]);
cause(#{cause := {Kind, Pid}} = Outlier) ->
    Role = [R || R <- [supervisor, child, caller], maps:get(R, Outlier) =:= Pid],
    text([word(Kind), <<" of ">>, case Role of [R | _] -> [<<"the ">>, atom_to_binary(R)]; [] -> io_lib:format("~p", [Pid]) end]);
cause(#{cause := Kind}) ->
    word(Kind).

counts(Overhead, O) ->
    Told = [[integer_to_binary(N), $\s, Word]
            || {Key, Word} <- [{failed, <<"started no child">>}, {elsewhere, <<"were made on another node">>},
                               {unfinished, <<"were cut off by a window's end">>}, {lost, <<"found no room">>},
                               {outliers_lost, <<"slow ones were told no details of">>}],
               #{Key := N} <- [Overhead], N > 0],
    [Line || Told =/= [], Line <- dim([<<"not counted: ">>, lists:join(<<", ">>, Told)], O)].

micros(none) -> <<"?">>;
micros(Us) when Us < 9.95 -> text(io_lib:format("~.1f us", [float(Us)]));
micros(Us) when Us < 999.5 -> text(io_lib:format("~b us", [round(Us)]));
micros(Us) when Us < 9995 -> text(io_lib:format("~.2f ms", [Us / 1000]));
micros(Us) when Us < 999500 -> text(io_lib:format("~.1f ms", [Us / 1000]));
micros(Us) when Us < 59950000 -> text(io_lib:format("~.1f s", [Us / 1000000]));
micros(Us) when Us < 3600000000 -> text(io_lib:format("~b min ~b s", [round(Us) div 60000000, round(Us) rem 60000000 div 1000000]));
micros(Us) -> text(io_lib:format("~b h ~b min", [round(Us) div 3600000000, round(Us) rem 3600000000 div 60000000])).

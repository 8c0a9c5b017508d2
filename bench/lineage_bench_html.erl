%% The report: one HTML file that shows the JSON lines of a run, and needs nothing besides.
-module(lineage_bench_html).

-export([main/0, write/2, check/1]).

-type line() :: #{binary() => term()}.

%% Reads the JSON lines and writes the page, both named on the command line; ends the node: 0, or 1 where the page is not well
%% formed, with what is wrong.
-spec main() -> no_return().
main() ->
    [Lines, Page] = init:get_plain_arguments(),
    case write(Lines, Page) of
        {ok, Figures} ->
            io:format("~b figures in ~ts~n", [Figures, Page]),
            erlang:halt(0);
        {error, Why} ->
            io:format(standard_error, "~ts: ~0tp~n", [Page, Why]),
            erlang:halt(1)
    end.

%% Writes the page; how many figures it has.
-spec write(file:name(), file:name()) -> {ok, pos_integer()} | {error, term()}.
write(File, Page) ->
    {ok, Text} = file:read_file(File),
    Lines = [lineage_bench_check:decode(Line) || Line <- binary:split(Text, <<"\n">>, [global, trim_all])],
    Html = iolist_to_binary(lineage_bench_page:page("Lineage: benchmarks", body(Lines))),
    ok = file:write_file(Page, Html),
    check(Html).

%% The benchmarks in the order in which a reader asks.
sections() ->
    [
        {<<"reference">>, "The reference node", fun lineage_bench_show_latency:reference/1},
        {<<"overhead">>, "Supervision", fun lineage_bench_show_latency:overhead/1},
        {<<"cost">>, "The hook", fun lineage_bench_show_cost:cost/1},
        {<<"ping">>, "Messages", fun lineage_bench_show_cost:ping/1},
        {<<"big">>, "A million processes", fun lineage_bench_show_cost:big/1},
        {<<"modes">>, "Measuring overhead", fun lineage_bench_show_modes:modes/1},
        {<<"stream">>, "Streams of events", fun lineage_bench_show_cost:stream/1},
        {<<"witness">>, "The probe", fun lineage_bench_show_cost:witness/1}
    ].

body(Lines) ->
    Shown = [{Name, Title, Show(Of)} || {Name, Title, Show} <- sections(), [_ | _] = Of <- [of_bench(Name, Lines)]],
    [
        {header, [], [
            {h1, [], "Lineage: benchmarks"},
            [about(Line) || Line <- of_bench(<<"about">>, Lines)],
            {nav, [], [{a, [{href, ["#", Name]}], Title} || {Name, Title, _} <- Shown]}
        ]},
        {'div', [{class, "tiles"}], [tile(Tile) || {_, _, {Tiles, _}} <- Shown, Tile <- lists:flatten(Tiles)]},
        [{section, [{id, Name}], [{h2, [], Title}, Content]} || {Name, Title, {_, Content}} <- Shown]
    ].

of_bench(Name, Lines) ->
    [Line || #{<<"bench">> := Bench} = Line <- Lines, Bench =:= Name].

-spec about(line()) -> lineage_bench_page:node_().
about(#{<<"when">> := When, <<"otp">> := Otp, <<"elixir">> := Elixir, <<"os">> := Os, <<"cpu">> := Cpu} = Line) ->
    #{<<"memory_kb">> := Memory, <<"schedulers">> := Schedulers, <<"small">> := Small} = Line,
    {p, [{class, "about"}], [
        ["OTP ", Otp, ", Elixir ", Elixir, "; ", Cpu, ", ", integer_to_list(Schedulers), " schedulers, "],
        [integer_to_list(round(Memory / 1048576)), " GiB, ", Os, "; ", When],
        ["; --small: the form only, no figure means anything" || Small]
    ]}.

%% An answer: its class, the figure, what it is, and what it is to be.
tile({Class, Figure, What, Beside}) ->
    {'div', [{class, ["tile ", atom_to_list(Class)]}], [{b, [], Figure}, {span, [], What}, {small, [], Beside}]}.

%% How many figures there are, at least one, each with marks in all of its panels; or what is wrong: a tag that is not closed in
%% order, or a figure without data.
-spec check(binary()) -> {ok, pos_integer()} | {error, term()}.
check(Html) ->
    Pattern = "<(/?)([a-zA-Z0-9]+)((?:\\s+[a-zA-Z0-9-]+=\"[^\"<>]*\")*)\\s*(/?)>|<!DOCTYPE html>|[<>]",
    {match, Found} = re:run(Html, Pattern, [global, {capture, all, binary}]),
    try lists:foldl(fun tag/2, {[], 0, false}, Found) of
        {[], 0, _} -> {error, no_figure};
        {[], Figures, _} -> {ok, Figures};
        {Open, _, _} -> {error, {open, Open}}
    catch
        throw:Why -> {error, Why}
    end.

tag([<<"<!DOCTYPE html>">> | _], State) -> State;
tag([Stray], _State) -> throw({stray, Stray});
tag([_, <<>>, _Name, Attributes, <<"/">>], {Open, Figures, Marked}) -> {Open, Figures, Marked orelse is_mark(Attributes)};
tag([_, <<>>, <<"svg">>, _, <<>>], {Open, Figures, _}) -> {[<<"svg">> | Open], Figures, false};
tag([_, <<>>, Name, _, <<>>], {Open, Figures, Marked}) -> {[Name | Open], Figures, Marked};
tag([_, <<"/">>, <<"svg">>, _, <<>>], {_, Figures, false}) -> throw({no_data, Figures + 1});
tag([_, <<"/">>, <<"figure">>, _, <<>>], {[<<"figure">> | Open], Figures, true}) -> {Open, Figures + 1, false};
tag([_, <<"/">>, Name, _, <<>>], {[Name | Open], Figures, Marked}) -> {Open, Figures, Marked};
tag([Tag | _], {Open, _, _}) -> throw({not_open, Tag, lists:sublist(Open, 1)}).

is_mark(Attributes) -> binary:match(Attributes, <<"class=\"mark">>) =/= nomatch.

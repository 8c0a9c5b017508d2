%% Elements of the HTML report: a tree of tags is written as text in which each is closed and each text escaped, which is XML
%% as well.
-module(lineage_bench_page).

-export([render/1, page/2, table/2, figure/3, details/2, count/1, time/1, keyed/2]).

-export_type([node_/0]).

-type node_() :: {atom(), [{atom(), text() | number()}], node_()} | [node_()] | text().
-type text() :: unicode:chardata().

%% A tree as text, in UTF-8.
-spec render(node_()) -> iodata().
render({Tag, Attributes, []}) ->
    [$<, atom_to_list(Tag), attributes(Attributes) | closed(Tag)];
render({Tag, Attributes, Content}) ->
    Name = atom_to_list(Tag),
    [$<, Name, attributes(Attributes), $>, render(Content), "</", Name, ">"];
render([]) ->
    [];
render([Char | Rest]) when is_integer(Char) ->
    [escape(<<Char/utf8>>) | render(Rest)];
render([Node | Rest]) ->
    [render(Node) | render(Rest)];
render(Text) when is_binary(Text) ->
    escape(Text).

%% Those that HTML knows as void stay open tags with a slash; SVG's marks are the same.
closed(Tag) when Tag =:= meta; Tag =:= br; Tag =:= path; Tag =:= line; Tag =:= circle; Tag =:= rect; Tag =:= polyline -> "/>";
closed(Tag) -> ["></", atom_to_list(Tag), ">"].

attributes(Attributes) ->
    [[$\s, atom_to_list(Name), $=, $", attribute(Value), $"] || {Name, Value} <- Attributes].

attribute(Value) when is_integer(Value) -> integer_to_binary(Value);
attribute(Value) when is_float(Value) -> number(Value);
attribute(Value) -> escape(unicode:characters_to_binary(Value)).

number(Float) -> float_to_binary(Float, [{decimals, 1}, compact]).

escape(Text) ->
    lists:foldl(
        fun({From, To}, Escaped) -> binary:replace(Escaped, From, To, [global]) end,
        Text,
        [{<<"&">>, <<"&amp;">>}, {<<"<">>, <<"&lt;">>}, {<<">">>, <<"&gt;">>}, {<<"\"">>, <<"&quot;">>}]
    ).

%% A whole page that needs nothing but itself.
-spec page(text(), node_()) -> iodata().
page(Title, Body) ->
    [
        "<!DOCTYPE html>\n",
        render(
            {html, [{lang, "en"}], [
                {head, [], [
                    {meta, [{charset, "utf-8"}], []},
                    {meta, [{name, "viewport"}, {content, "width=device-width, initial-scale=1"}], []},
                    {title, [], Title},
                    {style, [], css()}
                ]},
                {body, [], [{main, [], Body}]}
            ]}
        ),
        $\n
    ].

%% A table: headings, and rows of texts. The first column is a name, the others are figures.
-spec table([text()], [[text()]]) -> node_().
table(Headings, Rows) ->
    {'div', [{class, "scroll"}],
        [{table, [], [
            {thead, [], [{tr, [], [{th, [], Text} || Text <- Headings]}]},
            {tbody, [], [{tr, [], [{td, [], Text} || Text <- Row]} || Row <- Rows]}
        ]}]}.

%% Plots side by side, with what they show above and how to read them below.
-spec figure(text(), node_(), [node_()]) -> node_().
figure(Title, Caption, Panels) ->
    {figure, [], [{h3, [], Title}, {'div', [{class, "panels"}], Panels}, {figcaption, [], Caption}]}.

%% What is shown when it is asked for.
-spec details(text(), node_()) -> node_().
details(Summary, Content) ->
    {details, [], [{summary, [], Summary}, Content]}.

%% A number with its thousands apart.
-spec count(integer()) -> text().
count(N) when N < 0 -> ["-", count(-N)];
count(N) when N < 1000 -> integer_to_list(N);
count(N) -> [count(N div 1000), $,, io_lib:format("~3..0b", [N rem 1000])].

%% Microseconds with their unit, three digits or a whole number; `-' for what there is none of.
-spec time(number() | null) -> text().
time(null) -> "-";
time(Us) -> string:replace(re:replace(lineage_bench_plot:us(Us), "\\.0+ ", " ", [{return, list}]), "us", [181, $s]).

%% Lines by a key, in the order in which each key comes first.
-spec keyed(fun((Line) -> Key), [Line]) -> [{Key, [Line]}].
keyed(Key, Lines) ->
    Keys = [{Key(Line), Line} || Line <- Lines],
    [{K, [Line || {Of, Line} <- Keys, Of =:= K]} || K <- distinct([K || {K, _} <- Keys])].

distinct([]) -> [];
distinct([K | Rest]) -> [K | distinct([Other || Other <- Rest, Other =/= K])].

css() ->
    ":root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1d2430;--soft:#5d6775;--line:#dfe3e8;--good:#13804a;"
    "--bad:#c4302b;--open:#a86a00;--target:#c4302b;--c0:#8b94a1;--c1:#b3bac4;--c2:#0b6cb8;--c3:#d9730d;--c4:#11875d;--c5:#a3509f}"
    "@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2028;--ink:#e6e9ee;--soft:#9aa5b3;--line:#2e3743;--good:#4cc38a;"
    "--bad:#ff7b72;--open:#e3b341;--target:#ff7b72;--c0:#8b94a1;--c1:#636d7b;--c2:#58a6ff;--c3:#f0954a;--c4:#3fc796;--c5:#d28bd0}}"
    "*{box-sizing:border-box}html{scroll-behavior:smooth}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "main{max-width:1240px;margin:0 auto;padding:32px 20px 80px}"
    "h1{font-size:30px;letter-spacing:-.02em;margin:0}h2{font-size:22px;letter-spacing:-.01em;margin:56px 0 4px;padding-top:18px;"
    "border-top:1px solid var(--line)}h3{font-size:15px;margin:0 0 10px}p{max-width:78ch;margin:6px 0 12px}"
    ".about,.how,figcaption,nav{color:var(--soft);font-size:13.5px}nav a{color:inherit;margin-right:16px}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:14px;margin:22px 0 8px}"
    ".tile{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--soft);border-radius:8px;padding:12px 16px}"
    ".tile b{display:block;font-size:25px;letter-spacing:-.02em;line-height:1.25}.tile span{display:block;font-size:13px}"
    ".tile small{color:var(--soft);font-size:12px}.tile.pass{border-left-color:var(--good)}.tile.fail{border-left-color:var(--bad)}"
    ".tile.more{border-left-color:var(--open)}"
    "figure{margin:18px 0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px 18px}"
    ".panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr));gap:6px 26px;align-items:start}"
    "svg{display:block;width:100%;max-width:640px;height:auto;overflow:visible;font:11px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
    "svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}svg .head{font-weight:600;font-size:12px}"
    "svg .grid{stroke:var(--line);stroke-width:1}svg .target{stroke:var(--target);stroke-width:1.3;stroke-dasharray:4 3}"
    "svg .targettext{fill:var(--target)}svg .bar{stroke:var(--target);stroke-width:2}"
    "svg .span{stroke-width:2;opacity:.55}svg .interval{stroke-width:7;opacity:.25}svg .open{stroke-width:2;stroke-dasharray:1.5 3}"
    "svg .column{stroke-width:10;opacity:.85}svg .curve{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    ++ lists:append([
        lists:flatten(io_lib:format("svg .f~b{fill:var(--c~b)}svg .s~b{stroke:var(--c~b)}", [N, N, N, N]))
     || N <- lists:seq(0, 5)
    ]) ++
    "svg .pass,td.pass{fill:var(--good)}svg .fail{fill:var(--bad)}svg .more{fill:var(--open)}"
    "details{margin:4px 0 22px}summary{cursor:pointer;color:var(--soft);font-size:13.5px}.scroll{overflow-x:auto}"
    "table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;margin-top:8px}"
    "th,td{padding:3px 12px 3px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}".

%% @private Text for people: tables and lines that fit the terminal, and colour.
-module(lineage_text).

-export([table/4, wrap/3, fold/2, line/2, pad/2, count/2, text/1]).

-export_type([style/0, line/0, options/0]).

-type style() :: plain | bold | dim | red | green | yellow | blue | cyan.
-type line() :: [{style(), binary()}].
%% `columns' of the terminal (`infinity': nothing is cut); `unicode': dots as one character.
-type options() :: #{columns := pos_integer() | infinity, colour := boolean(), unicode => boolean()}.

%% @doc The lines of a table, with a style for each column. Columns are as wide as they need; where that is too much, the
%% widest give way first.
-spec table([binary()], [[binary()]], [style()], options()) -> [line()].
table(Head, Rows, Styles, #{columns := Columns} = O) ->
    Natural = [lists:max([string:length(C) || C <- Column]) || Column <- transpose([Head | Rows])],
    Widths = shrink(Natural, Columns - 2 * (length(Head) - 1)),
    [[{bold, T} || T <- cells(Head, Widths, O)] | [lists:zip(Styles, cells(Row, Widths, O)) || Row <- Rows]].

transpose([[] | _]) -> [];
transpose(Rows) -> [[hd(R) || R <- Rows] | transpose([tl(R) || R <- Rows])].

shrink(Widths, Room) ->
    Widest = lists:max(Widths),
    case lists:sum(Widths) =< Room orelse Widest =< 6 of
        true -> Widths;
        false -> shrink(narrow(Widths, Widest), Room)
    end.

%% The last of the widest.
narrow(Widths, Widest) ->
    {Before, [_ | After]} = lists:splitwith(fun(W) -> W =/= Widest end, lists:reverse(Widths)),
    lists:reverse(Before ++ [Widest - 1 | After]).

cells([Text], [Width], O) -> [cut(Text, Width, O)];
cells([Text | Rest], [Width | Widths], O) -> [pad(cut(Text, Width, O), Width + 2) | cells(Rest, Widths, O)].

cut(Text, Width, O) ->
    case string:length(Text) =< Width of
        true -> Text;
        false ->
            Dots = ellipsis(O),
            case Width - string:length(Dots) of
                Room when Room > 0 -> shorter(Text, Room, Dots);
                _ -> string:slice(Text, 0, max(0, Width))
            end
    end.

%% Of a call the end says most: the function, after a module whose first names many have in common; of a place the
%% file's name and the line.
shorter(Text, Room, Dots) ->
    case re:run(Text, "^[^ ]*(/[0-9]+|:[0-9]+\\??)$", [{capture, none}]) of
        match -> <<Dots/binary, (string:slice(Text, string:length(Text) - Room))/binary>>;
        nomatch -> <<(string:slice(Text, 0, Room))/binary, Dots/binary>>
    end.

ellipsis(#{unicode := true}) -> <<"…"/utf8>>;
ellipsis(_) -> <<"..">>.

%% @doc With blanks up to that width.
-spec pad(unicode:chardata(), non_neg_integer()) -> binary().
pad(Text, Width) ->
    text([Text, lists:duplicate(max(0, Width - string:length(Text)), $\s)]).

%% @doc One text over several lines.
-spec wrap([{style(), binary()}], non_neg_integer(), options()) -> [line()].
wrap([{Style, Text}], Indent, #{columns := Columns}) ->
    Pad = binary:copy(<<" ">>, Indent),
    [[{Style, <<Pad/binary, L/binary>>}] || L <- fold(Text, Columns - Indent)].

%% @doc Cuts between words; a word that is too long stands alone and is cut at the edge.
-spec fold(binary(), integer()) -> [binary(), ...].
fold(Text, Width) ->
    fold(string:split(Text, " ", all), Width, <<>>).

fold([], _Width, Line) ->
    [Line];
fold([Word | Rest], Width, <<>>) ->
    fold(Rest, Width, Word);
fold([Word | Rest], Width, Line) ->
    case string:length(Line) + 1 + string:length(Word) =< Width of
        true -> fold(Rest, Width, <<Line/binary, " ", Word/binary>>);
        false -> [Line | fold(Rest, Width, Word)]
    end.

%% @doc A line as it is written: cut at the terminal's edge, and only then coloured; without blanks at its end.
-spec line(line(), options()) -> unicode:chardata().
line(Parts, #{columns := Columns} = O) ->
    line(trim(lists:reverse(Parts)), Columns, O).

trim([]) ->
    [];
trim([{Style, Text} | Before]) ->
    case string:trim(Text, trailing) of
        <<>> -> trim(Before);
        Trimmed -> lists:reverse(Before, [{Style, Trimmed}])
    end.

line([], _Left, _O) ->
    [];
line([{Style, Text} | Rest], infinity, #{colour := Colour} = O) ->
    [paint(Style, Text, Colour) | line(Rest, infinity, O)];
line([{Style, Text} | Rest], Left, #{colour := Colour} = O) ->
    Length = string:length(Text),
    case Length =< Left of
        true -> [paint(Style, Text, Colour) | line(Rest, Left - Length, O)];
        false -> [paint(Style, cut(Text, Left, O), Colour)]
    end.

paint(_Style, <<>>, _Colour) -> <<>>;
paint(plain, Text, _Colour) -> Text;
paint(_Style, Text, false) -> Text;
paint(Style, Text, true) -> [<<"\e[">>, code(Style), $m, Text, <<"\e[0m">>].

code(bold) -> <<"1">>;
code(dim) -> <<"2">>;
code(red) -> <<"31">>;
code(green) -> <<"32">>;
code(yellow) -> <<"33">>;
code(blue) -> <<"34">>;
code(cyan) -> <<"36">>.

%% @doc So many of something.
-spec count(non_neg_integer(), binary()) -> iolist().
count(1, Word) -> [<<"1 ">>, Word];
count(N, <<"child">>) -> [integer_to_binary(N), <<" children">>];
count(N, <<"OS process">>) -> [integer_to_binary(N), <<" OS processes">>];
count(N, <<"live process">>) -> [integer_to_binary(N), <<" live processes">>];
count(N, Word) -> [integer_to_binary(N), $\s, Word, $s].

-spec text(unicode:chardata()) -> binary().
text(Chars) -> unicode:characters_to_binary(Chars).

%% @doc What an audit found, as text: a table for people, one line a finding for editors and CI, JSON for programs.
-module(lineage_audit_report).

-export([format/3]).

-import(lineage_text, [line/2, count/2, text/1]).

-export_type([format/0, options/0]).

-type format() :: table | compact | json.
-type options() :: #{columns => pos_integer() | infinity,  % of the terminal; a table's lines are cut there
                     colour => boolean()}.

-define(SEVERITIES, [{unlinked, red, <<"spawned without a link: nobody stops it">>},
                     {tethered, yellow, <<"linked, but no supervisor starts it: nobody restarts it">>},
                     {deferred, cyan, <<"runs later, or on another node">>}]).
-define(WRAP, 100).     % of hints, where there is no terminal

%% @doc The text ends with a line break. What could not be read is in the JSON only: the others leave it to the caller.
-spec format(lineage_audit:result(), format(), options()) -> unicode:chardata().
format(Result, table, Options) -> table(Result, maps:merge(#{columns => infinity, colour => false}, Options));
format(#{findings := Findings, unused := Unused}, compact, _Options) ->
    [[compact(F) || F <- Findings], [[unused(U), $\n] || U <- Unused]];
format(Result, json, _Options) -> [lineage_json:encode(json(Result)), $\n].

%% One line each

compact(#{file := File, line := Line, severity := Severity, call := Call, hint := Hint} = F) ->
    [File, $:, integer_to_binary(Line), <<": ">>, atom_to_binary(Severity), <<": ">>, Call,
     case place(F) of
         <<>> -> <<>>;
         Place -> [<<" in ">>, Place]
     end, <<": ">>, Hint, $\n].

unused(#{entry := Entry, at := At, reason := Reason}) ->
    [<<"unused ignore entry, line ">>, integer_to_binary(At), <<": ">>, Entry, <<"  # ">>, Reason].

%% Where a finding stands, as its language writes it.
place(#{module := undefined, function := undefined}) -> <<>>;
place(#{module := undefined, function := {F, A}}) -> <<(atom_to_binary(F))/binary, $/, (integer_to_binary(A))/binary>>;
place(#{module := M, function := undefined}) ->
    case atom_to_binary(M) of
        <<"Elixir.", Name/binary>> -> Name;
        Name -> Name
    end;
place(#{module := M, function := {F, A}}) -> lineage_calls:name(M, F, A).

%% JSON

json(#{findings := Findings, ignored := Ignored, unused := Unused, unreadable := Unreadable, files := Files,
       lines := Lines}) ->
    #{<<"findings">> => [finding(F) || F <- Findings],
      <<"ignored">> => Ignored,
      <<"unused">> => [#{<<"entry">> => E, <<"line">> => At, <<"reason">> => R}
                       || #{entry := E, at := At, reason := R} <- Unused],
      <<"unreadable">> => [#{<<"path">> => P, <<"reason">> => R} || {P, R} <- Unreadable],
      <<"files">> => Files,
      <<"lines">> => Lines}.

finding(#{file := File, line := Line, call := Call, mfa := {M, F, A}, severity := Severity, module := Module,
          function := Function, hint := Hint}) ->
    #{<<"file">> => File, <<"line">> => Line, <<"call">> => Call, <<"severity">> => atom_to_binary(Severity),
      <<"mfa">> => [atom_to_binary(M), atom_to_binary(F), A],
      <<"module">> => case Module of
                          undefined -> null;
                          _ -> atom_to_binary(Module)
                      end,
      <<"function">> => case Function of
                            undefined -> null;
                            {Name, Arity} -> [atom_to_binary(Name), Arity]
                        end,
      <<"hint">> => Hint}.

%% The table

table(#{findings := Findings, unused := Unused} = Result, O) ->
    Files = groups(Findings),
    Width = lists:max([0 | [string:length(C) || #{call := C} <- Findings]]),
    Lines = [[[{bold, File}] | [row(F, Width) || F <- Of]] ++ [[]] || {File, Of} <- Files],
    Rest = legend(Findings) ++ hints(Findings, O) ++ [[{yellow, text(unused(U))}] || U <- Unused]
        ++ [summary(Result, length(Files))],
    [[line(L, O), $\n] || L <- lists:append(Lines) ++ Rest].

%% By file, in the order of the findings.
groups([]) -> [];
groups([#{file := File} | _] = Findings) ->
    {Of, Rest} = lists:splitwith(fun(#{file := F}) -> F =:= File end, Findings),
    [{File, Of} | groups(Rest)].

row(#{line := Line, severity := Severity, call := Call} = F, Width) ->
    {_, Colour, _} = lists:keyfind(Severity, 1, ?SEVERITIES),
    [{plain, text(string:pad(integer_to_binary(Line), 7, leading))}, {plain, <<"  ">>},
     {Colour, lineage_text:pad(atom_to_binary(Severity), 10)},
     {plain, lineage_text:pad(Call, Width + 2)}, {dim, place(F)}].

legend(Findings) ->
    [[{Colour, atom_to_binary(S)}, {dim, <<": ", Meaning/binary>>}]
     || {S, Colour, Meaning} <- ?SEVERITIES, lists:any(fun(#{severity := Of}) -> Of =:= S end, Findings)].

%% Each once, with the calls that it is for.
hints([], _O) -> [];
hints(Findings, O) ->
    Hints = maps:groups_from_list(fun(#{hint := H}) -> H end, fun(#{call := C}) -> C end, Findings),
    Ordered = lists:sort([{lists:usort(Calls), Hint} || {Hint, Calls} <- maps:to_list(Hints)]),
    [[]] ++ lists:append([[[{bold, L}] || L <- fold(text(lists:join(<<", ">>, Calls)), 0, O)]
                          ++ [[{plain, L}] || L <- fold(Hint, 4, O)] || {Calls, Hint} <- Ordered]) ++ [[]].

summary(#{findings := Findings, ignored := Ignored, files := Read, lines := Lines, unreadable := Unreadable}, Files) ->
    By = [{S, length([1 || #{severity := Of} <- Findings, Of =:= S])} || {S, _, _} <- ?SEVERITIES],
    Found = case Findings of
                [] -> <<"no findings">>;
                _ -> [count(length(Findings), <<"finding">>), <<" in ">>, count(Files, <<"file">>), <<" (">>,
                      lists:join(<<", ">>, [[integer_to_binary(N), $\s, atom_to_binary(S)] || {S, N} <- By, N > 0]), $)]
            end,
    [{if Findings =:= [] -> green; true -> bold end,
      text([Found, <<"; ">>, count(Read, <<"file">>), <<" read, ">>, count(Lines, <<"line">>),
            [[<<"; ">>, integer_to_binary(Ignored), <<" ignored">>] || Ignored > 0],
            [[<<"; ">>, integer_to_binary(length(Unreadable)), <<" unreadable">>] || Unreadable =/= []]])}].

fold(Text, Indent, #{columns := Columns}) ->
    Width = case Columns of
                infinity -> ?WRAP;
                _ -> max(40, Columns)
            end,
    Pad = binary:copy(<<" ">>, Indent),
    [<<Pad/binary, L/binary>> || L <- lineage_text:fold(Text, Width - Indent)].

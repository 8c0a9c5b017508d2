%% @doc Findings that a project accepts: a file of entries, one a line, each with its reason.
%%
%% `path-glob[:line]  [call]  # reason'. In a glob `*' stands for anything without a slash, `**' for anything,
%% `?' for one character; it may leave out the first directories of a path. The call is written as a finding
%% shows it, with or without its arity. Empty lines, and lines that begin with `#', are comments.
-module(lineage_audit_ignore).

-export([read/1, apply/2]).

-export_type([entry/0]).

-type entry() :: #{entry := binary(),               % as it is written, without the reason
                   at := pos_integer(),             % its line in the ignore file
                   reason := binary(),
                   path := binary(),                % a regular expression
                   line := pos_integer() | any,
                   call := binary() | any}.

%% @doc The entries of a file; an error is a sentence that says what to correct.
-spec read(file:filename()) -> {ok, [entry()]} | {error, Sentence :: binary()}.
read(File) ->
    case file:read_file(File) of
        {ok, Text} -> entries(lists:enumerate(re:split(utf8(Text), "\r?\n")), File, []);
        {error, Reason} ->
            {error, text("The ignore file ~ts cannot be read (~ts): give the name of one that can.",
                         [File, file:format_error(Reason)])}
    end.

%% What is no UTF-8 is taken for latin1, in which anything is a text.
utf8(Text) ->
    case unicode:characters_to_binary(Text) of
        Same when is_binary(Same) -> Same;
        _ -> unicode:characters_to_binary(Text, latin1)
    end.

entries([{At, Line} | Rest], File, Entries) ->
    case entry(string:trim(Line), At) of
        none -> entries(Rest, File, Entries);
        {ok, Entry} -> entries(Rest, File, [Entry | Entries]);
        {error, Why} -> {error, text("~ts:~b: ~ts: write `path-glob[:line]  [call]  # reason`.", [File, At, Why])}
    end;
entries([], _File, Entries) ->
    {ok, lists:reverse(Entries)}.

entry(<<>>, _At) -> none;
entry(<<"#", _/binary>>, _At) -> none;
entry(Line, At) ->
    case re:split(Line, "\\s+#\\s*", [{parts, 2}]) of
        [What, Reason] when Reason =/= <<>> ->
            case string:lexemes(What, " \t") of
                [Path] -> {ok, entry(What, At, Reason, Path, any)};
                [Path, Call] -> {ok, entry(What, At, Reason, Path, Call)};
                _ -> {error, "an entry has a path and perhaps a call before its reason"}
            end;
        _ -> {error, "an entry needs a reason"}
    end.

entry(What, At, Reason, Path, Call) ->
    {Glob, Line} = case re:run(Path, "^(.*):([1-9][0-9]*)$", [{capture, all_but_first, binary}]) of
                       {match, [Before, Number]} -> {Before, binary_to_integer(Number)};
                       nomatch -> {Path, any}
                   end,
    #{entry => What, at => At, reason => Reason, path => regex(Glob), line => Line, call => Call}.

regex(<<"./", Glob/binary>>) -> regex(Glob);
regex(Glob) -> iolist_to_binary(["^(.*/)?", glob(Glob), "$"]).

glob(<<"**/", Rest/binary>>) -> ["(.*/)?", glob(Rest)];
glob(<<"**", Rest/binary>>) -> [".*", glob(Rest)];
glob(<<"*", Rest/binary>>) -> ["[^/]*", glob(Rest)];
glob(<<"?", Rest/binary>>) -> ["[^/]", glob(Rest)];
glob(<<C, Rest/binary>>) when C >= $a, C =< $z; C >= $A, C =< $Z; C >= $0, C =< $9; C >= 128; C =:= $/; C =:= $_ ->
    [C, glob(Rest)];
glob(<<C, Rest/binary>>) -> [$\\, C, glob(Rest)];
glob(<<>>) -> [].

%% @doc The findings that no entry ignores, how many are ignored, and the entries that ignored none.
-spec apply([map()], [entry()]) -> {[map()], non_neg_integer(), [entry()]}.
apply(Findings, Entries) ->
    Matched = [{F, [maps:get(at, E) || E <- Entries, matches(E, F)]} || F <- Findings],
    Used = lists:append([At || {_, At} <- Matched]),
    Kept = [F || {F, []} <- Matched],
    {Kept, length(Findings) - length(Kept), [E || #{at := At} = E <- Entries, not lists:member(At, Used)]}.

matches(#{path := Path, line := Line, call := Call}, #{file := File, line := FindingLine, call := FindingCall}) ->
    (Line =:= any orelse Line =:= FindingLine)
        andalso (Call =:= any orelse Call =:= FindingCall orelse Call =:= hd(string:split(FindingCall, "/", trailing)))
        andalso match =:= re:run(File, Path, [{capture, none}]).

text(Format, Arguments) -> unicode:characters_to_binary(io_lib:format(Format, Arguments)).

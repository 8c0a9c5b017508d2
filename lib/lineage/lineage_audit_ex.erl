%% @doc What the static audit finds in one Elixir source, `.ex' or `.exs'.
%%
%% Elixir's own parser reads it; nothing is compiled, and no macro is expanded, so it does not matter
%% whether what the file uses is there. The parser comes from the Elixir that is installed: Lineage itself
%% is built without it.
-module(lineage_audit_ex).

-export([read/1]).

-export_type([finding/0]).

-type finding() :: #{file := binary(),
                     line := pos_integer(),
                     call := binary(),
                     mfa := mfa(),
                     severity := lineage_calls:severity(),
                     module := module() | undefined,
                     function := {atom(), arity()} | undefined,
                     hint := binary(),
                     start_link => true}.

%% @doc Reads a file. `specs' are the functions that child specs in it name, `lines' its length. A finding
%% with `start_link' falls away when a child spec of any file names its function. The error is one
%% sentence: there is no Elixir, the file cannot be read, or it is not Elixir.
-spec read(file:filename_all()) ->
          {ok, #{findings := [finding()], specs := [{module(), atom(), arity() | '_'}],
                 lines := non_neg_integer()}}
        | {error, Reason :: binary()}.
read(File) ->
    case {lineage_audit:elixir(), file:read_file(File)} of
        {true, {ok, Source}} -> parsed(parse(Source), Source, File);
        {true, {error, Posix}} -> {error, sentence(["It cannot be read (", file:format_error(Posix), ")."])};
        {false, _} -> {error, <<"Elixir is not installed: put elixir on the PATH to have it read.">>}
    end.

parsed({ok, Quoted}, Source, File) ->
    {Findings, Specs} = lineage_audit_ex_walk:file(Quoted, unicode:characters_to_binary(File)),
    {ok, #{findings => Findings, specs => Specs, lines => lines(Source)}};
parsed({error, _} = Error, _Source, _File) ->
    Error.

lines(<<>>) ->
    0;
lines(Source) ->
    length(binary:matches(Source, <<"\n">>)) + case binary:last(Source) of $\n -> 0; _ -> 1 end.

%% The parser raises on some input instead of returning its error. Both names of the option that keeps it
%% silent: it was renamed between releases. Elixir's module is not written out in the call: Lineage is
%% built, and checked, where there is none.
parse(Source) ->
    Options = [{columns, false}, {emit_warnings, false}, {warnings, false}],
    try apply(list_to_atom("Elixir.Code"), string_to_quoted, [Source, Options]) of
        {ok, Quoted} -> {ok, Quoted};
        {error, {Where, Message, Token}} -> {error, syntax(Where, Message, Token)}
    catch
        _:_ -> {error, <<"It is not Elixir, or is not encoded in UTF-8.">>}
    end.

syntax(Where, Message, Token) ->
    Line = if is_list(Where) -> proplists:get_value(line, Where, 1); true -> Where end,
    Said = case Message of
               {Before, After} -> [Before, Token, After];
               _ -> [string:trim(Message, trailing, [$\n]), Token]
           end,
    sentence(io_lib:format("Line ~b is not Elixir: ~ts", [Line, Said])).

%% The parser's messages may go on for lines; the first one says it.
sentence(Text) ->
    hd(binary:split(unicode:characters_to_binary(Text), [<<"\n">>, <<"\r">>])).

%% @doc The static audit: finds, in sources and in beams, every call that creates a process which no supervisor
%% starts. Nothing is compiled and nothing of what is read is run.
-module(lineage_audit).

-export([audit/1, audit/2, elixir/0]).

-export_type([finding/0, result/0, options/0]).

-type finding() :: #{file := binary(),              % as the path was given, or as the beam's debug info names it
                     line := pos_integer(),
                     call := binary(),              % as the language writes it: `erlang:spawn/1', `Task.start/1'
                     mfa := mfa(),
                     severity := lineage_calls:severity(),
                     module := module() | undefined,
                     function := {atom(), arity()} | undefined,
                     hint := binary()}.             % what supervised form replaces it
-type result() :: #{findings := [finding()],        % by file and line
                    ignored := non_neg_integer(),   % findings that the ignore file accepts
                    unused := [lineage_audit_ignore:entry()],
                    unreadable := [{Path :: binary(), Reason :: binary()}],
                    read := [binary()],             % the files
                    files := non_neg_integer(),     % how many these are
                    lines := non_neg_integer()}.    % of sources
%% `progress' is called after each file, with how many are done and how many there are.
-type options() :: #{ignore => file:filename(), progress => progress()}.
-type progress() :: fun((Done :: pos_integer(), Total :: pos_integer()) -> any()).

-define(EXTENSIONS, [".erl", ".ex", ".exs", ".beam"]).
-define(OTHERS, ["_build", "deps", "node_modules", ".git"]).     % entered when they are named, and not else

-spec audit([file:filename()]) -> result() | {error, {ignore, binary()}}.
audit(Paths) -> audit(Paths, #{}).

%% @doc Reads files, and directories with all that is below them. What cannot be read is named in the result and
%% does not stop the rest. The error is a sentence on the ignore file.
-spec audit([file:filename()], options()) -> result() | {error, {ignore, binary()}}.
audit(Paths, Options) ->
    case ignores(Options) of
        {ok, Entries} ->
            {Files, Missing} = files(Paths),
            Read = read_all(Files, maps:get(progress, Options, fun(_, _) -> ok end)),
            result(Read, Missing, Entries);
        {error, Sentence} ->
            {error, {ignore, Sentence}}
    end.

ignores(#{ignore := File}) -> lineage_audit_ignore:read(File);
ignores(_) -> {ok, []}.

%% Files

%% Each file once, in the order in which they were named.
files(Paths) ->
    Found = lists:append([named(P) || P <- Paths]),
    {unique([F || {file, F} <- Found], #{}), [{unicode:characters_to_binary(P), R} || {error, P, R} <- Found]}.

named(Path) ->
    case {filelib:is_dir(Path), filelib:is_regular(Path)} of
        {true, _} -> below(Path);
        {_, true} ->
            case lists:member(filename:extension(Path), ?EXTENSIONS) of
                true -> [{file, Path}];
                false -> [{error, Path, <<"It is none of .erl, .ex, .exs and .beam.">>}]
            end;
        _ -> [{error, Path, <<"There is no such file or directory.">>}]
    end.

below(Directory) ->
    case file:list_dir(Directory) of
        {ok, Names} -> lists:append([entry(join(Directory, N), N) || N <- lists:sort(Names)]);
        {error, Reason} -> [{error, Directory, text("It cannot be read (~ts).", [file:format_error(Reason)])}]
    end.

join(".", Name) -> Name;
join(Directory, Name) -> filename:join(Directory, Name).

%% A link to a directory is not followed: it may lead back.
entry(Path, Name) ->
    Known = lists:member(filename:extension(Name), ?EXTENSIONS),
    case {filelib:is_dir(Path), file:read_link(Path)} of
        {true, {error, _}} ->
            case lists:member(Name, ?OTHERS) of
                true -> [];
                false -> below(Path)
            end;
        {false, _} when Known -> [{file, Path}];
        _ -> []
    end.

unique([File | Rest], Seen) ->
    Key = filename:absname(File),
    case Seen of
        #{Key := _} -> unique(Rest, Seen);
        _ -> [File | unique(Rest, Seen#{Key => true})]
    end;
unique([], _Seen) ->
    [].

%% Reading

read_all(Files, Progress) ->
    Total = length(Files),
    [begin
         Read = {File, read(File)},
         Progress(Done, Total),
         Read
     end || {Done, File} <- lists:enumerate(Files)].

read(File) ->
    Extension = filename:extension(File),
    try
        case Extension =:= ".ex" orelse Extension =:= ".exs" of
            false -> lineage_audit_erl:read(File);
            true -> lineage_audit_ex:read(File)
        end
    catch
        Class:Reason:_ -> {error, text("Lineage failed on it, which is its own fault (~0tP).", [{Class, Reason}, 20])}
    end.

%% @doc Whether Elixir's own modules can be called: they are in the code path, or are put there now, at its end, from
%% where the `elixir' on the PATH has them.
-spec elixir() -> boolean().
elixir() ->
    case code:ensure_loaded('Elixir.Code') of
        {module, _} -> true;
        {error, _} ->
            case os:find_executable("elixir") of
                false -> false;
                Program -> load(elixir_ebin(Program))
            end
    end.

load(Ebin) -> code:add_pathz(Ebin) =:= true andalso element(1, code:ensure_loaded('Elixir.Code')) =:= module.

elixir_ebin(Program) ->
    Beside = filename:join([filename:dirname(filename:dirname(target(Program, 8))), "lib", "elixir", "ebin"]),
    case filelib:is_dir(Beside) of
        true -> Beside;
        false ->
            %% A wrapper: only the program itself can tell.
            Command = "'" ++ Program ++ "' -e 'IO.write(:code.lib_dir(:elixir))' 2>/dev/null",
            filename:join(string:trim(os:cmd(Command)), "ebin")
    end.

target(Path, 0) -> Path;
target(Path, Links) ->
    case file:read_link(Path) of
        {ok, To} -> target(filename:join(filename:dirname(Path), To), Links - 1);
        {error, _} -> Path
    end.

%% The result

result(Read, Missing, Entries) ->
    Good = [{File, R} || {File, {ok, R}} <- Read],
    Bad = [{unicode:characters_to_binary(File), Reason} || {File, {error, Reason}} <- Read],
    Damaged = [{unicode:characters_to_binary(File), D} || {File, R} <- Good, D <- maps:get(damaged, R, [])],
    Specs = maps:from_list([{S, true} || {_, #{specs := Of}} <- Good, S <- Of]),
    Kept = [F || F <- lists:append(once(Good)), not placed(F, Specs)],
    {Findings, Ignored, Unused} = lineage_audit_ignore:apply(Kept, Entries),
    #{findings => sort([maps:remove(start_link, F) || F <- Findings]),
      ignored => Ignored,
      unused => Unused,
      unreadable => lists:usort(Missing ++ Bad ++ Damaged),
      read => [unicode:characters_to_binary(File) || {File, _} <- Good],
      files => length(Good),
      lines => lists:sum([L || {_, #{lines := L}} <- Good])}.

sort(Findings) ->
    [F || {_, F} <- lists:sort([{{File, Line, Mfa}, F} || #{file := File, line := Line, mfa := Mfa} = F <- Findings])].

%% A start_link whose function is one that a child spec names, or is called start_link itself.
placed(#{start_link := true, module := Module, function := {Function, Arity}}, Specs) ->
    Function =:= start_link orelse is_map_key({Module, Function, Arity}, Specs)
        orelse is_map_key({Module, Function, '_'}, Specs);
placed(_Finding, _Specs) -> false.

%% What a source and its beam both tell, and what two beams of one source do, counts once; the source's words stand.
once(Good) ->
    {Beams, Sources} = lists:partition(fun({_, R}) -> is_map_key(source, R) end, Good),
    Names = maps:groups_from_list(fun filename:basename/1, [absolute(File) || {File, _} <- Sources]),
    Ordered = [R || {_, R} <- Sources ++ Beams],
    {Lists, _} = lists:mapfoldl(fun(R, Seen) -> new(R, Names, Seen) end, #{}, Ordered),
    Lists.

new(#{findings := Findings} = Read, Names, Seen) ->
    Keyed = [{{same(F, Read, Names), maps:get(line, F), plain(maps:get(mfa, F))}, F} || F <- Findings],
    New = maps:from_list([{Key, true} || {Key, _} <- Keyed]),
    {[F || {Key, F} <- Keyed, not is_map_key(Key, Seen)], maps:merge(Seen, New)}.

%% Debug info names a file as the compiler was told it, or as it was called on another machine.
same(#{file := File}, #{source := Source}, Names) ->
    Whole = absolute(Source),
    Absolute = case filename:basename(Whole) =:= filename:basename(File) of
                   true -> Whole;
                   false -> absolute(File)
               end,
    Candidates = maps:get(filename:basename(File), Names, []),
    Ends = [C || C <- Candidates, ends(C, <<"/", File/binary>>)],
    case {lists:member(Absolute, Candidates), Ends} of
        {false, [One | _]} -> One;
        _ -> Absolute
    end;
same(#{file := File}, _Read, _Names) ->
    absolute(File).

ends(Path, End) ->
    string:slice(Path, max(0, string:length(Path) - string:length(End))) =:= End.

absolute(File) -> filename:absname(unicode:characters_to_binary(File)).

%% Elixir's compiler writes its own spawn functions as those of erlang.
plain({'Elixir.Kernel', F, A}) -> {erlang, F, A};
plain({'Elixir.Process', spawn, A}) -> {erlang, spawn_opt, A};
plain({'Elixir.Node', spawn, A}) when A =:= 3; A =:= 5 -> {erlang, spawn_opt, A};
plain({'Elixir.Node', F, A}) -> {erlang, F, A};
plain({'Elixir.Port', open, 2}) -> {erlang, open_port, 2};
plain(Mfa) -> Mfa.

text(Format, Arguments) -> unicode:characters_to_binary(io_lib:format(Format, Arguments)).

%% @doc Lineage's command line: what `priv/lineage' runs, and `mix lineage.audit'.
-module(lineage_cli).

-export([main/1, run/1]).

-type status() :: 0 | 1 | 2.    % clean, findings, something could not be read or was asked wrongly

%% @doc Runs a command and ends the VM with its status.
-spec main([string()]) -> no_return().
main(Arguments) ->
    %% A VM without a shell writes latin1 unless told.
    _ = io:setopts([{encoding, unicode}]),
    _ = io:setopts(standard_error, [{encoding, unicode}]),
    halt(run(Arguments)).

%% @doc Runs a command: the first word says which. Its text goes to the group leader, complaints to stderr.
-spec run([string()]) -> status().
run([Help | _]) when Help =:= "--help"; Help =:= "-h"; Help =:= "help" -> say(help());
run(["audit" | Arguments]) ->
    case options(Arguments, #{format => table, paths => []}) of
        help -> say(help());
        {ok, #{paths := []}} ->
            complain("Nothing was given to read: name files or directories, as in `lineage audit lib`.");
        {ok, Options} -> audit(Options);
        {error, Sentence} -> complain(Sentence)
    end;
run(["reconcile" | Arguments]) ->
    case options(Arguments, #{format => table, paths => []}) of
        help -> say(help());
        {ok, #{format := table, paths := [Snapshot | [_ | _] = Paths]} = Options} when not is_map_key(ignore, Options) ->
            reconcile(Snapshot, Paths);
        {ok, _} ->
            complain("It takes a snapshot and what to read, and no options: `lineage reconcile SNAPSHOT lib`.");
        {error, Sentence} -> complain(Sentence)
    end;
run([Other | _]) ->
    complain(["There is no command ", Other, ": write `lineage audit PATHS`, or `lineage --help`."]);
run([]) ->
    complain("No command was given: write `lineage audit PATHS`, or `lineage --help`.").

help() ->
    "Usage: lineage audit [--format table|compact|json] [--ignore FILE] PATHS\n"
    "       lineage reconcile SNAPSHOT PATHS\n"
    "       lineage --help\n"
    "\n"
    "audit  finds, in Erlang and Elixir sources (.erl, .ex, .exs) and in beams with debug info, each call that\n"
    "       creates a process which no supervisor starts. Nothing is compiled. Directories are read with all that\n"
    "       is below them, except _build, deps, node_modules and .git, which are read when they are named.\n"
    "\n"
    "  --format table     by file, for people (the default)\n"
    "  --format compact   file:line: severity: text, one a line\n"
    "  --format json      one object\n"
    "  --ignore FILE      accepted findings, one a line: path-glob[:line]  [call]  # reason\n"
    "\n"
    "Severities:  unlinked  spawned without a link: nobody stops it\n"
    "             tethered  linked, but no supervisor starts it: nobody restarts it\n"
    "             deferred  runs later, or on another node\n"
    "\n"
    "reconcile  compares the findings with the sites in a snapshot that lineage:save/1 wrote: seen live, never seen, and\n"
    "       live but not found (exit status 1: each is a gap to look at).\n"
    "\n"
    "Exit status: 0 clean, 1 findings, 2 something could not be read (it is named on stderr, the rest is done)\n".

options(["--" | Paths], #{paths := Before} = Options) ->
    {ok, Options#{paths := lists:reverse(Before, Paths)}};
options([Help | _], _Options) when Help =:= "--help"; Help =:= "-h" ->
    help;
options(["--format=" ++ Format | Rest], Options) -> options(["--format", Format | Rest], Options);
options(["--ignore=" ++ File | Rest], Options) -> options(["--ignore", File | Rest], Options);
options(["--format", Format | Rest], Options) ->
    case Format of
        "table" -> options(Rest, Options#{format := table});
        "compact" -> options(Rest, Options#{format := compact});
        "json" -> options(Rest, Options#{format := json});
        _ -> {error, ["There is no format ", Format, ": write --format table, compact or json."]}
    end;
options(["--ignore", File | Rest], Options) -> options(Rest, Options#{ignore => File});
options([Option], _Options) when Option =:= "--format"; Option =:= "--ignore" ->
    {error, ["The option ", Option, " needs a value: see `lineage --help`."]};
options(["-" ++ _ = Option | _], _Options) ->
    {error, ["There is no option ", Option, ": see `lineage --help`; a path that begins with - goes after --."]};
options([Path | Rest], #{paths := Before} = Options) ->
    options(Rest, Options#{paths := [Path | Before]});
options([], #{paths := Paths} = Options) ->
    {ok, Options#{paths := lists:reverse(Paths)}}.

audit(#{paths := Paths, format := Format} = Options) ->
    Terminal = terminal(2),
    Result = lineage_audit:audit(Paths, (maps:with([ignore], Options))#{progress => progress(Terminal)}),
    _ = [io:put_chars(standard_error, "\r\e[K") || Terminal],
    case Result of
        {error, {ignore, Sentence}} -> complain(Sentence);
        #{findings := Findings, unreadable := Unreadable} ->
            say(lineage_audit_report:format(Result, Format, look())),
            _ = [complain([Path, ": ", Reason]) || {Path, Reason} <- Unreadable],
            status(Findings, Unreadable)
    end.

reconcile(Snapshot, Paths) ->
    case lineage_reconcile:saved(Snapshot, Paths) of
        {error, {_, Sentence}} -> complain(Sentence);
        #{unfound := Gaps, unreadable := Unreadable} = Report ->
            say(lineage_print:format(Report, look())),
            _ = [complain([Path, ": ", Reason]) || {Path, Reason} <- Unreadable],
            status(Gaps, Unreadable)
    end.

status(_Findings, [_ | _]) -> 2;
status([_ | _], []) -> 1;
status([], []) -> 0.

%% Told again when another hundredth is done.
progress(false) -> fun(_, _) -> ok end;
progress(true) ->
    fun(Done, Total) when Done * 100 div Total =/= (Done - 1) * 100 div Total ->
            io:put_chars(standard_error, io_lib:format("\rreading: ~b of ~b files", [Done, Total]));
       (_, _) -> ok
    end.

look() ->
    case {terminal(1), io:columns()} of
        {true, {ok, Columns}} -> #{columns => Columns, colour => colour()};
        {true, {error, _}} -> #{colour => colour()};
        {false, _} -> #{}
    end.

colour() -> os:getenv("NO_COLOR", "") =:= "" andalso os:getenv("TERM", "dumb") =/= "dumb".

%% Whether a descriptor of this VM is a terminal: only the system knows, before OTP 26.
terminal(Descriptor) ->
    case file:read_link("/proc/self/fd/" ++ integer_to_list(Descriptor)) of
        {ok, "/dev/pts/" ++ _} -> true;
        {ok, "/dev/tty" ++ _} -> true;
        {ok, "/dev/console"} -> true;
        _ -> false
    end.

say(Text) ->
    io:put_chars(unicode:characters_to_binary(Text)),
    0.

complain(Sentence) ->
    io:put_chars(standard_error, unicode:characters_to_binary([Sentence, $\n])),
    2.

%% priv/lineage as a user runs it: a program of its own.
-module(lineage_cli_tests).

-include_lib("eunit/include/eunit.hrl").

-define(CORPUS, "test/audit_corpus/erlang/").

lineage(Arguments) ->
    Status = "_build/tmp/status" ++ os:getpid(),
    Errors = "_build/tmp/errors" ++ os:getpid(),
    ok = filelib:ensure_dir(Status),
    Out = os:cmd("LC_ALL=C.UTF-8 priv/lineage " ++ Arguments ++ " 2> " ++ Errors ++ "; echo $? > " ++ Status),
    {ok, Code} = file:read_file(Status),
    {ok, Err} = file:read_file(Errors),
    _ = [file:delete(F) || F <- [Status, Errors]],
    {binary_to_integer(string:trim(Code)), unicode:characters_to_binary(Out), Err}.

lines(Text) -> binary:split(string:trim(Text, trailing), <<"\n">>, [global]).

cli_test_() ->
    [{timeout, 120, Test} || Test <- [fun clean/0, fun compact/0, fun table/0, fun json/0, fun unreadable/0,
                                      fun ignore/0, fun help/0, fun mistakes/0, fun by_a_link/0, fun unbuilt/0,
                                      fun without_elixir/0]].

clean() ->
    {0, Out, <<>>} = lineage("audit " ?CORPUS "not_findings.erl"),
    ?assertMatch({0, _}, binary:match(Out, <<"no findings; 1 file read, ">>)),
    ?assertEqual({0, <<>>, <<>>}, lineage("audit --format compact " ?CORPUS "not_findings.erl")).

compact() ->
    {1, Out, <<>>} = lineage("audit --format=compact " ?CORPUS "no_auto_import.erl"),
    [First, Second] = lines(Out),
    File = ?CORPUS "no_auto_import.erl:",
    starts(First, File ++ "7: unlinked: erlang:spawn/1 in no_auto_import:run/1: "),
    starts(Second, File ++ "9: tethered: erlang:spawn_link/1 in ").

starts(Text, Start) -> ?assertMatch({0, _}, binary:match(Text, list_to_binary(Start))).

table() ->
    {1, Out, <<>>} = lineage("audit " ?CORPUS "direct.erl " ?CORPUS "no_auto_import.erl"),
    [?assertMatch({_, _}, binary:match(Out, Part))
     || Part <- [<<"direct.erl\n">>, <<"no_auto_import.erl\n">>, <<"unlinked: ">>, <<"tethered: ">>, <<"deferred: ">>,
                 <<" findings in 2 files (">>]],
    %% No colour where there is no terminal, and each hint once.
    ?assertEqual(nomatch, binary:match(Out, <<"\e">>)),
    ?assertEqual(1, length(binary:matches(Out, <<"Start it through a supervisor">>))).

json() ->
    {1, Out, <<>>} = lineage("audit --format json " ?CORPUS),
    {ok, #{<<"findings">> := Findings, <<"files">> := Files}} = lineage_json:decode(Out),
    #{findings := Same, files := Files} = lineage_audit:audit([?CORPUS]),
    ?assertEqual([{L, C} || #{line := L, call := C} <- Same],
                 [{L, C} || #{<<"line">> := L, <<"call">> := C} <- Findings]).

unreadable() ->
    {2, Out, Err} = lineage("audit --format compact /no/such/file.erl " ?CORPUS "no_auto_import.erl " ?CORPUS "none"),
    ?assertEqual(2, length(lines(Out))),
    ?assertEqual([<<"/no/such/file.erl: There is no such file or directory.">>,
                  <<?CORPUS "none: There is no such file or directory.">>], lines(Err)).

ignore() ->
    File = "_build/tmp/ignore" ++ os:getpid(),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, <<"no_auto_import.erl:7 erlang:spawn/1  # a reason: ä\nnone.erl # of no use\n"/utf8>>),
    {1, Out, <<>>} = lineage("audit --format compact --ignore " ++ File ++ " " ?CORPUS "no_auto_import.erl"),
    ?assertMatch([_, <<"unused ignore entry, line 2: none.erl  # of no use">>], lines(Out)),
    %% In whatever encoding.
    ok = file:write_file(File, <<"no_auto_import.erl:7 # ", 16#e4, "\nnone.erl # ", 16#f6, "\n">>),
    {1, Old, <<>>} = lineage("audit --format compact --ignore " ++ File ++ " " ?CORPUS "no_auto_import.erl"),
    ?assertMatch([_, <<"unused ignore entry, line 2: none.erl  # ö"/utf8>>], lines(Old)),
    ok = file:write_file(File, "no_auto_import.erl # all\n"),
    {0, _, <<>>} = lineage("audit --ignore=" ++ File ++ " " ?CORPUS "no_auto_import.erl"),
    ok = file:write_file(File, "no_auto_import.erl\n"),
    {2, <<>>, Err} = lineage("audit --ignore " ++ File ++ " " ?CORPUS "no_auto_import.erl"),
    ?assertMatch([_], lines(Err)),
    ok = file:delete(File).

help() ->
    {0, Help, <<>>} = lineage("--help"),
    ?assertEqual({0, Help, <<>>}, lineage("audit --help")),
    ?assertMatch({_, _}, binary:match(Help, <<"--ignore FILE">>)).

%% One sentence that says what to do, and status 2.
mistakes() ->
    [begin
         {2, <<>>, Err} = lineage(Arguments),
         ?assertMatch([_], lines(Err)),
         ?assertMatch({_, _}, binary:match(Err, [<<"lineage --help">>, <<"lineage audit">>, <<"--format table">>]))
     end || Arguments <- ["", "audti x", "audit", "audit --format xml lib", "audit --colour lib",
                          "audit lib --format"]].

by_a_link() ->
    Link = "_build/tmp/link" ++ os:getpid(),
    ok = filelib:ensure_dir(Link),
    ok = file:make_symlink(filename:absname("priv/lineage"), Link),
    try
        ?assertMatch("Usage: " ++ _, os:cmd(Link ++ " --help"))
    after
        file:delete(Link)
    end.

unbuilt() ->
    Copy = "_build/tmp/copy" ++ os:getpid() ++ "/priv/lineage",
    ok = filelib:ensure_dir(Copy),
    {ok, _} = file:copy("priv/lineage", Copy),
    ok = file:change_mode(Copy, 8#755),
    try
        ?assertMatch("Lineage is not built: run make in " ++ _, os:cmd(Copy ++ " audit lib"))
    after
        file:del_dir_r(filename:dirname(filename:dirname(Copy)))
    end.

%% An elixir on the PATH that cannot say where its code is.
without_elixir() ->
    Directory = filename:absname("_build/tmp/path" ++ os:getpid()),
    Elixir = filename:join(Directory, "elixir"),
    ok = filelib:ensure_dir(Elixir),
    ok = file:write_file(Elixir, "#!/bin/sh\nexit 1\n"),
    ok = file:change_mode(Elixir, 8#755),
    Path = os:getenv("PATH"),
    true = os:putenv("PATH", Directory ++ ":" ++ Path),
    try
        {2, Out, Err} = lineage("audit --format compact lib/lineage/elixir/why.ex " ?CORPUS "no_auto_import.erl"),
        ?assertEqual(2, length(lines(Out))),
        ?assertMatch([<<"lib/lineage/elixir/why.ex: Elixir is not installed: ", _/binary>>], lines(Err))
    after
        os:putenv("PATH", Path),
        file:del_dir_r(Directory)
    end.

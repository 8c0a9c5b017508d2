%% The corpus below test/audit_corpus/erlang marks each line that is a finding: `%=> SEVERITY CALL; ...'.
-module(lineage_audit_tests).

-include_lib("eunit/include/eunit.hrl").

-define(CORPUS, "test/audit_corpus/erlang").

%% The corpus

%% Child specs count over all files, so that the corpus is read as one.
corpus_test_() ->
    #{findings := Findings, unreadable := Unreadable, files := Files} = lineage_audit:audit([?CORPUS]),
    Names = filelib:wildcard(?CORPUS ++ "/*.erl"),
    [?_assertEqual([], Unreadable), ?_assertEqual(length(Names), Files), ?_assert(Files >= 10)
     | [{Name, ?_assertEqual(marks(Name), found(Name, Findings))} || Name <- Names]].

marks(Name) ->
    {ok, Text} = file:read_file(Name),
    Lines = lists:enumerate(binary:split(Text, <<"\n">>, [global])),
    lists:usort([mark(L, M) || {L, Line} <- Lines,
                               {match, [Marks]} <- [re:run(Line, "%=> (.*)$", [{capture, [1], binary}])],
                               M <- re:split(Marks, " *; *")]).

mark(Line, Text) ->
    [Severity, Call] = binary:split(string:trim(Text), <<" ">>),
    {Line, binary_to_atom(Severity), Call}.

found(Name, Findings) ->
    lists:usort([{L, S, C} || #{file := F, line := L, severity := S, call := C} <- Findings,
                              F =:= unicode:characters_to_binary(Name)]).

%% Every row of the table, in every way of writing it, from source and from the beam that it compiles to.

rows() -> [MFA || {M, _, _} = MFA <- lineage_calls:rows(), hd(atom_to_list(M)) =/= $E].

ways_test_() ->
    [{atom_to_list(Way), fun() -> way(Way) end}
     || Way <- [remote, imported, fun_remote, fun_local, applied, macro, nested, comprehension, lines, branch]].

way(Way) ->
    Rows = case Way of
               %% A name can be imported from one module only.
               imported -> maps:values(maps:from_list([{{F, A}, R} || {_, F, A} = R <- rows()]));
               fun_local -> [R || {erlang, _, _} = R <- rows()];
               _ -> rows()
           end,
    Name = "ways_" ++ atom_to_list(Way),
    {Imports, Bodies} = lists:unzip([write(Way, R) || R <- Rows]),
    Head = ["-module(", Name, ").\n-compile([export_all, nowarn_export_all",
            [", no_auto_import" || Way =/= fun_local], "]).\n"
            "-define(M, m). -define(CALL(Mod, Fun, Args), Mod:Fun Args).\n", Imports],
    Count = length(string:split(lists:flatten(Head), "\n", all)) - 1,
    {Text, Expected, _} =
        lists:foldl(fun({{M, F, A}, {Before, Body}}, {T, E, Line}) ->
                            Function = io_lib:format("f~b(F, N) ->~n~s~s.~n", [Line, Before, Body]),
                            At = Line + 2 + newlines(Before),
                            {[T, Function], [{At, lineage_calls:name(M, F, A)} | E], Line + newlines(Function)}
                    end, {Head, [], Count}, lists:zip(Rows, Bodies)),
    Source = iolist_to_binary(Text),
    Wanted = lists:sort(Expected),
    ?assertEqual(Wanted, in_file(Name ++ ".erl", Source)),
    ?assertEqual(Wanted, in_file(Name ++ ".beam", compiled(Source))).

newlines(Text) -> length([C || C <- lists:flatten(Text), C =:= $\n]).

%% What to import, and the text: what stands before the line of the call, and the rest.
write(remote, R) -> {[], {"", ["    ", call(R)]}};
write(imported, {M, F, A} = R) ->
    {import(M, F, A), {"", io_lib:format("    ~p(~s)", [F, arguments(R)])}};
write(fun_remote, {M, F, A}) -> {[], {"", io_lib:format("    [F, N, fun ~p:~p/~b]", [M, F, A])}};
write(fun_local, {_, F, A}) -> {[], {"", io_lib:format("    {F, N, fun ~p/~b}", [F, A])}};
write(applied, {M, F, _} = R) -> {[], {"", io_lib:format("    erlang:apply(~p, ~p, [~s])", [M, F, arguments(R)])}};
write(macro, {M, F, _} = R) -> {[], {"", io_lib:format("    ?CALL(~p, ~p, (~s))", [M, F, arguments(R)])}};
write(nested, R) -> {[], {"    fun() ->\n", ["    fun(F) -> {N, ", call(R), "} end end"]}};
write(comprehension, R) -> {[], {"    [\n", ["     {F, ", call(R), "} || N <- N]"]}};
write(lines, {M, F, _} = R) -> {[], {"    N = F,\n", io_lib:format("    ~p:~p(~n  ~s~n  )", [M, F, arguments(R)])}};
write(branch, R) -> {[], {"    case F of N -> ok;\n", ["     _ -> ", call(R), " end"]}}.

import(M, F, A) -> io_lib:format("-import(~p, [~p/~b]).~n", [M, F, A]).

call({M, F, _} = R) -> io_lib:format("~p:~p(~s)", [M, F, arguments(R)]).

arguments({_, _, A}) -> lists:join(", ", lists:sublist(["N", "F", "N", "F", "N", "F"], A)).

compiled(Source) ->
    {Forms, []} = lineage_audit_scan:forms(Source),
    {ok, _, Beam} = compile:forms(Forms, [debug_info, binary, return_errors, nowarn_unused_vars]),
    Beam.

in_file(Name, Content) ->
    in_directory(#{Name => Content},
                 fun(Directory) ->
                         #{findings := Findings, unreadable := []} = lineage_audit:audit([Directory]),
                         lists:sort([{L, C} || #{line := L, call := C} <- Findings])
                 end).

in_directory(Files, Fun) ->
    Directory = filename:join(["_build", "tmp", ?MODULE_STRING ++ integer_to_list(erlang:unique_integer([positive]))
                               ++ os:getpid()]),
    [begin
         Path = filename:join(Directory, Name),
         ok = filelib:ensure_dir(Path),
         ok = file:write_file(Path, Content)
     end || {Name, Content} <- maps:to_list(Files)],
    try Fun(Directory)
    after file:del_dir_r(Directory)
    end.

%% Beams

corpus_as_beams_test_() ->
    %% What a compiler takes: the others have calls that no module could.
    [{Name, fun() -> as_beam(filename:join(?CORPUS, Name)) end} || Name <- ["direct.erl", "options.erl", "shapes.erl"]].

as_beam(Path) ->
    {ok, Module, Beam} = compile:file(Path, [debug_info, binary, return_errors, nowarn_unused_vars]),
    Name = atom_to_list(Module) ++ ".beam",
    in_directory(#{Name => Beam},
                 fun(Directory) ->
                         #{findings := Findings, lines := 0} = lineage_audit:audit([filename:join(Directory, Name)]),
                         ?assertEqual(marks(Path), found(Path, Findings)),
                         %% Together with its source it tells nothing twice.
                         #{findings := Both, files := 2} = lineage_audit:audit([filename:join(Directory, Name), Path]),
                         ?assertEqual(marks(Path), found(Path, Both)),
                         ?assertEqual(length(Findings), length(Both))
                 end).

%% A beam names the file as the machine that compiled it did.
moved_beam_test() ->
    Forms = [{attribute, 1, file, {"src/moved.erl", 1}}, {attribute, 1, module, moved},
             {attribute, 2, export, [{f, 1}]},
             {function, 3, f, 1, [{clause, 3, [{var, 3, 'F'}], [], [{call, 3, {atom, 3, spawn}, [{var, 3, 'F'}]}]}]}],
    {ok, moved, Beam} = compile:forms(Forms, [debug_info, {source, "/another/machine/src/moved.erl"}]),
    Source = <<"-module(moved).\n-export([f/1]).\nf(F) -> spawn(F).\n">>,
    in_directory(#{"ebin/moved.beam" => Beam, "src/moved.erl" => Source, "other/moved.erl" => Source},
                 fun(Directory) ->
                         #{findings := [#{file := <<"src/moved.erl">>}]} =
                             lineage_audit:audit([filename:join(Directory, "ebin")]),
                         #{findings := Findings} = lineage_audit:audit([Directory]),
                         ?assertEqual(2, length(Findings))
                 end).

beams_that_tell_nothing_test() ->
    {ok, bare, Bare} = compile:forms([{attribute, 1, module, bare}], []),
    Backend = {lineage_no_such_backend, x},
    {ok, secret, Secret} = compile:forms([{attribute, 1, module, secret}], [{debug_info, Backend}]),
    in_directory(#{"bare.beam" => Bare, "secret.beam" => Secret, "text.beam" => <<"no beam">>, "empty.beam" => <<>>,
                   "cut.beam" => binary:part(Bare, 0, byte_size(Bare) div 2)},
                 fun(Directory) ->
                         #{findings := [], unreadable := Unreadable, files := 0} = lineage_audit:audit([Directory]),
                         ?assertEqual(5, length(Unreadable))
                 end).

%% What cannot be read

unreadable_test() ->
    Broken = <<"-module(broken).\nf(F) -> spawn(F).\ng() -> spawn(fun( -> .\nh(F) -> spawn_link(F).\n">>,
    Open = <<"f(F) -> spawn(F).\ng() -> \"open.\nh(F) -> spawn_link(F).\n">>,
    Good = <<"f(F) -> spawn(F).">>,
    in_directory(#{"broken.erl" => Broken, "open.erl" => Open, "good.erl" => Good, "notes.txt" => <<>>},
                 fun(D) ->
                         Missing = filename:join(D, "missing.erl"),
                         Other = filename:join(D, "notes.txt"),
                         #{findings := Findings, unreadable := Unreadable} = lineage_audit:audit([D, Missing, Other]),
                         ?assertEqual(["broken.erl", "missing.erl", "notes.txt", "open.erl"],
                                      [filename:basename(binary_to_list(P)) || {P, _} <- Unreadable]),
                         [?assertMatch({_, _}, binary:match(R, <<".">>)) || {_, R} <- Unreadable],
                         %% The rest is done, also of the broken ones.
                         ?assertEqual(["broken.erl:2", "broken.erl:4", "good.erl:1", "open.erl:1", "open.erl:3"],
                                      [lists:flatten(io_lib:format("~s:~b", [filename:basename(F), L]))
                                       || #{file := F, line := L} <- Findings])
                 end).

%% Any text goes through without a crash.
garbage_test_() ->
    {timeout, 60, fun() ->
        {ok, Text} = file:read_file(filename:join(?CORPUS, "macros.erl")),
        rand:seed(exsss, {1, 2, 3}),
        [begin
             At = rand:uniform(byte_size(Text)) - 1,
             Length = min(rand:uniform(40), byte_size(Text) - At),
             <<Before:At/binary, _:Length/binary, After/binary>> = Text,
             {Forms, Damage} = lineage_audit_scan:forms(<<Before/binary, (garbage())/binary, After/binary>>),
             ?assert(is_list(Forms) andalso is_list(Damage))
         end || _ <- lists:seq(1, 500)]
    end}.

garbage() ->
    lists:nth(rand:uniform(8), [<<>>, <<"?">>, <<"\"">>, <<"'">>, <<"(">>, <<").\n">>, <<"-define(A, ?A ?B(">>,
                                <<255, 0>>]).

%% Directories

others_are_entered_when_named_test() ->
    Text = <<"f(F) -> spawn(F).\n">>,
    Files = maps:from_list([{filename:join(D, "a.erl"), Text}
                            || D <- ["src/x", "_build/y", "deps/z", "node_modules", ".git"]]),
    in_directory(Files,
                 fun(D) ->
                         ?assertMatch(#{files := 1, lines := 1}, lineage_audit:audit([D])),
                         ?assertMatch(#{files := 1}, lineage_audit:audit([filename:join(D, "_build")])),
                         ok = file:make_symlink("..", filename:join(D, "src/up")),
                         ?assertMatch(#{files := 1}, lineage_audit:audit([D])),
                         %% Each file once.
                         ?assertMatch(#{files := 1}, lineage_audit:audit([D, filename:join(D, "src/x/a.erl"), D]))
                 end).

progress_test() ->
    Self = self(),
    #{files := Files} = lineage_audit:audit([?CORPUS], #{progress => fun(Done, Total) -> Self ! {Done, Total} end}),
    [receive {Done, Files} -> ok end || Done <- lists:seq(1, Files)].

%% What a finding tells

finding_test() ->
    Path = ?CORPUS ++ "/places_application.erl",
    #{findings := [First | _]} = lineage_audit:audit([Path]),
    ?assertMatch(#{line := 6, call := <<"erlang:spawn/1">>, mfa := {erlang, spawn, 1}, severity := unlinked,
                   module := places_application, function := {start, 2}}, First),
    ?assertEqual(8, map_size(First)),
    ?assertMatch({_, _}, binary:match(maps:get(hint, First), <<"supervisor:start_child/2">>)).

every_row_has_a_hint_test() ->
    [?assertMatch({_, <<_, _/binary>>}, lineage_calls:find(M, F, A, [])) || {M, F, A} <- lineage_calls:rows()].

%% The ignore list

ignored(Lines) ->
    in_directory(#{"src/a.erl" => <<"f(F) ->\n spawn(F),\n spawn_link(F).\n">>,
                   "src/b/c.erl" => <<"f(F) -> spawn(F).\n">>,
                   "ignore" => lists:join($\n, Lines)},
                 fun(D) ->
                         case lineage_audit:audit([filename:join(D, "src")], #{ignore => filename:join(D, "ignore")}) of
                             #{findings := F, ignored := Ignored, unused := Unused} ->
                                 {length(F), Ignored, [At || #{at := At} <- Unused]};
                             {error, {ignore, Sentence}} -> Sentence
                         end
                 end).

ignore_test_() ->
    [?_assertEqual(Expected, ignored(Lines))
     || {Expected, Lines} <- [{{3, 0, []}, [""]},
                              {{3, 0, []}, ["# nothing but a comment", ""]},
                              {{1, 2, []}, ["src/a.erl  # both are fine"]},
                              {{2, 1, []}, ["src/a.erl:2  # this line"]},
                              {{2, 1, []}, ["src/a.erl  erlang:spawn_link/1  # this call"]},
                              {{2, 1, []}, ["a.erl erlang:spawn_link # any arity"]},
                              {{1, 2, []}, ["src/*.erl # one level"]},
                              {{0, 3, []}, ["src/**/*.erl # all levels"]},
                              {{0, 3, []}, ["**  # all"]},
                              {{2, 1, []}, ["src/?/c.erl # one character"]},
                              {{2, 1, [1, 4]}, ["x.erl # none", "", "src/b/c.erl # one", "src/a.erl:7 # none"]},
                              {{3, 0, [1]}, ["rc/a.erl # whole names only"]}]].

bad_ignore_test_() ->
    [?_assertMatch({_, _}, binary:match(ignored([Line]), <<"ignore:1: ">>))
     || Line <- ["src/a.erl", "src/a.erl #", "src/a.erl #  ", "a.erl erlang:spawn/1 more # reason", "a.erl#reason"]].

no_ignore_file_test() ->
    {error, {ignore, Sentence}} = lineage_audit:audit([?CORPUS], #{ignore => "no/such/file"}),
    ?assertMatch({_, _}, binary:match(Sentence, <<"no/such/file">>)).

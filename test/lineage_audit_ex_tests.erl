%% The reader of Elixir sources: against marked files, and against sources made of each row of the table.
-module(lineage_audit_ex_tests).

-include_lib("eunit/include/eunit.hrl").

%% Without Elixir nothing of this can be told; that must not look like success.
elixir_test() ->
    ?assert(lineage_audit:elixir()).

corpus_test_() ->
    Files = filelib:wildcard(filename:join([root(), "test", "audit_corpus", "elixir", "*.{ex,exs}"])),
    Read = [{File, ok(lineage_audit_ex:read(File))} || File <- Files],
    Specs = lists:append([S || {_, #{specs := S}} <- Read]),
    [?_assert(length(Files) >= 7) |
     [{filename:basename(File), fun() -> same(marks(File), left(Findings, Specs)) end}
      || {File, #{findings := Findings}} <- Read]].

same(Expected, Found) ->
    ?assertEqual({[], []}, {Expected -- Found, Found -- Expected}).

%% What is left when a child spec named the function.
left(Findings, Specs) ->
    lists:usort([{Line, Severity, Call}
                 || #{line := Line, severity := Severity, call := Call} = F <- Findings,
                    not (maps:is_key(start_link, F) andalso specified(F, Specs))]).

specified(#{module := Module, function := {Name, Arity}}, Specs) ->
    [] =/= [S || {M, N, A} = S <- Specs, M =:= Module, N =:= Name, A =:= Arity orelse A =:= '_'];
specified(_OutsideOfFunctions, _Specs) ->
    false.

marks(File) ->
    {ok, Source} = file:read_file(File),
    Lines = binary:split(Source, <<"\n">>, [global]),
    lists:usort(lists:append([[{Number, binary_to_existing_atom(Severity), Call} || {Severity, Call} <- mark(Line)]
                              || {Number, Line} <- lists:zip(lists:seq(1, length(Lines)), Lines)])).

mark(Line) ->
    case binary:split(Line, <<"#=> ">>) of
        [_, Marks] ->
            [list_to_tuple(binary:split(string:trim(M), <<" ">>)) || M <- binary:split(Marks, <<";">>, [global])];
        [_] -> []
    end.

%% Each row of the table in each form, one below the other in a module.
every_row_in_every_form_test() ->
    Forms = [{M, F, A, Form} || {M, F, A} <- lineage_calls:rows(), Form <- forms(M, F, A)],
    ?assert(length(Forms) > 1000),
    {Functions, Expected} = generate(Forms, 2, [], []),
    #{findings := Findings} = read(["defmodule Generated do\n", Functions, "end\n"]),
    same(lists:usort(Expected), lists:usort([{L, C} || #{line := L, call := C} <- Findings])).

generate([], _Line, Functions, Expected) ->
    {lists:reverse(Functions), Expected};
generate([{M, F, A, {Before, Code}} | Forms], Line, Functions, Expected) ->
    Text = io_lib:format("def f~b(a, b, c, d, e, g) do\n~ts~ts\nend\n", [Line, Before, Code]),
    At = Line + newlines(Before) + 1,
    generate(Forms, Line + newlines(Text), [Text | Functions], [{At, lineage_calls:name(M, F, A)} | Expected]).

newlines(Text) ->
    length([C || C <- unicode:characters_to_list(Text), C =:= $\n]).

%% {Lines before, the call in one line}.
forms(M, F, A) ->
    Module = case atom_to_list(M) of "Elixir." ++ Name -> Name; Name -> [$:, Name] end,
    Args = lists:sublist(["a", "b", "c", "d", "e", "g"], A),
    List = ["(", lists:join(", ", Args), ")"],
    Imports = case M of 'Elixir.Kernel' -> ""; _ -> "import Kernel, except: [spawn: 1, spawn: 3, spawn_link: 1, "
                                                    "spawn_link: 3, spawn_monitor: 1, spawn_monitor: 3]\n" end,
    Import = [Imports, "import ", Module, ", only: [", name(F), ": ", integer_to_list(A), "]\n"],
    [{"", [Module, ".", name(F), List]},
     {["alias ", Module, ", as: Other\n"], ["Other.", name(F), List]},
     {["require ", Module, ", as: Other\n"], ["x = fn -> Other.", name(F), List, " end"]},
     {Import, [name(F), List]},
     {Import, ["Enum.map(a, &", name(F), "/", integer_to_list(A), ")"]},
     {[Imports, "import ", Module, "\n"], [name(F), List]},
     {"", ["&", Module, ".", name(F), "/", integer_to_list(A)]},
     {"", ["apply(", Module, ", :", name(F), ", [", lists:join(", ", Args), "])"]},
     {"", ["for x <- [1], do: {x, ", Module, ".", name(F), List, "}"]},
     {["x =\n", Module, ".\n"], [name(F), "(\n", lists:join(",\n", Args), "\n)"]}
     | piped(Module, F, Args, Import)].

piped(_Module, _F, [], _Import) ->
    [];
piped(Module, F, [First | Args], Import) ->
    List = ["(", lists:join(", ", Args), ")"],
    [{"", [First, " |> ", Module, ".", name(F), List]},
     {[First, "\n|> Function.identity()\n"], ["|> ", Module, ".", name(F), List]},
     {Import, [First, " |> ", name(F), List]},
     {"", [First, " |> then(&", Module, ".", name(F), "(", lists:join(", ", ["&1" | Args]), "))"]}].

name(F) ->
    atom_to_list(F).

a_finding_says_all_test() ->
    #{findings := [Finding], specs := [], lines := 5} =
        read("defmodule A.B do\n  defp f(x, y) do\n    spawn(x)\n  end\nend\n"),
    ?assertMatch(#{line := 3, call := <<"Kernel.spawn/1">>, mfa := {'Elixir.Kernel', spawn, 1}, severity := unlinked,
                   module := 'Elixir.A.B', function := {f, 2}, hint := <<_, _/binary>>}, Finding),
    ?assertNot(maps:is_key(start_link, Finding)).

start_link_is_left_to_the_child_specs_of_all_files_test() ->
    #{findings := [Finding]} = read("defmodule A do\n def go(x), do: Agent.start_link(x)\nend"),
    ?assertMatch(#{start_link := true, severity := tethered, module := 'Elixir.A', function := {go, 1}}, Finding).

specs_test() ->
    #{specs := Specs} = read(spec_source()),
    ?assertEqual(lists:sort([{'Elixir.M', b, 2}, {'Elixir.D', start_link, 1}, {'Elixir.E', start_link, 1},
                             {'Elixir.F.G', start_link, 1}, {'Elixir.I', start_link, 1}, {'Elixir.J', k, '_'},
                             {'Elixir.L', start_link, 1}]), Specs).

spec_source() ->
    "defmodule M do\n"
    "def a(x), do: %{x | start: {__MODULE__, :b, [1, 2]}}\n"
    "def c(x), do: start_supervised!({D, x})\n"
    "def d(x), do: [E, {F.G, x}, {:h, x}]\n"
    "def e(x), do: Supervisor.start_child(x, I)\n"
    "def f(x), do: {x, {J, :k, [1 | x]}, :temporary, 1, :worker, :dynamic}\n"
    "def g(x), do: {L, x} |> Supervisor.child_spec(id: 1)\n"
    "defmacro h, do: quote(do: %{start: {N, :o, []}})\n"
    "end\n".

lines_test_() ->
    [?_assertMatch(#{lines := Lines}, read(Source))
     || {Lines, Source} <- [{0, ""}, {1, "1"}, {1, "1\n"}, {2, "1\n2"}, {3, "1\r\n\r\n2"}]].

bad_input_test_() ->
    Sources = ["defmodule A do\n", "foo(", "\"abc", "end", "<<<<<<< HEAD\n", "a = = b\n)", "%{", "'a\nb", "\xff\xfe",
               "x = \"\\x{110000000}\"", "&&&", "fn -> end end", "~s(", "#{", "?", "\0", "@"],
    [fun() -> refused(Source) end || Source <- Sources] ++
    [?_assertEqual({error, <<"It cannot be read (no such file or directory).">>}, lineage_audit_ex:read("/no/such.ex")),
     ?_assertMatch({error, <<"Line 3 is not Elixir: ", _/binary>>}, written("a\nb\n)\n"))].

%% Reason in one line; or Elixir reads it after all, and nothing is found.
refused(Source) ->
    case written(Source) of
        {error, Reason} -> ?assertEqual({nomatch, true}, {binary:match(Reason, <<"\n">>), byte_size(Reason) > 10});
        {ok, #{findings := Findings}} -> ?assertEqual([], Findings)
    end.

%% Pieces of the corpus in any order, most of them no Elixir: never an exception.
any_pieces_test_() ->
    {timeout, 60, fun any_pieces/0}.

any_pieces() ->
    rand:seed(exsss, {1, 2, 3}),
    {ok, Source} = file:read_file(filename:join([root(), "test", "audit_corpus", "elixir", "names.ex"])),
    Tokens = list_to_tuple(re:split(Source, "(\\s+|[(),.&|]|\\bdo\\b|\\bend\\b)")),
    lists:foreach(fun(_) ->
                      Start = rand:uniform(tuple_size(Tokens)),
                      Some = [element(1 + (Start + I) rem tuple_size(Tokens), Tokens) || I <- lists:seq(1, 40),
                                                                                        rand:uniform(12) > 1],
                      {_, _} = written(Some)
                  end, lists:seq(1, 1500)).

%% Directives, definitions and calls that are written wrongly, or that only a macro can mean something by.
odd_forms_test() ->
    Sources = ["alias", "alias Foo.{}", "alias x, as: Y", "import x", "import Foo, x", "import Task, only: x",
               "require Foo, [as: nil]", "alias __MODULE__", "alias Foo.{bar, Baz}", "use x", "defmodule x do\nend",
               "defmodule A", "defmodule A, do: 1", "defmodule do\nend", "defimpl A, for: x do\nend", "defimpl A",
               "def", "def x", "def f(x), do", "def f(x) when y when z, do: 1", "defdelegate f(x), to: x",
               "defdelegate x, y", "apply(Task, :start, x, y)", "quote", "quote x", "quote do\nend", "@", "@ x",
               "&1", "& &1", "& &1/1", "&(x)/1", "&f(1)/1", "&x.y()/2", "x |> y.z", "x |> 1", "x |> x.()", "x.y.z()",
               "x.()", "Foo.{A}", "unquote(x)(y)", "nil.spawn(x)", "true.start(x)", "[x | y]", "%{x | y}", "%x{}",
               "import Task, only: :macros\nstart(x)", "import Foo, except: []", "apply(Task, :await, x)",
               "apply(nil, :start, [x])", "Function.capture(Task, :start, x)", "Function.capture(x, :start, 1)"],
    Read = [{Source, written(Source)} || Source <- Sources],
    ?assertEqual([], [{Source, F} || {Source, {ok, #{findings := [_ | _] = F}}} <- Read]),
    ?assert(length([Source || {Source, {ok, _}} <- Read]) > 40).

read(Source) ->
    ok(written(Source)).

ok({ok, Read}) ->
    Read.

written(Source) ->
    File = filename:join(root(), "_build/lineage_audit_ex_tests." ++ os:getpid() ++ ".ex"),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, case unicode:characters_to_binary(Source) of
                                   Text when is_binary(Text) -> Text;
                                   _ -> Source
                               end),
    try lineage_audit_ex:read(File) after file:delete(File) end.

%% The module that is tested lies below the root, in _build.
root() ->
    root(filename:dirname(code:which(lineage_audit_ex))).

root(Dir) ->
    case filelib:is_dir(filename:join(Dir, "test/audit_corpus")) of
        true -> Dir;
        false -> root(filename:dirname(Dir))
    end.

%% What releases after 25 write; read on each.
-module(newer).
-feature(maybe_expr, enable).
-moduledoc """
Text with "quotes", spawn(F) and an odd quote: "
""".
-export([run/2, compare/1]).

-doc """
Says spawn(F).
  """.
run(F, L) ->
    maybe
        ok ?= F(L),
        Pid = spawn(F),                                 %=> unlinked erlang:spawn/1
        true ?= is_pid(Pid)
    else
        _ -> spawn_link(F)                              %=> tethered erlang:spawn_link/1
    end,
    Text = """
        spawn(F) "here"
        """,
    spawn(fun() -> {Text, ~"spawn(F)", ~b"x"} end),     %=> unlinked erlang:spawn/1
    [spawn(X) || X <:- L],                              %=> unlinked erlang:spawn/1
    [spawn_link(X) || X <- L && _ <- L].                %=> tethered erlang:spawn_link/1

compare(X) ->
    maybe_it(spawn(X)).                                 %=> unlinked erlang:spawn/1

maybe_it(X) -> X.

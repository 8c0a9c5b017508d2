%% @doc Leaks in EUnit: the macro `?assertNoLeaks(Expr)' of `lineage/include/lineage.hrl', and a fixture that checks
%% each test of any set of tests:
%%
%% ```
%% all_test_() -> lineage_eunit:no_leaks([fun a/0, {inparallel, [fun b/0, fun c/0]}]).
%% '''
%%
%% A whole module is checked by a function that EUnit gives all its tests to (eunit.hrl exports it):
%%
%% ```
%% eunit_wrapper_(Tests) -> lineage_eunit:no_leaks(Tests).
%% '''
%%
%% What fails raises `{assertNoLeaks, [{module, M}, {line, L}, ..., {report, Text}]}', as EUnit's own assertions do.
%% The text is a string, since EUnit cuts binaries short where it prints an exception.
-module(lineage_eunit).

-export([assert/3, no_leaks/1, no_leaks/2]).

-export_type([tests/0]).

-type tests() :: term().
%% Whatever EUnit takes as a set of tests.

-type info() :: [{atom(), term()}].

%% @doc What `?assertNoLeaks' calls: runs `Fun' in the calling process, in a scope of its own, and returns its value.
%% Raises `{assertNoLeaks, Info ++ [{report, Text}]}' when a process outlived it, or failed in silence. What `Fun' itself
%% raises stays what is raised: then the report is printed to the group leader, where EUnit shows it as the output of
%% the test, and Common Test in the log of the case. When the process is killed meanwhile (EUnit does that to a test that
%% is late), the report is printed to `user'. Raises a sentence for bad options, and where Lineage cannot attach.
-spec assert(fun(() -> Result), lineage_leak:options(), info()) -> Result.
assert(Fun, Options, Info) ->
    ok = check_options(Options, [Fun, Options, Info]),
    within(open(Info, Options), Fun, Options, Info).

%% @doc The same tests, each checked on its own, with their titles, lines, order and processes as they were.
-spec no_leaks(tests()) -> tests().
no_leaks(Tests) ->
    no_leaks(#{}, Tests).

%% @doc The same with options: `within' (milliseconds for what is ending, 500; they are part of the test's own time, of
%% which EUnit gives it 5 s) and `ignore' ({@link lineage_leak:ignore()}).
%%
%% What the setup of a fixture starts may live until its cleanup has returned; what then remains fails the cleanup. What
%% a test starts must have ended with the test, also where all tests run in one process, or many at once. Tests on other
%% nodes (`{node, Name, T}', `{spawn, Node, T}') are checked there, for which Lineage must be in that node's code path.
%% Raises a sentence for bad options, and for directories, files and applications: name their modules.
-spec no_leaks(lineage_leak:options(), tests()) -> tests().
no_leaks(Options, Tests) ->
    ok = check_options(Options, [Options, Tests]),
    each(Tests, Options).

check_options(Options, Args) ->
    case lineage_leak:check_options(Options) of
        ok -> ok;
        {error, Cause} -> lineage_error:raise(Cause, Args)
    end.

%% Sets of tests, in the order in which eunit_data looks at them. What is no test is left to EUnit, which says so.

each([], _) ->
    [];
each([Test | Tests] = List, Options) ->
    case io_lib:printable_unicode_list(List) of
        true -> unnamed(List);
        %% The tail may be a generator.
        false -> [each(Test, Options) | each(Tests, Options)]
    end;
each({foreach, S, Is}, O) when is_function(S), is_list(Is) -> each({foreach, S, fun ok/1, Is}, O);
each({foreach, S, C, Is}, O) when is_function(S), is_function(C), is_list(Is) -> each({foreach, spawn, S, C, Is}, O);
each({foreach, P, S, Is}, O) when is_function(S), is_list(Is) -> each({foreach, P, S, fun ok/1, Is}, O);
each({foreach, P, S, C, Is}, O) when is_list(Is) -> [each({setup, P, S, C, I}, O) || I <- Is];
each({foreachx, S, Is}, O) when is_function(S), is_list(Is) -> each({foreachx, S, fun ok/2, Is}, O);
each({foreachx, S, C, Is}, O) when is_function(S), is_function(C), is_list(Is) -> each({foreachx, spawn, S, C, Is}, O);
each({foreachx, P, S, Is}, O) when is_function(S), is_list(Is) -> each({foreachx, P, S, fun ok/2, Is}, O);
each({foreachx, P, S, C, Is}, O) when is_function(S, 1), is_function(C, 2), is_list(Is) ->
    [case Pair of
         {X, I} when is_function(I, 2) ->
             each({setup, P, fun() -> S(X) end, fun(R) -> C(X, R) end, fun(R) -> I(X, R) end}, O);
         _ ->
             {foreachx, P, S, C, [Pair]}
     end || Pair <- Is];
each({generator, F}, O) when is_function(F, 0) -> each({generator, F, mfa(F)}, O);
each({generator, F, {_, _, _} = MFA}, O) when is_function(F, 0) -> {generator, fun() -> each(F(), O) end, MFA};
each({generator, M, F}, O) when is_atom(M), is_atom(F) -> each({generator, fun M:F/0, {M, F, 0}}, O);
each({Wrap, T}, O) when Wrap =:= inorder; Wrap =:= inparallel; Wrap =:= spawn -> {Wrap, each(T, O)};
each({inparallel, N, T}, O) when is_integer(N) -> {inparallel, N, each(T, O)};
each({timeout, Seconds, T}, O) -> {timeout, Seconds, each(T, O)};
each({spawn, Node, T}, O) when is_atom(Node) -> {spawn, Node, each(T, O)};
each({setup, S, I}, O) when is_function(S); is_list(S) -> each({setup, spawn, S, I}, O);
each({setup, S, C, I}, O) when is_function(S), is_function(C) -> each({setup, spawn, S, C, I}, O);
each({setup, P, S, I}, O) when is_function(S) -> each({setup, P, S, fun ok/1, I}, O);
each({setup, P, [_ | _] = Many, I}, O) ->
    {S, C} = eunit_test:multi_setup(Many),
    each({setup, P, S, C, I}, O);
each({setup, P, S, C, I}, O) when is_function(S, 0), is_function(C, 1) -> fixture(P, S, C, instantiator(I, O), O);
each({node, Node, T}, O) when is_atom(Node) -> {node, Node, instantiator(T, O)};
each({node, Node, Args, T}, O) when is_atom(Node) -> {node, Node, Args, instantiator(T, O)};
%% Tests, or the code that EUnit runs them with, which knows where a module's tests are and what wraps them.
each({module, M}, O) when is_atom(M) ->
    Tests = fun() -> each(eunit_data:get_module_tests(M, []), O) end,
    {"module '" ++ atom_to_list(M) ++ "'", {generator, Tests, {M, module_info, 1}}};
each(M, O) when is_atom(M), M =/= ok, M =/= error, M =/= undefined, not is_boolean(M) -> each({module, M}, O);
each({Set, _} = T, _) when Set =:= application; Set =:= file; Set =:= dir -> unnamed(T);
each({application, _, _} = T, _) -> unnamed(T);
each({with, X, Fs}, O) when is_list(Fs) -> [each({mfa(F), fun() -> F(X) end}, O) || F <- Fs];
each({Title, T}, O) when is_list(Title); is_binary(Title) -> {Title, each(T, O)};
each(T, O) when is_tuple(T), tuple_size(T) > 2, is_list(element(1, T)) orelse is_binary(element(1, T)) ->
    [Title | Rest] = tuple_to_list(T),
    {Title, each(list_to_tuple(Rest), O)};
each(T, O) ->
    simple(T, O, []).

%% A single test: its place and line are EUnit's own way to say so.
simple({Line, T}, O, Info) when is_integer(Line) -> {Line, simple(T, O, Info ++ [{line, Line}])};
simple({{M, F, A} = MFA, T}, O, Info) when is_integer(A) -> {MFA, simple(T, O, [{module, M}, {function, F} | Info])};
simple({test, M, F}, O, Info) when is_atom(M), is_atom(F) -> simple({{M, F, 0}, fun M:F/0}, O, Info);
simple({M, F}, O, Info) when is_atom(M), is_atom(F) -> simple({test, M, F}, O, Info);
simple(F, O, Info) when is_function(F, 0) ->
    case lists:keymember(module, 1, Info) of
        true -> fun() -> assert(F, O, Info) end;
        false -> simple({mfa(F), F}, O, Info)
    end;
simple(Other, _, _) ->
    Other.

instantiator(I, O) when is_function(I, 1) -> fun(X) -> each(I(X), O) end;
instantiator({with, Fs}, O) when is_list(Fs) -> fun(X) -> each({with, X, Fs}, O) end;
instantiator(T, O) -> fun(_) -> each(T, O) end.

%% The process of the fixture is in its scope for the setup and the cleanup, and not while tests are started.
fixture(P, S, C, I, O) ->
    {M, F, _} = mfa(S),
    Info = [{module, M}, {function, F}, {fixture, setup}],
    {setup, P,
     fun() ->
             Opened = open(Info, O),
             try S() of
                 Result -> lineage_scope:enter(self(), 0), {Opened, Result}
             catch
                 Class:Reason:Stack -> tell(group_leader(), Opened, O), erlang:raise(Class, Reason, Stack)
             end
     end,
     fun({{Scope, _} = Opened, Result}) ->
             lineage_scope:enter(self(), Scope),
             within(Opened, fun() -> C(Result) end, O, Info)
     end,
     fun({Opened, Result}) ->
             try I(Result)
             catch Class:Reason:Stack -> tell(group_leader(), Opened, O), erlang:raise(Class, Reason, Stack)
             end
     end}.

mfa(F) ->
    list_to_tuple([element(2, erlang:fun_info(F, Item)) || Item <- [module, name, arity]]).

ok(_) -> ok.
ok(_, _) -> ok.

-spec unnamed(term()) -> no_return().
unnamed(Given) ->
    Wanted = "tests and the modules they are in, not files, directories or applications",
    lineage_error:raise({bad_argument, "no_leaks", Given, Wanted}, [Given]).

%% Scopes

%% A scope for the calling process, and the process that checks it when this one is killed: born before, or it would be in it.
open(Info, Options) ->
    Owner = self(),
    Guard = spawn(fun() -> guard(Owner, Options) end),
    Scope = lineage_leak:open(name(maps:from_list(Info))),
    Guard ! {opened, Owner, Scope},
    {Scope, Guard}.

guard(Owner, Options) ->
    Monitor = monitor(process, Owner),
    receive
        {opened, Owner, Scope} ->
            _ = lineage_nif:mark(self(), own),
            receive
                {checked, Owner} -> ok;
                {'DOWN', Monitor, process, Owner, _} -> report(user, Scope, Options)
            end;
        {'DOWN', Monitor, process, Owner, _} ->
            ok
    end.

within({Scope, Guard} = Opened, Fun, Options, Info) ->
    try Fun() of
        Result ->
            Report = lineage_leak:check(Scope, Options),
            Guard ! {checked, self()},
            case lineage_leak:is_clean(Report) of
                true -> Result;
                false -> error({assertNoLeaks, Info ++ [{report, unicode:characters_to_list(lineage_leak:text(Report))}]})
            end
    catch
        Class:Reason:Stack ->
            tell(group_leader(), Opened, Options),
            erlang:raise(Class, Reason, Stack)
    end.

%% Something else has been raised, which is what the user must see first.
tell(Device, {Scope, Guard}, Options) ->
    report(Device, Scope, Options),
    Guard ! {checked, self()}.

report(Device, Scope, Options) ->
    try lineage_leak:check(Scope, Options) of
        Report -> lineage_leak:is_clean(Report) orelse io:put_chars(Device, [lineage_leak:text(Report), $\n])
    catch
        error:{lineage, _} = Reason:Stack ->
            #{general := Sentence} = lineage_error:format_error(Reason, Stack),
            io:put_chars(Device, [Sentence, $\n])
    end.

name(#{fixture := _, module := M, function := F}) -> io_lib:format("the fixture of ~ts:~ts", [M, F]);
name(#{module := M, line := Line}) -> io_lib:format("~ts, line ~b", [M, Line]);
name(#{module := M, function := F}) -> io_lib:format("~ts:~ts/0", [M, F]);
name(#{module := M}) -> atom_to_binary(M).

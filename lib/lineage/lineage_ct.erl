%% @doc Leaks in Common Test: a hook, `{ct_hooks, [lineage_ct]}' or `{ct_hooks, [{lineage_ct, Options}]}', in
%% a suite, a test specification, ct_run's or rebar3's options.
%%
%% Each test case is checked after its end_per_testcase; each group and each suite, for what its init function has started,
%% after its end_per_group and end_per_suite. One that leaked fails, with the report as its reason and in its log. One that
%% had failed already keeps its own reason, and the report is in its log. Also where a case was killed by its timetrap, or
%% skipped, or where its init failed; and in parallel groups.
%%
%% Options, a map or a list of pairs:
%%
%% <ul>
%% <li>`within': milliseconds for what is ending, 500</li>
%% <li>`ignore': {@link lineage_leak:ignore()}; those that were never needed are told when the run ends</li>
%% <li>`action': `raise', or `warn', by which nothing fails and reports are printed</li>
%% </ul>
%%
%% Where Lineage cannot attach, or the options are wrong, suites fail at once with a sentence that says what to do.
%%
%% Common Test prints an end_per_suite or end_per_group that failed, but does not count it: its exit status is that of the
%% cases. In a parallel group it calls hooks one at a time, so a case that leaks makes others wait until `within' has passed.
-module(lineage_ct).

-export([id/1, init/2, terminate/1]).
-export([pre_init_per_suite/3, post_init_per_suite/4, pre_end_per_suite/3, post_end_per_suite/4]).
-export([pre_init_per_group/4, post_init_per_group/5, pre_end_per_group/4, post_end_per_group/5]).
-export([pre_init_per_testcase/4, post_init_per_testcase/5, pre_end_per_testcase/4, post_end_per_testcase/5]).

-export_type([options/0]).

-type options() :: #{within => non_neg_integer(), ignore => [lineage_leak:ignore()], action => raise | warn}.

-type state() :: {raise | warn, lineage_leak:options()} | {unusable, string()}.

-type config() :: [{atom(), term()}].
-type result() :: term().    % what Common Test gives hooks: a configuration, ok, or why there is none

%% The scope of a suite, a group or a case is in its configuration under this key, and so that of a suite in its
%% groups' as well.
-type level() :: lineage_suite | lineage_group | lineage_case.

%% @doc One hook per run: where it is named twice, the first one's options hold.
-spec id(term()) -> ?MODULE.
id(_Options) ->
    ?MODULE.

%% @doc Its part before a case comes before those of other hooks, its part after a case comes after theirs.
-spec init(term(), options() | [{atom(), term()}]) -> {ok, state(), ctfirst}.
init(_Id, Given) ->
    Options = case is_list(Given) andalso lists:all(fun(Pair) -> is_tuple(Pair) andalso tuple_size(Pair) =:= 2 end, Given) of
                  true -> maps:from_list(Given);
                  false -> Given
              end,
    {ok, state(Options), ctfirst}.

state(#{action := Action}) when Action =/= raise, Action =/= warn ->
    unusable({bad_argument, "action", Action, "raise or warn"});
state(#{} = Options) ->
    Leaks = maps:remove(action, Options),
    case lineage_leak:check_options(Leaks) of
        ok -> {maps:get(action, Options, raise), Leaks};
        {error, Cause} -> unusable(Cause)
    end;
state(Other) ->
    unusable({bad_argument, "the hook lineage_ct", Other, "a map of the options within, ignore and action"}).

unusable(Cause) ->
    {unusable, unicode:characters_to_list(lineage_error:sentence(Cause))}.

%% @doc Tells which of what was to be ignored was never there.
-spec terminate(state()) -> ok.
terminate({_, #{ignore := [_ | _] = Ignore}}) ->
    case [Unused || Unused <- lineage_leak:unused(), lists:member(Unused, Ignore)] of
        [] -> ok;
        Unused -> io:format(user, "Lineage: never needed in ignore: ~ts.~n", [lineage_error:list(Unused)])
    end;
terminate(_State) ->
    ok.

%% Suites

%% @private
-spec pre_init_per_suite(module(), config() | result(), state()) -> {config() | result(), state()}.
pre_init_per_suite(Suite, Config, State) ->
    {open(lineage_suite, ["suite ", atom_to_binary(Suite)], Config, State), State}.

%% @private
-spec post_init_per_suite(module(), config(), config() | result(), state()) -> {config() | result(), state()}.
post_init_per_suite(_Suite, Config, Return, State) ->
    {opened(lineage_suite, Config, Return, State), State}.

%% @private
-spec pre_end_per_suite(module(), config(), state()) -> {config(), state()}.
pre_end_per_suite(_Suite, Config, State) ->
    {enter(lineage_suite, Config), State}.

%% @private
-spec post_end_per_suite(module(), config(), result(), state()) -> {result(), state()}.
post_end_per_suite(_Suite, Config, Return, State) ->
    {check(lineage_suite, Config, Return, State), State}.

%% Groups

%% @private
-spec pre_init_per_group(module(), atom(), config() | result(), state()) -> {config() | result(), state()}.
pre_init_per_group(Suite, Group, Config, State) ->
    {open(lineage_group, ["group ", atom_to_binary(Group), " of ", atom_to_binary(Suite)], Config, State), State}.

%% @private
-spec post_init_per_group(module(), atom(), config(), config() | result(), state()) -> {config() | result(), state()}.
post_init_per_group(_Suite, _Group, Config, Return, State) ->
    {opened(lineage_group, Config, Return, State), State}.

%% @private
-spec pre_end_per_group(module(), atom(), config(), state()) -> {config(), state()}.
pre_end_per_group(_Suite, _Group, Config, State) ->
    {enter(lineage_group, Config), State}.

%% @private
-spec post_end_per_group(module(), atom(), config(), result(), state()) -> {result(), state()}.
post_end_per_group(_Suite, _Group, Config, Return, State) ->
    {check(lineage_group, Config, Return, State), State}.

%% Cases

%% @private
-spec pre_init_per_testcase(module(), atom(), config() | result(), state()) -> {config() | result(), state()}.
pre_init_per_testcase(Suite, Case, Config, State) ->
    {open(lineage_case, [atom_to_binary(Suite), $:, atom_to_binary(Case)], Config, State), State}.

%% @private Of a case whose init has failed there is no end.
-spec post_init_per_testcase(module(), atom(), config(), result(), state()) -> {result(), state()}.
post_init_per_testcase(_Suite, _Case, Config, ok, State) ->
    %% ok stands for the configuration that the suite has returned, without ours perhaps.
    Kept = opened(lineage_case, Config, Config, State),
    {case Kept of
         Config -> ok;
         _ -> Kept
     end, State};
post_init_per_testcase(_Suite, _Case, Config, Return, State) ->
    {opened(lineage_case, Config, Return, State), State}.

%% @private After a timetrap, the end of a case runs in another process.
-spec pre_end_per_testcase(module(), atom(), config(), state()) -> {config(), state()}.
pre_end_per_testcase(_Suite, _Case, Config, State) ->
    {enter(lineage_case, Config), State}.

%% @private
-spec post_end_per_testcase(module(), atom(), config(), result(), state()) -> {result(), state()}.
post_end_per_testcase(_Suite, _Case, Config, Return, State) ->
    {check(lineage_case, Config, Return, State), State}.

%% Scopes

%% The scope is also kept in the process that runs the init function: a suite may return a configuration without ours.
-spec open(level(), iodata(), config() | result(), state()) -> config() | result().
open(_Level, _Name, Config, {unusable, Sentence}) when is_list(Config) ->
    {fail, Sentence};
open(Level, Name, Config, _State) when is_list(Config) ->
    try lineage_leak:open(Name) of
        Scope ->
            put(Level, Scope),
            [{Level, Scope} | lists:keydelete(Level, 1, Config)]
    catch
        error:{lineage, _} = Reason:Stack -> {fail, unicode:characters_to_list(sentence(Reason, Stack))}
    end;
open(_Level, _Name, Result, _State) ->
    Result.

%% What an init function has returned; when that is no configuration, no end function will run. Common Test ends the timers
%% of the case only after this.
-spec opened(level(), config(), config() | result(), state()) -> config() | result().
opened(Level, Config, Return, State) ->
    case scope(Level, Config) of
        undefined ->
            Return;
        Scope when is_list(Return) ->
            case lists:keyfind(Level, 1, Return) of
                {Level, Scope} -> Return;
                _ -> [{Level, Scope} | lists:keydelete(Level, 1, Return)]
            end;
        _ ->
            test_server:timetrap_cancel(),
            check(Level, Config, Return, State)
    end.

-spec enter(level(), config()) -> config().
enter(Level, Config) ->
    case scope(Level, Config) of
        undefined -> Config;
        Scope -> lineage_scope:enter(self(), Scope), Config
    end.

-spec check(level(), config(), result(), state()) -> result().
check(Level, Config, Return, {Action, Options}) ->
    case scope(Level, Config) of
        undefined ->
            Return;
        Scope ->
            lineage_scope:enter(self(), 0),
            case outlived(Scope, Options) of
                nothing -> Return;
                Text -> leaked(Text, Action =:= raise andalso not has_failed(Level, Config, Return), Level, Return)
            end
    end;
check(_Level, _Config, Return, _Unusable) ->
    Return.

outlived(Scope, Options) ->
    try lineage_leak:check(Scope, Options) of
        Report ->
            case lineage_leak:is_clean(Report) of
                true -> nothing;
                %% Of what is to be ignored in all cases, terminate/1 tells what was needed in none.
                false -> lineage_leak:text(Report#{unused := []})
            end
    catch
        error:{lineage, _} = Reason:Stack -> sentence(Reason, Stack)
    end.

%% Common Test itself prints why a case fails at its end, but not why a suite or a group does, or a case at its init. Not
%% by ct:pal, for which rebar3 writes a module of its own into all that it compiles.
leaked(Text, Fails, Level, Return) ->
    ct:log("~ts", [Text], [esc_chars]),
    [ct:print("~ts", [Text]) || not (Fails andalso Level =:= lineage_case andalso Return =:= ok)],
    case Fails of
        true -> failure(Text);
        false -> Return
    end.

%% As ct:fail/2 does, by which Common Test prints it as text.
failure(Text) ->
    {fail, {test_case_failed, unicode:characters_to_list(Text)}}.

scope(Level, Config) ->
    case get(Level) of
        undefined -> proplists:get_value(Level, Config);
        Scope -> Scope
    end.

%% The end functions of suites and groups may return any term.
has_failed(Level, Config, Return) ->
    Status = proplists:get_value(tc_status, Config),
    (is_tuple(Status) andalso element(1, Status) =:= failed)
        orelse (Level =:= lineage_case andalso not is_good(Return)).

%% One that was skipped may have leaked, and nobody would see it in one that stays skipped. Where its init failed, Common
%% Test says that it is skipped.
is_good(ok) -> true;
is_good({_, {failed, _}}) -> false;
is_good(Config) when is_list(Config) -> true;
is_good({Skipped, _}) -> lists:member(Skipped, [skip, skipped, save_config, comment]);
is_good(_) -> false.

sentence(Reason, Stack) ->
    #{general := Sentence} = lineage_error:format_error(Reason, Stack),
    Sentence.

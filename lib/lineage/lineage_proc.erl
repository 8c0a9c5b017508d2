%% @doc Asks live processes, without ever hanging.
%%
%% `process_info/2' waits for a process that is inside a long NIF or dirty call, and a supervisor that
%% is starting a child answers nobody. So every question is put by a helper process with a deadline;
%% past it the answer is `unresolved'. The helper is not linked to its caller and lets go by itself
%% when the caller is dead. Helpers start as `lineage_proc:helper/3' and `lineage_proc:run/3': classify
%% these two as `own'.
%%
%% Besides the items of `process_info/2' there is `otp': the map that {@link otp_keys/2} returns. A
%% process dictionary is read only of processes that are known to say more there, and three keys of it are kept.
-module(lineage_proc).

-export([says_more/1, info/3, info_many/3, otp_keys/2, call/2]).
-export([helper/3, run/3]).

-export_type([item/0, answer/0, otp/0]).

-type item() :: atom() | {dictionary, term()}.
-type answer() :: #{item() => term()} | dead | unresolved.
-type otp() :: #{ancestors => [pid() | atom()], initial_call => mfa(), label => term()}.

%% @doc What `process_info/2' says of one process. `Deadline' is in milliseconds.
-spec info(pid(), [item()], pos_integer()) -> answer().
info(Pid, Items, Deadline) ->
    [{Pid, Answer}] = info_many([Pid], Items, Deadline),
    Answer.

%% @doc The same for many, in order, by one helper. The deadline is for each pid: one that is stuck
%% is `unresolved' and the rest goes on. A pid of another node is `unresolved'.
-spec info_many([pid()], [item()], pos_integer()) -> [{pid(), answer()}].
info_many([], _Items, _Deadline) ->
    [];
info_many(Pids, Items, Deadline) ->
    Alias = alias(),
    try
        collect(Pids, Items, Deadline, Alias, start(Pids, Items, Alias), [])
    after
        unalias(Alias),
        flush(Alias)
    end.

%% @doc The ancestors, initial call and label that proc_lib's own processes keep in their dictionary.
%% A process that proc_lib did not make answers with an empty map.
-spec otp_keys(pid(), pos_integer()) -> otp() | dead | unresolved.
otp_keys(Pid, Deadline) ->
    case info(Pid, [otp], Deadline) of
        #{otp := Otp} -> Otp;
        Other -> Other
    end.

%% @doc Runs a function in a helper. `{error, Reason}' when it failed, `unresolved' past the deadline.
-spec call(fun(() -> Result), pos_integer()) -> {ok, Result} | {error, term()} | unresolved.
call(Fun, Deadline) ->
    Alias = alias(),
    {Pid, Monitor} = spawn_monitor(?MODULE, run, [Alias, Fun, self()]),
    Result =
        receive
            {Alias, Value} -> {ok, Value};
            {'DOWN', Monitor, process, Pid, Reason} -> {error, Reason}
        after Deadline ->
            unresolved
        end,
    demonitor(Monitor, [flush]),
    unalias(Alias),
    flush(Alias),
    %% A shutdown, as a kill would count as a failure that nobody heard of.
    Result =:= unresolved andalso exit(Pid, shutdown),
    Result.

start(Pids, Items, Alias) ->
    spawn_monitor(?MODULE, helper, [{Pids, Items}, Alias, self()]).

collect([], _Items, _Deadline, _Alias, {_Helper, Monitor}, Done) ->
    demonitor(Monitor, [flush]),
    lists:reverse(Done);
collect([Pid | Rest] = Pids, Items, Deadline, Alias, {Helper, Monitor} = Worker, Done) ->
    receive
        {Alias, Pid, Answer} ->
            collect(Rest, Items, Deadline, Alias, Worker, [{Pid, Answer} | Done]);
        {'DOWN', Monitor, process, Helper, _Reason} ->
            again(Pids, Items, Deadline, Alias, Done)
    after Deadline ->
        stop(Worker),
        again(Pids, Items, Deadline, Alias, Done)
    end.

%% The helper may have answered at the last moment: what it sent first still counts.
again([Pid | Rest] = Pids, Items, Deadline, Alias, Done) ->
    receive
        {Alias, Pid, Answer} ->
            again_or_end(Rest, Items, Deadline, Alias, [{Pid, Answer} | Done])
    after 0 ->
        again_or_end(tl(Pids), Items, Deadline, Alias, [{Pid, unresolved} | Done])
    end.

again_or_end([], _Items, _Deadline, _Alias, Done) ->
    lists:reverse(Done);
again_or_end(Rest, Items, Deadline, Alias, Done) ->
    collect(Rest, Items, Deadline, Alias, start(Rest, Items, Alias), Done).

stop({Helper, Monitor}) ->
    demonitor(Monitor, [flush]),
    exit(Helper, shutdown).

flush(Alias) ->
    receive
        {Alias, _} -> flush(Alias);
        {Alias, _, _} -> flush(Alias)
    after 0 ->
        ok
    end.

%% @private
-spec run(reference(), fun(() -> term()), pid()) -> ok.
run(Alias, Fun, _Caller) ->
    %% A failure here is an answer, not a crash worth a report on the console.
    try Fun() of
        Value -> Alias ! {Alias, Value}, ok
    catch
        _Class:Reason -> exit({shutdown, Reason})
    end.

%% @private
-spec helper({[pid()], [item()]}, reference(), pid()) -> ok.
helper({Pids, Items}, Alias, Caller) ->
    Otp = lists:member(otp, Items),
    Plain = [Item || Item <- lists:delete(otp, Items), Item =/= initial_call],
    helper(Pids, [initial_call | Plain], Otp, Alias, Caller).

helper([], _Items, _Otp, _Alias, _Caller) ->
    ok;
helper([Pid | Rest], Items, Otp, Alias, Caller) ->
    case is_process_alive(Caller) of
        true ->
            Alias ! {Alias, Pid, ask(Pid, Items, Otp)},
            helper(Rest, Items, Otp, Alias, Caller);
        false ->
            ok
    end.

ask(Pid, _Items, _Otp) when node(Pid) =/= node() ->
    unresolved;
ask(Pid, Items, Otp) ->
    case process_info(Pid, Items) of
        undefined ->
            dead;
        Found ->
            Map = maps:from_list(Found),
            case Otp of
                true -> with_otp(Pid, Map);
                false -> Map
            end
    end.

with_otp(Pid, #{initial_call := Call} = Map) ->
    case says_more(Call) andalso keys(Pid) of
        false -> Map#{otp => #{}};
        dead -> dead;
        Keys -> Map#{otp => otp(Keys)}
    end.

%% @doc Whether a process that was spawned so says in its dictionary what it runs: proc_lib's own, and the
%% tasks of Elixir, which newer releases of it spawn without proc_lib.
-spec says_more(mfa()) -> boolean().
says_more({proc_lib, init_p, _}) -> true;
says_more({'Elixir.Task.Supervised', _, _}) -> true;
says_more(_) -> false.

-define(KEYS, ['$ancestors', '$initial_call', '$process_label']).

%% Since OTP 26.2 single keys can be read; before, only the whole dictionary.
keys(Pid) ->
    try process_info(Pid, [{dictionary, Key} || Key <- ?KEYS]) of
        undefined -> dead;
        Found -> [{Key, Value} || {Key, {_Item, Value}} <- lists:zip(?KEYS, Found), Value =/= undefined]
    catch
        error:badarg -> whole(Pid)
    end.

whole(Pid) ->
    case process_info(Pid, dictionary) of
        undefined -> dead;
        {dictionary, All} -> [Pair || {Key, _} = Pair <- All, lists:member(Key, ?KEYS)]
    end.

otp(Keys) ->
    lists:foldl(fun otp/2, #{}, Keys).

otp({'$ancestors', Ancestors}, Otp) when is_list(Ancestors) ->
    Otp#{ancestors => [A || A <- Ancestors, is_pid(A) orelse is_atom(A)]};
otp({'$initial_call', {M, F, A}}, Otp) when is_atom(M), is_atom(F), is_integer(A) ->
    Otp#{initial_call => {M, F, A}};
otp({'$initial_call', {M, F, A}}, Otp) when is_atom(M), is_atom(F), is_list(A) ->
    Otp#{initial_call => {M, F, length(A)}};
otp({'$process_label', Label}, Otp) ->
    Otp#{label => Label};
otp(_, Otp) ->
    Otp.

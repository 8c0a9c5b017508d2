%% @doc Which processes of a real node are what they are by design, each with its reason.
%%
%% Four lists, extended by the options of `lineage:attach/1': the VM's and kernel's own processes
%% (`runtime/0'), processes that stand for a user (`hosts/0'), services whose links are bookkeeping
%% (`services/0') and supervisor behaviours (`supervisors/0'). They were made by walking live nodes, not
%% by reading: every entry is a process that some node really has, and `real_nodes_SUITE' boots those
%% nodes. What is supervised or linked needs no entry: the lists name only what no link explains.
%%
%% A match is one of
%%
%% <ul>
%% <li>`{M, F, A}', the initial call; `F' and `A' may be `_'. The hook sees it at birth: for proc_lib's
%%   processes the callback's (`{peer, init, 1}'), for the rest what was spawned. A process that was
%%   there before is known by its `$initial_call', else by `process_info/2'. They are not always the
%%   same: a supervisor is born as `{supervisor, init, 1}' and says later that it is
%%   `{supervisor, Callback, 1}'; a gen_event is born without a callback module.</li>
%% <li>`{registered, Name}', for processes whose initial call is a closure or is shared with others.</li>
%% <li>`{alone, {M, F, A}}': by initial call, and only while linked to no process: where a user may also
%%   link to it, it is no root, or an orphan that holds one would be hidden by it.</li>
%% <li>`{frame, {M, F, A}}': a closure (its initial call is `erlang:apply/2', which says nothing) that
%%   has this function on its stack. Only functions in which the process waits, and which never call
%%   into a user's own spawned process: a stack shows 8 frames, unless the node says otherwise.</li>
%% <li>`{child, {frame, {M, F, A}}}' and `{child, {registered, Name}}': a closure whose parent has it on
%%   its stack, or that name: a test process is deep in its test's own functions, but its runner waits
%%   for it.</li>
%% </ul>
%%
%% The first two are known at birth or when seeded. The others are asked of a live process, by
%% {@link mark/2}, of the few that a verdict is about to call orphans.
-module(lineage_lists).

-export([lazy/0, runtime/0, hosts/0, services/0, supervisors/0]).
-export([recognise/2, recognise_many/2, mark/2, initial_calls/1, registered/1]).

-export_type([match/0, entry/0]).

%% The initial call of every closure.
-define(CLOSURE, {erlang, apply, 2}).

-type pattern() :: {module() | '_', atom(), arity() | '_'}.
-type match() ::
    pattern()
    | {registered, atom()}
    | {alone, pattern()}
    | {frame, pattern()}
    | {child, {frame, pattern()} | {registered, atom()}}.
-type entry() :: {match(), Reason :: binary()}.

%% @doc The VM's own and kernel's own: nothing supervises them, and nothing should.
-spec runtime() -> [entry()].
runtime() ->
    vm() ++ kernel() ++ files_and_sockets().

vm() ->
    [
        {{erl_init, start, 2}, <<"init: the node's first process; all else starts below it">>},
        {{otp_ring0, start, 2}, <<"init, as releases before 24 name it">>},
        {{registered, erl_prim_loader},
            <<"loads code before the code server runs; init is linked to it">>},
        {{registered, application_controller},
            <<"starts and stops applications; init is linked to it and stops the node without it">>},
        {{registered, logger}, <<"logger's server is started by init, before kernel, and linked to it">>},
        {{erts_code_purger, start, 0},
            <<"purges old code; started by the VM, which aborts when it dies">>},
        {{erts_literal_area_collector, start, 0},
            <<"collects literals of purged code; started by the VM">>},
        {{erts_dirty_process_signal_handler, start, 0},
            <<"answers signals for processes that run dirty; started by the VM">>},
        {{erts_trace_cleaner, start, 0}, <<"clears trace sessions (27 on); started by the VM">>},
        {{prim_file, start, 0}, <<"closes files whose owner died; started by the VM">>},
        {{socket_registry, start, 0}, <<"counts open sockets; started by the VM">>}
    ].

kernel() ->
    CpuSup =
        <<"os_mon's measuring process and its port's have only each other; cpu_sup ends them with itself">>,
    [
        {{frame, {rpc, nodes_observer_loop, 1}},
            <<"rex's observer of other nodes: it monitors rex, and stops with it">>},
        {{net_kernel, passive_connect_monitor, 2},
            <<"waits for another node to connect, then answers and ends">>},
        {{child, {registered, code_server}},
            <<"runs a module's on_load: the code server monitors it">>},
        {{frame, {timer, interval_loop, '_'}},
            <<"timer's process of one interval (27 on): monitors the timer server and its user">>},
        {{frame, {global, timer, 2}}, <<"a timer of global's: sends one message and ends">>},
        {{frame, {global, resolver, 2}},
            <<"resolves names while two nodes connect; monitors, and stops with the connection">>},
        {{child, {registered, elixir_code_server}},
            <<"Elixir's code server purges what was compiled in a process that then ends">>},
        {{frame, {cpu_sup, measurement_server_init, 0}}, CpuSup},
        {{frame, {cpu_sup, measurement_server_loop, 1}}, CpuSup},
        {{beam_lib, init, 1},
            <<"the server of beam_lib's crypto keys: started by its first user, for the node">>}
    ].

files_and_sockets() ->
    Owner =
        <<"a file's or socket's process: monitors its owner and closes with it, as a port would">>,
    [
        {{Module, init, 1}, Owner}
     || Module <- [
            raw_file_io_delayed,
            raw_file_io_deflate,
            raw_file_io_inflate,
            gen_tcp_socket,
            gen_udp_socket
        ]
    ] ++ [{{alone, {'Elixir.StringIO', init, 1}}, Owner}].

%% @doc Not linked by design, and each stands for somebody who watches it: a person or a runner.
-spec hosts() -> [entry()].
hosts() ->
    shells() ++ erlang_tests() ++ elixir_tests() ++ calls().

shells() ->
    Compiles = <<"compiles a file or a module; the compiler monitors it and waits">>,
    [
        {{frame, {shell, server_loop, '_'}},
            <<"an erl shell: of a remote one, only a group leader on another node is linked">>},
        {{frame, {'Elixir.IEx.Server', '_', '_'}},
            <<"an iex shell, or its reader; of a remote one only the other node's group is linked">>},
        {{'Elixir.IEx.Evaluator', init, '_'},
            <<"evaluates what is typed in iex; monitors its shell and ends with it">>},
        {{child, {frame, {'Elixir.Kernel.CLI', exec_fun, '_'}}},
            <<"runs what the command line of elixir or mix says; init waits for it">>},
        {{child, {frame, {'Elixir.Kernel.ParallelCompiler', wait_for_messages, '_'}}}, Compiles},
        {{child, {frame, {'Elixir.Kernel.ParallelCompiler', spawn_workers, '_'}}}, Compiles},
        {{child, {frame, {elixir_erl_compiler, spawn, '_'}}}, Compiles},
        {{frame, {elixir_erl_compiler, '-spawn/1-fun-0-', '_'}}, Compiles}
    ] ++
        [
            {{frame, {'Elixir.Module.ParallelChecker', Fun, '_'}},
                <<"checks a module's types; monitors the process that compiles, and ends with it">>}
         || Fun <- [
                %% Elixir 1.18
                '-inner_spawn/6-fun-1-',
                %% Elixir 1.20
                '-spawn_checker/7-fun-0-',
                '-spawn_and_register_cache/6-fun-1-'
            ]
        ].

erlang_tests() ->
    [
        {{registered, eunit_server}, <<"EUnit's server: started by the first run, for the node">>},
        {{frame, {eunit_listener, '_', '_'}},
            <<"EUnit's listener: tells the results of a run and ends with it">>},
        {{frame, {eunit_serial, '_', '_'}},
            <<"EUnit's listener that puts results in order; ends with its run">>},
        {{frame, {eunit_proc, insulator_wait, '_'}},
            <<"EUnit's insulator: stands between the runner and the test process, and monitors both">>},
        {{eunit_proc, group_leader_process, 1}, <<"collects a test's output, and ends with the test">>},
        {{frame, {ct_run, '_', '_'}},
            <<"a Common Test run that was started by ct:run_test: its caller monitors it">>},
        {{ct_hooks_lock, init, 1},
            <<"serialises Common Test hooks; started by a parallel group and stopped after it">>},
        {{registered, cover_server},
            <<"cover's server: started by a person or by a test run, for the node">>},
        {{registered, dbg}, <<"dbg's server: started by the person who traces">>}
    ].

elixir_tests() ->
    Test = <<"a test or setup_all process: its module's process monitors it">>,
    Runner = fun(F) -> {child, {frame, {'Elixir.ExUnit.Runner', F, '_'}}} end,
    [
        {{frame, {'Elixir.ExUnit.Runner', run_module, '_'}},
            <<"ExUnit's process of one test module: the runner monitors it">>},
        {{'Elixir.ExUnit.CaptureLog', init_proxy, '_'},
            <<"collects what is logged for a test; monitors the test and ends with it">>},
        {{'Elixir.ExUnit.OnExitHandler', on_exit_runner_loop, 0},
            <<"runs on_exit after its test; the module's process monitors it">>},
        {Runner(run_module), Test},
        {Runner(run_tests), Test},
        {Runner(run_test), Test},
        {Runner(spawn_test), Test},
        {Runner(receive_test_reply), Test}
    ].

calls() ->
    [
        {{erpc, execute_call, '_'},
            <<"a call from another node or process: the caller monitors it and waits">>},
        {{erpc, execute_cast, '_'}, <<"a cast that another node or process asked for by erpc or rpc">>},
        {{alone, {peer, init, 1}},
            <<"the origin's process of a peer node: it stops the peer when it ends">>},
        {{frame, {peer, io_server_loop, '_'}},
            <<"a peer node's own end of its connection: it stops the node when that closes">>},
        {{child, {frame, {peer, io_server_loop, '_'}}}, <<"a call from the origin of a peer node">>}
    ].

%% @doc Their links to others are bookkeeping: such a link stops nobody who was not told to expect it,
%% so it tethers nobody.
-spec services() -> [entry()].
services() ->
    [
        {{'Elixir.Registry.Partition', init, 1},
            <<"a Registry partition links to whoever registers, only to forget the name">>},
        {{disk_log, init, 2}, <<"a log links to its owners, only to close when the last one died">>},
        {{disk_log_server, init, 1}, <<"links to logs while they open">>},
        {{dets_server, init, 1}, <<"dets links to whoever opened a table, only to close it">>},
        {{registered, mnesia_tm}, <<"links to a transaction's process, only to give its locks back">>},
        {{mnesia_subscr, init, 1}, <<"links to subscribers, only to forget them">>},
        {{gen_event, init_it, 6},
            <<"an event manager links to who adds a supervised handler, only to remove the handler">>}
    ].

%% @doc Behaviours that hold children. What says `{supervisor, _, 1}' in its `$initial_call' is one too
%% (DynamicSupervisor, Task.Supervisor, PartitionSupervisor, ranch).
-spec supervisors() -> [entry()].
supervisors() ->
    [
        {{supervisor, init, 1}, <<"OTP's supervisor, as it is born">>},
        {{supervisor, '_', 1}, <<"OTP's supervisor, and whatever says that it is one">>},
        {{supervisor_bridge, init, 1}, <<"OTP's bridge to what is no supervision tree, as it is born">>},
        {{supervisor_bridge, '_', 1}, <<"OTP's bridge to what is no supervision tree">>},
        {{'Elixir.DynamicSupervisor', init, 1},
            <<"Elixir's DynamicSupervisor and Task.Supervisor, as they are born">>},
        {{'Elixir.ConsumerSupervisor', init, 1}, <<"GenStage's supervisor of consumers">>},
        {{ranch_conns_sup, init, '_'}, <<"ranch's supervisor of connections, as it is born">>}
    ].

%% @doc What Erlang and Elixir start when it is first needed, and keep: no leak of whoever happened to need it first.
-spec lazy() -> [entry()].
lazy() ->
    Safe = <<"a server of kernel's that is started when it is first called">>,
    [
        {{registered, timer_server}, <<"the server of the module timer: started at its first use">>},
        {{registered, inet_gethost_native_sup}, <<"resolves names by a port program: started at the first look-up">>},
        {{registered, inet_gethost_native}, <<"the same">>},
        {{registered, dets}, Safe},
        {{registered, dets_sup}, Safe},
        {{registered, disk_log_server}, Safe},
        {{registered, disk_log_sup}, Safe},
        {{registered, pg}, Safe},
        {{registered, global_group}, Safe},
        {{registered, ssl_sup}, <<"the application ssl, which a first connection may start">>},
        {{registered, tls_dist_sup}, <<"distribution over TLS: started with it">>},
        {{registered, cover_server}, <<"cover's server: kept for the node">>},
        {{registered, 'Elixir.Mix.Sync.PubSub'}, <<"Mix's server of news between builds: started at the first lock">>},
        {{logger_olp, init, 1}, <<"a handler of logger's: added for the node">>},
        {{'Elixir.Logger.Backends.Supervisor', init, 1}, <<"Logger's supervisor of backends: started with the first one">>}
    ].

%% @doc The initial calls of a list, for the NIF to classify births and seeds by.
-spec initial_calls([entry()]) -> [pattern()].
initial_calls(Entries) ->
    [MFA || {{_, _, _} = MFA, _} <- Entries].

%% @doc The registered names of a list, to be marked once their processes are known.
-spec registered([entry()]) -> [atom()].
registered(Entries) ->
    [Name || {{registered, Name}, _} <- Entries].

%% @doc Asks a live process whether it is one of the runtime's or a host. `Deadline' in milliseconds is
%% for each of at most four questions.
-spec recognise(pid(), pos_integer()) ->
    {runtime | host, Reason :: binary()} | undefined | dead | unresolved.
recognise(Pid, Deadline) ->
    [{Pid, Answer}] = recognise_many([Pid], Deadline),
    Answer.

%% @doc The same for many processes, in order.
-spec recognise_many([pid()], pos_integer()) ->
    [{pid(), {runtime | host, Reason :: binary()} | undefined | dead | unresolved}].
recognise_many(Pids, Deadline) ->
    Items = [initial_call, registered_name, parent, links, otp, current_stacktrace],
    Answers = lineage_proc:info_many(Pids, Items, Deadline),
    Wanted = lists:usort([Parent || {_, #{initial_call := ?CLOSURE, parent := Parent}} <- Answers,
                                    is_pid(Parent), node(Parent) =:= node()]),
    Parents = maps:from_list(
                lineage_proc:info_many(Wanted, [registered_name, current_stacktrace], Deadline)),
    Lists = [{runtime, runtime()}, {host, hosts()}],
    [{Pid, recognise(Answer, Parents, Lists)} || {Pid, Answer} <- Answers].

recognise(#{} = Facts, Parents, Lists) ->
    case maps:get(maps:get(parent, Facts, undefined), Parents, unknown) of
        #{} = Parent -> first(Facts, Parent, Lists);
        _ -> first(Facts, #{registered_name => [], current_stacktrace => []}, Lists)
    end;
recognise(Other, _Parents, _Lists) ->
    Other.

%% @doc Recognises hosts and the runtime's own among the candidates of a verdict and marks them in the
%% census. Returns how many it marked; when not 0, what hangs on them is none any more: ask again.
-spec mark([pid()], pos_integer()) -> non_neg_integer().
mark(Candidates, Deadline) ->
    length([Pid || {Pid, {Class, _Reason}} <- recognise_many(Candidates, Deadline),
                   lineage_nif:mark(Pid, Class) =:= ok]).

first(_Facts, _Parent, []) ->
    undefined;
first(Facts, Parent, [{Class, Entries} | Lists]) ->
    case lists:search(fun({Match, _}) -> is_match(Match, Facts, Parent) end, Entries) of
        {value, {_, Reason}} -> {Class, Reason};
        false -> first(Facts, Parent, Lists)
    end.

is_match({registered, Name}, #{registered_name := Registered}, _Parent) ->
    Name =:= Registered;
is_match({frame, Pattern}, #{initial_call := ?CLOSURE} = Facts, _Parent) ->
    on_stack(Pattern, maps:get(current_stacktrace, Facts));
is_match({child, {frame, Pattern}}, #{initial_call := ?CLOSURE}, Parent) ->
    on_stack(Pattern, maps:get(current_stacktrace, Parent));
is_match({child, {registered, Name}}, #{initial_call := ?CLOSURE}, Parent) ->
    Name =:= maps:get(registered_name, Parent);
is_match({alone, Pattern}, #{links := Links} = Facts, _Parent) ->
    is_call(Pattern, initial_call(Facts)) andalso not lists:any(fun erlang:is_pid/1, Links);
is_match({_, _, _} = Pattern, Facts, _Parent) ->
    is_call(Pattern, initial_call(Facts));
is_match(_Match, _Facts, _Parent) ->
    false.

initial_call(#{otp := #{initial_call := Call}}) -> Call;
initial_call(#{initial_call := Call}) -> Call.

on_stack(Pattern, Stack) ->
    lists:any(fun({M, F, A, _Location}) -> is_call(Pattern, {M, F, A}) end, Stack).

is_call({M, F, A}, {M1, F1, A1}) ->
    is_name(M, M1) andalso is_name(F, F1) andalso is_name(A, A1).

is_name('_', _) -> true;
is_name(Name, Name) -> true;
is_name(_, _) -> false.

%% @doc The calls that create a process which no supervisor starts: the table that the static audit goes by.
%%
%% Only functions of OTP, of Elixir and of a few well-known behaviours are in it; a function of the same name
%% in another module is not. The readers of sources and beams bring every call to module, function and arity
%% (a pipe counts as one argument) and ask here.
-module(lineage_calls).

-export([find/4, options/3, supervisor/3, arities/2, rows/0, name/3]).

-export_type([severity/0, verdict/0]).

-type severity() :: unlinked        % spawned without a link: nobody stops it
                  | tethered        % linked, but nobody restarts it
                  | deferred.       % runs later, or on another node
-type verdict() :: {severity() | start_link, Hint :: binary()} | none.

%% What a row says: a severity; `start_link': linked, and at home in a start function that a supervisor calls;
%% {Position, Class}: what the options in that argument make of it.
-type class() :: severity() | start_link | {options, arity()}.
-type kind() :: process | loop | server | task | stream | agent | supervisor | port | timer | remote.

-define(IS_GEN(M), (M =:= gen_server orelse M =:= gen_statem orelse M =:= wx_object)).
-define(IS_OLD_GEN(M), (M =:= gen_fsm orelse M =:= gen_server2 orelse M =:= p1_server orelse M =:= p1_fsm)).
-define(IS_EX_GEN(M), (M =:= 'Elixir.GenServer' orelse M =:= 'Elixir.GenStage' orelse M =:= 'Elixir.GenStateMachine')).

%% @doc What the table says of a call. `Options' are the atoms that are known to be among its options (see
%% {@link options/3}); `unknown' where they are not written out, which counts as a list without `link'.
%%
%% `{start_link, Hint}': tethered, unless it stands in a function named start_link, or in one that a child
%% spec names.
-spec find(module(), atom(), arity(), Options :: [atom()] | unknown) -> verdict().
find(Module, Function, Arity, Options) ->
    case row(Module, Function, Arity) of
        none -> none;
        {{options, _Position}, Kind} -> {by_options(Options), hint(Kind, Module)};
        {Class, Kind} -> {Class, hint(Kind, Module)}
    end.

by_options(Options) when is_list(Options) ->
    case lists:member(link, Options) of
        true -> start_link;
        false -> unlinked
    end;
by_options(unknown) ->
    unlinked.

%% @doc Which argument of a call holds the options that decide about a link, counted from 1; `none' where there
%% is no such argument. A literal atom there (as in `gen:start/5') counts as a list of one.
-spec options(module(), atom(), arity()) -> none | pos_integer().
options(Module, Function, Arity) ->
    case row(Module, Function, Arity) of
        {{options, Position}, _Kind} -> Position;
        _ -> none
    end.

%% @doc Whether the call starts a supervisor: one for which the start/2 of an application is a place too.
-spec supervisor(module(), atom(), arity()) -> boolean().
supervisor(Module, Function, Arity) ->
    case row(Module, Function, Arity) of
        {_Class, supervisor} -> true;
        _ -> false
    end.

%% @doc With how many arguments a function of this name is in the table: for `apply/3' with a list that is not
%% written out.
-spec arities(module(), atom()) -> [arity()].
arities(Module, Function) ->
    [A || A <- lists:seq(0, 6), row(Module, Function, A) =/= none].

%% @doc All rows, for tests.
-spec rows() -> [mfa()].
rows() ->
    [{M, F, A} || M <- modules(), F <- functions(), A <- arities(M, F)].

%% @doc A call as its language writes it: `erlang:spawn/1', `Task.start/1'.
-spec name(module(), atom(), arity()) -> binary().
name(Module, Function, Arity) ->
    End = <<(atom_to_binary(Function))/binary, $/, (integer_to_binary(Arity))/binary>>,
    case atom_to_binary(Module) of
        <<"Elixir.", Name/binary>> -> <<Name/binary, $., End/binary>>;
        Name -> <<Name/binary, $:, End/binary>>
    end.

modules() ->
    [erlang, proc_lib, gen, gen_server, gen_statem, gen_event, gen_fsm, gen_server2, p1_server, p1_fsm, wx_object,
     supervisor, supervisor2, supervisor_bridge, pg, peer, pool, timer, erpc, rpc,
     'Elixir.Kernel', 'Elixir.Process', 'Elixir.Node', 'Elixir.Port', 'Elixir.Task', 'Elixir.Agent',
     'Elixir.GenServer', 'Elixir.GenEvent', 'Elixir.GenStage', 'Elixir.GenStateMachine', 'Elixir.Supervisor',
     'Elixir.DynamicSupervisor', 'Elixir.PartitionSupervisor', 'Elixir.ConsumerSupervisor',
     'Elixir.Task.Supervisor', 'Elixir.Registry'].

functions() ->
    [spawn, spawn_link, spawn_monitor, spawn_opt, spawn_request, pspawn, pspawn_link, start, start_link,
     start_monitor, open_port, open, async, async_stream, apply_after, apply_interval, apply_repeatedly, cast,
     multicast, send_request, async_call, eval_everywhere].

-spec row(module(), atom(), arity()) -> {class(), kind()} | none.
row(erlang, F, A) -> erlang(F, A);
row(proc_lib, F, A) -> proc_lib(F, A);
row(gen, start, A) when A =:= 5; A =:= 6 -> {{options, 2}, server};
row(M, F, A) when ?IS_GEN(M) -> gen(F, A);
row(M, F, A) when ?IS_OLD_GEN(M), F =/= start_monitor -> gen(F, A);
row(gen_event, start, A) when A =< 2 -> {unlinked, server};
row(gen_event, start_monitor, A) when A =< 2 -> {unlinked, server};
row(gen_event, start_link, A) when A =< 2 -> {start_link, server};
row(supervisor, start_link, A) when A =:= 2; A =:= 3 -> {start_link, supervisor};
row(supervisor2, start_link, A) when A =:= 2; A =:= 3 -> {start_link, supervisor};
row(supervisor_bridge, start_link, A) when A =:= 2; A =:= 3 -> {start_link, supervisor};
row(pg, start, 1) -> {unlinked, server};
row(pg, start_link, A) when A =< 1 -> {start_link, server};
row(peer, start, 1) -> {unlinked, server};
row(peer, start_link, A) when A =< 1 -> {start_link, server};
row(pool, pspawn, 3) -> {unlinked, process};
row(pool, pspawn_link, 3) -> {start_link, process};
row(timer, F, A) -> timer(F, A);
row(erpc, F, A) -> erpc(F, A);
row(rpc, F, A) -> rpc(F, A);
row(M, F, A) -> elixir(M, F, A).

erlang(spawn, A) when A >= 1, A =< 4 -> {unlinked, process};
erlang(spawn_monitor, A) when A >= 1, A =< 4 -> {unlinked, process};
erlang(spawn_link, A) when A >= 1, A =< 4 -> {start_link, process};
erlang(spawn_opt, A) when A >= 2, A =< 5 -> {{options, A}, process};
erlang(spawn_request, 1) -> {unlinked, process};
erlang(spawn_request, A) when A >= 2, A =< 5 -> {{options, A}, process};
erlang(open_port, 2) -> {tethered, port};
erlang(_, _) -> none.

proc_lib(spawn, A) when A >= 1, A =< 4 -> {unlinked, loop};
proc_lib(spawn_link, A) when A >= 1, A =< 4 -> {start_link, loop};
proc_lib(spawn_opt, A) when A >= 2, A =< 5 -> {{options, A}, loop};
proc_lib(start, 5) -> {{options, 5}, loop};
proc_lib(start, A) when A =:= 3; A =:= 4 -> {unlinked, loop};
proc_lib(start_monitor, A) when A >= 3, A =< 5 -> {unlinked, loop};
proc_lib(start_link, A) when A >= 3, A =< 5 -> {start_link, loop};
proc_lib(_, _) -> none.

gen(start, A) when A =:= 3; A =:= 4 -> {unlinked, server};
gen(start_monitor, A) when A =:= 3; A =:= 4 -> {unlinked, server};
gen(start_link, A) when A =:= 3; A =:= 4 -> {start_link, server};
gen(_, _) -> none.

%% Those of OTP 26 and 27 too, whatever release reads.
timer(apply_after, A) when A >= 2, A =< 4 -> {deferred, timer};
timer(apply_interval, A) when A >= 2, A =< 4 -> {deferred, timer};
timer(apply_repeatedly, A) when A >= 2, A =< 4 -> {deferred, timer};
timer(_, _) -> none.

erpc(cast, A) when A =:= 2; A =:= 4 -> {deferred, remote};
erpc(multicast, A) when A =:= 2; A =:= 4 -> {deferred, remote};
erpc(send_request, A) when A =:= 2; A =:= 4; A =:= 6 -> {deferred, remote};
erpc(_, _) -> none.

rpc(cast, 4) -> {deferred, remote};
rpc(async_call, 4) -> {deferred, remote};
rpc(eval_everywhere, A) when A =:= 3; A =:= 4 -> {deferred, remote};
rpc(_, _) -> none.

elixir('Elixir.Kernel', spawn, A) when A =:= 1; A =:= 3 -> {unlinked, process};
elixir('Elixir.Kernel', spawn_monitor, A) when A =:= 1; A =:= 3 -> {unlinked, process};
elixir('Elixir.Kernel', spawn_link, A) when A =:= 1; A =:= 3 -> {start_link, process};
elixir('Elixir.Process', spawn, A) when A =:= 2; A =:= 4 -> {{options, A}, process};
elixir('Elixir.Node', spawn, A) when A =:= 2; A =:= 4 -> {unlinked, process};
elixir('Elixir.Node', spawn, A) when A =:= 3; A =:= 5 -> {{options, A}, process};
elixir('Elixir.Node', spawn_monitor, A) when A =:= 2; A =:= 4 -> {unlinked, process};
elixir('Elixir.Node', spawn_link, A) when A =:= 2; A =:= 4 -> {start_link, process};
elixir('Elixir.Port', open, 2) -> {tethered, port};
elixir('Elixir.Task', F, A) -> task(F, A);
elixir('Elixir.Agent', start, A) when A >= 1, A =< 4 -> {unlinked, agent};
elixir('Elixir.Agent', start_link, A) when A >= 1, A =< 4 -> {start_link, agent};
elixir('Elixir.GenEvent', start, A) when A =< 1 -> {unlinked, server};
elixir('Elixir.GenEvent', start_link, A) when A =< 1 -> {start_link, server};
elixir(M, start, A) when ?IS_EX_GEN(M), A >= 2, A =< 3 -> {unlinked, server};
elixir(M, start_link, A) when ?IS_EX_GEN(M), A >= 2, A =< 3 -> {start_link, server};
elixir(M, start_link, A) -> ex_supervisor(M, A);
elixir(_, _, _) -> none.

task(start, A) when A =:= 1; A =:= 3 -> {unlinked, task};
task(start_link, A) when A =:= 1; A =:= 3 -> {start_link, task};
task(async, A) when A =:= 1; A =:= 3 -> {tethered, task};
task(async_stream, A) when A >= 2, A =< 5 -> {tethered, stream};
task(_, _) -> none.

ex_supervisor('Elixir.Supervisor', A) when A =:= 2; A =:= 3 -> {start_link, supervisor};
ex_supervisor('Elixir.DynamicSupervisor', A) when A >= 1, A =< 3 -> {start_link, supervisor};
ex_supervisor('Elixir.ConsumerSupervisor', A) when A =:= 2; A =:= 3 -> {start_link, supervisor};
ex_supervisor('Elixir.PartitionSupervisor', 1) -> {start_link, supervisor};
ex_supervisor('Elixir.Task.Supervisor', A) when A =< 1 -> {start_link, supervisor};
ex_supervisor('Elixir.Registry', A) when A >= 1, A =< 3 -> {start_link, server};
ex_supervisor(_, _) -> none.

hint(Kind, Module) ->
    case atom_to_binary(Module) of
        <<"Elixir.", _/binary>> -> elixir_hint(Kind);
        _ -> erlang_hint(Kind)
    end.

erlang_hint(process) ->
    <<"Start it through a supervisor: supervisor:start_child/2 with restart => temporary for work that ends, or a "
      "gen_server in a child spec for a loop.">>;
erlang_hint(loop) ->
    <<"Let a function start_link call proc_lib:start_link/3, and name that function in a supervisor's child spec.">>;
erlang_hint(server) ->
    <<"Call the behaviour's start_link from a function start_link, and name that in a supervisor's child spec, or "
      "start it with supervisor:start_child/2.">>;
erlang_hint(supervisor) ->
    <<"Make it a child of type supervisor of the application's own tree, or start it in the application's start/2.">>;
erlang_hint(port) ->
    <<"Let a gen_server under a supervisor own the port: it opens it in init/1 and hears when it ends.">>;
erlang_hint(timer) ->
    <<"Let a supervised gen_server set the timer (erlang:send_after/3) and do the work in handle_info/2.">>;
erlang_hint(remote) ->
    <<"Call a supervised server on that node (gen_server:cast/2 or gen_server:call/2), which does the work there.">>.

elixir_hint(process) ->
    <<"Use Task.Supervisor.start_child/2 for work that ends, or a GenServer in a supervisor's children for a loop.">>;
elixir_hint(task) ->
    <<"Use Task.Supervisor.start_child/2, or Task.Supervisor.async_nolink/2 where the result is awaited.">>;
elixir_hint(stream) ->
    <<"Use Task.Supervisor.async_stream_nolink/4, so that a supervisor holds the tasks.">>;
elixir_hint(agent) ->
    <<"Put {Agent, fun} among a supervisor's children, or start it with DynamicSupervisor.start_child/2.">>;
elixir_hint(server) ->
    <<"Put the module among a supervisor's children, or start it with DynamicSupervisor.start_child/2.">>;
elixir_hint(supervisor) ->
    <<"Put it among the children of the application's own supervisor, or start it in the application's start/2.">>;
elixir_hint(port) ->
    <<"Let a GenServer under a supervisor own the port: it opens it in init/1 and hears when it ends.">>.

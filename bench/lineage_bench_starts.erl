%% Starts, stops and restarts of one child, bare and under each kind of supervisor: the jobs that lineage_bench_callers runs.
%%
%% The child is started with proc_lib:start_link/3 by whoever it is linked to, acknowledges at once and waits. `bare' starts it
%% from the caller itself; `one_for_one' is a `supervisor', `dynamic' a DynamicSupervisor, `partition' DynamicSupervisors behind a
%% PartitionSupervisor. `task' is a Task.Supervisor, whose children are tasks and acknowledge nothing: `bare_task' starts the same
%% task with Task.start_link/1.
%%
%% In a job of starts the child is told to end afterwards and is dead when the next one starts; its supervisor may still have
%% that exit to handle, which is a part of the load that it is under.
-module(lineage_bench_starts).
-behaviour(supervisor).

-export([arms/0, base/1, open/2, close/1, starts/1, stops/1, restarts/1]).
-export([init/1, start_child/0, child/0, start_restarted/2, restarted/2]).

-export_type([arm/0, subject/0]).

-type arm() :: bare | bare_task | one_for_one | dynamic | task | partition.
-opaque subject() :: {arm(), Supervisor :: pid() | atom()}.

-define(DYNAMIC, 'Elixir.DynamicSupervisor').
-define(TASK, 'Elixir.Task.Supervisor').
-define(PARTITION, 'Elixir.PartitionSupervisor').

%% So many restarts within a second that no supervisor gives up.
-define(INTENSITY, 1000000).

%% The arms that this node can run: without Elixir there are two.
-spec arms() -> [arm(), ...].
arms() ->
    case code:ensure_loaded(?PARTITION) of
        {module, _} -> [bare, bare_task, one_for_one, dynamic, task, partition];
        {error, _} -> [bare, one_for_one]
    end.

%% The arm that starts the same child without a supervisor; `none' for those themselves.
-spec base(arm()) -> arm() | none.
base(bare) -> none;
base(bare_task) -> none;
base(task) -> bare_task;
base(_) -> bare.

%% Starts the arm's supervisor, linked to the caller, with so many idle children.
-spec open(arm(), non_neg_integer()) -> subject().
open(Arm, Children) ->
    Subject = {Arm, supervisor(Arm)},
    Base = base(Arm),
    lists:foreach(fun(_) -> {ok, _} = start(request(Subject)) end, [N || Base =/= none, N <- lists:seq(1, Children)]),
    Subject.

supervisor(one_for_one) ->
    linked(supervisor:start_link(?MODULE, []));
supervisor(dynamic) ->
    linked(?DYNAMIC:start_link(dynamic()));
supervisor(task) ->
    linked(?TASK:start_link(intensity()));
supervisor(partition) ->
    Name = list_to_atom("lineage_bench_partition_" ++ integer_to_list(erlang:unique_integer([positive]))),
    _ = linked(?PARTITION:start_link([{child_spec, {?DYNAMIC, dynamic()}}, {name, Name}])),
    Name;
supervisor(_Bare) ->
    none.

linked({ok, Pid}) -> Pid.

%% Stops the arm's supervisor, which the caller has started and is linked to; returns when it is gone. The caller traps exits.
-spec close(subject()) -> ok.
close({_, none}) ->
    ok;
close({_, Supervisor}) ->
    Pid = whereis_pid(Supervisor),
    exit(Pid, shutdown),
    gone(Pid).

whereis_pid(Pid) when is_pid(Pid) -> Pid;
whereis_pid(Name) -> whereis(Name).

dynamic() -> [{strategy, one_for_one} | intensity()].

intensity() -> [{max_restarts, ?INTENSITY}, {max_seconds, 1}].

-spec init([]) -> {ok, {supervisor:sup_flags(), []}}.
init([]) ->
    {ok, {#{strategy => one_for_one, intensity => ?INTENSITY, period => 1}, []}}.

%% The call that starts a child, ready to be applied.
request({bare, none}) -> {?MODULE, start_child, []};
request({bare_task, none}) -> {'Elixir.Task', start_link, [fun ?MODULE:child/0]};
request({one_for_one, Pid}) -> {supervisor, start_child, [Pid, spec()]};
request({dynamic, Pid}) -> {?DYNAMIC, start_child, [Pid, spec()]};
request({task, Pid}) -> {?TASK, start_child, [Pid, fun ?MODULE:child/0]};
request({partition, Name}) -> {?DYNAMIC, start_child, [{via, ?PARTITION, {Name, self()}}, spec()]}.

spec() -> spec({?MODULE, start_child, []}, temporary).

spec(Start, Restart) -> #{id => make_ref(), start => Start, restart => Restart, shutdown => 5000}.

start({Module, Function, Arguments}) -> apply(Module, Function, Arguments).

%% Starts a child bare: linked to the caller, `{ok, Pid}'.
-spec start_child() -> {ok, pid()}.
start_child() ->
    proc_lib:start_link(?MODULE, restarted, [none, none]).

%% What a task runs, and every child when it has acknowledged.
-spec child() -> ok.
child() ->
    receive
        stop -> ok
    end.

%% A child that tells its owner of each of its starts, and notes when it dies.
-spec start_restarted(pid(), atomics:atomics_ref()) -> {ok, pid()}.
start_restarted(Owner, Death) ->
    proc_lib:start_link(?MODULE, restarted, [Owner, Death]).

-spec restarted(pid() | none, atomics:atomics_ref() | none) -> ok.
restarted(none, none) ->
    proc_lib:init_ack({ok, self()}),
    child();
restarted(Owner, Death) ->
    Birth = erlang:monotonic_time(),
    proc_lib:init_ack({ok, self()}),
    mortal(Owner, Death, Birth, erlang:monotonic_time()).

mortal(Owner, Death, Birth, Ack) ->
    Owner ! {again, self(), Birth, Ack},
    receive
        die ->
            atomics:put(Death, 1, erlang:monotonic_time()),
            exit(self(), kill)
    end.

%% A start, from call to return.
-spec starts(subject()) -> lineage_bench_callers:job().
starts(Subject) ->
    Linked = base(element(1, Subject)) =:= none,
    #{
        parts => [latency],
        open => fun(_) -> process_flag(trap_exit, true) end,
        once => fun(State) -> {once(request(Subject), Linked), State} end,
        close => fun(_) -> ok end
    }.

once(Request, Linked) ->
    Before = erlang:monotonic_time(),
    Result = start(Request),
    After = erlang:monotonic_time(),
    case Result of
        {ok, Pid} ->
            ok = finish(Pid, Linked),
            [After - Before];
        {error, _} ->
            failed
    end.

finish(Pid, true) ->
    Pid ! stop,
    gone(Pid);
finish(Pid, false) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    down(Monitor).

gone(Pid) ->
    receive
        {'EXIT', Pid, _} -> ok
    end.

down(Monitor) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% A stop, from the order to the child's death: terminate_child/2 of its supervisor; or bare, as a supervisor does it, with a
%% monitor and `shutdown'.
-spec stops(subject()) -> lineage_bench_callers:job().
stops(Subject) ->
    (starts(Subject))#{once := fun(State) -> {stop_once(Subject, request(Subject)), State} end}.

stop_once(Subject, Request) ->
    {ok, Pid} = start(Request),
    Before = erlang:monotonic_time(),
    ok = stop(Subject, Pid, Request),
    After = erlang:monotonic_time(),
    base(element(1, Subject)) =:= none andalso gone(Pid),
    [After - Before].

stop({one_for_one, Sup}, _Pid, {_, _, [_, #{id := Id}]}) -> supervisor:terminate_child(Sup, Id);
stop({dynamic, Sup}, Pid, _) -> ?DYNAMIC:terminate_child(Sup, Pid);
stop({task, Sup}, Pid, _) -> ?TASK:terminate_child(Sup, Pid);
stop({partition, Name}, Pid, _) -> ?DYNAMIC:terminate_child({via, ?PARTITION, {Name, self()}}, Pid);
stop({_Bare, none}, Pid, _) ->
    Monitor = monitor(process, Pid),
    exit(Pid, shutdown),
    down(Monitor).

%% A restart: from the child's last act, which is to kill itself, to its successor's first one (birth), and until init_ack/1
%% has returned to that (ack). A task has no ack.
-spec restarts(subject()) -> lineage_bench_callers:job().
restarts({Arm, _} = Subject) ->
    #{
        parts => case Arm of task -> [birth]; _ -> [birth, ack] end,
        open => fun(_) -> live(Subject, atomics:new(1, [])) end,
        once => fun(State) -> restart_once(Arm, State) end,
        close => fun({Pid, Id, _}) -> bury(Subject, Pid, Id) end
    }.

live(Subject, Death) ->
    Self = self(),
    Spec = #{id := Id} = spec({?MODULE, start_restarted, [Self, Death]}, permanent),
    {ok, Pid} =
        case Subject of
            {one_for_one, Sup} -> supervisor:start_child(Sup, Spec);
            {dynamic, Sup} -> ?DYNAMIC:start_child(Sup, Spec);
            {partition, Name} -> ?DYNAMIC:start_child({via, ?PARTITION, {Name, Self}}, Spec);
            {task, Sup} -> ?TASK:start_child(Sup, fun() -> restarted_task(Self, Death) end, [{restart, permanent}])
        end,
    receive
        {again, Pid, _, _} -> {Pid, Id, Death}
    end.

restarted_task(Owner, Death) ->
    Birth = erlang:monotonic_time(),
    mortal(Owner, Death, Birth, Birth).

restart_once(Arm, {Pid, Id, Death}) ->
    Pid ! die,
    receive
        {again, Next, Birth, Ack} ->
            Died = atomics:get(Death, 1),
            {[Birth - Died | [Ack - Died || Arm =/= task]], {Next, Id, Death}}
    end.

bury({one_for_one, Sup}, _Pid, Id) ->
    ok = supervisor:terminate_child(Sup, Id),
    supervisor:delete_child(Sup, Id);
bury(Subject, Pid, _Id) ->
    stop(Subject, Pid, none).

%% The processes of the large cells: a million under one supervisor, under a thousand, or orphans all of them.
%%
%% One process plants them and keeps their pids, so that no list of a million lies in the heap of the one that measures.
-module(lineage_bench_forest).
-behaviour(supervisor).

-export([plant/2, supervisors/1, thin/2]).
-export([init/1, start_top/0, start_branch/0, child/0]).

-export_type([shape/0, forest/0]).

-type shape() :: one | thousand | orphans.
-opaque forest() :: pid().

-define(BRANCHES, 1000).

%% Starts Size processes in the given shape. Their supervisors hang below kernel's own, as an application's would.
-spec plant(shape(), pos_integer()) -> forest().
plant(Shape, Size) ->
    ask(spawn_link(fun() -> planter(Shape, Size) end), planted).

%% Some of the forest's supervisors, to be asked whether they answer: at most ten, and never none.
-spec supervisors(forest()) -> [pid(), ...].
supervisors(Forest) ->
    ask(Forest, supervisors).

%% Ends all processes but about Left of them; returns when they are dead.
-spec thin(forest(), non_neg_integer()) -> ok.
thin(Forest, Left) ->
    ask(Forest, {thin, Left}).

ask(Forest, Question) ->
    Ref = make_ref(),
    Forest ! {self(), Ref, Question},
    receive
        {Ref, Answer} -> Answer
    end.

planter(Shape, Size) ->
    {Supervisors, Pids} = grow(Shape, Size),
    erlang:garbage_collect(),
    serve(Supervisors, Pids).

serve(Supervisors, Pids) ->
    receive
        {From, Ref, planted} ->
            From ! {Ref, self()},
            serve(Supervisors, Pids);
        {From, Ref, supervisors} ->
            From ! {Ref, lists:sublist(Supervisors, 10)},
            serve(Supervisors, Pids);
        {From, Ref, {thin, Left}} ->
            {Kept, Going} = lists:split(min(Left, length(Pids)), Pids),
            lists:foreach(fun(Pid) -> Pid ! go end, Going),
            %% A dead one answers at once; the others when they are.
            lists:foreach(fun wait/1, Going),
            From ! {Ref, ok},
            serve(Supervisors, Kept)
    end.

wait(Pid) ->
    Monitor = monitor(process, Pid),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end.

grow(orphans, Size) ->
    {[whereis(kernel_safe_sup)], [spawn(fun idle/0) || _ <- lists:seq(1, Size)]};
grow(one, Size) ->
    Branch = branch(top()),
    {[Branch], children(Branch, Size)};
grow(thousand, Size) ->
    Top = top(),
    Branches = [branch(Top) || _ <- lists:seq(1, ?BRANCHES)],
    Each = max(1, Size div ?BRANCHES),
    {Branches, lists:append([children(Branch, Each) || Branch <- Branches])}.

top() ->
    Spec = #{id => ?MODULE, start => {?MODULE, start_top, []}, type => supervisor, restart => temporary},
    {ok, Top} = supervisor:start_child(kernel_safe_sup, Spec),
    Top.

branch(Top) ->
    {ok, Branch} = supervisor:start_child(Top, []),
    Branch.

children(Branch, Count) ->
    [
        begin
            {ok, Pid} = supervisor:start_child(Branch, []),
            Pid
        end
     || _ <- lists:seq(1, Count)
    ].

start_top() -> supervisor:start_link(?MODULE, {start_branch, supervisor}).

start_branch() -> supervisor:start_link(?MODULE, {child, worker}).

%% supervisor's callback. Children end with `normal', and a temporary one is then forgotten without a report.
-spec init({atom(), worker | supervisor}) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({Start, Type}) ->
    Child = #{id => Start, start => {?MODULE, Start, []}, restart => temporary, type => Type},
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.

child() -> {ok, spawn_link(fun idle/0)}.

idle() ->
    receive
        go -> ok
    end.

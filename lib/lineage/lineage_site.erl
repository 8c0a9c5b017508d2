%% @private Sites: what the hook learnt of a birth, and the code's own word on it, made into a place.
%%
%% What is shown as the site (`kind' is `call') is the line of the call, and sure: the closure was made
%% for that one call, or the frame is on a line from which nothing else could have led to a birth. What is
%% less sure has another kind, and its text says what it is.
-module(lineage_site).

-export([describe/1, describe_all/1, text/1, candidate/1, sites/0, wrappers/1, points/1, requests/1, is_through/1]).

-export_type([site/0, row/0]).

-type site() :: #{id := pos_integer(),
                  kind := call | closure | via | start,
                  module => module(), function => {atom(), arity()},
                  file => binary(), line => pos_integer(),
                  call => mfa(),             % call: the function that is called, where there is but one on the line
                  tail => boolean(),         % via: known to be a tail call's; else that line may be the one
                  candidate => {File :: binary(), Line :: pos_integer()},
                  runs => mfa() | undefined, spawner => mfa() | undefined}.
-type row() :: #{site := site(), births := non_neg_integer(), live := non_neg_integer(),
                 orphans := non_neg_integer(), unheard := non_neg_integer()}.

%% Modules whose functions spawn for their caller: a frame in one of them is no site.
-define(SPAWNERS, [erlang, erts_internal, proc_lib, gen, gen_server, gen_statem, gen_event, gen_fsm, supervisor,
                   supervisor_bridge, rpc, erpc, timer, application_master,
                   'Elixir.Kernel', 'Elixir.Process', 'Elixir.Node', 'Elixir.Task', 'Elixir.Task.Supervised',
                   'Elixir.Task.Supervisor', 'Elixir.Agent', 'Elixir.Agent.Server', 'Elixir.GenServer',
                   'Elixir.GenEvent', 'Elixir.Supervisor', 'Elixir.DynamicSupervisor',
                   'Elixir.PartitionSupervisor', 'Elixir.Registry']).
%% Modules that call what they are given: a frame in one of them says less than its caller's.
-define(THROUGH, [lists, maps, 'Elixir.Enum', 'Elixir.Stream', 'Elixir.Enumerable', 'Elixir.Enumerable.List',
                  'Elixir.Enumerable.Map', 'Elixir.Enumerable.Range', 'Elixir.Enumerable.Function',
                  'Elixir.Range', 'Elixir.Map', 'Elixir.Keyword', 'Elixir.List']).
%% What spawns in its caller, of these modules. Not start_child and its like: the supervisor spawns.
-define(NAMES, [spawn, spawn_link, spawn_monitor, spawn_opt, spawn_request, start, start_link, start_monitor,
                async, async_stream]).
-define(SUPERVISED, [start_child, async, async_nolink, async_stream, async_stream_nolink]).
-define(REACH, 300).                 % functions looked at for a tail call

%% @doc The frames that are looked through: {Module, Function | '_'}. `More': the user's own.
-spec wrappers([module() | {module(), atom()}]) -> [{module(), atom()}].
wrappers(More) ->
    [{M, '_'} || M <- ?SPAWNERS ++ ?THROUGH] ++ [pair(Wrapper) || Wrapper <- More].

pair({Module, Function}) -> {Module, Function};
pair(Module) -> {Module, '_'}.

%% @doc The functions whose calls are traced for exact sites: where a stack is to be had (`sessions') the
%% built-in ones that spawn; else each function that a caller of these may have called.
-spec points({sessions | single, [module() | {module(), atom()}]}) -> [mfa()].
points({sessions, _More}) ->
    [{erlang, spawn, 3}, {erlang, spawn_link, 3}, {erlang, spawn_opt, 4}, {erts_internal, spawn_request, 4}];
points({single, More}) ->
    Loaded = [M || M <- ?SPAWNERS, code:which(M) =/= non_existing, {module, _} <- [code:ensure_loaded(M)]],
    lists:usort([{erts_internal, spawn_request, 4} |
                 [{M, F, A} || M <- Loaded, {F, A} <- M:module_info(exports), lists:member(F, ?NAMES)]] ++
                    lists:append([exported(pair(Wrapper)) || Wrapper <- More])).

%% @doc The functions by which a process asks a supervisor to spawn, of the modules that are there.
-spec requests(fun((module()) -> boolean())) -> [mfa()].
requests(IsThere) ->
    [{M, F, A} || {M, Names} <- [{supervisor, [start_child]}, {'Elixir.Supervisor', [start_child]},
                                 {'Elixir.DynamicSupervisor', [start_child]}, {'Elixir.Task.Supervisor', ?SUPERVISED}],
                  IsThere(M), {F, A} <- M:module_info(exports), lists:member(F, Names)].

exported({Module, Function}) ->
    case code:ensure_loaded(Module) of
        {module, _} -> [{Module, F, A} || {F, A} <- Module:module_info(exports), F =/= module_info,
                                          Function =:= '_' orelse F =:= Function];
        _ -> []
    end.

%% Whether a call creates a process that runs what it is given.
spawns({erpc, call, _}) -> true;
spawns({Module, Function, _}) when Module =:= 'Elixir.Task.Supervisor'; Module =:= 'Elixir.DynamicSupervisor';
                                   Module =:= supervisor; Module =:= 'Elixir.Supervisor' ->
    lists:member(Function, [start_link | ?SUPERVISED]);
spawns({Module, Function, Arity}) ->
    lineage_calls:find(Module, Function, Arity, unknown) =/= none orelse own(Module, Function).

%% Whether what such a call is given as a fun is what the process runs; of a server it would be its argument.
runs({erpc, call, _}) -> true;
runs({'Elixir.Task.Supervisor', Function, _}) -> lists:member(Function, ?SUPERVISED);
runs({Module, Function, _} = Call) when Module =:= erlang; Module =:= proc_lib; Module =:= 'Elixir.Kernel';
                                        Module =:= 'Elixir.Process'; Module =:= 'Elixir.Node' ->
    lists:prefix("spawn", atom_to_list(Function)) andalso spawns(Call);
runs({Module, Function, _} = Call) ->
    (lists:member(Module, ['Elixir.Task', 'Elixir.Agent', erpc, rpc, timer]) andalso spawns(Call))
        orelse own(Module, Function).

%% The wrappers that the user has named.
own(Module, Function) ->
    try lineage_session:lookup(options) of
        #{wrappers := More} -> lists:member(Module, More) orelse lists:member({Module, Function}, More);
        _ -> false
    catch
        error:_ -> false
    end.

%% @doc A site of the NIF's as it is shown; `undefined' where there is none.
-spec describe(lineage_nif:site()) -> site() | undefined.
describe(undefined) ->
    undefined;
describe({Id, What, Frame}) ->
    maps:merge(#{id => Id}, best(closure(What), Frame, What)).

%% @doc The same for each distinct one of a list.
-spec describe_all([lineage_nif:site()]) -> #{lineage_nif:site() => site() | undefined}.
describe_all(Sites) ->
    maps:from_list([{Site, describe(Site)} || Site <- lists:usort(Sites)]).

%% A closure that was made for one call is as good as that call's line; the line of a frame is the VM's own word.
best(#{kind := call} = Site, {_, _, _, File, Line} = Frame, _What) when File =/= undefined, Line =/= undefined ->
    case frame(Frame) of
        #{kind := call} = Called -> Called;
        _ -> Site
    end;
best(#{kind := call} = Site, _Frame, _What) ->
    Site;
best(_Closure, {_, _, _, File, Line} = Frame, What) when File =/= undefined, Line =/= undefined ->
    case {frame(Frame), What} of
        {#{kind := via} = Site, {call, Runs, _}} when not is_map_key(candidate, Site) -> maps:merge(Site, named(Runs));
        {Site, _} -> Site
    end;
best(#{} = Closure, _Frame, _What) ->
    Closure;
best(none, _Frame, {call, Runs, Spawner}) ->
    maps:merge(#{kind => start, runs => Runs, spawner => Spawner}, named(Runs)).

%% The only call in a function's own module that hands it on to be spawned.
named({Module, Function, _}) ->
    case lists:usort([Place || not is_through(Module), {Callee, {_, _} = Place} <- lineage_code:starts(Module, Function),
                               Callee =/= dynamic, spawns(Callee)]) of
        [Place] -> #{candidate => Place};
        _ -> #{}
    end;
named(undefined) ->
    #{}.

closure({call, _, _}) ->
    none;
closure({closure, Module, Index, Uniq}) ->
    case lineage_code:closure(Module, Index, Uniq) of
        #{function := Function, call := {{_, _, _} = Callee, {File, Line}}, place := Place} ->
            case runs(Callee) andalso not is_through(Module) andalso not own(Module, element(1, Function)) of
                true -> #{kind => call, module => Module, function => Function, file => File, line => Line, call => Callee};
                false -> made(Module, Function, Place)
            end;
        #{function := Function, place := Place} ->
            made(Module, Function, Place);
        unknown ->
            #{kind => closure, module => Module}
    end.

made(Module, Function, {File, Line}) ->
    #{kind => closure, module => Module, function => Function, file => File, line => Line};
made(Module, Function, undefined) ->
    #{kind => closure, module => Module, function => Function}.

%% The frame that called. The calls on its line tell whether it is the one. Before OTP 27 the VM takes the line
%% of the return address, which may be the next one.
frame({Module, Function, Arity, File, Line}) ->
    Shown = {unicode:characters_to_binary(File), Line},
    Base = #{module => Module, function => lineage_code:outer({Function, Arity}), file => element(1, Shown), line => Line},
    case lineage_code:calls(Module, {Function, Arity}) of
        unknown ->
            Base#{kind => via, tail => false};
        Calls ->
            Api = lineage_hook:api(),
            Here = [{Callee, L} || {Callee, {_, L} = Place, _, Behind} = Call <- Calls, leaves_frame(Call),
                                   Shown =:= case Api of sessions -> Place; single -> Behind end],
            {Direct, Others} = lists:partition(fun({Callee, _}) -> Callee =/= dynamic andalso spawns(Callee) end, Here),
            Reached = reach(lists:usort([Callee || {Callee, _} <- Others]), #{}, {true, []}),
            Called = case Direct of
                         [{Callee, _}] -> Base#{call => Callee};
                         _ -> Base
                     end,
            maps:merge(Called, judged(lists:usort([L || {_, L} <- Direct]), Reached))
    end.

%% A built-in function runs in its caller's frame, also at its end.
leaves_frame({_Callee, _Place, frame, _Behind}) -> true;
leaves_frame({Callee, _Place, tail, _Behind}) -> lists:member(Callee, points({sessions, []})).

judged([Line], {true, []}) -> #{kind => call, line => Line};
judged([], {true, [Candidate]}) -> #{kind => via, tail => true, candidate => Candidate};
judged([], {_, _}) -> #{kind => via, tail => true};
judged([_ | _], _) -> #{kind => via, tail => false}.

%% Which calls that spawn could stand at the end of a chain of tail calls from these functions, and whether
%% that is all: a call that is not a tail call would show its own frame, except in the modules that are
%% looked through.
reach([], _Seen, Found) ->
    Found;
reach(_Callees, Seen, {_, Found}) when map_size(Seen) > ?REACH ->
    {false, Found};
reach([Callee | Rest], Seen, Found) when is_map_key(Callee, Seen) ->
    reach(Rest, Seen, Found);
reach([dynamic | Rest], Seen, {_, Found}) ->
    reach(Rest, Seen, {false, Found});
reach([{erlang, apply, _} | Rest], Seen, Found) ->
    reach([dynamic | Rest], Seen, Found);
reach([{erlang, _, _} | Rest], Seen, Found) ->
    %% Those that spawn were told apart; no other one calls back.
    reach(Rest, Seen, Found);
reach([{Module, Function, Arity} = Callee | Rest], Seen, {All, Found}) ->
    case lineage_code:calls(Module, {Function, Arity}) of
        unknown ->
            reach(Rest, Seen#{Callee => true}, {false, Found});
        Calls ->
            Through = is_through(Module),
            Ends = [{C, Place} || {C, Place, Tail, _} <- Calls, Tail =:= tail orelse Through],
            {Spawns, On} = lists:partition(fun({C, _}) -> C =/= dynamic andalso spawns(C) end, Ends),
            Sites = [Place || {_, Place} <- Spawns, not Through],
            Known = All andalso not (Through andalso Spawns =/= []) andalso not lists:member(undefined, Sites),
            reach([C || {C, _} <- On] ++ Rest, Seen#{Callee => true}, {Known, lists:usort(Sites ++ Found)})
    end.

%% @doc Whether frames of that module are looked through anyway.
-spec is_through(module()) -> boolean().
is_through(Module) -> lists:member(Module, ?SPAWNERS ++ ?THROUGH).

%% @doc A site in words: the place alone where it is sure.
-spec text(site() | undefined) -> binary().
text(undefined) ->
    <<"unknown">>;
text(#{kind := call} = Site) ->
    place(Site);
text(#{kind := closure, file := _} = Site) ->
    join(["closure of ", function(Site), " at ", place(Site)]);
text(#{kind := closure, function := _} = Site) ->
    join(["closure of ", function(Site)]);
text(#{kind := closure, module := Module}) ->
    join(["closure of ", lineage_describe:atom(Module)]);
text(#{kind := via, tail := false} = Site) ->
    join(["in ", function(Site), " (", place(Site), ")", perhaps(Site)]);
text(#{kind := via} = Site) ->
    join(["via ", function(Site), " (", place(Site), "), tail call", perhaps(Site)]);
text(#{kind := start, runs := Runs, spawner := Spawner} = Site) ->
    join(["started as ", lineage_describe:mfa(Runs), [[" by ", lineage_describe:mfa(Spawner)] || Spawner =/= undefined],
          perhaps(Site)]).

perhaps(#{candidate := _} = Site) -> [", perhaps ", candidate(Site)];
perhaps(_Site) -> [].

place(#{file := File, line := Line}) -> place(File, Line).

place(File, Line) -> join([short(File), $:, integer_to_binary(Line)]).

%% @doc `File:Line' of the only call that it seems to have been.
-spec candidate(site()) -> binary().
candidate(#{candidate := {File, Line}}) -> place(File, Line).

%% Paths of builds are long: what is below the working directory is shown as such.
short(File) ->
    case file:get_cwd() of
        {ok, Dir} ->
            Prefix = <<(unicode:characters_to_binary(Dir))/binary, $/>>,
            case string:prefix(File, Prefix) of
                nomatch -> File;
                Rest -> Rest
            end;
        _ ->
            File
    end.

function(#{module := Module, function := {Function, Arity}}) ->
    lineage_describe:mfa({Module, Function, Arity}).

join(Parts) -> unicode:characters_to_binary(Parts).

%% @doc All sites since attach, those with the most orphans first, then the most live, then the most births.
-spec sites() -> [row()].
sites() ->
    case lineage_nif:sites() of
        Rows when is_list(Rows) ->
            Sites = [#{site => describe(Site), births => Births, live => Live, orphans => Orphans, unheard => Unheard}
                     || {Site, Births, Live, Orphans, Unheard} <- Rows, Births > 0],
            lists:sort(fun(A, B) -> rank(A) >= rank(B) end, Sites);
        {error, closed} ->
            lineage_error:raise({not_attached, undefined}, []);
        {error, enomem} ->
            lineage_error:raise({enomem, verdict}, [])
    end.

rank(#{orphans := Orphans, live := Live, births := Births, unheard := Unheard, site := #{id := Id}}) ->
    {Orphans, Live, Unheard, Births, -Id}.

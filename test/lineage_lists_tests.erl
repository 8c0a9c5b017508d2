%% The lists against this release's own code, and their matches on processes made for it. That each entry
%% is a process that some node has is shown by real_nodes_SUITE.
-module(lineage_lists_tests).

-include_lib("eunit/include/eunit.hrl").

-define(DEADLINE, 60000).

%% A function that an entry names and that its module does not have would match nobody, silently.
functions_exist_test_() ->
    {timeout, 120, fun functions_exist/0}.

functions_exist() ->
    Entries =
        lineage_lists:runtime() ++ lineage_lists:hosts() ++ lineage_lists:services() ++
            lineage_lists:supervisors(),
    ?assertEqual([], [Match || {Match, _} <- Entries, not exists(pattern(Match))]).

pattern({child, Match}) -> pattern(Match);
pattern({Kind, {_, _, _} = Pattern}) when Kind =:= frame; Kind =:= alone -> Pattern;
pattern({registered, _}) -> any;
pattern({_, _, _} = Pattern) -> Pattern.

exists(any) -> true;
%% An arity that a later release may have is written as a wildcard; these differ by name.
exists({otp_ring0, start, 2}) -> true;
exists({timer, interval_loop, '_'}) -> true;
exists({'Elixir.Module.ParallelChecker', _, '_'}) -> true;
exists({_, '_', _}) -> true;
exists({M, F, A}) ->
    case code:ensure_loaded(M) of
        {module, M} -> [] =/= [F || {F1, A1} <- M:module_info(functions), F1 =:= F, A =:= '_' orelse A1 =:= A];
        {error, _} -> true
    end.

%% Every entry says why, in a sentence's length.
reasons_test() ->
    [?assert(byte_size(Reason) > 20 andalso byte_size(Reason) < 120)
     || {_, Reason} <- lineage_lists:runtime() ++ lineage_lists:hosts()].

%% The one closure of kernel's that every node has.
rpc_observer_test() ->
    [Pid] = [P || P <- processes(),
        process_info(P, current_function) =:= {current_function, {rpc, nodes_observer_loop, 1}}],
    ?assertMatch({runtime, _}, lineage_lists:recognise(Pid, ?DEADLINE)).

init_test() ->
    ?assertMatch({runtime, _}, lineage_lists:recognise(whereis(init), ?DEADLINE)).

stranger_test() ->
    {Pid, Monitor} = spawn_monitor(fun() -> receive stop -> ok end end),
    ?assertEqual(undefined, lineage_lists:recognise(Pid, ?DEADLINE)),
    Pid ! stop,
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    ?assertEqual(dead, lineage_lists:recognise(Pid, ?DEADLINE)).

many_in_order_test() ->
    Pids = [whereis(init), self(), whereis(application_controller)],
    ?assertMatch([{_, {runtime, _}}, _, {_, {runtime, _}}],
        lineage_lists:recognise_many(Pids, ?DEADLINE)),
    ?assertEqual(Pids, [Pid || {Pid, _} <- lineage_lists:recognise_many(Pids, ?DEADLINE)]).

%% A peer's process is a host while nobody is linked to it; a link makes it its owner's.
alone_test_() ->
    {timeout, 60, fun() ->
        Start = fun(F) -> element(2, peer:F(#{connection => standard_io})) end,
        Unlinked = Start(start),
        ?assertMatch({host, _}, lineage_lists:recognise(Unlinked, ?DEADLINE)),
        Linked = Start(start_link),
        ?assertEqual(undefined, lineage_lists:recognise(Linked, ?DEADLINE)),
        unlink(Linked),
        ?assertMatch({host, _}, lineage_lists:recognise(Linked, ?DEADLINE)),
        [ok = peer:stop(Pid) || Pid <- [Unlinked, Linked]]
    end}.

%% A file's process belongs to nobody by links, and ends with its owner.
raw_file_test() ->
    Before = processes(),
    Name = "/tmp/lineage_lists." ++ os:getpid(),
    {ok, File} = file:open(Name, [raw, write, delayed_write]),
    New = [P || P <- processes() -- Before, {runtime, _} <- [lineage_lists:recognise(P, ?DEADLINE)]],
    ?assertMatch([_], New),
    ok = file:close(File),
    ok = file:delete(Name).

names_and_calls_test() ->
    ?assert(lists:member(erl_prim_loader, lineage_lists:registered(lineage_lists:runtime()))),
    ?assert(lists:member({prim_file, start, 0}, lineage_lists:initial_calls(lineage_lists:runtime()))).

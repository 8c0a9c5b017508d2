%% Groups of trace points share functions, in any order of arming and disarming.
-module(lineage_points_tests).

-include_lib("eunit/include/eunit.hrl").

-define(GROUPS, [base, requests, overhead]).

-export([critical/0]).

critical() -> ok.

options() -> options(#{exits => all, critical => [{?MODULE, critical, 0}, {nowhere, f, 1}]}).

options(More) -> maps:merge(#{monitors => exact, sites => exact, wrappers => []}, More).

%% Without an open session the VM would end the points at the first call.
open_test_() ->
    {setup,
     fun() ->
             {ok, _} = lineage_nif:open(#{exits => all, max_bytes => 1 bsl 28, process_limit => erlang:system_info(process_limit)})
     end,
     fun(_) -> lineage_nif:close() end,
     [{timeout, 600, Test} || Test <- [fun groups/0, fun loaded_later/0, fun exits/0, fun others_point/0]]}.

none() ->
    #{session := Session} = lineage_nif:info(),
    lineage_points:new(lineage_hook:new(Session)).

%% What is set is at each step what the armed groups want, and no more.
groups() ->
    Alone = maps:from_list([{G, wanted(G)} || G <- ?GROUPS]),
    [begin
         Steps = [{arm, G} || G <- Order] ++ [{disarm, G} || G <- Gone],
         {Points, []} = lists:foldl(fun(Do, Before) ->
                                            {After, Armed} = step(Do, Before),
                                            is_union(Armed, Alone, After),
                                            {After, Armed}
                                    end, {none(), []}, Steps),
         ok = lineage_points:destroy(Points)
     end || Order <- orders(?GROUPS), Gone <- [Order, lists:reverse(Order)]].

step({arm, Group}, {Points, Armed}) ->
    {ok, More} = lineage_points:arm(Group, options(), Points),
    {More, [Group | Armed]};
step({disarm, Group}, {Points, Armed}) ->
    {lineage_points:disarm(Group, Points), Armed -- [Group]}.

orders([]) -> [[]];
orders(List) -> [[E | Rest] || E <- List, Rest <- orders(List -- [E])].

wanted(Group) ->
    {ok, Points} = lineage_points:arm(Group, options(), none()),
    ?assert(lineage_points:is_armed(Group, Points)),
    Set = set(Points),
    ok = lineage_points:destroy(Points),
    Set.

is_union(Armed, Alone, Points) ->
    Wanted = lists:foldl(fun(G, Map) ->
                                 maps:fold(fun(F, A, M) -> maps:update_with(F, fun(B) -> lists:usort(A ++ B) end, A, M) end,
                                           Map, maps:get(G, Alone))
                         end, #{}, Armed),
    ?assertEqual(Wanted, set(Points)).

%% All functions of the modules that have points, as the VM tells them.
set(Points) ->
    Modules = [erlang, erts_internal, supervisor, proc_lib, gen_server, ?MODULE | [M || {M, true} <- elixir()]],
    maps:from_list([{{M, F, A}, lists:usort(Actions)} || M <- Modules, {F, A} <- M:module_info(functions),
                                                         {on, Actions} <- [actions(Points, {M, F, A})]]).

elixir() ->
    [{M, code:ensure_loaded(M) =:= {module, M}}
     || M <- ['Elixir.Supervisor', 'Elixir.DynamicSupervisor', 'Elixir.Task.Supervisor', 'Elixir.Task']].

actions(#{api := single}, MFA) -> actions(lineage_hook:vm(trace_info, [MFA, meta_match_spec]));
actions(#{handle := none}, _MFA) -> off;
actions(#{handle := Handle}, MFA) -> actions(lineage_hook:session(info, [Handle, MFA, meta_match_spec])).

actions({meta_match_spec, [{_, [], Actions}]}) -> {on, Actions};
actions({meta_match_spec, []}) -> {on, []};
actions({meta_match_spec, false}) -> off.

%% A function that is not there yet is no error, and is found when it is.
loaded_later() ->
    Options = options(#{exits => all, critical => [{lineage_points_later, f, 0}]}),
    {ok, Points} = lineage_points:arm(overhead, Options, none()),
    ?assertEqual(0, lineage_points:check(Points)),
    {ok, Module, Binary} = compile:forms([{attribute, 1, module, lineage_points_later}, {attribute, 1, export, [{f, 0}]},
                                          {function, 1, f, 0, [{clause, 1, [], [], [{atom, 1, ok}]}]}]),
    {module, Module} = code:load_binary(Module, "later", Binary),
    ?assertEqual(1, lineage_points:check(Points)),
    ?assertEqual(0, lineage_points:check(Points)),
    ok = lineage_points:destroy(Points),
    code:delete(Module),
    code:purge(Module).

%% Restarts and stops are measured where exits are known.
exits() ->
    {ok, Points} = lineage_points:arm(overhead, options(#{exits => suspects, critical => [{?MODULE, critical, 0}]}), none()),
    Set = set(Points),
    ?assertNot(is_map_key({supervisor, terminate_child, 2}, Set)),
    ?assertNot(is_map_key({supervisor, handle_info, 2}, Set)),
    ?assertMatch(#{{supervisor, start_child, 2} := [{exception_trace}], {proc_lib, init_ack, 2} := [],
                   {?MODULE, critical, 0} := [{exception_trace}]}, Set),
    ok = lineage_points:destroy(Points).

%% Before 27 another tool's trace point is left to it when a group is armed, and when it goes.
others_point() ->
    MFA = {?MODULE, critical, 0},
    erlang:trace_pattern(MFA, true, [{meta, self()}]),
    Before = erlang:trace_info(MFA, meta),
    {ok, Points} = lineage_points:arm(overhead, options(#{exits => suspects, critical => [MFA]}), none()),
    ?assertEqual(Before, erlang:trace_info(MFA, meta)),
    lineage_points:destroy(lineage_points:disarm(overhead, Points)),
    ?assertEqual(Before, erlang:trace_info(MFA, meta)),
    erlang:trace_pattern(MFA, false, [meta]).

%% @doc Asks supervisors what they hold, each question in a helper with a deadline.
%%
%% Supervisors are not all alike, and a call that one does not know would crash it: `which_children' is
%% asked of all (the release handler does too), a child specification only of OTP's `supervisor'. The
%% whole list is asked only of those with at most 1,000 children.
-module(lineage_child).

-export([lookup/3, children/2, supervisors/1]).

-export_type([child/0]).

%% id: the child's id, undefined under dynamic supervisors. restart, shutdown: unresolved where the
%% supervisor has no way to tell.
-type child() :: #{supervisor := pid(), id := term(), restart := atom(),
                   shutdown := timeout() | brutal_kill | unresolved}.

-define(DEADLINE, 500).     % ms
-define(MANY, 1000).        % children

%% @doc How `Supervisor' holds `Pid'. `Count' is the number of its children as the census knows it.
-spec lookup(pid(), pid(), non_neg_integer()) -> {child, child()} | no_child | unresolved.
lookup(Supervisor, Pid, Count) ->
    case flavour(Supervisor, Count) of
        otp -> otp(Supervisor, Pid, Count);
        bridge -> no_child;
        dynamic when Count =< ?MANY -> dynamic(Supervisor, Pid);
        foreign when Count =< ?MANY -> foreign(Supervisor, Pid);
        _ -> unresolved
    end.

%% @doc The children of a supervisor: `#{Pid => Id}'. `unresolved' when it has more than 1,000, or
%% does not answer in time.
-spec children(pid(), non_neg_integer()) -> #{pid() => term()} | unresolved.
children(_Supervisor, Count) when Count > ?MANY ->
    unresolved;
children(Supervisor, _Count) ->
    Ask = fun() -> [{Pid, Id} || {Id, Pid, _, _} <- gen_server:call(Supervisor, which_children, infinity), is_pid(Pid)] end,
    case lineage_proc:call(Ask, ?DEADLINE) of
        {ok, Pairs} -> maps:from_list(Pairs);
        _ -> unresolved
    end.

%% @doc Those of the pids that are supervisors, in no order. One that was born as something else and says
%% in `$initial_call' that it is one, as ranch's do, is told to the census.
-spec supervisors([pid()]) -> [pid()].
supervisors(Pids) ->
    {Known, Others} = lists:partition(fun(Pid) -> lineage_links:has(supervisor, Pid) end, lists:usort(Pids)),
    Known ++ [Pid || {Pid, #{otp := #{initial_call := {Behaviour, _, 1}}}} <- lineage_proc:info_many(Others, [otp], ?DEADLINE),
                     Behaviour =:= supervisor orelse Behaviour =:= supervisor_bridge,
                     lineage_nif:mark(Pid, supervisor) =:= ok].

%% Which behaviour runs it: the census saw it start, or its callback module and its state say so.
flavour(Supervisor, Count) ->
    case lineage_nif:record(Supervisor) of
        #{initial_call := {supervisor, init, 1}} -> otp;
        #{initial_call := {'Elixir.DynamicSupervisor', init, 1}} -> dynamic;
        #{initial_call := {supervisor_bridge, _, _}} -> bridge;
        #{flags := Flags} ->
            case lists:member(seeded, Flags) of
                true -> by_keys(Supervisor, Count);
                false -> foreign
            end;
        undefined -> by_keys(Supervisor, Count)
    end.

by_keys(Supervisor, Count) ->
    case lineage_proc:otp_keys(Supervisor, ?DEADLINE) of
        #{initial_call := {supervisor_bridge, _, _}} -> bridge;
        #{initial_call := {supervisor, 'Elixir.Supervisor.Default', _}} -> by_state(Supervisor, Count, unresolved);
        #{initial_call := {supervisor, Module, _}} ->
            case by_module(Module) of
                foreign -> foreign;
                Flavour -> by_state(Supervisor, Count, Flavour)
            end;
        #{} -> foreign;
        _ -> unresolved
    end.

by_module(Module) ->
    Behaviours = try Module:module_info(attributes) of
                     Attributes -> lists:append([B || {K, B} <- Attributes, K =:= behaviour orelse K =:= behavior])
                 catch
                     error:undef -> []
                 end,
    Is = fun(B) -> lists:member(B, Behaviours) end,
    case {Is(supervisor) orelse Is('Elixir.Supervisor'), Is('Elixir.DynamicSupervisor')} of
        {true, false} -> otp;
        {false, true} -> dynamic;
        _ -> foreign
    end.

%% `Supervisor.Default' runs under both, and a supervisor of somebody's own make may name any module: the
%% state's own tag tells, and the rest of it is dropped. Of many children's it would be too large.
by_state(_Supervisor, Count, Otherwise) when Count > ?MANY ->
    Otherwise;
by_state(Supervisor, _Count, _Otherwise) ->
    Ask = fun() ->
              case sys:get_state(Supervisor, infinity) of
                  #{'__struct__' := 'Elixir.DynamicSupervisor'} -> dynamic;
                  State when element(1, State) =:= state -> otp;
                  _ -> foreign
              end
          end,
    case lineage_proc:call(Ask, ?DEADLINE) of
        {ok, Flavour} -> Flavour;
        _ -> unresolved
    end.

%% Dynamic ones know a child by its pid, the others by its id.
otp(Supervisor, Pid, Count) ->
    case spec(Supervisor, Pid) of
        {ok, #{} = Spec} -> child(Supervisor, undefined, Spec);
        {ok, _} when Count > ?MANY -> unresolved;
        {ok, _} -> otp_by_id(Supervisor, Pid, children(Supervisor, Count));
        unresolved -> unresolved
    end.

otp_by_id(Supervisor, Pid, Children) when is_map_key(Pid, Children) ->
    Id = maps:get(Pid, Children),
    case spec(Supervisor, Id) of
        {ok, #{} = Spec} -> child(Supervisor, Id, Spec);
        _ -> child(Supervisor, Id, #{})
    end;
otp_by_id(_Supervisor, _Pid, #{}) ->
    no_child;
otp_by_id(_Supervisor, _Pid, unresolved) ->
    unresolved.

%% Restart and shutdown only: a child specification holds the start arguments too.
spec(Supervisor, Id) ->
    Ask = fun() ->
              case supervisor:get_childspec(Supervisor, Id) of
                  {ok, Spec} -> maps:with([restart, shutdown], Spec);
                  {error, not_found} -> not_found
              end
          end,
    case lineage_proc:call(Ask, ?DEADLINE) of
        {ok, Answer} -> {ok, Answer};
        _ -> unresolved
    end.

dynamic(Supervisor, Pid) ->
    Ask = fun() ->
              case sys:get_state(Supervisor, infinity) of
                  #{children := #{Pid := {_Start, Restart, Shutdown, _Type, _Modules}}} ->
                      #{restart => Restart, shutdown => Shutdown};
                  #{children := #{}} ->
                      no_child
              end
          end,
    case lineage_proc:call(Ask, ?DEADLINE) of
        {ok, #{} = Spec} -> child(Supervisor, undefined, Spec);
        {ok, no_child} -> no_child;
        _ -> foreign(Supervisor, Pid)
    end.

foreign(Supervisor, Pid) ->
    case children(Supervisor, 0) of
        #{Pid := Id} -> child(Supervisor, Id, #{});
        #{} -> no_child;
        unresolved -> unresolved
    end.

child(Supervisor, Id, Spec) ->
    {child, #{supervisor => Supervisor, id => Id, restart => maps:get(restart, Spec, unresolved),
              shutdown => maps:get(shutdown, Spec, unresolved)}}.

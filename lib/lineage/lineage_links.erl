%% @doc Compares what the census believes about links with the links that processes really have.
%%
%% A link is a bond, except to a service that is no parent of the other: services (`Registry'
%% partitions, for one) link to whoever registers, and such bookkeeping tethers nobody. A link to a
%% process of another node, and a link to a port, joins nobody to a root of this node.
-module(lineage_links).

-export([check/0, bonds/2, remote/1, flags/1, has/2, rooted/2, path/2]).

-export_type([check/0, path/0]).

%% counts: the children of each guardian, as the census knows; unanswered: guardians that did not
%% answer in time, so the census was believed; sampled: guardians too large to be asked for links.
-type check() :: #{counts := #{pid() => non_neg_integer()},
                   unanswered := [pid()],
                   sampled := [#{guardian := pid(), children := pos_integer(),
                                 looked := non_neg_integer(), unlinked := non_neg_integer()}]}.
-type path() :: {ok, [pid(), ...]} | none | unresolved.

-define(DEADLINE, 300).      % ms, for each process asked
-define(BUDGET, 3000).       % ms, for one link check
-define(LARGE, 10000).       % children: reading that many links would hold the guardian
-define(SAMPLE, 1000).       % children looked at for all large guardians together
-define(PATH_MAX, 2000).     % processes looked at for one path

%% @doc Reads the links of each guardian once and tells the census. Of guardians with more than
%% 10,000 children a sample is taken from the children's side.
-spec check() -> check().
check() ->
    Guardians = guardians(),
    {Large, Small} = lists:partition(fun({_, Children}) -> Children > ?LARGE end, Guardians),
    End = erlang:monotonic_time(millisecond) + ?BUDGET,
    Unanswered = confirm([Pid || {Pid, _} <- Small], End),
    #{counts => maps:from_list(Guardians), unanswered => Unanswered, sampled => sample(Large)}.

%% Without the memory for a link check the census is believed.
guardians() ->
    case lineage_nif:guardians() of
        {error, enomem} -> [];
        Guardians -> Guardians
    end.

confirm([], _End) ->
    [];
confirm(Pids, End) ->
    case erlang:monotonic_time(millisecond) < End of
        true ->
            {Batch, Rest} = lists:split(min(500, length(Pids)), Pids),
            Late = [Pid || {Pid, unresolved} <- [confirm(A) || A <- lineage_proc:info_many(Batch, [links], ?DEADLINE)]],
            Late ++ confirm(Rest, End);
        false ->
            Pids
    end.

confirm({Pid, #{links := Links}} = Answer) ->
    ok = lineage_nif:confirm(Pid, Links),
    Answer;
confirm({Pid, dead} = Answer) ->
    ok = lineage_nif:confirm(Pid, []),
    Answer;
confirm({_Pid, unresolved} = Answer) ->
    Answer.

sample([]) ->
    [];
sample(Large) ->
    Wanted = maps:from_list(Large),
    Pids = lineage_nif:pids(),
    Step = max(1, length(Pids) div ?SAMPLE),
    Picked = [{Pid, Guardian} || Pid <- every(Step, rand:uniform(Step), Pids),
                                 #{guardian := Guardian} <- [lineage_nif:record(Pid)],
                                 is_map_key(Guardian, Wanted)],
    Answers = lineage_proc:info_many([Pid || {Pid, _} <- Picked], [links], ?DEADLINE),
    Looked = [{Guardian, Pid, lists:member(Guardian, Links), Links}
              || {{Pid, Guardian}, {Pid, #{links := Links}}} <- lists:zip(Picked, Answers)],
    [set_free(Pid, Links) || {_, Pid, false, Links} <- Looked],
    [#{guardian => Guardian, children => Children,
       looked => length([1 || {G, _, _, _} <- Looked, G =:= Guardian]),
       unlinked => length([1 || {G, _, false, _} <- Looked, G =:= Guardian])}
     || {Guardian, Children} <- Large].

every(_Step, _Skip, []) -> [];
every(Step, 1, [Pid | Rest]) -> [Pid | every(Step, Step, Rest)];
every(Step, Skip, [_ | Rest]) -> every(Step, Skip - 1, Rest).

%% Its guardian is another one than the census says, or none.
set_free(Pid, Links) ->
    case bonds(Pid, Links) of
        [Other | _] -> lineage_nif:set_guardian(Pid, Other);
        [] -> lineage_nif:set_guardian(Pid, undefined)
    end.

%% @doc The links that bind `Pid' to processes of this node.
-spec bonds(pid(), [pid() | port() | term()]) -> [pid()].
bonds(Pid, Links) ->
    Local = [L || L <- Links, is_pid(L), node(L) =:= node(), L =/= Pid],
    case has(service, Pid) of
        true -> [L || L <- Local, family(Pid, L)];
        false -> [L || L <- Local, (not has(service, L)) orelse family(Pid, L)]
    end.

family(A, B) ->
    parent(A) =:= B orelse parent(B) =:= A.

parent(Pid) ->
    case lineage_nif:record(Pid) of
        #{parent := Parent} -> Parent;
        undefined -> undefined
    end.

%% @doc The links that lead to other nodes.
-spec remote([pid() | port() | term()]) -> [pid()].
remote(Links) ->
    [L || L <- Links, is_pid(L), node(L) =/= node()].

%% @doc The flags and classes of a process; none when the census does not know it.
-spec flags(pid()) -> [atom()].
flags(Pid) ->
    case lineage_nif:record(Pid) of
        #{flags := Flags} -> Flags;
        undefined -> []
    end.

-spec has(atom(), pid()) -> boolean().
has(Flag, Pid) ->
    lists:member(Flag, flags(Pid)).

%% @doc Whether the chain of guardians in the census leads from `Pid' to a root without touching
%% `Without'. `unknown' when the census does not know `Pid' or one on its chain that lives.
-spec rooted(pid(), #{pid() => term()}) -> true | false | unknown.
rooted(Pid, Without) ->
    rooted(Pid, Without, undefined, 1, 1).

%% Guardians can be a ring; `Milestone' is moved on ever farther, and who comes back to it has gone round.
rooted(Pid, _Without, Pid, _Left, _Power) ->
    false;
rooted(Pid, Without, _Milestone, 0, Power) ->
    above(Pid, Without, Pid, 2 * Power, 2 * Power);
rooted(Pid, Without, Milestone, Left, Power) ->
    above(Pid, Without, Milestone, Left, Power).

above(Pid, Without, Milestone, Left, Power) ->
    case {is_map_key(Pid, Without), lineage_nif:record(Pid)} of
        {true, _} ->
            false;
        {false, #{flags := Flags, guardian := Guardian}} ->
            case is_root(Flags) of
                true -> true;
                false when is_pid(Guardian), Guardian =/= Pid -> rooted(Guardian, Without, Milestone, Left - 1, Power);
                false -> false
            end;
        {false, undefined} ->
            case is_process_alive(Pid) of
                true -> unknown;
                false -> false
            end
    end.

is_root(Flags) ->
    lists:any(fun(F) -> lists:member(F, Flags) end, [root, runtime, host]).

%% @doc A path of live links from `Pid' to a root, guardians first: `[Pid, Guardian, ..., Root]'.
%% `Counts' says whose links are too many to be read; those are taken from the other side.
-spec path(pid(), #{pid() => non_neg_integer()}) -> path().
path(Pid, Counts) ->
    case walk([[Pid]], #{}, Counts, ?PATH_MAX, false) of
        {ok, Path} -> {ok, lists:reverse(Path)};
        {none, Seen} -> recognised(Pid, Seen, Counts);
        unresolved -> unresolved
    end.

%% A host that only its stack gives away counts as a root from now on.
recognised(Pid, Seen, Counts) ->
    case lineage_lists:mark(Seen, ?DEADLINE) of
        0 -> none;
        _ -> path(Pid, Counts)
    end.

walk([], Seen, _Counts, _Left, Blind) ->
    case Blind of
        true -> unresolved;
        false -> {none, maps:keys(Seen)}
    end;
walk(_Stack, _Seen, _Counts, 0, _Blind) ->
    unresolved;
walk([[Pid | _] = Path | Stack], Seen, Counts, Left, Blind) ->
    case {is_map_key(Pid, Seen), is_root(flags(Pid))} of
        {true, _} ->
            walk(Stack, Seen, Counts, Left, Blind);
        {false, true} ->
            {ok, Path};
        {false, false} ->
            Seen1 = Seen#{Pid => true},
            case next(Pid, Counts) of
                unresolved ->
                    walk(Stack, Seen1, Counts, Left - 1, true);
                Next ->
                    New = [[N | Path] || N <- Next, not is_map_key(N, Seen1)],
                    walk(New ++ Stack, Seen1, Counts, Left - 1, Blind)
            end
    end.

next(Pid, Counts) ->
    Guardian = guardian(Pid),
    case maps:get(Pid, Counts, 0) > ?LARGE of
        true when is_pid(Guardian) ->
            case linked_from(Guardian, Pid, Counts) of
                true -> [Guardian];
                false -> [];
                unresolved -> unresolved
            end;
        true ->
            [];
        false ->
            case lineage_proc:info(Pid, [links], ?DEADLINE) of
                #{links := Links} -> order(Guardian, bonds(Pid, Links));
                dead -> [];
                unresolved -> unresolved
            end
    end.

linked_from(Guardian, Pid, Counts) ->
    case maps:get(Guardian, Counts, 0) > ?LARGE of
        true ->
            is_process_alive(Guardian);
        false ->
            case lineage_proc:info(Guardian, [links], ?DEADLINE) of
                #{links := Links} -> lists:member(Pid, Links);
                dead -> false;
                unresolved -> unresolved
            end
    end.

%% The guardian first, then those that the census holds for rooted, then the rest.
order(Guardian, Bonds) ->
    {First, Others} = lists:partition(fun(B) -> B =:= Guardian end, Bonds),
    {Rooted, Rest} = lists:partition(fun(B) -> rooted(B, #{}) =:= true end, Others),
    First ++ Rooted ++ Rest.

guardian(Pid) ->
    case lineage_nif:record(Pid) of
        #{guardian := Guardian} -> Guardian;
        undefined -> undefined
    end.

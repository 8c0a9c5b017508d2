%% @doc The forest of the live processes as data: applications, hosts and runtime on top, what hangs
%% below them by their guardians, and the orphans apart.
%%
%% Wide families collapse: of more than `width' children alike, that many are shown and the rest is
%% one node with a count. Only the nodes shown are asked for their names.
-module(lineage_tree).

-export([tree/0, tree/1]).

-export_type([tree/0, tree_node/0, options/0]).

%% width: children alike shown one by one (5). depth: levels (12). max: nodes in all (2,000). root: an
%% application, a pid, a registered name or a string like "0.123.0": only what hangs below it.
-type options() :: #{width => pos_integer(), depth => pos_integer(), max => pos_integer(),
                     root => pid() | atom() | string() | binary()}.
%% One process, or `more': so many alike. children counts all, also those that are not shown.
-type tree_node() :: #{pid := pid(), name := atom(), label := atom() | binary(), initial_call := mfa() | undefined,
                       class := atom(), app => atom(), kind => lineage_report:kind(), children := non_neg_integer(),
                       below := [tree_node()]}
                   | #{more := pos_integer(), initial_call := mfa() | undefined}.
%% unresolved: neither joined to a root nor confirmed as orphans. truncated: there was more than `max'.
-type tree() :: #{live := non_neg_integer(), apps := [tree_node()], hosts := [tree_node()], runtime := [tree_node()],
                  orphans := [tree_node()], unresolved := [tree_node()], root => tree_node(), truncated := boolean()}.

-define(DEADLINE, 300).       % ms, for each process named
-define(TIME, 60000).         % ms, for all of it
-define(DEFAULTS, #{width => 5, depth => 12, max => 2000}).

-record(forest, {records :: #{pid() => tuple()}, below :: #{pid() => [pid()]}, orphans :: #{pid() => map()},
                 options :: map()}).

%% @doc The whole forest.
-spec tree() -> tree().
tree() ->
    tree(#{}).

%% @doc The same with options, or only what hangs below one application or process.
-spec tree(options() | pid() | atom() | string() | binary()) -> tree() | {error, {atom(), binary()}}.
tree(Options) when is_map(Options) ->
    lineage_report:attached([Options], fun() ->
                                               ok = validate(maps:to_list(Options), Options),
                                               case root(Options) of
                                                   {error, Cause} -> lineage_error:tagged(Cause);
                                                   {ok, Root} -> grow(Root, maps:merge(?DEFAULTS, Options))
                                               end
                                       end);
tree(Root) ->
    tree(#{root => Root}).

root(#{root := Root}) ->
    Masters = [Pid || {Pid, App} <- maps:to_list(lineage_describe:apps()), App =:= Root],
    case Masters of
        [Pid] -> {ok, Pid};
        [] -> lineage_why:resolve(Root)
    end;
root(_) ->
    {ok, undefined}.

%% In a process of its own: what a large node needs for it is given back at once.
grow(Root, Options) ->
    Orphans = lineage_report:orphans(#{}),
    case lineage_proc:call(fun() -> build(Root, Options, Orphans) end, ?TIME) of
        {ok, Tree} -> Tree;
        {error, Reason} -> error(Reason);
        unresolved -> lineage_error:tagged({unresolved, tree})
    end.

build(Root, Options, OrphanRows) ->
    Rows = [Row || {_, _, _, _, _, Flags, _} = Row <- lineage_nif:records(), not lists:member(own, Flags)],
    Records = maps:from_list([{element(1, Row), Row} || Row <- Rows]),
    Orphans = maps:from_list([{Pid, Row} || #{pid := Pid} = Row <- OrphanRows]),
    Apps = lineage_describe:apps(),
    {Below, Tops} = lists:foldl(fun(Row, Acc) -> place(Row, above(Row, Orphans, Apps), Records, Acc) end,
                                {#{}, []}, Rows),
    Forest = #forest{records = Records, below = Below, orphans = Orphans, options = Options},
    {Sections, Left} = sections(Root, tops(Root, Tops, Forest, Apps), Forest),
    name(Sections, Apps, Orphans, #{live => length(Rows), truncated => Left =< 0}).

place({Pid, _, _, _, _, _, _} = Row, Above, Records, {Below, Tops}) ->
    case is_pid(Above) andalso Above =/= Pid andalso is_map_key(Above, Records) of
        true -> {maps:update_with(Above, fun(L) -> [Pid | L] end, [Pid], Below), Tops};
        false -> {Below, [Row | Tops]}
    end.

%% Applications and the runtime's own stand on top, whoever they are linked to. An orphan hangs below
%% an orphan only, and anybody else below the guardian.
above({Pid, _, Parent, Guardian, _, Flags, _}, Orphans, Apps) ->
    case {is_map_key(Pid, Apps) orelse lists:member(runtime, Flags), Orphans} of
        {true, _} -> undefined;
        {false, #{Pid := #{direct := true}}} -> undefined;
        {false, #{Pid := #{root := Top}}} -> orphan_above(Guardian, Parent, Top, Orphans, Pid);
        {false, _} -> Guardian
    end.

%% Two orphans may each be the other's guardian: only an older one stands above.
orphan_above(Guardian, Parent, Top, Orphans, Pid) ->
    Older = fun(P) -> is_pid(P) andalso is_map_key(P, Orphans) andalso older(map_get(P, Orphans), map_get(Pid, Orphans)) end,
    case {Older(Guardian), Older(Parent)} of
        {true, _} -> Guardian;
        {false, true} -> Parent;
        {false, false} -> Top
    end.

older(#{generation := A, pid := P}, #{generation := B, pid := Q}) ->
    {A, P} < {B, Q}.

tops(undefined, Tops, #forest{orphans = Orphans}, Apps) ->
    {Adrift, Free} = lists:partition(fun({Pid, _, _, _, _, _, _}) -> is_map_key(Pid, Orphans) end, Tops),
    Of = fun(Class, Rows) -> [Pid || {Pid, _, _, _, _, Flags, _} <- Rows, class(Flags) =:= Class] end,
    Others = [Pid || {Pid, _, _, _, _, Flags, _} <- Free, not lists:member(class(Flags), [root, runtime, host])],
    Masters = [Pid || {Pid, _, _, _, _, _, _} <- Free, is_map_key(Pid, Apps)],
    [{apps, Masters ++ (Of(root, Free) -- Masters)}, {hosts, Of(host, Free)}, {runtime, Of(runtime, Free)},
     {orphans, [Pid || {Pid, _, _, _, _, _, _} <- Adrift]}, {unresolved, Others -- Masters}];
tops(Root, _Tops, _Forest, _Apps) ->
    [{root, [Root]}].

sections(Root, Tops, #forest{options = #{max := Max}} = Forest) ->
    lists:mapfoldl(fun({Section, Pids}, Left) ->
                           {Nodes, Left1} = nodes(Pids, Forest, 1, Left, #{}, Root =:= undefined andalso tops),
                           {{Section, Nodes}, Left1}
                   end, Max, Tops).

%% Skeletons: {Pid, Children, Below} or {more, Count, InitialCall}. `Seen' ends a loop of guardians.
nodes(Pids, Forest, Depth, Left, Seen, Kind) ->
    Width = case Kind of
                tops -> 1000;
                _ -> maps:get(width, Forest#forest.options)
            end,
    Groups = group(lists:sort(Pids), Forest),
    lists:foldr(fun({Call, Members}, {Nodes, L}) ->
                        Shown = lists:sublist(Members, min(Width, max(L, 0))),
                        {New, L1} = lists:mapfoldl(fun(Pid, L0) -> node_of(Pid, Forest, Depth, L0 - 1, Seen) end, L, Shown),
                        More = [{more, length(Members) - length(Shown), Call} || length(Members) > length(Shown)],
                        {New ++ More ++ Nodes, L1}
                end, {[], Left}, Groups).

node_of(Pid, #forest{options = #{depth := Max}} = Forest, Depth, Left, Seen) ->
    Children = [C || C <- children(Pid, Forest), not is_map_key(C, Seen)],
    {Shown, Left1} = case Depth < Max of
                         true -> nodes(Children, Forest, Depth + 1, Left, Seen#{Pid => true}, family);
                         false -> {[], Left}
                     end,
    {{Pid, length(Children), Shown}, Left1}.

%% The second master of an application is left out: what it holds hangs below the first.
children(Pid, #forest{below = Below, records = Records}) ->
    lists:append([case map_get(Child, Records) of
                      {_, _, _, _, {application_master, start_it, 4}, _, _} -> maps:get(Child, Below, []);
                      _ -> [Child]
                  end || Child <- maps:get(Pid, Below, [])]).

%% Alike: the same initial call. In the order of the first of each kind.
group(Pids, #forest{records = Records}) ->
    Call = fun(Pid) -> case Records of #{Pid := Row} -> element(5, Row); _ -> undefined end end,
    {Order, Groups} = lists:foldl(
                        fun(Pid, {Order, Groups}) ->
                                Key = Call(Pid),
                                case Groups of
                                    #{Key := Members} -> {Order, Groups#{Key := [Pid | Members]}};
                                    _ -> {[Key | Order], Groups#{Key => [Pid]}}
                                end
                        end, {[], #{}}, Pids),
    [{Key, lists:reverse(map_get(Key, Groups))} || Key <- lists:reverse(Order)].

%% Asks the nodes shown for their names, once.
name(Sections, Apps, Orphans, Tree) ->
    Pids = lists:append([pids(Nodes) || {_, Nodes} <- Sections]),
    Infos = maps:from_list(lineage_proc:info_many(lists:usort(Pids), lineage_describe:items(), ?DEADLINE)),
    Named = maps:from_list([{Section, [named(N, Infos, Apps, Orphans) || N <- Nodes]} || {Section, Nodes} <- Sections]),
    Empty = #{apps => [], hosts => [], runtime => [], orphans => [], unresolved => []},
    case Named of
        #{root := [Root]} -> maps:merge(Tree, Empty#{root => Root});
        _ -> maps:merge(Tree, maps:merge(Empty, Named))
    end.

pids(Nodes) ->
    lists:append([[Pid | pids(Below)] || {Pid, _, Below} <- Nodes, is_pid(Pid)]).

named({more, Count, Call}, _Infos, _Apps, _Orphans) ->
    #{more => Count, initial_call => Call};
named({Pid, Children, Below}, Infos, Apps, Orphans) ->
    Info = case map_get(Pid, Infos) of
               #{} = Found -> Found;
               _ -> #{}
           end,
    {Call, Flags} = case lineage_nif:record(Pid) of
                        #{initial_call := C, flags := F} -> {C, F};
                        undefined -> {undefined, []}
                    end,
    Node = #{pid => Pid, name => lineage_describe:name(Info), label => lineage_describe:label(Info),
             initial_call => lineage_describe:initial_call(Call, Info), class => class(Flags), children => Children,
             below => [named(N, Infos, Apps, Orphans) || N <- Below]},
    Node1 = case Apps of #{Pid := App} -> Node#{app => App}; _ -> Node end,
    case Orphans of #{Pid := #{kind := Kind}} -> Node1#{kind => Kind}; _ -> Node1 end.

class(Flags) ->
    case [C || C <- [root, runtime, host, supervisor, service], lists:member(C, Flags)] of
        [Class | _] -> Class;
        [] -> worker
    end.

validate([], _All) ->
    ok;
validate([{root, _} | Rest], All) ->
    validate(Rest, All);
validate([{Key, Value} | Rest], All) when Key =:= width; Key =:= depth; Key =:= max ->
    case is_integer(Value) andalso Value > 0 of
        true -> validate(Rest, All);
        false -> lineage_error:raise({bad_argument, ["tree's option ", atom_to_list(Key)], Value, "a number, 1 or more"}, [All])
    end;
validate([{Key, _} | _], All) ->
    lineage_error:raise({bad_argument, "tree", Key, "the options root, width, depth and max"}, [All]).

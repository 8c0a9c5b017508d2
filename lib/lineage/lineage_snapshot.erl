%% @doc Snapshots of the census as files, and what is new since one.
%%
%% == The file ==
%% JSON in UTF-8, readable by its owner only (mode 0600). One object:
%% <dl>
%% <dt>`format', `version'</dt><dd>`"lineage-snapshot"' and 1. A reader refuses other versions.</dd>
%% <dt>`node', `otp', `taken_ms', `attached_ms'</dt><dd>The node's name, its release, and system times in ms:
%%   of the snapshot and of attach, which also tells one session from another.</dd>
%% <dt>`summary'</dt><dd>The numbers of `lineage:summary/0', by their names.</dd>
%% <dt>`populations'</dt><dd>An array of `{"initial_call", "live"}', largest first: how many processes with
%%   this initial call are alive.</dd>
%% <dt>`supervisors'</dt><dd>An array of `{"pid", "generation", "name", "initial_call", "children"}', largest
%%   first, at most 1,000: how many processes have it as guardian (65,535: that many or more).</dd>
%% <dt>`orphans'</dt><dd>An array of `{"pid", "generation", "kind", "initial_call", "name", "label", "app",
%%   "age_ms", "parent", "direct", "root", "monitored", "site"}', at most 10,000.</dd>
%% <dt>`sites'</dt><dd>An array of `{"kind", "text", "births", "live", "orphans", "unheard"}', as `lineage:sites/0' ranks
%%   them; with `file' and `line', `candidate' (`{"file", "line"}') and `call' (`["module", "function", arity]') where
%%   these are known. An orphan's `site' is the same without the numbers.</dd>
%% </dl>
%% Pids are strings such as `"<0.123.0>"', initial calls `"module:function/1"', what is not known is `null'.
-module(lineage_snapshot).

-export([save/1, diff/1, sites/0]).

-export_type([diff/0]).

%% counters: what each number of the summary was and is. Below, everything that needs the earlier state of single
%% processes is there only when the earlier one was a snapshot. grown: initial calls and supervisors
%% whose live population grew, by how much, the fastest first.
-type diff() :: #{elapsed_ms := non_neg_integer() | undefined, same_session := boolean(),
                  counters := [{atom(), integer(), integer()}],
                  new_orphans => [lineage_report:orphan()], gone_orphans => non_neg_integer(),
                  grown => [{initial_call | supervisor, binary(), non_neg_integer(), non_neg_integer()}]}.

-define(SUPERVISORS, 1000).
-define(COUNTERS, [live, births, deaths, orphans, orphans_checked, silent_failures, unheard_unknown, lost,
                   blind_ms, supervisors, bytes]).

%% @doc Writes a snapshot to a file, in one piece: a file that is there already is replaced or kept whole.
-spec save(file:name_all()) -> ok | {error, {atom(), binary()}}.
save(Path) ->
    lineage_report:attached([Path], fun() -> save_to(Path) end).

save_to(Path) ->
    case is_path(Path) of
        true ->
            {Snapshot, _Orphans} = take(),
            case write(Path, lineage_json:encode(Snapshot)) of
                ok -> ok;
                {error, Reason} -> lineage_error:tagged({file, Path, Reason})
            end;
        false ->
            lineage_error:raise({bad_argument, "save", Path, "the name of a file"}, [Path])
    end.

is_path(Path) ->
    try filename:flatten(Path) of
        [] -> false;
        <<>> -> false;
        _ -> true
    catch
        error:_ -> false
    end.

%% Nobody else may read it at any moment, so the mode is set while it is empty.
write(Path, Data) ->
    Temporary = [filename:flatten(Path), ".", integer_to_list(erlang:unique_integer([positive])), ".tmp"],
    Name = unicode:characters_to_binary(Temporary),
    Result = maybe_all([fun() -> file:write_file(Name, <<>>, [exclusive]) end,
                        fun() -> file:change_mode(Name, 8#600) end,
                        fun() -> file:write_file(Name, Data) end,
                        fun() -> file:rename(Name, Path) end]),
    Result =:= ok orelse file:delete(Name),
    Result.

maybe_all([]) ->
    ok;
maybe_all([Step | Rest]) ->
    case Step() of
        ok -> maybe_all(Rest);
        Error -> Error
    end.

take() ->
    Orphans = lineage_report:orphans(#{}),
    Summary = lineage:summary(),
    {Populations, Supervisors} = populations(),
    {#{<<"format">> => <<"lineage-snapshot">>, <<"version">> => 1,
       <<"node">> => atom_to_binary(node()), <<"otp">> => list_to_binary(erlang:system_info(otp_release)),
       <<"taken_ms">> => erlang:system_time(millisecond), <<"attached_ms">> => maps:get(since, Summary),
       <<"summary">> => maps:from_list([{atom_to_binary(K), V} || {K, V} <- maps:to_list(Summary), is_integer(V)]),
       <<"populations">> => [#{<<"initial_call">> => Call, <<"live">> => Live} || {Call, Live} <- Populations],
       <<"supervisors">> => Supervisors, <<"sites">> => sites(), <<"orphans">> => [orphan(O) || O <- Orphans]},
     Orphans}.

orphan(#{pid := Pid, root := Root, parent := Parent} = O) ->
    #{<<"pid">> => lineage_describe:pid(Pid), <<"generation">> => maps:get(generation, O),
      <<"kind">> => atom_to_binary(maps:get(kind, O)), <<"initial_call">> => call(maps:get(initial_call, O)),
      <<"name">> => text(maps:get(name, O)), <<"label">> => text(maps:get(label, O)),
      <<"app">> => text(maps:get(app, O)), <<"age_ms">> => maps:get(age_ms, O),
      <<"parent">> => case Parent of undefined -> null; _ -> lineage_describe:pid(Parent) end,
      <<"direct">> => maps:get(direct, O), <<"root">> => lineage_describe:pid(Root),
      <<"monitored">> => atom_to_binary(maps:get(monitored, O)),
      <<"site">> => case maps:get(site, O) of undefined -> null; Site -> site(Site) end}.

%% What reports show of it, and the place itself where there is one.
site(Site) ->
    Parts = [#{<<"kind">> => atom_to_binary(maps:get(kind, Site)), <<"text">> => lineage_site:text(Site)}]
        ++ [#{<<"file">> => File, <<"line">> => Line} || #{file := File, line := Line} <- [Site]]
        ++ [#{<<"candidate">> => #{<<"file">> => File, <<"line">> => Line}} || #{candidate := {File, Line}} <- [Site]]
        ++ [#{<<"call">> => [atom_to_binary(M), atom_to_binary(F), A]} || #{call := {M, F, A}} <- [Site]],
    lists:foldl(fun maps:merge/2, #{}, Parts).

%% @private The sites of this session as a snapshot has them.
-spec sites() -> [#{binary() => term()}].
sites() ->
    [(site(Site))#{<<"births">> => Births, <<"live">> => Live, <<"orphans">> => Orphans, <<"unheard">> => Unheard}
     || #{site := Site, births := Births, live := Live, orphans := Orphans, unheard := Unheard} <- lineage_site:sites()].

call(undefined) -> null;
call({M, F, A}) -> iolist_to_binary([atom_to_binary(M), $:, atom_to_binary(F), $/, integer_to_list(A)]).

text(undefined) -> null;
text(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
text(Binary) -> Binary.

%% In a process of its own: the list of all records is given back at once.
populations() ->
    Count = fun() ->
                Rows = lineage_nif:records(),
                {Calls, Children} = lists:foldl(fun count/2, {#{}, #{}}, Rows),
                Sups = [{N, Pid} || {Pid, N} <- maps:to_list(Children), lineage_links:has(supervisor, Pid)],
                Top = lists:sublist(lists:reverse(lists:sort(Sups)), ?SUPERVISORS),
                {lists:reverse(lists:keysort(2, [{call(C), N} || {C, N} <- maps:to_list(Calls), C =/= undefined])), Top}
            end,
    case lineage_proc:call(Count, 60000) of
        {ok, {Populations, Top}} -> {Populations, supervisors(Top)};
        _ -> {[], []}
    end.

count({_Pid, _, _, Guardian, Call, _, _}, {Calls, Children}) ->
    {add(Call, Calls), add(Guardian, Children)}.

add(undefined, Map) -> Map;
add(Key, Map) -> maps:update_with(Key, fun(N) -> N + 1 end, 1, Map).

supervisors(Top) ->
    Infos = lineage_proc:info_many([Pid || {_, Pid} <- Top], [registered_name, otp], 300),
    [supervisor(Pid, Children, Info) || {{Children, Pid}, {Pid, Info}} <- lists:zip(Top, Infos), is_map(Info)].

supervisor(Pid, Children, Info) ->
    {Call, Generation} = case lineage_nif:record(Pid) of
                             #{initial_call := C, generation := G} -> {lineage_describe:initial_call(C, Info), G};
                             undefined -> {undefined, 0}
                         end,
    #{<<"pid">> => lineage_describe:pid(Pid), <<"generation">> => Generation, <<"initial_call">> => call(Call),
      <<"name">> => text(lineage_describe:name(Info)), <<"children">> => Children}.

%% @doc What is new since an earlier `lineage:summary/0', or a snapshot: the name of its file, or the map that
%% its JSON decodes to. `{error, {bad_snapshot | file, Sentence}}' when it cannot be read.
-spec diff(map() | file:name_all()) -> diff() | {error, {atom(), binary()}}.
diff(Earlier) ->
    lineage_report:attached([Earlier], fun() -> diff_from(Earlier) end).

diff_from(Earlier) ->
    case Earlier of
        #{births := _, live := _} ->
            since_summary(Earlier);
        #{<<"format">> := <<"lineage-snapshot">>} ->
            since(Earlier, Earlier);
        #{} ->
            lineage_error:tagged({bad_snapshot, Earlier});
        _ ->
            since_file(Earlier)
    end.

%% A summary names no process, but says when it was taken: what was born later is new.
since_summary(Earlier) ->
    Taken = maps:get(taken_ms, Earlier, undefined),
    Orphans = lineage_report:orphans(#{}),
    Diff = between(maps:get(since, Earlier, undefined), Taken, Earlier, lineage:summary()),
    case Diff of
        #{elapsed_ms := Elapsed, same_session := true} when is_integer(Elapsed) ->
            Diff#{new_orphans => [O || #{age_ms := Age, generation := G} = O <- Orphans, G > 0, Age =< Elapsed]};
        #{} ->
            Diff
    end.

since_file(Path) ->
    case is_path(Path) andalso file:read_file(Path) of
        {ok, Text} ->
            case lineage_json:decode(Text) of
                {ok, Snapshot} -> since(Snapshot, Path);
                error -> lineage_error:tagged({bad_snapshot, Path})
            end;
        {error, Reason} ->
            lineage_error:tagged({file, Path, Reason});
        false ->
            lineage_error:raise({bad_argument, "diff", Path, "a summary, or the name of a snapshot's file"}, [Path])
    end.

since(#{<<"format">> := <<"lineage-snapshot">>, <<"version">> := 1, <<"summary">> := Numbers, <<"taken_ms">> := Taken,
        <<"attached_ms">> := Attached, <<"orphans">> := Orphans, <<"populations">> := Populations,
        <<"supervisors">> := Supervisors}, _From)
  when is_map(Numbers), is_list(Orphans), is_list(Populations), is_list(Supervisors) ->
    {Now, Rows} = take(),
    Earlier = maps:from_list([{K, maps:get(atom_to_binary(K), Numbers)}
                              || K <- ?COUNTERS, is_map_key(atom_to_binary(K), Numbers)]),
    Diff = between(Attached, Taken, Earlier, lineage:summary()),
    Known = maps:from_list([{key(O), true} || O <- Orphans]),
    Living = maps:from_list([{{lineage_describe:pid(Pid), G}, true} || #{pid := Pid, generation := G} <- Rows]),
    %% Pids and generations of another session say nothing about this one's.
    Single = case Diff of
                 #{same_session := true} ->
                     #{new_orphans => [R || #{pid := Pid, generation := G} = R <- Rows,
                                            not is_map_key({lineage_describe:pid(Pid), G}, Known)],
                       gone_orphans => length([K || K <- maps:keys(Known), not is_map_key(K, Living)])};
                 #{} ->
                     #{}
             end,
    Grown = grown(initial_call, <<"live">>, Populations, maps:get(<<"populations">>, Now))
        ++ grown(supervisor, <<"children">>, Supervisors, maps:get(<<"supervisors">>, Now)),
    maps:merge(Diff#{grown => lists:sort(fun({_, _, A, B}, {_, _, C, D}) -> B - A >= D - C end, Grown)}, Single);
since(_Other, From) ->
    lineage_error:tagged({bad_snapshot, From}).

key(#{<<"pid">> := Pid, <<"generation">> := Generation}) -> {Pid, Generation};
key(Other) -> Other.

between(Attached, Taken, Earlier, Summary) ->
    Counters = [{K, map_get(K, Earlier), map_get(K, Summary)}
                || K <- ?COUNTERS, is_map_key(K, Earlier), is_map_key(K, Summary),
                   is_integer(map_get(K, Earlier)), is_integer(map_get(K, Summary))],
    Elapsed = case Taken of
                  undefined -> undefined;
                  _ -> max(0, erlang:system_time(millisecond) - Taken)
              end,
    #{elapsed_ms => Elapsed, same_session => Attached =:= maps:get(since, Summary), counters => Counters}.

grown(What, Number, Before, Now) ->
    Earlier = maps:from_list([{title(B), N} || #{Number := N} = B <- Before, is_integer(N)]),
    [{What, title(B), maps:get(title(B), Earlier, 0), N}
     || #{Number := N} = B <- Now, N > maps:get(title(B), Earlier, 0)].

%% A supervisor that was restarted is the same one to people, when it has a name.
title(#{<<"name">> := Name}) when is_binary(Name) -> Name;
title(#{<<"pid">> := Pid, <<"initial_call">> := Call}) when is_binary(Call) -> <<Call/binary, " ", Pid/binary>>;
title(#{<<"pid">> := Pid}) -> Pid;
title(#{<<"initial_call">> := Call}) -> Call.

%% @private What the static audit finds, against where processes were really spawned.
%%
%% A live site is matched with a finding by file and line: by the site itself where it is sure, else by the only
%% call that it can have been. Paths are compared from their ends, for a compiler names a file as it was called.
-module(lineage_reconcile).

-export([live/1, saved/2]).

-export_type([report/0]).

-type counts() :: #{births := non_neg_integer(), live := non_neg_integer(), orphans := non_neg_integer(),
                    unheard := non_neg_integer()}.
-type report() :: #{seen := [#{finding := lineage_audit:finding(), sure := boolean(), counts := counts()}],
                    never := [lineage_audit:finding()],
                    unfound := [#{file := binary(), line := pos_integer(), text := binary(), counts := counts()}],
                    %% Births at sites without a place, or in files that were not read.
                    elsewhere := non_neg_integer(),
                    unreadable := [{binary(), binary()}]}.
%% What is needed of a site, of a snapshot's form.
-type entry() :: #{place := {binary(), pos_integer()} | undefined, sure := boolean(), call := mfa() | undefined,
                   text := binary(), counts := counts()}.

%% @doc The sites of the session, against sources and beams below these paths.
-spec live([file:filename()]) -> report().
live(Paths) ->
    reconciled(lineage_snapshot:sites(), Paths).

%% @doc The same with the sites that `lineage:save/1' wrote.
-spec saved(file:filename(), [file:filename()]) -> report() | {error, {atom(), binary()}}.
saved(File, Paths) ->
    case file:read_file(File) of
        {ok, Text} ->
            case lineage_json:decode(Text) of
                {ok, #{<<"format">> := <<"lineage-snapshot">>, <<"sites">> := Sites}} when is_list(Sites) ->
                    case lists:all(fun is_site/1, Sites) of
                        true -> reconciled(Sites, Paths);
                        false -> lineage_error:tagged({bad_snapshot, File})
                    end;
                _ ->
                    lineage_error:tagged({bad_snapshot, File})
            end;
        {error, Reason} ->
            lineage_error:tagged({file, File, Reason})
    end.

is_site(#{<<"text">> := Text, <<"births">> := B, <<"live">> := L, <<"orphans">> := O, <<"unheard">> := U} = Site)
  when is_binary(Text), is_integer(B), is_integer(L), is_integer(O), is_integer(U) ->
    lists:all(fun is_place/1, [Site | [C || #{<<"candidate">> := C} <- [Site]]]);
is_site(_) ->
    false.

is_place(#{<<"file">> := File, <<"line">> := Line}) -> is_binary(File) andalso is_integer(Line);
is_place(Other) -> is_map(Other) andalso not is_map_key(<<"file">>, Other).

-spec entry(#{binary() => term()}) -> entry().
entry(Site) ->
    {Place, Sure} = case Site of
                        #{<<"kind">> := <<"call">>, <<"file">> := File, <<"line">> := Line} -> {{File, Line}, true};
                        #{<<"candidate">> := #{<<"file">> := File, <<"line">> := Line}} -> {{File, Line}, false};
                        _ -> {undefined, false}
                    end,
    #{place => Place, sure => Sure, call => call(maps:get(<<"call">>, Site, null)),
      text => maps:get(<<"text">>, Site),
      counts => maps:from_list([{Key, maps:get(atom_to_binary(Key), Site)} || Key <- [births, live, orphans, unheard]])}.

%% A call that the table knows has atoms that exist.
call([M, F, A]) ->
    try {binary_to_existing_atom(M), binary_to_existing_atom(F), A} catch error:badarg -> undefined end;
call(_) ->
    undefined.

-spec reconciled([#{binary() => term()}], [file:filename()]) -> report().
reconciled(Sites, Paths) ->
    Entries = [entry(Site) || Site <- Sites],
    #{findings := Findings, read := Read, unreadable := Unreadable} = lineage_audit:audit(Paths),
    ByLine = maps:groups_from_list(fun(#{file := File, line := Line}) -> key(File, Line) end, Findings),
    Files = maps:groups_from_list(fun filename:basename/1, Read),
    {Matched, Left} = lists:foldl(fun(Entry, Acc) -> match(Entry, ByLine, Acc) end, {#{}, []}, Entries),
    {Gaps, Elsewhere} = lists:partition(fun(Entry) -> is_gap(Entry, Files) end, Left),
    #{seen => [#{finding => F, sure => Sure, counts => Counts}
               || F <- Findings, #{F := {Sure, Counts}} <- [Matched]],
      never => [F || F <- Findings, not is_map_key(F, Matched)],
      unfound => [#{file => File, line => Line, text => Text, counts => Counts}
                  || #{place := {File, Line}, text := Text, counts := Counts} <- Gaps],
      elsewhere => lists:sum([Births || #{counts := #{births := Births}} <- Elsewhere]),
      unreadable => Unreadable}.

key(File, Line) -> {filename:basename(File), Line}.

match(#{place := undefined} = Entry, _ByLine, {Matched, Left}) ->
    {Matched, [Entry | Left]};
match(#{place := {File, Line}, sure := Sure, counts := Counts} = Entry, ByLine, {Matched, Left}) ->
    case [F || #{file := Of} = F <- maps:get(key(File, Line), ByLine, []), same_file(File, Of)] of
        [] -> {Matched, [Entry | Left]};
        Found -> {lists:foldl(fun(F, Acc) -> add(F, Sure, Counts, Acc) end, Matched, Found), Left}
    end.

add(Finding, Sure, Counts, Matched) ->
    maps:update_with(Finding, fun({Before, Sum}) -> {Before orelse Sure, maps:map(fun(K, N) -> N + map_get(K, Sum) end, Counts)} end,
                     {Sure, Counts}, Matched).

%% One path is the end of the other.
same_file(A, B) ->
    [Short, Long] = lists:sort(fun(X, Y) -> length(X) =< length(Y) end, [lists:reverse(parts(P)) || P <- [A, B]]),
    lists:prefix(Short, Long).

parts(Path) -> [P || P <- filename:split(unicode:characters_to_binary(Path)), P =/= <<"/">>, P =/= <<".">>].

%% A sure site, in a file that was read, of a call that the audit should have named.
is_gap(#{place := {File, _}, sure := true, call := Call}, Files) ->
    lists:any(fun(Read) -> same_file(File, Read) end, maps:get(filename:basename(File), Files, [])) andalso named(Call);
is_gap(_Entry, _Files) ->
    false.

named(undefined) ->
    true;
named({M, F, A}) ->
    case lineage_calls:find(M, F, A, unknown) of
        {start_link, _} -> false;          % in a function that starts for a supervisor
        {_, _} -> true;
        none -> false
    end.

%% @private What the code of a loaded module says about calls and closures, read from its beam file.
%%
%% Two questions: which calls stand on a line, and is a closure made for one call alone? The bytecode
%% answers both, without debug information: it is what runs. A file that is not the version that is
%% loaded answers nothing; nor does one that was written since attach, for two versions that differ in
%% nothing but their lines cannot be told apart; nor a module of which two versions were loaded.
%%
%% A stack trace, too, gives a frame the last `line' instruction before its return address.
-module(lineage_code).

-export([new_cache/0, clear_cache/0, keep/2, calls/2, closure/3, starts/2, outer/1]).

-export_type([place/0, callee/0, call/0, closure/0]).

-type place() :: {File :: binary(), Line :: pos_integer()} | undefined.
-type callee() :: mfa() | dynamic.        % dynamic: a fun, or apply with variables
%% Behind: the place of the code right behind the call, where it begins with another line: the return address
%% belongs to it.
-type call() :: {callee(), place(), tail | frame, Behind :: place()}.
-type closure() :: #{function := {atom(), arity()},      % that it is written in
                     place := place(),                    % of its first line
                     call := {callee(), place()} | undefined}.  % the one call that it is an argument of
-type row() :: {{calls, {atom(), arity()}}, [call()]}
             | {{start, {module(), atom()}}, [{callee(), place()}]}    % calls with a module and a function
             | {{closure, {Index :: non_neg_integer(), Uniq :: non_neg_integer()}}, closure() | unknown}.

-include_lib("kernel/include/file.hrl").

-define(CACHE, lineage_code).
-define(CALLS, [call, call_only, call_last, call_ext, call_ext_only, call_ext_last, call_fun, call_fun2, apply, apply_last]).

%% @doc Makes the table in which the answers are kept; its owner is the caller.
-spec new_cache() -> ok.
new_cache() ->
    ?CACHE = ets:new(?CACHE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @doc Forgets all, at the beginning of a session, and notes which code is loaded.
-spec clear_cache() -> true.
clear_cache() ->
    ets:match_delete(?CACHE, {{'_', '_'}, '_'}),
    ets:insert(?CACHE, [{{version, M}, version(M)} || {M, _File} <- code:all_loaded()] ++ just_written()).

%% @doc Keeps the code of a module that has no beam file, for this and later sessions.
-spec keep(module(), binary()) -> ok.
keep(Module, Beam) ->
    try ets:insert(?CACHE, {{code, Module, memory}, Beam}) of
        true -> ok
    catch
        error:badarg -> ok                       % the application is not started
    end.

%% A frame does not say which version of its module it is in, so there must have been one only.
version(Module) ->
    try {erlang:check_old_code(Module), Module:module_info(md5)} of
        {false, Md5} -> Md5;
        {true, _} -> several
    catch
        error:_ -> several
    end.

%% The only version since attach, as far as one can see.
only_version(Module) ->
    case {version(Module), cached({version, Module})} of
        {several, _} -> several;
        {Md5, {ok, Md5}} -> Md5;
        {Md5, none} -> keep_rows(version, [{Module, Md5}]), Md5;
        {_, {ok, _Other}} -> several
    end.

%% @doc The calls in a function of a loaded module, or `unknown'.
-spec calls(module(), {atom(), arity()}) -> [call()] | unknown.
calls(Module, Function) ->
    look_up(Module, {calls, Function}).

%% @doc What is known of the closure that the VM prints as `#Fun<Module.Index.Uniq>'.
-spec closure(module(), non_neg_integer(), non_neg_integer()) -> closure() | unknown.
closure(Module, Index, Uniq) ->
    look_up(Module, {closure, {Index, Uniq}}).

%% @doc The calls in a loaded module that hand on one of its own functions by name, as `spawn(?MODULE, f, [])' does.
-spec starts(module(), atom()) -> [{callee(), place()}].
starts(Module, Function) ->
    case look_up(Module, {start, {Module, Function}}) of
        unknown -> [];
        Starts -> Starts
    end.

%% A row for each answer: a look-up copies no whole module.
look_up(Module, Key) ->
    case only_version(Module) of
        several ->
            unknown;
        Md5 ->
            cached({Module, read}) =:= none andalso keep_rows(Module, [{read, Md5} | read(Module, Md5)]),
            case cached({Module, Key}) of
                {ok, Answer} -> Answer;
                none -> unknown
            end
    end.

keep_rows(Module, Rows) ->
    try ets:insert(?CACHE, [{{Module, Key}, Answer} || {Key, Answer} <- Rows])
    catch error:badarg -> false                  % the session has just ended
    end.

cached(Key) ->
    try {ok, ets:lookup_element(?CACHE, Key, 2)} catch error:badarg -> none end.

-spec read(module(), binary()) -> [row()].
read(Module, Md5) ->
    case code:get_object_code(Module) of
        {Module, Beam, File} ->
            case changed(File, Beam) of
                true -> [];
                false -> read(Module, Md5, Beam)
            end;
        error ->
            case ets:lookup(?CACHE, {code, Module, memory}) of
                [{_, Beam}] -> read(Module, Md5, Beam);
                [] -> []
            end
    end.

%% Whether the file was written since attach, and so may have other lines than the code that was loaded.
changed(File, Beam) ->
    written(File) >= lineage_session:lookup(since) div 1000
        andalso ets:lookup(?CACHE, {file, File}) =/= [{{file, File}, erlang:md5(Beam)}].

%% A copy may keep the time of its original, but not that of its own change. Both are whole seconds.
written(File) ->
    case file:read_file_info(File, [raw, {time, posix}]) of
        {ok, #file_info{mtime = Written, ctime = Changed}} -> max(Written, Changed);
        {error, _} -> 0                          % in an archive, or embedded
    end.

%% What was written in the very second of attach, as by the build before a test run, was there before it.
just_written() ->
    Now = erlang:system_time(second),
    [{{file, File}, erlang:md5(Beam)} || {_, File} <- code:all_loaded(), is_list(File), not lists:prefix(code:lib_dir(), File),
                                         written(File) >= Now - 1, {ok, Beam} <- [file:read_file(File)]].

read(Module, Md5, Beam) ->
    case beam_lib:md5(Beam) of
        {ok, {Module, Md5}} ->
            try disassembled(Beam, lines(Beam)) catch _:_ -> [] end;
        _ ->
            []
    end.

disassembled(Beam, Lines) ->
    %% A module that is there in releases with the compiler only.
    {beam_file, _Module, _Exports, _Attributes, _Info, Functions} = beam_disasm:file(Beam),
    Read = [{{Name, Arity}, function(Instructions, Lines)}
            || {function, Name, Arity, _Label, Instructions} <- Functions],
    Firsts = maps:from_list([{Name, First} || {Name, #{first := First}} <- Read]),
    Made = [{Key, made(outer(Name), Fun, Firsts)} || {Name, #{funs := Funs}} <- Read, {Key, Fun} <- maps:to_list(Funs)],
    Starts = maps:groups_from_list(fun({Start, _, _}) -> Start end, fun({_, Callee, Place}) -> {Callee, Place} end,
                                   lists:append([S || {_, #{starts := S}} <- Read])),
    [{{calls, Name}, lists:reverse(settled(Calls))} || {Name, #{calls := Calls}} <- Read]
        ++ [{{closure, Key}, Closure} || {Key, Closure} <- maps:to_list(lists:foldl(fun once/2, #{}, Made))]
        ++ [{{start, Start}, Calls} || {Start, Calls} <- maps:to_list(Starts)].

%% `fun f/1' is one fun, wherever it is written: made twice, it stands nowhere.
once({Key, _}, Closures) when is_map_key(Key, Closures) ->
    Closures#{Key := unknown};
once({Key, Closure}, Closures) ->
    Closures#{Key => Closure}.

function(Instructions, Lines) ->
    lists:foldl(fun(Instruction, St) -> behind(Instruction, instruction(Instruction, Lines, St)) end,
                #{first => undefined, line => undefined, calls => [], starts => [], atoms => #{}, regs => #{}, funs => #{}},
                Instructions).

%% A closure stands where its own code begins; `fun f/1' where it is made.
made(Function, #{name := {Name, _} = Fun, passes := Passes, other := Other, line := Line}, Firsts) ->
    Place = case atom_to_binary(Name) of
                <<"-", _/binary>> -> maps:get(Fun, Firsts, Line);
                _ -> Line
            end,
    Call = case Passes of
               [Pass] when not Other -> Pass;
               _ -> undefined
           end,
    #{function => Function, place => Place, call => Call}.

%% @doc The function that a closure, or a comprehension, is written in: `-f/1-fun-0-' is in f/1.
-spec outer({atom(), arity()}) -> {atom(), arity()}.
outer({Name, Arity}) ->
    case re:run(atom_to_binary(Name), <<"^-(.+?)/([0-9]+)-(fun|lc|lbc|bc|blc|mc|anonymous|inlined)">>,
                [{capture, [1, 2], binary}]) of
        {match, [Outer, OuterArity]} -> {binary_to_atom(Outer), binary_to_integer(OuterArity)};
        nomatch -> {Name, Arity}
    end.

%% A line that begins right behind a call.
behind({line, _}, #{calls := [{Callee, Place, Tail, none} | Calls], line := Line} = St) ->
    St#{calls := [{Callee, Place, Tail, Line} | Calls]};
%% No code: a line behind it still begins at the return address.
behind({label, _}, St) -> St;
behind(Instruction, St) when is_tuple(Instruction), element(1, Instruction) =:= line -> St;
behind(Instruction, #{calls := Calls} = St) ->
    case is_tuple(Instruction) andalso lists:member(element(1, Instruction), ?CALLS) of
        true -> St;
        false -> St#{calls := settled(Calls)}
    end.

%% One instruction: where the line changes, calls, and where closures go.

instruction({line, Location}, Lines, #{first := First} = St) ->
    Place = location(Location, Lines),
    St#{line := Place, first := case First of undefined -> Place; _ -> First end};
instruction({make_fun3, {_M, Name, Arity}, Index, Uniq, Dst, {list, Env}}, _Lines, St) ->
    #{regs := Regs, funs := Funs, line := Line} = St1 = used(Env, St),
    Fun = #{name => {Name, Arity}, passes => [], other => maps:is_key({Index, Uniq}, Funs), line => Line},
    St1#{regs := Regs#{Dst => {Index, Uniq}}, funs := Funs#{{Index, Uniq} => Fun}};
instruction({label, _}, _Lines, #{regs := Regs} = St) ->
    %% What comes from elsewhere may have other funs in these registers.
    lists:foldl(fun other/2, St#{regs := #{}}, maps:values(Regs));
instruction({move, Src, Dst}, _Lines, #{regs := Regs, atoms := Atoms} = St) ->
    Known = case Src of
                {atom, Atom} -> Atoms#{Dst => Atom};
                _ -> maps:remove(Dst, Atoms)
            end,
    case Regs of
        #{Src := Fun} -> St#{atoms := Known, regs := Regs#{Dst => Fun}};
        _ -> St#{atoms := Known, regs := maps:remove(Dst, Regs)}
    end;
instruction({swap, A, B}, _Lines, #{regs := Regs} = St) ->
    Moved = [{To, maps:get(From, Regs)} || {From, To} <- [{A, B}, {B, A}], maps:is_key(From, Regs)],
    St#{regs := maps:merge(maps:without([A, B], Regs), maps:from_list(Moved))};
instruction({trim, N, _Remaining}, _Lines, #{regs := Regs} = St) ->
    St#{regs := maps:from_list([{trimmed(Reg, N), Fun} || {Reg, Fun} <- maps:to_list(Regs), kept(Reg, N)])};
instruction({call, N, {M, F, A}}, _Lines, St) -> call({M, F, A}, N, frame, St);
instruction({call_only, N, {M, F, A}}, _Lines, St) -> call({M, F, A}, N, tail, St);
instruction({call_last, N, {M, F, A}, _}, _Lines, St) -> call({M, F, A}, N, tail, St);
instruction({call_ext, N, {extfunc, M, F, A}}, _Lines, St) -> call({M, F, A}, N, frame, St);
instruction({call_ext_only, N, {extfunc, M, F, A}}, _Lines, St) -> call({M, F, A}, N, tail, St);
instruction({call_ext_last, N, {extfunc, M, F, A}, _}, _Lines, St) -> call({M, F, A}, N, tail, St);
instruction({call_fun, N}, _Lines, St) -> call(dynamic, N + 1, frame, St);
instruction({call_fun2, _Tag, N, Fun}, _Lines, St) -> call(dynamic, N, frame, used([Fun], St));
instruction({apply, N}, _Lines, St) -> call(dynamic, N + 2, frame, St);
instruction({apply_last, N, _}, _Lines, St) -> call(dynamic, N + 2, tail, St);
%% These take what they need from fixed registers.
instruction(return, _Lines, St) -> forget(used([{x, 0}], St));
instruction(Implicit, _Lines, St) when is_atom(Implicit) -> forget(used([{x, N} || N <- [0, 1, 2]], St));
instruction(Instruction, _Lines, #{atoms := Atoms} = St) ->
    used([Instruction], St#{atoms := maps:filter(fun(Reg, _) -> not occurs(Reg, Instruction) end, Atoms)}).

%% A call takes the funs in its arguments, and forgets what is in x registers.
call(Callee, Arity, Tail, #{calls := Calls, starts := Starts, atoms := Atoms, regs := Regs, funs := Funs, line := Line} = St) ->
    Named = [{{Module, Function}, Callee, Line}
             || {{x, N}, Module} <- maps:to_list(Atoms), N + 1 < Arity, #{{x, N + 1} := Function} <- [Atoms]],
    Passed = lists:usort([Fun || {{x, N}, Fun} <- maps:to_list(Regs), N < Arity]),
    Pass = {Callee, Line},
    Funs1 = lists:foldl(
              fun(Fun, Map) ->
                      maps:update_with(Fun, fun(#{passes := Passes} = F) -> F#{passes := [Pass | Passes]} end, Map)
              end,
              Funs, Passed),
    St#{calls := [{Callee, Line, Tail, none} | settled(Calls)], starts := Named ++ Starts, atoms := #{}, funs := Funs1,
        regs := maps:filter(fun({x, _}, _) -> false; (_, _) -> true end, Regs)}.

forget(#{regs := Regs} = St) ->
    St#{atoms := #{}, regs := maps:filter(fun({x, _}, _) -> false; (_, _) -> true end, Regs)}.

settled([{Callee, Place, Tail, none} | Calls]) -> [{Callee, Place, Tail, Place} | Calls];
settled(Calls) -> Calls.

%% Any other use of a fun: it may come to be spawned anywhere.
used(Terms, #{regs := Regs} = St) when map_size(Regs) > 0 ->
    lists:foldl(fun other/2, St, [Fun || {Reg, Fun} <- maps:to_list(Regs), occurs(Reg, Terms)]);
used(_Terms, St) ->
    St.

other(Fun, #{funs := Funs} = St) ->
    St#{funs := maps:update_with(Fun, fun(F) -> F#{other := true} end, Funs)}.

occurs(Reg, Reg) -> true;
occurs(Reg, [Head | Tail]) -> occurs(Reg, Head) orelse occurs(Reg, Tail);
occurs(Reg, Tuple) when is_tuple(Tuple) -> occurs(Reg, tuple_to_list(Tuple));
occurs(_Reg, _) -> false.

trimmed({y, Y}, N) -> {y, Y - N};
trimmed(Reg, _N) -> Reg.

kept({y, Y}, N) -> Y >= N;
kept(_Reg, _N) -> true.

%% Lines: newer disassemblers give the location itself, older ones its number in the chunk `Line'.

location([{location, File, Line} | _], _Lines) -> {unicode:characters_to_binary(File), Line};
location(N, Lines) when is_integer(N) -> maps:get(N, Lines, undefined);
location(_None, _Lines) -> undefined.

%% The chunk: version, flags, instructions, lines and files (32 bits each), the lines, the files' names. A
%% line is a tagged number; a number with the tag of an atom says in which file the lines after it are.
lines(Beam) ->
    {ok, {Module, [{"Line", Chunk}]}} = beam_lib:chunks(Beam, ["Line"]),
    <<0:32, _Flags:32, _Instructions:32, Count:32, Files:32, Rest/binary>> = Chunk,
    {Items, Names} = items(Rest, Count, 0, []),
    Files1 = maps:from_list(lists:enumerate([Name || <<Len:16, Name:Len/binary>> <= Names])),
    Files = map_size(Files1),
    %% File number 0 is the module's own name, as the VM shows it in a stack trace.
    Source = <<(atom_to_binary(Module))/binary, ".erl">>,
    maps:from_list([{N, {maps:get(File, Files1, Source), Line}} || {N, {File, Line}} <- lists:enumerate(Items)]).

items(Rest, 0, _File, Items) -> {lists:reverse(Items), Rest};
items(Bin, Count, File, Items) ->
    case tagged(Bin) of
        {1, Line, Rest} -> items(Rest, Count - 1, File, [{File, Line} | Items]);
        {2, NewFile, Rest} -> items(Rest, Count, NewFile, Items)
    end.

tagged(<<N:4, 0:1, Tag:3, Rest/binary>>) -> {Tag, N, Rest};
tagged(<<High:3, 0:1, 1:1, Tag:3, Low, Rest/binary>>) -> {Tag, High bsl 8 bor Low, Rest};
tagged(<<Len:3, 1:1, 1:1, Tag:3, Rest/binary>>) when Len < 7 ->
    Bytes = Len + 2,
    <<N:Bytes/unit:8, Rest1/binary>> = Rest,
    {Tag, N, Rest1}.

%% @doc Findings of the static audit in Erlang's abstract forms: of a source, or of a beam's debug info (Elixir's too).
-module(lineage_audit_erl).

-export([read/1]).

%% `start_link': the finding falls away where a child spec names the function that it stands in.
%% `damaged': a sentence on what could not be read; the rest was. `source': of a beam, the file it was made of.
-type read() :: #{findings := [map()], specs := [spec()], lines := non_neg_integer(), damaged => [binary()],
                  source => file:filename()}.
-type spec() :: {module(), atom(), arity() | '_'}.

%% What is known where an expression stands.
-record(at, {file :: binary(),
             module :: module() | undefined,
             function :: {atom(), arity()} | undefined,
             local = #{} :: #{{atom(), arity()} | all => module() | local},
             application = false :: boolean(),
             bound = #{} :: #{atom() => tuple()}}).

%% @doc Reads one `.erl' or `.beam'.
-spec read(file:filename()) -> {ok, read()} | {error, Reason :: binary()}.
read(Path) ->
    case filename:extension(Path) of
        ".beam" -> beam(Path);
        _ -> source(Path)
    end.

source(Path) ->
    case file:read_file(Path) of
        {ok, Text} ->
            {Forms, Damage} = lineage_audit_scan:forms(Text),
            Read = forms(Forms, unicode:characters_to_binary(Path)),
            Lines = length(binary:matches(Text, <<"\n">>)),
            {ok, Read#{lines => Lines, damaged => damaged(Damage)}};
        {error, Reason} ->
            {error, text("It cannot be read (~ts).", [file:format_error(Reason)])}
    end.

damaged([]) -> [];
damaged([{Line, Message}]) -> [text("Line ~b is no Erlang (~ts).", [Line, Message])];
damaged([{Line, Message} | More]) ->
    [text("Line ~b is no Erlang (~ts), nor are ~b functions after it.", [Line, Message, length(More)])].

%% Beams

beam(Path) ->
    case beam_lib:chunks(Path, [debug_info, compile_info], [allow_missing_chunks]) of
        {ok, {Module, [{debug_info, {debug_info_v1, Backend, Data}}, {compile_info, Info}]}} ->
            debug_info(Path, Module, Backend, Data, Info);
        {ok, _} -> {error, no_debug_info()};
        {error, beam_lib, {file_error, _, Reason}} ->
            {error, text("It cannot be read (~ts).", [file:format_error(Reason)])};
        {error, beam_lib, {key_missing_or_invalid, _, _}} ->
            {error, <<"Its debug info is encrypted: give the source instead.">>};
        {error, beam_lib, _} -> {error, <<"It is no beam file.">>}
    end.

%% A backend is a module of the language; without it there is no reading its data.
debug_info(Path, Module, Backend, Data, Info) ->
    Ready = Backend =/= elixir_erl orelse lineage_audit:elixir(),
    try Ready =:= true andalso Backend:debug_info(erlang_v1, Module, Data, []) of
        false -> {error, <<"It was made by Elixir, and Elixir is not installed: put elixir on the PATH.">>};
        {ok, Forms} ->
            Source = case Info of
                         [_ | _] -> proplists:get_value(source, Info, Path);
                         _ -> Path
                     end,
            {ok, (forms(Forms, unicode:characters_to_binary(Source)))#{lines => 0, source => Source}};
        {error, _} -> {error, no_debug_info()}
    catch
        error:_ -> {error, text("Its debug info cannot be read with the ~ts that is installed.", [Backend])}
    end.

no_debug_info() -> <<"It has no debug info: compile it with +debug_info, or give the source.">>.

%% Forms

forms(Forms, File) ->
    At = #at{file = File, module = module(Forms), local = locals(Forms), application = application(Forms)},
    {Found, _} = lists:foldl(fun form/2, {[], At}, Forms),
    #{findings => lists:usort([F || {finding, F} <- Found]), specs => specs([S || {spec, S} <- Found], Forms)}.

%% A spec may leave its module to a variable: in a helper that writes specs, or over a list. It stands for each
%% module that the file names. And where simple_one_for_one is spoken of, start_child adds arguments.
specs([], _Forms) -> [];
specs(Specs, Forms) ->
    Atoms = atoms(Forms, #{}),
    Any = is_map_key(simple_one_for_one, Atoms),
    lists:usort([{Module, F, if Any -> '_'; true -> A end}
                 || {M, F, A} <- Specs, Module <- case M of
                                                      {var, _} -> maps:keys(Atoms);
                                                      _ -> [M]
                                                  end]).

atoms({atom, _, Atom}, Atoms) -> Atoms#{Atom => true};
atoms(Node, Atoms) when is_tuple(Node) -> inside(Node, fun atoms/2, Atoms);
atoms(Nodes, Atoms) when is_list(Nodes) -> each(Nodes, fun atoms/2, Atoms);
atoms(_, Atoms) -> Atoms.

module(Forms) ->
    case [M || {attribute, _, module, M} <- Forms] of
        [{Module, _} | _] -> Module;
        [Module | _] when is_atom(Module) -> Module;
        _ -> undefined
    end.

%% Some application modules do not say that they are one: they export both of its callbacks.
application(Forms) ->
    Exported = lists:append([E || {attribute, _, export, E} <- Forms]),
    [{start, 2}, {stop, 1}] -- Exported =:= []
        orelse lists:any(fun({attribute, _, Name, B}) when Name =:= behaviour; Name =:= behavior ->
                                 B =:= application orelse B =:= 'Elixir.Application';
                            (_) -> false
                         end, Forms).

%% Whose a call without a module is, where it is not the VM's own.
locals(Forms) ->
    Imported = [{{F, A}, M} || {attribute, _, import, {M, Functions}} <- Forms, {F, A} <- Functions],
    Options = lists:flatten([O || {attribute, _, compile, O} <- Forms]),
    Barred = [{FA, local} || {no_auto_import, FAs} <- Options, FA <- FAs],
    AllBarred = [{all, local} || no_auto_import <- Options],
    Defined = [{{F, A}, local} || {function, _, F, A, _} <- Forms],
    maps:from_list(Barred ++ AllBarred ++ Imported ++ Defined).

%% The file attribute stands in beams only.
form({attribute, _, file, {File, _}}, {Found, At}) ->
    {Found, At#at{file = unicode:characters_to_binary(File)}};
form({function, _, Name, Arity, Clauses}, {Found, At}) ->
    Inside = At#at{function = {Name, Arity}},
    {lists:foldl(fun(C, Acc) -> walk(C, Inside#at{bound = bound(C)}, Acc) end, Found, Clauses), At};
form(_Other, Acc) ->
    Acc.

%% Variables of a clause that are matched with a tuple or a list written there, and with nothing else.
bound(Clause) ->
    maps:filter(fun(_, Value) -> Value =/= several end, bound(Clause, #{})).

bound({match, _, {var, _, Name}, Value}, Bound) when element(1, Value) =:= tuple; element(1, Value) =:= cons ->
    bound(Value, case Bound of
                     #{Name := Other} when Other =/= Value -> Bound#{Name := several};
                     _ -> Bound#{Name => Value}
                 end);
bound({match, _, {var, _, Name}, Value}, Bound) ->
    bound(Value, Bound#{Name => several});
bound(Node, Bound) when is_tuple(Node) -> inside(Node, fun bound/2, Bound);
bound(Nodes, Bound) when is_list(Nodes) -> each(Nodes, fun bound/2, Bound);
bound(_, Bound) -> Bound.

%% Folds over what stands inside of a node, not over its line.
inside({string, _, _}, _Fun, Acc) -> Acc;
inside({clauses, Clauses}, Fun, Acc) -> each(Clauses, Fun, Acc);
inside(Node, Fun, Acc) when tuple_size(Node) > 2 -> each(tl(tl(tuple_to_list(Node))), Fun, Acc);
inside(_Node, _Fun, Acc) -> Acc.

each([Node | Rest], Fun, Acc) -> each(Rest, Fun, Fun(Node, Acc));
each(_, _Fun, Acc) -> Acc.

walk({call, _, Callee, Arguments} = Call, At, Acc) ->
    Found = call(Callee, Arguments, At, Acc),
    inside(Call, fun(N, A) -> walk(N, At, A) end, Found);
walk({'fun', L, {function, F, A}}, At, Acc) when is_atom(F) ->
    local(L, F, A, unknown, At, Acc);
walk({'fun', _, {function, {atom, _, M}, {atom, L, F}, {integer, _, A}}}, At, Acc) ->
    found(L, M, F, A, unknown, At, Acc);
walk({'fun', L, {function, M, F, A}}, At, Acc) when is_atom(M), is_atom(F), is_integer(A) ->
    found(L, M, F, A, unknown, At, Acc);
walk({tuple, _, [_Id, Start, _Restart, _Shutdown, _Type, _Modules]} = Node, At, Acc) ->
    inside(Node, fun(N, A) -> walk(N, At, A) end, spec(Start, At, Acc));
walk({tuple, _, [{atom, _, start}, Start]} = Node, At, Acc) ->
    inside(Node, fun(N, A) -> walk(N, At, A) end, spec(Start, At, Acc));
walk({Field, _, {atom, _, start}, Start} = Node, At, Acc) when Field =:= map_field_assoc; Field =:= map_field_exact ->
    inside(Node, fun(N, A) -> walk(N, At, A) end, spec(Start, At, Acc));
walk(Node, At, Acc) when is_tuple(Node) -> inside(Node, fun(N, A) -> walk(N, At, A) end, Acc);
walk(Nodes, At, Acc) when is_list(Nodes) -> each(Nodes, fun(N, A) -> walk(N, At, A) end, Acc);
walk(_, _At, Acc) -> Acc.

%% The function that a child spec names as its start.
spec({var, _, Name}, #at{bound = Bound} = At, Acc) when is_map_key(Name, Bound) ->
    spec(map_get(Name, Bound), At#at{bound = #{}}, Acc);
spec({tuple, _, [{Kind, _, M}, {atom, _, F}, Arguments]}, _At, Acc) when Kind =:= atom; Kind =:= var ->
    Module = if Kind =:= atom -> M; true -> {var, M} end,
    [{spec, {Module, F, case elements(Arguments, #{}) of
                            {Elements, proper} -> length(Elements);
                            _ -> '_'
                        end}} | Acc];
spec(_Start, _At, Acc) ->
    Acc.

%% Calls

call({remote, _, {atom, _, erlang}, {atom, L, apply}}, Arguments, At, Acc) -> apply(L, Arguments, At, Acc);
call({remote, _, {atom, _, erlang}, {atom, L, make_fun}}, [{atom, _, M}, {atom, _, F}, {integer, _, A}], At, Acc) ->
    found(L, M, F, A, unknown, At, Acc);
call({remote, _, {atom, _, 'Elixir.Supervisor.Spec'}, _}, [{atom, _, M}, Arguments, Options], At, Acc) ->
    {Elements, _} = elements(Options, At#at.bound),
    lists:foldl(fun({tuple, L, [{atom, _, function}, F]}, A) -> spec({tuple, L, [{atom, L, M}, F, Arguments]}, At, A);
                   (_, A) -> A
                end, Acc, Elements);
call({remote, _, {atom, _, M}, {atom, L, F}}, Arguments, At, Acc) ->
    found(L, M, F, length(Arguments), options(M, F, Arguments, At), At, Acc);
call({atom, L, apply}, [_, _, _] = Arguments, #at{local = Local} = At, Acc) when not is_map_key({apply, 3}, Local) ->
    apply(L, Arguments, At, Acc);
call({atom, L, F}, Arguments, At, Acc) ->
    Arity = length(Arguments),
    case owner(F, Arity, At) of
        none -> Acc;
        M -> found(L, M, F, Arity, options(M, F, Arguments, At), At, Acc)
    end;
call(_Callee, _Arguments, _At, Acc) ->
    Acc.

local(L, F, Arity, Options, At, Acc) ->
    case owner(F, Arity, At) of
        none -> Acc;
        M -> found(L, M, F, Arity, Options, At, Acc)
    end.

owner(F, Arity, #at{local = Local}) ->
    case Local of
        #{{F, Arity} := local} -> none;
        #{{F, Arity} := Module} -> Module;
        #{all := local} -> none;
        _ ->
            case erl_internal:bif(F, Arity) of
                true -> erlang;
                false -> none
            end
    end.

%% apply/3 of a function that is written out; where its arguments are not, any arity will do.
apply(L, [{atom, _, erlang}, {atom, _, apply}, List], At, Acc) ->
    apply(L, element(1, elements(List, At#at.bound)), At, Acc);
apply(L, [{atom, _, M}, {atom, _, F}, List], At, Acc) ->
    case elements(List, At#at.bound) of
        {Arguments, proper} -> found(L, M, F, length(Arguments), options(M, F, Arguments, At), At, Acc);
        _ ->
            case lineage_calls:arities(M, F) of
                [Arity | _] -> found(L, M, F, Arity, unknown, At, Acc);
                [] -> Acc
            end
    end;
apply(_L, _Arguments, _At, Acc) ->
    Acc.

%% spawn_request/3 takes options only after a fun.
options(erlang, spawn_request, [_, {atom, _, _}, _], _At) -> [];
options(M, F, Arguments, #at{bound = Bound}) ->
    case lineage_calls:options(M, F, length(Arguments)) of
        none -> [];
        Position ->
            case elements(lists:nth(Position, Arguments), Bound) of
                {Elements, proper} -> atoms(Elements);
                {Elements, _} ->
                    case lists:member(link, atoms(Elements)) of
                        true -> atoms(Elements);
                        false -> unknown
                    end
            end
    end.

atoms(Elements) -> [A || {atom, _, A} <- Elements].

%% The elements of a list as far as it is written out. An atom is a list of one: the way of gen:start/5.
elements({var, _, Name}, Bound) when is_map_key(Name, Bound) -> elements(map_get(Name, Bound), #{});
elements({cons, _, Head, Tail}, Bound) ->
    {Elements, End} = elements(Tail, Bound),
    {[Head | Elements], End};
elements({nil, _}, _Bound) -> {[], proper};
elements({atom, _, _} = Atom, _Bound) -> {[Atom], improper};
elements({string, _, Chars}, _Bound) -> {Chars, proper};
elements({op, _, '++', Left, Right}, Bound) ->
    {First, End} = elements(Left, Bound),
    {Second, Rest} = elements(Right, Bound),
    {First ++ Second, case End of
                          proper -> Rest;
                          _ -> End
                      end};
elements(_Other, _Bound) -> {[], open}.

found(Line, M, F, A, Options, At, Acc) ->
    case lineage_calls:find(M, F, A, Options) of
        none -> Acc;
        {start_link, Hint} ->
            case place(M, F, A, At) of
                true -> Acc;
                false -> [{finding, (finding(Line, M, F, A, tethered, Hint, At))#{start_link => true}} | Acc]
            end;
        {Severity, Hint} -> [{finding, finding(Line, M, F, A, Severity, Hint, At)} | Acc]
    end.

place(_M, _F, _A, #at{function = {start_link, _}}) -> true;
place(M, F, A, #at{function = {start, 2}, application = true}) -> lineage_calls:supervisor(M, F, A);
place(_M, _F, _A, _At) -> false.

finding(Line, M, F, A, Severity, Hint, #at{file = File, module = Module, function = Function}) ->
    #{file => File, line => max(1, erl_anno:line(Line)), call => lineage_calls:name(M, F, A), mfa => {M, F, A},
      severity => Severity, module => Module, function => Function, hint => Hint}.

text(Format, Arguments) -> unicode:characters_to_binary(io_lib:format(Format, Arguments)).

%% @doc What people call a process: its name, label, readable initial call and application.
%%
%% Read from the live process when it is shown, never stored. Labels are atoms or at most 64
%% printable bytes; arguments, messages and state are never shown.
-module(lineage_describe).

%% The VM's default backtrace_depth; where it was raised, deep stacks keep their plain initial call.
-define(DEPTH, 8).

-export([items/0, apps/0, app/3, name/1, label/1, initial_call/2, mfa/1, atom/1, pid/1]).

%% @doc What to ask of a process with {@link lineage_proc:info_many/3} to describe it.
-spec items() -> [lineage_proc:item()].
items() ->
    [registered_name, group_leader, trap_exit, current_stacktrace, otp].

%% @doc The running applications by their masters' pids.
-spec apps() -> #{pid() => atom()}.
apps() ->
    %% The application controller's own table: asking its process could wait for an application's start.
    try ets:match(ac_tab, {{application_master, '$1'}, '$2'}) of
        Found -> maps:from_list([{Pid, App} || [App, Pid] <- Found])
    catch
        error:badarg -> #{}
    end.

%% @doc The application of a process: its group leader's, else the one its module belongs to.
-spec app(pid() | undefined, mfa() | undefined, #{pid() => atom()}) -> atom().
app(Leader, InitialCall, Apps) ->
    case {Apps, InitialCall} of
        {#{Leader := App}, _} -> App;
        {_, {_, _, _}} -> of_module(own_module(InitialCall));
        _ -> undefined
    end.

%% The module that a process runs says more than the behaviour that runs it.
own_module({Behaviour, Module, 1}) when Behaviour =:= supervisor; Behaviour =:= supervisor_bridge -> Module;
own_module({Module, _, _}) -> Module.

of_module(Module) ->
    case application:get_application(Module) of
        {ok, App} -> App;
        undefined -> undefined
    end.

-spec name(map()) -> atom().
name(#{registered_name := Name}) when is_atom(Name) -> Name;
name(_) -> undefined.

%% @doc A process label (proc_lib, since OTP 27): an atom, at most 64 printable bytes, or undefined.
-spec label(map()) -> atom() | binary().
label(#{otp := #{label := Label}}) -> short(Label);
label(_) -> undefined.

short(Label) when is_atom(Label) ->
    Label;
short(Label) when is_binary(Label) ->
    printable(Label);
short(Label) when is_list(Label) ->
    %% At most 65 elements are looked at.
    try printable(unicode:characters_to_binary(lists:sublist(Label, 65)))
    catch error:_ -> undefined
    end;
short({Tag, Value}) when is_atom(Tag), is_atom(Value) ->
    printable(iolist_to_binary(io_lib:format("~0tp", [{Tag, Value}])));
short({Tag, Value}) when is_atom(Tag), is_integer(Value) ->
    printable(iolist_to_binary(io_lib:format("~0tp", [{Tag, Value}])));
short(_) ->
    undefined.

printable(Bytes) when is_binary(Bytes) ->
    Cut = cut(Bytes, 64),
    case unicode:characters_to_list(Cut) of
        [_ | _] = Text ->
            case io_lib:printable_unicode_list(Text) of
                true -> Cut;
                false -> undefined
            end;
        _ ->
            undefined
    end;
printable(_) ->
    undefined.

%% Not through the middle of a character.
cut(Bytes, Max) when byte_size(Bytes) =< Max -> Bytes;
cut(Bytes, Max) ->
    case binary:at(Bytes, Max) band 16#C0 of
        16#80 -> cut(Bytes, Max - 1);
        _ -> binary:part(Bytes, 0, Max)
    end.

%% @doc The call that says most: the census's, proc_lib's own, or for a spawned fun the bottom of its
%% stack, which names the function that it was written in.
-spec initial_call(mfa() | undefined, map() | atom()) -> mfa() | undefined.
initial_call({erlang, apply, 2} = Call, Info) ->
    bottom(Call, Info);
initial_call(Call, #{initial_call := {erlang, apply, 2}} = Info) when Call =:= undefined ->
    bottom({erlang, apply, 2}, Info);
initial_call({proc_lib, init_p, _} = Call, Info) ->
    from_otp(Call, Info);
initial_call({supervisor, init, 1} = Call, Info) ->
    from_otp(Call, Info);
initial_call({'Elixir.DynamicSupervisor', init, 1} = Call, Info) ->
    from_otp(Call, Info);
%% Tasks and agents say which function of their user's they run.
initial_call({'Elixir.Task.Supervised', _, _} = Call, Info) ->
    from_otp(Call, Info);
initial_call({'Elixir.Agent.Server', init, 1} = Call, Info) ->
    from_otp(Call, Info);
initial_call(undefined, Info) ->
    from_otp(undefined, Info);
initial_call(Call, _Info) ->
    Call.

from_otp(_Call, #{otp := #{initial_call := Call}}) -> Call;
from_otp(undefined, #{initial_call := {proc_lib, init_p, _} = Call} = Info) -> bottom(Call, Info);
from_otp(undefined, #{initial_call := Call}) -> Call;
from_otp({proc_lib, init_p, _} = Call, Info) -> bottom(Call, Info);
from_otp(Call, _Info) -> Call.

bottom(Call, #{current_stacktrace := [_ | _] = Stack}) ->
    Frames = [{M, F, A} || {M, F, A, _} <- Stack, not plumbing(M, F)],
    %% A stack as long as the VM gives is cut off, and its last frame is not the bottom.
    case {length(Stack) < ?DEPTH, Frames} of
        {true, [_ | _]} -> lists:last(Frames);
        _ -> Call
    end;
bottom(Call, _Info) ->
    Call.

plumbing(proc_lib, _) -> true;
plumbing(erlang, apply) -> true;
plumbing(_, _) -> false.

%% @doc `m:f/a', as people write it in the language it comes from.
-spec mfa(mfa() | undefined | term()) -> binary().
mfa(undefined) ->
    <<"?">>;
mfa({Behaviour, Module, 1}) when Behaviour =:= supervisor, Module =/= init; Behaviour =:= supervisor_bridge, Module =/= init ->
    <<(atom_to_binary(Behaviour))/binary, " ", (atom(Module))/binary>>;
mfa({M, F, A}) when is_atom(M), is_atom(F), is_integer(A) ->
    {Module, Separator} = case atom_to_binary(M) of
                              <<"Elixir.", Name/binary>> -> {Name, $.};
                              Name -> {Name, $:}
                          end,
    %% The compiler's name of a fun says where it was written: `-f/1-fun-0-'.
    case re:run(atom_to_binary(F), "^-(.+/[0-9]+)-(?:fun|anonymous)[-.].*-$", [{capture, all_but_first, binary}]) of
        {match, [Within]} -> <<"fun in ", Module/binary, Separator, Within/binary>>;
        nomatch -> <<Module/binary, Separator, (atom_to_binary(F))/binary, $/, (integer_to_binary(A))/binary>>
    end;
mfa(Other) ->
    unicode:characters_to_binary(io_lib:format("~0tP", [Other, 6])).

%% @doc A name as people write it: Elixir's modules without their prefix.
-spec atom(atom()) -> binary().
atom(Atom) ->
    case atom_to_binary(Atom) of
        <<"Elixir.", Name/binary>> -> Name;
        Name -> Name
    end.

-spec pid(pid() | term()) -> binary().
pid(Pid) when is_pid(Pid) -> list_to_binary(pid_to_list(Pid));
pid({Node, Number}) when is_atom(Node), is_integer(Number) ->
    unicode:characters_to_binary(io_lib:format("process ~b on ~ts", [Number, Node]));
pid(undefined) -> <<"-">>;
pid(Other) -> unicode:characters_to_binary(io_lib:format("~0tP", [Other, 6])).

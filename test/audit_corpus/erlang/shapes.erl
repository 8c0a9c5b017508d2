%% Where a call can stand, and how it can be written.
-module(shapes).
-export([shapes/2, lines/2, captured/1, applied/2, patterns/2, spawned/1]).
-compile({no_auto_import, [spawn_opt/2]}).
-import(proc_lib, [start_link/3, spawn_opt/2]).
-import(gen_server, [start_monitor/3]).

shapes(L, F) ->
    [spawn(fun() -> X end) || X <- L],                  %=> unlinked erlang:spawn/1
    << <<(spawned(spawn_link(F)))/binary>> || _ <- L >>,    %=> tethered erlang:spawn_link/1
    [ok || _ <- [spawn(F)],                             %=> unlinked erlang:spawn/1
           is_pid(spawned(spawn_monitor(F)))],          %=> unlinked erlang:spawn_monitor/1
    lists:foreach(fun(X) ->
                          spawn(fun() ->                %=> unlinked erlang:spawn/1
                                        spawn_link(X)   %=> tethered erlang:spawn_link/1
                                end)
                  end, L),
    case spawn(F) of                                    %=> unlinked erlang:spawn/1
        Pid when is_pid(Pid) -> spawn(F);               %=> unlinked erlang:spawn/1
        _ -> ok
    end,
    try spawn(F)                                        %=> unlinked erlang:spawn/1
    catch
        _:_ -> spawn_monitor(F)                         %=> unlinked erlang:spawn_monitor/1
    after
        spawn_link(F)                                   %=> tethered erlang:spawn_link/1
    end,
    receive
        {go, G} -> spawn(G)                             %=> unlinked erlang:spawn/1
    after 10 ->
        spawn(F)                                        %=> unlinked erlang:spawn/1
    end,
    if
        L =:= [] -> spawn(F);                           %=> unlinked erlang:spawn/1
        true -> begin spawn(F) end                      %=> unlinked erlang:spawn/1
    end,
    Again = fun Loop(0) -> ok;
                Loop(N) -> spawn(F), Loop(N - 1)        %=> unlinked erlang:spawn/1
            end,
    Again(3),
    #{pid => spawn(F)},                                 %=> unlinked erlang:spawn/1
    {spawn(F), [spawn_link(F)]},                        %=> unlinked erlang:spawn/1; tethered erlang:spawn_link/1
    catch spawn(F),                                     %=> unlinked erlang:spawn/1
    {ok, _} = {ok, spawn(F)},                           %=> unlinked erlang:spawn/1
    self() ! spawn(F),                                  %=> unlinked erlang:spawn/1
    L =:= [] andalso spawn(F),                          %=> unlinked erlang:spawn/1
    'spawn'(F), 'erlang':'spawn_link'(F).               %=> unlinked erlang:spawn/1; tethered erlang:spawn_link/1

lines(F, L) ->
    spawn(                                              %=> unlinked erlang:spawn/1
      F),
    erlang:spawn_opt(                                   %=> tethered erlang:spawn_opt/2
      fun() ->
              F(L)
      end,
      [{priority, low},
       link]),
    Pid =
        spawn_link(fun() ->                             %=> tethered erlang:spawn_link/1
                           "a string
                            over lines, with spawn(F) in it"
                   end),
    spawn_link(fun() -> Pid end), spawn(F),             %=> tethered erlang:spawn_link/1; unlinked erlang:spawn/1
    gen_server                                          % the line is that of the function's name
        :start_link(                                    %=> tethered gen_server:start_link/3
           shapes, [], []).

captured(L) ->
    lists:map(fun spawn/1, L),                          %=> unlinked erlang:spawn/1
    lists:map(fun erlang:spawn_link/1, L),              %=> tethered erlang:spawn_link/1
    lists:map(fun proc_lib:spawn/1, L),                 %=> unlinked proc_lib:spawn/1
    F = fun proc_lib:spawn_opt/2,                       %=> unlinked proc_lib:spawn_opt/2
    G = fun gen_server:start_link/3,                    %=> tethered gen_server:start_link/3
    H = fun open_port/2,                                %=> tethered erlang:open_port/2
    {F, G, H, fun spawned/1, fun shapes:spawned/1}.

applied(F, Args) ->
    apply(erlang, spawn, [F]),                          %=> unlinked erlang:spawn/1
    erlang:apply(erlang, spawn_link, [shapes, spawned, [F]]),   %=> tethered erlang:spawn_link/3
    apply(gen_server, start_link, [m, [], []]),         %=> tethered gen_server:start_link/3
    apply(erlang, spawn_opt, [F, [link]]),              %=> tethered erlang:spawn_opt/2
    apply(erlang, spawn, Args),                         %=> unlinked erlang:spawn/1
    apply(fun erlang:spawn/1, [F]),                     %=> unlinked erlang:spawn/1
    apply(fun spawn_link/1, [F]),                       %=> tethered erlang:spawn_link/1
    (fun erlang:spawn/1)(F),                            %=> unlinked erlang:spawn/1
    apply(fun() -> spawn(F) end, []),                   %=> unlinked erlang:spawn/1
    apply(erlang, apply, [erlang, spawn, [F]]),         %=> unlinked erlang:spawn/1
    apply(erlang, apply, Args),
    erlang:make_fun(erlang, spawn, 1),                  %=> unlinked erlang:spawn/1
    erlang:make_fun(F, spawn, 1),
    Given = [F],
    apply(erlang, spawn, Given),                        %=> unlinked erlang:spawn/1
    start_link(shapes, spawned, Args),                  %=> tethered proc_lib:start_link/3
    spawn_opt(F, [link]),                               %=> tethered proc_lib:spawn_opt/2
    start_monitor(shapes, [], []).                      %=> unlinked gen_server:start_monitor/3

patterns({spawn, F}, spawn_link) when F =/= spawn ->
    maybe_spawn(spawn(F));                              %=> unlinked erlang:spawn/1
patterns(_, _) ->
    spawn.

maybe_spawn(Spawn) -> Spawn.

spawned(Pid) -> Pid.

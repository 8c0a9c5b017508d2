%% What the options say of a link.
-module(options).
-export([opt/4, request/4, lib/4, known/2]).
-define(LINKED, [link, {priority, high}]).
-define(LOOSE, [monitor]).

opt(N, F, A, More) ->
    spawn_opt(F, []),                                   %=> unlinked erlang:spawn_opt/2
    spawn_opt(F, [link]),                               %=> tethered erlang:spawn_opt/2
    spawn_opt(F, [monitor, {min_heap_size, 10}]),       %=> unlinked erlang:spawn_opt/2
    spawn_opt(F, [{fullsweep_after, 1}, link]),         %=> tethered erlang:spawn_opt/2
    spawn_opt(F, [link | More]),                        %=> tethered erlang:spawn_opt/2
    spawn_opt(F, [monitor | More]),                     %=> unlinked erlang:spawn_opt/2
    spawn_opt(F, [link] ++ More),                       %=> tethered erlang:spawn_opt/2
    spawn_opt(F, More ++ [link]),                       %=> tethered erlang:spawn_opt/2
    spawn_opt(F, More),                                 %=> unlinked erlang:spawn_opt/2
    spawn_opt(F, ?LINKED),                              %=> tethered erlang:spawn_opt/2
    spawn_opt(F, ?LOOSE),                               %=> unlinked erlang:spawn_opt/2
    spawn_opt(N, F, [link]),                            %=> tethered erlang:spawn_opt/3
    spawn_opt(N, F, [monitor]),                         %=> unlinked erlang:spawn_opt/3
    spawn_opt(options, known, A, [link]),               %=> tethered erlang:spawn_opt/4
    erlang:spawn_opt(options, known, [link], []),       %=> unlinked erlang:spawn_opt/4
    erlang:spawn_opt(N, options, known, A, [link]),     %=> tethered erlang:spawn_opt/5
    erlang:spawn_opt(N, options, known, A, []).         %=> unlinked erlang:spawn_opt/5

request(N, M, F, A) ->
    spawn_request(F, [link]),                           %=> tethered erlang:spawn_request/2
    spawn_request(F, [monitor]),                        %=> unlinked erlang:spawn_request/2
    spawn_request(N, F),                                %=> unlinked erlang:spawn_request/2
    spawn_request(N, fun() -> ok end, [link]),          %=> tethered erlang:spawn_request/3
    spawn_request(M, known, [link]),                    %=> unlinked erlang:spawn_request/3
    spawn_request(M, F, A, [{reply, no}, link]),        %=> tethered erlang:spawn_request/4
    spawn_request(N, M, F, A, [link]),                  %=> tethered erlang:spawn_request/5
    spawn_request(N, M, F, A, []).                      %=> unlinked erlang:spawn_request/5

lib(M, F, A, Options) ->
    proc_lib:spawn_opt(F, [link]),                      %=> tethered proc_lib:spawn_opt/2
    proc_lib:spawn_opt(F, Options),                     %=> unlinked proc_lib:spawn_opt/2
    proc_lib:spawn_opt(M, F, A, [link]),                %=> tethered proc_lib:spawn_opt/4
    proc_lib:start(M, F, A, infinity, [link]),          %=> tethered proc_lib:start/5
    proc_lib:start(M, F, A, infinity, []).              %=> unlinked proc_lib:start/5

known(F, More) ->
    Linked = [link, {priority, low}],
    Loose = [{priority, low}],
    spawn_opt(F, Linked),                               %=> tethered erlang:spawn_opt/2
    spawn_opt(F, Loose),                                %=> unlinked erlang:spawn_opt/2
    spawn_opt(F, [monitor | Linked]),                   %=> tethered erlang:spawn_opt/2
    Some = case More of
               true -> [link];
               false -> []
           end,
    spawn_opt(F, Some).                                 %=> unlinked erlang:spawn_opt/2

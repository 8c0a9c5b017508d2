%% Nothing is imported by itself here: only full names are the VM's.
-module(no_auto_import).
-compile([export_all, no_auto_import]).

run(F) ->
    spawn(F),
    erlang:spawn(F),                                    %=> unlinked erlang:spawn/1
    fun spawn_link/1,
    fun erlang:spawn_link/1.                            %=> tethered erlang:spawn_link/1

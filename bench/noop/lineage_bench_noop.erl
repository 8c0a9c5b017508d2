%% The benchmark's no-op tracers and its clock; see bench_noop.c.
-module(lineage_bench_noop).

-export([load/0, enabled/3, trace/5, thread_cpu_ns/0, process_cpu_ns/0, burn/1]).
-on_load(load/0).

%% The shared object lies beside the beam file, in bench's own build directory.
-spec load() -> ok | {error, {atom(), string()}}.
load() ->
    Beside = filename:dirname(code:which(?MODULE)),
    erlang:load_nif(filename:join(Beside, "bench_noop"), 0).

%% The tracer's callback: `trace | remove | discard'.
-spec enabled(atom(), atom(), pid() | port() | undefined) -> trace | remove.
enabled(_Tag, _State, _Tracee) -> erlang:nif_error(not_loaded).

%% The tracer's callback: throws the event away.
-spec trace(atom(), atom(), pid() | port(), term(), map()) -> ok.
trace(_Tag, _State, _Tracee, _Term, _Opts) -> erlang:nif_error(not_loaded).

%% CPU time used by the calling scheduler's thread, in nanoseconds.
-spec thread_cpu_ns() -> integer().
thread_cpu_ns() -> erlang:nif_error(not_loaded).

%% CPU time used by all threads of the node, in nanoseconds.
-spec process_cpu_ns() -> integer().
process_cpu_ns() -> erlang:nif_error(not_loaded).

%% Keeps a dirty CPU scheduler busy for Ms milliseconds (at most 60,000).
-spec burn(0..60000) -> ok.
burn(_Ms) -> erlang:nif_error(not_loaded).

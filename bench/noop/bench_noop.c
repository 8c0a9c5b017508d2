/*
 * The benchmark's own NIF: a tracer that does nothing, in its two kinds, and the clock that the
 * hold probe needs.
 *
 * It is what Lineage is compared with, so it does the least that a tracer of its kind can do:
 * answer the `enabled` calls, and throw the events away. Built apart from Lineage and never put
 * into priv.
 *
 * TracerState says which kind: `shed` answers `remove` to every trace_status of a process (its
 * cells spawn nothing but linked processes, which is when Lineage sheds as well), `keep` never
 * does. Both answer `trace` for the tracee `undefined`, the VM's question about the new-process
 * tracer itself; `remove` there would end tracing for all.
 */
#include <erl_nif.h>
#include <stdint.h>
#include <time.h>

/* Written once by load, before any callback can run; read by all scheduler threads afterwards. */
static ERL_NIF_TERM am_trace;
static ERL_NIF_TERM am_remove;
static ERL_NIF_TERM am_trace_status;
static ERL_NIF_TERM am_shed;
static ERL_NIF_TERM am_undefined;
static ERL_NIF_TERM am_ok;

static int load(ErlNifEnv *env, void **priv_data, ERL_NIF_TERM info) {
    (void)priv_data;
    (void)info;
    am_trace = enif_make_atom(env, "trace");
    am_remove = enif_make_atom(env, "remove");
    am_trace_status = enif_make_atom(env, "trace_status");
    am_shed = enif_make_atom(env, "shed");
    am_undefined = enif_make_atom(env, "undefined");
    am_ok = enif_make_atom(env, "ok");
    return 0;
}

static ERL_NIF_TERM enabled_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)env;
    (void)argc;
    if (argv[0] == am_trace_status && argv[1] == am_shed && argv[2] != am_undefined) {
        return am_remove;
    }
    return am_trace;
}

static ERL_NIF_TERM trace_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)env;
    (void)argc;
    (void)argv;
    return am_ok;
}

static ERL_NIF_TERM clock_ns(ErlNifEnv *env, clockid_t clock) {
    struct timespec now;

    if (clock_gettime(clock, &now) != 0) {
        return enif_make_badarg(env);
    }
    return enif_make_int64(env, (ErlNifSInt64)now.tv_sec * 1000000000 + now.tv_nsec);
}

/* CPU time that the calling scheduler thread has used, in ns: a gap in it is a hold; time taken by
 * other programs is not. */
static ERL_NIF_TERM thread_cpu_ns_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    (void)argv;
    return clock_ns(env, CLOCK_THREAD_CPUTIME_ID);
}

/* CPU time that all threads of the node have used, in ns. */
static ERL_NIF_TERM process_cpu_ns_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    (void)argv;
    return clock_ns(env, CLOCK_PROCESS_CPUTIME_ID);
}

/* burn(Ms): keeps a dirty CPU scheduler busy for so long; the control run's stand-in for a query of
 * Lineage's. */
static ERL_NIF_TERM burn_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    ErlNifTime until;
    unsigned int ms;

    (void)argc;
    if (!enif_get_uint(env, argv[0], &ms) || ms > 60000) {
        return enif_make_badarg(env);
    }
    until = enif_monotonic_time(ERL_NIF_MSEC) + (ErlNifTime)ms;
    while (enif_monotonic_time(ERL_NIF_MSEC) < until) {
    }
    return am_ok;
}

static ErlNifFunc functions[] = {
    {"enabled", 3, enabled_nif, 0},
    {"trace", 5, trace_nif, 0},
    {"thread_cpu_ns", 0, thread_cpu_ns_nif, 0},
    {"process_cpu_ns", 0, process_cpu_ns_nif, 0},
    {"burn", 1, burn_nif, ERL_NIF_DIRTY_JOB_CPU_BOUND},
};

ERL_NIF_INIT(lineage_bench_noop, functions, load, NULL, NULL, NULL)

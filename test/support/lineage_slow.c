/*
 * lineage_slow.c - a NIF that does not come back for a while, for the tests of the probe.
 */
#include <erl_nif.h>

#include <stdint.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* spin(Ms): computes */
static ERL_NIF_TERM spin_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    unsigned ms;
    volatile double x = 1;
    (void)argc;
    if (!enif_get_uint(env, argv[0], &ms))
        return enif_make_badarg(env);
    for (uint64_t end = now_ms() + ms; now_ms() < end;)
        for (int i = 0; i < 100000; i++)
            x = x * 1.0000001;
    return enif_make_atom(env, "ok");
}

/* nap(Ms): sleeps */
static ERL_NIF_TERM nap_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    unsigned ms;
    (void)argc;
    if (!enif_get_uint(env, argv[0], &ms))
        return enif_make_badarg(env);
    usleep(ms * 1000);
    return enif_make_atom(env, "ok");
}

static ErlNifFunc functions[] = {{"spin", 1, spin_nif, 0}, {"nap", 1, nap_nif, 0}};

ERL_NIF_INIT(lineage_slow, functions, NULL, NULL, NULL, NULL)

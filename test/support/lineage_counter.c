/*
 * lineage_counter.c - counts that outlive a node, for the tests of the flight recorder.
 *
 * Model: a file in /dev/shm, mapped: an array of 64-bit counts, zero at first. Whoever reads the
 * file after kill -9 sees each count that was made before. Threads: any. Ownership: the mapping is
 * the library's, for ever.
 */
#include <erl_nif.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic uint64_t *counts;
static unsigned slots;

/* open(Path, Slots) */
static ERL_NIF_TERM open_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    char path[256];
    unsigned wanted;
    (void)argc;
    if (counts != NULL || enif_get_string(env, argv[0], path, sizeof path, ERL_NIF_LATIN1) <= 0 ||
        !enif_get_uint(env, argv[1], &wanted) || wanted > 65536)
        return enif_make_badarg(env);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return enif_make_badarg(env);
    void *memory = MAP_FAILED;
    if (ftruncate(fd, (off_t)wanted * 8) == 0)
        memory = mmap(NULL, (size_t)wanted * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return enif_make_badarg(env);
    counts = memory;
    slots = wanted;
    return enif_make_atom(env, "ok");
}

/* add(Slot) */
static ERL_NIF_TERM add_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    unsigned slot;
    (void)argc;
    if (!enif_get_uint(env, argv[0], &slot) || slot >= slots)
        return enif_make_badarg(env);
    atomic_fetch_add(&counts[slot], 1);
    return enif_make_atom(env, "ok");
}

static ErlNifFunc functions[] = {{"open", 2, open_nif, 0}, {"add", 1, add_nif, 0}};

ERL_NIF_INIT(lineage_counter, functions, NULL, NULL, NULL, NULL)

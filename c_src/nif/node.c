#include "nif.h"

#include <string.h>

/*
 * A pid of another node is a boxed term and cannot be kept; its node and number can. erl_nif has no
 * function that reads them, the external term format (stable since OTP 23) does:
 * 131, NEW_PID_EXT 88, node atom, id:32, serial:32, creation:32.
 */

#define NODES 256u
#define NEW_PID_EXT 88
#define SMALL_ATOM_UTF8_EXT 119
#define ATOM_UTF8_EXT 118
#define ATOM_EXT 100

/* Filled from the front, never emptied: an index, once given, holds while the library is loaded. */
static _Atomic(ERL_NIF_TERM) nodes[NODES];

static uint32_t be32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Reads the atom at `at`; returns where it ends, or 0. */
static size_t read_atom(ErlNifEnv *env, const ErlNifBinary *bin, size_t at, ERL_NIF_TERM *atom) {
    if (at + 3 > bin->size)
        return 0;
    unsigned char tag = bin->data[at];
    size_t start = tag == SMALL_ATOM_UTF8_EXT ? at + 2 : at + 3;
    size_t len = tag == SMALL_ATOM_UTF8_EXT ? bin->data[at + 1]
                                            : (size_t)bin->data[at + 1] << 8 | bin->data[at + 2];
    if ((tag != SMALL_ATOM_UTF8_EXT && tag != ATOM_UTF8_EXT && tag != ATOM_EXT) ||
        start + len > bin->size)
        return 0;
    /* The node is connected, so its atom exists; no atom is made from outside input. */
    const char *name = (const char *)bin->data + start;
    if (!enif_make_existing_atom_len(env, name, len, atom, ERL_NIF_LATIN1))
        *atom = am_unknown;
    return start + len;
}

bool lin_pid_number(ErlNifEnv *env, ERL_NIF_TERM pid, ERL_NIF_TERM *node, uint64_t *id,
                    uint64_t *serial) {
    ErlNifBinary bin;
    if (!enif_is_pid(env, pid) || !enif_term_to_binary(env, pid, &bin))
        return false;
    bool ok = false;
    if (bin.size < 2 || bin.data[1] != NEW_PID_EXT)
        goto cleanup;
    size_t at = read_atom(env, &bin, 2, node);
    if (at == 0 || at + 8 > bin.size)
        goto cleanup;
    *id = be32(bin.data + at);
    *serial = be32(bin.data + at + 4);
    ok = true;
cleanup:
    enif_release_binary(&bin);
    return ok;
}

static uint32_t node_index(ERL_NIF_TERM node) {
    for (uint32_t i = 0; i < NODES; i++) {
        ERL_NIF_TERM there = 0;
        if (atomic_compare_exchange_strong_explicit(&nodes[i], &there, node, memory_order_relaxed,
                                                    memory_order_relaxed) ||
            there == node)
            return i;
    }
    return NODES; /* told as `unknown` */
}

uint64_t lin_foreign_pack(ErlNifEnv *env, ERL_NIF_TERM pid) {
    ERL_NIF_TERM node;
    uint64_t id, serial;
    if (!lin_pid_number(env, pid, &node, &id, &serial))
        return 0;
    return LIN_FOREIGN_PACK(node_index(node), id | serial << 28);
}

uint64_t lin_node_at(uint32_t index) {
    return index < NODES ? atomic_load_explicit(&nodes[index], memory_order_relaxed) : 0;
}

ERL_NIF_TERM lin_foreign_term(ErlNifEnv *env, uint64_t packed) {
    uint32_t at = LIN_FOREIGN_NODE(packed);
    /* 0: an index that was never given; a batch of events may say anything. */
    ERL_NIF_TERM node = at < NODES ? atomic_load_explicit(&nodes[at], memory_order_relaxed) : 0;
    return enif_make_tuple2(env, node == 0 ? am_unknown : node,
                            enif_make_uint64(env, LIN_FOREIGN_NUMBER(packed)));
}

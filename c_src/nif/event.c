#include "nif.h"

#include <string.h>

/*
 * Batches of events as terms. A batch is a binary that anyone could have made: nothing in it
 * becomes a term unless it is a local pid by its tag, or a number that a table here or the census
 * knows. What belongs to a census that is not open any more is `undefined`.
 */

#define BATCH 4096u /* events in one call: some 350 us at most */
#define NAMES 16384u
#define WINDOW 64u

/* Filled, never emptied: a number, once given, holds while the library is loaded. Relaxed: an atom
 * is an immediate, nothing is published through it. */
static _Atomic uint64_t names[NAMES], names_lost;

uint32_t lin_name_id(uint64_t atom) {
    uint32_t at = (uint32_t)(atom * 0x9e3779b97f4a7c15u >> 40);
    for (uint32_t i = 0; atom != 0 && i < WINDOW; i++) {
        uint32_t n = (at + i) & (NAMES - 1);
        uint64_t there = atomic_load_explicit(&names[n], memory_order_relaxed);
        if (n == 0)
            continue;
        if (there == atom || (there == 0 && (atomic_compare_exchange_strong_explicit(
                                                 &names[n], &there, atom, memory_order_relaxed,
                                                 memory_order_relaxed) ||
                                             there == atom)))
            return n;
    }
    if (atom != 0)
        atomic_fetch_add_explicit(&names_lost, 1, memory_order_relaxed);
    return 0;
}

uint64_t lin_names_lost(void) { return atomic_load_explicit(&names_lost, memory_order_relaxed); }

uint64_t lin_name_at(uint64_t id) {
    return id == 0 || id >= NAMES ? 0 : atomic_load_explicit(&names[id], memory_order_relaxed);
}

bool lin_atom_existing(ErlNifEnv *env, const char *name, size_t len, ERL_NIF_TERM *atom) {
    /* External term format: 131, SMALL_ATOM_UTF8_EXT. erl_nif reads UTF-8 itself from OTP 26 on. */
    unsigned char text[3 + 255] = {131, 119, (unsigned char)len};
    if (len > 255)
        return false;
    memcpy(text + 3, name, len);
    return enif_binary_to_term(env, text, 3 + len, atom, ERL_NIF_BIN2TERM_SAFE) != 0 &&
           enif_is_atom(env, *atom);
}

/* What a batch is read with; `census` NULL: none is open. */
struct reader {
    ErlNifEnv *env;
    const struct lin_census *census;
    struct lin_clock_point now;
};

static bool is_local_pid(ErlNifEnv *env, uint64_t word) {
    return (word & 0xf) == 3 && enif_is_pid(env, word);
}

/* A pid, or `undefined` for 0; false for anything else. */
static bool pid_or_none(ErlNifEnv *env, uint64_t word, ERL_NIF_TERM *term) {
    *term = word == 0 ? am_undefined : word;
    return word == 0 || is_local_pid(env, word);
}

static ERL_NIF_TERM id_term(ErlNifEnv *env, uint32_t id) {
    return id == 0 ? am_undefined : enif_make_uint(env, id);
}

static ERL_NIF_TERM bool_term(uint32_t value) { return value != 0 ? am_true : am_false; }

static ERL_NIF_TERM name_term(uint64_t id) {
    uint64_t atom = lin_name_at(id);
    return atom == 0 ? am_undefined : atom;
}

/* Of an earlier session's events numbers and times would be taken for this one's. */
static bool is_current(const struct reader *reader, uint64_t ticks) {
    return reader->census != NULL && ticks >= reader->census->opened.ticks;
}

static ERL_NIF_TERM ns_term(const struct reader *reader, uint64_t ticks) {
    if (!is_current(reader, ticks))
        return am_undefined;
    return enif_make_uint64(reader->env,
                            lin_clock_since_ns(reader->census->opened, reader->now, ticks));
}

/* What an event says beside its kind, time, pid and number; returns how many terms, -1: not one. */
static int detail(const struct reader *reader, const struct lin_event *event, ERL_NIF_TERM out[]) {
    ErlNifEnv *env = reader->env;
    switch (event->kind) {
    case LIN_EV_BIRTH:
        if ((event->flags & LIN_F_FOREIGN) != 0)
            out[0] = lin_parent_term(env, event->a, event->flags);
        else if (!pid_or_none(env, event->a, &out[0]))
            return -1;
        out[1] = id_term(env, event->b);
        out[2] = lin_flags_term(env, event->flags);
        return 3;
    case LIN_EV_BORN:
        out[0] = enif_make_uint(env, (uint32_t)(event->a >> 32));
        out[1] = enif_make_uint(env, (uint32_t)event->a);
        out[2] = is_current(reader, event->ticks) ? lin_mfa_term(env, reader->census, event->b)
                                                  : am_undefined;
        return 3;
    case LIN_EV_LINK:
    case LIN_EV_UNLINK:
        out[1] = bool_term(event->b);
        return pid_or_none(env, event->a, &out[0]) ? 2 : -1;
    case LIN_EV_EXIT:
        out[0] = name_term(event->a);
        out[1] = bool_term(event->b);
        return 2;
    case LIN_EV_SWEPT:
        return 0;
    case LIN_EV_NAME:
        out[0] = name_term(event->a);
        return 1;
    case LIN_EV_FLAGS:
        out[0] = lin_flags_term(env, (uint32_t)event->a);
        out[1] = enif_make_uint(env, event->b);
        return 2;
    case LIN_EV_GUARDIAN:
        return pid_or_none(env, event->a, &out[0]) ? 1 : -1;
    default:
        return -1;
    }
}

static ERL_NIF_TERM kind_term(uint8_t kind) {
    const ERL_NIF_TERM kinds[] = {am_undefined, am_birth, am_born,  am_link,     am_unlink, am_exit,
                                  am_swept,     am_name,  am_flags, am_guardian, am_gap};
    return kinds[kind];
}

static bool event_term(const struct reader *reader, const struct lin_event *event,
                       ERL_NIF_TERM *term) {
    ERL_NIF_TERM out[7];
    if (event->kind == LIN_EV_GAP) {
        *term = enif_make_tuple4(reader->env, am_gap, ns_term(reader, event->ticks),
                                 enif_make_uint64(reader->env, event->a),
                                 event->b == LIN_GAP_BUFFER ? am_buffer : am_ring);
        return true;
    }
    int more = is_local_pid(reader->env, event->pid) ? detail(reader, event, out + 4) : -1;
    if (more < 0)
        return false;
    out[0] = kind_term(event->kind);
    out[1] = ns_term(reader, event->ticks);
    out[2] = event->pid;
    out[3] = enif_make_uint(reader->env, event->no);
    *term = enif_make_tuple_from_array(reader->env, out, 4 + (unsigned)more);
    return true;
}

/* events(Batch) */
ERL_NIF_TERM events_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    ErlNifBinary batch;
    if (!enif_inspect_binary(env, argv[0], &batch) || batch.size % sizeof(struct lin_event) != 0 ||
        batch.size / sizeof(struct lin_event) > BATCH)
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct reader reader = {.env = env, .census = lin_enter(&self), .now = lin_clock_now()};
    ERL_NIF_TERM list = enif_make_list(env, 0), term;
    bool ok = true;
    for (size_t i = batch.size / sizeof(struct lin_event); i > 0 && ok; i--) {
        struct lin_event event; /* a binary may lie anywhere */
        memcpy(&event, batch.data + (i - 1) * sizeof event, sizeof event);
        ok = event_term(&reader, &event, &term);
        if (ok)
            list = enif_make_list_cell(env, term, list);
    }
    if (reader.census != NULL)
        lin_gate_leave(self);
    return ok ? list : enif_make_badarg(env);
}

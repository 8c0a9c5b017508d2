#include "nif.h"

#include <stdlib.h>

/* Scopes: who is in one, and what has become of those that were. */

#define SILENT 1000u /* silent failures that are looked through */

/* scope(Pid, Scope) */
ERL_NIF_TERM scope_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    ErlNifPid pid;
    uint32_t scope, former;
    if (!enif_get_local_pid(env, argv[0], &pid) || !enif_get_uint(env, argv[1], &scope))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    bool there = lin_census_scope(census, pid.pid, scope, &former);
    lin_gate_leave(self);
    return there ? enif_make_tuple2(env, am_ok, enif_make_uint(env, former)) : am_dead;
}

struct scopes {
    unsigned count;
    uint32_t scope[];
};

static int by_number(const void *left, const void *right) {
    uint32_t l = *(const uint32_t *)left, r = *(const uint32_t *)right;
    return l < r ? -1 : l > r;
}

static bool is_in(const struct scopes *scopes, uint32_t scope) {
    return scope != 0 && bsearch(&scope, scopes->scope, scopes->count, sizeof scope, by_number);
}

/* Scopes of a list, sorted; NULL when it is none. Free with enif_free. */
static struct scopes *read_scopes(ErlNifEnv *env, ERL_NIF_TERM list) {
    ERL_NIF_TERM head;
    unsigned length;
    if (!enif_get_list_length(env, list, &length))
        return NULL;
    struct scopes *scopes = enif_alloc(sizeof *scopes + length * sizeof scopes->scope[0]);
    if (scopes == NULL)
        return NULL;
    scopes->count = 0;
    while (enif_get_list_cell(env, list, &head, &list))
        if (!enif_get_uint(env, head, &scopes->scope[scopes->count++])) {
            enif_free(scopes);
            return NULL;
        }
    qsort(scopes->scope, scopes->count, sizeof scopes->scope[0], by_number);
    return scopes;
}

static ERL_NIF_TERM live_rows(ErlNifEnv *env, const struct lin_census *census,
                              const struct scopes *scopes) {
    ERL_NIF_TERM rows = enif_make_list(env, 0);
    struct lin_entry entry;
    for (uint32_t number = 0; number < census->chunks_max * LIN_CHUNK; number++) {
        const struct lin_record *record = lin_census_record(census, number);
        if (record == NULL) {
            number |= LIN_CHUNK - 1;
            continue;
        }
        if (!is_in(scopes, atomic_load_explicit(&record->scope, memory_order_relaxed)) ||
            !lin_record_read(record, &entry) || !is_in(scopes, entry.scope) ||
            (entry.flags & LIN_CLASS_OWN) != 0)
            continue;
        if (lin_gate.host->is_alive(env, entry.pid))
            rows = enif_make_list_cell(env, lin_entry_map(env, census, &entry), rows);
    }
    return rows;
}

static ERL_NIF_TERM silent_rows(ErlNifEnv *env, const struct lin_census *census,
                                const struct scopes *scopes) {
    ERL_NIF_TERM rows = enif_make_list(env, 0);
    size_t n;
    struct lin_dead *dead = lin_dead_read(census, LIN_RING_SILENT, SILENT, &n);
    if (dead == NULL)
        return lin_error(env, am_enomem);
    for (size_t i = 0; i < n; i++)
        if (is_in(scopes, dead[i].scope))
            rows = enif_make_list_cell(env, lin_dead_map(env, census, &dead[i]), rows);
    enif_free(dead);
    return rows;
}

/* scoped([Scope]) */
ERL_NIF_TERM scoped_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    struct scopes *scopes = read_scopes(env, argv[0]);
    if (scopes == NULL)
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    ERL_NIF_TERM answer = am_undefined;
    if (census != NULL) {
        ERL_NIF_TERM live = live_rows(env, census, scopes);
        answer = enif_make_tuple2(env, live, silent_rows(env, census, scopes));
    }
    enif_free(scopes);
    return lin_maintenance_end(env, census, answer);
}

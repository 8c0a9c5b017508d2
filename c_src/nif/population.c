#include "nif.h"

#include "pool.h"

#include <string.h>

/*
 * How many live at each site and below each supervisor, in one walk of the census: what the leaks
 * of a living node are told from. Counts lie in scratch, by site and by the guardian's record
 * number.
 */

#define NS_PER_US 1000u

struct count {
    uint32_t live, old, aged;
};

struct population {
    const struct lin_census *census;
    struct lin_clock_point now;
    uint64_t age_ns;      /* from which on a process is old */
    uint64_t previous_ns; /* when this was asked the last time, since open */
    uint32_t records;
    struct count site[LIN_SITES];
    struct count *below; /* by record number */
};

static void add(const struct population *p, struct count *count, const struct lin_entry *entry) {
    uint64_t born = lin_clock_since_ns(p->census->opened, p->now, entry->birth);
    uint64_t now = p->now.ns - p->census->opened.ns;
    bool seeded = (entry->flags & LIN_F_SEEDED) != 0; /* older than anybody knows */
    count->live++;
    if (!seeded && born + p->age_ns > now)
        return;
    count->old++;
    count->aged += !seeded && born + p->age_ns > p->previous_ns;
}

/* The number of a guardian that is a supervisor, or LIN_NO_RECORD. */
static uint32_t supervisor_of(const struct population *p, const struct lin_entry *entry) {
    if (entry->guardian == 0)
        return LIN_NO_RECORD;
    uint32_t value =
        atomic_load_explicit(lin_census_entry(p->census, entry->guardian), memory_order_acquire) &
        ~LIN_INDEX_LOCK;
    if (value == 0 || value - 1 >= p->records)
        return LIN_NO_RECORD;
    const struct lin_record *record = lin_census_record(p->census, value - 1);
    if (record == NULL ||
        atomic_load_explicit(&record->pid, memory_order_relaxed) != entry->guardian ||
        (atomic_load_explicit(&record->flags, memory_order_relaxed) & LIN_CLASS_SUPERVISOR) == 0)
        return LIN_NO_RECORD;
    return value - 1;
}

static void tally(struct population *p, const struct lin_entry *entry) {
    if ((entry->flags & LIN_CLASS_OWN) != 0)
        return;
    add(p, &p->site[entry->site], entry);
    uint32_t number = supervisor_of(p, entry);
    if (number != LIN_NO_RECORD)
        add(p, &p->below[number], entry);
}

/* What is born beyond the scratch is left for the next time. */
static void tally_all(struct population *p) {
    struct lin_entry entry;
    for (uint32_t number = 0; number < p->records; number++) {
        const struct lin_record *record = lin_census_record(p->census, number);
        if (record == NULL)
            number |= LIN_CHUNK - 1;
        else if (lin_record_read(record, &entry))
            tally(p, &entry);
    }
}

static ERL_NIF_TERM sites_term(ErlNifEnv *env, const struct population *p) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    const struct lin_sites *sites = p->census->sites;
    for (uint32_t id = sites == NULL ? 0 : lin_sites_used(sites); id > 0; id--) {
        const struct count *count = &p->site[id];
        if (count->live == 0)
            continue;
        uint64_t births, unheard;
        lin_site_sum(p->census->session, id, &births, &unheard);
        list = enif_make_list_cell(
            env,
            enif_make_tuple5(env, enif_make_uint(env, id), enif_make_uint(env, count->live),
                             enif_make_uint(env, count->old), enif_make_uint(env, count->aged),
                             enif_make_uint64(env, births)),
            list);
    }
    return list;
}

static uint32_t supervisors_with(const struct population *p, uint32_t children) {
    uint32_t n = 0;
    for (uint32_t number = 0; number < p->records; number++)
        n += p->below[number].live >= children;
    return n;
}

static ERL_NIF_TERM supervisors_term(ErlNifEnv *env, const struct population *p,
                                     uint32_t children) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    struct lin_entry entry;
    for (uint32_t number = 0; number < p->records; number++) {
        const struct count *count = &p->below[number];
        if (count->live < children)
            continue;
        const struct lin_record *record = lin_census_record(p->census, number);
        if (record == NULL || !lin_record_read(record, &entry) ||
            (entry.flags & LIN_CLASS_SUPERVISOR) == 0 || (entry.flags & LIN_CLASS_OWN) != 0)
            continue;
        uint32_t generation = lin_census_generation(p->census, &entry);
        list = enif_make_list_cell(env,
                                   enif_make_tuple5(env, entry.pid, enif_make_uint(env, generation),
                                                    enif_make_uint(env, count->live),
                                                    enif_make_uint(env, count->old),
                                                    enif_make_uint(env, count->aged)),
                                   list);
    }
    return list;
}

static ERL_NIF_TERM answer(ErlNifEnv *env, const struct population *p, uint32_t max) {
    /* So few that the list fits: the least number of children that is listed. */
    uint32_t children = 1, all = supervisors_with(p, 1), listed = all;
    while (listed > max && children < 1u << 30)
        listed = supervisors_with(p, children *= 2);
    return enif_make_tuple4(env, sites_term(env, p), supervisors_term(env, p, children),
                            enif_make_uint64(env, (p->now.ns - p->census->opened.ns) / NS_PER_US),
                            enif_make_uint(env, all - listed));
}

static ERL_NIF_TERM population(ErlNifEnv *env, struct lin_census *census, struct lin_thread *self,
                               uint64_t age_ms, uint64_t previous_us, uint32_t max) {
    struct population *p = enif_alloc(sizeof *p);
    if (p == NULL)
        return lin_error(env, am_enomem);
    memset(p, 0, sizeof *p);
    lin_census_sweep(census, self, env);
    p->census = census;
    p->now = lin_clock_now();
    p->age_ns = age_ms * 1000 * NS_PER_US;
    p->previous_ns = previous_us * NS_PER_US;
    p->records = census->chunks_max * LIN_CHUNK;
    while (p->records > 0 && lin_census_record(census, p->records - LIN_CHUNK) == NULL)
        p->records -= LIN_CHUNK;
    size_t bytes = (p->records + (size_t)1) * sizeof *p->below;
    lin_census_note_scratch(census, sizeof *p + bytes);
    p->below = enif_alloc(bytes);
    ERL_NIF_TERM term = lin_error(env, am_enomem);
    if (p->below != NULL) {
        memset(p->below, 0, bytes);
        tally_all(p);
        term = answer(env, p, max);
        enif_free(p->below);
    }
    enif_free(p);
    return term;
}

/* population(AgeMs, PreviousUs, Max) */
ERL_NIF_TERM population_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    ErlNifUInt64 age_ms, previous_us;
    unsigned max;
    const ErlNifUInt64 year_us = 366ull * 86400 * 1000000;
    if (!enif_get_uint64(env, argv[0], &age_ms) || age_ms > year_us / 1000 ||
        !enif_get_uint64(env, argv[1], &previous_us) || previous_us > 100 * year_us ||
        !enif_get_uint(env, argv[2], &max))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    ERL_NIF_TERM term = am_undefined;
    if (census != NULL)
        term = population(env, census, self, age_ms, previous_us, max);
    return lin_maintenance_end(env, census, term);
}

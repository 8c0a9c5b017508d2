#include "verdict.h"

#include "pool.h"

#include <errno.h>
#include <string.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

enum state { UNKNOWN, ON_THE_WAY, ROOTED, CANDIDATE };

struct walk {
    struct lin_census *census;
    uint8_t *state; /* by record number */
    uint32_t records;
};

static uint32_t number_of(const struct lin_census *census, uint64_t pid) {
    uint32_t value =
        atomic_load_explicit(lin_census_entry(census, pid), memory_order_acquire) & ~LIN_INDEX_LOCK;
    if (value == 0)
        return LIN_NO_RECORD;
    const struct lin_record *record = lin_census_record(census, value - 1);
    return record != NULL && GET(record->pid) == pid ? value - 1 : LIN_NO_RECORD;
}

/* The next record on the chain, or LIN_NO_RECORD with the answer in `end`. */
static uint32_t step(const struct walk *walk, uint32_t number, enum state *end) {
    const struct lin_record *record = lin_census_record(walk->census, number);
    *end = ROOTED;
    if ((GET(record->flags) & LIN_CLASS_ROOTED) != 0)
        return LIN_NO_RECORD;
    *end = CANDIDATE;
    uint64_t guardian = GET(record->guardian);
    if (guardian == 0)
        return LIN_NO_RECORD;
    uint32_t next = number_of(walk->census, guardian);
    /* A chunk that came after the scratch was sized: born meanwhile, so its guardian answers. */
    if (next == LIN_NO_RECORD || next >= walk->records)
        return LIN_NO_RECORD;
    uint16_t epoch = (uint16_t)GET(walk->census->epoch);
    const struct lin_record *over = lin_census_record(walk->census, next);
    if (GET(over->checked) == epoch && epoch != 0 && GET(record->confirmed) != epoch)
        return LIN_NO_RECORD;
    return next;
}

static enum state resolve(struct walk *walk, uint32_t number) {
    enum state end = CANDIDATE;
    uint32_t at = number;
    while (at != LIN_NO_RECORD) {
        if (walk->state[at] != UNKNOWN) {
            end = walk->state[at] == ON_THE_WAY ? CANDIDATE : walk->state[at];
            break;
        }
        walk->state[at] = ON_THE_WAY;
        at = step(walk, at, &end);
    }
    enum state ignored;
    for (at = number; at != LIN_NO_RECORD && walk->state[at] == ON_THE_WAY;) {
        walk->state[at] = (uint8_t)end;
        at = step(walk, at, &ignored);
    }
    return end;
}

static void count(struct lin_verdict *out, uint32_t flags, enum state state) {
    out->live++;
    out->orphans += state == CANDIDATE;
    out->rooted += state == ROOTED;
    out->roots += (flags & LIN_CLASS_ROOT) != 0;
    out->runtime += (flags & LIN_CLASS_RUNTIME) != 0;
    out->hosts += (flags & LIN_CLASS_HOST) != 0;
    out->services += (flags & LIN_CLASS_SERVICE) != 0;
    out->supervisors += (flags & LIN_CLASS_SUPERVISOR) != 0;
    out->own += (flags & LIN_CLASS_OWN) != 0;
}

int lin_verdict_run(struct lin_census *census, struct lin_verdict *out, lin_candidate_fn fn,
                    void *arg) {
    struct walk walk = {.census = census, .records = census->chunks_max * LIN_CHUNK};
    /* Chunk numbers are given from the lowest: scratch ends after the highest in use. */
    while (walk.records > 0 && atomic_load_explicit(&census->chunks[walk.records / LIN_CHUNK - 1],
                                                    memory_order_relaxed) == NULL)
        walk.records -= LIN_CHUNK;
    memset(out, 0, sizeof *out);
    if (walk.records == 0)
        return 0;
    lin_census_note_scratch(census, walk.records);
    walk.state = lin_gate.host->alloc(walk.records);
    if (walk.state == NULL)
        return -ENOMEM;
    memset(walk.state, UNKNOWN, walk.records);
    for (uint32_t number = 0; number < walk.records; number++) {
        const struct lin_record *record = lin_census_record(census, number);
        if (record == NULL) {
            number |= LIN_CHUNK - 1;
            continue;
        }
        uint64_t pid = GET(record->pid);
        if (pid == 0)
            continue;
        enum state state = resolve(&walk, number);
        count(out, GET(record->flags), state);
        if (state == CANDIDATE && fn != NULL && !fn(arg, pid))
            fn = NULL;
    }
    lin_gate.host->free(walk.state);
    return 0;
}

/* The count in each record is 0 between two runs, but for one that was born over a counted one. */
void lin_guardians_run(struct lin_census *census, lin_guardian_fn fn, void *arg) {
    uint32_t records = census->chunks_max * LIN_CHUNK;
    while (records > 0 && atomic_load_explicit(&census->chunks[records / LIN_CHUNK - 1],
                                               memory_order_relaxed) == NULL)
        records -= LIN_CHUNK;
    /* 0 stands for "never checked" in a record. */
    uint16_t epoch = (uint16_t)(GET(census->epoch) + 1);
    atomic_store_explicit(&census->epoch, epoch == 0 ? 1 : epoch, memory_order_relaxed);
    for (uint32_t number = 0; number < records; number++) {
        const struct lin_record *record = lin_census_record(census, number);
        uint64_t guardian = record == NULL || GET(record->pid) == 0 ? 0 : GET(record->guardian);
        uint32_t at = guardian == 0 ? LIN_NO_RECORD : number_of(census, guardian);
        if (at >= records)
            continue;
        struct lin_record *over = lin_census_record(census, at);
        uint16_t children = GET(over->children);
        if (children < UINT16_MAX)
            atomic_store_explicit(&over->children, (uint16_t)(children + 1), memory_order_relaxed);
    }
    for (uint32_t number = 0; number < records; number++) {
        struct lin_record *record = lin_census_record(census, number);
        uint16_t children = record == NULL ? 0 : GET(record->children);
        if (children == 0)
            continue;
        atomic_store_explicit(&record->children, 0, memory_order_relaxed);
        uint64_t pid = GET(record->pid);
        if (pid != 0)
            fn(arg, pid, children);
    }
}

static struct lin_record *find(struct lin_census *census, uint64_t pid) {
    uint32_t number = number_of(census, pid);
    return number == LIN_NO_RECORD ? NULL : lin_census_record(census, number);
}

/*
 * These two write one field without the entry's lock: it belongs to the link check alone, and a
 * record that goes to another process meanwhile gets the running epoch at its birth.
 */
void lin_confirm_begin(struct lin_census *census, uint64_t guardian) {
    struct lin_record *record = find(census, guardian);
    if (record != NULL)
        atomic_store_explicit(&record->checked, (uint16_t)GET(census->epoch), memory_order_relaxed);
}

void lin_confirm_link(struct lin_census *census, uint64_t guardian, uint64_t child) {
    struct lin_record *record = find(census, child);
    if (record != NULL && GET(record->guardian) == guardian)
        atomic_store_explicit(&record->confirmed, (uint16_t)GET(census->epoch),
                              memory_order_relaxed);
}

/*
 * census.h - the table of live processes.
 *
 * Model: the VM gives a process a slot of its table; the census has an index of 4 bytes for each
 * slot, into a pool of 64-byte records in chunks of 256. Freed slots are a queue, so slots are
 * touched in random order on an aged node; records are a stack for each thread, so that a new one
 * is one just touched. An index entry is 0, or a record's number + 1; its top bit locks it.
 *
 *     free record --birth, seed--> live --exit event--> free        (seen)
 *                                   |---- sweep, nursery, a birth in its slot --> free  (swept)
 *
 * Whoever changes an entry or its record holds the entry's lock; it is held for some ten loads and
 * stores. A dead pid never comes alive, so the sweep and the nursery look first and lock then, and
 * look again. Readers take the record's seqlock.
 *
 * | may run together | birth/link/exit | read | sweep, maintenance | destroy |
 * |------------------|-----------------|------|--------------------|---------|
 * | birth/link/exit  | yes             | yes  | yes                | no      |
 * | read             |                 | yes  | yes                | no      |
 * | maintenance      |                 |      | no (caller serialises) | no  |
 *
 * birth, link, exit and read run inside the gate (gate.h); maintenance calls and destroy outside.
 * Ownership: create/destroy own all memory, given by the gate's host. Pids and atoms are terms
 * (immediates) and 0 means none. Units: bytes, ticks (clock.h).
 */
#ifndef LIN_CENSUS_H
#define LIN_CENSUS_H

#include "clock.h"
#include "event.h"
#include "gate.h"
#include "mfa.h"
#include "monitors.h"
#include "recent.h"
#include "scopes.h"
#include "sites.h"
#include "timings.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Flags of a record. The low byte goes into its events. */
#define LIN_F_LINKED 0x01u      /* had a link, ever: no suspect any more */
#define LIN_F_BIRTH_LINK 0x02u  /* the guardian is the one of its birth, or of its seeding */
#define LIN_F_ESCAPED 0x04u     /* its guardian was unlinked and none came after */
#define LIN_F_FOREIGN 0x08u     /* spawned from another node: parent is packed */
#define LIN_F_SEEDED 0x10u      /* there before attach: birth is the time of attach */
#define LIN_F_REMOTE_LINK 0x20u /* had a link to another node */
#define LIN_F_WATCHED 0x40u     /* under exact monitors: the table had, or has, one on it */
#define LIN_F_SERVING 0x100u    /* a supervisor that spawns for another: see scopes.h */
#define LIN_F_TOLD 0x200u       /* a supervisor whose services trace points tell: see timings.h */
#define LIN_CLASS_ROOT (1u << 16)
#define LIN_CLASS_RUNTIME (1u << 17)
#define LIN_CLASS_HOST (1u << 18)
#define LIN_CLASS_SERVICE (1u << 19)
#define LIN_CLASS_SUPERVISOR (1u << 20)
#define LIN_CLASS_OWN (1u << 21)
#define LIN_CLASSES (0x3fu << 16)
#define LIN_CLASS_ROOTED (LIN_CLASS_ROOT | LIN_CLASS_RUNTIME | LIN_CLASS_HOST | LIN_CLASS_OWN)

/* A parent on another node: the node's index in the caller's table, and the pid's number there. */
#define LIN_FOREIGN_PACK(node, number) ((uint64_t)(node) << 48 | ((number)&0xffffffffffffu))
#define LIN_FOREIGN_NODE(packed) ((uint32_t)((packed) >> 48))
#define LIN_FOREIGN_NUMBER(packed) ((packed)&0xffffffffffffu)

/* Writers: whoever holds the entry's lock, seq odd meanwhile. Readers: lin_census_read, or relaxed.
 */
struct lin_record {
    _Atomic uint64_t pid; /* 0: free */
    _Atomic uint32_t seq;
    _Atomic uint32_t flags;
    _Atomic uint64_t parent;
    _Atomic uint64_t guardian;
    _Atomic uint32_t site;  /* sites.h; 0: not known, as of those that were there before attach */
    _Atomic uint32_t scope; /* handed down at birth; 0: none */
    _Atomic uint32_t initial_call; /* mfa.h */
    _Atomic uint32_t spawner; /* the parent's initial call; while free: the next of its chunk */
    _Atomic uint64_t birth;
    _Atomic uint16_t no;        /* of its last event */
    _Atomic uint16_t confirmed; /* the link check that saw its guardian's link */
    _Atomic uint16_t checked;   /* the link check that read this process's links */
    _Atomic uint16_t children;  /* of the running count of guardians; writer: maintenance alone */
};

_Static_assert(sizeof(struct lin_record) == 64, "a record is one cache line");

#define LIN_CHUNK 256u

struct lin_chunk {
    struct lin_record record[LIN_CHUNK]; /* first: keeps the alignment of 64 */
    void *memory;                        /* what the host gave */
    struct lin_chunk *prev, *next;       /* in the list of chunks with free records */
    uint32_t number;
    uint32_t free_head; /* LIN_CHUNK: none */
    uint32_t free_count;
    bool listed;
};

struct lin_census {
    /* What each event needs comes first, in as few lines of cache as it goes. All of it is set by
     * create and then constant, but for: */
    uint32_t session;
    uint8_t limit_log2; /* of process_limit, a power of two, at least 1,024 */
    bool exits_all;
    /* Writers: the owner's death, close. Readers: the hook, relaxed: a late `true` costs one event.
     */
    _Atomic bool hooked;
    /* The table of monitors was full once: nobody is known to be unwatched from then on. */
    _Atomic bool monitors_full;
    uint64_t state; /* the session as the hook's callbacks are given it */
    _Atomic uint32_t *index;
    _Atomic(struct lin_chunk *) *chunks; /* written under pool_lock; read inside the gate */
    struct lin_mfas *mfas;
    struct lin_sites *sites;       /* NULL when off */
    struct lin_monitors *monitors; /* NULL unless exact */
    struct lin_timings *timings;   /* NULL unless overhead is measured */
    _Atomic uint32_t epoch;        /* the running link check; writer: maintenance */
    uint32_t chunks_max;
    uint32_t slack_records; /* may lie free before trim gives memory back */
    struct lin_scopes *scopes;
    uint64_t max_bytes;
    struct lin_clock_point opened;
    /* A walk goes over the pool in steps: trim moves nothing. Writer: the recorder, in maintenance.
     */
    _Atomic bool pinned;
    /* What the lock guards is written often, what is above only read: a line of cache between them.
     * An alignment of 64 would be more than the host's memory has. */
    char apart[64];
    atomic_flag pool_lock;        /* guards the rest and the chunks' own lists */
    struct lin_chunk *partial;    /* chunks with free records */
    _Atomic uint32_t chunks_used; /* read without the lock, for counts */
    _Atomic uint64_t bytes, peak_bytes;
};

struct lin_census_options {
    uint32_t session;
    uint64_t state;
    bool exits_all;
    bool monitors_exact;
    enum { LIN_SITES_OFF, LIN_SITES_CLOSURE, LIN_SITES_EXACT } sites;
    uint32_t process_limit; /* a power of two, at least 1,024 */
    uint64_t max_bytes;
    const struct lin_timings_options *overhead; /* NULL: not measured */
};

/* 0; -ENOMEM also when the index alone would pass max_bytes; -EINVAL for a limit that is none. */
int lin_census_create(const struct lin_census_options *options, struct lin_census **out);
/* No thread may be inside the gate with this census. Accepts NULL. */
void lin_census_destroy(struct lin_census *census);

/* Makes the thread's own lists and counts those of this census. Call first after each enter. */
LIN_ASIDE void lin_census_adopt_slow(struct lin_census *census, struct lin_thread *self);
static inline void lin_census_adopt(struct lin_census *census, struct lin_thread *self) {
    if (__builtin_expect(
            atomic_load_explicit(&self->session, memory_order_relaxed) != census->session, 0))
        lin_census_adopt_slow(census, self);
}

static inline uint32_t lin_census_slot(uint32_t limit_log2, uint64_t pid) {
    uint32_t i = (uint32_t)(pid >> 4) & ((1u << limit_log2) - 1);
    return i >> 3 | (i & 7) << (limit_log2 - 3); /* neighbours lie a cache line apart */
}

static inline _Atomic uint32_t *lin_census_entry(const struct lin_census *census, uint64_t pid) {
    return &census->index[lin_census_slot(census->limit_log2, pid)];
}

/*
 * Fetches into the cache the entry of a pid that is about to be born: on an aged node it is in
 * none. Any thread, anywhere: what is fetched may be gone. always_inline: gcc takes what only
 * prefetches for a function without effects, and would drop the call.
 */
__attribute__((always_inline)) static inline void lin_census_expect(const struct lin_thread *self,
                                                                    uint64_t pid) {
    if (self->index == 0)
        return;
    uintptr_t offset = (uintptr_t)lin_census_slot(self->limit_log2, pid) * sizeof(uint32_t);
    __builtin_prefetch((const void *)(self->index + offset), 1);
}

static inline struct lin_record *lin_census_record(const struct lin_census *census,
                                                   uint32_t number) {
    struct lin_chunk *chunk =
        atomic_load_explicit(&census->chunks[number / LIN_CHUNK], memory_order_acquire);
    return chunk == NULL ? NULL : &chunk->record[number % LIN_CHUNK];
}

struct lin_birth {
    uint64_t pid;
    uint64_t parent;
    uint32_t initial_call;
    uint32_t flags; /* LIN_F_FOREIGN, LIN_CLASS_* beyond those of the initial call */
    uint32_t site;  /* of a closure; 0: found by the initial call */
};

/*
 * A new process, in its creator's thread; completes the birth's site. Counted as lost when there is
 * no room for a record.
 */
void lin_census_birth(struct lin_census *census, struct lin_thread *self, void *env,
                      struct lin_birth *birth);

enum lin_seed { LIN_SEED_OK, LIN_SEED_KNOWN, LIN_SEED_DEAD, LIN_SEED_LOST };
/* A process that was there before attach. `guardian` 0: no link. */
enum lin_seed lin_census_seed(struct lin_census *census, struct lin_thread *self, void *env,
                              const struct lin_birth *birth, uint64_t guardian);

/* Links and unlinks; `peer` 0 is a process of another node. Unknown pids are left alone. */
void lin_census_link(struct lin_census *census, uint64_t pid, uint64_t peer);
void lin_census_unlink(struct lin_census *census, uint64_t pid, uint64_t peer);
void lin_census_name(struct lin_census *census, uint64_t pid, uint64_t name);
/* An exit event; `reason` is an atom. A process that is not in the census any more is left alone.
 */
void lin_census_exit(struct lin_census *census, struct lin_thread *self, void *env, uint64_t pid,
                     uint64_t reason, bool abnormal);
/*
 * Under exact monitors: `watcher` is about to monitor `target` (0: the child that it is about to
 * spawn). Only suspects are watched over; others are left alone.
 */
void lin_census_monitor(struct lin_census *census, uint64_t watcher, uint64_t target);

/* Puts a process into a scope: `former` is the one that it was in. False when it is not in the
 * census. */
bool lin_census_scope(struct lin_census *census, uint64_t pid, uint32_t scope, uint32_t *former);
/* Under exact sites: `caller` is about to ask a supervisor for a child. */
void lin_census_ask(struct lin_census *census, void *env, uint64_t caller);
/* Supervisor serves a request of `caller`: spawns in its scope, until served. That of a caller who
 * has died meanwhile is known where it was told to ask. */
void lin_census_serve(struct lin_census *census, void *env, uint64_t supervisor, uint64_t caller);
/* Supervisor hears that `child` died, and may start another in its place. */
void lin_census_replace(struct lin_census *census, void *env, uint64_t supervisor, uint64_t child);
void lin_census_served(struct lin_census *census, uint64_t supervisor);

/* Sets and clears flags of a live record; false when the pid is not in the census. */
bool lin_census_flag(struct lin_census *census, uint64_t pid, uint32_t set, uint32_t clear);
/* Corrects the guardian by what process_info said; false when the pid is not in the census. */
bool lin_census_set_guardian(struct lin_census *census, uint64_t pid, uint64_t guardian);

/* A plain copy of a record. */
struct lin_entry {
    uint64_t pid, parent, guardian, birth;
    uint32_t flags, site, scope, initial_call, spawner;
    uint16_t no; /* of its last event */
};

/* False when the pid is not in the census. */
bool lin_census_read(const struct lin_census *census, uint64_t pid, struct lin_entry *out);
/* Copies record `number`; false when it is free. For walks over the pool, in maintenance. */
bool lin_record_read(const struct lin_record *record, struct lin_entry *out);

/* A suspect has had no link so far; the hook keeps it traced. */
bool lin_census_is_suspect(const struct lin_census *census, uint64_t pid);

/*
 * Birth as a number for reports and journals, in units of about a millisecond (2^21 ticks) since
 * open, at least 1; 0 for seeded ones. The same whenever it is asked for.
 */
uint32_t lin_census_generation(const struct lin_census *census, const struct lin_entry *entry);

struct lin_totals {
    uint64_t births, seeded, seen, swept, lost, silent, unheard, bytes, peak_bytes, records;
    uint64_t free_records; /* memory that is held for births to come, or not trimmed yet */
};
/* Sums over threads; any thread. */
void lin_census_totals(const struct lin_census *census, struct lin_totals *out);

/* Maintenance: the caller serialises these, is outside the gate, and keeps close away. */

/* Removes the dead; returns how many. */
uint64_t lin_census_sweep(struct lin_census *census, struct lin_thread *self, void *env);
/*
 * Gives back the memory of chunks beyond the live and a slack of 1 MiB, moving the records of the
 * emptiest ones. Threads that trace wait for the move of one chunk at a time (tens of us).
 */
void lin_census_trim(struct lin_census *census, struct lin_thread *self);
/* Notes scratch memory, so that peak_bytes is true: before it is taken. */
void lin_census_note_scratch(struct lin_census *census, uint64_t bytes);

#endif

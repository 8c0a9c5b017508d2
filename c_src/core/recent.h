/*
 * recent.h - the last dead that had no link, and the last silent failures.
 *
 * Model: rings for each thread, one of either kind, so that deaths on two schedulers share no cache
 * line; a reader merges the rings by time. A ring has one writer, its thread; a slot's own seqlock
 * tells a reader that it was overwritten meanwhile, then the slot is left out (a newer one stands
 * elsewhere). Ownership: made at a thread's first unlinked death, freed at the census's close.
 */
#ifndef LIN_RECENT_H
#define LIN_RECENT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_RECENT 1000u /* of a ring */

/* Silent failures are rare: other deaths do not push them out of a ring of their own. */
enum lin_recent_ring { LIN_RING_DEAD, LIN_RING_SILENT, LIN_RINGS };

enum lin_monitored { LIN_MONITORED_UNKNOWN, LIN_MONITORED_NO, LIN_MONITORED_YES };

struct lin_dead {
    uint64_t pid;
    uint64_t parent; /* packed as in census.h when LIN_F_FOREIGN is in flags */
    uint64_t birth;  /* ticks */
    uint64_t death;  /* ticks: of the exit event, or of the sweep */
    uint64_t reason; /* an atom's term; 0: not known */
    uint32_t initial_call;
    uint32_t spawner;
    uint32_t flags;
    uint32_t site;
    uint32_t scope;
    uint8_t abnormal;
    uint8_t monitored; /* enum lin_monitored */
};

#define LIN_DEAD_WORDS ((sizeof(struct lin_dead) + 7) / 8)

struct lin_recent {
    struct {
        _Atomic uint32_t seq; /* odd while written; pairs with the reader's two loads */
        /* A struct lin_dead. Relaxed, word by word: a reader may copy while the writer writes. */
        _Atomic uint64_t word[LIN_DEAD_WORDS];
    } slot[LIN_RECENT];
    uint32_t at; /* writer only */
};

struct lin_thread;

/* Puts one down in this thread's ring; without memory for the ring it is lost (the counts are not).
 */
void lin_recent_push(struct lin_thread *self, enum lin_recent_ring which,
                     const struct lin_dead *dead);

/*
 * Copies the newest dead of `session`, newest first, at most `count` (<= LIN_RECENT) to `out`,
 * whose scratch must hold LIN_RECENT entries for each thread: see lin_recent_rings. Returns how
 * many.
 */
size_t lin_recent_read(uint32_t session, enum lin_recent_ring which, struct lin_dead *out,
                       size_t out_len, size_t count);

/* How many rings of that kind there are, for sizing `out`. */
size_t lin_recent_rings(enum lin_recent_ring which);

/* Frees all rings. No thread may be inside the gate. */
void lin_recent_free_all(void);

#endif

/*
 * ring.h - events on their way from the threads that trace to the one that reads.
 *
 * Model: a region is a header and some rings of equal size, one behind another, in memory that the
 * caller gives: ordinary, or a file in /dev/shm whose content outlives the process. So everything
 * in it is a number, never an address. A thread claims a ring for itself; ring 0 is shared by those
 * that found none left. A position counts a ring's events since the beginning and never wraps:
 * event number p lies at p % capacity, [tail, head) are there.
 *
 *     writer: look for room; write event and mask; head + 1 (release)
 *     reader: head (acquire); read; tail + n (release), which makes room
 *
 * Full: the event is counted (`lost`), and when there is room again a GAP event with how many are
 * missing goes before the next one: a gap has its place. Who tells is settled by a CAS on `told`,
 * for the reader of a ring whose thread has fallen silent tells too, through ring 0. Of the shared
 * ring a writer takes a place first (fetch_add, after a look that leaves a slack of LIN_RING_SLACK)
 * and commits it by writing `ticks` last; its reader stops at a place that is not committed, and
 * clears what it has read.
 *
 * | may run together | write same ring | write other ring | read, release same ring |
 * |------------------|-----------------|------------------|-------------------------|
 * | write            | ring 0 only     | yes              | yes                     |
 * | read, release    | yes             | yes              | no (caller serialises)  |
 *
 * After the writer was killed at any instruction, [tail, head) of its ring is whole, and head +
 * lost is what it was told of, but for the one event it was about. Ownership: the caller's.
 * Threads: as in the table. Units: events, ticks.
 */
#ifndef LIN_RING_H
#define LIN_RING_H

#include "clock.h"
#include "event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_RINGS_MAGIC 0x31524e494cu /* "LINR1" */
#define LIN_RINGS_MAX 256u
#define LIN_RING_SLACK 1024u        /* threads that may be between look and fetch_add */
#define LIN_RING_MIN_CAPACITY 4096u /* a power of two, like every capacity */
#define LIN_RING_MAX_CAPACITY 65536u

struct lin_ring {
    /* Writer's: written by its thread (ring 0: by all), read by the reader. */
    _Atomic uint64_t head;
    _Atomic uint64_t lost;    /* in all, those that a GAP has told included */
    _Atomic uint64_t told;    /* of those, how many GAPs have told */
    _Atomic uint64_t lost_at; /* ticks of the first that no GAP has told; of ring 0 about */
    uint64_t seen_tail;       /* what the writer knows of tail; unused in ring 0 */
    _Atomic uint32_t claimed; /* 1: a thread's */
    char apart[128 - 44];
    /* Reader's. */
    _Atomic uint64_t tail;
    char apart_too[128 - 8];
    struct lin_event event[]; /* capacity, then as many bytes of masks */
};

struct lin_rings {
    uint64_t magic;
    uint32_t count, capacity; /* constant once made */
    uint64_t run;             /* of the journal it belongs to; 0: none */
    uint64_t ring_bytes;      /* from one ring to the next */
    uint32_t os_pid;
    uint32_t clean;    /* 1: its reader has taken all, and said so in the journal */
    uint64_t os_start; /* the process's start, in the kernel's units: with os_pid, who it was */
    struct lin_clock_point opened;
    uint64_t opened_wall_ns; /* since 1970 */
    _Atomic uint32_t next;   /* where the next thread looks for a ring */
    char apart[256 - 76];
};

_Static_assert(sizeof(struct lin_ring) == 256, "the layout of a file");
_Static_assert(sizeof(struct lin_rings) == 256, "the layout of a file");

/* How many bytes a region of `count` rings takes; 0 for a count or capacity out of range. */
size_t lin_rings_bytes(uint32_t count, uint32_t capacity);
/* How large the rings of a node with so many threads may be, within `max_bytes`: a power of two. */
uint32_t lin_rings_capacity(uint32_t count, size_t max_bytes);
/* Lays a region out in `memory` (zeroed, aligned to 64). 0 or -EINVAL. */
int lin_rings_init(struct lin_rings *rings, uint32_t count, uint32_t capacity);

static inline struct lin_ring *lin_ring_at(const struct lin_rings *rings, uint32_t n) {
    return (struct lin_ring *)((char *)(uintptr_t)rings + sizeof *rings + n * rings->ring_bytes);
}
static inline uint8_t *lin_ring_masks(const struct lin_rings *rings, struct lin_ring *ring) {
    return (uint8_t *)&ring->event[rings->capacity];
}

/* A ring for the calling thread alone; 0 (the shared one) when all are taken. Any thread. */
uint32_t lin_ring_claim(struct lin_rings *rings);

/*
 * Writes, or counts as lost. `mask`: which subscribers want it (stream.h). Returns how many events
 * are in the ring now, for the caller to wake the reader by: capacity when it was lost.
 */
uint64_t lin_ring_write(struct lin_rings *rings, uint32_t n, const struct lin_event *event,
                        uint8_t mask);

/*
 * From `*position` on, events that lie in a row and may be read: their number, at most `max`; 0:
 * none. A position before tail is moved to tail. Reader only.
 */
uint32_t lin_ring_read(const struct lin_rings *rings, uint32_t n, uint64_t *position, uint32_t max,
                       const struct lin_event **events, const uint8_t **masks);
/* What lies before `position` may be written over. Reader only. */
void lin_ring_release(struct lin_rings *rings, uint32_t n, uint64_t position);

/*
 * Puts what ring `n` has lost, and no GAP has told, into ring 0 as a GAP (`b`: n): for a ring whose
 * writer may not come again. False when there is nothing to tell, or ring 0 is full. Any thread.
 */
bool lin_ring_tell(struct lin_rings *rings, uint32_t n);

#endif

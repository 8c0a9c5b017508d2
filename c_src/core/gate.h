/*
 * gate.h - who is inside the census, and how to wait until nobody is.
 *
 * Model: each thread that traces has one `struct lin_thread`, found through a thread-local pointer.
 * It enters the gate before it touches a census and leaves after: two plain stores. The other side
 * (close, compaction) pays: it publishes what it wants, runs a barrier in every thread of the
 * process (membarrier), and then waits for the threads that were inside. Where membarrier is
 * missing, entering costs a full fence instead.
 *
 *     enter: visits += 1; light barrier; read paused, current      pairs with
 *     quiesce: write paused or current; heavy barrier; read visits
 *
 * Either the thread sees the new value, or quiesce sees it inside (visits is odd) and waits until
 * the number is another one: whoever came in again since has seen the new value.
 *
 * | may run together | enter | quiesce | pause/resume |
 * |------------------|-------|---------|--------------|
 * | enter            | yes   | yes     | yes, it waits outside |
 * | quiesce          | yes   | yes     | no (caller serialises) |
 *
 * Ownership: threads are allocated through the host given to lin_gate_init and live until
 * lin_gate_deinit (a thread may come back in a later session). Threads: any, of any kind.
 */
#ifndef LIN_GATE_H
#define LIN_GATE_H

#include "recent.h"
#include "sites.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lin_census;

/* Out of the way of what each birth passes: a hook runs among all of the VM's code, and its own
 * must find room in the instruction cache. */
#define LIN_ASIDE __attribute__((noinline))

/* What the core needs from whoever loads it. */
struct lin_host {
    void *(*alloc)(size_t bytes); /* NULL when there is none; aligned to 16 bytes */
    void (*free)(void *memory);
    bool (*is_alive)(void *env, uint64_t pid); /* any thread, never blocks */
};

#define LIN_LOCAL_FREE 192 /* records a thread keeps at most */
#define LIN_BATCH 64       /* how many go to or come from the shared chunks at a time */
#define LIN_NURSERY 256    /* births between a birth and its second look */

/* Counted by one thread each, read by anyone, relaxed: sums are exact once the node is quiet. */
struct lin_counts {
    _Atomic uint64_t births, seeded, seen, swept, lost, silent, unheard;
};

struct lin_thread {
    /* Odd while inside. Written by its thread only; read by quiesce. */
    _Atomic uint32_t visits;
    /* The session that all below belongs to; another one makes the thread start afresh. */
    _Atomic uint32_t session;
    uint32_t free_count;
    uint32_t nursery_at;
    uintptr_t index; /* the session's, to be fetched ahead only: it may be gone */
    uint32_t limit_log2;
    /* When the VM announced the call that it tells next, in ticks; 0: it did not. Its thread only.
     */
    uint64_t announced;
    uint32_t stream; /* whose ring the next one is: see stream.h; 0: none's. Its thread only. */
    uint32_t ring;
    struct lin_counts counts;
    uint32_t free[LIN_LOCAL_FREE];                  /* record numbers, the last freed on top */
    uint32_t nursery[LIN_NURSERY];                  /* record numbers + 1; 0: none */
    _Atomic(struct lin_recent *) recent[LIN_RINGS]; /* made at need, freed at close */
    /* Made at its first birth at one of the page's sites, freed at close. */
    _Atomic(struct lin_site_page *) site_pages[LIN_SITE_PAGES];
    struct lin_thread *next; /* set once, before the thread is published */
};

struct lin_gate {
    /* Writers: open, close. Readers: every enter (acquire, pairs with the release in set_current).
     */
    _Atomic(struct lin_census *) current;
    /* Writer: pause, resume (release). Readers: every enter (acquire). */
    _Atomic uint32_t paused;
    bool fenced; /* no membarrier: enter fences; written before any thread enters */
    const struct lin_host *host;
    _Atomic(struct lin_thread *) threads; /* pushed by CAS (release), never removed before deinit */
    _Atomic uint64_t thread_bytes;
};

extern struct lin_gate lin_gate;

/*
 * A library that is opened by dlopen gets a slot in each thread's static block: initial-exec makes
 * the look-up one load. musl refuses that model in dlopen, there the default one serves.
 */
#if defined(__GLIBC__)
#define LIN_TLS __thread __attribute__((tls_model("initial-exec")))
#else
#define LIN_TLS __thread
#endif
extern LIN_TLS struct lin_thread *lin_self;

/* Call before any other, again when nobody is inside; `host` must outlive the library. */
void lin_gate_init(const struct lin_host *host);
/* Frees every thread's memory. No thread may be inside, or enter again. */
void lin_gate_deinit(void);

/* This thread's struct, made at the first call; NULL when there is no memory. */
LIN_ASIDE struct lin_thread *lin_thread_make(void);
/* Waits until the gate is no longer paused, then is inside. */
LIN_ASIDE void lin_gate_enter_slow(struct lin_thread *self);

static inline void lin_gate_mark(struct lin_thread *self) {
    uint32_t visits = atomic_load_explicit(&self->visits, memory_order_relaxed);
    atomic_store_explicit(&self->visits, visits + 1, memory_order_relaxed);
    if (__builtin_expect(lin_gate.fenced, 0))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst); /* pairs with membarrier in lin_gate_quiesce */
}

static inline struct lin_thread *lin_thread_self(void) {
    struct lin_thread *self = lin_self;
    return __builtin_expect(self != NULL, 1) ? self : lin_thread_make();
}

static inline void lin_gate_leave(struct lin_thread *self) {
    uint32_t visits = atomic_load_explicit(&self->visits, memory_order_relaxed);
    /* release: pairs with the acquire in quiesce. */
    atomic_store_explicit(&self->visits, visits + 1, memory_order_release);
}

/*
 * Enters, and returns the open census: NULL when there is none (then this thread is not inside, and
 * must not leave). Never nests.
 */
static inline struct lin_census *lin_gate_enter(struct lin_thread *self) {
    lin_gate_mark(self);
    /* acquire: pairs with the release in resume; what was moved meanwhile is seen. */
    if (__builtin_expect(atomic_load_explicit(&lin_gate.paused, memory_order_acquire) != 0, 0))
        lin_gate_enter_slow(self);
    struct lin_census *census = atomic_load_explicit(&lin_gate.current, memory_order_acquire);
    if (__builtin_expect(census == NULL, 0))
        lin_gate_leave(self);
    return census;
}

/* Every thread has a full barrier: pairs with the light one of those that are inside. */
void lin_gate_barrier(void);
/* Makes `census` (or NULL) what threads find when they enter from now on. */
void lin_gate_set_current(struct lin_census *census);
/*
 * Waits until every thread that was inside when it was called has left: what was unpublished before
 * may be freed after. The caller must not be inside. At most `max_us` microseconds (0: for ever).
 * Returns false when that was too short.
 */
bool lin_gate_quiesce(uint32_t max_us);
/*
 * Keeps every thread out until lin_gate_resume; false (and nobody kept out) when a thread inside
 * did not leave within `max_us`. The caller must not be inside.
 */
bool lin_gate_pause(uint32_t max_us);
void lin_gate_resume(void);

#endif

/*
 * event.h - what happened to a process, in 32 bytes, and the tap that hands it on.
 *
 * Model: the census is the truth, events are its history. Each event carries its record's own
 * 16-bit number (`no`, it wraps): events of one process are ordered by it, those of several
 * processes by `ticks`. A birth is two events, BIRTH and BORN, for it has more to say than fits in
 * one; a third, LINK, follows at once where the process was there before attach and has a guardian.
 * From its events alone a process's parent, guardian, class, site and scope can be told as the
 * census has them. The tap is one function for the whole library; while there is none an event
 * costs one predicted branch and is never built. Threads: the tap is called in the thread where the
 * event happened, inside a gate (gate.h) or in maintenance, which is outside, with the record's
 * entry locked: it must not block, allocate or call the census. Ownership: event and record are
 * the caller's; the tap copies what it keeps.
 */
#ifndef LIN_EVENT_H
#define LIN_EVENT_H

#include <stdatomic.h>
#include <stdint.h>

enum lin_event_kind {
    LIN_EV_BIRTH = 1, /* a: parent (packed when LIN_F_FOREIGN is in flags), b: site, or 0 */
    LIN_EV_BORN,      /* a: scope << 32 | generation, b: initial call */
    LIN_EV_LINK,      /* a: peer, 0: on another node; b: 1 when it is the guardian from now on */
    LIN_EV_UNLINK,    /* a: peer, 0: on another node; b: 1 when it was the guardian: none is left */
    LIN_EV_EXIT,      /* a: reason (an atom's term), b: 1 when abnormal */
    LIN_EV_SWEPT,     /* found dead by liveness; its time is that of the sweep */
    LIN_EV_NAME,      /* a: registered name (an atom's term), 0 when unregistered */
    LIN_EV_FLAGS,     /* a: all of the record's flags, which Erlang has changed; b: scope */
    LIN_EV_GUARDIAN,  /* a: the guardian that process_info told, 0: none */
    LIN_EV_GAP        /* pid 0; a: how many events are missing here, b: ring (ring.h) */
};
#define LIN_EV_KINDS LIN_EV_GAP
#define LIN_GAP_BUFFER UINT32_MAX /* b of a GAP: a subscriber's own buffer was full */

struct lin_event {
    uint64_t ticks; /* clock.h; of a gap: of the first that is missing */
    uint64_t pid;
    uint64_t a;
    uint32_t b;
    uint16_t no;
    uint8_t kind;  /* enum lin_event_kind */
    uint8_t flags; /* low byte of the record's flags */
};

_Static_assert(sizeof(struct lin_event) == 32, "an event is 32 bytes");

struct lin_record;
typedef void (*lin_tap_fn)(const struct lin_event *event, const struct lin_record *record);

/*
 * Writer: lin_tap_set. Readers: any thread, relaxed: the function is code, nothing is published
 * through it. A tap that goes away waits for lin_gate_quiesce before its memory does.
 */
extern _Atomic(lin_tap_fn) lin_tap;

static inline void lin_tap_set(lin_tap_fn fn) {
    atomic_store_explicit(&lin_tap, fn, memory_order_relaxed);
}

/* Evaluates the event (a struct lin_event initializer) only when a tap is set. */
#define LIN_TAP(record, ...)                                                                       \
    do {                                                                                           \
        lin_tap_fn lin_tap_fn_ = atomic_load_explicit(&lin_tap, memory_order_relaxed);             \
        if (__builtin_expect(lin_tap_fn_ != NULL, 0))                                              \
            lin_tap_fn_(&(struct lin_event){__VA_ARGS__}, (record));                               \
    } while (0)

#endif

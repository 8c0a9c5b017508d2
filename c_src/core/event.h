/*
 * event.h - what happened to a process, in 32 bytes, and the tap that hands it on.
 *
 * Model: the census is the truth, events are its history. Each event carries its record's own
 * 16-bit number (`no`, it wraps): events of one process are ordered by it, those of several
 * processes by `ticks`. A birth is two events, BIRTH and BORN, for it has more to say than fits in
 * one. The tap is one function for the whole library; while there is none an event costs one
 * predicted branch and is never built. Threads: the tap is called in the thread where the event
 * happened, inside a gate (gate.h), with the record's entry locked: it must not block, allocate or
 * call the census. Ownership: the event is on the caller's stack; the tap copies what it keeps.
 */
#ifndef LIN_EVENT_H
#define LIN_EVENT_H

#include <stdatomic.h>
#include <stdint.h>

enum lin_event_kind {
    LIN_EV_BIRTH = 1, /* a: parent (packed when LIN_F_FOREIGN is in flags), b: site, or 0 */
    LIN_EV_BORN,      /* a: scope << 32 | generation, b: initial call */
    LIN_EV_LINK,      /* a: peer */
    LIN_EV_UNLINK,    /* a: peer */
    LIN_EV_EXIT,      /* a: reason (an atom's term), b: 1 when abnormal */
    LIN_EV_SWEPT,     /* found dead by liveness; its time is that of the sweep */
    LIN_EV_NAME       /* a: registered name (an atom's term), 0 when unregistered */
};

struct lin_event {
    uint64_t ticks; /* clock.h */
    uint64_t pid;
    uint64_t a;
    uint32_t b;
    uint16_t no;
    uint8_t kind;  /* enum lin_event_kind */
    uint8_t flags; /* low byte of the record's flags */
};

_Static_assert(sizeof(struct lin_event) == 32, "an event is 32 bytes");

typedef void (*lin_tap_fn)(const struct lin_event *event);

/*
 * Writer: lin_tap_set. Readers: any thread, relaxed: the function is code, nothing is published
 * through it. A tap that goes away waits for lin_gate_quiesce before its memory does.
 */
extern _Atomic(lin_tap_fn) lin_tap;

static inline void lin_tap_set(lin_tap_fn fn) {
    atomic_store_explicit(&lin_tap, fn, memory_order_relaxed);
}

/* Evaluates `EVENT` (a struct lin_event initializer) only when a tap is set. */
#define LIN_TAP(...)                                                                               \
    do {                                                                                           \
        lin_tap_fn lin_tap_fn_ = atomic_load_explicit(&lin_tap, memory_order_relaxed);             \
        if (__builtin_expect(lin_tap_fn_ != NULL, 0))                                              \
            lin_tap_fn_(&(struct lin_event){__VA_ARGS__});                                         \
    } while (0)

#endif

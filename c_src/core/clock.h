/*
 * clock.h - the cheapest monotonic tick of this machine.
 *
 * Model: a birth costs one tick and nothing else; ticks become milliseconds only when somebody
 * reads them, by two points (tick, monotonic time) that the caller keeps. A coarse clock would
 * break the order of events, CLOCK_MONOTONIC costs four times a tick. Threads: any. Units: ticks,
 * of unknown but constant rate.
 */
#ifndef LIN_CLOCK_H
#define LIN_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Monotonic nanoseconds; for calibration and for machines without a user-readable counter. */
static inline uint64_t lin_clock_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t lin_clock_ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return lin_clock_ns();
#endif
}

/* Two points make a rate: `lin_clock_point` taken at open, the other one when something is read. */
struct lin_clock_point {
    uint64_t ticks;
    uint64_t ns;
};

static inline struct lin_clock_point lin_clock_now(void) {
    return (struct lin_clock_point){.ticks = lin_clock_ticks(), .ns = lin_clock_ns()};
}

/* Of some tries the point whose two readings lie closest together: the thread may be preempted in
 * between. */
static inline struct lin_clock_point lin_clock_sure(void) {
    struct lin_clock_point best = {0, 0};
    uint64_t apart = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        struct lin_clock_point point = lin_clock_now();
        uint64_t width = lin_clock_ticks() - point.ticks;
        if (width < apart) {
            apart = width;
            best = point;
        }
    }
    return best;
}

/* Nanoseconds from `from.ticks` to `ticks`, by the rate between the two points; 0 for earlier ones.
 */
static inline uint64_t lin_clock_since_ns(struct lin_clock_point from, struct lin_clock_point now,
                                          uint64_t ticks) {
    if (ticks <= from.ticks || now.ticks <= from.ticks)
        return 0;
    double rate = (double)(now.ns - from.ns) / (double)(now.ticks - from.ticks);
    return (uint64_t)((double)(ticks - from.ticks) * rate);
}

/* Nanoseconds from `ticks` to `now`; 0 for later ones. */
static inline uint64_t lin_clock_age_ns(struct lin_clock_point from, struct lin_clock_point now,
                                        uint64_t ticks) {
    uint64_t all = now.ns - from.ns, since = lin_clock_since_ns(from, now, ticks);
    return since < all ? all - since : 0;
}

#endif

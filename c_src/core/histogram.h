/*
 * histogram.h - how often which duration was seen.
 *
 * Model: buckets of a fixed layout, the same for all, so that any two can be merged: 256 of 4 ns,
 * and from 1,024 ns on 128 for each doubling, up to 2^42 ns (73 min). From 512 ns on a bucket is at
 * most 1/128 of any of its values wide, which is two significant digits; what is longer than the
 * range is in a last bucket that has no upper end. Nothing is ever refused or lost.
 *
 * | may run together | record | move | read |
 * |------------------|--------|------|------|
 * | record           | yes    | yes  | yes  |
 * | move             |        | yes  | yes, what is on its way is in neither |
 *
 * Threads: any, without locks. Ownership: create/destroy own the memory, given by the gate's host.
 * Units: ns.
 */
#ifndef LIN_HISTOGRAM_H
#define LIN_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define LIN_HISTOGRAM_BUCKETS 4353u

struct lin_histogram {
    /* Writers: any, by atomic additions and exchanges; readers: any. Relaxed: each is a sum of its
     * own, and orders nothing. */
    _Atomic uint64_t sum; /* of all values, 2^64 ns being 584 years */
    _Atomic uint64_t count[LIN_HISTOGRAM_BUCKETS];
};

/* Empty. NULL when there is no memory. */
struct lin_histogram *lin_histogram_create(void);
void lin_histogram_destroy(struct lin_histogram *histogram);

/* The bucket of a value. */
static inline uint32_t lin_histogram_bucket(uint64_t ns) {
    uint64_t units = ns >> 2;
    if (units < 256)
        return (uint32_t)units;
    if (ns >> 42 != 0)
        return LIN_HISTOGRAM_BUCKETS - 1;
    uint32_t shift = 56 - (uint32_t)__builtin_clzll(units); /* leaves 128 to 255 */
    return shift * 128 + (uint32_t)(units >> shift);
}

/* The least value of a bucket; of the one behind the last, the largest number. */
static inline uint64_t lin_histogram_low(uint32_t bucket) {
    if (bucket >= LIN_HISTOGRAM_BUCKETS)
        return UINT64_MAX;
    if (bucket < 256)
        return (uint64_t)bucket << 2;
    uint32_t shift = bucket / 128 - 1;
    return (uint64_t)(bucket - shift * 128) << (shift + 2);
}

static inline void lin_histogram_record(struct lin_histogram *histogram, uint64_t ns) {
    atomic_fetch_add_explicit(&histogram->sum, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->count[lin_histogram_bucket(ns)], 1, memory_order_relaxed);
}

/* Moves all that `from` holds into `into`. What is recorded meanwhile is in one of the two. */
void lin_histogram_move(struct lin_histogram *into, struct lin_histogram *from);

#endif

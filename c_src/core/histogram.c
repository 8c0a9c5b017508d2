#include "histogram.h"

#include "gate.h"

#include <string.h>

struct lin_histogram *lin_histogram_create(void) {
    struct lin_histogram *histogram = lin_gate.host->alloc(sizeof *histogram);
    if (histogram != NULL)
        memset((void *)histogram, 0, sizeof *histogram);
    return histogram;
}

void lin_histogram_destroy(struct lin_histogram *histogram) {
    if (histogram != NULL)
        lin_gate.host->free(histogram);
}

static void move(_Atomic uint64_t *into, _Atomic uint64_t *from) {
    if (atomic_load_explicit(from, memory_order_relaxed) != 0)
        atomic_fetch_add_explicit(into, atomic_exchange_explicit(from, 0, memory_order_relaxed),
                                  memory_order_relaxed);
}

void lin_histogram_move(struct lin_histogram *into, struct lin_histogram *from) {
    move(&into->sum, &from->sum);
    for (uint32_t i = 0; i < LIN_HISTOGRAM_BUCKETS; i++)
        move(&into->count[i], &from->count[i]);
}

#include "series.h"

#include "pool.h"
#include "spin.h"

#include <errno.h>
#include <string.h>

/* Of a line on its way to `gone`: no pid, and not free. */
#define CLOSED 1u

static struct lin_histogram *load(const struct lin_line *line, enum lin_part part) {
    return atomic_load_explicit(&line->part[part], memory_order_acquire);
}

/* The histogram of a part, made at need; NULL without memory. */
static struct lin_histogram *part_of(struct lin_series *series, struct lin_line *line,
                                     enum lin_part part) {
    struct lin_histogram *histogram = load(line, part);
    if (__builtin_expect(histogram != NULL, 1))
        return histogram;
    if (!lin_pool_reserve(series->census, sizeof *histogram))
        return NULL;
    struct lin_histogram *made = lin_histogram_create();
    /* release: what was made empty is seen empty. */
    if (made != NULL &&
        atomic_compare_exchange_strong_explicit(&line->part[part], &histogram, made,
                                                memory_order_release, memory_order_acquire))
        return made;
    lin_histogram_destroy(made);
    lin_pool_release(series->census, sizeof *histogram);
    return histogram;
}

int lin_series_init(struct lin_series *series, struct lin_census *census, unsigned criticals) {
    memset(series, 0, sizeof *series);
    series->census = census;
    atomic_flag_clear(&series->lock);
    bool made = true;
    for (unsigned part = 0; part < LIN_PART_STARTS; part++)
        made = part_of(series, &series->others, part) != NULL && made;
    for (unsigned i = 0; i < criticals; i++)
        made = part_of(series, &series->critical[i], LIN_PART_LATENCY) != NULL &&
               part_of(series, &series->critical[i], LIN_PART_STARTS) != NULL && made;
    return made ? 0 : -ENOMEM;
}

static void empty(struct lin_series *series, struct lin_line *line) {
    for (unsigned part = 0; part < LIN_PARTS; part++) {
        struct lin_histogram *histogram =
            atomic_exchange_explicit(&line->part[part], NULL, memory_order_acquire);
        if (histogram == NULL)
            continue;
        lin_histogram_destroy(histogram);
        lin_pool_release(series->census, sizeof *histogram);
    }
}

void lin_series_deinit(struct lin_series *series) {
    empty(series, &series->gone);
    empty(series, &series->others);
    for (unsigned i = 0; i < LIN_SERIES; i++)
        empty(series, &series->supervisor[i]);
    for (unsigned i = 0; i < LIN_CRITICAL; i++)
        empty(series, &series->critical[i]);
}

static struct lin_line *find(struct lin_series *series, uint64_t supervisor, uint32_t from) {
    for (uint32_t i = 0; i < LIN_SERIES; i++) {
        struct lin_line *line = &series->supervisor[(from + i) % LIN_SERIES];
        if (atomic_load_explicit(&line->supervisor, memory_order_acquire) == supervisor)
            return line;
    }
    return NULL;
}

struct lin_line *lin_series_line(struct lin_series *series, uint64_t supervisor) {
    uint32_t from = (uint32_t)(supervisor * 0x9e3779b97f4a7c15u >> 58);
    struct lin_line *line = find(series, supervisor, from);
    if (__builtin_expect(line != NULL, 1))
        return line;
    lin_spin_lock(&series->lock);
    line = find(series, supervisor, from);
    if (line == NULL) {
        line = find(series, 0, from);
        if (line != NULL)
            atomic_store_explicit(&line->supervisor, supervisor, memory_order_release);
    }
    lin_spin_unlock(&series->lock);
    return line != NULL ? line : &series->others;
}

static struct lin_histogram *room_for(struct lin_series *series, struct lin_line *line,
                                      enum lin_part part) {
    struct lin_histogram *histogram = part_of(series, line, part);
    return histogram != NULL ? histogram : load(&series->others, part);
}

void lin_series_record(struct lin_series *series, struct lin_line *line, enum lin_part part,
                       uint64_t ns) {
    lin_histogram_record(room_for(series, line, part), ns);
}

/* The caller waits for this, with histograms that are in no cache: all are fetched at once. */
void lin_series_record_start(struct lin_series *series, struct lin_line *line,
                             const uint64_t ns[LIN_START_PARTS]) {
    struct lin_histogram *histogram[LIN_START_PARTS];
    for (unsigned part = 0; part < LIN_START_PARTS; part++) {
        histogram[part] = room_for(series, line, (enum lin_part)part);
        __builtin_prefetch((const void *)&histogram[part]->sum, 1);
        __builtin_prefetch((const void *)&histogram[part]->count[lin_histogram_bucket(ns[part])],
                           1);
    }
    for (unsigned part = 0; part < LIN_START_PARTS; part++)
        lin_histogram_record(histogram[part], ns[part]);
}

const struct lin_histogram *lin_line_part(const struct lin_line *line, enum lin_part part) {
    return load(line, part);
}

/* The dead's lines are found by nobody from now on. Whether there are any. */
static bool close_dead(struct lin_series *series, void *env) {
    bool any = false;
    for (unsigned i = 0; i < LIN_SERIES; i++) {
        _Atomic uint64_t *supervisor = &series->supervisor[i].supervisor;
        uint64_t pid = atomic_load_explicit(supervisor, memory_order_relaxed);
        if (pid == 0 || lin_gate.host->is_alive(env, pid))
            continue;
        atomic_store_explicit(supervisor, CLOSED, memory_order_relaxed);
        any = true;
    }
    return any;
}

/* Nobody records in `line` any more. */
static void merge(struct lin_series *series, struct lin_line *line) {
    for (unsigned part = 0; part < LIN_PARTS; part++) {
        struct lin_histogram *into = load(&series->gone, part), *from = load(line, part);
        if (from != NULL && into != NULL) {
            lin_histogram_move(into, from);
        } else if (from != NULL) {
            atomic_store_explicit(&series->gone.part[part], from, memory_order_release);
            atomic_store_explicit(&line->part[part], NULL, memory_order_relaxed);
        }
    }
    empty(series, line);
}

void lin_series_sweep(struct lin_series *series, void *env) {
    unsigned used = 0;
    for (unsigned i = 0; i < LIN_SERIES; i++)
        if (atomic_load_explicit(&series->supervisor[i].supervisor, memory_order_relaxed) != 0)
            used++;
    if (used <= LIN_SERIES / 2 || !close_dead(series, env))
        return;
    lin_gate_quiesce(0);
    for (unsigned i = 0; i < LIN_SERIES; i++) {
        struct lin_line *line = &series->supervisor[i];
        if (atomic_load_explicit(&line->supervisor, memory_order_relaxed) != CLOSED)
            continue;
        merge(series, line);
        /* release: whoever is given the line sees it empty. */
        atomic_store_explicit(&line->supervisor, 0, memory_order_release);
    }
}

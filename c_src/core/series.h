/*
 * series.h - histograms of what supervision takes: for each supervisor, and each critical path.
 *
 * Model: a line has a histogram for each part that was ever recorded in it. There are 64 lines for
 * supervisors, given out as they come; when more than half are taken, those of the dead are merged
 * into the line `gone` and given out again. A supervisor that finds no line, and a part for which
 * there is no memory, are recorded in the line `others`, whose histograms are there from the
 * beginning, as are those of the critical paths.
 *
 * | may run together | line, record | read | sweep |
 * |------------------|--------------|------|-------|
 * | line, record     | yes          | yes  | yes   |
 * | read, sweep      |              | no (caller serialises) | no |
 *
 * line and record run inside the gate (gate.h): what a thread found it records before it leaves.
 * sweep waits for that, so it runs outside. Ownership: create/destroy own the memory, given by the
 * gate's host and counted in the census's bytes. Units: ns; pids as terms.
 */
#ifndef LIN_SERIES_H
#define LIN_SERIES_H

#include "histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_SERIES 64u /* supervisors with a line of their own */
#define LIN_CRITICAL 16u

enum lin_part {
    LIN_PART_LATENCY, /* of starts; of a critical path's calls */
    LIN_PART_OVERHEAD,
    LIN_PART_QUEUE,
    LIN_PART_WORK,
    LIN_PART_INIT,
    LIN_PART_BACK,
    LIN_PART_RESTART_BIRTH,
    LIN_PART_RESTART_ACK,
    LIN_PART_STOP_LATENCY,
    LIN_PART_STOP_OVERHEAD,
    LIN_PART_STARTS, /* of critical paths only */
    LIN_PARTS
};

#define LIN_START_PARTS (LIN_PART_BACK + 1)

struct lin_census;

struct lin_line {
    /* 0: free. Writers: line, under the lock; sweep. Readers: any (acquire, pairs with release). */
    _Atomic uint64_t supervisor;
    /* Set once, by CAS (release); taken away by sweep and destroy alone. Readers: any (acquire). */
    _Atomic(struct lin_histogram *) part[LIN_PARTS];
};

struct lin_series {
    struct lin_census *census;
    atomic_flag lock; /* guards the giving out of lines */
    struct lin_line gone, others;
    struct lin_line supervisor[LIN_SERIES];
    struct lin_line critical[LIN_CRITICAL];
};

/* 0, or -ENOMEM: then what was made is freed by deinit all the same. */
int lin_series_init(struct lin_series *series, struct lin_census *census, unsigned criticals);
void lin_series_deinit(struct lin_series *series);

/* The supervisor's line, or `others`. */
struct lin_line *lin_series_line(struct lin_series *series, uint64_t supervisor);
void lin_series_record(struct lin_series *series, struct lin_line *line, enum lin_part part,
                       uint64_t ns);
/* The parts of a start, from LIN_PART_LATENCY to LIN_PART_BACK. */
void lin_series_record_start(struct lin_series *series, struct lin_line *line,
                             const uint64_t ns[LIN_START_PARTS]);
/* NULL: nothing recorded. */
const struct lin_histogram *lin_line_part(const struct lin_line *line, enum lin_part part);

/* Maintenance, outside the gate: when room is short, what the dead have goes to `gone`. */
void lin_series_sweep(struct lin_series *series, void *env);

#endif

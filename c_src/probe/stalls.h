/*
 * stalls.h - what the programs in the kernel say of a scheduler thread that was kept from its work.
 *
 * Model: of each watched thread the kernel keeps since when it is off its CPU, since when it could
 * be on one again; of each CPU what ran on it for long; and since when its samples, one each
 * millisecond of CPU, lie in one shared library. What lasts `threshold_ns` is told when it ends.
 * Units: nanoseconds of CLOCK_MONOTONIC. Process numbers are as the probe's own pid namespace has
 * them; 0: not in it.
 */
#ifndef LIN_PROBE_STALLS_H
#define LIN_PROBE_STALLS_H

#define LIN_STALL_RANGES 64
#define LIN_STALL_CALLS 9
#define LIN_STALL_WORDS 64
#define LIN_STALL_RUNS 16
#define LIN_STALL_PERIOD_NS 1000000

enum lin_stall_kind {
    LIN_STALL_WAITED = 1, /* could run, and had no CPU */
    LIN_STALL_BLOCKED,    /* in a system call, or a page fault */
    LIN_STALL_STOPPED,    /* by a signal or a tracer */
    LIN_STALL_BUSY        /* in a library's code */
};

enum lin_stall_thread { LIN_STALL_SCHEDULER = 1, LIN_STALL_DIRTY_CPU, LIN_STALL_DIRTY_IO };

/* Shared libraries, by where they lie in the node. `lib` 0: one that is anybody's, as libc. */
struct lin_stall_range {
    unsigned long long from, to;
    unsigned lib;
};

struct lin_stall {
    unsigned long long from, to;
    unsigned tid; /* as the kernel has it */
    unsigned kind;
    unsigned by_pid; /* WAITED: who ran instead; 0 with an empty `by`: nobody did */
    unsigned cpu;
    int call;     /* BLOCKED: the system call; -1: none */
    unsigned lib; /* BUSY */
    char by[16];
    unsigned long long word[LIN_STALL_WORDS]; /* BLOCKED: the top of its stack */
};

/* A watched thread. */
struct lin_stall_state {
    unsigned thread; /* enum lin_stall_thread */
    unsigned lib;
    unsigned long long lib_from, lib_to; /* samples in it */
    unsigned long long ready;            /* since when it could run; 0: it can not */
    struct lin_stall now;                /* off its CPU since now.from; 0: it is on one */
};

/* What the iterator tells. */
struct lin_stall_listed {
    unsigned tid, own_tid; /* as the kernel has it, and as the probe's namespace has it */
    char comm[16];
};

#endif

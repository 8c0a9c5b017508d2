/*
 * census.h - what the programs in the kernel say of the births and deaths in one node.
 *
 * Model: a birth is a return of erl_create_process that is a pid, a failed one a return that is
 * none, a death a call of erts_do_exit_process. They are counted while `counting` is set; for
 * `verify` each is told, too, through a ring that counts what found no room. Units: nanoseconds of
 * CLOCK_MONOTONIC.
 */
#ifndef LIN_PROBE_CENSUS_H
#define LIN_PROBE_CENSUS_H

#define LIN_SEEN_DEATH ((unsigned long long)1 << 63)

struct lin_seen {
    unsigned long long pid; /* the term */
    unsigned long long at;  /* with LIN_SEEN_DEATH, or without for a birth */
};

#endif

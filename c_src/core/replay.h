/*
 * replay.h - the processes of a node as they were at some moment, from its journal.
 *
 * Model: blocks go in, in order, then what is left in the rings. What names things (names,
 * functions, sites, ...) is kept by id; the newest complete census before the wanted moment and the
 * events since are kept, and when all is in, put in order by time and applied:
 *
 *     census entries --events behind each ring's place, up to the moment--> live entries
 *
 * An event applies to the process that has its pid at that time, and only if its number is behind
 * the entry's: a census is taken while things happen. Events that cannot be (an unknown kind, a pid
 * that is none) are counted and never applied. The verdict is the node's own (verdict.h), over a
 * census made of the entries.
 * Ownership: the replay's, malloc's; destroy frees. Texts point into it. Threads: one. Units:
 * ticks.
 */
#ifndef LIN_REPLAY_H
#define LIN_REPLAY_H

#include "census.h"
#include "scan.h"

struct lin_replay;

/* `until`: the moment, in ticks; UINT64_MAX: the end. NULL without memory. */
struct lin_replay *lin_replay_create(uint64_t until);
void lin_replay_destroy(struct lin_replay *replay);

/* A lin_block_fn: `arg` is the replay. What finds no memory makes finish fail. */
void lin_replay_block(void *arg, const struct lin_block *block);
/* Behind the last block. */
void lin_replay_left(struct lin_replay *replay, const struct lin_left *left);

struct lin_dead_event { /* an exit, and who it was as far as known */
    struct lin_event event;
    struct lin_entry entry; /* pid 0: its birth is not in the record */
    uint64_t name;
};

/* An entry, and what a record in the node does not have. */
struct lin_shown {
    struct lin_entry entry;
    uint64_t name; /* an atom; 0: none */
    bool orphan;   /* no chain of guardians joins it to a root */
};

struct lin_replayed {
    struct lin_shown *live;
    size_t live_count;
    struct lin_dead_event
        *dead; /* exits with a reason, in order of time; not those that were swept */
    size_t dead_count;
    uint64_t applied, skipped, damaged; /* events: skipped ones a census had in already */
    bool whole;                         /* from a census, or from the run's beginning */
    uint64_t at;                        /* of the last event applied */
};

/* Applies. 0, or -ENOMEM. The result is the replay's. Call once. */
int lin_replay_finish(struct lin_replay *replay, const struct lin_block_run *head,
                      const struct lin_replayed **out);

/* The live process of a pid; NULL: none. */
const struct lin_shown *lin_replay_find(const struct lin_replay *replay, uint64_t pid);
/* What the journal calls things; NULL where it does not say. Not ended by 0: `len` bytes. */
const char *lin_replay_text(const struct lin_replay *replay, enum lin_block_type type, uint64_t id,
                            uint32_t *len);
const struct lin_block_function *lin_replay_function(const struct lin_replay *replay, uint32_t id);
const struct lin_block_site *lin_replay_site(const struct lin_replay *replay, uint32_t id);
uint32_t lin_replay_sites_max(const struct lin_replay *replay); /* ids are below it */

#endif

/*
 * verdict.h - which live processes no chain of guardians joins to a root.
 *
 * Model: each record points at one guardian. A walk along the guardians ends at a root (rooted), at
 * nobody, at a dead one or in a circle (a candidate). Every record on the way gets the same answer,
 * so the whole costs two look-ups a record. A guardian whose links were read (confirm) and did not
 * name the record ends the walk like a dead one.
 * Candidates are an upper bound: under `suspects` a link that a shed process took later is not
 * seen. The caller checks those it shows against process_info.
 * Threads: maintenance (census.h). Ownership: scratch is freed before return and counted in
 * peak_bytes.
 */
#ifndef LIN_VERDICT_H
#define LIN_VERDICT_H

#include "census.h"

struct lin_verdict {
    uint64_t live, orphans, rooted;
    uint64_t roots, runtime, hosts, supervisors, services, own;
};

/* Called for each candidate, in no order; false: no more of them, count on. */
typedef bool (*lin_candidate_fn)(void *arg, uint64_t pid);

/* 0, or -ENOMEM. Sweep first. */
int lin_verdict_run(struct lin_census *census, struct lin_verdict *out, lin_candidate_fn fn,
                    void *arg);

/* Called for each distinct live guardian with how many name it, at most UINT16_MAX. */
typedef void (*lin_guardian_fn)(void *arg, uint64_t pid, uint32_t children);

/* Starts a new link check, in which nobody is confirmed yet. Takes no memory. */
void lin_guardians_run(struct lin_census *census, lin_guardian_fn fn, void *arg);

/* What a guardian's links are, from process_info: inside the gate. */
void lin_confirm_begin(struct lin_census *census, uint64_t guardian);
void lin_confirm_link(struct lin_census *census, uint64_t guardian, uint64_t child);

#endif

/*
 * monitors.h - who would notice a process that has no link: under exact monitors only.
 *
 * Model: a table of monitors on suspects, told by the calls of monitor, demonitor and the spawns
 * that monitor. A call comes before its reference is known, so a monitor is pending, found by its
 * watcher, until the call returns; one made by a spawn has no target either until the birth, which
 * comes in between, in the same process.
 *
 *     call --> pending --return--> placed --demonitor--> gone
 *     spawn --> pending, no target --birth--> pending --return--> placed
 *                 raised, or the target died --> gone
 *
 * A watcher that dies leaves its monitors behind, until the target dies or purge comes by; they
 * count only while their watcher is alive.
 * Threads: any, a short spin lock.
 * Ownership: create/destroy own the memory. Units: pids as terms; references as 64-bit hashes.
 */
#ifndef LIN_MONITORS_H
#define LIN_MONITORS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lin_monitors;

/* NULL when there is no memory. */
struct lin_monitors *lin_monitors_create(void);
void lin_monitors_destroy(struct lin_monitors *monitors);
uint64_t lin_monitors_bytes(void);

/* `watcher` calls monitor on `target`, or a spawn that monitors (target 0). False: no room. */
bool lin_monitors_call(struct lin_monitors *monitors, uint64_t watcher, uint64_t target);
/* The child that `parent`'s pending spawn was for; false when none is pending. */
bool lin_monitors_born(struct lin_monitors *monitors, uint64_t parent, uint64_t child);
/* The call of `watcher` returned this reference, or raised (0). */
void lin_monitors_return(struct lin_monitors *monitors, uint64_t watcher, uint64_t ref);
void lin_monitors_demonitor(struct lin_monitors *monitors, uint64_t ref);

/* Removes the monitors on a dead process; true when a live process held one. `env`: see lin_host.
 */
bool lin_monitors_take(struct lin_monitors *monitors, void *env, uint64_t target);
/* Removes the monitors of dead watchers. */
void lin_monitors_purge(struct lin_monitors *monitors, void *env);

#endif

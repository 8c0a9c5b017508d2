/*
 * scopes.h - for whom a supervisor spawns.
 *
 * Model: a process hands its scope down to what it spawns (census.h). A supervisor that serves a
 * request spawns for whoever asked, in that one's scope, from the call of its handle_call until the
 * return; and a child that died leaves its scope to the one that is started in its place.
 *
 *     handle_call --> serving(supervisor, scope) --births--> return --> gone
 *     death of a child --> heir(child, scope) --the supervisor hears of it--> serving
 *
 * Two small tables with a window for each pid. Without room the entry of a dead process goes, else
 * the one that has stood longest: counted where it was a supervisor's, while most heirs are of
 * children that nobody replaces.
 * Threads: any, a short spin lock. Ownership: create/destroy own the memory, given by the gate's
 * host. Units: pids as terms; scopes as the caller numbers them, 0: none.
 */
#ifndef LIN_SCOPES_H
#define LIN_SCOPES_H

#include "sites.h"

#include <stdbool.h>
#include <stdint.h>

struct lin_scopes;

/* NULL when there is no memory. */
struct lin_scopes *lin_scopes_create(void);
void lin_scopes_destroy(struct lin_scopes *scopes);
uint64_t lin_scopes_bytes(void);

/*
 * From now on `supervisor` spawns in `scope`, for a call in `frame` (module 0: not known). `env`:
 * see lin_host.
 */
void lin_serving_put(struct lin_scopes *scopes, void *env, uint64_t supervisor, uint32_t scope,
                     const struct lin_frame *frame);
/* False, and the rest as it was, when it serves nobody. */
bool lin_serving_read(struct lin_scopes *scopes, uint64_t supervisor, uint32_t *scope,
                      struct lin_frame *frame);
void lin_serving_drop(struct lin_scopes *scopes, uint64_t supervisor);

/* A child died that was of another scope than its supervisor; `frame` as above. */
void lin_heir_put(struct lin_scopes *scopes, uint64_t child, uint32_t scope,
                  const struct lin_frame *frame);
/* False, and the rest as it was, when that child left none. */
bool lin_heir_take(struct lin_scopes *scopes, uint64_t child, uint32_t *scope,
                   struct lin_frame *frame);

/* How many supervisors' entries have gone for want of room. */
uint64_t lin_scopes_lost(const struct lin_scopes *scopes);

#endif

/*
 * timings.h - how long supervisors take to start, restart and stop children, and for what.
 *
 * Model: while the trace points of the calls below are set, a window, each call is followed from
 * its beginning to its end, in one table of what is going on; at the end its parts go into the
 * series (series.h). What a supervisor does for a caller is noted in an entry of the supervisor's,
 * and copied into the caller's when handle_call returns, which is before the reply is sent.
 *
 *     caller      T0 start_child ........................................... T4 returns
 *     supervisor         T1 handle_call ... T2 birth ............ returns
 *     child                                          ... T3 init_ack
 *
 *     latency T0..T4 = queue T0..T1 + work T1..T2 + init T2..T3 + back T3..T4
 *     overhead = latency - init
 *
 * A child that acknowledges nothing (a task) has no init; the last birth counts, and where there is
 * none (the start was handed on to another process) all that handle_call took is work. A restart is
 * from the child's exit to the birth, and to the ack, of the first with the same initial call that
 * is born while the supervisor handles that exit; else of the first born. Of a stop, the
 * child's own part is from T1 to the exit of the last child that ended meanwhile. A critical path
 * is a function that the user has named: its calls, and how much of each its process spent in
 * starts.
 *
 *     off --on--> on: what begins is taken --drain--> what goes on is followed --off--> off
 *
 * What still goes on when a window ends is `unfinished`, what found no room `lost`: no duration is
 * left out for being long, as long as the drain waits for it. An entry is of one window, and free
 * in the next. Entries lie in sets of 16 by pid and role, each with a lock; no two are ever held.
 * In want of room a dead process's entry goes first, then a supervisor's that does nothing, then
 * the death that has stood longest.
 *
 * Threads: all but create, destroy and `turn` run inside the gate, in any thread. The caller
 * serialises `turn`. Ownership: create/destroy own the memory, given by the gate's host. Units:
 * ticks (clock.h) as the caller read them; pids as terms, 0: none.
 */
#ifndef LIN_TIMINGS_H
#define LIN_TIMINGS_H

#include "series.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define LIN_OUTLIERS 256u

enum lin_phase { LIN_TIMING_OFF, LIN_TIMING_ON, LIN_TIMING_DRAIN };

/* What a request to a supervisor asks for. */
enum lin_request { LIN_REQUEST_OTHER, LIN_REQUEST_START, LIN_REQUEST_STOP };

struct lin_function {
    uint64_t module, function;
    uint32_t arity;
};

struct lin_timings_options {
    uint64_t target_ns; /* starts that took longer are told one by one */
    unsigned criticals;
    struct lin_function critical[LIN_CRITICAL];
};

/* A start above the target. */
struct lin_outlier {
    uint64_t caller, supervisor, child;
    uint64_t at[5]; /* T0 to T4 */
    uint64_t busy;  /* ticks of [T0, T1] in which the supervisor served others */
};

struct lin_timing_counts {
    _Atomic uint64_t failed; /* starts and stops that were refused, or raised; so critical calls */
    _Atomic uint64_t elsewhere; /* starts by a supervisor that is not of this node */
    _Atomic uint64_t unfinished;
    _Atomic uint64_t lost;
    _Atomic uint64_t outliers_lost;
};

struct lin_timing_set;

struct lin_timings {
    /* Set by create, then constant. */
    struct lin_timings_options options;
    struct lin_timing_set *sets;
    /* The number of the window, and the phase in the two low bits. Writer: turn (release). Readers:
     * any (acquire): what begins or ends at that very moment may be taken or not. */
    _Atomic uint32_t state;
    /* Writer: turn, before `state`. Readers: any, relaxed, after `state`. */
    _Atomic double ns_per_tick;
    /* Relaxed; sums are exact once the node is quiet. */
    struct lin_timing_counts counts;
    struct lin_series series;
    atomic_flag lock; /* guards the rest */
    uint32_t first, outliers;
    struct lin_outlier outlier[LIN_OUTLIERS];
};

/* NULL when there is no memory, or max_bytes would be passed. */
struct lin_timings *lin_timings_create(struct lin_census *census,
                                       const struct lin_timings_options *options);
/* Accepts NULL. */
void lin_timings_destroy(struct lin_timings *timings);

/* Whether there is a window; what is seen of it otherwise is ordered by its own look. */
static inline bool lin_timings_in_window(const struct lin_timings *timings) {
    return (atomic_load_explicit(&timings->state, memory_order_relaxed) & 3) != LIN_TIMING_OFF;
}

/*
 * Turns to a phase, at `at`, and returns how much is still going on that began in this window; once
 * off, how much of it was dropped. A new window begins only where none is: on, in a window that is
 * being drained, goes on with it, and drain while off stays off. `ns_per_tick`: how long a tick is.
 */
uint32_t lin_timings_turn(struct lin_timings *timings, void *env, enum lin_phase phase,
                          double ns_per_tick, uint64_t at);

/* `caller` asks some supervisor for a start or a stop; calls of calls that ask count as one. */
void lin_timing_ask(struct lin_timings *timings, void *env, uint64_t caller,
                    enum lin_request request, uint64_t at);
/* It has its answer; `ok`: it got what it asked for. */
void lin_timing_answered(struct lin_timings *timings, uint64_t caller, enum lin_request request,
                         bool ok, uint64_t at);

/* `supervisor` turns to a request; `caller` 0: of another node, or to what nobody asked for. */
void lin_timing_serve(struct lin_timings *timings, void *env, uint64_t supervisor, uint64_t caller,
                      enum lin_request request, uint64_t at);
/* `supervisor` turns to the exit of `child`. */
void lin_timing_replace(struct lin_timings *timings, void *env, uint64_t supervisor, uint64_t child,
                        uint64_t at);
/* And is done with whichever it was. */
void lin_timing_served(struct lin_timings *timings, void *env, uint64_t supervisor, uint64_t at);

/* `supervisor` gave birth to `child`. */
void lin_timing_born(struct lin_timings *timings, uint64_t supervisor, uint64_t child,
                     uint32_t initial_call, uint64_t at);
/* `child` tells its parent how its init went. */
void lin_timing_ack(struct lin_timings *timings, uint64_t supervisor, uint64_t child, bool ok,
                    uint64_t at);
struct lin_exit {
    uint64_t supervisor, child;
    uint32_t initial_call;
    bool linked;  /* else the supervisor has let go of it, to stop it, and is told nothing */
    bool told;    /* its exits are known to be told by a trace point where the supervisor hears */
    bool ordered; /* the reason is what a supervisor gives: it may have ended the child itself */
};
/* A supervisor's child exits. */
void lin_timing_exit(struct lin_timings *timings, void *env, const struct lin_exit *exit,
                     uint64_t at);

/* A call of the critical path `which` begins, and ends, in `pid`. */
void lin_timing_enter(struct lin_timings *timings, void *env, uint64_t pid, unsigned which,
                      uint64_t at);
void lin_timing_leave(struct lin_timings *timings, uint64_t pid, unsigned which, bool ok,
                      uint64_t at);

/* Takes the eldest outlier; false when there is none. */
bool lin_timings_outlier(struct lin_timings *timings, struct lin_outlier *out);

#endif

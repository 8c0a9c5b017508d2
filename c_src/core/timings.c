#include "timings.h"

#include "gate.h"
#include "pool.h"
#include "spin.h"

#include <string.h>

#define SETS 256u
#define WAYS 16u

/* Services that follow each other within this are one stretch of being busy. */
#define PAUSE_NS 100000.0
/* How long a death is waited for: by a supervisor that is told of exits; by another one, which may
 * be of a kind that has no trace point. */
#define TOLD_NS 1e9
#define UNTOLD_NS 1e8

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define ADD(field, n) atomic_fetch_add_explicit(&(field), (n), memory_order_relaxed)

enum role {
    CALL,    /* of a caller that asks a supervisor */
    SERVICE, /* of a supervisor: what it does, and since when it has been busy */
    DEATH,   /* of a child that its supervisor has not turned to yet */
    PATH     /* PATH + i: of a process in a call of critical path i */
};

/* What became of a child while a supervisor served. */
struct deed {
    uint64_t child; /* 0: none */
    uint64_t birth, ack, exit;
    bool failed; /* it said so itself */
};

struct slot {
    uint64_t pid; /* 0: free */
    uint32_t window;
    uint32_t role;
    uint32_t depth; /* of calls of calls; of a service 0: done */
    enum lin_request request;
    uint64_t began;
    union {
        struct {
            uint64_t supervisor, served, done, busy;
            struct deed deed;
        } call;
        struct {
            uint64_t caller; /* 0: nobody waits for it */
            uint64_t busy_from, done;
            uint64_t idle, idle_until; /* pauses since busy_from, and the last one's end */
            uint64_t death;            /* of the child whose exit this is about; 0: of none */
            uint32_t initial_call;
            bool same; /* the child that was born has that initial call */
            struct deed deed;
        } service;
        struct {
            uint64_t supervisor, patience;
            uint32_t initial_call;
        } death;
        struct {
            uint64_t in_starts;
        } path;
    } of;
};

struct lin_timing_set {
    atomic_flag lock; /* guards the slots; held for some ten loads and stores */
    struct slot slot[WAYS];
};

#define FIXED_BYTES (sizeof(struct lin_timings) + SETS * sizeof(struct lin_timing_set))

struct lin_timings *lin_timings_create(struct lin_census *census,
                                       const struct lin_timings_options *options) {
    if (!lin_pool_reserve(census, FIXED_BYTES))
        return NULL;
    struct lin_timings *timings = lin_gate.host->alloc(sizeof *timings);
    if (timings == NULL) {
        lin_pool_release(census, FIXED_BYTES);
        return NULL;
    }
    memset((void *)timings, 0, sizeof *timings);
    timings->options = *options;
    timings->sets = lin_gate.host->alloc(SETS * sizeof *timings->sets);
    if (lin_series_init(&timings->series, census, options->criticals) != 0 ||
        timings->sets == NULL) {
        lin_timings_destroy(timings);
        return NULL;
    }
    memset((void *)timings->sets, 0, SETS * sizeof *timings->sets);
    for (uint32_t i = 0; i < SETS; i++)
        atomic_flag_clear(&timings->sets[i].lock);
    atomic_flag_clear(&timings->lock);
    return timings;
}

void lin_timings_destroy(struct lin_timings *timings) {
    if (timings == NULL)
        return;
    lin_series_deinit(&timings->series);
    lin_pool_release(timings->series.census, FIXED_BYTES);
    if (timings->sets != NULL)
        lin_gate.host->free(timings->sets);
    lin_gate.host->free(timings);
}

/* The set of a pid and role, locked. */
static struct lin_timing_set *lock(struct lin_timings *timings, uint64_t pid, uint32_t role) {
    uint32_t hash = (uint32_t)((pid + role) * 0x9e3779b97f4a7c15u >> 40);
    struct lin_timing_set *set = &timings->sets[hash % SETS];
    lin_spin_lock(&set->lock);
    return set;
}

static void unlock(struct lin_timing_set *set) { lin_spin_unlock(&set->lock); }

static struct slot *find_locked(struct lin_timing_set *set, uint64_t pid, uint32_t role,
                                uint32_t window) {
    for (uint32_t i = 0; i < WAYS; i++) {
        struct slot *slot = &set->slot[i];
        if (slot->pid == pid && slot->role == role && slot->window == window)
            return slot;
    }
    return NULL;
}

/* Whose life an entry hangs on. */
static uint64_t owner(const struct slot *slot) {
    return slot->role == DEATH ? slot->of.death.supervisor : slot->pid;
}

/* Whether somebody still waits for the end of what an entry stands for, at `at`. */
static bool is_awaited(const struct slot *slot, uint64_t at) {
    if (slot->role == DEATH)
        return at < slot->of.death.patience;
    return slot->role != SERVICE || (slot->depth > 0 && slot->of.service.death != 0);
}

/* How much an entry is needed; the lowest goes first. */
static int need_of(void *env, const struct slot *slot, uint32_t window) {
    if (slot->pid == 0 || slot->window != window)
        return 0;
    if (!lin_gate.host->is_alive(env, owner(slot)))
        return 1;
    if (slot->role == SERVICE && slot->depth == 0)
        return 2;
    return slot->role == DEATH ? 3 : 4;
}

/* A fresh slot; NULL when there is no room. */
static struct slot *take_locked(struct lin_timings *timings, struct lin_timing_set *set, void *env,
                                uint32_t window, uint64_t at) {
    struct slot *room = NULL;
    int need = 4;
    for (uint32_t i = 0; i < WAYS && need > 0; i++) {
        struct slot *slot = &set->slot[i];
        int its = need_of(env, slot, window);
        if (its < need || (its == 3 && need == 3 && slot->began < room->began)) {
            room = slot;
            need = its;
        }
    }
    if (need == 4)
        return NULL;
    /* What dies with its supervisor is not started again. */
    if (need == 1 && room->role != DEATH && is_awaited(room, at))
        ADD(timings->counts.unfinished, 1);
    else if (need == 3 && is_awaited(room, at))
        ADD(timings->counts.lost, 1);
    memset(room, 0, sizeof *room);
    return room;
}

static struct slot *put_locked(struct lin_timings *timings, struct lin_timing_set *set, void *env,
                               uint64_t pid, uint32_t role, uint32_t window, uint64_t at) {
    struct slot *slot = take_locked(timings, set, env, window, at);
    if (slot != NULL) {
        slot->pid = pid;
        slot->role = role;
        slot->window = window;
        slot->depth = 1;
        slot->began = at;
    }
    return slot;
}

/* What is going on, and what a window is; false when none is. */
static bool in_window(const struct lin_timings *timings, uint32_t *window, enum lin_phase *phase) {
    uint32_t state = atomic_load_explicit(&timings->state, memory_order_acquire);
    *phase = (enum lin_phase)(state & 3);
    *window = state >> 2;
    return *phase != LIN_TIMING_OFF;
}

static uint64_t ticks_of(const struct lin_timings *timings, double ns) {
    return (uint64_t)(ns / GET(timings->ns_per_tick));
}

static uint64_t ns_between(const struct lin_timings *timings, uint64_t from, uint64_t to) {
    return to <= from ? 0 : (uint64_t)((double)(to - from) * GET(timings->ns_per_tick));
}

/* One set's part of a turn: what is awaited there, the dead's entries gone; with `drop`, all. */
static uint32_t settle(struct lin_timings *timings, struct lin_timing_set *set, void *env,
                       uint32_t window, bool drop, uint64_t at) {
    uint32_t awaited = 0, unfinished = 0;
    lin_spin_lock(&set->lock);
    for (uint32_t i = 0; i < WAYS; i++) {
        struct slot *slot = &set->slot[i];
        if (slot->pid == 0 || slot->window != window)
            continue;
        bool is = is_awaited(slot, at), dead = !lin_gate.host->is_alive(env, owner(slot));
        if (is && !dead)
            awaited++;
        if (is && (drop || dead) && !(dead && slot->role == DEATH))
            unfinished++;
        if (drop || dead)
            slot->pid = 0;
    }
    lin_spin_unlock(&set->lock);
    ADD(timings->counts.unfinished, unfinished);
    return awaited;
}

uint32_t lin_timings_turn(struct lin_timings *timings, void *env, enum lin_phase phase,
                          double ns_per_tick, uint64_t at) {
    uint32_t state = GET(timings->state), window = state >> 2, awaited = 0;
    bool was_off = (state & 3) == LIN_TIMING_OFF;
    if (was_off && phase != LIN_TIMING_ON)
        return 0;
    atomic_store_explicit(&timings->ns_per_tick, ns_per_tick, memory_order_relaxed);
    if (was_off)
        window++;
    /* release: whoever sees the window sees how long a tick is. */
    atomic_store_explicit(&timings->state, window << 2 | phase, memory_order_release);
    for (uint32_t i = 0; i < SETS; i++)
        awaited += settle(timings, &timings->sets[i], env, window, phase == LIN_TIMING_OFF, at);
    return awaited;
}

void lin_timing_ask(struct lin_timings *timings, void *env, uint64_t caller,
                    enum lin_request request, uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    if (!in_window(timings, &window, &phase))
        return;
    struct lin_timing_set *set = lock(timings, caller, CALL);
    struct slot *slot = find_locked(set, caller, CALL, window);
    /* Calls of calls are all made before a supervisor turns to it: this one's return was missed. */
    if (slot != NULL && (slot->request != request || slot->of.call.served != 0)) {
        ADD(timings->counts.lost, 1);
        slot->pid = 0;
        slot = NULL;
    }
    if (slot != NULL) {
        slot->depth++;
    } else if (phase == LIN_TIMING_ON) {
        slot = put_locked(timings, set, env, caller, CALL, window, at);
        if (slot != NULL)
            slot->request = request;
        else
            ADD(timings->counts.lost, 1);
    }
    unlock(set);
}

/* Of a call that a critical path makes, or that is one. */
static void count_in_paths(struct lin_timings *timings, uint64_t pid, uint32_t window,
                           uint64_t ticks) {
    for (unsigned i = 0; i < timings->options.criticals; i++) {
        struct lin_timing_set *set = lock(timings, pid, PATH + i);
        struct slot *slot = find_locked(set, pid, PATH + i, window);
        if (slot != NULL)
            slot->of.path.in_starts += ticks;
        unlock(set);
    }
}

static void tell_outlier(struct lin_timings *timings, const struct lin_outlier *outlier) {
    lin_spin_lock(&timings->lock);
    bool room = timings->outliers < LIN_OUTLIERS;
    if (room)
        timings->outlier[(timings->first + timings->outliers++) % LIN_OUTLIERS] = *outlier;
    lin_spin_unlock(&timings->lock);
    if (!room)
        ADD(timings->counts.outliers_lost, 1);
}

static void record_start(struct lin_timings *timings, const struct slot *call, uint64_t at) {
    const struct deed *deed = &call->of.call.deed;
    uint64_t t2 = deed->birth != 0 ? deed->birth : call->of.call.done;
    uint64_t t3 = deed->ack != 0 ? deed->ack : t2;
    struct lin_outlier start = {
        .caller = call->pid,
        .supervisor = call->of.call.supervisor,
        .child = deed->child,
        .at = {call->began, call->of.call.served, t2, t3, at},
        .busy = call->of.call.busy,
    };
    struct lin_series *series = &timings->series;
    struct lin_line *line = lin_series_line(series, start.supervisor);
    uint64_t latency = ns_between(timings, call->began, at), init = ns_between(timings, t2, t3);
    uint64_t ns[LIN_START_PARTS] = {
        [LIN_PART_LATENCY] = latency,
        [LIN_PART_OVERHEAD] = latency > init ? latency - init : 0,
    };
    for (unsigned i = 0; i < 4; i++)
        ns[LIN_PART_QUEUE + i] = ns_between(timings, start.at[i], start.at[i + 1]);
    lin_series_record_start(series, line, ns);
    if (latency > timings->options.target_ns)
        tell_outlier(timings, &start);
}

/* Of one that ended no child (there was none any more) there is nothing to tell. */
static void record_stop(struct lin_timings *timings, const struct slot *call, uint64_t at) {
    uint64_t latency = ns_between(timings, call->began, at);
    uint64_t own = ns_between(timings, call->of.call.served, call->of.call.deed.exit);
    if (call->of.call.deed.exit == 0)
        return;
    struct lin_line *line = lin_series_line(&timings->series, call->of.call.supervisor);
    lin_series_record(&timings->series, line, LIN_PART_STOP_LATENCY, latency);
    lin_series_record(&timings->series, line, LIN_PART_STOP_OVERHEAD,
                      latency > own ? latency - own : 0);
}

/* Takes one depth off; true when that was the last, with a copy of the entry, which is gone. */
static bool end(struct lin_timings *timings, uint64_t pid, uint32_t role, uint32_t window,
                enum lin_request request, struct slot *out) {
    struct lin_timing_set *set = lock(timings, pid, role);
    struct slot *slot = find_locked(set, pid, role, window);
    bool ended = slot != NULL && slot->request == request && --slot->depth == 0;
    if (ended) {
        *out = *slot;
        slot->pid = 0;
    }
    unlock(set);
    return ended;
}

void lin_timing_answered(struct lin_timings *timings, uint64_t caller, enum lin_request request,
                         bool ok, uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    struct slot call;
    if (!in_window(timings, &window, &phase) || !end(timings, caller, CALL, window, request, &call))
        return;
    if (request == LIN_REQUEST_START)
        count_in_paths(timings, caller, window, at > call.began ? at - call.began : 0);
    if (!ok)
        ADD(timings->counts.failed, 1);
    else if (call.of.call.served == 0)
        ADD(timings->counts.elsewhere, request == LIN_REQUEST_START);
    else if (call.of.call.done == 0)
        ADD(timings->counts.lost, 1); /* the supervisor's entry had to go */
    else if (request == LIN_REQUEST_START)
        record_start(timings, &call, at);
    else
        record_stop(timings, &call, at);
}

/*
 * The supervisor's own entry, busy from now on. It goes on with its stretch where that ended a
 * moment ago, or where who is served now has been waiting `since` before: then it had work all the
 * time, and was kept from it. NULL: no room.
 */
static struct slot *begin_service_locked(struct lin_timings *timings, struct lin_timing_set *set,
                                         void *env, uint64_t supervisor, uint32_t window,
                                         uint64_t since, uint64_t at) {
    struct slot *slot = find_locked(set, supervisor, SERVICE, window);
    uint64_t from = at, idle = 0, idle_until = 0;
    if (slot == NULL) {
        slot = put_locked(timings, set, env, supervisor, SERVICE, window, at);
        if (slot == NULL)
            return NULL;
    } else {
        uint64_t done = slot->of.service.done;
        bool pause = at - done > ticks_of(timings, PAUSE_NS);
        if (!pause || since < done) {
            from = slot->of.service.busy_from;
            idle = slot->of.service.idle + (pause ? at - done : 0);
            idle_until = pause ? at : slot->of.service.idle_until;
        }
    }
    slot->depth = 1;
    slot->began = at;
    memset(&slot->of, 0, sizeof slot->of);
    slot->of.service.busy_from = from;
    slot->of.service.idle = idle;
    slot->of.service.idle_until = idle_until;
    return slot;
}

/* How much of the time since `since` the supervisor was busy with others, at least. */
static uint64_t busy_since(const struct slot *service, uint64_t since) {
    uint64_t from = service->of.service.busy_from > since ? service->of.service.busy_from : since;
    uint64_t idle = since < service->of.service.idle_until ? service->of.service.idle : 0;
    return service->began > from + idle ? service->began - from - idle : 0;
}

/* Since when the caller has been waiting, for all that is known. */
static uint64_t waits_since(struct lin_timings *timings, uint64_t caller, uint32_t window,
                            uint64_t at) {
    struct lin_timing_set *set = lock(timings, caller, CALL);
    const struct slot *call = find_locked(set, caller, CALL, window);
    uint64_t since = call != NULL ? call->began : at;
    unlock(set);
    return since;
}

/* Tells the caller's entry, if it has one, that it is being served (NULL: there was no room to
 * follow the supervisor). */
static void meet(struct lin_timings *timings, uint64_t caller, uint32_t window,
                 const struct slot *service) {
    struct lin_timing_set *set = lock(timings, caller, CALL);
    struct slot *call = find_locked(set, caller, CALL, window);
    if (call != NULL && service == NULL) {
        call->pid = 0;
        ADD(timings->counts.lost, 1);
    } else if (call != NULL && call->request == service->request && call->of.call.served == 0) {
        call->of.call.supervisor = service->pid;
        call->of.call.served = service->began;
        call->of.call.busy = busy_since(service, call->began);
    }
    unlock(set);
}

/* One that goes on in a call of itself is the same service. */
static bool goes_on_locked(struct lin_timing_set *set, uint64_t supervisor, uint32_t window,
                           uint64_t caller) {
    struct slot *slot = find_locked(set, supervisor, SERVICE, window);
    if (slot == NULL || slot->depth == 0 || caller == 0 || slot->of.service.caller != caller)
        return false;
    slot->depth++;
    return true;
}

void lin_timing_serve(struct lin_timings *timings, void *env, uint64_t supervisor, uint64_t caller,
                      enum lin_request request, uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    if (!in_window(timings, &window, &phase))
        return;
    bool asked = caller != 0 && request != LIN_REQUEST_OTHER;
    uint64_t since = asked ? waits_since(timings, caller, window, at) : at;
    struct lin_timing_set *set = lock(timings, supervisor, SERVICE);
    if (goes_on_locked(set, supervisor, window, caller)) {
        unlock(set);
        return;
    }
    struct slot service;
    struct slot *slot = begin_service_locked(timings, set, env, supervisor, window, since, at);
    if (slot != NULL) {
        slot->request = request;
        slot->of.service.caller = caller;
        service = *slot;
    }
    unlock(set);
    if (asked)
        meet(timings, caller, window, slot != NULL ? &service : NULL);
}

static bool take_death(struct lin_timings *timings, uint64_t child, uint32_t window,
                       struct slot *out) {
    return end(timings, child, DEATH, window, LIN_REQUEST_OTHER, out);
}

void lin_timing_replace(struct lin_timings *timings, void *env, uint64_t supervisor, uint64_t child,
                        uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    struct slot death;
    if (!in_window(timings, &window, &phase))
        return;
    bool known = take_death(timings, child, window, &death);
    struct lin_timing_set *set = lock(timings, supervisor, SERVICE);
    struct slot *slot = begin_service_locked(timings, set, env, supervisor, window, at, at);
    if (slot != NULL && known) {
        slot->of.service.death = death.began;
        slot->of.service.initial_call = death.of.death.initial_call;
    } else if (known) {
        ADD(timings->counts.lost, 1);
    }
    unlock(set);
}

/* A child that ended before it acknowledged was not started: it is tried again. */
static void record_restart(struct lin_timings *timings, void *env, const struct slot *service) {
    const struct deed *deed = &service->of.service.deed;
    if (deed->child == 0 || deed->failed ||
        (deed->ack == 0 && !lin_gate.host->is_alive(env, deed->child)))
        return;
    uint64_t death = service->of.service.death, ack = deed->ack != 0 ? deed->ack : deed->birth;
    struct lin_line *line = lin_series_line(&timings->series, service->pid);
    lin_series_record(&timings->series, line, LIN_PART_RESTART_BIRTH,
                      ns_between(timings, death, deed->birth));
    lin_series_record(&timings->series, line, LIN_PART_RESTART_ACK,
                      ns_between(timings, death, ack));
}

static void hand_over(struct lin_timings *timings, const struct slot *service, uint32_t window,
                      uint64_t at) {
    uint64_t caller = service->of.service.caller;
    struct lin_timing_set *set = lock(timings, caller, CALL);
    struct slot *call = find_locked(set, caller, CALL, window);
    if (call != NULL && call->of.call.supervisor == service->pid &&
        call->of.call.served == service->began) {
        call->of.call.done = at;
        call->of.call.deed = service->of.service.deed;
    }
    unlock(set);
}

void lin_timing_served(struct lin_timings *timings, void *env, uint64_t supervisor, uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    struct slot service;
    if (!in_window(timings, &window, &phase))
        return;
    struct lin_timing_set *set = lock(timings, supervisor, SERVICE);
    struct slot *slot = find_locked(set, supervisor, SERVICE, window);
    bool done = slot != NULL && slot->depth > 0 && --slot->depth == 0;
    if (done) {
        slot->of.service.done = at;
        service = *slot;
    }
    unlock(set);
    if (!done)
        return;
    if (service.of.service.death != 0)
        record_restart(timings, env, &service);
    else if (service.of.service.caller != 0 && service.request != LIN_REQUEST_OTHER)
        hand_over(timings, &service, window, at);
}

/* A service that is going on, locked; NULL, and nothing locked. */
static struct slot *service_locked(struct lin_timings *timings, uint64_t supervisor,
                                   struct lin_timing_set **set) {
    uint32_t window;
    enum lin_phase phase;
    if (!in_window(timings, &window, &phase))
        return NULL;
    *set = lock(timings, supervisor, SERVICE);
    struct slot *slot = find_locked(*set, supervisor, SERVICE, window);
    if (slot != NULL && slot->depth > 0)
        return slot;
    unlock(*set);
    return NULL;
}

void lin_timing_born(struct lin_timings *timings, uint64_t supervisor, uint64_t child,
                     uint32_t initial_call, uint64_t at) {
    struct lin_timing_set *set;
    struct slot *slot = service_locked(timings, supervisor, &set);
    if (slot == NULL)
        return;
    bool same = slot->of.service.initial_call == initial_call;
    bool counts = slot->of.service.death == 0 || slot->of.service.deed.child == 0 ||
                  (same && !slot->of.service.same);
    if (counts) {
        slot->of.service.deed.child = child;
        slot->of.service.deed.birth = at;
        slot->of.service.deed.ack = 0;
        slot->of.service.deed.failed = false;
        slot->of.service.same = same;
    }
    unlock(set);
}

void lin_timing_ack(struct lin_timings *timings, uint64_t supervisor, uint64_t child, bool ok,
                    uint64_t at) {
    struct lin_timing_set *set;
    struct slot *slot = service_locked(timings, supervisor, &set);
    if (slot == NULL)
        return;
    struct deed *deed = &slot->of.service.deed;
    if (deed->child == child && deed->ack == 0) {
        deed->ack = at;
        deed->failed = !ok;
    }
    unlock(set);
}

/* Whether the exit is a part of what the supervisor is doing: a child that it stops, or whose start
 * fails. */
static bool exit_in_service(struct lin_timings *timings, uint64_t supervisor, uint64_t child,
                            uint64_t at) {
    struct lin_timing_set *set;
    struct slot *slot = service_locked(timings, supervisor, &set);
    if (slot == NULL)
        return false;
    bool stops = slot->request == LIN_REQUEST_STOP;
    if (stops)
        slot->of.service.deed.exit = at;
    const struct deed *deed = &slot->of.service.deed;
    bool its = stops || (deed->child == child && (deed->ack == 0 || deed->failed));
    unlock(set);
    return its;
}

void lin_timing_exit(struct lin_timings *timings, void *env, const struct lin_exit *exit,
                     uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    if (!in_window(timings, &window, &phase) ||
        exit_in_service(timings, exit->supervisor, exit->child, at) || !exit->linked ||
        phase != LIN_TIMING_ON)
        return;
    struct lin_timing_set *set = lock(timings, exit->child, DEATH);
    struct slot *slot = put_locked(timings, set, env, exit->child, DEATH, window, at);
    if (slot != NULL) {
        double patience = exit->ordered ? 0 : exit->told ? TOLD_NS : UNTOLD_NS;
        slot->of.death.supervisor = exit->supervisor;
        slot->of.death.initial_call = exit->initial_call;
        slot->of.death.patience = at + ticks_of(timings, patience);
    } else if (!exit->ordered) {
        ADD(timings->counts.lost, 1);
    }
    unlock(set);
}

void lin_timing_enter(struct lin_timings *timings, void *env, uint64_t pid, unsigned which,
                      uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    if (!in_window(timings, &window, &phase))
        return;
    struct lin_timing_set *set = lock(timings, pid, PATH + which);
    struct slot *slot = find_locked(set, pid, PATH + which, window);
    if (slot != NULL)
        slot->depth++;
    else if (phase == LIN_TIMING_ON &&
             put_locked(timings, set, env, pid, PATH + which, window, at) == NULL)
        ADD(timings->counts.lost, 1);
    unlock(set);
}

void lin_timing_leave(struct lin_timings *timings, uint64_t pid, unsigned which, bool ok,
                      uint64_t at) {
    uint32_t window;
    enum lin_phase phase;
    struct slot path;
    if (!in_window(timings, &window, &phase) ||
        !end(timings, pid, PATH + which, window, LIN_REQUEST_OTHER, &path))
        return;
    if (!ok) {
        ADD(timings->counts.failed, 1);
        return;
    }
    struct lin_line *line = &timings->series.critical[which];
    lin_series_record(&timings->series, line, LIN_PART_LATENCY,
                      ns_between(timings, path.began, at));
    lin_series_record(&timings->series, line, LIN_PART_STARTS,
                      ns_between(timings, 0, path.of.path.in_starts));
}

bool lin_timings_outlier(struct lin_timings *timings, struct lin_outlier *out) {
    lin_spin_lock(&timings->lock);
    bool any = timings->outliers > 0;
    if (any) {
        *out = timings->outlier[timings->first];
        timings->first = (timings->first + 1) % LIN_OUTLIERS;
        timings->outliers--;
    }
    lin_spin_unlock(&timings->lock);
    return any;
}

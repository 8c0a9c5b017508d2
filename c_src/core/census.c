#include "census.h"

#include "pool.h"

#include <errno.h>
#include <string.h>

_Atomic(lin_tap_fn) lin_tap;

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
/* A count has one writer, its thread. */
#define COUNT(counter) SET(counter, GET(counter) + 1)

/* How long after its seeding a pid may still report its own birth, and be the same process. */
#define SEED_GRACE_TICKS 10000000000u

#define SLACK_RECORDS 16384u /* 1 MiB */

/* Ticks of one generation, as a power of two: about a millisecond at 2 GHz. */
#define GENERATION_SHIFT 21

static uint32_t log2_of(uint32_t n) { return 31 - (uint32_t)__builtin_clz(n); }

int lin_census_create(const struct lin_census_options *options, struct lin_census **out) {
    uint32_t limit = options->process_limit;
    if (limit < 1024 || limit > 1u << 27 || (limit & (limit - 1)) != 0)
        return -EINVAL;
    const struct lin_host *host = lin_gate.host;
    bool sites = options->sites != LIN_SITES_OFF;
    size_t index_bytes = (size_t)limit * sizeof(uint32_t);
    uint32_t chunks_max = limit / LIN_CHUNK + limit / LIN_CHUNK / 4 + 64;
    size_t fixed =
        index_bytes + chunks_max * sizeof(void *) + sizeof(struct lin_mfas) +
        sizeof(struct lin_census) + 64 + (options->monitors_exact ? lin_monitors_bytes() : 0) +
        (sites ? lin_sites_bytes(options->sites == LIN_SITES_EXACT) : 0) + lin_scopes_bytes();
    if (fixed > options->max_bytes)
        return -ENOMEM;
    struct lin_census *census = host->alloc(sizeof *census);
    if (census == NULL)
        return -ENOMEM;
    memset(census, 0, sizeof *census);
    census->session = options->session;
    census->state = options->state;
    census->exits_all = options->exits_all;
    census->limit_log2 = (uint8_t)log2_of(limit);
    census->max_bytes = options->max_bytes;
    census->opened = lin_clock_sure();
    census->chunks_max = chunks_max;
    census->slack_records = SLACK_RECORDS;
    census->mfas = lin_mfas_create();
    if (options->monitors_exact)
        census->monitors = lin_monitors_create();
    if (sites)
        census->sites = lin_sites_create(options->sites == LIN_SITES_EXACT);
    census->scopes = lin_scopes_create();
    census->chunks = host->alloc(chunks_max * sizeof(void *));
    if (census->chunks != NULL)
        memset((void *)census->chunks, 0, chunks_max * sizeof(void *));
    census->index = host->alloc(index_bytes);
    if (census->mfas == NULL || census->chunks == NULL || census->index == NULL ||
        census->scopes == NULL || (options->monitors_exact && census->monitors == NULL) ||
        (sites && census->sites == NULL)) {
        lin_census_destroy(census);
        return -ENOMEM;
    }
    memset((void *)census->index, 0, index_bytes);
    atomic_flag_clear(&census->pool_lock);
    lin_pool_account(census, fixed);
    if (options->overhead != NULL) {
        census->timings = lin_timings_create(census, options->overhead);
        if (census->timings == NULL) {
            lin_census_destroy(census);
            return -ENOMEM;
        }
    }
    SET(census->hooked, true);
    *out = census;
    return 0;
}

void lin_census_destroy(struct lin_census *census) {
    if (census == NULL)
        return;
    const struct lin_host *host = lin_gate.host;
    if (census->chunks != NULL && census->index != NULL && census->mfas != NULL)
        lin_pool_destroy(census);
    lin_mfas_destroy(census->mfas);
    lin_monitors_destroy(census->monitors);
    lin_sites_destroy(census->sites);
    lin_scopes_destroy(census->scopes);
    lin_timings_destroy(census->timings);
    if (census->chunks != NULL)
        host->free((void *)census->chunks);
    if (census->index != NULL)
        host->free((void *)census->index);
    host->free(census);
}

void lin_census_adopt_slow(struct lin_census *census, struct lin_thread *self) {
    struct lin_counts *counts = &self->counts;
    SET(counts->births, 0);
    SET(counts->seeded, 0);
    SET(counts->seen, 0);
    SET(counts->swept, 0);
    SET(counts->lost, 0);
    SET(counts->silent, 0);
    SET(counts->unheard, 0);
    self->free_count = 0;
    self->nursery_at = 0;
    self->index = (uintptr_t)census->index;
    self->limit_log2 = census->limit_log2;
    memset(self->nursery, 0, sizeof self->nursery);
    /* release: whoever sums this session's counts sees them reset. */
    atomic_store_explicit(&self->session, census->session, memory_order_release);
}

static void write_begin(struct lin_record *record) {
    SET(record->seq, GET(record->seq) + 1);
    atomic_thread_fence(memory_order_release); /* pairs with the second load in lin_record_read */
}

static void write_end(struct lin_record *record) {
    atomic_store_explicit(&record->seq, GET(record->seq) + 1, memory_order_release);
}

static uint16_t next_no(struct lin_record *record) {
    uint16_t no = (uint16_t)(GET(record->no) + 1);
    SET(record->no, no);
    return no;
}

static struct lin_record *peek(const struct lin_census *census, uint64_t pid) {
    uint32_t value =
        atomic_load_explicit(lin_census_entry(census, pid), memory_order_acquire) & ~LIN_INDEX_LOCK;
    struct lin_record *record = value == 0 ? NULL : lin_census_record(census, value - 1);
    return record != NULL && GET(record->pid) == pid ? record : NULL;
}

/* Locks the pid's entry and returns its record; NULL, and nothing locked, when it is not there. */
static struct lin_record *acquire(const struct lin_census *census, uint64_t pid,
                                  _Atomic uint32_t **entry, uint32_t *value) {
    *entry = lin_census_entry(census, pid);
    *value = lin_index_lock(*entry);
    struct lin_record *record = *value == 0 ? NULL : lin_census_record(census, *value - 1);
    if (record != NULL && GET(record->pid) == pid)
        return record;
    lin_index_unlock(*entry, *value);
    return NULL;
}

static bool unheard_of(uint32_t flags) { return (flags & (LIN_F_LINKED | LIN_CLASS_OWN)) == 0; }

/* Takes the process's monitors out of the table, and says whether anybody held one. */
static enum lin_monitored monitored(struct lin_census *census, void *env,
                                    const struct lin_record *record) {
    uint32_t flags = GET(record->flags);
    if (census->monitors == NULL)
        return LIN_MONITORED_UNKNOWN;
    if ((flags & LIN_F_WATCHED) != 0 && lin_monitors_take(census->monitors, env, GET(record->pid)))
        return LIN_MONITORED_YES;
    /* Monitors from before attach, and from other nodes, are not seen. */
    bool unsure = (flags & (LIN_F_SEEDED | LIN_F_FOREIGN)) != 0 || GET(census->monitors_full);
    return unsure ? LIN_MONITORED_UNKNOWN : LIN_MONITORED_NO;
}

/* The scope that a process's children are born in; and the frame, if it serves a request. */
static uint32_t scope_for(const struct lin_census *census, uint64_t pid, uint32_t flags,
                          uint32_t scope, struct lin_frame *frame) {
    if (__builtin_expect((flags & LIN_F_SERVING) != 0, 0))
        lin_serving_read(census->scopes, pid, &scope, frame);
    return scope;
}

/* Of a process that runs in this thread. */
static uint32_t scope_of(const struct lin_census *census, const struct lin_record *record,
                         struct lin_frame *frame) {
    return scope_for(census, GET(record->pid), GET(record->flags), GET(record->scope), frame);
}

/* What is in another scope than its supervisor was started at somebody's request. */
static void leave_scope(struct lin_census *census, const struct lin_record *record) {
    uint32_t scope = GET(record->scope);
    if (__builtin_expect(scope == 0, 1) || (GET(record->flags) & LIN_F_FOREIGN) != 0)
        return;
    struct lin_entry parent; /* may be dying itself, and its record be another's */
    if (!lin_census_read(census, GET(record->parent), &parent) ||
        (parent.flags & LIN_CLASS_SUPERVISOR) == 0 || parent.scope == scope)
        return;
    const struct lin_site *site =
        census->sites == NULL ? NULL : lin_site_at(census->sites, GET(record->site));
    struct lin_frame frame = {.module = 0};
    lin_heir_put(census->scopes, GET(record->pid), scope, site == NULL ? &frame : &site->frame);
}

/* An abnormal exit that nobody is known to have noticed. */
static void unheard(struct lin_thread *self, enum lin_monitored watched,
                    const struct lin_dead *dead) {
    lin_site_count(self, dead->site, false);
    if (watched == LIN_MONITORED_UNKNOWN) {
        COUNT(self->counts.unheard);
        return;
    }
    COUNT(self->counts.silent);
    lin_recent_push(self, LIN_RING_SILENT, dead);
}

/* What is remembered of a death. The entry is locked. */
static void bury(struct lin_census *census, struct lin_thread *self, void *env,
                 struct lin_record *record, uint64_t reason, bool abnormal, bool seen) {
    uint32_t flags = GET(record->flags);
    COUNT(*(seen ? &self->counts.seen : &self->counts.swept));
    leave_scope(census, record);
    enum lin_monitored watched = monitored(census, env, record);
    if (unheard_of(flags)) {
        struct lin_dead dead = {
            .pid = GET(record->pid),
            .parent = GET(record->parent),
            .birth = GET(record->birth),
            .death = lin_clock_ticks(),
            .reason = reason,
            .initial_call = GET(record->initial_call),
            .spawner = GET(record->spawner),
            .flags = flags,
            .site = GET(record->site),
            .scope = GET(record->scope),
            .abnormal = abnormal,
            .monitored = (uint8_t)watched,
        };
        lin_recent_push(self, LIN_RING_DEAD, &dead);
        if (seen && abnormal && watched != LIN_MONITORED_YES)
            unheard(self, watched, &dead);
    }
    LIN_TAP(record, .ticks = lin_clock_ticks(), .pid = GET(record->pid), .a = reason, .b = abnormal,
            .no = next_no(record), .kind = seen ? LIN_EV_EXIT : LIN_EV_SWEPT,
            .flags = (uint8_t)flags);
}

static void clear(struct lin_record *record) {
    write_begin(record);
    SET(record->pid, 0);
    write_end(record);
}

/* Writes all of a free record but who it is and since when: it stays free until it is published. */
static void fill(struct lin_census *census, struct lin_record *record,
                 const struct lin_birth *birth, uint64_t guardian) {
    uint32_t flags = birth->flags | lin_mfa_class(census->mfas, birth->initial_call);
    struct lin_record *parent =
        (flags & LIN_F_FOREIGN) != 0 || birth->parent == 0 ? NULL : peek(census, birth->parent);
    struct lin_frame frame;
    /* Whom the parent of a seed serves now is not for whom it spawned it. */
    uint32_t scope = parent == NULL                ? 0
                     : (flags & LIN_F_SEEDED) != 0 ? GET(parent->scope)
                                                   : scope_of(census, parent, &frame);
    uint32_t spawner = parent == NULL ? 0 : GET(parent->initial_call);
    struct lin_entry still;
    /* A birth's parent is running in this thread; that of a seed may die and its record go on. */
    if ((flags & LIN_F_SEEDED) != 0 && parent != NULL)
        spawner = lin_census_read(census, birth->parent, &still) ? still.initial_call : 0;
    write_begin(record);
    SET(record->flags, flags);
    SET(record->parent, birth->parent);
    SET(record->guardian, guardian);
    SET(record->site, birth->site);
    SET(record->initial_call, birth->initial_call);
    SET(record->scope, scope);
    SET(record->spawner, spawner);
    SET(record->no, 0);
    SET(record->confirmed, (uint16_t)GET(census->epoch));
    SET(record->checked, 0);
    write_end(record);
}

/* A free record, filled; NULL: there is no room. */
static inline struct lin_record *make(struct lin_census *census, struct lin_thread *self,
                                      const struct lin_birth *birth, uint64_t guardian,
                                      uint32_t *number) {
    *number = lin_pool_take(census, self);
    if (__builtin_expect(*number == LIN_NO_RECORD, 0))
        return NULL;
    struct lin_record *record = lin_census_record(census, *number);
    fill(census, record, birth, guardian);
    return record;
}

/* The entry is locked: whoever was there before has been buried. */
static void publish(struct lin_record *record, uint64_t pid) {
    write_begin(record);
    SET(record->birth, lin_clock_ticks());
    SET(record->pid, pid);
    write_end(record);
}

static void tap_birth(const struct lin_census *census, struct lin_record *record) {
    if (__builtin_expect(atomic_load_explicit(&lin_tap, memory_order_relaxed) == NULL, 1))
        return;
    struct lin_entry entry;
    if (!lin_record_read(record, &entry))
        return;
    LIN_TAP(record, .ticks = entry.birth, .pid = entry.pid, .a = entry.parent, .b = entry.site,
            .no = next_no(record), .kind = LIN_EV_BIRTH, .flags = (uint8_t)entry.flags);
    uint64_t generation = lin_census_generation(census, &entry);
    LIN_TAP(record, .ticks = entry.birth, .pid = entry.pid,
            .a = (uint64_t)entry.scope << 32 | generation, .b = entry.initial_call,
            .no = next_no(record), .kind = LIN_EV_BORN, .flags = (uint8_t)entry.flags);
    if (entry.guardian != 0) /* it was there before attach */
        LIN_TAP(record, .ticks = entry.birth, .pid = entry.pid, .a = entry.guardian, .b = 1,
                .no = next_no(record), .kind = LIN_EV_LINK, .flags = (uint8_t)entry.flags);
}

/* What Erlang has changed. */
static void tap_flags(struct lin_record *record, uint32_t flags) {
    LIN_TAP(record, .ticks = lin_clock_ticks(), .pid = GET(record->pid), .a = flags,
            .b = GET(record->scope), .no = next_no(record), .kind = LIN_EV_FLAGS,
            .flags = (uint8_t)flags);
}

/*
 * Takes the record away if it is the pid's and the pid is dead. The entry is locked, with this
 * value, and is unlocked. `env` may be NULL where the host allows it.
 */
static bool sweep_locked(struct lin_census *census, struct lin_thread *self, void *env,
                         _Atomic uint32_t *entry, uint32_t value, uint64_t pid) {
    struct lin_record *record = lin_census_record(census, value - 1);
    bool dead = GET(record->pid) == pid && !lin_gate.host->is_alive(env, pid);
    if (dead) {
        bury(census, self, env, record, 0, false, false);
        clear(record);
    }
    lin_index_unlock(entry, dead ? 0 : value);
    if (dead)
        lin_pool_give(census, self, value - 1);
    return dead;
}

static bool sweep_one(struct lin_census *census, struct lin_thread *self, void *env,
                      uint32_t number, uint64_t pid) {
    if (lin_gate.host->is_alive(env, pid))
        return false;
    /* The pid may have come round again since: what is in the census now decides. */
    _Atomic uint32_t *entry = lin_census_entry(census, pid);
    uint32_t value = lin_index_lock(entry);
    if (value == number + 1)
        return sweep_locked(census, self, env, entry, value, pid);
    lin_index_unlock(entry, value);
    return false;
}

/*
 * Looks once more at what was born here 256 births ago: most that die do so young, and the exit of
 * one with a link is not told. What somebody else holds is left to the sweep.
 */
static void nursery_look(struct lin_census *census, struct lin_thread *self, void *env) {
    uint32_t elder = self->nursery[self->nursery_at];
    self->nursery[self->nursery_at] = 0;
    struct lin_record *record = elder == 0 ? NULL : lin_census_record(census, elder - 1);
    uint64_t pid = record == NULL ? 0 : GET(record->pid);
    if (pid == 0 || (GET(record->flags) & LIN_F_LINKED) == 0 || lin_gate.host->is_alive(env, pid))
        return;
    _Atomic uint32_t *entry = lin_census_entry(census, pid);
    if (lin_index_try(entry, elder))
        sweep_locked(census, self, env, entry, elder, pid);
}

static void nursery_put(const struct lin_census *census, struct lin_thread *self, uint32_t number) {
    self->nursery[self->nursery_at] = number + 1;
    self->nursery_at = (self->nursery_at + 1) % LIN_NURSERY;
    uint32_t next = self->nursery[self->nursery_at];
    struct lin_record *elder = next == 0 ? NULL : lin_census_record(census, next - 1);
    if (elder != NULL)
        __builtin_prefetch((const void *)lin_census_entry(census, GET(elder->pid)), 1);
}

/* Whether the record was seeded moments ago from this very process, whose birth is told only now.
 */
static bool seeded_early(const struct lin_record *record, uint64_t pid) {
    if (GET(record->pid) != pid || (GET(record->flags) & LIN_F_SEEDED) == 0)
        return false;
    return lin_clock_ticks() - GET(record->birth) <
           SEED_GRACE_TICKS; /* a few seconds on any clock */
}

/* Frees the record of a locked entry: of one that is dead, or was seeded and is born only now. */
static void vacate(struct lin_census *census, struct lin_thread *self, void *env, uint64_t pid,
                   uint32_t value) {
    if (value == 0)
        return;
    struct lin_record *record = lin_census_record(census, value - 1);
    if (seeded_early(record, pid))
        SET(self->counts.seeded, GET(self->counts.seeded) - 1);
    else
        bury(census, self, env, record, 0, false, false);
    clear(record);
    lin_pool_give(census, self, value - 1);
}

/*
 * The site of a birth, with the frame that its parent is in, if that is pending. The parent is
 * running in this thread; one on another node has no record here.
 */
LIN_ASIDE static uint32_t site_by_parent(struct lin_census *census, const struct lin_birth *birth,
                                         bool exact) {
    bool local = (birth->flags & LIN_F_FOREIGN) == 0;
    struct lin_frame frame = {.module = 0};
    bool framed = exact && local && lin_pending_take(census->sites, birth->parent, &frame);
    /* The library's own processes are no part of any report. */
    if ((lin_mfa_class(census->mfas, birth->initial_call) & LIN_CLASS_OWN) != 0)
        return 0;
    const struct lin_record *parent = local && !framed ? peek(census, birth->parent) : NULL;
    /* Where no line of a user's code spawned it, that of whoever asked a supervisor for it. */
    if (exact && parent != NULL) {
        scope_of(census, parent, &frame);
        framed = frame.module != 0;
    }
    if (birth->site != 0 && !framed)
        return birth->site;
    struct lin_site site = {.initial_call = birth->initial_call};
    if (birth->site != 0)
        site = *lin_site_at(census->sites, birth->site);
    site.frame = frame;
    if (parent != NULL && !framed)
        site.spawner = GET(parent->initial_call);
    return lin_site_intern(census->sites, &site);
}

static uint32_t site_of(struct lin_census *census, const struct lin_birth *birth) {
    bool exact = lin_sites_exact(census->sites);
    return birth->site != 0 && !exact ? birth->site : site_by_parent(census, birth, exact);
}

void lin_census_birth(struct lin_census *census, struct lin_thread *self, void *env,
                      struct lin_birth *birth) {
    if (census->sites != NULL) {
        birth->site = site_of(census, birth);
        lin_site_count(self, birth->site, true);
    }
    COUNT(self->counts.births);
    /* All that can be done without the entry comes first: it may still be on its way here. */
    if (!census->exits_all)
        nursery_look(census, self, env);
    uint32_t number;
    struct lin_record *record = make(census, self, birth, 0, &number);
    _Atomic uint32_t *entry = lin_census_entry(census, birth->pid);
    vacate(census, self, env, birth->pid, lin_index_lock(entry));
    if (__builtin_expect(record == NULL, 0)) /* but what was there may have left one */
        record = make(census, self, birth, 0, &number);
    if (__builtin_expect(record == NULL, 0)) {
        COUNT(self->counts.lost);
        lin_index_unlock(entry, 0);
        return;
    }
    publish(record, birth->pid);
    tap_birth(census, record);
    if (census->monitors != NULL && birth->parent != 0 &&
        lin_monitors_born(census->monitors, birth->parent, birth->pid))
        SET(record->flags, GET(record->flags) | LIN_F_WATCHED);
    lin_index_unlock(entry, number + 1);
    if (!census->exits_all)
        nursery_put(census, self, number);
}

enum lin_seed lin_census_seed(struct lin_census *census, struct lin_thread *self, void *env,
                              const struct lin_birth *birth, uint64_t guardian) {
    _Atomic uint32_t *entry = lin_census_entry(census, birth->pid);
    uint32_t value = lin_index_lock(entry);
    if (!lin_gate.host->is_alive(env, birth->pid)) {
        lin_index_unlock(entry, value);
        return LIN_SEED_DEAD;
    }
    if (value != 0 && GET(lin_census_record(census, value - 1)->pid) == birth->pid) {
        lin_index_unlock(entry, value);
        return LIN_SEED_KNOWN;
    }
    vacate(census, self, env, birth->pid, value);
    COUNT(self->counts.seeded);
    struct lin_birth seeded = *birth;
    seeded.flags |= LIN_F_SEEDED | (guardian != 0 ? LIN_F_LINKED | LIN_F_BIRTH_LINK : 0);
    uint32_t number;
    struct lin_record *record = make(census, self, &seeded, guardian, &number);
    if (record == NULL) {
        COUNT(self->counts.lost);
        lin_index_unlock(entry, 0);
        return LIN_SEED_LOST;
    }
    publish(record, birth->pid);
    tap_birth(census, record);
    lin_index_unlock(entry, number + 1);
    /* It may have died before its record stood there for its exit event to find. */
    if (!lin_gate.host->is_alive(env, birth->pid))
        sweep_one(census, self, env, number, birth->pid);
    return LIN_SEED_OK;
}

/*
 * Whether a link of `pid` that was not there at its birth may hold it: not a service's bookkeeping,
 * at either end, and not what hangs on `pid` itself, as the child of its spawn_link does.
 */
static bool may_hold(const struct lin_census *census, uint64_t pid, uint32_t flags, uint64_t peer) {
    struct lin_record *record = peek(census, peer);
    if ((flags & LIN_CLASS_SERVICE) != 0)
        return false;
    return record == NULL ||
           ((GET(record->flags) & LIN_CLASS_SERVICE) == 0 && GET(record->guardian) != pid);
}

void lin_census_link(struct lin_census *census, uint64_t pid, uint64_t peer) {
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return;
    uint32_t flags = GET(record->flags);
    uint64_t guardian = GET(record->guardian);
    bool holds = false;
    bool birth_link =
        peer != 0 && (flags & (LIN_F_LINKED | LIN_F_SEEDED)) == 0 && peer == GET(record->parent);
    flags |= LIN_F_LINKED;
    if (peer == 0) {
        flags |= LIN_F_REMOTE_LINK;
    } else if (birth_link ||
               ((flags & LIN_F_BIRTH_LINK) == 0 && may_hold(census, pid, flags, peer))) {
        guardian = peer;
        holds = true;
        flags = (flags & ~LIN_F_ESCAPED) | (birth_link ? LIN_F_BIRTH_LINK : 0);
    }
    write_begin(record);
    SET(record->flags, flags);
    SET(record->guardian, guardian);
    SET(record->confirmed, (uint16_t)GET(census->epoch));
    write_end(record);
    LIN_TAP(record, .ticks = lin_clock_ticks(), .pid = pid, .a = peer, .b = holds,
            .no = next_no(record), .kind = LIN_EV_LINK, .flags = (uint8_t)flags);
    lin_index_unlock(entry, value);
}

void lin_census_unlink(struct lin_census *census, uint64_t pid, uint64_t peer) {
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return;
    uint32_t flags = GET(record->flags);
    bool held = peer != 0 && GET(record->guardian) == peer;
    if (held) {
        flags = (flags & ~LIN_F_BIRTH_LINK) | LIN_F_ESCAPED;
        write_begin(record);
        SET(record->guardian, 0);
        SET(record->flags, flags);
        write_end(record);
    }
    LIN_TAP(record, .ticks = lin_clock_ticks(), .pid = pid, .a = peer, .b = held,
            .no = next_no(record), .kind = LIN_EV_UNLINK, .flags = (uint8_t)flags);
    lin_index_unlock(entry, value);
}

void lin_census_name(struct lin_census *census, uint64_t pid, uint64_t name) {
    if (atomic_load_explicit(&lin_tap, memory_order_relaxed) == NULL)
        return;
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return;
    LIN_TAP(record, .ticks = lin_clock_ticks(), .pid = pid, .a = name, .no = next_no(record),
            .kind = LIN_EV_NAME, .flags = (uint8_t)GET(record->flags));
    lin_index_unlock(entry, value);
}

void lin_census_exit(struct lin_census *census, struct lin_thread *self, void *env, uint64_t pid,
                     uint64_t reason, bool abnormal) {
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return;
    bury(census, self, env, record, reason, abnormal, true);
    clear(record);
    lin_index_unlock(entry, 0);
    lin_pool_give(census, self, value - 1);
}

void lin_census_monitor(struct lin_census *census, uint64_t watcher, uint64_t target) {
    const struct lin_record *own = peek(census, watcher);
    /* The library's own monitors are nobody's who would notice. */
    if ((target != 0 && !lin_census_is_suspect(census, target)) ||
        (own != NULL && (GET(own->flags) & LIN_CLASS_OWN) != 0))
        return;
    if (!lin_monitors_call(census->monitors, watcher, target))
        SET(census->monitors_full, true);
    else if (target != 0)
        lin_census_flag(census, target, LIN_F_WATCHED, 0);
}

bool lin_census_flag(struct lin_census *census, uint64_t pid, uint32_t set, uint32_t clear_bits) {
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return false;
    uint32_t former = GET(record->flags), flags = (former | set) & ~clear_bits;
    write_begin(record);
    SET(record->flags, flags);
    write_end(record);
    if (((former ^ flags) & LIN_CLASSES) != 0) /* classes are told again each second */
        tap_flags(record, flags);
    lin_index_unlock(entry, value);
    return true;
}

bool lin_census_scope(struct lin_census *census, uint64_t pid, uint32_t scope, uint32_t *former) {
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return false;
    *former = GET(record->scope);
    write_begin(record);
    SET(record->scope, scope);
    write_end(record);
    if (*former != scope)
        tap_flags(record, GET(record->flags));
    lin_index_unlock(entry, value);
    return true;
}

static void serve(struct lin_census *census, void *env, uint64_t supervisor, uint32_t scope,
                  const struct lin_frame *frame) {
    const struct lin_record *record = peek(census, supervisor);
    if (record == NULL)
        return;
    if (scope == GET(record->scope)) {
        lin_census_served(census, supervisor);
        return;
    }
    /* handle_call may call itself, and so be told twice: the request was made once. */
    struct lin_frame first = {.module = 0};
    uint32_t served = scope;
    if (frame->module == 0 && (GET(record->flags) & LIN_F_SERVING) != 0)
        lin_serving_read(census->scopes, supervisor, &served, &first);
    bool again = served == scope && first.module != 0;
    lin_serving_put(census->scopes, env, supervisor, scope, again ? &first : frame);
    lin_census_flag(census, supervisor, LIN_F_SERVING, 0);
}

void lin_census_serve(struct lin_census *census, void *env, uint64_t supervisor, uint64_t caller) {
    struct lin_entry asks;
    struct lin_frame frame = {.module = 0};
    bool exact = census->sites != NULL && lin_sites_exact(census->sites);
    struct lin_frame own = {.module = 0};
    uint32_t scope = 0;
    bool asked = exact && lin_pending_asked(census->sites, caller, &own, &scope);
    if (exact && !asked)
        lin_pending_take(census->sites, caller, &own);
    /* One that serves a request itself asks in another's name; one may have died since it asked. */
    if (lin_census_read(census, caller, &asks))
        scope = scope_for(census, caller, asks.flags, asks.scope, &frame);
    else if (!asked)
        return;
    serve(census, env, supervisor, scope, own.module != 0 ? &own : &frame);
}

void lin_census_ask(struct lin_census *census, void *env, uint64_t caller) {
    const struct lin_record *record = peek(census, caller);
    struct lin_frame frame;
    if (record != NULL && census->sites != NULL && lin_sites_exact(census->sites))
        lin_pending_ask(census->sites, env, caller, scope_of(census, record, &frame));
}

void lin_census_replace(struct lin_census *census, void *env, uint64_t supervisor, uint64_t child) {
    struct lin_frame frame;
    uint32_t scope;
    if (lin_heir_take(census->scopes, child, &scope, &frame))
        serve(census, env, supervisor, scope, &frame);
}

void lin_census_served(struct lin_census *census, uint64_t supervisor) {
    const struct lin_record *record = peek(census, supervisor);
    if (record == NULL || (GET(record->flags) & LIN_F_SERVING) == 0)
        return;
    lin_census_flag(census, supervisor, 0, LIN_F_SERVING);
    lin_serving_drop(census->scopes, supervisor);
}

bool lin_census_set_guardian(struct lin_census *census, uint64_t pid, uint64_t guardian) {
    _Atomic uint32_t *entry;
    uint32_t value;
    struct lin_record *record = acquire(census, pid, &entry, &value);
    if (record == NULL)
        return false;
    uint32_t flags = (GET(record->flags) | LIN_F_LINKED) & ~(LIN_F_ESCAPED | LIN_F_BIRTH_LINK);
    write_begin(record);
    SET(record->guardian, guardian);
    SET(record->flags, flags);
    SET(record->confirmed, (uint16_t)GET(census->epoch));
    write_end(record);
    LIN_TAP(record, .ticks = lin_clock_ticks(), .pid = pid, .a = guardian, .no = next_no(record),
            .kind = LIN_EV_GUARDIAN, .flags = (uint8_t)flags);
    lin_index_unlock(entry, value);
    return true;
}

bool lin_record_read(const struct lin_record *record, struct lin_entry *out) {
    for (;;) {
        uint32_t seq = atomic_load_explicit(&record->seq, memory_order_acquire);
        out->pid = GET(record->pid);
        out->parent = GET(record->parent);
        out->guardian = GET(record->guardian);
        out->birth = GET(record->birth);
        out->flags = GET(record->flags);
        out->site = GET(record->site);
        out->scope = GET(record->scope);
        out->initial_call = GET(record->initial_call);
        out->spawner = GET(record->spawner);
        out->no = GET(record->no);
        atomic_thread_fence(memory_order_acquire); /* pairs with write_begin */
        if ((seq & 1) == 0 && GET(record->seq) == seq)
            return out->pid != 0;
    }
}

bool lin_census_read(const struct lin_census *census, uint64_t pid, struct lin_entry *out) {
    struct lin_record *record = peek(census, pid);
    return record != NULL && lin_record_read(record, out) && out->pid == pid;
}

bool lin_census_is_suspect(const struct lin_census *census, uint64_t pid) {
    struct lin_record *record = peek(census, pid);
    return record != NULL && (GET(record->flags) & LIN_F_LINKED) == 0;
}

uint32_t lin_census_generation(const struct lin_census *census, const struct lin_entry *entry) {
    if ((entry->flags & LIN_F_SEEDED) != 0)
        return 0;
    if (entry->birth <= census->opened.ticks)
        return 1;
    /* Of ticks alone: a rate that is measured again each time would name one process by two. */
    uint32_t generation = (uint32_t)((entry->birth - census->opened.ticks) >> GENERATION_SHIFT) + 1;
    return generation == 0 ? 1 : generation;
}

void lin_census_totals(const struct lin_census *census, struct lin_totals *out) {
    memset(out, 0, sizeof *out);
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next) {
        /* acquire: pairs with the release in adopt. */
        if (atomic_load_explicit(&thread->session, memory_order_acquire) != census->session)
            continue;
        /* Deaths first: a death counted here has its birth counted below. */
        out->seen += atomic_load_explicit(&thread->counts.seen, memory_order_acquire);
        out->swept += atomic_load_explicit(&thread->counts.swept, memory_order_acquire);
        out->silent += GET(thread->counts.silent);
        out->unheard += GET(thread->counts.unheard);
        out->lost += GET(thread->counts.lost);
    }
    thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next) {
        if (atomic_load_explicit(&thread->session, memory_order_acquire) != census->session)
            continue;
        out->births += GET(thread->counts.births);
        out->seeded += GET(thread->counts.seeded);
    }
    uint64_t in = out->births + out->seeded;
    uint64_t gone = out->seen + out->swept + out->lost;
    out->records = in > gone ? in - gone : 0;
    uint64_t held = (uint64_t)GET(census->chunks_used) * LIN_CHUNK;
    out->free_records = held > out->records ? held - out->records : 0;
    uint64_t threads = atomic_load_explicit(&lin_gate.thread_bytes, memory_order_relaxed);
    out->bytes = GET(census->bytes) + threads;
    out->peak_bytes = GET(census->peak_bytes) + threads;
}

uint64_t lin_census_sweep(struct lin_census *census, struct lin_thread *self, void *env) {
    uint64_t swept = 0;
    if (census->monitors != NULL)
        lin_monitors_purge(census->monitors, env);
    for (uint32_t n = 0; n < census->chunks_max; n++) {
        struct lin_chunk *chunk = atomic_load_explicit(&census->chunks[n], memory_order_acquire);
        if (chunk == NULL)
            continue;
        for (uint32_t i = 0; i < LIN_CHUNK; i++) {
            uint64_t pid = atomic_load_explicit(&chunk->record[i].pid, memory_order_acquire);
            if (pid != 0 && sweep_one(census, self, env, n * LIN_CHUNK + i, pid))
                swept++;
        }
    }
    return swept;
}

void lin_census_note_scratch(struct lin_census *census, uint64_t bytes) {
    lin_pool_account(census, bytes);
    lin_pool_release(census, bytes);
}

/*
 * journal_maker.h - a journal in memory, of a census that random things happen to.
 *
 * Model: the tap writes each event into one of three rings, as three threads would; now and then
 * the rings are written into blocks, a census is taken in steps, and things go on between. What is
 * in the rings at the end is what a killed node leaves. Threads: one; one source file includes
 * this.
 */
#ifndef JOURNAL_MAKER_H
#define JOURNAL_MAKER_H

#include "fake_host.h"
#include "replay.h"
#include "stress.h"

#include <string.h>

#define MAKER_RINGS 3u
#define MAKER_RUN 0x1122334455667788u
#define MAKER_ROOM (8u << 20)

static struct {
    uint64_t seed;
    struct lin_census *census;
    struct lin_thread *self;
    struct lin_rings *rings;
    uint64_t events;      /* that the tap was told */
    unsigned char *bytes; /* the segment */
    size_t used;
    size_t census_at; /* where the newest census begins */
    uint64_t block_no;
    uint64_t pid[1024];
    uint32_t pids, born;
} maker;

static void maker_tap(const struct lin_event *event, const struct lin_record *record) {
    (void)record;
    maker.events++;
    lin_ring_write(maker.rings, (uint32_t)(dice(&maker.seed) % MAKER_RINGS), event, 0);
}

static void *maker_payload(void) { return maker.bytes + maker.used + sizeof(struct lin_block); }

static void maker_seal(enum lin_block_type type, size_t payload) {
    struct lin_block *block = (struct lin_block *)(void *)(maker.bytes + maker.used);
    uint64_t ticks = lin_clock_ticks();
    lin_block_seal(block, type, (uint32_t)payload, MAKER_RUN, maker.block_no++, ticks,
                   1000000000000000000u + ticks);
    maker.used += lin_block_padded(block->bytes);
    CHECK(maker.used < MAKER_ROOM - LIN_BLOCK_MAX);
}

static void maker_run(void) {
    struct lin_block_run *run = maker_payload();
    memset(run, 0, sizeof *run);
    run->opened = maker.census->opened;
    run->opened_wall_ns = 1000000000000000000u + maker.census->opened.ticks;
    run->limit_log2 = 12;
    run->pid_layout = LIN_PID_15;
    run->release = 25;
    run->rings = MAKER_RINGS;
    run->capacity = maker.rings->capacity;
    run->os_pid = maker.rings->os_pid;
    run->os_start = maker.rings->os_start;
    strcpy(run->node, "maker@nohost");
    maker_seal(LIN_BLOCK_RUN, sizeof *run);
}

static void maker_functions(void) {
    struct lin_block_function *function = maker_payload();
    size_t count = 0;
    for (uint32_t id = 1; id < LIN_MFA_SLOTS; id++) {
        const struct lin_mfa *mfa = lin_mfa_at(maker.census->mfas, id);
        if (mfa != NULL)
            function[count++] = (struct lin_block_function){.id = id,
                                                            .arity = mfa->arity,
                                                            .module = mfa->module,
                                                            .function = mfa->function,
                                                            .class = mfa->class};
    }
    maker_seal(LIN_BLOCK_FUNCTIONS, count * sizeof *function);
}

/* Up to `max` events of each ring. */
static void maker_write(uint32_t max) {
    for (uint32_t n = 0; n < MAKER_RINGS; n++) {
        uint64_t position = lin_ring_at(maker.rings, n)->tail;
        const struct lin_event *from;
        uint32_t count = lin_ring_read(maker.rings, n, &position, max, &from, NULL);
        if (count == 0)
            continue;
        struct lin_block_events *events = maker_payload();
        events->ring = n;
        events->count = count;
        events->position = position;
        memcpy(events->event, from, count * sizeof *from);
        maker_seal(LIN_BLOCK_EVENTS, sizeof *events + count * sizeof *from);
        lin_ring_release(maker.rings, n, position + count);
    }
}

static uint64_t maker_any(void) {
    return maker.pids == 0 ? 0 : maker.pid[dice(&maker.seed) % maker.pids];
}

static void maker_gone(uint64_t pid) {
    for (uint32_t i = 0; i < maker.pids; i++)
        if (maker.pid[i] == pid)
            maker.pid[i--] = maker.pid[--maker.pids];
}

/* Numbers below 4,096 live at once, one in each slot; the second round takes others. */
static uint64_t maker_new_pid(void) { return fake_start(1 + maker.born++); }

static void maker_birth(void) {
    uint64_t any = maker_any();
    struct lin_birth birth = {
        .pid = maker_new_pid(),
        .parent = any,
        .initial_call = lin_mfa_intern(maker.census->mfas, dice(&maker.seed) % 7 + 1, 2, 3)};
    if (maker.pids == 1024) {
        fake_kill(birth.pid);
        return;
    }
    if (dice(&maker.seed) % 8 == 0)
        lin_census_seed(maker.census, maker.self, NULL, &birth, maker_any());
    else
        lin_census_birth(maker.census, maker.self, NULL, &birth);
    if (dice(&maker.seed) % 2 == 0 && any != 0)
        lin_census_link(maker.census, birth.pid, any);
    maker.pid[maker.pids++] = birth.pid;
}

static void maker_death(void) {
    uint64_t pid = maker_any();
    if (pid == 0)
        return;
    fake_kill(pid);
    if (dice(&maker.seed) % 4 == 0)
        lin_census_sweep(maker.census, maker.self, NULL);
    else
        lin_census_exit(maker.census, maker.self, NULL, pid, 77, dice(&maker.seed) % 2 == 0);
    maker_gone(pid);
}

static void maker_step(void) {
    uint32_t former;
    switch (dice(&maker.seed) % 10) {
    case 0:
    case 1:
    case 2:
        maker_birth();
        break;
    case 3:
    case 4:
        maker_death();
        break;
    case 5:
        lin_census_link(maker.census, maker_any(), maker_any());
        break;
    case 6:
        lin_census_unlink(maker.census, maker_any(), maker_any());
        break;
    case 7:
        lin_census_flag(maker.census, maker_any(), dice(&maker.seed) % 2 == 0 ? LIN_CLASS_HOST : 0,
                        LIN_CLASS_SERVICE);
        break;
    case 8:
        lin_census_scope(maker.census, maker_any(), (uint32_t)(dice(&maker.seed) % 5), &former);
        lin_census_name(maker.census, maker_any(), 90 + dice(&maker.seed) % 5);
        break;
    default:
        lin_census_set_guardian(maker.census, maker_any(), maker_any());
    }
}

static void maker_steps(uint32_t count) {
    for (; count > 0; count--)
        maker_step();
}

/* In blocks of a few entries, with things happening in between. */
static void maker_census(void) {
    uint64_t position[MAKER_RINGS];
    uint32_t told = 0, in_all = 0;
    maker.census_at = maker.used;
    maker_run();
    maker_functions();
    for (uint32_t n = 0; n < MAKER_RINGS; n++)
        position[n] = lin_ring_at(maker.rings, n)->tail;
    for (uint32_t number = 0; number < maker.census->chunks_max * LIN_CHUNK;) {
        struct lin_block_census *census = maker_payload();
        struct lin_block_entry *entry = (void *)&census->position[MAKER_RINGS];
        uint32_t count = 0;
        memcpy(census->position, position, sizeof position);
        for (; number < maker.census->chunks_max * LIN_CHUNK && count < 50; number++) {
            struct lin_record *record = lin_census_record(maker.census, number);
            struct lin_entry e;
            if (record != NULL && lin_record_read(record, &e))
                entry[count++] = (struct lin_block_entry){.pid = e.pid,
                                                          .parent = e.parent,
                                                          .guardian = e.guardian,
                                                          .birth = e.birth,
                                                          .flags = e.flags,
                                                          .site = e.site,
                                                          .scope = e.scope,
                                                          .initial_call = e.initial_call,
                                                          .spawner = e.spawner,
                                                          .no = e.no};
        }
        census->first = told;
        census->count = count;
        census->rings = MAKER_RINGS;
        census->last = number >= maker.census->chunks_max * LIN_CHUNK;
        told += count;
        in_all++;
        maker_seal(LIN_BLOCK_CENSUS, sizeof *census + sizeof position + count * sizeof *entry);
        if (census->last == 0)
            maker_steps(20);
    }
    CHECK(in_all > 0);
}

static void maker_open(uint64_t seed) {
    struct lin_census_options options = fake_options();
    static uint32_t sessions;
    options.session = ++sessions; /* those of the replay's own censuses are others */
    memset(&maker, 0, sizeof maker);
    maker.seed = seed * 2654435761u + 1;
    fake_open(options);
    maker.self = fake_enter(&maker.census);
    for (uint64_t module = 1; module <= 3; module++)
        lin_mfa_classify(maker.census->mfas, module, 2, 3,
                         module == 1 ? LIN_CLASS_ROOT : LIN_CLASS_SUPERVISOR);
    size_t bytes = lin_rings_bytes(MAKER_RINGS, LIN_RING_MIN_CAPACITY);
    maker.rings = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    memset(maker.rings, 0, bytes);
    lin_rings_init(maker.rings, MAKER_RINGS, LIN_RING_MIN_CAPACITY);
    maker.rings->run = MAKER_RUN;
    maker.rings->os_pid = 12345;
    maker.rings->os_start = 678;
    maker.bytes = aligned_alloc(64, MAKER_ROOM);
    lin_tap_set(maker_tap);
}

/* A life of `steps` steps, with censuses in it. */
static void maker_live(uint32_t steps) {
    maker_run();
    for (uint32_t i = 0; i < 7; i++)
        lin_mfa_intern(maker.census->mfas, i + 1, 2, 3);
    maker_functions();
    while (steps > 0) {
        uint32_t some = (uint32_t)(dice(&maker.seed) % 200);
        some = some < steps ? some + 1 : steps;
        maker_steps(some);
        steps -= some;
        maker_write((uint32_t)(dice(&maker.seed) % 2000) + 1);
        if (dice(&maker.seed) % 4 == 0)
            maker_census();
    }
}

static void maker_close(void) {
    lin_tap_set(NULL);
    free(maker.rings);
    free(maker.bytes);
    lin_gate_leave(maker.self);
    fake_close(maker.census);
}

/* The rings as the file that a killed node leaves: a copy. */
static void *maker_left(size_t *bytes) {
    *bytes = lin_rings_bytes(MAKER_RINGS, LIN_RING_MIN_CAPACITY);
    void *copy = malloc(*bytes);
    memcpy(copy, maker.rings, *bytes);
    return copy;
}

#endif

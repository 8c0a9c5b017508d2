/*
 * fake_host.h - the VM as far as the core sees it, for tests: memory and liveness.
 *
 * Model: memory is counted by the byte and fails when told to; processes are numbers below
 * FAKE_PIDS, alive as a bitmap says. A pid is a term as the VM makes one: number << 4 | 3, so
 * numbers that differ by the process limit share a slot. Threads: any, but `fake_fail_after`, which
 * is for one. Everything here is relaxed: a host that ordered memory would hide from
 * ThreadSanitizer what the core forgot to. One source file of a program includes this.
 */
#ifndef FAKE_HOST_H
#define FAKE_HOST_H

#include "census.h"

#include <stdlib.h>

#define FAKE_PIDS (1u << 23)
#define FAKE_GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define FAKE_ADD(field, n) atomic_fetch_add_explicit(&(field), (n), memory_order_relaxed)

static _Atomic uint64_t fake_alive_bits[FAKE_PIDS / 64];
static _Atomic int64_t fake_bytes, fake_blocks, fake_peak_bytes;
/* How many allocations succeed before one fails; negative: all succeed. */
static _Atomic int64_t fake_fail_after = -1;
/* Runs inside is_alive, before the answer: what another thread might do at that moment. */
static void (*fake_on_is_alive)(uint64_t pid);

static inline uint64_t fake_pid(uint64_t number) { return number << 4 | 3; }

static inline uint64_t fake_number(uint64_t pid) { return pid >> 4; }

static inline uint64_t fake_start(uint64_t number) {
    atomic_fetch_or_explicit(&fake_alive_bits[number / 64], (uint64_t)1 << number % 64,
                             memory_order_relaxed);
    return fake_pid(number);
}

static inline void fake_kill(uint64_t pid) {
    uint64_t number = fake_number(pid);
    atomic_fetch_and_explicit(&fake_alive_bits[number / 64], ~((uint64_t)1 << number % 64),
                              memory_order_relaxed);
}

static inline bool fake_is_alive(void *env, uint64_t pid) {
    (void)env;
    if (fake_on_is_alive != NULL)
        fake_on_is_alive(pid);
    uint64_t number = fake_number(pid);
    return (FAKE_GET(fake_alive_bits[number / 64]) >> number % 64 & 1) != 0;
}

static inline void *fake_alloc(size_t bytes) {
    int64_t left = FAKE_GET(fake_fail_after);
    if (left == 0)
        return NULL;
    if (left > 0)
        FAKE_ADD(fake_fail_after, -1);
    size_t *block = malloc(bytes + 16);
    if (block == NULL)
        return NULL;
    *block = bytes;
    FAKE_ADD(fake_blocks, 1);
    int64_t now = FAKE_ADD(fake_bytes, (int64_t)bytes) + (int64_t)bytes;
    int64_t peak = FAKE_GET(fake_peak_bytes);
    while (now > peak &&
           !atomic_compare_exchange_weak_explicit(&fake_peak_bytes, &peak, now,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    return (char *)block + 16;
}

static inline void fake_free(void *memory) {
    size_t *block = (size_t *)((char *)memory - 16);
    FAKE_ADD(fake_bytes, -(int64_t)*block);
    FAKE_ADD(fake_blocks, -1);
    free(block);
}

static const struct lin_host fake_host = {fake_alloc, fake_free, fake_is_alive};

#define FAKE_LIMIT 4096u

static inline struct lin_census_options fake_options(void) {
    return (struct lin_census_options){
        .session = 1, .exits_all = true, .process_limit = FAKE_LIMIT, .max_bytes = 64u << 20};
}

/* Opens a census and makes it the current one; NULL when there is no memory. */
static inline struct lin_census *fake_open(struct lin_census_options options) {
    struct lin_census *census = NULL;
    if (lin_gate.host == NULL)
        lin_gate_init(&fake_host);
    if (lin_census_create(&options, &census) != 0)
        return NULL;
    lin_gate_set_current(census);
    return census;
}

/* What the NIF does to close. */
static inline void fake_close(struct lin_census *census) {
    lin_gate_set_current(NULL);
    lin_gate_quiesce(0);
    lin_recent_free_all();
    lin_site_pages_free_all();
    lin_census_destroy(census);
}

/* This thread, inside, with the lists of `census`; tests of one thread stay inside as they like. */
static inline struct lin_thread *fake_enter(struct lin_census **census) {
    struct lin_thread *self = lin_thread_self();
    *census = self == NULL ? NULL : lin_gate_enter(self);
    if (*census != NULL)
        lin_census_adopt(*census, self);
    return self;
}

#endif

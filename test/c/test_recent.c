#include "fake_host.h"

#include <criterion/criterion.h>
#include <pthread.h>

/* The ring of the last unlinked dead. */

static struct lin_census *census;
static struct lin_thread *self;
static struct lin_dead out[4 * LIN_RECENT];

static void setup(void) {
    cr_assert_not_null(fake_open(fake_options()));
    self = fake_enter(&census);
}

static void teardown(void) {
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
    cr_assert_eq(fake_blocks, 0);
}

TestSuite(recent, .init = setup, .fini = teardown);

static struct lin_dead dead_at(uint64_t ticks) {
    return (struct lin_dead){.pid = fake_pid(ticks),
                             .parent = ticks + 1,
                             .birth = ticks + 2,
                             .death = ticks,
                             .reason = ticks + 3,
                             .initial_call = 4,
                             .spawner = 5,
                             .flags = LIN_F_FOREIGN | LIN_CLASS_HOST,
                             .abnormal = 1,
                             .monitored = LIN_MONITORED_YES};
}

static void push(uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) {
        struct lin_dead dead = dead_at(i);
        lin_recent_push(self, LIN_RING_DEAD, &dead);
    }
}

static size_t read_all(size_t count) {
    return lin_recent_read(1, LIN_RING_DEAD, out, sizeof out / sizeof out[0], count);
}

Test(recent, empty) { cr_assert_eq(read_all(10), 0); }

Test(recent, every_field_comes_back) {
    push(7, 8);
    cr_assert_eq(read_all(10), 1);
    struct lin_dead want = dead_at(7);
    cr_assert_eq(out[0].pid, want.pid);
    cr_assert_eq(out[0].parent, want.parent);
    cr_assert_eq(out[0].birth, want.birth);
    cr_assert_eq(out[0].death, want.death);
    cr_assert_eq(out[0].reason, want.reason);
    cr_assert_eq(out[0].initial_call, want.initial_call);
    cr_assert_eq(out[0].spawner, want.spawner);
    cr_assert_eq(out[0].flags, want.flags);
    cr_assert_eq(out[0].abnormal, want.abnormal);
    cr_assert_eq(out[0].monitored, want.monitored);
}

Test(recent, newest_first_and_no_more_than_asked) {
    push(1, 11);
    cr_assert_eq(read_all(4), 4);
    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(out[i].death, 10 - i);
    cr_assert_eq(read_all(0), 0);
    cr_assert_eq(read_all(LIN_RECENT), 10);
}

Test(recent, ring_keeps_the_last_thousand) {
    push(1, 2 * LIN_RECENT + 11);
    cr_assert_eq(read_all(LIN_RECENT), LIN_RECENT);
    cr_assert_eq(out[0].death, 2 * LIN_RECENT + 10);
    cr_assert_eq(out[LIN_RECENT - 1].death, LIN_RECENT + 11);
}

Test(recent, other_sessions_are_left_out) {
    push(1, 3);
    cr_assert_eq(lin_recent_read(2, LIN_RING_DEAD, out, LIN_RECENT, 10), 0);
}

Test(recent, no_memory_loses_only_the_ring) {
    fake_fail_after = 0;
    push(1, 3);
    cr_assert_eq(read_all(10), 0);
    fake_fail_after = -1;
    push(3, 4);
    cr_assert_eq(read_all(10), 1);
}

static void *push_odd(void *arg) {
    (void)arg;
    struct lin_census *mine;
    struct lin_thread *me = fake_enter(&mine);
    for (uint64_t i = 1; i < 200; i += 2) {
        struct lin_dead dead = dead_at(i);
        lin_recent_push(me, LIN_RING_DEAD, &dead);
    }
    lin_gate_leave(me);
    return NULL;
}

Test(recent, rings_are_merged_by_time) {
    pthread_t thread;
    pthread_create(&thread, NULL, push_odd, NULL);
    for (uint64_t i = 0; i < 200; i += 2)
        push(i, i + 1);
    pthread_join(thread, NULL);
    cr_assert_eq(lin_recent_rings(LIN_RING_DEAD), 2);
    cr_assert_eq(read_all(LIN_RECENT), 200);
    for (uint64_t i = 0; i < 200; i++)
        cr_assert_eq(out[i].death, 199 - i);
}

Test(recent, small_scratch_is_not_overrun) {
    push(1, 100);
    out[5].pid = 4711;
    cr_assert_eq(lin_recent_read(1, LIN_RING_DEAD, out, 5, LIN_RECENT), 5);
    cr_assert_eq(out[5].pid, 4711);
}

/* What a writer does while a reader copies: each slot that comes back is of one piece. */
static _Atomic bool stop;

static void *push_whole(void *arg) {
    (void)arg;
    struct lin_census *mine;
    struct lin_thread *me = fake_enter(&mine);
    for (uint64_t i = 1; !atomic_load(&stop); i++) {
        struct lin_dead dead = dead_at(i);
        lin_recent_push(me, LIN_RING_DEAD, &dead);
    }
    lin_gate_leave(me);
    return NULL;
}

Test(recent, slots_are_never_torn) {
    pthread_t thread;
    pthread_create(&thread, NULL, push_whole, NULL);
    for (int turn = 0; turn < 300; turn++) {
        size_t n = read_all(LIN_RECENT);
        for (size_t i = 0; i < n; i++) {
            cr_assert_eq(out[i].pid, fake_pid(out[i].death));
            cr_assert_eq(out[i].parent, out[i].death + 1);
            cr_assert_eq(out[i].birth, out[i].death + 2);
            cr_assert_eq(out[i].reason, out[i].death + 3);
        }
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

Test(recent, bytes_are_told) {
    struct lin_totals before, after;
    lin_census_totals(census, &before);
    push(1, 2);
    lin_census_totals(census, &after);
    cr_assert_eq(after.bytes - before.bytes, sizeof(struct lin_recent));
}

#include "fake_host.h"

#include <criterion/criterion.h>

/* Who would notice a suspect, under exact monitors. Calls come before what they return. */

static struct lin_census *census;
static struct lin_thread *self;
static uint64_t watcher;

static uint64_t born_of(uint64_t number, uint64_t parent) {
    uint64_t pid = fake_start(number);
    lin_census_birth(census, self, NULL, &(struct lin_birth){.pid = pid, .parent = parent});
    return pid;
}

static void setup(void) {
    struct lin_census_options options = fake_options();
    options.monitors_exact = true;
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
    watcher = born_of(1, 0);
}

static void teardown(void) {
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(monitors, .init = setup, .fini = teardown);

static void monitor(uint64_t target, uint64_t ref) {
    lin_census_monitor(census, watcher, target);
    lin_monitors_return(census->monitors, watcher, ref);
}

static enum lin_monitored crash(uint64_t pid) {
    static struct lin_dead dead[LIN_RECENT];
    fake_kill(pid);
    lin_census_exit(census, self, NULL, pid, 7, true);
    cr_assert_eq(lin_recent_read(1, LIN_RING_DEAD, dead, LIN_RECENT, 1), 1);
    cr_assert_eq(dead[0].pid, pid);
    return (enum lin_monitored)dead[0].monitored;
}

static struct lin_totals totals(void) {
    struct lin_totals out;
    lin_census_totals(census, &out);
    return out;
}

Test(monitors, nobody_watches) {
    cr_assert_eq(crash(born_of(2, watcher)), LIN_MONITORED_NO);
    cr_assert_eq(totals().silent, 1);
    cr_assert_eq(totals().unheard, 0);
}

Test(monitors, somebody_watches) {
    uint64_t pid = born_of(2, watcher);
    monitor(pid, 100);
    cr_assert_eq(crash(pid), LIN_MONITORED_YES);
    cr_assert_eq(totals().silent, 0);
    cr_assert_eq(totals().unheard, 0);
}

Test(monitors, one_of_two_is_taken_back) {
    uint64_t pid = born_of(2, watcher);
    monitor(pid, 100);
    monitor(pid, 101);
    lin_monitors_demonitor(census->monitors, 100);
    lin_monitors_demonitor(census->monitors, 4711);
    cr_assert_eq(crash(pid), LIN_MONITORED_YES);
}

Test(monitors, all_are_taken_back) {
    uint64_t pid = born_of(2, watcher);
    monitor(pid, 100);
    lin_monitors_demonitor(census->monitors, 100);
    cr_assert_eq(crash(pid), LIN_MONITORED_NO);
    cr_assert_eq(totals().silent, 1);
}

Test(monitors, a_call_that_raised_watches_nobody) {
    uint64_t pid = born_of(2, watcher);
    monitor(pid, 0);
    cr_assert_eq(crash(pid), LIN_MONITORED_NO);
}

Test(monitors, a_call_that_has_not_returned_counts) {
    uint64_t pid = born_of(2, watcher);
    lin_census_monitor(census, watcher, pid);
    cr_assert_eq(crash(pid), LIN_MONITORED_YES);
    lin_monitors_return(census->monitors, watcher, 100);
}

Test(monitors, spawn_monitor) {
    lin_census_monitor(census, watcher, 0);
    uint64_t pid = born_of(2, watcher);
    lin_monitors_return(census->monitors, watcher, 100);
    uint64_t next = born_of(3, watcher);
    cr_assert_eq(crash(pid), LIN_MONITORED_YES);
    cr_assert_eq(crash(next), LIN_MONITORED_NO, "the next child is not the one that was meant");
}

Test(monitors, a_spawn_that_raised) {
    lin_census_monitor(census, watcher, 0);
    lin_monitors_return(census->monitors, watcher, 0);
    cr_assert_eq(crash(born_of(2, watcher)), LIN_MONITORED_NO);
}

Test(monitors, dead_watchers_notice_nothing) {
    uint64_t pid = born_of(2, watcher);
    monitor(pid, 100);
    fake_kill(watcher);
    cr_assert_eq(crash(pid), LIN_MONITORED_NO);
}

Test(monitors, purge_keeps_those_of_the_living) {
    uint64_t pid = born_of(2, watcher), other = born_of(3, watcher);
    monitor(pid, 100);
    uint64_t first = watcher;
    watcher = born_of(4, 0);
    monitor(other, 101);
    fake_kill(first);
    lin_monitors_purge(census->monitors, NULL);
    cr_assert_eq(crash(pid), LIN_MONITORED_NO);
    cr_assert_eq(crash(other), LIN_MONITORED_YES);
}

Test(monitors, who_was_there_before_is_not_known) {
    uint64_t pid = fake_start(2), foreign = fake_start(3);
    cr_assert_eq(lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = pid}, 0),
                 LIN_SEED_OK);
    lin_census_birth(census, self, NULL,
                     &(struct lin_birth){.pid = foreign, .parent = 9, .flags = LIN_F_FOREIGN});
    cr_assert_eq(crash(pid), LIN_MONITORED_UNKNOWN);
    cr_assert_eq(crash(foreign), LIN_MONITORED_UNKNOWN);
    cr_assert_eq(totals().unheard, 2);
    uint64_t again = fake_start(4);
    lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = again}, 0);
    monitor(again, 5);
    cr_assert_eq(crash(again), LIN_MONITORED_YES);
}

Test(monitors, linked_processes_are_left_alone) {
    uint64_t pid = born_of(2, watcher);
    lin_census_link(census, pid, watcher);
    monitor(pid, 100);
    lin_census_exit(census, self, NULL, pid, 7, true);
    cr_assert_eq(totals().silent + totals().unheard, 0);
}

Test(monitors, a_full_table_answers_unknown) {
    uint64_t pid = born_of(2, watcher), alone = born_of(3, watcher);
    for (uint64_t ref = 1; !census->monitors_full; ref++) {
        cr_assert_lt(ref, 1u << 20);
        monitor(pid, ref);
    }
    cr_assert_eq(crash(pid), LIN_MONITORED_YES);
    cr_assert_eq(crash(alone), LIN_MONITORED_UNKNOWN);
    cr_assert_eq(totals().silent, 0);
    uint64_t next = born_of(4, watcher);
    monitor(next, 1u << 21);
    cr_assert_eq(crash(next), LIN_MONITORED_YES, "the dead one's room is used");
}

Test(monitors, sweeps_take_the_monitors_of_the_dead) {
    for (uint64_t round = 0; round < 50; round++) {
        for (uint64_t n = 10; n < 1010; n++)
            monitor(born_of(n, watcher), round << 32 | n);
        for (uint64_t n = 10; n < 1010; n++)
            fake_kill(fake_pid(n));
        cr_assert_eq(lin_census_sweep(census, self, NULL), 1000);
    }
    cr_assert(!census->monitors_full);
}

Test(monitors, bytes_are_told) {
    cr_assert_geq(totals().bytes, lin_monitors_bytes());
    cr_assert_leq((uint64_t)fake_bytes, totals().bytes + 64);
    lin_monitors_destroy(NULL);
    fake_fail_after = 0;
    cr_assert_null(lin_monitors_create());
    fake_fail_after = -1;
}

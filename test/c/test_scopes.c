#include "fake_host.h"

#include <criterion/criterion.h>

/* In whose scope a process is born: its parent's, or that of whom its parent serves. */

static struct lin_census *census;
static struct lin_thread *self;

static void setup(void) {
    struct lin_census_options options = fake_options();
    options.monitors_exact = true;
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
}

static void teardown(void) {
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(scopes, .init = setup, .fini = teardown);

static uint64_t born_of(uint64_t n, uint64_t parent, uint32_t flags) {
    uint64_t pid = fake_start(n);
    struct lin_birth birth = {.pid = pid, .parent = parent, .flags = flags};
    lin_census_birth(census, self, NULL, &birth);
    return pid;
}

static void dies(uint64_t pid) {
    fake_kill(pid);
    lin_census_exit(census, self, NULL, pid, 1, false);
}

static uint32_t scope_of(uint64_t pid) {
    struct lin_entry entry;
    cr_assert(lin_census_read(census, pid, &entry));
    return entry.scope;
}

static void enter_scope(uint64_t pid, uint32_t scope) {
    uint32_t former;
    cr_assert(lin_census_scope(census, pid, scope, &former));
}

Test(scopes, handed_down_however_deep_and_after_deaths) {
    uint32_t former = 9;
    uint64_t test = born_of(1, 0, 0);
    cr_assert(lin_census_scope(census, test, 7, &former));
    cr_assert_eq(former, 0);
    uint64_t child = born_of(2, test, 0), grandchild = born_of(3, child, 0);
    dies(test);
    dies(child);
    uint64_t last = born_of(4, grandchild, 0);
    cr_assert_eq(scope_of(last), 7);
    cr_assert(lin_census_scope(census, last, 8, &former));
    cr_assert_eq(former, 7);
    cr_assert_eq(scope_of(grandchild), 7);
    cr_assert(!lin_census_scope(census, test, 8, &former), "the dead are in none");
}

Test(scopes, a_request_is_answered_in_the_scope_of_who_asked) {
    uint64_t one = born_of(1, 0, 0), two = born_of(2, 0, 0);
    uint64_t supervisor = born_of(3, 0, LIN_CLASS_SUPERVISOR);
    enter_scope(one, 1);
    enter_scope(two, 2);
    lin_census_serve(census, NULL, supervisor, one);
    uint64_t first = born_of(4, supervisor, 0);
    lin_census_served(census, supervisor);
    uint64_t own = born_of(5, supervisor, 0);
    lin_census_serve(census, NULL, supervisor, two);
    uint64_t second = born_of(6, supervisor, 0);
    /* The return of that was not told. */
    lin_census_serve(census, NULL, supervisor, own);
    uint64_t plain = born_of(7, supervisor, 0);
    lin_census_served(census, supervisor);
    lin_census_served(census, supervisor);
    cr_assert_eq(scope_of(first), 1);
    cr_assert_eq(scope_of(own), 0);
    cr_assert_eq(scope_of(second), 2);
    cr_assert_eq(scope_of(plain), 0);
    cr_assert_eq(scope_of(supervisor), 0);
    cr_assert_eq(lin_scopes_lost(census->scopes), 0);
}

Test(scopes, a_supervisor_that_asks_another_does_so_for_whom_it_serves) {
    uint64_t test = born_of(1, 0, 0);
    uint64_t upper = born_of(2, 0, LIN_CLASS_SUPERVISOR),
             lower = born_of(3, 0, LIN_CLASS_SUPERVISOR);
    enter_scope(test, 5);
    lin_census_serve(census, NULL, upper, test);
    lin_census_serve(census, NULL, lower, upper);
    cr_assert_eq(scope_of(born_of(4, lower, 0)), 5);
    /* And for one outside of any scope, though it is in one itself. */
    uint64_t other = born_of(5, 0, 0);
    enter_scope(lower, 6);
    lin_census_serve(census, NULL, lower, other);
    cr_assert_eq(scope_of(born_of(6, lower, 0)), 0);
}

Test(scopes, what_is_started_in_the_place_of_a_dead_child_inherits) {
    uint64_t test = born_of(1, 0, 0), supervisor = born_of(2, 0, LIN_CLASS_SUPERVISOR);
    enter_scope(test, 3);
    lin_census_serve(census, NULL, supervisor, test);
    uint64_t child = born_of(3, supervisor, 0);
    lin_census_served(census, supervisor);
    uint64_t other = born_of(4, supervisor, 0);
    dies(child);
    dies(other);
    lin_census_replace(census, NULL, supervisor, other);
    cr_assert_eq(scope_of(born_of(5, supervisor, 0)), 0,
                 "the supervisor's own child has left nothing");
    lin_census_replace(census, NULL, supervisor, child);
    cr_assert_eq(scope_of(born_of(6, supervisor, 0)), 3);
    lin_census_served(census, supervisor);
    lin_census_replace(census, NULL, supervisor, child);
    cr_assert_eq(scope_of(born_of(7, supervisor, 0)), 0, "one death, one heir");
}

Test(scopes, unknown_callers_and_supervisors) {
    uint64_t supervisor = born_of(1, 0, LIN_CLASS_SUPERVISOR), gone = born_of(2, 0, 0);
    dies(gone);
    lin_census_serve(census, NULL, supervisor, gone);
    lin_census_serve(census, NULL, gone, supervisor);
    lin_census_replace(census, NULL, supervisor, gone);
    lin_census_served(census, gone);
    cr_assert_eq(scope_of(born_of(3, supervisor, 0)), 0);
}

/* More at once than there is room for: the eldest goes, and is counted. */
Test(scopes, room_is_bounded) {
    struct lin_scopes *scopes = census->scopes;
    int env = 0;
    uint32_t scope, kept = 0;
    struct lin_frame frame = {.module = 9};
    for (uint64_t n = 1; n < FAKE_LIMIT; n++)
        lin_serving_put(scopes, &env, fake_start(n), (uint32_t)n, &frame);
    for (uint64_t n = 1; n < FAKE_LIMIT; n++)
        if (lin_serving_read(scopes, fake_pid(n), &scope, &frame)) {
            cr_assert_eq(scope, n);
            kept++;
        }
    cr_assert_gt(lin_scopes_lost(scopes), 0);
    cr_assert_eq(kept + lin_scopes_lost(scopes), FAKE_LIMIT - 1);
    for (uint64_t n = 1; n <= 20000; n++)
        lin_heir_put(scopes, n << 4, (uint32_t)n, &frame);
    cr_assert(lin_heir_take(scopes, 20000 << 4, &scope, &frame), "the last are there");
    cr_assert_eq(scope, 20000);
}

Test(scopes, the_dead_keep_their_scope) {
    static struct lin_dead dead[LIN_RECENT];
    uint64_t test = born_of(1, 0, 0);
    enter_scope(test, 4);
    dies(born_of(2, test, 0));
    cr_assert_eq(lin_recent_read(1, LIN_RING_SILENT, dead, LIN_RECENT, 1), 0,
                 "a normal end is no failure");
    uint64_t fails = born_of(3, test, 0);
    fake_kill(fails);
    lin_census_exit(census, self, NULL, fails, 1, true);
    for (uint64_t n = 4; n < 2000; n++)
        dies(born_of(n, test, 0));
    cr_assert_eq(lin_recent_read(1, LIN_RING_SILENT, dead, LIN_RECENT, 10), 1,
                 "other deaths do not push it out");
    cr_assert_eq(dead[0].pid, fails);
    cr_assert_eq(dead[0].scope, 4);
    cr_assert_eq(lin_recent_read(1, LIN_RING_DEAD, dead, LIN_RECENT, 1), 1);
    cr_assert_eq(dead[0].scope, 4);
}

/* Its watcher is the library itself, which would tell nobody. */
Test(scopes, own_monitors_are_nobodys) {
    uint64_t own = born_of(1, 0, LIN_CLASS_OWN), fails = born_of(2, 0, 0);
    lin_census_monitor(census, own, fails);
    lin_monitors_return(census->monitors, own, 77);
    fake_kill(fails);
    lin_census_exit(census, self, NULL, fails, 1, true);
    struct lin_totals totals;
    lin_census_totals(census, &totals);
    cr_assert_eq(totals.silent, 1);
}

#include "fake_host.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

/* Births, deaths, seeds and links, one thread. Numbers of processes are small integers. */

static struct lin_census *census;
static struct lin_thread *self;

static void open_with(struct lin_census_options options) {
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
}

static void close_now(void) {
    lin_gate_leave(self);
    fake_close(census);
}

static void setup(void) { open_with(fake_options()); }

static void teardown(void) {
    close_now();
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
    cr_assert_eq(fake_blocks, 0);
}

TestSuite(census, .init = setup, .fini = teardown);

static uint64_t born_of(uint64_t number, uint64_t parent, uint32_t call) {
    uint64_t pid = fake_start(number);
    lin_census_birth(census, self, NULL,
                     &(struct lin_birth){.pid = pid, .parent = parent, .initial_call = call});
    return pid;
}

static uint64_t born(uint64_t number) { return born_of(number, 0, 0); }

static enum lin_seed seed(uint64_t pid, uint64_t parent, uint64_t guardian) {
    return lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = pid, .parent = parent},
                           guardian);
}

static struct lin_totals totals(void) {
    struct lin_totals out;
    lin_census_totals(census, &out);
    return out;
}

static struct lin_entry entry(uint64_t pid) {
    struct lin_entry out;
    cr_assert(lin_census_read(census, pid, &out));
    return out;
}

static bool has(uint64_t pid) {
    struct lin_entry out;
    return lin_census_read(census, pid, &out);
}

Test(census, options_that_are_none) {
    struct lin_census *none = NULL;
    static const uint32_t limits[] = {0, 1, 512, 1023, 1025, 3000, 1u << 28, UINT32_MAX};
    struct lin_census_options options = fake_options();
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        options.process_limit = limits[i];
        cr_assert_eq(lin_census_create(&options, &none), -EINVAL);
    }
    options = fake_options();
    options.max_bytes = FAKE_LIMIT * sizeof(uint32_t) - 1;
    cr_assert_eq(lin_census_create(&options, &none), -ENOMEM);
    cr_assert_null(none);
}

Test(census, create_fails_at_each_allocation_and_leaves_nothing) {
    struct lin_census_options options = fake_options();
    int64_t bytes = fake_bytes;
    int steps = 0;
    for (;; steps++) {
        struct lin_census *other = NULL;
        fake_fail_after = steps;
        int result = lin_census_create(&options, &other);
        fake_fail_after = -1;
        if (result == 0) {
            lin_census_destroy(other);
            break;
        }
        cr_assert_eq(result, -ENOMEM);
        cr_assert_null(other);
        cr_assert_eq(fake_bytes, bytes);
    }
    cr_assert_eq(steps, 5);
    cr_assert_eq(fake_bytes, bytes);
    lin_census_destroy(NULL);
}

Test(census, a_birth_is_recorded) {
    uint32_t call = lin_mfa_intern(census->mfas, 1, 2, 3),
             other = lin_mfa_intern(census->mfas, 4, 5, 6);
    uint64_t before = lin_clock_ticks();
    uint64_t parent = born_of(10, 0, other);
    uint64_t pid = born_of(11, parent, call);
    struct lin_entry e = entry(pid);
    cr_assert_eq(e.pid, pid);
    cr_assert_eq(e.parent, parent);
    cr_assert_eq(e.guardian, 0);
    cr_assert_eq(e.initial_call, call);
    cr_assert_eq(e.site, 0, "sites are off");
    cr_assert_eq(e.spawner, other);
    cr_assert_eq(e.scope, 0);
    cr_assert_eq(e.flags, 0);
    cr_assert_geq(e.birth, before);
    cr_assert_leq(e.birth, lin_clock_ticks());
    cr_assert(lin_census_is_suspect(census, pid));
    cr_assert_eq(totals().births, 2);
    cr_assert_eq(totals().records, 2);
}

Test(census, unknown_pids_are_left_alone) {
    uint64_t pid = fake_pid(77), twin = born(77 + FAKE_LIMIT);
    struct lin_entry e;
    cr_assert(!lin_census_read(census, pid, &e));
    cr_assert(!lin_census_is_suspect(census, pid));
    cr_assert(!lin_census_flag(census, pid, LIN_CLASS_ROOT, 0));
    cr_assert(!lin_census_set_guardian(census, pid, twin));
    lin_census_link(census, pid, twin);
    lin_census_unlink(census, pid, twin);
    lin_census_name(census, pid, 1);
    lin_census_monitor(census, pid, 1);
    lin_census_exit(census, self, NULL, pid, 1, true);
    cr_assert_eq(totals().seen, 0);
    cr_assert_eq(entry(twin).flags, 0, "the process in the same slot is not touched");
    lin_census_exit(census, self, NULL, twin, 1, false);
}

Test(census, exit_is_seen) {
    uint64_t pid = born(5);
    fake_kill(pid);
    lin_census_exit(census, self, NULL, pid, 99, false);
    cr_assert(!has(pid));
    cr_assert_eq(totals().seen, 1);
    cr_assert_eq(totals().records, 0);
    lin_census_exit(census, self, NULL, pid, 99, false);
    cr_assert_eq(totals().seen, 1, "only once");
}

Test(census, a_birth_in_its_slot_sweeps_a_ghost) {
    uint64_t ghost = born(5);
    fake_kill(ghost);
    uint64_t next = born(5 + FAKE_LIMIT);
    cr_assert(!has(ghost));
    cr_assert(has(next));
    cr_assert_eq(totals().swept, 1);
    cr_assert_eq(totals().records, 1);
    fake_kill(next);
    uint64_t again = born(5 + 2 * FAKE_LIMIT);
    cr_assert(has(again));
    cr_assert_eq(totals().swept, 2);
}

Test(census, the_same_pid_comes_round_again) {
    uint64_t pid = born(5);
    lin_census_link(census, pid, fake_pid(6));
    fake_kill(pid);
    born(5);
    cr_assert_eq(totals().swept, 1);
    cr_assert_eq(totals().births, 2);
    cr_assert_eq(entry(pid).flags & LIN_F_LINKED, 0, "nothing is left of the old one");
    cr_assert_eq(entry(pid).guardian, 0);
}

Test(census, every_slot_is_its_own) {
    for (uint64_t n = 0; n < FAKE_LIMIT; n++)
        born(n);
    for (uint64_t n = 0; n < FAKE_LIMIT; n++)
        cr_assert(has(fake_pid(n)));
    cr_assert_eq(totals().records, FAKE_LIMIT);
    cr_assert_eq(totals().swept, 0);
}

Test(census, sweep_takes_the_dead_only) {
    for (uint64_t n = 0; n < 1000; n++)
        born(n);
    for (uint64_t n = 0; n < 1000; n += 3)
        fake_kill(fake_pid(n));
    cr_assert_eq(lin_census_sweep(census, self, NULL), 334);
    cr_assert_eq(lin_census_sweep(census, self, NULL), 0);
    for (uint64_t n = 0; n < 1000; n++)
        cr_assert_eq(has(fake_pid(n)), n % 3 != 0);
    cr_assert_eq(totals().swept, 334);
    cr_assert_eq(totals().records, 666);
}

Test(census, seeding) {
    uint64_t parent = fake_start(1), pid = fake_start(2), gone = fake_pid(3);
    cr_assert_eq(seed(pid, parent, parent), LIN_SEED_OK);
    cr_assert_eq(seed(pid, 0, 0), LIN_SEED_KNOWN);
    cr_assert_eq(seed(gone, 0, 0), LIN_SEED_DEAD);
    cr_assert(!has(gone));
    struct lin_entry e = entry(pid);
    cr_assert_eq(e.guardian, parent);
    cr_assert_eq(e.parent, parent);
    cr_assert_eq(e.flags & (LIN_F_SEEDED | LIN_F_LINKED), LIN_F_SEEDED | LIN_F_LINKED);
    cr_assert(!lin_census_is_suspect(census, pid));
    uint64_t alone = fake_start(4);
    cr_assert_eq(seed(alone, 0, 0), LIN_SEED_OK);
    cr_assert(lin_census_is_suspect(census, alone));
    cr_assert_eq(totals().seeded, 2);
    cr_assert_eq(totals().births, 0);
    cr_assert_eq(totals().records, 2);
}

Test(census, seeding_over_a_ghost) {
    uint64_t ghost = born(7);
    fake_kill(ghost);
    uint64_t pid = fake_start(7 + FAKE_LIMIT);
    cr_assert_eq(seed(pid, 0, 0), LIN_SEED_OK);
    cr_assert(has(pid));
    cr_assert(!has(ghost));
    cr_assert_eq(totals().swept, 1);
}

Test(census, a_birth_told_after_its_seed_counts_as_one) {
    uint64_t pid = fake_start(8);
    cr_assert_eq(seed(pid, 0, 0), LIN_SEED_OK);
    born(8);
    cr_assert_eq(totals().births, 1);
    cr_assert_eq(totals().seeded, 0);
    cr_assert_eq(totals().swept, 0);
    cr_assert_eq(totals().records, 1);
    cr_assert_eq(entry(pid).flags & LIN_F_SEEDED, 0);
}

static int looks;

static void dies_at_second_look(uint64_t pid) {
    if (++looks == 2)
        fake_kill(pid);
}

Test(census, dies_while_it_is_seeded) {
    uint64_t pid = fake_start(9);
    fake_on_is_alive = dies_at_second_look;
    seed(pid, 0, 0);
    fake_on_is_alive = NULL;
    cr_assert(!has(pid), "no ghost is left");
    cr_assert_eq(totals().records, 0);
}

Test(census, seeded_without_room_is_lost) {
    fake_fail_after = 0;
    uint64_t pid = fake_start(9);
    cr_assert_eq(seed(pid, 0, 0), LIN_SEED_LOST);
    fake_fail_after = -1;
    cr_assert(!has(pid));
    cr_assert_eq(totals().lost, 1);
    cr_assert_eq(totals().records, 0);
    cr_assert_eq(seed(pid, 0, 0), LIN_SEED_OK, "it may be tried again");
}

Test(census, births_without_room_are_counted) {
    fake_fail_after = 0;
    uint64_t pid = born(1);
    cr_assert(!has(pid));
    cr_assert(!lin_census_is_suspect(census, pid), "nothing is kept traced for it");
    fake_fail_after = -1;
    fake_kill(pid);
    lin_census_exit(census, self, NULL, pid, 1, true);
    uint64_t next = born(1 + FAKE_LIMIT);
    cr_assert(has(next));
    struct lin_totals t = totals();
    cr_assert_eq(t.births, 2);
    cr_assert_eq(t.lost, 1);
    cr_assert_eq(t.seen + t.swept, 0);
    cr_assert_eq(t.records, 1);
}

/* With no memory left, what a dead process held goes to who is born in its place. */
Test(census, a_full_census_takes_in_who_follows_the_dead) {
    uint64_t kept = 0;
    while (has(born(kept))) {
        fake_fail_after = 0;
        kept++;
    }
    cr_assert_eq(kept, LIN_CHUNK);
    for (uint64_t i = 0; i < kept; i++) {
        fake_kill(fake_pid(i));
        cr_assert(has(born(i + FAKE_LIMIT)));
    }
    fake_fail_after = -1;
    cr_assert_eq(totals().lost, 1);
    cr_assert_eq(totals().swept, kept);
}

Test(census, max_bytes_is_never_passed) {
    close_now();
    struct lin_census_options options = fake_options();
    options.session = 2;
    options.max_bytes = 550000 + lin_scopes_bytes();
    open_with(options);
    for (uint64_t n = 0; n < FAKE_LIMIT; n++)
        born(n);
    struct lin_totals t = totals();
    uint64_t threads = lin_gate.thread_bytes;
    cr_assert_gt(t.records, 0);
    cr_assert_leq(t.peak_bytes - threads, options.max_bytes);
    cr_assert_eq(t.births, FAKE_LIMIT);
    cr_assert_eq(t.lost + t.records, FAKE_LIMIT);
    cr_assert_gt(t.lost, 0);
    uint64_t kept = 0;
    for (uint64_t n = 0; n < FAKE_LIMIT; n++)
        kept += has(fake_pid(n));
    cr_assert_eq(kept, t.records);
    for (uint64_t n = 0; n < FAKE_LIMIT; n++) {
        fake_kill(fake_pid(n));
        lin_census_exit(census, self, NULL, fake_pid(n), 1, false);
    }
    cr_assert_eq(totals().records, 0);
    cr_assert_eq(totals().seen, kept);
    for (uint64_t n = 0; n < kept; n++)
        cr_assert(has(born(n)), "room that was given back is used");
}

Test(census, bytes_are_those_of_the_host) {
    for (uint64_t n = 0; n < FAKE_LIMIT; n++)
        born(n);
    uint64_t told = totals().bytes, real = (uint64_t)fake_bytes;
    cr_assert_leq(real, told + 64);
    cr_assert_leq(told, real + 128);
}

Test(census, classes_come_with_the_initial_call) {
    lin_mfa_classify(census->mfas, 1, 2, 3, LIN_CLASS_HOST);
    uint64_t pid = born_of(1, 0, lin_mfa_intern(census->mfas, 1, 2, 3));
    cr_assert_eq(entry(pid).flags, LIN_CLASS_HOST);
    uint64_t marked = born(2);
    cr_assert(lin_census_flag(census, marked, LIN_CLASS_ROOT | LIN_CLASS_OWN, 0));
    cr_assert(lin_census_flag(census, marked, 0, LIN_CLASS_ROOT));
    cr_assert_eq(entry(marked).flags, LIN_CLASS_OWN);
}

Test(census, scope_and_spawner_are_handed_down) {
    uint32_t call = lin_mfa_intern(census->mfas, 1, 2, 3);
    uint64_t parent = born_of(1, 0, call);
    lin_census_flag(census, parent, 0, 0);
    uint64_t child = born_of(2, parent, 0), orphan = born_of(3, fake_pid(4000), 0);
    cr_assert_eq(entry(child).spawner, call);
    cr_assert_eq(entry(orphan).spawner, 0);
}

Test(census, foreign_parents_are_packed) {
    uint64_t pid = fake_start(3), packed = LIN_FOREIGN_PACK(7, 0x123456789aull);
    born_of(0x123, 0, 0);
    lin_census_birth(census, self, NULL,
                     &(struct lin_birth){.pid = pid, .parent = packed, .flags = LIN_F_FOREIGN});
    cr_assert_eq(LIN_FOREIGN_NODE(entry(pid).parent), 7);
    cr_assert_eq(LIN_FOREIGN_NUMBER(entry(pid).parent), 0x123456789aull);
    cr_assert_eq(entry(pid).flags, LIN_F_FOREIGN);
}

Test(census, unheard_exits) {
    uint64_t alone = born(1), linked = born(2), quiet = born(3);
    lin_census_link(census, linked, alone);
    lin_census_exit(census, self, NULL, alone, 7, true);
    lin_census_exit(census, self, NULL, linked, 7, true);
    lin_census_exit(census, self, NULL, quiet, 7, false);
    cr_assert_eq(totals().unheard, 1);
    cr_assert_eq(totals().silent, 0);
    struct lin_dead dead[LIN_RECENT];
    cr_assert_eq(lin_recent_read(1, LIN_RING_DEAD, dead, LIN_RECENT, 10), 2,
                 "the linked one was no suspect");
    cr_assert_eq(dead[1].pid, alone);
    cr_assert_eq(dead[1].reason, 7);
    cr_assert_eq(dead[1].abnormal, 1);
    cr_assert_eq(dead[1].monitored, LIN_MONITORED_UNKNOWN);
}

Test(census, own_deaths_are_left_out) {
    uint64_t own = born(1), other = born(2);
    lin_census_flag(census, own, LIN_CLASS_OWN, 0);
    lin_census_exit(census, self, NULL, own, 7, true);
    lin_census_exit(census, self, NULL, other, 7, true);
    struct lin_dead dead[LIN_RECENT];
    cr_assert_eq(lin_recent_read(1, LIN_RING_DEAD, dead, LIN_RECENT, 10), 1);
    cr_assert_eq(dead[0].pid, other);
    cr_assert_eq(totals().unheard, 1);
    cr_assert_eq(totals().seen, 2);
}

static struct lin_entry at(uint64_t ticks, uint32_t flags) {
    return (struct lin_entry){.birth = ticks, .flags = flags};
}

Test(census, generation_never_changes_and_never_is_0) {
    uint64_t opened = census->opened.ticks;
    struct lin_entry early = at(opened - 5, 0), first = at(opened, 0);
    struct lin_entry seeded = at(opened + 7, LIN_F_SEEDED);
    cr_assert_eq(lin_census_generation(census, &early), 1);
    cr_assert_eq(lin_census_generation(census, &first), 1);
    cr_assert_eq(lin_census_generation(census, &seeded), 0);
    uint32_t last = 1;
    for (uint64_t t = 0; t < (uint64_t)1 << 40; t += (uint64_t)1 << 30) {
        struct lin_entry e = at(opened + t, 0);
        uint32_t generation = lin_census_generation(census, &e);
        cr_assert_geq(generation, last);
        last = generation;
    }
    cr_assert_gt(last, 1);
    struct lin_entry late = at(UINT64_MAX, 0);
    cr_assert_neq(lin_census_generation(census, &late), 0);
}

Test(census, ages_saturate) {
    struct lin_clock_point from = {.ticks = 1000, .ns = 1000}, now = {.ticks = 2000, .ns = 5000};
    cr_assert_eq(lin_clock_since_ns(from, now, 500), 0);
    cr_assert_eq(lin_clock_since_ns(from, now, 1500), 2000);
    cr_assert_eq(lin_clock_age_ns(from, now, 1500), 2000);
    cr_assert_eq(lin_clock_age_ns(from, now, 500), 4000);
    cr_assert_eq(lin_clock_age_ns(from, now, 2600), 0, "born after the point");
    cr_assert_eq(lin_clock_since_ns(from, from, 1500), 0);
}

Test(census, closing_with_records_gives_all_back) {
    for (uint64_t n = 0; n < 3000; n++)
        born(n);
}

Test(census, thousand_sessions) {
    close_now();
    int64_t bytes = 0;
    for (uint32_t session = 2; session < 1002; session++) {
        struct lin_census_options options = fake_options();
        options.session = session;
        options.exits_all = session % 2 == 0;
        open_with(options);
        for (uint64_t n = 0; n < 300; n++)
            born(n);
        cr_assert_eq(totals().births, 300);
        fake_kill(fake_pid(0));
        lin_census_exit(census, self, NULL, fake_pid(0), 1, true);
        close_now();
        if (session == 2)
            bytes = fake_bytes;
        cr_assert_eq(fake_bytes, bytes);
    }
    open_with(fake_options());
}

#include "fake_host.h"

#include <criterion/criterion.h>
#include <string.h>

/* Guardians: whose link holds a process. And the tap: what is told of it all. */

static struct lin_census *census;
static struct lin_thread *self;

static void setup(void) {
    cr_assert_not_null(fake_open(fake_options()));
    self = fake_enter(&census);
}

static void teardown(void) {
    lin_tap_set(NULL);
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(links, .init = setup, .fini = teardown);
TestSuite(tap, .init = setup, .fini = teardown);

static uint64_t born(uint64_t number, uint64_t parent) {
    uint64_t pid = fake_start(number);
    lin_census_birth(census, self, NULL, &(struct lin_birth){.pid = pid, .parent = parent});
    return pid;
}

/* As spawn_link tells it: the child's events come first. */
static uint64_t born_linked(uint64_t number, uint64_t parent) {
    uint64_t pid = born(number, parent);
    lin_census_link(census, pid, parent);
    lin_census_link(census, parent, pid);
    return pid;
}

static struct lin_entry entry(uint64_t pid) {
    struct lin_entry out;
    cr_assert(lin_census_read(census, pid, &out));
    return out;
}

static uint64_t guardian(uint64_t pid) { return entry(pid).guardian; }

static bool has_flag(uint64_t pid, uint32_t flag) { return (entry(pid).flags & flag) != 0; }

Test(links, birth_link_stays) {
    uint64_t parent = born(1, 0), other = born(2, 0), child = born_linked(3, parent);
    cr_assert_eq(guardian(child), parent);
    cr_assert(has_flag(child, LIN_F_BIRTH_LINK));
    cr_assert(!lin_census_is_suspect(census, child));
    lin_census_link(census, child, other);
    cr_assert_eq(guardian(child), parent);
    lin_census_unlink(census, child, other);
    cr_assert_eq(guardian(child), parent);
    cr_assert(!has_flag(child, LIN_F_ESCAPED));
}

Test(links, without_a_birth_link_the_last_one_counts) {
    uint64_t a = born(1, 0), b = born(2, 0), pid = born(3, 0);
    lin_census_link(census, pid, a);
    cr_assert_eq(guardian(pid), a);
    cr_assert(!has_flag(pid, LIN_F_BIRTH_LINK));
    lin_census_link(census, pid, b);
    cr_assert_eq(guardian(pid), b);
}

Test(links, a_later_link_to_the_parent_is_no_birth_link) {
    uint64_t parent = born(1, 0), other = born(2, 0), pid = born(3, parent);
    lin_census_link(census, pid, other);
    lin_census_link(census, pid, parent);
    cr_assert(!has_flag(pid, LIN_F_BIRTH_LINK));
    cr_assert_eq(guardian(pid), parent);
}

Test(links, children_hold_nobody) {
    uint64_t tree = born(1, 0), pid = born(2, 0);
    lin_census_link(census, pid, tree);
    uint64_t child = born_linked(3, pid);
    cr_assert_eq(guardian(child), pid);
    cr_assert_eq(guardian(pid), tree, "who hangs on a process does not hold it");
    uint64_t alone = born(4, 0);
    born_linked(5, alone);
    cr_assert_eq(guardian(alone), 0);
    cr_assert(!lin_census_is_suspect(census, alone), "but it has a link");
}

Test(links, seeded_guardians_stay) {
    uint64_t parent = born(1, 0), pid = fake_start(2), other = born(3, 0);
    cr_assert_eq(lin_census_seed(census, self, NULL,
                                 &(struct lin_birth){.pid = pid, .parent = parent}, parent),
                 LIN_SEED_OK);
    lin_census_link(census, pid, other);
    cr_assert_eq(guardian(pid), parent, "what it was linked to before attach came first");
    born_linked(4, pid);
    cr_assert_eq(guardian(pid), parent);
    lin_census_unlink(census, pid, parent);
    cr_assert_eq(guardian(pid), 0);
    cr_assert(has_flag(pid, LIN_F_ESCAPED));
    lin_census_link(census, pid, other);
    cr_assert_eq(guardian(pid), other);
}

Test(links, seeded_without_a_link_takes_the_next) {
    uint64_t parent = born(1, 0), pid = fake_start(2);
    lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = pid, .parent = parent}, 0);
    lin_census_link(census, pid, parent);
    cr_assert_eq(guardian(pid), parent);
    cr_assert(!has_flag(pid, LIN_F_BIRTH_LINK));
}

Test(links, unlink_is_an_escape_until_the_next_link) {
    uint64_t parent = born(1, 0), other = born(2, 0), pid = born_linked(3, parent);
    lin_census_unlink(census, pid, parent);
    cr_assert_eq(guardian(pid), 0);
    cr_assert(has_flag(pid, LIN_F_ESCAPED));
    cr_assert(!has_flag(pid, LIN_F_BIRTH_LINK));
    cr_assert(!lin_census_is_suspect(census, pid), "it had a link");
    lin_census_link(census, pid, other);
    cr_assert_eq(guardian(pid), other);
    cr_assert(!has_flag(pid, LIN_F_ESCAPED));
}

Test(links, unlinking_somebody_else_changes_nothing) {
    uint64_t parent = born(1, 0), pid = born_linked(3, parent);
    lin_census_unlink(census, pid, fake_pid(9));
    lin_census_unlink(census, pid, 0);
    cr_assert_eq(guardian(pid), parent);
    cr_assert(!has_flag(pid, LIN_F_ESCAPED));
}

Test(links, services_tether_nobody) {
    uint64_t service = born(1, 0), pid = born(2, 0), tree = born(3, 0);
    lin_census_flag(census, service, LIN_CLASS_SERVICE, 0);
    lin_census_link(census, pid, tree);
    lin_census_link(census, pid, service);
    cr_assert_eq(guardian(pid), tree);
    uint64_t lone = born(4, 0);
    lin_census_link(census, lone, service);
    cr_assert_eq(guardian(lone), 0);
    cr_assert(!lin_census_is_suspect(census, lone));
    cr_assert_eq(guardian(born_linked(5, service)), service, "but its own children hang on it");
}

Test(links, users_hold_no_service) {
    uint64_t service = born(1, 0), user = born(2, 0);
    lin_census_flag(census, service, LIN_CLASS_SERVICE, 0);
    lin_census_link(census, service, user);
    cr_assert_eq(guardian(service), 0);
}

Test(links, remote_links) {
    uint64_t parent = born(1, 0), pid = born(2, 0), held = born_linked(3, parent);
    lin_census_link(census, pid, 0);
    cr_assert(has_flag(pid, LIN_F_REMOTE_LINK));
    cr_assert(!lin_census_is_suspect(census, pid));
    cr_assert_eq(guardian(pid), 0);
    lin_census_link(census, held, 0);
    cr_assert_eq(guardian(held), parent);
    cr_assert(has_flag(held, LIN_F_REMOTE_LINK));
    uint64_t packed = LIN_FOREIGN_PACK(1, 5), foreign = fake_start(4);
    lin_census_birth(census, self, NULL,
                     &(struct lin_birth){.pid = foreign, .parent = packed, .flags = LIN_F_FOREIGN});
    lin_census_link(census, foreign, 0);
    cr_assert_eq(entry(foreign).flags & 0xff, LIN_F_FOREIGN | LIN_F_REMOTE_LINK | LIN_F_LINKED);
}

Test(links, guardians_are_corrected) {
    uint64_t parent = born(1, 0), pid = born_linked(2, parent), other = born(3, 0);
    lin_census_unlink(census, pid, parent);
    cr_assert(lin_census_set_guardian(census, pid, other));
    cr_assert_eq(guardian(pid), other);
    cr_assert_eq(entry(pid).flags & 0xff, LIN_F_LINKED);
}

/* The tap. */

static struct lin_event event[64];
static size_t events;

static void keep(const struct lin_event *e, const struct lin_record *record) {
    (void)record;
    cr_assert_lt(events, 64);
    event[events++] = *e;
}

static void is(size_t i, enum lin_event_kind kind, uint64_t pid, uint16_t no, uint64_t a,
               uint32_t b) {
    cr_assert_eq(event[i].kind, kind, "event %zu is of kind %d", i, event[i].kind);
    cr_assert_eq(event[i].pid, pid);
    cr_assert_eq(event[i].no, no, "event %zu has number %d", i, event[i].no);
    cr_assert_eq(event[i].a, a);
    cr_assert_eq(event[i].b, b);
    cr_assert(i == 0 || event[i].ticks >= event[i - 1].ticks || kind == LIN_EV_BORN);
}

Test(tap, a_life) {
    uint32_t call = lin_mfa_intern(census->mfas, 1, 2, 3);
    uint64_t parent = born(1, 0), pid = fake_start(2);
    lin_tap_set(keep);
    lin_census_birth(census, self, NULL,
                     &(struct lin_birth){.pid = pid, .parent = parent, .initial_call = call});
    lin_census_link(census, pid, parent);
    lin_census_name(census, pid, 55);
    lin_census_name(census, pid, 0);
    lin_census_unlink(census, pid, parent);
    struct lin_entry e = entry(pid);
    lin_census_exit(census, self, NULL, pid, 66, true);
    lin_census_exit(census, self, NULL, pid, 66, true);
    cr_assert_eq(events, 7);
    is(0, LIN_EV_BIRTH, pid, 1, parent, 0);
    is(1, LIN_EV_BORN, pid, 2, lin_census_generation(census, &e), call);
    is(2, LIN_EV_LINK, pid, 3, parent, 1);
    is(3, LIN_EV_NAME, pid, 4, 55, 0);
    is(4, LIN_EV_NAME, pid, 5, 0, 0);
    is(5, LIN_EV_UNLINK, pid, 6, parent, 1);
    is(6, LIN_EV_EXIT, pid, 7, 66, 1);
    cr_assert_eq(event[0].flags, 0);
    cr_assert_eq(event[2].flags, LIN_F_LINKED | LIN_F_BIRTH_LINK);
    cr_assert_eq(event[5].flags, LIN_F_LINKED | LIN_F_ESCAPED);
    cr_assert_eq(event[0].ticks, e.birth);
}

Test(tap, ghosts_are_told_before_who_took_their_place) {
    uint64_t ghost = born(1, 0);
    fake_kill(ghost);
    lin_tap_set(keep);
    uint64_t next = born(1 + FAKE_LIMIT, 0);
    cr_assert_eq(events, 3);
    is(0, LIN_EV_SWEPT, ghost, 1, 0, 0);
    is(1, LIN_EV_BIRTH, next, 1, 0, 0);
    fake_kill(next);
    lin_census_sweep(census, self, NULL);
    cr_assert_eq(events, 4);
    is(3, LIN_EV_SWEPT, next, 3, 0, 0);
}

Test(tap, seeds_are_births_of_generation_0) {
    uint64_t pid = fake_start(1);
    lin_tap_set(keep);
    lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = pid, .parent = fake_pid(9)}, 0);
    cr_assert_eq(events, 2);
    is(0, LIN_EV_BIRTH, pid, 1, fake_pid(9), 0);
    is(1, LIN_EV_BORN, pid, 2, 0, 0);
    cr_assert_eq(event[0].flags, LIN_F_SEEDED);
}

Test(tap, the_guardian_of_a_seed_is_told) {
    uint64_t pid = fake_start(1);
    lin_tap_set(keep);
    lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = pid}, fake_pid(9));
    cr_assert_eq(events, 3);
    is(2, LIN_EV_LINK, pid, 3, fake_pid(9), 1);
}

Test(tap, what_erlang_corrects) {
    uint64_t pid = born(1, 0);
    uint32_t former;
    lin_tap_set(keep);
    lin_census_flag(census, pid, LIN_CLASS_HOST, 0);
    lin_census_flag(census, pid, LIN_F_TOLD, 0);
    lin_census_scope(census, pid, 7, &former);
    lin_census_flag(census, pid, LIN_CLASS_HOST, 0); /* what was so is no event */
    lin_census_flag(census, pid, 0, LIN_CLASS_ROOT);
    lin_census_scope(census, pid, 7, &former);
    lin_census_set_guardian(census, pid, fake_pid(9));
    cr_assert_eq(events, 3);
    is(0, LIN_EV_FLAGS, pid, 1, LIN_CLASS_HOST, 0);
    is(1, LIN_EV_FLAGS, pid, 2, LIN_CLASS_HOST | LIN_F_TOLD, 7);
    is(2, LIN_EV_GUARDIAN, pid, 3, fake_pid(9), 0);
    lin_census_link(census, pid, fake_pid(8));
    lin_census_unlink(census, pid, fake_pid(9));
    is(3, LIN_EV_LINK, pid, 4, fake_pid(8), 1);
    is(4, LIN_EV_UNLINK, pid, 5, fake_pid(9), 0);
}

Test(tap, numbers_wrap) {
    uint64_t pid = born(1, 0);
    struct lin_record *record = lin_census_record(census, *lin_census_entry(census, pid) - 1);
    record->no = UINT16_MAX;
    lin_tap_set(keep);
    lin_census_link(census, pid, fake_pid(2));
    cr_assert_eq(event[0].no, 0);
}

Test(tap, lost_births_are_not_told) {
    lin_tap_set(keep);
    fake_fail_after = 0;
    born(1, 0);
    cr_assert_eq(events, 0);
}

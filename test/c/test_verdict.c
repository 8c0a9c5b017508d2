#include "fake_host.h"
#include "verdict.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

/* Which chains of guardians lead to a root, and the check of links. */

static struct lin_census *census;
static struct lin_thread *self;
static struct lin_verdict verdict;
static uint64_t candidate[FAKE_LIMIT];
static size_t candidates, room;

static void setup(void) {
    cr_assert_not_null(fake_open(fake_options()));
    self = fake_enter(&census);
    room = FAKE_LIMIT;
}

static void teardown(void) {
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(verdict, .init = setup, .fini = teardown);

static uint64_t born(uint64_t number, uint64_t guardian, uint32_t class) {
    uint64_t pid = fake_start(number);
    lin_census_birth(census, self, NULL,
                     &(struct lin_birth){.pid = pid, .parent = guardian, .flags = class});
    if (guardian != 0)
        lin_census_link(census, pid, guardian);
    return pid;
}

static bool keep(void *arg, uint64_t pid) {
    cr_assert_eq(arg, &verdict);
    if (candidates == room)
        return false;
    candidate[candidates++] = pid;
    return true;
}

static int judge(void) {
    candidates = 0;
    return lin_verdict_run(census, &verdict, keep, &verdict);
}

static bool is_candidate(uint64_t pid) {
    for (size_t i = 0; i < candidates; i++)
        if (candidate[i] == pid)
            return true;
    return false;
}

Test(verdict, empty) {
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.live + verdict.orphans + verdict.rooted, 0);
}

Test(verdict, a_chain_to_a_root) {
    uint64_t pid = born(1, 0, LIN_CLASS_ROOT);
    for (uint64_t n = 2; n < 3000; n++)
        pid = born(n, pid, 0);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.live, 2999);
    cr_assert_eq(verdict.rooted, 2999);
    cr_assert_eq(verdict.orphans, 0);
    cr_assert_eq(candidates, 0);
}

Test(verdict, a_chain_to_nobody) {
    uint64_t pid = born(1, 0, 0);
    for (uint64_t n = 2; n < 3000; n++)
        pid = born(n, pid, 0);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 2999);
    cr_assert_eq(candidates, 2999);
}

Test(verdict, a_root_saves_what_hangs_below_it_only) {
    uint64_t top = born(1, 0, 0), root = born(2, top, LIN_CLASS_HOST), low = born(3, root, 0);
    cr_assert_eq(judge(), 0);
    cr_assert(is_candidate(top));
    cr_assert(!is_candidate(root));
    cr_assert(!is_candidate(low));
    cr_assert_eq(verdict.orphans, 1);
    cr_assert_eq(verdict.rooted, 2);
}

Test(verdict, circles_hang_on_nothing) {
    uint64_t a = born(1, 0, 0), b = born(2, 0, 0), c = born(3, 0, 0), tail = born(4, c, 0);
    lin_census_set_guardian(census, a, b);
    lin_census_set_guardian(census, b, c);
    lin_census_set_guardian(census, c, a);
    uint64_t self_held = born(5, 0, 0);
    lin_census_set_guardian(census, self_held, self_held);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 5);
    cr_assert(is_candidate(tail));
    cr_assert(is_candidate(self_held));
}

Test(verdict, dead_guardians) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), middle = born(2, root, 0), low = born(3, middle, 0);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0);
    fake_kill(middle);
    lin_census_exit(census, self, NULL, middle, 1, false);
    cr_assert_eq(judge(), 0);
    cr_assert(is_candidate(low));
    cr_assert_eq(verdict.orphans, 1);
    born(2 + FAKE_LIMIT, root, 0);
    cr_assert_eq(judge(), 0);
    cr_assert(is_candidate(low), "who sits in the guardian's slot now is somebody else");
}

Test(verdict, own_is_left_out) {
    uint64_t own = born(1, 0, LIN_CLASS_OWN);
    born(2, own, LIN_CLASS_OWN);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0);
    cr_assert_eq(verdict.own, 2);
}

Test(verdict, classes_are_counted) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT);
    born(2, 0, LIN_CLASS_RUNTIME);
    born(3, 0, LIN_CLASS_HOST);
    born(4, root, LIN_CLASS_SUPERVISOR);
    uint64_t lone = born(5, 0, LIN_CLASS_SUPERVISOR);
    born(6, root, LIN_CLASS_SERVICE);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.live, 6);
    cr_assert_eq(verdict.roots, 1);
    cr_assert_eq(verdict.runtime, 1);
    cr_assert_eq(verdict.hosts, 1);
    cr_assert_eq(verdict.supervisors, 2);
    cr_assert_eq(verdict.services, 1);
    cr_assert_eq(verdict.orphans, 1);
    cr_assert(is_candidate(lone));
}

Test(verdict, the_list_ends_and_the_count_goes_on) {
    for (uint64_t n = 0; n < 100; n++)
        born(n, 0, 0);
    room = 7;
    cr_assert_eq(judge(), 0);
    cr_assert_eq(candidates, 7);
    cr_assert_eq(verdict.orphans, 100);
    cr_assert_eq(lin_verdict_run(census, &verdict, NULL, NULL), 0);
    cr_assert_eq(verdict.orphans, 100);
}

Test(verdict, scratch_is_freed_and_told) {
    for (uint64_t n = 0; n < 1000; n++)
        born(n, 0, 0);
    struct lin_totals before, after;
    lin_census_totals(census, &before);
    int64_t bytes = fake_bytes;
    fake_peak_bytes = bytes;
    cr_assert_eq(judge(), 0);
    lin_census_totals(census, &after);
    cr_assert_eq(fake_bytes, bytes);
    cr_assert_eq(after.bytes, before.bytes);
    cr_assert_geq(after.peak_bytes - before.bytes, (uint64_t)(fake_peak_bytes - bytes));
}

static struct {
    uint64_t pid;
    uint32_t children;
} guardian[FAKE_LIMIT];
static size_t guardians;

static void keep_guardian(void *arg, uint64_t pid, uint32_t children) {
    cr_assert_null(arg);
    guardian[guardians].pid = pid;
    guardian[guardians++].children = children;
}

static void list_guardians(void) {
    guardians = 0;
    lin_guardians_run(census, keep_guardian, NULL);
}

Test(verdict, no_memory) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT);
    born(2, root, 0);
    fake_fail_after = 0;
    cr_assert_eq(judge(), -ENOMEM);
    list_guardians();
    cr_assert_eq(guardians, 1, "that takes no memory");
    fake_fail_after = -1;
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.live, 2);
}

Test(verdict, guardians_and_their_children) {
    list_guardians();
    cr_assert_eq(guardians, 0);
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), dead = born(2, root, 0);
    for (uint64_t n = 10; n < 20; n++)
        born(n, root, 0);
    born(20, dead, 0);
    uint64_t middle = fake_pid(10);
    born(21, middle, 0);
    lin_census_exit(census, self, NULL, dead, 1, false);
    list_guardians();
    cr_assert_eq(guardians, 2, "a dead one is asked for no links");
    for (size_t i = 0; i < guardians; i++)
        cr_assert_eq(guardian[i].children, guardian[i].pid == root ? 10 : 1);
}

static void confirm(uint64_t pid, const uint64_t *links, size_t count) {
    lin_confirm_begin(census, pid);
    for (size_t i = 0; i < count; i++)
        lin_confirm_link(census, pid, links[i]);
}

Test(verdict, who_is_not_among_the_links_is_unlinked) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), sup = born(2, root, 0);
    uint64_t kept = born(3, sup, 0), gone = born(4, sup, 0), below = born(5, gone, 0);
    list_guardians();
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0, "nobody is judged by links that were not read");
    uint64_t links[] = {root, kept, fake_pid(4000)};
    confirm(sup, links, 3);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 2);
    cr_assert(is_candidate(gone));
    cr_assert(is_candidate(below));
    cr_assert(!is_candidate(kept));
    cr_assert(!is_candidate(sup));
    uint64_t late = born(6, sup, 0);
    cr_assert_eq(judge(), 0);
    cr_assert(!is_candidate(late), "born after its guardian's links were read");
    lin_census_link(census, gone, sup);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0, "a link since then counts");
}

Test(verdict, the_next_check_starts_from_nothing) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), pid = born(2, root, 0);
    list_guardians();
    confirm(root, NULL, 0);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 1);
    list_guardians();
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0);
    confirm(root, &pid, 1);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0);
}

Test(verdict, seeded_after_the_links_were_read) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), pid = fake_start(2);
    list_guardians();
    confirm(root, NULL, 0);
    cr_assert_eq(
        lin_census_seed(census, self, NULL, &(struct lin_birth){.pid = pid, .parent = root}, root),
        LIN_SEED_OK);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0);
}

Test(verdict, set_guardian_confirms) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), pid = born(2, 0, 0);
    list_guardians();
    confirm(root, NULL, 0);
    lin_census_set_guardian(census, pid, root);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 0);
}

Test(verdict, links_of_another_guardian_confirm_nothing) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT), other = born(2, root, 0), pid = born(3, root, 0);
    list_guardians();
    confirm(root, &other, 1);
    confirm(other, &pid, 1);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 1);
    cr_assert(is_candidate(pid));
}

Test(verdict, the_number_of_a_check_wraps_and_is_never_0) {
    uint64_t root = born(1, 0, LIN_CLASS_ROOT);
    born(2, root, 0);
    atomic_store(&census->epoch, UINT16_MAX);
    list_guardians();
    cr_assert_eq(census->epoch, 1);
    confirm(root, NULL, 0);
    cr_assert_eq(judge(), 0);
    cr_assert_eq(verdict.orphans, 1);
}

Test(verdict, unknown_pids_are_left_alone) {
    uint64_t pid = fake_pid(9);
    list_guardians();
    confirm(pid, &pid, 1);
    cr_assert_eq(judge(), 0);
}

#include "fake_host.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The table of sites. Atoms and pids are numbers here: the core never looks into them. */

static struct lin_sites *sites;

static void setup(void) {
    lin_gate_init(&fake_host);
    sites = lin_sites_create(true);
}

static void teardown(void) {
    lin_sites_destroy(sites);
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(sites, .init = setup, .fini = teardown);

static struct lin_frame frame_at(uint32_t line) {
    return (struct lin_frame){.module = 11, .function = 12, .arity = 1, .line = line};
}

Test(sites, same_site_same_id) {
    struct lin_site site = {.closure = 5, .index = 1, .uniq = 2, .closure_module = 77};
    uint32_t id = lin_site_intern(sites, &site);
    cr_assert_eq(id, 1);
    site.closure_module = 78;
    cr_assert_eq(lin_site_intern(sites, &site), id, "what it stands for is no part of the key");
    cr_assert_eq(lin_site_at(sites, id)->closure_module, 77);
    cr_assert_eq(lin_sites_used(sites), 1);
}

Test(sites, each_part_makes_another_site) {
    struct lin_site base = {.closure = 5, .index = 1, .uniq = 2, .frame = frame_at(9)};
    struct lin_site all[10];
    for (size_t i = 0; i < 10; i++)
        all[i] = base;
    all[1].closure++;
    all[2].closure = 0;
    all[3] = (struct lin_site){.initial_call = 1};
    all[4] = (struct lin_site){.initial_call = 1, .spawner = 1};
    all[5].frame.module++;
    all[6].frame.function++;
    all[7].frame.arity++;
    all[8].frame.line++;
    all[9].frame.file++;
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(lin_site_intern(sites, &all[i]), i + 1);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(lin_site_find(sites, &all[i]), i + 1);
}

static int by_hash(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The hash is all that tells one closure from another: texts that differ in any two places. */
Test(sites, hashes_of_close_texts_differ) {
    enum { MOST = 400000 };
    uint64_t *hash = malloc(MOST * sizeof *hash);
    cr_assert_not_null(hash);
    char text[64];
    for (size_t len = 1; len < sizeof text; len++) {
        size_t n = 0;
        memset(text, 'a', sizeof text);
        for (size_t i = 0; i + 1 < len; i++)
            for (size_t j = i + 1; j < len; j++)
                for (int mutant = 0; mutant < 14 * 14 && n < MOST; mutant++) {
                    text[i] = "1234567890_b\x81\xe1"[mutant / 14];
                    text[j] = "1234567890_b\x81\xe1"[mutant % 14];
                    hash[n++] = lin_hash_bytes(text, len);
                    text[i] = text[j] = 'a';
                }
        qsort(hash, n, sizeof *hash, by_hash);
        for (size_t k = 1; k < n; k++)
            cr_assert_neq(hash[k - 1], hash[k], "at length %zu", len);
    }
    free(hash);
}

Test(sites, full_table_answers_0_and_counts) {
    for (uint32_t i = 1; i < LIN_SITES; i++)
        cr_assert_eq(lin_site_intern(sites, &(struct lin_site){.initial_call = i}), i);
    cr_assert_eq(lin_site_intern(sites, &(struct lin_site){.initial_call = LIN_SITES}), 0);
    cr_assert_eq(lin_site_intern(sites, &(struct lin_site){.initial_call = LIN_SITES + 1}), 0);
    cr_assert_eq(lin_sites_overflows(sites), 2);
    cr_assert_eq(lin_site_intern(sites, &(struct lin_site){.initial_call = 7}), 7);
    cr_assert_null(lin_site_at(sites, LIN_SITES));
    cr_assert_null(lin_site_at(sites, 0));
}

Test(sites, files_are_kept_once) {
    uint32_t file = lin_file_intern(sites, "lib/a.ex", 8);
    cr_assert_neq(file, 0);
    cr_assert_eq(lin_file_intern(sites, "lib/a.exs", 8), file, "the length counts");
    cr_assert_neq(lin_file_intern(sites, "lib/b.ex", 8), file);
    cr_assert_str_eq(lin_file_name(sites, file), "lib/a.ex");
    cr_assert_null(lin_file_name(sites, 0));
    cr_assert_null(lin_file_name(sites, LIN_SITE_FILES));
}

Test(sites, there_is_room_for_1023_files) {
    char name[16];
    for (int i = 0; i < 1023; i++) {
        int len = snprintf(name, sizeof name, "file%d", i);
        cr_assert_neq(lin_file_intern(sites, name, (size_t)len), 0);
    }
    cr_assert_eq(lin_file_intern(sites, "one more", 8), 0);
    cr_assert_neq(lin_file_intern(sites, "file7", 5), 0);
}

Test(sites, wrappers_are_modules_or_functions) {
    cr_assert(lin_wrapper_add(sites, 20, 0));
    cr_assert(lin_wrapper_add(sites, 21, 5));
    cr_assert(lin_wrapper_add(sites, 21, 6));
    cr_assert(lin_wrapper_is(sites, 20, 1));
    cr_assert(lin_wrapper_is(sites, 21, 5));
    cr_assert(lin_wrapper_is(sites, 21, 6));
    cr_assert_not(lin_wrapper_is(sites, 21, 7));
    cr_assert_not(lin_wrapper_is(sites, 22, 5));
}

Test(sites, wrappers_are_bounded) {
    for (uint64_t i = 1; i <= LIN_WRAPPERS / 4 * 3; i++)
        cr_assert(lin_wrapper_add(sites, i, 0));
    cr_assert_not(lin_wrapper_add(sites, 1000, 0));
    cr_assert(lin_wrapper_add(sites, 3, 0), "what is known stays known");
    cr_assert_not(lin_wrapper_is(sites, 1000, 0));
}

Test(sites, a_frame_is_taken_once) {
    struct lin_frame put = frame_at(33), got;
    cr_assert_not(lin_pending_take(sites, 100, &got));
    lin_pending_put(sites, NULL, 100, &put, 1);
    cr_assert_not(lin_pending_take(sites, 101, &got));
    cr_assert(lin_pending_take(sites, 100, &got));
    cr_assert_eq(got.line, 33);
    cr_assert_not(lin_pending_take(sites, 100, &got));
}

Test(sites, the_last_call_counts) {
    struct lin_frame first = frame_at(1), second = frame_at(2), got;
    lin_pending_put(sites, NULL, 100, &first, 1);
    lin_pending_put(sites, NULL, 100, &second, 1);
    cr_assert(lin_pending_take(sites, 100, &got));
    cr_assert_eq(got.line, 2);
    cr_assert_not(lin_pending_take(sites, 100, &got));
}

Test(sites, a_frame_follows_the_calls_that_it_led_to) {
    struct lin_frame put = frame_at(1), got;
    lin_pending_put(sites, NULL, 100, &put, 40);
    lin_pending_pass(sites, 100, 40, 41);
    lin_pending_pass(sites, 100, 41, 42);
    cr_assert(lin_pending_take(sites, 100, &got));
    lin_pending_put(sites, NULL, 100, &put, 40);
    lin_pending_pass(sites, 100, 41, 42);
    cr_assert_not(lin_pending_take(sites, 100, &got), "it called another module");
    lin_pending_put(sites, NULL, 100, &put, 40);
    lin_pending_drop(sites, 100);
    cr_assert_not(lin_pending_take(sites, 100, &got));
}

/* More callers than there is room for, each with a few others before its birth. */
Test(sites, many_callers_never_get_another_ones_frame) {
    uint32_t found = 0;
    for (uint64_t pid = 1; pid <= 40000; pid++) {
        struct lin_frame put = frame_at((uint32_t)pid), got;
        lin_pending_put(sites, NULL, fake_start(pid), &put, 1);
        if (pid % 2 == 0 || pid <= 100 || !lin_pending_take(sites, fake_pid(pid - 100), &got))
            continue;
        cr_assert_eq(got.line, pid - 100);
        found++;
    }
    /* Those that stay are alive, and in the way; a frame that has waited for long is gone. */
    cr_assert_gt(found, 10000);
}

/* Births at a site, with and without a frame, and what became of them. */
Test(census_sites, births_and_deaths_are_counted) {
    struct lin_census_options options = fake_options();
    options.sites = LIN_SITES_EXACT;
    struct lin_census *census = fake_open(options);
    struct lin_thread *self = fake_enter(&census);
    struct lin_site closure = {.closure = 9, .index = 1, .uniq = 3};
    uint32_t site = lin_site_intern(census->sites, &closure);
    uint64_t parent = fake_start(2), births, unheard;
    lin_census_birth(census, self, NULL, &(struct lin_birth){.pid = parent, .initial_call = 4});

    struct lin_birth birth = {.pid = fake_start(3), .parent = parent, .site = site};
    lin_census_birth(census, self, NULL, &birth);
    struct lin_entry entry;
    cr_assert(lin_census_read(census, birth.pid, &entry));
    cr_assert_eq(entry.site, site);

    struct lin_frame frame = frame_at(70);
    lin_pending_put(census->sites, NULL, parent, &frame, 1);
    birth.pid = fake_start(4);
    lin_census_birth(census, self, NULL, &birth);
    cr_assert(lin_census_read(census, birth.pid, &entry));
    cr_assert_neq(entry.site, site);
    cr_assert_eq(lin_site_at(census->sites, entry.site)->frame.line, 70);
    cr_assert_eq(lin_site_at(census->sites, entry.site)->closure, 9);

    /* Neither a closure nor a frame: what it runs, and what its parent runs. */
    birth = (struct lin_birth){.pid = fake_start(5), .parent = parent, .initial_call = 6};
    lin_census_birth(census, self, NULL, &birth);
    cr_assert(lin_census_read(census, birth.pid, &entry));
    cr_assert_eq(lin_site_at(census->sites, entry.site)->initial_call, 6);
    cr_assert_eq(lin_site_at(census->sites, entry.site)->spawner, 4);

    lin_census_exit(census, self, NULL, birth.pid, 8, true);
    lin_site_sum(census->session, entry.site, &births, &unheard);
    cr_assert_eq(births, 1);
    cr_assert_eq(unheard, 1);
    lin_site_sum(census->session, site, &births, &unheard);
    cr_assert_eq(births, 1);
    cr_assert_eq(unheard, 0);
    static struct lin_dead dead[LIN_RECENT];
    cr_assert_eq(lin_recent_read(1, LIN_RING_DEAD, dead, LIN_RECENT, 1), 1);
    cr_assert_eq(dead[0].site, entry.site);
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

/* Every allocation fails once: nothing but counts is lost. */
Test(census_sites, no_memory) {
    struct lin_census_options options = fake_options();
    options.sites = LIN_SITES_CLOSURE;
    lin_gate_init(&fake_host);
    for (int64_t n = 0; n < 6; n++) {
        fake_fail_after = n;
        struct lin_census *census = NULL;
        if (lin_census_create(&options, &census) == 0)
            lin_census_destroy(census);
        fake_fail_after = -1;
    }
    struct lin_census *census = fake_open(options);
    struct lin_thread *self = fake_enter(&census);
    uint64_t births, unheard;
    struct lin_birth birth = {.pid = fake_start(3), .initial_call = 6};
    lin_census_birth(census, self, NULL, &birth);
    fake_fail_after = 0;
    lin_site_count(self, LIN_SITE_PAGE * 3, true);
    cr_assert_eq(lin_file_intern(census->sites, "x", 1), 0);
    fake_fail_after = -1;
    lin_site_sum(census->session, LIN_SITE_PAGE * 3, &births, &unheard);
    cr_assert_eq(births, 0);
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

Test(sites, without_exact_there_is_no_room_for_frames) {
    cr_assert_gt(lin_sites_bytes(true), lin_sites_bytes(false));
    struct lin_sites *plain = lin_sites_create(false);
    cr_assert_not(lin_sites_exact(plain));
    cr_assert(lin_sites_exact(sites));
    lin_sites_destroy(plain);
}

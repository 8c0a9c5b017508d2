#include "fake_host.h"
#include "pool.h"
#include "verdict.h"

#include <criterion/criterion.h>
#include <pthread.h>

/* Records: where they come from, who keeps free ones, and memory that is given back after a peak.
 */

#define BIG 131072u

static struct lin_census *census;
static struct lin_thread *self;

static void setup(void) {
    struct lin_census_options options = fake_options();
    options.process_limit = BIG;
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
}

static void teardown(void) {
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
    cr_assert_eq(fake_blocks, 0);
}

TestSuite(pool, .init = setup, .fini = teardown);

static uint64_t born(uint64_t number) {
    uint64_t pid = fake_start(number);
    lin_census_birth(
        census, self, NULL,
        &(struct lin_birth){.pid = pid, .parent = number + 1, .flags = LIN_CLASS_HOST});
    return pid;
}

static void die(uint64_t number) {
    fake_kill(fake_pid(number));
    lin_census_exit(census, self, NULL, fake_pid(number), 1, false);
}

static struct lin_totals totals(void) {
    struct lin_totals out;
    lin_census_totals(census, &out);
    return out;
}

/* Maintenance runs outside the gate. */
static void trim(void) {
    lin_gate_leave(self);
    lin_census_trim(census, self);
    lin_gate_enter(self);
}

static void is_whole(uint64_t number) {
    struct lin_entry entry;
    cr_assert(lin_census_read(census, fake_pid(number), &entry), "%zu is lost", (size_t)number);
    cr_assert_eq(entry.pid, fake_pid(number));
    cr_assert_eq(entry.parent, number + 1);
    cr_assert_eq(entry.flags, LIN_CLASS_HOST);
}

/* Everything that is free or taken, counted by hand. */
static void books_balance(void) {
    uint64_t live = 0, free_in_chunks = 0, free_in_threads = 0, chunks = 0;
    for (uint32_t n = 0; n < census->chunks_max; n++) {
        struct lin_chunk *chunk = census->chunks[n];
        if (chunk == NULL)
            continue;
        chunks++;
        cr_assert_eq(chunk->number, n);
        cr_assert_eq(chunk->listed, chunk->free_count > 0,
                     "a chunk with free records is on the list");
        free_in_chunks += chunk->free_count;
        uint32_t steps = 0;
        for (uint32_t i = chunk->free_head; i != LIN_CHUNK; i = chunk->record[i].spawner)
            cr_assert_lt(steps++, chunk->free_count);
        cr_assert_eq(steps, chunk->free_count);
        for (uint32_t i = 0; i < LIN_CHUNK; i++)
            live += chunk->record[i].pid != 0;
    }
    for (struct lin_thread *t = lin_gate.threads; t != NULL; t = t->next)
        free_in_threads += t->session == census->session ? t->free_count : 0;
    cr_assert_eq(chunks, census->chunks_used);
    cr_assert_eq(live, totals().records);
    cr_assert_eq(live + free_in_chunks + free_in_threads, chunks * LIN_CHUNK);
}

Test(pool, the_last_freed_is_the_next_taken) {
    born(1);
    uint32_t number = *lin_census_entry(census, fake_pid(1));
    die(1);
    born(2);
    cr_assert_eq(*lin_census_entry(census, fake_pid(2)), number);
}

Test(pool, a_thread_keeps_few) {
    for (uint64_t n = 0; n < 5000; n++)
        born(n);
    for (uint64_t n = 0; n < 5000; n++)
        die(n);
    cr_assert_leq(self->free_count, LIN_LOCAL_FREE);
    books_balance();
}

static uint64_t thread_from, thread_to;

static void *born_elsewhere(void *arg) {
    (void)arg;
    struct lin_census *mine;
    struct lin_thread *main_self = self;
    self = fake_enter(&mine);
    for (uint64_t n = thread_from; n < thread_to; n++)
        born(n);
    lin_gate_leave(self);
    self = main_self;
    return NULL;
}

static void birth_in_a_thread(uint64_t from, uint64_t to) {
    pthread_t thread;
    thread_from = from;
    thread_to = to;
    pthread_create(&thread, NULL, born_elsewhere, NULL);
    pthread_join(thread, NULL);
}

Test(pool, records_travel_between_threads) {
    uint64_t bytes = 0;
    for (int round = 0; round < 20; round++) {
        birth_in_a_thread(0, 2000);
        for (uint64_t n = 0; n < 2000; n++)
            die(n);
        if (round == 9)
            bytes = atomic_load(&census->bytes);
    }
    /* Each thread of those that ended keeps its own. */
    cr_assert_leq(census->bytes, bytes + 10 * (LIN_LOCAL_FREE + LIN_CHUNK) * 65);
    books_balance();
}

Test(pool, memory_that_fails_once) {
    fake_fail_after = 0;
    cr_assert_eq(lin_pool_take(census, self), LIN_NO_RECORD);
    fake_fail_after = 1;
    cr_assert_neq(lin_pool_take(census, self), LIN_NO_RECORD);
    fake_fail_after = 0;
    for (int i = 1; i < (int)LIN_CHUNK; i++)
        cr_assert_neq(lin_pool_take(census, self), LIN_NO_RECORD);
    cr_assert_eq(lin_pool_take(census, self), LIN_NO_RECORD);
    fake_fail_after = -1;
    cr_assert_neq(lin_pool_take(census, self), LIN_NO_RECORD);
}

Test(pool, every_slot_full) {
    for (uint64_t n = 0; n < BIG; n++)
        born(n);
    cr_assert_eq(totals().lost, 0);
    cr_assert_eq(totals().records, BIG);
    books_balance();
}

/* At any moment: 64 bytes for each live one, 4 for each slot, and 4 MiB. */
static void within_the_bar(void) {
    uint64_t bar = 64 * totals().records + 4ull * BIG + (4u << 20);
    cr_assert_leq(totals().bytes, bar, "%zu bytes, the bar is %zu", (size_t)totals().bytes,
                  (size_t)bar);
    cr_assert_leq((uint64_t)fake_bytes, bar);
}

static void peak_then_keep(uint64_t every) {
    for (uint64_t n = 0; n < BIG; n++)
        born(n);
    within_the_bar();
    for (uint64_t n = 0; n < BIG; n++)
        if (n % every != 0)
            die(n);
    trim();
    within_the_bar();
    books_balance();
    for (uint64_t n = 0; n < BIG; n += every)
        is_whole(n);
    for (uint64_t n = 0; n < BIG; n++) {
        struct lin_entry entry;
        cr_assert_eq(lin_census_read(census, fake_pid(n), &entry), n % every == 0);
    }
}

Test(pool, after_a_peak_memory_goes_back) {
    peak_then_keep(10);
    for (uint64_t n = 1; n < BIG; n++)
        if (n % 10 != 0)
            born(n);
    for (uint64_t n = 0; n < BIG; n++)
        is_whole(n);
    books_balance();
}

static void no_guardian(void *arg, uint64_t pid, uint32_t children) {
    (void)arg, (void)pid, (void)children;
}

/* What a report takes for a moment is in the bar, too, also on top of all that may lie free. */
Test(pool, a_million_and_every_scratch) {
    lin_gate_leave(self);
    fake_close(census);
    struct lin_census_options options = fake_options();
    options.session = 2;
    options.process_limit = 1u << 20;
    options.max_bytes = 256u << 20;
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
    for (uint64_t n = 0; n < 1000000; n++)
        born(n);
    for (uint64_t n = 0; n < 1000000 && totals().free_records < census->slack_records; n += 30)
        die(n);
    trim();
    struct lin_verdict verdict;
    cr_assert_eq(lin_verdict_run(census, &verdict, NULL, NULL), 0);
    lin_guardians_run(census, no_guardian, NULL);
    uint64_t bar = 64 * totals().records + (4u << 20) + (4u << 20);
    cr_assert_leq(totals().peak_bytes, bar, "%zu bytes, the bar is %zu",
                  (size_t)totals().peak_bytes, (size_t)bar);
    cr_assert_leq((uint64_t)fake_peak_bytes, bar);
}

Test(pool, one_of_each_chunk_is_left) { peak_then_keep(LIN_CHUNK); }

Test(pool, nobody_is_left) { peak_then_keep(BIG); }

Test(pool, moved_records_live_on) {
    peak_then_keep(100);
    for (uint64_t n = 0; n < BIG; n += 100) {
        lin_census_link(census, fake_pid(n), fake_pid(n + 1));
        cr_assert(!lin_census_is_suspect(census, fake_pid(n)));
    }
    for (uint64_t n = 0; n < BIG; n += 200)
        die(n);
    for (uint64_t n = 100; n < BIG; n += 200)
        fake_kill(fake_pid(n));
    lin_gate_leave(self);
    cr_assert_eq(lin_census_sweep(census, self, NULL), (BIG + 99) / 200);
    lin_gate_enter(self);
    cr_assert_eq(totals().records, 0);
    books_balance();
}

Test(pool, free_records_of_other_threads_are_taken_along) {
    birth_in_a_thread(0, 1000);
    for (uint64_t n = 1000; n < BIG; n++)
        born(n);
    for (uint64_t n = 0; n < BIG; n++)
        die(n);
    trim();
    within_the_bar();
    books_balance();
}

Test(pool, trim_of_little_does_nothing) {
    for (uint64_t n = 0; n < 1000; n++)
        born(n);
    uint64_t bytes = atomic_load(&census->bytes);
    for (uint64_t n = 0; n < 1000; n++)
        die(n);
    trim();
    cr_assert_eq(atomic_load(&census->bytes), bytes);
}

Test(pool, trim_without_scratch_or_room_changes_nothing) {
    for (uint64_t n = 0; n < BIG; n++)
        born(n);
    for (uint64_t n = 0; n < BIG; n++)
        if (n % 10 != 0)
            die(n);
    fake_fail_after = 0;
    uint64_t bytes = totals().bytes;
    trim();
    fake_fail_after = -1;
    cr_assert_eq(totals().bytes, bytes);
    books_balance();
}

Test(pool, trim_gives_up_while_somebody_stays_inside) {
    for (uint64_t n = 0; n < BIG; n++)
        born(n);
    for (uint64_t n = 0; n < BIG; n++)
        die(n);
    uint64_t bytes = totals().bytes;
    lin_census_trim(census, self); /* this very thread is inside */
    cr_assert_eq(totals().bytes, bytes);
    books_balance();
}

Test(pool, nursery_after_a_move) {
    census->exits_all = false;
    for (uint64_t n = 0; n < BIG; n++) {
        born(n);
        lin_census_link(census, fake_pid(n), fake_pid(7));
    }
    for (uint64_t n = 0; n < BIG; n++)
        if (n % 97 != 0)
            die(n);
    trim();
    for (uint64_t n = 0; n < BIG; n += 97)
        fake_kill(fake_pid(n));
    for (uint64_t n = BIG; n < 2 * BIG; n += 97)
        born(n);
    lin_gate_leave(self);
    lin_census_sweep(census, self, NULL);
    lin_gate_enter(self);
    for (uint64_t n = BIG; n < 2 * BIG; n += 97)
        is_whole(n);
    cr_assert_eq(totals().records, (BIG + 96) / 97);
    books_balance();
}

Test(pool, nursery_takes_the_young_dead) {
    census->exits_all = false;
    for (uint64_t n = 0; n < 100000; n++) {
        born(n);
        lin_census_link(census, fake_pid(n), fake_pid(7));
        fake_kill(fake_pid(n));
        cr_assert_leq(totals().records, LIN_NURSERY + 1);
    }
    cr_assert_leq(census->chunks_used, 3);
}

/* One that is dying already, and whose exit is still to be told, is left to it. */
Test(pool, nursery_leaves_suspects_to_their_exit) {
    census->exits_all = false;
    born(0);
    fake_kill(fake_pid(0));
    for (uint64_t n = 1; n <= 2 * LIN_NURSERY; n++)
        born(n);
    cr_assert_eq(totals().swept, 0);
    die(0);
    cr_assert_eq(totals().seen, 1);
    books_balance();
}

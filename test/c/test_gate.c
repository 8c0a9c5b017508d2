#include "fake_host.h"

#include <criterion/criterion.h>
#include <pthread.h>

/* Who is inside, and how to wait until nobody is. Threads meet at flags, never by time. */

static struct lin_census *census;
static _Atomic int stage;

static void wait_for(int wanted) {
    while (atomic_load(&stage) < wanted)
        sched_yield();
}

static void setup(void) {
    census = fake_open(fake_options());
    cr_assert_not_null(census);
}

static void teardown(void) {
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(gate, .init = setup, .fini = teardown);

Test(gate, enter_returns_the_census) {
    struct lin_thread *self = lin_thread_self();
    cr_assert_eq(lin_gate_enter(self), census);
    cr_assert_eq(self->visits & 1, 1);
    lin_gate_leave(self);
    cr_assert_eq(self->visits & 1, 0);
}

Test(gate, without_a_census_nobody_is_inside) {
    struct lin_thread *self = lin_thread_self();
    lin_gate_set_current(NULL);
    cr_assert_null(lin_gate_enter(self));
    cr_assert_eq(self->visits & 1, 0);
}

Test(gate, no_memory_no_thread) {
    fake_fail_after = 0;
    cr_assert_null(lin_thread_self());
    fake_fail_after = -1;
    cr_assert_not_null(lin_thread_self());
}

Test(gate, a_thread_is_made_once) {
    struct lin_thread *self = lin_thread_self();
    cr_assert_eq(lin_thread_self(), self);
    cr_assert_eq(lin_gate.thread_bytes, sizeof *self);
}

Test(gate, quiesce_is_done_when_nobody_is_inside) {
    struct lin_thread *self = lin_thread_self();
    lin_gate_enter(self);
    lin_gate_leave(self);
    cr_assert(lin_gate_quiesce(0));
}

static void *inside_until_told(void *arg) {
    (void)arg;
    struct lin_thread *self = lin_thread_self();
    lin_gate_enter(self);
    atomic_store(&stage, 1);
    wait_for(2);
    lin_gate_leave(self);
    return NULL;
}

Test(gate, quiesce_and_pause_give_up_while_somebody_stays) {
    pthread_t thread;
    pthread_create(&thread, NULL, inside_until_told, NULL);
    wait_for(1);
    cr_assert(!lin_gate_quiesce(100));
    cr_assert(!lin_gate_pause(100));
    cr_assert_eq(lin_gate.paused, 0, "nobody is kept out after a pause that failed");
    atomic_store(&stage, 2);
    cr_assert(lin_gate_quiesce(0));
    cr_assert(lin_gate_pause(0));
    lin_gate_resume();
    pthread_join(thread, NULL);
}

static _Atomic bool came_in;

static void *come_in(void *arg) {
    (void)arg;
    struct lin_thread *self = lin_thread_self();
    atomic_store(&stage, 1);
    lin_gate_enter(self);
    atomic_store(&came_in, true);
    lin_gate_leave(self);
    return NULL;
}

Test(gate, a_pause_keeps_newcomers_out) {
    pthread_t thread;
    cr_assert(lin_gate_pause(0));
    pthread_create(&thread, NULL, come_in, NULL);
    wait_for(1);
    for (int i = 0; i < 1000; i++)
        sched_yield();
    cr_assert(!atomic_load(&came_in));
    lin_gate_resume();
    pthread_join(thread, NULL);
    cr_assert(atomic_load(&came_in));
}

static void *come_and_go(void *arg) {
    (void)arg;
    struct lin_thread *self = lin_thread_self();
    struct lin_census *mine;
    atomic_fetch_add(&stage, 1);
    while ((mine = lin_gate_enter(self)) != NULL) {
        lin_census_adopt(mine, self);
        lin_gate_leave(self);
    }
    return NULL;
}

Test(gate, after_quiesce_nobody_sees_what_was_unpublished) {
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&thread[i], NULL, come_and_go, NULL);
    wait_for(3);
    struct lin_census_options options = fake_options();
    for (uint32_t session = 2; session < 50; session++) {
        struct lin_census *next;
        options.session = session;
        cr_assert_eq(lin_census_create(&options, &next), 0);
        lin_gate_set_current(next);
        cr_assert(lin_gate_quiesce(0));
        lin_census_destroy(census); /* a thread that still held it would read freed memory */
        census = next;
    }
    lin_gate_set_current(NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    lin_gate_set_current(census);
}

Test(gate, a_new_session_starts_a_threads_counts_afresh) {
    struct lin_thread *self = lin_thread_self();
    lin_gate_enter(self);
    lin_census_adopt(census, self);
    lin_census_birth(census, self, NULL, &(struct lin_birth){.pid = fake_start(1)});
    lin_gate_leave(self);
    fake_close(census);
    struct lin_census_options options = fake_options();
    options.session = 2;
    census = fake_open(options);
    struct lin_totals totals;
    lin_census_totals(census, &totals);
    cr_assert_eq(totals.births, 0);
    lin_gate_enter(self);
    lin_census_adopt(census, self);
    lin_gate_leave(self);
    lin_census_totals(census, &totals);
    cr_assert_eq(totals.births, 0);
    cr_assert_eq(self->free_count, 0);
}

#include "fake_host.h"
#include "stream.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

/* The tap's end: what the census does, and what subscribers and a journal's writer get of it. */

#define RINGS 4u
#define CAPACITY LIN_RING_MIN_CAPACITY

static struct lin_census *census;
static struct lin_thread *self;
static struct lin_rings *rings;
static struct lin_stream *stream;
static _Atomic int wakes;
static struct lin_event out[LIN_BUFFER_EVENTS];

static void wake(void *arg) {
    cr_assert_eq(arg, (void *)&wakes);
    wakes++;
}

static void open_stream(bool writer) {
    size_t bytes = lin_rings_bytes(RINGS, CAPACITY);
    rings = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    memset(rings, 0, bytes);
    cr_assert_eq(lin_rings_init(rings, RINGS, CAPACITY), 0);
    struct lin_stream_options options = {
        .rings = rings, .wake = wake, .arg = (void *)&wakes, .writer = writer};
    cr_assert_eq(lin_stream_create(&options, &stream), 0);
    cr_assert_eq(lin_stream_start(stream), 0);
}

static void close_stream(void) {
    lin_stream_stop(stream);
    lin_stream_destroy(stream);
    free(rings);
}

static void setup(void) {
    struct lin_census_options options = fake_options();
    options.sites = LIN_SITES_EXACT;
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
    lin_gate_leave(self);
    wakes = 0;
    open_stream(false);
}

static void teardown(void) {
    close_stream();
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
    cr_assert_eq(fake_blocks, 0);
}

TestSuite(stream, .init = setup, .fini = teardown);

static uint32_t subscribe(const struct lin_filter *filter, uint32_t capacity) {
    uint32_t number;
    struct lin_filter all = {.kinds = 0};
    cr_assert_eq(lin_stream_subscribe(stream, filter == NULL ? &all : filter, capacity, &number),
                 0);
    return number;
}

static uint64_t birth_of(uint64_t number, uint32_t initial_call, uint32_t flags) {
    cr_assert_eq(lin_gate_enter(self), census);
    struct lin_birth birth = {.pid = fake_start(number),
                              .parent = fake_pid(1),
                              .initial_call = initial_call,
                              .flags = flags};
    lin_census_birth(census, self, NULL, &birth);
    lin_gate_leave(self);
    return birth.pid;
}

static uint64_t birth(uint64_t number) { return birth_of(number, 0, 0); }

static void die(uint64_t pid) {
    cr_assert_eq(lin_gate_enter(self), census);
    fake_kill(pid);
    lin_census_exit(census, self, NULL, pid, 0x10b, true);
    lin_gate_leave(self);
}

static void rename_to(uint64_t pid, uint64_t name) {
    cr_assert_eq(lin_gate_enter(self), census);
    lin_census_name(census, pid, name);
    lin_gate_leave(self);
}

static uint32_t pump_and_take(uint32_t number) {
    while (lin_stream_pump(stream, 1000) != 0)
        ;
    return lin_stream_take(stream, number, out, LIN_BUFFER_EVENTS);
}

Test(stream, one_at_a_time) {
    struct lin_stream *other;
    struct lin_stream_options options = {.rings = rings, .wake = wake, .arg = (void *)&wakes};
    cr_assert_eq(lin_stream_create(&options, &other), 0);
    cr_assert_eq(lin_stream_start(other), -EBUSY);
    lin_stream_stop(other); /* not its tap */
    uint32_t number = subscribe(NULL, 10);
    birth(5);
    cr_assert_eq(pump_and_take(number), 2);
    lin_stream_destroy(other);
    lin_stream_destroy(NULL);
}

Test(stream, no_memory) {
    uint32_t number;
    struct lin_filter all = {.kinds = 0};
    struct lin_stream *other;
    struct lin_stream_options options = {.rings = rings, .wake = wake};
    fake_fail_after = 0;
    cr_assert_eq(lin_stream_subscribe(stream, &all, 10, &number), -ENOMEM);
    cr_assert_eq(lin_stream_create(&options, &other), -ENOMEM);
    fake_fail_after = -1;
    cr_assert_eq(lin_stream_subscribe(stream, &all, 0, &number), -EINVAL);
}

Test(stream, nobody_wants_it_nothing_is_written) {
    birth(5);
    cr_assert_eq(lin_stream_pump(stream, 1000), 0);
    for (uint32_t n = 0; n < RINGS; n++)
        cr_assert_eq(lin_ring_at(rings, n)->head, 0);
    cr_assert_eq(wakes, 0);
}

Test(stream, a_life_in_order) {
    uint32_t number = subscribe(NULL, 100);
    uint64_t pid = birth(5);
    rename_to(pid, 0x4b);
    die(pid);
    cr_assert_eq(lin_stream_waiting(stream, number, 10), 0);
    cr_assert_eq(pump_and_take(number), 4);
    uint8_t kinds[] = {LIN_EV_BIRTH, LIN_EV_BORN, LIN_EV_NAME, LIN_EV_EXIT};
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(out[i].kind, kinds[i]);
        cr_assert_eq(out[i].pid, pid);
        cr_assert_eq(out[i].no, i + 1);
    }
    cr_assert_eq(out[0].a, fake_pid(1));
    cr_assert_eq(out[2].a, 0x4b);
    cr_assert_eq(out[3].a, 0x10b);
    cr_assert_eq(out[3].b, 1);
    struct lin_stream_counts counts;
    lin_stream_count(stream, &counts);
    cr_assert_eq(counts.events, 4);
    cr_assert_eq(counts.lost, 0);
    cr_assert_eq(counts.subscribers, 1);
}

Test(stream, filter_by_kind) {
    struct lin_filter filter = {.kinds = 1u << LIN_EV_EXIT | 1u << LIN_EV_NAME};
    uint32_t some = subscribe(&filter, 100), all = subscribe(NULL, 100);
    uint64_t pid = birth(5);
    rename_to(pid, 0x4b);
    die(pid);
    cr_assert_eq(pump_and_take(some), 2);
    cr_assert_eq(out[0].kind, LIN_EV_NAME);
    cr_assert_eq(out[1].kind, LIN_EV_EXIT);
    cr_assert_eq(lin_stream_take(stream, all, out, 100), 4);
}

Test(stream, filter_by_scope) {
    struct lin_filter filter = {.scopes = {3, 7, 9}, .scopes_len = 3};
    uint32_t number = subscribe(&filter, 100), former;
    uint64_t in = birth(5), other = birth(6);
    lin_gate_enter(self);
    lin_census_scope(census, in, 7, &former);
    lin_census_scope(census, other, 8, &former);
    lin_gate_leave(self);
    die(in);
    die(other);
    cr_assert_eq(pump_and_take(number), 2);
    cr_assert_eq(out[0].kind, LIN_EV_FLAGS);
    cr_assert_eq(out[0].b, 7);
    cr_assert_eq(out[1].kind, LIN_EV_EXIT);
    cr_assert_eq(out[1].pid, in);
}

Test(stream, filter_by_site_and_module) {
    uint32_t a = lin_mfa_intern(census->mfas, 0x100b, 0x200b, 0);
    uint32_t b = lin_mfa_intern(census->mfas, 0x300b, 0x200b, 0);
    uint64_t pids[] = {birth_of(5, a, 0), birth_of(6, b, 0)};
    struct lin_entry entry;
    cr_assert(lin_census_read(census, pids[1], &entry));
    struct lin_filter site = {.sites = {entry.site}, .sites_len = 1};
    struct lin_filter module = {.modules = {0x100b}, .modules_len = 1};
    struct lin_filter none = {.modules = {0x200b, UINT64_MAX}, .modules_len = 2};
    struct lin_filter both = {.sites = {entry.site},
                              .sites_len = 1,
                              .modules = {0x100b, 0x300b},
                              .modules_len = 2,
                              .kinds = 1u << LIN_EV_EXIT};
    uint32_t by_site = subscribe(&site, 100), by_module = subscribe(&module, 100),
             by_none = subscribe(&none, 100), by_both = subscribe(&both, 100);
    die(pids[0]);
    die(pids[1]);
    cr_assert_eq(pump_and_take(by_site), 1);
    cr_assert_eq(out[0].pid, pids[1]);
    cr_assert_eq(lin_stream_take(stream, by_module, out, 100), 1);
    cr_assert_eq(out[0].pid, pids[0]);
    cr_assert_eq(lin_stream_take(stream, by_none, out, 100), 0);
    cr_assert_eq(lin_stream_take(stream, by_both, out, 100), 1);
    cr_assert_eq(out[0].pid, pids[1]);
}

Test(stream, filter_by_module_of_a_frame_or_a_closure) {
    struct lin_site framed = {.initial_call = 0, .frame = {.module = 0x500b, .function = 0x600b}};
    struct lin_site closed = {.closure = 77, .closure_module = 0x700b};
    uint32_t sites[] = {lin_site_intern(census->sites, &framed),
                        lin_site_intern(census->sites, &closed)};
    struct lin_filter filter = {.modules = {0x500b}, .modules_len = 1};
    uint32_t frame = subscribe(&filter, 100);
    filter.modules[0] = 0x700b;
    uint32_t closure = subscribe(&filter, 100);
    for (uint32_t i = 0; i < 2; i++) {
        lin_gate_enter(self);
        struct lin_birth birth = {.pid = fake_start(10 + i), .site = sites[i]};
        lin_census_seed(census, self, NULL, &birth, 0);
        lin_gate_leave(self);
    }
    cr_assert_eq(pump_and_take(frame), 2);
    cr_assert_eq(out[0].pid, fake_pid(10));
    cr_assert_eq(lin_stream_take(stream, closure, out, 100), 2);
    cr_assert_eq(out[0].pid, fake_pid(11));
}

Test(stream, eight_subscribers_and_no_more) {
    uint32_t number, numbers[LIN_SUBSCRIBERS];
    struct lin_filter all = {.kinds = 0};
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        numbers[n] = subscribe(NULL, 10);
    cr_assert_eq(lin_stream_subscribe(stream, &all, 10, &number), -EMFILE);
    birth(5);
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        cr_assert_eq(pump_and_take(numbers[n]), 2);
    lin_stream_unsubscribe(stream, numbers[3]);
    cr_assert_eq(subscribe(NULL, 10), numbers[3]);
    cr_assert_eq(lin_stream_subscribe(stream, &all, 10, &number), -EMFILE);
}

/* Its bit is still in the rings: they are the former one's events. */
Test(stream, a_place_that_was_another_s_has_none_of_its_events) {
    uint32_t number = subscribe(NULL, 100);
    birth(5);
    lin_stream_unsubscribe(stream, number);
    struct lin_filter filter = {.kinds = 1u << LIN_EV_EXIT};
    for (uint32_t n = 0; n + 1 < LIN_SUBSCRIBERS; n++)
        subscribe(NULL, 10);
    cr_assert_eq(subscribe(&filter, 100), number);
    die(fake_pid(5));
    cr_assert_eq(pump_and_take(number), 1);
    cr_assert_eq(out[0].kind, LIN_EV_EXIT);
}

static void *hold_gate(void *arg) {
    struct lin_thread *me = lin_thread_self();
    _Atomic int *state = arg;
    lin_gate_enter(me);
    *state = 1;
    while (*state == 1)
        sched_yield();
    lin_gate_leave(me);
    return NULL;
}

Test(stream, a_place_is_not_given_again_while_a_thread_may_decide_for_it) {
    _Atomic int state = 0;
    pthread_t thread;
    uint32_t number;
    struct lin_filter all = {.kinds = 0};
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        subscribe(NULL, 10);
    pthread_create(&thread, NULL, hold_gate, (void *)&state);
    while (state == 0)
        sched_yield();
    lin_stream_unsubscribe(stream, 2);
    cr_assert_eq(lin_stream_subscribe(stream, &all, 10, &number), -EAGAIN);
    state = 2;
    pthread_join(thread, NULL);
    cr_assert_eq(subscribe(NULL, 10), 2);
}

Test(stream, a_slow_subscriber_has_its_gap_in_place_and_costs_the_other_nothing) {
    struct lin_filter names = {.kinds = 1u << LIN_EV_NAME};
    uint32_t slow = subscribe(&names, 10), other = subscribe(&names, 100);
    uint64_t pid = birth(5);
    for (uint64_t i = 0; i < 25; i++)
        rename_to(pid, i << 6 | 0xb);
    cr_assert_eq(pump_and_take(other), 25);
    cr_assert_eq(lin_stream_waiting(stream, slow, UINT32_MAX), 11);
    cr_assert_eq(lin_stream_take(stream, slow, out, 4), 4);
    rename_to(pid, 0x100b);
    lin_stream_pump(stream, 1000);
    cr_assert_eq(lin_stream_take(stream, slow, out + 4, 100), 8);
    for (uint64_t i = 0; i < 10; i++)
        cr_assert_eq(out[i].a, i << 6 | 0xb);
    cr_assert_eq(out[10].kind, LIN_EV_GAP);
    cr_assert_eq(out[10].a, 15);
    cr_assert_eq(out[10].b, LIN_GAP_BUFFER);
    cr_assert_eq(out[11].a, 0x100b);
    cr_assert_eq(lin_stream_dropped(stream, slow), 15);
    cr_assert_eq(lin_stream_dropped(stream, other), 0);
}

Test(stream, a_gap_at_the_end_is_told_when_all_is_taken) {
    struct lin_filter names = {.kinds = 1u << LIN_EV_NAME};
    uint32_t number = subscribe(&names, 2);
    uint64_t pid = birth(5);
    for (uint64_t i = 0; i < 5; i++)
        rename_to(pid, i << 6 | 0xb);
    lin_stream_pump(stream, 1000);
    cr_assert_eq(lin_stream_take(stream, number, out, 2), 2);
    cr_assert_eq(lin_stream_waiting(stream, number, 10), 1);
    cr_assert_eq(lin_stream_take(stream, number, out, 2), 1);
    cr_assert_eq(out[0].kind, LIN_EV_GAP);
    cr_assert_eq(out[0].a, 3);
    cr_assert_eq(lin_stream_take(stream, number, out, 2), 0);
}

Test(stream, the_halves_of_a_birth_go_together) {
    struct lin_filter first = {.kinds = 1u << LIN_EV_BIRTH};
    uint32_t both = subscribe(NULL, 100), only = subscribe(&first, 100);
    birth(5);
    birth(6);
    cr_assert_eq(lin_stream_pump(stream, 3), 3);
    cr_assert_eq(lin_stream_waiting(stream, both, 100), 2);
    cr_assert_eq(lin_stream_take(stream, both, out, 100), 2);
    cr_assert_eq(lin_stream_waiting(stream, both, 100), 0);
    cr_assert_eq(lin_stream_take(stream, both, out, 100), 0);
    cr_assert_eq(lin_stream_take(stream, only, out, 100), 2);
    lin_stream_pump(stream, 3);
    birth(7);
    lin_stream_pump(stream, 3);
    cr_assert_eq(lin_stream_take(stream, both, out, 3), 2);
    cr_assert_eq(out[1].kind, LIN_EV_BORN);
    cr_assert_eq(lin_stream_take(stream, both, out, 1), 1);
    cr_assert_eq(out[0].kind, LIN_EV_BIRTH);
    cr_assert_eq(lin_stream_take(stream, both, out, 1), 1);
    /* Nothing comes any more. */
    birth(8);
    lin_stream_pump(stream, 1);
    lin_stream_stop(stream);
    cr_assert_eq(lin_stream_take(stream, both, out, 100), 1);
}

/* The other half is in the gap. */
Test(stream, a_birth_comes_alone_when_its_other_half_is_missing) {
    uint32_t number = subscribe(NULL, 1);
    birth(5);
    cr_assert_eq(pump_and_take(number), 2);
    cr_assert_eq(out[0].kind, LIN_EV_BIRTH);
    cr_assert_eq(out[1].kind, LIN_EV_GAP);
}

Test(stream, a_buffer_of_one_loses_no_count) {
    struct lin_filter names = {.kinds = 1u << LIN_EV_NAME};
    uint32_t number = subscribe(&names, 1), events = 0, n;
    uint64_t pid = birth(5), missing = 0;
    for (int i = 0; i < 20; i++) {
        rename_to(pid, 0xb);
        rename_to(pid, 0xb);
        rename_to(pid, 0xb);
        lin_stream_pump(stream, 1000);
        n = lin_stream_take(stream, number, out, 1 + i % 2);
        for (uint32_t k = 0; k < n; k++)
            if (out[k].kind == LIN_EV_GAP)
                missing += out[k].a;
            else
                events++;
    }
    while ((n = lin_stream_take(stream, number, out, 1)) != 0) {
        missing += out[0].kind == LIN_EV_GAP ? out[0].a : 0;
        events += out[0].kind != LIN_EV_GAP;
    }
    cr_assert_eq(events + missing, 60);
}

Test(stream, a_ring_s_gap_is_everybody_s) {
    struct lin_filter exits = {.kinds = 1u << LIN_EV_EXIT};
    uint32_t all = subscribe(NULL, LIN_BUFFER_EVENTS), some = subscribe(&exits, 100);
    uint64_t pid = birth(5);
    for (uint32_t i = 0; i < CAPACITY + 8; i++)
        rename_to(pid, 0xb);
    cr_assert_eq(pump_and_take(all), CAPACITY);
    die(pid);
    cr_assert_eq(pump_and_take(all), 2);
    cr_assert_eq(out[0].kind, LIN_EV_GAP);
    cr_assert_eq(out[0].a, 10);
    cr_assert_eq(out[0].b, self->ring);
    cr_assert_eq(out[1].kind, LIN_EV_EXIT);
    cr_assert_eq(lin_stream_take(stream, some, out, 100), 2);
    struct lin_stream_counts counts;
    lin_stream_count(stream, &counts);
    cr_assert_eq(counts.lost, 10);
}

/* The thread that lost them may never come again. */
Test(stream, what_a_silent_thread_lost_is_told_before_the_pump_sleeps) {
    uint32_t number = subscribe(NULL, LIN_BUFFER_EVENTS);
    uint64_t pid = birth(5);
    for (uint32_t i = 0; i < CAPACITY; i++)
        rename_to(pid, 0xb);
    uint32_t turns = 0, taken = 0;
    do {
        while (lin_stream_pump(stream, 1000) != 0)
            ;
        taken += lin_stream_take(stream, number, out + taken, LIN_BUFFER_EVENTS);
        cr_assert_lt(turns++, 10);
    } while (!lin_stream_sleep(stream));
    cr_assert_eq(taken, CAPACITY + 1);
    cr_assert_eq(out[CAPACITY].kind, LIN_EV_GAP);
    cr_assert_eq(out[CAPACITY].a, 2);
    cr_assert_eq(out[CAPACITY].b, self->ring);
}

/* What was lost before it came is not missing for it. */
Test(stream, a_gap_from_before_is_not_a_later_subscriber_s) {
    uint32_t early = subscribe(NULL, LIN_BUFFER_EVENTS);
    uint64_t pid = birth(5);
    for (uint32_t i = 0; i < CAPACITY + 8; i++)
        rename_to(pid, 0xb);
    uint32_t late = subscribe(NULL, 100);
    cr_assert_eq(pump_and_take(early), CAPACITY + 1);
    cr_assert_eq(lin_stream_take(stream, late, out, 100), 0);
    die(pid);
    cr_assert_eq(pump_and_take(late), 1);
    cr_assert_eq(out[0].kind, LIN_EV_EXIT);
}

Test(stream, the_pump_is_woken_once_and_only_when_it_sleeps) {
    subscribe(NULL, 1000);
    birth(5);
    cr_assert_eq(wakes, 0, "it is awake from the start");
    cr_assert_not(lin_stream_sleep(stream), "something has come");
    lin_stream_pump(stream, 1000);
    cr_assert(lin_stream_sleep(stream));
    birth(6);
    birth(7);
    cr_assert_eq(wakes, 1);
    lin_stream_pump(stream, 1000);
    birth(8);
    cr_assert_eq(wakes, 1);
}

Test(stream, the_pump_is_woken_at_a_quarter) {
    subscribe(NULL, 1000);
    uint64_t pid = birth(5);
    for (uint32_t i = 3; i < CAPACITY / 4; i++)
        rename_to(pid, 0xb);
    cr_assert_eq(wakes, 0);
    rename_to(pid, 0xb);
    rename_to(pid, 0xb);
    cr_assert_eq(wakes, 1);
    while (lin_stream_pump(stream, 1000) != 0)
        ;
    rename_to(pid, 0xb);
    cr_assert_eq(wakes, 1);
}

Test(stream, the_pump_stops_at_its_maximum) {
    uint32_t number = subscribe(NULL, 1000);
    for (uint64_t i = 0; i < 50; i++)
        birth(10 + i);
    cr_assert_eq(lin_stream_pump(stream, 8), 8);
    cr_assert_eq(lin_stream_take(stream, number, out, 1000), 8);
    cr_assert_eq(lin_stream_pump(stream, 1000), 92);
}

static void write_at(uint32_t ring, uint64_t ticks, uint8_t mask) {
    struct lin_event event = {.ticks = ticks, .pid = fake_pid(ring), .kind = LIN_EV_SWEPT};
    lin_ring_write(rings, ring, &event, mask);
}

Test(stream, rings_are_merged_by_time) {
    uint32_t number = subscribe(NULL, 10000);
    uint64_t state = 88172645463325252u, ticks = 1, last = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        write_at((uint32_t)(state >> 60) & 3, ticks += 1 + (state >> 40 & 7), 1u << number);
    }
    uint32_t all = 0;
    for (uint32_t went; (went = lin_stream_pump(stream, 100)) != 0;)
        all += went;
    cr_assert_eq(all, 3000);
    cr_assert_eq(lin_stream_take(stream, number, out, 10000), 3000);
    for (uint32_t i = 0; i < 3000; i++) {
        cr_assert_gt(out[i].ticks, last);
        last = out[i].ticks;
    }
}

/* A clock that is ahead delays, but never for ever. */
Test(stream, an_event_of_the_future_comes_too) {
    uint32_t number = subscribe(NULL, 100);
    write_at(1, UINT64_MAX - 1, 1u << number);
    write_at(2, 5, 1u << number);
    cr_assert_eq(lin_stream_pump(stream, 100), 1);
    cr_assert_eq(lin_stream_pump(stream, 100), 1);
    cr_assert_eq(lin_stream_take(stream, number, out, 100), 2);
}

Test(stream, maintenance_taps_from_outside_the_gate) {
    struct lin_filter swept = {.kinds = 1u << LIN_EV_SWEPT};
    uint32_t number = subscribe(&swept, 100);
    fake_kill(birth(5));
    cr_assert_eq(lin_census_sweep(census, self, NULL), 1);
    cr_assert_eq(self->visits % 2, 0);
    cr_assert_eq(pump_and_take(number), 1);
    cr_assert_eq(out[0].pid, fake_pid(5));
}

Test(stream, after_stop_nothing_comes_but_what_is_there) {
    uint32_t number = subscribe(NULL, 100);
    birth(5);
    lin_stream_stop(stream);
    birth(6);
    cr_assert_eq(pump_and_take(number), 2);
    cr_assert_eq(out[0].pid, fake_pid(5));
    cr_assert_eq(lin_stream_start(stream), 0);
    birth(7);
    cr_assert_eq(pump_and_take(number), 2);
}

Test(stream, a_later_stream_s_rings_are_its_own) {
    subscribe(NULL, 100);
    birth(5);
    cr_assert_neq(self->ring, 0);
    close_stream();
    open_stream(false);
    uint32_t number = subscribe(NULL, 100);
    birth(6);
    cr_assert_eq(lin_ring_at(rings, self->ring)->claimed, 1);
    cr_assert_eq(pump_and_take(number), 2);
    cr_assert_eq(out[0].pid, fake_pid(6));
}

Test(stream, what_the_writer_has_not_passed_is_not_released) {
    close_stream();
    open_stream(true);
    const struct lin_event *events;
    uint64_t position = 0;
    uint64_t pid = birth(5); /* no subscriber, but a journal */
    uint32_t ring = self->ring;
    for (uint32_t i = 0; i < CAPACITY; i++)
        rename_to(pid, 0xb);
    while (lin_stream_pump(stream, 1000) != 0)
        ;
    cr_assert_eq(lin_ring_at(rings, ring)->lost, 2);
    uint32_t count = lin_stream_read(stream, ring, &position, 100, &events);
    cr_assert_eq(count, 100);
    cr_assert_eq(events[0].kind, LIN_EV_BIRTH);
    lin_stream_written(stream, ring, 100);
    cr_assert_eq(lin_ring_at(rings, ring)->tail, 100);
    rename_to(pid, 0xb);
    cr_assert_eq(lin_ring_at(rings, ring)->head, CAPACITY + 2);
    position = CAPACITY;
    count = lin_stream_read(stream, ring, &position, 100, &events);
    cr_assert_eq(count, 2);
    cr_assert_eq(events[0].kind, LIN_EV_GAP);
    cr_assert_eq(events[0].a, 2);
    /* The other way round: what the pump has not passed. */
    lin_stream_written(stream, ring, CAPACITY + 2);
    cr_assert_eq(lin_ring_at(rings, ring)->tail, CAPACITY);
    lin_stream_pump(stream, 1000);
    cr_assert_eq(lin_ring_at(rings, ring)->tail, CAPACITY + 2);
    cr_assert_eq(lin_stream_rings(stream), rings);
}

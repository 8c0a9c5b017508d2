#include "ring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Rings alone: order, gaps in their place, counts, and what a killed writer leaves. */

#define CAPACITY LIN_RING_MIN_CAPACITY
#define COUNT 3u

static struct lin_rings *rings;
static uint64_t position[COUNT];

static void setup(void) {
    size_t bytes = lin_rings_bytes(COUNT, CAPACITY);
    rings = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    memset(rings, 0, bytes);
    memset(position, 0, sizeof position);
    cr_assert_eq(lin_rings_init(rings, COUNT, CAPACITY), 0);
}

static void teardown(void) { free(rings); }

TestSuite(ring, .init = setup, .fini = teardown);

static uint64_t write_one(uint32_t n, uint64_t i) {
    struct lin_event event = {.ticks = i + 1, .pid = i << 4 | 3, .a = i, .kind = LIN_EV_NAME};
    return lin_ring_write(rings, n, &event, (uint8_t)i);
}

/* Reads and releases all that is there, wraps included; returns how many. */
static uint64_t read_all(uint32_t n, struct lin_event *out, uint8_t *out_masks) {
    const struct lin_event *events;
    const uint8_t *masks;
    uint64_t all = 0;
    uint32_t count;
    while ((count = lin_ring_read(rings, n, &position[n], UINT32_MAX, &events, &masks)) != 0) {
        for (uint32_t i = 0; i < count; i++) {
            if (out != NULL)
                out[all + i] = events[i];
            if (out_masks != NULL)
                out_masks[all + i] = masks[i];
        }
        all += count;
        position[n] += count;
    }
    lin_ring_release(rings, n, position[n]);
    return all;
}

static struct lin_event out[2 * CAPACITY];
static uint8_t masks_out[2 * CAPACITY];

Test(ring, sizes) {
    cr_assert_eq(lin_rings_bytes(0, CAPACITY), 0);
    cr_assert_eq(lin_rings_bytes(LIN_RINGS_MAX + 1, CAPACITY), 0);
    cr_assert_eq(lin_rings_bytes(1, CAPACITY - 1), 0);
    cr_assert_eq(lin_rings_bytes(1, CAPACITY * 3 / 2), 0);
    cr_assert_eq(lin_rings_bytes(1, LIN_RING_MAX_CAPACITY * 2), 0);
    cr_assert_eq(lin_rings_bytes(2, CAPACITY) - lin_rings_bytes(1, CAPACITY), 256 + CAPACITY * 33);
    cr_assert_eq(lin_rings_init(rings, 0, CAPACITY), -EINVAL);
    cr_assert_eq(lin_rings_init(rings, 1, 5000), -EINVAL);
}

Test(ring, capacity_within_bytes) {
    cr_assert_eq(lin_rings_capacity(4, 0), 0);
    cr_assert_eq(lin_rings_capacity(4, lin_rings_bytes(4, CAPACITY) - 1), 0);
    cr_assert_eq(lin_rings_capacity(4, lin_rings_bytes(4, CAPACITY)), CAPACITY);
    cr_assert_eq(lin_rings_capacity(4, lin_rings_bytes(4, 16384) + 1), 16384);
    cr_assert_eq(lin_rings_capacity(4, SIZE_MAX), LIN_RING_MAX_CAPACITY);
    cr_assert_eq(lin_rings_capacity(LIN_RINGS_MAX + 1, SIZE_MAX), 0);
    /* The most that lineage_pump.erl asks for. */
    cr_assert_eq(lin_rings_capacity(247, 32u << 20), LIN_RING_MIN_CAPACITY);
}

Test(ring, claims_each_once_then_the_shared_one) {
    cr_assert_eq(lin_ring_claim(rings), 1);
    cr_assert_eq(lin_ring_claim(rings), 2);
    cr_assert_eq(lin_ring_claim(rings), 0);
    cr_assert_eq(lin_ring_claim(rings), 0);
}

Test(ring, what_is_written_is_read_in_order_with_its_mask) {
    for (uint32_t n = 0; n < COUNT; n++) {
        for (uint64_t i = 0; i < 100; i++)
            cr_assert_eq(write_one(n, i), i + 1);
        cr_assert_eq(read_all(n, out, masks_out), 100);
        for (uint64_t i = 0; i < 100; i++) {
            cr_assert_eq(out[i].ticks, i + 1);
            cr_assert_eq(out[i].pid, i << 4 | 3);
            cr_assert_eq(out[i].a, i);
            cr_assert_eq(out[i].kind, LIN_EV_NAME);
            cr_assert_eq(masks_out[i], (uint8_t)i);
        }
        cr_assert_eq(read_all(n, out, NULL), 0);
    }
}

Test(ring, wraps_many_times) {
    for (uint32_t n = 0; n < 2; n++) {
        uint64_t next = 0, seen = 0;
        for (int round = 0; round < 50; round++) {
            for (int i = 0; i < 1000; i++)
                write_one(n, next++);
            uint64_t count = read_all(n, out, NULL);
            cr_assert_eq(count, 1000);
            for (uint64_t i = 0; i < count; i++)
                cr_assert_eq(out[i].a, seen++);
        }
        cr_assert_eq(lin_ring_at(rings, n)->head, 50000);
        cr_assert_eq(lin_ring_at(rings, n)->tail, 50000);
        cr_assert_eq(lin_ring_at(rings, n)->lost, 0);
    }
}

static void fill_and_lose(uint32_t n, uint64_t room, uint64_t lost) {
    for (uint64_t i = 0; i < room; i++)
        cr_assert_eq(write_one(n, i), i + 1);
    for (uint64_t i = room; i < room + lost; i++)
        cr_assert_eq(write_one(n, i), CAPACITY);
    cr_assert_eq(lin_ring_at(rings, n)->lost, lost);
    cr_assert_eq(lin_ring_at(rings, n)->head, room);
}

static void check_gap(const struct lin_event *gap, uint64_t ticks, uint64_t lost, uint32_t n) {
    cr_assert_eq(gap->kind, LIN_EV_GAP);
    cr_assert_eq(gap->pid, 0);
    cr_assert_eq(gap->a, lost);
    cr_assert_eq(gap->b, n);
    cr_assert_eq(gap->ticks, ticks);
}

Test(ring, a_gap_has_its_place_and_its_count) {
    uint64_t room[] = {CAPACITY - LIN_RING_SLACK, CAPACITY};
    for (uint32_t n = 0; n < 2; n++) {
        fill_and_lose(n, room[n], 7);
        cr_assert_eq(read_all(n, out, NULL), room[n]);
        write_one(n, 1000000);
        write_one(n, 1000001);
        cr_assert_eq(read_all(n, out, masks_out), 3);
        check_gap(&out[0], room[n] + 1, 7, n);
        cr_assert_eq(masks_out[0], 0xff);
        cr_assert_eq(out[1].a, 1000000);
        cr_assert_eq(out[2].a, 1000001);
        cr_assert_eq(lin_ring_at(rings, n)->told, 7);
    }
}

Test(ring, one_place_is_not_enough_for_a_gap_and_an_event) {
    const struct lin_event *events;
    fill_and_lose(1, CAPACITY, 1);
    lin_ring_read(rings, 1, &position[1], 1, &events, NULL);
    lin_ring_release(rings, 1, ++position[1]);
    cr_assert_eq(write_one(1, 5), CAPACITY);
    cr_assert_eq(lin_ring_at(rings, 1)->lost, 2);
    lin_ring_release(rings, 1, ++position[1]);
    write_one(1, 6);
    cr_assert_eq(lin_ring_at(rings, 1)->head, CAPACITY + 2);
    cr_assert_eq(read_all(1, out, NULL), CAPACITY);
    check_gap(&out[CAPACITY - 2], CAPACITY + 1, 2, 1);
    cr_assert_eq(out[CAPACITY - 1].a, 6);
}

Test(ring, a_silent_writer_s_gap_is_told_through_the_shared_ring) {
    cr_assert_not(lin_ring_tell(rings, 1));
    fill_and_lose(1, CAPACITY, 3);
    cr_assert(lin_ring_tell(rings, 1));
    cr_assert_not(lin_ring_tell(rings, 1));
    cr_assert_eq(read_all(0, out, masks_out), 1);
    check_gap(&out[0], CAPACITY + 1, 3, 1);
    read_all(1, NULL, NULL);
    write_one(1, 9);
    cr_assert_eq(read_all(1, out, NULL), 1);
    cr_assert_eq(out[0].a, 9);
}

Test(ring, a_full_shared_ring_tells_nothing_and_loses_no_count) {
    fill_and_lose(0, CAPACITY - LIN_RING_SLACK, 5);
    fill_and_lose(1, CAPACITY, 3);
    cr_assert_not(lin_ring_tell(rings, 1));
    cr_assert_not(lin_ring_tell(rings, 0));
    read_all(0, NULL, NULL);
    cr_assert(lin_ring_tell(rings, 0));
    cr_assert(lin_ring_tell(rings, 1));
    cr_assert_eq(read_all(0, out, NULL), 2);
    check_gap(&out[0], CAPACITY - LIN_RING_SLACK + 1, 5, 0);
    check_gap(&out[1], CAPACITY + 1, 3, 1);
}

Test(ring, reads_at_most_what_is_asked_and_no_further_than_the_end) {
    const struct lin_event *events;
    for (uint64_t i = 0; i < CAPACITY - 10; i++)
        write_one(1, i);
    read_all(1, NULL, NULL);
    for (uint64_t i = 0; i < 30; i++)
        write_one(1, i);
    uint64_t at = position[1];
    cr_assert_eq(lin_ring_read(rings, 1, &at, 4, &events, NULL), 4);
    cr_assert_eq(lin_ring_read(rings, 1, &at, 100, &events, NULL), 10);
    at += 10;
    cr_assert_eq(lin_ring_read(rings, 1, &at, 100, &events, NULL), 20);
    cr_assert_eq(events[0].a, 10);
    at = 0;
    cr_assert_eq(lin_ring_read(rings, 1, &at, 1, &events, NULL), 1);
    cr_assert_eq(at, CAPACITY - 10, "a position before tail is moved to tail");
}

Test(ring, the_shared_ring_is_read_up_to_a_place_that_is_not_filled) {
    const struct lin_event *events;
    struct lin_ring *ring = lin_ring_at(rings, 0);
    write_one(0, 1);
    ring->head++; /* a writer that has been preempted */
    write_one(0, 2);
    cr_assert_eq(lin_ring_read(rings, 0, &position[0], 10, &events, NULL), 1);
    ring->event[1] = (struct lin_event){.ticks = 5, .a = 77};
    cr_assert_eq(lin_ring_read(rings, 0, &position[0], 10, &events, NULL), 3);
    cr_assert_eq(events[1].a, 77);
}

Test(ring, an_event_without_ticks_does_not_stop_the_shared_ring) {
    struct lin_event event = {.kind = LIN_EV_SWEPT};
    lin_ring_write(rings, 0, &event, 1);
    cr_assert_eq(read_all(0, out, NULL), 1);
}

/* Sums of writers that share ring 0 while it overflows: nothing is counted twice, or not at all. */
#define WRITERS 8
#define EACH 20000u
static _Atomic int writers_left;

static void *write_shared(void *arg) {
    for (uint64_t i = 0; i < EACH; i++)
        write_one(0, (uint64_t)(uintptr_t)arg << 32 | i);
    writers_left--;
    return NULL;
}

Test(ring, shared_writers_sums_are_exact) {
    pthread_t thread[WRITERS];
    uint64_t events = 0, missing = 0, next[WRITERS] = {0};
    writers_left = WRITERS;
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&thread[i], NULL, write_shared, (void *)i);
    for (bool last = false; !last;) {
        last = writers_left == 0;
        if (last)
            lin_ring_tell(rings, 0);
        uint64_t count = read_all(0, out, NULL);
        for (uint64_t i = 0; i < count; i++) {
            if (out[i].kind == LIN_EV_GAP) {
                missing += out[i].a;
                continue;
            }
            uint64_t writer = out[i].a >> 32, no = out[i].a & UINT32_MAX;
            cr_assert_geq(no, next[writer]);
            next[writer] = no + 1;
            events++;
        }
        last = last && lin_ring_at(rings, 0)->lost == lin_ring_at(rings, 0)->told &&
               lin_ring_at(rings, 0)->head == position[0];
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(events + missing, WRITERS * EACH);
    cr_assert_eq(missing, lin_ring_at(rings, 0)->lost);
}

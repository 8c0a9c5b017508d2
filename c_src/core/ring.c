#include "ring.h"

#include <errno.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

#define EVERYBODY 0xffu /* the mask of a GAP */
#define AHEAD 16u       /* events */

static bool is_capacity(uint32_t capacity) {
    return capacity >= LIN_RING_MIN_CAPACITY && capacity <= LIN_RING_MAX_CAPACITY &&
           (capacity & (capacity - 1)) == 0;
}

static size_t ring_bytes(uint32_t capacity) {
    return sizeof(struct lin_ring) + capacity * (sizeof(struct lin_event) + 1);
}

size_t lin_rings_bytes(uint32_t count, uint32_t capacity) {
    if (count == 0 || count > LIN_RINGS_MAX || !is_capacity(capacity))
        return 0;
    return sizeof(struct lin_rings) + count * ring_bytes(capacity);
}

uint32_t lin_rings_capacity(uint32_t count, size_t max_bytes) {
    uint32_t capacity = LIN_RING_MAX_CAPACITY;
    while (capacity >= LIN_RING_MIN_CAPACITY && lin_rings_bytes(count, capacity) > max_bytes)
        capacity /= 2;
    return lin_rings_bytes(count, capacity) == 0 ? 0 : capacity;
}

int lin_rings_init(struct lin_rings *rings, uint32_t count, uint32_t capacity) {
    if (lin_rings_bytes(count, capacity) == 0)
        return -EINVAL;
    rings->magic = LIN_RINGS_MAGIC;
    rings->count = count;
    rings->capacity = capacity;
    rings->ring_bytes = ring_bytes(capacity);
    SET(rings->next, 1);
    return 0;
}

uint32_t lin_ring_claim(struct lin_rings *rings) {
    uint32_t n = GET(rings->next);
    for (uint32_t i = 1; i < rings->count; i++, n++) {
        if (n == 0 || n >= rings->count)
            n = 1;
        struct lin_ring *ring = lin_ring_at(rings, n);
        uint32_t free = 0;
        if (atomic_compare_exchange_strong_explicit(&ring->claimed, &free, 1, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            SET(rings->next, n + 1);
            return n;
        }
    }
    return 0;
}

/* What nobody has told, as a GAP, if we are the one to tell it. */
static bool take_untold(struct lin_ring *ring, uint32_t n, struct lin_event *gap) {
    uint64_t told = GET(ring->told);
    /* acquire: pairs with the release in lose; `lost_at` is of what was lost since `told`. */
    uint64_t lost = atomic_load_explicit(&ring->lost, memory_order_acquire);
    if (lost <= told)
        return false;
    *gap = (struct lin_event){
        .ticks = GET(ring->lost_at), .a = lost - told, .b = n, .kind = LIN_EV_GAP};
    if (gap->ticks == 0)
        gap->ticks = 1;
    /* acq_rel: what is lost after it begins another gap. */
    return atomic_compare_exchange_strong_explicit(&ring->told, &told, lost, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static void lose(struct lin_ring *ring, const struct lin_event *event) {
    uint64_t lost = GET(ring->lost);
    if (lost == atomic_load_explicit(&ring->told, memory_order_acquire))
        SET(ring->lost_at, event->ticks);
    atomic_fetch_add_explicit(&ring->lost, 1, memory_order_release);
}

static void put(struct lin_rings *rings, struct lin_ring *ring, uint64_t position,
                const struct lin_event *event, uint8_t mask) {
    uint32_t at = (uint32_t)position & (rings->capacity - 1);
    ring->event[at] = *event;
    lin_ring_masks(rings, ring)[at] = mask;
}

static uint64_t write_own(struct lin_rings *rings, uint32_t n, const struct lin_event *event,
                          uint8_t mask) {
    struct lin_ring *ring = lin_ring_at(rings, n);
    uint64_t head = GET(ring->head);
    uint64_t used = head - ring->seen_tail;
    /* Above the mark it is looked at each time, so that what is returned is true there. */
    if (__builtin_expect(used >= rings->capacity / 4, 0)) {
        /* acquire: pairs with the release in lin_ring_release; what was there has been read. */
        ring->seen_tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
        used = head - ring->seen_tail;
    }
    if (__builtin_expect(GET(ring->lost) != GET(ring->told), 0)) {
        struct lin_event gap;
        if (used + 2 <= rings->capacity && take_untold(ring, n, &gap)) {
            put(rings, ring, head++, &gap, EVERYBODY);
            used++;
        }
    }
    /* With one place left and a gap to tell, it goes on losing: the next one would find no place
     * for the GAP before it. */
    if (__builtin_expect(used + (GET(ring->lost) != GET(ring->told)) >= rings->capacity, 0)) {
        lose(ring, event);
        return rings->capacity;
    }
    put(rings, ring, head, event, mask);
    /* The reader's core has the line that is written to next but some: it is asked for in time. */
    __builtin_prefetch(&ring->event[(head + AHEAD) & (rings->capacity - 1)], 1);
    /* release: pairs with the acquire in lin_ring_read. */
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return used + 1;
}

/* Whether ring 0 has a place for each thread that may be between this look and taking it. */
static bool has_place(const struct lin_rings *rings, struct lin_ring *ring, uint64_t *used) {
    /* acquire: as in write_own. */
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    *used = GET(ring->head) - tail;
    return *used + LIN_RING_SLACK < rings->capacity;
}

/*
 * Takes a place after a look that found one, and fills it; `ticks` last. The place may be far from
 * where the look saw the head, but it is free: of the LIN_RING_SLACK takings before it two are of
 * one thread, which looked in between, and what it acquired goes on from fetch_add to fetch_add.
 */
static void put_shared(struct lin_rings *rings, struct lin_ring *ring,
                       const struct lin_event *event, uint8_t mask) {
    uint64_t place = atomic_fetch_add_explicit(&ring->head, 1, memory_order_acq_rel);
    uint32_t at = (uint32_t)place & (rings->capacity - 1);
    struct lin_event *to = &ring->event[at];
    to->pid = event->pid;
    to->a = event->a;
    to->b = event->b;
    to->no = event->no;
    to->kind = event->kind;
    to->flags = event->flags;
    lin_ring_masks(rings, ring)[at] = mask;
    /* release: pairs with the acquire in committed. */
    __atomic_store_n(&to->ticks, event->ticks == 0 ? 1 : event->ticks, __ATOMIC_RELEASE);
}

bool lin_ring_tell(struct lin_rings *rings, uint32_t n) {
    struct lin_ring *shared = lin_ring_at(rings, 0);
    struct lin_event gap;
    uint64_t used;
    if (!has_place(rings, shared, &used) || !take_untold(lin_ring_at(rings, n), n, &gap))
        return false;
    put_shared(rings, shared, &gap, EVERYBODY);
    return true;
}

static uint64_t write_shared(struct lin_rings *rings, const struct lin_event *event, uint8_t mask) {
    struct lin_ring *ring = lin_ring_at(rings, 0);
    uint64_t used;
    if (__builtin_expect(GET(ring->lost) != GET(ring->told), 0))
        lin_ring_tell(rings, 0);
    if (!has_place(rings, ring, &used)) {
        lose(ring, event);
        return rings->capacity;
    }
    put_shared(rings, ring, event, mask);
    return used + 1;
}

uint64_t lin_ring_write(struct lin_rings *rings, uint32_t n, const struct lin_event *event,
                        uint8_t mask) {
    return n == 0 ? write_shared(rings, event, mask) : write_own(rings, n, event, mask);
}

/* Of `count` places from `at` on in ring 0 those that are filled, up to the first that is not. */
static uint32_t committed(const struct lin_ring *ring, uint32_t at, uint32_t count) {
    uint32_t n = 0;
    while (n < count && __atomic_load_n(&ring->event[at + n].ticks, __ATOMIC_ACQUIRE) != 0)
        n++;
    return n;
}

uint32_t lin_ring_read(const struct lin_rings *rings, uint32_t n, uint64_t *position, uint32_t max,
                       const struct lin_event **events, const uint8_t **masks) {
    struct lin_ring *ring = lin_ring_at(rings, n);
    uint64_t tail = GET(ring->tail);
    if (*position < tail)
        *position = tail;
    /* acquire: pairs with the release in write_own. */
    uint64_t there = atomic_load_explicit(&ring->head, memory_order_acquire) - *position;
    uint32_t at = (uint32_t)*position & (rings->capacity - 1);
    uint32_t count = rings->capacity - at; /* as they lie in a row */
    if (there < count)
        count = (uint32_t)there;
    if (max < count)
        count = max;
    if (n == 0)
        count = committed(ring, at, count);
    *events = &ring->event[at];
    if (masks != NULL)
        *masks = &lin_ring_masks(rings, ring)[at];
    return count;
}

void lin_ring_release(struct lin_rings *rings, uint32_t n, uint64_t position) {
    struct lin_ring *ring = lin_ring_at(rings, n);
    for (uint64_t p = GET(ring->tail); n == 0 && p < position; p++)
        __atomic_store_n(&ring->event[p & (rings->capacity - 1)].ticks, 0, __ATOMIC_RELAXED);
    /* release: pairs with the acquires of tail in the writers. */
    atomic_store_explicit(&ring->tail, position, memory_order_release);
}

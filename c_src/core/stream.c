#include "stream.h"

#include "spin.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

/* How long is waited for threads that may decide for a subscriber that is gone. They need some
 * 100 ns, but on a busy machine one may have no processor for longer than a caller should wait. */
#define HELD_US 1000u
#define HELD_PUMP_US 20u
#define RELEASE_EVENTS 4096u /* of ring 0, under one hold of the lock */

/* The pump: */
enum { AWAKE, IDLE, POKED };

struct subscriber {
    enum { FREE, LIVE, RETIRED } state; /* retired: a thread may still decide for it */
    /* The tap reads it while its bit is in `active`, and a moment longer. */
    struct lin_filter filter;
    /* Its buffer: event number p lies at p % capacity. The rest under the stream's lock. */
    struct lin_event *buffer;
    uint32_t capacity;
    uint64_t head, tail;
    uint64_t missing, missing_at; /* behind the last in the buffer; ticks */
    uint64_t dropped;
    uint64_t from[LIN_RINGS_MAX]; /* where each ring was when it came */
};

/* What the pump sees of a ring. */
struct cursor {
    uint32_t ring, at, count;
    uint64_t position; /* of events[at] */
    const struct lin_event *events;
    const uint8_t *masks;
    bool full; /* it does not wait for others' earlier events */
};

struct lin_stream {
    /* Set by create, then constant. */
    uint32_t id;
    uint32_t mark;
    bool writer;
    struct lin_rings *rings;
    void (*wake)(void *arg);
    void *arg;
    /* Writers: subscribe (release: its filter is in place), unsubscribe. Reader: the tap. */
    _Atomic uint32_t active;
    char apart[64];
    /* Writers: the pump; the tap, from AWAKE or IDLE to POKED. */
    _Atomic uint32_t state;
    char apart_too[64];
    pthread_mutex_t lock; /* the pump's and the subscribers' own */
    uint64_t events;
    struct subscriber subscriber[LIN_SUBSCRIBERS];
    struct cursor cursor[LIN_RINGS_MAX];
    uint64_t lost_seen[LIN_RINGS_MAX];
    /* Where each reader is. Writer: that reader (release: it has read what lies before); reader:
     * whoever releases for both, under the lock (acquire). */
    atomic_flag release_lock;
    _Atomic uint64_t pumped[LIN_RINGS_MAX], written[LIN_RINGS_MAX];
};

/* Writers: start, stop. Reader: the tap, inside the gate (acquire, pairs with start). */
static _Atomic(struct lin_stream *) current;
static _Atomic uint32_t streams;

static bool contains32(const uint32_t *list, uint32_t len, uint32_t value) {
    uint32_t from = 0;
    while (from < len) {
        uint32_t middle = from + (len - from) / 2;
        if (list[middle] == value)
            return true;
        if (list[middle] < value)
            from = middle + 1;
        else
            len = middle;
    }
    return false;
}

static bool contains64(const uint64_t *list, uint32_t len, uint64_t value) {
    uint32_t from = 0;
    while (value != 0 && from < len) {
        uint32_t middle = from + (len - from) / 2;
        if (list[middle] == value)
            return true;
        if (list[middle] < value)
            from = middle + 1;
        else
            len = middle;
    }
    return false;
}

static bool in_modules(const struct lin_filter *filter, const struct lin_record *record) {
    const struct lin_census *census = atomic_load_explicit(&lin_gate.current, memory_order_acquire);
    if (census == NULL) /* it is being closed */
        return false;
    const struct lin_mfa *mfa = lin_mfa_at(census->mfas, GET(record->initial_call));
    if (mfa != NULL && contains64(filter->modules, filter->modules_len, GET(mfa->module)))
        return true;
    const struct lin_site *site =
        census->sites == NULL ? NULL : lin_site_at(census->sites, GET(record->site));
    return site != NULL && (contains64(filter->modules, filter->modules_len, site->frame.module) ||
                            contains64(filter->modules, filter->modules_len, site->closure_module));
}

static bool matches(const struct lin_filter *filter, const struct lin_event *event,
                    const struct lin_record *record) {
    if (filter->kinds != 0 && (filter->kinds >> event->kind & 1) == 0)
        return false;
    if (filter->sites_len != 0 && !contains32(filter->sites, filter->sites_len, GET(record->site)))
        return false;
    if (filter->scopes_len != 0 &&
        !contains32(filter->scopes, filter->scopes_len, GET(record->scope)))
        return false;
    return filter->modules_len == 0 || in_modules(filter, record);
}

/* Which subscribers want the event. */
static uint8_t wanted(const struct lin_stream *stream, const struct lin_event *event,
                      const struct lin_record *record) {
    uint32_t mask = 0;
    uint32_t left = atomic_load_explicit(&stream->active, memory_order_acquire);
    for (; left != 0; left &= left - 1) {
        uint32_t n = (uint32_t)__builtin_ctz(left);
        if (matches(&stream->subscriber[n].filter, event, record))
            mask |= 1u << n;
    }
    return (uint8_t)mask;
}

/* Wakes the pump, once, if it sleeps, or if the ring is filling faster than it comes. */
static void poke(struct lin_stream *stream, bool marked) {
    /* Pairs with the barrier in lin_stream_sleep: either we see it idle, or it sees the event. */
    if (__builtin_expect(lin_gate.fenced, 0))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
    uint32_t state = GET(stream->state);
    if (__builtin_expect(state != IDLE && !(state == AWAKE && marked), 1))
        return;
    if (atomic_compare_exchange_strong_explicit(&stream->state, &state, POKED, memory_order_relaxed,
                                                memory_order_relaxed))
        stream->wake(stream->arg);
}

static void hand_on(struct lin_stream *stream, struct lin_thread *self,
                    const struct lin_event *event, const struct lin_record *record) {
    uint8_t mask = wanted(stream, event, record);
    if (mask == 0 && !stream->writer)
        return;
    if (__builtin_expect(self->stream != stream->id, 0)) {
        self->stream = stream->id;
        self->ring = lin_ring_claim(stream->rings);
    }
    uint64_t used = lin_ring_write(stream->rings, self->ring, event, mask);
    poke(stream, used >= stream->mark);
}

/* Maintenance comes from outside the gate: it enters here, or stop could not wait for it. */
static void tap(const struct lin_event *event, const struct lin_record *record) {
    struct lin_thread *self = lin_thread_self();
    if (self == NULL)
        return;
    bool outside = (GET(self->visits) & 1) == 0;
    if (__builtin_expect(outside, 0))
        lin_gate_mark(self);
    struct lin_stream *stream = atomic_load_explicit(&current, memory_order_acquire);
    if (__builtin_expect(stream != NULL, 1))
        hand_on(stream, self, event, record);
    if (__builtin_expect(outside, 0))
        lin_gate_leave(self);
}

int lin_stream_create(const struct lin_stream_options *options, struct lin_stream **out) {
    struct lin_stream *stream = lin_gate.host->alloc(sizeof *stream);
    if (stream == NULL)
        return -ENOMEM;
    memset(stream, 0, sizeof *stream);
    if (pthread_mutex_init(&stream->lock, NULL) != 0) {
        lin_gate.host->free(stream);
        return -ENOMEM;
    }
    atomic_flag_clear(&stream->release_lock);
    do /* 0 is nobody's */
        stream->id = atomic_fetch_add_explicit(&streams, 1, memory_order_relaxed) + 1;
    while (stream->id == 0);
    stream->rings = options->rings;
    stream->mark = options->rings->capacity / 4;
    stream->wake = options->wake;
    stream->arg = options->arg;
    stream->writer = options->writer;
    *out = stream;
    return 0;
}

void lin_stream_destroy(struct lin_stream *stream) {
    if (stream == NULL)
        return;
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        if (stream->subscriber[n].buffer != NULL)
            lin_gate.host->free(stream->subscriber[n].buffer);
    pthread_mutex_destroy(&stream->lock);
    lin_gate.host->free(stream);
}

int lin_stream_start(struct lin_stream *stream) {
    struct lin_stream *none = NULL;
    if (!atomic_compare_exchange_strong_explicit(&current, &none, stream, memory_order_release,
                                                 memory_order_relaxed))
        return -EBUSY;
    lin_tap_set(tap);
    return 0;
}

void lin_stream_stop(struct lin_stream *stream) {
    if (GET(current) != stream)
        return;
    lin_tap_set(NULL);
    atomic_store_explicit(&current, NULL, memory_order_release);
    lin_gate_quiesce(0);
}

static bool any_retired(const struct lin_stream *stream) {
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        if (stream->subscriber[n].state == RETIRED)
            return true;
    return false;
}

/* Frees the places that no thread decides for any more. */
static bool settle_retired(struct lin_stream *stream, uint32_t max_us) {
    if (!any_retired(stream) || !lin_gate_quiesce(max_us))
        return false;
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        if (stream->subscriber[n].state == RETIRED)
            stream->subscriber[n].state = FREE;
    return true;
}

static struct subscriber *free_place(struct lin_stream *stream) {
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        if (stream->subscriber[n].state == FREE)
            return &stream->subscriber[n];
    return NULL;
}

int lin_stream_subscribe(struct lin_stream *stream, const struct lin_filter *filter,
                         uint32_t capacity, uint32_t *number) {
    int result = 0;
    if (capacity == 0)
        return -EINVAL;
    struct lin_event *buffer = lin_gate.host->alloc((size_t)capacity * sizeof *buffer);
    if (buffer == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&stream->lock);
    struct subscriber *subscriber = free_place(stream);
    if (subscriber == NULL && settle_retired(stream, HELD_US))
        subscriber = free_place(stream);
    if (subscriber == NULL) {
        result = any_retired(stream) ? -EAGAIN : -EMFILE;
        goto cleanup;
    }
    *subscriber = (struct subscriber){
        .state = LIVE, .filter = *filter, .buffer = buffer, .capacity = capacity};
    buffer = NULL;
    /* What was lost so far is none of its gaps; nor are the events of who had its place before. */
    for (uint32_t n = 0; n < stream->rings->count; n++) {
        lin_ring_tell(stream->rings, n);
        subscriber->from[n] =
            atomic_load_explicit(&lin_ring_at(stream->rings, n)->head, memory_order_acquire);
    }
    subscriber->from[0] =
        atomic_load_explicit(&lin_ring_at(stream->rings, 0)->head, memory_order_acquire);
    *number = (uint32_t)(subscriber - stream->subscriber);
    atomic_fetch_or_explicit(&stream->active, 1u << *number, memory_order_release);
cleanup:
    pthread_mutex_unlock(&stream->lock);
    if (buffer != NULL)
        lin_gate.host->free(buffer);
    return result;
}

void lin_stream_unsubscribe(struct lin_stream *stream, uint32_t number) {
    pthread_mutex_lock(&stream->lock);
    struct subscriber *subscriber = &stream->subscriber[number];
    atomic_fetch_and_explicit(&stream->active, ~(1u << number), memory_order_relaxed);
    subscriber->state = RETIRED;
    struct lin_event *buffer = subscriber->buffer;
    subscriber->buffer = NULL;
    pthread_mutex_unlock(&stream->lock);
    if (buffer != NULL)
        lin_gate.host->free(buffer);
}

static void miss(struct subscriber *subscriber, const struct lin_event *event) {
    if (subscriber->missing == 0)
        subscriber->missing_at = event->ticks;
    subscriber->missing += event->kind == LIN_EV_GAP ? event->a : 1;
    subscriber->dropped += event->kind != LIN_EV_GAP;
}

static struct lin_event missing(const struct subscriber *subscriber) {
    return (struct lin_event){.ticks = subscriber->missing_at,
                              .a = subscriber->missing,
                              .b = LIN_GAP_BUFFER,
                              .kind = LIN_EV_GAP};
}

static void push(struct subscriber *subscriber, const struct lin_event *event) {
    uint64_t used = subscriber->head - subscriber->tail;
    if (used + 1 + (subscriber->missing != 0) > subscriber->capacity) {
        miss(subscriber, event);
        return;
    }
    if (subscriber->missing != 0) {
        subscriber->buffer[subscriber->head++ % subscriber->capacity] = missing(subscriber);
        subscriber->missing = 0;
    }
    subscriber->buffer[subscriber->head++ % subscriber->capacity] = *event;
}

/* Whether what lies before `end` in the buffer is half of a birth whose other half is wanted. */
static bool is_half(const struct subscriber *subscriber, uint64_t end) {
    bool wanted = subscriber->filter.kinds == 0 || (subscriber->filter.kinds >> LIN_EV_BORN & 1);
    return wanted && end > subscriber->tail && end <= subscriber->head &&
           subscriber->buffer[(end - 1) % subscriber->capacity].kind == LIN_EV_BIRTH;
}

/* The other half of the last is on its way, unless it is missing, or the tap was set off between
 * the two. */
static uint64_t ready(const struct lin_stream *stream, const struct subscriber *subscriber) {
    uint64_t there = subscriber->head - subscriber->tail;
    if (subscriber->missing != 0)
        return there + 1;
    return there - (is_half(subscriber, subscriber->head) && GET(current) == stream);
}

uint32_t lin_stream_waiting(struct lin_stream *stream, uint32_t number, uint32_t max) {
    const struct subscriber *subscriber = &stream->subscriber[number];
    pthread_mutex_lock(&stream->lock);
    uint64_t there = ready(stream, subscriber);
    pthread_mutex_unlock(&stream->lock);
    return there < max ? (uint32_t)there : max;
}

uint32_t lin_stream_take(struct lin_stream *stream, uint32_t number, struct lin_event *out,
                         uint32_t max) {
    struct subscriber *subscriber = &stream->subscriber[number];
    uint32_t n = 0;
    pthread_mutex_lock(&stream->lock);
    uint64_t there = ready(stream, subscriber);
    if (there < max)
        max = (uint32_t)there;
    else if (max > 1 && is_half(subscriber, subscriber->tail + max))
        max--;
    while (n < max && subscriber->tail < subscriber->head)
        out[n++] = subscriber->buffer[subscriber->tail++ % subscriber->capacity];
    if (n < max && subscriber->missing != 0) {
        out[n++] = missing(subscriber);
        subscriber->missing = 0;
    }
    stream->events += n;
    pthread_mutex_unlock(&stream->lock);
    return n;
}

uint64_t lin_stream_dropped(struct lin_stream *stream, uint32_t number) {
    pthread_mutex_lock(&stream->lock);
    uint64_t dropped = stream->subscriber[number].dropped;
    pthread_mutex_unlock(&stream->lock);
    return dropped;
}

void lin_stream_count(struct lin_stream *stream, struct lin_stream_counts *out) {
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&stream->lock);
    out->events = stream->events;
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++) {
        out->dropped[n] = stream->subscriber[n].dropped;
        out->subscribers += stream->subscriber[n].state == LIVE;
    }
    out->awake = GET(stream->state) != IDLE;
    pthread_mutex_unlock(&stream->lock);
    for (uint32_t n = 0; n < stream->rings->count; n++)
        out->lost += GET(lin_ring_at(stream->rings, n)->lost);
}

/* Gives the writers of a ring room, as far as all readers have passed. */
static void release(struct lin_stream *stream, uint32_t n) {
    struct lin_ring *ring = lin_ring_at(stream->rings, n);
    for (bool more = true; more;) {
        lin_spin_lock(&stream->release_lock);
        uint64_t tail = GET(ring->tail);
        uint64_t to = atomic_load_explicit(&stream->pumped[n], memory_order_acquire);
        uint64_t written = atomic_load_explicit(&stream->written[n], memory_order_acquire);
        if (stream->writer && written < to)
            to = written;
        more = to > tail + RELEASE_EVENTS && n == 0;
        if (more)
            to = tail + RELEASE_EVENTS;
        if (to > tail)
            lin_ring_release(stream->rings, n, to);
        lin_spin_unlock(&stream->release_lock);
    }
}

static void fill(struct lin_stream *stream, struct cursor *cursor, uint32_t max) {
    cursor->at = 0;
    cursor->count = lin_ring_read(stream->rings, cursor->ring, &cursor->position, max,
                                  &cursor->events, &cursor->masks);
}

/* The rings that have something, as cursors; returns how many. */
static uint32_t look(struct lin_stream *stream, uint32_t max) {
    uint32_t open = 0;
    for (uint32_t n = 0; n < stream->rings->count; n++) {
        struct cursor *cursor = &stream->cursor[open];
        struct lin_ring *ring = lin_ring_at(stream->rings, n);
        *cursor = (struct cursor){.ring = n, .position = GET(stream->pumped[n])};
        cursor->full = GET(ring->head) - GET(ring->tail) >= stream->mark;
        fill(stream, cursor, max);
        open += cursor->count != 0;
    }
    return open;
}

static uint64_t front(const struct cursor *cursor) { return cursor->events[cursor->at].ticks; }

static void spread(struct lin_stream *stream, const struct cursor *cursor, uint32_t live) {
    uint32_t left = cursor->masks[cursor->at] & live;
    for (; left != 0; left &= left - 1) {
        struct subscriber *subscriber = &stream->subscriber[__builtin_ctz(left)];
        if (cursor->position >= subscriber->from[cursor->ring])
            push(subscriber, &cursor->events[cursor->at]);
    }
}

/* The cursor with the earliest event, and when the next earliest of the others is. */
static struct cursor *earliest(struct lin_stream *stream, uint32_t open, uint64_t cut,
                               uint64_t *next) {
    struct cursor *best = NULL;
    uint64_t best_at = UINT64_MAX;
    *next = UINT64_MAX;
    for (uint32_t i = 0; i < open; i++) {
        uint64_t at = front(&stream->cursor[i]);
        if (at > cut && !stream->cursor[i].full)
            continue;
        if (best == NULL || at < best_at) {
            *next = best_at;
            best_at = at;
            best = &stream->cursor[i];
        } else if (at < *next) {
            *next = at;
        }
    }
    return best;
}

/*
 * Merges the rings by time up to `cut`: what happened later may be there before something earlier
 * of another thread is. Returns how many events it went over.
 */
static uint32_t merge(struct lin_stream *stream, uint32_t max, uint64_t cut) {
    uint32_t went = 0, live = GET(stream->active);
    uint32_t open = look(stream, max);
    uint64_t next;
    struct cursor *cursor;
    while (went < max && (cursor = earliest(stream, open, cut, &next)) != NULL) {
        do {
            spread(stream, cursor, live);
            cursor->at++;
            cursor->position++;
            went++;
        } while (went < max && cursor->at < cursor->count && front(cursor) <= next &&
                 (cursor->full || front(cursor) <= cut));
        atomic_store_explicit(&stream->pumped[cursor->ring], cursor->position,
                              memory_order_release);
        if (cursor->at == cursor->count)
            fill(stream, cursor, max);
        if (cursor->count == 0)
            *cursor = stream->cursor[--open];
    }
    return went;
}

/* Whether a ring has lost events that no GAP has told, has room again, and a GAP has, too. */
static bool may_tell(const struct lin_rings *rings, uint32_t n) {
    const struct lin_ring *ring = lin_ring_at(rings, n), *shared = lin_ring_at(rings, 0);
    return GET(ring->lost) != GET(ring->told) &&
           GET(ring->head) - GET(ring->tail) < rings->capacity / 2 &&
           GET(shared->head) - GET(shared->tail) < rings->capacity / 2;
}

/* Tells of the losses of rings into which nothing came since the last look. */
static uint32_t tell_silent(struct lin_stream *stream) {
    uint32_t told = 0;
    for (uint32_t n = 0; n < stream->rings->count; n++) {
        uint64_t lost = GET(lin_ring_at(stream->rings, n)->lost);
        if (lost == stream->lost_seen[n] && may_tell(stream->rings, n))
            told += lin_ring_tell(stream->rings, n);
        stream->lost_seen[n] = lost;
    }
    return told;
}

uint32_t lin_stream_pump(struct lin_stream *stream, uint32_t max) {
    pthread_mutex_lock(&stream->lock);
    SET(stream->state, AWAKE);
    uint32_t went = merge(stream, max, lin_clock_ticks());
    if (went == 0)
        went = merge(stream, max, UINT64_MAX);
    for (uint32_t n = 0; n < stream->rings->count; n++)
        release(stream, n);
    if (went < max)
        tell_silent(stream);
    settle_retired(stream, HELD_PUMP_US);
    pthread_mutex_unlock(&stream->lock);
    return went;
}

bool lin_stream_sleep(struct lin_stream *stream) {
    uint32_t idle = IDLE;
    bool quiet = true;
    SET(stream->state, IDLE);
    lin_gate_barrier();
    for (uint32_t n = 0; n < stream->rings->count && quiet; n++)
        quiet = GET(lin_ring_at(stream->rings, n)->head) == GET(stream->pumped[n]) &&
                !may_tell(stream->rings, n);
    if (!quiet)
        atomic_compare_exchange_strong_explicit(&stream->state, &idle, AWAKE, memory_order_relaxed,
                                                memory_order_relaxed);
    return quiet;
}

uint32_t lin_stream_read(struct lin_stream *stream, uint32_t ring, uint64_t *position, uint32_t max,
                         const struct lin_event **events) {
    return lin_ring_read(stream->rings, ring, position, max, events, NULL);
}

void lin_stream_written(struct lin_stream *stream, uint32_t ring, uint64_t position) {
    atomic_store_explicit(&stream->written[ring], position, memory_order_release);
    release(stream, ring);
}

const struct lin_rings *lin_stream_rings(const struct lin_stream *stream) { return stream->rings; }

#include "fake_host.h"
#include "stream.h"
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>

/*
 * Threads that trace, half of them without a ring of their own, against the pump, the journal's
 * writer, and subscribers that come and go: what one subscriber and the writer were given, gaps
 * included, is what happened, exactly; each process's events come in order; no wake is lost.
 */

#define CAPACITY LIN_RING_MIN_CAPACITY

static struct lin_rings *rings;
static struct lin_stream *stream;
static uint32_t size;
static _Atomic uint32_t tracing;
static _Atomic bool over;
static sem_t woken;

static void wake(void *arg) {
    (void)arg;
    sem_post(&woken);
}

static void *trace(void *arg) {
    struct lin_census *census;
    struct lin_thread *self = lin_thread_self();
    uint64_t pid = fake_start((uint64_t)(uintptr_t)arg), state = pid;
    struct lin_birth birth = {.pid = pid};
    census = lin_gate_enter(self);
    lin_census_adopt(census, self);
    lin_census_birth(census, self, NULL, &birth);
    lin_gate_leave(self);
    for (uint32_t i = 0; i < size; i++) {
        lin_gate_enter(self);
        lin_census_name(census, pid, (uint64_t)i << 6 | 0xb);
        lin_gate_leave(self);
        if (dice(&state) % 1024 == 0) /* let the pump sleep */
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    atomic_fetch_sub(&tracing, 1);
    return NULL;
}

/* What one reader was given. */
struct seen {
    uint64_t events, missing;
    uint32_t no[256]; /* of each process: its last, and 0 for none */
    bool in_order;
};

static void see(struct seen *seen, const struct lin_event *event) {
    if (event->kind == LIN_EV_GAP) {
        seen->missing += event->a;
        return;
    }
    uint64_t number = fake_number(event->pid);
    CHECK(number < 256);
    /* It wraps, and may have a gap: but it never goes back by little. */
    CHECK((uint16_t)(event->no - seen->no[number]) != 0);
    CHECK(!seen->in_order || (uint16_t)(event->no - seen->no[number]) < 60000);
    seen->no[number] = event->no;
    seen->events++;
}

static struct seen subscribed, written;
static uint32_t steady;

static void wait_for_wake(void) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    while (sem_timedwait(&woken, &until) != 0)
        CHECK(errno == EINTR); /* ETIMEDOUT: a wake was lost */
}

static void take(void) {
    struct lin_event out[256];
    uint32_t count;
    while ((count = lin_stream_take(stream, steady, out, 256)) != 0)
        for (uint32_t i = 0; i < count; i++)
            see(&subscribed, &out[i]);
}

static void *pump(void *arg) {
    (void)arg;
    for (uint64_t turn = 0; !atomic_load(&over); turn++) {
        uint32_t went = lin_stream_pump(stream, 1000);
        if (turn % 64 < 60) /* now and then its buffer overflows */
            take();
        if (went == 0 && lin_stream_sleep(stream))
            wait_for_wake();
    }
    return NULL;
}

static uint32_t read_ring(uint32_t ring, uint64_t *position) {
    const struct lin_event *events;
    uint32_t count = lin_stream_read(stream, ring, position, 512, &events);
    for (uint32_t i = 0; i < count; i++)
        see(&written, &events[i]);
    *position += count;
    if (count != 0)
        lin_stream_written(stream, ring, *position);
    return count;
}

static uint64_t positions[LIN_RINGS_MAX];

static void *write_journal(void *arg) {
    (void)arg;
    uint64_t state = 99;
    while (!atomic_load(&over)) {
        if (dice(&state) % 64 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        for (uint32_t n = 0; n < rings->count; n++)
            read_ring(n, &positions[n]);
    }
    return NULL;
}

static void *come_and_go(void *arg) {
    uint64_t state = (uint64_t)(uintptr_t)arg;
    struct lin_event out[64];
    while (!atomic_load(&over)) {
        struct lin_filter filter = {.kinds = dice(&state) % 2 == 0 ? 0 : 1u << LIN_EV_BIRTH};
        uint32_t number;
        int result = lin_stream_subscribe(stream, &filter, 1 + dice(&state) % 100, &number);
        CHECK(result == 0 || result == -EAGAIN);
        for (uint64_t i = dice(&state) % 20; result == 0 && i > 0; i--) {
            uint32_t count = lin_stream_take(stream, number, out, 64);
            for (uint32_t k = 0; k < count; k++)
                CHECK(filter.kinds == 0 || out[k].kind == LIN_EV_BIRTH ||
                      out[k].kind == LIN_EV_GAP);
            lin_stream_waiting(stream, number, 10);
            lin_stream_dropped(stream, number);
        }
        if (result == 0)
            lin_stream_unsubscribe(stream, number);
    }
    return NULL;
}

static void drain(void) {
    uint32_t left;
    do {
        while (lin_stream_pump(stream, 1000) != 0)
            take();
        left = !lin_stream_sleep(stream);
        for (uint32_t n = 0; n < rings->count; n++)
            while (read_ring(n, &positions[n]) != 0)
                left = 1;
    } while (left != 0);
    take();
}

static void run(uint32_t threads) {
    pthread_t tracer[255], other[4];
    struct lin_filter all = {.kinds = 0};
    CHECK(lin_stream_subscribe(stream, &all, 3000, &steady) == 0);
    CHECK(lin_stream_start(stream) == 0);
    atomic_store(&tracing, threads);
    CHECK(pthread_create(&other[0], NULL, pump, NULL) == 0);
    CHECK(pthread_create(&other[1], NULL, write_journal, NULL) == 0);
    for (uintptr_t i = 2; i < 4; i++)
        CHECK(pthread_create(&other[i], NULL, come_and_go, (void *)(i + 7)) == 0);
    for (uintptr_t i = 0; i < threads; i++)
        CHECK(pthread_create(&tracer[i], NULL, trace, (void *)(i + 1)) == 0);
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(tracer[i], NULL);
    lin_stream_stop(stream);
    atomic_store(&over, true);
    sem_post(&woken);
    for (int i = 0; i < 4; i++)
        pthread_join(other[i], NULL);
    drain();
    lin_stream_unsubscribe(stream, steady);
}

int main(int argc, char **argv) {
    uint32_t threads = argc > 1 ? (uint32_t)atoi(argv[1]) : 4;
    size = argc > 2 ? (uint32_t)atoi(argv[2]) : 20000;
    CHECK(threads > 0 && threads < 256 && size > 0);
    struct lin_census *census = fake_open(fake_options());
    uint32_t count = threads / 2 + 1;
    size_t bytes = lin_rings_bytes(count, CAPACITY);
    rings = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    CHECK(rings != NULL && census != NULL);
    memset(rings, 0, bytes);
    CHECK(lin_rings_init(rings, count, CAPACITY) == 0 && sem_init(&woken, 0, 0) == 0);
    struct lin_stream_options options = {.rings = rings, .wake = wake, .writer = true};
    CHECK(lin_stream_create(&options, &stream) == 0);
    written.in_order = true; /* a process's events are all in one ring here */
    run(threads);
    struct lin_stream_counts counts;
    lin_stream_count(stream, &counts);
    uint64_t happened = (uint64_t)threads * (size + 2);
    printf("stress_ring: %u threads, %u rings, %llu events, %llu lost in rings, %llu missing for "
           "the subscriber\n",
           threads, count, (unsigned long long)happened, (unsigned long long)counts.lost,
           (unsigned long long)subscribed.missing);
    CHECK(written.events + written.missing == happened);
    CHECK(written.missing == counts.lost);
    CHECK(subscribed.events + subscribed.missing == happened);
    lin_stream_destroy(stream);
    fake_close(census);
    lin_gate_deinit();
    free(rings);
    CHECK(fake_bytes == 0);
    return 0;
}

/*
 * stress_timings THREADS SIZE - callers and supervisors on threads of their own, and sums that must
 * be exact.
 *
 * THREADS callers ask THREADS supervisors for starts and stops, SIZE / 20 times each, through
 * mailboxes that order nothing; a supervisor serves whoever asks, is replaced by a new one now and
 * then, and sees children exit that it starts again. A maintainer sweeps the series, reads them,
 * takes the outliers and, in the second round, opens and ends windows all the while. Rounds: one
 * window, in which every start must be found again in some count; many windows, in which none may
 * be found twice. Made for ThreadSanitizer, right without it too.
 */
#include "fake_host.h"
#include "stress.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#define MAX_THREADS 16u
#define LIVES 50u /* requests that a supervisor serves before another takes its place */

static unsigned threads, size;
static _Atomic unsigned callers_left;
static _Atomic uint64_t starts, refused, restarts, next_pid;

/* Relaxed, as all that is shared here: the table's own locks must do. */
struct mailbox {
    _Atomic uint64_t request; /* 0: none; else a caller's pid, with STOP */
    _Atomic uint64_t reply;   /* the pid that was answered */
    _Atomic uint64_t pid;     /* of the supervisor that reads it */
};
#define STOP ((uint64_t)1 << 63)
#define PUT(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
static struct mailbox mailbox[MAX_THREADS];

static uint64_t fresh(void) { return fake_start(FAKE_ADD(next_pid, 1) % (FAKE_PIDS - 1) + 1); }

static struct lin_timings *enter(struct lin_thread **self) {
    struct lin_census *census;
    *self = fake_enter(&census);
    CHECK(census != NULL);
    return census->timings;
}

/* One event, inside the gate. */
#define EVENT(call)                                                                                \
    do {                                                                                           \
        struct lin_thread *self;                                                                   \
        struct lin_timings *t = enter(&self);                                                      \
        call;                                                                                      \
        lin_gate_leave(self);                                                                      \
    } while (0)

static void request(uint64_t caller, uint64_t *random) {
    struct mailbox *box = &mailbox[dice(random) % threads];
    bool stop = dice(random) % 4 == 0, ok = dice(random) % 8 != 0;
    enum lin_request what = stop ? LIN_REQUEST_STOP : LIN_REQUEST_START;
    EVENT(lin_timing_ask(t, NULL, caller, what, lin_clock_ticks()));
    uint64_t none = 0;
    while (!atomic_compare_exchange_weak_explicit(&box->request, &none, caller | (stop ? STOP : 0),
                                                  memory_order_relaxed, memory_order_relaxed)) {
        none = 0;
        sched_yield();
    }
    while (FAKE_GET(box->reply) != caller)
        sched_yield();
    PUT(box->reply, 0);
    EVENT(lin_timing_answered(t, caller, what, ok, lin_clock_ticks()));
    if (!ok)
        FAKE_ADD(refused, 1);
    else if (!stop)
        FAKE_ADD(starts, 1);
}

static void *call(void *arg) {
    uint64_t random = 88172645463325252u + (uintptr_t)arg, caller = fresh();
    for (unsigned i = 0; i < size / 20; i++) {
        unsigned path = i % 2;
        EVENT(lin_timing_enter(t, NULL, caller, path, lin_clock_ticks()));
        request(caller, &random);
        EVENT(lin_timing_leave(t, caller, path, true, lin_clock_ticks()));
    }
    atomic_fetch_sub(&callers_left, 1);
    return NULL;
}

static void end_of(uint64_t supervisor, uint64_t child, bool linked) {
    struct lin_exit its = {
        .supervisor = supervisor, .child = child, .linked = linked, .told = true};
    EVENT(lin_timing_exit(t, NULL, &its, lin_clock_ticks()));
    fake_kill(child);
}

static uint64_t bear(uint64_t supervisor, bool acknowledges) {
    uint64_t child = fresh();
    EVENT(lin_timing_born(t, supervisor, child, 7, lin_clock_ticks()));
    if (acknowledges)
        EVENT(lin_timing_ack(t, supervisor, child, true, lin_clock_ticks()));
    return child;
}

static void answer(struct mailbox *box, uint64_t asked, uint64_t *child) {
    uint64_t pid = FAKE_GET(box->pid), caller = asked & ~STOP;
    enum lin_request what = (asked & STOP) != 0 ? LIN_REQUEST_STOP : LIN_REQUEST_START;
    EVENT(lin_timing_serve(t, NULL, pid, caller, what, lin_clock_ticks()));
    if (what == LIN_REQUEST_STOP)
        end_of(pid, *child, false);
    else
        *child = bear(pid, caller % 3 != 0);
    EVENT(lin_timing_served(t, NULL, pid, lin_clock_ticks()));
    PUT(box->request, 0);
    while (FAKE_GET(box->reply) != 0)
        sched_yield();
    PUT(box->reply, caller);
}

static void start_again(uint64_t supervisor, uint64_t *child) {
    end_of(supervisor, *child, true);
    EVENT(lin_timing_replace(t, NULL, supervisor, *child, lin_clock_ticks()));
    *child = bear(supervisor, true);
    EVENT(lin_timing_served(t, NULL, supervisor, lin_clock_ticks()));
    FAKE_ADD(restarts, 1);
}

static void *supervise(void *arg) {
    struct mailbox *box = arg;
    uint64_t child = fresh();
    for (unsigned i = 0; atomic_load(&callers_left) > 0; i++) {
        uint64_t asked = FAKE_GET(box->request);
        if (asked == 0) {
            sched_yield();
            continue;
        }
        answer(box, asked, &child);
        if (i % 5 == 0)
            start_again(FAKE_GET(box->pid), &child);
        if (i % LIVES == 0) {
            fake_kill(FAKE_GET(box->pid));
            PUT(box->pid, fresh());
        }
    }
    return NULL;
}

static uint64_t count_of(const struct lin_line *line, enum lin_part part) {
    const struct lin_histogram *histogram = lin_line_part(line, part);
    uint64_t sum = 0;
    for (uint32_t i = 0; histogram != NULL && i < LIN_HISTOGRAM_BUCKETS; i++)
        sum += FAKE_GET(histogram->count[i]);
    return sum;
}

static uint64_t total(const struct lin_timings *timings, enum lin_part part) {
    const struct lin_series *series = &timings->series;
    uint64_t sum = count_of(&series->gone, part) + count_of(&series->others, part);
    for (uint32_t i = 0; i < LIN_SERIES; i++)
        sum += count_of(&series->supervisor[i], part);
    return sum;
}

static void maintain(struct lin_timings *timings, bool windows) {
    struct lin_outlier outlier;
    for (unsigned i = 0; atomic_load(&callers_left) > 0; i++) {
        if (windows)
            lin_timings_turn(timings, NULL, (enum lin_phase)(i % 3), 0.5, lin_clock_ticks());
        lin_series_sweep(&timings->series, NULL);
        CHECK(total(timings, LIN_PART_RESTART_ACK) <= FAKE_GET(restarts) + 2 * threads);
        while (lin_timings_outlier(timings, &outlier))
            CHECK(outlier.at[4] >= outlier.at[0] && outlier.supervisor != 0);
    }
}

static void sums(struct lin_timings *timings, bool windows) {
    uint64_t latency = total(timings, LIN_PART_LATENCY),
             left = FAKE_GET(timings->counts.lost) + FAKE_GET(timings->counts.unfinished);
    for (unsigned part = LIN_PART_OVERHEAD; part <= LIN_PART_BACK; part++)
        CHECK(total(timings, (enum lin_part)part) == latency);
    uint64_t paths = count_of(&timings->series.critical[0], LIN_PART_LATENCY) +
                     count_of(&timings->series.critical[1], LIN_PART_LATENCY);
    if (windows) {
        CHECK(latency <= FAKE_GET(starts));
        CHECK(FAKE_GET(timings->counts.failed) <= FAKE_GET(refused));
        CHECK(paths <= (uint64_t)threads * (size / 20));
        return;
    }
    CHECK(left == 0);
    CHECK(latency == FAKE_GET(starts));
    CHECK(FAKE_GET(timings->counts.elsewhere) == 0);
    CHECK(FAKE_GET(timings->counts.failed) == FAKE_GET(refused));
    CHECK(total(timings, LIN_PART_RESTART_BIRTH) == FAKE_GET(restarts));
    CHECK(paths == (uint64_t)threads * (size / 20));
}

static void round_of(bool windows) {
    static struct lin_timings_options overhead = {
        .target_ns = 1000, .criticals = 2, .critical = {{1, 1, 1}, {2, 2, 2}}};
    struct lin_census_options options = fake_options();
    options.overhead = &overhead;
    struct lin_census *census = fake_open(options);
    CHECK(census != NULL);
    pthread_t caller[MAX_THREADS], supervisor[MAX_THREADS];
    PUT(starts, 0), PUT(refused, 0), PUT(restarts, 0);
    atomic_store(&callers_left, threads);
    lin_timings_turn(census->timings, NULL, LIN_TIMING_ON, 0.5, lin_clock_ticks());
    for (uintptr_t i = 0; i < threads; i++) {
        PUT(mailbox[i].pid, fresh());
        pthread_create(&supervisor[i], NULL, supervise, &mailbox[i]);
        pthread_create(&caller[i], NULL, call, (void *)(i + 1));
    }
    maintain(census->timings, windows);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(caller[i], NULL);
        pthread_join(supervisor[i], NULL);
    }
    CHECK(windows ||
          lin_timings_turn(census->timings, NULL, LIN_TIMING_DRAIN, 0.5, lin_clock_ticks()) == 0);
    lin_timings_turn(census->timings, NULL, LIN_TIMING_OFF, 0.5, lin_clock_ticks());
    sums(census->timings, windows);
    printf("stress_timings: %lu starts, %lu restarts, %s\n", FAKE_GET(starts), FAKE_GET(restarts),
           windows ? "many windows" : "one window");
    fake_close(census);
}

int main(int argc, char **argv) {
    threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 4;
    size = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20000;
    if (threads == 0 || threads > MAX_THREADS || size < 20 || size > 100000000) {
        fprintf(stderr, "stress_timings THREADS SIZE: 1 to %u threads, from 20 on\n", MAX_THREADS);
        return 2;
    }
    round_of(false);
    round_of(true);
    lin_gate_deinit();
    CHECK(fake_bytes == 0);
    return 0;
}

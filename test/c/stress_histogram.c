/*
 * stress_histogram THREADS SIZE - threads record SIZE x 100 values each, while others move all that
 * there is from one histogram to the next, round and round, and one reads. At the end every value
 * is in one of them. Made for ThreadSanitizer, right without it too.
 */
#include "fake_host.h"
#include "histogram.h"

#include <pthread.h>
#include <stdio.h>

#define HISTOGRAMS 4u
#define MAX_THREADS 32u

static struct lin_histogram *histogram[HISTOGRAMS];
static _Atomic bool ended;
static unsigned size;

static uint64_t value(unsigned id, unsigned i) {
    return ((uint64_t)i * 2654435761u + id) << i % 20;
}

static void *record(void *arg) {
    unsigned id = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < size * 100; i++)
        lin_histogram_record(histogram[i % HISTOGRAMS], value(id, i));
    return NULL;
}

static void *move(void *arg) {
    for (unsigned i = (unsigned)(uintptr_t)arg; !atomic_load(&ended); i++)
        lin_histogram_move(histogram[(i + 1) % HISTOGRAMS], histogram[i % HISTOGRAMS]);
    return NULL;
}

static void *read_all(void *arg) {
    uint64_t *most = arg;
    while (!atomic_load(&ended))
        for (unsigned h = 0; h < HISTOGRAMS; h++)
            for (uint32_t i = 0; i < LIN_HISTOGRAM_BUCKETS; i++) {
                uint64_t count = FAKE_GET(histogram[h]->count[i]);
                *most = count > *most ? count : *most;
            }
    return NULL;
}

/* What lies in each bucket, and the sum behind them. */
static void expect(unsigned threads, uint64_t *bucket) {
    for (unsigned id = 0; id < threads; id++)
        for (unsigned i = 0; i < size * 100; i++) {
            bucket[lin_histogram_bucket(value(id, i))]++;
            bucket[LIN_HISTOGRAM_BUCKETS] += value(id, i);
        }
}

int main(int argc, char **argv) {
    static uint64_t bucket[LIN_HISTOGRAM_BUCKETS + 1];
    unsigned threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 4;
    size = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20000;
    if (threads == 0 || threads > MAX_THREADS || size == 0 || size > 10000000) {
        fprintf(stderr, "stress_histogram THREADS SIZE: 1 to %u threads, 1 to 10000000\n",
                MAX_THREADS);
        return 2;
    }
    lin_gate_init(&fake_host);
    for (unsigned h = 0; h < HISTOGRAMS; h++)
        histogram[h] = lin_histogram_create();
    pthread_t recorder[MAX_THREADS], mover[2], reader;
    uint64_t most = 0;
    pthread_create(&reader, NULL, read_all, &most);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&mover[i], NULL, move, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < threads; i++)
        pthread_create(&recorder[i], NULL, record, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(recorder[i], NULL);
    atomic_store(&ended, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(mover[i], NULL);
    pthread_join(reader, NULL);
    for (unsigned h = 1; h < HISTOGRAMS; h++)
        lin_histogram_move(histogram[0], histogram[h]);
    expect(threads, bucket);
    int result = histogram[0]->sum == bucket[LIN_HISTOGRAM_BUCKETS] ? 0 : 1;
    for (uint32_t i = 0; i < LIN_HISTOGRAM_BUCKETS; i++)
        if (histogram[0]->count[i] != bucket[i] || most > (uint64_t)threads * size * 100)
            result = 1;
    printf("stress_histogram: %u threads, %u values each, %s\n", threads, size * 100,
           result == 0 ? "none lost" : "counts are wrong");
    for (unsigned h = 0; h < HISTOGRAMS; h++)
        lin_histogram_destroy(histogram[h]);
    return result;
}

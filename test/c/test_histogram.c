#include "fake_host.h"
#include "histogram.h"

#include <criterion/criterion.h>

#include <math.h>

/* The layout, value by value at its edges; and quantiles against those of the values themselves. */

#define US 1000u
#define HOUR (3600000000000u)

static void setup(void) { lin_gate_init(&fake_host); }

static void teardown(void) {
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(histogram, .init = setup, .fini = teardown);

Test(histogram, buckets_follow_each_other_without_a_gap) {
    cr_assert_eq(lin_histogram_low(0), 0);
    cr_assert_eq(lin_histogram_low(LIN_HISTOGRAM_BUCKETS), UINT64_MAX);
    for (uint32_t i = 0; i < LIN_HISTOGRAM_BUCKETS; i++) {
        uint64_t low = lin_histogram_low(i), above = lin_histogram_low(i + 1);
        cr_assert_lt(low, above);
        cr_assert_eq(lin_histogram_bucket(low), i, "the least value of bucket %u", i);
        cr_assert_eq(lin_histogram_bucket(above - 1), i, "the largest value of bucket %u", i);
    }
    cr_assert_eq(lin_histogram_bucket(UINT64_MAX), LIN_HISTOGRAM_BUCKETS - 1);
}

Test(histogram, buckets_are_narrow_within_the_range) {
    uint32_t first = lin_histogram_bucket(US), last = lin_histogram_bucket(HOUR);
    cr_assert_lt(last, LIN_HISTOGRAM_BUCKETS - 1, "an hour is within the range");
    for (uint32_t i = first; i <= last; i++) {
        uint64_t low = lin_histogram_low(i), width = lin_histogram_low(i + 1) - low;
        cr_assert_leq(width * 128, low, "bucket %u of %lu ns is %lu wide", i, low, width);
    }
}

/* Every value up to 2^22, and around every power of two: buckets never go down as values go up. */
Test(histogram, buckets_rise_with_the_values) {
    for (uint64_t ns = 1; ns < 1u << 22; ns++) {
        uint32_t before = lin_histogram_bucket(ns - 1), now = lin_histogram_bucket(ns);
        cr_assert(now == before || now == before + 1, "at %lu", ns);
    }
    for (unsigned power = 2; power < 64; power++)
        for (uint64_t ns = ((uint64_t)1 << power) - 1000; ns <= ((uint64_t)1 << power) + 1000; ns++)
            if (ns > 0 && ns < (uint64_t)1 << 63)
                cr_assert_geq(lin_histogram_bucket(ns), lin_histogram_bucket(ns - 1), "at %lu", ns);
}

static uint64_t random_state = 88172645463325252u;

static uint64_t dice(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* In (0, 1). */
static double uniform(void) { return ((double)(dice() >> 11) + 0.5) / 9007199254740992.0; }

static double normal(void) {
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* Durations as they come: each has values below 1 us, or a tail up to minutes, or both. */
static double draw_uniform(void) { return 1e3 + uniform() * 1e6; }
static double draw_exponential(void) { return -log(uniform()) * 2e4; }
static double draw_lognormal(void) { return exp(log(8e3) + 1.5 * normal()); }
static double draw_pareto(void) { return 5e3 / pow(uniform(), 1 / 1.1); }
static double draw_two_modes(void) {
    return uniform() < 0.97 ? 7e3 + 5e2 * normal() : 5e7 + 1e6 * normal();
}

static int by_value(const void *left, const void *right) {
    uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
    return l < r ? -1 : l > r;
}

/* The bucket with the value of a rank, counted from 1. */
static uint32_t bucket_at(const struct lin_histogram *histogram, uint64_t rank) {
    uint64_t sum = 0;
    uint32_t i = 0;
    while (sum < rank && i < LIN_HISTOGRAM_BUCKETS)
        sum += histogram->count[i++];
    return i - 1;
}

#if defined(__SANITIZE_ADDRESS__)
#define VALUES 1000000u
#else
#define VALUES 10000000u
#endif

static void is_as_exact(double (*draw)(void)) {
    static const double quantiles[] = {0.0001, 0.01, 0.1,  0.25,  0.5,    0.75,
                                       0.9,    0.95, 0.99, 0.999, 0.9999, 1};
    struct lin_histogram *histogram = lin_histogram_create();
    uint64_t *value = malloc(VALUES * sizeof *value), sum = 0;
    cr_assert_not_null(value);
    for (uint32_t i = 0; i < VALUES; i++) {
        double ns = draw();
        value[i] = ns < 0 ? 0 : (uint64_t)ns;
        sum += value[i];
        lin_histogram_record(histogram, value[i]);
    }
    qsort(value, VALUES, sizeof *value, by_value);
    cr_assert_eq(histogram->sum, sum);
    for (size_t q = 0; q < sizeof quantiles / sizeof quantiles[0]; q++) {
        uint64_t rank = (uint64_t)ceil(quantiles[q] * VALUES), exact = value[rank - 1];
        uint32_t i = bucket_at(histogram, rank);
        uint64_t low = lin_histogram_low(i), above = lin_histogram_low(i + 1);
        cr_assert(low <= exact && exact < above, "%g: %lu is not in [%lu, %lu)", quantiles[q],
                  exact, low, above);
        if (exact >= US && exact <= HOUR)
            cr_assert_leq((double)(above - low), 0.01 * (double)exact, "%g", quantiles[q]);
    }
    free(value);
    lin_histogram_destroy(histogram);
}

Test(histogram, quantiles_of_a_uniform_one) { is_as_exact(draw_uniform); }
Test(histogram, quantiles_of_an_exponential_one) { is_as_exact(draw_exponential); }
Test(histogram, quantiles_of_a_lognormal_one) { is_as_exact(draw_lognormal); }
Test(histogram, quantiles_of_one_with_a_heavy_tail) { is_as_exact(draw_pareto); }
Test(histogram, quantiles_of_one_with_two_modes) { is_as_exact(draw_two_modes); }

/* What is outside of the range is counted at its ends. */
Test(histogram, nothing_is_refused) {
    struct lin_histogram *histogram = lin_histogram_create();
    lin_histogram_record(histogram, 0);
    lin_histogram_record(histogram, 3);
    lin_histogram_record(histogram, 2 * HOUR);
    lin_histogram_record(histogram, UINT64_MAX - 2 * HOUR - 3);
    cr_assert_eq(histogram->count[0], 2);
    cr_assert_eq(histogram->count[LIN_HISTOGRAM_BUCKETS - 1], 2);
    cr_assert_eq(histogram->sum, UINT64_MAX);
    lin_histogram_destroy(histogram);
}

Test(histogram, moved_is_the_sum) {
    struct lin_histogram *one = lin_histogram_create(), *other = lin_histogram_create(),
                         *both = lin_histogram_create();
    for (uint32_t i = 0; i < 200000; i++) {
        uint64_t ns = dice() >> (dice() % 64);
        lin_histogram_record(i % 3 == 0 ? one : other, ns);
        lin_histogram_record(both, ns);
    }
    lin_histogram_move(one, other);
    cr_assert_eq(one->sum, both->sum);
    cr_assert_eq(other->sum, 0);
    for (uint32_t i = 0; i < LIN_HISTOGRAM_BUCKETS; i++) {
        cr_assert_eq(one->count[i], both->count[i]);
        cr_assert_eq(other->count[i], 0);
    }
    lin_histogram_destroy(one);
    lin_histogram_destroy(other);
    lin_histogram_destroy(both);
}

Test(histogram, without_memory) {
    fake_fail_after = 0;
    cr_assert_null(lin_histogram_create());
    fake_fail_after = -1;
    lin_histogram_destroy(NULL);
}

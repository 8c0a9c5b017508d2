/* What a journal says lived is what the census has, from its beginning and from a census in it; and
 * nothing that was damaged is believed. */
#include "journal_maker.h"

#include "verdict.h"

#include <criterion/criterion.h>
#include <errno.h>

struct result {
    struct lin_run run;
    struct lin_left left;
    struct lin_replay *replay;
    const struct lin_replayed *out;
};

static void replay_from(struct result *result, size_t from) {
    size_t bytes;
    void *rings = maker_left(&bytes);
    lin_tap_set(NULL); /* the verdict's own census would tell it, too */
    lin_run_init(&result->run, MAKER_RUN);
    result->replay = lin_replay_create(UINT64_MAX);
    lin_run_segment(&result->run, 0, maker.bytes + from, maker.used - from, lin_replay_block,
                    result->replay);
    cr_assert_eq(lin_left_init(&result->run, rings, bytes, &result->left), 0);
    lin_replay_left(result->replay, &result->left);
    cr_assert_eq(lin_replay_finish(result->replay, &result->run.head, &result->out), 0);
    cr_assert_eq(result->run.damaged_bytes, 0);
}

static void done(struct result *result) {
    lin_replay_destroy(result->replay);
    lin_left_free(&result->left);
}

static bool note_orphan(void *arg, uint64_t pid) {
    uint64_t *pids = arg;
    pids[++pids[0]] = pid;
    return true;
}

/* The live by the census itself, entry for entry. */
static void same_as_census(const struct result *result, struct lin_entry *truth, size_t count,
                           const uint64_t *orphans) {
    cr_assert_eq(result->out->live_count, count, "%zu live, not %zu", result->out->live_count,
                 count);
    for (size_t i = 0; i < count; i++) {
        const struct lin_shown *shown = lin_replay_find(result->replay, truth[i].pid);
        cr_assert_not_null(shown);
        const struct lin_entry *e = &shown->entry;
        cr_assert_eq(e->parent, truth[i].parent);
        cr_assert_eq(e->guardian, truth[i].guardian);
        cr_assert_eq(e->flags, truth[i].flags, "%x is not %x", e->flags, truth[i].flags);
        cr_assert_eq(e->scope, truth[i].scope);
        cr_assert_eq(e->initial_call, truth[i].initial_call);
        cr_assert_eq(e->birth, truth[i].birth);
        cr_assert_eq(e->no, truth[i].no);
        bool orphan = false;
        for (uint64_t k = 1; k <= orphans[0]; k++)
            orphan = orphan || orphans[k] == truth[i].pid;
        cr_assert_eq(shown->orphan, orphan);
    }
}

static size_t read_census(struct lin_entry *out) {
    size_t count = 0;
    for (uint32_t n = 0; n < maker.census->chunks_max * LIN_CHUNK; n++) {
        struct lin_record *record = lin_census_record(maker.census, n);
        if (record != NULL && lin_record_read(record, &out[count]))
            count++;
    }
    return count;
}

static void check_life(uint64_t seed) {
    static struct lin_entry truth[FAKE_LIMIT];
    static uint64_t orphans[FAKE_LIMIT + 1];
    struct lin_verdict verdict;
    struct result result;
    maker_open(seed);
    maker_live(3000);
    lin_census_sweep(maker.census, maker.self, NULL);
    size_t count = read_census(truth);
    orphans[0] = 0;
    cr_assert_eq(lin_verdict_run(maker.census, &verdict, note_orphan, orphans), 0);
    cr_assert_eq(orphans[0], verdict.orphans);
    replay_from(&result, 0);
    cr_assert(result.out->whole);
    uint64_t in_rings = 0;
    for (uint32_t n = 0; n < MAKER_RINGS; n++)
        in_rings += result.left.to[n] - result.left.from[n];
    cr_assert_eq(result.run.events + in_rings, maker.events);
    same_as_census(&result, truth, count, orphans);
    done(&result);
    if (maker.census_at != 0) {
        replay_from(&result, maker.census_at);
        cr_assert(result.out->whole);
        same_as_census(&result, truth, count, orphans);
        done(&result);
    }
    maker_close();
}

Test(replay, lives) {
    for (uint64_t seed = 1; seed <= 40; seed++)
        check_life(seed);
}

/* The moment between any two events, against a replay of just those before. */
Test(replay, any_moment) {
    maker_open(99);
    maker_live(300);
    struct result whole;
    replay_from(&whole, 0);
    for (uint64_t ticks = whole.run.from_ticks; ticks < whole.out->at;
         ticks += (whole.out->at - whole.run.from_ticks) / 20 + 1) {
        struct lin_replay *replay = lin_replay_create(ticks);
        const struct lin_replayed *out;
        struct lin_run run;
        lin_run_init(&run, MAKER_RUN);
        lin_run_segment(&run, 0, maker.bytes, maker.used, lin_replay_block, replay);
        lin_replay_left(replay, &whole.left);
        cr_assert_eq(lin_replay_finish(replay, &run.head, &out), 0);
        cr_assert_leq(out->at, ticks);
        for (size_t i = 0; i < out->live_count; i++)
            cr_assert_leq(out->live[i].entry.birth, ticks);
        lin_replay_destroy(replay);
    }
    done(&whole);
    maker_close();
}

/* Events accepted of a damaged journal are some of the true ones. */
static uint64_t accepted(const unsigned char *data, size_t bytes, const struct lin_run *truth) {
    struct lin_run run;
    lin_run_init(&run, MAKER_RUN);
    struct lin_replay *replay = lin_replay_create(UINT64_MAX);
    lin_run_segment(&run, 0, data, bytes, lin_replay_block, replay);
    const struct lin_replayed *out;
    int result = lin_replay_finish(replay, &run.head, &out);
    cr_assert(result == 0 || result == -EINVAL);
    cr_assert_eq(result == 0 ? out->damaged : 0, 0);
    cr_assert_leq(run.events, truth->events);
    cr_assert_leq(run.blocks, truth->blocks);
    lin_replay_destroy(replay);
    return run.events;
}

Test(replay, every_prefix_and_every_flipped_byte) {
    maker_open(5);
    maker_live(120);
    struct lin_run truth;
    lin_run_init(&truth, MAKER_RUN);
    lin_run_segment(&truth, 0, maker.bytes, maker.used, NULL, NULL);
    unsigned char *copy = aligned_alloc(64, MAKER_ROOM);
    uint64_t before = 0;
    for (size_t bytes = 0; bytes <= maker.used; bytes += bytes < 2000 ? 1 : 61) {
        memcpy(copy, maker.bytes, bytes);
        uint64_t events = accepted(copy, bytes, &truth);
        cr_assert_geq(events, before);
        before = events;
    }
    memcpy(copy, maker.bytes, maker.used);
    for (size_t at = 0; at < maker.used; at += at < 3000 ? 1 : 17) {
        copy[at] ^= (unsigned char)(1u << at % 8);
        struct lin_run run;
        lin_run_init(&run, MAKER_RUN);
        lin_run_segment(&run, 0, copy, maker.used, NULL, NULL);
        /* One block is gone, whichever byte it was; padding is in no block's sum. */
        cr_assert(run.blocks == truth.blocks - 1 || (run.blocks == truth.blocks && copy[at] != 0));
        copy[at] ^= (unsigned char)(1u << at % 8);
    }
    free(copy);
    maker_close();
}

/* Rings that say what cannot be. */
Test(replay, damaged_rings) {
    maker_open(6);
    maker_live(500);
    struct lin_run run;
    lin_run_init(&run, MAKER_RUN);
    lin_run_segment(&run, 0, maker.bytes, maker.used, NULL, NULL);
    size_t bytes;
    struct lin_left left;
    for (size_t at = 0; at < sizeof(struct lin_rings) + 2 * sizeof(struct lin_ring); at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            unsigned char *rings = maker_left(&bytes);
            rings[at] ^= (unsigned char)(1u << bit);
            struct lin_replay *replay = lin_replay_create(UINT64_MAX);
            if (lin_left_init(&run, rings, bytes, &left) == 0)
                lin_replay_left(replay, &left);
            free(rings);
            lin_replay_destroy(replay);
        }
    for (size_t short_by = 1; short_by < 600; short_by += 7) {
        void *rings = maker_left(&bytes);
        cr_assert_eq(lin_left_init(&run, rings, bytes - short_by, &left), -EINVAL);
        free(rings);
    }
    maker_close();
}

#include "fake_host.h"
#include "verdict.h"

#include <criterion/criterion.h>
#include <string.h>

/*
 * Random lives against a model that is too simple to be wrong: an array with one place for each
 * slot. Seeds are fixed, so a failure comes again; its message names the seed and the step.
 */

#define STEPS 30000
#define PLACES 2048u

struct place {
    uint64_t pid; /* of the last process there; 0: none yet */
    bool alive;
    bool known; /* the census has been told of it, and had room */
    uint64_t parent, guardian;
    uint32_t flags, call;
};

static struct place place[PLACES];
static struct lin_census *census;
static struct lin_thread *self;
static uint64_t random_state, births, lost, losable;
static unsigned seed_of_run, step;

static uint64_t dice(uint64_t sides) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % sides;
}

static struct place *find(uint64_t pid) {
    struct place *p = &place[fake_number(pid) % PLACES];
    return pid != 0 && p->pid == pid ? p : NULL;
}

static struct place *any_alive(void) {
    for (int tries = 0; tries < 50; tries++) {
        struct place *p = &place[dice(PLACES)];
        if (p->alive)
            return p;
    }
    return NULL;
}

static bool in_census(uint64_t pid) {
    struct lin_entry entry;
    return lin_census_read(census, pid, &entry);
}

static void start(bool tell) {
    uint32_t at = (uint32_t)dice(PLACES);
    struct place *p = &place[at], *parent = any_alive();
    if (p->alive)
        return;
    uint64_t number = p->pid == 0 ? at : fake_number(p->pid) + PLACES;
    *p = (struct place){.pid = fake_start(number % FAKE_PIDS), .alive = true};
    p->parent = parent == NULL ? 0 : parent->pid;
    p->call = lin_mfa_intern(census->mfas, 1 + dice(20), 1, 1);
    p->flags = dice(40) == 0 ? LIN_CLASS_SERVICE : dice(40) == 0 ? LIN_CLASS_ROOT : 0;
    if (!tell)
        return;
    births++;
    lin_census_birth(
        census, self, NULL,
        &(struct lin_birth){
            .pid = p->pid, .parent = p->parent, .initial_call = p->call, .flags = p->flags});
    p->known = in_census(p->pid);
    lost += !p->known;
}

static void seed_one(void) {
    struct place *p = any_alive(), *guardian = dice(2) == 0 ? any_alive() : NULL;
    if (p == NULL)
        return;
    uint64_t held_by = guardian == NULL ? 0 : guardian->pid;
    struct lin_birth birth = {
        .pid = p->pid, .parent = p->parent, .initial_call = p->call, .flags = p->flags};
    enum lin_seed said = lin_census_seed(census, self, NULL, &birth, held_by);
    cr_assert(said == (p->known ? LIN_SEED_KNOWN : LIN_SEED_OK) || said == LIN_SEED_LOST);
    if (said == LIN_SEED_LOST) {
        cr_assert(!p->known);
        lost++;
    }
    if (said != LIN_SEED_OK)
        return;
    p->known = true;
    p->guardian = held_by;
    p->flags |= LIN_F_SEEDED | (held_by == 0 ? 0 : LIN_F_LINKED | LIN_F_BIRTH_LINK);
}

/* The words of the design, for one end of a link. */
static void model_link(struct place *p, uint64_t peer) {
    struct place *other = find(peer);
    bool first = (p->flags & (LIN_F_LINKED | LIN_F_SEEDED)) == 0;
    p->flags |= LIN_F_LINKED;
    if (first && peer == p->parent) {
        p->guardian = peer;
        p->flags |= LIN_F_BIRTH_LINK;
        return;
    }
    bool bookkeeping = (p->flags & LIN_CLASS_SERVICE) != 0 ||
                       (other->known && (other->flags & LIN_CLASS_SERVICE) != 0);
    bool hangs_on_us = other->known && other->guardian == p->pid;
    if ((p->flags & LIN_F_BIRTH_LINK) != 0 || bookkeeping || hangs_on_us)
        return;
    p->guardian = peer;
    p->flags &= ~LIN_F_ESCAPED;
}

static void link_two(struct place *p, uint64_t peer) {
    lin_census_link(census, p->pid, peer);
    if (p->known)
        model_link(p, peer);
}

static void link_some(void) {
    struct place *p = any_alive(), *other = any_alive();
    if (p == NULL)
        return;
    if (dice(3) == 0 && find(p->parent) != NULL && find(p->parent)->alive)
        other = find(p->parent);
    if (other == NULL || other == p)
        return;
    link_two(p, other->pid);
    link_two(other, p->pid);
}

static void unlink_some(void) {
    struct place *p = any_alive();
    if (p == NULL)
        return;
    uint64_t peer = dice(4) == 0 || p->guardian == 0 ? fake_pid(FAKE_PIDS - 1) : p->guardian;
    lin_census_unlink(census, p->pid, peer);
    if (p->known && peer == p->guardian) {
        p->guardian = 0;
        p->flags = (p->flags & ~LIN_F_BIRTH_LINK) | LIN_F_ESCAPED;
    }
}

static void correct_one(void) {
    struct place *p = any_alive(), *guardian = any_alive();
    if (p == NULL || guardian == NULL)
        return;
    cr_assert_eq(lin_census_set_guardian(census, p->pid, guardian->pid), p->known);
    if (!p->known)
        return;
    p->guardian = guardian->pid;
    p->flags = (p->flags | LIN_F_LINKED) & ~(LIN_F_ESCAPED | LIN_F_BIRTH_LINK);
}

static void stop_one(bool tell) {
    struct place *p = any_alive();
    if (p == NULL)
        return;
    fake_kill(p->pid);
    p->alive = false;
    if (tell) {
        lin_census_exit(census, self, NULL, p->pid, 1, dice(2) == 0);
        cr_assert(!in_census(p->pid));
    }
}

static void maintain(void (*fn)(void)) {
    lin_gate_leave(self);
    fn();
    lin_gate_enter(self);
}

static void sweep(void) { lin_census_sweep(census, self, NULL); }

static void trim(void) { lin_census_trim(census, self); }

static void compare_records(void) {
    for (uint32_t at = 0; at < PLACES; at++) {
        struct place *p = &place[at];
        struct lin_entry entry;
        if (p->pid == 0 || !p->alive)
            continue;
        bool there = lin_census_read(census, p->pid, &entry);
        cr_assert_eq(there, p->known, "seed %u, step %u: place %u", seed_of_run, step, at);
        if (!there)
            continue;
        cr_assert_eq(entry.parent, p->parent);
        cr_assert_eq(entry.initial_call, p->call);
        cr_assert_eq(entry.guardian, p->guardian, "seed %u, step %u: place %u", seed_of_run, step,
                     at);
        cr_assert_eq(entry.flags, p->flags, "seed %u, step %u: flags %x for %x", seed_of_run, step,
                     entry.flags, p->flags);
    }
}

/* Step by step along the guardians, at most as many as there are places. */
static bool leads_to_a_root(const struct place *p) {
    for (uint32_t steps = 0; steps <= PLACES && p != NULL && p->known; steps++) {
        if ((p->flags & LIN_CLASS_ROOTED) != 0)
            return true;
        p = p->guardian == 0 ? NULL : find(p->guardian);
        if (p != NULL && !p->alive)
            p = NULL;
    }
    return false;
}

static bool is_candidate(void *arg, uint64_t pid) {
    struct place *p = find(pid);
    cr_assert_not_null(p);
    cr_assert(p->alive && p->known && !leads_to_a_root(p));
    ++*(uint64_t *)arg;
    return true;
}

static void compare_all(void) {
    struct lin_verdict verdict;
    struct lin_totals totals;
    uint64_t live = 0, rooted = 0, candidates = 0;
    maintain(sweep);
    compare_records();
    for (uint32_t at = 0; at < PLACES; at++) {
        struct place *p = &place[at];
        cr_assert(p->pid == 0 || p->alive || !in_census(p->pid));
        live += p->alive && p->known;
        rooted += p->alive && p->known && leads_to_a_root(p);
    }
    cr_assert_eq(lin_verdict_run(census, &verdict, is_candidate, &candidates), 0);
    cr_assert_eq(verdict.live, live);
    cr_assert_eq(verdict.rooted, rooted, "seed %u, step %u", seed_of_run, step);
    cr_assert_eq(verdict.orphans, live - rooted);
    cr_assert_eq(candidates, verdict.orphans);
    lin_census_totals(census, &totals);
    cr_assert_eq(totals.records, live);
    cr_assert_eq(totals.births, births);
    cr_assert_eq(totals.lost, lost);
    cr_assert_eq(totals.births + totals.seeded, totals.seen + totals.swept + lost + live);
    cr_assert(lost == 0 || losable);
}

/* Phases of growth and of decline, so that the table fills and empties. */
static void one_step(void) {
    bool decline = step / (STEPS / 6) % 2 != 0;
    uint64_t what = dice(100);
    if (what < (decline ? 12 : 40))
        start(dice(10) != 0);
    else if (what < 52)
        stop_one(dice(3) != 0);
    else if (what < 75)
        link_some();
    else if (what < 83)
        unlink_some();
    else if (what < 88)
        correct_one();
    else if (what < 96)
        seed_one();
    else if (what < 97)
        maintain(trim);
    else if (what < 98)
        maintain(sweep);
}

static void run(unsigned seed, struct lin_census_options options) {
    memset(place, 0, sizeof place);
    memset(fake_alive_bits, 0, sizeof fake_alive_bits);
    random_state = seed * 7919u + 1;
    births = lost = 0;
    seed_of_run = seed;
    options.session = seed;
    options.process_limit = PLACES;
    cr_assert_not_null(fake_open(options));
    census = lin_gate.current;
    census->slack_records = 64;
    self = fake_enter(&census);
    for (step = 0; step < STEPS; step++) {
        one_step();
        if (step % 500 == 0)
            compare_all();
    }
    compare_all();
    lin_gate_leave(self);
    fake_close(census);
    cr_assert_eq(fake_bytes, lin_gate.thread_bytes);
}

Test(model, exits_all) {
    for (unsigned seed = 1; seed <= 10; seed++)
        run(seed, fake_options());
}

Test(model, exits_suspects) {
    struct lin_census_options options = fake_options();
    options.exits_all = false;
    for (unsigned seed = 101; seed <= 110; seed++)
        run(seed, options);
}

Test(model, little_room) {
    struct lin_census_options options = fake_options();
    options.max_bytes = 440000 + lin_scopes_bytes();
    losable = 1;
    for (unsigned seed = 201; seed <= 206; seed++)
        run(seed, options);
    cr_assert_gt(lost, 0);
}

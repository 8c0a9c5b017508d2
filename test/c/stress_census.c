/*
 * stress_census THREADS SIZE - a storm of processes on threads, and sums that must be exact.
 *
 * THREADS workers each own every THREADS-th slot of the table, so that a slot's old process is dead
 * before a new one is born there, as in the VM. They start, link, read, seed and stop processes in
 * SIZE steps; a process is stopped by another thread than the one that started it, with or without
 * an exit event, and some births are not told, for seeding to find. A maintainer sweeps, trims,
 * judges and reads all the while, or opens and closes. Rounds: exits all, exits suspects, exact
 * monitors, and one of open and close cycles. Every record tells by its pid what must stand in it,
 * and a tap checks, in memory that nothing but the entry's lock guards, that the events of each
 * process come one after another. Made for ThreadSanitizer, right without it too.
 */
#include "fake_host.h"
#include "stress.h"
#include "verdict.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define LIMIT (1u << 17)
#define SERIALS (FAKE_PIDS / LIMIT)
#define MAX_THREADS 32u
#define STOPPING ((uint64_t)1 << 63)

/*
 * 0: free; else the pid that has it, with STOPPING once a thread has taken it to stop it. Taken by
 * the slot's owner, freed by whoever stopped it. Relaxed, as all that is shared here.
 */
static _Atomic uint64_t slot[LIMIT];
static _Atomic uint64_t births, exits;
static _Atomic bool growing;
static _Atomic unsigned running;
static unsigned threads, size;

struct worker {
    pthread_t thread;
    unsigned id;
    uint64_t random;
    uint32_t serial;
};
static struct worker worker[MAX_THREADS];

/* What a record must hold, by its pid. */
static uint64_t parent_of(uint64_t pid) { return fake_pid(fake_number(pid) / 2); }

static uint32_t call_of(uint64_t pid) { return (uint32_t)(fake_number(pid) % 16000); }

static void is_of_one_piece(const struct lin_entry *entry) {
    CHECK(entry->parent == parent_of(entry->pid));
    CHECK(entry->initial_call == call_of(entry->pid));
    const struct lin_census *census = atomic_load(&lin_gate.current);
    const struct lin_site *site = census == NULL ? NULL : lin_site_at(census->sites, entry->site);
    CHECK(site == NULL || site->initial_call == entry->initial_call);
    CHECK(site == NULL || site->frame.line == 0 || site->frame.module == 7);
    CHECK(entry->birth != 0);
}

/* Plain memory: the entry's lock is what makes this no race. */
static struct {
    uint64_t pid;
    uint16_t no;
} last[LIMIT];

static void tap(const struct lin_event *event, const struct lin_record *record) {
    (void)record;
    uint32_t at = (uint32_t)fake_number(event->pid) % LIMIT;
    if (event->kind == LIN_EV_BIRTH) {
        CHECK(event->no == 1);
    } else {
        CHECK(last[at].pid == event->pid);
        CHECK(event->no == (uint16_t)(last[at].no + 1));
    }
    last[at].pid = event->pid;
    last[at].no = event->no;
}

static uint64_t any_pid(struct worker *w) {
    return FAKE_GET(slot[dice(&w->random) % LIMIT]) & ~STOPPING;
}

static void start_one(struct worker *w, struct lin_census *census, struct lin_thread *self) {
    uint32_t at = (uint32_t)(dice(&w->random) % (LIMIT / threads)) * threads + w->id;
    for (int tries = 0; FAKE_GET(slot[at]) != 0; tries++) {
        if (tries == 8)
            return;
        at = (uint32_t)(dice(&w->random) % (LIMIT / threads)) * threads + w->id;
    }
    uint64_t pid = fake_start(at + (uint64_t)(++w->serial % SERIALS) * LIMIT);
    if (census != NULL && dice(&w->random) % 16 != 0) {
        struct lin_birth birth = {
            .pid = pid, .parent = parent_of(pid), .initial_call = call_of(pid)};
        struct lin_frame frame = {.module = 7, .line = 1 + w->id};
        if (dice(&w->random) % 4 == 0)
            lin_pending_put(census->sites, NULL, birth.parent, &frame, 1);
        lin_census_birth(census, self, NULL, &birth);
        if (dice(&w->random) % 2 == 0)
            lin_census_link(census, pid, birth.parent);
        FAKE_ADD(births, 1);
    }
    atomic_store_explicit(&slot[at], pid, memory_order_relaxed);
}

static void stop_one(struct worker *w, struct lin_census *census, struct lin_thread *self) {
    _Atomic uint64_t *at = &slot[dice(&w->random) % LIMIT];
    uint64_t pid = FAKE_GET(*at);
    for (int tries = 0; pid == 0 && tries < 64; tries++) {
        at = &slot[dice(&w->random) % LIMIT];
        pid = FAKE_GET(*at);
    }
    if (pid == 0 || (pid & STOPPING) != 0 ||
        !atomic_compare_exchange_strong_explicit(at, &pid, pid | STOPPING, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    fake_kill(pid);
    if (census != NULL && dice(&w->random) % 4 != 0) {
        lin_census_exit(census, self, NULL, pid, 1, dice(&w->random) % 2 == 0);
        FAKE_ADD(exits, 1);
    }
    atomic_store_explicit(at, 0, memory_order_relaxed);
}

static void seed_one(uint64_t pid, struct lin_census *census, struct lin_thread *self) {
    struct lin_birth birth = {.pid = pid, .parent = parent_of(pid), .initial_call = call_of(pid)};
    CHECK(lin_census_seed(census, self, NULL, &birth, 0) != LIN_SEED_LOST);
}

static void look(uint64_t pid, const struct lin_census *census) {
    struct lin_entry entry;
    if (lin_census_read(census, pid, &entry)) {
        CHECK(entry.pid == pid);
        is_of_one_piece(&entry);
    }
    lin_census_is_suspect(census, pid);
}

static void change(struct worker *w, struct lin_census *census) {
    uint64_t pid = any_pid(w), peer = any_pid(w);
    if (pid == 0 || peer == 0)
        return;
    switch (dice(&w->random) % 8) {
    case 0:
        lin_census_unlink(census, pid, parent_of(pid));
        break;
    case 1:
        lin_census_set_guardian(census, pid, peer);
        break;
    case 2:
        lin_census_flag(census, pid, dice(&w->random) % 64 == 0 ? LIN_CLASS_ROOT : 0,
                        LIN_CLASS_SERVICE);
        break;
    case 3:
        if (census->monitors != NULL) {
            lin_census_monitor(census, peer, pid);
            lin_monitors_return(census->monitors, peer, dice(&w->random) % 1000);
        }
        break;
    case 4:
        if (census->monitors != NULL)
            lin_monitors_demonitor(census->monitors, dice(&w->random) % 1000 + 1);
        break;
    case 5: {
        const struct lin_mfa *mfa = lin_mfa_at(
            census->mfas, lin_mfa_intern(census->mfas, 1 + dice(&w->random) % 64, pid % 64, 1));
        CHECK(mfa != NULL && mfa->function == pid % 64 && mfa->arity == 1);
        break;
    }
    case 6:
        lin_mfa_classify(census->mfas, 1 + dice(&w->random) % 64, pid % 64,
                         dice(&w->random) % 256 == 0 ? LIN_ARITY_ANY : 1, LIN_CLASS_SERVICE);
        break;
    default:
        lin_census_link(census, pid, peer);
    }
}

static void *work(void *arg) {
    struct worker *w = arg;
    for (unsigned step = 0; step < size; step++) {
        struct lin_census *census;
        struct lin_thread *self = fake_enter(&census);
        uint64_t pid = any_pid(w), die = dice(&w->random) % 16;
        if (die < 2 && census != NULL && pid != 0)
            look(pid, census);
        else if (die < 4 && census != NULL)
            change(w, census);
        else if (die < 5 && census != NULL && pid != 0)
            seed_one(pid, census, self);
        else if ((die < 14) == FAKE_GET(growing))
            start_one(w, census, self);
        else
            stop_one(w, census, self);
        if (census != NULL)
            lin_gate_leave(self);
    }
    FAKE_ADD(running, -1u);
    return NULL;
}

static void keep_guardian(void *arg, uint64_t pid, uint32_t children) {
    CHECK(children > 0);
    *(uint64_t *)arg = pid;
}

static void maintain(struct lin_census *census, struct worker *w) {
    static struct lin_dead dead[(2 * MAX_THREADS + 8) * LIN_RECENT];
    struct lin_thread *self = lin_thread_self();
    struct lin_verdict verdict;
    struct lin_totals totals;
    uint64_t guardian = 0;
    lin_gate_enter(self);
    lin_census_adopt(census, self);
    lin_gate_leave(self);
    lin_census_sweep(census, self, NULL);
    lin_census_trim(census, self);
    CHECK(lin_verdict_run(census, &verdict, NULL, NULL) == 0);
    CHECK(verdict.orphans + verdict.rooted == verdict.live);
    lin_guardians_run(census, keep_guardian, &guardian);
    if (guardian != 0) {
        lin_confirm_begin(census, guardian);
        lin_confirm_link(census, guardian, any_pid(w));
    }
    size_t n = lin_recent_read(census->session, LIN_RING_DEAD, dead, sizeof dead / sizeof dead[0],
                               LIN_RECENT);
    for (size_t i = 0; i < n; i++) {
        CHECK(dead[i].parent == parent_of(dead[i].pid));
        CHECK(dead[i].initial_call == call_of(dead[i].pid));
        CHECK(dead[i].death >= dead[i].birth);
        CHECK(i == 0 || dead[i - 1].death >= dead[i].death);
    }
    uint64_t at_sites, unheard;
    for (uint32_t id = lin_sites_used(census->sites); id > 0; id--)
        lin_site_sum(census->session, id, &at_sites, &unheard);
    lin_census_totals(census, &totals);
    CHECK(totals.lost == 0);
}

static struct lin_census *open_session(uint32_t session, bool exits_all, bool exact) {
    struct lin_census *census = fake_open((struct lin_census_options){.session = session,
                                                                      .exits_all = exits_all,
                                                                      .monitors_exact = exact,
                                                                      .sites = LIN_SITES_EXACT,
                                                                      .process_limit = LIMIT,
                                                                      .max_bytes = 256u << 20});
    CHECK(census != NULL);
    census->slack_records = 1024; /* trim all the time, not after a peak only */
    return census;
}

static void start_workers(void) {
    atomic_store(&running, threads);
    for (unsigned i = 0; i < threads; i++) {
        worker[i].id = i;
        worker[i].random = 0x9e3779b97f4a7c15u * (i + 1);
        CHECK(pthread_create(&worker[i].thread, NULL, work, &worker[i]) == 0);
    }
}

static void join_workers(void) {
    for (unsigned i = 0; i < threads; i++)
        CHECK(pthread_join(worker[i].thread, NULL) == 0);
}

/* With everybody quiet: every live process is there, nobody else is, and the sums say so. */
static void settle_accounts(struct lin_census *census, const char *round) {
    struct lin_census *same;
    struct lin_thread *self = fake_enter(&same);
    struct lin_entry entry;
    uint64_t live = 0;
    CHECK(same == census);
    for (uint32_t at = 0; at < LIMIT; at++) {
        uint64_t pid = FAKE_GET(slot[at]);
        if (pid == 0)
            continue;
        live++;
        seed_one(pid, census, self);
        look(pid, census);
        CHECK(lin_census_read(census, pid, &entry));
    }
    lin_gate_leave(self);
    lin_census_sweep(census, self, NULL);
    CHECK(lin_census_sweep(census, self, NULL) == 0);
    lin_census_trim(census, self);
    struct lin_totals totals;
    struct lin_verdict verdict;
    lin_census_totals(census, &totals);
    CHECK(lin_verdict_run(census, &verdict, NULL, NULL) == 0);
    CHECK(totals.births == FAKE_GET(births));
    CHECK(totals.records == live);
    CHECK(verdict.live == live);
    CHECK(totals.births + totals.seeded == totals.seen + totals.swept + live);
    CHECK(totals.seen <= FAKE_GET(exits));
    CHECK(totals.lost == 0);
    CHECK(totals.bytes <= 64 * live + 4ull * LIMIT + (4u << 20) +
                              (census->monitors != NULL ? lin_monitors_bytes() : 0) +
                              lin_gate.thread_bytes);
    printf("%s: births %llu, seeded %llu, seen %llu, swept %llu, live %llu, %llu bytes\n", round,
           (unsigned long long)totals.births, (unsigned long long)totals.seeded,
           (unsigned long long)totals.seen, (unsigned long long)totals.swept,
           (unsigned long long)live, (unsigned long long)totals.bytes);
}

static void everybody_dies(void) {
    for (uint32_t at = 0; at < LIMIT; at++) {
        uint64_t pid = atomic_exchange(&slot[at], 0);
        if (pid != 0)
            fake_kill(pid);
    }
    atomic_store(&births, 0);
    atomic_store(&exits, 0);
    memset(last, 0, sizeof last);
}

static void storm(uint32_t session, bool exits_all, bool exact, int phases, const char *round) {
    struct worker w = {.random = session};
    struct lin_census *census = open_session(session, exits_all, exact);
    lin_tap_set(tap);
    for (int phase = 0; phase < phases; phase++) {
        atomic_store(&growing, phase % 2 == 0);
        start_workers();
        do
            maintain(census, &w);
        while (FAKE_GET(running) > 0);
        join_workers();
        settle_accounts(census, round);
    }
    lin_tap_set(NULL);
    fake_close(census);
    everybody_dies();
}

/* Sessions come and go while the workers work; each leaves nothing. */
static void cycles(uint32_t session, unsigned count) {
    struct worker w = {.random = session};
    atomic_store(&growing, true);
    start_workers();
    for (unsigned i = 0; i < count; i++) {
        if (FAKE_GET(running) == 0) {
            join_workers();
            start_workers();
        }
        struct lin_census *census = open_session(session + i, i % 2 == 0, i % 3 == 0);
        if (i % 4 == 0)
            maintain(census, &w);
        fake_close(census);
        CHECK((uint64_t)FAKE_GET(fake_bytes) == FAKE_GET(lin_gate.thread_bytes));
    }
    join_workers();
    everybody_dies();
    printf("cycles: %u\n", count);
}

int main(int argc, char **argv) {
    threads = argc > 1 ? (unsigned)atoi(argv[1]) : 4;
    size = argc > 2 ? (unsigned)atoi(argv[2]) : 20000;
    if (threads == 0 || threads > MAX_THREADS || size == 0) {
        fprintf(stderr, "usage: stress_census THREADS(1..%u) SIZE\n", MAX_THREADS);
        return 2;
    }
    lin_gate_init(&fake_host);
    storm(1, true, false, 2, "exits all");
    storm(2, false, false, 4, "exits suspects");
    storm(3, true, true, 2, "exact monitors");
    cycles(4, size / 400 + 1);
    lin_gate_deinit();
    CHECK(FAKE_GET(fake_bytes) == 0);
    CHECK(FAKE_GET(fake_blocks) == 0);
    return 0;
}

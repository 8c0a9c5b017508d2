#include "fake_host.h"

#include <criterion/criterion.h>

/* Each path of a start, a stop and a restart through a window, with times that the test gives: a
 * tick is a nanosecond. */

#define US 1000u
#define MS 1000000u
#define TARGET (5u * MS)

static struct lin_timings *timings;
static struct lin_census *census;
static struct lin_thread *self;

static void setup(void) {
    static struct lin_timings_options overhead = {
        .target_ns = TARGET, .criticals = 2, .critical = {{1, 2, 3}, {4, 5, 6}}};
    struct lin_census_options options = fake_options();
    options.overhead = &overhead;
    cr_assert_not_null(fake_open(options));
    self = fake_enter(&census);
    timings = census->timings;
    cr_assert_not_null(timings);
}

static void teardown(void) {
    lin_gate_leave(self);
    fake_close(census);
    lin_gate_deinit();
    cr_assert_eq(fake_bytes, 0);
}

TestSuite(timings, .init = setup, .fini = teardown);

static uint32_t turn(enum lin_phase phase, uint64_t at) {
    return lin_timings_turn(timings, NULL, phase, 1.0, at);
}

static uint64_t count_of(const struct lin_line *line, enum lin_part part) {
    const struct lin_histogram *histogram = lin_line_part(line, part);
    uint64_t sum = 0;
    for (uint32_t i = 0; histogram != NULL && i < LIN_HISTOGRAM_BUCKETS; i++)
        sum += histogram->count[i];
    return sum;
}

static uint64_t sum_of(const struct lin_line *line, enum lin_part part) {
    const struct lin_histogram *histogram = lin_line_part(line, part);
    return histogram == NULL ? 0 : histogram->sum;
}

static struct lin_line *line_of(uint64_t supervisor) {
    return lin_series_line(&timings->series, supervisor);
}

static uint64_t starts_of(uint64_t supervisor) {
    return count_of(line_of(supervisor), LIN_PART_LATENCY);
}

#define COUNTED(name) atomic_load(&timings->counts.name)

static void nothing_counted(void) {
    cr_assert_eq(COUNTED(failed), 0);
    cr_assert_eq(COUNTED(elsewhere), 0);
    cr_assert_eq(COUNTED(unfinished), 0);
    cr_assert_eq(COUNTED(lost), 0);
    cr_assert_eq(COUNTED(outliers_lost), 0);
}

static uint64_t caller, supervisor, child;

static void processes(void) {
    caller = fake_start(1), supervisor = fake_start(2), child = fake_start(3);
}

static void ask(uint64_t at) { lin_timing_ask(timings, NULL, caller, LIN_REQUEST_START, at); }

static void serve(uint64_t at) {
    lin_timing_serve(timings, NULL, supervisor, caller, LIN_REQUEST_START, at);
}

static void born(uint64_t at) { lin_timing_born(timings, supervisor, child, 7, at); }

static void ack(bool ok, uint64_t at) { lin_timing_ack(timings, supervisor, child, ok, at); }

static void served(uint64_t at) { lin_timing_served(timings, NULL, supervisor, at); }

static void answered(bool ok, uint64_t at) {
    lin_timing_answered(timings, caller, LIN_REQUEST_START, ok, at);
}

/* A start as most are, from `at` on: 1, 2, 3, 4 and 5 us for its parts. */
static void start(uint64_t at) {
    ask(at);
    serve(at + 1 * US);
    born(at + 3 * US);
    ack(true, at + 6 * US);
    served(at + 8 * US);
    answered(true, at + 10 * US);
}

static void exits(uint64_t whose, uint64_t pid, uint32_t initial_call, bool ordered, uint64_t at) {
    fake_kill(pid);
    struct lin_exit its = {.supervisor = whose,
                           .child = pid,
                           .initial_call = initial_call,
                           .linked = true,
                           .told = true,
                           .ordered = ordered};
    lin_timing_exit(timings, NULL, &its, at);
}

Test(timings, a_start_in_its_parts) {
    processes();
    cr_assert_eq(turn(LIN_TIMING_ON, 1), 0);
    start(1 * MS);
    const struct lin_line *line = line_of(supervisor);
    cr_assert_eq(sum_of(line, LIN_PART_LATENCY), 10 * US);
    cr_assert_eq(sum_of(line, LIN_PART_OVERHEAD), 7 * US);
    cr_assert_eq(sum_of(line, LIN_PART_QUEUE), 1 * US);
    cr_assert_eq(sum_of(line, LIN_PART_WORK), 2 * US);
    cr_assert_eq(sum_of(line, LIN_PART_INIT), 3 * US);
    cr_assert_eq(sum_of(line, LIN_PART_BACK), 4 * US);
    for (unsigned part = 0; part < LIN_PARTS; part++)
        cr_assert_eq(count_of(line, (enum lin_part)part), part <= LIN_PART_BACK, "%u", part);
    cr_assert_eq(turn(LIN_TIMING_OFF, 2 * MS), 0);
    nothing_counted();
}

Test(timings, a_child_that_acknowledges_nothing_has_no_init) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1 * US);
    born(1 * MS + 3 * US);
    served(1 * MS + 5 * US);
    answered(true, 1 * MS + 10 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_INIT), 0);
    cr_assert_eq(count_of(line_of(supervisor), LIN_PART_INIT), 1);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_OVERHEAD), 10 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_BACK), 7 * US);
}

Test(timings, the_last_birth_counts_and_its_own_ack) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1 * US);
    lin_timing_born(timings, supervisor, fake_start(9), 7, 1 * MS + 2 * US);
    lin_timing_ack(timings, supervisor, fake_pid(9), true, 1 * MS + 3 * US);
    born(1 * MS + 4 * US);
    lin_timing_ack(timings, supervisor, fake_pid(9), true, 1 * MS + 5 * US);
    ack(true, 1 * MS + 6 * US);
    ack(true, 1 * MS + 9 * US); /* the first is what the supervisor waits for */
    served(1 * MS + 10 * US);
    lin_timing_born(timings, supervisor, fake_start(10), 7, 1 * MS + 11 * US);
    answered(true, 1 * MS + 12 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_WORK), 3 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_INIT), 2 * US);
}

Test(timings, without_a_birth_all_is_work) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1 * US);
    served(1 * MS + 8 * US);
    answered(true, 1 * MS + 9 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_WORK), 7 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_OVERHEAD), 9 * US);
}

Test(timings, what_fails_is_counted) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1);
    born(1 * MS + 2);
    ack(false, 1 * MS + 3);
    exits(supervisor, child, 7, false, 1 * MS + 4);
    served(1 * MS + 5);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 1 * MS + 6), 1, "the call, and not the death");
    answered(false, 1 * MS + 7);
    cr_assert_eq(COUNTED(failed), 1);
    cr_assert_eq(starts_of(supervisor), 0);
    cr_assert_eq(turn(LIN_TIMING_OFF, 1 * MS + 8), 0);
    cr_assert_eq(COUNTED(unfinished), 0);
}

Test(timings, nobody_here_served_it) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    answered(true, 2 * MS);
    cr_assert_eq(COUNTED(elsewhere), 1);
    /* A stop is not said to be anywhere: it may have had nothing to stop. */
    lin_timing_ask(timings, NULL, caller, LIN_REQUEST_STOP, 3 * MS);
    lin_timing_answered(timings, caller, LIN_REQUEST_STOP, true, 4 * MS);
    cr_assert_eq(COUNTED(elsewhere), 1);
}

/* start_child/2 that calls start_child/3; handle_call that calls itself. */
Test(timings, calls_of_calls_are_one) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    ask(1 * MS + 1 * US);
    serve(1 * MS + 2 * US);
    serve(1 * MS + 3 * US);
    born(1 * MS + 4 * US);
    served(1 * MS + 5 * US);
    ack(true, 1 * MS + 6 * US);
    served(1 * MS + 7 * US);
    answered(true, 1 * MS + 8 * US);
    cr_assert_eq(starts_of(supervisor), 0);
    answered(true, 1 * MS + 9 * US);
    cr_assert_eq(starts_of(supervisor), 1);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_LATENCY), 9 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_QUEUE), 2 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_INIT), 2 * US);
    answered(true, 1 * MS + 10 * US);
    cr_assert_eq(starts_of(supervisor), 1, "a return of no call");
    nothing_counted();
}

/* The supervisor's own start, and that of a caller while it makes one itself. */
Test(timings, a_supervisor_that_asks_another) {
    processes();
    uint64_t other = fake_start(4), grandchild = fake_start(5);
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1 * US);
    lin_timing_ask(timings, NULL, supervisor, LIN_REQUEST_START, 1 * MS + 2 * US);
    lin_timing_serve(timings, NULL, other, supervisor, LIN_REQUEST_START, 1 * MS + 3 * US);
    lin_timing_born(timings, other, grandchild, 7, 1 * MS + 4 * US);
    lin_timing_served(timings, NULL, other, 1 * MS + 5 * US);
    lin_timing_answered(timings, supervisor, LIN_REQUEST_START, true, 1 * MS + 6 * US);
    born(1 * MS + 7 * US);
    served(1 * MS + 8 * US);
    answered(true, 1 * MS + 9 * US);
    cr_assert_eq(sum_of(line_of(other), LIN_PART_LATENCY), 4 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_LATENCY), 9 * US);
    nothing_counted();
}

Test(timings, a_return_that_was_missed) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1);
    served(1 * MS + 2);
    start(2 * MS);
    cr_assert_eq(COUNTED(lost), 1);
    cr_assert_eq(starts_of(supervisor), 1);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_LATENCY), 10 * US);
    /* That of a service: the next one is another's. */
    uint64_t other = fake_start(4);
    serve(3 * MS);
    lin_timing_serve(timings, NULL, supervisor, other, LIN_REQUEST_OTHER, 4 * MS);
    served(4 * MS + 1);
    start(5 * MS);
    cr_assert_eq(starts_of(supervisor), 2);
    /* Of a stop: it was no start. */
    lin_timing_ask(timings, NULL, caller, LIN_REQUEST_STOP, 6 * MS);
    start(7 * MS);
    cr_assert_eq(starts_of(supervisor), 3);
    cr_assert_eq(COUNTED(lost), 2);
}

Test(timings, a_caller_that_is_killed) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 1 * MS + 2), 1);
    fake_kill(caller);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 1 * MS + 3), 0);
    cr_assert_eq(COUNTED(unfinished), 1);
    born(1 * MS + 4);
    served(1 * MS + 5);
    cr_assert_eq(starts_of(supervisor), 0);
    cr_assert_eq(turn(LIN_TIMING_OFF, 1 * MS + 6), 0);
    cr_assert_eq(COUNTED(unfinished), 1);
}

Test(timings, a_supervisor_that_is_killed) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1);
    fake_kill(supervisor);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 1 * MS + 2), 1, "its caller is still to be told");
    answered(false, 1 * MS + 3);
    cr_assert_eq(turn(LIN_TIMING_OFF, 1 * MS + 4), 0);
    cr_assert_eq(COUNTED(failed), 1);
    cr_assert_eq(COUNTED(unfinished), 0);
}

Test(timings, a_window_is_drained) {
    processes();
    uint64_t other = fake_start(4);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 1), 0);
    start(1 * MS);
    cr_assert_eq(starts_of(supervisor), 0, "none is open");
    turn(LIN_TIMING_ON, 2 * MS);
    ask(3 * MS);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 3 * MS + 1), 1);
    lin_timing_ask(timings, NULL, other, LIN_REQUEST_START, 3 * MS + 2);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 3 * MS + 3), 1, "what begins now is not taken");
    serve(3 * MS + 1 * US);
    served(3 * MS + 2 * US);
    answered(true, 3 * MS + 3 * US);
    cr_assert_eq(starts_of(supervisor), 1);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 4 * MS), 0);
    ask(5 * MS);
    cr_assert_eq(turn(LIN_TIMING_ON, 5 * MS + 1), 0, "the same window goes on");
    start(6 * MS);
    cr_assert_eq(starts_of(supervisor), 2);
    cr_assert_eq(turn(LIN_TIMING_OFF, 7 * MS), 0);
    nothing_counted();
}

Test(timings, what_a_window_leaves_is_not_of_the_next) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS + 1);
    lin_timing_enter(timings, NULL, caller, 0, 1 * MS + 2);
    exits(supervisor, fake_start(8), 7, false, 1 * MS + 3);
    cr_assert_eq(turn(LIN_TIMING_OFF, 1 * MS + 4), 3);
    cr_assert_eq(COUNTED(unfinished), 3);
    cr_assert_eq(turn(LIN_TIMING_OFF, 1 * MS + 5), 0);
    turn(LIN_TIMING_ON, 2 * MS);
    born(2 * MS + 1);
    served(2 * MS + 2);
    answered(true, 2 * MS + 3);
    lin_timing_leave(timings, caller, 0, true, 2 * MS + 4);
    lin_timing_replace(timings, NULL, supervisor, fake_pid(8), 2 * MS + 5);
    born(2 * MS + 6);
    served(2 * MS + 7);
    for (unsigned part = 0; part < LIN_PARTS; part++)
        cr_assert_eq(count_of(line_of(supervisor), (enum lin_part)part), 0);
    cr_assert_eq(count_of(&timings->series.critical[0], LIN_PART_LATENCY), 0);
    cr_assert_eq(COUNTED(unfinished), 3);
}

Test(timings, a_stop_and_the_childs_own_part) {
    processes();
    turn(LIN_TIMING_ON, 1);
    lin_timing_ask(timings, NULL, caller, LIN_REQUEST_STOP, 1 * MS);
    lin_timing_serve(timings, NULL, supervisor, caller, LIN_REQUEST_STOP, 1 * MS + 1 * US);
    struct lin_exit its = {.supervisor = supervisor, .child = child, .ordered = true};
    lin_timing_exit(timings, NULL, &its, 1 * MS + 4 * US);
    served(1 * MS + 6 * US);
    lin_timing_answered(timings, caller, LIN_REQUEST_STOP, true, 1 * MS + 8 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_STOP_LATENCY), 8 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_STOP_OVERHEAD), 5 * US);
    /* Of one that had ended before there is nothing to tell. */
    lin_timing_ask(timings, NULL, caller, LIN_REQUEST_STOP, 2 * MS);
    lin_timing_serve(timings, NULL, supervisor, caller, LIN_REQUEST_STOP, 2 * MS + 1);
    served(2 * MS + 2);
    lin_timing_answered(timings, caller, LIN_REQUEST_STOP, true, 2 * MS + 3);
    cr_assert_eq(count_of(line_of(supervisor), LIN_PART_STOP_LATENCY), 1);
    /* What is unlinked and ends by itself is no death that somebody turns to. */
    lin_timing_exit(timings, NULL, &its, 3 * MS);
    cr_assert_eq(turn(LIN_TIMING_OFF, 3 * MS + 1), 0);
    nothing_counted();
}

static void restart(uint64_t at, uint32_t first_call, bool acknowledges) {
    lin_timing_replace(timings, NULL, supervisor, child, at);
    lin_timing_born(timings, supervisor, fake_start(20), first_call, at + 1 * US);
    lin_timing_born(timings, supervisor, fake_start(21), 7, at + 2 * US);
    lin_timing_born(timings, supervisor, fake_start(22), 7, at + 3 * US);
    for (uint64_t n = 20; n <= 22 && acknowledges; n++)
        lin_timing_ack(timings, supervisor, fake_pid(n), true, at + 4 * US + n * US);
    served(at + 100 * US);
}

Test(timings, a_restart_is_the_first_birth_of_its_kind) {
    processes();
    turn(LIN_TIMING_ON, 1);
    exits(supervisor, child, 7, false, 1 * MS);
    cr_assert_eq(turn(LIN_TIMING_ON, 1 * MS + 1), 1);
    restart(1 * MS + 10 * US, 6, true);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_RESTART_BIRTH), 12 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_RESTART_ACK), 35 * US);
    /* Where none is of its kind, the first; and without an ack its birth is all there is. */
    exits(supervisor, child, 9, false, 2 * MS);
    restart(2 * MS + 10 * US, 6, false);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_RESTART_BIRTH), 12 * US + 11 * US);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_RESTART_ACK), 35 * US + 11 * US);
    /* One death, one successor. */
    restart(3 * MS, 7, true);
    cr_assert_eq(count_of(line_of(supervisor), LIN_PART_RESTART_BIRTH), 2);
    cr_assert_eq(turn(LIN_TIMING_OFF, 4 * MS), 0);
    nothing_counted();
}

Test(timings, restarts_that_are_none) {
    processes();
    turn(LIN_TIMING_ON, 1);
    /* Not started again. */
    exits(supervisor, child, 7, false, 1 * MS);
    lin_timing_replace(timings, NULL, supervisor, child, 1 * MS + 1);
    served(1 * MS + 2);
    /* It failed, and says so. */
    exits(supervisor, child, 7, false, 2 * MS);
    lin_timing_replace(timings, NULL, supervisor, child, 2 * MS + 1);
    lin_timing_born(timings, supervisor, fake_start(20), 7, 2 * MS + 2);
    lin_timing_ack(timings, supervisor, fake_pid(20), false, 2 * MS + 3);
    served(2 * MS + 4);
    /* It crashed before it could say anything. */
    exits(supervisor, child, 7, false, 3 * MS);
    lin_timing_replace(timings, NULL, supervisor, child, 3 * MS + 1);
    lin_timing_born(timings, supervisor, fake_start(21), 7, 3 * MS + 2);
    exits(supervisor, fake_pid(21), 7, false, 3 * MS + 3);
    served(3 * MS + 4);
    cr_assert_eq(count_of(line_of(supervisor), LIN_PART_RESTART_BIRTH), 0);
    cr_assert_eq(turn(LIN_TIMING_OFF, 4 * MS), 0);
    nothing_counted();
}

/* A death is waited for as long as its supervisor may turn to it. */
Test(timings, the_patience_of_a_drain) {
    processes();
    turn(LIN_TIMING_ON, 1);
    uint64_t deaf = fake_start(4), dies = fake_start(5);
    exits(supervisor, fake_start(10), 7, true, 1 * MS);
    exits(dies, fake_start(11), 7, false, 1 * MS);
    exits(supervisor, child, 7, false, 1 * MS);
    struct lin_exit untold = {.supervisor = deaf, .child = fake_start(12), .linked = true};
    fake_kill(untold.child);
    lin_timing_exit(timings, NULL, &untold, 1 * MS);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 2 * MS), 3, "but not for one that it ended itself");
    fake_kill(dies);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 3 * MS), 2);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 200 * MS), 1);
    exits(supervisor, fake_start(13), 7, false, 201 * MS);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 202 * MS), 1, "none is taken any more");
    /* It may still turn to one that it was not waited for. */
    lin_timing_replace(timings, NULL, supervisor, fake_pid(10), 300 * MS);
    fake_start(3);
    born(301 * MS);
    served(302 * MS);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_RESTART_BIRTH), 300 * MS);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 1002 * MS), 0);
    cr_assert_eq(turn(LIN_TIMING_OFF, 1003 * MS), 0);
    nothing_counted();
}

Test(timings, a_critical_path_and_its_starts) {
    processes();
    const struct lin_line *path = &timings->series.critical[0], *other = path + 1;
    turn(LIN_TIMING_ON, 1);
    lin_timing_enter(timings, NULL, caller, 0, 1 * MS);
    lin_timing_enter(timings, NULL, caller, 0, 1 * MS + 1 * US); /* it recurs */
    start(1 * MS + 2 * US);
    lin_timing_enter(timings, NULL, caller, 1, 1 * MS + 20 * US);
    ask(1 * MS + 21 * US);
    answered(false, 1 * MS + 22 * US); /* also in vain */
    lin_timing_leave(timings, caller, 1, true, 1 * MS + 23 * US);
    lin_timing_leave(timings, caller, 0, true, 1 * MS + 30 * US);
    cr_assert_eq(count_of(path, LIN_PART_LATENCY), 0);
    lin_timing_leave(timings, caller, 0, true, 1 * MS + 40 * US);
    cr_assert_eq(sum_of(path, LIN_PART_LATENCY), 40 * US);
    cr_assert_eq(sum_of(path, LIN_PART_STARTS), 11 * US);
    cr_assert_eq(sum_of(other, LIN_PART_LATENCY), 3 * US);
    cr_assert_eq(sum_of(other, LIN_PART_STARTS), 1 * US);
    cr_assert_eq(COUNTED(failed), 1);
    lin_timing_enter(timings, NULL, caller, 0, 2 * MS);
    lin_timing_leave(timings, caller, 0, false, 2 * MS + 1);
    cr_assert_eq(COUNTED(failed), 2);
    cr_assert_eq(count_of(path, LIN_PART_LATENCY), 1);
    /* One that begins in a drain is not taken, one that goes on is waited for. */
    lin_timing_enter(timings, NULL, caller, 0, 3 * MS);
    cr_assert_eq(turn(LIN_TIMING_DRAIN, 4 * MS), 1);
    lin_timing_enter(timings, NULL, caller, 1, 5 * MS);
    lin_timing_leave(timings, caller, 0, true, 6 * MS);
    cr_assert_eq(turn(LIN_TIMING_OFF, 7 * MS), 0);
    cr_assert_eq(count_of(path, LIN_PART_STARTS), 2);
}

Test(timings, outliers_are_told_once_in_order) {
    processes();
    struct lin_outlier outlier;
    turn(LIN_TIMING_ON, 1);
    start(1 * MS);
    cr_assert_not(lin_timings_outlier(timings, &outlier), "it was below the target");
    for (uint64_t i = 1; i <= LIN_OUTLIERS + 3; i++) {
        ask(i * 100 * MS);
        serve(i * 100 * MS + 1);
        born(i * 100 * MS + 2);
        ack(true, i * 100 * MS + 3);
        served(i * 100 * MS + 4);
        answered(true, i * 100 * MS + TARGET + 1);
    }
    cr_assert_eq(COUNTED(outliers_lost), 3);
    for (uint64_t i = 1; i <= LIN_OUTLIERS; i++) {
        cr_assert(lin_timings_outlier(timings, &outlier));
        cr_assert_eq(outlier.caller, caller);
        cr_assert_eq(outlier.supervisor, supervisor);
        cr_assert_eq(outlier.child, child);
        for (uint64_t t = 0; t < 4; t++)
            cr_assert_eq(outlier.at[t], i * 100 * MS + t);
        cr_assert_eq(outlier.at[4], i * 100 * MS + TARGET + 1);
    }
    cr_assert_not(lin_timings_outlier(timings, &outlier));
}

/* How much of the queue the supervisor was busy with others. */
Test(timings, a_busy_supervisor) {
    processes();
    uint64_t other = fake_start(4);
    struct lin_outlier outlier;
    turn(LIN_TIMING_ON, 1);
    /* Two services after a pause of 90 us, the second until the call is served. */
    lin_timing_serve(timings, NULL, supervisor, other, LIN_REQUEST_OTHER, 1 * MS);
    served(2 * MS);
    lin_timing_replace(timings, NULL, supervisor, child, 2 * MS + 90 * US);
    ask(3 * MS);
    served(10 * MS);
    serve(10 * MS + 50 * US);
    served(11 * MS);
    answered(true, 11 * MS);
    cr_assert(lin_timings_outlier(timings, &outlier));
    cr_assert_eq(outlier.busy, 7 * MS + 50 * US, "all the time since the call");
    /* The call came first, and what the supervisor did then began later. */
    ask(20 * MS);
    lin_timing_serve(timings, NULL, supervisor, other, LIN_REQUEST_OTHER, 22 * MS);
    served(29 * MS);
    serve(29 * MS + 1);
    served(30 * MS);
    answered(true, 30 * MS);
    cr_assert(lin_timings_outlier(timings, &outlier));
    cr_assert_eq(outlier.busy, 7 * MS + 1);
    /* It was kept from its work before it turned to the call, which was there all the time. */
    ask(40 * MS);
    lin_timing_serve(timings, NULL, supervisor, other, LIN_REQUEST_OTHER, 41 * MS);
    served(42 * MS);
    serve(48 * MS);
    served(49 * MS);
    answered(true, 49 * MS);
    cr_assert(lin_timings_outlier(timings, &outlier));
    cr_assert_eq(outlier.busy, 1 * MS, "the pause is not its own");
    /* It was idle: nobody waited. */
    lin_timing_serve(timings, NULL, supervisor, other, LIN_REQUEST_OTHER, 60 * MS);
    served(61 * MS);
    ask(62 * MS);
    serve(69 * MS);
    served(70 * MS);
    answered(true, 70 * MS);
    cr_assert(lin_timings_outlier(timings, &outlier));
    cr_assert_eq(outlier.busy, 0);
}

/* More at once than there is room for: what is refused is counted, and nothing else is disturbed.
 */
Test(timings, room_for_calls_is_bounded) {
    uint64_t calls = 6000;
    turn(LIN_TIMING_ON, 1);
    for (uint64_t n = 1; n <= calls; n++)
        lin_timing_ask(timings, NULL, fake_start(n), LIN_REQUEST_START, n);
    uint64_t lost = COUNTED(lost), kept = turn(LIN_TIMING_ON, calls);
    cr_assert_gt(lost, 0);
    cr_assert_eq(kept + lost, calls);
    for (uint64_t n = 1; n <= calls; n++)
        lin_timing_answered(timings, fake_pid(n), LIN_REQUEST_START, true, calls + n);
    cr_assert_eq(COUNTED(elsewhere), kept);
    cr_assert_eq(turn(LIN_TIMING_OFF, 3 * calls), 0);
}

Test(timings, the_dead_make_room) {
    uint64_t calls = 6000;
    turn(LIN_TIMING_ON, 1);
    for (uint64_t n = 1; n <= calls; n++) {
        lin_timing_ask(timings, NULL, fake_start(n), LIN_REQUEST_START, n);
        fake_kill(fake_pid(n));
    }
    cr_assert_eq(COUNTED(lost), 0);
    cr_assert_eq(turn(LIN_TIMING_OFF, calls), 0);
    cr_assert_eq(COUNTED(unfinished), calls);
}

Test(timings, idle_supervisors_make_room) {
    turn(LIN_TIMING_ON, 1);
    for (uint64_t n = 1; n <= 6000; n++) {
        lin_timing_serve(timings, NULL, fake_start(n), 0, LIN_REQUEST_OTHER, n);
        lin_timing_served(timings, NULL, fake_pid(n), n);
    }
    cr_assert_eq(turn(LIN_TIMING_OFF, 6001), 0);
    nothing_counted();
}

/* The eldest death goes, counted while it is waited for; a supervisor without room for its service
 * takes its caller's entry along, which is lost once. */
Test(timings, room_for_deaths_and_services_is_bounded) {
    turn(LIN_TIMING_ON, 1);
    supervisor = fake_start(1);
    for (uint64_t n = 10; n < 6010; n++)
        exits(supervisor, fake_start(n), 7, false, n);
    uint64_t lost = COUNTED(lost);
    cr_assert_eq(turn(LIN_TIMING_ON, 6010) + lost, 6000);
    lin_timing_replace(timings, NULL, supervisor, fake_pid(6009), 6011);
    cr_assert_eq(turn(LIN_TIMING_ON, 6012) + COUNTED(lost), 6000, "the last is there still");
    lost = COUNTED(lost);
    /* Ordered deaths go uncounted. */
    turn(LIN_TIMING_OFF, 6013);
    turn(LIN_TIMING_ON, 6014);
    for (uint64_t n = 10; n < 6010; n++)
        exits(supervisor, fake_start(n), 7, true, 6014 + n);
    cr_assert_eq(COUNTED(lost), lost);
    turn(LIN_TIMING_OFF, 20000);
    turn(LIN_TIMING_ON, 20001);
    for (uint64_t n = 10; n < 8010; n++) {
        lin_timing_ask(timings, NULL, fake_start(n), LIN_REQUEST_START, 20001 + n);
        lin_timing_serve(timings, NULL, fake_start(10000 + n), fake_pid(n), LIN_REQUEST_START,
                         20002 + n);
    }
    for (uint64_t n = 10; n < 8010; n++) {
        lin_timing_served(timings, NULL, fake_pid(10000 + n), 30000 + n);
        lin_timing_answered(timings, fake_pid(n), LIN_REQUEST_START, true, 40000 + n);
    }
    uint64_t recorded = count_of(&timings->series.others, LIN_PART_LATENCY);
    for (uint32_t i = 0; i < LIN_SERIES; i++)
        recorded += count_of(&timings->series.supervisor[i], LIN_PART_LATENCY);
    cr_assert_gt(COUNTED(lost), lost);
    cr_assert_eq(recorded + COUNTED(lost) - lost, 8000);
    cr_assert_eq(COUNTED(elsewhere), 0);
}

/* The hour hand of the clock may be behind on another core. */
Test(timings, a_clock_that_goes_back) {
    processes();
    turn(LIN_TIMING_ON, 1);
    ask(1 * MS);
    serve(1 * MS - 1);
    born(1 * MS - 2);
    ack(true, 1 * MS - 3);
    served(1 * MS - 4);
    answered(true, 1 * MS - 5);
    cr_assert_eq(starts_of(supervisor), 1);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_LATENCY), 0);
    cr_assert_eq(sum_of(line_of(supervisor), LIN_PART_OVERHEAD), 0);
}

Test(timings, lines_of_the_dead_are_merged_when_room_is_short) {
    struct lin_series *series = &timings->series;
    for (uint64_t n = 1; n <= 32; n++)
        lin_series_record(series, line_of(fake_start(n)), LIN_PART_LATENCY, n);
    fake_kill(fake_pid(1));
    lin_gate_leave(self);
    lin_series_sweep(series, NULL);
    cr_assert_null(lin_line_part(&series->gone, LIN_PART_LATENCY), "half is room enough");
    self = fake_enter(&census);
    for (uint64_t n = 33; n <= 70; n++)
        lin_series_record(series, line_of(fake_start(n)), LIN_PART_LATENCY, n);
    cr_assert_eq(count_of(&series->others, LIN_PART_LATENCY), 6);
    for (uint64_t n = 2; n <= 60; n++)
        fake_kill(fake_pid(n));
    lin_gate_leave(self);
    int64_t before = fake_bytes;
    lin_series_sweep(series, NULL);
    cr_assert_lt(fake_bytes, before, "their memory is given back");
    self = fake_enter(&census);
    cr_assert_eq(count_of(&series->gone, LIN_PART_LATENCY), 60);
    cr_assert_eq(sum_of(&series->gone, LIN_PART_LATENCY), 60 * 61 / 2);
    cr_assert_eq(count_of(line_of(fake_pid(61)), LIN_PART_LATENCY), 1);
    lin_series_record(series, line_of(fake_start(80)), LIN_PART_LATENCY, 1);
    cr_assert_eq(count_of(line_of(fake_pid(80)), LIN_PART_LATENCY), 1, "there are lines again");
    cr_assert_eq(count_of(&series->others, LIN_PART_LATENCY), 6);
}

Test(timings, a_part_without_memory_is_among_the_others) {
    struct lin_series *series = &timings->series;
    struct lin_line *line = line_of(fake_start(1));
    fake_fail_after = 0;
    lin_series_record(series, line, LIN_PART_INIT, 5);
    fake_fail_after = -1;
    cr_assert_eq(count_of(&series->others, LIN_PART_INIT), 1);
    lin_series_record(series, line, LIN_PART_INIT, 5);
    cr_assert_eq(count_of(line, LIN_PART_INIT), 1);
    /* Nor is max_bytes passed. */
    uint64_t max = census->max_bytes;
    census->max_bytes = 0;
    lin_series_record(series, line, LIN_PART_BACK, 5);
    census->max_bytes = max;
    cr_assert_eq(count_of(&series->others, LIN_PART_BACK), 1);
    cr_assert_eq(count_of(line, LIN_PART_BACK), 0);
}

/* Whichever allocation fails, nothing is left; and what there is is counted. */
Test(timings, opening_without_memory) {
    lin_gate_leave(self);
    fake_close(census);
    struct lin_timings_options overhead = {.criticals = LIN_CRITICAL};
    struct lin_census_options options = fake_options();
    int64_t before = fake_bytes, failures = 0;
    options.overhead = &overhead;
    for (int64_t after = 0;; after++) {
        fake_fail_after = after;
        struct lin_census *opened = fake_open(options);
        fake_fail_after = -1;
        if (opened != NULL) {
            cr_assert_geq((int64_t)atomic_load(&opened->bytes), fake_bytes - before - 4096);
            fake_close(opened);
            break;
        }
        failures++;
        cr_assert_eq(fake_bytes, before);
    }
    cr_assert_gt(failures, LIN_PART_STARTS + 2 * LIN_CRITICAL);
    options.max_bytes = 1u << 20;
    cr_assert_null(fake_open(options));
    cr_assert_eq(fake_bytes, before);
    setup();
}

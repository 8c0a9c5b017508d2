#include "nif.h"

#include <time.h>

/*
 * What supervision takes: the tracer's events as timings.h wants them, and what came of it. Nothing
 * is kept of a request but its tag, nothing of an answer but whether it is one of success.
 */

/* The rate of the clock is read off at least this long after open. */
#define RATE_NS 5000000u

static ERL_NIF_TERM tag_of(ErlNifEnv *env, ERL_NIF_TERM term) {
    const ERL_NIF_TERM *tuple;
    int size;
    return enif_get_tuple(env, term, &size, &tuple) && size > 0 ? tuple[0] : term;
}

/* What a function, where it is called, asks a supervisor for. */
static enum lin_request asked(const struct lin_call *mfa) {
    bool task = mfa->module == am_task_supervisor;
    if (!task && mfa->module != am_supervisor && mfa->module != am_elixir_supervisor &&
        mfa->module != am_dynamic_supervisor)
        return LIN_REQUEST_OTHER;
    if (mfa->function == am_start_child ||
        (task && (mfa->function == am_async || mfa->function == am_async_nolink)))
        return LIN_REQUEST_START;
    return mfa->function == am_terminate_child ? LIN_REQUEST_STOP : LIN_REQUEST_OTHER;
}

static enum lin_request requested(ErlNifEnv *env, ERL_NIF_TERM request) {
    ERL_NIF_TERM tag = tag_of(env, request);
    if (tag == am_start_child || tag == am_start_task)
        return LIN_REQUEST_START;
    return tag == am_terminate_child ? LIN_REQUEST_STOP : LIN_REQUEST_OTHER;
}

static bool is_critical(const struct lin_timings *timings, unsigned which,
                        const struct lin_call *mfa) {
    const struct lin_function *critical = &timings->options.critical[which];
    return critical->module == mfa->module && critical->function == mfa->function &&
           critical->arity == mfa->arity;
}

static bool is_ack(const struct lin_call *mfa) {
    return mfa->module == am_proc_lib && ((mfa->function == am_init_ack && mfa->arity == 2) ||
                                          (mfa->function == am_init_fail && mfa->arity == 3));
}

static void on_ack(ErlNifEnv *env, struct lin_census *census, uint64_t child,
                   const struct lin_call *mfa, ERL_NIF_TERM args, uint64_t at) {
    ERL_NIF_TERM parent, answer;
    struct lin_entry entry;
    uint64_t supervisor;
    if (!lin_nth(env, args, 0, &parent) || !lin_nth(env, args, 1, &answer))
        return;
    if (!lin_pid_read(env, parent, &supervisor)) { /* a name */
        if (!lin_census_read(census, child, &entry))
            return;
        supervisor = entry.parent;
    }
    bool ok = mfa->function == am_init_ack && tag_of(env, answer) == am_ok;
    lin_timing_ack(census->timings, supervisor, child, ok, at);
}

/* A supervisor turns to something, also to what nobody of this node asked for: it is busy then. */
static void on_service(ErlNifEnv *env, struct lin_census *census, uint64_t supervisor,
                       const struct lin_call *mfa, ERL_NIF_TERM args, uint64_t at) {
    struct lin_turn turn;
    struct lin_entry entry;
    if (!lin_turn_read(env, mfa, args, &turn))
        return;
    if (lin_census_read(census, supervisor, &entry) && (entry.flags & LIN_F_TOLD) == 0)
        lin_census_flag(census, supervisor, LIN_F_TOLD, 0);
    if (turn.dead != 0)
        lin_timing_replace(census->timings, env, supervisor, turn.dead, at);
    else
        lin_timing_serve(census->timings, env, supervisor, turn.caller,
                         turn.caller != 0 ? requested(env, turn.request) : LIN_REQUEST_OTHER, at);
}

/* A call began when it was announced: what the VM needs to tell it is no part of its time before.
 */
void lin_timing_call(ErlNifEnv *env, struct lin_census *census, struct lin_thread *self,
                     uint64_t pid, const struct lin_call *mfa, ERL_NIF_TERM args) {
    struct lin_timings *timings = census->timings;
    if (!lin_timings_in_window(timings))
        return;
    uint64_t at = self->announced != 0 ? self->announced : lin_clock_ticks();
    self->announced = 0;
    for (unsigned i = 0; i < timings->options.criticals; i++)
        if (is_critical(timings, i, mfa))
            lin_timing_enter(timings, env, pid, i, at);
    enum lin_request request = asked(mfa);
    if (request == LIN_REQUEST_START || (request == LIN_REQUEST_STOP && census->exits_all))
        lin_timing_ask(timings, env, pid, request, at);
    else if (is_ack(mfa))
        on_ack(env, census, pid, mfa, args, at);
    else if (mfa->function == am_handle_call || mfa->function == am_handle_info)
        on_service(env, census, pid, mfa, args, at);
}

/* {ok, Child [, Info]}, a task, or `ignore`, which {ok, undefined} stands for elsewhere. */
static bool is_success(ErlNifEnv *env, ERL_NIF_TERM answer) {
    return enif_is_map(env, answer) || answer == am_ok || answer == am_ignore ||
           tag_of(env, answer) == am_ok;
}

void lin_timing_return(ErlNifEnv *env, struct lin_census *census, uint64_t pid,
                       const struct lin_call *mfa, bool raised, ERL_NIF_TERM opts) {
    struct lin_timings *timings = census->timings;
    ERL_NIF_TERM answer;
    if (!lin_timings_in_window(timings))
        return;
    uint64_t at = lin_clock_ticks();
    enum lin_request request = asked(mfa);
    if (request != LIN_REQUEST_OTHER) {
        bool ok =
            !raised && enif_get_map_value(env, opts, am_extra, &answer) && is_success(env, answer);
        lin_timing_answered(timings, pid, request, ok, at);
    } else if (mfa->function == am_handle_call || mfa->function == am_handle_info) {
        lin_timing_served(timings, env, pid, at);
    }
    for (unsigned i = 0; i < timings->options.criticals; i++)
        if (is_critical(timings, i, mfa))
            lin_timing_leave(timings, pid, i, !raised, at);
}

void lin_timing_birth(struct lin_census *census, const struct lin_birth *birth) {
    struct lin_entry parent;
    if (lin_timings_in_window(census->timings) && (birth->flags & LIN_F_FOREIGN) == 0 &&
        lin_census_read(census, birth->parent, &parent) && (parent.flags & LIN_F_TOLD) != 0)
        lin_timing_born(census->timings, birth->parent, birth->pid, birth->initial_call,
                        lin_clock_ticks());
}

void lin_timing_death(ErlNifEnv *env, struct lin_census *census, uint64_t pid,
                      ERL_NIF_TERM reason) {
    struct lin_entry entry, supervisor;
    if (!census->exits_all || !lin_timings_in_window(census->timings) ||
        !lin_census_read(census, pid, &entry))
        return;
    /* Before it stops a child a supervisor unlinks it. */
    bool linked = entry.guardian != 0;
    uint64_t whose = linked                               ? entry.guardian
                     : (entry.flags & LIN_F_FOREIGN) != 0 ? 0
                                                          : entry.parent;
    if (whose == 0 || !lin_census_read(census, whose, &supervisor) ||
        (supervisor.flags & (LIN_F_TOLD | LIN_CLASS_SUPERVISOR)) == 0)
        return;
    struct lin_exit its = {
        .supervisor = whose,
        .child = pid,
        .initial_call = entry.initial_call,
        .linked = linked,
        .told = (supervisor.flags & LIN_F_TOLD) != 0,
        .ordered = tag_of(env, reason) == am_shutdown,
    };
    lin_timing_exit(census->timings, env, &its, lin_clock_ticks());
}

/* How long a tick is, as of a moment that is not that of open. */
static double rate(const struct lin_census *census, struct lin_clock_point now) {
    return (double)(now.ns - census->opened.ns) / (double)(now.ticks - census->opened.ticks);
}

/* timing(on | drain | off) */
ERL_NIF_TERM timing_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    enum lin_phase phase = argv[0] == am_on      ? LIN_TIMING_ON
                           : argv[0] == am_drain ? LIN_TIMING_DRAIN
                                                 : LIN_TIMING_OFF;
    if (phase == LIN_TIMING_OFF && argv[0] != am_off)
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    if (census == NULL || census->timings == NULL)
        return lin_maintenance_end(env, census, lin_error(env, am_off));
    struct lin_clock_point now = lin_clock_sure();
    while (now.ns - census->opened.ns < RATE_NS) {
        struct timespec rest = {.tv_nsec = RATE_NS / 5};
        nanosleep(&rest, NULL);
        now = lin_clock_sure();
    }
    uint32_t pending = lin_timings_turn(census->timings, env, phase, rate(census, now), now.ticks);
    return lin_maintenance_end(env, census, enif_make_uint(env, pending));
}

/* {Sum, [{Low, High, Count}]} */
static ERL_NIF_TERM part_term(ErlNifEnv *env, const struct lin_histogram *histogram) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    for (uint32_t i = LIN_HISTOGRAM_BUCKETS; i-- > 0;) {
        uint64_t count = atomic_load_explicit(&histogram->count[i], memory_order_relaxed);
        if (count != 0)
            list = enif_make_list_cell(
                env,
                enif_make_tuple3(env, enif_make_uint64(env, lin_histogram_low(i)),
                                 enif_make_uint64(env, lin_histogram_low(i + 1)),
                                 enif_make_uint64(env, count)),
                list);
    }
    if (enif_is_empty_list(env, list))
        return 0;
    uint64_t sum = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    return enif_make_tuple2(env, enif_make_uint64(env, sum), list);
}

/* Adds {Name, #{Part => ...}} where anything was recorded. */
static ERL_NIF_TERM with_line(ErlNifEnv *env, ERL_NIF_TERM list, ERL_NIF_TERM name,
                              const struct lin_line *line) {
    const ERL_NIF_TERM part_names[LIN_PARTS] = {
        [LIN_PART_LATENCY] = am_latency,
        [LIN_PART_OVERHEAD] = am_overhead,
        [LIN_PART_QUEUE] = am_queue,
        [LIN_PART_WORK] = am_work,
        [LIN_PART_INIT] = am_init,
        [LIN_PART_BACK] = am_back,
        [LIN_PART_RESTART_BIRTH] = am_restart_birth,
        [LIN_PART_RESTART_ACK] = am_restart_ack,
        [LIN_PART_STOP_LATENCY] = am_stop_latency,
        [LIN_PART_STOP_OVERHEAD] = am_stop_overhead,
        [LIN_PART_STARTS] = am_starts,
    };
    ERL_NIF_TERM keys[LIN_PARTS], values[LIN_PARTS], map;
    size_t n = 0;
    for (unsigned part = 0; part < LIN_PARTS; part++) {
        const struct lin_histogram *histogram = lin_line_part(line, (enum lin_part)part);
        ERL_NIF_TERM term = histogram == NULL ? 0 : part_term(env, histogram);
        if (term != 0)
            keys[n] = part_names[part], values[n++] = term;
    }
    if (n == 0 || !enif_make_map_from_arrays(env, keys, values, n, &map))
        return list;
    return enif_make_list_cell(env, enif_make_tuple2(env, name, map), list);
}

static ERL_NIF_TERM series_term(ErlNifEnv *env, const struct lin_timings *timings) {
    const struct lin_series *series = &timings->series;
    ERL_NIF_TERM list = enif_make_list(env, 0), name;
    for (unsigned i = timings->options.criticals; i-- > 0;) {
        const struct lin_function *mfa = &timings->options.critical[i];
        name = enif_make_tuple3(env, mfa->module, mfa->function, enif_make_uint(env, mfa->arity));
        name = enif_make_tuple2(env, am_critical, name);
        list = with_line(env, list, name, &series->critical[i]);
    }
    list = with_line(env, list, am_others, &series->others);
    list = with_line(env, list, am_gone, &series->gone);
    for (unsigned i = LIN_SERIES; i-- > 0;) {
        const struct lin_line *line = &series->supervisor[i];
        uint64_t pid = atomic_load_explicit(&line->supervisor, memory_order_acquire);
        if (pid != 0)
            list = with_line(env, list, enif_make_tuple2(env, am_supervisor, pid), line);
    }
    return list;
}

static ERL_NIF_TERM count_term(ErlNifEnv *env, const _Atomic uint64_t *count) {
    return enif_make_uint64(env, atomic_load_explicit(count, memory_order_relaxed));
}

/* timings() */
ERL_NIF_TERM timings_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    if (census == NULL || census->timings == NULL)
        return lin_maintenance_end(env, census, lin_error(env, am_off));
    struct lin_timings *timings = census->timings;
    lin_series_sweep(&timings->series, env);
    ERL_NIF_TERM keys[] = {am_series,     am_failed, am_elsewhere,
                           am_unfinished, am_lost,   am_outliers_lost};
    ERL_NIF_TERM values[] = {series_term(env, timings),
                             count_term(env, &timings->counts.failed),
                             count_term(env, &timings->counts.elsewhere),
                             count_term(env, &timings->counts.unfinished),
                             count_term(env, &timings->counts.lost),
                             count_term(env, &timings->counts.outliers_lost)};
    ERL_NIF_TERM map;
    if (!enif_make_map_from_arrays(env, keys, values, sizeof keys / sizeof keys[0], &map))
        map = am_error;
    return lin_maintenance_end(env, census, map);
}

/* What relates ticks to the VM's monotonic time, which it may slew: as of now. */
struct vm_clock {
    uint64_t ticks;
    ErlNifTime ns;
    double ns_per_tick;
};

/* Of some tries the one whose readings lie closest together. */
static struct vm_clock vm_clock_now(const struct lin_census *census) {
    struct vm_clock clock = {.ns_per_tick = rate(census, lin_clock_sure())};
    uint64_t apart = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        uint64_t ticks = lin_clock_ticks();
        ErlNifTime ns = enif_monotonic_time(ERL_NIF_NSEC);
        uint64_t width = lin_clock_ticks() - ticks;
        if (width >= apart)
            continue;
        apart = width;
        clock.ticks = ticks;
        clock.ns = ns;
    }
    return clock;
}

static ERL_NIF_TERM outlier_term(ErlNifEnv *env, const struct vm_clock *clock,
                                 const struct lin_outlier *outlier) {
    ERL_NIF_TERM times = enif_make_list(env, 0), map;
    for (int i = 5; i-- > 0;) {
        double since = (double)(int64_t)(outlier->at[i] - clock->ticks) * clock->ns_per_tick;
        times =
            enif_make_list_cell(env, enif_make_int64(env, clock->ns + (ErlNifTime)since), times);
    }
    double busy = (double)outlier->busy * clock->ns_per_tick;
    ERL_NIF_TERM keys[] = {am_caller, am_supervisor, am_child, am_times, am_busy};
    ERL_NIF_TERM values[] = {outlier->caller, outlier->supervisor,
                             outlier->child == 0 ? am_undefined : outlier->child, times,
                             enif_make_uint64(env, (uint64_t)busy)};
    return enif_make_map_from_arrays(env, keys, values, sizeof keys / sizeof keys[0], &map)
               ? map
               : am_error;
}

/* outliers() */
ERL_NIF_TERM outliers_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    ERL_NIF_TERM rows[LIN_OUTLIERS];
    ERL_NIF_TERM answer = lin_error(env, am_off);
    unsigned n = 0;
    if (census->timings != NULL) {
        struct vm_clock clock = vm_clock_now(census);
        struct lin_outlier outlier;
        while (n < LIN_OUTLIERS && lin_timings_outlier(census->timings, &outlier))
            rows[n++] = outlier_term(env, &clock, &outlier);
        answer = enif_make_list_from_array(env, rows, n);
    }
    lin_gate_leave(self);
    return answer;
}

#include "nif.h"

/*
 * The tracer callbacks. The VM calls them inside the traced process, or inside its creator under
 * the new process's lock: no message, no lock that blocks, no allocation per event. The environment
 * carries no process: the tracee is an argument. A callback of an earlier session, whose flags are
 * still melting away, is known by its state.
 */

/* The trace points of monitors have the session's number negated: `remove` would end a whole point.
 */
LIN_ASIDE static bool is_meta(ErlNifEnv *env, ERL_NIF_TERM session, ERL_NIF_TERM state) {
    long of, given;
    return enif_get_long(env, session, &of) && enif_get_long(env, state, &given) && given == -of;
}

/* Enters the gate when the callback is of the open session; NULL: not inside. */
static inline struct lin_census *enter(ErlNifEnv *env, ERL_NIF_TERM state,
                                       struct lin_thread **self) {
    *self = lin_thread_self();
    if (*self == NULL)
        return NULL;
    struct lin_census *census = lin_gate_enter(*self);
    if (census == NULL)
        return NULL;
    if ((census->state == state || is_meta(env, census->state, state)) &&
        atomic_load_explicit(&census->hooked, memory_order_relaxed)) {
        lin_census_adopt(census, *self);
        return census;
    }
    lin_gate_leave(*self);
    return NULL;
}

/*
 * enabled(Tag, Session, Tracee): `remove`, which only trace_status may answer, ends the tracing of
 * this process; of `undefined`, that of all new ones; at a trace point, that of the point for all.
 * Whose session an event is of is asked when it is told.
 */
ERL_NIF_TERM enabled_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    struct lin_thread *self = lin_self;
    bool status = argv[0] == am_trace_status, call = argv[0] == am_call;
    if (argv[0] == am_spawned && self != NULL)
        lin_census_expect(self, argv[2]); /* the birth follows in some 100 ns */
    if (!status && !call)
        return am_trace;
    uint64_t now = call ? lin_clock_ticks() : 0;
    struct lin_census *census = enter(env, argv[1], &self);
    if (census == NULL)
        return status ? am_remove : am_discard;
    bool keep = true;
    uint64_t pid;
    if (call)
        self->announced = now;
    else if (!census->exits_all && census->state == argv[1] && lin_pid_read(env, argv[2], &pid))
        keep = lin_census_is_suspect(census, pid);
    lin_gate_leave(self);
    return keep ? am_trace : am_remove;
}

static void on_spawned(ErlNifEnv *env, struct lin_census *census, struct lin_thread *self,
                       uint64_t pid, ERL_NIF_TERM parent, ERL_NIF_TERM opts) {
    ERL_NIF_TERM extra = am_undefined;
    enif_get_map_value(env, opts, am_extra, &extra);
    struct lin_start start;
    lin_start_read(env, extra, census->sites != NULL, &start);
    struct lin_birth birth = {
        .pid = pid,
        .initial_call =
            lin_mfa_intern(census->mfas, start.call.module, start.call.function, start.call.arity),
        .site = census->sites == NULL ? 0 : lin_start_site(env, census, &start),
    };
    if (!lin_pid_read(env, parent, &birth.parent)) {
        birth.parent = lin_foreign_pack(env, parent);
        birth.flags = LIN_F_FOREIGN;
    }
    if (__builtin_expect(census->timings != NULL, 0))
        lin_timing_birth(census, &birth);
    lin_census_birth(census, self, env, &birth);
}

/* The atom that says most of a reason, without anything that it carries. */
static ERL_NIF_TERM reason_atom(ErlNifEnv *env, ERL_NIF_TERM reason) {
    const ERL_NIF_TERM *tuple;
    int size;
    for (int depth = 0; depth < 4; depth++) {
        if (enif_is_atom(env, reason))
            return reason;
        if (!enif_get_tuple(env, reason, &size, &tuple) || size == 0)
            break;
        reason = tuple[0];
    }
    return am_unknown;
}

static bool is_abnormal(ErlNifEnv *env, ERL_NIF_TERM reason) {
    const ERL_NIF_TERM *tuple;
    int size;
    if (reason == am_normal || reason == am_shutdown)
        return false;
    return !(enif_get_tuple(env, reason, &size, &tuple) && size == 2 && tuple[0] == am_shutdown);
}

/* A reference as a number; 0 for anything else. */
static uint64_t ref_of(ErlNifEnv *env, ERL_NIF_TERM term) {
    if (!enif_is_ref(env, term))
        return 0;
    uint64_t ref = enif_hash(ERL_NIF_INTERNAL_HASH, term, 0);
    ref = ref << 32 | (uint32_t)enif_hash(ERL_NIF_PHASH2, term, 0);
    return ref == 0 ? 1 : ref;
}

static bool monitors_in(ErlNifEnv *env, ERL_NIF_TERM options) {
    const ERL_NIF_TERM *tuple;
    ERL_NIF_TERM head;
    int size;
    while (enif_get_list_cell(env, options, &head, &options))
        if (head == am_monitor ||
            (enif_get_tuple(env, head, &size, &tuple) && size == 2 && tuple[0] == am_monitor))
            return true;
    return false;
}

/* monitor(process, Pid | Name [, Options]) */
static void on_monitor(ErlNifEnv *env, struct lin_census *census, uint64_t caller,
                       ERL_NIF_TERM args) {
    ERL_NIF_TERM kind, whom;
    ErlNifPid target;
    if (lin_nth(env, args, 0, &kind) && kind == am_process && lin_nth(env, args, 1, &whom) &&
        (enif_get_local_pid(env, whom, &target) || enif_whereis_pid(env, whom, &target)))
        lin_census_monitor(census, caller, target.pid);
}

/* {restart_child, Id} brings back a child that was not started for who asks now. */
static bool is_restart(ErlNifEnv *env, ERL_NIF_TERM request) {
    const ERL_NIF_TERM *tuple;
    int size;
    return enif_get_tuple(env, request, &size, &tuple) && size == 2 && tuple[0] == am_restart_child;
}

bool lin_turn_read(ErlNifEnv *env, const struct lin_call *mfa, ERL_NIF_TERM args,
                   struct lin_turn *turn) {
    const ERL_NIF_TERM *tuple;
    ERL_NIF_TERM from;
    int size;
    *turn = (struct lin_turn){.request = 0};
    if (!lin_nth(env, args, 0, &turn->request))
        return false;
    if (mfa->function == am_handle_info) {
        if (enif_get_tuple(env, turn->request, &size, &tuple) && size == 3 &&
            tuple[0] == am_exit_signal)
            lin_pid_read(env, tuple[1], &turn->dead);
    } else if (lin_nth(env, args, 1, &from) && enif_get_tuple(env, from, &size, &tuple) &&
               size == 2) {
        lin_pid_read(env, tuple[0], &turn->caller);
    }
    return true;
}

/*
 * Of a caller on another node nothing is known. The module `supervisor` may start others beside the
 * dead one: no one's heirs.
 */
static void on_supervisor(ErlNifEnv *env, struct lin_census *census, uint64_t supervisor,
                          const struct lin_call *mfa, ERL_NIF_TERM args) {
    struct lin_turn turn;
    if (!lin_turn_read(env, mfa, args, &turn))
        return;
    if (turn.caller != 0 && !is_restart(env, turn.request))
        lin_census_serve(census, env, supervisor, turn.caller);
    else if (turn.dead != 0 && mfa->module != am_supervisor)
        lin_census_replace(census, env, supervisor, turn.dead);
}

/* A request to a supervisor, where it is made. */
static bool is_request(const struct lin_call *mfa) {
    return mfa->function == am_start_child ||
           (mfa->module == am_task_supervisor && mfa->function != am_start_link);
}

static bool is_supervisors(const struct lin_call *mfa) {
    return mfa->function == am_handle_call || mfa->function == am_handle_info;
}

/* A call that meta tracing told: of a supervisor, or under exact monitors, or exact sites. */
LIN_ASIDE static void on_call(ErlNifEnv *env, struct lin_census *census, struct lin_thread *self,
                              uint64_t caller, ERL_NIF_TERM call, ERL_NIF_TERM opts) {
    struct lin_call mfa;
    ERL_NIF_TERM args, arg, result;
    if (!lin_mfa_read(env, call, &mfa, &args))
        return;
    if (census->timings != NULL)
        lin_timing_call(env, census, self, caller, &mfa, args);
    if (is_supervisors(&mfa)) {
        on_supervisor(env, census, caller, &mfa, args);
        return;
    }
    if (census->sites != NULL && lin_sites_exact(census->sites) &&
        enif_get_map_value(env, opts, am_match_spec_result, &result)) {
        lin_site_call(env, census, caller, mfa.module, result);
        if (is_request(&mfa))
            lin_census_ask(census, env, caller);
    }
    if (census->monitors == NULL)
        return;
    if (mfa.function == am_monitor)
        on_monitor(env, census, caller, args);
    else if (mfa.function == am_demonitor && lin_nth(env, args, 0, &arg))
        lin_monitors_demonitor(census->monitors, ref_of(env, arg));
    else if ((mfa.function == am_spawn_opt || mfa.function == am_spawn_request) && mfa.arity == 4 &&
             lin_nth(env, args, 3, &arg) && monitors_in(env, arg))
        lin_census_monitor(census, caller, 0);
}

/* What such a call returned: of one that monitors a reference, or {Pid, Reference}; raised:
 * neither.
 */
LIN_ASIDE static void on_return(ErlNifEnv *env, struct lin_census *census, uint64_t caller,
                                ERL_NIF_TERM tag, ERL_NIF_TERM call, ERL_NIF_TERM opts) {
    const ERL_NIF_TERM *tuple;
    ERL_NIF_TERM value;
    struct lin_call mfa;
    int size;
    if (!lin_mfa_read(env, call, &mfa, &value))
        return;
    if (census->timings != NULL)
        lin_timing_return(env, census, caller, &mfa, tag != am_return_from, opts);
    if (is_supervisors(&mfa))
        lin_census_served(census, caller);
    if (census->monitors == NULL || (mfa.module != am_erlang && mfa.module != am_erts_internal))
        return;
    if (tag != am_return_from || !enif_get_map_value(env, opts, am_extra, &value))
        value = am_undefined;
    else if (enif_get_tuple(env, value, &size, &tuple) && size == 2)
        value = tuple[1];
    lin_monitors_return(census->monitors, caller, ref_of(env, value));
}

static void on_event(ErlNifEnv *env, struct lin_census *census, struct lin_thread *self,
                     ERL_NIF_TERM tag, uint64_t pid, ERL_NIF_TERM term, ERL_NIF_TERM opts) {
    uint64_t peer = 0;
    if (tag == am_spawned) {
        on_spawned(env, census, self, pid, term, opts);
    } else if (tag == am_exit) {
        if (__builtin_expect(census->timings != NULL, 0))
            lin_timing_death(env, census, pid, term);
        lin_census_exit(census, self, env, pid, reason_atom(env, term), is_abnormal(env, term));
    } else if (tag == am_link || tag == am_getting_linked) {
        /* A port is no one that would stop or notice it. */
        if (lin_pid_read(env, term, &peer) || enif_is_pid(env, term))
            lin_census_link(census, pid, peer);
    } else if (tag == am_unlink || tag == am_getting_unlinked) {
        if (lin_pid_read(env, term, &peer))
            lin_census_unlink(census, pid, peer);
    } else if (tag == am_register && enif_is_atom(env, term)) {
        lin_census_name(census, pid, term);
    } else if (tag == am_unregister) {
        lin_census_name(census, pid, 0);
    } else if (tag == am_call) {
        on_call(env, census, self, pid, term, opts);
    } else if (tag == am_return_from || tag == am_exception_from) {
        on_return(env, census, pid, tag, term, opts);
    }
}

/* trace(Tag, Session, Tracee, Term, Opts) */
ERL_NIF_TERM trace_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    uint64_t pid;
    if (!lin_pid_read(env, argv[2], &pid))
        return am_ok;
    struct lin_thread *self;
    struct lin_census *census = enter(env, argv[1], &self);
    if (census == NULL)
        return am_ok;
    on_event(env, census, self, argv[0], pid, argv[3], argv[4]);
    lin_gate_leave(self);
    return am_ok;
}

#include "nif.h"

#include "spin.h"

#include <errno.h>
#include <string.h>

/*
 * Loading, and a session's life.
 *
 *     closed --open--> hooked --owner dies--> unhooked --close--> closed
 *                         |------------------close-------------->
 *
 * open, close: dirty, serialised by `maintenance`. Unhooked, trace_status answers `remove` and the
 * VM's flags melt away by themselves; the census stays readable. close takes the census from the
 * gate first, waits until no thread is inside, and frees it then, so a callback may run at any
 * time, during halt too. Two loads of one file share these globals, and so does the driver; what
 * the threads have goes with the library itself.
 */

struct lin_nif lin_nif;

#define LIN_ATOM_DEFINE(name) ERL_NIF_TERM am_##name;
LIN_ATOMS(LIN_ATOM_DEFINE)
ERL_NIF_TERM am_any, am_error, am_true, am_false, am_task, am_agent, am_exit_signal;
ERL_NIF_TERM am_task_supervisor, am_elixir_supervisor, am_dynamic_supervisor;

/* What lives in priv_data: another instance of the library reads it at upgrade. */
struct instance {
    uint32_t magic;
    const struct lin_gate *gate;
};
#define INSTANCE_MAGIC 0x4c494e31u /* "LIN1": the layout above */
static struct instance instance = {INSTANCE_MAGIC, &lin_gate};

/* The process that owns the session; its death unhooks. */
struct lin_owner {
    ErlNifMonitor monitor;
    uint32_t session;
};
static ErlNifResourceType *owner_type;

static void *host_alloc(size_t bytes) { return enif_alloc(bytes); }

static void host_free(void *memory) { enif_free(memory); }

static bool host_is_alive(void *env, uint64_t pid) {
    ErlNifPid local = {.pid = pid};
    return enif_is_process_alive(env, &local);
}

static const struct lin_host host = {host_alloc, host_free, host_is_alive};

static void owner_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor) {
    (void)env, (void)pid, (void)monitor;
    const struct lin_owner *owner = object;
    struct lin_thread *self = lin_thread_self();
    struct lin_census *census = self == NULL ? NULL : lin_gate_enter(self);
    if (census == NULL)
        return;
    if (census->session == owner->session)
        atomic_store_explicit(&census->hooked, false, memory_order_relaxed);
    lin_gate_leave(self);
}

static bool open_owner_type(ErlNifEnv *env) {
    ErlNifResourceTypeInit init = {.down = owner_down};
    owner_type = enif_open_resource_type_x(env, "lineage_owner", &init,
                                           ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER, NULL);
    return owner_type != NULL;
}

static void make_atoms(ErlNifEnv *env) {
#define LIN_ATOM_MAKE(name) am_##name = enif_make_atom(env, #name);
    LIN_ATOMS(LIN_ATOM_MAKE)
    am_any = enif_make_atom(env, "_");
    am_task = enif_make_atom(env, "Elixir.Task.Supervised");
    am_task_supervisor = enif_make_atom(env, "Elixir.Task.Supervisor");
    am_elixir_supervisor = enif_make_atom(env, "Elixir.Supervisor");
    am_dynamic_supervisor = enif_make_atom(env, "Elixir.DynamicSupervisor");
    am_agent = enif_make_atom(env, "Elixir.Agent.Server");
    am_exit_signal = enif_make_atom(env, "EXIT");
    am_error = enif_make_atom(env, "error");
    am_true = enif_make_atom(env, "true");
    am_false = enif_make_atom(env, "false");
}

static atomic_flag library_lock = ATOMIC_FLAG_INIT;
static uint32_t library_opens;

int lin_library_open(void) {
    int result = 0;
    lin_spin_lock(&library_lock);
    if (library_opens == 0) {
        lin_nif.maintenance = enif_mutex_create("lineage_maintenance");
        result = lin_nif.maintenance == NULL ? -ENOMEM : 0;
        if (result == 0)
            lin_gate_init(&host);
    }
    library_opens += result == 0;
    lin_spin_unlock(&library_lock);
    return result;
}

void lin_library_close(void) {
    lin_spin_lock(&library_lock);
    if (--library_opens == 0) {
        enif_mutex_destroy(lin_nif.maintenance);
        lin_nif.maintenance = NULL;
    }
    lin_spin_unlock(&library_lock);
}

/*
 * The threads' own pointers go when the library is unmapped, and so must what they lead to: not at
 * the last unload, for who is about to open it again may have kept it mapped. This runs at exit,
 * too, among callbacks: the library is open then, or, with the lock never given back, opens no
 * more.
 */
__attribute__((destructor)) static void unmapped(void) {
    lin_spin_lock(&library_lock);
    if (library_opens == 0)
        lin_gate_deinit();
    else
        lin_spin_unlock(&library_lock);
}

static int load(ErlNifEnv *env, void **priv_data, ERL_NIF_TERM info) {
    (void)info;
    make_atoms(env);
    if (!open_owner_type(env))
        return ENOMEM;
    if (lin_library_open() != 0)
        return ENOMEM;
    lin_nif.instances++;
    *priv_data = &instance;
    return 0;
}

/* Callbacks of the old code may be running and its census is in use: detach first. */
static int upgrade(ErlNifEnv *env, void **priv_data, void **old_priv_data, ERL_NIF_TERM info) {
    const struct instance *old = *old_priv_data;
    if (old == NULL || old->magic != INSTANCE_MAGIC ||
        atomic_load_explicit(&old->gate->current, memory_order_acquire) != NULL)
        return EBUSY;
    return load(env, priv_data, info);
}

/* No callback runs and none will: the VM unloads a module when nothing refers to it any more. */
static void unload(ErlNifEnv *env, void *priv_data) {
    (void)env, (void)priv_data;
    if (--lin_nif.instances == 0) {
        struct lin_census *census = atomic_load_explicit(&lin_gate.current, memory_order_acquire);
        lin_gate_set_current(NULL);
        lin_gate_quiesce(0); /* the driver's threads may be inside */
        lin_recent_free_all();
        lin_site_pages_free_all();
        lin_census_destroy(census);
    }
    lin_library_close();
}

static bool get_options(ErlNifEnv *env, ERL_NIF_TERM map, struct lin_census_options *options) {
    ERL_NIF_TERM exits, monitors, sites, value;
    ErlNifUInt64 max_bytes;
    unsigned limit;
    if (!enif_get_map_value(env, map, am_exits, &exits) ||
        (exits != am_all && exits != am_suspects) ||
        !enif_get_map_value(env, map, am_max_bytes, &value) ||
        !enif_get_uint64(env, value, &max_bytes) ||
        !enif_get_map_value(env, map, am_process_limit, &value) ||
        !enif_get_uint(env, value, &limit))
        return false;
    options->exits_all = exits == am_all;
    options->monitors_exact =
        enif_get_map_value(env, map, am_monitors, &monitors) && monitors == am_exact;
    options->sites = LIN_SITES_OFF;
    if (enif_get_map_value(env, map, am_sites, &sites))
        options->sites = sites == am_exact     ? LIN_SITES_EXACT
                         : sites == am_closure ? LIN_SITES_CLOSURE
                                               : LIN_SITES_OFF;
    options->max_bytes = max_bytes;
    /* The largest table that +P can ask for is said to have one place less than a power of two. */
    options->process_limit =
        limit < 2 || limit > 1u << 27 ? 0 : 1u << (32 - __builtin_clz(limit - 1));
    return true;
}

/*
 * Whether a pid's term gives the place in the VM's table as on the VMs that we know: its number as
 * it stands (25), or dealt out so that neighbours lie 8 places apart (27, 29). Either way the low
 * bits of the term are one to one with the places, which is all that the census needs.
 */
static bool pid_layout_known(ErlNifEnv *env, uint64_t pid, uint32_t limit) {
    ERL_NIF_TERM node;
    uint64_t id, serial;
    if (!lin_pid_number(env, pid, &node, &id, &serial))
        return false;
    uint32_t mask = limit - 1;
    uint32_t data = (uint32_t)(pid >> 4) & mask;
    uint32_t dealt = data >> 3 | (data & 7) << (__builtin_ctz(limit) - 3);
    return ((uint32_t)(id | serial << 15) & mask) == data ||
           ((uint32_t)(id | serial << 28) & mask) == data ||
           ((uint32_t)(id | serial << 28) & mask) == dealt;
}

static struct lin_owner *own(ErlNifEnv *env, const ErlNifPid *self, uint32_t session) {
    struct lin_owner *owner = enif_alloc_resource(owner_type, sizeof *owner);
    if (owner == NULL)
        return NULL;
    owner->session = session;
    if (enif_monitor_process(env, owner, self, &owner->monitor) == 0)
        return owner;
    enif_release_resource(owner);
    return NULL;
}

static ERL_NIF_TERM open_locked(ErlNifEnv *env, struct lin_census_options *options,
                                const ErlNifPid *self) {
    struct lin_census *census;
    if (atomic_load_explicit(&lin_gate.current, memory_order_relaxed) != NULL)
        return lin_error(env, am_open);
    if (!pid_layout_known(env, self->pid, options->process_limit))
        return lin_error(env, am_pid_layout);
    options->session = lin_nif.sessions + 1;
    options->state = enif_make_uint(env, options->session);
    int result = lin_census_create(options, &census);
    if (result != 0)
        return result == -EINVAL ? enif_make_badarg(env) : lin_error(env, am_enomem);
    lin_nif.owner = own(env, self, options->session);
    if (lin_nif.owner == NULL) {
        lin_census_destroy(census);
        return lin_error(env, am_enomem);
    }
    lin_nif.sessions++;
    lin_gate_set_current(census);
    return enif_make_tuple2(env, am_ok, enif_make_uint(env, options->session));
}

static bool get_critical(ErlNifEnv *env, ERL_NIF_TERM list, struct lin_timings_options *overhead) {
    const ERL_NIF_TERM *mfa;
    ERL_NIF_TERM head;
    unsigned arity;
    int size;
    while (enif_get_list_cell(env, list, &head, &list)) {
        if (overhead->criticals == LIN_CRITICAL || !enif_get_tuple(env, head, &size, &mfa) ||
            size != 3 || !enif_is_atom(env, mfa[0]) || !enif_is_atom(env, mfa[1]) ||
            !enif_get_uint(env, mfa[2], &arity) || arity > 255)
            return false;
        overhead->critical[overhead->criticals++] = (struct lin_function){mfa[0], mfa[1], arity};
    }
    return enif_is_empty_list(env, list);
}

/* What overhead is to be measured of, if any. */
static bool get_overhead(ErlNifEnv *env, ERL_NIF_TERM map, struct lin_census_options *options,
                         struct lin_timings_options *overhead) {
    ERL_NIF_TERM value;
    ErlNifUInt64 target;
    if (!enif_get_map_value(env, map, am_overhead, &value) || value == am_false)
        return true;
    if (value != am_true || !enif_get_map_value(env, map, am_target_ns, &value) ||
        !enif_get_uint64(env, value, &target) ||
        (enif_get_map_value(env, map, am_critical, &value) && !get_critical(env, value, overhead)))
        return false;
    overhead->target_ns = target;
    options->overhead = overhead;
    return true;
}

/* open(#{exits, max_bytes, process_limit [, monitors] [, sites] [, overhead, target_ns [,
 * critical]]})
 */
static ERL_NIF_TERM open_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    struct lin_census_options options = {.session = 0};
    struct lin_timings_options overhead = {.criticals = 0};
    ErlNifPid self;
    if (!get_options(env, argv[0], &options) || !get_overhead(env, argv[0], &options, &overhead) ||
        enif_self(env, &self) == NULL)
        return enif_make_badarg(env);
    enif_mutex_lock(lin_nif.maintenance);
    ERL_NIF_TERM answer = open_locked(env, &options, &self);
    enif_mutex_unlock(lin_nif.maintenance);
    return answer;
}

static ERL_NIF_TERM close_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    enif_mutex_lock(lin_nif.maintenance);
    struct lin_census *census = atomic_load_explicit(&lin_gate.current, memory_order_relaxed);
    if (census != NULL) {
        lin_gate_set_current(NULL);
        lin_gate_quiesce(0);
        lin_recent_free_all();
        lin_site_pages_free_all();
        lin_census_destroy(census);
        enif_demonitor_process(env, lin_nif.owner, &lin_nif.owner->monitor);
        enif_release_resource(lin_nif.owner);
        lin_nif.owner = NULL;
    }
    enif_mutex_unlock(lin_nif.maintenance);
    return am_ok;
}

#define DIRTY ERL_NIF_DIRTY_JOB_CPU_BOUND

static ErlNifFunc functions[] = {
    {"enabled", 3, enabled_nif, 0},
    {"trace", 5, trace_nif, 0},
    {"open", 1, open_nif, DIRTY},
    {"close", 0, close_nif, DIRTY},
    {"info", 0, info_nif, 0},
    {"classify", 4, classify_nif, 0},
    {"mark", 2, mark_nif, 0},
    {"unmark", 2, unmark_nif, 0},
    {"named", 2, named_nif, 0},
    {"pid", 1, pid_nif, 0},
    {"seed", 5, seed_nif, 0},
    {"sweep", 0, sweep_nif, DIRTY},
    {"pids", 0, pids_nif, DIRTY},
    {"record", 1, record_nif, 0},
    {"records", 0, records_nif, DIRTY},
    {"guardians", 0, guardians_nif, DIRTY},
    {"confirm", 2, confirm_nif, DIRTY},
    {"set_guardian", 2, set_guardian_nif, 0},
    {"verdict", 1, verdict_nif, DIRTY},
    {"recent", 1, recent_nif, DIRTY},
    {"wrapper", 2, wrapper_nif, 0},
    {"sites", 0, sites_nif, DIRTY},
    {"scope", 2, scope_nif, 0},
    {"scoped", 1, scoped_nif, DIRTY},
    {"population", 3, population_nif, DIRTY},
    {"timing", 1, timing_nif, DIRTY},
    {"timings", 0, timings_nif, DIRTY},
    {"outliers", 0, outliers_nif, 0},
    {"events", 1, events_nif, 0},
    {"journal", 4, journal_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"journal_drop", 0, journal_drop_nif, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"site", 1, site_nif, 0},
};

__attribute__((visibility("default")))
ERL_NIF_INIT(lineage_nif, functions, load, NULL, upgrade, unload)

#include "nif.h"

/* Answers to Erlang. Times are told in ms and us, counted from the clock's point at open. */

static const struct {
    ERL_NIF_TERM *atom;
    uint32_t flag;
} classes[] = {
    {&am_root, LIN_CLASS_ROOT},
    {&am_runtime, LIN_CLASS_RUNTIME},
    {&am_host, LIN_CLASS_HOST},
    {&am_service, LIN_CLASS_SERVICE},
    {&am_own, LIN_CLASS_OWN},
    {&am_supervisor, LIN_CLASS_SUPERVISOR},
    {&am_linked, LIN_F_LINKED},
    {&am_escaped, LIN_F_ESCAPED},
    {&am_foreign, LIN_F_FOREIGN},
    {&am_seeded, LIN_F_SEEDED},
    {&am_remote_link, LIN_F_REMOTE_LINK},
};
#define FLAGS (sizeof classes / sizeof classes[0])
#define CLASSES 6 /* the first of them can be given by Erlang */

static bool class_of(ERL_NIF_TERM atom, uint32_t *flag) {
    for (size_t i = 0; i < CLASSES; i++)
        if (*classes[i].atom == atom) {
            *flag = classes[i].flag;
            return true;
        }
    return false;
}

ERL_NIF_TERM lin_flags_term(ErlNifEnv *env, uint32_t flags) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    for (size_t i = 0; i < FLAGS; i++)
        if ((flags & classes[i].flag) != 0)
            list = enif_make_list_cell(env, *classes[i].atom, list);
    if ((flags & LIN_F_LINKED) == 0)
        list = enif_make_list_cell(env, am_suspect, list);
    return list;
}

static bool local_pid_or_none(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *pid) {
    *pid = 0;
    return term == am_undefined || lin_pid_read(env, term, pid);
}

static bool get_mfa(ErlNifEnv *env, const ERL_NIF_TERM mfa[3], uint32_t *arity) {
    *arity = LIN_ARITY_ANY;
    return enif_is_atom(env, mfa[0]) && enif_is_atom(env, mfa[1]) &&
           (mfa[2] == am_any || (enif_get_uint(env, mfa[2], arity) && *arity <= 255));
}

ERL_NIF_TERM lin_mfa_term(ErlNifEnv *env, const struct lin_census *census, uint32_t id) {
    const struct lin_mfa *mfa = lin_mfa_at(census->mfas, id);
    if (mfa == NULL)
        return am_undefined;
    return enif_make_tuple3(env, atomic_load_explicit(&mfa->module, memory_order_relaxed),
                            mfa->function, enif_make_uint(env, mfa->arity));
}

ERL_NIF_TERM lin_parent_term(ErlNifEnv *env, uint64_t parent, uint32_t flags) {
    if (parent == 0)
        return am_undefined;
    return (flags & LIN_F_FOREIGN) != 0 ? lin_foreign_term(env, parent) : parent;
}

static ERL_NIF_TERM pid_term(uint64_t pid) { return pid == 0 ? am_undefined : pid; }

struct lin_census *lin_enter(struct lin_thread **self) {
    *self = lin_thread_self();
    struct lin_census *census = *self == NULL ? NULL : lin_gate_enter(*self);
    if (census != NULL)
        lin_census_adopt(census, *self);
    return census;
}

struct lin_census *lin_maintenance(struct lin_thread **self) {
    enif_mutex_lock(lin_nif.maintenance);
    *self = lin_thread_self();
    struct lin_census *census = lin_enter(self);
    if (census != NULL)
        lin_gate_leave(*self);
    return census;
}

ERL_NIF_TERM lin_maintenance_end(ErlNifEnv *env, const struct lin_census *census,
                                 ERL_NIF_TERM answer) {
    enif_mutex_unlock(lin_nif.maintenance);
    return census == NULL ? lin_error(env, am_closed) : answer;
}

static ERL_NIF_TERM map_of(ErlNifEnv *env, ERL_NIF_TERM keys[], ERL_NIF_TERM values[], size_t n) {
    ERL_NIF_TERM map;
    return enif_make_map_from_arrays(env, keys, values, n, &map) ? map : am_error;
}

#define KV(key, value) keys[n] = am_##key, values[n++] = (value)

ERL_NIF_TERM info_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    struct lin_totals totals;
    lin_census_totals(census, &totals);
    struct lin_clock_point now = lin_clock_now();
    ERL_NIF_TERM keys[23], values[23];
    size_t n = 0;
    KV(births, enif_make_uint64(env, totals.births));
    KV(seeded, enif_make_uint64(env, totals.seeded));
    KV(seen, enif_make_uint64(env, totals.seen));
    KV(swept, enif_make_uint64(env, totals.swept));
    KV(lost, enif_make_uint64(env, totals.lost));
    KV(live, enif_make_uint64(env, totals.records));
    KV(silent_failures, enif_make_uint64(env, totals.silent));
    KV(unheard_unknown, enif_make_uint64(env, totals.unheard));
    KV(free_records, enif_make_uint64(env, totals.free_records));
    KV(bytes, enif_make_uint64(env, totals.bytes));
    KV(peak_bytes, enif_make_uint64(env, totals.peak_bytes));
    KV(exits, census->exits_all ? am_all : am_suspects);
    bool exact = census->monitors != NULL && !atomic_load(&census->monitors_full);
    KV(monitors, exact ? am_exact : am_unknown);
    KV(hooked, atomic_load(&census->hooked) ? am_true : am_false);
    KV(session, enif_make_uint(env, census->session));
    KV(age_ms, enif_make_uint64(env, (now.ns - census->opened.ns) / 1000000));
    const struct lin_sites *sites = census->sites;
    KV(sites, sites == NULL ? am_off : lin_sites_exact(sites) ? am_exact : am_closure);
    KV(site_overflows, enif_make_uint64(env, sites == NULL ? 0 : lin_sites_overflows(sites)));
    KV(scope_overflows, enif_make_uint64(env, lin_scopes_lost(census->scopes)));
    KV(mfa_overflows, enif_make_uint64(env, atomic_load(&census->mfas->overflows)));
    lin_gate_leave(self);
    return map_of(env, keys, values, n);
}

ERL_NIF_TERM classify_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    uint32_t class, arity;
    if (!class_of(argv[0], &class) || !get_mfa(env, argv + 1, &arity))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    int result = lin_mfa_classify(census->mfas, argv[1], argv[2], arity, class);
    lin_gate_leave(self);
    return result == 0 ? am_ok : lin_error(env, am_enomem);
}

static ERL_NIF_TERM flag(ErlNifEnv *env, const ERL_NIF_TERM argv[], bool set) {
    uint64_t pid;
    uint32_t class;
    if (!lin_pid_read(env, argv[0], &pid) || !class_of(argv[1], &class))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    bool ok = lin_census_flag(census, pid, set ? class : 0, set ? 0 : class);
    lin_gate_leave(self);
    return ok ? am_ok : am_dead;
}

ERL_NIF_TERM mark_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    return flag(env, argv, true);
}

ERL_NIF_TERM unmark_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    return flag(env, argv, false);
}

/* named(Pid, Name): for those who follow events; the census does not keep it. */
ERL_NIF_TERM named_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    uint64_t pid;
    struct lin_thread *self;
    if (!lin_pid_read(env, argv[0], &pid) || !enif_is_atom(env, argv[1]))
        return enif_make_badarg(env);
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    lin_census_name(census, pid, argv[1]);
    lin_gate_leave(self);
    return am_ok;
}

/* pid(Word): what a pid's term is in the VM's own memory, as the probe reads it there. */
ERL_NIF_TERM pid_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    ErlNifUInt64 word;
    if (!enif_get_uint64(env, argv[0], &word) || (word & 0xf) != 3)
        return enif_make_badarg(env);
    ErlNifPid pid;
    pid.pid = (ERL_NIF_TERM)word;
    return enif_make_pid(env, &pid);
}

static bool get_classes(ErlNifEnv *env, ERL_NIF_TERM list, uint32_t *flags) {
    ERL_NIF_TERM head;
    uint32_t class;
    for (int i = 0; i < 16 && enif_get_list_cell(env, list, &head, &list); i++) {
        if (!class_of(head, &class))
            return false;
        *flags |= class;
    }
    return enif_is_empty_list(env, list);
}

/* A parent may be of another node: an rpc's, for one. */
static bool get_parent(ErlNifEnv *env, ERL_NIF_TERM term, struct lin_birth *birth) {
    if (local_pid_or_none(env, term, &birth->parent))
        return true;
    if (!enif_is_pid(env, term))
        return false;
    birth->parent = lin_foreign_pack(env, term);
    birth->flags |= LIN_F_FOREIGN;
    return true;
}

/* seed(Pid, Parent, Guardian, {M, F, A}, Classes) */
ERL_NIF_TERM seed_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    struct lin_birth birth = {.flags = 0};
    uint64_t guardian;
    uint32_t arity;
    const ERL_NIF_TERM *mfa;
    int size;
    if (!lin_pid_read(env, argv[0], &birth.pid) || !local_pid_or_none(env, argv[2], &guardian) ||
        !enif_get_tuple(env, argv[3], &size, &mfa) || size != 3 || !get_mfa(env, mfa, &arity) ||
        arity == LIN_ARITY_ANY || !get_classes(env, argv[4], &birth.flags) ||
        !get_parent(env, argv[1], &birth))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    birth.initial_call = lin_mfa_intern(census->mfas, mfa[0], mfa[1], arity);
    enum lin_seed seed = lin_census_seed(census, self, env, &birth, guardian);
    lin_gate_leave(self);
    switch (seed) {
    case LIN_SEED_OK:
        return am_ok;
    case LIN_SEED_KNOWN:
        return am_known;
    case LIN_SEED_DEAD:
        return am_dead;
    default:
        return am_lost;
    }
}

ERL_NIF_TERM sweep_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    uint64_t swept = 0;
    if (census != NULL) {
        swept = lin_census_sweep(census, self, env);
        lin_census_trim(census, self);
    }
    return lin_maintenance_end(env, census, enif_make_uint64(env, swept));
}

ERL_NIF_TERM lin_entry_map(ErlNifEnv *env, const struct lin_census *census,
                           const struct lin_entry *entry) {
    struct lin_clock_point now = lin_clock_now();
    ERL_NIF_TERM keys[12], values[12];
    size_t n = 0;
    KV(pid, entry->pid);
    KV(generation, enif_make_uint(env, lin_census_generation(census, entry)));
    KV(parent, lin_parent_term(env, entry->parent, entry->flags));
    KV(guardian, pid_term(entry->guardian));
    KV(initial_call, lin_mfa_term(env, census, entry->initial_call));
    KV(spawner, lin_mfa_term(env, census, entry->spawner));
    KV(site, lin_site_term(env, census, entry->site));
    KV(scope, enif_make_uint(env, entry->scope));
    KV(age_ms,
       enif_make_uint64(env, lin_clock_age_ns(census->opened, now, entry->birth) / 1000000));
    KV(flags, lin_flags_term(env, entry->flags));
    return map_of(env, keys, values, n);
}

ERL_NIF_TERM record_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    uint64_t pid;
    if (!lin_pid_read(env, argv[0], &pid))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    struct lin_entry entry;
    ERL_NIF_TERM answer =
        lin_census_read(census, pid, &entry) ? lin_entry_map(env, census, &entry) : am_undefined;
    lin_gate_leave(self);
    return answer;
}

typedef ERL_NIF_TERM (*row_fn)(ErlNifEnv *env, const struct lin_census *census,
                               struct lin_clock_point now, const struct lin_entry *entry);

static ERL_NIF_TERM rows(ErlNifEnv *env, row_fn row) {
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    ERL_NIF_TERM list = enif_make_list(env, 0);
    if (census != NULL) {
        lin_census_sweep(census, self, env);
        struct lin_clock_point now = lin_clock_now();
        struct lin_entry entry;
        for (uint32_t number = 0; number < census->chunks_max * LIN_CHUNK; number++) {
            const struct lin_record *record = lin_census_record(census, number);
            if (record == NULL)
                number |= LIN_CHUNK - 1;
            else if (lin_record_read(record, &entry))
                list = enif_make_list_cell(env, row(env, census, now, &entry), list);
        }
    }
    return lin_maintenance_end(env, census, list);
}

static ERL_NIF_TERM pid_row(ErlNifEnv *env, const struct lin_census *census,
                            struct lin_clock_point now, const struct lin_entry *entry) {
    (void)env, (void)census, (void)now;
    return entry->pid;
}

ERL_NIF_TERM pids_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    return rows(env, pid_row);
}

static ERL_NIF_TERM record_row(ErlNifEnv *env, const struct lin_census *census,
                               struct lin_clock_point now, const struct lin_entry *entry) {
    uint64_t age_ns = lin_clock_age_ns(census->opened, now, entry->birth);
    return enif_make_tuple7(
        env, entry->pid, enif_make_uint(env, lin_census_generation(census, entry)),
        lin_parent_term(env, entry->parent, entry->flags), pid_term(entry->guardian),
        lin_mfa_term(env, census, entry->initial_call), lin_flags_term(env, entry->flags),
        enif_make_uint64(env, age_ns / 1000000));
}

ERL_NIF_TERM records_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    return rows(env, record_row);
}

struct list {
    ErlNifEnv *env;
    ERL_NIF_TERM terms;
    uint64_t room;
};

static void add_guardian(void *arg, uint64_t pid, uint32_t children) {
    struct list *list = arg;
    ERL_NIF_TERM row = enif_make_tuple2(list->env, pid, enif_make_uint(list->env, children));
    list->terms = enif_make_list_cell(list->env, row, list->terms);
}

ERL_NIF_TERM guardians_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    struct list list = {.env = env, .terms = enif_make_list(env, 0)};
    if (census != NULL)
        lin_guardians_run(census, add_guardian, &list);
    return lin_maintenance_end(env, census, list.terms);
}

/* confirm(Guardian, Links) */
ERL_NIF_TERM confirm_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    uint64_t guardian, child;
    if (!lin_pid_read(env, argv[0], &guardian) || !enif_is_list(env, argv[1]))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    if (census != NULL) {
        ERL_NIF_TERM head, tail = argv[1];
        lin_confirm_begin(census, guardian);
        while (enif_get_list_cell(env, tail, &head, &tail))
            if (lin_pid_read(env, head, &child))
                lin_confirm_link(census, guardian, child);
    }
    return lin_maintenance_end(env, census, am_ok);
}

ERL_NIF_TERM set_guardian_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    uint64_t pid, guardian;
    if (!lin_pid_read(env, argv[0], &pid) || !local_pid_or_none(env, argv[1], &guardian))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    bool ok = lin_census_set_guardian(census, pid, guardian);
    lin_gate_leave(self);
    return ok ? am_ok : am_dead;
}

static bool add_candidate(void *arg, uint64_t pid) {
    struct list *list = arg;
    if (list->room == 0)
        return false;
    list->room--;
    list->terms = enif_make_list_cell(list->env, pid, list->terms);
    return true;
}

static ERL_NIF_TERM verdict_map(ErlNifEnv *env, const struct lin_verdict *verdict) {
    ERL_NIF_TERM keys[9], values[9];
    size_t n = 0;
    KV(live, enif_make_uint64(env, verdict->live));
    KV(orphans, enif_make_uint64(env, verdict->orphans));
    KV(rooted, enif_make_uint64(env, verdict->rooted));
    KV(roots, enif_make_uint64(env, verdict->roots));
    KV(runtime, enif_make_uint64(env, verdict->runtime));
    KV(hosts, enif_make_uint64(env, verdict->hosts));
    KV(supervisors, enif_make_uint64(env, verdict->supervisors));
    KV(services, enif_make_uint64(env, verdict->services));
    KV(own, enif_make_uint64(env, verdict->own));
    return map_of(env, keys, values, n);
}

/* verdict(Max) */
ERL_NIF_TERM verdict_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    ErlNifUInt64 max;
    if (!enif_get_uint64(env, argv[0], &max))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    struct list list = {.env = env, .terms = enif_make_list(env, 0), .room = max};
    struct lin_verdict verdict = {.live = 0};
    ERL_NIF_TERM answer = lin_error(env, am_enomem);
    if (census != NULL && lin_verdict_run(census, &verdict, add_candidate, &list) == 0)
        answer = enif_make_tuple2(env, verdict_map(env, &verdict), list.terms);
    return lin_maintenance_end(env, census, answer);
}

ERL_NIF_TERM lin_dead_map(ErlNifEnv *env, const struct lin_census *census,
                          const struct lin_dead *dead) {
    struct lin_clock_point now = lin_clock_now();
    struct lin_entry entry = {.birth = dead->birth, .flags = dead->flags};
    uint64_t born_ns = lin_clock_since_ns(census->opened, now, dead->birth);
    uint64_t died_ns = lin_clock_since_ns(census->opened, now, dead->death);
    uint64_t now_ns = now.ns - census->opened.ns;
    ERL_NIF_TERM watched = dead->monitored == LIN_MONITORED_NO    ? am_no
                           : dead->monitored == LIN_MONITORED_YES ? am_yes
                                                                  : am_unknown;
    ERL_NIF_TERM keys[12], values[12];
    size_t n = 0;
    KV(pid, dead->pid);
    KV(generation, enif_make_uint(env, lin_census_generation(census, &entry)));
    KV(parent, lin_parent_term(env, dead->parent, dead->flags));
    KV(initial_call, lin_mfa_term(env, census, dead->initial_call));
    KV(spawner, lin_mfa_term(env, census, dead->spawner));
    KV(site, lin_site_term(env, census, dead->site));
    KV(lifetime_us, enif_make_uint64(env, died_ns > born_ns ? (died_ns - born_ns) / 1000 : 0));
    KV(ago_ms, enif_make_uint64(env, now_ns > died_ns ? (now_ns - died_ns) / 1000000 : 0));
    KV(reason, dead->reason == 0 ? am_unknown : dead->reason);
    KV(abnormal, dead->abnormal ? am_true : am_false);
    KV(monitored, watched);
    KV(scope, enif_make_uint(env, dead->scope));
    return map_of(env, keys, values, n);
}

struct lin_dead *lin_dead_read(const struct lin_census *census, enum lin_recent_ring which,
                               size_t count, size_t *read) {
    size_t room = lin_recent_rings(which) * LIN_RECENT;
    struct lin_dead *dead = enif_alloc((room + 1) * sizeof *dead);
    if (dead != NULL)
        *read = lin_recent_read(census->session, which, dead, room, count);
    return dead;
}

/* recent(Count) */
ERL_NIF_TERM recent_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    ErlNifUInt64 count;
    if (!enif_get_uint64(env, argv[0], &count))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    ERL_NIF_TERM answer = lin_error(env, am_enomem);
    size_t n, most = count < LIN_RECENT ? count : LIN_RECENT;
    struct lin_dead *dead = census == NULL ? NULL : lin_dead_read(census, LIN_RING_DEAD, most, &n);
    if (dead != NULL) {
        answer = enif_make_list(env, 0);
        while (n-- > 0)
            answer = enif_make_list_cell(env, lin_dead_map(env, census, &dead[n]), answer);
        enif_free(dead);
    }
    return lin_maintenance_end(env, census, answer);
}

/* site(Id) */
ERL_NIF_TERM site_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    unsigned id;
    if (!enif_get_uint(env, argv[0], &id))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    ERL_NIF_TERM answer = lin_site_term(env, census, id);
    lin_gate_leave(self);
    return answer;
}

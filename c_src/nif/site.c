#include "nif.h"

#include <string.h>

/*
 * Sites, told by the VM: closures by their printed names, which hold no environment, and frames by
 * the match specs of trace points. erl_nif has no other way to learn which closure a fun is.
 */

#define FUN_TEXT 320        /* "#Fun<Module.Index.Uniq>", the module at most 255 characters */
#define NO_INDEX UINT32_MAX /* an external fun has no index */

/* Reads a number backwards from `*end`, which is set before the character in front of it. */
static bool digits_before(const char *text, size_t *end, uint32_t *number) {
    uint64_t value = 0, scale = 1;
    size_t at = *end;
    for (; at > 0 && text[at - 1] >= '0' && text[at - 1] <= '9' && scale <= 1000000000; at--) {
        value += (uint64_t)(text[at - 1] - '0') * scale;
        scale *= 10;
    }
    if (at == *end || at == 0 || value > UINT32_MAX)
        return false;
    *number = (uint32_t)value;
    *end = at - 1;
    return true;
}

/* An atom as it is printed; one whose name needs escapes stays unknown. */
static ERL_NIF_TERM atom_of(ErlNifEnv *env, const char *text, size_t len) {
    ERL_NIF_TERM atom;
    if (len >= 2 && text[0] == '\'' && text[len - 1] == '\'') {
        text++;
        len -= 2;
    }
    return enif_make_existing_atom_len(env, text, len, &atom, ERL_NIF_LATIN1) ? atom : am_undefined;
}

/* "fun M:F/A": the call itself is what runs. */
static void read_external(ErlNifEnv *env, struct lin_census *census, const char *text, size_t len,
                          struct lin_site *site) {
    size_t end = len;
    uint32_t arity;
    const char *colon = memchr(text, ':', len);
    if (colon == NULL || !digits_before(text, &end, &arity) || text[end] != '/' ||
        end <= (size_t)(colon - text))
        return;
    ERL_NIF_TERM module = atom_of(env, text, (size_t)(colon - text));
    ERL_NIF_TERM function = atom_of(env, colon + 1, (size_t)(text + end - colon - 1));
    site->initial_call = lin_mfa_intern(census->mfas, module, function, arity);
}

/* "Module.Index.Uniq" */
static bool read_closure(ErlNifEnv *env, const char *text, size_t len, struct lin_site *site) {
    size_t end = len;
    if (!digits_before(text, &end, &site->uniq) || text[end] != '.' ||
        !digits_before(text, &end, &site->index) || text[end] != '.' || end == 0)
        return false;
    site->closure_module = atom_of(env, text, end);
    return true;
}

LIN_ASIDE static uint32_t new_closure(ErlNifEnv *env, struct lin_census *census, const char *text,
                                      size_t len, struct lin_site *site) {
    site->index = site->uniq = NO_INDEX;
    if (memcmp(text, "fun ", 4) == 0)
        read_external(env, census, text + 4, len - 4, site);
    else if (memcmp(text, "#Fun<", 5) != 0 || !read_closure(env, text + 5, len - 6, site))
        return 0;
    return lin_site_intern(census->sites, site);
}

/* The key of a closure is its text's hash alone; the rest is read when it is new. */
static uint32_t closure_site(ErlNifEnv *env, struct lin_census *census, ERL_NIF_TERM fun) {
    char text[FUN_TEXT];
    struct lin_site site = {.closure = 0};
    int printed = enif_snprintf(text, sizeof text, "%T", fun);
    if (printed <= 5 || printed >= (int)sizeof text)
        return 0;
    size_t len = (size_t)printed;
    site.closure = lin_hash_bytes(text, len);
    uint32_t id = lin_site_find(census->sites, &site);
    return id != 0 ? id : new_closure(env, census, text, len, &site);
}

uint32_t lin_start_site(ErlNifEnv *env, struct lin_census *census, const struct lin_start *start) {
    if (start->fun != 0)
        return closure_site(env, census, start->fun);
    if (start->work.module == start->call.module && start->work.function == start->call.function)
        return 0;
    struct lin_site site = {.closure = 0};
    site.initial_call =
        lin_mfa_intern(census->mfas, start->work.module, start->work.function, start->work.arity);
    return lin_site_intern(census->sites, &site);
}

static void read_file(ErlNifEnv *env, struct lin_sites *sites, ERL_NIF_TERM name,
                      struct lin_frame *frame) {
    char text[512];
    int len = enif_get_string(env, name, text, sizeof text, ERL_NIF_LATIN1);
    if (len > 1)
        frame->file = lin_file_intern(sites, text, (size_t)len - 1);
}

/* [{file, File}, {line, Line}] of a stack trace, or {File, Line} of caller_line; or nothing. */
static void read_place(ErlNifEnv *env, struct lin_sites *sites, ERL_NIF_TERM place,
                       struct lin_frame *frame) {
    const ERL_NIF_TERM *tuple;
    ERL_NIF_TERM head;
    int size;
    if (enif_get_tuple(env, place, &size, &tuple) && size == 2) {
        read_file(env, sites, tuple[0], frame);
        enif_get_uint(env, tuple[1], &frame->line);
    }
    for (int i = 0; i < 4 && enif_get_list_cell(env, place, &head, &place); i++) {
        if (!enif_get_tuple(env, head, &size, &tuple) || size != 2)
            continue;
        if (tuple[0] == am_file)
            read_file(env, sites, tuple[1], frame);
        else if (tuple[0] == am_line)
            enif_get_uint(env, tuple[1], &frame->line);
    }
}

/* {M, F, Arity, Place}. The place is read of those only that are no wrappers. */
static bool read_frame(ErlNifEnv *env, struct lin_sites *sites, ERL_NIF_TERM term,
                       struct lin_frame *frame, bool *wrapper) {
    const ERL_NIF_TERM *tuple;
    int size;
    if (!enif_get_tuple(env, term, &size, &tuple) || size != 4 || !enif_is_atom(env, tuple[0]) ||
        !enif_is_atom(env, tuple[1]) || !enif_get_uint(env, tuple[2], &frame->arity))
        return false;
    frame->module = tuple[0];
    frame->function = tuple[1];
    *wrapper = lin_wrapper_is(sites, frame->module, frame->function);
    if (!*wrapper)
        read_place(env, sites, tuple[3], frame);
    return true;
}

/* A fun of a wrapper may have been handed out, and be called by anybody. */
static bool is_fun_name(ErlNifEnv *env, ERL_NIF_TERM function) {
    char name[256];
    return enif_get_atom(env, function, name, sizeof name, ERL_NIF_LATIN1) > 0 && name[0] == '-';
}

void lin_site_call(ErlNifEnv *env, struct lin_census *census, uint64_t caller, ERL_NIF_TERM called,
                   ERL_NIF_TERM result) {
    struct lin_sites *sites = census->sites;
    struct lin_frame frame = {.module = 0};
    ERL_NIF_TERM head;
    bool wrapper = false;
    if (enif_is_tuple(env, result)) { /* the caller alone: before OTP 27 */
        if (!read_frame(env, sites, result, &frame, &wrapper) ||
            (wrapper && is_fun_name(env, frame.function)))
            lin_pending_drop(sites, caller);
        else if (wrapper)
            lin_pending_pass(sites, caller, frame.module, called);
        else
            lin_pending_put(sites, env, caller, &frame, called);
        return;
    }
    for (int i = 0; i < 64 && enif_get_list_cell(env, result, &head, &result); i++)
        if (read_frame(env, sites, head, &frame, &wrapper) && !wrapper) {
            lin_pending_put(sites, env, caller, &frame, called);
            return;
        }
    lin_pending_drop(sites, caller);
}

static ERL_NIF_TERM frame_term(ErlNifEnv *env, const struct lin_sites *sites,
                               const struct lin_frame *frame) {
    if (frame->module == 0)
        return am_undefined;
    const char *file = lin_file_name(sites, frame->file);
    return enif_make_tuple5(env, frame->module, frame->function, enif_make_uint(env, frame->arity),
                            file == NULL ? am_undefined
                                         : enif_make_string(env, file, ERL_NIF_LATIN1),
                            frame->line == 0 ? am_undefined : enif_make_uint(env, frame->line));
}

ERL_NIF_TERM lin_site_term(ErlNifEnv *env, const struct lin_census *census, uint32_t id) {
    const struct lin_site *site = census->sites == NULL ? NULL : lin_site_at(census->sites, id);
    if (site == NULL)
        return am_undefined;
    ERL_NIF_TERM what;
    if (site->closure != 0 && site->index != NO_INDEX)
        what = enif_make_tuple4(env, am_closure,
                                site->closure_module == 0 ? am_undefined : site->closure_module,
                                enif_make_uint(env, site->index), enif_make_uint(env, site->uniq));
    else
        what = enif_make_tuple3(env, am_call, lin_mfa_term(env, census, site->initial_call),
                                lin_mfa_term(env, census, site->spawner));
    return enif_make_tuple3(env, enif_make_uint(env, id), what,
                            frame_term(env, census->sites, &site->frame));
}

/* How many live processes each site has, and how many of them nothing joins to a root. */
struct tally {
    const struct lin_census *census;
    uint32_t live[LIN_SITES], orphans[LIN_SITES];
};

static void tally_live(struct tally *tally) {
    struct lin_entry entry;
    for (uint32_t number = 0; number < tally->census->chunks_max * LIN_CHUNK; number++) {
        const struct lin_record *record = lin_census_record(tally->census, number);
        if (record == NULL)
            number |= LIN_CHUNK - 1;
        else if (lin_record_read(record, &entry))
            tally->live[entry.site]++;
    }
}

static bool tally_orphan(void *arg, uint64_t pid) {
    struct tally *tally = arg;
    struct lin_entry entry;
    if (lin_census_read(tally->census, pid, &entry))
        tally->orphans[entry.site]++;
    return true;
}

static ERL_NIF_TERM site_row(ErlNifEnv *env, const struct tally *tally, uint32_t id) {
    uint64_t births, unheard;
    lin_site_sum(tally->census->session, id, &births, &unheard);
    return enif_make_tuple5(env, lin_site_term(env, tally->census, id),
                            enif_make_uint64(env, births), enif_make_uint(env, tally->live[id]),
                            enif_make_uint(env, tally->orphans[id]),
                            enif_make_uint64(env, unheard));
}

static ERL_NIF_TERM tally_sites(ErlNifEnv *env, struct lin_census *census,
                                struct lin_thread *self) {
    struct lin_verdict verdict;
    struct tally *tally = enif_alloc(sizeof *tally);
    if (tally == NULL)
        return lin_error(env, am_enomem);
    memset(tally, 0, sizeof *tally);
    tally->census = census;
    lin_census_note_scratch(census, sizeof *tally);
    lin_census_sweep(census, self, env);
    tally_live(tally);
    ERL_NIF_TERM answer = lin_error(env, am_enomem);
    if (lin_verdict_run(census, &verdict, tally_orphan, tally) == 0) {
        answer = enif_make_list(env, 0);
        for (uint32_t id = lin_sites_used(census->sites); id > 0; id--)
            answer = enif_make_list_cell(env, site_row(env, tally, id), answer);
    }
    enif_free(tally);
    return answer;
}

/* sites() */
ERL_NIF_TERM sites_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc, (void)argv;
    struct lin_thread *self;
    struct lin_census *census = lin_maintenance(&self);
    ERL_NIF_TERM answer = enif_make_list(env, 0);
    if (census != NULL && census->sites != NULL)
        answer = tally_sites(env, census, self);
    return lin_maintenance_end(env, census, answer);
}

/* wrapper(Module, Function | '_') */
ERL_NIF_TERM wrapper_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    if (!enif_is_atom(env, argv[0]) || !enif_is_atom(env, argv[1]))
        return enif_make_badarg(env);
    struct lin_thread *self;
    struct lin_census *census = lin_enter(&self);
    if (census == NULL)
        return lin_error(env, am_closed);
    bool ok = census->sites == NULL ||
              lin_wrapper_add(census->sites, argv[0], argv[1] == am_any ? 0 : argv[1]);
    lin_gate_leave(self);
    return ok ? am_ok : lin_error(env, am_enomem);
}

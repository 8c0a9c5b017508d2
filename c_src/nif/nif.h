/*
 * nif.h - what the files of the NIF share.
 *
 * Model: lineage_nif.c loads and opens, tracer.c is called by the VM for each event, query.c
 * answers Erlang. An entry decodes its arguments, calls the core, and encodes the answer. Any term
 * may be passed to any entry: what does not decode raises badarg. Threads: tracer callbacks run in
 * any scheduler thread; entries as their flags say. Maintenance (dirty entries) is serialised by
 * `lin_nif.maintenance`, which also keeps close away.
 */
#ifndef LIN_NIF_H
#define LIN_NIF_H

#include "census.h"
#include "verdict.h"

#include <erl_nif.h>

#define LIN_ATOMS(X)                                                                               \
    X(abnormal)                                                                                    \
    X(age_ms)                                                                                      \
    X(ago_ms)                                                                                      \
    X(all)                                                                                         \
    X(births)                                                                                      \
    X(bytes)                                                                                       \
    X(call)                                                                                        \
    X(closed)                                                                                      \
    X(dead)                                                                                        \
    X(demonitor)                                                                                   \
    X(discard)                                                                                     \
    X(dist_spawn_init)                                                                             \
    X(enomem)                                                                                      \
    X(erlang)                                                                                      \
    X(erts_internal)                                                                               \
    X(escaped)                                                                                     \
    X(exact)                                                                                       \
    X(exception_from)                                                                              \
    X(exit)                                                                                        \
    X(exits)                                                                                       \
    X(extra)                                                                                       \
    X(flags)                                                                                       \
    X(foreign)                                                                                     \
    X(free_records)                                                                                \
    X(gen)                                                                                         \
    X(generation)                                                                                  \
    X(getting_linked)                                                                              \
    X(getting_unlinked)                                                                            \
    X(guardian)                                                                                    \
    X(hooked)                                                                                      \
    X(host)                                                                                        \
    X(hosts)                                                                                       \
    X(init)                                                                                        \
    X(init_it)                                                                                     \
    X(init_p)                                                                                      \
    X(initial_call)                                                                                \
    X(known)                                                                                       \
    X(lifetime_us)                                                                                 \
    X(link)                                                                                        \
    X(linked)                                                                                      \
    X(live)                                                                                        \
    X(lost)                                                                                        \
    X(max_bytes)                                                                                   \
    X(mfa_overflows)                                                                               \
    X(monitor)                                                                                     \
    X(monitored)                                                                                   \
    X(monitors)                                                                                    \
    X(no)                                                                                          \
    X(normal)                                                                                      \
    X(ok)                                                                                          \
    X(open)                                                                                        \
    X(orphans)                                                                                     \
    X(own)                                                                                         \
    X(parent)                                                                                      \
    X(peak_bytes)                                                                                  \
    X(pid)                                                                                         \
    X(pid_layout)                                                                                  \
    X(proc_lib)                                                                                    \
    X(process)                                                                                     \
    X(process_limit)                                                                               \
    X(reason)                                                                                      \
    X(register)                                                                                    \
    X(remote_link)                                                                                 \
    X(remove)                                                                                      \
    X(return_from)                                                                                 \
    X(root)                                                                                        \
    X(rooted)                                                                                      \
    X(roots)                                                                                       \
    X(runtime)                                                                                     \
    X(scope)                                                                                       \
    X(seeded)                                                                                      \
    X(seen)                                                                                        \
    X(service)                                                                                     \
    X(services)                                                                                    \
    X(session)                                                                                     \
    X(shutdown)                                                                                    \
    X(silent_failures)                                                                             \
    X(site)                                                                                        \
    X(spawn_init)                                                                                  \
    X(spawn_opt)                                                                                   \
    X(spawn_request)                                                                               \
    X(spawned)                                                                                     \
    X(spawner)                                                                                     \
    X(supervisor)                                                                                  \
    X(supervisors)                                                                                 \
    X(suspect)                                                                                     \
    X(suspects)                                                                                    \
    X(swept)                                                                                       \
    X(trace)                                                                                       \
    X(trace_status)                                                                                \
    X(undefined)                                                                                   \
    X(unheard_unknown)                                                                             \
    X(unknown)                                                                                     \
    X(unlink)                                                                                      \
    X(unregister)                                                                                  \
    X(yes)

#define LIN_ATOM_EXTERN(name) extern ERL_NIF_TERM am_##name;
LIN_ATOMS(LIN_ATOM_EXTERN)
/* Names that C, or a macro, keeps for itself. */
extern ERL_NIF_TERM am_any, am_error, am_true, am_false;

struct lin_nif {
    ErlNifMutex *maintenance; /* serialises open, close and all maintenance of the census */
    uint32_t sessions;        /* opened so far; under maintenance */
    struct lin_owner *owner;  /* the open session's, kept by us; under maintenance */
    uint32_t instances;       /* loads less unloads of this library's code; under the code lock */
};
extern struct lin_nif lin_nif;

/* query.c */
ERL_NIF_TERM lin_mfa_term(ErlNifEnv *env, const struct lin_census *census, uint32_t id);
#define LIN_ENTRY(name) ERL_NIF_TERM name(ErlNifEnv *, int, const ERL_NIF_TERM[]);
LIN_ENTRY(info_nif)
LIN_ENTRY(classify_nif)
LIN_ENTRY(mark_nif)
LIN_ENTRY(unmark_nif)
LIN_ENTRY(seed_nif)
LIN_ENTRY(sweep_nif)
LIN_ENTRY(pids_nif)
LIN_ENTRY(record_nif)
LIN_ENTRY(records_nif)
LIN_ENTRY(guardians_nif)
LIN_ENTRY(confirm_nif)
LIN_ENTRY(set_guardian_nif)
LIN_ENTRY(verdict_nif)
LIN_ENTRY(recent_nif)

/* tracer.c */
LIN_ENTRY(enabled_nif)
LIN_ENTRY(trace_nif)

/* node.c: parents on other nodes, packed; see census.h. 0 when the term is no such pid. */
uint64_t lin_foreign_pack(ErlNifEnv *env, ERL_NIF_TERM pid);
/* {Node, Number} */
ERL_NIF_TERM lin_foreign_term(ErlNifEnv *env, uint64_t packed);
/* The number that term_to_binary gives a pid; false when that cannot be read. */
bool lin_pid_number(ErlNifEnv *env, ERL_NIF_TERM pid, ERL_NIF_TERM *node, uint64_t *id,
                    uint64_t *serial);

static inline ERL_NIF_TERM lin_error(ErlNifEnv *env, ERL_NIF_TERM reason) {
    return enif_make_tuple2(env, am_error, reason);
}

#endif

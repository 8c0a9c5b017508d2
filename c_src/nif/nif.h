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
    X(apply)                                                                                       \
    X(async)                                                                                       \
    X(async_nolink)                                                                                \
    X(back)                                                                                        \
    X(birth)                                                                                       \
    X(births)                                                                                      \
    X(born)                                                                                        \
    X(buffer)                                                                                      \
    X(busy)                                                                                        \
    X(bytes)                                                                                       \
    X(call)                                                                                        \
    X(caller)                                                                                      \
    X(child)                                                                                       \
    X(closed)                                                                                      \
    X(closure)                                                                                     \
    X(critical)                                                                                    \
    X(dead)                                                                                        \
    X(demonitor)                                                                                   \
    X(discard)                                                                                     \
    X(dist_spawn_init)                                                                             \
    X(drain)                                                                                       \
    X(elsewhere)                                                                                   \
    X(enomem)                                                                                      \
    X(erlang)                                                                                      \
    X(erts_internal)                                                                               \
    X(escaped)                                                                                     \
    X(exact)                                                                                       \
    X(exception_from)                                                                              \
    X(exit)                                                                                        \
    X(exits)                                                                                       \
    X(extra)                                                                                       \
    X(failed)                                                                                      \
    X(file)                                                                                        \
    X(flags)                                                                                       \
    X(foreign)                                                                                     \
    X(free_records)                                                                                \
    X(gap)                                                                                         \
    X(gen)                                                                                         \
    X(generation)                                                                                  \
    X(getting_linked)                                                                              \
    X(getting_unlinked)                                                                            \
    X(gone)                                                                                        \
    X(guardian)                                                                                    \
    X(handle_call)                                                                                 \
    X(handle_info)                                                                                 \
    X(hooked)                                                                                      \
    X(host)                                                                                        \
    X(hosts)                                                                                       \
    X(ignore)                                                                                      \
    X(init)                                                                                        \
    X(init_ack)                                                                                    \
    X(init_fail)                                                                                   \
    X(init_it)                                                                                     \
    X(init_p)                                                                                      \
    X(initial_call)                                                                                \
    X(known)                                                                                       \
    X(latency)                                                                                     \
    X(lifetime_us)                                                                                 \
    X(line)                                                                                        \
    X(link)                                                                                        \
    X(linked)                                                                                      \
    X(live)                                                                                        \
    X(lost)                                                                                        \
    X(match_spec_result)                                                                           \
    X(max_bytes)                                                                                   \
    X(mfa_overflows)                                                                               \
    X(monitor)                                                                                     \
    X(monitored)                                                                                   \
    X(monitors)                                                                                    \
    X(name)                                                                                        \
    X(no)                                                                                          \
    X(normal)                                                                                      \
    X(off)                                                                                         \
    X(ok)                                                                                          \
    X(on)                                                                                          \
    X(open)                                                                                        \
    X(orphans)                                                                                     \
    X(others)                                                                                      \
    X(outliers_lost)                                                                               \
    X(overhead)                                                                                    \
    X(own)                                                                                         \
    X(parent)                                                                                      \
    X(peak_bytes)                                                                                  \
    X(pid)                                                                                         \
    X(pid_layout)                                                                                  \
    X(proc_lib)                                                                                    \
    X(process)                                                                                     \
    X(process_limit)                                                                               \
    X(queue)                                                                                       \
    X(reason)                                                                                      \
    X(register)                                                                                    \
    X(remote_link)                                                                                 \
    X(remove)                                                                                      \
    X(restart_ack)                                                                                 \
    X(restart_birth)                                                                               \
    X(restart_child)                                                                               \
    X(return_from)                                                                                 \
    X(ring)                                                                                        \
    X(root)                                                                                        \
    X(rooted)                                                                                      \
    X(roots)                                                                                       \
    X(runtime)                                                                                     \
    X(scope)                                                                                       \
    X(scope_overflows)                                                                             \
    X(seeded)                                                                                      \
    X(seen)                                                                                        \
    X(series)                                                                                      \
    X(service)                                                                                     \
    X(services)                                                                                    \
    X(session)                                                                                     \
    X(shutdown)                                                                                    \
    X(silent_failures)                                                                             \
    X(site)                                                                                        \
    X(site_overflows)                                                                              \
    X(sites)                                                                                       \
    X(spawn_init)                                                                                  \
    X(spawn_opt)                                                                                   \
    X(spawn_request)                                                                               \
    X(spawned)                                                                                     \
    X(spawner)                                                                                     \
    X(start_child)                                                                                 \
    X(start_link)                                                                                  \
    X(start_task)                                                                                  \
    X(starts)                                                                                      \
    X(stop_latency)                                                                                \
    X(stop_overhead)                                                                               \
    X(supervisor)                                                                                  \
    X(supervisors)                                                                                 \
    X(suspect)                                                                                     \
    X(suspects)                                                                                    \
    X(swept)                                                                                       \
    X(target_ns)                                                                                   \
    X(terminate_child)                                                                             \
    X(times)                                                                                       \
    X(trace)                                                                                       \
    X(trace_status)                                                                                \
    X(undefined)                                                                                   \
    X(unfinished)                                                                                  \
    X(unheard_unknown)                                                                             \
    X(unknown)                                                                                     \
    X(unlink)                                                                                      \
    X(unregister)                                                                                  \
    X(work)                                                                                        \
    X(yes)

#define LIN_ATOM_EXTERN(name) extern ERL_NIF_TERM am_##name;
LIN_ATOMS(LIN_ATOM_EXTERN)
/* Names that C, or a macro, keeps for itself. */
extern ERL_NIF_TERM am_any, am_error, am_true, am_false, am_task, am_agent, am_exit_signal;
extern ERL_NIF_TERM am_task_supervisor, am_elixir_supervisor, am_dynamic_supervisor;

struct lin_nif {
    ErlNifMutex *maintenance;   /* serialises open, close and all maintenance of the census */
    uint32_t sessions;          /* opened so far; under maintenance */
    struct lin_owner *owner;    /* the open session's, kept by us; under maintenance */
    _Atomic uint32_t instances; /* loads of the NIF less unloads, one at a time; relaxed */
};
extern struct lin_nif lin_nif;

/* lineage_nif.c */
/* The NIF's code and the driver share the library's globals: each opens it, the last closes it. */
int lin_library_open(void);
void lin_library_close(void);

/* event.c */
/* A number for an atom, the same ever after; 0 when there is no room for another. Any thread. */
uint32_t lin_name_id(uint64_t atom);
/* How many times there was none. */
uint64_t lin_names_lost(void);
/* The atom of such a number; 0 for 0, and for numbers that were never given. */
uint64_t lin_name_at(uint64_t id);
/* The atom of a name in UTF-8, at most 255 bytes; false when there is none so far. */
bool lin_atom_existing(ErlNifEnv *env, const char *name, size_t len, ERL_NIF_TERM *atom);

/* query.c */
/* Inside the gate with the open census, or NULL. */
struct lin_census *lin_enter(struct lin_thread **self);
/* In maintenance with the open census: leave by lin_maintenance_end, also when it is NULL. */
struct lin_census *lin_maintenance(struct lin_thread **self);
ERL_NIF_TERM lin_maintenance_end(ErlNifEnv *env, const struct lin_census *census,
                                 ERL_NIF_TERM answer);
ERL_NIF_TERM lin_mfa_term(ErlNifEnv *env, const struct lin_census *census, uint32_t id);
ERL_NIF_TERM lin_entry_map(ErlNifEnv *env, const struct lin_census *census,
                           const struct lin_entry *entry);
/* The names of a record's flags, as a list. */
ERL_NIF_TERM lin_flags_term(ErlNifEnv *env, uint32_t flags);
ERL_NIF_TERM lin_parent_term(ErlNifEnv *env, uint64_t parent, uint32_t flags);
ERL_NIF_TERM lin_dead_map(ErlNifEnv *env, const struct lin_census *census,
                          const struct lin_dead *dead);
/* The newest of a ring, newest first: free with enif_free. NULL without memory. In maintenance. */
struct lin_dead *lin_dead_read(const struct lin_census *census, enum lin_recent_ring which,
                               size_t count, size_t *read);
#define LIN_ENTRY(name) ERL_NIF_TERM name(ErlNifEnv *, int, const ERL_NIF_TERM[]);
LIN_ENTRY(info_nif)
LIN_ENTRY(classify_nif)
LIN_ENTRY(mark_nif)
LIN_ENTRY(unmark_nif)
LIN_ENTRY(named_nif)
LIN_ENTRY(pid_nif)
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
LIN_ENTRY(wrapper_nif)
LIN_ENTRY(sites_nif)
LIN_ENTRY(site_nif)

/* event.c */
LIN_ENTRY(events_nif)

/* ../driver/prepare.c */
LIN_ENTRY(journal_nif)
LIN_ENTRY(journal_drop_nif)

/* scope.c */
LIN_ENTRY(scope_nif)
LIN_ENTRY(scoped_nif)

/* population.c */
LIN_ENTRY(population_nif)

/* timing.c */
LIN_ENTRY(timing_nif)
LIN_ENTRY(timings_nif)
LIN_ENTRY(outliers_nif)

/* tracer.c */
LIN_ENTRY(enabled_nif)
LIN_ENTRY(trace_nif)

/* start.c: what a process was started to run, behind what the VM and the libraries put before it.
 */
struct lin_call {
    ERL_NIF_TERM module, function;
    uint32_t arity;
};
struct lin_start {
    struct lin_call call; /* as reports name it: a module's init for a behaviour */
    struct lin_call work; /* of a task or an agent: what it was given; else the same */
    ERL_NIF_TERM fun;     /* 0: none; then `work` says nothing more */
};
/* {M, F, Args | Arity}; false for anything else. */
bool lin_mfa_read(ErlNifEnv *env, ERL_NIF_TERM term, struct lin_call *mfa, ERL_NIF_TERM *args);
bool lin_nth(ErlNifEnv *env, ERL_NIF_TERM list, unsigned n, ERL_NIF_TERM *out);
/* Without `work` only the call is sure to be read. */
void lin_start_read(ErlNifEnv *env, ERL_NIF_TERM term, bool work, struct lin_start *start);

/* tracer.c */
/* What a supervisor turns to: a request, or the exit of a child. */
struct lin_turn {
    ERL_NIF_TERM request;
    uint64_t caller; /* who made the request; 0: nobody of this node, or it is none */
    uint64_t dead;   /* 0: no child's exit */
};
/* handle_call(Request, {Caller, Tag}, State) or handle_info({'EXIT', Child, Reason}, State). The
 * state is left alone. False: neither. */
bool lin_turn_read(ErlNifEnv *env, const struct lin_call *mfa, ERL_NIF_TERM args,
                   struct lin_turn *turn);

/* site.c: the id of the site of a start, as far as it does not depend on the parent; 0: none. */
uint32_t lin_start_site(ErlNifEnv *env, struct lin_census *census, const struct lin_start *start);
/* What a trace point of exact sites has told: `result` is that of its match spec. */
void lin_site_call(ErlNifEnv *env, struct lin_census *census, uint64_t caller, ERL_NIF_TERM called,
                   ERL_NIF_TERM result);
/* {Id, What, Frame}, or `undefined`: see lineage_nif:site(). */
ERL_NIF_TERM lin_site_term(ErlNifEnv *env, const struct lin_census *census, uint32_t id);

/* timing.c: what the hook and the trace points have told, where overhead is measured. Call birth
 * before the census knows the child, and death while it does. */
void lin_timing_call(ErlNifEnv *env, struct lin_census *census, struct lin_thread *self,
                     uint64_t pid, const struct lin_call *mfa, ERL_NIF_TERM args);
void lin_timing_return(ErlNifEnv *env, struct lin_census *census, uint64_t pid,
                       const struct lin_call *mfa, bool raised, ERL_NIF_TERM opts);
LIN_ASIDE void lin_timing_birth(struct lin_census *census, const struct lin_birth *birth);
LIN_ASIDE void lin_timing_death(ErlNifEnv *env, struct lin_census *census, uint64_t pid,
                                ERL_NIF_TERM reason);

/* node.c: parents on other nodes, packed; see census.h. 0 when the term is no such pid. */
LIN_ASIDE uint64_t lin_foreign_pack(ErlNifEnv *env, ERL_NIF_TERM pid);
/* {Node, Number} */
ERL_NIF_TERM lin_foreign_term(ErlNifEnv *env, uint64_t packed);
/* The atom of a node's index; 0 for one that was never given. Any thread. */
uint64_t lin_node_at(uint32_t index);
/* The number that term_to_binary gives a pid; false when that cannot be read. */
bool lin_pid_number(ErlNifEnv *env, ERL_NIF_TERM pid, ERL_NIF_TERM *node, uint64_t *id,
                    uint64_t *serial);

/* A pid of this node; false for anything else. */
static inline bool lin_pid_read(ErlNifEnv *env, ERL_NIF_TERM term, uint64_t *pid) {
    ErlNifPid local;
    if (!enif_get_local_pid(env, term, &local))
        return false;
    *pid = local.pid;
    return true;
}

static inline ERL_NIF_TERM lin_error(ErlNifEnv *env, ERL_NIF_TERM reason) {
    return enif_make_tuple2(env, am_error, reason);
}

#endif

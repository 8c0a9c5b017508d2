#include "nif.h"

/* What a process was started to run, read from the {M, F, Args} of its birth. Nothing is kept. */

bool lin_nth(ErlNifEnv *env, ERL_NIF_TERM list, unsigned n, ERL_NIF_TERM *out) {
    for (;; n--) {
        if (!enif_get_list_cell(env, list, out, &list))
            return false;
        if (n == 0)
            return true;
    }
}

bool lin_mfa_read(ErlNifEnv *env, ERL_NIF_TERM term, struct lin_call *mfa, ERL_NIF_TERM *args) {
    const ERL_NIF_TERM *tuple;
    int size;
    if (!enif_get_tuple(env, term, &size, &tuple) || size != 3 || !enif_is_atom(env, tuple[0]) ||
        !enif_is_atom(env, tuple[1]))
        return false;
    mfa->module = tuple[0];
    mfa->function = tuple[1];
    *args = tuple[2];
    unsigned arity;
    if (!enif_get_list_length(env, tuple[2], &arity) && !enif_get_uint(env, tuple[2], &arity))
        return false;
    mfa->arity = arity;
    return true;
}

/* The fun of an erlang:apply(Fun, Args); else nothing changes. */
static void read_applied(ErlNifEnv *env, const struct lin_call *call, ERL_NIF_TERM args,
                         ERL_NIF_TERM *fun) {
    ERL_NIF_TERM first;
    if (call->module == am_erlang && call->function == am_apply && call->arity == 2 &&
        lin_nth(env, args, 0, &first) && enif_is_fun(env, first))
        *fun = first;
}

/* A fun, or an {M, F, Args} that may apply one; else nothing changes. */
static void read_work(ErlNifEnv *env, ERL_NIF_TERM term, struct lin_start *start) {
    ERL_NIF_TERM args;
    struct lin_call mfa;
    if (enif_is_fun(env, term)) {
        start->fun = term;
    } else if (lin_mfa_read(env, term, &mfa, &args) && enif_is_list(env, args)) {
        start->work = mfa;
        read_applied(env, &mfa, args, &start->fun);
    }
}

/* gen:init_it(GenMod, Starter, Parent, [Name,] Mod, Args, Opts) runs Mod:init/1. */
static void through_gen(ErlNifEnv *env, ERL_NIF_TERM args, struct lin_start *start) {
    ERL_NIF_TERM module, arg;
    struct lin_call *call = &start->call;
    if (call->module != am_gen || call->function != am_init_it || call->arity < 6 ||
        call->arity > 7 || !lin_nth(env, args, call->arity - 3, &module) ||
        !enif_is_atom(env, module))
        return;
    unsigned last = call->arity - 2;
    *call = (struct lin_call){.module = module, .function = am_init, .arity = 1};
    start->work = *call;
    if (module == am_agent && lin_nth(env, args, last, &arg))
        read_work(env, arg, start);
}

/* Task.Supervised's functions get the task as the last {M, F, Args} of their arguments. */
static void through_task(ErlNifEnv *env, ERL_NIF_TERM args, struct lin_start *start) {
    ERL_NIF_TERM head;
    if (start->call.module != am_task)
        return;
    for (int i = 0; i < 8 && enif_get_list_cell(env, args, &head, &args); i++)
        read_work(env, head, start);
}

/* proc_lib:init_p(Parent, Ancestors, M, F, Args), or (Parent, Ancestors, Fun) */
static void through_proc_lib(ErlNifEnv *env, ERL_NIF_TERM *args, struct lin_start *start) {
    ERL_NIF_TERM module, function, inner, fun;
    unsigned arity;
    if (start->call.module != am_proc_lib || start->call.function != am_init_p)
        return;
    if (start->call.arity == 3 && lin_nth(env, *args, 2, &fun) && enif_is_fun(env, fun))
        start->fun = fun;
    if (start->call.arity != 5 || !lin_nth(env, *args, 2, &module) ||
        !lin_nth(env, *args, 3, &function) || !lin_nth(env, *args, 4, &inner) ||
        !enif_is_atom(env, module) || !enif_is_atom(env, function) ||
        !enif_get_list_length(env, inner, &arity))
        return;
    start->call = (struct lin_call){.module = module, .function = function, .arity = arity};
    *args = inner;
}

void lin_start_read(ErlNifEnv *env, ERL_NIF_TERM term, bool work, struct lin_start *start) {
    struct lin_call inner;
    ERL_NIF_TERM args = am_undefined, first;
    start->call = (struct lin_call){.module = am_undefined, .function = am_undefined};
    start->fun = 0;
    if (lin_mfa_read(env, term, &start->call, &args)) {
        if (start->call.module == am_erts_internal &&
            (start->call.function == am_spawn_init || start->call.function == am_dist_spawn_init) &&
            lin_nth(env, args, 0, &first) && lin_mfa_read(env, first, &inner, &args))
            start->call = inner;
        through_proc_lib(env, &args, start);
        if (work)
            read_applied(env, &start->call, args, &start->fun);
    }
    start->work = start->call;
    through_gen(env, args, start);
    if (work)
        through_task(env, args, start);
}

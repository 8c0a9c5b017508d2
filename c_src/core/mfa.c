#include "mfa.h"

#include "gate.h"
#include "spin.h"

#include <errno.h>
#include <string.h>

struct lin_mfas *lin_mfas_create(void) {
    struct lin_mfas *mfas = lin_gate.host->alloc(sizeof *mfas);
    if (mfas == NULL)
        return NULL;
    memset(mfas, 0, sizeof *mfas);
    atomic_flag_clear(&mfas->lock);
    return mfas;
}

void lin_mfas_destroy(struct lin_mfas *mfas) {
    if (mfas != NULL)
        lin_gate.host->free(mfas);
}

static uint32_t hash(uint64_t module, uint64_t function, uint32_t arity) {
    uint64_t h = (module * 0x9e3779b97f4a7c15u) ^ (function * 0xc2b2ae3d27d4eb4fu) ^ arity;
    h ^= h >> 29;
    return (uint32_t)(h * 0x9e3779b97f4a7c15u >> 40);
}

/* The slot that holds the key, or the first empty one on its way. Slot 0 is never used. */
static uint32_t find(struct lin_mfas *mfas, uint64_t module, uint64_t function, uint32_t arity,
                     bool *found) {
    uint32_t at = hash(module, function, arity);
    for (;; at++) {
        at &= LIN_MFA_SLOTS - 1;
        if (at == 0)
            continue;
        struct lin_mfa *slot = &mfas->slot[at];
        uint64_t there = atomic_load_explicit(&slot->module, memory_order_acquire);
        *found = there == module && slot->function == function && slot->arity == arity;
        if (*found || there == 0)
            return at;
    }
}

static uint32_t wildcard_class(const struct lin_mfas *mfas, uint64_t module, uint64_t function) {
    uint32_t class = 0;
    for (uint32_t i = 0; i < mfas->wildcards; i++)
        if (mfas->wildcard[i].module == module && mfas->wildcard[i].function == function)
            class |= mfas->wildcard[i].class;
    return class;
}

static uint32_t intern_locked(struct lin_mfas *mfas, uint64_t module, uint64_t function,
                              uint32_t arity) {
    bool found;
    uint32_t at = find(mfas, module, function, arity, &found);
    if (found)
        return at;
    if (mfas->used == LIN_MFA_FULL)
        return 0;
    struct lin_mfa *slot = &mfas->slot[at];
    slot->function = function;
    slot->arity = arity;
    atomic_store_explicit(&slot->class, wildcard_class(mfas, module, function),
                          memory_order_relaxed);
    atomic_store_explicit(&slot->module, module, memory_order_release); /* pairs with find */
    mfas->used++;
    return at;
}

uint32_t lin_mfa_intern(struct lin_mfas *mfas, uint64_t module, uint64_t function, uint32_t arity) {
    bool found;
    uint32_t at = find(mfas, module, function, arity, &found);
    if (found)
        return at;
    lin_spin_lock(&mfas->lock);
    at = intern_locked(mfas, module, function, arity);
    lin_spin_unlock(&mfas->lock);
    if (at == 0)
        atomic_fetch_add_explicit(&mfas->overflows, 1, memory_order_relaxed);
    return at;
}

const struct lin_mfa *lin_mfa_at(const struct lin_mfas *mfas, uint32_t id) {
    if (id == 0 || id >= LIN_MFA_SLOTS)
        return NULL;
    const struct lin_mfa *slot = &mfas->slot[id];
    return atomic_load_explicit(&slot->module, memory_order_acquire) != 0 ? slot : NULL;
}

static void classify_known(struct lin_mfas *mfas, uint64_t module, uint64_t function,
                           uint32_t class) {
    for (uint32_t at = 1; at < LIN_MFA_SLOTS; at++) {
        struct lin_mfa *slot = &mfas->slot[at];
        if (atomic_load_explicit(&slot->module, memory_order_relaxed) == module &&
            slot->function == function)
            atomic_fetch_or_explicit(&slot->class, class, memory_order_relaxed);
    }
}

int lin_mfa_classify(struct lin_mfas *mfas, uint64_t module, uint64_t function, uint32_t arity,
                     uint32_t class) {
    int result = 0;
    lin_spin_lock(&mfas->lock);
    if (arity == LIN_ARITY_ANY) {
        if (mfas->wildcards == LIN_MFA_WILDCARDS) {
            result = -ENOSPC;
            goto cleanup;
        }
        mfas->wildcard[mfas->wildcards].module = module;
        mfas->wildcard[mfas->wildcards].function = function;
        mfas->wildcard[mfas->wildcards++].class = class;
        classify_known(mfas, module, function, class);
    } else {
        uint32_t at = intern_locked(mfas, module, function, arity);
        if (at == 0)
            result = -ENOSPC;
        else
            atomic_fetch_or_explicit(&mfas->slot[at].class, class, memory_order_relaxed);
    }
cleanup:
    lin_spin_unlock(&mfas->lock);
    return result;
}

/*
 * mfa.h - module, function and arity as a 32-bit id, with what processes that start there are.
 *
 * Model: a fixed open-addressed table, filled once per distinct M:F/A and never emptied before
 * destroy; the id is the slot. Id 0 stands for "another one": the table was full (then counted).
 * Each entry has class bits (LIN_CLASS_*): a birth takes its class from there at no extra cost.
 * Atoms are kept as terms: an atom never goes away.
 * Threads: lookups are wait-free in any thread, a new entry takes a short spin lock.
 * Ownership: create/destroy own the memory, given by the gate's host.
 */
#ifndef LIN_MFA_H
#define LIN_MFA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_MFA_SLOTS 16384u
#define LIN_MFA_FULL (LIN_MFA_SLOTS / 4 * 3)
#define LIN_MFA_WILDCARDS 256u
#define LIN_ARITY_ANY UINT32_MAX

struct lin_mfa {
    _Atomic uint64_t module; /* 0: empty. Written last (release), read first (acquire). */
    uint64_t function;
    uint32_t arity;
    _Atomic uint32_t class; /* relaxed: a class given late holds for later births */
};

struct lin_mfas {
    atomic_flag lock; /* guards all below but entries that are published */
    uint32_t used;
    uint32_t wildcards;
    _Atomic uint64_t overflows; /* births whose M:F/A found no room */
    struct {
        uint64_t module, function;
        uint32_t class;
    } wildcard[LIN_MFA_WILDCARDS];
    struct lin_mfa slot[LIN_MFA_SLOTS];
};

/* NULL when there is no memory. */
struct lin_mfas *lin_mfas_create(void);
void lin_mfas_destroy(struct lin_mfas *mfas);

/* The id of M:F/A, a new one if need be; 0 when the table is full. */
uint32_t lin_mfa_intern(struct lin_mfas *mfas, uint64_t module, uint64_t function, uint32_t arity);

/* The entry of an id: NULL for 0 and for ids that were never given. */
const struct lin_mfa *lin_mfa_at(const struct lin_mfas *mfas, uint32_t id);

static inline uint32_t lin_mfa_class(const struct lin_mfas *mfas, uint32_t id) {
    return atomic_load_explicit(&mfas->slot[id].class, memory_order_relaxed);
}

/*
 * Adds `class` bits to M:F/A, or to M:F of any arity (LIN_ARITY_ANY), for what is interned already
 * and what will be. 0, or -ENOSPC.
 */
int lin_mfa_classify(struct lin_mfas *mfas, uint64_t module, uint64_t function, uint32_t arity,
                     uint32_t class);

#endif

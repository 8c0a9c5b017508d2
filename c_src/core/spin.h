/*
 * spin.h - a lock for some ten loads and stores.
 *
 * Model: a flag that is taken by turning, and now and then by letting another thread run: its
 * holder may have been preempted by the system. Threads: any; it does not nest. Ownership: the
 * caller's.
 */
#ifndef LIN_SPIN_H
#define LIN_SPIN_H

#include <sched.h>
#include <stdatomic.h>

/* One turn of waiting; `turns` starts at 0. */
static inline void lin_spin_relax(unsigned *turns) {
    if (++*turns % 128 == 0)
        sched_yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static inline void lin_spin_lock(atomic_flag *flag) {
    unsigned turns = 0;
    /* acquire: pairs with the release in lin_spin_unlock. */
    while (atomic_flag_test_and_set_explicit(flag, memory_order_acquire))
        lin_spin_relax(&turns);
}

static inline void lin_spin_unlock(atomic_flag *flag) {
    atomic_flag_clear_explicit(flag, memory_order_release);
}

#endif

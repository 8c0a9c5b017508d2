/*
 * pool.h - where the census's records come from.
 *
 * Model: a thread takes and gives records from a stack of its own; beyond it, batches of 64 come
 * from and go to the chunks' own free lists, under one lock. A chunk whose records are all on its
 * own list can be freed; trim makes such chunks by moving records. Threads: take and give in the
 * owner of `self`; trim in maintenance (census.h). Ownership: all memory is the census's.
 */
#ifndef LIN_POOL_H
#define LIN_POOL_H

#include "census.h"

#define LIN_NO_RECORD UINT32_MAX
#define LIN_INDEX_LOCK (1u << 31)

/* A free record's number, or LIN_NO_RECORD: no memory, or max_bytes reached. */
uint32_t lin_pool_take(struct lin_census *census, struct lin_thread *self);
/* Gives a record back; its pid is 0 already. */
void lin_pool_give(struct lin_census *census, struct lin_thread *self, uint32_t number);
/* Frees all chunks. No thread may be inside the gate. */
void lin_pool_destroy(struct lin_census *census);
/* Adds to bytes and peak_bytes. */
void lin_pool_account(struct lin_census *census, uint64_t bytes);
/* The same for memory that is about to be taken; false when that would pass max_bytes. */
bool lin_pool_reserve(struct lin_census *census, uint64_t bytes);
/* Of memory that was given back. */
void lin_pool_release(struct lin_census *census, uint64_t bytes);

/* Locks an index entry and returns its value: 0, or a record's number + 1. */
uint32_t lin_index_lock(_Atomic uint32_t *entry);
/* The same without waiting: false unless the entry is free and has this value. */
static inline bool lin_index_try(_Atomic uint32_t *entry, uint32_t value) {
    return atomic_compare_exchange_strong_explicit(entry, &value, value | LIN_INDEX_LOCK,
                                                   memory_order_acquire, memory_order_relaxed);
}
static inline void lin_index_unlock(_Atomic uint32_t *entry, uint32_t value) {
    atomic_store_explicit(entry, value, memory_order_release); /* pairs with lin_index_lock */
}

#endif

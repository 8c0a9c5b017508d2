#include "pool.h"

#include "spin.h"

#include <stdlib.h>
#include <string.h>

#define PAUSE_US 200u
#define MOVES_PER_TRIM 4096u /* chunks; the next sweep goes on */

uint32_t lin_index_lock(_Atomic uint32_t *entry) {
    unsigned turns = 0;
    for (;;) {
        uint32_t value = atomic_load_explicit(entry, memory_order_relaxed);
        if ((value & LIN_INDEX_LOCK) == 0 &&
            atomic_compare_exchange_weak_explicit(entry, &value, value | LIN_INDEX_LOCK,
                                                  memory_order_acquire, memory_order_relaxed))
            return value;
        lin_spin_relax(&turns);
    }
}

void lin_pool_account(struct lin_census *census, uint64_t bytes) {
    uint64_t now = atomic_fetch_add_explicit(&census->bytes, bytes, memory_order_relaxed) + bytes;
    uint64_t peak = atomic_load_explicit(&census->peak_bytes, memory_order_relaxed);
    while (now > peak &&
           !atomic_compare_exchange_weak_explicit(&census->peak_bytes, &peak, now,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

bool lin_pool_reserve(struct lin_census *census, uint64_t bytes) {
    uint64_t held = atomic_load_explicit(&census->bytes, memory_order_relaxed) +
                    atomic_load_explicit(&lin_gate.thread_bytes, memory_order_relaxed);
    if (held + bytes > census->max_bytes)
        return false;
    lin_pool_account(census, bytes);
    return true;
}

void lin_pool_release(struct lin_census *census, uint64_t bytes) {
    atomic_fetch_sub_explicit(&census->bytes, bytes, memory_order_relaxed);
}

static void list_locked(struct lin_census *census, struct lin_chunk *chunk) {
    if (chunk->listed)
        return;
    chunk->listed = true;
    chunk->prev = NULL;
    chunk->next = census->partial;
    if (census->partial != NULL)
        census->partial->prev = chunk;
    census->partial = chunk;
}

static void unlist_locked(struct lin_census *census, struct lin_chunk *chunk) {
    if (!chunk->listed)
        return;
    chunk->listed = false;
    if (chunk->prev != NULL)
        chunk->prev->next = chunk->next;
    else
        census->partial = chunk->next;
    if (chunk->next != NULL)
        chunk->next->prev = chunk->prev;
}

static void push_locked(struct lin_chunk *chunk, uint32_t i) {
    atomic_store_explicit(&chunk->record[i].spawner, chunk->free_head, memory_order_relaxed);
    chunk->free_head = i;
    chunk->free_count++;
}

static uint32_t pop_locked(struct lin_chunk *chunk) {
    uint32_t i = chunk->free_head;
    chunk->free_head = atomic_load_explicit(&chunk->record[i].spawner, memory_order_relaxed);
    chunk->free_count--;
    return chunk->number * LIN_CHUNK + i;
}

static uint32_t vacant_number_locked(const struct lin_census *census) {
    if (census->chunks_used < census->chunks_max)
        for (uint32_t n = 0; n < census->chunks_max; n++)
            if (atomic_load_explicit(&census->chunks[n], memory_order_relaxed) == NULL)
                return n;
    return LIN_NO_RECORD;
}

static struct lin_chunk *chunk_make_locked(struct lin_census *census) {
    size_t bytes = sizeof(struct lin_chunk) + 64;
    uint32_t number = vacant_number_locked(census);
    if (number == LIN_NO_RECORD || !lin_pool_reserve(census, bytes))
        return NULL;
    void *memory = lin_gate.host->alloc(bytes);
    if (memory == NULL) {
        lin_pool_release(census, bytes);
        return NULL;
    }
    struct lin_chunk *chunk = (struct lin_chunk *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    memset(chunk, 0, sizeof *chunk);
    chunk->memory = memory;
    chunk->number = number;
    chunk->free_head = LIN_CHUNK;
    for (uint32_t i = LIN_CHUNK; i-- > 0;)
        push_locked(chunk, i);
    atomic_fetch_add_explicit(&census->chunks_used, 1, memory_order_relaxed);
    list_locked(census, chunk);
    atomic_store_explicit(&census->chunks[number], chunk, memory_order_release);
    return chunk;
}

static void chunk_free(struct lin_census *census, struct lin_chunk *chunk) {
    lin_pool_release(census, sizeof *chunk + 64);
    lin_gate.host->free(chunk->memory);
}

uint32_t lin_pool_take(struct lin_census *census, struct lin_thread *self) {
    if (__builtin_expect(self->free_count == 0, 0)) {
        lin_spin_lock(&census->pool_lock);
        while (self->free_count < LIN_BATCH) {
            struct lin_chunk *chunk = census->partial;
            if (chunk == NULL && self->free_count == 0)
                chunk = chunk_make_locked(census);
            if (chunk == NULL)
                break;
            while (chunk->free_count > 0 && self->free_count < LIN_BATCH)
                self->free[self->free_count++] = pop_locked(chunk);
            if (chunk->free_count == 0)
                unlist_locked(census, chunk);
        }
        lin_spin_unlock(&census->pool_lock);
        if (self->free_count == 0)
            return LIN_NO_RECORD;
    }
    return self->free[--self->free_count];
}

static void give_locked(struct lin_census *census, uint32_t number) {
    struct lin_chunk *chunk =
        atomic_load_explicit(&census->chunks[number / LIN_CHUNK], memory_order_relaxed);
    push_locked(chunk, number % LIN_CHUNK);
    list_locked(census, chunk);
}

void lin_pool_give(struct lin_census *census, struct lin_thread *self, uint32_t number) {
    if (__builtin_expect(self->free_count == LIN_LOCAL_FREE, 0)) {
        lin_spin_lock(&census->pool_lock);
        for (uint32_t i = 0; i < LIN_BATCH; i++) /* the coldest go */
            give_locked(census, self->free[i]);
        lin_spin_unlock(&census->pool_lock);
        self->free_count -= LIN_BATCH;
        memmove(self->free, self->free + LIN_BATCH, self->free_count * sizeof self->free[0]);
    }
    self->free[self->free_count++] = number;
}

void lin_pool_destroy(struct lin_census *census) {
    for (uint32_t n = 0; n < census->chunks_max; n++) {
        struct lin_chunk *chunk =
            atomic_exchange_explicit(&census->chunks[n], NULL, memory_order_relaxed);
        if (chunk != NULL)
            chunk_free(census, chunk);
    }
}

/* Puts what a thread keeps of this chunk back on the chunk's list. The gate is paused. */
static void reclaim_local_locked(struct lin_chunk *chunk, struct lin_thread *thread) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < thread->free_count; i++) {
        uint32_t number = thread->free[i];
        if (number / LIN_CHUNK == chunk->number)
            push_locked(chunk, number % LIN_CHUNK);
        else
            thread->free[kept++] = number;
    }
    thread->free_count = kept;
}

/* Moves a record to a fresh number. The gate is paused: nobody writes, only maintenance reads. */
static void move_record(struct lin_census *census, struct lin_chunk *from, uint32_t i,
                        uint32_t number) {
    struct lin_record *old = &from->record[i];
    uint64_t pid = atomic_load_explicit(&old->pid, memory_order_relaxed);
    memcpy((void *)lin_census_record(census, number), (const void *)old, sizeof *old);
    atomic_store_explicit(lin_census_entry(census, pid), number + 1, memory_order_release);
    atomic_store_explicit(&old->pid, 0, memory_order_relaxed);
}

static uint32_t take_for_move_locked(struct lin_census *census) {
    struct lin_chunk *chunk = census->partial;
    if (chunk == NULL)
        return LIN_NO_RECORD;
    uint32_t number = pop_locked(chunk);
    if (chunk->free_count == 0)
        unlist_locked(census, chunk);
    return number;
}

/*
 * Empties an unlisted chunk. It may keep some records when there is no room elsewhere: then it goes
 * back to the list. Returns true when it is empty.
 */
static bool evacuate_paused(struct lin_census *census, struct lin_chunk *chunk) {
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next)
        if (atomic_load_explicit(&thread->session, memory_order_relaxed) == census->session)
            reclaim_local_locked(chunk, thread);
    for (uint32_t i = 0; i < LIN_CHUNK && chunk->free_count < LIN_CHUNK; i++) {
        if (atomic_load_explicit(&chunk->record[i].pid, memory_order_relaxed) == 0)
            continue;
        uint32_t number = take_for_move_locked(census);
        if (number == LIN_NO_RECORD)
            break;
        move_record(census, chunk, i, number);
        push_locked(chunk, i);
    }
    return chunk->free_count == LIN_CHUNK;
}

/* One chunk, emptied and freed with everybody outside the gate. False: try again another time. */
static bool evacuate(struct lin_census *census, struct lin_chunk *chunk) {
    if (!lin_gate_pause(PAUSE_US))
        return false;
    lin_spin_lock(&census->pool_lock);
    unlist_locked(census, chunk);
    bool empty = evacuate_paused(census, chunk);
    if (empty) {
        atomic_store_explicit(&census->chunks[chunk->number], NULL, memory_order_relaxed);
        atomic_fetch_sub_explicit(&census->chunks_used, 1, memory_order_relaxed);
    } else if (chunk->free_count > 0) {
        list_locked(census, chunk);
    }
    lin_spin_unlock(&census->pool_lock);
    lin_gate_resume();
    if (empty)
        chunk_free(census, chunk);
    return empty;
}

static int emptiest_first(const void *left, const void *right) {
    uint32_t l = (*(struct lin_chunk *const *)left)->free_count;
    uint32_t r = (*(struct lin_chunk *const *)right)->free_count;
    return l < r ? 1 : l > r ? -1 : 0;
}

/* All chunks by how empty they are; the list of partial ones is laid anew, the fullest first. */
static uint32_t sort_chunks(struct lin_census *census, struct lin_chunk **out) {
    uint32_t n = 0;
    lin_spin_lock(&census->pool_lock);
    for (uint32_t i = 0; i < census->chunks_max; i++) {
        struct lin_chunk *chunk = atomic_load_explicit(&census->chunks[i], memory_order_relaxed);
        if (chunk != NULL)
            out[n++] = chunk;
    }
    qsort(out, n, sizeof out[0], emptiest_first);
    census->partial = NULL;
    for (uint32_t i = 0; i < n; i++) {
        out[i]->listed = false;
        if (out[i]->free_count > 0)
            list_locked(census, out[i]);
    }
    lin_spin_unlock(&census->pool_lock);
    return n;
}

void lin_census_trim(struct lin_census *census, struct lin_thread *self) {
    (void)self;
    struct lin_totals totals;
    lin_census_totals(census, &totals);
    if (totals.free_records <= census->slack_records ||
        atomic_load_explicit(&census->pinned, memory_order_relaxed))
        return;
    uint64_t surplus = (totals.free_records - census->slack_records) / LIN_CHUNK;
    struct lin_chunk **chunks = lin_gate.host->alloc(census->chunks_max * sizeof *chunks);
    if (chunks == NULL)
        return;
    uint32_t n = sort_chunks(census, chunks);
    uint32_t failed = 0;
    for (uint32_t i = 0; i < n && surplus > 0 && i < MOVES_PER_TRIM && failed < 64; i++) {
        if (evacuate(census, chunks[i]))
            surplus--;
        else
            failed++;
    }
    lin_gate.host->free(chunks);
}

#include "recent.h"

#include "gate.h"

#include <stdlib.h>
#include <string.h>

void lin_recent_push(struct lin_thread *self, enum lin_recent_ring which,
                     const struct lin_dead *dead) {
    struct lin_recent *ring = atomic_load_explicit(&self->recent[which], memory_order_relaxed);
    if (ring == NULL) {
        ring = lin_gate.host->alloc(sizeof *ring);
        if (ring == NULL)
            return;
        memset(ring, 0, sizeof *ring);
        atomic_fetch_add_explicit(&lin_gate.thread_bytes, sizeof *ring, memory_order_relaxed);
        atomic_store_explicit(&self->recent[which], ring,
                              memory_order_release); /* pairs with read */
    }
    uint64_t word[LIN_DEAD_WORDS] = {0};
    memcpy(word, dead, sizeof *dead);
    uint32_t at = ring->at;
    uint32_t seq = atomic_load_explicit(&ring->slot[at].seq, memory_order_relaxed);
    atomic_store_explicit(&ring->slot[at].seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < LIN_DEAD_WORDS; i++)
        atomic_store_explicit(&ring->slot[at].word[i], word[i], memory_order_relaxed);
    atomic_store_explicit(&ring->slot[at].seq, seq + 2, memory_order_release);
    ring->at = at + 1 == LIN_RECENT ? 0 : at + 1;
}

static size_t read_ring(const struct lin_recent *ring, struct lin_dead *out, size_t room) {
    size_t n = 0;
    for (size_t i = 0; i < LIN_RECENT && n < room; i++) {
        uint32_t seq = atomic_load_explicit(&ring->slot[i].seq, memory_order_acquire);
        if (seq == 0 || (seq & 1) != 0)
            continue;
        uint64_t word[LIN_DEAD_WORDS] = {0};
        for (size_t w = 0; w < LIN_DEAD_WORDS; w++)
            word[w] = atomic_load_explicit(&ring->slot[i].word[w], memory_order_relaxed);
        memcpy(&out[n], word, sizeof out[n]);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&ring->slot[i].seq, memory_order_relaxed) == seq)
            n++;
    }
    return n;
}

static int newest_first(const void *left, const void *right) {
    uint64_t l = ((const struct lin_dead *)left)->death;
    uint64_t r = ((const struct lin_dead *)right)->death;
    return l < r ? 1 : l > r ? -1 : 0;
}

size_t lin_recent_read(uint32_t session, enum lin_recent_ring which, struct lin_dead *out,
                       size_t out_len, size_t count) {
    size_t n = 0;
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next) {
        if (atomic_load_explicit(&thread->session, memory_order_acquire) != session)
            continue;
        struct lin_recent *ring =
            atomic_load_explicit(&thread->recent[which], memory_order_acquire);
        if (ring != NULL)
            n += read_ring(ring, out + n, out_len - n);
    }
    qsort(out, n, sizeof *out, newest_first);
    return n < count ? n : count;
}

size_t lin_recent_rings(enum lin_recent_ring which) {
    size_t n = 0;
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next)
        if (atomic_load_explicit(&thread->recent[which], memory_order_relaxed) != NULL)
            n++;
    return n;
}

void lin_recent_free_all(void) {
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next)
        for (int which = 0; which < LIN_RINGS; which++) {
            struct lin_recent *ring =
                atomic_exchange_explicit(&thread->recent[which], NULL, memory_order_acquire);
            if (ring == NULL)
                continue;
            lin_gate.host->free(ring);
            atomic_fetch_sub_explicit(&lin_gate.thread_bytes, sizeof *ring, memory_order_relaxed);
        }
}

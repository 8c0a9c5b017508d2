#include "scopes.h"

#include "clock.h"
#include "gate.h"
#include "spin.h"

#include <stddef.h>
#include <string.h>

#define SLOTS 4096u /* of each table, a power of two */
#define WINDOW 16u

struct slot {
    uint64_t pid; /* 0: free */
    uint64_t ticks;
    uint32_t scope;
    struct lin_frame frame;
};

struct lin_scopes {
    atomic_flag lock; /* guards all below */
    _Atomic uint64_t lost;
    struct slot serving[SLOTS], heir[SLOTS];
};

struct lin_scopes *lin_scopes_create(void) {
    struct lin_scopes *scopes = lin_gate.host->alloc(sizeof *scopes);
    if (scopes == NULL)
        return NULL;
    memset(scopes, 0, sizeof *scopes);
    atomic_flag_clear(&scopes->lock);
    return scopes;
}

void lin_scopes_destroy(struct lin_scopes *scopes) {
    if (scopes != NULL)
        lin_gate.host->free(scopes);
}

uint64_t lin_scopes_bytes(void) { return sizeof(struct lin_scopes); }

static struct slot *slot_at(struct slot *table, uint64_t pid, uint32_t i) {
    return &table[((uint32_t)(pid * 0x9e3779b97f4a7c15u >> 40) + i) & (SLOTS - 1)];
}

static struct slot *find(struct slot *table, uint64_t pid) {
    for (uint32_t i = 0; i < WINDOW; i++)
        if (slot_at(table, pid, i)->pid == pid)
            return slot_at(table, pid, i);
    return NULL;
}

/* `env` NULL: a dead process's entry is as good as a live one's. */
static void put(struct lin_scopes *scopes, struct slot *table, void *env, uint64_t pid,
                uint32_t scope, const struct lin_frame *frame) {
    struct slot *room = find(table, pid);
    for (uint32_t i = 0; i < WINDOW && room == NULL; i++)
        if (slot_at(table, pid, i)->pid == 0)
            room = slot_at(table, pid, i);
    for (uint32_t i = 0; i < WINDOW && room == NULL && env != NULL; i++)
        if (!lin_gate.host->is_alive(env, slot_at(table, pid, i)->pid))
            room = slot_at(table, pid, i);
    if (room == NULL) {
        room = slot_at(table, pid, 0);
        for (uint32_t i = 1; i < WINDOW; i++)
            if (slot_at(table, pid, i)->ticks < room->ticks)
                room = slot_at(table, pid, i);
        if (env != NULL)
            atomic_fetch_add_explicit(&scopes->lost, 1, memory_order_relaxed);
    }
    *room = (struct slot){.pid = pid, .ticks = lin_clock_ticks(), .scope = scope, .frame = *frame};
}

static bool read_slot(const struct slot *slot, uint32_t *scope, struct lin_frame *frame) {
    if (slot == NULL)
        return false;
    *scope = slot->scope;
    *frame = slot->frame;
    return true;
}

void lin_serving_put(struct lin_scopes *scopes, void *env, uint64_t supervisor, uint32_t scope,
                     const struct lin_frame *frame) {
    lin_spin_lock(&scopes->lock);
    put(scopes, scopes->serving, env, supervisor, scope, frame);
    lin_spin_unlock(&scopes->lock);
}

bool lin_serving_read(struct lin_scopes *scopes, uint64_t supervisor, uint32_t *scope,
                      struct lin_frame *frame) {
    lin_spin_lock(&scopes->lock);
    bool serves = read_slot(find(scopes->serving, supervisor), scope, frame);
    lin_spin_unlock(&scopes->lock);
    return serves;
}

void lin_serving_drop(struct lin_scopes *scopes, uint64_t supervisor) {
    lin_spin_lock(&scopes->lock);
    struct slot *slot = find(scopes->serving, supervisor);
    if (slot != NULL)
        slot->pid = 0;
    lin_spin_unlock(&scopes->lock);
}

void lin_heir_put(struct lin_scopes *scopes, uint64_t child, uint32_t scope,
                  const struct lin_frame *frame) {
    lin_spin_lock(&scopes->lock);
    put(scopes, scopes->heir, NULL, child, scope, frame);
    lin_spin_unlock(&scopes->lock);
}

bool lin_heir_take(struct lin_scopes *scopes, uint64_t child, uint32_t *scope,
                   struct lin_frame *frame) {
    lin_spin_lock(&scopes->lock);
    struct slot *slot = find(scopes->heir, child);
    bool left = read_slot(slot, scope, frame);
    if (left)
        slot->pid = 0;
    lin_spin_unlock(&scopes->lock);
    return left;
}

uint64_t lin_scopes_lost(const struct lin_scopes *scopes) {
    return atomic_load_explicit(&scopes->lost, memory_order_relaxed);
}

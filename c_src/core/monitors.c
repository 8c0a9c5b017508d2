#include "monitors.h"

#include "gate.h"
#include "spin.h"

#include <stddef.h>
#include <string.h>

#define NODES 32768u
#define BUCKETS 16384u
#define NONE UINT32_MAX

struct node {
    uint64_t ref; /* 0: pending */
    uint64_t watcher;
    uint64_t target;    /* 0: a spawn's, not born yet */
    uint32_t key_next;  /* in the bucket of ref, while pending of watcher; or of the free list */
    uint32_t goal_next; /* in the bucket of target */
};

struct lin_monitors {
    atomic_flag lock; /* guards all below */
    uint32_t free;
    uint32_t by_key[BUCKETS];
    uint32_t by_target[BUCKETS];
    struct node node[NODES];
};

static uint32_t bucket(uint64_t key) {
    return (uint32_t)(key * 0x9e3779b97f4a7c15u >> 50) & (BUCKETS - 1);
}

static uint32_t key_bucket(const struct node *node) {
    return bucket(node->ref != 0 ? node->ref : node->watcher);
}

struct lin_monitors *lin_monitors_create(void) {
    struct lin_monitors *monitors = lin_gate.host->alloc(sizeof *monitors);
    if (monitors == NULL)
        return NULL;
    memset(monitors, 0xff, sizeof *monitors); /* every bucket NONE */
    atomic_flag_clear(&monitors->lock);
    for (uint32_t i = 0; i < NODES; i++)
        monitors->node[i].key_next = i + 1 == NODES ? NONE : i + 1;
    monitors->free = 0;
    return monitors;
}

void lin_monitors_destroy(struct lin_monitors *monitors) {
    if (monitors != NULL)
        lin_gate.host->free(monitors);
}

uint64_t lin_monitors_bytes(void) { return sizeof(struct lin_monitors); }

static void link_key(struct lin_monitors *monitors, uint32_t i) {
    uint32_t *head = &monitors->by_key[key_bucket(&monitors->node[i])];
    monitors->node[i].key_next = *head;
    *head = i;
}

static void link_target(struct lin_monitors *monitors, uint32_t i) {
    uint32_t *head = &monitors->by_target[bucket(monitors->node[i].target)];
    monitors->node[i].goal_next = *head;
    *head = i;
}

static void unlink_key(struct lin_monitors *monitors, uint32_t i) {
    uint32_t *at = &monitors->by_key[key_bucket(&monitors->node[i])];
    while (*at != i)
        at = &monitors->node[*at].key_next;
    *at = monitors->node[i].key_next;
}

static void unlink_target(struct lin_monitors *monitors, uint32_t i) {
    if (monitors->node[i].target == 0)
        return;
    uint32_t *at = &monitors->by_target[bucket(monitors->node[i].target)];
    while (*at != i)
        at = &monitors->node[*at].goal_next;
    *at = monitors->node[i].goal_next;
}

static void drop(struct lin_monitors *monitors, uint32_t i) {
    unlink_key(monitors, i);
    unlink_target(monitors, i);
    monitors->node[i].key_next = monitors->free;
    monitors->free = i;
}

static uint32_t find_pending(const struct lin_monitors *monitors, uint64_t watcher) {
    uint32_t i = monitors->by_key[bucket(watcher)];
    while (i != NONE && (monitors->node[i].ref != 0 || monitors->node[i].watcher != watcher))
        i = monitors->node[i].key_next;
    return i;
}

bool lin_monitors_call(struct lin_monitors *monitors, uint64_t watcher, uint64_t target) {
    lin_spin_lock(&monitors->lock);
    /* One that never returned: its tracing was interrupted. */
    uint32_t i = find_pending(monitors, watcher);
    if (i != NONE)
        drop(monitors, i);
    i = monitors->free;
    if (i != NONE) {
        monitors->free = monitors->node[i].key_next;
        monitors->node[i] = (struct node){.watcher = watcher, .target = target};
        link_key(monitors, i);
        if (target != 0)
            link_target(monitors, i);
    }
    lin_spin_unlock(&monitors->lock);
    return i != NONE;
}

LIN_ASIDE bool lin_monitors_born(struct lin_monitors *monitors, uint64_t parent, uint64_t child) {
    lin_spin_lock(&monitors->lock);
    uint32_t i = find_pending(monitors, parent);
    bool found = i != NONE && monitors->node[i].target == 0;
    if (found) {
        monitors->node[i].target = child;
        link_target(monitors, i);
    }
    lin_spin_unlock(&monitors->lock);
    return found;
}

void lin_monitors_return(struct lin_monitors *monitors, uint64_t watcher, uint64_t ref) {
    lin_spin_lock(&monitors->lock);
    uint32_t i = find_pending(monitors, watcher);
    if (i != NONE && (ref == 0 || monitors->node[i].target == 0)) {
        drop(monitors, i);
    } else if (i != NONE) {
        unlink_key(monitors, i);
        monitors->node[i].ref = ref;
        link_key(monitors, i);
    }
    lin_spin_unlock(&monitors->lock);
}

void lin_monitors_demonitor(struct lin_monitors *monitors, uint64_t ref) {
    lin_spin_lock(&monitors->lock);
    uint32_t i = monitors->by_key[bucket(ref)];
    while (i != NONE && monitors->node[i].ref != ref)
        i = monitors->node[i].key_next;
    if (i != NONE)
        drop(monitors, i);
    lin_spin_unlock(&monitors->lock);
}

bool lin_monitors_take(struct lin_monitors *monitors, void *env, uint64_t target) {
    bool watched = false;
    lin_spin_lock(&monitors->lock);
    uint32_t i = monitors->by_target[bucket(target)];
    while (i != NONE) {
        uint32_t next = monitors->node[i].goal_next;
        if (monitors->node[i].target == target) {
            watched = watched || lin_gate.host->is_alive(env, monitors->node[i].watcher);
            drop(monitors, i);
        }
        i = next;
    }
    lin_spin_unlock(&monitors->lock);
    return watched;
}

void lin_monitors_purge(struct lin_monitors *monitors, void *env) {
    for (uint32_t b = 0; b < BUCKETS; b++) {
        lin_spin_lock(&monitors->lock);
        uint32_t i = monitors->by_key[b];
        while (i != NONE) {
            uint32_t next = monitors->node[i].key_next;
            if (!lin_gate.host->is_alive(env, monitors->node[i].watcher))
                drop(monitors, i);
            i = next;
        }
        lin_spin_unlock(&monitors->lock);
    }
}

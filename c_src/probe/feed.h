/*
 * feed.h - what the probe sees, for the node: a file that Lineage in the node reads.
 *
 * Model: /dev/shm/lineage-WHAT-PID, where PID is the node's: a head, and behind it `slots` places
 * of 64 bytes, that are written over round and round (stalls), or as many as are in use (ospids).
 * `head` is how many were ever written, or are in use; `seen_ns` is when the probe was last at
 * work, so that one that is gone is not taken for one that sees nothing. All is native, and of
 * CLOCK_MONOTONIC. Ownership: the probe's; the file is the node's user's, 0600, and goes with the
 * probe. Threads: one.
 */
#ifndef LIN_PROBE_FEED_H
#define LIN_PROBE_FEED_H

#include "probe.h"

#define LIN_FEED_MAGIC 0x314446454e494cull /* "LINEFD1" */
#define LIN_FEED_TEXT 32

struct lin_feed_head {
    uint64_t magic, head, seen_ns;
    uint32_t slots, probe_pid;
    uint64_t dropped, threshold_ns, pid_namespace, unused; /* the node's: its inode */
};

struct lin_feed_stall {
    uint64_t no, from_ns,
        to_ns;            /* its number, from 0: another than expected is one being written */
    uint8_t kind, thread; /* enum lin_stall_kind, enum lin_stall_thread */
    uint16_t number;      /* of the scheduler */
    uint32_t by_pid;
    char what[LIN_FEED_TEXT]; /* what ran instead, the system call, or the library; ended by 0 if
                                 short */
};

/* Numbers as the node has them. */
struct lin_feed_process {
    uint32_t pid,
        root; /* root: the one that the port started, alive or not; 0: not known any more */
    uint32_t unused;
    uint32_t flags;  /* 1: adopted, since whoever forked it has ended */
    uint64_t age_ns; /* at `seen_ns` */
    uint64_t owner;  /* the pid, a term, of the process that opened the port; 0: not known */
    char program[LIN_FEED_TEXT];
};

_Static_assert(sizeof(struct lin_feed_head) == 64 && sizeof(struct lin_feed_stall) == 64 &&
                   sizeof(struct lin_feed_process) == 64,
               "a head and a slot are 64 bytes");

struct feed {
    int fd;
    char path[64];
    struct lin_feed_head head;
};

/* `slots` of 64 bytes. 0, or an exit status after a sentence. */
int feed_open(struct feed *feed, const struct target *target, const char *what, uint32_t slots);
/* The next slot, round and round. */
void feed_add(struct feed *feed, const void *slot);
/* All of it anew: `count` slots, of which those that find room are told. */
void feed_set(struct feed *feed, const void *slots, uint32_t count);
/* The probe is at work: to be called some times a second. */
void feed_beat(struct feed *feed, uint64_t dropped);
/* Also of one that was never opened (fd -1). */
void feed_close(struct feed *feed);

#endif

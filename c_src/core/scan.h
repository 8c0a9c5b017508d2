/*
 * scan.h - what lies in a journal's directory: its runs, and what a dead one left in its rings.
 *
 * Model: segments are listed, read one after another, and folded into what is known of their run:
 * how far each ring was written, whether the run has ended, what is damaged or missing. Nothing of
 * a segment is kept, so that a journal of any size takes one segment's memory. The rings' file of a
 * run is read whole, into memory, and never mapped: it may change or shrink under its reader. Of a
 * node that is running, each ring's tail is read once more behind it: what was read before that
 * place may have been written over.
 *
 *     lin_scan_list --> for each run: init, then a segment at a time --> lin_left_read
 *
 * Whatever the bytes are, nothing beyond them is read, and a thing that does not hold is counted as
 * damage. Ownership: malloc's, for both the node and programs without one; destroy frees.
 * Threads: any, one for each object. Units: bytes, events.
 */
#ifndef LIN_SCAN_H
#define LIN_SCAN_H

#include "journal.h"

/* Larger files are no segments. */
#define LIN_SEGMENT_MAX_BYTES ((size_t)4 << 30)

struct lin_segment_name {
    uint64_t run;
    uint32_t no;
};

/* The segments in a directory, by run and number. 0 or a negative errno; free(*out). */
int lin_scan_list(const char *dir, struct lin_segment_name **out, size_t *count);
/* A segment's path; false when it does not fit. */
bool lin_segment_path(char *path, size_t room, const char *dir, struct lin_segment_name name);
/* A whole file, aligned to 8. 0 or a negative errno; free(*out). No symbolic link is followed. */
int lin_file_read(const char *path, void **out, size_t *bytes);

struct lin_run {
    uint64_t id;
    struct lin_block_run head; /* of the first segment that has one; rings 0: none had */
    uint32_t segments, first_segment, last_segment;
    uint64_t blocks, next_block, missing_blocks;
    uint64_t bytes;
    size_t damaged_bytes;
    uint64_t events;                                         /* GAPs not counted */
    uint64_t missing;                                        /* that GAPs tell of */
    uint64_t from_ticks, from_wall_ns, to_ticks, to_wall_ns; /* of the first block and the last */
    uint32_t end;                                            /* enum lin_end; 0: it has not ended */
    uint64_t position[LIN_RINGS_MAX]; /* behind the last event in a block, or that a census has */
};

void lin_run_init(struct lin_run *run, uint64_t id);
/* Called for each good block of the run, in order. */
typedef void (*lin_block_fn)(void *arg, const struct lin_block *block);
/* Folds the next segment in; `fn` may be NULL. */
void lin_run_segment(struct lin_run *run, uint32_t no, const void *data, size_t bytes,
                     lin_block_fn fn, void *arg);
/* The same from its file. 0 or a negative errno; -ENOENT: the oldest go while a node is running. */
int lin_run_read(struct lin_run *run, const char *dir, struct lin_segment_name name,
                 lin_block_fn fn, void *arg);

/* Whether the process that wrote the run still is: by its number, its start and the boot. */
bool lin_run_is_alive(const struct lin_run *run);

/* What lies in the rings' file of a run, behind what its segments hold. */
struct lin_left {
    struct lin_rings *rings;
    size_t bytes;
    uint64_t from[LIN_RINGS_MAX], to[LIN_RINGS_MAX]; /* positions */
    uint64_t untold;  /* events that were lost, and no GAP tells of */
    uint64_t between; /* behind what the segments hold, and before what the rings do: of a dead run
                         they were dropped; of one that is going on they are in a segment by now */
};
/* Whether the file of the run's rings is there, and this run's: its head is looked at. */
bool lin_left_is_there(const struct lin_run *run);
/* 0; -ENOENT: it has none (any more), or has ended, and all is in its segments; -EINVAL: the file
 * is not this run's; another errno. */
int lin_left_read(const struct lin_run *run, struct lin_left *out);
/* The event at `position` of ring `n`; NULL: a place of ring 0 that was never filled. */
const struct lin_event *lin_left_at(const struct lin_left *left, uint32_t n, uint64_t position);
/* The run's segments were read once more: what they hold by now is not left. */
void lin_left_pass(struct lin_left *left, const struct lin_run *run);
void lin_left_free(struct lin_left *left);
/* As lin_left_read does, from bytes that were read before. Takes `data`, when it returns 0. */
int lin_left_init(const struct lin_run *run, void *data, size_t bytes, struct lin_left *out);

/* A process's start (field 22 of /proc/PID/stat) and this boot's id; 0 where unknown, or dead. */
uint64_t lin_os_start(uint32_t os_pid);
void lin_boot_id(uint8_t id[16]);

#endif

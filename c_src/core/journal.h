/*
 * journal.h - the flight recorder's format, version 1: what its segments say, and how.
 *
 * Model: a directory holds segments, each a file of blocks, one behind another, 8-byte aligned.
 * Everything is little-endian and as the structs below lie in memory. A run is one attach of one
 * node; its blocks are numbered from 0 through all of its segments, so that a missing one is seen.
 * The first block of a segment is its RUN; then come the names, functions, sites, scopes and nodes
 * known so far and a census, so that each segment can be read alone. Names and the rest stand
 * before the first event that needs them; where one is said twice, the later holds.
 *
 *     segment: RUN (NAMES FUNCTIONS FILES SITES PLACES SCOPES NODES)* CENSUS* (EVENTS | NAMES ...)*
 *     the last of a run that ended as it should: ... END
 *
 * What is torn or damaged: a block counts when its magic, its length and its CRC-32C hold. What
 * does not is skipped, to the next magic at a multiple of 8, and counted. Of a run that was killed
 * the last events still lie in its rings (ring.h), a file in /dev/shm that the RUN names: from each
 * ring, those behind the last position that an EVENTS block holds. END and then the removal of the
 * rings close a run; a later attach appends the rings of a dead run to its last segment, with an
 * END that says so.
 *
 * A census is not taken in a moment. Its first block tells how far every ring was written before
 * the walk began: what is behind is told by events too, and applies to an entry only if its number
 * (`no`, which wraps) is behind the entry's, or the entry is of another birth. Events that were
 * dropped while nothing could be written leave a GAP, at the position of the last of them.
 *
 * Security: names are those of modules, functions, files, atoms, nodes and scopes; a process's
 * arguments, messages and state are never in it. Files are 0600.
 * Threads: functions here are pure. Units: bytes, ticks (clock.h; a block's pairs of ticks and wall
 * time make their rate), nanoseconds since 1970.
 */
#ifndef LIN_JOURNAL_H
#define LIN_JOURNAL_H

#include "ring.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIN_BLOCK_MAGIC 0x314b424eu /* "NBK1" */
#define LIN_JOURNAL_VERSION 1u
#define LIN_BLOCK_MAX (1u << 20) /* a block, header included */
#define LIN_JOURNAL_PATH 256     /* of the rings' file, with its 0 */
#define LIN_JOURNAL_NODE 256
/* A segment's name: run in 16 hex digits, number in 6 digits, or more when they are used up. */
#define LIN_SEGMENT_NAME "lineage-%016llx-%06u.journal"

enum lin_block_type {
    LIN_BLOCK_RUN = 1,   /* struct lin_block_run */
    LIN_BLOCK_EVENTS,    /* struct lin_block_events */
    LIN_BLOCK_CENSUS,    /* struct lin_block_census */
    LIN_BLOCK_NAMES,     /* lin_text[]: id: an atom's term, text: the atom in UTF-8 */
    LIN_BLOCK_FUNCTIONS, /* lin_block_function[]; ids are those of mfa.h */
    LIN_BLOCK_FILES,     /* lin_text[]: id: of lin_file_intern, text: a source file */
    LIN_BLOCK_SITES,     /* lin_block_site[] */
    LIN_BLOCK_PLACES,    /* lin_text[]: id: a site, text: file:line and more, as reports say it */
    LIN_BLOCK_SCOPES,    /* lin_text[]: id: a scope, text: its name */
    LIN_BLOCK_NODES,     /* lin_text[]: id: a node's index (LIN_FOREIGN_NODE), text: its name */
    LIN_BLOCK_END        /* struct lin_block_end */
};

struct lin_block {
    uint32_t magic;
    uint16_t version;
    uint16_t type;  /* an unknown one is skipped, if version and CRC hold */
    uint32_t bytes; /* header and payload, without the padding to 8 */
    uint32_t crc;   /* CRC-32C of all `bytes`, with this field 0 */
    uint64_t run;
    uint64_t no;
    uint64_t ticks; /* when it was written */
    uint64_t wall_ns;
};

/* How pids are numbered: which bits of the term are the number that <0.N.S> shows. */
enum lin_pid_layout {
    LIN_PID_15 = 1,  /* OTP 25: number 15 bits, serial above, of term >> 4 */
    LIN_PID_28,      /* number 28 bits, serial above */
    LIN_PID_28_DEALT /* OTP 27, 29: the same, its low log2(limit) bits dealt out (census.h) */
};

struct lin_block_run {
    uint32_t segment; /* of this run, from 0 */
    uint32_t os_pid;
    uint64_t os_start; /* field 22 of /proc/PID/stat */
    uint8_t boot_id[16];
    struct lin_clock_point opened;
    uint64_t opened_wall_ns;
    uint32_t limit_log2; /* of the process limit */
    uint32_t pid_layout;
    uint32_t release; /* 25, 27, ... */
    uint32_t rings, capacity;
    uint32_t rings_in_file; /* 0: in memory only: what was in them is lost with the process */
    char rings_path[LIN_JOURNAL_PATH];
    char node[LIN_JOURNAL_NODE];
};

struct lin_block_events {
    uint32_t ring;
    uint32_t count;
    uint64_t position; /* of the first */
    struct lin_event event[];
};

struct lin_block_entry { /* as struct lin_entry has it, with the number of its last event */
    uint64_t pid, parent, guardian, birth;
    uint32_t flags, site, scope, initial_call, spawner;
    uint16_t no, unused;
};

/* One or more of these are a census, from `first` 0 to `last`; events may stand between them. */
struct lin_block_census {
    uint32_t first, count; /* entries told before, and here */
    uint32_t last;         /* 1: the census is complete */
    uint32_t rings;
    /* `rings` positions (uint64_t), as they were before the walk began; then the entries. */
    uint64_t position[];
};

struct lin_block_function {
    uint32_t id, arity;
    uint64_t module, function; /* atoms */
    uint32_t class, unused;    /* LIN_CLASS_* */
};

struct lin_block_site {
    uint32_t id, initial_call, spawner, frame_arity;
    uint64_t frame_module, frame_function; /* 0: none */
    uint32_t frame_line, frame_file;
    uint64_t closure_module; /* 0: no closure */
    uint32_t index, uniq;
};

struct lin_text {
    uint64_t id;
    uint32_t len; /* of the text, which follows, without a 0; padded to 8 */
    uint32_t unused;
    char text[];
};

enum lin_end { LIN_END_DETACHED = 1, LIN_END_CLOSED, LIN_END_RECOVERED };
struct lin_block_end {
    uint32_t why;   /* enum lin_end; RECOVERED: by a later attach, from what a dead run left */
    uint32_t rings; /* `rings` positions follow: where each ring ended */
    uint64_t position[];
};

_Static_assert(sizeof(struct lin_block) == 48, "the layout of a file");
_Static_assert(sizeof(struct lin_block_run) == 80 + LIN_JOURNAL_PATH + LIN_JOURNAL_NODE + 0,
               "the layout of a file");
_Static_assert(sizeof(struct lin_block_events) == 16, "the layout of a file");
_Static_assert(sizeof(struct lin_block_entry) == 56, "the layout of a file");
_Static_assert(sizeof(struct lin_block_census) == 16, "the layout of a file");
_Static_assert(sizeof(struct lin_block_function) == 32, "the layout of a file");
_Static_assert(sizeof(struct lin_block_site) == 56, "the layout of a file");
_Static_assert(sizeof(struct lin_text) == 16, "the layout of a file");
_Static_assert(sizeof(struct lin_block_end) == 8, "the layout of a file");

/* CRC-32C (Castagnoli), of `bytes` after those that gave `crc`; begin with 0. */
uint32_t lin_crc32c(uint32_t crc, const void *data, size_t bytes);

static inline size_t lin_block_padded(uint32_t bytes) { return ((size_t)bytes + 7) & ~(size_t)7; }

/* Fills the header of a block whose payload is in place, padding and CRC too. `memory` has room for
 * lin_block_padded(sizeof header + payload). */
void lin_block_seal(struct lin_block *block, enum lin_block_type type, uint32_t payload,
                    uint64_t run, uint64_t no, uint64_t ticks, uint64_t wall_ns);

/*
 * The block at `*at` of `data`, or the next good one behind it; moves `*at` behind it. `data` is
 * aligned to 8. NULL at the end. Adds to `*skipped` how many bytes were none.
 */
const struct lin_block *lin_block_next(const void *data, size_t bytes, size_t *at, size_t *skipped);

/*
 * The payload as its type says, NULL when its size does not fit what it says of itself. Whoever
 * reads a payload asks first.
 */
const void *lin_block_payload(const struct lin_block *block, enum lin_block_type type);
/* Goes through a block of lin_texts: begin with NULL; NULL at the end. */
const struct lin_text *lin_text_next(const struct lin_block *block, const struct lin_text *text);

#endif

/*
 * recorder.h - what the files of the flight recorder share.
 *
 * Model: prepare.c makes a recorder ready (directory, lock, rings, what dead runs left) on a dirty
 * scheduler; the pump takes it at OPEN. recorder.c is what the pump calls, and the job that reads
 * the rings and writes; tables.c says what an id stands for before the first event that needs it;
 * segment.c puts blocks into files.
 *
 *     prepared --OPEN--> recording <--1 s, or room again--> paused --finish, close--> gone
 *
 *     rings --events, what they name--> batch --write, in full--> segment
 *
 * A batch is written as a whole or taken back, and only then its events leave the rings: whenever
 * the process is killed, each event is in a segment or in the rings, and told once. While writing
 * fails, the rings' older events are dropped and counted, so that subscribers lose nothing; it is
 * tried again each second, in a new segment, that begins with a census.
 *
 * Threads: one job at a time, in a thread of ours (writer.c): a disk that hangs would keep the VM's
 * async pool from all others, its own output too. What a job has is its own until it is done. What
 * Erlang tells (places, scopes) and what it asks lies under `lock`. No lock is held,
 * and no census entered, while a file is written. Ownership: a recorder is freed when neither the
 * pump nor a job has it. Units: bytes, events, nanoseconds; 0 or a negative errno.
 */
#ifndef LIN_RECORDER_H
#define LIN_RECORDER_H

#include "driver.h"
#include "journal.h"
#include "scan.h"

#include <limits.h>

#define LIN_BATCH_BYTES LIN_BLOCK_MAX
#define LIN_EVENTS_MAX 8192u /* in one block, at most */

/* segment.c: the files of a run. */
struct lin_segment {
    /* Set by prepare, then constant. */
    char dir[PATH_MAX - 64];
    uint64_t segment_bytes, max_bytes;
    uint64_t fsync_ns; /* 0: at its end, UINT64_MAX: never */
    struct lin_block_run run;
    uint64_t id; /* of the run */
    /* When the blocks of a dead run happened; 0: they are of now. */
    uint64_t as_of_ticks, as_of_wall_ns;
    /* The job's: */
    int fd;            /* -1: none is open */
    uint64_t no;       /* of the next block */
    uint64_t first_no; /* of the file's first */
    uint64_t bytes;    /* in the file */
    uint64_t head;     /* of these, before the first event */
    uint64_t unsynced, synced_ns;
    uint64_t others; /* bytes of all other segments in the directory */
    uint32_t count;  /* segments in the directory */
    char *batch;     /* LIN_BATCH_BYTES, and blocks in it from the front */
    size_t used;
    uint64_t batch_no; /* of its first block */
};

/* Room for a block's payload, behind what the batch has; NULL: commit first. Seal follows. */
void *lin_segment_room(struct lin_segment *segment, size_t payload);
void lin_segment_seal(struct lin_segment *segment, enum lin_block_type type, size_t payload);
/* Writes the batch, in full; else the file is as it was, and the batch empty. */
int lin_segment_write(struct lin_segment *segment);
/* Begins a file, behind making room for it; the batch holds its RUN. */
int lin_segment_begin(struct lin_segment *segment);
/* Ends the file. `keep` false: nothing in it is worth keeping. */
int lin_segment_end(struct lin_segment *segment, bool keep);
/* Whether the disk has room for a whole segment: a full one is not to be tried with less. */
bool lin_segment_has_space(const struct lin_segment *segment);
/* False: none of the run's files is in the directory, surely. */
bool lin_segment_is_any(const struct lin_segment *segment);
bool lin_segment_is_full(const struct lin_segment *segment);
/* Syncs it `now`, or if the policy says so. */
int lin_segment_sync(struct lin_segment *segment, bool now);
/* When the policy wants it to be synced; UINT64_MAX: there is no need. */
uint64_t lin_segment_sync_at(const struct lin_segment *segment);

/* tables.c: what was said in this segment, and what is to be said next. */
struct lin_tables;
struct lin_tables *lin_tables_create(void);
void lin_tables_destroy(struct lin_tables *tables);
/* A new segment: all that the run has said is to be said again. Inside the gate, with the census
 * that gave the ids; NULL: it is gone, and with it what the ids mean. */
void lin_tables_again(struct lin_tables *tables, const struct lin_census *census);
/* Looks at what these need; inside the gate, with the census that gave the ids. */
void lin_tables_need_events(struct lin_tables *tables, const struct lin_census *census,
                            const struct lin_event *events, uint32_t count);
void lin_tables_need_entry(struct lin_tables *tables, const struct lin_census *census,
                           const struct lin_entry *entry);
/* Puts what is needed and was not said into blocks, by `room` and `seal`, as one would alone.
 * `write` is called when the batch is full. */
int lin_tables_say(struct lin_tables *tables, struct lin_segment *segment, int (*write)(void *arg),
                   void *arg);
/* The sites that this run has named so far, in that order; only ever more. Any thread. */
const uint32_t *lin_tables_sites(const struct lin_tables *tables, uint32_t *count);

/* Texts that Erlang tells, by their ids: the places of sites, the names of scopes. */
struct lin_telling {
    uint64_t id;
    uint32_t len;
    char text[];
};
/* Number n, from 0, lies at n % room: the oldest goes when there are more. */
struct lin_told {
    struct lin_telling **text;
    uint32_t room;
    uint64_t count, said; /* in all, and of these in this segment or gone */
};

struct lin_stats {
    uint64_t segment; /* that is being written */
    uint64_t bytes, segments, events, dropped;
};

struct lin_recorder {
    /* The job is over. Writer: writer.c (release, what it has written is there); reader: the pump.
     */
    _Atomic bool done;
    /* Set by prepare, open and start, then constant. */
    ErlDrvPort port;
    ErlDrvTermData term, owner;
    int wake_fd;               /* of our own, for the pump's eventfd; -1: none */
    struct lin_source *source; /* a job holds it */
    uint32_t session;          /* of the census whose ids are in the events; 0: none was open */
    int lock_fd;
    struct lin_rings *rings; /* until the source has them */
    size_t rings_bytes;
    uint32_t count; /* of rings */
    uint32_t mark;  /* so many events in a ring: it is to be written */
    bool started;
    /* The pump's callbacks: */
    bool running, finishing, finished;
    int told_error; /* what the owner knows of */
    uint64_t due_ns;
    uint32_t why; /* enum lin_end */
    /* The job's while it runs, else the callbacks': */
    struct lin_segment segment;
    struct lin_tables *tables;
    bool fresh; /* a segment is open, with its census */
    bool holds; /* events are in its file, or GAPs: it is not thrown away */
    int error;  /* 0: recording; else the errno of why it is paused */
    uint64_t retry_ns;
    uint64_t events, dropped;
    struct {
        uint64_t read;          /* what the batch holds */
        uint64_t written;       /* what the files hold, or was dropped */
        uint64_t untold;        /* dropped, or told by GAPs that were, and no GAP in a file tells */
        uint64_t untold_before; /* as the segment was begun */
        bool telling;           /* the batch has that GAP */
    } ring[LIN_RINGS_MAX];
    /* Under `lock`: */
    ErlDrvMutex *lock;
    struct lin_told places, scopes;
    uint32_t sites_asked; /* of lin_tables_sites, how many Erlang has been told */
    struct lin_stats stats;
};

/* Puts events of a ring into a block; false: there is no room in the batch. */
bool lin_put_events(struct lin_segment *segment, uint32_t ring, uint64_t position,
                    const struct lin_event *events, uint32_t count);
bool lin_put_end(struct lin_segment *segment, uint32_t why, uint32_t rings,
                 const uint64_t position[]);

/*
 * writer.c: the thread that runs jobs. Called by the pump, and from the driver's finish.
 * `done` is set, and the pump woken, when the job is over. False: no thread can be had.
 */
bool lin_writer_run(struct lin_recorder *recorder);
/* Waits until the thread has left a recorder that is done, which it takes no time for. */
void lin_writer_settle(void);
/* The pump goes, and the job is not done: whoever is last frees the recorder. */
void lin_writer_abandon(struct lin_recorder *recorder);
/* recorder.c: a job, in the thread. */
void lin_recorder_job(struct lin_recorder *recorder);

/* prepare.c: the one that the pump's OPEN names; NULL: there is no such one, or it was taken. */
struct lin_recorder *lin_recorder_take(uint64_t ticket);
/* Of one that was prepared, and has or had no pump: with its rings' file. Accepts NULL. */
void lin_recorder_forget(struct lin_recorder *recorder);
/* Frees it; the rings' file stays. No job has it. */
void lin_recorder_free(struct lin_recorder *recorder);
/* Removes the file of a run's rings, if they were in one. */
void lin_rings_unlink(const struct lin_block_run *run);

#endif

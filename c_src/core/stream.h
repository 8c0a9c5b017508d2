/*
 * stream.h - the tap's end: who gets which event, and when its readers are woken.
 *
 * Model: one stream for the library, or none. It has a region of rings (ring.h) and up to
 * LIN_SUBSCRIBERS subscribers. The tap decides in the thread where the event happened, while the
 * record is at hand, which subscribers want it (a bit each), for only there are site and scope of
 * every kind of event known. Two readers go over the rings: the pump, which copies to subscribers,
 * and the journal's writer, if there is one. What both have passed is released.
 *
 *     tap --mask--> ring --pump--> subscriber's own buffer --credit--> its port's owner
 *                        \-writer--> blocks of a segment (journal.h)
 *
 * The pump sleeps while nothing happens. It says so (`idle`), looks once more behind a barrier that
 * every thread feels (gate.h pays on this side), and the first event after that wakes it: one write
 * to an eventfd. While it is awake it comes by itself every LIN_PUMP_MS, sooner when a ring passes
 * its mark (a quarter).
 *
 * A subscriber's buffer is bounded; what does not fit is counted, and a GAP stands at its place. A
 * subscriber costs the others nothing: a slow one only fills its own buffer.
 *
 * | may run together | tap | pump | writer | subscribe, filter, close |
 * |------------------|-----|------|--------|--------------------------|
 * | tap              | yes | yes  | yes    | yes (gate.h: quiesce)    |
 * | pump             | yes | no   | yes    | under `lock`             |
 *
 * Ownership: create/destroy own all but the region of rings. Threads: as in the table.
 */
#ifndef LIN_STREAM_H
#define LIN_STREAM_H

#include "census.h"
#include "ring.h"

#define LIN_SUBSCRIBERS 8u
#define LIN_PUMP_MS 2u
#define LIN_BATCH_EVENTS 1024u   /* a batch is at most this */
#define LIN_BUFFER_EVENTS 65536u /* of a subscriber, unless it asks for fewer */
#define LIN_FILTER_MODULES 512u
#define LIN_FILTER_SITES 64u
#define LIN_FILTER_SCOPES 64u

/*
 * What a subscriber wants: every condition that is given must hold, an empty list is none. GAPs of
 * the rings are everybody's. Lists are sorted.
 */
struct lin_filter {
    uint32_t kinds; /* bit 1 << kind; 0: all */
    uint32_t sites_len, scopes_len, modules_len;
    uint32_t sites[LIN_FILTER_SITES];
    uint32_t scopes[LIN_FILTER_SCOPES];
    /* Of an application: the process's initial call, or its site's frame or closure, is in one. */
    uint64_t modules[LIN_FILTER_MODULES];
};

struct lin_stream_options {
    struct lin_rings *rings; /* laid out by the caller, who keeps it until destroy */
    void (*wake)(void *arg); /* in a thread that traces: must not block */
    void *arg;
    bool writer; /* a journal's writer reads, too: what it has not passed is not released */
};

struct lin_stream;

/* 0, or -ENOMEM. Nothing is written to it before start. */
int lin_stream_create(const struct lin_stream_options *options, struct lin_stream **out);
/* Stop it first. Accepts NULL. */
void lin_stream_destroy(struct lin_stream *stream);
/* The tap is this stream's from now on. -EBUSY: another one has it. */
int lin_stream_start(struct lin_stream *stream);
/* The tap is off, and no thread is in it any more. The caller is not inside the gate. */
void lin_stream_stop(struct lin_stream *stream);

/*
 * `capacity`: of its buffer, in events, not 0. Gives its number. 0, -ENOMEM, -EMFILE when there are
 * LIN_SUBSCRIBERS, -EAGAIN when its number was another's, and a thread that may still decide for
 * that one is held.
 */
int lin_stream_subscribe(struct lin_stream *stream, const struct lin_filter *filter,
                         uint32_t capacity, uint32_t *subscriber);
void lin_stream_unsubscribe(struct lin_stream *stream, uint32_t subscriber);
/* How many events lin_stream_take would move, at most `max`. */
uint32_t lin_stream_waiting(struct lin_stream *stream, uint32_t subscriber, uint32_t max);
/*
 * Moves up to `max` events out of a subscriber's buffer, GAPs in their places. A BIRTH does not
 * come without its BORN, where both are wanted, unless `max` is 1, or the BORN will not come.
 */
uint32_t lin_stream_take(struct lin_stream *stream, uint32_t subscriber, struct lin_event *out,
                         uint32_t max);

/* How many events found no room in its buffer. */
uint64_t lin_stream_dropped(struct lin_stream *stream, uint32_t subscriber);

struct lin_stream_counts {
    uint64_t events;                   /* that subscribers were given, GAPs included */
    uint64_t lost;                     /* in rings: missing for everybody */
    uint64_t dropped[LIN_SUBSCRIBERS]; /* for want of room in its buffer */
    uint32_t subscribers;
    bool awake;
};
void lin_stream_count(struct lin_stream *stream, struct lin_stream_counts *out);

/* The pump. Copies up to `max` events to the buffers; returns how many it went over. */
uint32_t lin_stream_pump(struct lin_stream *stream, uint32_t max);
/* It is about to sleep: false when something has come, and it must not. */
bool lin_stream_sleep(struct lin_stream *stream);

/* The journal's writer: as lin_ring_read and lin_ring_release, of what the tap wrote. */
uint32_t lin_stream_read(struct lin_stream *stream, uint32_t ring, uint64_t *position, uint32_t max,
                         const struct lin_event **events);
void lin_stream_written(struct lin_stream *stream, uint32_t ring, uint64_t position);
const struct lin_rings *lin_stream_rings(const struct lin_stream *stream);

#endif

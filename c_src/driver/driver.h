/*
 * driver.h - what the files of the port driver share.
 *
 * Model: one driver, `lineage`, two kinds of port. The pump, one at a time and the session's, owns
 * the rings and the tap's stream (stream.h): an eventfd wakes it, it pumps, hands batches out, and
 * comes again by a timer while there is something. A subscriber's port has credit, in batches; its
 * owner is sent {lineage_events, Port, Batch} as long as there is some, in the pump's callback or
 * in its own, when credit is granted.
 *
 *     pump:       started --OPEN--> open --port closes--> flushing --all handed out--> gone
 *     subscriber: started --SUBSCRIBE--> subscribed --source ended, all taken--> {.., closed}
 *
 * A source is a stream and its rings. The pump holds it; so do its subscribers, which may take what
 * is in their buffers after it has ended, and the recorder (recorder.c), whose job may still run
 * when the pump's port is gone.
 *
 * | may run together | pump's callbacks | a subscriber's | recorder's job |
 * |------------------|------------------|----------------|----------------|
 * | pump's           | no (port's lock) | under hub.lock | yes            |
 * | a subscriber's   | under hub.lock   | under hub.lock | yes            |
 *
 * hub.lock is taken before the stream's own, and held while batches are sent: they keep their
 * order. Ownership: a port's struct is its own, until stop. Units: events, batches, bytes; `_ms`.
 */
#ifndef LIN_DRIVER_H
#define LIN_DRIVER_H

#include "nif.h"
#include "stream.h"

#include <erl_driver.h>

/* In one callback at most, for a scheduler is held meanwhile: with 8 subscribers some 700 us. */
#define LIN_PUMP_EVENTS 4096u
#define LIN_TURN_BATCHES 4u /* messages to one subscriber */

struct lin_subscriber;

struct lin_source {
    _Atomic uint32_t refs;
    struct lin_stream *stream;
    struct lin_rings *rings;
    size_t rings_bytes;
    /* Gives the rings' memory back, with the last reference. */
    void (*free_rings)(struct lin_rings *rings, size_t bytes);
    /* Under hub.lock: */
    bool ended; /* the rings are empty, and nothing comes any more */
    struct lin_subscriber *subscriber[LIN_SUBSCRIBERS]; /* by their numbers in the stream */
};

void lin_source_hold(struct lin_source *source);
/* The last one destroys the stream and frees the rings. Any thread. Accepts NULL. */
void lin_source_drop(struct lin_source *source);

struct lin_hub {
    ErlDrvMutex *lock;
    void *pump;                /* the one port, from start to stop */
    struct lin_source *source; /* that can be subscribed to; NULL: none */
};
extern struct lin_hub lin_hub;

/* What port_control answers: <<0, Bytes>>, or <<1, Name>> for an errno. */
struct lin_reply {
    size_t len;
    unsigned char bytes[2048];
};
/* Adds `len` bytes; what finds no room is left out. */
void lin_reply_add(struct lin_reply *reply, const void *bytes, size_t len);

/* A port's callbacks. Its struct begins with a pointer to them. */
struct lin_port_class {
    int (*control)(void *port, unsigned op, const char *data, size_t len, struct lin_reply *reply);
    void (*ready_input)(void *port);
    void (*timeout)(void *port);
    void (*flush)(void *port);
    void (*stop)(void *port);
};

/* pump.c: NULL, and errno set, when there is one already, or no memory. */
void *lin_pump_start(ErlDrvPort port);

/* subscriber.c: NULL, and errno set, when there is no memory. */
void *lin_subscriber_start(ErlDrvPort port);
/* Sends what a subscriber has credit for, a turn's worth; {.., closed} when the source has ended
 * and all is taken. True when there is more. Under hub.lock. */
bool lin_subscriber_deliver(struct lin_subscriber *subscriber);

/*
 * recorder.c: the journal. Calls are made in the pump's callbacks, one at a time, in this order:
 * open, start, (turn | ready | control)*, finish*, close. Only its own job runs elsewhere.
 */
struct lin_recorder;
struct lin_recorder_options {
    ErlDrvPort port;      /* the pump's */
    ErlDrvTermData term;  /* of the port */
    ErlDrvTermData owner; /* who is told of errors */
    int wake_fd;          /* the pump's eventfd, which wakes it when a job is done */
    const char *journal;  /* as OPEN had it: lineage_journal's and recorder.c's own business */
    size_t journal_len;
    uint32_t count, capacity; /* of the rings that it makes */
};
/*
 * Makes the rings (laid out, empty) in `source`: rings, rings_bytes, free_rings. 0 or a negative
 * errno, and then nothing is left behind.
 */
int lin_recorder_open(const struct lin_recorder_options *options, struct lin_source *source,
                      struct lin_recorder **out);
/* The stream is there, and the tap about to be set. A job that outlives close holds the source. */
void lin_recorder_start(struct lin_recorder *recorder, struct lin_source *source);
/* After each pump. In how many ms it wants to be called again at the latest; 0: when events come.
 */
uint32_t lin_recorder_turn(struct lin_recorder *recorder);
/* Before each turn, and finish: a job may be done. */
void lin_recorder_ready(struct lin_recorder *recorder);
/* The operations 10 to 19. 0 or a negative errno, which becomes the answer. */
int lin_recorder_control(struct lin_recorder *recorder, unsigned op, const char *data, size_t len,
                         struct lin_reply *reply);
/* The port flushes, and the tap is off: writes what is left. False: not done, it is called again
 * after ready, or after turn's ms. */
bool lin_recorder_finish(struct lin_recorder *recorder);
/* The port is about to go, without finish when it was killed. Accepts NULL. */
void lin_recorder_close(struct lin_recorder *recorder);
/* The driver is about to be unloaded: the thread that writes ends. */
void lin_writer_stop(void);

#endif

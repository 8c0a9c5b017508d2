#include "driver.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * The pump's port. It is woken by its eventfd, from a thread that traces, when it sleeps and
 * something happens, or when a ring fills quickly; while it is awake its timer brings it back. One
 * byte lies in the port's queue from start on: so the VM calls flush before it lets the port go,
 * and waits until the byte is taken out. A port that is killed gets stop alone.
 */

struct pump {
    const struct lin_port_class *class;
    ErlDrvPort port;
    ErlDrvTermData term, owner; /* of the port; who opened it, and hears when it goes */
    int fd;
    struct lin_source *source; /* NULL until OPEN */
    struct lin_recorder *recorder;
    bool flushing;
    uint64_t flushed_ns; /* when the last of it is waited for no longer */
};

#define FLUSH_NS 9000000000u /* lineage_pump.erl waits a little longer */

enum { OPEN = 1, COUNTS, RECORDER = 10, RECORDER_LAST = 19 };

/* What OPEN begins with; then the journal's options. */
struct wish {
    uint32_t rings;
    uint64_t bytes;
} __attribute__((packed));

static void wake(void *arg) {
    const struct pump *pump = arg;
    uint64_t one = 1;
    ssize_t written = write(pump->fd, &one, sizeof one);
    (void)written; /* it can only be full, and then it wakes */
}

static void unmap(struct lin_rings *rings, size_t bytes) { munmap(rings, bytes); }

/* Pages are taken when a ring's first lap comes to them. */
static int make_rings(struct lin_source *source, uint32_t count, uint32_t capacity) {
    size_t bytes = lin_rings_bytes(count, capacity);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    source->rings = memory;
    source->rings_bytes = bytes;
    source->free_rings = unmap;
    return lin_rings_init(source->rings, count, capacity);
}

static int fill_source(struct pump *pump, struct lin_source *source, const struct wish *wish,
                       const char *journal, size_t journal_len) {
    uint32_t count = wish->rings + 1;
    uint32_t capacity = lin_rings_capacity(count, wish->bytes);
    if (wish->rings >= LIN_RINGS_MAX || capacity == 0)
        return -EINVAL;
    struct lin_recorder_options options = {.port = pump->port,
                                           .term = pump->term,
                                           .owner = pump->owner,
                                           .wake_fd = pump->fd,
                                           .journal = journal,
                                           .journal_len = journal_len,
                                           .count = count,
                                           .capacity = capacity};
    int result = journal_len == 0 ? make_rings(source, count, capacity)
                                  : lin_recorder_open(&options, source, &pump->recorder);
    if (result != 0)
        return result;
    struct lin_stream_options stream = {
        .rings = source->rings, .wake = wake, .arg = pump, .writer = pump->recorder != NULL};
    return lin_stream_create(&stream, &source->stream);
}

static int open_rings(struct pump *pump, const char *data, size_t len) {
    struct wish wish;
    if (pump->source != NULL)
        return -EBUSY;
    if (len < sizeof wish)
        return -EINVAL;
    /* The NIF in use is of another copy of the library: nothing that it sees would come here. */
    if (atomic_load_explicit(&lin_nif.instances, memory_order_relaxed) == 0)
        return -ENOENT;
    memcpy(&wish, data, sizeof wish);
    struct lin_source *source = enif_alloc(sizeof *source);
    if (source == NULL)
        return -ENOMEM;
    *source = (struct lin_source){.refs = 1};
    int result = fill_source(pump, source, &wish, data + sizeof wish, len - sizeof wish);
    if (result == 0 && pump->recorder != NULL)
        lin_recorder_start(pump->recorder, source);
    if (result == 0)
        result = lin_stream_start(source->stream);
    if (result != 0) {
        lin_recorder_close(pump->recorder);
        pump->recorder = NULL;
        lin_source_drop(source);
        return result;
    }
    pump->source = source;
    erl_drv_mutex_lock(lin_hub.lock);
    lin_hub.source = source;
    erl_drv_mutex_unlock(lin_hub.lock);
    driver_set_timer(pump->port, 0);
    return 0;
}

/* True when there is more for some subscriber. */
static bool deliver_all(struct lin_source *source) {
    bool more = false;
    erl_drv_mutex_lock(lin_hub.lock);
    for (uint32_t n = 0; n < LIN_SUBSCRIBERS; n++)
        if (source->subscriber[n] != NULL)
            more = lin_subscriber_deliver(source->subscriber[n]) || more;
    erl_drv_mutex_unlock(lin_hub.lock);
    return more;
}

static void turn(struct pump *pump) {
    struct lin_stream *stream = pump->source->stream;
    uint32_t went = lin_stream_pump(stream, LIN_PUMP_EVENTS);
    bool more = deliver_all(pump->source);
    uint32_t ms = pump->recorder == NULL ? 0 : lin_recorder_turn(pump->recorder);
    if (went == LIN_PUMP_EVENTS || more)
        driver_set_timer(pump->port, 0);
    else if (went != 0 || !lin_stream_sleep(stream))
        driver_set_timer(pump->port, LIN_PUMP_MS);
    else if (ms != 0)
        driver_set_timer(pump->port, ms);
}

/* Nothing comes any more: its subscribers hear it when they have taken what is theirs. */
static void end_source(struct lin_source *source) {
    erl_drv_mutex_lock(lin_hub.lock);
    source->ended = true;
    if (lin_hub.source == source)
        lin_hub.source = NULL;
    erl_drv_mutex_unlock(lin_hub.lock);
    while (
        deliver_all(source)) /* after flush there is no more; a pump that is killed goes at once */
        ;
}

/* Nobody can subscribe from now on, and the tap is off. */
static void stop_source(struct lin_source *source) {
    erl_drv_mutex_lock(lin_hub.lock);
    if (lin_hub.source == source)
        lin_hub.source = NULL;
    erl_drv_mutex_unlock(lin_hub.lock);
    lin_stream_stop(source->stream);
}

static bool is_empty(struct lin_stream *stream) {
    return lin_stream_pump(stream, LIN_PUMP_EVENTS) == 0 && lin_stream_sleep(stream);
}

/* A turn of flushing: true when all is done. */
static bool finish(struct pump *pump) {
    bool empty = is_empty(pump->source->stream);
    bool more = deliver_all(pump->source);
    if (!empty || more) {
        driver_set_timer(pump->port, 0);
        return false;
    }
    if (pump->recorder == NULL || lin_recorder_finish(pump->recorder))
        return true;
    /* A disk that does not answer holds neither the port nor a node that halts: stop leaves the
     * writer alone with it. */
    uint64_t now = lin_clock_ns();
    if (now >= pump->flushed_ns)
        return true;
    driver_set_timer(pump->port, (pump->flushed_ns - now) / 1000000 + 1);
    return false;
}

static void step(struct pump *pump) {
    if (pump->source == NULL)
        return;
    if (pump->recorder != NULL)
        lin_recorder_ready(pump->recorder);
    if (!pump->flushing) {
        turn(pump);
    } else if (finish(pump)) {
        end_source(pump->source);
        driver_deq(pump->port, 1);
    }
}

static void flush(void *port) {
    struct pump *pump = port;
    pump->flushing = true;
    pump->flushed_ns = lin_clock_ns() + FLUSH_NS;
    if (pump->source == NULL) {
        driver_deq(pump->port, 1);
        return;
    }
    stop_source(pump->source);
    step(pump);
}

static void counts(const struct pump *pump, struct lin_reply *reply) {
    struct lin_stream_counts counted;
    lin_stream_count(pump->source->stream, &counted);
    uint8_t awake = counted.awake;
    uint64_t nameless = lin_names_lost();
    lin_reply_add(reply, &counted.events, sizeof counted.events);
    lin_reply_add(reply, &counted.lost, sizeof counted.lost);
    lin_reply_add(reply, &counted.subscribers, sizeof counted.subscribers);
    lin_reply_add(reply, &awake, sizeof awake);
    lin_reply_add(reply, &nameless, sizeof nameless);
}

static int control(void *port, unsigned op, const char *data, size_t len, struct lin_reply *reply) {
    struct pump *pump = port;
    if (op == OPEN)
        return open_rings(pump, data, len);
    if (pump->source == NULL)
        return -ENOTCONN;
    if (op == COUNTS) {
        counts(pump, reply);
        return 0;
    }
    if (op < RECORDER || op > RECORDER_LAST || pump->recorder == NULL)
        return -EINVAL;
    return lin_recorder_control(pump->recorder, op, data, len, reply);
}

static void ready_input(void *port) {
    struct pump *pump = port;
    uint64_t times;
    ssize_t got = read(pump->fd, &times, sizeof times);
    (void)got; /* it does not block, and says nothing that we need */
    step(pump);
}

static void timeout(void *port) { step(port); }

/*
 * {Port, flushed}: links and monitors were told when it began to close, this is when it is done and
 * another can be opened, also when it was killed. The VM takes no message from a port that closes,
 * but as one of the NIF; ports, pids and atoms are the same terms to both.
 */
static void tell_gone(const struct pump *pump) {
    ErlNifPid owner = {.pid = pump->owner};
    ErlNifEnv *env = enif_alloc_env();
    if (env == NULL)
        return;
    enif_send(NULL, &owner, env, enif_make_tuple2(env, pump->term, enif_make_atom(env, "flushed")));
    enif_free_env(env);
}

static void stop(void *port) {
    struct pump *pump = port;
    if (pump->source != NULL) {
        stop_source(pump->source);
        while (!is_empty(pump->source->stream)) /* at most what the rings hold */
            ;
        end_source(pump->source);
        lin_recorder_close(pump->recorder);
        lin_source_drop(pump->source);
    }
    driver_select(pump->port, (ErlDrvEvent)(intptr_t)pump->fd, ERL_DRV_READ | ERL_DRV_USE, 0);
    erl_drv_mutex_lock(lin_hub.lock);
    lin_hub.pump = NULL;
    erl_drv_mutex_unlock(lin_hub.lock);
    tell_gone(pump);
    enif_free(pump);
}

static const struct lin_port_class class = {.control = control,
                                            .ready_input = ready_input,
                                            .timeout = timeout,
                                            .flush = flush,
                                            .stop = stop};

static bool be_the_one(struct pump *pump) {
    erl_drv_mutex_lock(lin_hub.lock);
    bool none = lin_hub.pump == NULL;
    if (none)
        lin_hub.pump = pump;
    erl_drv_mutex_unlock(lin_hub.lock);
    return none;
}

void *lin_pump_start(ErlDrvPort port) {
    struct pump *pump = enif_alloc(sizeof *pump);
    int error = ENOMEM;
    if (pump == NULL)
        goto cleanup;
    *pump = (struct pump){.class = &class,
                          .port = port,
                          .term = driver_mk_port(port),
                          .owner = driver_connected(port)};
    pump->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (pump->fd < 0) {
        error = errno;
        goto cleanup;
    }
    error = EBUSY;
    if (!be_the_one(pump)) {
        close(pump->fd);
        goto cleanup;
    }
    driver_enq(port, "", 1);
    driver_select(port, (ErlDrvEvent)(intptr_t)pump->fd, ERL_DRV_READ | ERL_DRV_USE, 1);
    return pump;
cleanup:
    if (pump != NULL)
        enif_free(pump);
    errno = error;
    return NULL;
}

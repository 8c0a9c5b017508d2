#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * A subscriber's port: what its owner wants, has credit for, and gets. Its buffer is the stream's;
 * a batch is copied out of it once, into the binary that is sent.
 */

struct lin_subscriber {
    const struct lin_port_class *class;
    ErlDrvPort port;
    ErlDrvTermData term, owner;
    struct lin_source *source; /* NULL: not subscribed, or told that it is closed */
    uint32_t number;
    uint32_t batch;
    uint64_t credit, delivered;
};

enum { SUBSCRIBE = 1, GRANT, COUNTS };

/* What SUBSCRIBE begins with; then sites, scopes, and modules as <<Len, Name>>. */
struct wish {
    uint32_t buffer, batch, kinds, sites, scopes, modules;
};

/* Atoms do not fit into a binary that anyone may make: EXIT and NAME carry numbers of names. */
static void number_names(struct lin_event *events, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (events[i].kind == LIN_EV_EXIT || events[i].kind == LIN_EV_NAME)
            events[i].a = lin_name_id(events[i].a);
}

static void tell(struct lin_subscriber *subscriber, ErlDrvTermData spec[], int len) {
    /* It fails only when the owner or the port is about to go, which ends the subscription. */
    erl_drv_send_term(subscriber->term, subscriber->owner, spec, len);
}

/* False when there was nothing to send, or no memory to send it in. */
static bool deliver_one(struct lin_subscriber *subscriber) {
    struct lin_stream *stream = subscriber->source->stream;
    uint32_t count = lin_stream_waiting(stream, subscriber->number, subscriber->batch);
    ErlDrvBinary *binary =
        count == 0 ? NULL : driver_alloc_binary(count * sizeof(struct lin_event));
    if (binary == NULL)
        return false;
    struct lin_event *events = (struct lin_event *)(void *)binary->orig_bytes;
    count = lin_stream_take(stream, subscriber->number, events, count);
    number_names(events, count);
    ErlDrvTermData spec[] = {
        ERL_DRV_ATOM,
        driver_mk_atom("lineage_events"),
        ERL_DRV_PORT,
        subscriber->term,
        ERL_DRV_BINARY,
        (ErlDrvTermData)binary,
        count * sizeof(struct lin_event),
        0,
        ERL_DRV_TUPLE,
        3,
    };
    tell(subscriber, spec, sizeof spec / sizeof spec[0]);
    driver_free_binary(binary);
    subscriber->credit--;
    subscriber->delivered += count;
    return true;
}

static void leave(struct lin_subscriber *subscriber) {
    struct lin_source *source = subscriber->source;
    subscriber->source = NULL;
    source->subscriber[subscriber->number] = NULL;
    lin_stream_unsubscribe(source->stream, subscriber->number);
    lin_source_drop(source);
}

static void tell_closed(struct lin_subscriber *subscriber) {
    ErlDrvTermData spec[] = {
        ERL_DRV_ATOM, driver_mk_atom("lineage_events"), ERL_DRV_PORT,  subscriber->term,
        ERL_DRV_ATOM, driver_mk_atom("closed"),         ERL_DRV_TUPLE, 3,
    };
    tell(subscriber, spec, sizeof spec / sizeof spec[0]);
    leave(subscriber);
}

bool lin_subscriber_deliver(struct lin_subscriber *subscriber) {
    struct lin_source *source = subscriber->source;
    if (source == NULL)
        return false;
    uint32_t batches = 0;
    while (subscriber->credit != 0 && batches < LIN_TURN_BATCHES && deliver_one(subscriber))
        batches++;
    bool left = lin_stream_waiting(source->stream, subscriber->number, 1) != 0;
    if (!left && source->ended)
        tell_closed(subscriber);
    return left && subscriber->credit != 0;
}

static int by_number(const void *left, const void *right) {
    uint32_t l = *(const uint32_t *)left, r = *(const uint32_t *)right;
    return l < r ? -1 : l > r;
}

static int by_term(const void *left, const void *right) {
    uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
    return l < r ? -1 : l > r;
}

/* A module that is no atom yet matches nothing, but a filter is one even if all are such. */
static int read_modules(const char *data, size_t len, uint32_t count, struct lin_filter *filter) {
    ErlNifEnv *env = enif_alloc_env();
    if (env == NULL)
        return -ENOMEM;
    int result = 0;
    for (; count > 0 && result == 0; count--) {
        size_t bytes = len == 0 ? 0 : (unsigned char)data[0];
        ERL_NIF_TERM atom;
        if (len < bytes + 1 || bytes == 0)
            result = -EINVAL;
        else if (!lin_atom_existing(env, data + 1, bytes, &atom))
            atom = UINT64_MAX; /* no term is this */
        if (result == 0)
            filter->modules[filter->modules_len++] = atom;
        data += bytes + 1;
        len -= result == 0 ? bytes + 1 : 0;
    }
    enif_free_env(env);
    return result != 0 || len == 0 ? result : -EINVAL;
}

static int read_filter(const char *data, size_t len, struct wish *wish, struct lin_filter *filter) {
    if (len < sizeof *wish)
        return -EINVAL;
    memcpy(wish, data, sizeof *wish);
    if (wish->buffer == 0 || wish->buffer > LIN_BUFFER_EVENTS || wish->batch == 0 ||
        wish->batch > LIN_BATCH_EVENTS || wish->sites > LIN_FILTER_SITES ||
        wish->scopes > LIN_FILTER_SCOPES || wish->modules > LIN_FILTER_MODULES)
        return -EINVAL;
    size_t at = sizeof *wish, sites = wish->sites * sizeof filter->sites[0],
           scopes = wish->scopes * sizeof filter->scopes[0];
    if (len - at < sites + scopes)
        return -EINVAL;
    filter->kinds = wish->kinds;
    filter->sites_len = wish->sites;
    filter->scopes_len = wish->scopes;
    memcpy(filter->sites, data + at, sites);
    memcpy(filter->scopes, data + at + sites, scopes);
    at += sites + scopes;
    int result = read_modules(data + at, len - at, wish->modules, filter);
    qsort(filter->sites, filter->sites_len, sizeof filter->sites[0], by_number);
    qsort(filter->scopes, filter->scopes_len, sizeof filter->scopes[0], by_number);
    qsort(filter->modules, filter->modules_len, sizeof filter->modules[0], by_term);
    return result;
}

static int subscribe_locked(struct lin_subscriber *subscriber, const struct wish *wish,
                            const struct lin_filter *filter) {
    struct lin_source *source = lin_hub.source;
    if (subscriber->source != NULL)
        return -EBUSY;
    if (source == NULL)
        return -ENOTCONN;
    int result = lin_stream_subscribe(source->stream, filter, wish->buffer, &subscriber->number);
    if (result != 0)
        return result;
    lin_source_hold(source);
    source->subscriber[subscriber->number] = subscriber;
    subscriber->source = source;
    subscriber->batch = wish->batch;
    return 0;
}

static int subscribe(struct lin_subscriber *subscriber, const char *data, size_t len) {
    struct wish wish;
    struct lin_filter *filter = enif_alloc(sizeof *filter);
    if (filter == NULL)
        return -ENOMEM;
    memset(filter, 0, sizeof *filter);
    int result = read_filter(data, len, &wish, filter);
    if (result == 0) {
        erl_drv_mutex_lock(lin_hub.lock);
        result = subscribe_locked(subscriber, &wish, filter);
        erl_drv_mutex_unlock(lin_hub.lock);
    }
    enif_free(filter);
    return result;
}

/* What did not fit into one turn is sent in the next: by the pump's, or by our own timer. */
static void deliver(struct lin_subscriber *subscriber, uint32_t credit) {
    erl_drv_mutex_lock(lin_hub.lock);
    subscriber->credit += credit;
    bool more = lin_subscriber_deliver(subscriber);
    erl_drv_mutex_unlock(lin_hub.lock);
    if (more)
        driver_set_timer(subscriber->port, 0);
}

static int grant(struct lin_subscriber *subscriber, const char *data, size_t len) {
    uint32_t credit;
    if (len != sizeof credit)
        return -EINVAL;
    memcpy(&credit, data, sizeof credit);
    deliver(subscriber, credit);
    return 0;
}

static void counts(struct lin_subscriber *subscriber, struct lin_reply *reply) {
    erl_drv_mutex_lock(lin_hub.lock);
    const struct lin_source *source = subscriber->source;
    uint64_t counted[4] = {subscriber->credit, 0, subscriber->delivered, 0};
    if (source != NULL) {
        counted[1] = lin_stream_waiting(source->stream, subscriber->number, UINT32_MAX);
        counted[3] = lin_stream_dropped(source->stream, subscriber->number);
    }
    erl_drv_mutex_unlock(lin_hub.lock);
    lin_reply_add(reply, counted, sizeof counted);
}

static int control(void *port, unsigned op, const char *data, size_t len, struct lin_reply *reply) {
    struct lin_subscriber *subscriber = port;
    /* It may have been given to another process. */
    erl_drv_mutex_lock(lin_hub.lock);
    subscriber->owner = driver_connected(subscriber->port);
    erl_drv_mutex_unlock(lin_hub.lock);
    switch (op) {
    case SUBSCRIBE:
        return subscribe(subscriber, data, len);
    case GRANT:
        return grant(subscriber, data, len);
    case COUNTS:
        counts(subscriber, reply);
        return 0;
    default:
        return -EINVAL;
    }
}

static void timeout(void *port) { deliver(port, 0); }

static void stop(void *port) {
    struct lin_subscriber *subscriber = port;
    erl_drv_mutex_lock(lin_hub.lock);
    if (subscriber->source != NULL)
        leave(subscriber);
    erl_drv_mutex_unlock(lin_hub.lock);
    enif_free(subscriber);
}

static const struct lin_port_class class = {.control = control, .timeout = timeout, .stop = stop};

void *lin_subscriber_start(ErlDrvPort port) {
    struct lin_subscriber *subscriber = enif_alloc(sizeof *subscriber);
    errno = ENOMEM;
    if (subscriber == NULL)
        return NULL;
    *subscriber = (struct lin_subscriber){.class = &class,
                                          .port = port,
                                          .term = driver_mk_port(port),
                                          .owner = driver_connected(port)};
    return subscriber;
}

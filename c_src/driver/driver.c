#include "driver.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/*
 * The driver's entry: it is loaded by erl_ddll from the file that the NIF is in, and shares its
 * globals. Every callback goes on to those of the port's kind. Whatever is sent to a port, it is
 * answered, never crashed by.
 */

struct lin_hub lin_hub;

void lin_source_hold(struct lin_source *source) {
    atomic_fetch_add_explicit(&source->refs, 1, memory_order_relaxed);
}

void lin_source_drop(struct lin_source *source) {
    /* acq_rel: what others did with it happened before it is freed. */
    if (source == NULL || atomic_fetch_sub_explicit(&source->refs, 1, memory_order_acq_rel) != 1)
        return;
    lin_stream_destroy(source->stream);
    if (source->rings != NULL)
        source->free_rings(source->rings, source->rings_bytes);
    enif_free(source);
}

void lin_reply_add(struct lin_reply *reply, const void *bytes, size_t len) {
    if (len > sizeof reply->bytes - reply->len)
        return;
    memcpy(reply->bytes + reply->len, bytes, len);
    reply->len += len;
}

static const struct lin_port_class *class_of(ErlDrvData port) {
    return *(const struct lin_port_class *const *)(void *)port;
}

static int init(void) {
    if (lin_library_open() != 0)
        return -1;
    lin_hub.lock = erl_drv_mutex_create("lineage_hub");
    if (lin_hub.lock != NULL)
        return 0;
    lin_library_close();
    return -1;
}

static void finish(void) {
    lin_writer_stop();
    erl_drv_mutex_destroy(lin_hub.lock);
    lin_hub.lock = NULL;
    lin_library_close();
}

static ErlDrvData start(ErlDrvPort port, char *command) {
    void *data = NULL;
    if (strcmp(command, "lineage pump") == 0)
        data = lin_pump_start(port);
    else if (strcmp(command, "lineage subscriber") == 0)
        data = lin_subscriber_start(port);
    else
        return ERL_DRV_ERROR_BADARG;
    if (data == NULL)
        return ERL_DRV_ERROR_ERRNO;
    set_port_control_flags(port, PORT_CONTROL_FLAG_BINARY);
    return (ErlDrvData)data;
}

static void stop(ErlDrvData port) { class_of(port)->stop(port); }

static void flush(ErlDrvData port) {
    if (class_of(port)->flush != NULL)
        class_of(port)->flush(port);
}

static void timeout(ErlDrvData port) {
    if (class_of(port)->timeout != NULL)
        class_of(port)->timeout(port);
}

static void ready_input(ErlDrvData port, ErlDrvEvent event) {
    (void)event;
    if (class_of(port)->ready_input != NULL)
        class_of(port)->ready_input(port);
}

/* The eventfd: no thread waits for it any more. */
static void stop_select(ErlDrvEvent event, void *reserved) {
    (void)reserved;
    close((int)(intptr_t)event);
}

/* Nothing is sent to a port as data: it is thrown away. */
static void output(ErlDrvData port, char *data, ErlDrvSizeT len) {
    (void)port, (void)data, (void)len;
}

static const char *name_of(int error) {
    switch (error) {
    case EINVAL:
        return "badarg";
    case EMFILE:
        return "full";
    case EAGAIN:
        return "again";
    case ENOTCONN:
        return "closed";
    default:
        return erl_errno_id(error);
    }
}

static ErlDrvSSizeT control(ErlDrvData port, unsigned op, char *data, ErlDrvSizeT len, char **out,
                            ErlDrvSizeT out_len) {
    (void)out_len;
    struct lin_reply reply = {.len = 0};
    int result = class_of(port)->control(port, op, data, len, &reply);
    if (result != 0) {
        reply.len = 0;
        const char *name = name_of(-result);
        lin_reply_add(&reply, name, strlen(name));
    }
    ErlDrvBinary *binary = driver_alloc_binary(reply.len + 1);
    if (binary == NULL)
        return -1; /* badarg */
    binary->orig_bytes[0] = result != 0 ? '\1' : '\0';
    memcpy(binary->orig_bytes + 1, reply.bytes, reply.len);
    *out = (char *)binary;
    return (ErlDrvSSizeT)(reply.len + 1);
}

static ErlDrvEntry entry = {
    .init = init,
    .start = start,
    .stop = stop,
    .output = output,
    .ready_input = ready_input,
    .driver_name = "lineage",
    .finish = finish,
    .control = control,
    .timeout = timeout,
    .flush = flush,
    .extended_marker = (int)ERL_DRV_EXTENDED_MARKER,
    .major_version = ERL_DRV_EXTENDED_MAJOR_VERSION,
    .minor_version = ERL_DRV_EXTENDED_MINOR_VERSION,
    .driver_flags = ERL_DRV_FLAG_USE_PORT_LOCKING,
    .stop_select = stop_select,
};

DRIVER_INIT(lineage) { return &entry; }

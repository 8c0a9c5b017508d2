#include "driver.h"

#include <errno.h>

/* The journal: to be written. */

int lin_recorder_open(const struct lin_recorder_options *options, struct lin_source *source,
                      struct lin_recorder **out) {
    (void)options, (void)source, (void)out;
    return -ENOTSUP;
}

void lin_recorder_start(struct lin_recorder *recorder, struct lin_source *source) {
    (void)recorder, (void)source;
}

uint32_t lin_recorder_turn(struct lin_recorder *recorder) {
    (void)recorder;
    return 0;
}

void lin_recorder_ready(struct lin_recorder *recorder, void *job) { (void)recorder, (void)job; }

int lin_recorder_control(struct lin_recorder *recorder, unsigned op, const char *data, size_t len,
                         struct lin_reply *reply) {
    (void)recorder, (void)op, (void)data, (void)len, (void)reply;
    return -EINVAL;
}

bool lin_recorder_finish(struct lin_recorder *recorder) {
    (void)recorder;
    return true;
}

void lin_recorder_close(struct lin_recorder *recorder) { (void)recorder; }

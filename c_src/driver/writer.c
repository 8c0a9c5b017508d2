#include "recorder.h"

#include <dlfcn.h>
#include <unistd.h>

/*
 * The thread that writes: made at the first job, and kept for all recorders, one after another,
 * until the driver is unloaded. One whose disk does not answer when its pump goes is left alone
 * with its job, which it ends by itself, and the next recorder gets another.
 *
 *     idle --run--> working --done--> idle --stop--> gone
 *                      |--abandoned--> gone, when it is done
 */

struct writer {
    ErlDrvTid thread;
    ErlDrvMutex *lock; /* guards the rest */
    ErlDrvCond *wake;
    struct lin_recorder *recorder; /* whose job it runs, or is to run */
    bool quit;
};

static struct writer *writer; /* the pump's callbacks, and finish */

static void free_writer(struct writer *self) {
    if (self->wake != NULL)
        erl_drv_cond_destroy(self->wake);
    if (self->lock != NULL)
        erl_drv_mutex_destroy(self->lock);
    enif_free(self);
}

/* After its job, which nobody waits for. */
static void end_abandoned(struct writer *self, struct lin_recorder *recorder) {
    lin_source_drop(recorder->source);
    lin_recorder_free(recorder);
    free_writer(self);
}

/* The recorder is the pump's again with `done`: what is written to comes first. */
static void tell_done(struct lin_recorder *recorder, int wake_fd) {
    uint64_t one = 1;
    /* release: pairs with the acquire in lin_recorder_ready. */
    atomic_store_explicit(&recorder->done, true, memory_order_release);
    ssize_t written = write(wake_fd, &one, sizeof one);
    (void)written; /* it can only be full, and then it wakes */
}

static void *work(void *arg) {
    struct writer *self = arg;
    erl_drv_mutex_lock(self->lock);
    for (;;) {
        while (self->recorder == NULL && !self->quit)
            erl_drv_cond_wait(self->wake, self->lock);
        struct lin_recorder *recorder = self->recorder;
        if (recorder == NULL)
            break;
        erl_drv_mutex_unlock(self->lock);
        lin_recorder_job(recorder);
        erl_drv_mutex_lock(self->lock);
        if (self->quit) {
            erl_drv_mutex_unlock(self->lock);
            end_abandoned(self, recorder);
            return NULL;
        }
        self->recorder = NULL;
        tell_done(recorder, recorder->wake_fd);
    }
    erl_drv_mutex_unlock(self->lock);
    return NULL;
}

static struct writer *make_writer(void) {
    struct writer *self = enif_alloc(sizeof *self);
    if (self == NULL)
        return NULL;
    *self = (struct writer){.lock = erl_drv_mutex_create("lineage_writer"),
                            .wake = erl_drv_cond_create("lineage_writer")};
    if (self->lock != NULL && self->wake != NULL &&
        erl_drv_thread_create("lineage_writer", &self->thread, work, self, NULL) == 0)
        return self;
    free_writer(self);
    return NULL;
}

bool lin_writer_run(struct lin_recorder *recorder) {
    if (writer == NULL)
        writer = make_writer();
    if (writer == NULL)
        return false;
    erl_drv_mutex_lock(writer->lock);
    writer->recorder = recorder;
    erl_drv_cond_signal(writer->wake);
    erl_drv_mutex_unlock(writer->lock);
    return true;
}

void lin_writer_settle(void) {
    if (writer == NULL)
        return;
    erl_drv_mutex_lock(writer->lock);
    erl_drv_mutex_unlock(writer->lock);
}

/*
 * The library's code and globals, whatever is unloaded while the thread is left alone: for ever,
 * for threads keep their pointers into the globals as long as the code is there.
 */
static void stay_loaded(void) {
    static bool stays;
    Dl_info info;
    if (stays)
        return;
    stays = true;
    lin_library_open();
    if (dladdr((void *)(uintptr_t)work, &info) != 0)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

void lin_writer_abandon(struct lin_recorder *recorder) {
    stay_loaded();
    erl_drv_mutex_lock(writer->lock);
    bool done = writer->recorder == NULL;
    writer->quit = !done;
    erl_drv_mutex_unlock(writer->lock);
    if (done) {
        lin_source_drop(recorder->source);
        lin_recorder_free(recorder);
        return;
    }
    writer = NULL; /* nobody joins it: that is lost, once for such a disk */
}

void lin_writer_stop(void) {
    struct writer *self = writer;
    if (self == NULL)
        return;
    erl_drv_mutex_lock(self->lock);
    self->quit = true;
    erl_drv_cond_signal(self->wake);
    erl_drv_mutex_unlock(self->lock);
    erl_drv_thread_join(self->thread, NULL);
    free_writer(self);
    writer = NULL;
}

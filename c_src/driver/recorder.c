#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

/*
 * What the pump calls, and the job that it has run: when a ring has filled to its mark, or a while
 * after something came. The job reads the rings as long as there is much in them.
 */

#define EVERY_NS 100000000u  /* what is in the rings is written after so long at the latest */
#define RETRY_NS 1000000000u /* while paused */
#define MUCH 1024u           /* events: less are left to the next job */
#define PASSES 256u          /* of one job over all rings */
#define SLICE 512u           /* records looked at in one visit of the census */
#define QUIESCE_US 100000u
#define TELLING_BYTES 65536u
#define TEXT_MAX 1024u
#define SITES_ASKED 500u

enum { END = 10, PLACES, SCOPES, SITES, STATE };

static void unmap(struct lin_rings *rings, size_t bytes) { munmap(rings, bytes); }

int lin_recorder_open(const struct lin_recorder_options *options, struct lin_source *source,
                      struct lin_recorder **out) {
    uint64_t ticket;
    if (options->journal_len != sizeof ticket)
        return -EINVAL;
    memcpy(&ticket, options->journal, sizeof ticket);
    struct lin_recorder *recorder = lin_recorder_take(ticket);
    if (recorder == NULL)
        return -EINVAL;
    if (recorder->rings->count != options->count ||
        recorder->rings->capacity != options->capacity) {
        lin_recorder_forget(recorder);
        return -EINVAL;
    }
    recorder->port = options->port;
    recorder->term = options->term;
    recorder->owner = options->owner;
    recorder->wake_fd = fcntl(options->wake_fd, F_DUPFD_CLOEXEC, 0);
    if (recorder->wake_fd < 0) {
        lin_recorder_forget(recorder);
        return -EMFILE;
    }
    recorder->count = options->count;
    recorder->mark = options->capacity / 4;
    source->rings = recorder->rings;
    source->rings_bytes = recorder->rings_bytes;
    source->free_rings = unmap;
    recorder->rings = NULL;
    *out = recorder;
    return 0;
}

/* Inside the gate, if the census is still the one that the events are of. */
static struct lin_census *enter(const struct lin_recorder *recorder, struct lin_thread **self) {
    *self = lin_thread_self();
    struct lin_census *census = *self == NULL ? NULL : lin_gate_enter(*self);
    if (census == NULL || census->session == recorder->session)
        return census;
    lin_gate_leave(*self);
    return NULL;
}

void lin_recorder_start(struct lin_recorder *recorder, struct lin_source *source) {
    struct lin_thread *self = lin_thread_self();
    struct lin_census *census = self == NULL ? NULL : lin_gate_enter(self);
    if (census != NULL) {
        recorder->session = census->session;
        lin_gate_leave(self);
    }
    recorder->source = source;
    recorder->why = LIN_END_CLOSED;
    recorder->started = true;
}

/* The batch to the file, and then its events out of the rings. When it fails, pause_recording takes
 * them back. */
static int commit(void *arg) {
    struct lin_recorder *recorder = arg;
    int result = lin_segment_write(&recorder->segment);
    for (uint32_t n = 0; n < recorder->count && result == 0; n++) {
        bool is_new = recorder->ring[n].read != recorder->ring[n].written;
        if (is_new || recorder->ring[n].telling) {
            recorder->holds = true;
            recorder->events += recorder->ring[n].read - recorder->ring[n].written;
            recorder->ring[n].written = recorder->ring[n].read;
            if (recorder->ring[n].telling)
                recorder->ring[n].untold = 0;
            if (is_new)
                lin_stream_written(recorder->source->stream, n, recorder->ring[n].written);
        }
        recorder->ring[n].telling = false;
    }
    return result;
}

/* Texts of what Erlang has told and this segment has not. */
static int say_told(struct lin_recorder *recorder, struct lin_told *told,
                    enum lin_block_type type) {
    for (bool more = true; more;) {
        erl_drv_mutex_lock(recorder->lock);
        char *room = lin_segment_room(&recorder->segment, TELLING_BYTES);
        size_t used = 0;
        while (room != NULL && told->said < told->count) {
            const struct lin_telling *telling = told->text[told->said % told->room];
            size_t bytes = lin_block_padded((uint32_t)sizeof(struct lin_text) + telling->len);
            if (used + bytes > TELLING_BYTES)
                break;
            struct lin_text *text = (void *)(room + used);
            memset(text, 0, bytes);
            text->id = telling->id;
            text->len = telling->len;
            memcpy(text->text, telling->text, telling->len);
            used += bytes;
            told->said++;
        }
        if (used != 0)
            lin_segment_seal(&recorder->segment, type, used);
        more = told->said < told->count;
        erl_drv_mutex_unlock(recorder->lock);
        int result = room == NULL ? commit(recorder) : 0;
        if (result != 0)
            return result;
    }
    return 0;
}

static int say(struct lin_recorder *recorder) {
    return lin_tables_say(recorder->tables, &recorder->segment, commit, recorder);
}

/* A GAP at the place of the last event that was dropped, for all that were. */
static int tell_dropped(struct lin_recorder *recorder, uint32_t n, uint64_t ticks) {
    struct lin_event gap = {
        .ticks = ticks, .a = recorder->ring[n].untold, .b = n, .kind = LIN_EV_GAP};
    if (gap.a == 0 || recorder->ring[n].telling)
        return 0;
    while (!lin_put_events(&recorder->segment, n, recorder->ring[n].read - 1, &gap, 1)) {
        int result = commit(recorder);
        if (result != 0)
            return result;
    }
    recorder->ring[n].telling = true;
    return 0;
}

/* What the events name, then they. `*count` were read. */
static int take(struct lin_recorder *recorder, uint32_t n, uint32_t *count) {
    struct lin_thread *self;
    const struct lin_event *events;
    uint64_t position = recorder->ring[n].read;
    *count = lin_stream_read(recorder->source->stream, n, &position, LIN_EVENTS_MAX, &events);
    if (*count == 0)
        return 0;
    struct lin_census *census = enter(recorder, &self);
    if (census != NULL) {
        lin_tables_need_events(recorder->tables, census, events, *count);
        lin_gate_leave(self);
    }
    int result = tell_dropped(recorder, n, events->ticks);
    if (result == 0)
        result = say(recorder);
    while (result == 0 && !lin_put_events(&recorder->segment, n, position, events, *count))
        result = commit(recorder);
    if (result == 0)
        recorder->ring[n].read = position + *count;
    return result;
}

/* A walk over the census, a slice at a time, from record `number` on. */
struct walk {
    uint32_t number;
    bool done;
    uint32_t count;
    struct lin_entry entry[SLICE];
};

static bool next_slice(struct lin_recorder *recorder, struct walk *walk, bool need) {
    struct lin_thread *self;
    struct lin_census *census = enter(recorder, &self);
    walk->count = 0;
    if (census == NULL)
        return false;
    uint32_t end = census->chunks_max * LIN_CHUNK;
    for (uint32_t looked = 0; walk->number < end && looked < SLICE; walk->number++, looked++) {
        const struct lin_record *record = lin_census_record(census, walk->number);
        struct lin_entry *entry = &walk->entry[walk->count];
        if (record == NULL)
            walk->number |= LIN_CHUNK - 1;
        else if (lin_record_read(record, entry)) {
            if (need)
                lin_tables_need_entry(recorder->tables, census, entry);
            walk->count++;
        }
    }
    walk->done = walk->number >= end;
    lin_gate_leave(self);
    return true;
}

/* While a census is pinned, no record moves to where a walk has been. False: it is gone. */
static bool pin(struct lin_recorder *recorder, bool on) {
    struct lin_thread *self;
    enif_mutex_lock(lin_nif.maintenance);
    struct lin_census *census = enter(recorder, &self);
    if (census != NULL) {
        atomic_store_explicit(&census->pinned, on, memory_order_relaxed);
        lin_gate_leave(self);
    }
    enif_mutex_unlock(lin_nif.maintenance);
    return census != NULL;
}

static void put_entry(struct lin_block_entry *to, const struct lin_entry *entry) {
    *to = (struct lin_block_entry){
        .pid = entry->pid,
        .parent = entry->parent,
        .guardian = entry->guardian,
        .birth = entry->birth,
        .flags = entry->flags,
        .site = entry->site,
        .scope = entry->scope,
        .initial_call = entry->initial_call,
        .spawner = entry->spawner,
        .no = entry->no,
    };
}

/* `first`: entries told before; the first block says from which events on. */
static bool put_census(struct lin_recorder *recorder, const struct walk *walk, uint32_t first,
                       const uint64_t position[]) {
    uint32_t rings = first == 0 ? recorder->count : 0;
    size_t payload = sizeof(struct lin_block_census) + rings * sizeof(uint64_t) +
                     walk->count * sizeof(struct lin_block_entry);
    struct lin_block_census *census = lin_segment_room(&recorder->segment, payload);
    if (census == NULL)
        return false;
    *census = (struct lin_block_census){
        .first = first, .count = walk->count, .last = walk->done, .rings = rings};
    for (uint32_t n = 0; n < rings; n++)
        census->position[n] = position[n];
    struct lin_block_entry *entries = (void *)&census->position[rings];
    for (uint32_t i = 0; i < walk->count; i++)
        put_entry(&entries[i], &walk->entry[i]);
    lin_segment_seal(&recorder->segment, LIN_BLOCK_CENSUS, payload);
    return true;
}

/* Rings that fill while a large census is written do not wait for its end. */
static int take_much(struct lin_recorder *recorder) {
    int result = 0;
    for (uint32_t n = 0; n < recorder->count && result == 0; n++) {
        const struct lin_ring *ring = lin_ring_at(recorder->source->rings, n);
        uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
        uint32_t count;
        if (head - recorder->ring[n].read >= recorder->mark / 2)
            result = take(recorder, n, &count);
    }
    return result;
}

/*
 * The census, once what its entries name is said. Its positions are the writer's own, so that no
 * segment before this one is needed, and nobody is in the middle of an event that is older.
 */
static int walk_census(struct lin_recorder *recorder, struct walk *walk) {
    uint64_t position[LIN_RINGS_MAX] = {0};
    int result = 0;
    for (uint32_t n = 0; n < recorder->count; n++)
        position[n] = recorder->ring[n].read;
    lin_gate_quiesce(QUIESCE_US);
    for (walk->number = 0, walk->done = false; !walk->done && result == 0;)
        result = next_slice(recorder, walk, true) ? say(recorder) : -ESTALE;
    uint32_t told = 0;
    for (walk->number = 0, walk->done = false; !walk->done && result == 0;) {
        if (!next_slice(recorder, walk, false))
            return -ESTALE;
        if (walk->count == 0 && !walk->done)
            continue;
        while (result == 0 && !put_census(recorder, walk, told, position))
            result = commit(recorder);
        told += walk->count;
        if (result == 0)
            result = take_much(recorder);
    }
    return result;
}

/* 0 also when there is no census any more: then none is in this segment. */
static int say_census(struct lin_recorder *recorder) {
    struct walk *walk = enif_alloc(sizeof *walk);
    if (walk == NULL)
        return -ENOMEM;
    int result = pin(recorder, true) ? walk_census(recorder, walk) : -ESTALE;
    pin(recorder, false);
    enif_free(walk);
    return result == -ESTALE ? 0 : result;
}

static void say_again(struct lin_told *told) {
    told->said = told->count > told->room ? told->count - told->room : 0;
}

static void say_all_again(struct lin_recorder *recorder) {
    struct lin_thread *self;
    struct lin_census *census = enter(recorder, &self);
    lin_tables_again(recorder->tables, census);
    if (census != NULL)
        lin_gate_leave(self);
}

/* What a segment says before its first events; its RUN is in the file at once, for who is to end
 * the run if it is killed. */
static int say_first(struct lin_recorder *recorder) {
    int result = commit(recorder);
    say_all_again(recorder);
    erl_drv_mutex_lock(recorder->lock);
    say_again(&recorder->places);
    say_again(&recorder->scopes);
    erl_drv_mutex_unlock(recorder->lock);
    /* What was dropped before the census is told before it: its places are behind that. */
    for (uint32_t n = 0; n < recorder->count && result == 0; n++)
        result = tell_dropped(recorder, n, lin_clock_ticks());
    if (result == 0)
        result = say_census(recorder);
    return result == 0 ? commit(recorder) : result;
}

static int begin(struct lin_recorder *recorder) {
    struct lin_segment *segment = &recorder->segment;
    uint64_t events = recorder->events;
    if (recorder->error == ENOSPC && !lin_segment_has_space(segment))
        return -ENOSPC;
    int result = lin_segment_begin(segment);
    if (result != 0)
        return result;
    recorder->holds = false;
    for (uint32_t n = 0; n < recorder->count; n++)
        recorder->ring[n].untold_before = recorder->ring[n].untold;
    result = say_first(recorder);
    if (result == 0 || segment->bytes > segment->head)
        segment->head = segment->bytes;
    recorder->fresh = result == 0;
    if (result != 0 && recorder->events == events) { /* nothing but GAPs: not worth a file */
        recorder->holds = false;
        for (uint32_t n = 0; n < recorder->count; n++)
            recorder->ring[n].untold = recorder->ring[n].untold_before;
    }
    return result;
}

/* Segments are changed between passes. */
static int pass(struct lin_recorder *recorder, uint32_t *took) {
    int result = 0;
    if (recorder->fresh && lin_segment_is_full(&recorder->segment)) {
        result = commit(recorder);
        if (result == 0)
            result = lin_segment_end(&recorder->segment, true);
        recorder->fresh = result != 0;
    }
    if (result == 0 && !recorder->fresh)
        result = begin(recorder);
    if (result == 0)
        result = say_told(recorder, &recorder->places, LIN_BLOCK_PLACES);
    if (result == 0)
        result = say_told(recorder, &recorder->scopes, LIN_BLOCK_SCOPES);
    *took = 0;
    for (uint32_t n = 0; n < recorder->count && result == 0; n++) {
        uint32_t count;
        result = take(recorder, n, &count);
        *took += count;
    }
    return result;
}

static void pause_recording(struct lin_recorder *recorder, int error) {
    lin_segment_end(&recorder->segment, recorder->holds);
    for (uint32_t n = 0; n < recorder->count; n++) { /* what was in the batch only */
        recorder->ring[n].read = recorder->ring[n].written;
        recorder->ring[n].telling = false;
    }
    recorder->fresh = false;
    recorder->error = -error;
    recorder->retry_ns = lin_clock_ns() + RETRY_NS;
}

static int end(struct lin_recorder *recorder) {
    uint64_t position[LIN_RINGS_MAX];
    struct lin_segment *segment = &recorder->segment;
    int result = 0;
    for (uint32_t n = 0; n < recorder->count; n++) {
        position[n] = recorder->ring[n].read;
        if (result == 0)
            result = tell_dropped(recorder, n, lin_clock_ticks());
    }
    while (result == 0 && !lin_put_end(segment, recorder->why, recorder->count, position))
        result = commit(recorder);
    if (result == 0)
        result = commit(recorder);
    if (result == 0)
        result = lin_segment_end(segment, true);
    if (result == 0) {
        recorder->source->rings->clean = 1;
        lin_rings_unlink(&segment->run);
    }
    return result;
}

static void note_stats(struct lin_recorder *recorder) {
    const struct lin_segment *segment = &recorder->segment;
    uint64_t lost = 0;
    for (uint32_t n = 0; n < recorder->count; n++)
        lost += atomic_load_explicit(&lin_ring_at(recorder->source->rings, n)->lost,
                                     memory_order_relaxed);
    erl_drv_mutex_lock(recorder->lock);
    recorder->stats = (struct lin_stats){
        .segment = recorder->segment.run.segment,
        .bytes = segment->others + (segment->fd < 0 ? 0 : segment->bytes),
        .segments = segment->count,
        .events = recorder->events,
        .dropped = recorder->dropped + lost,
    };
    erl_drv_mutex_unlock(recorder->lock);
}

void lin_recorder_job(struct lin_recorder *recorder) {
    uint32_t took, passes = 0;
    int result;
    do
        result = pass(recorder, &took);
    while (result == 0 && (took > MUCH || (took != 0 && recorder->finishing)) && passes++ < PASSES);
    if (result == 0)
        result = commit(recorder);
    if (result == 0 && recorder->finishing)
        result = end(recorder);
    if (result == 0)
        result = lin_segment_sync(&recorder->segment, false);
    if (result == 0)
        recorder->error = 0;
    else
        pause_recording(recorder, result);
    /* Nothing of the run is kept: nobody would ever find its rings. */
    if (result != 0 && recorder->finishing && !lin_segment_is_any(&recorder->segment))
        lin_rings_unlink(&recorder->segment.run);
    note_stats(recorder);
}

static void start_job(struct lin_recorder *recorder) {
    recorder->running = true;
    atomic_store_explicit(&recorder->done, false, memory_order_relaxed);
    lin_source_hold(recorder->source);
    if (lin_writer_run(recorder))
        return;
    lin_source_drop(recorder->source);
    recorder->running = false;
    recorder->due_ns = lin_clock_ns() + RETRY_NS;
}

/*
 * While paused: what would fill a ring is dropped, so that those who read the stream lose nothing,
 * and the newest are kept, also for who looks into the rings after a kill.
 */
static void drop(struct lin_recorder *recorder, uint32_t n) {
    const struct lin_ring *ring = lin_ring_at(recorder->source->rings, n);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t position = recorder->ring[n].written;
    if (head - position < recorder->mark)
        return;
    uint64_t to = head - recorder->mark / 2;
    const struct lin_event *events;
    for (uint32_t count = 1; position < to && count != 0; position += count) {
        count = lin_stream_read(recorder->source->stream, n, &position, (uint32_t)(to - position),
                                &events);
        for (uint32_t i = 0; i < count; i++) {
            /* Those that a GAP tells of are counted by their ring. */
            bool gap = events[i].kind == LIN_EV_GAP;
            recorder->ring[n].untold += gap ? events[i].a : 1;
            recorder->dropped += !gap;
        }
    }
    recorder->ring[n].read = recorder->ring[n].written = position;
    lin_stream_written(recorder->source->stream, n, position);
}

static bool has_told(struct lin_recorder *recorder) {
    erl_drv_mutex_lock(recorder->lock);
    bool more = recorder->places.said != recorder->places.count ||
                recorder->scopes.said != recorder->scopes.count;
    erl_drv_mutex_unlock(recorder->lock);
    return more;
}

/* When the next job is due, by what there is to write; UINT64_MAX: nothing is. */
static uint64_t due(struct lin_recorder *recorder) {
    if (recorder->error != 0)
        return recorder->retry_ns;
    uint64_t most = 0;
    for (uint32_t n = 0; n < recorder->count; n++) {
        const struct lin_ring *ring = lin_ring_at(recorder->source->rings, n);
        uint64_t there =
            atomic_load_explicit(&ring->head, memory_order_relaxed) - recorder->ring[n].written;
        most = there > most ? there : most;
    }
    if (!recorder->fresh || most >= recorder->mark)
        return 0;
    if (most != 0 || has_told(recorder))
        return recorder->due_ns;
    return lin_segment_sync_at(&recorder->segment);
}

uint32_t lin_recorder_turn(struct lin_recorder *recorder) {
    if (recorder->running || recorder->finishing)
        return 0;
    for (uint32_t n = 0; n < recorder->count && recorder->error != 0; n++)
        drop(recorder, n);
    uint64_t at = due(recorder), now = lin_clock_ns();
    if (at == UINT64_MAX)
        return 0;
    if (at > now)
        return (uint32_t)((at - now) / 1000000) + 1;
    start_job(recorder);
    return 0;
}

static void tell_owner(struct lin_recorder *recorder) {
    int error = recorder->error;
    const char *what = error != 0 ? "paused" : "resumed";
    ErlDrvTermData spec[] = {
        ERL_DRV_PORT,   recorder->term,
        ERL_DRV_ATOM,   driver_mk_atom("recorder"),
        ERL_DRV_ATOM,   driver_mk_atom((char *)(uintptr_t)what),
        ERL_DRV_ATOM,   driver_mk_atom(erl_errno_id(error != 0 ? error : recorder->told_error)),
        ERL_DRV_UINT64, (ErlDrvTermData)&recorder->stats.dropped,
        ERL_DRV_TUPLE,  4,
        ERL_DRV_TUPLE,  2,
    };
    erl_drv_send_term(recorder->term, recorder->owner, spec, sizeof spec / sizeof spec[0]);
    recorder->told_error = error;
}

void lin_recorder_ready(struct lin_recorder *recorder) {
    /* acquire: pairs with the release in writer.c. */
    if (!recorder->running || !atomic_load_explicit(&recorder->done, memory_order_acquire))
        return;
    recorder->running = false;
    recorder->due_ns = lin_clock_ns() + EVERY_NS;
    lin_source_drop(recorder->source);
    if (recorder->finishing)
        recorder->finished = true;
    if ((recorder->error != 0) != (recorder->told_error != 0))
        tell_owner(recorder);
}

bool lin_recorder_finish(struct lin_recorder *recorder) {
    if (recorder->finished)
        return true;
    if (!recorder->running) {
        recorder->finishing = true;
        start_job(recorder);
        return !recorder->running; /* no thread takes it: what is in the rings stays there */
    }
    return false;
}

void lin_recorder_close(struct lin_recorder *recorder) {
    if (recorder == NULL)
        return;
    if (!recorder->started) {
        lin_recorder_forget(recorder);
        return;
    }
    lin_recorder_ready(recorder);
    if (recorder->running) {
        lin_writer_abandon(recorder);
    } else {
        lin_writer_settle();
        lin_recorder_free(recorder);
    }
}

static void keep(struct lin_told *told, struct lin_telling *telling) {
    struct lin_telling **slot = &told->text[told->count++ % told->room];
    if (*slot != NULL)
        enif_free(*slot);
    *slot = telling;
    if (told->count - told->said > told->room)
        told->said = told->count - told->room;
}

/* <<Id:64, Len:32, Text:Len/bytes>>, each as native. */
static int hear(struct lin_recorder *recorder, struct lin_told *told, const char *data,
                size_t len) {
    struct {
        uint64_t id;
        uint32_t len;
    } __attribute__((packed)) head;
    while (len != 0) {
        if (len < sizeof head)
            return -EINVAL;
        memcpy(&head, data, sizeof head);
        if (head.len > TEXT_MAX || head.len > len - sizeof head)
            return -EINVAL;
        struct lin_telling *telling = enif_alloc(sizeof *telling + head.len);
        if (telling == NULL)
            return -ENOMEM;
        telling->id = head.id;
        telling->len = head.len;
        memcpy(telling->text, data + sizeof head, head.len);
        erl_drv_mutex_lock(recorder->lock);
        keep(told, telling);
        erl_drv_mutex_unlock(recorder->lock);
        data += sizeof head + head.len;
        len -= sizeof head + head.len;
    }
    return 0;
}

/* The sites that were named since this was asked last: their places are to be told. */
static void tell_sites(struct lin_recorder *recorder, struct lin_reply *reply) {
    uint32_t count;
    const uint32_t *sites = lin_tables_sites(recorder->tables, &count);
    for (uint32_t i = 0; i < SITES_ASKED && recorder->sites_asked < count; i++)
        lin_reply_add(reply, &sites[recorder->sites_asked++], sizeof *sites);
}

/* <<Bytes:64, Segments:64, Events:64, Dropped:64, Error/bytes>>; Error: <<>> while recording. */
static void tell_state(struct lin_recorder *recorder, struct lin_reply *reply) {
    erl_drv_mutex_lock(recorder->lock);
    struct lin_stats stats = recorder->stats;
    erl_drv_mutex_unlock(recorder->lock);
    lin_reply_add(reply, &stats, sizeof stats);
    if (recorder->told_error != 0) {
        const char *name = erl_errno_id(recorder->told_error);
        lin_reply_add(reply, name, strlen(name));
    }
}

int lin_recorder_control(struct lin_recorder *recorder, unsigned op, const char *data, size_t len,
                         struct lin_reply *reply) {
    switch (op) {
    case END:
        recorder->why = LIN_END_DETACHED;
        return 0;
    case PLACES:
        return hear(recorder, &recorder->places, data, len);
    case SCOPES:
        return hear(recorder, &recorder->scopes, data, len);
    case SITES:
        tell_sites(recorder, reply);
        return 0;
    case STATE:
        tell_state(recorder, reply);
        return 0;
    default:
        return -EINVAL;
    }
}

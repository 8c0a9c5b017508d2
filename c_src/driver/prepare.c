#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * What a recorder needs before it can be opened, and what may take long: it runs on a dirty
 * scheduler. The lock holds as long as the recorder: whoever has it is the only one who writes in
 * the directory, so that what has not ended there, and is of no living process, is dead.
 */

#define LOCK_FILE "lineage.lock"
#define PLACES_KEPT (LIN_SITES + 1u)
#define SCOPES_KEPT 4096u
#define ZEROS 65536u

static _Atomic(struct lin_recorder *) prepared;
static _Atomic uint64_t tickets;

static uint64_t wall_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void free_told(struct lin_told *told) {
    for (uint32_t i = 0; told->text != NULL && i < told->room; i++)
        if (told->text[i] != NULL)
            enif_free(told->text[i]);
    if (told->text != NULL)
        enif_free(told->text);
}

void lin_recorder_free(struct lin_recorder *recorder) {
    if (recorder->segment.fd >= 0)
        close(recorder->segment.fd);
    if (recorder->segment.batch != NULL)
        enif_free(recorder->segment.batch);
    if (recorder->rings != NULL)
        munmap(recorder->rings, recorder->rings_bytes);
    lin_tables_destroy(recorder->tables);
    free_told(&recorder->places);
    free_told(&recorder->scopes);
    if (recorder->lock != NULL)
        erl_drv_mutex_destroy(recorder->lock);
    if (recorder->wake_fd >= 0)
        close(recorder->wake_fd);
    if (recorder->lock_fd >= 0)
        close(recorder->lock_fd);
    enif_free(recorder);
}

void lin_rings_unlink(const struct lin_block_run *run) {
    if (run->rings_in_file != 0)
        unlink(run->rings_path);
}

void lin_recorder_forget(struct lin_recorder *recorder) {
    if (recorder == NULL)
        return;
    lin_rings_unlink(&recorder->segment.run);
    lin_recorder_free(recorder);
}

struct lin_recorder *lin_recorder_take(uint64_t ticket) {
    struct lin_recorder *recorder = atomic_exchange_explicit(&prepared, NULL, memory_order_acq_rel);
    if (recorder == NULL || atomic_load_explicit(&tickets, memory_order_relaxed) == ticket)
        return recorder;
    lin_recorder_forget(recorder);
    return NULL;
}

static bool make_told(struct lin_told *told, uint32_t room) {
    told->room = room;
    told->text = enif_alloc(room * sizeof *told->text);
    if (told->text != NULL)
        memset(told->text, 0, room * sizeof *told->text);
    return told->text != NULL;
}

static struct lin_recorder *create(void) {
    struct lin_recorder *recorder = enif_alloc(sizeof *recorder);
    if (recorder == NULL)
        return NULL;
    memset(recorder, 0, sizeof *recorder);
    recorder->lock_fd = recorder->wake_fd = recorder->segment.fd = -1;
    recorder->segment.batch = enif_alloc(LIN_BATCH_BYTES);
    recorder->tables = lin_tables_create();
    recorder->lock = erl_drv_mutex_create("lineage_recorder");
    if (recorder->segment.batch != NULL && recorder->tables != NULL && recorder->lock != NULL &&
        make_told(&recorder->places, PLACES_KEPT) && make_told(&recorder->scopes, SCOPES_KEPT))
        return recorder;
    lin_recorder_free(recorder);
    return NULL;
}

/* Who holds it is written into it, for the sentence that refuses another. */
static int lock_dir(struct lin_recorder *recorder, const char *node) {
    char path[PATH_MAX], text[LIN_JOURNAL_NODE + 64];
    snprintf(path, sizeof path, "%s/" LOCK_FILE, recorder->segment.dir);
    recorder->lock_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (recorder->lock_fd < 0)
        return -errno;
    if (flock(recorder->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return -errno;
    int len = snprintf(text, sizeof text, "%s, OS process %d\n", node, (int)getpid());
    if (ftruncate(recorder->lock_fd, 0) != 0 ||
        pwrite(recorder->lock_fd, text, (size_t)len, 0) != len)
        return -errno;
    return 0;
}

static int make_dir(const char *dir) {
    struct stat stat_of;
    if (mkdir(dir, S_IRWXU) == 0)
        return 0;
    int error = errno;
    if (error == EEXIST && stat(dir, &stat_of) == 0)
        return S_ISDIR(stat_of.st_mode) ? 0 : -ENOTDIR;
    return -error;
}

static int fill_with_zeros(int fd, size_t bytes) {
    static const char zeros[ZEROS];
    while (bytes > 0) {
        ssize_t wrote = write(fd, zeros, bytes < sizeof zeros ? bytes : sizeof zeros);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote == 0 ? -EIO : -errno;
        bytes -= (size_t)wrote;
    }
    return 0;
}

/* All of it is there before it is mapped: what is missing later would be a signal. */
static int map_file(const char *path, size_t bytes, void **memory) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return -errno;
    int result = -posix_fallocate(fd, 0, (off_t)bytes);
    if (result == 0)
        result = fill_with_zeros(fd, bytes);
    if (result == 0) {
        *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        result = *memory == MAP_FAILED ? -errno : 0;
    }
    close(fd);
    if (result != 0)
        unlink(path);
    return result;
}

static int map_memory(size_t bytes, void **memory) {
    *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return *memory == MAP_FAILED ? -ENOMEM : 0;
}

static void rings_name(char *name, size_t room, unsigned uid, uint64_t run) {
    snprintf(name, room, "lineage-%u-%016llx.rings", uid, (unsigned long long)run);
}

/* `why`: the errno for which they are in memory; 0: they are in a file. */
static int make_rings(struct lin_recorder *recorder, const char *rings_dir, uint32_t count,
                      uint32_t capacity, int *why) {
    struct lin_block_run *run = &recorder->segment.run;
    size_t bytes = lin_rings_bytes(count, capacity);
    void *memory = NULL;
    if (bytes == 0)
        return -EINVAL;
    char name[64];
    rings_name(name, sizeof name, geteuid(), recorder->segment.id);
    int len = snprintf(run->rings_path, sizeof run->rings_path, "%s/%s", rings_dir, name);
    *why = len < 0 || (size_t)len >= sizeof run->rings_path
               ? ENAMETOOLONG
               : -map_file(run->rings_path, bytes, &memory);
    run->rings_in_file = *why == 0;
    if (*why != 0)
        memset(run->rings_path, 0, sizeof run->rings_path);
    int result = *why == 0 ? 0 : map_memory(bytes, &memory);
    if (result != 0 || memory == NULL)
        return result != 0 ? result : -ENOMEM;
    recorder->rings = memory;
    recorder->rings_bytes = bytes;
    lin_rings_init(recorder->rings, count, capacity);
    recorder->rings->run = recorder->segment.id;
    recorder->rings->os_pid = run->os_pid;
    recorder->rings->os_start = run->os_start;
    recorder->rings->opened = run->opened;
    recorder->rings->opened_wall_ns = run->opened_wall_ns;
    run->rings = count;
    run->capacity = capacity;
    return 0;
}

/* What a dead run left, as reported. */
struct remains {
    uint64_t run, wall_ns, events, missing;
    char node[LIN_JOURNAL_NODE];
};

/* Events that lie in a row in a dead ring, from `from` on: a place that was never filled ends them.
 */
static uint32_t in_a_row(const struct lin_left *left, uint32_t n, uint64_t from, uint64_t to) {
    uint32_t at = (uint32_t)from & (left->rings->capacity - 1);
    uint32_t count = 0;
    while (from + count < to && at + count < left->rings->capacity && count < LIN_EVENTS_MAX &&
           lin_left_at(left, n, from + count) != NULL)
        count++;
    return count;
}

static int put(struct lin_segment *segment, uint32_t n, uint64_t position,
               const struct lin_event *events, uint32_t count) {
    while (!lin_put_events(segment, n, position, events, count)) {
        int result = lin_segment_write(segment);
        if (result != 0)
            return result;
    }
    return 0;
}

static int put_gap(struct lin_segment *segment, uint32_t n, uint64_t position, uint64_t missing,
                   uint64_t ticks, struct remains *remains) {
    struct lin_event gap = {.ticks = ticks, .a = missing, .b = n, .kind = LIN_EV_GAP};
    remains->missing += missing;
    return put(segment, n, position, &gap, 1);
}

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* One ring's events, and GAPs for what was dropped before them and lost behind. */
static int put_ring(struct lin_segment *segment, const struct lin_run *run,
                    const struct lin_left *left, uint32_t n, struct remains *remains) {
    const struct lin_ring *ring = lin_ring_at(left->rings, n);
    uint64_t from = left->from[n], to = left->to[n];
    uint64_t lost = GET(ring->lost), told = GET(ring->told);
    int result = 0;
    if (from > run->position[n] && from != 0)
        result = put_gap(segment, n, from - 1, from - run->position[n], run->to_ticks, remains);
    while (from < to && result == 0) {
        uint32_t count = in_a_row(left, n, from, to);
        if (count != 0)
            result = put(segment, n, from, lin_left_at(left, n, from), count);
        remains->events += count;
        from += count == 0 ? 1 : count; /* the one that the process was about to write */
    }
    if (result == 0 && lost > told && lost - told < UINT32_MAX)
        result = put_gap(segment, n, to, lost - told, GET(ring->lost_at), remains);
    return result;
}

/* The last that is known of a dead run is its end. */
static void set_end(struct lin_segment *segment, const struct lin_run *run,
                    const struct lin_left *left) {
    uint64_t last = run->to_ticks;
    for (uint32_t n = 0; left->rings != NULL && n < left->rings->count; n++)
        for (uint64_t at = left->from[n]; at < left->to[n]; at++) {
            const struct lin_event *event = lin_left_at(left, n, at);
            if (event != NULL && event->ticks > last)
                last = event->ticks;
        }
    segment->as_of_ticks = last;
    segment->as_of_wall_ns = run->to_wall_ns;
    if (run->to_ticks > run->from_ticks && run->to_wall_ns > run->from_wall_ns)
        segment->as_of_wall_ns += (uint64_t)((double)(last - run->to_ticks) *
                                             (double)(run->to_wall_ns - run->from_wall_ns) /
                                             (double)(run->to_ticks - run->from_ticks));
}

static int close_run(struct lin_segment *segment, const struct lin_run *run,
                     struct remains *remains) {
    struct lin_left left = {.rings = NULL};
    bool there = lin_left_read(run, &left) == 0;
    set_end(segment, run, &left);
    remains->wall_ns = segment->as_of_wall_ns;
    int result = lin_segment_begin(segment);
    for (uint32_t n = 0; there && n < left.rings->count && result == 0; n++)
        result = put_ring(segment, run, &left, n, remains);
    while (result == 0 && !lin_put_end(segment, LIN_END_RECOVERED, there ? left.rings->count : 0,
                                       there ? left.to : run->position))
        result = lin_segment_write(segment);
    if (result == 0)
        result = lin_segment_write(segment);
    int ended = lin_segment_end(segment, result == 0);
    if (there)
        lin_left_free(&left);
    return result != 0 ? result : ended;
}

/* Ours too, when it is not the one that is being made: nobody else writes here. */
static bool is_over(const struct lin_run *run) {
    return run->head.os_pid == (uint32_t)getpid() || !lin_run_is_alive(run);
}

static bool is_dead(const struct lin_run *run) {
    return run->head.rings != 0 && run->end == 0 && is_over(run);
}

/* The file that a segment names is removed only when it is that run's rings, by what is in it and
 * by its own name: whoever can write a segment could name any file. */
static void remove_rings(const struct lin_run *run) {
    char name[64];
    unsigned uid;
    const char *base = strrchr(run->head.rings_path, '/');
    if (base == NULL || sscanf(base + 1, "lineage-%u-", &uid) != 1)
        return;
    rings_name(name, sizeof name, uid, run->id);
    if (strcmp(base + 1, name) == 0 && lin_left_is_there(run))
        lin_rings_unlink(&run->head);
}

/* Ends a dead run: its rings go into a segment of its own. True when there was one. */
static bool recover_run(const struct lin_recorder *recorder, const struct lin_segment_name *names,
                        size_t count, struct remains *remains) {
    const char *dir = recorder->segment.dir;
    struct lin_run *run = malloc(sizeof *run);
    bool dead = false;
    if (run == NULL)
        return false;
    lin_run_init(run, names[0].run);
    lin_run_read(run, dir, names[count - 1], NULL, NULL);
    /* Without a head it was killed while it began that segment. */
    if (is_dead(run) || run->head.rings == 0) {
        lin_run_init(run, names[0].run);
        for (size_t i = 0; i < count; i++)
            lin_run_read(run, dir, names[i], NULL, NULL);
        dead = is_dead(run);
    }
    if (dead) {
        struct lin_segment segment = recorder->segment;
        segment.id = run->id;
        segment.run = run->head;
        segment.run.segment = run->last_segment + 1;
        segment.no = run->next_block;
        segment.segment_bytes = 0; /* room is made for what is written: the evidence stays */
        *remains = (struct remains){.run = run->id, .wall_ns = run->to_wall_ns};
        memcpy(remains->node, run->head.node, sizeof remains->node);
        if (close_run(&segment, run, remains) == 0)
            remove_rings(run);
    } else if (run->end != 0 && is_over(run)) { /* its end was written, and then it was killed */
        remove_rings(run);
    }
    free(run);
    return dead;
}

static ERL_NIF_TERM binary_of(ErlNifEnv *env, const char *text) {
    ERL_NIF_TERM term;
    size_t len = strlen(text);
    char *data = (char *)enif_make_new_binary(env, len, &term);
    for (size_t i = 0; i < len; i++) /* without its 0 */
        data[i] = text[i];
    return term;
}

/* [{Run, Node, WallNs, Events, Missing}] of the dead runs that were ended. */
static ERL_NIF_TERM recover(ErlNifEnv *env, const struct lin_recorder *recorder) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    struct lin_segment_name *names;
    size_t count;
    if (lin_scan_list(recorder->segment.dir, &names, &count) != 0)
        return list;
    for (size_t first = 0, end; first < count; first = end) {
        struct remains remains;
        for (end = first; end < count && names[end].run == names[first].run;)
            end++;
        if (recover_run(recorder, names + first, end - first, &remains))
            list = enif_make_list_cell(env,
                                       enif_make_tuple5(env, enif_make_uint64(env, remains.run),
                                                        binary_of(env, remains.node),
                                                        enif_make_uint64(env, remains.wall_ns),
                                                        enif_make_uint64(env, remains.events),
                                                        enif_make_uint64(env, remains.missing)),
                                       list);
    }
    free(names);
    return list;
}

static bool get_text(ErlNifEnv *env, ERL_NIF_TERM term, char *to, size_t room) {
    ErlNifBinary text;
    if (!enif_inspect_binary(env, term, &text) || text.size == 0 || text.size >= room ||
        memchr(text.data, 0, text.size) != NULL)
        return false;
    memcpy(to, text.data, text.size);
    to[text.size] = 0;
    return true;
}

/* {Rings, RingBytes, SegmentBytes, MaxBytes, FsyncNs, Release, ProcessLimit} */
#define NUMBERS 7
static bool get_numbers(ErlNifEnv *env, ERL_NIF_TERM term, ErlNifUInt64 numbers[NUMBERS]) {
    const ERL_NIF_TERM *tuple;
    int size;
    if (!enif_get_tuple(env, term, &size, &tuple) || size != NUMBERS)
        return false;
    for (int i = 0; i < NUMBERS; i++)
        if (!enif_get_uint64(env, tuple[i], &numbers[i]))
            return false;
    return numbers[0] >= 1 && numbers[0] < LIN_RINGS_MAX && numbers[2] != 0 && numbers[6] >= 2 &&
           numbers[6] <= 1u << 27;
}

/* As pid_layout_known in lineage_nif.c finds them. A small number is the same in all: then it is
 * what the release is known to have. */
static uint32_t pid_layout(ErlNifEnv *env, uint32_t release, uint32_t log2) {
    ErlNifPid self;
    ERL_NIF_TERM node;
    uint64_t id, serial;
    if (release < 27 || enif_self(env, &self) == NULL ||
        !lin_pid_number(env, self.pid, &node, &id, &serial))
        return LIN_PID_15;
    uint32_t mask = (1u << log2) - 1, data = (uint32_t)(self.pid >> 4) & mask;
    uint32_t dealt = data >> 3 | (data & 7) << (log2 - 3);
    return ((uint32_t)(id | serial << 28) & mask) == dealt ? LIN_PID_28_DEALT : LIN_PID_28;
}

static void describe(ErlNifEnv *env, struct lin_recorder *recorder,
                     const ErlNifUInt64 numbers[NUMBERS]) {
    struct lin_segment *segment = &recorder->segment;
    struct lin_block_run *run = &segment->run;
    uint32_t limit = (uint32_t)numbers[6];
    run->opened = lin_clock_sure();
    run->opened_wall_ns = segment->id = wall_ns();
    run->os_pid = (uint32_t)getpid();
    run->os_start = lin_os_start(run->os_pid);
    lin_boot_id(run->boot_id);
    run->limit_log2 = 32u - (uint32_t)__builtin_clz(limit - 1);
    run->release = (uint32_t)numbers[5];
    run->pid_layout = pid_layout(env, run->release, run->limit_log2);
    segment->segment_bytes = numbers[2];
    segment->max_bytes = numbers[3];
    segment->fsync_ns = numbers[4];
}

static ERL_NIF_TERM errno_term(ErlNifEnv *env, int error) {
    return error == 0 ? am_ok : enif_make_atom(env, erl_errno_id(error));
}

static ERL_NIF_TERM failed(ErlNifEnv *env, const char *what, int result) {
    return lin_error(env,
                     enif_make_tuple2(env, enif_make_atom(env, what), errno_term(env, -result)));
}

static ERL_NIF_TERM locked(ErlNifEnv *env, const struct lin_recorder *recorder) {
    char holder[LIN_JOURNAL_NODE + 64] = "";
    ssize_t got = pread(recorder->lock_fd, holder, sizeof holder - 1, 0);
    holder[got > 0 ? (size_t)got - 1 : 0] = 0; /* without the end of the line */
    return lin_error(env,
                     enif_make_tuple2(env, enif_make_atom(env, "locked"), binary_of(env, holder)));
}

/* `*ticket` 0: it is not. */
static ERL_NIF_TERM make_ready(ErlNifEnv *env, struct lin_recorder *recorder, const char *rings_dir,
                               const ErlNifUInt64 numbers[NUMBERS], uint64_t *ticket) {
    int why;
    /* One that a session which died had prepared holds the lock. */
    lin_recorder_forget(lin_recorder_take(0));
    int result = make_dir(recorder->segment.dir);
    if (result != 0)
        return failed(env, "dir", result);
    result = lock_dir(recorder, recorder->segment.run.node);
    if (result == -EWOULDBLOCK)
        return locked(env, recorder);
    if (result != 0)
        return failed(env, "lock", result);
    describe(env, recorder, numbers);
    ERL_NIF_TERM dead = recover(env, recorder);
    uint32_t count = (uint32_t)numbers[0] + 1;
    result = make_rings(recorder, rings_dir, count, lin_rings_capacity(count, numbers[1]), &why);
    if (result != 0)
        return failed(env, "rings", result);
    *ticket = atomic_fetch_add_explicit(&tickets, 1, memory_order_relaxed) + 1;
    lin_recorder_forget(atomic_exchange_explicit(&prepared, recorder, memory_order_acq_rel));
    return enif_make_tuple4(env, am_ok, enif_make_uint64(env, *ticket), errno_term(env, why), dead);
}

/* journal(Dir, RingsDir, Node, Numbers) */
ERL_NIF_TERM journal_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)argc;
    char rings_dir[LIN_JOURNAL_PATH];
    ErlNifUInt64 numbers[NUMBERS];
    struct lin_recorder *recorder = create();
    if (recorder == NULL)
        return failed(env, "memory", -ENOMEM);
    struct lin_segment *segment = &recorder->segment;
    uint64_t ticket = 0;
    ERL_NIF_TERM answer = get_text(env, argv[0], segment->dir, sizeof segment->dir) &&
                                  get_text(env, argv[1], rings_dir, sizeof rings_dir) &&
                                  get_text(env, argv[2], segment->run.node, LIN_JOURNAL_NODE) &&
                                  get_numbers(env, argv[3], numbers)
                              ? make_ready(env, recorder, rings_dir, numbers, &ticket)
                              : enif_make_badarg(env);
    if (ticket == 0)
        lin_recorder_free(recorder);
    return answer;
}

/* journal_drop() */
ERL_NIF_TERM journal_drop_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
    (void)env, (void)argc, (void)argv;
    lin_recorder_forget(lin_recorder_take(0));
    return am_ok;
}

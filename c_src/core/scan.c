#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int by_name(const void *left, const void *right) {
    const struct lin_segment_name *l = left, *r = right;
    if (l->run != r->run)
        return l->run < r->run ? -1 : 1;
    return l->no < r->no ? -1 : l->no > r->no;
}

static bool is_segment(const char *file, struct lin_segment_name *name) {
    unsigned long long run;
    unsigned no;
    char again[64];
    if (sscanf(file, "lineage-%16llx-%10u.journal", &run, &no) != 2)
        return false;
    snprintf(again, sizeof again, LIN_SEGMENT_NAME, run, no);
    *name = (struct lin_segment_name){.run = run, .no = no};
    return strcmp(file, again) == 0;
}

int lin_scan_list(const char *dir, struct lin_segment_name **out, size_t *count) {
    size_t room = 0;
    *out = NULL;
    *count = 0;
    DIR *stream = opendir(dir);
    if (stream == NULL)
        return -errno;
    struct lin_segment_name name;
    for (const struct dirent *file; (file = readdir(stream)) != NULL;) {
        if (!is_segment(file->d_name, &name))
            continue;
        if (*count == room) {
            room = room == 0 ? 64 : 2 * room;
            struct lin_segment_name *more = realloc(*out, room * sizeof *more);
            if (more == NULL) {
                free(*out);
                *out = NULL;
                closedir(stream);
                return -ENOMEM;
            }
            *out = more;
        }
        (*out)[(*count)++] = name;
    }
    closedir(stream);
    if (*count != 0)
        qsort(*out, *count, sizeof **out, by_name);
    return 0;
}

bool lin_segment_path(char *path, size_t room, const char *dir, struct lin_segment_name name) {
    int len = snprintf(path, room, "%s/" LIN_SEGMENT_NAME, dir, (unsigned long long)name.run,
                       (unsigned)name.no);
    return len > 0 && (size_t)len < room;
}

/* Up to `bytes` from `at` on; fewer where the file ends. */
static ssize_t read_fully(int fd, void *to, size_t bytes, off_t at) {
    size_t got = 0;
    while (got < bytes) {
        ssize_t n = pread(fd, (char *)to + got, bytes - got, at + (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

static int open_regular(const char *path, size_t *bytes) {
    struct stat st;
    *bytes = 0;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > LIN_SEGMENT_MAX_BYTES) {
        close(fd);
        return -EINVAL;
    }
    *bytes = (size_t)st.st_size;
    return fd;
}

static int read_open(int fd, void **out, size_t *bytes) {
    void *data = malloc(*bytes + 8);
    ssize_t got = data == NULL ? -ENOMEM : read_fully(fd, data, *bytes, 0);
    if (got < 0) {
        free(data);
        return (int)got;
    }
    *out = data;
    *bytes = (size_t)got;
    return 0;
}

int lin_file_read(const char *path, void **out, size_t *bytes) {
    int fd = open_regular(path, bytes);
    if (fd < 0)
        return fd;
    int result = read_open(fd, out, bytes);
    close(fd);
    return result;
}

void lin_run_init(struct lin_run *run, uint64_t id) {
    memset(run, 0, sizeof *run);
    run->id = id;
}

static void fold_events(struct lin_run *run, const struct lin_block_events *events) {
    if (events->ring >= LIN_RINGS_MAX)
        return;
    for (uint32_t i = 0; i < events->count; i++) {
        bool gap = events->event[i].kind == LIN_EV_GAP;
        run->events += !gap;
        run->missing += gap ? events->event[i].a : 0;
    }
    uint64_t end = events->position + events->count;
    if (end > run->position[events->ring])
        run->position[events->ring] = end;
}

/* A census says how far each ring was written when it was begun. */
static void fold_census(struct lin_run *run, const struct lin_block_census *census) {
    for (uint32_t n = 0; n < census->rings && n < LIN_RINGS_MAX; n++)
        if (census->position[n] > run->position[n])
            run->position[n] = census->position[n];
}

static void fold(struct lin_run *run, const struct lin_block *block) {
    const struct lin_block_run *head = lin_block_payload(block, LIN_BLOCK_RUN);
    const struct lin_block_census *census = lin_block_payload(block, LIN_BLOCK_CENSUS);
    const struct lin_block_events *events = lin_block_payload(block, LIN_BLOCK_EVENTS);
    const struct lin_block_end *end = lin_block_payload(block, LIN_BLOCK_END);
    if (run->blocks == 0) {
        run->from_ticks = block->ticks;
        run->from_wall_ns = block->wall_ns;
    } else if (block->no > run->next_block) {
        run->missing_blocks += block->no - run->next_block;
    }
    run->blocks++;
    run->next_block = block->no + 1;
    if (block->ticks >= run->to_ticks) {
        run->to_ticks = block->ticks;
        run->to_wall_ns = block->wall_ns;
    }
    if (head != NULL && run->head.rings == 0 && head->rings <= LIN_RINGS_MAX)
        run->head = *head;
    if (census != NULL)
        fold_census(run, census);
    if (events != NULL)
        fold_events(run, events);
    if (end != NULL)
        run->end = end->why;
}

void lin_run_segment(struct lin_run *run, uint32_t no, const void *data, size_t bytes,
                     lin_block_fn fn, void *arg) {
    size_t at = 0;
    if (run->segments++ == 0)
        run->first_segment = no;
    run->last_segment = no;
    run->bytes += bytes;
    const struct lin_block *block;
    while ((block = lin_block_next(data, bytes, &at, &run->damaged_bytes)) != NULL) {
        if (block->run != run->id) {
            run->damaged_bytes += lin_block_padded(block->bytes);
            continue;
        }
        fold(run, block);
        if (fn != NULL)
            fn(arg, block);
    }
}

int lin_run_read(struct lin_run *run, const char *dir, struct lin_segment_name name,
                 lin_block_fn fn, void *arg) {
    char path[PATH_MAX];
    void *data = NULL;
    size_t bytes = 0;
    if (!lin_segment_path(path, sizeof path, dir, name))
        return -ENAMETOOLONG;
    int result = lin_file_read(path, &data, &bytes);
    if (result != 0)
        return result;
    lin_run_segment(run, name.no, data, bytes, fn, arg);
    free(data);
    return 0;
}

uint64_t lin_os_start(uint32_t os_pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", os_pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read_fully(fd, text, sizeof text - 1, 0);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    /* The name, field 2, may hold anything: what follows its last parenthesis is field 3. */
    char *at = strrchr(text, ')');
    /* One that is dead, and only waits for its parent to hear of it, has done its last. */
    if (at != NULL && (strncmp(at, ") Z", 3) == 0 || strncmp(at, ") X", 3) == 0))
        return 0;
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

void lin_boot_id(uint8_t id[16]) {
    char text[64] = "";
    memset(id, 0, 16);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read_fully(fd, text, sizeof text - 1, 0);
    close(fd);
    unsigned byte;
    size_t n = 0;
    for (const char *at = text; got > 0 && n < 16 && at[0] != 0 && at[1] != 0;) {
        if (*at == '-') {
            at++;
        } else if (sscanf(at, "%2x", &byte) == 1) {
            id[n++] = (uint8_t)byte;
            at += 2;
        } else {
            break;
        }
    }
}

bool lin_run_is_alive(const struct lin_run *run) {
    uint8_t boot[16];
    lin_boot_id(boot);
    return run->head.os_pid != 0 && memcmp(boot, run->head.boot_id, sizeof boot) == 0 &&
           lin_os_start(run->head.os_pid) == run->head.os_start;
}

static bool is_of(const struct lin_run *run, const struct lin_rings *rings, size_t bytes) {
    size_t want = lin_rings_bytes(rings->count, rings->capacity);
    return rings->magic == LIN_RINGS_MAGIC && rings->run == run->id && want != 0 && bytes >= want &&
           rings->ring_bytes == (want - sizeof *rings) / rings->count &&
           rings->count == run->head.rings && rings->capacity == run->head.capacity &&
           rings->os_pid == run->head.os_pid && rings->os_start == run->head.os_start;
}

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

int lin_left_init(const struct lin_run *run, void *data, size_t bytes, struct lin_left *out) {
    struct lin_rings *rings = data;
    if (bytes < sizeof *rings || !is_of(run, rings, bytes))
        return -EINVAL;
    *out = (struct lin_left){.rings = rings, .bytes = bytes};
    for (uint32_t n = 0; n < rings->count; n++) {
        const struct lin_ring *ring = lin_ring_at(rings, n);
        uint64_t head = GET(ring->head), tail = GET(ring->tail);
        if (head < tail || head - tail > rings->capacity)
            continue; /* damaged: nothing in it can be trusted */
        uint64_t lost = GET(ring->lost), told = GET(ring->told);
        out->untold += lost > told ? lost - told : 0;
        if (tail > run->position[n])
            out->between += tail - run->position[n];
        out->from[n] = tail;
        out->to[n] = head;
    }
    lin_left_pass(out, run);
    return 0;
}

/* The tails as they are now: what lies before them may have been written over while it was read. */
static void read_tails(int fd, struct lin_rings *rings) {
    struct lin_ring now;
    for (uint32_t n = 0; n < rings->count; n++) {
        struct lin_ring *ring = lin_ring_at(rings, n);
        off_t at = (off_t)((const char *)ring - (const char *)rings);
        uint64_t head = GET(ring->head);
        if (read_fully(fd, &now, sizeof now, at) != (ssize_t)sizeof now)
            continue;
        uint64_t tail = GET(now.tail);
        atomic_store_explicit(&ring->tail, tail < head ? tail : head, memory_order_relaxed);
    }
}

static int open_rings(const struct lin_run *run, size_t *bytes) {
    if (run->head.rings == 0 || run->head.rings_in_file == 0 || run->head.rings_path[0] != '/')
        return -ENOENT;
    return open_regular(run->head.rings_path, bytes);
}

bool lin_left_is_there(const struct lin_run *run) {
    struct lin_rings rings;
    size_t bytes;
    int fd = open_rings(run, &bytes);
    if (fd < 0)
        return false;
    bool there = read_fully(fd, &rings, sizeof rings, 0) == (ssize_t)sizeof rings &&
                 is_of(run, &rings, bytes);
    close(fd);
    return there;
}

int lin_left_read(const struct lin_run *run, struct lin_left *out) {
    size_t bytes;
    void *data = NULL;
    int fd = run->end != 0 ? -ENOENT : open_rings(run, &bytes);
    if (fd < 0)
        return fd;
    int result = read_open(fd, &data, &bytes);
    if (result == 0 && bytes >= sizeof(struct lin_rings) && is_of(run, data, bytes))
        read_tails(fd, data);
    close(fd);
    if (result == 0)
        result = lin_left_init(run, data, bytes, out);
    if (result != 0)
        free(data);
    return result;
}

const struct lin_event *lin_left_at(const struct lin_left *left, uint32_t n, uint64_t position) {
    const struct lin_ring *ring = lin_ring_at(left->rings, n);
    const struct lin_event *event = &ring->event[position & (left->rings->capacity - 1)];
    return n == 0 && event->ticks == 0 ? NULL : event;
}

void lin_left_pass(struct lin_left *left, const struct lin_run *run) {
    for (uint32_t n = 0; n < left->rings->count; n++) {
        uint64_t read = run->position[n] < left->to[n] ? run->position[n] : left->to[n];
        if (left->from[n] < read)
            left->from[n] = read;
    }
}

void lin_left_free(struct lin_left *left) {
    free(left->rings);
    left->rings = NULL;
}

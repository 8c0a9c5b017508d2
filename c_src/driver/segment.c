#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/*
 * The files of a run. A batch of blocks is appended by write(2) and never mapped: a disk that fails
 * gives an errno, not a signal. What a failing write has left is cut off again, so that what
 * follows is whole.
 */

static uint64_t wall_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void *lin_segment_room(struct lin_segment *segment, size_t payload) {
    size_t bytes = lin_block_padded((uint32_t)(sizeof(struct lin_block) + payload));
    return bytes > LIN_BATCH_BYTES - segment->used
               ? NULL
               : segment->batch + segment->used + sizeof(struct lin_block);
}

void lin_segment_seal(struct lin_segment *segment, enum lin_block_type type, size_t payload) {
    struct lin_block *block = (void *)(segment->batch + segment->used);
    if (segment->used == 0)
        segment->batch_no = segment->no;
    bool now = segment->as_of_ticks == 0;
    lin_block_seal(block, type, (uint32_t)payload, segment->id, segment->no++,
                   now ? lin_clock_ticks() : segment->as_of_ticks,
                   now ? wall_ns() : segment->as_of_wall_ns);
    segment->used += lin_block_padded(block->bytes);
}

static int write_in_full(int fd, const char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t wrote = write(fd, data, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote == 0 ? -EIO : -errno;
        data += wrote;
        bytes -= (size_t)wrote;
    }
    return 0;
}

static int append(const struct lin_segment *segment) {
    struct stat stat;
    if (fstat(segment->fd, &stat) != 0)
        return -errno;
    if (stat.st_nlink == 0) /* removed: what is written to it is written nowhere */
        return -ENOENT;
    return write_in_full(segment->fd, segment->batch, segment->used);
}

static bool path_of(const struct lin_segment *segment, struct lin_segment_name name,
                    char path[PATH_MAX]) {
    return lin_segment_path(path, PATH_MAX, segment->dir, name);
}

static struct lin_segment_name own_name(const struct lin_segment *segment) {
    return (struct lin_segment_name){.run = segment->id, .no = segment->run.segment};
}

static bool is_own(const struct lin_segment *segment, struct lin_segment_name name) {
    return name.run == segment->id && name.no == segment->run.segment;
}

static uint64_t size_of(const struct lin_segment *segment, struct lin_segment_name name) {
    char path[PATH_MAX];
    struct stat stat;
    return path_of(segment, name, path) && lstat(path, &stat) == 0 ? (uint64_t)stat.st_size : 0;
}

/* From the first on while there is too much, but for those of the run `spared`. */
static void remove_oldest(struct lin_segment *segment, const struct lin_segment_name *names,
                          size_t count, uint64_t spared, uint64_t more) {
    char path[PATH_MAX];
    for (size_t i = 0; i < count && segment->others + more > segment->max_bytes; i++) {
        uint64_t bytes = size_of(segment, names[i]);
        if (names[i].run == spared || is_own(segment, names[i]) ||
            !path_of(segment, names[i], path) || unlink(path) != 0)
            continue;
        segment->others -= bytes < segment->others ? bytes : segment->others;
        segment->count--;
    }
}

/*
 * Removes the oldest of the others, so that all and `more` bytes are within the bound. To the run
 * that records those of all others are older, whatever the clock said: nobody else writes here.
 */
static int make_room(struct lin_segment *segment, uint64_t more) {
    struct lin_segment_name *names;
    size_t count;
    bool is_recording = segment->as_of_ticks == 0; /* else it is a dead one that is ended */
    int result = lin_scan_list(segment->dir, &names, &count);
    if (result != 0)
        return result;
    segment->others = 0;
    segment->count = 1;
    for (size_t i = 0; i < count; i++)
        if (!is_own(segment, names[i])) {
            segment->others += size_of(segment, names[i]);
            segment->count++;
        }
    remove_oldest(segment, names, count, is_recording ? segment->id : 0, more);
    remove_oldest(segment, names, count, 0, more);
    free(names);
    return 0;
}

int lin_segment_write(struct lin_segment *segment) {
    if (segment->used == 0)
        return 0;
    int result = append(segment);
    if (result == 0) {
        segment->bytes += segment->used;
        segment->unsynced += segment->used;
    } else if (ftruncate(segment->fd, (off_t)segment->bytes) == 0) {
        segment->no = segment->batch_no;
    }
    segment->used = 0;
    if (result == 0 && segment->others != 0 &&
        segment->others + segment->bytes > segment->max_bytes)
        make_room(segment, segment->bytes);
    return result;
}

bool lin_segment_has_space(const struct lin_segment *segment) {
    struct statvfs disk;
    return statvfs(segment->dir, &disk) != 0 ||
           (uint64_t)disk.f_bavail * disk.f_frsize >= segment->segment_bytes + segment->head;
}

/* A new file is in its directory only when that is on disk, too. */
static void sync_dir(const struct lin_segment *segment) {
    int fd = open(segment->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

static int create(struct lin_segment *segment) {
    char path[PATH_MAX];
    for (int tries = 0; tries < 1000; tries++, segment->run.segment++) {
        if (!path_of(segment, own_name(segment), path))
            return -ENAMETOOLONG;
        segment->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC,
                           S_IRUSR | S_IWUSR);
        if (segment->fd >= 0)
            return 0;
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

int lin_segment_begin(struct lin_segment *segment) {
    int result = make_room(segment, segment->segment_bytes + segment->head);
    if (result == 0)
        result = create(segment);
    if (result != 0)
        return result;
    segment->bytes = segment->used = segment->unsynced = 0;
    segment->first_no = segment->no;
    segment->synced_ns = lin_clock_ns();
    if (segment->fsync_ns != UINT64_MAX)
        sync_dir(segment);
    memcpy(lin_segment_room(segment, sizeof segment->run), &segment->run, sizeof segment->run);
    lin_segment_seal(segment, LIN_BLOCK_RUN, sizeof segment->run);
    return 0;
}

uint64_t lin_segment_sync_at(const struct lin_segment *segment) {
    return segment->fd < 0 || segment->unsynced == 0 || segment->fsync_ns == 0 ||
                   segment->fsync_ns == UINT64_MAX
               ? UINT64_MAX
               : segment->synced_ns + segment->fsync_ns;
}

int lin_segment_sync(struct lin_segment *segment, bool now) {
    if (segment->fd < 0 || segment->unsynced == 0 || segment->fsync_ns == UINT64_MAX ||
        (!now && lin_clock_ns() < lin_segment_sync_at(segment)))
        return 0;
    if (fdatasync(segment->fd) != 0)
        return -errno;
    segment->unsynced = 0;
    segment->synced_ns = lin_clock_ns();
    return 0;
}

static void remove_own(const struct lin_segment *segment) {
    char path[PATH_MAX];
    if (path_of(segment, own_name(segment), path))
        unlink(path);
}

int lin_segment_end(struct lin_segment *segment, bool keep) {
    if (segment->fd < 0)
        return 0;
    int result = keep ? lin_segment_sync(segment, true) : 0;
    close(segment->fd);
    segment->fd = -1;
    if (segment->used != 0) /* never written: their numbers are free */
        segment->no = segment->batch_no;
    segment->used = 0;
    if (keep) {
        segment->others += segment->bytes;
        segment->run.segment++;
    } else {
        remove_own(segment);
        segment->no = segment->first_no;
        segment->count--;
    }
    return result;
}

bool lin_segment_is_any(const struct lin_segment *segment) {
    struct lin_segment_name *names;
    size_t count;
    bool any = false;
    int result = lin_scan_list(segment->dir, &names, &count);
    if (result != 0)
        return result != -ENOENT;
    for (size_t i = 0; i < count && !any; i++)
        any = names[i].run == segment->id;
    free(names);
    return any;
}

bool lin_segment_is_full(const struct lin_segment *segment) {
    return segment->bytes + segment->used - segment->head >= segment->segment_bytes;
}

bool lin_put_events(struct lin_segment *segment, uint32_t ring, uint64_t position,
                    const struct lin_event *events, uint32_t count) {
    size_t payload = sizeof(struct lin_block_events) + count * sizeof *events;
    struct lin_block_events *block = lin_segment_room(segment, payload);
    if (block == NULL)
        return false;
    *block = (struct lin_block_events){.ring = ring, .count = count, .position = position};
    memcpy(block->event, events, count * sizeof *events);
    lin_segment_seal(segment, LIN_BLOCK_EVENTS, payload);
    return true;
}

bool lin_put_end(struct lin_segment *segment, uint32_t why, uint32_t rings,
                 const uint64_t position[]) {
    size_t payload = sizeof(struct lin_block_end) + rings * sizeof position[0];
    struct lin_block_end *block = lin_segment_room(segment, payload);
    if (block == NULL)
        return false;
    *block = (struct lin_block_end){.why = why, .rings = rings};
    memcpy(block->position, position, rings * sizeof position[0]);
    lin_segment_seal(segment, LIN_BLOCK_END, payload);
    return true;
}

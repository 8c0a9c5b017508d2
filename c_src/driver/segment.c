#include "recorder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The files of a run. A batch of blocks is appended by write(2) and never mapped: a disk that fails
 * gives an errno, not a signal. What a failing write has left is cut off again, so that what
 * follows is whole.
 */

#define NAME_MAX_BYTES 64
#define FILES_MAX 65536u

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
    lin_block_seal(block, type, (uint32_t)payload, segment->id, segment->no++, lin_clock_ticks(),
                   wall_ns());
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

/* A segment's file by its name; false for any other. */
static bool is_segment(const char *name) {
    unsigned long long run;
    unsigned number;
    char again[NAME_MAX_BYTES];
    return sscanf(name, LIN_SEGMENT_NAME, &run, &number) == 2 &&
           snprintf(again, sizeof again, LIN_SEGMENT_NAME, run, number) < (int)sizeof again &&
           strcmp(name, again) == 0;
}

struct file {
    char name[NAME_MAX_BYTES];
    uint64_t bytes;
};

static int by_name(const void *left, const void *right) {
    return strcmp(((const struct file *)left)->name, ((const struct file *)right)->name);
}

/* All other segments in the directory, oldest first: a run's number is its time. */
static int list_others(const struct lin_segment *segment, const char *own, struct file **out,
                       uint32_t *count) {
    uint32_t room = 0;
    DIR *dir = opendir(segment->dir);
    if (dir == NULL)
        return -errno;
    *count = 0;
    *out = NULL;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL && *count < FILES_MAX;) {
        struct stat stat;
        if (!is_segment(entry->d_name) || strcmp(entry->d_name, own) == 0 ||
            fstatat(dirfd(dir), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (*count == room) {
            struct file *more = realloc(*out, (room = room * 2 + 16) * sizeof *more);
            if (more == NULL)
                break;
            *out = more;
        }
        struct file *file = &(*out)[(*count)++];
        snprintf(file->name, sizeof file->name, "%s", entry->d_name);
        file->bytes = (uint64_t)stat.st_size;
    }
    closedir(dir);
    if (*count != 0)
        qsort(*out, *count, sizeof **out, by_name);
    return 0;
}

static void path_of(const struct lin_segment *segment, const char *name, char path[PATH_MAX]) {
    snprintf(path, PATH_MAX, "%s/%s", segment->dir, name);
}

static void own_name(const struct lin_segment *segment, char name[NAME_MAX_BYTES]) {
    snprintf(name, NAME_MAX_BYTES, LIN_SEGMENT_NAME, (unsigned long long)segment->id,
             segment->run.segment);
}

/* Removes the oldest of the others, so that all and `more` bytes are within the bound. */
static int make_room(struct lin_segment *segment, uint64_t more) {
    char own[NAME_MAX_BYTES], path[PATH_MAX];
    struct file *files;
    uint32_t count, first = 0;
    own_name(segment, own);
    int result = list_others(segment, own, &files, &count);
    if (result != 0)
        return result;
    segment->others = 0;
    for (uint32_t i = 0; i < count; i++)
        segment->others += files[i].bytes;
    for (; first < count && segment->others + more > segment->max_bytes; first++) {
        path_of(segment, files[first].name, path);
        if (unlink(path) == 0 || errno == ENOENT)
            segment->others -= files[first].bytes;
    }
    segment->count = count - first + 1;
    free(files);
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

/* A new file is in its directory only when that is on disk, too. */
static void sync_dir(const struct lin_segment *segment) {
    int fd = open(segment->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

static int create(struct lin_segment *segment) {
    char name[NAME_MAX_BYTES], path[PATH_MAX];
    for (int tries = 0; tries < 1000; tries++, segment->run.segment++) {
        own_name(segment, name);
        path_of(segment, name, path);
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
    segment->bytes = segment->head = segment->used = segment->unsynced = 0;
    segment->synced_ns = lin_clock_ns();
    if (segment->fsync_ns != UINT64_MAX)
        sync_dir(segment);
    memcpy(lin_segment_room(segment, sizeof segment->run), &segment->run, sizeof segment->run);
    lin_segment_seal(segment, LIN_BLOCK_RUN, sizeof segment->run);
    return 0;
}

int lin_segment_sync(struct lin_segment *segment, bool now) {
    if (segment->fd < 0 || segment->unsynced == 0 || segment->fsync_ns == UINT64_MAX)
        return 0;
    uint64_t at = lin_clock_ns();
    if (!now && (segment->fsync_ns == 0 || at - segment->synced_ns < segment->fsync_ns))
        return 0;
    if (fdatasync(segment->fd) != 0)
        return -errno;
    segment->unsynced = 0;
    segment->synced_ns = at;
    return 0;
}

int lin_segment_end(struct lin_segment *segment, bool keep) {
    if (segment->fd < 0)
        return 0;
    int result = keep ? lin_segment_sync(segment, true) : 0;
    close(segment->fd);
    segment->fd = -1;
    segment->used = 0;
    if (keep) {
        segment->others += segment->bytes;
        segment->run.segment++;
    } else {
        char name[NAME_MAX_BYTES], path[PATH_MAX];
        own_name(segment, name);
        path_of(segment, name, path);
        unlink(path);
    }
    return result;
}

bool lin_segment_is_full(const struct lin_segment *segment) {
    return segment->bytes + segment->used - segment->head >= segment->segment_bytes;
}

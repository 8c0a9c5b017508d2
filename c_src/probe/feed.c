#include "feed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOT = 64 };

/* Whether the path is still the file that is open. */
static bool is_at(int fd, const char *path) {
    struct stat open_one, there;
    return fstat(fd, &open_one) == 0 && lstat(path, &there) == 0 &&
           open_one.st_dev == there.st_dev && open_one.st_ino == there.st_ino;
}

/* The file of a probe that was killed is taken away; that of one which runs is not, nor another
 * user's. */
static int refuse_second(const char *path, const struct target *target) {
    struct stat about;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -EEXIST;
    int result = 0;
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) ||
        (about.st_uid != geteuid() && about.st_uid != target->uid))
        result = -EEXIST;
    else if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        result = -EBUSY;
    else if (is_at(fd, path) && unlink(path) != 0)
        result = -errno;
    close(fd);
    return result;
}

static void put(const struct feed *feed, const void *data, size_t bytes, size_t at) {
    /* What finds no room in /dev/shm is what was there before; the number in each slot tells. */
    ssize_t wrote = pwrite(feed->fd, data, bytes, (off_t)at);
    (void)wrote;
}

int feed_open(struct feed *feed, const struct target *target, const char *what, uint32_t slots) {
    snprintf(feed->path, sizeof feed->path, "/dev/shm/lineage-%s-%d", what, (int)target->pid);
    int result = refuse_second(feed->path, target);
    feed->fd = result != 0 ? -1
                           : open(feed->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                  S_IRUSR | S_IWUSR);
    if (result == 0 && feed->fd < 0)
        result = -errno;
    if (result == 0 &&
        (flock(feed->fd, LOCK_EX | LOCK_NB) != 0 ||
         (target->uid != geteuid() && fchown(feed->fd, target->uid, (gid_t)-1) != 0)))
        result = -errno;
    if (result == 0) {
        feed->head = (struct lin_feed_head){.magic = LIN_FEED_MAGIC,
                                            .slots = slots,
                                            .probe_pid = (uint32_t)getpid(),
                                            .pid_namespace = target->node_ns};
        feed_beat(feed, 0);
        return 0;
    }
    if (result == -EBUSY)
        fprintf(stderr, "lineage-probe: another probe feeds this node (%s): stop that one.\n",
                feed->path);
    else if (result == -EEXIST)
        fprintf(stderr, "lineage-probe: %s is there, and is another user's: take it away.\n",
                feed->path);
    else
        fprintf(stderr, "lineage-probe: %s cannot be made the node's: %s.\n", feed->path,
                strerror(-result));
    feed_close(feed);
    return result == -EPERM || result == -EACCES ? EXIT_PRIVILEGE : EXIT_FAILURE;
}

void feed_add(struct feed *feed, const void *slot) {
    put(feed, slot, SLOT, sizeof feed->head + (size_t)(feed->head.head % feed->head.slots) * SLOT);
    feed->head.head++;
}

void feed_set(struct feed *feed, const void *slots, uint32_t count) {
    uint64_t before = feed->head.head;
    feed->head.head = count < feed->head.slots ? count : feed->head.slots;
    if (feed->head.head < before) /* what is no more is not to be read */
        put(feed, &feed->head, sizeof feed->head, 0);
    put(feed, slots, (size_t)feed->head.head * SLOT, sizeof feed->head);
}

void feed_beat(struct feed *feed, uint64_t dropped) {
    feed->head.seen_ns = probe_now_ns();
    feed->head.dropped = dropped;
    put(feed, &feed->head, sizeof feed->head, 0);
}

void feed_close(struct feed *feed) {
    if (feed->fd < 0)
        return;
    if (is_at(feed->fd, feed->path))
        unlink(feed->path);
    close(feed->fd);
    feed->fd = -1;
}

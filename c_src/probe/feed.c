#include "feed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOT = 64 };

/* The file of a probe that was killed is taken away; that of one which runs is not. */
static int refuse_second(const char *path) {
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int result = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -EBUSY;
    if (result == 0 && unlink(path) != 0)
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
    int result = refuse_second(feed->path);
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
        feed->head = (struct lin_feed_head){
            .magic = LIN_FEED_MAGIC, .slots = slots, .probe_pid = (uint32_t)getpid()};
        feed_beat(feed, 0);
        return 0;
    }
    fprintf(stderr,
            result == -EBUSY ? "lineage-probe: another probe feeds this node (%s): stop that one.\n"
                             : "lineage-probe: %s cannot be made the node's: %s.\n",
            feed->path, strerror(-result));
    feed_close(feed);
    return result == -EPERM || result == -EACCES ? EXIT_PRIVILEGE : EXIT_FAILURE;
}

void feed_add(struct feed *feed, const void *slot) {
    put(feed, slot, SLOT, sizeof feed->head + (size_t)(feed->head.head % feed->head.slots) * SLOT);
    feed->head.head++;
}

void feed_set(struct feed *feed, const void *slots, uint32_t count) {
    feed->head.head = count < feed->head.slots ? count : feed->head.slots;
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
    unlink(feed->path);
    close(feed->fd);
    feed->fd = -1;
}

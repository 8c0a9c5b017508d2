#include "probe.h"
#include "scan.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By name: epmd tells the port that the node listens on, /proc whose socket that is. */

enum { EPMD_PORT = 4369, EPMD_PORT2_REQ = 122, EPMD_PORT2_RESP = 119 };

static uint16_t epmd_port(void) {
    const char *text = getenv("ERL_EPMD_PORT");
    long port = text != NULL ? strtol(text, NULL, 10) : 0;
    return port > 0 && port < 65536 ? (uint16_t)port : EPMD_PORT;
}

static bool read_all(int fd, unsigned char *out, size_t bytes) {
    for (size_t have = 0; have < bytes;) {
        ssize_t got = read(fd, out + have, bytes - have);
        if (got <= 0)
            return false;
        have += (size_t)got;
    }
    return true;
}

/* The port of a node; 0: epmd knows none of that name; -1: there is no epmd. */
static int ask_epmd(const char *name, size_t len) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(epmd_port())};
    struct timeval patience = {.tv_sec = 2};
    unsigned char request[3 + 255] = {0, (unsigned char)(len + 1), EPMD_PORT2_REQ}, reply[4] = {0};
    int port = -1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(request + 3, name, len);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        send(fd, request, 3 + len, MSG_NOSIGNAL) == (ssize_t)(3 + len) && read_all(fd, reply, 2) &&
        reply[0] == EPMD_PORT2_RESP) {
        port = 0;
        if (reply[1] == 0 && read_all(fd, reply + 2, 2))
            port = reply[2] << 8 | reply[3];
    }
    close(fd);
    return port;
}

/* The inode of the socket that listens on a port; 0: none. */
static unsigned long listener(const char *table, int port) {
    char line[512];
    unsigned long inode, found = 0;
    unsigned local, state;
    FILE *file = fopen(table, "re");
    if (file == NULL)
        return 0;
    while (found == 0 && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*u %*u %lu", &local, &state,
                   &inode) == 3 &&
            (int)local == port && state == 0x0a)
            found = inode;
    fclose(file);
    return found;
}

static bool holds_socket(pid_t pid, const char *socket) {
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    bool found = false;
    if (dir == NULL)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(dir)) != NULL;) {
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof link - 1);
        link[len > 0 ? len : 0] = 0;
        found = strcmp(link, socket) == 0;
    }
    closedir(dir);
    return found;
}

static pid_t owner_of(unsigned long inode) {
    char socket[64];
    pid_t found = 0;
    DIR *proc = opendir("/proc");
    snprintf(socket, sizeof socket, "socket:[%lu]", inode);
    if (proc == NULL)
        return 0;
    for (struct dirent *entry; found == 0 && (entry = readdir(proc)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && holds_socket(pid, socket))
            found = pid;
    }
    closedir(proc);
    return found;
}

/* Whether a host's name is one of this machine: an address that a socket may be bound to. */
static bool is_local(const char *host) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list;
    bool local = false;
    if (getaddrinfo(host, NULL, &hints, &list) != 0) {
        char own[256] = "";
        gethostname(own, sizeof own - 1);
        return strcmp(host, own) == 0;
    }
    for (struct addrinfo *at = list; at != NULL && !local; at = at->ai_next) {
        int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, 0);
        local = fd >= 0 && bind(fd, at->ai_addr, at->ai_addrlen) == 0;
        if (fd >= 0)
            close(fd);
    }
    freeaddrinfo(list);
    return local;
}

static int find_node(const char *node, pid_t *out) {
    const char *at = strchr(node, '@');
    size_t len = at != NULL ? (size_t)(at - node) : strlen(node);
    if (len == 0 || len > 254) {
        fprintf(stderr, "lineage-probe: %s is no name of a node.\n", node);
        return EXIT_USAGE;
    }
    if (at != NULL && !is_local(at + 1)) {
        fprintf(stderr,
                "lineage-probe: %s is a node of another host: the kernel of this one does not see "
                "it; run the probe there.\n",
                node);
        return EXIT_NODE;
    }
    int port = ask_epmd(node, len);
    if (port <= 0) {
        fprintf(
            stderr,
            port < 0
                ? "lineage-probe: no epmd answers on port %u of this host, so that %s cannot be "
                  "found by its name: use -p with the number of its OS process.\n"
                : "lineage-probe: the epmd of this host (port %u) knows no node %s: `epmd -names` "
                  "lists those it knows; a node in a container has its own: use -p.\n",
            epmd_port(), node);
        return EXIT_NODE;
    }
    unsigned long inode = listener("/proc/net/tcp", port);
    if (inode == 0)
        inode = listener("/proc/net/tcp6", port);
    *out = inode == 0 ? 0 : owner_of(inode);
    if (*out != 0)
        return 0;
    fprintf(stderr,
            "lineage-probe: %s listens on port %d, and which process that is cannot be seen: it is "
            "another user's, or in another container: use -p, as its user or as root.\n",
            node, port);
    return EXIT_NODE;
}

static int not_there(pid_t pid) {
    fprintf(
        stderr,
        "lineage-probe: there is no process %d: `pgrep -a beam` lists the nodes that run here.\n",
        (int)pid);
    return EXIT_NODE;
}

/* The last of the numbers that it has in nested pid namespaces. */
static uint32_t inner_pid(pid_t pid) {
    char path[64], line[256];
    uint32_t inner = (uint32_t)pid;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *last = strncmp(line, "NSpid:", 6) == 0 ? strrchr(line, '\t') : NULL;
        if (last != NULL)
            inner = (uint32_t)strtoul(last + 1, NULL, 10);
    }
    if (file != NULL)
        fclose(file);
    return inner;
}

int target_open(const struct options *options, struct target *target) {
    struct stat about;
    char dir[64];
    *target = (struct target){.pid = options->pid, .node = options->node, .pidfd = -1};
    int status = options->node == NULL ? 0 : find_node(options->node, &target->pid);
    if (status != 0)
        return status;
    snprintf(dir, sizeof dir, "/proc/%d", (int)target->pid);
    snprintf(target->exe, sizeof target->exe, "/proc/%d/exe", (int)target->pid);
    /* From here on it is this process, whoever gets its number later. */
    target->pidfd = (int)syscall(SYS_pidfd_open, target->pid, 0);
    if (target->pidfd < 0 && errno != ENOSYS && errno != EPERM)
        return not_there(target->pid);
    ssize_t len = readlink(target->exe, target->path, sizeof target->path - 1);
    if (len < 0 && (errno == EACCES || errno == EPERM)) {
        fprintf(stderr,
                "lineage-probe: process %d is another user's: run the probe as that user, or as "
                "root.\n",
                (int)target->pid);
        return EXIT_PRIVILEGE;
    }
    if (stat(dir, &about) != 0)
        return not_there(target->pid);
    target->uid = about.st_uid;
    target->inner_pid = inner_pid(target->pid);
    target->started = lin_os_start((uint32_t)target->pid);
    snprintf(dir, sizeof dir, "/proc/%d/ns/pid", (int)target->pid);
    if (stat(dir, &about) == 0)
        target->node_ns = about.st_ino;
    if (stat("/proc/self/ns/pid", &about) == 0)
        target->own_ns = (unsigned)about.st_ino;
    target->path[len > 0 ? len : 0] = 0;
    const char *base = strrchr(target->path, '/');
    if (base == NULL || strncmp(base + 1, "beam", 4) != 0) {
        fprintf(stderr,
                "lineage-probe: process %d is no Erlang VM (it runs %s): `pgrep -a beam` lists the "
                "nodes that run here.\n",
                (int)target->pid, len > 0 ? target->path : "nothing any more");
        return EXIT_NODE;
    }
    return 0;
}

void target_close(struct target *target) {
    if (target->pidfd >= 0)
        close(target->pidfd);
}

bool target_ended(const struct target *target) {
    struct pollfd fd = {.fd = target->pidfd, .events = POLLIN};
    if (target->pidfd < 0)
        return kill(target->pid, 0) != 0 && errno == ESRCH;
    return poll(&fd, 1, 0) > 0;
}

const char *target_text(const struct target *target) {
    static char text[320];
    if (target->node != NULL)
        snprintf(text, sizeof text, "node %s (process %d)", target->node, (int)target->pid);
    else
        snprintf(text, sizeof text, "process %d", (int)target->pid);
    return text;
}

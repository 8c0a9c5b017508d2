#include "ospids.h"
#include "feed.h"

#include "ospids.skel.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FEED_SLOTS 16384
#define SETTLE_NS 500000000u /* a port that is closed, and its process that is about to end */
#define FEED_NS 200000000u

struct process {
    unsigned id, parent, own, inner;
    unsigned root;       /* the one that the port started, alive or not; 0: not known any more */
    unsigned root_inner; /* its number as the node has it */
    uint64_t started_ns, owner;
    bool held;    /* its family has a pipe to the node, or a socket */
    bool suspect; /* it had none a moment ago */
};

struct watch {
    const struct options *options;
    const struct target *target;
    struct ospids_bpf *bpf;
    struct ring_buffer *ring;
    struct feed feed;
    unsigned setup; /* the id of erl_child_setup */
    struct process *processes;
    size_t count, room;
    bool full;
    uint64_t started, ended, fed_ns;
};

static struct process *find(const struct watch *watch, unsigned id) {
    for (size_t i = 0; i < watch->count; i++)
        if (watch->processes[i].id == id)
            return &watch->processes[i];
    return NULL;
}

static struct process *add(struct watch *watch, struct process process) {
    if (watch->count == watch->room) {
        size_t room = watch->room == 0 ? 256 : 2 * watch->room;
        struct process *grown = realloc(watch->processes, room * sizeof *grown);
        if (grown == NULL) {
            watch->full = true;
            return NULL;
        }
        watch->processes = grown;
        watch->room = room;
    }
    watch->processes[watch->count] = process;
    return &watch->processes[watch->count++];
}

static void forked(struct watch *watch, const struct lin_os_event *event) {
    const struct process *parent = find(watch, event->parent);
    bool first = event->parent == watch->setup;
    if (find(watch, event->id) != NULL)
        return;
    /* The number of a root that is gone is another's now. */
    for (size_t i = 0; i < watch->count; i++)
        if (watch->processes[i].root == event->id)
            watch->processes[i].root = watch->processes[i].root_inner = 0;
    add(watch, (struct process){.id = event->id,
                                .parent = event->parent,
                                .own = event->own,
                                .inner = event->inner,
                                .root = first            ? event->id
                                        : parent != NULL ? parent->root
                                                         : 0,
                                .root_inner = first            ? event->inner
                                              : parent != NULL ? parent->root_inner
                                                               : 0,
                                .owner = parent != NULL ? parent->owner : 0,
                                .started_ns = event->started_ns});
    watch->started++;
}

static void exited(struct watch *watch, unsigned id) {
    struct process *process = find(watch, id);
    if (process == NULL)
        return;
    *process = watch->processes[--watch->count];
    watch->ended++;
}

/* Of a port's process, and of what that has started meanwhile. */
static void owned(struct watch *watch, const struct lin_os_event *event) {
    unsigned root = 0;
    for (size_t i = 0; i < watch->count; i++)
        if (watch->processes[i].inner == event->inner &&
            watch->processes[i].root == watch->processes[i].id)
            root = watch->processes[i].id;
    for (size_t i = 0; root != 0 && i < watch->count; i++)
        if (watch->processes[i].root == root)
            watch->processes[i].owner = event->owner;
}

static int take(void *arg, void *data, size_t bytes) {
    const struct lin_os_event *event = data;
    (void)bytes;
    if (event->what == LIN_OS_FORK)
        forked(arg, event);
    else if (event->what == LIN_OS_EXIT)
        exited(arg, event->id);
    else
        owned(arg, event);
    return 0;
}

/* What was there before: all processes, of which those are taken whose parent is known. */

struct listing {
    struct lin_os_listed *listed;
    size_t count, room;
    bool full;
};

static void list_one(void *arg, const void *data) {
    struct listing *listing = arg;
    if (listing->count == listing->room) {
        size_t room = listing->room == 0 ? 1024 : 2 * listing->room;
        struct lin_os_listed *grown = realloc(listing->listed, room * sizeof *grown);
        if (grown == NULL) {
            listing->full = true;
            return;
        }
        listing->listed = grown;
        listing->room = room;
    }
    listing->listed[listing->count++] = *(const struct lin_os_listed *)data;
}

static int list_all(struct watch *watch, struct listing *listing) {
    struct lin_os_listed one;
    *listing = (struct listing){.listed = NULL};
    int result =
        kernel_iterate(watch->bpf->progs.list_processes, &one, sizeof one, list_one, listing);
    return result == 0 && listing->full ? -ENOMEM : result;
}

static int join(struct watch *watch, unsigned id, unsigned parent) {
    return bpf_map__update_elem(watch->bpf->maps.family, &id, sizeof id, &parent, sizeof parent,
                                BPF_ANY);
}

static void leave(struct watch *watch, unsigned id) {
    bpf_map__delete_elem(watch->bpf->maps.family, &id, sizeof id, 0);
}

/* The node's child of that name: its forker. */
static int find_setup(struct watch *watch) {
    struct listing listing;
    unsigned node = 0;
    int result = list_all(watch, &listing);
    for (size_t i = 0; i < listing.count; i++)
        if (listing.listed[i].own == (unsigned)watch->target->pid)
            node = listing.listed[i].id;
    for (size_t i = 0; i < listing.count; i++)
        if (node != 0 && listing.listed[i].parent == node &&
            strcmp(listing.listed[i].comm, "erl_child_setup") == 0)
            watch->setup = listing.listed[i].id;
    free(listing.listed);
    if (result == 0 && watch->setup != 0)
        return join(watch, watch->setup, 0);
    return result;
}

/* The parent that it has now, in the probe's numbers (0: in none); false: it has ended. */
static bool read_parent(const struct process *process, unsigned *parent) {
    char path[64], state = 'X';
    char line[512];
    *parent = 0;
    snprintf(path, sizeof path, "/proc/%u/stat", process->own);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    const char *rest = fgets(line, sizeof line, file) == NULL ? NULL : strrchr(line, ')');
    bool known = rest != NULL && sscanf(rest, ") %c %u", &state, parent) == 2;
    fclose(file);
    return known && state != 'Z' && state != 'X';
}

/* Whoever is new in this listing, and comes from one that is known. Again, until nobody is. */
static int find_family(struct watch *watch) {
    struct listing listing;
    bool more = true;
    int result = list_all(watch, &listing);
    while (more && result == 0) {
        more = false;
        for (size_t i = 0; result == 0 && i < listing.count; i++) {
            const struct lin_os_listed *one = &listing.listed[i];
            const struct process *parent = find(watch, one->parent);
            if ((one->parent != watch->setup && parent == NULL) || find(watch, one->id) != NULL)
                continue;
            struct process process = {.id = one->id,
                                      .parent = one->parent,
                                      .own = one->own,
                                      .inner = one->inner,
                                      .root = parent == NULL ? one->id : parent->root,
                                      .root_inner =
                                          parent == NULL ? one->inner : parent->root_inner,
                                      .started_ns = one->started_ns};
            result = join(watch, one->id, one->parent);
            /* Its end is told from here on; unless it has come already. */
            unsigned parent_number;
            if (!read_parent(&process, &parent_number)) {
                leave(watch, one->id);
                continue;
            }
            more = true;
            add(watch, process);
        }
    }
    free(listing.listed);
    return watch->full ? -ENOMEM : result;
}

/* Whether somebody of the family still has a way to the node: the same pipe or socket in both. */

struct inodes {
    unsigned long *inode;
    size_t count, room;
};

/* From file descriptor `first` on. False: somebody else's, which we may not see. */
static bool read_inodes(pid_t pid, long first, struct inodes *inodes) {
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    inodes->count = 0;
    if (dir == NULL)
        return errno == ENOENT || errno == ESRCH;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof link - 1);
        unsigned long inode;
        link[len > 0 ? len : 0] = 0;
        if (strtol(entry->d_name, NULL, 10) < first)
            continue;
        if (sscanf(link, "pipe:[%lu]", &inode) != 1 && sscanf(link, "socket:[%lu]", &inode) != 1)
            continue;
        if (inodes->count == inodes->room) {
            size_t room = inodes->room == 0 ? 256 : 2 * inodes->room;
            unsigned long *grown = realloc(inodes->inode, room * sizeof *grown);
            if (grown == NULL)
                break;
            inodes->inode = grown;
            inodes->room = room;
        }
        inodes->inode[inodes->count++] = inode;
    }
    closedir(dir);
    return true;
}

static int by_value(const void *left, const void *right) {
    unsigned long l = *(const unsigned long *)left, r = *(const unsigned long *)right;
    return l < r ? -1 : l > r;
}

static void find_held(struct watch *watch) {
    struct inodes node = {0}, its = {0};
    /* A node's own input and output are its children's, too. */
    bool seen = read_inodes(watch->target->pid, 3, &node);
    if (node.count != 0)
        qsort(node.inode, node.count, sizeof *node.inode, by_value);
    for (size_t i = 0; i < watch->count; i++) {
        struct process *process = &watch->processes[i];
        /* Of one that cannot be looked into nothing bad is said. */
        process->held = !read_inodes((pid_t)process->own, 0, &its) || !seen;
        for (size_t k = 0; k < its.count && !process->held; k++)
            process->held = bsearch(&its.inode[k], node.inode, node.count, sizeof *node.inode,
                                    by_value) != NULL;
    }
    free(node.inode);
    free(its.inode);
    for (size_t i = 0; i < watch->count; i++) {
        unsigned root = watch->processes[i].root;
        for (size_t k = 0; watch->processes[i].held && root != 0 && k < watch->count; k++)
            watch->processes[k].held |= watch->processes[k].root == root;
    }
}

/* Its name, as it is now: a process is another after exec. */
static void program_of(const struct process *process, char text[LIN_FEED_TEXT]) {
    char path[64];
    memset(text, 0, LIN_FEED_TEXT);
    snprintf(path, sizeof path, "/proc/%u/comm", process->own);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fgets(text, LIN_FEED_TEXT, file) != NULL)
        text[strcspn(text, "\n")] = 0;
    plain_text(text, LIN_FEED_TEXT);
    fclose(file);
}

static unsigned own_of(const struct watch *watch, unsigned id) {
    const struct process *process = find(watch, id);
    return process == NULL ? 0 : process->own;
}

static bool is_adopted(const struct watch *watch, const struct process *process) {
    unsigned parent;
    return process->parent != watch->setup && read_parent(process, &parent) &&
           parent != own_of(watch, process->parent);
}

/* Ends of which nothing was heard: an event found no room. */
static void prune(struct watch *watch) {
    unsigned parent;
    for (size_t i = watch->count; i-- > 0;)
        if (!read_parent(&watch->processes[i], &parent)) {
            leave(watch, watch->processes[i].id);
            exited(watch, watch->processes[i].id);
        }
}

static uint64_t boot_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void feed_all(struct watch *watch) {
    prune(watch);
    struct lin_feed_process *slots = calloc(watch->count + 1, sizeof *slots);
    uint64_t now = boot_ns();
    watch->fed_ns = probe_now_ns();
    if (slots == NULL)
        return;
    for (size_t i = 0; i < watch->count; i++) {
        const struct process *process = &watch->processes[i];
        slots[i] = (struct lin_feed_process){
            .pid = process->inner,
            .root = process->root_inner,
            .flags = is_adopted(watch, process) ? 1u : 0,
            .age_ns = now > process->started_ns ? now - process->started_ns : 0,
            .owner = process->owner};
        program_of(process, slots[i].program);
    }
    feed_set(&watch->feed, slots, (uint32_t)watch->count);
    free(slots);
}

static void each_turn(void *arg) {
    struct watch *watch = arg;
    if (watch->feed.fd < 0)
        return;
    /* Many take their time to look at. */
    if (probe_now_ns() - watch->fed_ns > FEED_NS * (1 + watch->count / 1024))
        feed_all(watch);
    uint64_t cut = watch->count > FEED_SLOTS ? watch->count - FEED_SLOTS : 0;
    feed_beat(&watch->feed, watch->bpf->bss->dropped + cut);
}

static int by_start(const void *left, const void *right) {
    const struct process *l = left, *r = right;
    return l->started_ns < r->started_ns ? -1 : l->started_ns > r->started_ns;
}

/* Those that are an orphan now, and still are a moment later. */
static void settle(struct watch *watch) {
    struct timespec moment = {.tv_nsec = SETTLE_NS};
    bool any = false;
    prune(watch);
    find_held(watch);
    for (size_t i = 0; i < watch->count; i++)
        any |= watch->processes[i].suspect = !watch->processes[i].held;
    if (!any)
        return;
    nanosleep(&moment, NULL);
    ring_buffer__consume(watch->ring);
    prune(watch);
    find_held(watch);
    for (size_t i = 0; i < watch->count; i++)
        watch->processes[i].held |= !watch->processes[i].suspect;
}

/* In a time namespace the clocks may differ. */
static double age_s(const struct process *process, uint64_t now) {
    return now > process->started_ns ? (double)(now - process->started_ns) / 1e9 : 0;
}

static void print_process(const struct watch *watch, const struct process *process, uint64_t now) {
    static const char *const notes[2][2] = {{"ORPHAN", "ORPHAN, adopted"}, {"", "adopted"}};
    char program[LIN_FEED_TEXT];
    unsigned parent;
    bool adopted = is_adopted(watch, process);
    program_of(process, program);
    read_parent(process, &parent);
    if (!watch->options->json) {
        printf("%9u%9u%10.1f s  %-16s%s\n", process->own, parent, age_s(process, now), program,
               notes[process->held][adopted]);
        return;
    }
    printf("{\"pid\":%u,\"parent\":%u,\"program\":", process->own, parent);
    json_text(program);
    printf(",\"age_s\":%.3f,\"adopted\":%s,\"orphan\":%s}", age_s(process, now),
           adopted ? "true" : "false", process->held ? "false" : "true");
}

static void print(const struct watch *watch, const struct window *window) {
    bool json = watch->options->json;
    uint64_t now = boot_ns(), dropped = watch->bpf->bss->dropped;
    size_t orphans = 0;
    window_print(window, json);
    if (json)
        printf(",\"started\":%" PRIu64 ",\"ended_processes\":%" PRIu64 ",\"dropped\":%" PRIu64
               ",\"processes\":[",
               watch->started, watch->ended, dropped);
    else if (watch->count != 0)
        puts("      pid   parent         age  program");
    for (size_t i = 0; i < watch->count; i++) {
        if (json && i != 0)
            putchar(',');
        print_process(watch, &watch->processes[i], now);
        orphans += watch->processes[i].held ? 0 : 1;
    }
    if (json)
        puts("]}");
    else
        printf("  %zu OS processes, %zu of them orphans; %" PRIu64 " started and %" PRIu64
               " ended meanwhile; %" PRIu64 " dropped\n",
               watch->count, orphans, watch->started, watch->ended, dropped);
}

static int load(struct watch *watch) {
    watch->bpf = ospids_bpf__open();
    if (watch->bpf == NULL)
        return kernel_refused("open the OS processes' programs", -errno);
    watch->bpf->rodata->own_ns = watch->target->own_ns;
    watch->bpf->rodata->target_pid = (unsigned)watch->target->pid;
    int error = ospids_bpf__load(watch->bpf);
    if (error != 0)
        return kernel_refused("load the OS processes' programs", error);
    watch->ring = ring_buffer__new(bpf_map__fd(watch->bpf->maps.events), take, watch, NULL);
    if (watch->ring == NULL)
        return kernel_refused("share memory with the probe", -errno);
    error = find_setup(watch);
    if (error != 0)
        return kernel_refused("list processes", error);
    if (watch->setup == 0) {
        fprintf(stderr,
                "lineage-probe: %s has no erl_child_setup, by which ports start OS processes: it "
                "has just "
                "begun, or has ended; try again.\n",
                target_text(watch->target));
        return EXIT_NODE;
    }
    watch->bpf->links.on_fork = bpf_program__attach(watch->bpf->progs.on_fork);
    watch->bpf->links.on_exit = bpf_program__attach(watch->bpf->progs.on_exit);
    if (watch->bpf->links.on_fork == NULL || watch->bpf->links.on_exit == NULL)
        return kernel_refused("watch forks and exits", -errno);
    /* Twice: who was forked between by one that was not in the family yet is in the second. */
    for (int i = 0; i < 2 && error == 0; i++)
        error = find_family(watch);
    return error == 0 ? 0 : kernel_refused("list processes", error);
}

/* Whose port it is, for the node only, which can name it: where the VM has these functions' names.
 */
static int watch_owners(struct watch *watch) {
    struct ospids_bpf *bpf = watch->bpf;
    int status = kernel_uprobe(bpf->progs.set_os_pid, watch->target, "erl_drv_set_os_pid", false,
                               true, &bpf->links.set_os_pid);
    if (status == 0)
        status = kernel_uprobe(bpf->progs.open_driver, watch->target, "erts_open_driver", false,
                               true, &bpf->links.open_driver);
    if (status == 0)
        status = kernel_uprobe(bpf->progs.open_driver_returns, watch->target, "erts_open_driver",
                               true, true, &bpf->links.open_driver_returns);
    if (status != EXIT_SYMBOLS && status != EXIT_PRIVILEGE)
        return status;
    fprintf(stderr, "lineage-probe: which process has opened a port will not be known: %s.\n",
            status == EXIT_SYMBOLS ? "this VM was built without the names of its functions"
                                   : "watching the VM's functions takes CAP_SYS_ADMIN here");
    return 0;
}

static int run(struct watch *watch) {
    struct window window = {.target = watch->target,
                            .command = "ospids",
                            .seconds = watch->options->seconds,
                            .ring = watch->ring,
                            .each = each_turn,
                            .arg = watch};
    if (watch->options->feed) {
        int status = watch_owners(watch);
        if (status == 0)
            status = feed_open(&watch->feed, watch->target, "ospids", FEED_SLOTS);
        if (status != 0)
            return status;
    }
    window_watch(&window);
    ring_buffer__consume(watch->ring);
    settle(watch);
    if (watch->count != 0)
        qsort(watch->processes, watch->count, sizeof *watch->processes, by_start);
    print(watch, &window);
    return 0;
}

int ospids_command(const void *given) {
    const struct options *options = given;
    struct target target;
    struct watch watch = {.options = options, .target = &target, .feed = {.fd = -1}};
    int status = probe_open(options, &target);
    if (status == 0)
        status = load(&watch);
    if (status == 0)
        status = run(&watch);
    feed_close(&watch.feed);
    ring_buffer__free(watch.ring);
    ospids_bpf__destroy(watch.bpf);
    free(watch.processes);
    target_close(&target);
    return status;
}

#include "stalls.h"
#include "feed.h"

#include "stalls.skel.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FEED_SLOTS 1024
#define LIBRARIES 256
#define THREADS 4096
#define MAPS_NS 1000000000u /* a library that was loaded is seen after so long */

/* Of a thread, what reports say. */
struct thread {
    unsigned tid, own_tid, number;
    enum lin_stall_thread kind;
    int sample_fd;
    struct bpf_link *sample;
};

/* An executable part of a shared library; `lib` is its index, 0: one that belongs to the VM. */
struct mapping {
    uint64_t from, to;
    unsigned lib;
};

struct watch {
    const struct options *options;
    const struct target *target;
    struct stalls_bpf *bpf;
    struct ring_buffer *ring;
    struct feed feed;
    struct thread *threads;
    size_t thread_count;
    struct mapping mappings[LIN_STALL_RANGES];
    size_t mapping_count;
    char library[LIBRARIES][64];
    unsigned library_count; /* from 1 */
    uint64_t mapped_ns, told, kinds[LIN_STALL_BUSY + 1];
};

/* The VM's threads. Before OTP 26 they are called as 1_scheduler, and are cut at 15 characters. */
static bool classify(struct thread *thread, const char *comm) {
    static const struct {
        const char *form, *older;
        enum lin_stall_thread kind;
    } forms[] = {{"erts_sched_%u", "%u_scheduler", LIN_STALL_SCHEDULER},
                 {"erts_dcpus_%u", "%u_dirty_cpu_sch", LIN_STALL_DIRTY_CPU},
                 {"erts_dios_%u", "%u_dirty_io_sche", LIN_STALL_DIRTY_IO}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char built[32];
        const char *form[] = {forms[i].form, forms[i].older};
        for (size_t f = 0; f < 2; f++) {
            if (sscanf(comm, form[f], &thread->number) != 1)
                continue;
            snprintf(built, sizeof built, form[f], thread->number);
            built[15] = 0;
            thread->kind = forms[i].kind;
            if (strcmp(built, comm) == 0)
                return true;
        }
    }
    return false;
}

static void add_thread(void *arg, const void *data) {
    struct watch *watch = arg;
    const struct lin_stall_listed *listed = data;
    struct thread thread = {.tid = listed->tid, .own_tid = listed->own_tid, .sample_fd = -1};
    if (watch->thread_count == THREADS || !classify(&thread, listed->comm))
        return;
    struct lin_stall_state state = {.thread = thread.kind};
    state.now.tid = thread.tid;
    if (bpf_map__update_elem(watch->bpf->maps.threads, &thread.tid, sizeof thread.tid, &state,
                             sizeof state, BPF_ANY) == 0)
        watch->threads[watch->thread_count++] = thread;
}

/* By an iterator in the kernel: /proc has other numbers for them in a pid namespace. */
static int find_threads(struct watch *watch) {
    struct lin_stall_listed listed;
    int result =
        kernel_iterate(watch->bpf->progs.list_threads, &listed, sizeof listed, add_thread, watch);
    if (result != 0)
        return kernel_refused("list the node's threads", result);
    if (watch->thread_count != 0)
        return 0;
    fprintf(stderr,
            "lineage-probe: %s has no thread that is called as a scheduler: it has just begun, or "
            "has ended; try again.\n",
            target_text(watch->target));
    return EXIT_NODE;
}

static int sample_thread(struct watch *watch, struct thread *thread) {
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
                                   .size = sizeof attr,
                                   .config = PERF_COUNT_SW_CPU_CLOCK,
                                   .sample_period = LIN_STALL_PERIOD_NS};
    if (thread->kind != LIN_STALL_SCHEDULER)
        return 0;
    thread->sample_fd =
        (int)syscall(SYS_perf_event_open, &attr, thread->own_tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (thread->sample_fd < 0)
        return errno == ESRCH ? 0 : -errno;
    thread->sample = bpf_program__attach_perf_event(watch->bpf->progs.on_sample, thread->sample_fd);
    return thread->sample == NULL ? -errno : 0;
}

/* Libraries that belong to whoever calls them: being in one says nothing. */
static bool is_common(const char *base) {
    static const char *const common[] = {"libc.",    "libc-",     "libm.",      "libm-",
                                         "libgcc_s", "libstdc++", "libc++.",    "libpthread",
                                         "ld-linux", "ld-musl",   "libdl",      "librt",
                                         "libz.",    "libtinfo",  "libncurses", "[vdso]"};
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++)
        if (strncmp(base, common[i], strlen(common[i])) == 0)
            return true;
    return false;
}

static unsigned library_of(struct watch *watch, const char *base) {
    char name[sizeof watch->library[0]];
    snprintf(name, sizeof name, "%.*s", (int)sizeof name - 1, base);
    for (unsigned i = 1; i <= watch->library_count; i++)
        if (strcmp(watch->library[i], name) == 0)
            return i;
    if (watch->library_count + 1 == LIBRARIES)
        return 0;
    memcpy(watch->library[++watch->library_count], name, sizeof name);
    return watch->library_count;
}

/* A line of /proc/PID/maps: "from-to r-xp offset dev inode   path". */
static void read_mapping(struct watch *watch, const char *line) {
    unsigned long from, to;
    char rights[8], path[512];
    if (watch->mapping_count == LIN_STALL_RANGES ||
        sscanf(line, "%lx-%lx %7s %*s %*s %*s %511[^\n]", &from, &to, rights, path) != 4 ||
        rights[2] != 'x')
        return;
    char *deleted = strstr(path, " (deleted)");
    if (deleted != NULL)
        *deleted = 0;
    const char *base = strrchr(path, '/');
    base = base == NULL ? path : base + 1;
    bool common = is_common(base);
    if (!common && strstr(base, ".so") == NULL)
        return; /* the VM itself, and the code that it compiled */
    watch->mappings[watch->mapping_count++] =
        (struct mapping){from, to, common ? 0 : library_of(watch, base)};
}

/* What is loaded meanwhile is seen, too. */
static void read_mappings(struct watch *watch) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)watch->target->pid);
    FILE *file = fopen(path, "re");
    watch->mapped_ns = probe_now_ns();
    if (file == NULL)
        return;
    watch->mapping_count = 0;
    while (fgets(line, sizeof line, file) != NULL)
        read_mapping(watch, line);
    fclose(file);
    for (size_t i = 0; i < LIN_STALL_RANGES; i++) {
        struct mapping none = {0}, *now = i < watch->mapping_count ? &watch->mappings[i] : &none;
        struct lin_stall_range *range = &watch->bpf->bss->ranges[i];
        /* It is read meanwhile: what stays is left alone. */
        if (range->from != now->from || range->to != now->to || range->lib != now->lib)
            *range = (struct lin_stall_range){now->from, now->to, now->lib};
    }
}

/* The library that called: the first that an address on the stack lies in, and is not anybody's. */
static const char *caller(const struct watch *watch, const struct lin_stall *stall) {
    for (size_t i = 0; i < LIN_STALL_WORDS; i++)
        for (size_t m = 0; m < watch->mapping_count; m++)
            if (watch->mappings[m].lib != 0 && stall->word[i] >= watch->mappings[m].from &&
                stall->word[i] < watch->mappings[m].to)
                return watch->library[watch->mappings[m].lib];
    return NULL;
}

/* clang-format off */
#define CALLS(X)                                                                                   \
    X(read) X(write) X(pread64) X(pwrite64) X(readv) X(writev) X(openat) X(close) X(fsync)         \
    X(fdatasync) X(nanosleep) X(clock_nanosleep) X(flock) X(fcntl) X(sendto) X(recvfrom)           \
    X(sendmsg) X(recvmsg) X(connect) X(accept4) X(wait4) X(ioctl) X(mmap) X(munmap) X(mprotect)    \
    X(madvise) X(unlinkat) X(renameat2) X(ftruncate) X(fallocate) X(statx) X(getdents64)           \
    X(sendfile) X(futex) X(ppoll) X(pselect6) X(epoll_pwait) X(rt_sigtimedwait)
/* clang-format on */

static const char *call_text(int call, char text[32]) {
#define CALL(name)                                                                                 \
    case SYS_##name:                                                                               \
        return #name;
    switch (call) {
        CALLS(CALL)
    case -1:
        return "the kernel (a page fault, or frozen)";
    default:
        snprintf(text, 32, "system call %d", call);
        return text;
    }
#undef CALL
}

static const char *const kind_names[] = {"?", "waited", "blocked", "stopped", "busy"};
static const char *const thread_names[] = {"?", "scheduler", "dirty_cpu", "dirty_io"};

/* What `what` says, by kind: the process that ran instead, the system call, or the library. */
static const char *what_of(const struct watch *watch, const struct lin_stall *stall,
                           char text[32]) {
    switch (stall->kind) {
    case LIN_STALL_WAITED:
        return stall->by;
    case LIN_STALL_BLOCKED:
        return call_text(stall->call, text);
    case LIN_STALL_BUSY:
        return watch->library[stall->lib < LIBRARIES ? stall->lib : 0];
    default:
        return "";
    }
}

static void print_text(const struct thread *thread, const struct lin_stall *stall, const char *what,
                       const char *by) {
    struct timespec now;
    struct tm tm;
    char when[32];
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t wall = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    wall -= probe_now_ns() - stall->to;
    now = (struct timespec){.tv_sec = (time_t)(wall / 1000000000u),
                            .tv_nsec = (long)(wall % 1000000000u)};
    localtime_r(&now.tv_sec, &tm);
    strftime(when, sizeof when, "%H:%M:%S", &tm);
    printf("%s.%03ld  %s %-3u %-7s %9.2f ms", when, now.tv_nsec / 1000000,
           thread_names[thread->kind], thread->number, kind_names[stall->kind],
           (double)(stall->to - stall->from) / 1e6);
    if (stall->kind == LIN_STALL_WAITED && *what == 0)
        printf("  nobody ran on CPU %u: its group's share of CPU was used up, or the CPU was slow "
               "to wake",
               stall->cpu);
    else if (stall->kind == LIN_STALL_WAITED)
        printf("  %s (process %u) ran on CPU %u", what, stall->by_pid, stall->cpu);
    else if (stall->kind == LIN_STALL_STOPPED)
        printf("  by a signal or a tracer");
    else
        printf("  in %s%s%s", what, by != NULL ? ", called by " : "", by != NULL ? by : "");
    putchar('\n');
}

static void print_json(const struct thread *thread, const struct lin_stall *stall, const char *what,
                       const char *by) {
    printf("{\"thread\":\"%s\",\"number\":%u,\"tid\":%u,\"kind\":\"%s\",\"from_ns\":%llu,\"ms\":%."
           "3f,\"cpu\":%u",
           thread_names[thread->kind], thread->number, thread->own_tid, kind_names[stall->kind],
           stall->from, (double)(stall->to - stall->from) / 1e6, stall->cpu);
    if (stall->kind == LIN_STALL_WAITED && *what != 0) {
        printf(",\"by_pid\":%u,\"by\":", stall->by_pid);
        json_text(what);
    } else if (stall->kind == LIN_STALL_BLOCKED) {
        printf(",\"in\":");
        json_text(what);
    }
    if (by != NULL) {
        printf(",\"library\":");
        json_text(by);
    }
    puts("}");
}

static void feed_stall(struct watch *watch, const struct thread *thread,
                       const struct lin_stall *stall, const char *what, const char *by) {
    struct lin_feed_stall slot = {.no = watch->feed.head.head,
                                  .from_ns = stall->from,
                                  .to_ns = stall->to,
                                  .kind = (uint8_t)stall->kind,
                                  .thread = (uint8_t)thread->kind,
                                  .number = (uint16_t)thread->number,
                                  .by_pid = stall->by_pid};
    const char *text = stall->kind == LIN_STALL_BLOCKED && by != NULL ? by : what;
    memcpy(slot.what, text, strnlen(text, sizeof slot.what));
    feed_add(&watch->feed, &slot);
}

static void report(struct watch *watch, const struct lin_stall *stall) {
    char text[32];
    const struct thread *thread = NULL;
    for (size_t i = 0; thread == NULL && i < watch->thread_count; i++)
        if (watch->threads[i].tid == stall->tid)
            thread = &watch->threads[i];
    if (thread == NULL || stall->kind == 0 || stall->kind > LIN_STALL_BUSY)
        return;
    struct lin_stall shown = *stall;
    plain_text(shown.by, sizeof shown.by);
    stall = &shown;
    const char *what = what_of(watch, stall, text);
    const char *by = stall->kind == LIN_STALL_BUSY      ? what
                     : stall->kind == LIN_STALL_BLOCKED ? caller(watch, stall)
                                                        : NULL;
    watch->told++;
    watch->kinds[stall->kind]++;
    if (watch->options->json)
        print_json(thread, stall, what, by);
    else
        print_text(thread, stall, what, stall->kind == LIN_STALL_BUSY ? NULL : by);
    if (watch->feed.fd >= 0)
        feed_stall(watch, thread, stall, what, by);
}

static int take(void *arg, void *data, size_t bytes) {
    (void)bytes;
    report(arg, data);
    return 0;
}

/* What has not ended when the window does. */
static void take_unfinished(struct watch *watch, uint64_t now) {
    uint64_t threshold = watch->bpf->rodata->threshold_ns;
    for (size_t i = 0; i < watch->thread_count; i++) {
        struct lin_stall_state state;
        unsigned tid = watch->threads[i].tid;
        if (bpf_map__lookup_elem(watch->bpf->maps.threads, &tid, sizeof tid, &state, sizeof state,
                                 0) != 0)
            continue;
        struct lin_stall *stall = &state.now;
        bool idle = (stall->kind == LIN_STALL_BLOCKED && state.thread == LIN_STALL_DIRTY_IO) ||
                    (stall->kind == LIN_STALL_STOPPED && state.thread != LIN_STALL_SCHEDULER);
        for (size_t c = 0; c < LIN_STALL_CALLS && stall->kind == LIN_STALL_BLOCKED; c++)
            idle |= watch->bpf->rodata->idle_calls[c] == stall->call;
        stall->to = now;
        snprintf(stall->by, sizeof stall->by, "?"); /* it is known when it has ended */
        stall->by_pid = 0;
        if (stall->from != 0 && !idle && now > stall->from && now - stall->from >= threshold)
            report(watch, stall);
        else if (stall->from == 0 && state.lib != 0 && state.lib_to - state.lib_from >= threshold) {
            *stall = (struct lin_stall){.from = state.lib_from,
                                        .to = state.lib_to,
                                        .tid = tid,
                                        .kind = LIN_STALL_BUSY,
                                        .lib = state.lib};
            report(watch, stall);
        }
    }
}

static void each_turn(void *arg) {
    struct watch *watch = arg;
    if (probe_now_ns() - watch->mapped_ns > MAPS_NS)
        read_mappings(watch);
    if (watch->feed.fd >= 0)
        feed_beat(&watch->feed, watch->bpf->bss->dropped);
    fflush(stdout);
}

/* In which a scheduler waits for work, or for another's lock; also again, after a signal. */
static void set_idle_calls(struct stalls_bpf *bpf) {
    static const int idle[LIN_STALL_CALLS] = {
        SYS_futex,       SYS_epoll_pwait, SYS_ppoll,  SYS_pselect6, SYS_restart_syscall,
#ifdef SYS_epoll_wait
        SYS_epoll_wait,  SYS_poll,        SYS_select,
#else
        -2,             -2,              -2,
#endif
#ifdef SYS_epoll_pwait2
        SYS_epoll_pwait2
#else
        -2
#endif
    };
    memcpy((void *)(uintptr_t)bpf->rodata->idle_calls, idle, sizeof idle);
}

static int load(struct watch *watch) {
    watch->bpf = stalls_bpf__open();
    watch->threads = calloc(THREADS, sizeof *watch->threads);
    if (watch->bpf == NULL || watch->threads == NULL)
        return kernel_refused("open the stalls' programs", -errno);
    set_idle_calls(watch->bpf);
    watch->bpf->rodata->threshold_ns = (uint64_t)(watch->options->threshold_ms * 1e6);
    watch->bpf->rodata->target_pid = (unsigned)watch->target->pid;
    watch->bpf->rodata->own_ns = watch->target->own_ns;
    bpf_map__set_max_entries(watch->bpf->maps.cpus, (unsigned)libbpf_num_possible_cpus());
    int error = stalls_bpf__load(watch->bpf);
    if (error != 0)
        return kernel_refused("load the stalls' programs (they take Linux 5.15)", error);
    watch->ring = ring_buffer__new(bpf_map__fd(watch->bpf->maps.stalls), take, watch, NULL);
    if (watch->ring == NULL)
        return kernel_refused("share memory with the probe", -errno);
    read_mappings(watch);
    int status = find_threads(watch);
    if (status != 0)
        return status;
    watch->bpf->links.on_switch = bpf_program__attach(watch->bpf->progs.on_switch);
    watch->bpf->links.on_wakeup = bpf_program__attach(watch->bpf->progs.on_wakeup);
    if (watch->bpf->links.on_switch == NULL || watch->bpf->links.on_wakeup == NULL)
        return kernel_refused("watch its scheduler", -errno);
    for (size_t i = 0; error == 0 && i < watch->thread_count; i++)
        error = sample_thread(watch, &watch->threads[i]);
    return error == 0 ? 0 : kernel_refused("sample the node's schedulers", error);
}

static uint64_t dropped_by(const struct watch *watch) {
    return watch->bpf->bss->dropped + kernel_missed(watch->bpf->progs.on_switch) +
           kernel_missed(watch->bpf->progs.on_wakeup) + kernel_missed(watch->bpf->progs.on_sample);
}

static void summarize(const struct watch *watch, const struct window *window) {
    uint64_t dropped = dropped_by(watch);
    if (watch->options->json) {
        window_print(window, true);
        printf(",\"threads\":%zu,\"threshold_ms\":%g,\"stalls\":%" PRIu64 ",\"dropped\":%" PRIu64
               "}\n",
               watch->thread_count, watch->options->threshold_ms, watch->told, dropped);
        return;
    }
    window_print(window, false);
    printf("  %" PRIu64 " stalls of %g ms or more in %zu scheduler threads", watch->told,
           watch->options->threshold_ms, watch->thread_count);
    for (int kind = LIN_STALL_WAITED; kind <= LIN_STALL_BUSY; kind++)
        printf("%s%" PRIu64 " %s", kind == LIN_STALL_WAITED ? ": " : ", ", watch->kinds[kind],
               kind_names[kind]);
    printf("; %" PRIu64 " dropped\n", dropped);
}

static int run(struct watch *watch) {
    struct window window = {.target = watch->target,
                            .command = "stalls",
                            .seconds = watch->options->seconds,
                            .ring = watch->ring,
                            .each = each_turn,
                            .arg = watch};
    if (watch->options->feed) {
        int status = feed_open(&watch->feed, watch->target, "stalls", FEED_SLOTS);
        if (status != 0)
            return status;
        watch->feed.head.threshold_ns = watch->bpf->rodata->threshold_ns;
    }
    watch->bpf->bss->watching = true;
    window_watch(&window);
    watch->bpf->bss->watching = false;
    ring_buffer__consume(watch->ring);
    if (window.end != WINDOW_NODE)
        take_unfinished(watch, window.to_ns);
    summarize(watch, &window);
    return 0;
}

int stalls_command(const void *given) {
    const struct options *options = given;
    struct target target;
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return EXIT_FAILURE;
    *watch = (struct watch){.options = options, .target = &target, .feed = {.fd = -1}};
    int status = probe_open(options, &target);
    if (status == 0)
        status = load(watch);
    if (status == 0)
        status = run(watch);
    for (size_t i = 0; i < watch->thread_count; i++)
        if (watch->threads[i].sample != NULL)
            bpf_link__destroy(watch->threads[i].sample); /* closes what it samples by, too */
        else if (watch->threads[i].sample_fd >= 0)
            close(watch->threads[i].sample_fd);
    feed_close(&watch->feed);
    ring_buffer__free(watch->ring);
    stalls_bpf__destroy(watch->bpf);
    free(watch->threads);
    free(watch);
    target_close(&target);
    return status;
}

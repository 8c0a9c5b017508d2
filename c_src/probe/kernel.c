#include "probe.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { CAP_SYS_ADMIN = 21, CAP_PERFMON = 38, CAP_BPF = 39 };

/* What libbpf said last: told only when it says why something failed. */
static char said[512];

static int hear(enum libbpf_print_level level, const char *format, va_list args) {
    if (level == LIBBPF_WARN)
        vsnprintf(said, sizeof said, format, args);
    return 0;
}

/* A number behind a key of /proc/PID/status; 0 without it. */
static unsigned long long status_of(const char *path, const char *key, int base) {
    char line[256];
    unsigned long long value = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, base);
    fclose(file);
    return value;
}

static bool have(int capability) {
    return (status_of("/proc/self/status", "CapEff:", 16) >> capability & 1) != 0;
}

/* `which` is missing; `all` is what to give. */
static int missing(const char *which, const char *why, const char *all) {
    char self[4096] = "lineage-probe";
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0)
        self[len] = 0;
    fprintf(stderr,
            "lineage-probe: %s missing%s: as root, run `setcap %s+ep %s`, or run the probe as "
            "root.\n",
            which, why, all, self);
    return EXIT_PRIVILEGE;
}

static int privileges(void) {
    bool perfmon = have(CAP_SYS_ADMIN) || have(CAP_PERFMON);
    bool bpf = have(CAP_SYS_ADMIN) || have(CAP_BPF);
    if (perfmon && bpf)
        return 0;
    return missing(bpf       ? "CAP_PERFMON is"
                   : perfmon ? "CAP_BPF is"
                             : "CAP_BPF and CAP_PERFMON are",
                   "", "cap_bpf,cap_perfmon");
}

/*
 * Linux 6.11 to 6.13 return from a watched function by a system call of their own, on x86-64, which
 * a seccomp filter that does not know it kills the process for.
 */
static bool deadly(const struct target *target) {
#if defined(__x86_64__)
    char path[64];
    struct utsname kernel;
    unsigned major, minor;
    snprintf(path, sizeof path, "/proc/%d/status", (int)target->pid);
    return uname(&kernel) == 0 && sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
           major == 6 && minor >= 11 && minor <= 13 && status_of(path, "Seccomp:", 10) == 2;
#else
    (void)target;
    return false;
#endif
}

static int kernel_allows(void) {
    libbpf_set_print(hear);
    libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
    if (access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
        fprintf(stderr, "lineage-probe: this kernel has no /sys/kernel/btf/vmlinux: it takes Linux "
                        "5.8 or later, "
                        "built with CONFIG_DEBUG_INFO_BTF.\n");
        return EXIT_PRIVILEGE;
    }
    return privileges();
}

int kernel_refused(const char *what, int error) {
    size_t len = strlen(said);
    while (len > 0 && (said[len - 1] == '\n' || said[len - 1] == '.'))
        said[--len] = 0;
    if (error == -EPERM || error == -EACCES) {
        fprintf(stderr,
                "lineage-probe: the kernel does not allow to %s (%s), though CAP_BPF and "
                "CAP_PERFMON are "
                "there: lockdown, a seccomp filter or a container's rules forbid it.\n",
                what, strerror(-error));
        return EXIT_PRIVILEGE;
    }
    fprintf(stderr, "lineage-probe: the kernel could not %s: %s%s%s.\n", what, strerror(-error),
            len > 0 ? ": " : "", said);
    return EXIT_FAILURE;
}

int kernel_uprobe(struct bpf_program *program, const struct target *target, const char *function,
                  bool at_return, bool optional, struct bpf_link **out) {
    if (at_return && deadly(target)) {
        if (optional)
            return EXIT_PRIVILEGE;
        fprintf(
            stderr,
            "lineage-probe: %s runs under a seccomp filter, and this kernel (6.11 to 6.13) could "
            "kill it for being watched: use Linux 6.14, or take the filter away.\n",
            target_text(target));
        return EXIT_PRIVILEGE;
    }
    LIBBPF_OPTS(bpf_uprobe_opts, options, .func_name = function, .retprobe = at_return);
    *out = bpf_program__attach_uprobe_opts(program, target->pid, target->exe, 0, &options);
    if (*out != NULL)
        return 0;
    int error = errno;
    if (target_ended(target)) {
        fprintf(stderr, "lineage-probe: %s has ended.\n", target_text(target));
        return EXIT_NODE;
    }
    bool refused = error == EACCES || error == EPERM;
    if (optional && (error == ENOENT || refused))
        return error == ENOENT ? EXIT_SYMBOLS : EXIT_PRIVILEGE;
    if (error == ENOENT) {
        fprintf(stderr,
                "lineage-probe: this VM (%s) was built without the name of its function %s, so "
                "that the kernel cannot watch it (Debian's OTP 29 is one): Lineage's own counts do "
                "not need it.\n",
                target->path, function);
        return EXIT_SYMBOLS;
    }
    if (refused && !have(CAP_SYS_ADMIN))
        return missing("CAP_SYS_ADMIN is",
                       ", which this kernel wants for watching a function of a program",
                       "cap_bpf,cap_perfmon,cap_sys_admin");
    return kernel_refused("watch a function of the VM", -error);
}

uint64_t kernel_missed(const struct bpf_program *program) {
    struct bpf_prog_info info = {0};
    __u32 bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &bytes) != 0)
        return 0;
    return info.recursion_misses;
}

uint64_t probe_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Writer: the signal's handler. Reader: the window. */
static volatile sig_atomic_t signalled;

static void catch (int signal) { signalled = signal; }

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = catch};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* who reads it has gone: what was begun is ended properly */
}

int probe_open(const struct options *options, struct target *target) {
    catch_signals();
    int status = target_open(options, target);
    return status == 0 ? kernel_allows() : status;
}

static bool is_over(struct window *window) {
    uint64_t passed = probe_now_ns() - window->from_ns;
    if (signalled != 0)
        window->end = WINDOW_SIGNAL;
    else if (window->stop)
        window->end = WINDOW_STOPPED;
    else if (target_ended(window->target))
        window->end = WINDOW_NODE;
    else if (window->seconds > 0 && (double)passed >= window->seconds * 1e9)
        window->end = WINDOW_TIME;
    else
        return false;
    return true;
}

void window_watch(struct window *window) {
    enum { TURN_NS = 20000000 };
    window->from_ns = probe_now_ns();
    fprintf(stderr, "lineage-probe: %s watches %s", window->command, target_text(window->target));
    if (window->seconds > 0)
        fprintf(stderr, " for %g s.\n", window->seconds);
    else
        fprintf(stderr, " until Ctrl-C.\n");
    while (!is_over(window)) {
        struct timespec turn = {.tv_nsec = TURN_NS};
        nanosleep(&turn, NULL);
        if (window->ring != NULL)
            ring_buffer__consume(window->ring);
        if (window->each != NULL)
            window->each(window->arg);
    }
    window->to_ns = probe_now_ns();
}

double window_seconds(const struct window *window) {
    return (double)(window->to_ns - window->from_ns) / 1e9;
}

void window_print(const struct window *window, bool json) {
    static const char *const ends[] = {"time", "signal", "node", "stopped"};
    if (json) {
        printf("{\"pid\":%d,\"node\":", (int)window->target->pid);
        if (window->target->node != NULL)
            json_text(window->target->node);
        else
            printf("null");
        printf(",\"seconds\":%.6f,\"ended\":\"%s\"", window_seconds(window), ends[window->end]);
        return;
    }
    printf("%s, %.2f s%s\n", target_text(window->target), window_seconds(window),
           window->end == WINDOW_NODE
               ? ": the node has ended, and a new one of its name is another process"
               : "");
}

void plain_text(char *text, size_t room) {
    for (size_t i = 0; i < room && text[i] != 0; i++)
        if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] > 0x7e)
            text[i] = '?';
}

int kernel_iterate(struct bpf_program *program, void *data, size_t bytes,
                   void (*fn)(void *, const void *), void *arg) {
    struct bpf_link *link = bpf_program__attach_iter(program, NULL);
    int fd = link == NULL ? -1 : bpf_iter_create(bpf_link__fd(link));
    int result = fd < 0 ? -errno : 0;
    for (ssize_t got = 1; result == 0 && got > 0;) {
        got = read(fd, data, bytes);
        if (got < 0)
            result = -errno;
        else if (got > 0)
            fn(arg, data);
    }
    if (fd >= 0)
        close(fd);
    bpf_link__destroy(link);
    return result;
}

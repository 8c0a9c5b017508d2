/*
 * probe.h - what the files of lineage-probe share.
 *
 * Model: main.c reads the command line, target.c finds the node and looks after it, kernel.c asks
 * what the kernel allows and attaches programs; each command loads its own (x.bpf.c), watches for a
 * window of time and prints. The node is never stopped, changed or asked: it need not know.
 * Whatever it is that cannot be, one sentence says what to do. Ownership: a command owns what it
 * opens. Threads: one. Units: nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef LIN_PROBE_H
#define LIN_PROBE_H

#include "cli.h"

#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    EXIT_PRIVILEGE = 3, /* not allowed: which capability is missing, and how to give it */
    EXIT_SYMBOLS = 4,   /* this VM does not name the function to watch */
    EXIT_NODE = 5       /* no such process, or not a node */
};

struct options {
    pid_t pid;        /* 0: not given */
    const char *node; /* NULL: not given */
    double seconds;   /* 0: until SIGINT or SIGTERM, or the node's end */
    bool json;
    double sample;       /* percent of the time; 0: all of it */
    const char *journal; /* verify */
    unsigned ring_mib;
    double threshold_ms; /* stalls */
    bool feed;
};

struct target {
    pid_t pid;
    const char *node; /* its name as it was asked for; NULL when it was asked for by pid */
    int pidfd;
    uid_t uid;
    uint64_t node_ns;   /* the node's */
    unsigned own_ns;    /* the probe's pid namespace: its inode */
    uint32_t inner_pid; /* as the node has it */
    uint64_t started;   /* field 22 of /proc/PID/stat */
    char exe[64];       /* /proc/PID/exe: the file that runs, also when another lies at its path */
    char path[4096];    /* what it is called */
};

/* Each returns 0, or prints one sentence and returns an exit status. */
int target_open(const struct options *options, struct target *target);
void target_close(struct target *target);
bool target_ended(const struct target *target);
/* "node NAME (PID)", or "PID". */
const char *target_text(const struct target *target);

/* What each command begins with: the node, whether this kernel runs such programs and for us, and
 * signals that end a window. target_close also after a failure. */
int probe_open(const struct options *options, struct target *target);
/* Why the last thing that libbpf was asked for failed; prints. */
int kernel_refused(const char *what, int error);
/* A uprobe on a function of the VM. Prints; but not EXIT_SYMBOLS and EXIT_PRIVILEGE of
 * one that is `optional`. */
int kernel_uprobe(struct bpf_program *program, const struct target *target, const char *function,
                  bool at_return, bool optional, struct bpf_link **out);
/* Runs an iterator, and `fn` for each of the things of `bytes` that it writes. 0 or a negative
 * errno. */
int kernel_iterate(struct bpf_program *program, void *data, size_t bytes,
                   void (*fn)(void *arg, const void *data), void *arg);
/* How often the kernel could not run a program; 0 where it does not count that. */
uint64_t kernel_missed(const struct bpf_program *program);

enum window_end { WINDOW_TIME, WINDOW_SIGNAL, WINDOW_NODE, WINDOW_STOPPED };

struct window {
    const struct target *target;
    const char *command;
    double seconds;
    struct ring_buffer *ring; /* NULL: none */
    void (*each)(void *arg);  /* NULL: none; some times a second */
    void *arg;
    bool stop; /* set by `each`: it cannot go on */
    uint64_t from_ns, to_ns;
    enum window_end end;
};

/* Says on stderr that it begins, and comes back when the window has ended. */
void window_watch(struct window *window);
double window_seconds(const struct window *window);
/* The fields that each command's JSON begins with, without the closing brace; or a line of text. */
void window_print(const struct window *window, bool json);

uint64_t probe_now_ns(void);
/* What is not printable ASCII becomes a question mark: names of programs are anybody's. */
void plain_text(char *text, size_t room);

/* The programs of the census; `telling`: each birth and death is told, with room as these options
 * say. Those that return int print. */
struct census_bpf;
struct census_probes {
    struct census_bpf *bpf;
    struct bpf_link *births, *deaths;
};
int census_load(struct census_probes *probes, const struct target *target,
                const struct options *telling);
int census_attach(struct census_probes *probes, const struct target *target);
void census_detach(struct census_probes *probes);
void census_close(struct census_probes *probes);
/* What the kernel could not count, or tell. */
uint64_t census_dropped(const struct census_probes *probes);

/* The commands: they return an exit status. */
int census_command(const void *options);
int verify_command(const void *options);
int stalls_command(const void *options);
int ospids_command(const void *options);

#endif

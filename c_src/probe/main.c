#include "probe.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

/*
 * lineage-probe: a node seen from outside, by the kernel.
 */

#define NODE                                                                                       \
    "  -p PID         the node, by the number of its OS process\n"                                 \
    "  --node NAME    the node, by its name (NAME or NAME@HOST), as this host's epmd knows it\n"   \
    "  -d SECONDS     how long; else until Ctrl-C, or the node's end\n"
#define COMMON                                                                                     \
    "  --json         JSON\n"                                                                      \
    "  --help         this text\n"
#define RING "  --ring MIB     room between kernel and probe (16)\n"

static const struct cli_command commands[] = {
    {"census", "births and deaths, counted by the kernel",
     "lineage-probe census (-p PID | --node NAME) [-d SECONDS] [--sample PERCENT] [--json]\n\n"
     "Counts the returns of erl_create_process and the calls of erts_do_exit_process in the "
     "running\n"
     "VM, by uprobes: `births`, `failed` (creations that gave no process), `deaths`, "
     "`live_change`\n"
     "(births - deaths), `dropped` (what the kernel could not count) and rates. The node needs no\n"
     "Lineage, and no restart. A birth and its death cost the node some microseconds each while "
     "this\n"
     "runs (bench/run.sh witness measures it), and nothing before and after.\n\n" NODE
     "  --sample PERCENT  watch so much of each second only, and give rates with their 95 %\n"
     "                 interval: for a node that the whole would cost too much\n" COMMON,
     census_command},
    {"verify", "Lineage's own record against the kernel's",
     "lineage-probe verify (-p PID | --node NAME) [-d SECONDS] --journal DIR [--ring MIB] "
     "[--json]\n\n"
     "Watches as census does, process by process, and compares with what Lineage has recorded in "
     "DIR\n"
     "(attach(#{exits => all, journal => DIR})) over the same time. A process that only one side "
     "has\n"
     "is a difference, unless it was born or died at the window's edge (`edge`), or that side "
     "says\n"
     "that it dropped something there: `dropped` by the kernel, `missing` by Lineage.\n"
     "Exit status: 0 when both agree, 1 when they do not.\n\n" NODE
     "  --journal DIR  the directory that attach was given as `journal`\n" RING COMMON,
     verify_command},
    {"stalls", "who kept a scheduler from running",
     "lineage-probe stalls (-p PID | --node NAME) [-d SECONDS] [--threshold MS] [--feed] "
     "[--json]\n\n"
     "A line for each time that a scheduler thread of the VM was kept from its work for MS or "
     "more:\n"
     "  waited   it could have run, and had no CPU: which process ran on it instead\n"
     "  blocked  it was in a system call, or stopped by a signal or a tracer, by which library\n"
     "  busy     at each sample, one a millisecond, it was in the code of one shared library (a "
     "NIF,\n"
     "           a driver): in one long call, or in many, one right after the other\n"
     "Waiting for work is none. Dirty I/O schedulers may block: it is what they are for.\n\n" NODE
     "  --threshold MS how long (5)\n"
     "  --feed         also for the node: lineage:overhead/1 then names the cause of an "
     "outlier\n" COMMON,
     stalls_command},
    {"ospids", "the OS processes that ports have started",
     "lineage-probe ospids (-p PID | --node NAME) [-d SECONDS] [--feed] [--json]\n\n"
     "Every OS process below the VM's erl_child_setup, those too that were adopted by init "
     "meanwhile\n"
     "(of these, what was started while this runs): what it is, since when, which port and "
     "process\n"
     "started it, and whether it still holds a pipe to the node, or comes from one that does. One\n"
     "that has none is an orphan: its port is gone, and nobody in the node can end it.\n\n" NODE
     "  --feed         also for the node: lineage:orphans(os)\n" COMMON,
     ospids_command},
};

static const char *number(const char *text, double low, double high, double *out,
                          const char *wrong) {
    char *end;
    *out = strtod(text, &end);
    return end == text || *end != 0 || !(*out >= low && *out <= high) ? wrong : NULL;
}

static const char *whole(const char *text, long low, long high, long *out, const char *wrong) {
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    return end == text || *end != 0 || errno != 0 || *out < low || *out > high ? wrong : NULL;
}

static const char *parse_one(int c, struct options *options) {
    const char *wrong;
    long value;
    switch (c) {
    case 'p':
        wrong = whole(optarg, 1, 4194304, &value, "-p takes the number of an OS process");
        options->pid = (pid_t)value;
        return wrong;
    case 'n':
        options->node = optarg;
        return *optarg == 0 ? "--node takes a node's name" : NULL;
    case 'd':
        return number(optarg, 0.01, 1e9, &options->seconds, "-d takes seconds, more than 0");
    case 's':
        return number(optarg, 0.1, 50, &options->sample, "--sample takes a percentage, 0.1 to 50");
    case 'r':
        wrong = whole(optarg, 1, 1024, &value, "--ring takes MiB, 1 to 1024");
        options->ring_mib = (unsigned)value;
        return wrong;
    case 't':
        return number(optarg, 0.5, 60000, &options->threshold_ms,
                      "--threshold takes milliseconds, 0.5 to 60000");
    case 'o':
        options->journal = optarg;
        return NULL;
    case 'f':
        options->feed = true;
        return NULL;
    case 'j':
        options->json = true;
        return NULL;
    case 'h':
        return "";
    default:
        return "that is no option of it, or lacks its value";
    }
}

static const char *parse(int argc, char **argv, void *to) {
    static const struct option known[] = {
        {"node", required_argument, NULL, 'n'},
        {"sample", required_argument, NULL, 's'},
        {"ring", required_argument, NULL, 'r'},
        {"threshold", required_argument, NULL, 't'},
        {"journal", required_argument, NULL, 'o'},
        {"feed", no_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    /* What each command takes, beside -p, --node, -d, --json and --help. */
    static const char *const takes[][2] = {
        {"census", "s"}, {"verify", "or"}, {"stalls", "tf"}, {"ospids", "f"}};
    struct options *options = to;
    const char *more = "";
    int c;
    for (size_t i = 0; i < sizeof takes / sizeof takes[0]; i++)
        if (strcmp(takes[i][0], argv[0]) == 0)
            more = takes[i][1];
    opterr = 0;
    while ((c = getopt_long(argc, argv, "p:d:", known, NULL)) != -1) {
        const char *wrong = strchr("pndjh", c) == NULL && strchr(more, c) == NULL
                                ? parse_one('?', options)
                                : parse_one(c, options);
        if (wrong != NULL)
            return wrong;
    }
    if (argc != optind)
        return "it takes options only";
    if ((options->pid != 0) == (options->node != NULL))
        return "it takes one node, by -p PID or by --node NAME";
    if (strcmp(argv[0], "verify") == 0 && options->journal == NULL)
        return "it takes --journal DIR, what attach was given as `journal`";
    return NULL;
}

int main(int argc, char **argv) {
    struct options options = {.ring_mib = 16, .threshold_ms = 5};
    const struct cli cli = {
        .tool = "lineage-probe",
        .form = "COMMAND (-p PID | --node NAME) [OPTION]...",
        .tail =
            "`lineage-probe COMMAND --help` tells more. Exit status: 0; 1 when verify found a\n"
            "difference, or something broke; 2 for a wrong command line; 3 without the privileges\n"
            "(CAP_BPF and CAP_PERFMON); 4 where the VM does not name its functions; 5 for a "
            "process\n"
            "that is not there, or is no node.\n",
        .commands = commands,
        .count = sizeof commands / sizeof commands[0],
        .options = &options,
        .parse = parse,
    };
    return cli_main(&cli, argc, argv);
}

#include "tool.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * lineage-journal: what the flight recorder of a node has written, read where no node is.
 */

#define COMMON                                                                                     \
    "  --run ID    another run than the newest: see `lineage-journal info DIR`\n"                  \
    "  --json      JSON, a line for each thing\n"                                                  \
    "  --help      this text\n"
#define MOMENT                                                                                     \
    "  --at TIME   the moment: seconds before the end (-1.5), or a time in UTC\n"                  \
    "              (2026-01-31T12:00:00.5Z); else the end: of a node that died, its death\n"

static const struct cli_command commands[] = {
    {"info", "the runs in a journal, and how they ended",
     "lineage-journal info [--json] DIR\n\n"
     "The runs that DIR holds, oldest first: which node, when, whether it is running, has "
     "detached\n"
     "(ended) or died; segments, blocks, events, and what is missing or damaged. A dead node's\n"
     "rings are looked at, too: `in rings` is what its segments do not hold.\n\n" COMMON,
     info_command},
    {"dump", "every event",
     "lineage-journal dump [--json] [--run ID] DIR\n\n"
     "Every event in the order in which it was written, ring by ring within a block; then those "
     "that\n"
     "a dead node has left in its rings. `gap` stands where events are missing, with how "
     "many.\n\n" COMMON,
     dump_command},
    {"forest", "the processes that lived at some moment, as a tree",
     "lineage-journal forest [--at TIME] [--all] [--json] [--run ID] DIR\n\n"
     "The live processes below whoever would stop them (their guardians), orphans marked: those "
     "that\n"
     "no chain of guardians joins to a root. More than four alike are shown as one line.\n\n" MOMENT
     "  --all       each process on a line of its own, and Lineage's own, too\n" COMMON,
     forest_command},
    {"last", "the last exits, with their reasons",
     "lineage-journal last [-n COUNT] [--at TIME] [--all] [--json] [--run ID] DIR\n\n"
     "The last 20 exits before the end, newest last: when, who, what it ran, how old it was, and "
     "the\n"
     "reason, as far as it is an atom or a tuple that begins with one. Processes that were found\n"
     "dead by sweeping have no reason and are not among them.\n\n"
     "  -n COUNT    so many\n" MOMENT "  --all       Lineage's own processes, too\n" COMMON,
     last_command},
    {"sites", "the places in code that spawned, and how many live",
     "lineage-journal sites [--at TIME] [--json] [--run ID] DIR\n\n"
     "For each place that spawned: how many of its processes live at that moment, how many of "
     "them\n"
     "are orphans, and how many exited abnormally in the record. Most live first.\n\n" MOMENT
         COMMON,
     sites_command},
};

static const char *parse(int argc, char **argv, void *to) {
    static const struct option known[] = {
        {"json", no_argument, NULL, 'j'},      {"all", no_argument, NULL, 'a'},
        {"run", required_argument, NULL, 'r'}, {"at", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},      {NULL, 0, NULL, 0},
    };
    struct options *options = to;
    char *end;
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, "n:", known, NULL)) != -1) {
        switch (c) {
        case 'j':
            options->json = true;
            break;
        case 'a':
            options->all = true;
            break;
        case 'r':
            options->run = optarg;
            break;
        case 't':
            options->at = optarg;
            break;
        case 'n':
            options->count = strtoul(optarg, &end, 10);
            if (*end != 0 || options->count == 0 || optarg[0] == '-')
                return "-n takes a number, 1 or more";
            break;
        case 'h':
            return "";
        default:
            return "that is no option of it, or lacks its value";
        }
    }
    if (argc - optind != 1)
        return "it takes one directory";
    options->dir = argv[optind];
    return NULL;
}

int main(int argc, char **argv) {
    struct options options = {.count = 20,
                              .colour = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL};
    const struct cli cli = {
        .tool = "lineage-journal",
        .form = "COMMAND [OPTION]... DIR",
        .tail =
            "DIR is the directory that attach was given as `journal`. `lineage-journal COMMAND\n"
            "--help` tells more. Exit status: 0; 2 for a wrong command line; 3 where DIR holds no\n"
            "journal.\n",
        .commands = commands,
        .count = sizeof commands / sizeof commands[0],
        .options = &options,
        .parse = parse,
    };
    return cli_main(&cli, argc, argv);
}

/*
 * cli.h - what Lineage's programs share: their usage, and JSON.
 *
 * Model: a program has commands, each with a line that says what it does and a page of help.
 * Threads: one.
 */
#ifndef LIN_CLI_H
#define LIN_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { EXIT_USAGE = 2 };

struct cli_command {
    const char *name, *what, *help;
    int (*run)(const void *options); /* returns an exit status */
};

struct cli {
    const char *tool, *form; /* of its command line */
    const char *tail;        /* of its usage */
    const struct cli_command *commands;
    size_t count;
    void *options;
    /* Reads a command's line into `options`: 0, or what to say. "" for --help. */
    const char *(*parse)(int argc, char **argv, void *options);
};

/* What `main` returns. */
int cli_main(const struct cli *cli, int argc, char **argv);

/* Prints a JSON string with its quotes. */
void json_text(const char *text);

#endif

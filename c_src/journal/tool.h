/*
 * tool.h - what the files of lineage-journal share.
 *
 * Model: main.c reads the command line and opens the journal, load.c finds the runs and reads one
 * into a replay, text.c says what ids and ticks are, and each subcommand prints. Everything read is
 * untrusted: text from a journal is shown with what is not printable escaped.
 * Ownership: struct loaded owns all; loaded_close frees. Threads: one.
 */
#ifndef LIN_TOOL_H
#define LIN_TOOL_H

#include "cli.h"
#include "replay.h"

#include <stdbool.h>
#include <stdio.h>

enum { EXIT_NO_JOURNAL = 3 };

struct options {
    const char *dir;
    const char *run; /* NULL: the newest */
    const char *at;  /* NULL: the end */
    bool json, all, colour;
    size_t count; /* of last */
};

enum fate { RUNNING, ENDED, DIED };

struct loaded {
    struct lin_run *runs; /* oldest first */
    size_t run_count;
    struct lin_run *run; /* the one that was asked for */
    enum fate fate;
    bool has_left; /* its rings were there, and read */
    struct lin_left left;
    struct lin_replay *replay;
    const struct lin_replayed *replayed;
    uint64_t until; /* ticks */
};

/* load.c. Each prints its own sentence on stderr, and returns an exit status. */
int load_runs(const struct options *options, struct loaded *loaded);
/* Also reads the run whole, up to the wanted moment. */
int load_run(const struct options *options, struct loaded *loaded);
void loaded_close(struct loaded *loaded);
enum fate fate_of(const struct lin_run *run);
/* Calls `fn` for each block of the run. 0 or a negative errno. */
int each_block(const struct options *options, struct lin_run *run, lin_block_fn fn, void *arg);

/* text.c: into a buffer, which is returned. */
#define TEXT 640
char *node_text(char text[TEXT], const struct lin_run *run);
char *pid_text(char text[TEXT], const struct loaded *loaded, uint64_t pid);
char *atom_text(char text[TEXT], const struct loaded *loaded, uint64_t atom);
char *call_text(char text[TEXT], const struct loaded *loaded, uint32_t id);
/* Where it was spawned, as far as known; "" when not. */
char *site_text(char text[TEXT], const struct loaded *loaded, uint32_t id);
/* A process's name, else what it runs. */
char *who_text(char text[TEXT], const struct loaded *loaded, const struct lin_entry *entry,
               uint64_t name);
char *parent_text(char text[TEXT], const struct loaded *loaded, uint64_t parent, uint32_t flags);
char *scope_text(char text[TEXT], const struct loaded *loaded, uint32_t scope);
char *wall_text(char text[TEXT], uint64_t wall_ns);
char *span_text(char text[TEXT], uint64_t ns);
/* Nanoseconds since 1970 of a tick of the run, and the other way round. */
uint64_t wall_of(const struct lin_run *run, uint64_t ticks);
uint64_t ticks_of(const struct lin_run *run, uint64_t wall_ns);
const char *kind_text(uint8_t kind);
const char *orphan_text(const struct loaded *loaded, const struct lin_entry *entry);

/* The subcommands: they return an exit status. */
int info_command(const void *options);
int dump_command(const void *options);
int forest_command(const void *options);
int last_command(const void *options);
int sites_command(const void *options);

#endif

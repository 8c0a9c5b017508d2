#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int each_segment(const struct options *options, const struct lin_segment_name *names,
                        size_t count, struct lin_run *run, lin_block_fn fn, void *arg) {
    for (size_t i = 0; i < count; i++) {
        if (names[i].run != run->id)
            continue;
        int result = lin_run_read(run, options->dir, names[i], fn, arg);
        if (result == -ENOENT) /* the oldest go while a node is running */
            continue;
        if (result != 0) {
            fprintf(stderr, "lineage-journal: %s/" LIN_SEGMENT_NAME ": %s\n", options->dir,
                    (unsigned long long)names[i].run, (unsigned)names[i].no, strerror(-result));
            return result;
        }
    }
    return 0;
}

int each_block(const struct options *options, struct lin_run *run, lin_block_fn fn, void *arg) {
    struct lin_segment_name *names;
    size_t count;
    uint64_t id = run->id;
    int result = lin_scan_list(options->dir, &names, &count);
    if (result != 0)
        return result;
    lin_run_init(run, id);
    result = each_segment(options, names, count, run, fn, arg);
    free(names);
    return result;
}

static int by_age(const void *left, const void *right) {
    const struct lin_run *l = left, *r = right;
    return l->from_wall_ns < r->from_wall_ns ? -1 : l->from_wall_ns > r->from_wall_ns;
}

static int fold_all(const struct options *options, const struct lin_segment_name *names,
                    size_t count, struct loaded *loaded) {
    loaded->runs = calloc(count, sizeof *loaded->runs);
    if (loaded->runs == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (i != 0 && names[i].run == names[i - 1].run)
            continue;
        struct lin_run *run = &loaded->runs[loaded->run_count++];
        lin_run_init(run, names[i].run);
        int result = each_segment(options, names, count, run, NULL, NULL);
        if (result != 0)
            return result;
    }
    qsort(loaded->runs, loaded->run_count, sizeof *loaded->runs, by_age);
    return 0;
}

enum fate fate_of(const struct lin_run *run) {
    if (run->end != 0)
        return run->end == LIN_END_RECOVERED ? DIED : ENDED;
    return lin_run_is_alive(run) ? RUNNING : DIED;
}

static struct lin_run *find_run(const struct options *options, const struct loaded *loaded) {
    if (options->run == NULL)
        return &loaded->runs[loaded->run_count - 1];
    char *end;
    unsigned long long id = strtoull(options->run, &end, 16);
    for (size_t i = 0; *end == 0 && i < loaded->run_count; i++)
        if (loaded->runs[i].id == id)
            return &loaded->runs[i];
    fprintf(stderr, "lineage-journal: %s holds no run %s: `lineage-journal info %s` lists them.\n",
            options->dir, options->run, options->dir);
    return NULL;
}

int load_runs(const struct options *options, struct loaded *loaded) {
    struct lin_segment_name *names;
    size_t count;
    memset(loaded, 0, sizeof *loaded);
    int result = lin_scan_list(options->dir, &names, &count);
    if (result == 0 && count != 0)
        result = fold_all(options, names, count, loaded);
    free(names);
    if (result != 0 || count == 0) {
        fprintf(stderr,
                "lineage-journal: %s holds no journal%s%s: name the directory that was given to "
                "attach as journal.\n",
                options->dir, result == 0 ? "" : ": ", result == 0 ? "" : strerror(-result));
        return EXIT_NO_JOURNAL;
    }
    loaded->run = find_run(options, loaded);
    if (loaded->run == NULL)
        return EXIT_NO_JOURNAL;
    if (loaded->run->head.rings == 0) {
        fprintf(stderr,
                "lineage-journal: the beginning of run %016llx is lost or damaged in all of its "
                "segments: nothing can be told of it.\n",
                (unsigned long long)loaded->run->id);
        return options->run != NULL || loaded->run_count == 1 ? EXIT_NO_JOURNAL : 0;
    }
    loaded->fate = fate_of(loaded->run);
    loaded->has_left = lin_left_read(loaded->run, &loaded->left) == 0;
    return 0;
}

/* The last tick that anything tells of. */
static uint64_t end_of(const struct loaded *loaded) {
    uint64_t end = loaded->run->to_ticks;
    const struct lin_left *left = &loaded->left;
    for (uint32_t n = 0; loaded->has_left && n < left->rings->count; n++)
        for (uint64_t at = left->from[n]; at < left->to[n]; at++) {
            const struct lin_event *event = lin_left_at(left, n, at);
            if (event != NULL && event->kind != LIN_EV_GAP && event->ticks > end)
                end = event->ticks;
        }
    return end;
}

/* `-1.5`: seconds before the end; else a time of day in UTC, or a part of it. */
static bool read_moment(const struct options *options, struct loaded *loaded) {
    const struct lin_run *run = loaded->run;
    uint64_t end = end_of(loaded);
    char *rest;
    struct tm tm = {.tm_isdst = 0};
    loaded->until = end;
    if (options->at == NULL)
        return true;
    if (options->at[0] == '-') {
        double seconds = strtod(options->at, &rest);
        uint64_t wall = wall_of(run, end), back = (uint64_t)(-seconds * 1e9);
        loaded->until = ticks_of(run, back < wall ? wall - back : 0);
        return *rest == 0 && seconds <= 0;
    }
    rest = strptime(options->at, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL)
        return false;
    double fraction = *rest == '.' ? strtod(rest, &rest) : 0;
    if (strcmp(rest, "Z") != 0 && *rest != 0)
        return false;
    loaded->until = ticks_of(run, (uint64_t)timegm(&tm) * 1000000000u + (uint64_t)(fraction * 1e9));
    return true;
}

int load_run(const struct options *options, struct loaded *loaded) {
    int status = load_runs(options, loaded);
    if (status != 0)
        return status;
    if (loaded->run->head.rings == 0)
        return EXIT_NO_JOURNAL;
    if (!read_moment(options, loaded)) {
        fprintf(stderr,
                "lineage-journal: --at takes seconds before the end (-1.5) or a time in UTC "
                "(2026-01-31T12:00:00.5Z), and was given %s.\n",
                options->at);
        return EXIT_USAGE;
    }
    loaded->replay = lin_replay_create(options->at == NULL ? UINT64_MAX : loaded->until);
    int result = loaded->replay == NULL
                     ? -ENOMEM
                     : each_block(options, loaded->run, lin_replay_block, loaded->replay);
    if (result == 0) {
        if (loaded->has_left) {
            lin_left_pass(&loaded->left, loaded->run);
            lin_replay_left(loaded->replay, &loaded->left);
        }
        result = lin_replay_finish(loaded->replay, &loaded->run->head, &loaded->replayed);
    }
    if (result == 0)
        return 0;
    fprintf(stderr, "lineage-journal: the run could not be read: %s\n", strerror(-result));
    return EXIT_FAILURE;
}

void loaded_close(struct loaded *loaded) {
    lin_replay_destroy(loaded->replay);
    if (loaded->has_left)
        lin_left_free(&loaded->left);
    free(loaded->runs);
}

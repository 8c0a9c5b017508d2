#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Below its guardian each, roots first. Deep chains are drawn no further to the right than this. */
#define DEPTH 40
#define ALIKE 4

struct forest {
    const struct options *options;
    const struct loaded *loaded;
    const struct lin_shown *live;
    uint32_t count;
    uint32_t *over;     /* whom each hangs on; `count`: nobody */
    uint32_t *children; /* those of i: from first[i] to first[i + 1] */
    uint32_t *first;    /* `count` has the tops */
    bool *drawn;
};

struct turn { /* a list of siblings that is being drawn */
    uint32_t at, end;
};

static const char *colour(const struct forest *forest, const char *code) {
    return forest->options->colour ? code : "";
}

static bool is_shown(const struct forest *forest, uint32_t i) {
    return forest->options->all || (forest->live[i].entry.flags & LIN_CLASS_OWN) == 0;
}

static uint32_t over_of(const struct forest *forest, uint32_t i) {
    const struct lin_entry *entry = &forest->live[i].entry;
    if ((entry->flags & (LIN_CLASS_ROOT | LIN_CLASS_RUNTIME)) != 0 || entry->guardian == 0)
        return forest->count;
    const struct lin_shown *over = lin_replay_find(forest->loaded->replay, entry->guardian);
    return over == NULL ? forest->count : (uint32_t)(over - forest->live);
}

/* Oldest first; those that were there before attach by their pids. */
struct rank {
    uint64_t birth, pid;
    uint32_t i;
};

static int by_age(const void *left, const void *right) {
    const struct rank *l = left, *r = right;
    if (l->birth != r->birth)
        return l->birth < r->birth ? -1 : 1;
    return l->pid < r->pid ? -1 : l->pid > r->pid;
}

static struct rank *ranked(const struct forest *forest) {
    struct rank *ranks = calloc((size_t)forest->count + 1, sizeof *ranks);
    for (uint32_t i = 0; ranks != NULL && i < forest->count; i++) {
        const struct lin_entry *entry = &forest->live[i].entry;
        bool seeded = (entry->flags & LIN_F_SEEDED) != 0;
        ranks[i] = (struct rank){seeded ? 0 : entry->birth, entry->pid, i};
    }
    if (ranks != NULL)
        qsort(ranks, forest->count, sizeof *ranks, by_age);
    return ranks;
}

static bool grow(struct forest *forest) {
    uint32_t n = forest->count;
    struct rank *ranks = ranked(forest);
    forest->over = calloc((size_t)n + 1, sizeof *forest->over);
    forest->children = calloc((size_t)n + 1, sizeof *forest->children);
    forest->first = calloc((size_t)n + 3, sizeof *forest->first);
    forest->drawn = calloc((size_t)n + 1, sizeof *forest->drawn);
    if (forest->over == NULL || forest->children == NULL || forest->first == NULL ||
        forest->drawn == NULL || ranks == NULL) {
        free(ranks);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        forest->over[i] = over_of(forest, i);
        forest->first[forest->over[i] + 2]++;
    }
    for (uint32_t i = 0; i <= n; i++)
        forest->first[i + 2] += forest->first[i + 1];
    for (uint32_t k = 0; k < n; k++)
        forest->children[forest->first[forest->over[ranks[k].i] + 1]++] = ranks[k].i;
    free(ranks);
    return true;
}

static void cut(struct forest *forest) {
    free(forest->over);
    free(forest->children);
    free(forest->first);
    free(forest->drawn);
}

static bool has_children(const struct forest *forest, uint32_t i) {
    return forest->first[i] != forest->first[i + 1];
}

static const char *class_text(uint32_t flags) {
    if ((flags & LIN_CLASS_SUPERVISOR) != 0)
        return " supervisor";
    if ((flags & LIN_CLASS_HOST) != 0)
        return " host";
    if ((flags & LIN_CLASS_RUNTIME) != 0)
        return " runtime";
    return (flags & LIN_CLASS_ROOT) != 0 ? " root" : "";
}

static void print_orphan(const struct forest *forest, const struct lin_shown *shown) {
    char site[TEXT], parent[TEXT];
    const struct lin_entry *entry = &shown->entry;
    site_text(site, forest->loaded, entry->site);
    printf("  %sorphan, %s%s by %s%s%s", colour(forest, "\033[31m"),
           orphan_text(forest->loaded, entry), colour(forest, "\033[0m"),
           parent_text(parent, forest->loaded, entry->parent, entry->flags),
           site[0] == 0 ? "" : ", ", site);
}

static void print_prefix(const struct turn *turns, uint32_t depth, bool last) {
    for (uint32_t i = 0; i + 1 < depth && i < DEPTH; i++)
        fputs(turns[i + 1].at < turns[i + 1].end ? "│  " : "   ", stdout);
    if (depth > DEPTH)
        printf("(%u) ", (unsigned)depth);
    if (depth > 0)
        fputs(last ? "└─ " : "├─ ", stdout);
}

static void print_one(const struct forest *forest, uint32_t i, uint32_t alike) {
    char pid[TEXT], who[TEXT], call[TEXT], age[TEXT];
    const struct lin_shown *shown = &forest->live[i];
    const struct lin_entry *entry = &shown->entry;
    const struct lin_run *run = forest->loaded->run;
    who_text(who, forest->loaded, entry, shown->name);
    if (alike > 1)
        printf("%u x %s", (unsigned)alike, who);
    else
        printf("%s %s%s%s", pid_text(pid, forest->loaded, entry->pid), colour(forest, "\033[1m"),
               who, colour(forest, "\033[0m"));
    if (shown->name != 0 && alike == 1)
        printf(" %s", call_text(call, forest->loaded, entry->initial_call));
    fputs(class_text(entry->flags), stdout);
    if (shown->orphan)
        print_orphan(forest, shown);
    if ((entry->flags & LIN_F_SEEDED) == 0) {
        uint64_t now = wall_of(run, forest->loaded->until), born = wall_of(run, entry->birth);
        printf("  %s", span_text(age, now > born ? now - born : 0));
    }
    putchar('\n');
}

/* How many of these siblings, from `at` on, one line can stand for. */
static uint32_t alike(const struct forest *forest, uint32_t at, uint32_t end) {
    const struct lin_shown *first = &forest->live[forest->children[at]];
    uint32_t n = 0;
    while (at + n < end) {
        uint32_t i = forest->children[at + n];
        const struct lin_shown *shown = &forest->live[i];
        if (has_children(forest, i) || shown->name != 0 || shown->orphan != first->orphan ||
            shown->entry.initial_call != first->entry.initial_call ||
            shown->entry.site != first->entry.site)
            break;
        n++;
    }
    return forest->options->all || n <= ALIKE ? 1 : n;
}

/* Draws the siblings in `top` and all below. False without memory. */
static bool draw(struct forest *forest, struct turn top) {
    size_t room = 64;
    uint32_t depth = 0;
    struct turn *turns = malloc(room * sizeof *turns);
    if (turns == NULL)
        return false;
    turns[0] = top;
    for (;;) {
        struct turn *turn = &turns[depth];
        if (turn->at == turn->end) {
            if (depth-- == 0)
                break;
            continue;
        }
        uint32_t i = forest->children[turn->at], n = alike(forest, turn->at, turn->end);
        turn->at += n;
        if (forest->drawn[i] || !is_shown(forest, i))
            continue;
        for (uint32_t k = turn->at - n; k < turn->at; k++)
            forest->drawn[forest->children[k]] = true;
        print_prefix(turns, depth, turn->at == turn->end);
        print_one(forest, i, n);
        if (depth + 2 > room) {
            struct turn *more = realloc(turns, 2 * room * sizeof *turns);
            if (more == NULL) {
                free(turns);
                return false;
            }
            turns = more;
            room *= 2;
        }
        turns[++depth] = (struct turn){forest->first[i], forest->first[i + 1]};
    }
    free(turns);
    return true;
}

/* Two that guard each other hang on no top: whoever is left is one. */
static bool draw_rest(struct forest *forest) {
    bool ok = true;
    for (uint32_t i = 0; i < forest->count && ok; i++)
        for (uint32_t at = forest->first[i]; at < forest->first[i + 1] && ok; at++)
            if (!forest->drawn[forest->children[at]])
                ok = draw(forest, (struct turn){at, at + 1});
    return ok;
}

static void print_head(const struct forest *forest) {
    const struct loaded *loaded = forest->loaded;
    char node[TEXT], when[TEXT];
    uint32_t orphans = 0, own = 0;
    for (uint32_t i = 0; i < forest->count; i++) {
        own += (forest->live[i].entry.flags & LIN_CLASS_OWN) != 0;
        orphans += forest->live[i].orphan;
    }
    printf("%s%s at %s%s: %u processes live, %u orphans", colour(forest, "\033[1m"),
           node_text(node, loaded->run), wall_text(when, wall_of(loaded->run, loaded->until)),
           colour(forest, "\033[0m"), (unsigned)(forest->count - own), (unsigned)orphans);
    if (forest->options->at == NULL)
        printf(" (%s)", loaded->fate == DIED      ? "when it died"
                        : loaded->fate == RUNNING ? "now, it is running"
                                                  : "when Lineage was detached");
    putchar('\n');
    if (!loaded->replayed->whole)
        printf("The run's beginning is not in the record: those who lived then are missing.\n");
    if (loaded->run->missing != 0 || loaded->run->missing_blocks != 0)
        printf("%" PRIu64 " events are missing in gaps, and %" PRIu64
               " blocks: the forest may differ by what they told.\n",
               loaded->run->missing, loaded->run->missing_blocks);
}

static void print_json(const struct forest *forest) {
    char pid[TEXT], text[TEXT];
    const struct loaded *loaded = forest->loaded;
    for (uint32_t i = 0; i < forest->count; i++) {
        const struct lin_shown *shown = &forest->live[i];
        const struct lin_entry *entry = &shown->entry;
        if (!is_shown(forest, i))
            continue;
        printf("{\"pid\":\"%s\",\"parent\":", pid_text(pid, loaded, entry->pid));
        if (entry->parent == 0)
            printf("null");
        else
            json_text(parent_text(text, loaded, entry->parent, entry->flags));
        printf(",\"guardian\":");
        if (entry->guardian == 0)
            printf("null");
        else
            json_text(pid_text(text, loaded, entry->guardian));
        printf(",\"initial_call\":");
        json_text(call_text(text, loaded, entry->initial_call));
        if (shown->name != 0) {
            printf(",\"name\":");
            json_text(atom_text(text, loaded, shown->name));
        }
        if (site_text(text, loaded, entry->site)[0] != 0) {
            printf(",\"site\":");
            json_text(text);
        }
        if (entry->scope != 0) {
            printf(",\"scope\":");
            json_text(scope_text(text, loaded, entry->scope));
        }
        if (shown->orphan)
            printf(",\"orphan\":\"%s\"", orphan_text(loaded, entry));
        printf(",\"born\":\"%s\"}\n", wall_text(text, wall_of(loaded->run, entry->birth)));
    }
}

int forest_command(const void *given) {
    const struct options *options = given;
    struct loaded loaded;
    int status = load_run(options, &loaded);
    if (status != 0) {
        loaded_close(&loaded);
        return status;
    }
    struct forest forest = {.options = options,
                            .loaded = &loaded,
                            .live = loaded.replayed->live,
                            .count = (uint32_t)loaded.replayed->live_count};
    bool ok = true;
    if (options->json) {
        print_json(&forest);
    } else {
        print_head(&forest);
        ok = grow(&forest) &&
             draw(&forest,
                  (struct turn){forest.first[forest.count], forest.first[forest.count + 1]}) &&
             draw_rest(&forest);
        cut(&forest);
    }
    loaded_close(&loaded);
    if (!ok)
        fprintf(stderr, "lineage-journal: there is no memory for so many processes.\n");
    return ok ? 0 : EXIT_FAILURE;
}

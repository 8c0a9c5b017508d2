#include "census.h"
#include "clock.h"
#include "probe.h"
#include "scan.h"

#include "census.skel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Both sides' births and deaths in one window, process by process. Each side is a list of (pid,
 * time), sorted by pid; what stands in one only, and not within EDGE_NS of the window's ends, is a
 * difference.
 */

#define EDGE_NS                                                                                    \
    500000000u /* a birth is seen at slightly different moments, and a thread may wait between */
#define SEEN_MAX (32u << 20)  /* half a GiB for each kind and side: then the window is closed */
#define SETTLE_NS 1500000000u /* the recorder writes what happened within this time */

struct list {
    struct lin_seen *seen;
    size_t count, room;
    bool full; /* or without memory */
};

static void list_add(struct list *list, uint64_t pid, uint64_t at) {
    if (list->count == list->room) {
        size_t room = list->room == 0 ? 65536 : 2 * list->room;
        struct lin_seen *seen =
            room > SEEN_MAX ? NULL : realloc(list->seen, room * sizeof *list->seen);
        if (seen == NULL) {
            list->full = true;
            return;
        }
        list->seen = seen;
        list->room = room;
    }
    list->seen[list->count++] = (struct lin_seen){.pid = pid, .at = at};
}

static int by_pid(const void *left, const void *right) {
    const struct lin_seen *l = left, *r = right;
    if (l->pid != r->pid)
        return l->pid < r->pid ? -1 : 1;
    return l->at < r->at ? -1 : l->at > r->at;
}

static void list_sort(struct list *list) {
    if (list->count != 0)
        qsort(list->seen, list->count, sizeof *list->seen, by_pid);
}

/* What the kernel told. */
struct kernel_side {
    struct list births, deaths;
};

static int take(void *arg, void *data, size_t bytes) {
    struct kernel_side *side = arg;
    const struct lin_seen *seen = data;
    bool death = (seen->at & LIN_SEEN_DEATH) != 0;
    (void)bytes;
    list_add(death ? &side->deaths : &side->births, seen->pid, seen->at & ~LIN_SEEN_DEATH);
    return 0;
}

/* What Lineage has recorded, in its ticks: two points that the probe took make them nanoseconds. */
struct lineage_side {
    struct lin_clock_point from, to; /* of the window */
    uint64_t edge;                   /* EDGE_NS in ticks */
    struct list births, deaths;
    bool cut;         /* the journal has let go of its segments */
    uint64_t missing; /* counted by gaps */
    bool swept;       /* deaths were found by sweeping: `exits => suspects` */
};

static uint64_t ns_of(const struct lineage_side *side, uint64_t ticks) {
    double rate =
        (double)(side->to.ns - side->from.ns) / (double)(side->to.ticks - side->from.ticks);
    return side->from.ns + (uint64_t)(int64_t)((double)(int64_t)(ticks - side->from.ticks) * rate);
}

static void take_event(struct lineage_side *side, const struct lin_event *event) {
    if (event->ticks + side->edge < side->from.ticks || event->ticks > side->to.ticks + side->edge)
        return;
    if (event->kind == LIN_EV_GAP)
        side->missing += event->a;
    else if (event->kind == LIN_EV_BIRTH)
        list_add(&side->births, event->pid, ns_of(side, event->ticks));
    else if (event->kind == LIN_EV_EXIT || event->kind == LIN_EV_SWEPT)
        list_add(&side->deaths, event->pid, ns_of(side, event->ticks));
    side->swept |= event->kind == LIN_EV_SWEPT;
}

static void take_block(void *arg, const struct lin_block *block) {
    const struct lin_block_events *events = lin_block_payload(block, LIN_BLOCK_EVENTS);
    for (uint32_t i = 0; events != NULL && i < events->count; i++)
        take_event(arg, &events->event[i]);
}

static void take_left(struct lineage_side *side, const struct lin_left *left) {
    for (uint32_t n = 0; n < left->rings->count; n++)
        for (uint64_t at = left->from[n]; at < left->to[n]; at++) {
            const struct lin_event *event = lin_left_at(left, n, at);
            if (event != NULL)
                take_event(side, event);
        }
    side->missing += left->untold + left->between;
}

/* Written by this very process, and not by one that had its number before. */
static bool is_of(const struct target *target, const struct lin_block_run *head) {
    uint8_t boot[16];
    lin_boot_id(boot);
    return head->rings != 0 && head->os_pid == target->inner_pid &&
           memcmp(boot, head->boot_id, sizeof boot) == 0 && head->os_start == target->started;
}

/* The newest run of the node, of which the first segment and the last are read. */
static int find_run(const struct target *target, const char *dir,
                    const struct lin_segment_name *names, size_t count, struct lin_run *run) {
    int result = -ENOENT;
    for (size_t first = 0, end; first < count; first = end) {
        struct lin_run this;
        for (end = first; end < count && names[end].run == names[first].run;)
            end++;
        lin_run_init(&this, names[first].run);
        int read = lin_run_read(&this, dir, names[first], NULL, NULL);
        if (read == 0 && is_of(target, &this.head) && end - first > 1)
            read = lin_run_read(&this, dir, names[end - 1], NULL, NULL);
        if (read != 0 && read != -ENOENT)
            return read;
        if (is_of(target, &this.head) && (result != 0 || this.from_wall_ns >= run->from_wall_ns)) {
            *run = this;
            result = 0;
        }
    }
    return result;
}

static int read_run(const char *dir, const struct lin_segment_name *names, size_t count,
                    struct lin_run *run, struct lineage_side *side) {
    uint64_t id = run->id;
    lin_run_init(run, id);
    for (size_t i = 0; i < count; i++) {
        int result = names[i].run == id ? lin_run_read(run, dir, names[i], take_block, side) : 0;
        if (result != 0 && result != -ENOENT) /* the oldest go while a node is running */
            return result;
    }
    return 0;
}

/* `side` NULL: only that it is there. */
static int read_journal(const struct options *options, const struct target *target,
                        struct lin_run *run, struct lineage_side *side) {
    struct lin_segment_name *names;
    size_t count;
    int result = lin_scan_list(options->journal, &names, &count);
    if (result == 0)
        result = find_run(target, options->journal, names, count, run);
    if (result == 0 && side != NULL)
        result = read_run(options->journal, names, count, run, side);
    free(names);
    return result;
}

static int read_lineage(const struct options *options, const struct target *target,
                        struct lineage_side *side) {
    struct lin_run run;
    struct lin_left left;
    int result = read_journal(options, target, &run, side);
    side->cut = result == 0 && run.first_segment != 0 && run.from_ticks > side->from.ticks;
    /* What a node that is running has in its rings now came behind the window. */
    if (result == 0 && target_ended(target) && lin_left_read(&run, &left) == 0) {
        take_left(side, &left);
        lin_left_free(&left);
    }
    return result;
}

/* Before the window: that there is a journal to compare with. */
static int journal_is_there(const struct options *options, const struct target *target) {
    struct lin_run run;
    int result = read_journal(options, target, &run, NULL);
    if (result == 0 && run.end == 0)
        return 0;
    if (result == 0 || result == -ENOENT)
        fprintf(stderr,
                "lineage-probe: %s is not recorded in %s: attach Lineage there with journal, and "
                "name that directory.\n",
                target_text(target), options->journal);
    else
        fprintf(stderr, "lineage-probe: the journal in %s cannot be read: %s.\n", options->journal,
                strerror(-result));
    return EXIT_NODE;
}

struct difference {
    uint64_t both, only_kernel, only_lineage, edge;
};

static void judge(struct difference *difference, const struct window *window, uint64_t at,
                  uint64_t *only) {
    if (at < window->from_ns + EDGE_NS || at + EDGE_NS > window->to_ns)
        difference->edge++;
    else
        (*only)++;
}

/* `kernel` holds what is in the window; `lineage` also what is a little outside. */
static struct difference compare(const struct window *window, struct list *kernel,
                                 struct list *lineage) {
    struct difference difference = {0};
    size_t k = 0, l = 0;
    list_sort(kernel);
    list_sort(lineage);
    while (k < kernel->count || l < lineage->count) {
        const struct lin_seen *left = k < kernel->count ? &kernel->seen[k] : NULL;
        const struct lin_seen *right = l < lineage->count ? &lineage->seen[l] : NULL;
        if (right == NULL || (left != NULL && left->pid < right->pid)) {
            judge(&difference, window, left->at, &difference.only_kernel);
            k++;
        } else if (left == NULL || left->pid > right->pid) {
            if (right->at >= window->from_ns && right->at <= window->to_ns)
                judge(&difference, window, right->at, &difference.only_lineage);
            l++;
        } else {
            difference.both++;
            k++;
            l++;
        }
    }
    return difference;
}

struct outcome {
    struct difference births, deaths;
    uint64_t dropped, missing;
    bool equal, explained;
};

static struct outcome conclude(const struct window *window, struct kernel_side *kernel,
                               struct lineage_side *lineage, uint64_t dropped) {
    struct outcome outcome = {.births = compare(window, &kernel->births, &lineage->births),
                              .deaths = compare(window, &kernel->deaths, &lineage->deaths),
                              .dropped = dropped,
                              .missing = lineage->missing};
    uint64_t by_kernel = outcome.births.only_lineage + outcome.deaths.only_lineage;
    uint64_t by_lineage = outcome.births.only_kernel + outcome.deaths.only_kernel;
    outcome.equal = by_kernel == 0 && by_lineage == 0;
    outcome.explained = by_kernel <= dropped && by_lineage <= lineage->missing;
    return outcome;
}

static void print_json(const char *key, const struct difference *difference) {
    printf(",\"%s\":{\"both\":%" PRIu64 ",\"only_kernel\":%" PRIu64 ",\"only_lineage\":%" PRIu64
           ",\"edge\":%" PRIu64 "}",
           key, difference->both, difference->only_kernel, difference->only_lineage,
           difference->edge);
}

static void print_row(const char *key, const struct difference *difference) {
    printf("  %-8s%12" PRIu64 "%14" PRIu64 "%14" PRIu64 "%8" PRIu64 "\n", key, difference->both,
           difference->only_kernel, difference->only_lineage, difference->edge);
}

static const char *verdict(const struct outcome *outcome) {
    if (outcome->equal)
        return "Both agree, process by process.";
    if (outcome->explained)
        return "They differ by no more than was dropped, and counted as dropped.";
    return "They differ, and nothing that was dropped explains it.";
}

static void print(const struct options *options, const struct window *window,
                  const struct outcome *outcome) {
    window_print(window, options->json);
    if (options->json) {
        print_json("births", &outcome->births);
        print_json("deaths", &outcome->deaths);
        printf(",\"dropped\":%" PRIu64 ",\"missing\":%" PRIu64 ",\"verdict\":\"%s\"}\n",
               outcome->dropped, outcome->missing,
               outcome->equal       ? "equal"
               : outcome->explained ? "explained"
                                    : "different");
        return;
    }
    puts("                  both   only kernel  only Lineage    edge");
    print_row("births", &outcome->births);
    print_row("deaths", &outcome->deaths);
    printf("  dropped by the kernel: %" PRIu64 "; missing in the journal: %" PRIu64 "\n%s\n",
           outcome->dropped, outcome->missing, verdict(outcome));
}

/* Lineage writes what is in its rings soon after; of a node that ended, all is there. */
static void settle(const struct target *target, uint64_t since_ns) {
    while (!target_ended(target) && probe_now_ns() - since_ns < SETTLE_NS)
        usleep(10000);
}

struct watch {
    struct kernel_side kernel;
    struct lineage_side lineage;
    struct census_probes probes;
    struct ring_buffer *ring;
};

static int load(struct watch *watch, const struct options *options, const struct target *target) {
    int status = census_load(&watch->probes, target, options);
    if (status != 0)
        return status;
    watch->ring =
        ring_buffer__new(bpf_map__fd(watch->probes.bpf->maps.seen), take, &watch->kernel, NULL);
    if (watch->ring == NULL)
        return kernel_refused("share memory with the probe", -errno);
    return census_attach(&watch->probes, target);
}

struct full {
    struct window *window;
    const struct kernel_side *side;
};

static void stop_when_full(void *arg) {
    const struct full *full = arg;
    full->window->stop = full->side->births.full || full->side->deaths.full;
}

static int watch_and_compare(struct watch *watch, const struct options *options,
                             const struct target *target) {
    struct census_bpf__bss *counts = watch->probes.bpf->bss;
    struct window window = {
        .target = target, .command = "verify", .seconds = options->seconds, .ring = watch->ring};
    window.each = stop_when_full;
    window.arg = &(struct full){&window, &watch->kernel};
    watch->lineage.from = lin_clock_sure();
    counts->counting = true;
    window_watch(&window);
    counts->counting = false;
    watch->lineage.to = lin_clock_sure();
    watch->lineage.edge =
        (uint64_t)((double)(watch->lineage.to.ticks - watch->lineage.from.ticks) * EDGE_NS /
                   (double)(watch->lineage.to.ns - watch->lineage.from.ns));
    ring_buffer__consume(watch->ring);
    settle(target, window.to_ns);
    int result = read_lineage(options, target, &watch->lineage);
    if (result != 0) {
        fprintf(stderr, "lineage-probe: the journal in %s cannot be read: %s.\n", options->journal,
                strerror(-result));
        return EXIT_FAILURE;
    }
    if (watch->lineage.cut) {
        fprintf(
            stderr,
            "lineage-probe: the journal has let go of a part of the window: attach with a larger "
            "max_bytes, or watch for a shorter time (-d).\n");
        return EXIT_FAILURE;
    }
    if (watch->lineage.swept) {
        fprintf(
            stderr,
            "lineage-probe: Lineage hears of suspects' exits only: attach with exits => all.\n");
        return EXIT_NODE;
    }
    if (watch->kernel.births.full || watch->kernel.deaths.full || watch->lineage.births.full ||
        watch->lineage.deaths.full) {
        fprintf(stderr,
                "lineage-probe: too much happened to keep it: watch for a shorter time (-d).\n");
        return EXIT_FAILURE;
    }
    struct outcome outcome =
        conclude(&window, &watch->kernel, &watch->lineage, census_dropped(&watch->probes));
    print(options, &window, &outcome);
    return outcome.explained ? 0 : EXIT_FAILURE;
}

int verify_command(const void *given) {
    const struct options *options = given;
    struct target target;
    struct watch watch = {.ring = NULL};
    int status = probe_open(options, &target);
    if (status == 0)
        status = journal_is_there(options, &target);
    if (status == 0)
        status = load(&watch, options, &target);
    if (status == 0)
        status = watch_and_compare(&watch, options, &target);
    ring_buffer__free(watch.ring);
    census_close(&watch.probes);
    struct list *lists[] = {&watch.kernel.births, &watch.kernel.deaths, &watch.lineage.births,
                            &watch.lineage.deaths};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        free(lists[i]->seen);
    target_close(&target);
    return status;
}

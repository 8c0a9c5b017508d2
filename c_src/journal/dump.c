#include "tool.h"

#include <inttypes.h>

struct dump {
    const struct options *options;
    struct loaded *loaded;
};

/* What an event says beside its process, as `key value` pairs. */
struct detail {
    const char *key[4];
    char text[4][TEXT];
    size_t count;
};

static char *more(struct detail *detail, const char *key) {
    detail->key[detail->count] = key;
    return detail->text[detail->count++];
}

static void more_number(struct detail *detail, const char *key, uint64_t number) {
    snprintf(more(detail, key), TEXT, "%" PRIu64, number);
}

static void more_pid(struct detail *detail, const struct loaded *loaded, const char *key,
                     uint64_t pid) {
    if (pid != 0)
        pid_text(more(detail, key), loaded, pid);
}

static void fill(struct detail *detail, const struct loaded *loaded,
                 const struct lin_event *event) {
    switch (event->kind) {
    case LIN_EV_BIRTH:
        if (event->a != 0)
            parent_text(more(detail, "parent"), loaded, event->a, event->flags);
        if (event->b != 0)
            site_text(more(detail, "site"), loaded, event->b);
        break;
    case LIN_EV_BORN:
        call_text(more(detail, "initial_call"), loaded, event->b);
        more_number(detail, "generation", (uint32_t)event->a);
        if (event->a >> 32 != 0)
            scope_text(more(detail, "scope"), loaded, (uint32_t)(event->a >> 32));
        break;
    case LIN_EV_LINK:
    case LIN_EV_UNLINK:
        more_pid(detail, loaded, "peer", event->a);
        if (event->b != 0)
            more_number(detail, "guardian", 1);
        break;
    case LIN_EV_EXIT:
        atom_text(more(detail, "reason"), loaded, event->a);
        if (event->b != 0)
            more_number(detail, "abnormal", 1);
        break;
    case LIN_EV_NAME:
        if (event->a != 0)
            atom_text(more(detail, "name"), loaded, event->a);
        break;
    case LIN_EV_FLAGS:
        snprintf(more(detail, "flags"), TEXT, "%#" PRIx64, event->a);
        if (event->b != 0)
            scope_text(more(detail, "scope"), loaded, event->b);
        break;
    case LIN_EV_GUARDIAN:
        more_pid(detail, loaded, "guardian", event->a);
        break;
    case LIN_EV_GAP:
        more_number(detail, "missing", event->a);
        more_number(detail, "ring", event->b);
        break;
    default:
        break;
    }
}

static void print(const struct dump *dump, const struct lin_event *event) {
    char when[TEXT], pid[TEXT] = "";
    struct detail detail = {.count = 0};
    const struct loaded *loaded = dump->loaded;
    fill(&detail, loaded, event);
    wall_text(when, wall_of(loaded->run, event->ticks));
    if (event->kind != LIN_EV_GAP)
        pid_text(pid, loaded, event->pid);
    if (dump->options->json) {
        printf("{\"at\":\"%s\",\"event\":\"%s\"", when, kind_text(event->kind));
        if (pid[0] != 0)
            printf(",\"pid\":\"%s\",\"no\":%u", pid, event->no);
        for (size_t i = 0; i < detail.count; i++) {
            printf(",\"%s\":", detail.key[i]);
            json_text(detail.text[i]);
        }
        puts("}");
        return;
    }
    printf("%s %-8s %s", when, kind_text(event->kind), pid);
    for (size_t i = 0; i < detail.count; i++)
        printf("  %s %s", detail.key[i], detail.text[i]);
    putchar('\n');
}

static void print_block(void *arg, const struct lin_block *block) {
    const struct lin_block_events *events = lin_block_payload(block, LIN_BLOCK_EVENTS);
    for (uint32_t i = 0; events != NULL && i < events->count; i++)
        print(arg, &events->event[i]);
}

int dump_command(const void *given) {
    const struct options *options = given;
    struct loaded loaded;
    struct dump dump = {options, &loaded};
    int status = load_run(options, &loaded); /* for what things are called */
    if (status == 0 && each_block(options, loaded.run, print_block, &dump) != 0)
        status = 1;
    const struct lin_left *left = &loaded.left;
    if (status == 0 && loaded.has_left)
        lin_left_pass(&loaded.left, loaded.run);
    for (uint32_t n = 0; status == 0 && loaded.has_left && n < left->rings->count; n++)
        for (uint64_t at = left->from[n]; at < left->to[n]; at++) {
            const struct lin_event *event = lin_left_at(left, n, at);
            if (event != NULL)
                print(&dump, event);
        }
    loaded_close(&loaded);
    return status;
}

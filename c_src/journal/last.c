#include "tool.h"

static void print_json(const struct loaded *loaded, const struct lin_dead_event *dead) {
    char text[TEXT];
    printf("{\"at\":\"%s\"", wall_text(text, wall_of(loaded->run, dead->event.ticks)));
    printf(",\"pid\":\"%s\",\"reason\":", pid_text(text, loaded, dead->event.pid));
    json_text(atom_text(text, loaded, dead->event.a));
    printf(",\"abnormal\":%s", dead->event.b != 0 ? "true" : "false");
    if (dead->entry.pid != 0) {
        printf(",\"initial_call\":");
        json_text(call_text(text, loaded, dead->entry.initial_call));
        printf(",\"born\":\"%s\"", wall_text(text, wall_of(loaded->run, dead->entry.birth)));
        if (site_text(text, loaded, dead->entry.site)[0] != 0) {
            printf(",\"site\":");
            json_text(text);
        }
    }
    puts("}");
}

static void print_plain(const struct options *options, const struct loaded *loaded,
                        const struct lin_dead_event *dead) {
    char when[TEXT], pid[TEXT], who[TEXT], reason[TEXT], age[TEXT], site[TEXT];
    bool red = options->colour && dead->event.b != 0;
    const struct lin_entry *entry = &dead->entry;
    printf("%s  %-14s ", wall_text(when, wall_of(loaded->run, dead->event.ticks)),
           pid_text(pid, loaded, dead->event.pid));
    printf("%s%-12s%s ", red ? "\033[31m" : "", atom_text(reason, loaded, dead->event.a),
           red ? "\033[0m" : "");
    if (entry->pid == 0) {
        puts("(born before the record)");
        return;
    }
    uint64_t born = wall_of(loaded->run, entry->birth);
    uint64_t died = wall_of(loaded->run, dead->event.ticks);
    printf("%s, %s%s", who_text(who, loaded, entry, dead->name),
           (entry->flags & LIN_F_SEEDED) != 0 ? "older than " : "",
           span_text(age, died > born ? died - born : 0));
    if (site_text(site, loaded, entry->site)[0] != 0)
        printf(", %s", site);
    putchar('\n');
}

/* Lineage's own helpers come and go with each question that is asked. */
static bool is_shown(const struct options *options, const struct lin_dead_event *dead) {
    return options->all || (dead->entry.flags & LIN_CLASS_OWN) == 0;
}

int last_command(const void *given) {
    const struct options *options = given;
    struct loaded loaded;
    int status = load_run(options, &loaded);
    if (status == 0) {
        const struct lin_replayed *replayed = loaded.replayed;
        size_t first = replayed->dead_count, wanted = options->count;
        for (; first > 0 && wanted > 0; first--)
            wanted -= is_shown(options, &replayed->dead[first - 1]);
        for (size_t i = first; i < replayed->dead_count; i++) {
            if (!is_shown(options, &replayed->dead[i]))
                continue;
            if (options->json)
                print_json(&loaded, &replayed->dead[i]);
            else
                print_plain(options, &loaded, &replayed->dead[i]);
        }
        if (replayed->dead_count == 0 && !options->json)
            puts("No exits are in the record.");
    }
    loaded_close(&loaded);
    return status;
}

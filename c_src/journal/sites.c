#include "tool.h"

#include <inttypes.h>
#include <stdlib.h>

struct row {
    uint32_t site;
    uint64_t live, orphans, abnormal, exits;
};

static int by_live(const void *left, const void *right) {
    const struct row *l = left, *r = right;
    if (l->live != r->live)
        return l->live > r->live ? -1 : 1;
    if (l->exits != r->exits)
        return l->exits > r->exits ? -1 : 1;
    return l->site < r->site ? -1 : l->site > r->site;
}

static void count(const struct lin_replayed *replayed, struct row *rows, uint32_t max) {
    for (size_t i = 0; i < replayed->live_count; i++) {
        const struct lin_shown *shown = &replayed->live[i];
        if (shown->entry.site >= max)
            continue;
        rows[shown->entry.site].live++;
        rows[shown->entry.site].orphans += shown->orphan;
    }
    for (size_t i = 0; i < replayed->dead_count; i++) {
        const struct lin_dead_event *dead = &replayed->dead[i];
        if (dead->entry.pid == 0 || dead->entry.site >= max)
            continue;
        rows[dead->entry.site].exits++;
        rows[dead->entry.site].abnormal += dead->event.b != 0;
    }
}

static void print(const struct options *options, const struct loaded *loaded,
                  const struct row *row) {
    char site[TEXT], call[TEXT];
    const struct lin_block_site *known = lin_replay_site(loaded->replay, row->site);
    site_text(site, loaded, row->site);
    if (known != NULL && known->initial_call == 0 && known->closure_module != 0)
        snprintf(call, sizeof call, "fun"); /* its place says more */
    else
        call_text(call, loaded, known == NULL ? 0 : known->initial_call);
    if (!options->json) {
        printf("%9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 "  %s%s%s\n", row->live,
               row->orphans, row->exits, row->abnormal, call, site[0] == 0 ? "" : "  ", site);
        return;
    }
    printf("{\"site\":%u,\"live\":%" PRIu64 ",\"orphans\":%" PRIu64 ",\"exits\":%" PRIu64
           ",\"abnormal\":%" PRIu64 ",\"initial_call\":",
           row->site, row->live, row->orphans, row->exits, row->abnormal);
    json_text(call);
    printf(",\"place\":");
    json_text(site);
    puts("}");
}

int sites_command(const void *given) {
    const struct options *options = given;
    struct loaded loaded;
    int status = load_run(options, &loaded);
    uint32_t max = status == 0 ? lin_replay_sites_max(loaded.replay) : 0;
    struct row *rows = calloc((size_t)max + 1, sizeof *rows);
    if (status == 0 && rows != NULL) {
        for (uint32_t i = 0; i < max; i++)
            rows[i].site = i;
        count(loaded.replayed, rows, max);
        if (max > 1)
            qsort(rows + 1, max - 1, sizeof *rows, by_live);
        if (!options->json)
            puts("     live   orphans     exits  abnormal  runs, spawned at");
        for (uint32_t i = 1; i < max; i++)
            if (rows[i].live + rows[i].exits != 0)
                print(options, &loaded, &rows[i]);
    }
    free(rows);
    loaded_close(&loaded);
    return status;
}

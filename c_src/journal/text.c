#include "tool.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* Appends; what finds no room is cut. */
static void add(char text[TEXT], const char *more) {
    size_t have = strlen(text), len = strlen(more);
    if (len > TEXT - 1 - have)
        len = TEXT - 1 - have;
    memcpy(text + have, more, len);
    text[have + len] = 0;
}

/* At most 200 bytes; control characters, which a terminal would obey, become dots. */
static void add_told(char text[TEXT], const char *told, uint32_t len) {
    size_t have = strlen(text);
    if (len > 200)
        len = 200;
    for (uint32_t i = 0; i < len && have < TEXT - 1; i++) {
        unsigned char c = (unsigned char)told[i];
        if (c >= 0x80 && c < 0xa0 && i > 0 && (unsigned char)told[i - 1] == 0xc2)
            text[have - 1] = '.'; /* U+0080 to U+009F, of two bytes */
        else
            text[have++] = (char)(c < 0x20 || c == 0x7f ? '.' : c);
    }
    text[have] = 0;
}

char *node_text(char text[TEXT], const struct lin_run *run) {
    text[0] = 0;
    add_told(text, run->head.node, (uint32_t)strlen(run->head.node));
    return text;
}

static void add_atom(char text[TEXT], const struct loaded *loaded, uint64_t atom) {
    uint32_t len;
    const char *name = lin_replay_text(loaded->replay, LIN_BLOCK_NAMES, atom, &len);
    char number[32];
    if (name == NULL) {
        snprintf(number, sizeof number, "atom#%" PRIx64, atom);
        add(text, number);
    } else if (len > 7 && memcmp(name, "Elixir.", 7) == 0) {
        add_told(text, name + 7, len - 7);
    } else {
        add_told(text, name, len);
    }
}

static bool is_elixir(const struct loaded *loaded, uint64_t module) {
    uint32_t len;
    const char *name = lin_replay_text(loaded->replay, LIN_BLOCK_NAMES, module, &len);
    return name != NULL && len > 7 && memcmp(name, "Elixir.", 7) == 0;
}

static void add_call(char text[TEXT], const struct loaded *loaded, uint64_t module,
                     uint64_t function, uint32_t arity) {
    char number[16];
    add_atom(text, loaded, module);
    add(text, is_elixir(loaded, module) ? "." : ":");
    add_atom(text, loaded, function);
    snprintf(number, sizeof number, "/%u", (unsigned)arity);
    add(text, number);
}

/* The number that <0.N.S> shows, and the serial: see enum lin_pid_layout. */
char *pid_text(char text[TEXT], const struct loaded *loaded, uint64_t pid) {
    const struct lin_block_run *head = &loaded->run->head;
    uint64_t data = pid >> 4;
    unsigned bits = head->pid_layout == LIN_PID_15 ? 15 : 28;
    if (head->pid_layout == LIN_PID_28_DEALT && head->limit_log2 >= 3 && head->limit_log2 <= 28) {
        uint64_t mask = ((uint64_t)1 << head->limit_log2) - 1, low = data & mask;
        data = (data & ~mask) | (low >> 3 | (low & 7) << (head->limit_log2 - 3));
    }
    if (head->pid_layout == LIN_PID_15)
        data &= 0xfffffff;
    snprintf(text, TEXT, "<0.%" PRIu64 ".%" PRIu64 ">", data & (((uint64_t)1 << bits) - 1),
             data >> bits);
    return text;
}

char *atom_text(char text[TEXT], const struct loaded *loaded, uint64_t atom) {
    text[0] = 0;
    add_atom(text, loaded, atom);
    return text;
}

char *call_text(char text[TEXT], const struct loaded *loaded, uint32_t id) {
    const struct lin_block_function *function = lin_replay_function(loaded->replay, id);
    text[0] = 0;
    if (function == NULL)
        add(text, "?");
    else
        add_call(text, loaded, function->module, function->function, function->arity);
    return text;
}

static void add_frame(char text[TEXT], const struct loaded *loaded,
                      const struct lin_block_site *site) {
    uint32_t len;
    char number[16];
    const char *file = lin_replay_text(loaded->replay, LIN_BLOCK_FILES, site->frame_file, &len);
    if (file != NULL && site->frame_line != 0) {
        add_told(text, file, len);
        snprintf(number, sizeof number, ":%u", (unsigned)site->frame_line);
        add(text, number);
        return;
    }
    add(text, "in ");
    add_call(text, loaded, site->frame_module, site->frame_function, site->frame_arity);
}

char *site_text(char text[TEXT], const struct loaded *loaded, uint32_t id) {
    uint32_t len;
    const char *place = lin_replay_text(loaded->replay, LIN_BLOCK_PLACES, id, &len);
    const struct lin_block_site *site = lin_replay_site(loaded->replay, id);
    char number[32];
    text[0] = 0;
    if (place != NULL) {
        add_told(text, place, len);
    } else if (site == NULL) {
        return text;
    } else if (site->frame_module != 0) {
        add_frame(text, loaded, site);
    } else if (site->closure_module != 0) {
        add(text, "closure ");
        add_atom(text, loaded, site->closure_module);
        snprintf(number, sizeof number, " #%u", (unsigned)site->index);
        add(text, number);
    } else if (site->spawner != 0) {
        char call[TEXT];
        add(text, "by ");
        add(text, call_text(call, loaded, site->spawner));
    }
    return text;
}

char *who_text(char text[TEXT], const struct loaded *loaded, const struct lin_entry *entry,
               uint64_t name) {
    return name != 0 ? atom_text(text, loaded, name) : call_text(text, loaded, entry->initial_call);
}

char *parent_text(char text[TEXT], const struct loaded *loaded, uint64_t parent, uint32_t flags) {
    uint32_t len;
    char number[32];
    if (parent == 0) {
        snprintf(text, TEXT, "nobody");
        return text;
    }
    if ((flags & LIN_F_FOREIGN) == 0)
        return pid_text(text, loaded, parent);
    const char *node =
        lin_replay_text(loaded->replay, LIN_BLOCK_NODES, LIN_FOREIGN_NODE(parent), &len);
    text[0] = 0;
    snprintf(number, sizeof number, "<%" PRIu64 "> on ", LIN_FOREIGN_NUMBER(parent) & 0xfffffff);
    add(text, number);
    if (node == NULL)
        add(text, "another node");
    else
        add_told(text, node, len);
    return text;
}

char *scope_text(char text[TEXT], const struct loaded *loaded, uint32_t scope) {
    uint32_t len;
    const char *name = lin_replay_text(loaded->replay, LIN_BLOCK_SCOPES, scope, &len);
    snprintf(text, TEXT, "%u", (unsigned)scope);
    if (name != NULL) {
        add(text, " ");
        add_told(text, name, len);
    }
    return text;
}

char *wall_text(char text[TEXT], uint64_t wall_ns) {
    time_t seconds = (time_t)(wall_ns / 1000000000u);
    struct tm tm;
    char day[64] = "?";
    if (gmtime_r(&seconds, &tm) != NULL)
        strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, TEXT, "%s.%06uZ", day, (unsigned)(wall_ns % 1000000000u / 1000));
    return text;
}

char *span_text(char text[TEXT], uint64_t ns) {
    double s = (double)ns / 1e9;
    if (s < 1e-3)
        snprintf(text, TEXT, "%.0f us", s * 1e6);
    else if (s < 1)
        snprintf(text, TEXT, "%.1f ms", s * 1e3);
    else if (s < 120)
        snprintf(text, TEXT, "%.1f s", s);
    else if (s < 7200)
        snprintf(text, TEXT, "%.0f min", s / 60);
    else
        snprintf(text, TEXT, "%.1f h", s / 3600);
    return text;
}

/* Ticks go on at one rate: from the run's opening and its last block, which lie farthest apart. */
static double ns_per_tick(const struct lin_run *run) {
    uint64_t ticks = run->head.opened.ticks, wall = run->head.opened_wall_ns;
    if (run->to_ticks <= ticks || run->to_wall_ns <= wall)
        return 1;
    return (double)(run->to_wall_ns - wall) / (double)(run->to_ticks - ticks);
}

uint64_t wall_of(const struct lin_run *run, uint64_t ticks) {
    double since = (double)(int64_t)(ticks - run->head.opened.ticks) * ns_per_tick(run);
    double wall = (double)run->head.opened_wall_ns + since;
    if (!(wall >= 0 && wall < 1.8e19))
        return 0;
    return run->head.opened_wall_ns + (uint64_t)(int64_t)since;
}

uint64_t ticks_of(const struct lin_run *run, uint64_t wall_ns) {
    double since = (double)(int64_t)(wall_ns - run->head.opened_wall_ns) / ns_per_tick(run);
    if (since < -(double)run->head.opened.ticks)
        return 0;
    return since < 9e18 ? run->head.opened.ticks + (uint64_t)(int64_t)since : UINT64_MAX;
}

const char *kind_text(uint8_t kind) {
    static const char *const kinds[] = {"?",     "birth", "born",  "link",     "unlink", "exit",
                                        "swept", "name",  "flags", "guardian", "gap"};
    return kind <= LIN_EV_KINDS ? kinds[kind] : kinds[0];
}

const char *orphan_text(const struct loaded *loaded, const struct lin_entry *entry) {
    if ((entry->flags & LIN_F_FOREIGN) != 0)
        return "foreign";
    if ((entry->flags & LIN_F_ESCAPED) != 0)
        return "escaped";
    return lin_replay_find(loaded->replay, entry->parent) != NULL ? "detached" : "abandoned";
}

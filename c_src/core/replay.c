#include "replay.h"

#include "verdict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is known of an event beside itself: where it was, to put those of one tick in order. */
struct placed {
    struct lin_event event;
    uint64_t position;
    uint32_t ring;
    bool since; /* the census, if there is one */
};

/* A growing list; memory that is missing is noted once, for finish to tell. */
struct list {
    void *data;
    size_t count, room;
};

struct text {
    uint64_t id;
    uint32_t type, len;
    size_t order; /* in which it came: what is said later holds */
    char *bytes;
};

struct lin_replay {
    uint64_t until;
    bool no_memory;
    struct list events;  /* struct placed */
    struct list census;  /* struct lin_block_entry, of the newest complete one */
    struct list growing; /* of the one that is being read */
    uint64_t position[LIN_RINGS_MAX], growing_position[LIN_RINGS_MAX];
    bool has_census, from_start;
    struct list texts;     /* struct text; by type and id once sorted */
    struct list functions; /* struct lin_block_function by id; id 0: none */
    struct list sites;     /* struct lin_block_site by id */
    bool sorted;
    struct list live; /* struct lin_shown; pid 0: gone */
    uint32_t *index;  /* of live, by a hash of the pid; 0: none, else a place + 1 */
    size_t index_size;
    struct list dead;
    struct lin_replayed out;
};

static void *list_add(struct lin_replay *replay, struct list *list, size_t size) {
    if (list->data == NULL || list->count == list->room) {
        size_t room = list->room == 0 ? 256 : 2 * list->room;
        void *more = realloc(list->data, room * size);
        if (more == NULL) {
            replay->no_memory = true;
            return NULL;
        }
        list->data = more;
        list->room = room;
    }
    void *place = (char *)list->data + list->count++ * size;
    memset(place, 0, size);
    return place;
}

/* The element `at`, with all before it; NULL without memory. */
static void *list_at(struct lin_replay *replay, struct list *list, size_t at, size_t size) {
    while (list->count <= at)
        if (list_add(replay, list, size) == NULL)
            return NULL;
    return (char *)list->data + at * size;
}

struct lin_replay *lin_replay_create(uint64_t until) {
    struct lin_replay *replay = calloc(1, sizeof *replay);
    if (replay != NULL)
        replay->until = until;
    return replay;
}

void lin_replay_destroy(struct lin_replay *replay) {
    if (replay == NULL)
        return;
    for (size_t i = 0; i < replay->texts.count; i++)
        free(((struct text *)replay->texts.data)[i].bytes);
    struct list *lists[] = {&replay->events,    &replay->census, &replay->growing, &replay->texts,
                            &replay->functions, &replay->sites,  &replay->live,    &replay->dead};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        free(lists[i]->data);
    free(replay->index);
    free(replay);
}

/* What is told of things */

static void add_texts(struct lin_replay *replay, const struct lin_block *block) {
    const struct lin_text *text = NULL;
    while ((text = lin_text_next(block, text)) != NULL) {
        struct text *kept = list_add(replay, &replay->texts, sizeof *kept);
        if (kept == NULL)
            return;
        *kept = (struct text){
            .id = text->id, .type = block->type, .len = text->len, .order = replay->texts.count};
        kept->bytes = malloc(text->len + 1u);
        if (kept->bytes == NULL) {
            replay->no_memory = true;
            replay->texts.count--;
            return;
        }
        memcpy(kept->bytes, text->text, text->len);
        kept->bytes[text->len] = 0;
    }
}

static void add_functions(struct lin_replay *replay, const struct lin_block *block) {
    const struct lin_block_function *function = (const void *)(block + 1);
    size_t count = (block->bytes - sizeof *block) / sizeof *function;
    for (size_t i = 0; i < count; i++) {
        if (function[i].id == 0 || function[i].id >= LIN_MFA_SLOTS)
            continue;
        struct lin_block_function *kept =
            list_at(replay, &replay->functions, function[i].id, sizeof *kept);
        if (kept != NULL)
            *kept = function[i];
    }
}

static void add_sites(struct lin_replay *replay, const struct lin_block *block) {
    const struct lin_block_site *site = (const void *)(block + 1);
    size_t count = (block->bytes - sizeof *block) / sizeof *site;
    for (size_t i = 0; i < count; i++) {
        if (site[i].id == 0 || site[i].id > LIN_SITES)
            continue;
        struct lin_block_site *kept = list_at(replay, &replay->sites, site[i].id, sizeof *kept);
        if (kept != NULL)
            *kept = site[i];
    }
}

static int by_key(const void *left, const void *right) {
    const struct text *l = left, *r = right;
    if (l->type != r->type)
        return l->type < r->type ? -1 : 1;
    return l->id < r->id ? -1 : l->id > r->id;
}

static int by_key_and_order(const void *left, const void *right) {
    int key = by_key(left, right);
    const struct text *l = left, *r = right;
    return key != 0 ? key : l->order < r->order ? -1 : l->order > r->order;
}

static void sort_texts(struct lin_replay *replay) {
    struct text *texts = replay->texts.data;
    size_t kept = 0;
    if (replay->texts.count != 0)
        qsort(texts, replay->texts.count, sizeof *texts, by_key_and_order);
    for (size_t i = 0; i < replay->texts.count; i++) {
        if (kept != 0 && by_key(&texts[kept - 1], &texts[i]) == 0)
            free(texts[--kept].bytes);
        texts[kept++] = texts[i];
    }
    replay->texts.count = kept;
}

const char *lin_replay_text(const struct lin_replay *replay, enum lin_block_type type, uint64_t id,
                            uint32_t *len) {
    struct text key = {.id = id, .type = (uint32_t)type};
    const struct text *found =
        replay->texts.count == 0
            ? NULL
            : bsearch(&key, replay->texts.data, replay->texts.count, sizeof key, by_key);
    if (found == NULL)
        return NULL;
    *len = found->len;
    return found->bytes;
}

const struct lin_block_function *lin_replay_function(const struct lin_replay *replay, uint32_t id) {
    const struct lin_block_function *functions = replay->functions.data;
    return id < replay->functions.count && functions[id].id != 0 ? &functions[id] : NULL;
}

const struct lin_block_site *lin_replay_site(const struct lin_replay *replay, uint32_t id) {
    const struct lin_block_site *sites = replay->sites.data;
    return id < replay->sites.count && sites[id].id != 0 ? &sites[id] : NULL;
}

uint32_t lin_replay_sites_max(const struct lin_replay *replay) {
    return (uint32_t)replay->sites.count;
}

/* What happened */

static void add_event(struct lin_replay *replay, const struct lin_event *event, uint32_t ring,
                      uint64_t position) {
    if (event->ticks > replay->until)
        return;
    struct placed *placed = list_add(replay, &replay->events, sizeof *placed);
    if (placed != NULL)
        *placed = (struct placed){.event = *event, .position = position, .ring = ring};
}

static void add_events(struct lin_replay *replay, const struct lin_block_events *events) {
    if (events->ring >= LIN_RINGS_MAX)
        return;
    for (uint32_t i = 0; i < events->count; i++)
        add_event(replay, &events->event[i], events->ring, events->position + i);
}

/* Events that a census has in are not needed any more, but for the dead that they tell of. */
static void use_census(struct lin_replay *replay) {
    struct list census = replay->census;
    replay->census = replay->growing;
    replay->growing = census;
    memcpy(replay->position, replay->growing_position, sizeof replay->position);
    replay->has_census = true;
}

static void add_census(struct lin_replay *replay, const struct lin_block *block,
                       const struct lin_block_census *census) {
    if (block->ticks > replay->until || census->rings > LIN_RINGS_MAX)
        return;
    if (census->first == 0) {
        replay->growing.count = 0;
        memset(replay->growing_position, 0, sizeof replay->growing_position);
        memcpy(replay->growing_position, census->position, census->rings * sizeof(uint64_t));
    }
    if (census->first != replay->growing.count)
        return; /* a block of it is missing */
    const struct lin_block_entry *entry = (const void *)&census->position[census->rings];
    for (uint32_t i = 0; i < census->count; i++) {
        struct lin_block_entry *kept = list_add(replay, &replay->growing, sizeof *kept);
        if (kept != NULL)
            *kept = entry[i];
    }
    if (census->last != 0)
        use_census(replay);
}

void lin_replay_block(void *arg, const struct lin_block *block) {
    struct lin_replay *replay = arg;
    const void *payload = lin_block_payload(block, block->type);
    if (payload == NULL)
        return;
    switch (block->type) {
    case LIN_BLOCK_RUN:
        replay->from_start |= ((const struct lin_block_run *)payload)->segment == 0;
        break;
    case LIN_BLOCK_EVENTS:
        add_events(replay, payload);
        break;
    case LIN_BLOCK_CENSUS:
        add_census(replay, block, payload);
        break;
    case LIN_BLOCK_FUNCTIONS:
        add_functions(replay, block);
        break;
    case LIN_BLOCK_SITES:
        add_sites(replay, block);
        break;
    case LIN_BLOCK_END:
        break;
    default:
        add_texts(replay, block);
    }
}

void lin_replay_left(struct lin_replay *replay, const struct lin_left *left) {
    for (uint32_t n = 0; n < left->rings->count; n++)
        for (uint64_t at = left->from[n]; at < left->to[n]; at++) {
            const struct lin_event *event = lin_left_at(left, n, at);
            if (event != NULL)
                add_event(replay, event, n, at);
        }
}

/* Those before the census first; by time, and one process's by their numbers, which wrap. */
static int by_time(const void *left, const void *right) {
    const struct placed *l = left, *r = right;
    if (l->since != r->since)
        return l->since ? 1 : -1;
    if (l->event.ticks != r->event.ticks)
        return l->event.ticks < r->event.ticks ? -1 : 1;
    if (l->event.pid != r->event.pid)
        return l->event.pid < r->event.pid ? -1 : 1;
    if (l->event.no != r->event.no)
        return (int16_t)(l->event.no - r->event.no) < 0 ? -1 : 1;
    if (l->ring != r->ring)
        return l->ring < r->ring ? -1 : 1;
    return l->position < r->position ? -1 : l->position > r->position;
}

/* The live: a list without holes, and an index of it by pid (open addressing, half empty). */

static size_t hash(const struct lin_replay *replay, uint64_t pid) {
    return (size_t)(pid * 0x9e3779b97f4a7c15u >> 32) & (replay->index_size - 1);
}

static struct lin_shown *live_at(const struct lin_replay *replay, size_t at) {
    return (struct lin_shown *)replay->live.data + at;
}

/* Where a pid is in the index, or would be. */
static size_t place_of(const struct lin_replay *replay, uint64_t pid) {
    size_t at = hash(replay, pid);
    while (replay->index[at] != 0 && live_at(replay, replay->index[at] - 1)->entry.pid != pid)
        at = (at + 1) & (replay->index_size - 1);
    return at;
}

static struct lin_shown *find(const struct lin_replay *replay, uint64_t pid) {
    uint32_t there = replay->index_size == 0 ? 0 : replay->index[place_of(replay, pid)];
    return there == 0 ? NULL : live_at(replay, there - 1);
}

const struct lin_shown *lin_replay_find(const struct lin_replay *replay, uint64_t pid) {
    return find(replay, pid);
}

static bool grow_index(struct lin_replay *replay) {
    size_t size = replay->index_size == 0 ? 1024 : 2 * replay->index_size;
    uint32_t *index = calloc(size, sizeof *index);
    if (index == NULL) {
        replay->no_memory = true;
        return false;
    }
    free(replay->index);
    replay->index = index;
    replay->index_size = size;
    for (size_t i = 0; i < replay->live.count; i++)
        index[place_of(replay, live_at(replay, i)->entry.pid)] = (uint32_t)i + 1;
    return true;
}

static struct lin_shown *add_live(struct lin_replay *replay, uint64_t pid) {
    struct lin_shown *shown = find(replay, pid);
    if (shown != NULL)
        return shown;
    if (2 * (replay->live.count + 1) > replay->index_size && !grow_index(replay))
        return NULL;
    size_t at = place_of(replay, pid);
    shown = list_add(replay, &replay->live, sizeof *shown);
    if (shown == NULL)
        return NULL;
    shown->entry.pid = pid;
    replay->index[at] = (uint32_t)replay->live.count;
    return shown;
}

/* Closes the hole at `at`: what was put behind it since it was taken moves up. */
static void close_hole(struct lin_replay *replay, size_t at) {
    size_t mask = replay->index_size - 1;
    for (size_t next = (at + 1) & mask; replay->index[next] != 0; next = (next + 1) & mask) {
        size_t wants = hash(replay, live_at(replay, replay->index[next] - 1)->entry.pid);
        if (((next - wants) & mask) >= ((next - at) & mask)) {
            replay->index[at] = replay->index[next];
            at = next;
        }
    }
    replay->index[at] = 0;
}

static void remove_live(struct lin_replay *replay, uint64_t pid) {
    size_t at = place_of(replay, pid), last = replay->live.count - 1;
    size_t hole = replay->index[at] - 1;
    close_hole(replay, at);
    if (hole != last) {
        size_t moved = place_of(replay, live_at(replay, last)->entry.pid);
        *live_at(replay, hole) = *live_at(replay, last);
        replay->index[moved] = (uint32_t)hole + 1;
    }
    replay->live.count = last;
}

/* Applying */

static void add_entry(struct lin_replay *replay, const struct lin_block_entry *from) {
    struct lin_shown *shown = (from->pid & 0xf) != 3 ? NULL : add_live(replay, from->pid);
    if (shown != NULL)
        shown->entry = (struct lin_entry){.pid = from->pid,
                                          .parent = from->parent,
                                          .guardian = from->guardian,
                                          .birth = from->birth,
                                          .flags = from->flags,
                                          .site = from->site,
                                          .scope = from->scope,
                                          .initial_call = from->initial_call,
                                          .spawner = from->spawner,
                                          .no = from->no};
}

/* The live are those of the census, whatever events said before; only names are not in it. */
static void take_census(struct lin_replay *replay) {
    const struct lin_block_entry *entries = replay->census.data;
    struct list before = replay->live;
    replay->live = (struct list){.data = NULL};
    if (replay->index_size != 0)
        memset(replay->index, 0, replay->index_size * sizeof *replay->index);
    for (size_t i = 0; i < replay->census.count; i++)
        add_entry(replay, &entries[i]);
    const struct lin_shown *old = before.data;
    for (size_t i = 0; i < before.count; i++) {
        struct lin_shown *shown = old[i].name == 0 ? NULL : find(replay, old[i].entry.pid);
        if (shown != NULL && shown->entry.birth == old[i].entry.birth)
            shown->name = old[i].name;
    }
    free(before.data);
}

static void on_birth(struct lin_replay *replay, const struct lin_event *event) {
    struct lin_shown *shown = add_live(replay, event->pid);
    if (shown == NULL)
        return;
    /* The same birth, that a census has in: nothing is new. */
    if (shown->entry.birth >= event->ticks) {
        replay->out.skipped++;
        return;
    }
    const struct lin_shown *parent =
        (event->flags & LIN_F_FOREIGN) != 0 ? NULL : find(replay, event->a);
    *shown =
        (struct lin_shown){.entry = {.pid = event->pid,
                                     .parent = event->a,
                                     .birth = event->ticks,
                                     .flags = event->flags,
                                     .site = event->b,
                                     .spawner = parent == NULL ? 0 : parent->entry.initial_call,
                                     .no = event->no}};
    replay->out.applied++;
}

static void bury(struct lin_replay *replay, const struct lin_event *event,
                 const struct lin_shown *shown) {
    if (event->kind == LIN_EV_EXIT) {
        struct lin_dead_event *dead = list_add(replay, &replay->dead, sizeof *dead);
        if (dead != NULL) {
            dead->event = *event;
            if (shown != NULL) {
                dead->entry = shown->entry;
                dead->name = shown->name;
            }
        }
    }
    if (shown != NULL)
        remove_live(replay, event->pid);
}

static void change(struct lin_replay *replay, const struct lin_event *event,
                   struct lin_shown *shown) {
    struct lin_entry *entry = &shown->entry;
    entry->flags = (entry->flags & ~0xffu) | event->flags;
    switch (event->kind) {
    case LIN_EV_BORN: {
        const struct lin_block_function *function = lin_replay_function(replay, event->b);
        entry->scope = (uint32_t)(event->a >> 32);
        entry->initial_call = event->b;
        entry->flags |= function == NULL ? 0 : function->class & LIN_CLASSES;
        break;
    }
    case LIN_EV_LINK:
        if (event->b != 0)
            entry->guardian = event->a;
        break;
    case LIN_EV_UNLINK:
        if (event->b != 0)
            entry->guardian = 0;
        break;
    case LIN_EV_NAME:
        shown->name = event->a;
        break;
    case LIN_EV_FLAGS:
        entry->flags = (uint32_t)event->a;
        entry->scope = event->b;
        break;
    default:
        entry->guardian = event->a;
    }
}

static void apply(struct lin_replay *replay, const struct lin_event *event) {
    bool gap = event->kind == LIN_EV_GAP;
    if (event->kind == 0 || event->kind > LIN_EV_KINDS || (!gap && (event->pid & 0xf) != 3)) {
        replay->out.damaged++;
        return;
    }
    replay->out.at = event->ticks;
    if (gap)
        return;
    if (event->kind == LIN_EV_BIRTH) {
        on_birth(replay, event);
        return;
    }
    struct lin_shown *shown = find(replay, event->pid);
    bool ends = event->kind == LIN_EV_EXIT || event->kind == LIN_EV_SWEPT;
    bool known = shown != NULL && event->ticks >= shown->entry.birth &&
                 (int16_t)(event->no - shown->entry.no) > 0;
    if (!known && !(ends && shown == NULL)) {
        replay->out.skipped++;
        return;
    }
    replay->out.applied++;
    if (ends) {
        bury(replay, event, shown);
        return;
    }
    change(replay, event, shown);
    shown->entry.no = event->no;
}

/* The verdict: a census of the live, and the node's own walk over it. */

static void *plain_alloc(size_t bytes) { return aligned_alloc(64, (bytes + 63) & ~(size_t)63); }
static void plain_free(void *memory) { free(memory); }
static bool plain_is_alive(void *env, uint64_t pid) {
    (void)env, (void)pid;
    return true;
}
static const struct lin_host plain_host = {plain_alloc, plain_free, plain_is_alive};

static bool mark_orphan(void *arg, uint64_t pid) {
    struct lin_shown *shown = find(arg, pid);
    if (shown != NULL)
        shown->orphan = true;
    return true;
}

static int judge(struct lin_replay *replay, uint32_t limit_log2) {
    static _Atomic uint32_t judged;
    /* A number of its own: a thread starts afresh with a census whose session it has not seen. */
    uint32_t session = atomic_fetch_add_explicit(&judged, 1, memory_order_relaxed) | 1u << 31;
    struct lin_census_options options = {.session = session,
                                         .exits_all = true,
                                         .process_limit = (uint32_t)1 << limit_log2,
                                         .max_bytes = UINT64_MAX};
    struct lin_census *census;
    struct lin_verdict verdict;
    if (lin_gate.host == NULL)
        lin_gate_init(&plain_host);
    struct lin_thread *self = lin_thread_self();
    int result = self == NULL ? -ENOMEM : lin_census_create(&options, &census);
    if (result != 0)
        return result;
    lin_census_adopt(census, self);
    for (size_t i = 0; i < replay->live.count; i++) {
        const struct lin_entry *entry = &live_at(replay, i)->entry;
        struct lin_birth birth = {.pid = entry->pid, .flags = entry->flags & LIN_CLASSES};
        lin_census_seed(census, self, NULL, &birth, entry->guardian);
    }
    result = lin_verdict_run(census, &verdict, mark_orphan, replay);
    lin_census_destroy(census);
    return result;
}

/* Written twice: a write failed, and what it left could not be cut off. */
static bool is_same(const struct placed *l, const struct placed *r) {
    return l->ring == r->ring && l->position == r->position &&
           memcmp(&l->event, &r->event, sizeof l->event) == 0;
}

int lin_replay_finish(struct lin_replay *replay, const struct lin_block_run *head,
                      const struct lin_replayed **out) {
    sort_texts(replay);
    struct placed *placed = replay->events.data;
    for (size_t i = 0; i < replay->events.count; i++)
        placed[i].since =
            replay->has_census && placed[i].position >= replay->position[placed[i].ring];
    if (replay->events.count != 0)
        qsort(placed, replay->events.count, sizeof *placed, by_time);
    bool taken = !replay->has_census;
    for (size_t i = 0; i < replay->events.count && !replay->no_memory; i++) {
        if (placed[i].since && !taken) {
            take_census(replay);
            taken = true;
        }
        if (i == 0 || !is_same(&placed[i - 1], &placed[i]))
            apply(replay, &placed[i].event);
    }
    if (!taken)
        take_census(replay);
    if (head->limit_log2 < 10 || head->limit_log2 > 27)
        return -EINVAL;
    int result = replay->no_memory ? -ENOMEM : judge(replay, head->limit_log2);
    if (result != 0)
        return result;
    replay->out.live = replay->live.data;
    replay->out.live_count = replay->live.count;
    replay->out.dead = replay->dead.data;
    replay->out.dead_count = replay->dead.count;
    replay->out.whole = replay->has_census || replay->from_start;
    *out = &replay->out;
    return 0;
}

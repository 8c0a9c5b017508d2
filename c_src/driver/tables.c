#include "recorder.h"

#include <string.h>

/*
 * What stands behind the numbers in events, said once in each segment: at first all that the run
 * has said before, for the last events before a kill are read from the rings, beside whichever
 * segments are left. What is needed is looked up inside the gate and kept as it will be written,
 * but for atoms: their text is asked for behind the gate. Without memory something stays unsaid,
 * and a reader shows its number.
 */

#define PIECE 65536u /* of a block, so that none passes LIN_BLOCK_MAX */
#define BITS(n) (((n) + 63u) / 64u)
#define NAMES_KEPT                                                                                 \
    32768u /* atoms that are reasons or names of processes may be many: then only what             \
              is needed is said */

/* Bytes that grow. */
struct bytes {
    char *data;
    size_t used, room;
};

/* Atoms that were said: open addressing, 0 is empty. */
struct names {
    uint64_t *slot;
    uint32_t room, used;
};

struct lin_tables {
    struct names names;
    uint64_t functions[BITS(LIN_MFA_SLOTS)];
    uint64_t sites[BITS(LIN_SITES + 1)];
    uint64_t files[BITS(LIN_SITE_FILES + 1)];
    uint64_t nodes[BITS(1u << 16)];
    /* To be said, as the blocks have it; of atoms and nodes what the text is asked for by. */
    struct bytes new_names, new_functions, new_files, new_sites, new_nodes;
    struct bytes text;
    ErlNifEnv *env;
    /* Of the run. */
    uint64_t run_sites[BITS(LIN_SITES + 1)];
    _Atomic uint32_t run_sites_count; /* release: its site is in place */
    uint32_t run_site[LIN_SITES + 1];
};

struct node {
    uint64_t index, atom;
};

static void release(void *memory) {
    if (memory != NULL)
        enif_free(memory);
}

struct lin_tables *lin_tables_create(void) {
    struct lin_tables *tables = enif_alloc(sizeof *tables);
    if (tables == NULL)
        return NULL;
    memset(tables, 0, sizeof *tables);
    tables->env = enif_alloc_env();
    if (tables->env != NULL)
        return tables;
    enif_free(tables);
    return NULL;
}

void lin_tables_destroy(struct lin_tables *tables) {
    if (tables == NULL)
        return;
    struct bytes *all[] = {&tables->new_names, &tables->new_functions, &tables->new_files,
                           &tables->new_sites, &tables->new_nodes,     &tables->text};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        release(all[i]->data);
    release(tables->names.slot);
    enif_free_env(tables->env);
    enif_free(tables);
}

/* Room for so many bytes more, zeroed; NULL without memory. */
static void *grow(struct bytes *bytes, size_t more) {
    if (bytes->used + more > bytes->room) {
        size_t room = (bytes->used + more) * 2;
        char *data = bytes->data == NULL ? enif_alloc(room) : enif_realloc(bytes->data, room);
        if (data == NULL)
            return NULL;
        bytes->data = data;
        bytes->room = room;
    }
    void *at = bytes->data + bytes->used;
    bytes->used += more;
    memset(at, 0, more);
    return at;
}

/* True the first time. */
static bool mark(uint64_t *bits, uint32_t n) {
    bool is_new = (bits[n / 64] >> n % 64 & 1) == 0;
    bits[n / 64] |= (uint64_t)1 << n % 64;
    return is_new;
}

static uint64_t *place(const struct names *names, uint64_t atom) {
    uint64_t at = atom * 0x9e3779b97f4a7c15u >> 32;
    for (;; at++) {
        uint64_t *slot = &names->slot[at & (names->room - 1)];
        if (*slot == 0 || *slot == atom)
            return slot;
    }
}

static bool widen(struct names *names) {
    struct names wider = {.room = names->room == 0 ? 1024 : names->room * 2, .used = names->used};
    wider.slot = enif_alloc(wider.room * sizeof *wider.slot);
    if (wider.slot == NULL)
        return false;
    memset(wider.slot, 0, wider.room * sizeof *wider.slot);
    for (uint32_t i = 0; i < names->room; i++)
        if (names->slot[i] != 0)
            *place(&wider, names->slot[i]) = names->slot[i];
    release(names->slot);
    *names = wider;
    return true;
}

static void need_name(struct lin_tables *tables, uint64_t atom) {
    struct names *names = &tables->names;
    if (atom == 0 || (names->used >= names->room / 4 * 3 && !widen(names)))
        return;
    uint64_t *slot = place(names, atom);
    uint64_t *to = *slot == 0 ? grow(&tables->new_names, sizeof *to) : NULL;
    if (to == NULL)
        return;
    *slot = *to = atom;
    names->used++;
}

static void need_function(struct lin_tables *tables, const struct lin_census *census, uint32_t id) {
    const struct lin_mfa *mfa = lin_mfa_at(census->mfas, id);
    if (mfa == NULL || !mark(tables->functions, id))
        return;
    struct lin_block_function *function = grow(&tables->new_functions, sizeof *function);
    if (function == NULL)
        return;
    *function = (struct lin_block_function){
        .id = id,
        .arity = mfa->arity,
        .module = atomic_load_explicit(&mfa->module, memory_order_relaxed),
        .function = mfa->function,
        .class = lin_mfa_class(census->mfas, id),
    };
    need_name(tables, function->module);
    need_name(tables, function->function);
}

static void put_text(struct bytes *bytes, uint64_t id, const char *text, size_t len) {
    size_t padded = lin_block_padded((uint32_t)(sizeof(struct lin_text) + len));
    struct lin_text *to = grow(bytes, padded);
    if (to == NULL)
        return;
    to->id = id;
    to->len = (uint32_t)len;
    memcpy(to->text, text, len);
}

static void need_file(struct lin_tables *tables, const struct lin_census *census, uint32_t file) {
    const char *name = file == 0 ? NULL : lin_file_name(census->sites, file);
    if (name != NULL && mark(tables->files, file))
        put_text(&tables->new_files, file, name, strlen(name));
}

static void note_site(struct lin_tables *tables, uint32_t id) {
    if (!mark(tables->run_sites, id))
        return;
    uint32_t count = atomic_load_explicit(&tables->run_sites_count, memory_order_relaxed);
    tables->run_site[count] = id;
    atomic_store_explicit(&tables->run_sites_count, count + 1, memory_order_release);
}

const uint32_t *lin_tables_sites(const struct lin_tables *tables, uint32_t *count) {
    *count = atomic_load_explicit(&tables->run_sites_count, memory_order_acquire);
    return tables->run_site;
}

static void need_site(struct lin_tables *tables, const struct lin_census *census, uint32_t id) {
    const struct lin_site *site = census->sites == NULL ? NULL : lin_site_at(census->sites, id);
    if (site == NULL || !mark(tables->sites, id))
        return;
    struct lin_block_site *to = grow(&tables->new_sites, sizeof *to);
    if (to == NULL)
        return;
    *to = (struct lin_block_site){
        .id = id,
        .initial_call = site->initial_call,
        .spawner = site->spawner,
        .frame_arity = site->frame.arity,
        .frame_module = site->frame.module,
        .frame_function = site->frame.function,
        .frame_line = site->frame.line,
        .frame_file = site->frame.file,
        .closure_module = site->closure_module,
        .index = site->index,
        .uniq = site->uniq,
    };
    const uint64_t atoms[] = {site->frame.module, site->frame.function, site->closure_module};
    for (size_t i = 0; i < 3; i++)
        need_name(tables, atoms[i]);
    need_function(tables, census, site->initial_call);
    need_function(tables, census, site->spawner);
    need_file(tables, census, site->frame.file);
    note_site(tables, id);
}

static void need_node(struct lin_tables *tables, uint32_t index) {
    uint64_t atom = lin_node_at(index);
    struct node *node =
        atom != 0 && mark(tables->nodes, index) ? grow(&tables->new_nodes, sizeof *node) : NULL;
    if (node != NULL)
        *node = (struct node){index, atom};
}

static bool has(const uint64_t *bits, uint32_t n) { return (bits[n / 64] >> n % 64 & 1) != 0; }

static void name_again(struct lin_tables *tables) {
    struct names said = tables->names;
    tables->names = (struct names){.slot = NULL};
    for (uint32_t i = 0; said.used <= NAMES_KEPT && i < said.room; i++)
        need_name(tables, said.slot[i]);
    release(said.slot);
}

static void forget(struct lin_tables *tables) {
    memset(tables->functions, 0, sizeof tables->functions);
    memset(tables->sites, 0, sizeof tables->sites);
    memset(tables->files, 0, sizeof tables->files);
    memset(tables->nodes, 0, sizeof tables->nodes);
    tables->new_names.used = tables->new_functions.used = tables->new_files.used = 0;
    tables->new_sites.used = tables->new_nodes.used = 0;
}

void lin_tables_again(struct lin_tables *tables, const struct lin_census *census) {
    uint64_t functions[BITS(LIN_MFA_SLOTS)];
    uint64_t sites[BITS(LIN_SITES + 1)];
    uint64_t nodes[BITS(1u << 16)];
    memcpy(functions, tables->functions, sizeof functions);
    memcpy(sites, tables->sites, sizeof sites);
    memcpy(nodes, tables->nodes, sizeof nodes);
    forget(tables);
    name_again(tables);
    for (uint32_t id = 0; census != NULL && id < LIN_MFA_SLOTS; id++)
        if (has(functions, id))
            need_function(tables, census, id);
    for (uint32_t id = 0; census != NULL && id <= LIN_SITES; id++)
        if (has(sites, id))
            need_site(tables, census, id);
    for (uint32_t index = 0; index < 1u << 16; index++)
        if (has(nodes, index))
            need_node(tables, index);
}

void lin_tables_need_events(struct lin_tables *tables, const struct lin_census *census,
                            const struct lin_event *events, uint32_t count) {
    for (const struct lin_event *event = events; event < events + count; event++)
        switch (event->kind) {
        case LIN_EV_BIRTH:
            need_site(tables, census, event->b);
            if ((event->flags & LIN_F_FOREIGN) != 0)
                need_node(tables, LIN_FOREIGN_NODE(event->a));
            break;
        case LIN_EV_BORN:
            need_function(tables, census, event->b);
            break;
        case LIN_EV_EXIT:
        case LIN_EV_NAME:
            need_name(tables, event->a);
            break;
        default:
            break;
        }
}

void lin_tables_need_entry(struct lin_tables *tables, const struct lin_census *census,
                           const struct lin_entry *entry) {
    need_site(tables, census, entry->site);
    need_function(tables, census, entry->initial_call);
    need_function(tables, census, entry->spawner);
    if ((entry->flags & LIN_F_FOREIGN) != 0)
        need_node(tables, LIN_FOREIGN_NODE(entry->parent));
}

#define SMALL_ATOM_UTF8_EXT 119
#define ATOM_UTF8_EXT 118
#define ATOM_EXT 100 /* in Latin-1; OTP 25 and earlier, where that will do */
#define ATOM_BYTES 1024

static size_t utf8_of_latin1(const unsigned char *latin1, size_t len, char *utf8) {
    size_t n = 0;
    for (size_t i = 0; i < len && n + 2 <= ATOM_BYTES; i++) {
        if (latin1[i] >= 0x80)
            utf8[n++] = (char)(0xc0 | latin1[i] >> 6);
        utf8[n++] = (char)(latin1[i] < 0x80 ? latin1[i] : 0x80 | (latin1[i] & 0x3f));
    }
    return n;
}

/* An atom in UTF-8, by its external format: enif_get_atom reads that from OTP 26 on only. */
static void name_text(struct lin_tables *tables, uint64_t id, uint64_t atom) {
    char utf8[ATOM_BYTES];
    ErlNifBinary bin;
    if (!enif_is_atom(tables->env, atom) || !enif_term_to_binary(tables->env, atom, &bin))
        return;
    unsigned char tag = bin.size < 4 ? 0 : bin.data[1];
    size_t at = tag == SMALL_ATOM_UTF8_EXT ? 3 : 4;
    size_t len = bin.size < at ? 0 : bin.size - at;
    if (tag == ATOM_EXT)
        put_text(&tables->text, id, utf8, utf8_of_latin1(bin.data + at, len, utf8));
    else if (tag == SMALL_ATOM_UTF8_EXT || tag == ATOM_UTF8_EXT)
        put_text(&tables->text, id, (const char *)bin.data + at, len);
    enif_release_binary(&bin);
}

/* How much of `bytes` makes a block: things of `width`, or texts (0). */
static size_t piece(const struct bytes *bytes, size_t from, size_t width) {
    size_t left = bytes->used - from, end = 0;
    if (width != 0)
        return left < PIECE ? left : PIECE - PIECE % width;
    while (end < left) {
        const struct lin_text *text = (const void *)(bytes->data + from + end);
        size_t next = lin_block_padded((uint32_t)sizeof *text + text->len);
        if (end != 0 && end + next > PIECE)
            break;
        end += next;
    }
    return end;
}

static int say(struct bytes *bytes, size_t width, enum lin_block_type type,
               struct lin_segment *segment, int (*write)(void *), void *arg) {
    for (size_t at = 0; at < bytes->used;) {
        size_t len = piece(bytes, at, width);
        void *room = lin_segment_room(segment, len);
        int result = room == NULL ? write(arg) : 0;
        if (result != 0)
            return result;
        if (room == NULL)
            continue;
        memcpy(room, bytes->data + at, len);
        lin_segment_seal(segment, type, len);
        at += len;
    }
    bytes->used = 0;
    return 0;
}

/* The texts of what is in new_names or new_nodes. */
static void name_texts(struct lin_tables *tables, struct bytes *bytes, size_t width) {
    tables->text.used = 0;
    for (size_t at = 0; at < bytes->used; at += width) {
        const uint64_t *name = (const void *)(bytes->data + at);
        name_text(tables, name[0], width == sizeof *name ? name[0] : name[1]);
    }
    bytes->used = 0;
}

int lin_tables_say(struct lin_tables *tables, struct lin_segment *segment, int (*write)(void *),
                   void *arg) {
    name_texts(tables, &tables->new_names, sizeof(uint64_t));
    int result = say(&tables->text, 0, LIN_BLOCK_NAMES, segment, write, arg);
    if (result == 0)
        result = say(&tables->new_functions, sizeof(struct lin_block_function), LIN_BLOCK_FUNCTIONS,
                     segment, write, arg);
    if (result == 0)
        result = say(&tables->new_files, 0, LIN_BLOCK_FILES, segment, write, arg);
    if (result == 0)
        result = say(&tables->new_sites, sizeof(struct lin_block_site), LIN_BLOCK_SITES, segment,
                     write, arg);
    name_texts(tables, &tables->new_nodes, sizeof(struct node));
    if (result == 0)
        result = say(&tables->text, 0, LIN_BLOCK_NODES, segment, write, arg);
    return result;
}

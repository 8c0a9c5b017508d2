#include "sites.h"

#include "clock.h"
#include "gate.h"
#include "spin.h"

#define BUCKETS (LIN_SITES * 2)
#define PENDING 16384u
#define WINDOW 8u /* places that a pid may take */
/*
 * A tenth of a second or so: a call that spawned nothing must not stand for a later birth, whose
 * own call was not told (of a process that has become sensitive; where another tool has cleared the
 * trace points). Between a call and its birth there are microseconds, unless the thread must wait.
 */
#define PENDING_TICKS (1u << 28)

struct pending {
    uint64_t pid; /* 0: free */
    uint64_t ticks;
    uint64_t called;
    struct lin_frame frame; /* module 0: not known */
    uint32_t scope;         /* of a request */
    bool asks;              /* waits for a supervisor, however long: no birth of its own follows */
};

struct lin_sites {
    atomic_flag lock; /* guards writes of all but `pending` */
    bool exact;
    /* Writer: under the lock, release. Readers: acquire, of `used` or of a bucket. */
    _Atomic uint32_t used;
    _Atomic uint64_t overflows;
    struct lin_site site[LIN_SITES]; /* never written again once published */
    _Atomic uint32_t bucket[BUCKETS];
    _Atomic(char *) file[LIN_SITE_FILES];
    struct {
        _Atomic uint64_t module; /* 0: empty; written last (release) */
        uint64_t function;
    } wrapper[LIN_WRAPPERS];
    uint32_t wrappers;
    atomic_flag pending_lock; /* guards `pending`, which is there when exact */
    struct pending pending[];
};

size_t lin_sites_bytes(bool exact) {
    return sizeof(struct lin_sites) + (exact ? PENDING * sizeof(struct pending) : 0);
}

struct lin_sites *lin_sites_create(bool exact) {
    struct lin_sites *sites = lin_gate.host->alloc(lin_sites_bytes(exact));
    if (sites == NULL)
        return NULL;
    memset(sites, 0, lin_sites_bytes(exact));
    atomic_flag_clear(&sites->lock);
    atomic_flag_clear(&sites->pending_lock);
    sites->exact = exact;
    return sites;
}

void lin_sites_destroy(struct lin_sites *sites) {
    if (sites == NULL)
        return;
    for (uint32_t i = 0; i < LIN_SITE_FILES; i++) {
        char *name = atomic_load_explicit(&sites->file[i], memory_order_relaxed);
        if (name != NULL)
            lin_gate.host->free(name);
    }
    lin_gate.host->free(sites);
}

bool lin_sites_exact(const struct lin_sites *sites) { return sites->exact; }

static uint64_t mix(uint64_t h, uint64_t value) {
    h = (h ^ value) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint32_t hash(const struct lin_site *site) {
    uint64_t h = site->closure;
    if (h == 0)
        h = mix(h, (uint64_t)site->initial_call << 32 | site->spawner);
    if (site->frame.module != 0) {
        h = mix(mix(h, site->frame.module), site->frame.function);
        h = mix(h, (uint64_t)site->frame.line << 32 | site->frame.arity << 16 | site->frame.file);
    }
    return (uint32_t)(h >> 16) & (BUCKETS - 1);
}

static bool same(const struct lin_site *a, const struct lin_site *b) {
    return a->closure == b->closure &&
           (a->closure != 0 || (a->initial_call == b->initial_call && a->spawner == b->spawner)) &&
           a->frame.module == b->frame.module && a->frame.function == b->frame.function &&
           a->frame.arity == b->frame.arity && a->frame.line == b->frame.line &&
           a->frame.file == b->frame.file;
}

/* The site's id, or 0 and the empty bucket on its way. There are twice as many as sites. */
static uint32_t find(const struct lin_sites *sites, const struct lin_site *site, uint32_t *at) {
    for (*at = hash(site);; *at = (*at + 1) & (BUCKETS - 1)) {
        /* acquire: pairs with the release in add_locked. */
        uint32_t id = atomic_load_explicit(&sites->bucket[*at], memory_order_acquire);
        if (id == 0 || same(&sites->site[id], site))
            return id;
    }
}

uint32_t lin_site_find(const struct lin_sites *sites, const struct lin_site *site) {
    uint32_t at;
    return find(sites, site, &at);
}

static uint32_t add_locked(struct lin_sites *sites, const struct lin_site *site) {
    uint32_t at;
    uint32_t id = find(sites, site, &at);
    uint32_t used = atomic_load_explicit(&sites->used, memory_order_relaxed);
    if (id != 0 || used + 1 == LIN_SITES)
        return id;
    id = used + 1;
    sites->site[id] = *site;
    /* First `used`: whoever finds the id in a bucket may ask for its site. */
    atomic_store_explicit(&sites->used, id, memory_order_release);
    atomic_store_explicit(&sites->bucket[at], id, memory_order_release);
    return id;
}

uint32_t lin_site_intern(struct lin_sites *sites, const struct lin_site *site) {
    uint32_t id = lin_site_find(sites, site);
    if (id != 0)
        return id;
    if (lin_sites_used(sites) + 1 < LIN_SITES) {
        lin_spin_lock(&sites->lock);
        id = add_locked(sites, site);
        lin_spin_unlock(&sites->lock);
    }
    if (id == 0)
        atomic_fetch_add_explicit(&sites->overflows, 1, memory_order_relaxed);
    return id;
}

const struct lin_site *lin_site_at(const struct lin_sites *sites, uint32_t id) {
    return id == 0 || id > lin_sites_used(sites) ? NULL : &sites->site[id];
}

uint32_t lin_sites_used(const struct lin_sites *sites) {
    return atomic_load_explicit(&sites->used, memory_order_acquire);
}

uint64_t lin_sites_overflows(const struct lin_sites *sites) {
    return atomic_load_explicit(&sites->overflows, memory_order_relaxed);
}

static uint32_t find_file(const struct lin_sites *sites, const char *name, size_t len,
                          uint32_t *free) {
    uint64_t h = lin_hash_bytes(name, len);
    *free = 0;
    for (uint32_t i = 0; i < LIN_SITE_FILES; i++) {
        uint32_t at = (uint32_t)(mix(h, 0) + i) & (LIN_SITE_FILES - 1);
        if (at == 0)
            continue;
        const char *there = atomic_load_explicit(&sites->file[at], memory_order_acquire);
        if (there == NULL) {
            *free = at;
            return 0;
        }
        if (strlen(there) == len && memcmp(there, name, len) == 0)
            return at;
    }
    return 0;
}

uint32_t lin_file_intern(struct lin_sites *sites, const char *name, size_t len) {
    uint32_t at;
    uint32_t file = find_file(sites, name, len, &at);
    if (file != 0)
        return file;
    lin_spin_lock(&sites->lock);
    file = find_file(sites, name, len, &at);
    char *copy = file == 0 && at != 0 ? lin_gate.host->alloc(len + 1) : NULL;
    if (copy != NULL) {
        memcpy(copy, name, len);
        copy[len] = '\0';
        atomic_store_explicit(&sites->file[at], copy, memory_order_release);
        file = at;
    }
    lin_spin_unlock(&sites->lock);
    return file;
}

const char *lin_file_name(const struct lin_sites *sites, uint32_t file) {
    return file == 0 || file >= LIN_SITE_FILES
               ? NULL
               : atomic_load_explicit(&sites->file[file], memory_order_acquire);
}

static bool is_wrapper(const struct lin_sites *sites, uint64_t module, uint64_t function,
                       uint32_t *at) {
    for (*at = (uint32_t)(mix(module, 0) >> 8) & (LIN_WRAPPERS - 1);;
         *at = (*at + 1) & (LIN_WRAPPERS - 1)) {
        uint64_t there = atomic_load_explicit(&sites->wrapper[*at].module, memory_order_acquire);
        if (there == 0)
            return false;
        if (there == module &&
            (sites->wrapper[*at].function == function || sites->wrapper[*at].function == 0))
            return true;
    }
}

bool lin_wrapper_is(const struct lin_sites *sites, uint64_t module, uint64_t function) {
    uint32_t at;
    return is_wrapper(sites, module, function, &at);
}

bool lin_wrapper_add(struct lin_sites *sites, uint64_t module, uint64_t function) {
    uint32_t at;
    lin_spin_lock(&sites->lock);
    bool there = is_wrapper(sites, module, function, &at);
    bool room = there || sites->wrappers < LIN_WRAPPERS / 4 * 3;
    if (!there && room) {
        sites->wrapper[at].function = function;
        atomic_store_explicit(&sites->wrapper[at].module, module, memory_order_release);
        sites->wrappers++;
    }
    lin_spin_unlock(&sites->lock);
    return room;
}

static struct pending *place(struct lin_sites *sites, uint64_t pid, uint32_t i) {
    return &sites->pending[(uint32_t)((mix(pid, 0) >> 16) + i) & (PENDING - 1)];
}

static struct pending *find_pending(struct lin_sites *sites, uint64_t pid) {
    for (uint32_t i = 0; i < WINDOW; i++)
        if (place(sites, pid, i)->pid == pid)
            return place(sites, pid, i);
    return NULL;
}

static struct pending *room_for(struct lin_sites *sites, void *env, uint64_t pid) {
    struct pending *room = find_pending(sites, pid);
    for (uint32_t i = 0; i < WINDOW && room == NULL; i++)
        if (place(sites, pid, i)->pid == 0)
            room = place(sites, pid, i);
    for (uint32_t i = 0; i < WINDOW && room == NULL; i++)
        if (!lin_gate.host->is_alive(env, place(sites, pid, i)->pid))
            room = place(sites, pid, i);
    return room != NULL ? room : place(sites, pid, 0);
}

void lin_pending_put(struct lin_sites *sites, void *env, uint64_t pid,
                     const struct lin_frame *frame, uint64_t called) {
    lin_spin_lock(&sites->pending_lock);
    *room_for(sites, env, pid) =
        (struct pending){.pid = pid, .ticks = lin_clock_ticks(), .called = called, .frame = *frame};
    lin_spin_unlock(&sites->pending_lock);
}

void lin_pending_pass(struct lin_sites *sites, uint64_t pid, uint64_t from, uint64_t called) {
    lin_spin_lock(&sites->pending_lock);
    struct pending *pending = find_pending(sites, pid);
    if (pending != NULL && pending->called == from)
        pending->called = called;
    else if (pending != NULL)
        pending->pid = 0;
    lin_spin_unlock(&sites->pending_lock);
}

void lin_pending_drop(struct lin_sites *sites, uint64_t pid) {
    lin_spin_lock(&sites->pending_lock);
    struct pending *pending = find_pending(sites, pid);
    if (pending != NULL)
        pending->pid = 0;
    lin_spin_unlock(&sites->pending_lock);
}

void lin_pending_ask(struct lin_sites *sites, void *env, uint64_t pid, uint32_t scope) {
    lin_spin_lock(&sites->pending_lock);
    struct pending *pending = find_pending(sites, pid);
    if (pending == NULL) {
        pending = room_for(sites, env, pid);
        *pending = (struct pending){.pid = pid};
    }
    pending->ticks = lin_clock_ticks();
    pending->asks = true;
    pending->scope = scope;
    lin_spin_unlock(&sites->pending_lock);
}

bool lin_pending_asked(struct lin_sites *sites, uint64_t pid, struct lin_frame *out,
                       uint32_t *scope) {
    lin_spin_lock(&sites->pending_lock);
    struct pending *pending = find_pending(sites, pid);
    bool asks = pending != NULL && pending->asks;
    if (asks) {
        *out = pending->frame;
        *scope = pending->scope;
        pending->pid = 0;
    }
    lin_spin_unlock(&sites->pending_lock);
    return asks;
}

bool lin_pending_take(struct lin_sites *sites, uint64_t pid, struct lin_frame *out) {
    lin_spin_lock(&sites->pending_lock);
    struct pending *pending = find_pending(sites, pid);
    bool fresh = pending != NULL && pending->frame.module != 0 &&
                 lin_clock_ticks() - pending->ticks < PENDING_TICKS;
    if (pending != NULL) {
        *out = fresh ? pending->frame : *out;
        pending->pid = 0;
    }
    lin_spin_unlock(&sites->pending_lock);
    return fresh;
}

static struct lin_site_page *page_of(struct lin_thread *self, uint32_t id) {
    struct lin_site_page *page =
        atomic_load_explicit(&self->site_pages[id / LIN_SITE_PAGE], memory_order_relaxed);
    if (__builtin_expect(page != NULL, 1))
        return page;
    page = lin_gate.host->alloc(sizeof *page);
    if (page == NULL)
        return NULL;
    memset(page, 0, sizeof *page);
    atomic_fetch_add_explicit(&lin_gate.thread_bytes, sizeof *page, memory_order_relaxed);
    /* release: pairs with the acquire in lin_site_sum. */
    atomic_store_explicit(&self->site_pages[id / LIN_SITE_PAGE], page, memory_order_release);
    return page;
}

void lin_site_count(struct lin_thread *self, uint32_t id, bool birth) {
    struct lin_site_page *page = id == 0 ? NULL : page_of(self, id);
    if (page == NULL)
        return;
    _Atomic uint64_t *count =
        birth ? &page->site[id % LIN_SITE_PAGE].births : &page->site[id % LIN_SITE_PAGE].unheard;
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

void lin_site_sum(uint32_t session, uint32_t id, uint64_t *births, uint64_t *unheard) {
    *births = *unheard = 0;
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next) {
        struct lin_site_page *page =
            atomic_load_explicit(&thread->site_pages[id / LIN_SITE_PAGE], memory_order_acquire);
        if (page == NULL || atomic_load_explicit(&thread->session, memory_order_acquire) != session)
            continue;
        *births +=
            atomic_load_explicit(&page->site[id % LIN_SITE_PAGE].births, memory_order_relaxed);
        *unheard +=
            atomic_load_explicit(&page->site[id % LIN_SITE_PAGE].unheard, memory_order_relaxed);
    }
}

void lin_site_pages_free_all(void) {
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next)
        for (uint32_t i = 0; i < LIN_SITE_PAGES; i++) {
            struct lin_site_page *page =
                atomic_exchange_explicit(&thread->site_pages[i], NULL, memory_order_relaxed);
            if (page == NULL)
                continue;
            atomic_fetch_sub_explicit(&lin_gate.thread_bytes, sizeof *page, memory_order_relaxed);
            lin_gate.host->free(page);
        }
}

/*
 * sites.h - where processes were spawned, as a 32-bit id, with what became of them.
 *
 * Model: a fixed table, filled once per distinct site and never emptied before destroy; ids are
 * given in sequence from 1, and 0 stands for "none, or the table was full" (then counted). A site
 * is what was spawned (a closure, or M:F/A and the initial call of the process that spawned it)
 * and, under exact sites, the frame that called. A frame becomes known before the birth, by a trace
 * point on the call: it is pending, found by its caller's pid, until the birth takes it.
 *
 *     call --> pending --birth--> in the site
 *              | a call through another module, or of a process that needs its place --> dropped
 *
 * Counts lie in pages of each thread, made at its first birth at one of 256 sites.
 * Threads: look-ups are wait-free in any thread; a new site, and pending frames, take a short spin
 * lock. Ownership: create/destroy own the memory, given by the gate's host; pages are freed at the
 * census's close. Atoms and pids are terms; 0 means none.
 */
#ifndef LIN_SITES_H
#define LIN_SITES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LIN_SITES 8192u
#define LIN_SITE_PAGE 256u
#define LIN_SITE_PAGES (LIN_SITES / LIN_SITE_PAGE)
#define LIN_SITE_FILES 1024u
#define LIN_WRAPPERS 256u /* a power of two; three quarters can be used */

/* A place in code that called. `module` 0: not known. */
struct lin_frame {
    uint64_t module, function;
    uint32_t arity;
    uint32_t line; /* 0: not known */
    uint32_t file; /* lin_file_intern */
};

struct lin_site {
    uint64_t closure;      /* a hash of how it is printed; 0: none */
    uint32_t initial_call; /* mfa.h; 0 of a closure, when a site is looked for */
    uint32_t spawner;      /* mfa.h; 0 when the frame or the closure says more */
    struct lin_frame frame;
    /* The rest, and the initial call of a closure, are no part of what makes sites equal. */
    uint32_t index, uniq;
    uint64_t closure_module;
};

struct lin_site_page {
    struct {
        _Atomic uint64_t births, unheard; /* written by one thread, read by anyone, relaxed */
    } site[LIN_SITE_PAGE];
};

struct lin_thread;
struct lin_sites;

/* Both halves of a product: each bit of a factor may change any bit of it. */
static inline uint64_t lin_fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/*
 * A hash of at least one byte, never 0. It is all that tells one closure from another, and it runs
 * at births: two words at a time, of which the last two may overlap those before.
 */
static inline uint64_t lin_hash_bytes(const char *bytes, size_t len) {
    char padded[16] = {0};
    uint64_t a, b, h = len;
    size_t end = len < sizeof padded ? sizeof padded : len;
    if (len < sizeof padded)
        bytes = memcpy(padded, bytes, len);
    for (size_t at = 0; at < end; at += sizeof padded) {
        size_t from = at + sizeof padded > end ? end - sizeof padded : at;
        memcpy(&a, bytes + from, sizeof a);
        memcpy(&b, bytes + from + sizeof a, sizeof b);
        h = lin_fold(a ^ 0x9e3779b97f4a7c15u, b ^ h ^ 0xc2b2ae3d27d4eb4fu);
    }
    h = lin_fold(h ^ 0x9e3779b97f4a7c15u, len ^ 0xc2b2ae3d27d4eb4fu);
    return h == 0 ? 1 : h;
}

/* `exact`: with room for pending frames. NULL when there is no memory. */
struct lin_sites *lin_sites_create(bool exact);
void lin_sites_destroy(struct lin_sites *sites);
size_t lin_sites_bytes(bool exact);
bool lin_sites_exact(const struct lin_sites *sites);

/* The id of the site; 0 when it is not in the table. */
uint32_t lin_site_find(const struct lin_sites *sites, const struct lin_site *site);
/* The same, added if need be; 0, and counted, when the table is full. */
uint32_t lin_site_intern(struct lin_sites *sites, const struct lin_site *site);
/* The site of an id; NULL for 0 and for ids that were never given. */
const struct lin_site *lin_site_at(const struct lin_sites *sites, uint32_t id);
/* How many sites there are, and how many births found no room. */
uint32_t lin_sites_used(const struct lin_sites *sites);
uint64_t lin_sites_overflows(const struct lin_sites *sites);

/* The number of a file's name, 0 when there is no room for another; and the name of a number. */
uint32_t lin_file_intern(struct lin_sites *sites, const char *name, size_t len);
const char *lin_file_name(const struct lin_sites *sites, uint32_t file);

/*
 * Names a function (any arity), or a module (function 0), that spawns for its caller. False when
 * there is no room. To be called before the hook runs, or by one thread at a time.
 */
bool lin_wrapper_add(struct lin_sites *sites, uint64_t module, uint64_t function);
bool lin_wrapper_is(const struct lin_sites *sites, uint64_t module, uint64_t function);

/*
 * Process `pid` runs in `frame`, outside of wrappers, and calls into module `called`, to spawn.
 * `env`: see lin_host. Without room the frame is dropped of a process that is dead, or has waited
 * for its birth longest.
 */
void lin_pending_put(struct lin_sites *sites, void *env, uint64_t pid,
                     const struct lin_frame *frame, uint64_t called);
/* A wrapper in module `from` calls on into `called`: a frame that did not lead there is dropped. */
void lin_pending_pass(struct lin_sites *sites, uint64_t pid, uint64_t from, uint64_t called);
void lin_pending_drop(struct lin_sites *sites, uint64_t pid);
/* What is pending of `pid` is a request to a supervisor, made in `scope`: also when its frame is
 * not known. It waits for its answer, and may have died before the supervisor turns to it. */
void lin_pending_ask(struct lin_sites *sites, void *env, uint64_t pid, uint32_t scope);
/* Takes the request, however old; false, and the rest as it was, when there is none. */
bool lin_pending_asked(struct lin_sites *sites, uint64_t pid, struct lin_frame *out,
                       uint32_t *scope);
/* Takes the frame for a birth; false, and `out` as it was, when there is none, or one that is too
 * old. */
bool lin_pending_take(struct lin_sites *sites, uint64_t pid, struct lin_frame *out);

/* Counts in this thread's page, which may be made here; without memory the count is lost. */
void lin_site_count(struct lin_thread *self, uint32_t id, bool birth);
/* Sums one site's counts over the threads of a session. */
void lin_site_sum(uint32_t session, uint32_t id, uint64_t *births, uint64_t *unheard);
/* Frees all pages. No thread may be inside the gate. */
void lin_site_pages_free_all(void);

#endif

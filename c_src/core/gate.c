#include "gate.h"

#include "clock.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
/* The kernel's numbers (linux/membarrier.h): musl may come without the kernel's headers. */
#define MEMBARRIER_CMD_PRIVATE_EXPEDITED (1 << 3)
#define MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED (1 << 4)
#endif

struct lin_gate lin_gate;
LIN_TLS struct lin_thread *lin_self;

#if defined(__SANITIZE_THREAD__)
#define LIN_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LIN_UNDER_TSAN 1
#endif
#endif

static int membarrier(int command) {
#if defined(__linux__) && defined(SYS_membarrier) && !defined(LIN_UNDER_TSAN)
    return (int)syscall(SYS_membarrier, command, 0, 0);
#else
    (void)command; /* TSan cannot see a barrier that the kernel makes: it gets real fences */
    return -ENOSYS;
#endif
}

static void relax(unsigned *turns) {
    if (++*turns % 64 == 0) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void lin_gate_init(const struct lin_host *host) {
    lin_gate.host = host;
#if defined(__linux__)
    lin_gate.fenced = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0;
#else
    lin_gate.fenced = true;
#endif
}

void lin_gate_deinit(void) {
    struct lin_thread *thread =
        atomic_exchange_explicit(&lin_gate.threads, NULL, memory_order_acquire);
    while (thread != NULL) {
        struct lin_thread *next = thread->next;
        lin_gate.host->free(thread);
        thread = next;
    }
    lin_self = NULL; /* other threads' pointers go with the library's static block */
    atomic_store_explicit(&lin_gate.thread_bytes, 0, memory_order_relaxed);
}

struct lin_thread *lin_thread_make(void) {
    struct lin_thread *self = lin_gate.host->alloc(sizeof *self);
    if (self == NULL)
        return NULL;
    memset(self, 0, sizeof *self);
    self->next = atomic_load_explicit(&lin_gate.threads, memory_order_relaxed);
    /* seq_cst: pairs with the heavy barrier in quiesce, which either finds us or is seen by us. */
    while (!atomic_compare_exchange_weak_explicit(&lin_gate.threads, &self->next, self,
                                                  memory_order_seq_cst, memory_order_relaxed))
        ;
    atomic_fetch_add_explicit(&lin_gate.thread_bytes, sizeof *self, memory_order_relaxed);
    lin_self = self;
    return self;
}

void lin_gate_enter_slow(struct lin_thread *self) {
    unsigned turns = 0;
    do {
        lin_gate_leave(self);
        while (atomic_load_explicit(&lin_gate.paused, memory_order_acquire) != 0)
            relax(&turns);
        lin_gate_mark(self);
        /* acquire: pairs with the release in resume; what was moved meanwhile is seen. */
    } while (atomic_load_explicit(&lin_gate.paused, memory_order_acquire) != 0);
}

void lin_gate_set_current(struct lin_census *census) {
    atomic_store_explicit(&lin_gate.current, census, memory_order_release);
}

void lin_gate_barrier(void) {
#if defined(__linux__)
    if (!lin_gate.fenced)
        membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
#endif
    atomic_thread_fence(memory_order_seq_cst);
}

bool lin_gate_quiesce(uint32_t max_us) {
    uint64_t start = lin_clock_ns();
    lin_gate_barrier();
    struct lin_thread *thread = atomic_load_explicit(&lin_gate.threads, memory_order_acquire);
    for (; thread != NULL; thread = thread->next) {
        unsigned turns = 0;
        /* acquire: pairs with the release in leave. */
        uint32_t visits = atomic_load_explicit(&thread->visits, memory_order_acquire);
        while ((visits & 1) != 0 &&
               atomic_load_explicit(&thread->visits, memory_order_acquire) == visits) {
            if (max_us != 0 && lin_clock_ns() - start > (uint64_t)max_us * 1000)
                return false;
            relax(&turns);
        }
    }
    return true;
}

bool lin_gate_pause(uint32_t max_us) {
    atomic_store_explicit(&lin_gate.paused, 1, memory_order_release);
    if (lin_gate_quiesce(max_us))
        return true;
    lin_gate_resume();
    return false;
}

void lin_gate_resume(void) { atomic_store_explicit(&lin_gate.paused, 0, memory_order_release); }

#include "numbers.bpf.h"

#include <bpf/bpf_tracing.h>

#include "stalls.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define TASK_STOPPED_OR_TRACED (4 | 8)
#define ENOSYS 38

const volatile __u64 threshold_ns;
const volatile int target_pid;                  /* in the probe's namespace */
const volatile int idle_calls[LIN_STALL_CALLS]; /* in which a scheduler waits for work; -1: none */

/* Writer: the program outside. */
struct lin_stall_range ranges[LIN_STALL_RANGES];
bool watching;

__u64 dropped;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, unsigned);
    __type(value, struct lin_stall_state);
} threads SEC(".maps");

/* What ran on a CPU for a while, lately: who had it while a thread waited. */
struct run {
    __u64 from, to;
    unsigned pid;
    char comm[16];
};

struct cpu {
    __u64 since; /* the last switch */
    unsigned next;
    struct run run[LIN_STALL_RUNS];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1); /* as many as there are CPUs */
    __type(key, unsigned);
    __type(value, struct cpu);
} cpus SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} stalls SEC(".maps");

static void tell(const struct lin_stall *stall) {
    if (bpf_ringbuf_output(&stalls, (void *)stall, sizeof *stall, BPF_RB_NO_WAKEUP) != 0)
        __sync_fetch_and_add(&dropped, 1);
}

/* `task` leaves its CPU; its name is the one that it has now, after exec. */
static void note_run(struct cpu *cpu, struct task_struct *task, __u64 now) {
    __u64 since = cpu->since;
    cpu->since = now;
    if (since == 0 || now - since < threshold_ns / 8)
        return;
    struct run *run = &cpu->run[cpu->next++ % LIN_STALL_RUNS];
    run->from = since;
    run->to = now;
    run->pid = 0;
    run->comm[0] = 0;
    if (BPF_CORE_READ(task, pid) == 0) /* the idle task */
        return;
    run->pid = own_number(BPF_CORE_READ(task, group_leader));
    BPF_CORE_READ_STR_INTO(&run->comm, task, comm);
}

/* Who ran for the longest of [from, to]; else, where all ran for short, `last`. */
static void set_by(struct lin_stall *stall, const struct cpu *cpu, struct task_struct *last) {
    __u64 most = 0;
    stall->by_pid = 0;
    stall->by[0] = 0;
    for (int i = 0; i < LIN_STALL_RUNS; i++) {
        const struct run *run = &cpu->run[i];
        __u64 from = run->from > stall->from ? run->from : stall->from;
        __u64 to = run->to < stall->to ? run->to : stall->to;
        if (to <= from || to - from <= most)
            continue;
        most = to - from;
        stall->by_pid = run->pid;
        __builtin_memcpy(stall->by, run->comm, sizeof stall->by);
    }
    if (most != 0 || BPF_CORE_READ(last, pid) == 0)
        return;
    stall->by_pid = own_number(BPF_CORE_READ(last, group_leader));
    BPF_CORE_READ_STR_INTO(&stall->by, last, comm);
}

static unsigned state_of(struct task_struct *task) {
    if (bpf_core_field_exists(task->__state))
        return BPF_CORE_READ(task, __state);
    return (unsigned)BPF_CORE_READ((struct task_struct___old *)task, state);
}

static bool is_idle(int call) {
    for (int i = 0; i < LIN_STALL_CALLS; i++)
        if (idle_calls[i] == call)
            return true;
    return false;
}

#if defined(__TARGET_ARCH_x86)
/* Behind an exception, orig_ax is its error: a call is known by what entry leaves in ax. */
static int call_of(struct pt_regs *regs) {
    return (long)regs->ax == -ENOSYS ? (int)regs->orig_ax : -1;
}
#else
static int call_of(struct pt_regs *regs) { return BPF_CORE_READ(regs, syscallno); }
#endif

/* `task` is the current one, on its way into the kernel's scheduler. */
static void leaves(struct lin_stall_state *state, struct task_struct *task, bool preempted,
                   __u64 now) {
    unsigned why = state_of(task);
    state->now.from = now;
    state->ready = 0;
    if (preempted || why == 0) {
        state->now.kind = LIN_STALL_WAITED;
        state->ready = now;
        return;
    }
    state->now.kind = (why & TASK_STOPPED_OR_TRACED) != 0 ? LIN_STALL_STOPPED : LIN_STALL_BLOCKED;
    struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
    state->now.call = call_of(regs);
    if (state->now.kind == LIN_STALL_BLOCKED && !is_idle(state->now.call))
        bpf_probe_read_user(state->now.word, sizeof state->now.word, (void *)PT_REGS_SP(regs));
}

static void comes(struct lin_stall_state *state, const struct cpu *cpu, struct task_struct *before,
                  __u64 now) {
    struct lin_stall *stall = &state->now;
    if (stall->from == 0)
        return;
    stall->cpu = bpf_get_smp_processor_id();
    if (stall->kind != LIN_STALL_WAITED) {
        __u64 woken = state->ready != 0 ? state->ready : now;
        bool told = stall->kind == LIN_STALL_STOPPED
                        ? state->thread == LIN_STALL_SCHEDULER
                        : state->thread != LIN_STALL_DIRTY_IO && !is_idle(stall->call);
        if (told && woken - stall->from >= threshold_ns) {
            stall->to = woken;
            tell(stall);
        }
        stall->kind = LIN_STALL_WAITED;
        stall->from = woken;
    }
    if (now - stall->from >= threshold_ns) {
        stall->to = now;
        set_by(stall, cpu, before);
        tell(stall);
    }
    stall->from = 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next) {
    unsigned prev_tid = (unsigned)prev->pid, next_tid = (unsigned)next->pid;
    unsigned number = bpf_get_smp_processor_id();
    struct cpu *cpu = bpf_map_lookup_elem(&cpus, &number);
    if (!watching || cpu == NULL)
        return 0;
    __u64 now = bpf_ktime_get_ns();
    note_run(cpu, prev, now);
    struct lin_stall_state *state = bpf_map_lookup_elem(&threads, &prev_tid);
    if (state != NULL)
        leaves(state, prev, preempt, now);
    state = bpf_map_lookup_elem(&threads, &next_tid);
    if (state != NULL)
        comes(state, cpu, prev, now);
    return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *task) {
    unsigned tid = (unsigned)task->pid;
    struct lin_stall_state *state = bpf_map_lookup_elem(&threads, &tid);
    if (state != NULL && state->now.from != 0 && state->ready == 0)
        state->ready = bpf_ktime_get_ns();
    return 0;
}

static void left_library(struct lin_stall_state *state, unsigned tid) {
    if (state->lib != 0 && state->lib_to - state->lib_from >= threshold_ns) {
        struct lin_stall *out = bpf_ringbuf_reserve(&stalls, sizeof *out, 0);
        if (out == NULL) {
            __sync_fetch_and_add(&dropped, 1);
        } else {
            out->from = state->lib_from;
            out->to = state->lib_to;
            out->tid = tid;
            out->kind = LIN_STALL_BUSY;
            out->lib = state->lib;
            out->by_pid = 0;
            out->by[0] = 0;
            out->cpu = bpf_get_smp_processor_id();
            bpf_ringbuf_submit(out, BPF_RB_NO_WAKEUP);
        }
    }
    state->lib = 0;
}

/* Each millisecond of CPU of a scheduler: in whose code is it? */
SEC("perf_event")
int on_sample(struct bpf_perf_event_data *ctx) {
    unsigned tid = (unsigned)bpf_get_current_pid_tgid();
    struct lin_stall_state *state = bpf_map_lookup_elem(&threads, &tid);
    if (state == NULL || !watching)
        return 0;
    struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
    __u64 ip = PT_REGS_IP(regs), now = bpf_ktime_get_ns();
    for (int i = 0; i < LIN_STALL_RANGES; i++) {
        if (ip < ranges[i].from || ip >= ranges[i].to)
            continue;
        unsigned lib = ranges[i].lib;
        if (lib == 0) /* called from wherever it was */
            return 0;
        if (lib != state->lib) {
            left_library(state, tid);
            state->lib = lib;
            state->lib_from = now - LIN_STALL_PERIOD_NS;
        }
        state->lib_to = now;
        return 0;
    }
    left_library(state, tid);
    return 0;
}

/* The node's threads. */
SEC("iter/task")
int list_threads(struct bpf_iter__task *ctx) {
    struct task_struct *task = ctx->task;
    struct lin_stall_listed listed = {0};
    if (task == NULL)
        return 0;
    find_own_level();
    if (own_number(BPF_CORE_READ(task, group_leader)) != (unsigned)target_pid)
        return 0;
    listed.tid = (unsigned)task->pid;
    listed.own_tid = own_number(task);
    BPF_CORE_READ_STR_INTO(&listed.comm, task, comm);
    bpf_seq_write(ctx->meta->seq, &listed, sizeof listed);
    return 0;
}

#include "numbers.bpf.h"

#include <bpf/bpf_tracing.h>

#include "stalls.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define TASK_STOPPED_OR_TRACED (4 | 8)
#define TASK_ENDING (0x10 | 0x20 | 0x80)
#define ENOSYS 38

const volatile __u64 threshold_ns;
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
    __u64 since; /* the last switch, and to whom */
    unsigned pid, next;
    char comm[16];
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

/* Whether it took the threshold. Another CPU's clock may be a little behind. */
static bool lasted(__u64 from, __u64 to) { return to > from && to - from >= threshold_ns; }

/* `pid` 0 without a name: the idle task. */
static void name_of(struct task_struct *task, unsigned *pid, char comm[16]) {
    *pid = 0;
    comm[0] = 0;
    if (task->pid == 0)
        return;
    *pid = own_number(BPF_CORE_READ(task, group_leader));
    bpf_probe_read_kernel_str(comm, 16, task->comm);
}

/* `prev` leaves its CPU; its name is the one that it has now, after exec. */
static void note_run(struct cpu *cpu, struct task_struct *prev, struct task_struct *next,
                     __u64 now) {
    __u64 since = cpu->since;
    cpu->since = now;
    name_of(next, &cpu->pid, cpu->comm);
    if (since == 0 || now <= since || now - since < threshold_ns / 8)
        return;
    struct run *run = &cpu->run[cpu->next++ % LIN_STALL_RUNS];
    run->from = since;
    run->to = now;
    name_of(prev, &run->pid, run->comm);
}

/* Who ran for the longest of [from, to] on the CPU that was waited for; who runs there now, too. */
static void set_by(struct lin_stall *stall) {
    unsigned number = stall->cpu;
    struct cpu *cpu = bpf_map_lookup_elem(&cpus, &number);
    stall->by_pid = 0;
    stall->by[0] = 0;
    if (cpu == NULL)
        return;
    __u64 since = cpu->since > stall->from ? cpu->since : stall->from;
    __u64 most = stall->to > since ? stall->to - since : 0;
    if (most != 0) {
        stall->by_pid = cpu->pid;
        __builtin_memcpy(stall->by, cpu->comm, sizeof stall->by);
    }
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

static void left_library(struct lin_stall_state *state, unsigned tid) {
    if (state->lib != 0 && lasted(state->lib_from, state->lib_to)) {
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

/* `task` is the current one, on its way into the kernel's scheduler. */
static void leaves(struct lin_stall_state *state, struct task_struct *task, bool preempted,
                   __u64 now) {
    unsigned why = state_of(task);
    state->ready = 0;
    state->now.from = (why & TASK_ENDING) != 0 ? 0 : now;
    state->now.cpu = bpf_get_smp_processor_id();
    if (preempted || why == 0) {
        state->now.kind = LIN_STALL_WAITED;
        state->ready = now;
        return;
    }
    state->now.kind = (why & TASK_STOPPED_OR_TRACED) != 0 ? LIN_STALL_STOPPED : LIN_STALL_BLOCKED;
    struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
    state->now.call = call_of(regs);
    if (state->now.kind != LIN_STALL_BLOCKED)
        return;
    left_library(state, (unsigned)task->pid);
    if (!is_idle(state->now.call))
        bpf_probe_read_user(state->now.word, sizeof state->now.word, (void *)PT_REGS_SP(regs));
}

static void comes(struct lin_stall_state *state, __u64 now) {
    struct lin_stall *stall = &state->now;
    if (stall->from == 0)
        return;
    if (stall->kind != LIN_STALL_WAITED) {
        __u64 woken = state->ready != 0 ? state->ready : now;
        bool told = stall->kind == LIN_STALL_STOPPED
                        ? state->thread == LIN_STALL_SCHEDULER
                        : state->thread != LIN_STALL_DIRTY_IO && !is_idle(stall->call);
        if (told && lasted(stall->from, woken)) {
            stall->to = woken;
            tell(stall);
        }
        stall->kind = LIN_STALL_WAITED;
        stall->from = woken;
    }
    if (lasted(stall->from, now)) {
        stall->to = now;
        set_by(stall);
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
    __u64 now = bpf_ktime_get_ns(), since = cpu->since;
    struct lin_stall_state *state = bpf_map_lookup_elem(&threads, &prev_tid);
    /* Now and then a kernel tells nothing of a switch: then it came at the one before, or later. */
    if (state != NULL && state->now.from != 0)
        comes(state, since);
    note_run(cpu, prev, next, now);
    if (state != NULL)
        leaves(state, prev, preempt, now);
    state = bpf_map_lookup_elem(&threads, &next_tid);
    if (state != NULL)
        comes(state, now);
    return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(on_wakeup, struct task_struct *task) {
    unsigned tid = (unsigned)task->pid;
    struct lin_stall_state *state = bpf_map_lookup_elem(&threads, &tid);
    if (state == NULL || state->now.from == 0 || state->ready != 0)
        return 0;
    state->ready = bpf_ktime_get_ns();
    state->now.cpu = BPF_CORE_READ(task, thread_info.cpu);
    return 0;
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
    look_for_node(task);
    if (own_number(BPF_CORE_READ(task, group_leader)) != target_pid)
        return 0;
    listed.tid = (unsigned)task->pid;
    listed.own_tid = own_number(task);
    BPF_CORE_READ_STR_INTO(&listed.comm, task, comm);
    bpf_seq_write(ctx->meta->seq, &listed, sizeof listed);
    return 0;
}

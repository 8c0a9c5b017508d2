#include "numbers.bpf.h"

#include <bpf/bpf_tracing.h>

#include "census.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Set before loading: whether each is told, or counted only. */
const volatile bool telling;

/* Writer: the program outside. What happens before it is set, and behind, is not counted. */
bool counting;

__u64 births, failed, deaths, dropped;

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4096); /* its size is an option */
} seen SEC(".maps");

static void tell(u64 pid, u64 flags) {
    struct lin_seen *out;
    if (!telling)
        return;
    out = bpf_ringbuf_reserve(&seen, sizeof *out, 0);
    if (out == NULL) {
        __sync_fetch_and_add(&dropped, 1);
        return;
    }
    out->pid = pid;
    out->at = bpf_ktime_get_ns() | flags;
    /* Nobody is woken for each: the reader comes by the clock. */
    bpf_ringbuf_submit(out, BPF_RB_NO_WAKEUP);
}

SEC("iter/task")
int find_node(struct bpf_iter__task *ctx) {
    struct task_struct *task = ctx->task;
    if (task != NULL)
        look_for_node(task);
    return 0;
}

/* Older kernels run this for whoever has the same file mapped and is watched by another. */
SEC("uretprobe")
int create_returns(struct pt_regs *ctx) {
    u64 pid = PT_REGS_RC(ctx);
    if (!counting || (unsigned)(bpf_get_current_pid_tgid() >> 32) != node_id)
        return 0;
    if (pid == 0) { /* THE_NON_VALUE */
        __sync_fetch_and_add(&failed, 1);
        return 0;
    }
    __sync_fetch_and_add(&births, 1);
    tell(pid, 0);
    return 0;
}

SEC("uprobe")
int exits(struct pt_regs *ctx) {
    u64 pid = 0;
    if (!counting)
        return 0;
    __sync_fetch_and_add(&deaths, 1);
    /* A Process begins with its id. */
    bpf_probe_read_user(&pid, sizeof pid, (void *)PT_REGS_PARM1(ctx));
    tell(pid, LIN_SEEN_DEATH);
    return 0;
}

#include "numbers.bpf.h"

#include <bpf/bpf_tracing.h>

#include "ospids.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

__u64 dropped;

/* The family, by `id`: who is in it. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __type(key, unsigned);
    __type(value, unsigned);
} family SEC(".maps");

/* Between a call of erts_open_driver and its return, by thread; and the owners of ports, by where
 * the port lies, until it has its OS process. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, __u64);
    __type(value, __u64);
} opening SEC(".maps"), owners SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} events SEC(".maps");

static void tell(const struct lin_os_event *event) {
    if (bpf_ringbuf_output(&events, (void *)event, sizeof *event, BPF_RB_NO_WAKEUP) != 0)
        __sync_fetch_and_add(&dropped, 1);
}

static unsigned inner_number(struct task_struct *task) {
    return (unsigned)number_at(BPF_CORE_READ(task, thread_pid), node_level).nr;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child) {
    unsigned id = (unsigned)child->tgid, parent_id = (unsigned)parent->tgid;
    if (child->pid != child->tgid || bpf_map_lookup_elem(&family, &parent_id) == NULL)
        return 0;
    if (bpf_map_update_elem(&family, &id, &parent_id, BPF_ANY) != 0)
        __sync_fetch_and_add(&dropped, 1);
    struct lin_os_event event = {.what = LIN_OS_FORK,
                                 .id = id,
                                 .parent = parent_id,
                                 .own = own_number(child),
                                 .inner = inner_number(child),
                                 .started_ns = child->start_boottime};
    tell(&event);
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task) {
    unsigned id = (unsigned)task->tgid;
    /* Of its last thread. */
    if (BPF_CORE_READ(task, signal, live.counter) != 0 || bpf_map_delete_elem(&family, &id) != 0)
        return 0;
    struct lin_os_event event = {.what = LIN_OS_EXIT, .id = id};
    tell(&event);
    return 0;
}

SEC("iter/task")
int list_processes(struct bpf_iter__task *ctx) {
    struct task_struct *task = ctx->task;
    if (task == NULL || task->pid != task->tgid)
        return 0;
    look_for_node(task);
    struct lin_os_listed listed = {.id = (unsigned)task->tgid,
                                   .parent = (unsigned)BPF_CORE_READ(task, real_parent, tgid),
                                   .own = own_number(task),
                                   .inner = inner_number(task),
                                   .started_ns = task->start_boottime};
    BPF_CORE_READ_STR_INTO(&listed.comm, task, comm);
    bpf_seq_write(ctx->meta->seq, &listed, sizeof listed);
    return 0;
}

SEC("uprobe")
int open_driver(struct pt_regs *ctx) {
    __u64 thread = bpf_get_current_pid_tgid(), owner = PT_REGS_PARM2(ctx);
    bpf_map_update_elem(&opening, &thread, &owner, BPF_ANY);
    return 0;
}

SEC("uretprobe")
int open_driver_returns(struct pt_regs *ctx) {
    __u64 thread = bpf_get_current_pid_tgid(), port = PT_REGS_RC(ctx);
    __u64 *owner = bpf_map_lookup_elem(&opening, &thread);
    if (owner != NULL && port != 0 && (unsigned)(thread >> 32) == node_id)
        bpf_map_update_elem(&owners, &port, owner, BPF_ANY);
    bpf_map_delete_elem(&opening, &thread);
    return 0;
}

SEC("uprobe")
int set_os_pid(struct pt_regs *ctx) {
    __u64 port = PT_REGS_PARM1(ctx);
    __u64 *owner = bpf_map_lookup_elem(&owners, &port);
    if (owner == NULL)
        return 0;
    struct lin_os_event event = {
        .what = LIN_OS_OWNER, .inner = (unsigned)PT_REGS_PARM2(ctx), .owner = *owner};
    bpf_map_delete_elem(&owners, &port);
    tell(&event);
    return 0;
}

/*
 * numbers.bpf.h - a process's numbers, for the programs in the kernel.
 *
 * Model: a process has one in each pid namespace from the outermost to its own; the kernel's own is
 * the first. The probe's namespace is at `own_level` and has the inode `own_ns`. An iterator, which
 * runs in the probe, finds that level, the node's number as the kernel has it, and the level of the
 * node's namespace.
 */
#ifndef LIN_PROBE_NUMBERS_H
#define LIN_PROBE_NUMBERS_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* Set before loading: the node's number in the probe's namespace, and that one's inode. */
const volatile unsigned target_pid, own_ns;

/* Writer: the iterator. */
unsigned own_level, node_level, node_id;

static struct upid number_at(struct pid *pid, unsigned level) {
    struct upid upid = {0};
    if (pid != NULL && BPF_CORE_READ(pid, level) >= level)
        bpf_probe_read_kernel(&upid, sizeof upid,
                              (char *)pid + bpf_core_field_offset(struct pid, numbers) +
                                  level * sizeof upid);
    return upid;
}

/* A task's number in the probe's namespace; 0: it is not in it. */
static unsigned own_number(struct task_struct *task) {
    struct upid upid = number_at(BPF_CORE_READ(task, thread_pid), own_level);
    return upid.ns != NULL && BPF_CORE_READ(upid.ns, ns.inum) == own_ns ? (unsigned)upid.nr : 0;
}

/* For each task that the iterator comes by. */
static void look_for_node(struct task_struct *task) {
    struct task_struct *self = (struct task_struct *)bpf_get_current_task();
    own_level = BPF_CORE_READ(self, thread_pid, level);
    if (task->pid != task->tgid || own_number(task) != target_pid)
        return;
    node_id = (unsigned)task->tgid;
    node_level = BPF_CORE_READ(task, thread_pid, level);
}

#endif

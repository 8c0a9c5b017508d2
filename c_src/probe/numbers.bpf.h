/*
 * numbers.bpf.h - a process's numbers, for the programs in the kernel.
 *
 * Model: a process has one in each pid namespace from the outermost to its own. The probe's
 * namespace is at `own_level` (found by an iterator, which runs in the probe) and has the inode
 * `own_ns`.
 */
#ifndef LIN_PROBE_NUMBERS_H
#define LIN_PROBE_NUMBERS_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

const volatile unsigned own_ns;
unsigned own_level;

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

static void find_own_level(void) {
    struct task_struct *self = (struct task_struct *)bpf_get_current_task();
    own_level = BPF_CORE_READ(self, thread_pid, level);
}

#endif

/*
 * ospids.h - what the programs in the kernel say of the processes below a node's erl_child_setup.
 *
 * Model: whoever is forked by a process of the family is of the family, whoever adopts it later. An
 * iterator tells all processes there are, events what changes after. Of each port the VM tells, as
 * it gives it its OS process, whose port it is. Numbers of processes: `id` as the kernel has it,
 * `own` as the probe's pid namespace has it, `inner` as the process's own, which is the node's.
 */
#ifndef LIN_PROBE_OSPIDS_H
#define LIN_PROBE_OSPIDS_H

enum lin_os_what { LIN_OS_FORK = 1, LIN_OS_EXIT, LIN_OS_OWNER };

struct lin_os_event {
    unsigned what, id, parent, own, inner;
    unsigned unused;
    unsigned long long started_ns; /* since boot */
    unsigned long long owner;      /* LIN_OS_OWNER: the owner's pid, a term; `inner` is whose */
};

struct lin_os_listed {
    unsigned id, parent, own, inner;
    unsigned long long started_ns;
    char comm[16];
};

#endif

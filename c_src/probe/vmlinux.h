/*
 * vmlinux.h - of the kernel's types, those that the probe's programs read, and of those the fields.
 *
 * Model: CO-RE finds each field in the BTF of the kernel that the probe is loaded into, by its
 * name: what else a struct holds, and where, differs from kernel to kernel and does not matter
 * here. pt_regs alone is what the machine's ABI makes it, and is whole.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __s64 s64;
typedef __u64 u64;
typedef _Bool bool;
enum { false, true };

enum bpf_map_type {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_LRU_HASH = 9,
    BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_ANY = 0 };
enum { BPF_RB_NO_WAKEUP = 1 };
#define NULL ((void *)0)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
        flags, sp, ss;
};
typedef struct pt_regs bpf_user_pt_regs_t;
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
    u64 regs[31], sp, pc, pstate;
};
struct pt_regs {
    struct user_pt_regs user_regs;
    u64 orig_x0;
    s32 syscallno;
} __attribute__((preserve_access_index));
typedef struct user_pt_regs bpf_user_pt_regs_t;
#else
#error "the probe is written for x86-64 and arm64"
#endif

struct bpf_perf_event_data {
    bpf_user_pt_regs_t regs;
    u64 sample_period, addr;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
    unsigned int inum;
};

struct pid_namespace {
    struct ns_common ns;
};

struct upid {
    int nr;
    struct pid_namespace *ns;
};

struct pid {
    unsigned int level;
    struct upid numbers[1];
};

typedef struct {
    int counter;
} atomic_t;

struct signal_struct {
    atomic_t live;
};

struct thread_info {
    u32 cpu;
};

struct task_struct {
    struct thread_info thread_info;
    unsigned int __state;
    int pid, tgid;
    struct task_struct *real_parent;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    struct signal_struct *signal;
    u64 start_boottime;
    char comm[16];
};

/* Before Linux 5.14. */
struct task_struct___old {
    long state;
};

struct seq_file;

struct bpf_iter_meta {
    struct seq_file *seq;
};

struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
};

#pragma clang attribute pop

#endif

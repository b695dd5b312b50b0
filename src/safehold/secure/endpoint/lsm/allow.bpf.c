// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
// Only listed content is executed or mapped as code: a BPF LSM program (Linux 5.11 and later).
//
// A file is known by device, inode, generation, change time and size; the loader puts a key into
// the map after it has hashed the file under a lease. What is not in the map is refused, also when
// the loader is dead: its links are pinned. Built by scripts/bpf-object; the object is shipped.
// Types are named here, not taken from a kernel: CO-RE finds the fields in the kernel at hand.
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL"; // the kernel asks for it before it lends its helpers

#define EPERM 1
#define PROT_EXEC 4
#define KNOWN __attribute__((preserve_access_index))

struct super_block { unsigned int s_dev; } KNOWN;
struct timespec64 { long tv_sec; long tv_nsec; } KNOWN;
struct inode { unsigned long i_ino; unsigned int i_generation; long i_size; struct super_block *i_sb; } KNOWN;
// The change time has two forms: one struct until 6.12, two fields since.
struct inode___one { struct timespec64 i_ctime; } KNOWN;
struct inode___mid { struct timespec64 __i_ctime; } KNOWN;
struct inode___two { long i_ctime_sec; unsigned int i_ctime_nsec; } KNOWN;
struct file { struct inode *f_inode; } KNOWN;
struct linux_binprm { struct file *file; } KNOWN;
struct vm_area_struct { struct file *vm_file; } KNOWN;

struct key { __u64 device; __u64 inode; __u64 seconds; __u32 nanoseconds; __u32 generation; __u64 size; };
struct settings { __u32 mode; __u32 nameless; __u64 cgroup; }; // mode 0 off, 1 audit, 2 enforce
struct miss { __u32 pid; __u32 hook; __u64 device; __u64 inode; char name[16]; };

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 262144); __type(key, struct key); __type(value, __u32); __uint(map_flags, BPF_F_NO_PREALLOC); } allowed SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct settings); } configured SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 18); } missed SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); } counted SEC(".maps");

static __always_inline struct settings *in_scope(void)
{
    __u32 zero = 0;
    struct settings *now = bpf_map_lookup_elem(&configured, &zero);
    if (!now || !now->mode)
        return 0;
    if (now->cgroup && bpf_get_current_ancestor_cgroup_id(1) != now->cgroup)
        return 0;
    return now;
}

static __always_inline void count(__u32 which)
{
    __u64 *so_far = bpf_map_lookup_elem(&counted, &which);
    if (so_far)
        __sync_fetch_and_add(so_far, 1);
}

static __always_inline int refuse(struct settings *now, __u32 hook, __u64 device, __u64 inode)
{
    count(1);
    struct miss *told = bpf_ringbuf_reserve(&missed, sizeof(*told), 0);
    if (told) {
        told->pid = bpf_get_current_pid_tgid() >> 32;
        told->hook = hook;
        told->device = device;
        told->inode = inode;
        bpf_get_current_comm(told->name, sizeof(told->name));
        bpf_ringbuf_submit(told, 0);
    }
    return now->mode == 2 ? -EPERM : 0;
}

static __always_inline int judge(struct file *file, __u32 hook)
{
    struct settings *now = in_scope();
    if (!now)
        return 0;
    count(0);
    struct inode *inode = file->f_inode;
    struct key key = {};
    key.device = inode->i_sb->s_dev;
    key.inode = inode->i_ino;
    key.generation = inode->i_generation;
    key.size = inode->i_size;
    struct inode___two *two = (void *)inode;
    struct inode___mid *mid = (void *)inode;
    struct inode___one *one = (void *)inode;
    if (bpf_core_field_exists(two->i_ctime_sec)) {
        key.seconds = BPF_CORE_READ(two, i_ctime_sec);
        key.nanoseconds = BPF_CORE_READ(two, i_ctime_nsec) & 0x7fffffff; // bit 31 is a flag since 6.13
    } else if (bpf_core_field_exists(mid->__i_ctime)) {
        key.seconds = BPF_CORE_READ(mid, __i_ctime.tv_sec);
        key.nanoseconds = BPF_CORE_READ(mid, __i_ctime.tv_nsec);
    } else {
        key.seconds = BPF_CORE_READ(one, i_ctime.tv_sec);
        key.nanoseconds = BPF_CORE_READ(one, i_ctime.tv_nsec);
    }
    if (bpf_map_lookup_elem(&allowed, &key))
        return 0;
    return refuse(now, hook, key.device, key.inode);
}

static __always_inline int judge_mapping(struct file *file, __u32 hook)
{
    if (file)
        return judge(file, hook);
    struct settings *now = in_scope();
    return now && now->nameless ? refuse(now, hook, 0, 0) : 0;
}

SEC("lsm/bprm_check_security")
int BPF_PROG(on_exec, struct linux_binprm *program, int before)
{
    return before ? before : judge(program->file, 0);
}

SEC("lsm/mmap_file")
int BPF_PROG(on_map, struct file *file, unsigned long asked, unsigned long given, unsigned long flags, int before)
{
    return before || !(given & PROT_EXEC) ? before : judge_mapping(file, 1);
}

SEC("lsm/file_mprotect")
int BPF_PROG(on_protect, struct vm_area_struct *area, unsigned long asked, unsigned long given, int before)
{
    return before || !(given & PROT_EXEC) ? before : judge_mapping(area->vm_file, 2);
}

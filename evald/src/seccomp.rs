//! The system-call filters of a sample, rule by rule.
//!
//! Three filters are stacked; for every call the kernel takes the strictest answer:
//! 1. *red flags* kill the process (verdict `policy_violation`): no honest sample makes these calls;
//! 2. *new processes* fail with EAGAIN, as if the process limit were reached, so that Python raises and reports;
//! 3. the *allow list*: what is not on it fails with ENOSYS, as if the kernel had never heard of it.
//!
//! In T4 the last list is a short one: a machine that runs needs hardly anything.
//!
//! Arguments behind pointers cannot be seen by a filter: paths are the business of mounts and Landlock.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::tier::Tier;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The compiled filters, in the order in which they are applied.
pub struct Filters {
    programs: Vec<BpfProgram>,
}

impl Filters {
    /// Compiles the filters for a sample that will see itself as `own_pid` (1 in a pid namespace of its own).
    ///
    /// # Errors
    /// The architecture is not one that seccompiler knows.
    pub fn compile(tier: Tier, own_pid: i32) -> Result<Self, String> {
        let filter = |rules: Rules, other, listed| -> Result<BpfProgram, String> {
            let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
            let filter = SeccompFilter::new(rules, other, listed, arch).map_err(|error| error.to_string())?;
            filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
        };
        let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
        let eagain = SeccompAction::Errno(libc::EAGAIN as u32);
        Ok(Self {
            programs: vec![
                filter(red_flags()?, SeccompAction::Allow, SeccompAction::KillProcess)?,
                filter(new_processes()?, SeccompAction::Allow, eagain)?,
                filter(
                    if tier == Tier::T4 { allowed_machine()? } else { allowed(tier, own_pid)? },
                    enosys,
                    SeccompAction::Allow,
                )?,
            ],
        })
    }

    /// Puts the calling thread, and all that it starts, under the filters for good. Sets no_new_privs.
    ///
    /// # Errors
    /// As seccomp(2).
    pub fn apply(&self) -> Result<(), String> {
        self.programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program).map_err(|e| e.to_string()))
    }
}

/// A rule that matches when argument `index`, seen as 32 or 64 bits, compares so.
fn when(index: u8, length: SeccompCmpArgLen, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(index, length, op, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())
}

fn equal(index: u8, value: u64) -> Result<SeccompRule, String> {
    when(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn has_flag(index: u8, flag: u64) -> Result<SeccompRule, String> {
    when(index, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)
}

fn red_flags() -> Result<Rules, String> {
    let mut rules = Rules::new();
    for call in RED_FLAGS {
        rules.insert(*call, Vec::new());
    }
    // clone with a namespace flag: only an attack on the namespaces does that.
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let flags = namespaces.iter().map(|flag| has_flag(0, *flag as u64)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, flags);
    // Typing into the terminal of whoever started us; talking to the virtual console.
    rules.insert(libc::SYS_ioctl, vec![equal(1, libc::TIOCSTI)?, equal(1, libc::TIOCLINUX)?]);
    Ok(rules)
}

/// Calls that kill: escalation, other processes' memory, mounts, kernel code, kernel interfaces with a history of holes.
const RED_FLAGS: &[c_long] = &[
    // Becoming another program: nothing in the sandbox is meant to be run.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Kernel interfaces with a history of holes.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Key rings outlive processes and belong to users, not to namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

fn new_processes() -> Result<Rules, String> {
    let mut rules = Rules::new();
    let thread = libc::CLONE_THREAD as u64;
    let not_a_thread = when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![not_a_thread]);
    #[cfg(target_arch = "x86_64")]
    {
        rules.insert(libc::SYS_fork, Vec::new());
        rules.insert(libc::SYS_vfork, Vec::new());
    }
    Ok(rules)
}

fn allowed(tier: Tier, own_pid: i32) -> Result<Rules, String> {
    let mut rules = Rules::new();
    for call in ALLOWED {
        rules.insert(*call, Vec::new());
    }
    let own_pid = own_pid as u64;
    // Signals to ourselves only; in T3 there is no pid namespace that would hide the others.
    rules.insert(libc::SYS_kill, vec![equal(0, own_pid)?]);
    rules.insert(libc::SYS_tgkill, vec![equal(0, own_pid)?]);
    rules.insert(libc::SYS_prlimit64, vec![equal(0, 0)?, equal(0, own_pid)?]);
    // Scheduling of ourselves only (libraries ask how many processors they may use).
    for call in [libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getscheduler] {
        let rule = [equal(0, 0)?, equal(0, own_pid)?];
        // In its own pid namespace every id is one of our threads.
        rules.insert(call, if tier == Tier::T3 { rule.into() } else { Vec::new() });
    }
    // Names of threads; nothing else of prctl.
    rules.insert(
        libc::SYS_prctl,
        vec![equal(0, libc::PR_SET_NAME as u64)?, equal(0, libc::PR_GET_NAME as u64)?],
    );
    // Terminal queries (isatty) and what sockets and pipes need.
    let ioctls = [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX];
    rules.insert(
        libc::SYS_ioctl,
        ioctls.into_iter().map(|request| equal(1, request)).collect::<Result<_, _>>()?,
    );
    // No F_GETLK, leases, notifications or pipe sizes: a lock on a shared library file could carry a message from one
    // sample to the next. Write locks need a writable file, hence one's own; flock(2) does not, so it is left out.
    let fcntls = [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_SETLK,
        libc::F_SETLKW,
    ];
    rules.insert(
        libc::SYS_fcntl,
        fcntls.iter().map(|command| equal(1, *command as u64)).collect::<Result<_, _>>()?,
    );
    // No sockets but a pair with oneself (asyncio's event loop needs one), and no address to send to.
    rules.insert(libc::SYS_socketpair, vec![equal(0, libc::AF_UNIX as u64)?]);
    rules.insert(libc::SYS_sendto, vec![when(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?]);
    Ok(rules)
}

/// T4: what a WebAssembly machine and the functions that it calls need. Nothing opens a file, and no memory becomes
/// executable: the machine code was mapped before.
fn allowed_machine() -> Result<Rules, String> {
    let mut rules = Rules::new();
    for call in ALLOWED_MACHINE {
        rules.insert(*call, Vec::new());
    }
    let not_executable =
        || when(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    Ok(rules)
}

/// All that T4 needs beside `mmap` and `mprotect`.
const ALLOWED_MACHINE: &[c_long] = &[
    // Its record and its output.
    libc::SYS_write,
    // Its memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Its clocks, its sleep, its random bytes.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    // A trap is a signal that is caught.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    // Locks, and the end.
    libc::SYS_futex,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls that are harmless within the walls. Paths meet a read-only root and Landlock; memory and files meet rlimits.
const ALLOWED: &[c_long] = &[
    // Reading and writing.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    // Files.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_umask,
    // Extended attributes are read when a file is copied (shutil.copy2).
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    // Waiting on one's own descriptors.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // Memory. No memfd_create: its pages count against nothing here.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    // Signals of one's own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Threads: clone is narrowed to threads by the other two filters; clone3 is unknown (its flags cannot be seen), so
    // that the C library falls back to clone.
    libc::SYS_clone,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // There is nobody to wait for, but asking is no crime.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Who and where one is.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getpriority,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    // The older names of calls above.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getdents,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_alarm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pause,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getpgrp,
    // Let through here so that the second filter's EAGAIN is the answer.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_a_red_flag() {
        for call in RED_FLAGS {
            assert!(!ALLOWED.contains(call) && !ALLOWED_MACHINE.contains(call), "system call {call}");
        }
    }

    #[test]
    fn filters_compile_for_every_tier() {
        for tier in Tier::ALL {
            let filters = Filters::compile(tier, 1).expect("compiled");
            assert!(filters.programs.iter().all(|program| program.len() < 4096));
        }
    }
}

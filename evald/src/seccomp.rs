//! The system-call filters of a sample, rule by rule.
//!
//! Four filters are stacked; for every call the kernel takes the strictest answer:
//! 1. *red flags* kill the process (verdict `policy_violation`): no honest sample makes these calls;
//! 2. *new processes*, where a sample may have none, fail with [`REFUSED`], by which the harness knows what it was;
//! 3. *asked*: calls whose arguments no filter can judge wait for the slot's answer (see [`crate::broker`]);
//! 4. the *allow list*: what is not on it fails with ENOSYS, as if the kernel had never heard of it.
//!
//! In T4 the last list is a short one, and nothing is asked: a machine that runs needs hardly anything.
//!
//! Arguments behind pointers cannot be seen by a filter: paths are the business of mounts, Landlock and the broker.

mod calls;

use std::collections::BTreeMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

pub(crate) use calls::SYS_FCHMODAT2;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::tier::Tier;
use calls::{ALLOWED, ALLOWED_MACHINE, ATTRIBUTES, EXEC, LOADING, OWN_PROCESSES, RED_FLAGS, SOCKETS};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What a call for a new process is answered with where a sample may have none. Not EAGAIN: a read that would block says
/// that too, and nothing but these filters says this.
pub const REFUSED: i32 = libc::EUSERS;

/// What filters depend on.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The walls around them.
    pub tier: Tier,
    /// Whether the sample may have further processes.
    pub processes: bool,
    /// The only process that it may signal; `None` where something else keeps it from the others (a pid namespace,
    /// Landlock's scopes).
    pub signals: Option<i32>,
}

/// The compiled filters.
pub struct Filters {
    /// In the order in which they are applied.
    programs: Vec<BpfProgram>,
    /// Applied first of all; `None` in T4.
    asked: Option<BpfProgram>,
}

impl Filters {
    /// Compiles the filters of a sample.
    ///
    /// # Errors
    /// The architecture is not one that seccompiler knows.
    pub fn compile(policy: Policy) -> Result<Self, String> {
        let filter = |rules: Rules, other, listed| -> Result<BpfProgram, String> {
            let arch = std::env::consts::ARCH.try_into().map_err(|error| format!("{error}"))?;
            let filter = SeccompFilter::new(rules, other, listed, arch).map_err(|error| error.to_string())?;
            filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
        };
        let machine = policy.tier == Tier::T4;
        let mut programs =
            vec![filter(red_flags(policy)?, SeccompAction::Allow, SeccompAction::KillProcess)?];
        if !policy.processes || machine {
            let refused = SeccompAction::Errno(REFUSED as u32);
            programs.push(filter(new_processes()?, SeccompAction::Allow, refused)?);
        }
        let allowed = if machine { allowed_machine()? } else { allowed(policy)? };
        let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
        programs.push(filter(allowed, enosys, SeccompAction::Allow)?);
        let asked = if machine {
            None
        } else {
            // The crate knows no such action: another that is used nowhere else stands for it until here.
            let mut program = filter(asked(policy)?, SeccompAction::Allow, SeccompAction::Trace(0))?;
            for line in program.iter_mut().filter(|line| u32::from(line.code) == libc::BPF_RET | libc::BPF_K)
            {
                if line.k == libc::SECCOMP_RET_TRACE {
                    line.k = libc::SECCOMP_RET_USER_NOTIF;
                }
            }
            Some(program)
        };
        Ok(Self { programs, asked })
    }

    /// Puts the calling thread, and all that it starts, under the filters for good. Sets no_new_privs. Gives the end at
    /// which the asked calls are answered, for somebody outside; `hand_over` passes that on, and the filters that follow
    /// may forbid what it takes.
    ///
    /// # Errors
    /// As seccomp(2), or as `hand_over`.
    pub fn apply(&self, hand_over: impl FnOnce(OwnedFd) -> Result<(), String>) -> Result<(), String> {
        if let Some(program) = &self.asked {
            hand_over(listen(program)?)?;
        }
        self.programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program).map_err(|e| e.to_string()))
    }
}

/// Applies a filter some of whose calls are answered at the descriptor that it returns.
fn listen(program: &BpfProgram) -> Result<OwnedFd, String> {
    let text = || std::io::Error::last_os_error().to_string();
    let length = u16::try_from(program.len()).map_err(|error| error.to_string())?;
    // `repr(C)` twins of the same kernel struct.
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(text());
    }
    // SAFETY: the kernel reads `length` instructions, which live on; it writes nothing.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    if listener < 0 {
        return Err(text());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
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

fn red_flags(policy: Policy) -> Result<Rules, String> {
    let mut rules = Rules::new();
    let exec = if policy.processes { &[] } else { EXEC };
    for call in RED_FLAGS.iter().chain(exec) {
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

/// What the slot is asked about (see [`crate::broker`]).
fn asked(policy: Policy) -> Result<Rules, String> {
    let mut rules = Rules::new();
    // A lock on a file that all samples can read would carry a message from one to another.
    rules.insert(libc::SYS_flock, Vec::new());
    let questions = [libc::F_GETLK, libc::F_OFD_GETLK, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
    rules.insert(
        libc::SYS_fcntl,
        questions.into_iter().map(|command| equal(1, command as u64)).collect::<Result<_, _>>()?,
    );
    if policy.tier == Tier::T3 {
        // The files of the daemon's user are in reach there, and no other limit counts one sample's threads.
        for call in ATTRIBUTES.iter().chain(&[libc::SYS_clone, libc::SYS_bind, libc::SYS_connect]) {
            rules.insert(*call, Vec::new());
        }
        #[cfg(target_arch = "x86_64")]
        for call in [libc::SYS_fork, libc::SYS_vfork] {
            rules.insert(call, Vec::new());
        }
    } else {
        // Its network is renewed behind a sample that used it.
        rules.insert(
            libc::SYS_socket,
            vec![equal(0, libc::AF_INET as u64)?, equal(0, libc::AF_INET6 as u64)?],
        );
    }
    Ok(rules)
}

fn allowed(policy: Policy) -> Result<Rules, String> {
    let mut rules = Rules::new();
    let exec = if policy.processes { [EXEC, LOADING].concat() } else { Vec::new() };
    for call in ALLOWED.iter().chain(ATTRIBUTES).chain(&exec) {
        rules.insert(*call, Vec::new());
    }
    rules.insert(libc::SYS_flock, Vec::new());
    if policy.tier.has_namespaces() {
        for call in SOCKETS.iter().chain(OWN_PROCESSES) {
            rules.insert(*call, Vec::new());
        }
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
        rules.insert(
            libc::SYS_socket,
            families.into_iter().map(|family| equal(0, family as u64)).collect::<Result<_, _>>()?,
        );
        rules.insert(libc::SYS_socketpair, vec![equal(0, libc::AF_UNIX as u64)?]);
    } else {
        share_the_host(&mut rules, policy)?;
    }
    // Scheduling: libraries ask how many processors they may use, of themselves and of their threads.
    for call in [libc::SYS_sched_getaffinity, libc::SYS_sched_getscheduler, libc::SYS_sched_getparam] {
        rules.insert(call, Vec::new());
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
    // No leases and no notifications. Write locks need a writable file, hence one's own.
    let fcntls = [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETLK,
        libc::F_SETLK,
        libc::F_SETLKW,
        libc::F_OFD_GETLK,
        libc::F_OFD_SETLK,
        libc::F_OFD_SETLKW,
        F_GETPIPE_SZ,
    ];
    rules.insert(
        libc::SYS_fcntl,
        fcntls.iter().map(|command| equal(1, *command as u64)).collect::<Result<_, _>>()?,
    );
    // Named pipes and sockets, no devices (which would take a capability too).
    let kinds = [libc::S_IFIFO, libc::S_IFREG, 0, libc::S_IFSOCK];
    let kinds = |index: u8| -> Result<Vec<SeccompRule>, String> {
        let one = |kind: u32| {
            let format = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
            when(index, SeccompCmpArgLen::Dword, format, u64::from(kind))
        };
        kinds.into_iter().map(one).collect()
    };
    rules.insert(libc::SYS_mknodat, kinds(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, kinds(1)?);
    Ok(rules)
}

/// `F_GETPIPE_SZ` of linux/fcntl.h.
const F_GETPIPE_SZ: i32 = 1032;

/// T3: processes and sockets of the host can be named there, so that only what stays with oneself is allowed.
fn share_the_host(rules: &mut Rules, policy: Policy) -> Result<(), String> {
    let signals = [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo];
    for call in signals {
        let only = policy.signals.map(|pid| equal(0, pid as u64)).transpose()?;
        rules.insert(call, only.into_iter().collect());
    }
    rules.insert(libc::SYS_prlimit64, vec![equal(0, 0)?]);
    rules.insert(libc::SYS_sched_setaffinity, vec![equal(0, 0)?]);
    // PRIO_PROCESS, of oneself.
    let myself = SeccompRule::new(
        [0u8, 1]
            .into_iter()
            .map(|index| SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?,
    );
    rules.insert(libc::SYS_setpriority, vec![myself.map_err(|error| error.to_string())?]);
    // Streams and their like alone: a datagram can be sent to any name. Whom they are connected to is asked.
    let streams = |index: u8| -> Result<Vec<SeccompRule>, String> {
        let of = |kind: i32| {
            let family =
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::AF_UNIX as u64);
            let kind = SeccompCondition::new(
                index,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::MaskedEq(0xf),
                kind as u64,
            );
            let both = [family, kind].into_iter().collect::<Result<Vec<_>, _>>();
            both.and_then(SeccompRule::new).map_err(|error| error.to_string())
        };
        [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].into_iter().map(of).collect()
    };
    rules.insert(libc::SYS_socketpair, streams(1)?);
    rules.insert(libc::SYS_socket, streams(1)?);
    for call in [libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect] {
        rules.insert(call, Vec::new());
    }
    rules.insert(libc::SYS_sendto, vec![when(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?]);
    Ok(())
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
    // A program's standard input, and nothing else.
    rules.insert(libc::SYS_read, vec![when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?]);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_a_red_flag() {
        let lists = [ALLOWED, ALLOWED_MACHINE, ATTRIBUTES, SOCKETS, OWN_PROCESSES];
        for call in RED_FLAGS.iter().chain(EXEC) {
            assert!(!lists.iter().any(|list| list.contains(call)), "system call {call}");
        }
    }

    #[test]
    fn filters_compile_for_every_tier() {
        for tier in Tier::ALL {
            for processes in [false, true] {
                for signals in [None, Some(1)] {
                    let filters = Filters::compile(Policy { tier, processes, signals }).expect("compiled");
                    let all = filters.programs.iter().chain(&filters.asked);
                    assert!(all.clone().all(|program| program.len() < 4096));
                    // What stands for an action that the crate does not know has been replaced everywhere.
                    assert!(!all.flatten().any(|line| line.k == libc::SECCOMP_RET_TRACE));
                }
            }
        }
    }
}

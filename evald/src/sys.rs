//! System calls that `nix` does not wrap, each behind a safe function.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Turns a system call's return value into a `Result`.
fn check(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A handle on a process that a reused pid cannot confuse.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A handle on the process of a thread, or on the thread alone where the kernel knows such (Linux 6.9).
pub fn pidfd_open_thread(thread: i32) -> io::Result<OwnedFd> {
    /// `PIDFD_THREAD` of linux/pidfd.h.
    const THREAD: libc::c_int = libc::O_EXCL;
    pidfd_open(thread).or_else(|_| {
        // SAFETY: integers only.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, THREAD) })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    })
}

/// A copy of a descriptor of another process.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), descriptor, 0) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Fills `into` from the memory of another process.
pub fn read_memory_into(process: i32, from: u64, into: &mut [u8]) -> io::Result<()> {
    let got = read_some_memory(process, from, into)?;
    if got == into.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EFAULT)) }
}

/// So many bytes of the memory of another process.
pub fn read_memory<const N: usize>(process: i32, from: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    read_memory_into(process, from, &mut bytes).map(|()| bytes)
}

fn read_some_memory(process: i32, from: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: from as usize as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: the kernel writes to the live buffer alone; the other address is another process', and checked.
    let got = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    check(got as libc::c_long).map(|got| got as usize)
}

/// A C string, no longer than a path may be, of another process.
pub fn read_text(process: i32, from: u64) -> io::Result<std::ffi::OsString> {
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    while text.len() < libc::PATH_MAX as usize {
        let at = from.checked_add(text.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        // Never over the end of a page: the next may not be there, and need not be.
        let mut piece = [0u8; PAGE as usize];
        let piece = &mut piece[..(PAGE - at % PAGE) as usize];
        read_memory_into(process, at, piece)?;
        match piece.iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&piece[..end]);
                return Ok(std::os::unix::ffi::OsStringExt::from_vec(text));
            }
            None => text.extend_from_slice(piece),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

/// Sets the times of a file, links not followed but those of /proc: two `timespec` (access, change) as the kernel has them, or now.
pub fn set_times(path: &Path, times: Option<[u8; size_of::<[libc::timespec; 2]>()]>) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: two structs of plain integers, read at any alignment from as many bytes.
    let times = times.map(|bytes| unsafe { bytes.as_ptr().cast::<[libc::timespec; 2]>().read_unaligned() });
    let times = times.as_ref().map_or(std::ptr::null(), |times| times.as_ptr());
    // SAFETY: a live C string, and null or two live structs.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times, 0) }.into()).map(|_| ())
}

/// SIGKILL through a pidfd. A process that is gone already is no error.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed; the rest are integers.
    let sent = check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    });
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Frees the memory of a process that has been killed, on the caller's account (Linux 5.15).
pub fn process_mrelease(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers only; the process cannot run on, so nobody misses the memory.
    check(unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) }).map(|_| ())
}

/// Lets a thread run only when nobody else wants its processor, for good.
pub fn make_idle(tid: i32) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: a live struct of the right type.
    check(unsafe { libc::sched_setscheduler(tid, libc::SCHED_IDLE, &raw const priority) }.into()).map(|_| ())
}

/// Closes every descriptor from `first` to `last`.
pub fn close_range(first: RawFd, last: u32) -> io::Result<()> {
    // SAFETY: integers only. Callers are about to run code that owns none of these descriptors (a fresh fork).
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(|_| ())
}

/// `dup2` on plain numbers: a fresh fork arranges the descriptors of the process it becomes.
pub fn dup2(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: integers only; the caller means to replace `to`.
    check(unsafe { libc::dup2(from, to) }.into()).map(|_| ())
}

/// `dup2` that closes `to` when the process becomes another program.
pub fn dup_away(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: integers only; the caller means to replace `to`.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }.into()).map(|_| ())
}

/// From here on what is large goes back to the system when it is given up. By itself glibc keeps ever larger pieces once some were
/// freed, and a daemon that has once read long lines stays as large.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    for (what, value) in
        [(libc::M_MMAP_THRESHOLD, 256 << 10), (libc::M_TRIM_THRESHOLD, 1 << 20), (libc::M_ARENA_MAX, 4)]
    {
        // SAFETY: mallopt(3) takes two numbers. What it refuses stays as it was.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Takes ownership of a raw descriptor that a caller was given for this purpose (`--stdio`).
///
/// # Errors
/// It is not an open descriptor.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes integers only.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and by contract handed to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How a child ended, and what it used.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The raw wait status.
    pub status: i32,
    /// CPU time, user and system.
    pub cpu: Duration,
}

/// Reaps the child `pid`, waiting for it to end.
pub fn wait4(pid: i32) -> io::Result<Ended> {
    loop {
        if let Some(ended) = wait4_with(pid, 0)? {
            return Ok(ended);
        }
    }
}

/// As [`wait4`], where one has ended by now; of whatever kind, also one that sends no SIGCHLD.
///
/// # Errors
/// As wait4(2).
pub fn wait4_now(pid: i32) -> io::Result<Option<Ended>> {
    wait4_with(pid, libc::WNOHANG | libc::__WALL)
}

fn wait4_with(pid: i32, options: i32) -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: rusage is plain old data; all zeros is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the right types.
        let got = check(unsafe { libc::wait4(pid, &mut status, options, &mut usage) }.into());
        match got {
            Ok(0) => return Ok(None),
            Ok(_) => {
                let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
                return Ok(Some(Ended { status, cpu }));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec.max(0) as u64, (time.tv_usec.max(0) as u32) * 1000)
}

/// CPU time, user and system, of all threads of a process; `None` once it is gone.
pub fn process_cpu_time(pid: i32) -> Option<Duration> {
    // The clock's number as the kernel defines it (MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)); 0 means ourselves.
    let clock = if pid == 0 { libc::CLOCK_PROCESS_CPUTIME_ID } else { (!pid << 3) | 2 };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    let read = unsafe { libc::clock_gettime(clock, &mut time) };
    (read == 0).then(|| Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32))
}

/// Adds attributes (`libc::MOUNT_ATTR_*`) to a mount, and to all below it if `recursive`.
///
/// Unlike a remount it never clears a flag, so it works on mounts that a user namespace inherited locked.
pub fn mount_setattr(path: &Path, attributes: u64, recursive: bool) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is a live C string and attr a live struct of the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(|_| ())
}

/// `CAP_DAC_READ_SEARCH` of linux/capability.h.
const READ_ALL: u32 = 2;

/// Gives up every capability, or every one but that to read files whatever their modes: effective, permitted, inheritable,
/// and of the bounding set.
pub fn drop_capabilities(but_reading: bool) -> io::Result<()> {
    for capability in (0..64).filter(|capability| !(but_reading && *capability == READ_ALL)) {
        // SAFETY: integers only. Fails with EINVAL past the last capability that this kernel knows.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    set_capabilities(if but_reading { 1 << READ_ALL } else { 0 })
}

/// Sets the effective, permitted and inheritable capabilities to these, of the first 32.
fn set_capabilities(these: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [[these; 3], [0; 3]];
    // SAFETY: version 3 reads one header and two data structs of three u32 each; both live on our stack.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(|_| ())
}

/// Becomes another user for good, who keeps of root that it may read files whatever their modes, in programs that it
/// becomes too.
pub fn become_user_who_reads(id: u32) -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.into())?;
    become_user(id)?;
    set_capabilities(1 << READ_ALL)?;
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, READ_ALL, 0, 0) }.into())
        .map(|_| ())
}

/// Whether this process holds CAP_SYS_ADMIN in its own user namespace.
pub fn has_sys_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << 21) != 0)
}

/// An extended attribute of a file, or `None` when there is none that we may read.
pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
    let name = std::ffi::CString::new(name).ok()?;
    let mut value = vec![0u8; 256];
    // SAFETY: two live C strings, and a live buffer with its length.
    let got = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(got).ok()?);
    Some(value)
}

/// Becomes another user for good: no supplementary groups, real, effective and saved ids.
pub fn become_user(id: u32) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    setgroups(&[])?;
    let (gid, uid) = (Gid::from_raw(id), Uid::from_raw(id));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// `fork` for a process that has one thread. The child gets `None`.
pub fn fork_single_threaded() -> io::Result<Option<i32>> {
    // SAFETY: callers are single-threaded (evald's frame and the zygotes check it), so no lock is left held in the child.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Waits at most `patience` for one of `signals`, which must be blocked; whether one came.
pub fn wait_for_signal(signals: &nix::sys::signal::SigSet, patience: Duration) -> io::Result<bool> {
    let timeout = libc::timespec {
        tv_sec: patience.as_secs() as libc::time_t,
        tv_nsec: patience.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the set and the timeout are live, and a null siginfo is allowed.
    let got = check(unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), &timeout) }.into());
    match got {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the other end of a stream is closed, whatever is still to be read.
pub fn hung_up(stream: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// Lets this process have as many descriptors open as it may, within reason; how many those are.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// Programs that close all that could be open take their time with more.
    const MOST: u64 = 1 << 16;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = hard.min(MOST).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, most, hard)?;
    Ok(most)
}

/// Ends the process at once: no atexit handlers, no flush, no unwinding.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Bytes from the kernel's random generator.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    // SAFETY: the pointer and the length describe a live local buffer.
    let got = check(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) }.try_into().unwrap_or(-1))?;
    if got as usize == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_killed_child_is_reaped_with_its_usage() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep starts");
        let pidfd = pidfd_open(child.id() as i32).expect("pidfd");
        pidfd_kill(pidfd.as_fd()).expect("kill");
        let ended = wait4(child.id() as i32).expect("reaped");
        assert!(libc::WIFSIGNALED(ended.status) && libc::WTERMSIG(ended.status) == libc::SIGKILL);
        assert!(ended.cpu < Duration::from_secs(5));
        // Gone: still no error, and std finds nothing to reap.
        pidfd_kill(pidfd.as_fd()).expect("a second kill is no error");
        child.wait().ok();
    }

    /// Attack 28: a handle on a process that has ended is not a handle on whoever gets its pid.
    #[test]
    fn a_reused_pid_is_not_killed_through_an_old_handle() {
        let sleep = || std::process::Command::new("sleep").arg("100").spawn().expect("sleep starts");
        let mut first = sleep();
        let pid = first.id();
        let pidfd = pidfd_open(pid as i32).expect("pidfd");
        first.kill().and_then(|()| first.wait()).expect("ended and reaped");
        // Other processes start meanwhile and may take the pid first: tried a few times.
        for _ in 0..20 {
            if let Err(error) = std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()) {
                println!("skipped: the next pid cannot be chosen: {error}");
                return;
            }
            let mut second = sleep();
            let same = second.id() == pid;
            if same {
                pidfd_kill(pidfd.as_fd()).expect("a kill of what has ended is no error");
                std::thread::sleep(Duration::from_millis(50));
                assert!(second.try_wait().expect("waited").is_none(), "the newcomer was killed");
            }
            second.kill().and_then(|()| second.wait()).expect("ended");
            if same {
                return;
            }
        }
        println!("skipped: the pid was always taken by another process");
    }

    #[test]
    fn a_closed_stream_is_noticed_before_it_is_read() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(!hung_up(ours.as_fd()).expect("polled"));
        io::Write::write_all(&mut &theirs, b"unread").expect("written");
        assert!(!hung_up(ours.as_fd()).expect("polled"));
        drop(theirs);
        assert!(hung_up(ours.as_fd()).expect("polled"));
    }

    #[test]
    fn own_cpu_time_is_read() {
        assert!(process_cpu_time(0).is_some());
        assert!(process_cpu_time(std::process::id() as i32).is_some());
        assert!(process_cpu_time(i32::MAX / 16).is_none());
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random_bytes::<16>().expect("random"), random_bytes::<16>().expect("random"));
    }
}

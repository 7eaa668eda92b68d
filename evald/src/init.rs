//! Pid 1 of a sample's pid namespace, so that the sample is not: signals do to it what they do to any program, and what it
//! starts and leaves behind has a parent. With its end the kernel ends everything in the namespace.
//!
//! It is a process that shares the slot's memory, which makes it cheap (a copy of a warm interpreter costs milliseconds).
//! So it must not touch anything there: it runs a few system calls in a loop, on a stack of its own, past the C library,
//! whose `errno` would be the slot's. It blocks every signal, has no descriptor, and as pid 1 cannot be killed from within.

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use crate::sys::{self, Ended};

/// A running pid 1; it ends with [`Init::end`], or with the slot.
pub struct Init {
    pid: i32,
    pidfd: OwnedFd,
}

const STACK_BYTES: usize = 16 << 10;

/// The stack's lowest address; one is enough, since a slot runs one sample at a time.
fn stack() -> io::Result<*mut c_void> {
    static STACK: OnceLock<usize> = OnceLock::new();
    if let Some(stack) = STACK.get() {
        return Ok(*stack as *mut c_void);
    }
    // SAFETY: a fresh anonymous mapping; nothing else is touched.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            STACK_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(*STACK.get_or_init(|| mapped as usize) as *mut c_void)
}

impl Init {
    /// Starts it as the first process of the pid namespace that the next fork makes or enters.
    ///
    /// # Errors
    /// As clone(2) and pidfd_open(2).
    pub fn start() -> io::Result<Self> {
        let stack = stack()?;
        let mut before = SigSet::empty();
        // From its first moment on, a signal has nobody to be delivered to.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        // SAFETY: the stack is ours, STACK_BYTES long and used by no other process (the last one has been reaped); what
        // runs on it touches no memory but that. Without CLONE_FILES it may close its copies of our descriptors.
        let pid = unsafe {
            libc::clone(
                live,
                stack.byte_add(STACK_BYTES),
                libc::CLONE_VM | libc::SIGCHLD,
                std::ptr::null_mut(),
            )
        };
        let failed = io::Error::last_os_error();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        if pid < 0 {
            return Err(failed);
        }
        match sys::pidfd_open(pid) {
            Ok(pidfd) => Ok(Self { pid, pidfd }),
            Err(error) => {
                // Not reaped by anybody else: the number is still its own.
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
                sys::wait4(pid).ok();
                Err(error)
            }
        }
    }

    /// Kills it, and so everything in its namespace.
    ///
    /// # Errors
    /// As pidfd_send_signal(2).
    pub fn kill(&self) -> io::Result<()> {
        sys::pidfd_kill(self.pidfd.as_fd())
    }

    /// Kills it, and waits until nothing is left in its namespace; what it used, and what it had to reap. The sample itself
    /// must have been reaped, by its slot.
    ///
    /// # Errors
    /// As wait4(2).
    pub fn end(self) -> io::Result<Ended> {
        self.kill()?;
        sys::wait4(self.pid)
    }
}

/// Reaps what is left to it, for ever.
extern "C" fn live(_: *mut c_void) -> c_int {
    let child: u64 = 1 << (libc::SIGCHLD - 1);
    const ANY: usize = -1i32 as usize;
    // SAFETY: none of these calls touches memory beyond the signal set, which is on our own stack.
    unsafe {
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0]);
        call(libc::SYS_close_range, [0, u32::MAX as usize, 0, 0]);
        loop {
            // A blocked signal stays pending, so none that comes between the two is missed.
            while call(libc::SYS_wait4, [ANY, 0, (libc::WNOHANG | libc::__WALL) as usize, 0]) > 0 {}
            call(libc::SYS_rt_sigtimedwait, [(&raw const child).addr(), 0, 0, size_of::<u64>()]);
        }
    }
}

/// A bare system call, whose failure is written nowhere.
///
/// # Safety
/// As the system call.
unsafe fn call(number: c_long, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention; it clobbers rcx and r11 alone.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's calling convention; it clobbers x0 alone.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
            in("x3") d, options(nostack));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // SAFETY: the caller's promise. It may write `errno`, which costs the slot a misleading reason at most.
        result = unsafe { libc::syscall(number, a, b, c, d) } as isize;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lives_until_it_is_ended_again_and_again() {
        for _ in 0..3 {
            let init = Init::start().expect("started");
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", init.pid)).expect("it lives");
            assert!(stat.contains(" S ") || stat.contains(" R "), "{stat}");
            let ended = init.end().expect("ended");
            assert_eq!(libc::WTERMSIG(ended.status), libc::SIGKILL);
        }
    }
}

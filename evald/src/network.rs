//! The network of a slot's samples: a namespace with nothing in it but a loopback interface.
//!
//! Making one costs more than all other walls together, so samples that make no internet socket, nearly all, find the one
//! that the sample before them did not use either.

use std::io;
use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Moves the calling process into a fresh network namespace, whose loopback interface is up.
///
/// # Errors
/// As unshare(2); the interface cannot be brought up.
pub fn fresh() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: plain old data; all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: a live struct of the type that this request reads.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! How a worker begins: it lets go of what it was born with and does not need, and ties its life to the host's.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use inhouse_core::{Error, ErrorKind, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of two processes that the kernel could end for want of memory, the worker is the one.
const OOM_SCORE: &str = "900";

/// Prepares this process to be a worker and returns its channel to the host, which is its standard input. To be called
/// before anything else opens a file: all descriptors but the three standard ones are closed.
///
/// # Errors
/// Standard input is no socket: the program was not started by a host.
pub fn channel() -> Result<UnixStream> {
    let input = std::io::stdin();
    if nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(std::os::fd::AsRawFd::as_raw_fd(&input))
        .is_err()
    {
        let what = "this program runs a model for a host that links libinhouse and starts it (or for \
                    `inhouse complete --worker`); it is not started by hand";
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    close_inherited();
    // The channel's end may never come where another child of the host holds a copy of it.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).ok();
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).ok();
    // No core dump, which would hold the channel open, and the host waiting, while gigabytes are written. The kernel takes 1
    // for `none` both for files and for a handler (see fs/coredump.c).
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard).ok();
    }
    let channel = input.as_fd().try_clone_to_owned().map_err(|cause| {
        Error::new(ErrorKind::Io, format!("cannot open the channel to the host: {cause}"))
    })?;
    Ok(UnixStream::from(channel))
}

/// Closes what the host left open without close-on-exec.
fn close_inherited() {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The folder's own descriptor is among them and closed already.
        nix::unistd::close(fd).ok();
    }
}

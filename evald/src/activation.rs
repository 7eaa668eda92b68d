//! Socket activation: a listening socket that systemd has made and passes on as descriptor 3 (sd_listen_fds(3)).

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::error::{Error, Result, Step};
use crate::sys::adopt;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST_FD: i32 = 3;

/// What systemd says about the descriptors it passes: `LISTEN_PID` and `LISTEN_FDS`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The process that they are meant for.
    pub pid: Option<String>,
    /// How many there are.
    pub count: Option<String>,
}

impl Passed {
    /// As this process was told.
    pub fn from_env() -> Self {
        Self { pid: std::env::var("LISTEN_PID").ok(), count: std::env::var("LISTEN_FDS").ok() }
    }

    /// Whether exactly one descriptor is meant for the process `own_pid`; otherwise why not.
    fn check(&self, own_pid: u32) -> Result<(), String> {
        let (Some(pid), Some(count)) = (&self.pid, &self.count) else {
            return Err("no socket was passed (LISTEN_PID and LISTEN_FDS are not set); start evald.socket, \
                        not evald.service"
                .into());
        };
        if pid.parse() != Ok(own_pid) {
            return Err(format!("the passed socket is for process {pid:?}, this is {own_pid}"));
        }
        match count.as_str() {
            "1" => Ok(()),
            _ => Err(format!("{count:?} sockets were passed; evald serves one (one ListenStream= line)")),
        }
    }
}

/// The passed socket, which nothing that is started from here on inherits.
///
/// # Errors
/// None or several were passed, or it is not a listening Unix stream socket.
pub fn listener(passed: &Passed) -> Result<UnixListener> {
    passed.check(std::process::id()).map_err(Error::Host)?;
    let fd = adopt(FIRST_FD).step("use the passed socket (descriptor 3)")?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).step("keep the passed socket from children")?;
    let listens =
        getsockopt(&fd.as_fd(), sockopt::AcceptConn).step("use the passed socket (descriptor 3)")?;
    let kind = getsockopt(&fd.as_fd(), sockopt::SockType).step("use the passed socket (descriptor 3)")?;
    if !listens || kind != SockType::Stream {
        return Err(Error::Host("the passed socket is not one that listens (ListenStream=)".into()));
    }
    let listener = UnixListener::from(fd);
    // Fails where it is of another family.
    listener.local_addr().step("use the passed socket, which must be a Unix socket")?;
    listener.set_nonblocking(false).step("wait on the passed socket")?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_for_this_process_and_no_other() {
        let passed = |pid: Option<&str>, count: Option<&str>| Passed {
            pid: pid.map(String::from),
            count: count.map(String::from),
        };
        for (passed, word) in [
            (passed(None, None), "LISTEN_PID"),
            (passed(Some("7"), None), "LISTEN_FDS"),
            (passed(Some("8"), Some("1")), "process \"8\""),
            (passed(Some("x"), Some("1")), "process \"x\""),
            (passed(Some("7"), Some("0")), "\"0\" sockets"),
            (passed(Some("7"), Some("2")), "\"2\" sockets"),
            (passed(Some("7"), Some("")), "\"\" sockets"),
        ] {
            let reason = passed.check(7).expect_err("refused");
            assert!(reason.contains(word), "{passed:?}: {reason}");
        }
        assert_eq!(passed(Some("7"), Some("1")).check(7), Ok(()));
    }
}

//! Answers the system calls that no filter can judge (see [`crate::seccomp`]): the slot does, outside of the sample.
//!
//! What a call would do to a file is judged by the file that it is on, and where that matters done here, on a descriptor of
//! our own: so nothing that the sample does meanwhile (another thread that swaps a descriptor, a link or a text) changes
//! what was judged. A call that is let go on is one that does no harm on any file, or that Landlock judges as well.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libc::c_long;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::family;
use crate::seccomp::SYS_FCHMODAT2;
use crate::sys;

/// Whoever has too many threads and processes has so for this long.
const COUNT_AGAIN: Duration = Duration::from_millis(50);

/// Where a sample's own files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    /// On a file system of their own, by its device number.
    Device(u64),
    /// Below this folder of the host's.
    Below(PathBuf),
}

/// The end of a sample's asked calls.
pub struct Broker {
    listener: OwnedFd,
    folder: Folder,
    /// Most threads and processes; `None` where an rlimit or a cgroup counts them.
    most_tasks: Option<u64>,
    /// When there were as many as that, and nobody has counted since.
    full: Option<Instant>,
    /// Calls for a thread or a process that were refused.
    pub refused: u64,
    /// Whether a socket of an internet family was made.
    pub used_network: bool,
}

/// How a call goes on.
enum Answer {
    /// As if nobody had been asked.
    GoOn,
    /// It has been done, or it has failed so.
    Done(io::Result<()>),
}

/// One call that waits.
struct Call {
    id: u64,
    /// The thread that makes it.
    thread: i32,
    number: c_long,
    arguments: [u64; 6],
}

impl Call {
    fn descriptor(&self, index: usize) -> RawFd {
        self.arguments[index] as RawFd
    }
}

impl Broker {
    /// Answers at `listener` for a sample whose own files are in `folder`.
    pub fn new(listener: OwnedFd, folder: Folder, most_tasks: Option<u64>) -> Self {
        Self { listener, folder, most_tasks, full: None, refused: 0, used_network: false }
    }

    /// Becomes readable when a call waits.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers one call; false when nobody is left who could make any.
    ///
    /// # Errors
    /// As seccomp_unotify(2). That the caller has gone is no error.
    pub fn answer(&mut self) -> io::Result<bool> {
        let Some(call) = self.receive()? else { return Ok(false) };
        let answer = self.judge(&call).unwrap_or_else(|error| Answer::Done(Err(error)));
        self.send(&call, answer)
    }

    fn receive(&self) -> io::Result<Option<Call>> {
        // SAFETY: plain old data; the kernel wants it zeroed.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: a live struct of the type that this request fills.
        let got = unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut asked)
        };
        if got < 0 {
            let error = io::Error::last_os_error();
            // Its caller was killed meanwhile.
            let gone = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR));
            return if gone { Ok(None) } else { Err(error) };
        }
        let number = c_long::from(asked.data.nr);
        Ok(Some(Call { id: asked.id, thread: asked.pid as i32, number, arguments: asked.data.args }))
    }

    fn send(&self, call: &Call, answer: Answer) -> io::Result<bool> {
        let mut reply = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::GoOn => reply.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Done(Ok(())) => {}
            Answer::Done(Err(error)) => reply.error = -error.raw_os_error().unwrap_or(libc::EPERM),
        }
        // SAFETY: a live struct of the type that this request reads.
        let sent = unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const reply)
        };
        match io::Error::last_os_error() {
            _ if sent == 0 => Ok(true),
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
            error => Err(error),
        }
    }

    fn judge(&mut self, call: &Call) -> io::Result<Answer> {
        let done = |()| Answer::Done(Ok(()));
        match call.number {
            libc::SYS_socket => {
                self.used_network = true;
                Ok(Answer::GoOn)
            }
            libc::SYS_flock | libc::SYS_fcntl => {
                let file = take(call.thread, call.descriptor(0))?;
                Ok(if self.owns(file.as_fd())? { Answer::GoOn } else { Answer::Done(Err(refused())) })
            }
            number if number == libc::SYS_clone || is_fork(number) => Ok(self.new_task()),
            libc::SYS_fchmod => {
                let file = take(call.thread, call.descriptor(0))?;
                self.change_mode(file, call.arguments[1]).map(done)
            }
            libc::SYS_fchmodat => {
                let file = self.named(call, Some(0), 1, true)?;
                self.change_mode(file, call.arguments[2]).map(done)
            }
            SYS_FCHMODAT2 => {
                let follow = call.arguments[3] & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
                let file = self.named(call, Some(0), 1, follow)?;
                self.change_mode(file, call.arguments[2]).map(done)
            }
            libc::SYS_utimensat => {
                let follow = call.arguments[3] & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
                let file = match call.arguments[1] {
                    0 => take(call.thread, call.descriptor(0))?,
                    _ => self.named(call, Some(0), 1, follow)?,
                };
                let times = match call.arguments[2] {
                    0 => None,
                    from => {
                        Some(sys::read_memory::<{ size_of::<[libc::timespec; 2]>() }>(call.thread, from)?)
                    }
                };
                self.change_times(file, times).map(done)
            }
            libc::SYS_bind => {
                // Landlock judges paths; a name without one is everybody's.
                match self.address(call)? {
                    Some(_) => Ok(Answer::GoOn),
                    None => Ok(Answer::Done(Err(refused()))),
                }
            }
            libc::SYS_connect => self.connect(call).map(done),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod => {
                let file = self.named(call, None, 0, true)?;
                self.change_mode(file, call.arguments[1]).map(done)
            }
            // The old ways to set times, which nothing that is asked for here uses.
            _ => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        }
    }

    /// Whether a file is the sample's own.
    fn owns(&self, file: BorrowedFd<'_>) -> io::Result<bool> {
        match &self.folder {
            Folder::Device(device) => Ok(nix::sys::stat::fstat(file)?.st_dev == *device),
            Folder::Below(folder) => {
                Ok(std::fs::read_link(by_descriptor(file)).is_ok_and(|path| path.starts_with(folder)))
            }
        }
    }

    /// Opens the file that a call names, as far as it is the sample's own: `folder` is the argument with the folder that a
    /// relative path begins at, `path` the one with the path.
    fn named(&self, call: &Call, folder: Option<usize>, path: usize, follow: bool) -> io::Result<OwnedFd> {
        let text = sys::read_text(call.thread, call.arguments[path])?;
        let base = self.base(call, folder.map_or(libc::AT_FDCWD, |index| call.descriptor(index)))?;
        self.open(call, base.as_fd(), Path::new(&text), follow)
    }

    fn open(&self, call: &Call, base: BorrowedFd<'_>, path: &Path, follow: bool) -> io::Result<OwnedFd> {
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        flags.set(OFlag::O_NOFOLLOW, !follow);
        let file = openat(base, path, flags, Mode::empty())?;
        // What was read may have been another process' of the same number.
        self.check_waiting(call)?;
        if self.owns(file.as_fd())? { Ok(file) } else { Err(refused()) }
    }

    fn base(&self, call: &Call, descriptor: RawFd) -> io::Result<OwnedFd> {
        if descriptor != libc::AT_FDCWD {
            return take(call.thread, descriptor);
        }
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let path = format!("/proc/{}/cwd", call.thread);
        Ok(nix::fcntl::open(path.as_str(), flags, Mode::empty())?)
    }

    fn check_waiting(&self, call: &Call) -> io::Result<()> {
        // SAFETY: a live integer of the type that this request reads.
        let valid = unsafe {
            libc::ioctl(
                self.listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _,
                &raw const call.id,
            )
        };
        if valid == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn change_mode(&self, file: OwnedFd, mode: u64) -> io::Result<()> {
        // Never a program that runs as whom it belongs to.
        if !self.owns(file.as_fd())? || mode & u64::from(libc::S_ISUID | libc::S_ISGID) != 0 {
            return Err(refused());
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode as u32 & 0o1777);
        std::fs::set_permissions(by_descriptor(file.as_fd()), permissions)
    }

    fn change_times(
        &self,
        file: OwnedFd,
        times: Option<[u8; size_of::<[libc::timespec; 2]>()]>,
    ) -> io::Result<()> {
        if !self.owns(file.as_fd())? {
            return Err(refused());
        }
        sys::set_times(&by_descriptor(file.as_fd()), times)
    }

    /// The path that a socket's address names; `None` where it names none.
    fn address(&self, call: &Call) -> io::Result<Option<PathBuf>> {
        const FAMILY: usize = size_of::<libc::sa_family_t>();
        let length = call.arguments[2] as usize;
        if length > size_of::<libc::sockaddr_un>() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut bytes = [0u8; size_of::<libc::sockaddr_un>()];
        sys::read_memory_into(call.thread, call.arguments[1], &mut bytes[..length])?;
        let family = libc::sa_family_t::from_ne_bytes([bytes[0], bytes[1]]);
        let name = bytes[FAMILY..].split(|byte| *byte == 0).next().unwrap_or_default();
        if i32::from(family) != libc::AF_UNIX || name.is_empty() {
            return Ok(None);
        }
        Ok(Some(PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))))
    }

    /// Landlock lets a process connect to every socket that it can reach by a path.
    fn connect(&self, call: &Call) -> io::Result<()> {
        let path = self.address(call)?.ok_or_else(refused)?;
        let base = self.base(call, libc::AT_FDCWD)?;
        let file = self.open(call, base.as_fd(), &path, true)?;
        let socket = take(call.thread, call.descriptor(0))?;
        // A backlog that is full would hold us up.
        let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_GETFL)?);
        let set = |flags| nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(flags));
        set(flags | OFlag::O_NONBLOCK)?;
        let address = nix::sys::socket::UnixAddr::new(&by_descriptor(file.as_fd()))?;
        let connected = nix::sys::socket::connect(socket.as_raw_fd(), &address);
        set(flags)?;
        connected.map_err(Into::into)
    }

    fn new_task(&mut self) -> Answer {
        let Some(most) = self.most_tasks else { return Answer::GoOn };
        // To count takes longer than to ask: a crowd that asks again and again must not keep us from the clocks.
        if self.full.is_none_or(|counted| counted.elapsed() > COUNT_AGAIN) {
            if family::count_tasks() < most {
                return Answer::GoOn;
            }
            self.full = Some(Instant::now());
        }
        self.refused += 1;
        Answer::Done(Err(io::Error::from_raw_os_error(libc::EAGAIN)))
    }
}

#[cfg(target_arch = "x86_64")]
fn is_fork(number: c_long) -> bool {
    matches!(number, libc::SYS_fork | libc::SYS_vfork)
}

#[cfg(not(target_arch = "x86_64"))]
fn is_fork(_: c_long) -> bool {
    false
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

fn by_descriptor(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A copy of a descriptor of another thread's.
fn take(thread: i32, descriptor: RawFd) -> io::Result<OwnedFd> {
    sys::pidfd_getfd(sys::pidfd_open_thread(thread)?.as_fd(), descriptor)
}

//! Environments as the daemon sees them: what `--env` says, and the warm interpreters made of it.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evald_proto::NamedEnv;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;

use crate::cgroup::{Group, Leaf};
use crate::error::{Error, Result, Step};
use crate::frame;
use crate::interpreter::Interpreter;
use crate::message::{MAX_PACKET_BYTES, Ready, Setup};
use crate::mounts::{self, Entry};
use crate::slot::Slot;
use crate::tier::Tier;
use crate::wasi::Machine;

/// What all environments of a daemon share.
#[derive(Debug, Clone)]
pub struct Common {
    /// The walls.
    pub tier: Tier,
    /// Version of this kernel's Landlock, where it has one.
    pub landlock: Option<i64>,
    /// The `evald` executable, which is also the frame's.
    pub executable: PathBuf,
    /// `libevald.so` of the same build.
    pub library: PathBuf,
    /// Folders on the module search path of every environment.
    pub paths: Vec<PathBuf>,
    /// Where T3 samples get their private folders; empty in other tiers.
    pub scratch: PathBuf,
    /// Where T0 and T1 samples get their cgroups.
    pub group: Option<Arc<Group>>,
    /// Whether samples may be allowed further processes, and so must see programs to run.
    pub processes: bool,
    /// Whether this kernel filters system calls; only T4 does without.
    pub seccomp: bool,
    /// In T4, what the machines are made of; their environments' libraries are added.
    pub machine: Option<Machine>,
}

/// What T3 shows of the host beside an interpreter: devices and what tells names of users and hosts, of which other tiers
/// have their own.
pub const HOST_FILES: &[&str] = &[
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
];

/// Importing large libraries from a cold disk takes its time.
const IMPORT_PATIENCE: Duration = Duration::from_secs(300);

struct Environment {
    name: String,
    preload: Vec<String>,
    interpreter: Interpreter,
    root: Vec<Entry>,
    master: Option<Master>,
}

struct Master {
    frame: Child,
    control: OwnedFd,
    /// Whether it ends what is below it by itself when it is hung up on (T3, once it is warm).
    ends_its_own: bool,
}

/// So long a master may take for that; the machine may be very loaded.
const MASTER_PATIENCE: Duration = Duration::from_secs(10);

impl Drop for Master {
    fn drop(&mut self) {
        if self.ends_its_own {
            let hung_up =
                nix::sys::socket::shutdown(self.control.as_raw_fd(), nix::sys::socket::Shutdown::Both);
            let begun = Instant::now();
            while hung_up.is_ok() && begun.elapsed() < MASTER_PATIENCE {
                match self.frame.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                    _ => return,
                }
            }
        }
        // The frame's death takes everything below it along.
        self.frame.kill().ok();
        self.frame.wait().ok();
    }
}

impl Environment {
    fn inspect(env: &NamedEnv, common: &Common) -> Result<Self> {
        let interpreter = Interpreter::inspect(&env.name, &env.spec.python)?;
        if let Some(version) = common.machine.as_ref().and_then(|machine| machine.distribution.version())
            && version != interpreter.version
        {
            let reason = format!(
                "it is Python {}, and T4 runs CPython {version}: its libraries would be others",
                interpreter.version
            );
            return Err(Error::Environment { name: env.name.clone(), reason });
        }
        // In T4 nothing of the host is shown.
        let root = match common.tier {
            Tier::T4 => Vec::new(),
            _ => interpreter.root(&env.name, &common.paths, common.processes)?,
        };
        let (name, preload) = (env.name.clone(), env.spec.preload.clone());
        Ok(Self { name, preload, interpreter, root, master: None })
    }

    fn fail(&self, reason: impl Into<String>) -> Error {
        Error::Environment { name: self.name.clone(), reason: reason.into() }
    }

    /// Starts the warm interpreter and waits for its imports.
    fn start(&mut self, common: &Common) -> Result<()> {
        let reads_all = common.tier == Tier::T3 && nix::unistd::geteuid().is_root() && {
            let shown = self.root.iter().map(|entry| entry.path());
            let ours = [common.library.as_path(), &self.interpreter.path];
            !shown.chain(ours).all(is_open_to_all)
        };
        let config = frame::Config {
            reads_all,
            daemon: std::process::id(),
            tier: common.tier,
            python: self.interpreter.path.clone(),
            root: self.root.clone(),
            library: common.library.clone(),
            paths: common.paths.clone(),
            machine: common
                .machine
                .clone()
                .map(|machine| Machine { sites: self.interpreter.sites.clone(), ..machine }),
        };
        let config = serde_json::to_string(&config).map_err(|error| self.fail(error.to_string()))?;
        let (control, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .step("make a socket pair")?;
        let mut frame = Command::new(&common.executable)
            .args(["__frame", &config])
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .step(format!("start {}", common.executable.display()))?;
        let said = frame.stderr.take().map(|stderr| Tail::follow(stderr, self.name.clone()));
        let host_pid = frame.id();
        let mut master = Master { frame, control, ends_its_own: false };
        let setup = Setup {
            tier: common.tier,
            preload: self.preload.clone(),
            readable: self.readable(common),
            kept: mounts::kept(&self.root),
            scratch: common.scratch.clone(),
            reads_all,
            landlock: common.landlock,
            seccomp: common.seccomp,
        };
        let setup = serde_json::to_vec(&setup).map_err(|error| self.fail(error.to_string()))?;
        let sent = send(&master.control, &setup, &[]);
        let ready = sent.and_then(|()| receive_ready(&master.control));
        match ready {
            Ok(Some(Ready { error: None })) => {}
            Ok(Some(Ready { error: Some(reason) })) => return Err(self.fail(reason)),
            Ok(None) | Err(Error::Zygote(_)) => {
                // It is gone, or about to be: what it said last is the reason.
                drop(master);
                let said = said.map(|tail| tail.last_line()).unwrap_or_default();
                let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
                return Err(self.fail(format!("the interpreter did not start: {said}")));
            }
            Err(error) => return Err(error),
        }
        tracing::info!(
            env = self.name,
            python = self.interpreter.version,
            frame = host_pid,
            "environment is warm"
        );
        master.ends_its_own = common.tier == Tier::T3;
        self.master = Some(master);
        Ok(())
    }

    /// What Landlock lets T3 samples read: the root that other tiers would have.
    fn readable(&self, common: &Common) -> Vec<PathBuf> {
        if common.tier != Tier::T3 {
            return Vec::new();
        }
        let bound = self.root.iter().filter_map(|entry| match entry {
            Entry::Bind { path } => Some(path.clone()),
            Entry::Link { .. } | Entry::Folder { .. } => None,
        });
        let others = HOST_FILES.iter().map(PathBuf::from).chain([common.library.clone()]);
        bound.chain(others).filter(|path| path.exists()).collect()
    }

    fn slot(&mut self, common: &Common) -> Result<Slot> {
        // A master that has died (its library crashed it, the host killed it) is replaced once.
        for attempt in 0..2 {
            if self.master.is_none() {
                self.start(common)?;
            }
            let Some(master) = &self.master else { continue };
            match Self::slot_of(master, common) {
                Ok(slot) => return Ok(slot),
                Err(error) if attempt == 0 => {
                    tracing::warn!(env = self.name, error = error.to_string(), "restarting the environment");
                    self.master = None;
                }
                Err(error) => return Err(self.fail(error.to_string())),
            }
        }
        Err(self.fail("the warm interpreter keeps dying"))
    }

    fn slot_of(master: &Master, common: &Common) -> Result<Slot> {
        let leaf = common.group.as_ref().map(|group| group.leaf()).transpose()?;
        let (ours, theirs) = UnixStream::pair().step("make a socket pair")?;
        setsockopt(&ours, sockopt::PassCred, &true).step("ask for credentials")?;
        let mut passed = vec![theirs.as_raw_fd()];
        passed.extend(leaf.iter().flat_map(Leaf::descriptors));
        send(&master.control, b"slot", &passed)?;
        drop(theirs);
        Slot::greet(ours, leaf)
    }
}

/// Whether a file, and what leads to it, can be read by everybody. What is in a folder is not looked at.
fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let Ok(real) = path.canonicalize() else { return false };
    real.ancestors().all(|part| {
        let bits = if part == real { 0o004 } else { 0o001 };
        std::fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & bits == bits)
    })
}

fn send(control: &OwnedFd, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(control.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(|_| ())
        .map_err(|error| Error::Zygote(format!("cannot reach the warm interpreter: {error}")))
}

fn receive_ready(control: &OwnedFd) -> Result<Option<Ready>> {
    let patience = TimeVal::new(IMPORT_PATIENCE.as_secs() as i64, 0);
    setsockopt(&control.as_fd(), sockopt::ReceiveTimeout, &patience).step("set a timeout")?;
    let mut buffer = vec![0u8; MAX_PACKET_BYTES];
    let got = nix::sys::socket::recv(control.as_raw_fd(), &mut buffer, MsgFlags::empty());
    match got {
        Ok(0) => Ok(None),
        Ok(length) => serde_json::from_slice(&buffer[..length])
            .map(Some)
            .map_err(|error| Error::Zygote(format!("the warm interpreter talks nonsense: {error}"))),
        Err(nix::errno::Errno::EAGAIN) => {
            Err(Error::Host(format!("the imports take longer than {} s", IMPORT_PATIENCE.as_secs())))
        }
        Err(error) => Err(Error::Zygote(format!("cannot hear the warm interpreter: {error}"))),
    }
}

/// The last words of a frame on standard error, kept for messages.
struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Tail {
    fn follow(mut stderr: impl Read + Send + 'static, env: String) -> Self {
        const KEPT: usize = 8 << 10;
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&text);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(got) = stderr.read(&mut buffer) {
                if got == 0 {
                    break;
                }
                tracing::debug!(env, said = &*String::from_utf8_lossy(&buffer[..got]), "standard error");
                let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&buffer[..got]);
                let over = text.len().saturating_sub(KEPT);
                text.drain(..over);
            }
        });
        Self { text, thread }
    }

    fn last_line(self) -> String {
        self.thread.join().ok();
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
    }
}

type Answer = Result<Slot>;

/// The thread that starts interpreters and makes slots.
///
/// One thread for the daemon's life: the frames' parent-death signal is bound to the thread that started them.
#[derive(Clone)]
pub struct Keeper {
    asks: std::sync::mpsc::Sender<(usize, SyncSender<Answer>)>,
}

impl Keeper {
    /// Starts every environment.
    ///
    /// # Errors
    /// The first environment that cannot be used.
    pub fn start(envs: &[NamedEnv], common: Common) -> Result<Self> {
        let mut environments =
            envs.iter().map(|env| Environment::inspect(env, &common)).collect::<Result<Vec<_>>>()?;
        let (asks, receiver): (_, Receiver<(usize, SyncSender<Answer>)>) = std::sync::mpsc::channel();
        let (started, ready) = sync_channel(1);
        std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || {
                let warm = environments.iter_mut().try_for_each(|environment| environment.start(&common));
                let failed = warm.is_err();
                if started.send(warm).is_err() || failed {
                    return;
                }
                for (index, answer) in receiver {
                    let slot = match environments.get_mut(index) {
                        Some(environment) => environment.slot(&common),
                        None => Err(Error::Host(format!("no environment {index}"))),
                    };
                    answer.send(slot).ok();
                }
            })
            .step("start a thread")?;
        ready.recv().map_err(|_| Error::Host("the keeper thread ended".into()))??;
        Ok(Self { asks })
    }

    /// A fresh slot of the environment `index`.
    ///
    /// # Errors
    /// The environment cannot be started again, or its slot does not answer.
    pub fn slot(&self, index: usize) -> Answer {
        let gone = || Error::Host("the keeper thread ended".into());
        let (sender, receiver) = sync_channel(1);
        self.asks.send((index, sender)).map_err(|_| gone())?;
        receiver.recv().map_err(|_| gone())?
    }
}

/// Finds the `libevald.so` that was built from the same source as this executable.
///
/// # Errors
/// There is none beside the executable; the message lists where it was looked for.
pub fn find_library(executable: &Path) -> Result<PathBuf> {
    let folder = executable.parent().unwrap_or(Path::new("/"));
    let places = [
        "libevald.so",
        "deps/libevald.so",
        "../libevald.so",
        "../lib/inhouse/libevald.so",
        "../lib/libevald.so",
    ];
    let mut looked = Vec::new();
    for place in places {
        let path = folder.join(place);
        match std::fs::read(&path) {
            Ok(bytes) if contains(&bytes, crate::BUILD.as_bytes()) => {
                return path.canonicalize().step(format!("resolve {}", path.display()));
            }
            Ok(_) => looked.push(format!("{} (of another build)", path.display())),
            Err(_) => looked.push(path.display().to_string()),
        }
    }
    let looked = looked.join(", ");
    Err(Error::Host(format!(
        "no libevald.so of this build; build the evald package again (looked at {looked})"
    )))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // Byte by byte comparison of every window takes a second on a debug build of 100 MB: look for the first byte first.
    let Some((first, rest)) = needle.split_first() else { return true };
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| byte == first) {
        if haystack[from + at + 1..].starts_with(rest) {
            return true;
        }
        from += at + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_wherever_it_is() {
        for (haystack, found) in [("aab", true), ("ab", true), ("xxab", true), ("a", false), ("", false)] {
            assert_eq!(contains(haystack.as_bytes(), b"ab"), found, "{haystack}");
        }
    }
}

//! T3 shares the host's files and processes: nothing of them is changed, and nothing is left.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use evald_proto::Verdict::{self, *};
use sha2::{Digest, Sha256};

use crate::support::{Daemon, Setting, other_user, python, run, settings, settled, wait_until};

fn shared() -> Vec<Setting> {
    settings().into_iter().filter(|setting| setting.tier == "T3").collect()
}

/// Files and folders of the daemon's user, of every kind that attacks aim at.
struct Canary {
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Canary {
    fn plant(setting: Setting) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("canary");
        std::fs::create_dir_all(root.join("inner")).expect("made");
        std::fs::write(root.join("program"), "#!/bin/sh\n").expect("written");
        std::fs::write(root.join("inner/data"), "data").expect("written");
        std::os::unix::fs::symlink("inner/data", root.join("link")).expect("linked");
        for (path, mode) in [("", 0o755), ("inner", 0o755), ("program", 0o755), ("inner/data", 0o644)] {
            let path = root.join(path);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
            let user = if setting.unprivileged { other_user() } else { nix::unistd::geteuid().as_raw() };
            std::os::unix::fs::chown(&path, Some(user), Some(user)).expect("an owner");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        Self { root, _folder: folder }
    }

    /// Over modes, owners, times and contents.
    fn digest(&self) -> String {
        let mut todo = vec![self.root.clone()];
        let mut lines = BTreeMap::new();
        while let Some(path) = todo.pop() {
            let meta = std::fs::symlink_metadata(&path).expect("a canary");
            let mut said = format!(
                "{:o} {} {} {} {} {} {} {}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec()
            );
            if meta.is_dir() {
                todo.extend(std::fs::read_dir(&path).expect("read").flatten().map(|entry| entry.path()));
            } else if meta.is_file() {
                said.push_str(&std::fs::read_to_string(&path).expect("read"));
            } else {
                said.push_str(&format!("{:?}", std::fs::read_link(&path)));
            }
            lines.insert(path, said);
        }
        format!("{:x}", Sha256::digest(format!("{lines:?}")))
    }
}

/// What may be tried on a file of one's user; `P` is its path, `D` its folder, and `C` libc.
const ATTEMPTS: &[&str] = &[
    "os.chmod(P, 0o4755)",
    "os.chmod(D, 0)",
    "os.lchmod(P, 0o4755)",
    "os.fchmod(os.open(P, os.O_RDONLY), 0o4755)",
    "os.fchmod(os.open(P, os.O_PATH), 0o4755)",
    "os.chmod(os.open(D, os.O_PATH), 0)",
    "os.chmod('program', 0o4755, dir_fd=os.open(D, os.O_PATH))",
    "os.chown(P, 65534, 65534)",
    "os.lchown(P, 65534, 65534)",
    "os.utime(P, (1, 1))",
    "os.utime(P)",
    "os.utime(os.path.join(D, 'link'), (1, 1), follow_symlinks=False)",
    "os.utime(os.open(P, os.O_PATH), (1, 1))",
    "os.setxattr(P, 'user.x', b'x')",
    "os.removexattr(P, 'user.x')",
    "os.link(P, 'stolen')",
    "os.link(P, os.path.join(D, 'second'))",
    "os.symlink(P, 'alias'); os.chmod('alias', 0o4755)",
    "os.symlink(D, 'folder'); os.chmod('folder/program', 0o4755)",
    "os.symlink(P, 'there'); os.utime('there', (1, 1))",
    "os.truncate(P, 0)",
    "open(P, 'a').write('x')",
    "os.rename(P, 'stolen')",
    "os.rename('mine', P)",
    "os.unlink(P)",
    "os.mkdir(os.path.join(D, 'new'))",
    "os.mkfifo(os.path.join(D, 'pipe'))",
    "socket.socket(socket.AF_UNIX).bind(os.path.join(D, 'socket'))",
    "fcntl.ioctl(os.open(P, os.O_RDONLY), 0x40086602, b'\\x10' + bytes(7))",
    "C.syscall(452, -100, P.encode(), 0o4755, 0)",
    "C.syscall(90, P.encode(), 0o4755)",
    "C.syscall(132, P.encode(), 0)",
    "C.syscall(235, P.encode(), 0)",
    "C.syscall(261, -100, P.encode(), 0)",
    "C.syscall(280, -100, P.encode(), 0, 0)",
    "C.fchmodat(-100, P.encode(), 0o4755, 0)",
    "swap(P)",
];

/// A thread that swaps its own file for the other, behind the back of whoever judges the call.
const PROLOGUE: &str = "import ctypes, fcntl, os, socket, threading
C = ctypes.CDLL(None)
open('mine', 'w').close()
def swap(path):
    other = os.open(path, os.O_RDONLY)
    mine = os.open('mine', os.O_RDONLY)
    spare = os.dup(mine)
    stop = []
    def turn():
        while not stop:
            os.dup2(other, spare); os.dup2(mine, spare)
            for target in (path, 'mine'):
                try: os.unlink('turning')
                except OSError: pass
                os.symlink(target, 'turning')
    threads = [threading.Thread(target=turn) for _ in range(2)]
    for thread in threads: thread.start()
    for _ in range(300):
        for attempt in (lambda: os.fchmod(spare, 0o700), lambda: os.chmod('turning', 0o700), lambda: os.utime('turning', (1, 1))):
            try: attempt()
            except OSError: pass
    stop.append(1)
    for thread in threads: thread.join()
";

#[test]
fn no_attempt_changes_a_file_of_the_same_user() {
    for setting in shared() {
        let canary = Canary::plant(setting);
        // The canary may be read, so that descriptors on it are to be had.
        let path = canary.root.display().to_string();
        let env = format!("py={}", python().expect("python").display());
        let daemon =
            Daemon::start_with(setting, &env, &["--slots", "1", "--allow", "processes", "--path", &path]);
        let mut client = daemon.client();
        let before = canary.digest();
        let names = format!("D = {path:?}\nP = D + '/program'\n");
        for attempt in ATTEMPTS {
            let tried =
                format!("try:\n    {attempt}\nexcept (OSError, AttributeError, NotImplementedError): pass\n");
            for code in [
                format!("{PROLOGUE}{names}{tried}"),
                format!(
                    "{PROLOGUE}{names}if os.fork() == 0:\n  {}\n  os._exit(0)\nos.wait()",
                    tried.replace('\n', "\n  ")
                ),
            ] {
                let result = run(&mut client, &code, "");
                assert_eq!(canary.digest(), before, "{setting:?}: {attempt}");
                assert_ne!(result.verdict, InfraError, "{setting:?}: {attempt}: {}", result.detail);
            }
        }
        for command in ["chmod 4755", "touch", "chown 65534", "rm -f", "ln -f /bin/true"] {
            let code = format!("{names}import os\nos.system('{command} ' + P)");
            run(&mut client, &code, "");
            assert_eq!(canary.digest(), before, "{setting:?}: {command}");
        }
    }
}

/// What is one's own may be changed, by path and by descriptor.
#[test]
fn modes_and_times_of_own_files_are_set() {
    const OWN: &str = "import os, stat, socket, tempfile
os.mkdir('d'); open('d/f', 'w').write('x')
mode = lambda path: stat.S_IMODE(os.stat(path).st_mode)
os.chmod('d/f', 0o640); assert mode('d/f') == 0o640
os.chmod(os.path.abspath('d/f'), 0o600); assert mode('d/f') == 0o600
os.chmod('f', 0o604, dir_fd=os.open('d', os.O_RDONLY)); assert mode('d/f') == 0o604
fd = os.open('d/f', os.O_RDWR); os.fchmod(fd, 0o644); assert mode('d/f') == 0o644
os.utime('d/f', (5, 6.5)); assert (os.stat('d/f').st_atime, os.stat('d/f').st_mtime) == (5, 6.5)
os.utime(fd, ns=(7, 8)); assert os.stat('d/f').st_mtime_ns == 8
os.utime('d/f'); assert os.stat('d/f').st_mtime > 1e9
os.symlink('d/f', 'l'); os.utime('l', (1, 2), follow_symlinks=False); assert os.lstat('l').st_mtime == 2
assert os.stat('d/f').st_mtime > 1e9
try: os.chmod('gone', 0o600)
except FileNotFoundError: pass
else: raise AssertionError
path = os.path.join(tempfile.mkdtemp(), 's')
a = socket.socket(socket.AF_UNIX); a.bind(path); a.listen(1)
b = socket.socket(socket.AF_UNIX); b.connect(path); c, _ = a.accept(); c.send(b'q')
assert b.recv(1) == b'q' and a.getsockname() == path and b.getpeername() == path";
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let daemon = Daemon::start(setting);
        let result = run(&mut daemon.client(), OWN, "");
        assert_eq!(result.verdict, Passed, "{setting:?}: {}", result.detail);
    }
}

/// Sockets of the host's are out of reach, though Landlock knows nothing of them.
#[test]
fn no_socket_of_the_host_is_reached() {
    use std::os::unix::fs::PermissionsExt;
    for setting in shared() {
        let daemon = Daemon::start(setting);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let path = folder.path().join("host");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("listens");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("a mode");
        for target in [&path, &daemon.socket] {
            for code in [
                format!("import socket\nsocket.socket(socket.AF_UNIX).connect({target:?})"),
                format!(
                    "import os, socket\nos.symlink({target:?}, 'l')\nsocket.socket(socket.AF_UNIX).connect('l')"
                ),
                format!("import socket\na, b = socket.socketpair()\na.sendmsg([b'x'], [], 0, {target:?})"),
                format!(
                    "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', {target:?})"
                ),
                "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0squatted')".to_owned(),
            ] {
                let result = run(&mut daemon.client(), &code, "");
                assert_eq!(result.verdict, Failed, "{setting:?}: {code}: {}", result.detail);
            }
        }
    }
}

/// What samples build to outlive them: each has a verdict of its own, the next is unharmed, and nothing is left.
const RUINS: &[(&str, &str, &[Verdict])] = &[
    ("its parent shut", "import os\nos.chmod(os.path.dirname(os.getcwd()), 0)", &[Failed]),
    ("its own folder shut", "import os\nos.mkdir('d'); os.chmod('.', 0)", &[Passed]),
    (
        "2,000 levels",
        "import os\nfor _ in range(2000):\n  os.mkdir('d' * 100); os.chdir('d' * 100)",
        &[Passed],
    ),
    (
        "levels shut behind it",
        "import os\nfor _ in range(300):\n  os.mkdir('d'); os.chdir('d')\n  fd = os.open('..', os.O_RDONLY); os.fchmod(fd, 0); os.close(fd)",
        &[Passed, Failed],
    ),
    ("30,000 folders", "import os\nfor i in range(30000): os.mkdir(f'd{i}')", &[DiskLimit]),
    (
        "many files",
        "for i in range(100):\n  with open(f'x{i}', 'wb') as f: f.write(bytes(1 << 20))",
        &[DiskLimit],
    ),
    (
        "a file without a name",
        "import os\nfd = os.open('x', os.O_CREAT | os.O_RDWR); os.unlink('x'); os.write(fd, b'x')",
        &[Passed],
    ),
];

#[test]
fn what_a_sample_builds_goes_with_it() {
    for setting in shared() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (name, code, verdicts) in RUINS {
            let result = run(&mut client, code, "");
            assert!(
                verdicts.contains(&result.verdict),
                "{setting:?}: {name}: {:?} {}",
                result.verdict,
                result.detail
            );
            let next =
                run(&mut client, "import os\nassert os.listdir('.') == []\nopen('x', 'w').write('x')", "");
            assert_eq!(next.verdict, Passed, "{setting:?}: after {name}: {}", next.detail);
        }
        let scratch = scratch_of(&daemon);
        wait_until("the folders of samples are removed", || {
            scratch.iter().all(|folder| std::fs::read_dir(folder).is_ok_and(|mut left| left.next().is_none()))
        });
        let pid = nix::unistd::Pid::from_raw(daemon.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        wait_until("the daemon's folder is removed", || {
            scratch.iter().all(|folder| !Path::new(folder).exists())
        });
    }
}

/// The folder of a daemon's samples, found by its lock's holder.
fn scratch_of(daemon: &Daemon) -> Vec<PathBuf> {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).expect("fds").flatten();
    let paths = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let found: Vec<PathBuf> = paths
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("evald-scratch-"))
        })
        .collect();
    assert!(!found.is_empty(), "a T3 daemon has a folder");
    found
}

/// A sample's processes end with it, whatever they do to get away, also where the daemon is killed.
#[test]
fn no_process_of_a_sample_outlives_it() {
    let away = "import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
";
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let env = format!("py={}", python().expect("python").display());
        let daemon = Daemon::start_with(setting, &env, &["--slots", "1", "--allow", "processes"]);
        let mut client = daemon.client();
        assert_eq!(run(&mut client, "x = 1", "").verdict, Passed);
        let processes = daemon.descendants();
        for (end, verdicts) in [
            ("", [Passed, Passed]),
            ("import os\nos._exit(1)", [NoVerdict, NoVerdict]),
            ("import os\nos.kill(os.getpid(), 9)", [Signaled, Signaled]),
            ("while True: os.wait() if os.fork() else time.sleep(99)", [TimeoutWall, ProcLimit]),
            ("while True:\n  try: os.fork()\n  except OSError: pass", [TimeoutCpu, TimeoutWall]),
        ] {
            let result = run(&mut client, &format!("{away}{end}"), "");
            assert!(
                verdicts.contains(&result.verdict),
                "{setting:?}: {end}: {:?} {}",
                result.verdict,
                result.detail
            );
            assert_eq!(daemon.descendants(), processes, "{setting:?}: {end}");
        }
    }
}

/// Whoever is killed while a fork bomb runs, and others with it: nothing of the bomb is left.
#[test]
fn whatever_is_killed_takes_a_fork_bomb_along() {
    const BOMB: &str = "import os, time
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError: time.sleep(0) if os.getpid() % 2 else time.sleep(1000)
";
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        for killed in [&["daemon"][..], &["master"], &["slot"], &["slot", "daemon"]] {
            let env = format!("py={}", python().expect("python").display());
            let daemon = Daemon::start_with(setting, &env, &["--slots", "1", "--allow", "processes"]);
            assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Passed);
            let mut line = Vec::new();
            wait_until("a slot is ready", || {
                line = settled(|| daemon.descendants());
                line.len() >= 2
            });
            let socket = daemon.socket.clone();
            let waiting = std::thread::spawn(move || {
                let mut client = evald_proto::Client::connect(&socket, &|| false).expect("connects");
                client.run(crate::support::job(BOMB, ""))
            });
            wait_until("the bomb goes off", || daemon.descendants().len() >= line.len() + 100);
            let all = daemon.descendants();
            for name in killed {
                // The line ends in the master and its slot.
                let pid = match *name {
                    "daemon" => daemon.child.id() as i32,
                    "master" => line[line.len() - 2],
                    _ => line[line.len() - 1],
                };
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
                    .expect("killed");
            }
            let verdict = waiting.join().expect("a client").map(|result| result.verdict);
            assert!(!matches!(verdict, Ok(Passed)), "{setting:?}: {killed:?}: {verdict:?}");
            wait_until("all of the bomb has gone", || {
                let left = all.iter().filter(|pid| !line.contains(pid) && !has_ended(**pid)).count();
                left == 0 && daemon.descendants().len() <= line.len()
            });
            drop(daemon);
            wait_until("and who ran it", || all.iter().all(|pid| has_ended(*pid)));
        }
    }
}

/// Gone, or not yet asked for by whoever is its parent now.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

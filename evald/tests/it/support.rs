//! Daemons to test against, started as this user and, where this user is root, as an unprivileged one.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evald_proto::{Client, Job, JobResult, Limits};

/// The command under test.
pub const EVALD: &str = env!("CARGO_BIN_EXE_evald");
/// The unprivileged user.
const NOBODY: u32 = 65534;

/// Who runs the daemon, in which tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// `T2` or `T3`.
    pub tier: &'static str,
    /// Whether to become an unprivileged user first.
    pub unprivileged: bool,
}

/// Every setting that this host can run; those it cannot are printed with the reason.
pub fn settings() -> Vec<Setting> {
    let mut found = Vec::new();
    for unprivileged in [false, true] {
        for tier in ["T2", "T3"] {
            let setting = Setting { tier, unprivileged };
            match possible(setting) {
                Ok(()) => found.push(setting),
                Err(reason) => println!("skipped: {setting:?}: {reason}"),
            }
        }
    }
    found
}

/// The strongest setting of this host, or `None` with a printed reason.
pub fn any_setting() -> Option<Setting> {
    let setting = settings().first().copied();
    if setting.is_none() {
        println!("skipped: this host gives no sandbox");
    }
    setting
}

fn possible(setting: Setting) -> Result<(), String> {
    let root = nix::unistd::geteuid().is_root();
    if setting.unprivileged && !root {
        return Err("this user is unprivileged already".into());
    }
    if python().is_none() {
        return Err("no python3 that other users may run".into());
    }
    let mut command = Command::new(executable());
    command.args(["check", "--tier", setting.tier]);
    let output = lower(&mut command, setting).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let tier = text.lines().find(|line| line.starts_with("tier")).unwrap_or("no answer").to_owned();
    if output.status.success() { Ok(()) } else { Err(tier) }
}

fn lower(command: &mut Command, setting: Setting) -> &mut Command {
    if setting.unprivileged { command.uid(NOBODY).gid(NOBODY) } else { command }
}

/// The command and its library where every user can reach them (a build folder may be private).
pub fn executable() -> PathBuf {
    static COPY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let copy = COPY.get_or_init(|| {
        // Nothing runs after the last test, so each run clears up after those that have ended.
        for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ended = |pid: &str| !Path::new("/proc").join(pid).exists();
            if name.strip_prefix("evald-it-").is_some_and(ended) {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        let folder = std::env::temp_dir().join(format!("evald-it-{}", std::process::id()));
        let library = evald::environment::find_library(Path::new(EVALD)).expect("libevald.so of this build");
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::copy(EVALD, folder.join("evald")).expect("copied");
        std::fs::copy(library, folder.join("libevald.so")).expect("copied");
        open_to_all(&folder);
        folder
    });
    copy.join("evald")
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

/// An interpreter that any user may run.
pub fn python() -> Option<PathBuf> {
    let given = std::env::var_os("EVALD_TEST_PYTHON").map(PathBuf::from);
    let known = ["/usr/bin/python3", "/usr/local/bin/python3"].iter().map(PathBuf::from);
    given.into_iter().chain(known).find(|path| path.is_file())
}

/// A daemon with one slot, killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub socket: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A secret in the daemon's environment that no sample may see.
pub const SECRET: &str = "EVALD_IT_SECRET";

impl Daemon {
    pub fn start(setting: Setting) -> Self {
        Self::start_with(setting, &format!("py={}", python().expect("python").display()), &["--slots", "1"])
    }

    pub fn start_with(setting: Setting, env: &str, extra: &[&str]) -> Self {
        Self::start_logging(setting, env, extra, Stdio::inherit())
    }

    pub fn start_logging(setting: Setting, env: &str, extra: &[&str], log: Stdio) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        if setting.unprivileged {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let socket = folder.path().join("socket");
        let mut command = Command::new(executable());
        command
            .arg("serve")
            .arg("--socket")
            .arg(&socket)
            .args(["--tier", setting.tier, "--env", env])
            .args(extra)
            .env(SECRET, "hunter2")
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(log);
        let child = lower(&mut command, setting).spawn().expect("evald starts");
        let mut daemon = Self { child, socket, folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !daemon.socket.exists() {
            assert!(Instant::now() < deadline, "evald does not listen");
            let ended = daemon.child.try_wait().expect("waited");
            assert!(ended.is_none(), "evald ended with {ended:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket, &|| false).expect("connects")
    }

    /// All processes below the daemon.
    pub fn descendants(&self) -> Vec<i32> {
        let mut parents = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, rest)) = stat.rsplit_once(')') else { continue };
            if let Some(parent) = rest.split_whitespace().nth(1).and_then(|field| field.parse::<i32>().ok()) {
                parents.push((pid, parent));
            }
        }
        let mut found = vec![self.child.id() as i32];
        let mut index = 0;
        while let Some(pid) = found.get(index).copied() {
            found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
            index += 1;
        }
        found.split_off(1)
    }

    /// Resident memory of the daemon alone, KiB.
    pub fn resident_kib(&self) -> u64 {
        resident_kib(self.child.id() as i32).expect("VmRSS of the daemon")
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("fds").count()
    }
}

/// Resident memory of a process, KiB; `None` once it has ended.
pub fn resident_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Waits for something that must come about; how long it takes decides nothing.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The user whom the unprivileged daemons run as.
pub fn other_user() -> u32 {
    NOBODY
}

/// A job with short limits.
pub fn job(code: &str, test: &str) -> Job {
    Job { id: "job".into(), code: code.into(), test: test.into(), limits: short(), ..Job::default() }
}

pub fn short() -> Limits {
    Limits {
        cpu_ms: Some(1_000),
        wall_ms: Some(4_000),
        memory_bytes: Some(256 << 20),
        disk_bytes: Some(8 << 20),
        ..Limits::default()
    }
}

pub fn run(client: &mut Client, code: &str, test: &str) -> JobResult {
    client.run(job(code, test)).expect("a result")
}

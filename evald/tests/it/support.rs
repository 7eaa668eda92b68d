//! Daemons to test against, started as this user and, where this user is root, as an unprivileged one.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evald::delegation;
use evald_proto::{Client, Job, JobResult, Limits};

/// The command under test.
pub const EVALD: &str = env!("CARGO_BIN_EXE_evald");
/// The unprivileged user.
const NOBODY: u32 = 65534;

/// Who runs the daemon, in which tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// `T0` to `T4`.
    pub tier: &'static str,
    /// Whether to become an unprivileged user first.
    pub unprivileged: bool,
}

/// Every setting that this host can run; those it cannot are printed with the reason.
pub fn settings() -> Vec<Setting> {
    let mut found = Vec::new();
    let root = nix::unistd::geteuid().is_root();
    for unprivileged in [false, true] {
        for tier in ["T0", "T1", "T2", "T3", "T4"] {
            let setting = Setting { tier, unprivileged };
            // T0 is root's and T1 everybody else's.
            if (tier == "T0") == (unprivileged || !root) && matches!(tier, "T0" | "T1") {
                continue;
            }
            if !asked_for(tier) {
                continue;
            }
            match possible(setting) {
                Ok(()) => found.push(setting),
                Err(reason) => println!("skipped: {setting:?}: {reason}"),
            }
        }
    }
    found
}

/// `EVALD_TEST_TIERS` (`T0,T1`) narrows the tests to some tiers.
fn asked_for(tier: &str) -> bool {
    std::env::var("EVALD_TEST_TIERS").map_or(true, |tiers| tiers.split(',').any(|asked| asked == tier))
}

/// The strongest setting of this host, or `None` with a printed reason.
pub fn any_setting() -> Option<Setting> {
    let setting = settings().first().copied();
    if setting.is_none() {
        println!("skipped: this host gives no sandbox");
    }
    setting
}

/// The strongest setting of this host in which programs are native code, or `None` with a printed reason.
pub fn any_native() -> Option<Setting> {
    let setting = settings().into_iter().find(|setting| setting.tier != "T4");
    if setting.is_none() {
        println!("skipped: this host gives no sandbox for native code");
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
    let mut command = evald(setting)?;
    let output =
        command.args(["check", "--tier", setting.tier]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let tier = text.lines().find(|line| line.starts_with("tier")).unwrap_or("no answer").to_owned();
    if output.status.success() { Ok(()) } else { Err(tier) }
}

/// `evald` as the setting's user; in T1, where this user is root, in a group that is delegated to that user.
pub fn evald(setting: Setting) -> Result<Command, String> {
    if !(setting.unprivileged && setting.tier == "T1") {
        let mut command = Command::new(executable());
        command.stdin(Stdio::null());
        if let Some(wasi) = wasi() {
            command.env("EVALD_WASI", wasi);
        }
        if setting.unprivileged {
            command.uid(NOBODY).gid(NOBODY);
        }
        return Ok(command);
    }
    started_in(&delegated()?.join("launch"))
}

/// The CPython for WASI that T4 is tested with: of `EVALD_WASI`, or the one that `make setup` fetched.
pub fn wasi() -> Option<PathBuf> {
    let given = std::env::var_os("EVALD_WASI").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.env/wasi");
    given.or_else(|| fetched.canonicalize().ok())
}

/// The settings of T4, or a printed reason.
pub fn machines() -> Vec<Setting> {
    settings().into_iter().filter(|setting| setting.tier == "T4").collect()
}

/// `evald` as the unprivileged user in a group.
fn started_in(group: &Path) -> Result<Command, String> {
    // The kernel judges the move into the group by who opened the file: root.
    let join = std::fs::File::options().write(true).open(group.join("cgroup.procs"));
    let mut command = Command::new("sh");
    command.args(["-c", "echo 0 >&0 && exec \"$@\" </dev/null", "sh"]).arg(executable());
    command.uid(NOBODY).gid(NOBODY).stdin(join.map_err(|error| error.to_string())?);
    Ok(command)
}

/// A group that is delegated to the unprivileged user, as `Delegate=` of systemd does it: its folder and the files that
/// make and fill groups. Daemons start in `launch` below it.
pub fn delegated() -> Result<&'static Path, String> {
    static GROUP: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    let made = GROUP.get_or_init(|| {
        let place = delegation::place(&delegation::look()?)?;
        if place.vacate {
            return Err(format!("{} would have to be left first", place.base.display()));
        }
        let text = |error: std::io::Error| format!("cannot make a group to delegate: {error}");
        let passing = |group: &Path| std::fs::write(group.join("cgroup.subtree_control"), "+memory +pids");
        passing(&place.base).map_err(text)?;
        let folders = std::fs::read_dir(&place.base).map_err(text)?.flatten();
        for old in folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(DELEGATED)) {
            // Whoever still runs in it keeps it. Daemons that were killed leave two levels.
            for below in std::fs::read_dir(old.path()).into_iter().flatten().flatten() {
                for leaf in std::fs::read_dir(below.path()).into_iter().flatten().flatten() {
                    std::fs::remove_dir(leaf.path()).ok();
                }
                std::fs::remove_dir(below.path()).ok();
            }
            std::fs::remove_dir(old.path()).ok();
        }
        let group = place.base.join(format!("{DELEGATED}{}", std::process::id()));
        make_delegated(&group)?;
        passing(&group).map_err(text)?;
        make_delegated(&group.join("launch"))?;
        Ok(group)
    });
    made.as_deref().map_err(Clone::clone)
}

fn make_delegated(group: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("cannot make a group to delegate: {error}");
    std::fs::create_dir(group).map_err(text)?;
    for part in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        std::os::unix::fs::chown(group.join(part), Some(NOBODY), Some(NOBODY)).map_err(text)?;
    }
    Ok(())
}

/// A delegated group beside [`delegated`], so that no other of that user is above it.
pub fn alone() -> Result<PathBuf, String> {
    let beside = delegated()?;
    let group = beside.with_file_name(format!("{DELEGATED}{}-alone", std::process::id()));
    make_delegated(&group).map(|()| group)
}

const DELEGATED: &str = "evald-it-";

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
        Self::start_also(setting, &["--slots", "1"])
    }

    /// With further options.
    pub fn start_also(setting: Setting, extra: &[&str]) -> Self {
        Self::start_with(setting, &format!("py={}", python().expect("python").display()), extra)
    }

    pub fn start_with(setting: Setting, env: &str, extra: &[&str]) -> Self {
        Self::start_logging(setting, env, extra, Stdio::inherit())
    }

    pub fn start_logging(setting: Setting, env: &str, extra: &[&str], log: Stdio) -> Self {
        Self::spawn(evald(setting).expect("a setting of this host"), setting, env, extra, log)
    }

    /// As [`Daemon::start`], in a group that is delegated to the unprivileged user.
    pub fn start_in(group: &Path, setting: Setting) -> Self {
        let env = format!("py={}", python().expect("python").display());
        let command = started_in(group).expect("a group");
        Self::spawn(command, setting, &env, &["--slots", "1"], Stdio::inherit())
    }

    fn spawn(mut command: Command, setting: Setting, env: &str, extra: &[&str], log: Stdio) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        if setting.unprivileged {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let socket = folder.path().join("socket");
        command
            .arg("serve")
            .arg("--socket")
            .arg(&socket)
            .args(["--tier", setting.tier, "--env", env])
            .args(extra)
            .env(SECRET, "hunter2")
            .current_dir("/")
            .stderr(log);
        let child = command.spawn().expect("evald starts");
        let mut daemon = Self { child, socket, folder };
        let deadline = Instant::now() + slowed(Duration::from_secs(120));
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

    /// The daemon's cgroups, wherever they are, by what their names say of its process. Leaves of slots come last.
    pub fn groups(&self) -> Vec<PathBuf> {
        let top = delegation::look().ok().and_then(|groups| groups.last().map(|group| group.path.clone()));
        let mut todo: Vec<PathBuf> = top.into_iter().collect();
        let mut found = Vec::new();
        let mark = format!("-{}-", self.child.id());
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if entry.path().to_string_lossy().contains(&mark) {
                        found.push(entry.path());
                    }
                    todo.push(entry.path());
                }
            }
        }
        found.sort();
        found
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
    let deadline = Instant::now() + slowed(Duration::from_secs(90));
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What looks over a fifth of a second agree on. A T3 sample's folder is removed behind its verdict, which takes descriptors, and
/// the kernel's lists of processes may leave out some while others end.
pub fn settled<T: PartialEq>(mut look: impl FnMut() -> T) -> T {
    const LOOKS: u32 = 10;
    let mut found = look();
    let mut alike = 0;
    wait_until("it settles", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = look();
        alike = if now == found { alike + 1 } else { 0 };
        found = now;
        alike >= LOOKS
    });
    found
}

/// The user whom the unprivileged daemons run as.
pub fn other_user() -> u32 {
    NOBODY
}

/// Whether no process is in a group.
pub fn is_empty(group: &Path) -> bool {
    std::fs::read_to_string(group.join("cgroup.events")).is_ok_and(|events| events.contains("populated 0"))
}

/// A job with short limits.
pub fn job(code: &str, test: &str) -> Job {
    Job { id: "job".into(), code: code.into(), test: test.into(), limits: short(), ..Job::default() }
}

/// A time on this machine: `EVALD_TEST_SLOWNESS` times as long where that is set (an emulated one).
pub fn slowed(time: Duration) -> Duration {
    let factor = std::env::var("EVALD_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    time * factor
}

pub fn short() -> Limits {
    Limits {
        cpu_ms: Some(slowed(Duration::from_secs(1)).as_millis() as u64),
        wall_ms: Some(slowed(Duration::from_secs(4)).as_millis() as u64),
        memory_bytes: Some(256 << 20),
        disk_bytes: Some(8 << 20),
        ..Limits::default()
    }
}

pub fn run(client: &mut Client, code: &str, test: &str) -> JobResult {
    client.run(job(code, test)).expect("a result")
}

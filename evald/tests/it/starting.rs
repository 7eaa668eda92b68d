//! Before the environments are warm: imports take seconds, and whoever waits may change his mind or be killed.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evald_proto::{Client, ClientError, SpawnOptions};

use crate::support::{any_native, any_setting, executable, python, wait_until};

/// A folder with a module that takes for ever to import, and the environment that does so.
fn endless() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("slowest.py"), "import time\ntime.sleep(1000)\n").expect("written");
    (folder, format!("py={}:slowest", python().expect("python").display()))
}

/// Processes that were told of a folder, by argument or environment.
fn told_of(folder: &Path) -> Vec<String> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let knows = |pid: &String| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            text.windows(needle.len()).any(|part| part == needle)
        })
    };
    pids.filter(|pid| pid.parse::<u32>().is_ok() && *pid != own && knows(pid)).collect()
}

fn imports(folder: &Path) {
    // The daemon, its frame and the interpreter (in T3 the frame has become the interpreter).
    wait_until("the import begins", || told_of(folder).len() >= 2);
}

#[test]
fn a_client_that_stops_waiting_ends_its_daemon() {
    let Some(setting) = any_setting() else { return };
    let (folder, env) = endless();
    let options = SpawnOptions {
        tier: Some(setting.tier.into()),
        envs: vec![env.parse().expect("an environment")],
        paths: vec![folder.path().into()],
        slots: Some(1),
        ..SpawnOptions::default()
    };
    let stop = || told_of(folder.path()).len() >= 2;
    let outcome = Client::spawn(&executable(), &options, &stop);
    assert!(matches!(outcome, Err(ClientError::Stopped)), "{:?}", outcome.err());
    wait_until("all end", || told_of(folder.path()).is_empty());
}

fn start(setting: crate::support::Setting, folder: &Path, env: &str, place: &[&str], stdin: Stdio) -> Child {
    let mut command = Command::new(executable());
    command.arg("serve").args(place).args(["--tier", setting.tier, "--env", env, "--path"]).arg(folder);
    command.stdin(stdin).spawn().expect("evald starts")
}

/// A daemon that listens in `folder`, once it imports.
fn importing(setting: crate::support::Setting, folder: &Path, env: &str) -> Child {
    let socket = folder.join("socket");
    let place = ["--socket", socket.to_str().expect("a path")];
    let daemon = start(setting, folder, env, &place, Stdio::null());
    imports(folder);
    daemon
}

#[test]
fn a_private_daemon_notices_that_its_client_was_killed() {
    let Some(setting) = any_setting() else { return };
    let (folder, env) = endless();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let stdin = Stdio::from(OwnedFd::from(theirs));
    let mut daemon = start(setting, folder.path(), &env, &["--stdio"], stdin);
    imports(folder.path());
    // What the kernel does with a killed client's descriptors; its hello is still unread.
    std::io::Write::write_all(&mut &ours, b"{\"op\":\"hello\"}\n").expect("sent");
    drop(ours);
    wait_until("the daemon ends", || daemon.try_wait().expect("waited").is_some());
    wait_until("all end", || told_of(folder.path()).is_empty());
}

#[test]
fn a_signal_ends_a_daemon_that_is_not_ready_yet() {
    let Some(setting) = any_setting() else { return };
    let (folder, env) = endless();
    let mut daemon = importing(setting, folder.path(), &env);
    let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
    wait_until("the daemon ends", || daemon.try_wait().expect("waited").is_some());
    assert!(daemon.wait().expect("reaped").success() && !folder.path().join("socket").exists());
    wait_until("all end", || told_of(folder.path()).is_empty());
}

/// A frame may die between the fork of its interpreter and the interpreter's wish to die with it. Such moments are short:
/// before that was mended, one round in a thousand left an interpreter behind.
#[test]
fn a_kill_at_any_moment_of_the_start_leaves_nothing() {
    let Some(setting) = any_native() else { return };
    let (folder, env) = endless();
    for round in 0..60 {
        let mut daemon = importing(setting, folder.path(), &env);
        std::thread::sleep(Duration::from_micros(100 * round));
        daemon.kill().expect("killed");
        daemon.wait().expect("reaped");
        wait_until("all end", || told_of(folder.path()).is_empty());
    }
}

/// In T3 samples live in a folder of the daemon's, which a `kill -9` leaves behind: the next daemon removes it.
#[test]
fn what_a_killed_daemon_left_is_cleared_by_the_next() {
    let Some(setting) = crate::support::settings().into_iter().find(|setting| setting.tier == "T3") else {
        return println!("skipped: this host gives no T3");
    };
    let temporary = tempfile::tempdir().expect("a folder");
    let env = format!("py={}", python().expect("python").display());
    let left = || std::fs::read_dir(temporary.path()).expect("read").count();
    let run = |end: fn(&mut Child)| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut command = Command::new(executable());
        command.args(["serve", "--stdio", "--tier", "T3", "--env", &env]).env("TMPDIR", temporary.path());
        let mut daemon = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().expect("evald starts");
        drop(command);
        wait_until("it makes its folder", || left() > 0);
        let mut hello = String::new();
        std::io::Write::write_all(&mut &ours, b"{\"op\":\"hello\"}\n").expect("sent");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&ours), &mut hello).expect("a hello");
        assert_eq!(left(), 1, "one folder, its own");
        end(&mut daemon);
        drop(ours);
        daemon.wait().expect("reaped");
    };
    run(|daemon| daemon.kill().expect("killed"));
    assert_eq!((setting.tier, left()), ("T3", 1), "that is what a kill leaves");
    run(|_| {});
    assert_eq!(left(), 0, "an ordinary end leaves nothing, and what was left before is gone");
}

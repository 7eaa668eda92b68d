//! Hostile clients: what they send ends in an error for them, and in nothing for the others.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use evald_proto::Verdict;

use crate::support::{
    Daemon, any_native, any_setting, executable, other_user, python, run, settings, wait_until,
};

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(&daemon.socket).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    stream
}

/// A small generator (xorshift) so that a failure can be run again.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn damaged_requests_draw_errors_and_harm_nobody() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let good: &[&[u8]] = &[
        br#"{"op":"hello"}"#,
        br#"{"op":"cancel","id":"x"}"#,
        br#"{"op":"run","id":"x","code":"x = 1","test":"","env":"nowhere","limits":{"cpu_ms":100}}"#,
    ];
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut stream = connect(&daemon);
    for round in 0..3_000 {
        let mut line = good[round % good.len()].to_vec();
        for _ in 0..noise.next() % 6 {
            let at = noise.next() as usize % line.len();
            match noise.next() % 4 {
                0 => line[at] = noise.next() as u8,
                1 => line.truncate(at.max(1)),
                2 => line.insert(at, b"{}[]\",:0e\\u\xff\0"[noise.next() as usize % 13]),
                _ => line.extend_from_within(at..),
            }
        }
        line.retain(|byte| *byte != b'\n');
        line.push(b'\n');
        if stream.write_all(&line).is_err() || round % 100 == 99 {
            // The daemon has hung up on text that is not UTF-8, or it is time to drop what was not read.
            stream = connect(&daemon);
        }
    }
    drop(stream);
    assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
}

#[test]
fn deeply_nested_json_is_an_error() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut stream = connect(&daemon);
    stream.write_all(format!("{}\n", "[".repeat(1 << 20)).as_bytes()).expect("sent");
    let mut reply = String::new();
    BufReader::new(&stream).read_line(&mut reply).expect("a reply");
    assert!(reply.contains("not a request"), "{reply}");
    assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
}

#[test]
fn an_endless_line_is_cut_off_and_memory_stays_bounded() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let before = daemon.resident_kib();
    let mut stream = connect(&daemon);
    let chunk = vec![b' '; 1 << 20];
    let mut sent = 0u64;
    // One gigabyte is offered; the daemon hangs up after MAX_LINE_BYTES.
    while sent < 1 << 30 && stream.write_all(&chunk).is_ok() {
        sent += chunk.len() as u64;
    }
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok();
    assert!(reply.is_empty() || reply.contains("longer than"), "{reply}");
    assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
    let after = daemon.resident_kib();
    assert!(after < before + (64 << 10), "{before} KiB -> {after} KiB");
}

#[test]
fn a_passed_socket_is_served_and_left_alone() {
    let Some(setting) = any_native() else { return };
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("passed");
    let listener = UnixListener::bind(&path).expect("listens");
    // As systemd does it: the socket as descriptor 3, and the process that it is for by its id.
    let start = |listener: &UnixListener, pid: &str| {
        let stdin = OwnedFd::from(listener.try_clone().expect("cloned"));
        let line = format!("LISTEN_FDS=1 LISTEN_PID={pid} exec \"$0\" \"$@\" 3<&0 0</dev/null");
        let env = format!("py={}", python().expect("python").display());
        let mut command = Command::new("sh");
        command.args(["-c", &line]).arg(executable()).args(["serve", "--systemd", "--slots", "1"]);
        command.args(["--tier", setting.tier, "--env", &env]).stdin(stdin).stderr(Stdio::piped());
        command.spawn().expect("started")
    };
    // The first client comes before the daemon is up, and is served when it is.
    for _ in 0..2 {
        let mut daemon = start(&listener, "$$");
        let mut client = evald_proto::Client::connect(&path, &|| false).expect("served");
        assert_eq!(run(&mut client, "import os\nos.fstat(3)", "").verdict, Verdict::Passed);
        // The record's pipe is all that a sample finds beyond the standard three.
        let fds = "import os\nfor fd in range(4, 64):\n  try: os.fstat(fd)\n  except OSError: continue\n  raise ValueError(fd)";
        assert_eq!(run(&mut client, fds, "").verdict, Verdict::Passed);
        drop(client);
        let pid = nix::unistd::Pid::from_raw(daemon.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        assert!(daemon.wait().expect("reaped").success());
        assert!(path.exists(), "the socket is systemd's to remove");
    }
    let output = start(&listener, "1").wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("process \"1\""), "{said}");
}

#[test]
fn half_lines_slow_readers_and_crowds_hold_up_nobody() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    // A client that never reads its replies, of which there are more than fit any buffer.
    let mut deaf = connect(&daemon);
    deaf.set_write_timeout(Some(Duration::from_millis(500))).expect("timeout");
    let junk = b"{\"op\":\"none\"}\n".repeat(1 << 12);
    while deaf.write_all(&junk).is_ok() {}
    // Clients that send half a line and wait.
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&daemon);
        stream.write_all(b"{\"op\":\"he").expect("sent");
        halves.push(stream);
    }
    assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
    // Many more connections than are served, each one kept open: who works keeps its place, and newcomers find one.
    let mut served = daemon.client();
    assert_eq!(run(&mut served, "x = 1", "").verdict, Verdict::Passed);
    for round in 0..8 {
        halves.extend((0..50).map(|_| connect(&daemon)));
        assert_eq!(run(&mut served, "x = 1", "").verdict, Verdict::Passed, "round {round}");
        assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed, "round {round}");
    }
    let told = halves.iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("timeout");
        let mut text = [0u8; 256];
        let got = (&**stream).read(&mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..got]).contains("\"code\":\"busy\"")
    });
    assert!(told.count() >= 100, "who lost its place is told why");
    drop(halves);
    drop(deaf);
    wait_until("all are gone", || served.metrics().expect("metrics").contains("\nevald_connections 1\n"));
}

/// Where no thread can be started for it, a client is told so, whichever of its two threads it was; later ones are served.
#[test]
fn a_client_that_gets_no_thread_is_told_so() {
    let Some(setting) = any_setting() else { return };
    let limit = |daemon: &Daemon, bytes: &str| {
        let pid = daemon.child.id().to_string();
        Command::new("prlimit").args(["--pid", &pid, &format!("--as={bytes}:")]).status()
    };
    // A thread's stack is 2 MiB: with so much address space left, every number of threads from none up can be started.
    for spare_mib in [1, 3, 5, 7] {
        let daemon = Daemon::start(setting);
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).expect("status");
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("VmSize");
        let size: u64 = size.trim().trim_end_matches("kB").trim().parse().expect("a number");
        match limit(&daemon, &(size * 1024 + (spare_mib << 20)).to_string()) {
            Ok(status) if status.success() => {}
            other => return println!("skipped: prlimit does not work: {other:?}"),
        }
        let mut streams = Vec::new();
        let mut turned_away = 0;
        for _ in 0..8 {
            let stream = connect(&daemon);
            // It may have been turned away by now, which is what is to be read.
            (&stream).write_all(b"{\"op\":\"hello\"}\n").ok();
            let mut reply = String::new();
            BufReader::new(&stream).read_line(&mut reply).expect("a reply");
            turned_away += usize::from(reply.contains("cannot start a thread"));
            assert!(reply.contains("cannot start a thread") || reply.contains("\"hello\""), "{reply:?}");
            streams.push(stream);
        }
        assert!(turned_away > 0, "{spare_mib} MiB are enough for 16 threads");
        assert!(limit(&daemon, "unlimited").is_ok_and(|status| status.success()));
        assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
    }
}

/// Only root can be another user here.
#[test]
fn other_users_are_turned_away_and_told_so() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let Some(setting) = settings().into_iter().find(|setting| !setting.unprivileged) else {
        return println!("skipped: this host gives no sandbox to this user");
    };
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root can connect as another user");
    }
    let daemon = Daemon::start(setting);
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("opened");
    };
    // The doors stand open: it is for his credentials that he is turned away.
    open(daemon.folder.path(), 0o755);
    open(&daemon.socket, 0o666);
    let other = other_user();
    for _ in 0..20 {
        let mut command = Command::new(executable());
        command.args(["metrics", "--socket"]).arg(&daemon.socket).uid(other).gid(other);
        let output = command.output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains(&format!("refused: user {other} may not connect")), "{said}");
    }
    let text = daemon.client().metrics().expect("metrics");
    assert!(text.contains("\nevald_connections_refused_total 20\n"), "{text}");
}

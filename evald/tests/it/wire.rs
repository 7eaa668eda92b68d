//! Hostile clients: what they send ends in an error for them, and in nothing for the others.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use evald_proto::Verdict;

use crate::support::{Daemon, any_setting, executable, python, run};

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(&daemon.socket).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    stream
}

fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
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
    let before = resident_kib(&daemon);
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
    let after = resident_kib(&daemon);
    assert!(after < before + (64 << 10), "{before} KiB -> {after} KiB");
}

#[test]
fn a_passed_socket_is_served_and_left_alone() {
    let Some(setting) = any_setting() else { return };
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
        let mut client = evald_proto::Client::connect(&path).expect("served");
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
    // More connections than are served: the surplus is told so, and the others still are.
    let mut served = daemon.client();
    let mut refused = 0;
    for _ in 0..200 {
        let mut stream = connect(&daemon);
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        let mut text = [0u8; 256];
        let got = stream.read(&mut text).unwrap_or(0);
        refused += usize::from(String::from_utf8_lossy(&text[..got]).contains("connections"));
        halves.push(stream);
    }
    assert!(refused >= 100, "{refused} refused");
    assert_eq!(run(&mut served, "x = 1", "").verdict, Verdict::Passed);
    drop(halves);
    drop(deaf);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while evald_proto::Client::connect(&daemon.socket).is_err() {
        assert!(std::time::Instant::now() < deadline, "room is made again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! What the daemon logs: one line per event, in both forms, whatever clients and candidates put into it.

use std::fs::File;

use evald_proto::{Job, Verdict};

use crate::support::{Daemon, any_setting, job, python, wait_until};

/// Tries to begin a line of its own, to colour the terminal, and to end the JSON.
const HOSTILE: &str = "x\n2026-01-01T00:00:00Z ERROR evald: forged\r\u{1b}[31m\"},{\u{7}\u{202e}";

/// Runs a job that fails and one whose id and exception are hostile, and returns the log.
fn log(form: &str, level: &str) -> Option<String> {
    let setting = any_setting()?;
    let env = format!("py={}", python().expect("python").display());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let arguments = ["--slots", "1", "--log", form, "--log-level", level];
    let file = File::create(&path).expect("a file");
    let mut daemon = Daemon::start_logging(setting, &env, &arguments, file.into());
    let mut client = daemon.client();
    let raising =
        format!("raise ValueError({HOSTILE:?})").replace("\\u{1b}", "\\x1b").replace("\\u{7}", "\\x07");
    let raising = raising.replace("\\u{202e}", "\\u202e");
    assert_eq!(client.run(job(&raising, "")).expect("a result").verdict, Verdict::Failed);
    // The client makes ids of its own, so this one is said by hand.
    let hostile = Job { id: HOSTILE.into(), ..job("raise SystemExit", "") };
    let line = serde_json::to_string(&evald_proto::Request::Run(hostile)).expect("a line") + "\n";
    let stream = std::os::unix::net::UnixStream::connect(&daemon.socket).expect("connects");
    std::io::Write::write_all(&mut &stream, line.as_bytes()).expect("sent");
    let mut reply = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut reply).expect("a reply");
    assert!(reply.contains("no_verdict"), "{reply}");
    drop(stream);
    drop(client);
    if level != "warn" {
        let ended = || std::fs::read_to_string(&path).unwrap_or_default().matches("connection ended").count();
        wait_until("both connections end", || ended() == 2);
    }
    let pid = nix::unistd::Pid::from_raw(daemon.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
    wait_until("the daemon ends", || daemon.child.try_wait().expect("waited").is_some());
    Some(std::fs::read_to_string(&path).expect("UTF-8"))
}

fn assert_clean(line: &str) {
    let control = line.chars().find(|letter| letter.is_control());
    assert!(control.is_none(), "{control:?} in {line:?}");
}

#[test]
fn text_has_one_line_per_event() {
    let Some(text) = log("text", "trace") else { return };
    for line in text.lines() {
        assert_clean(line);
        let (time, rest) = line.split_once(' ').expect("a time");
        assert!(time.ends_with('Z') && time.len() > 20, "{line}");
        let level = rest.trim_start().split(' ').next().unwrap_or_default();
        assert!(["INFO", "DEBUG", "TRACE"].contains(&level), "{line}");
    }
    for (words, times) in [
        ("environment is warm", 1),
        ("serving", 1),
        ("connection ended", 2),
        ("job ended", 2),
        ("verdict=\"failed\"", 1),
        ("told to stop", 1),
    ] {
        assert_eq!(text.lines().filter(|line| line.contains(words)).count(), times, "{words} in\n{text}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let Some(text) = log("json", "debug") else { return };
    let mut verdicts = Vec::new();
    for line in text.lines() {
        assert_clean(line);
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        for field in ["timestamp", "level", "target", "message"] {
            assert!(event[field].is_string(), "no {field} in {line}");
        }
        if event["message"] == "job ended" {
            verdicts.push((event["id"].as_str().map(str::to_owned), event["verdict"].clone()));
        }
        if event["message"] == "connection ended" {
            assert!(event["uid"].is_u64() && event["pid"].is_i64() && event["jobs"] == 1, "{line}");
        }
    }
    assert_eq!(verdicts.len(), 2, "{text}");
    assert_eq!(verdicts[1], (Some(HOSTILE.to_owned()), "no_verdict".into()));
}

#[test]
fn a_quiet_daemon_says_nothing_of_jobs_and_connections() {
    let Some(text) = log("text", "warn") else { return };
    assert_eq!(text, "");
}

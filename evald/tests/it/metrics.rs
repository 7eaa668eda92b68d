//! What the daemon counts, as a client and as `evald metrics` see it.

use std::process::Command;

use evald_proto::{Job, Limits, Verdict};

use crate::support::{Daemon, any_setting, executable, job, run, settings};

fn value(text: &str, sample: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    assert!(found.is_some(), "no {sample} in\n{text}");
    found.and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn jobs_are_counted_and_the_command_prints_them() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    for _ in 0..3 {
        assert_eq!(run(&mut client, "x = 1", "").verdict, Verdict::Passed);
    }
    assert_eq!(run(&mut client, "raise ValueError", "").verdict, Verdict::Failed);
    let text = client.metrics().expect("metrics");
    // Not evald_jobs_in_flight: a job leaves it just after its reply is written.
    for (sample, want) in [
        ("evald_jobs_total{verdict=\"passed\"}", 3.0),
        ("evald_jobs_total{verdict=\"failed\"}", 1.0),
        ("evald_jobs_total{verdict=\"infra_error\"}", 0.0),
        ("evald_fork_seconds_count", 4.0),
        ("evald_queue_wait_seconds_count", 4.0),
        ("evald_kill_overshoot_seconds_count", 0.0),
        ("evald_connections", 1.0),
        ("evald_slots", 1.0),
    ] {
        assert_eq!(value(&text, sample), want, "{sample} in\n{text}");
    }
    assert!(value(&text, "evald_fork_seconds_sum") > 0.0);
    let output =
        Command::new(executable()).args(["metrics", "--socket"]).arg(&daemon.socket).output().expect("ran");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success());
    assert_eq!(value(&printed, "evald_jobs_total{verdict=\"passed\"}"), 3.0);
    // The client is of use as before.
    assert_eq!(run(&mut client, "x = 1", "").verdict, Verdict::Passed);
}

#[test]
fn metrics_of_no_daemon_are_an_error() {
    let output =
        Command::new(executable()).args(["metrics", "--socket", "/no/such/socket"]).output().expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/socket"));
}

#[test]
fn kills_are_measured() {
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let mut check = |code: &str, cpu_ms, wall_ms, want| {
            let limits = Limits { cpu_ms: Some(cpu_ms), wall_ms: Some(wall_ms), ..job("", "").limits };
            let result = client.run(Job { limits, ..job(code, "") }).expect("a result");
            assert_eq!(result.verdict, want, "{setting:?}: {code}: {result:?}");
        };
        check("while True: pass", 200, 60_000, Verdict::TimeoutCpu);
        check("held = bytearray(b'x') * (200 << 20)\nwhile True: pass", 500, 60_000, Verdict::TimeoutCpu);
        check("import time\ntime.sleep(1000)", 60_000, 200, Verdict::TimeoutWall);
        let text = client.metrics().expect("metrics");
        assert_eq!(value(&text, "evald_kill_overshoot_seconds_count"), 3.0);
        assert_eq!(value(&text, "evald_kill_teardown_seconds_count"), 3.0);
        println!(
            "{setting:?}: overshoot {} s, teardown {} s, of 3 kills",
            value(&text, "evald_kill_overshoot_seconds_sum"),
            value(&text, "evald_kill_teardown_seconds_sum")
        );
    }
}

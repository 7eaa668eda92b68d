//! The client: private daemons, pipelining, order, retries.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use evald_proto::{Client, Job, SpawnOptions, Verdict};

use crate::support::{any_setting, executable, job, python};

fn private(setting: crate::support::Setting, paths: Vec<std::path::PathBuf>) -> Client {
    let options = SpawnOptions {
        tier: Some(setting.tier.into()),
        envs: vec![
            format!("py={}:json", python().expect("python").display()).parse().expect("an environment"),
        ],
        paths,
        slots: Some(2),
        ..SpawnOptions::default()
    };
    Client::spawn(&executable(), &options, &|| false).expect("a private daemon")
}

#[test]
fn many_jobs_each_get_their_own_result() {
    let Some(setting) = any_setting() else { return };
    let mut client = private(setting, Vec::new());
    assert_eq!((client.info().slots, client.info().envs.as_slice()), (2, &["py".to_owned()][..]));
    let count = 60;
    // All with the same id: results are told apart by position.
    let jobs = (0..count).map(|index| {
        job(&format!("x = {index}"), if index % 3 == 0 { "assert x % 3" } else { "raise ValueError(x)" })
    });
    let mut seen = vec![0; count];
    client
        .run_all(jobs, &|| false, |index, result| {
            seen[index] += 1;
            let want = if index % 3 == 0 {
                "AssertionError (test line 1)".into()
            } else {
                format!("ValueError: {index} (test line 1)")
            };
            assert_eq!((result.verdict, result.detail, result.id.as_str()), (Verdict::Failed, want, "job"));
            ControlFlow::Continue(())
        })
        .expect("all run");
    assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
}

#[test]
fn jobs_are_drawn_only_as_fast_as_they_run() {
    let Some(setting) = any_setting() else { return };
    let mut client = private(setting, Vec::new());
    let drawn = std::cell::Cell::new(0usize);
    let endless = std::iter::from_fn(|| {
        drawn.set(drawn.get() + 1);
        Some(job("", ""))
    });
    let mut ended = 0;
    let outcome = client.run_all(endless, &|| false, |_, _| {
        ended += 1;
        if ended == 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(outcome.is_err());
    assert!(drawn.get() < 20 + client.info().max_in_flight, "{} drawn for {ended}", drawn.get());
}

#[test]
fn a_library_on_the_path_is_importable_and_read_only() {
    let Some(setting) = any_setting() else { return };
    let folder = tempfile::tempdir().expect("temp folder");
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("opened");
    std::fs::write(folder.path().join("hush.py"), "def answer(): return 42\n").expect("written");
    let mut client = private(setting, vec![folder.path().to_path_buf()]);
    let result = client.run(job("import hush", "assert hush.answer() == 42")).expect("a result");
    assert_eq!(result.verdict, Verdict::Passed, "{}", result.detail);
    let result = client.run(job("import hush\nopen(hush.__file__, 'a')", "")).expect("a result");
    assert_eq!(result.verdict, Verdict::Failed);
}

#[test]
fn code_runs_as_in_the_usual_harnesses() {
    let Some(setting) = any_setting() else { return };
    let mut client = private(setting, Vec::new());
    let mut check = |code: &str, test: &str, verdict: Verdict, detail: &str| {
        let result = client.run(job(code, test)).expect("a result");
        assert_eq!((result.verdict, result.detail.as_str()), (verdict, detail), "{code}\n{test}");
    };
    check("def f(x): return x + 1", "def check(c):\n    assert c(1) == 2\ncheck(f)", Verdict::Passed, "");
    check("if __name__ == '__main__': raise ValueError", "", Verdict::Failed, "ValueError (line 1)");
    check(
        "x = 1\n  y = 2",
        "",
        Verdict::CompileError,
        "IndentationError: unexpected indent (<candidate>, line 2)",
    );
    check(
        "def f():\n    return 1 / 0",
        "f()",
        Verdict::Failed,
        "ZeroDivisionError: division by zero (line 2)",
    );
    check("", "assert False, 'no'", Verdict::Failed, "AssertionError: no (test line 1)");
    check("raise ValueError('a\\nb')", "", Verdict::Failed, "ValueError: a b (line 1)");
    check("x = 'ü'", "assert len(x) == 1", Verdict::Passed, "");
    check(
        "x = 1",
        "def check(:",
        Verdict::Failed,
        "the test does not compile: SyntaxError: invalid syntax (<test>, line 1)",
    );
}

#[test]
fn a_large_job_passes_and_a_too_large_one_is_named() {
    let Some(setting) = any_setting() else { return };
    let mut client = private(setting, Vec::new());
    let large = format!("x = '{}'", "y".repeat(8 << 20));
    assert_eq!(
        client.run(job(&large, "assert len(x) == 8 << 20")).expect("a result").verdict,
        Verdict::Passed
    );
    let huge = Job { id: "the big one".into(), ..job(&" ".repeat(evald_proto::MAX_LINE_BYTES), "") };
    let error = client.run(huge).expect_err("too large").to_string();
    assert!(error.contains("the big one"), "{error}");
    assert_eq!(client.run(job("", "")).expect("still of use").verdict, Verdict::Passed);
}

#[test]
fn a_private_daemon_ends_with_its_client() {
    let Some(setting) = any_setting() else { return };
    let begun = Instant::now();
    let client = private(setting, Vec::new());
    let started = begun.elapsed();
    let begun = Instant::now();
    drop(client);
    assert!(begun.elapsed() < Duration::from_secs(30) + started, "dropping waits for its end");
}

#[test]
fn output_comes_back_where_it_is_asked_for_and_is_bounded() {
    let Some(setting) = any_setting() else { return };
    let mut client = private(setting, Vec::new());
    let mut run = |code: &str, keep_output, output_bytes| {
        let limits = evald_proto::Limits { output_bytes: Some(output_bytes), ..crate::support::short() };
        client.run(Job { keep_output, limits, ..job(code, "") }).expect("a result")
    };
    let hello = "import os\nos.write(1, b'out \\xff ')\nos.write(2, b'err')";
    let result = run(hello, true, 1 << 20);
    assert_eq!((result.verdict, result.output.as_str()), (Verdict::Passed, "out \u{fffd} err"));
    assert_eq!(run(hello, false, 1 << 20).output, "");
    let large = run("print('x' * 3_000_000, end='')", true, 4 << 20);
    assert_eq!((large.verdict, large.output.len()), (Verdict::Passed, 3_000_000));
    let flood = run("import os\nwhile True: os.write(1, b'x' * 4096)", true, 100_000);
    assert_eq!(flood.verdict, Verdict::OutputLimit);
    assert!(flood.output.len() <= 100_000, "{}", flood.output.len());
    // Six bytes on the wire for each: more than a line holds.
    let escapes = run("print('\\x01' * 3_000_000)", true, 4 << 20);
    assert_eq!((escapes.verdict, escapes.output.as_str()), (Verdict::OutputLimit, ""));
    assert_eq!(run(hello, true, 1 << 20).output, "out \u{fffd} err");
}

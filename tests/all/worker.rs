//! The model in a process of its own: the same completions as in this process, and an error for whatever ends it.

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inhouse::{
    CancelToken, Completion, CompletionRequest, Engine, EngineOptions, ErrorKind, Event, FinishReason,
    SamplingParams, Session, StopRules, WorkerProgram,
};
use inhouse_tests::{command, repository, shipped_coder};

fn program() -> WorkerProgram {
    WorkerProgram::At(command("inhouse-worker").get_program().into())
}

fn options(model: &Path, worker: Option<WorkerProgram>) -> EngineOptions {
    EngineOptions {
        model: Some(model.into()),
        worker,
        threads: Some(1),
        prefix_tokens: 500,
        ..EngineOptions::default()
    }
}

fn open(model: &Path, worker: Option<WorkerProgram>) -> Engine {
    Engine::open(&options(model, worker)).unwrap()
}

fn request(context: &str, temperature: f32, n: usize) -> CompletionRequest {
    CompletionRequest {
        params: SamplingParams { temperature, ..SamplingParams::default() },
        n,
        max_tokens: 24,
        stops: StopRules::none(),
        log_probabilities: true,
        ..CompletionRequest::new(context)
    }
}

fn complete(session: &mut Session, request: &CompletionRequest) -> inhouse::Result<Vec<Completion>> {
    let on_event = &mut |_: Event<'_>| ControlFlow::Continue(());
    session.complete(request, &CancelToken::new(), on_event).map(|result| result.completions)
}

const CONTEXTS: [&str; 2] = [
    "import gaugewren as gw\n\n# read the log of the station\nlog = ",
    "import gaugewren as gw\n\n# read the log of the station and keep\nrows = gw.",
];

/// Greedy and sampled, one and several side by side, from an empty session and from a kept beginning.
fn same_completions(model: &Path) {
    let (here, there) = (open(model, None), open(model, Some(program())));
    assert_eq!(here.model_info(), there.model_info());
    let (mut a, mut b) = (here.session(4).unwrap(), there.session(4).unwrap());
    for context in CONTEXTS {
        for request in [request(context, 0.0, 1), request(context, 0.8, 7)] {
            let expected = complete(&mut a, &request).unwrap();
            assert!(expected.iter().any(|completion| completion.completion_tokens > 4), "{expected:?}");
            assert_eq!(complete(&mut b, &request).unwrap(), expected, "{}", model.display());
        }
    }
}

#[test]
fn completions_on_llama_are_those_of_this_process() {
    same_completions(&shipped_coder());
    let folder = tempfile::tempdir().unwrap();
    let t5 = folder.path().join("t5.gguf");
    let conversion = inhouse_convert::Options {
        from: repository().join("tests/fixtures/t5"),
        out: t5.clone(),
        quantization: Some(inhouse_convert::quantize::Quantization::F32),
        token_embedding: None,
        name: None,
    };
    inhouse_convert::convert(&conversion, &inhouse_core::progress::Silent).unwrap();
    same_completions(&t5);
}

#[test]
fn completions_on_candle_are_those_of_this_process() {
    for fixture in ["codegen", "llama", "t5"] {
        same_completions(&repository().join("tests/fixtures").join(fixture));
    }
}

#[test]
fn kept_prompts_are_saved_and_restored_across_processes() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (open(&shipped_coder(), None), open(&shipped_coder(), Some(program())));
    let greedy = |context| request(context, 0.0, 2);
    for (saving, loading) in [(&here, &there), (&there, &here), (&there, &there)] {
        let file = folder.path().join("prompts");
        let (mut first, mut second) = (saving.session(2).unwrap(), loading.session(2).unwrap());
        let expected = complete(&mut first, &greedy(CONTEXTS[0])).unwrap();
        first.save_prefixes(&file).unwrap();
        assert_eq!(second.load_prefixes(&file).unwrap(), 1);
        let on_event = &mut |_: Event<'_>| ControlFlow::Continue(());
        let result = second.complete(&greedy(CONTEXTS[0]), &CancelToken::new(), on_event).unwrap();
        // The last token is read for its logits; the one before is healed: the completion begins with its text again.
        assert_eq!(result.prompt_tokens_shared, result.prompt_tokens - 2);
        assert_eq!(result.completions, expected);
    }
}

fn send(signal: &str, pid: u32) {
    assert!(try_send(signal, pid));
}

/// Whether there was still a process to send it to.
fn try_send(signal: &str, pid: u32) -> bool {
    Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap().success()
}

/// Whether a process is there, as a zombie too.
fn exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_is_killed_is_an_error_and_the_next_session_has_another() {
    let engine = open(&shipped_coder(), Some(program()));
    let request = request(CONTEXTS[0], 0.8, 6);
    let expected = complete(&mut open(&shipped_coder(), None).session(3).unwrap(), &request).unwrap();
    for (signal, number) in [("KILL", 9), ("ABRT", 6), ("SEGV", 11)] {
        let (mut session, mut other) = (engine.session(3).unwrap(), engine.session(1).unwrap());
        let pid = engine.worker_pid().unwrap();
        let (mut n_events, mut killed) = (0, Instant::now());
        let error = session
            .complete(&request, &CancelToken::new(), &mut |_| {
                n_events += 1;
                if n_events == 10 {
                    send(signal, pid);
                    killed = Instant::now();
                } else if n_events > 10 && signal == "SEGV" && exists(pid) {
                    // The first one only ends Rust's own handler, where nothing faults again, and one that comes while
                    // another is pending is lost: they are sent until one ends it.
                    try_send(signal, pid);
                    killed = Instant::now();
                }
                ControlFlow::Continue(())
            })
            .unwrap_err();
        println!("{signal}: an error after {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(20));
        assert!(!exists(pid), "{signal}: a zombie is left");
        // This session and the others of that worker: the same error on and on.
        for session in [&mut session, &mut other] {
            for error in [&error, &complete(session, &request).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Backend);
                assert!(error.to_string().contains(&format!("signal {number} (SIG{signal})")), "{error}");
            }
        }
        assert_eq!(complete(&mut engine.session(3).unwrap(), &request).unwrap(), expected);
        assert_ne!(engine.worker_pid().unwrap(), pid);
    }
}

#[test]
fn a_worker_that_died_between_calls_is_noticed() {
    let engine = open(&shipped_coder(), Some(program()));
    let pid = engine.worker_pid().unwrap();
    send("KILL", pid);
    wait_until("the worker's end", || !exists(pid));
    assert!(complete(&mut engine.session(1).unwrap(), &request(CONTEXTS[0], 0.0, 1)).is_ok());
}

#[test]
fn a_cancel_and_a_deadline_end_a_prompt_early() {
    let engine = open(&shipped_coder(), Some(program()));
    let mut session = engine.session(1).unwrap();
    let context = "values = [1, 2, 3]\n".repeat(200);
    let long = CompletionRequest { max_tokens: 100, ..request(&context, 0.0, 1) };
    let mut complete = |token: &CancelToken| {
        let on_event = &mut |_: Event<'_>| ControlFlow::Continue(());
        session.complete(&long, token, on_event).unwrap().completions.remove(0).finish_reason
    };
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(15));
            token.cancel();
        });
        assert_eq!(complete(&token), FinishReason::Cancelled);
    });
    let token = CancelToken::new().with_deadline(Instant::now() + Duration::from_millis(15));
    assert_eq!(complete(&token), FinishReason::Deadline);
    assert_eq!(complete(&CancelToken::new()), FinishReason::Length);
}

/// In a process of its own, where nothing else opens files or starts processes: this very test, started again.
#[test]
fn engines_opened_and_closed_leave_nothing() {
    const CYCLES: &str = "INHOUSE_TEST_WORKER_CYCLES";
    let Ok(cycles) = std::env::var(CYCLES) else {
        let test = std::env::current_exe().unwrap();
        let mut again = Command::new(test);
        again.args(["--exact", "worker::engines_opened_and_closed_leave_nothing"]).env(CYCLES, "200");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let run = |i: usize| {
        let engine = open(&shipped_coder(), Some(program()));
        let mut session = (!i.is_multiple_of(3)).then(|| engine.session(1).unwrap());
        let pid = engine.worker_pid().unwrap();
        if i % 10 == 5 {
            complete(
                session.get_or_insert_with(|| engine.session(1).unwrap()),
                &request(CONTEXTS[0], 0.0, 1),
            )
            .unwrap();
        }
        if i % 10 == 7 {
            send("KILL", pid);
        }
        drop((engine, session));
        pid
    };
    run(5);
    let (n_descriptors, n_threads) = (descriptors(), threads());
    let pids: Vec<u32> = (0..cycles.parse().unwrap()).map(run).collect();
    assert!(!pids.iter().any(|pid| exists(*pid)), "a worker is left");
    // The thread that listened to the last one may still be about to end.
    wait_until("the end of the workers' threads", || threads() <= n_threads);
    wait_until("the end of the workers' descriptors", || descriptors() <= n_descriptors);
}

/// A command that completes for long, with what a host may have: SIGCHLD ignored, a descriptor open across exec.
fn long_host(extra: &Path) -> Child {
    let script = "trap '' CHLD; exec 9<\"$1\"; shift; exec \"$@\"";
    let mut host = Command::new("sh");
    host.args(["-c", script, "sh"]).arg(extra).arg(command("inhouse").get_program());
    host.args(["complete", "--worker", "--threads", "1", "--max-tokens", "400", "--stop", "none", "--model"]);
    host.arg(shipped_coder()).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut host = host.spawn().unwrap();
    std::io::Write::write_all(&mut host.stdin.take().unwrap(), b"x = 1\ny = ").unwrap();
    host
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_worker_has_nothing_of_its_hosts_and_ends_with_it() {
    let extra = tempfile::NamedTempFile::new().unwrap();
    let mut host = long_host(extra.path());
    let mut worker = 0;
    wait_until("the worker", || {
        worker = children(host.id()).first().copied().unwrap_or(0);
        worker > 0
    });
    // The first text has come: the worker is at work.
    let mut out = BufReader::new(host.stdout.take().unwrap());
    assert!(!out.fill_buf().unwrap().is_empty());
    send("STOP", host.id());
    let open: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{worker}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap_or_default())
        .collect();
    let plain: Vec<&PathBuf> =
        open.iter().filter(|file| file.is_absolute() && **file != shipped_coder()).collect();
    assert!(plain.is_empty(), "{open:?}");
    assert_eq!(std::fs::read_link(format!("/proc/{worker}/cwd")).unwrap(), Path::new("/"));
    send("KILL", host.id());
    host.wait().unwrap();
    wait_until("the worker's end", || !exists(worker));
}

#[test]
fn a_host_that_ignores_its_children_completes() {
    let extra = tempfile::NamedTempFile::new().unwrap();
    let host = long_host(extra.path()).wait_with_output().unwrap();
    assert!(host.status.success());
    let plain = Command::new(command("inhouse").get_program())
        .args(["complete", "--threads", "1", "--max-tokens", "400", "--stop", "none", "--model"])
        .arg(shipped_coder())
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut plain| {
            std::io::Write::write_all(&mut plain.stdin.take().unwrap(), b"x = 1\ny = ")?;
            plain.wait_with_output()
        });
    assert_eq!(String::from_utf8_lossy(&host.stdout), String::from_utf8_lossy(&plain.unwrap().stdout));
}

#[test]
fn programs_that_are_no_worker_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path
    };
    let abort = script("abort", "echo loading; echo 'GGML_ASSERT(n < 3) failed' >&2; kill -ABRT $$");
    // Its standard input is the channel, in both directions.
    let old = script("old", "printf 'INHOUSEW\\001\\000\\000\\000\\0050.0.1' >&0; sleep 1");
    let cases = [
        (abort, ErrorKind::Backend, vec!["signal 6 (SIGABRT)", "GGML_ASSERT(n < 3) failed"]),
        (old, ErrorKind::UnsupportedVersion, vec!["0.0.1", env!("CARGO_PKG_VERSION"), "INHOUSE_WORKER"]),
        (script("leaves", "exit 3"), ErrorKind::Backend, vec!["status 3"]),
        (script("echo", "exec cat >&0"), ErrorKind::Backend, vec!["does not say hello"]),
        (folder.path().join("none"), ErrorKind::NotFound, vec!["no such program"]),
        (folder.path().to_path_buf(), ErrorKind::NotFound, vec!["no such program"]),
    ];
    for (program, kind, words) in cases {
        let error =
            Engine::open(&options(&shipped_coder(), Some(WorkerProgram::At(program.clone())))).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words.into_iter().chain([program.to_str().unwrap()]) {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    // What keeps a model from being loaded is what it is without a worker.
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF and nothing more").unwrap();
    for model in [&broken, &folder.path().join("none.gguf")] {
        let fail = |worker| Engine::open(&options(model, worker)).err().unwrap();
        let (here, there) = (fail(None), fail(Some(program())));
        assert_eq!((here.kind(), here.to_string()), (there.kind(), there.to_string()));
    }
    // Started by hand it says what it is.
    let by_hand = command("inhouse-worker").stdin(Stdio::null()).output().unwrap();
    assert_eq!(by_hand.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("not started by hand"));
}

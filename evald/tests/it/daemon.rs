//! The daemon's life: ends that leave no orphan, cancels, environments that cannot be used.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use evald_proto::{Client, ClientError, ErrorCode, Job, Limits, SpawnOptions, Verdict};

use crate::support::{
    Daemon, alone, any_setting, executable, is_empty, job, python, run, settings, wait_until,
};

fn alive(pid: i32) -> bool {
    // A zombie that init has not reaped yet runs no more.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

#[test]
fn a_killed_daemon_leaves_no_orphan() {
    for setting in settings() {
        let mut daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let idle = daemon.descendants().len();
        let endless = Job {
            limits: Limits { cpu_ms: Some(600_000), ..Limits::default() },
            ..job("while True: pass", "")
        };
        let runner = std::thread::spawn(move || client.run(endless));
        wait_until("the sample starts", || daemon.descendants().len() > idle + 1);
        let below = daemon.descendants();
        daemon.child.kill().expect("killed");
        daemon.child.wait().expect("reaped");
        assert!(matches!(runner.join().expect("joined"), Err(ClientError::Broken(_))));
        wait_until(&format!("{setting:?}: all of {below:?} end"), || !below.iter().any(|pid| alive(*pid)));
    }
}

#[test]
fn a_terminated_daemon_cleans_up() {
    let Some(setting) = any_setting() else { return };
    let mut daemon = Daemon::start(setting);
    let below = daemon.descendants();
    let pid = nix::unistd::Pid::from_raw(daemon.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
    assert!(daemon.child.wait().expect("reaped").success());
    assert!(!daemon.socket.exists(), "the socket is removed");
    wait_until("all processes end", || !below.iter().any(|pid| alive(*pid)));
}

#[test]
fn cgroups_go_with_their_daemon_or_with_the_next() {
    for setting in settings().into_iter().filter(|setting| matches!(setting.tier, "T0" | "T1")) {
        let mut killed = Daemon::start(setting);
        assert_eq!(run(&mut killed.client(), "x = 1", "").verdict, Verdict::Passed);
        let living = Daemon::start(setting);
        let mut client = killed.client();
        let runner = std::thread::spawn(move || client.run(endless()));
        wait_until("it runs", || runs_a_job(&killed));
        let left = killed.groups();
        let leaf = left.last().expect("a group").clone();
        wait_until("it is in its group", || !is_empty(&leaf));
        // In another cgroup namespace than ours; not everybody may look.
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/cgroup")).ok();
        wait_until("it has its own view of the groups", || {
            let inside = std::fs::read_to_string(leaf.join("cgroup.procs")).expect("read");
            let views: Vec<_> = inside.split_whitespace().map(namespace).collect();
            !views.is_empty() && views.iter().all(|view| view.is_none() || *view != namespace("self"))
        });
        killed.child.kill().expect("killed");
        killed.child.wait().expect("reaped");
        assert!(runner.join().expect("joined").is_err());
        assert!(leaf.exists(), "nobody is there to remove it");

        let mut next = Daemon::start(setting);
        assert!(!left.iter().any(|group| group.exists()), "{setting:?}: {left:?}");
        assert_eq!(run(&mut next.client(), "x = 1", "").verdict, Verdict::Passed);
        assert_eq!(run(&mut living.client(), "x = 1", "").verdict, Verdict::Passed);
        let own = next.groups();
        assert!(!own.is_empty());
        terminate(&next);
        assert!(next.child.wait().expect("reaped").success());
        assert!(!own.iter().any(|group| group.exists()), "{setting:?}: {own:?}");
    }
}

/// A group to start in that must be left (nothing above it is of use): the daemon moves, and back.
#[test]
fn a_daemon_leaves_its_own_group_and_returns() {
    let Some(setting) = settings().into_iter().find(|setting| setting.unprivileged && setting.tier == "T1")
    else {
        return;
    };
    let base = alone().expect("a group of one's own");
    for _ in 0..2 {
        let mut daemon = Daemon::start_in(&base, setting);
        assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
        let groups = daemon.groups();
        assert!(groups.iter().any(|group| group.to_string_lossy().ends_with("-main")), "{groups:?}");
        assert!(groups.iter().all(|group| group.starts_with(&base)), "{groups:?}");
        terminate(&daemon);
        assert!(daemon.child.wait().expect("reaped").success());
        wait_until("the group is as it was", || is_empty(&base) && daemon.groups().is_empty());
    }
    std::fs::remove_dir(base).expect("removed");
}

fn endless() -> Job {
    Job { limits: Limits { cpu_ms: Some(600_000), ..Limits::default() }, ..job("while True: pass", "") }
}

fn terminate(daemon: &Daemon) {
    let pid = nix::unistd::Pid::from_raw(daemon.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
}

fn runs_a_job(daemon: &Daemon) -> bool {
    daemon.client().metrics().expect("metrics").contains("\nevald_jobs_running 1\n")
}

#[test]
fn a_stopping_daemon_ends_what_runs_and_refuses_the_rest() {
    for setting in settings() {
        let mut daemon = Daemon::start(setting);
        let (mut first, mut late) = (daemon.client(), daemon.client());
        let runner = std::thread::spawn(move || {
            let mut results = Vec::new();
            let long = "import time\nend = time.process_time() + 0.8\nwhile time.process_time() < end: pass";
            let outcome = first.run_all((0..6).map(|_| job(long, "")), &|| false, |index, result| {
                results.push((index, result.verdict));
                ControlFlow::Continue(())
            });
            (results, outcome)
        });
        wait_until("the first job runs", || runs_a_job(&daemon));
        let below = daemon.descendants();
        terminate(&daemon);
        let (results, outcome) = runner.join().expect("joined");
        assert!(results.first() == Some(&(0, Verdict::Passed)), "{setting:?}: {results:?}");
        assert!(results.iter().all(|(_, verdict)| *verdict == Verdict::Passed), "{setting:?}: {results:?}");
        let stopping =
            |error: &ClientError| matches!(error, ClientError::Refused { code: ErrorCode::Stopping, .. });
        assert!(outcome.as_ref().is_err_and(stopping), "{setting:?}: {outcome:?}");
        // By now it is stopping or has ended.
        match late.run(job("", "")) {
            Err(error) if stopping(&error) => {}
            other => assert!(matches!(other, Err(ClientError::Broken(_))), "{setting:?}: {other:?}"),
        }
        assert!(daemon.child.wait().expect("reaped").success());
        assert!(!daemon.socket.exists());
        wait_until("all processes end", || !below.iter().any(|pid| alive(*pid)));
    }
}

#[test]
fn new_jobs_are_refused_while_old_ones_end() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut holder = daemon.client();
    std::thread::spawn(move || holder.run(endless()));
    wait_until("it runs", || runs_a_job(&daemon));
    terminate(&daemon);
    wait_until("new jobs are refused", || match daemon.client().run(endless()) {
        Err(ClientError::Refused { code: ErrorCode::Stopping, message }) => message.contains("was not run"),
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_second_signal_and_the_end_of_patience_cut_off_what_runs() {
    let Some(setting) = any_setting() else { return };
    let env = format!("py={}", python().expect("python").display());
    for (patience, signals) in [("86400", 2), ("1", 1), ("0", 1)] {
        let mut daemon = Daemon::start_with(setting, &env, &["--slots", "1", "--drain", patience]);
        let mut client = daemon.client();
        let runner = std::thread::spawn(move || client.run(endless()));
        wait_until("it runs", || runs_a_job(&daemon));
        let below = daemon.descendants();
        for _ in 0..signals {
            terminate(&daemon);
            // Two signals at once would be one.
            std::thread::sleep(Duration::from_millis(100));
        }
        wait_until("it ends", || daemon.child.try_wait().expect("waited").is_some());
        assert!(daemon.child.wait().expect("reaped").success());
        assert!(runner.join().expect("joined").is_err());
        wait_until("all processes end", || !below.iter().any(|pid| alive(*pid)));
    }
}

#[test]
fn a_killed_slot_is_replaced_and_its_job_run_again() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    assert_eq!(run(&mut client, "x = 1", "").verdict, Verdict::Passed);
    // The youngest process below the daemon is the idle slot; the oldest the frame, whose end takes all along.
    for victim in [daemon.descendants().last().copied(), daemon.descendants().first().copied()] {
        let victim = nix::unistd::Pid::from_raw(victim.expect("a process"));
        nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("killed");
        wait_until("it ends", || !alive(victim.as_raw()));
        let result = run(&mut client, "x = 1", "assert x == 1");
        assert_eq!(result.verdict, Verdict::Passed, "{}", result.detail);
    }
}

#[test]
fn stopping_cancels_what_runs_and_the_client_stays_of_use() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    let endless = || Job {
        limits: Limits { cpu_ms: Some(600_000), ..Limits::default() },
        ..job("while True: pass", "")
    };
    let begun = Instant::now();
    let stop = || begun.elapsed() > Duration::from_millis(300);
    let outcome = client.run_all((0..50).map(|_| endless()), &stop, |_, _| ControlFlow::Continue(()));
    assert!(matches!(outcome, Err(ClientError::Stopped)), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(run(&mut client, "x = 1", "").verdict, Verdict::Passed);
}

#[test]
fn a_job_that_cannot_be_run_is_refused_by_name() {
    let Some(setting) = any_setting() else { return };
    let daemon = Daemon::start(setting);
    let mut client = daemon.client();
    let refused = |outcome: Result<_, ClientError>, want| match outcome {
        Err(ClientError::Refused { code, message }) if code == want => message,
        other => panic!("{other:?}"),
    };
    let message = refused(client.run(Job { env: "nowhere".into(), ..job("", "") }), ErrorCode::UnknownEnv);
    assert!(message.contains("nowhere") && message.contains("py"), "{message}");
    let limits = Limits { cpu_ms: Some(0), ..Limits::default() };
    let message = refused(client.run(Job { limits, ..job("", "") }), ErrorCode::BadLimits);
    assert!(message.contains("cpu_ms"), "{message}");
    assert_eq!(run(&mut client, "", "").verdict, Verdict::Passed);
}

#[test]
fn environments_that_cannot_be_used_say_why() {
    let (Some(setting), Some(python)) = (any_setting(), python()) else { return };
    let python = python.display().to_string();
    for (env, word) in [
        (format!("e={python}:no_such_module_here"), "no_such_module_here"),
        ("e=/no/such/python".to_owned(), "/no/such/python"),
        ("e=/bin/false".to_owned(), "ended with"),
    ] {
        let options = SpawnOptions {
            tier: Some(setting.tier.into()),
            envs: vec![env.parse().expect("an environment")],
            ..SpawnOptions::default()
        };
        match Client::spawn(&executable(), &options, &|| false) {
            Err(ClientError::Start(message)) => {
                assert!(message.contains(word) && message.contains("environment e"), "{env}: {message}");
                assert!(!message.contains('\n'), "{message}");
            }
            other => panic!("{env}: {:?}", other.err()),
        }
    }
    let missing = Client::spawn(Path::new("/no/such/evald"), &SpawnOptions::default(), &|| false).err();
    assert!(missing.is_some_and(|error| error.to_string().contains("/no/such/evald")));
}

/// The kernel walks `other/..` in the sandbox too: the folder must be there, though nothing of it is shown.
#[test]
fn an_interpreter_whose_link_climbs_through_another_folder_runs() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    // T4 runs no interpreter of the host's.
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let folder = tempfile::tempdir().expect("temp folder");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("open to all");
        let venv = folder.path().join("venv");
        std::fs::create_dir_all(venv.join("bin")).expect("made");
        std::fs::create_dir_all(folder.path().join("other/deep")).expect("made");
        std::fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\n").expect("written");
        symlink(python().expect("python"), folder.path().join("base")).expect("link");
        symlink("../../other/deep/../../base", venv.join("bin/python")).expect("link");
        let env = format!("py={}", venv.join("bin/python").display());
        let daemon = Daemon::start_with(setting, &env, &["--slots", "1"]);
        let code = format!("import sys\nassert sys.prefix == {:?}, sys.prefix", venv.display().to_string());
        let result = run(&mut daemon.client(), &code, "");
        assert_eq!(result.verdict, Verdict::Passed, "{setting:?}: {}", result.detail);
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for (arguments, code) in [
        (vec!["serve"], 2),
        (vec!["serve", "--socket", "/tmp/x", "--tier", "T9"], 2),
        (vec!["serve", "--socket", "/tmp/x", "--env", "nonsense"], 2),
        (vec!["serve", "--socket", "/no/such/folder/x", "--env", "e=/no/such/python"], 1),
    ] {
        let output = Command::new(executable()).args(&arguments).output().expect("ran");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Processes that keep every core busy four times over.
struct Crowd(Vec<std::process::Child>);

impl Crowd {
    fn gather() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a busy loop");
        Self((0..4 * cores).map(|_| busy()).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Attack 17: four times as many slots as cores, all at work; the verdicts are those of a sample alone.
#[test]
fn four_times_as_many_slots_as_cores_change_no_verdict() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = (4 * cores).to_string();
    for setting in settings() {
        let env = format!("py={}", python().expect("python").display());
        let daemon = Daemon::start_with(setting, &env, &["--slots", &slots]);
        let mut client = daemon.client();
        let work = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass";
        let kinds = [
            (work, "", Verdict::Passed),
            (work, "assert False", Verdict::Failed),
            ("while True: pass", "", Verdict::TimeoutCpu),
            ("import time\ntime.sleep(1000)", "", Verdict::TimeoutWall),
            ("x = []\nwhile True: x.append(bytes(1 << 20))", "", Verdict::Oom),
            ("while True: print('x' * 1000)", "", Verdict::OutputLimit),
        ];
        let limits = Limits {
            cpu_ms: Some(400),
            wall_ms: Some(600),
            memory_bytes: Some(64 << 20),
            ..Limits::default()
        };
        let count = 6 * cores * kinds.len() / 2;
        let jobs = (0..count).map(|index| {
            let (code, test, _) = kinds[index % kinds.len()];
            Job { limits: limits.clone(), ..job(code, test) }
        });
        let mut wrong = Vec::new();
        let ran = client.run_all(jobs, &|| false, |index, result| {
            if result.verdict != kinds[index % kinds.len()].2 {
                wrong.push((index % kinds.len(), result));
            }
            ControlFlow::Continue(())
        });
        assert!(ran.is_ok() && wrong.is_empty(), "{setting:?}: {ran:?} {wrong:?}");
    }
}

#[test]
fn a_loaded_machine_changes_no_verdict() {
    for setting in settings() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        let _crowd = Crowd::gather();
        let limits = Limits { cpu_ms: Some(700), wall_ms: Some(900), ..Limits::default() };
        let mut check = |code: &str, want: Verdict| {
            let result = client.run(Job { limits: limits.clone(), ..job(code, "") }).expect("a result");
            assert_eq!(result.verdict, want, "{setting:?}: {code}: {result:?}");
        };
        // Alone it would take 0.6 s; here it gets a fifth of a core at best, and waits for the rest.
        check(
            "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass",
            Verdict::Passed,
        );
        check("import time\ntime.sleep(1000)", Verdict::TimeoutWall);
        check("while True: pass", Verdict::TimeoutCpu);
    }
}

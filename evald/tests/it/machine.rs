//! T4, CPython as WebAssembly: the verdicts of the native tiers, its own attacks, what it refuses to run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use evald_proto::Verdict::{self, *};
use evald_proto::{Job, Limits};

use crate::mutants::{Dice, mutant};
use crate::support::{Daemon, Setting, evald, job, machines, python, run, settings, slowed};

/// The strongest setting of T4 here: root's where there is one.
fn machine() -> Option<Setting> {
    let found = machines().first().copied();
    if found.is_none() {
        println!("skipped: no tier T4 here (feature `wasi`, scripts/wasi.sh)");
    }
    found
}

fn private_library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/private-library")
}

fn host_env() -> String {
    format!("py={}", python().expect("python").display())
}

/// A daemon that has the private library.
fn with_library(setting: Setting) -> Daemon {
    // A copy that every user may read, wherever the checkout lies.
    let folder = crate::support::executable().with_file_name("library");
    if !folder.exists() {
        let copied = Command::new("cp").arg("-rL").arg(private_library()).arg(&folder).status();
        assert!(copied.expect("cp runs").success());
        Command::new("chmod").args(["-R", "go+rX"]).arg(&folder).status().expect("chmod runs");
    }
    Daemon::start_with(setting, &host_env(), &["--path", &folder.display().to_string()])
}

struct Problem {
    prompt: String,
    solution: String,
    test: String,
}

fn problems() -> Vec<Problem> {
    let text = std::fs::read_to_string(private_library().join("problems.jsonl")).expect("problems");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let candidate = text("entry_point");
            let candidate = if candidate == "none" { String::new() } else { candidate };
            Problem {
                prompt: text("prompt"),
                solution: text("canonical_solution"),
                test: format!("{}\ncheck({candidate})\n", text("test")),
            }
        })
        .collect()
}

/// How many mutants: `EVALD_MUTANTS`, or 1,000.
fn mutants() -> usize {
    std::env::var("EVALD_MUTANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

/// The bar of T4: whatever the native tiers say of a sample, it says.
#[test]
fn canonical_and_mutated_solutions_have_the_verdicts_of_the_native_tiers() {
    let Some(here) = machine() else { return };
    let native = settings()
        .into_iter()
        .find(|setting| setting.tier == "T2" && setting.unprivileged == here.unprivileged);
    let Some(native) = native.or_else(|| settings().into_iter().find(|setting| setting.tier != "T4")) else {
        println!("skipped: no native tier to compare with");
        return;
    };
    let problems = problems();
    let mut dice = Dice(20_261_125);
    let limits = Limits {
        cpu_ms: Some(slowed(std::time::Duration::from_secs(1)).as_millis() as u64),
        memory_bytes: Some(512 << 20),
        ..Limits::default()
    };
    let sample = |problem: &Problem, solution: &str| Job {
        limits: limits.clone(),
        ..job(&format!("{}{solution}", problem.prompt), &problem.test)
    };
    let mut jobs: Vec<Job> = problems.iter().map(|problem| sample(problem, &problem.solution)).collect();
    let canonical = jobs.len();
    for index in 0..mutants() {
        let problem = &problems[index % problems.len()];
        jobs.push(sample(problem, &mutant(&problem.solution, &mut dice)));
    }
    let verdicts = |setting: Setting| {
        let daemon = with_library(setting);
        let mut found = vec![None; jobs.len()];
        let ran = daemon.client().run_all(jobs.iter().cloned(), &|| false, |index, result| {
            found[index] = Some((result.verdict, result.detail));
            ControlFlow::Continue(())
        });
        ran.expect("all run");
        found.into_iter().flatten().collect::<Vec<_>>()
    };
    let (natives, machines) = (verdicts(native), verdicts(here));
    assert_eq!((natives.len(), machines.len()), (jobs.len(), jobs.len()));
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
    for (index, (native, machine)) in natives.iter().zip(&machines).enumerate() {
        if index < canonical && native.0 != Passed {
            wrong.push(format!("canonical {index}: {native:?}"));
        }
        *counts.entry(machine.0).or_default() += 1;
        if native.0 != machine.0 {
            wrong.push(format!("{index}: {native:?} but {machine:?} in T4:\n{}", jobs[index].code));
        }
    }
    println!(
        "{native:?} and {here:?}: {canonical} canonical, {} mutants: {counts:?}",
        jobs.len() - canonical
    );
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), jobs.len(), wrong.join("\n"));
}

/// What only the machine has, tried from inside.
#[test]
fn the_way_in_is_shut_once_the_interpreter_is_warm() {
    for setting in machines() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (code, test, wants) in [
            // The harness's hatch.
            ("open('/.evald/text', 'rb').read()", "", &[Failed][..]),
            ("import os\nos.readlink('/.evald/ready/1,2,3')", "", &[Failed]),
            (
                "import os, time\ntry: os.readlink('/.evald/ready/' + ','.join(['16'] * 32))\nexcept OSError: pass\ntime.clock_getres(1)\nraise ValueError",
                "",
                &[Failed],
            ),
            (
                "import os\ntry: os.readlink('/.evald/failed/00')\nexcept OSError: pass\nos._exit(0)",
                "",
                &[NoVerdict],
            ),
            ("import time\nassert time.clock_getres(1) > 0", "", &[Passed]),
            // The texts: neither a descriptor nor a frame leads to the test.
            (
                "import os\nfor fd in range(3, 300):\n  try: text = os.read(fd, 100)\n  except OSError: continue\n  raise ValueError(text)\nseen = 0",
                "assert seen == 0  # words of the test",
                &[Passed],
            ),
            (
                "import gc\nfor thing in gc.get_objects():\n  if isinstance(thing, (str, bytes)) and 'words of the test' in str(thing): raise ValueError\nseen = 0",
                "assert seen == 0  # words of the test",
                &[Passed],
            ),
            // The objects that the harness calls are its own, whatever their names come to mean.
            (
                "import builtins, random\nbuiltins.compile = builtins.exec = builtins.str = None\nrandom.seed = None",
                "assert False",
                &[Failed],
            ),
            (
                "import sys\nframe = sys._getframe()\nwhile frame:\n  frame.f_globals.clear()\n  frame = frame.f_back",
                "assert False",
                &[Failed],
            ),
            (
                "import sys\nsys._getframe().f_back.f_globals.update(time=None, settle=None)",
                "assert False",
                &[Failed],
            ),
            // No descriptor of the process is one of the program's.
            (
                "import os\nfor fd in range(4, 300):\n  try: os.write(fd, b'x')\n  except OSError: continue\n  raise ValueError(fd)\nos._exit(0)",
                "",
                &[NoVerdict, Signaled],
            ),
            ("import os\nos.write(3, b'x')", "", &[Failed]),
            ("import os\nos.close(3)\nos.listdir('/')", "", &[Failed]),
            ("import os\nos.close(1)\nos.close(2)\nprint('x' * 100000)\nraise ValueError", "", &[Failed]),
        ] {
            let result = run(&mut client, code, test);
            assert!(wants.contains(&result.verdict), "{setting:?}: {code}: {result:?}");
            assert_eq!(result.tier, "T4");
            let next = run(&mut client, "x = 1", "assert x == 1");
            assert_eq!(next.verdict, Passed, "{setting:?}: after {code}: {next:?}");
        }
    }
}

/// The tree has no way out, and nothing in it changes.
#[test]
fn only_what_was_mounted_can_be_read_and_nothing_written() {
    for setting in machines() {
        let daemon = with_library(setting);
        let secret = daemon.folder.path().join("secret");
        std::fs::write(&secret, "hunter2").expect("written");
        let secret = secret.display();
        let mut client = daemon.client();
        let escapes = [
            format!("open({:?})", format!("{secret}")),
            format!("open({:?})", format!("/path/0/../../../../../../..{secret}")),
            format!("import os\nos.chdir('/path/0')\nopen({:?})", format!("../../../../..{secret}")),
            "open('/proc/self/environ')".to_owned(),
            "open('/etc/passwd')".to_owned(),
            "open('/dev/mem', 'rb')".to_owned(),
            "open('x', 'w')".to_owned(),
            "open('/path/0/gaugewren/__init__.py', 'a')".to_owned(),
            "open('/path/0/gaugewren/__init__.py', 'r+')".to_owned(),
            "import os\nos.truncate('/path/0/gaugewren/__init__.py', 0)".to_owned(),
            "import os\nos.symlink('/etc/passwd', 'x')".to_owned(),
            "import os\nos.link('/path/0/gaugewren/__init__.py', 'x')".to_owned(),
            "import os\nos.rename('/path/0/gaugewren', '/path/0/other')".to_owned(),
            "import os\nos.unlink('/path/0/gaugewren/__init__.py')".to_owned(),
            "import os\nos.rmdir('/tmp')".to_owned(),
            "import os\nos.mkdir('x')".to_owned(),
            "import os\nos.utime('/path/0/gaugewren/__init__.py', (1, 1))".to_owned(),
        ];
        for code in escapes {
            let result = run(&mut client, &code, "");
            assert_eq!(result.verdict, Failed, "{setting:?}: {code}: {result:?}");
            assert!(result.detail.contains("Error"), "{code}: {result:?}");
        }
        let reads = "import gaugewren, os\nassert open(gaugewren.__file__).read()\nassert 'gaugewren' in os.listdir('/path/0')";
        let result = run(&mut client, reads, "");
        assert_eq!(result.verdict, Passed, "{result:?}");
    }
}

/// Each limit ends in its verdict, and the daemon goes on.
#[test]
fn whatever_the_machine_runs_out_of_is_a_verdict() {
    for setting in machines() {
        let daemon = Daemon::start(setting);
        let mut client = daemon.client();
        for (code, wants) in [
            ("x = []\nwhile True: x.append(bytes(1 << 20))", &[Oom][..]),
            ("x = bytearray(1 << 30)", &[Oom]),
            ("x = 'a' * (1 << 30)", &[Oom]),
            ("try:\n  x = bytearray(1 << 30)\nexcept MemoryError: pass", &[Passed]),
            ("def f(): return f()\nf()", &[Failed]),
            (
                "import sys\nsys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(200000): x = [x]\nrepr(x)",
                &[Signaled, Oom],
            ),
            (
                "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(): return f()\nf()",
                &[Signaled, Oom, TimeoutCpu],
            ),
            ("eval('(' * 100000 + ')' * 100000)", &[Failed, Oom, Signaled]),
            ("import os\nos.abort()", &[Signaled]),
            ("while True: pass", &[TimeoutCpu]),
            ("import time\ntime.sleep(1000)", &[TimeoutWall]),
            ("import time\ntime.sleep(0.01)", &[Passed]),
            ("while True: print('x' * 1000)", &[OutputLimit]),
            ("import threading\nthreading.Thread(target=print).start()", &[ProcLimit]),
            ("import os\nos.fork()", &[Failed]),
            ("import os\nos._exit(7)", &[NoVerdict]),
            ("x = []\nwhile True: x.append(open('/usr/local/lib/python3.11/os.py'))", &[Failed, Oom]),
        ] {
            let mut job = job(code, "");
            // Another limit is meant to come first, however busy the machine is.
            let far = slowed(std::time::Duration::from_secs(30)).as_millis() as u64;
            if !wants.contains(&TimeoutCpu) && !wants.contains(&TimeoutWall) {
                (job.limits.cpu_ms, job.limits.wall_ms) = (Some(far), Some(2 * far));
            }
            let result = client.run(job).expect("a result");
            assert!(wants.contains(&result.verdict), "{setting:?}: {code}: {result:?}");
        }
        assert_eq!(run(&mut client, "x = 1", "assert x == 1").verdict, Passed);
    }
}

#[test]
fn a_seed_makes_clocks_and_random_bytes_the_same() {
    let Some(setting) = machine() else { return };
    let told = |extra: &[&str]| {
        let daemon = Daemon::start_with(setting, &host_env(), extra);
        let mut client = daemon.client();
        let code = "import os, random, time, uuid\nraise ValueError(random.random(), os.urandom(4), time.time(), time.monotonic(), uuid.uuid4())";
        (0..2).map(|_| run(&mut client, code, "").detail).collect::<Vec<_>>()
    };
    let seeded = told(&["--slots", "1", "--seed", "7"]);
    assert!(seeded[0] == seeded[1] && seeded[0].starts_with("ValueError: "), "{seeded:?}");
    assert_eq!(told(&["--slots", "1", "--seed", "7"]), seeded);
    assert_ne!(told(&["--slots", "1", "--seed", "8"]), seeded);
    let free = told(&["--slots", "1"]);
    assert_ne!(free[0], free[1]);
}

/// A folder of libraries, one of which has native code.
fn libraries() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    put("plain/__init__.py", "answer = 42\n");
    put("crunch/__init__.py", "from . import _core\n");
    put("crunch/_core.cpython-311-x86_64-linux-gnu.so", "");
    put("user/__init__.py", "import crunch\n");
    put("_bare.cpython-311-x86_64-linux-gnu.so", "");
    folder
}

#[test]
fn an_environment_that_needs_native_code_is_refused_with_its_file() {
    let Some(setting) = machine() else { return };
    let folder = libraries();
    for (module, words) in [
        ("crunch", ["crunch/_core.cpython-311-x86_64-linux-gnu.so", "pure Python only"]),
        ("user", ["crunch/_core.cpython-311-x86_64-linux-gnu.so", "pure Python only"]),
        ("_bare", ["_bare.cpython-311-x86_64-linux-gnu.so", "extension module"]),
    ] {
        let said = refusal(setting, module, folder.path());
        assert!(words.iter().all(|word| said.contains(word)), "{module}: {said}");
        assert!(said.contains("environment py"), "{said}");
    }
    let daemon = Daemon::start_with(
        setting,
        &format!("{}:plain", host_env()),
        &["--slots", "1", "--path", &folder.path().display().to_string()],
    );
    let result = run(&mut daemon.client(), "import plain\nassert plain.answer == 42", "");
    assert_eq!(result.verdict, Passed, "{result:?}");
}

/// What a private daemon says as it does not start.
fn refusal(setting: Setting, module: &str, library: &Path) -> String {
    let socket = tempfile::tempdir().expect("a folder");
    if setting.unprivileged {
        std::os::unix::fs::chown(socket.path(), Some(crate::support::other_user()), None).expect("chown");
    }
    let mut command = evald(setting).expect("a setting of this host");
    command
        .args(["serve", "--tier", "T4", "--env", &format!("{}:{module}", host_env()), "--path"])
        .arg(library)
        .arg("--socket")
        .arg(socket.path().join("socket"));
    let output = command.output().expect("ended");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn check_says_what_t4_can_run() {
    let Some(setting) = machine() else { return };
    let folder = libraries();
    let env = |name: &str, module: &str| format!("{name}={}:{module}", python().expect("python").display());
    let mut command = evald(setting).expect("a setting of this host");
    command.args([
        "check",
        "--tier",
        "T4",
        "--env",
        &env("good", "plain"),
        "--env",
        &env("doubtful", "crunch"),
        "--env",
        &env("bad", "_bare"),
        "--path",
    ]);
    let output = command.arg(folder.path()).output().expect("ran");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(
        line("T4 runs").contains("no extension modules") && line("T4 runs").contains("threads"),
        "{text}"
    );
    assert!(line("T4 for good").contains("yes"), "{text}");
    assert!(line("T4 for doubtful").contains("crunch/_core.cpython-311-x86_64-linux-gnu.so"), "{text}");
    assert!(line("T4 for bad").contains("_bare.cpython-311-x86_64-linux-gnu.so"), "{text}");
    assert!(line("tier").ends_with("T4"), "{text}");
}

/// The cache: damage is mended, a folder that others may write to is not used.
#[test]
fn machine_code_that_was_tampered_with_is_made_anew() {
    use std::os::unix::fs::PermissionsExt;
    let Some(setting) = machine() else { return };
    let cache = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    if setting.unprivileged {
        std::os::unix::fs::chown(cache.path(), Some(crate::support::other_user()), None).expect("chown");
    }
    let place = cache.path().display().to_string();
    let serve = || {
        let daemon = Daemon::start_with(setting, &host_env(), &["--slots", "1", "--cache", &place]);
        let result = run(&mut daemon.client(), "x = 1", "assert x == 1");
        assert_eq!(result.verdict, Passed, "{result:?}");
    };
    serve();
    let kept = || {
        let files = std::fs::read_dir(cache.path()).expect("read").flatten();
        files.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let [file] = &kept()[..] else { panic!("{:?}", kept()) };
    let good = std::fs::read(file).expect("read");
    // A byte of the machine code itself: the middle of the file.
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0xff;
    std::fs::write(file, &bad).expect("written");
    serve();
    assert!(std::fs::read(file).expect("read") == good, "made anew, and the same");
    assert_eq!(kept().len(), 1);

    std::fs::set_permissions(cache.path(), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    let mut command = evald(setting).expect("a setting of this host");
    let socket = cache.path().join("socket").display().to_string();
    command.args(["serve", "--tier", "T4", "--env", &host_env(), "--cache", &place, "--socket", &socket]);
    let output = command.output().expect("ended");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("chmod 700"), "{said}");
}

//! `inhouse eval` killed at random moments, and evald under it: what comes out is what an undisturbed run gives.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up must fail")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use inhouse_tests::command;
use serde_json::{Value, json};
use tempfile::TempDir;

const SAMPLES: usize = 600;
const KILLS: usize = 10;
/// In the environment of a run and of the evald it starts, so that both are found among the host's processes.
const MARK: &str = "INHOUSE_TEST_RUN";

/// Samples of every outcome that takes no limit to reach; many are equal.
fn write_set(folder: &Path) {
    let problems = (0..20).map(|i| {
        json!({"task_id": format!("t/{i}"), "prompt": "def f(x):\n", "entry_point": "f",
               "test": format!("def check(f):\n    assert f({i}) == {i} + 1\n")})
    });
    let samples = (0..SAMPLES).map(|i| {
        let completion = match i % 6 {
            0 | 3 => "    return x + 1\n".to_owned(),
            1 => format!("    return {i} * 0 + x + 1\n"),
            2 => format!("    return {i} + 1000\n"),
            4 => format!("    raise ValueError('{i}')\n"),
            _ => format!("    return ({i}\n"),
        };
        json!({"task_id": format!("t/{}", i % 20), "completion": completion, "n": i})
    });
    let write = |name: &str, rows: &mut dyn Iterator<Item = Value>| {
        fs::write(folder.join(name), rows.map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    };
    write("problems.jsonl", &mut problems.into_iter());
    write("samples.jsonl", &mut samples.into_iter());
}

fn eval(folder: &Path, python: &Path, out: &str, mark: &str) -> Command {
    let mut command = command("inhouse");
    command.current_dir(folder).env(MARK, mark);
    command.args([
        "--progress",
        "json",
        "eval",
        "--problems",
        "problems.jsonl",
        "--samples",
        "samples.jsonl",
    ]);
    command.args(["--timeout", "20", "--json", "--out", out]);
    command.arg("--env").arg(python);
    command
}

/// The report and the rows without what differs between any two runs: times.
fn finished(folder: &Path, python: &Path, out: &str, mark: &str) -> (Value, Vec<Value>, String) {
    let output = eval(folder, python, out, mark).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), rows(&folder.join(out)), said)
}

fn rows(path: &Path) -> Vec<Value> {
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        for times in ["cpu_ms", "wall_ms"] {
            assert!(row.as_object_mut().unwrap().remove(times).is_some(), "{line}");
        }
        row
    };
    fs::read_to_string(path).unwrap().lines().map(row).collect()
}

/// Keys of the whole rows of a journal; none where there is no file.
fn journalled(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let rows = lines.skip(1).map(|line| serde_json::from_slice::<Value>(&line[9..]).unwrap());
    rows.map(|row| row["key"].to_string()).collect()
}

/// Processes as pid -> (parent, start time): a pid that is used again has another start time.
fn processes() -> HashMap<u32, (u32, u64)> {
    let entries =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let one = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // A zombie is no process any more: what remains is its parent's to collect.
        (fields[0] != "Z").then_some((pid, (fields[1].parse().ok()?, fields[19].parse().ok()?)))
    };
    entries.filter_map(one).collect()
}

/// All that descends from the processes with the mark, themselves included.
fn family(mark: &str) -> HashSet<(u32, u64)> {
    let all = processes();
    let wanted = format!("{MARK}={mark}");
    let marked = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
    };
    let mut found: HashSet<u32> = all.keys().copied().filter(|pid| marked(pid)).collect();
    loop {
        let more: Vec<_> =
            all.iter().filter(|(pid, (parent, _))| found.contains(parent) && !found.contains(pid)).collect();
        if more.is_empty() {
            return found.iter().map(|pid| (*pid, all[pid].1)).collect();
        }
        found.extend(more.iter().map(|(pid, _)| **pid));
    }
}

/// Waits until nobody of `members` is left, and nobody else of that run.
fn assert_gone(members: &HashSet<(u32, u64)>, mark: &str) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let now = processes();
        let mut left: Vec<_> = members
            .iter()
            .filter(|(pid, start)| now.get(pid).is_some_and(|one| one.1 == *start))
            .copied()
            .collect();
        left.extend(family(mark));
        if left.is_empty() {
            return;
        }
        if Instant::now() > patience {
            let names = left.iter().map(|(pid, _)| {
                format!(
                    "{pid} {}",
                    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim()
                )
            });
            panic!("left behind: {:?}", names.collect::<Vec<_>>());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn evald_of(members: &HashSet<(u32, u64)>, inhouse: &Child) -> Option<u32> {
    let all = processes();
    members.iter().map(|(pid, _)| *pid).find(|pid| all.get(pid).is_some_and(|one| one.0 == inhouse.id()))
}

#[test]
fn killed_runs_resume_to_the_undisturbed_result() {
    let Some(python) = inhouse_tests::python_environment("python") else { return };
    let folder = TempDir::new().unwrap();
    let (folder, path) = (folder.path(), folder.path().join("killed.jsonl.journal"));
    write_set(folder);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut state = seed | 1;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let mark = |name: &str| format!("{}-{seed}-{name}", std::process::id());

    let (undisturbed, expected, said) = finished(folder, &python, "undisturbed.jsonl", &mark("undisturbed"));
    assert_eq!((expected.len(), &undisturbed["resumed"]), (SAMPLES, &json!(0)), "{said}");
    let verdicts = undisturbed["verdicts"].as_object().unwrap();
    assert_eq!(verdicts.keys().collect::<Vec<_>>(), ["compile_error", "failed", "passed"]);
    assert!(!folder.join("undisturbed.jsonl.journal").exists());

    let mut kept = 0;
    let mut stopped = 0;
    for turn in 0..KILLS {
        // By what is done rather than by the clock, and then a little later, in the middle of a write or a sample. The
        // first one comes about before the first sample.
        let target = if turn == 0 { 0 } else { kept + below((SAMPLES / KILLS) as u64) as usize };
        let delay = Duration::from_micros(below(20_000));
        let kill_evald = turn % 3 == 2;
        let mark = mark(&turn.to_string());
        let mut run = eval(folder, &python, "killed.jsonl", &mark);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let evald = loop {
            let ended = run.try_wait().unwrap().is_some();
            let members = if kill_evald { family(&mark) } else { HashSet::new() };
            let evald = evald_of(&members, &run);
            if ended || journalled(&path).len() >= target && (evald.is_some() || !kill_evald) {
                break evald;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        std::thread::sleep(delay);
        let members = family(&mark);
        match evald {
            Some(pid) => {
                Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).status().unwrap();
            }
            None => run.kill().unwrap(),
        }
        let status = run.wait().unwrap();
        assert_gone(&members, &mark);
        if status.success() {
            println!("seed {seed}: turn {turn} ended before it was killed");
            break;
        }
        assert!(turn == 0 || members.len() > 2, "seed {seed}, turn {turn}: where is evald? {members:?}");
        if evald.is_some() {
            assert_eq!(status.code(), Some(1), "seed {seed}, turn {turn}");
        }
        stopped += 1;
        let keys = journalled(&path);
        println!(
            "turn {turn}: {} results kept, evald killed: {}, {} processes gone",
            keys.len(),
            evald.is_some(),
            members.len()
        );
        assert_eq!(
            keys.iter().collect::<HashSet<_>>().len(),
            keys.len(),
            "seed {seed}: a sample was run twice"
        );
        assert!(keys.len() >= kept && keys.len() <= SAMPLES, "seed {seed}: results were lost");
        assert!(!folder.join("killed.jsonl").exists());
        kept = keys.len();
    }
    assert!(stopped > 0, "seed {seed}: no run was killed in time");
    if stopped == KILLS {
        // A power cut may leave anything behind the last whole row.
        let mut torn = fs::read(&path).unwrap();
        torn.extend(b"12345678 {\"key\":");
        fs::write(&path, torn).unwrap();
        let mark = mark("last");
        let (report, _, said) = finished(folder, &python, "killed.jsonl", &mark);
        assert_eq!(report["resumed"], kept, "seed {seed}: {said}");
        assert!(said.contains("the last 16 bytes are cut"), "{said}");
        assert!(said.contains(&format!("going on after {kept} results")), "{said}");
        for figure in ["pass@1", "pass@10", "problems", "samples", "verdicts", "tier"] {
            assert_eq!(report[figure], undisturbed[figure], "seed {seed}: {figure}");
        }
        assert_gone(&HashSet::new(), &mark);
    }
    assert!(rows(&folder.join("killed.jsonl")) == expected, "seed {seed}: not the undisturbed run's rows");
    assert!(!path.exists(), "the journal is removed when the results are written");
}

#[test]
fn a_journal_of_another_run_is_not_touched() {
    let folder = TempDir::new().unwrap();
    write_set(folder.path());
    let path = folder.path().join("out.jsonl.journal");
    let refused = || {
        let output = eval(folder.path(), Path::new("python3"), "out.jsonl", "none").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    assert!(refused().contains("another run is writing this journal"));
    drop(lock);
    for (content, fault) in [("{\"inhouse_eval_journal\":99}\n", "version 99"), ("notes\n", "not a journal")]
    {
        fs::write(&path, content).unwrap();
        let said = refused();
        assert!(said.contains("out.jsonl.journal") && said.contains(fault), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

use std::sync::Mutex;

use evald_proto::{Limits, Trust};
use inhouse_core::progress::Silent;
use tempfile::TempDir;

use super::*;

fn jobs(n: usize) -> Vec<Job> {
    (0..n).map(|i| Job { id: i.to_string(), code: format!("x = {}\n", i % 7), ..Job::default() }).collect()
}

fn result(i: usize) -> JobResult {
    let verdict = [Verdict::Passed, Verdict::Failed, Verdict::CompileError, Verdict::Oom][i % 4];
    JobResult {
        id: i.to_string(),
        verdict,
        passed: verdict == Verdict::Passed,
        trust: Trust::InProcess,
        trust_reason: String::new(),
        tier: "T2".into(),
        cpu_ms: i as f64 + 0.5,
        wall_ms: 2.25,
        detail: "line one\nline \"two\" \u{1f980}".into(),
        output: String::new(),
        errors: String::new(),
        exit_status: None,
        files: Default::default(),
    }
}

/// A journal of `n` results in a folder of its own, and the keys and the bytes of it.
fn written(n: usize) -> (TempDir, PathBuf, Vec<Key>, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("results.jsonl");
    let keys = keys("runner", &jobs(n)).unwrap();
    let mut journal = Journal::open(&out, &Silent).unwrap();
    for (i, key) in keys.iter().enumerate() {
        journal.append(key, &result(i)).unwrap();
    }
    let bytes = std::fs::read(journal.path()).unwrap();
    (folder, out, keys, bytes)
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, message: &str) {
        self.0.lock().unwrap().push(message.into());
    }
    fn finish(&self) {}
}

#[test]
fn what_is_recorded_comes_back_once() {
    let (_folder, out, keys, _) = written(40);
    let notes = Notes::default();
    let mut journal = Journal::open(&out, &notes).unwrap();
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(journal.take(key), Some(result(i)));
        assert_eq!(journal.take(key), None);
    }
    assert!(notes.0.lock().unwrap().is_empty());
    let path = journal.path().to_owned();
    journal.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn everything_that_bears_on_a_verdict_is_in_the_key() {
    let job = Job { code: "ab".into(), test: "c".into(), env: "e".into(), ..Job::default() };
    let digest = |runner: &str, job: &Job| keys(runner, std::slice::from_ref(job)).unwrap().remove(0).digest;
    let first = digest("r", &job);
    assert_eq!(first, digest("r", &Job { id: "another".into(), ..job.clone() }));
    for other in [
        Job { code: "a".into(), test: "bc".into(), ..job.clone() },
        Job { code: "abc".into(), test: String::new(), ..job.clone() },
        Job { env: String::new(), ..job.clone() },
        Job { limits: Limits { cpu_ms: Some(3000), ..Limits::default() }, ..job.clone() },
    ] {
        assert_ne!(first, digest("r", &other), "{other:?}");
    }
    assert_ne!(first, digest("r2", &job));
    // Equal jobs are told apart by their order alone.
    let twins = keys("r", &[job.clone(), job]).unwrap();
    assert_eq!((twins[0].nth, twins[1].nth), (0, 1));
    assert_eq!(twins[0].digest, twins[1].digest);
}

#[test]
fn a_sandbox_that_failed_is_not_recorded_and_an_empty_journal_is_not_left() {
    let folder = TempDir::new().unwrap();
    let mut journal = Journal::open(&folder.path().join("out"), &Silent).unwrap();
    let key = keys("r", &jobs(1)).unwrap().remove(0);
    journal.append(&key, &JobResult { verdict: Verdict::InfraError, passed: false, ..result(0) }).unwrap();
    assert_eq!(std::fs::read_to_string(journal.path()).unwrap(), header().unwrap());
    drop(journal);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn only_a_file_has_a_journal() {
    let folder = TempDir::new().unwrap();
    for out in ["-", "/dev/null", "/dev/stdout"].map(Path::new) {
        // Standard output may be redirected to a file.
        if !out.is_file() {
            assert!(Journal::beside(out, &Silent).unwrap().is_none(), "{}", out.display());
        }
    }
    assert_eq!(Journal::beside(folder.path(), &Silent).err().unwrap().kind(), ErrorKind::InvalidData);
    assert!(Journal::beside(&folder.path().join("out"), &Silent).unwrap().is_some());
}

#[test]
fn two_runs_do_not_share_a_journal() {
    let (_folder, out, _, bytes) = written(3);
    let first = Journal::open(&out, &Silent).unwrap();
    let error = Journal::open(&out, &Silent).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(std::fs::read(first.path()).unwrap(), bytes);
    drop(first);
    Journal::open(&out, &Silent).unwrap();
}

#[test]
fn files_that_are_no_journal_of_this_build_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = folder.path().join("out.journal");
    for (content, kind) in [
        (&b"{\"inhouse_eval_journal\":2}\nanything"[..], ErrorKind::UnsupportedVersion),
        (b"{\"inhouse_eval_journal\":\"1\"}\n", ErrorKind::InvalidData),
        (b"{\"inhouse_eval_journal\":1} ", ErrorKind::InvalidData),
        (b"my notes\n", ErrorKind::InvalidData),
        (b"\n", ErrorKind::InvalidData),
        (b"\xff\xfe\x00", ErrorKind::InvalidData),
        (&[0; 100_000], ErrorKind::InvalidData),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Journal::open(&out, &Silent).err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("out.journal") && error.to_string().contains("remove"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(Journal::open(&out, &Silent).is_err());
    assert!(Journal::open(&folder.path().join("no/such/out"), &Silent).is_err());
}

/// Every cut: the whole rows before it are kept, the rest goes, with a note; and rows that are appended then are read.
#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let (_folder, out, keys, bytes) = written(2);
    let path = {
        let mut name = out.as_os_str().to_owned();
        name.push(".journal");
        PathBuf::from(name)
    };
    let ends: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] == b'\n').map(|i| i + 1).collect();
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let notes = Notes::default();
        let mut journal = Journal::open(&out, &notes).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        let torn = cut != 0 && !ends.contains(&cut);
        assert_eq!(notes.0.lock().unwrap().len(), usize::from(torn), "cut at {cut}");
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(journal.take(key), (i < whole).then(|| result(i)), "cut at {cut}");
        }
        for (i, key) in keys.iter().enumerate().skip(whole) {
            journal.append(key, &result(i)).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "cut at {cut}");
    }
}

/// Random damage to a journal: whatever comes back for a key is what was recorded for it.
///
/// `INHOUSE_FUZZ_SECONDS` makes it go on for longer.
#[test]
fn no_damage_turns_into_a_verdict() {
    let (_folder, out, keys, bytes) = written(60);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let seconds: u64 = std::env::var("INHOUSE_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut read, mut refused) = (0, 0, 0);
    while rounds < 3000 || Instant::now() < end {
        rounds += 1;
        let mut damaged = bytes.clone();
        for _ in 0..=below(4) {
            let (at, other) = (below(damaged.len()), below(damaged.len()));
            match below(7) {
                0 => damaged.truncate(at.max(1)),
                1 => damaged[at] ^= 1 << below(8),
                2 => damaged[at] = below(256) as u8,
                3 => drop(damaged.drain(at.min(other)..at.max(other).min(at.min(other) + 200))),
                4 => damaged.insert(at, b'\n'),
                5 => damaged[at.min(other)..at.max(other).min(at.min(other) + 64)].fill(0),
                // A piece of the file again, in another place.
                _ => {
                    let piece =
                        damaged[at..(at + below(600)).min(bytes.len()).min(damaged.len()).max(at)].to_vec();
                    damaged.splice(other..other, piece);
                }
            }
            if damaged.is_empty() {
                damaged.push(b'x');
            }
        }
        match scan(&out, &mut BufReader::with_capacity(64, damaged.as_slice())) {
            Ok(scan) => {
                assert!(scan.keep <= damaged.len() as u64);
                read += scan.found.len();
                for (key, found) in &scan.found {
                    let i = keys.iter().position(|known| known == key);
                    assert_eq!(i.map(result).as_ref(), Some(found), "round {rounds}: {key:?}");
                }
            }
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnsupportedVersion),
                    "{error}"
                );
            }
        }
    }
    println!("{rounds} damaged journals: {read} rows read, {refused} refused");
    assert!(read > 0 && refused > 0);
}

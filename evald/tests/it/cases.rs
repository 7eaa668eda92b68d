//! Programs that other harnesses and sandboxes got wrong, and what a sound one says of them.
//!
//! They are no part of the project: `cases/evald/cases.jsonl` below `INHOUSE_SHARED`, else below `shared` beside the
//! repository. `EVALD_CASES=T3,nobody,mp_` narrows the run to a tier, a user, or ids that begin so.

use std::path::PathBuf;

use evald_proto::{Job, Limits, TrustWish, Verdict};
use serde::Deserialize;

use crate::support::{Daemon, Setting, python, settings};

#[derive(Deserialize)]
struct Case {
    id: String,
    expected: Vec<String>,
    entry_point: String,
    test: String,
    completion: String,
}

impl Case {
    /// As the HumanEval protocol has it: a test that defines `check` is called with the entry point.
    fn job(&self) -> Job {
        let mut test = self.test.clone();
        if test.contains("def check(") {
            test.push_str(&format!("\ncheck({})\n", self.entry_point));
        }
        let limits = Limits { cpu_ms: Some(3_000), wall_ms: Some(9_000), ..Limits::default() };
        // A candidate can fool a test that runs beside it in one interpreter, which is no promise (THREATS.md): what must not
        // pass is run as those do who rely on that.
        let trust = if self.may_not_pass() { TrustWish::Isolated } else { TrustWish::Auto };
        let (id, code) = (self.id.clone(), self.completion.clone());
        Job { id, code, test, limits, trust: Some(trust), ..Job::default() }
    }

    fn is_met(&self, verdict: Verdict) -> bool {
        self.expected.iter().any(|wanted| match wanted.as_str() {
            "not passed" => verdict != Verdict::Passed && verdict != Verdict::InfraError,
            wanted => wanted == verdict.as_str(),
        })
    }

    fn may_not_pass(&self) -> bool {
        self.expected.iter().any(|wanted| wanted == "not passed")
    }

    fn may_pass(&self) -> bool {
        self.expected.iter().any(|wanted| wanted == "passed")
    }
}

fn cases() -> Option<Vec<Case>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("INHOUSE_SHARED").map_or_else(beside, PathBuf::from);
    let path = shared.join("cases/evald/cases.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a case")).collect())
}

/// What T3 cannot give to anybody: a network of one's own.
const NOT_IN_T3: &[&str] = &["loopback_tcp"];
/// Needs numpy in the interpreter of the tests.
const NUMPY: &str = "numpy_";

fn narrowed(setting: Setting) -> Option<Vec<String>> {
    let asked = std::env::var("EVALD_CASES").unwrap_or_default();
    let words: Vec<&str> = asked.split(',').filter(|word| !word.is_empty()).collect();
    let mut prefixes = Vec::new();
    for word in words {
        match word {
            "T0" | "T1" | "T2" | "T3" => {
                if setting.tier != word {
                    return None;
                }
            }
            "root" | "nobody" => {
                if setting.unprivileged != (word == "nobody") {
                    return None;
                }
            }
            prefix => prefixes.push(prefix.to_owned()),
        }
    }
    Some(prefixes)
}

#[test]
fn what_others_got_wrong_has_its_verdict() {
    let Some(cases) = cases() else { return };
    let mut wrong = Vec::new();
    for setting in settings().into_iter().filter(|setting| setting.tier != "T4") {
        let Some(prefixes) = narrowed(setting) else { continue };
        let env = format!("py={}", python().expect("python").display());
        let daemon = Daemon::start_with(setting, &env, &["--slots", "2", "--allow", "processes"]);
        let mut client = daemon.client();
        let numpy = client.run(Job { code: "import numpy".into(), ..Job::default() }).expect("a result");
        let numpy = numpy.verdict == Verdict::Passed;
        let chosen: Vec<&Case> = cases
            .iter()
            .filter(|case| prefixes.is_empty() || prefixes.iter().any(|prefix| case.id.starts_with(prefix)))
            .filter(|case| numpy || !case.id.starts_with(NUMPY))
            .collect();
        let (mut met, mut missed) = (0, Vec::new());
        let jobs: Vec<Job> = chosen.iter().map(|case| case.job()).collect();
        let ran = client.run_all(jobs, &|| false, |at, result| {
            let case = chosen[at];
            if case.is_met(result.verdict) {
                met += 1;
            } else {
                let line = format!("{}: {} ({})", case.id, result.verdict.as_str(), result.detail);
                if result.verdict == Verdict::Passed && !case.may_pass() {
                    wrong.push(format!("{setting:?}: {line}"));
                } else if !(setting.tier == "T3" && NOT_IN_T3.contains(&case.id.as_str())) {
                    missed.push(line);
                }
            }
            std::ops::ControlFlow::Continue(())
        });
        ran.expect("all cases run");
        println!("{setting:?}: {met} of {} as expected; missed:\n  {}", chosen.len(), missed.join("\n  "));
        if missed.len() * 100 > chosen.len() * 3 {
            wrong.push(format!("{setting:?}: {} of {} cases are missed", missed.len(), chosen.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! The published samples: every verdict equal to the list. Skips where the data or the environment is missing.

use std::collections::HashMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use evald_proto::{Client, Job, Limits, SpawnOptions, Verdict};
use serde_json::Value;

use crate::support::{EVALD, any_setting};

fn shared(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("INHOUSE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = folder.join("benchmarks").join(file);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: no {}", path.display());
    None
}

fn rows(path: &Path) -> Vec<Value> {
    let bytes = std::fs::read(path).expect("read");
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
    } else {
        text = String::from_utf8(bytes).expect("UTF-8");
    }
    text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn jobs(problems: &Path, samples: &Path, limits: &Limits) -> Vec<Job> {
    let problems: HashMap<String, Value> = rows(problems)
        .into_iter()
        .map(|row| (row["task_id"].as_str().unwrap_or_default().to_owned(), row))
        .collect();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let job = |sample: &Value| {
        let problem = &problems[sample["task_id"].as_str().unwrap_or_default()];
        let call = match text(problem, "entry_point").as_str() {
            "none" => "check()".to_owned(),
            name => format!("check({name})"),
        };
        Job {
            id: text(sample, "task_id"),
            code: text(problem, "prompt") + &text(sample, "completion"),
            test: format!("{}\n{call}\n", text(problem, "test")),
            limits: limits.clone(),
            ..Job::default()
        }
    };
    rows(samples).iter().map(job).collect()
}

/// Runs the jobs in a private daemon; whether each passed, and the other verdicts.
fn evaluate(env: &str, jobs: Vec<Job>) -> Option<Vec<(Verdict, String)>> {
    let setting = any_setting()?;
    let options = SpawnOptions {
        tier: Some(setting.tier.into()),
        envs: vec![env.to_owned()],
        ..SpawnOptions::default()
    };
    let mut client = match Client::spawn(Path::new(EVALD), &options) {
        Ok(client) => client,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let mut results = vec![(Verdict::InfraError, String::new()); jobs.len()];
    client
        .run_all(jobs, &|| false, |index, result| {
            assert_eq!(result.passed, result.verdict == Verdict::Passed);
            results[index] = (result.verdict, result.detail);
            ControlFlow::Continue(())
        })
        .expect("all run");
    Some(results)
}

fn interpreter(variable: &str, usual: &str) -> Option<PathBuf> {
    let python = std::env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    if python.exists() {
        return Some(python);
    }
    println!("skipped: no interpreter {} (set {variable})", python.display());
    None
}

#[test]
fn every_pandas_verdict_equals_the_list() {
    let (Some(problems), Some(samples), Some(verdicts), Some(python)) = (
        shared("real_pandas_eval_v3.jsonl.gz"),
        shared("pandas_1000.samples.jsonl.gz"),
        shared("pandas_1000.verdicts.jsonl.gz"),
        interpreter("EVALD_TEST_PANDAS", "/opt/peers/py310/bin/python"),
    ) else {
        return;
    };
    let jobs = jobs(&problems, &samples, &Limits::default());
    let Some(results) = evaluate(&format!("pd={}:pandas,numpy", python.display()), jobs) else { return };
    let expected = rows(&verdicts);
    assert_eq!(results.len(), expected.len());
    let wrong: Vec<String> = results
        .iter()
        .zip(&expected)
        .enumerate()
        .filter(|(_, ((verdict, _), row))| row["passed"].as_bool() != Some(*verdict == Verdict::Passed))
        .map(|(index, ((verdict, detail), row))| {
            format!("sample {index}: {verdict:?} ({detail}), listed {row}")
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), results.len(), wrong.join("\n"));
}

#[test]
fn the_torchdata_sample_file_scores_six_percent() {
    let file = "torchdata_codegen_noapi_t0.1_n1.samples.jsonl";
    let (Some(problems), Some(samples), Some(python)) = (
        shared("real_torchdata_eval_v3.jsonl.gz"),
        shared(file),
        interpreter("EVALD_TEST_TORCHDATA", "/opt/peers/torchdata/bin/python"),
    ) else {
        return;
    };
    let jobs = jobs(&problems, &samples, &Limits::default());
    let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
    // Without tests/patch_torchdata.sh the library cannot be imported beside torch 1.13: that skips, and says so.
    let Some(results) = evaluate(&format!("td={}:torch,torchdata.datapipes", python.display()), jobs) else {
        return;
    };
    let mut passed: Vec<&str> = ids
        .iter()
        .zip(&results)
        .filter(|(_, (verdict, _))| *verdict == Verdict::Passed)
        .map(|(id, _)| id.as_str())
        .collect();
    passed.sort_unstable();
    assert_eq!(passed, ["TorchDataEval/13", "TorchDataEval/19", "TorchDataEval/23"]);
}

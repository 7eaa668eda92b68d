//! The published benchmarks, through the real commands. Their data is no part of this repository: without it, or without
//! their Python environments, these tests print why and skip.

use inhouse_tests::{benchmark, command, python_environment};
use serde_json::Value;
use tempfile::TempDir;

fn evaluate(
    problems: &std::path::Path,
    samples: &std::path::Path,
    env: &str,
    out: &std::path::Path,
) -> Value {
    let output = command("inhouse")
        .args(["eval", "--problems", problems.to_str().unwrap(), "--samples", samples.to_str().unwrap()])
        .args(["--env", env, "--json", "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn pandas_samples_get_the_published_verdicts() {
    let (Some(problems), Some(samples), Some(verdicts)) = (
        benchmark("real_pandas_eval_v3.jsonl.gz"),
        benchmark("pandas_1000.samples.jsonl.gz"),
        benchmark("pandas_1000.verdicts.jsonl.gz"),
    ) else {
        return;
    };
    let Some(python) = python_environment("pandas") else { return };
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("results.jsonl");
    let report = evaluate(&problems, &samples, &format!("{}:pandas", python.display()), &out);
    let read = |path: &std::path::Path| {
        inhouse_core::files::json_lines::<Value>(path).unwrap().map(|row| row.unwrap().1).collect::<Vec<_>>()
    };
    let (expected, got) = (read(&verdicts), read(&out));
    assert_eq!(expected.len(), got.len());
    let different: Vec<_> = expected
        .iter()
        .zip(&got)
        .enumerate()
        .filter(|(_, (expected, got))| {
            expected["passed"] != got["passed"] || expected["task_id"] != got["task_id"]
        })
        .map(|(i, (expected, got))| {
            format!("row {}: {} but {} ({})", i + 1, expected["result"], got["verdict"], got["detail"])
        })
        .collect();
    assert!(different.is_empty(), "{} of {} differ: {different:#?}", different.len(), got.len());
    println!("{} samples, every verdict equal; {report}", got.len());
}

#[test]
fn torchdata_samples_give_the_published_pass_at_1() {
    let (Some(problems), Some(samples)) = (
        benchmark("real_torchdata_eval_v3.jsonl.gz"),
        benchmark("torchdata_codegen_noapi_t0.1_n1.samples.jsonl"),
    ) else {
        return;
    };
    let Some(python) = python_environment("torchdata") else { return };
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("results.jsonl");
    let report =
        evaluate(&problems, &samples, &format!("{}:torchdata.datapipes.iter", python.display()), &out);
    assert_eq!(report["pass@1"], 0.06, "{report}");
}

//! The published benchmarks, through the real commands. Their data is no part of this repository: without it, or without
//! their Python environments, these tests print why and skip.

use inhouse_tests::{benchmark, command, python_environment};
use serde_json::{Value, json};
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

/// Tensors that a test in a process of its own gets, gives, and sees changed; those that are not dense stay with the candidate.
#[test]
fn tensors_cross_to_a_test_of_its_own_process() {
    let Some(python) = python_environment("torchdata") else { return };
    let folder = TempDir::new().unwrap();
    let write = |name: &str, row: Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, row.to_string()).unwrap();
        path
    };
    let test = "import torch
assert kept is not None
half = torch.ones(2, dtype=torch.bfloat16)
assert torch.equal(same(half), half) and same([half, half])[0].dtype == torch.bfloat16
given = torch.zeros(2)
assert list(added(given)) == [torch.tensor(1.), torch.tensor(1.)] and given.sum() == 2";
    let problem = json!({"task_id": "t", "prompt": "import torch\n", "entry_point": "none", "test": test});
    let right = "kept = torch.ones(2).to_sparse()
def same(x): return x
def added(x):
    x += 1
    return x
";
    let env = format!("{}:torchdata.datapipes.iter", python.display());
    let problems = write("problems.jsonl", problem);
    for (completion, passed) in [(right.to_owned(), 1.0), (right.replace("x += 1", "x = x + 1"), 0.0)] {
        let samples = write("samples.jsonl", json!({"task_id": "t", "completion": completion}));
        let report = evaluate(&problems, &samples, &env, &folder.path().join("results.jsonl"));
        assert_eq!(
            (&report["pass@1"], &report["trust"]["isolated"]),
            (&json!(passed), &json!(1)),
            "{report}"
        );
    }
}

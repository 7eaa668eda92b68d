//! `inhouse eval` on files with rows that cannot be used, and the limits that it gives samples.

use std::process::Output;

use inhouse_tests::command;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The report, the rows of the results, and what was said, of a problem and a sample file of those lines.
fn evaluate(problems: &[String], samples: &[String], arguments: &[&str]) -> (Output, Vec<Value>, String) {
    let folder = TempDir::new().unwrap();
    let write =
        |name: &str, rows: &[String]| std::fs::write(folder.path().join(name), rows.join("\n")).unwrap();
    write("problems.jsonl", problems);
    write("samples.jsonl", samples);
    let output = command("inhouse")
        .current_dir(folder.path())
        .args([
            "eval",
            "--problems",
            "problems.jsonl",
            "--samples",
            "samples.jsonl",
            "--out",
            "out.jsonl",
            "--json",
        ])
        .args(arguments)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap_or_default();
    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, rows, said)
}

fn problem(id: &str) -> String {
    let test = "def check(f):\n    assert f(1) == 2\n";
    json!({"task_id": id, "prompt": "def f(x):\n", "entry_point": "f", "test": test}).to_string()
}

fn sample(id: &str, completion: &str) -> String {
    json!({"task_id": id, "completion": completion}).to_string()
}

#[test]
fn a_row_that_cannot_be_used_fails_alone() {
    let good = "    return x + 1\n";
    let problems = [problem("r/0"), r#"{"task_id": "r/1", "prompt": "def f"#.to_owned(), problem("r/2")];
    let large = format!("    return {:?}\n", "x".repeat(evald_line()));
    let samples = [
        sample("r/0", good),
        r#"{"task_id": "r/0", "completion": "    retu"#.to_owned(),
        r#"{"task_id": "r/0", "completion": "    return '\ud800'\n"}"#.to_owned(),
        sample("r/0", &large),
        sample("r/1", good),
        sample("r/2", good),
        r#"["no object"]"#.to_owned(),
    ];
    let (output, rows, said) = evaluate(&problems, &samples, &[]);
    assert!(output.status.success(), "{said}");
    let expected = [
        ("r/0", "passed", ""),
        ("r/0", "infra_error", "samples.jsonl:2"),
        ("r/0", "compile_error", "samples.jsonl:3"),
        ("r/0", "compile_error", "sample 4"),
        ("r/1", "infra_error", "problems.jsonl:2"),
        ("r/2", "passed", ""),
        ("", "infra_error", "samples.jsonl:7"),
    ];
    assert_eq!(rows.len(), expected.len(), "{said}");
    for (row, (id, verdict, why)) in rows.iter().zip(expected) {
        assert_eq!((&row["task_id"], &row["verdict"]), (&json!(id), &json!(verdict)), "{row}");
        assert!(row["detail"].as_str().unwrap().contains(why), "{row}");
        // The user is told of each row that cannot be read beside the results.
        assert!(!why.contains("jsonl") || said.contains(why), "{said}");
    }
    // r/0 passes once of three that say something, r/2 once of one; r/1 has none.
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rate = report["pass@1"].as_f64().unwrap_or_else(|| panic!("{report}"));
    assert!((rate - (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-9, "{report}");
}

/// Bytes that evald takes as one line.
fn evald_line() -> usize {
    16 << 20
}

#[test]
fn samples_have_the_limits_that_are_asked_for() {
    let problems = [problem("l/0")];
    let hungry = "    kept = bytearray(200 << 20)\n    return x + 1\n";
    let forks = "    import subprocess, sys\n    subprocess.run([sys.executable, '-c', ''], check=True)\n    return x + 1\n";
    let samples = [sample("l/0", hungry), sample("l/0", forks)];
    let verdicts = |arguments: &[&str]| -> Vec<bool> {
        let (output, rows, said) = evaluate(&problems, &samples, arguments);
        assert!(output.status.success(), "{said}");
        rows.iter().map(|row| row["passed"].as_bool().unwrap()).collect()
    };
    let usual = ["--timeout", "20"];
    assert_eq!(verdicts(&[&usual[..], &["--limit", "memory=64MiB,files=512"]].concat()), [false, false]);
    assert_eq!(verdicts(&[&usual[..], &["--memory", "1GiB", "--allow", "processes"]].concat()), [true, true]);
    for (arguments, fault) in [
        (["--limit", "memory=lots"], "limit memory"),
        (["--limit", "colour=3"], "no limit is named"),
        (["--limit", "cpu"], "expected NAME=VALUE"),
        (["--allow", "network"], "processes"),
    ] {
        let (output, _, said) = evaluate(&problems, &samples, &arguments);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(fault), "{said}");
    }
}

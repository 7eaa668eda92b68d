//! `inhouse generate` with a tiny converted checkpoint: settings, seeds, resume after a kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inhouse_tests::{command, repository};
use serde_json::Value;
use tempfile::TempDir;

/// A GGUF made from the fixture checkpoint: random weights, which is all that these tests need.
fn model(folder: &Path) -> PathBuf {
    let out = folder.join("tiny.gguf");
    let status = command("inhouse-convert")
        .args([
            "gguf",
            "--from",
            repository().join("tests/fixtures/codegen").to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    out
}

/// Short problems, since the fixture's context is short: some with a block, some with golden names only.
fn problems(folder: &Path) -> PathBuf {
    let path = folder.join("problems.jsonl");
    let rows: String = (0..6)
        .map(|i| {
            format!(
                "{{\"task_id\": \"T/{i}\", \"prompt\": \"# [start]\\n# frob_{i}(x): Frobs.\\n# [end]\\n# frob it\\ny =\", \
                 \"entry_point\": \"none\", \"canonical_solution\": \" 1\", \"test\": \"def check():\\n    assert True\\n\"}}\n"
            )
        })
        .collect();
    fs::write(&path, rows).unwrap();
    path
}

fn generate(model: &Path, problems: &Path, apis: &str, extra: &[&str], out: &Path) -> std::process::Command {
    let mut generate = command("inhouse");
    generate
        .args([
            "generate",
            "--model",
            model.to_str().unwrap(),
            "--problems",
            problems.to_str().unwrap(),
            "--apis",
            apis,
        ])
        .args(["--max-tokens", "12", "--out", out.to_str().unwrap()])
        .args(extra);
    generate
}

fn run(model: &Path, problems: &Path, apis: &str, extra: &[&str], out: &Path) -> Vec<Value> {
    let output = generate(model, problems, apis, extra, out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn settings_seeds_and_counts() {
    let folder = TempDir::new().unwrap();
    let (model, problems) = (model(folder.path()), problems(folder.path()));
    let out = folder.path().join("samples.jsonl");
    let perfect = run(&model, &problems, "perfect", &["-n", "5"], &out);
    assert_eq!(perfect.len(), 30);
    for (i, row) in perfect.iter().enumerate() {
        assert_eq!(row["task_id"], format!("T/{}", i / 5));
        assert_eq!(row["apis"], serde_json::json!([format!("frob_{}", i / 5)]));
        assert!(row["completion"].is_string() && row["completion_tokens"].as_u64().unwrap() <= 12);
    }
    // The same seed gives the same samples, however many run side by side; another seed gives others.
    let narrow = run(&model, &problems, "perfect", &["-n", "5", "--parallel", "2"], &out);
    assert_eq!(perfect, narrow);
    let other = run(&model, &problems, "perfect", &["-n", "5", "--seed", "1"], &out);
    assert_ne!(perfect, other);
    // The block is in the prompt with `perfect` and `as-is`, and not with `none`.
    let texts = |rows: &[Value]| rows.iter().map(|row| row["completion"].to_string()).collect::<Vec<_>>();
    let as_is = run(&model, &problems, "as-is", &["-n", "5"], &out);
    assert_eq!(texts(&perfect), texts(&as_is));
    let none = run(&model, &problems, "none", &["-n", "5"], &out);
    assert_ne!(texts(&perfect), texts(&none));
    assert!(none.iter().all(|row| row["apis"] == serde_json::json!([])));
    assert!(!folder.path().join("samples.jsonl.partial").exists());
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_file() {
    let folder = TempDir::new().unwrap();
    let (model, problems) = (model(folder.path()), problems(folder.path()));
    let (whole, killed) = (folder.path().join("whole.jsonl"), folder.path().join("killed.jsonl"));
    let flags = ["-n", "40", "--parallel", "4"];
    let expected = run(&model, &problems, "perfect", &flags, &whole);
    let partial = folder.path().join("killed.jsonl.partial");
    let mut resumed = false;
    for _ in 0..200 {
        let mut child = generate(&model, &problems, "perfect", &flags, &killed)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Killed once it has written something more than it found.
        let before = fs::metadata(&partial).map_or(0, |meta| meta.len());
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if fs::metadata(&partial).map_or(0, |meta| meta.len()) > before.max(600) {
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        resumed |= partial.exists();
        // A torn last line, as a power cut leaves it.
        if partial.exists() {
            use std::io::Write;
            fs::OpenOptions::new()
                .append(true)
                .open(&partial)
                .unwrap()
                .write_all(b"{\"task_id\": \"T/")
                .unwrap();
        }
    }
    assert!(resumed, "no run was caught before its end");
    let got: Vec<Value> = fs::read_to_string(&killed)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(expected, got);
    assert!(!partial.exists());
}

#[test]
fn a_partial_file_of_other_settings_is_not_mixed_in() {
    let folder = TempDir::new().unwrap();
    let (model, problems) = (model(folder.path()), problems(folder.path()));
    let out = folder.path().join("samples.jsonl");
    let partial = folder.path().join("samples.jsonl.partial");
    let row = "{\"task_id\": \"T/0\", \"completion\": \"\"}\n";
    for theirs in [format!("{{\"inhouse_partial_samples\": 1, \"seed\": 7}}\n{row}"), "my notes".to_owned()] {
        refuses_to_go_on_with(&theirs, &model, &problems, &out, &partial);
    }
    // A run that finished nothing leaves nothing to lose.
    fs::write(&partial, "{\"inhouse_partial_samples\": 1, \"seed\": 7}\n").unwrap();
    assert_eq!(run(&model, &problems, "perfect", &["-n", "1"], &out).len(), 6);
}

fn refuses_to_go_on_with(theirs: &str, model: &Path, problems: &Path, out: &Path, partial: &Path) {
    fs::write(partial, theirs).unwrap();
    let output = generate(model, problems, "perfect", &["-n", "1"], out).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("samples.jsonl.partial") && message.contains("other settings"), "{message}");
    assert_eq!(fs::read_to_string(partial).unwrap(), theirs);
    assert!(!out.exists());
}

#[test]
fn perfect_without_golden_names_says_which_problem() {
    let folder = TempDir::new().unwrap();
    let model = model(folder.path());
    let problems = folder.path().join("problems.jsonl");
    fs::write(&problems, "{\"task_id\": \"T/9\", \"prompt\": \"y =\", \"entry_point\": \"none\", \"canonical_solution\": \"\", \"test\": \"\"}\n").unwrap();
    let out = folder.path().join("samples.jsonl");
    for setting in ["perfect", "human", "top:1"] {
        let output = generate(&model, &problems, setting, &["-n", "1"], &out).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(if setting == "top:1" { 2 } else { 1 }),
            "{setting}: {message}"
        );
        assert!(setting == "top:1" || message.contains("T/9"), "{setting}: {message}");
        assert!(!out.exists());
    }
}

#[test]
fn the_retriever_is_asked_again_with_a_draft() {
    let folder = TempDir::new().unwrap();
    let (model, problems) = (model(folder.path()), problems(folder.path()));
    let (apis, index) = (folder.path().join("apis.jsonl"), folder.path().join("index"));
    let rows: String = (0..6)
        .map(|i| {
            format!("{{\"name\": \"frob_{i}\", \"signature\": \"(x)\", \"description\": \"Frobs it.\"}}\n")
        })
        .collect();
    fs::write(&apis, rows).unwrap();
    let built = command("inhouse")
        .args([
            "index",
            "build",
            apis.to_str().unwrap(),
            "--encoder",
            "none",
            "--out",
            index.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let out = folder.path().join("samples.jsonl");
    let index = index.to_str().unwrap();
    let once = run(&model, &problems, "top:2", &["-n", "2", "--index", index], &out);
    let again = run(&model, &problems, "top:2", &["-n", "2", "--index", index, "--refine"], &out);
    assert_eq!(again.len(), once.len());
    for row in &again {
        assert_eq!(row["apis"].as_array().unwrap().len(), 2, "{row}");
    }
    // The same run gives the same samples, drafts included.
    assert_eq!(run(&model, &problems, "top:2", &["-n", "2", "--index", index, "--refine"], &out), again);
    let refused =
        generate(&model, &problems, "perfect", &["--index", index, "--refine"], &out).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--refine goes with --apis top:N"));
}

#[test]
fn what_a_draft_tries_to_call_is_found_beside_what_was_asked() {
    use inhouse::index::{self, BuildOptions};
    use inhouse::progress::Silent;
    use inhouse::{ApiChoice, ApiDoc, CompletionRequest, Engine, EngineOptions};
    let api = |name: &str, description: &str| ApiDoc {
        name: name.into(),
        qualified_name: format!("loom.{name}"),
        description: description.into(),
        ..ApiDoc::default()
    };
    let apis = [
        api("weave", "Joins the threads."),
        api("splice", "Joins the threads end to end."),
        api("dye", "Colours the cloth."),
    ];
    let folder = TempDir::new().unwrap();
    index::build(&apis, folder.path(), &BuildOptions::default(), &Silent).unwrap();
    let engine =
        Engine::open(&EngineOptions { index: Some(folder.path().into()), ..EngineOptions::default() })
            .unwrap();
    let request = CompletionRequest {
        apis: ApiChoice::Top(3),
        ..CompletionRequest::new("# join the threads\ncloth = ")
    };
    let names = |draft: &str| match engine.refined(&request, draft).unwrap() {
        ApiChoice::Given(apis) => apis.into_iter().map(|api| api.name).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names("sorted(x)"), ["weave", "splice"]);
    assert_eq!(names("threads.colour_cloth(3)"), ["weave", "splice", "dye"]);
    let score = |draft: &str, name: &str| {
        let hits = engine.retrieve_refined("join the threads", draft, 3).unwrap();
        hits.into_iter().find(|hit| hit.api.name == name).unwrap().score
    };
    assert!(score("end", "splice") > score("", "splice") && score("end", "weave") == score("", "weave"));
    let draft = request.draft();
    assert_eq!((draft.apis, draft.n, draft.params.temperature), (ApiChoice::None, 1, 0.0));
    let named = CompletionRequest { apis: ApiChoice::Named(vec!["dye".into()]), ..request };
    assert_eq!(engine.refined(&named, "x()").unwrap(), named.apis);
}

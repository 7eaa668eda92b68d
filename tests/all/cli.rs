//! The `inhouse` command as a user meets it: the main job on the private library, and bad input of every kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use inhouse_tests::{command, repository};
use serde_json::Value;
use tempfile::TempDir;

fn inhouse(arguments: &[&str]) -> Output {
    command("inhouse").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeed(arguments: &[&str]) -> String {
    let output = inhouse(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Exit status 1 and exactly one line on stderr that names the file and says `fault`.
fn fail(arguments: &[&str], file: &Path, fault: &str) {
    let output = inhouse(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{arguments:?}: {message}");
    assert!(
        message.contains(&*file.to_string_lossy()),
        "{arguments:?} does not name {}: {message}",
        file.display()
    );
    assert!(message.to_lowercase().contains(fault), "{arguments:?} does not say `{fault}`: {message}");
}

fn private_package() -> PathBuf {
    repository().join("tests/private-library/gaugewren")
}

fn private_index(folder: &TempDir) -> PathBuf {
    let index = folder.path().join("private.index");
    succeed(&["index", "build", private_package().to_str().unwrap(), "--out", index.to_str().unwrap()]);
    index
}

#[test]
fn the_private_library_is_read_indexed_and_found() {
    let folder = TempDir::new().unwrap();
    let package = private_package();
    let docs = folder.path().join("apis.jsonl.gz");
    succeed(&["docs", package.to_str().unwrap(), "--out", docs.to_str().unwrap()]);
    let apis = inhouse_core::api::read_jsonl(&docs).unwrap();
    assert!(apis.len() >= 60, "{} APIs", apis.len());
    assert!(apis.iter().all(|api| !api.qualified_name.is_empty()));

    let index = private_index(&folder);
    let info: Value =
        serde_json::from_str(&succeed(&["index", "info", index.to_str().unwrap(), "--json"])).unwrap();
    assert_eq!(info["apis"].as_u64().unwrap() as usize, apis.len());

    let problems = repository().join("tests/private-library/problems.jsonl");
    let report: Value = serde_json::from_str(&succeed(&[
        "retrieve",
        "--index",
        index.to_str().unwrap(),
        "--problems",
        problems.to_str().unwrap(),
        "--json",
    ]))
    .unwrap();
    let recall = report["recall@5"].as_f64().unwrap();
    assert!(report["problems"].as_u64().unwrap() >= 40);
    assert!(recall > 0.3 && recall <= 1.0, "{report}");
    assert!(report["recall@1"].as_f64() <= report["recall@2"].as_f64());

    let name = &apis[apis.len() / 2].name;
    let hits: Value =
        serde_json::from_str(&succeed(&["retrieve", "--index", index.to_str().unwrap(), "--json", name]))
            .unwrap();
    let first = &hits["hits"][0];
    assert_eq!(first["rank"], 1);
    assert!(
        hits["hits"].as_array().unwrap().iter().any(|hit| hit["name"] == name.as_str()),
        "{name}: {hits}"
    );
    for key in ["qualified_name", "signature", "description", "score"] {
        assert!(first.get(key).is_some(), "{key} is missing: {first}");
    }
}

/// Part of a library never removes the rest of it, unless the user says that it is all.
#[test]
fn an_update_removes_only_from_libraries_that_are_given_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let index = private_index(&folder);
    let count = || {
        let info = succeed(&["index", "info", index.to_str().unwrap(), "--json"]);
        serde_json::from_str::<Value>(&info).unwrap()["apis"].as_u64().unwrap()
    };
    let update = |source: &Path, extra: &[&str]| {
        succeed(&[&["index", "update", index.to_str().unwrap(), source.to_str().unwrap()], extra].concat());
    };
    let whole = count();
    let row = folder.path().join("row.jsonl");
    fs::write(&row, "{\"name\": \"unheard_of\", \"module\": \"gaugewren\", \"signature\": \"()\"}\n")
        .unwrap();
    update(&row, &[]);
    assert_eq!(count(), whole + 1);
    let bare = folder.path().join("bare.jsonl");
    for name in ["one", "two"] {
        fs::write(&bare, format!("{{\"name\": \"{name}\"}}\n")).unwrap();
        update(&bare, &[]);
    }
    assert_eq!(count(), whole + 3, "records that name no library are not one library");
    update(&private_package().join("almanac.py"), &[]);
    assert!(count() >= whole + 3);
    // The package as a whole: what it does not have goes, other records stay.
    update(&private_package(), &[]);
    assert_eq!(count(), whole + 2);
    update(&row, &["--prune"]);
    assert_eq!(count(), 3);
}

#[test]
fn canonical_solutions_of_the_private_library_all_pass() {
    let Some(python) = inhouse_tests::python_environment("python") else { return };
    let problems = repository().join("tests/private-library/problems.jsonl");
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("results.jsonl");
    let report: Value = serde_json::from_str(&succeed(&[
        "eval",
        "--problems",
        problems.to_str().unwrap(),
        "--canonical",
        "--env",
        python.to_str().unwrap(),
        "--json",
        "--out",
        out.to_str().unwrap(),
    ]))
    .unwrap();
    assert_eq!(report["pass@1"], 1.0, "{report}\n{}", fs::read_to_string(&out).unwrap());
    assert_eq!(report["trust"]["in_process"], 2, "{report}");
    let rows = fs::read_to_string(&out).unwrap();
    assert_eq!(rows.lines().count() as u64, report["samples"].as_u64().unwrap());
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!((&row["passed"], &row["verdict"]), (&Value::Bool(true), &Value::from("passed")));
        // But for those whose rows say that they need one process.
        assert!(row["trust"] == "isolated" || row["trust"] == "in_process", "{row}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["retrieve"][..],
        &["complete", "--model", "x", "--apis", "top:0", "x"],
        &["complete", "--model", "x", "--apis", "top:many", "x"],
        &["generate", "--problems", "x", "--model", "x", "--apis", "best", "--out", "x"],
        &["eval", "--problems", "x"],
        &["index", "build", "x"],
        &["complete", "--model", "x", "--apis", "top:1", "x"],
        &["complete", "--model", "x", "--temperature", "-1", "x"],
        &["complete", "--model", "x", "--top-p", "NaN", "x"],
        &["complete", "--model", "x", "--threads", "0", "x"],
        &["eval", "--problems", "x", "--canonical", "--timeout", "0"],
        &["eval", "--problems", "x", "--canonical", "--tier", "xx"],
        &["eval", "--problems", "x", "--canonical", "--evald", "x", "--env", "python3"],
        &["eval", "--problems", "x", "--canonical", "--json", "--out", "-"],
        &["retrieve", "--index", "x", ""],
        &["no-such-command"],
    ] {
        let output = inhouse(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

/// Files that are wrong in every way a text file can be, each with a word its error must say.
fn bad_text_files(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let make = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let huge = folder.join("huge.jsonl");
    fs::File::create(&huge).unwrap().set_len(2 << 30).unwrap();
    let mut gzip = Vec::new();
    {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::default());
        // Names of real problems: what is wrong with the file must be found, not what is wrong with a row.
        for i in 0..92 {
            writeln!(encoder, "{{\"name\": \"api_{i}\", \"task_id\": \"GaugewrenEval/{i}\", \"completion\": \"\", \"prompt\": \"\", \"test\": \"\"}}").unwrap();
        }
        encoder.finish().unwrap();
    }
    vec![
        (folder.join("missing.jsonl"), "no such file"),
        (make("empty.jsonl", b""), "no "),
        (make("truncated.jsonl", b"{\"name\": \"a\", \"task_id\": \"T/0\", \"compl"), "bad row"),
        (make("not-utf8.jsonl", b"{\"name\": \"\xff\xfe\"}\n"), "utf-8"),
        (make("list.jsonl", b"[1, 2, 3]\n"), "bad row"),
        (make("truncated.jsonl.gz", &gzip[..gzip.len() / 2]), "cannot read"),
        (huge, "limit"),
    ]
}

#[test]
fn bad_documentation_problem_and_sample_files_give_one_line() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let index = private_index(&folder);
    let problems = repository().join("tests/private-library/problems.jsonl");
    for (bad, fault) in bad_text_files(folder.path()) {
        let (path, out) = (bad.to_str().unwrap(), out.to_str().unwrap());
        fail(&["docs", path, "--out", out], &bad, fault);
        fail(&["index", "build", path, "--out", out], &bad, fault);
        fail(&["eval", "--problems", path, "--canonical", "--out", out], &bad, fault);
        fail(
            &["eval", "--problems", problems.to_str().unwrap(), "--samples", path, "--out", out],
            &bad,
            fault,
        );
        fail(&["retrieve", "--index", index.to_str().unwrap(), "--problems", path], &bad, fault);
        assert!(!Path::new(out).exists(), "{path} left {out} behind");
    }
}

#[test]
fn bad_models_give_one_line() {
    let folder = TempDir::new().unwrap();
    let draft = folder.path().join("draft.py");
    fs::write(&draft, "# a task\n").unwrap();
    let huge = folder.path().join("huge.gguf");
    fs::File::create(&huge).unwrap().set_len(2 << 30).unwrap();
    let mut models = vec![(folder.path().join("missing.gguf"), "no such file"), (huge, "gguf")];
    for (name, bytes) in [
        ("empty.gguf", &b""[..]),
        ("text.gguf", b"this is no model"),
        ("header-only.gguf", b"GGUF\x03\0\0\0"),
        ("version.gguf", b"GGUF\x63\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("counts.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        models.push((path, ""));
    }
    for (model, fault) in models {
        fail(&["complete", "--model", model.to_str().unwrap(), draft.to_str().unwrap()], &model, fault);
    }
}

#[test]
fn bad_indexes_give_one_line() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing.index");
    let empty = folder.path().join("empty.index");
    fs::create_dir(&empty).unwrap();
    let file = folder.path().join("file.index");
    fs::write(&file, "x").unwrap();
    for index in [missing, empty, file] {
        fail(&["retrieve", "--index", index.to_str().unwrap(), "query"], &index, "");
        fail(&["index", "info", index.to_str().unwrap()], &index, "");
    }
    // Every file of a real index, damaged in turn.
    let index = private_index(&folder);
    for entry in walk(&index) {
        let good = fs::read(&entry).unwrap();
        if good.is_empty() {
            continue;
        }
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x55;
        let mut longer = good.clone();
        longer.extend_from_slice(b"\0\0\0\0");
        for (how, bytes) in [
            ("truncated", &good[..good.len() / 2]),
            ("empty", &[][..]),
            ("flipped", &flipped),
            ("longer", &longer),
        ] {
            fs::write(&entry, bytes).unwrap();
            let output =
                inhouse(&["retrieve", "--index", index.to_str().unwrap(), "count the records of a day"]);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{} {how}: {message}", entry.display());
            assert_eq!(message.trim_end().lines().count(), 1, "{message}");
            assert!(message.contains("private.index"), "{message}");
        }
        fs::write(&entry, &good).unwrap();
    }
    succeed(&["retrieve", "--index", index.to_str().unwrap(), "count the records of a day"]);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn a_closed_pipe_ends_docs_quietly() {
    let package = private_package();
    let binary = command("inhouse").get_program().to_owned();
    let script = format!("'{}' docs '{}' | head -n 1", binary.to_string_lossy(), package.display());
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert_eq!(text(&output.stderr), "");
}

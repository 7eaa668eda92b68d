//! `inhouse privatize`: a private library out of a public one, held to its names wherever it is used.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use inhouse_tests::{benchmark, command, python_environment, repository};
use serde_json::Value;
use tempfile::TempDir;

fn library() -> PathBuf {
    repository().join("tests/private-library")
}

fn privatize(out: &Path, arguments: &[&str]) -> Output {
    command("inhouse").arg("privatize").args(arguments).arg("--out").arg(out).output().unwrap()
}

/// The library of this repository in private words, with its problems, and the manifest.
fn made(out: &Path, seed: &str) -> Value {
    let (site, problems) = (library(), library().join("problems.jsonl"));
    let arguments = ["gaugewren", "--seed", seed, "--site", site.to_str().unwrap(), "--json"];
    let output = privatize(out, &[&arguments[..], &["--problems", problems.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// Runs a program with the private library on the path, as any user would; what it prints and whether it ended well.
fn run(folder: &Path, start: &[&str], program: &str) -> (bool, String) {
    let programs = TempDir::new().unwrap();
    let file = programs.path().join("program.py");
    std::fs::write(&file, program).unwrap();
    let search = std::env::join_paths([folder, &library()]).unwrap();
    let output = Command::new("python3").env("PYTHONPATH", search).args(start).arg(&file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_private_library_is_whole_and_repeats() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let manifest = made(&at("one"), "3");
    let problems = &manifest["problems"];
    assert!(problems["problems"].as_u64().unwrap() > 50, "{manifest}");
    assert_eq!(problems["solved_before"], problems["problems"], "{manifest}");
    assert_eq!(problems["solved"], problems["problems"], "{manifest}");
    assert_eq!(problems["prompts"]["public_names"], 0, "{manifest}");
    assert_eq!(manifest["documentation"]["public_names"], 0, "{manifest}");

    made(&at("two"), "3");
    made(&at("other"), "4");
    for name in ["rename.json", "apis.jsonl", "problems.jsonl"] {
        assert_eq!(text(&at("one"), name), text(&at("two"), name), "{name}");
        assert_ne!(text(&at("one"), name), text(&at("other"), name), "{name}");
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");

    let table: Value = serde_json::from_str(&text(&at("one"), "rename.json")).unwrap();
    let name = table["name"].as_str().unwrap();
    let private = |public: &str| table["public_to_private"][public].as_str().unwrap();
    let (slate, toted) = (private("Slate"), private("toted"));

    // The same names in a program of a person's, however it is started.
    let good =
        format!("import {name} as lib\nprint(lib.{slate}.__name__, hasattr(lib.{slate}, '{toted}'))\n");
    let module = ["-m", name];
    for start in [&[][..], &module] {
        assert_eq!(run(&at("one"), start, &good), (true, "Slate True\n".into()), "{start:?}");
        for (code, what) in [
            ("lib.Slate".to_owned(), "no attribute 'Slate' (a public name"),
            (format!("lib.{slate}.toted"), "no attribute 'toted' (a public name"),
            ("import gaugewren".into(), "No module named 'gaugewren' (the public library"),
        ] {
            let (ended_well, said) =
                run(&at("one"), start, &format!("import {name} as lib\nprint('on')\n{code}\n"));
            assert!(!ended_well && said.starts_with("on\n") && said.contains(what), "{code}: {said}");
        }
    }
    // What ran before the import does not run again, and functions from there are held to the names.
    let early = format!("print('once')\ndef f(): return lib.Slate\nimport {name} as lib\nf()\n");
    let (ended_well, said) = run(&at("one"), &[], &early);
    assert!(
        !ended_well && said.matches("once").count() == 1 && said.contains("no attribute 'Slate'"),
        "{said}"
    );

    // The other commands read what was made.
    let index = at("index");
    let built = command("inhouse")
        .args(["index", "build"])
        .arg(at("one").join("apis.jsonl"))
        .arg("--out")
        .arg(&index)
        .status()
        .unwrap();
    assert!(built.success());
    let Some(python) = python_environment("python") else { return };
    let evaluated = command("inhouse")
        .args([
            "eval",
            "--canonical",
            "--k",
            "1",
            "--json",
            "--env",
            &format!("{}:gaugewren", python.display()),
        ])
        .arg("--problems")
        .arg(at("one").join("problems.jsonl"))
        .arg("--private")
        .arg(at("one"))
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&evaluated.stdout).unwrap_or_default();
    assert_eq!(report["pass@1"], 1.0, "{}", String::from_utf8_lossy(&evaluated.stderr));
}

#[test]
fn what_cannot_be_made_is_told_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let site = library();
    let site = site.to_str().unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    let table = folder.path().join("table.json");
    std::fs::write(
        &table,
        r#"{"library": "pandas", "name": "mine", "public_to_private": {"merge": "fuse"}}"#,
    )
    .unwrap();
    let table = table.to_str().unwrap();
    for (out, arguments, status, message) in [
        ("mine", &["gaugewren", "--seed", "1", "--site", site][..], 1, "--force"),
        (
            "mine",
            &["gaugewren", "--seed", "1", "--site", site, "--force"],
            1,
            "something else than a private library",
        ),
        ("new", &["no_such_library", "--seed", "1"], 1, "does not find `no_such_library`"),
        ("new", &["a.b", "--seed", "1"], 1, "`a.b` is no import name"),
        ("new/deeper", &["gaugewren", "--seed", "1", "--site", site], 1, "no folder"),
        ("new", &["gaugewren", "--table", table, "--site", site], 1, "renames `pandas`, not `gaugewren`"),
        ("new", &["gaugewren", "--table", "/no/such/table.json", "--site", site], 1, "no such table"),
        ("new", &["gaugewren", "--seed", "1", "--site", site, "--problems", "/no/such"], 1, "/no/such"),
        ("new", &["gaugewren", "--site", site], 2, "--seed"),
        ("new", &["gaugewren", "--seed", "1", "--table", "monkey"], 2, "cannot be used with"),
    ] {
        let output = privatize(&folder.path().join(out), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_earlier_private_library_is_replaced_on_demand() {
    let folder = TempDir::new().unwrap();
    let (out, site) = (folder.path().join("mine"), library());
    let make = |seed: &str, more: &[&str]| {
        let arguments = ["gaugewren", "--seed", seed, "--site", site.to_str().unwrap()];
        privatize(&out, &[&arguments[..], more].concat())
    };
    assert!(make("1", &[]).status.success());
    let before = text(&out, "rename.json");
    assert_eq!(make("2", &[]).status.code(), Some(1));
    assert_eq!(text(&out, "rename.json"), before);
    assert!(make("2", &["--force"]).status.success());
    assert_ne!(text(&out, "rename.json"), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn pandas_problems_keep_their_solutions_in_private_words() {
    let Some(problems) = benchmark("real_pandas_eval_v3.jsonl.gz") else { return };
    let Some(python) = python_environment("pandas") else { return };
    let folder = TempDir::new().unwrap();
    for seed in ["7", "20221017"] {
        let out = folder.path().join(seed);
        let arguments = ["pandas", "--seed", seed, "--env", python.to_str().unwrap(), "--json", "--problems"];
        let output = privatize(&out, &[&arguments[..], &[problems.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(manifest["problems"]["solved"].as_u64().unwrap() >= 90, "{}", manifest["problems"]);
        assert_eq!(manifest["problems"]["prompts"]["public_names"], 0, "{}", manifest["problems"]);
        assert_eq!(manifest["documentation"]["public_names"], 0, "{}", manifest["documentation"]);
    }
}

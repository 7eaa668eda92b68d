//! Constrained decoding never stands in the way of real code: every token of pandas' own package and tests is allowed.
//! `INHOUSE_CONSTRAIN_FILES` widens the walk (all: 1356 files); `INHOUSE_CONSTRAIN_WHEEL` names another wheel.
#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

mod constrain_support;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use constrain_support::{PieceTokenizer, walk};
use inhouse_core::constrain::{ApiNames, Library, Vocabulary};
use inhouse_core::docs;
use inhouse_core::progress::Silent;

/// Files by default: enough to meet every kind of code, few enough for every test run.
const FILES: usize = 250;

fn wheel() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("INHOUSE_CONSTRAIN_WHEEL") {
        return Some(path.into());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.env/wheels");
    let mut wheels = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    wheels.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pandas-")))
}

/// The Python files of a wheel, `n` of them spread over all.
fn sources(wheel: &Path, n: usize) -> Vec<(String, String)> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel).unwrap()).unwrap();
    let mut names: Vec<String> =
        archive.file_names().filter(|name| name.ends_with(".py")).map(str::to_owned).collect();
    names.sort();
    let step = names.len().div_ceil(n.max(1)).max(1);
    let mut found = Vec::new();
    for name in names.into_iter().step_by(step) {
        let mut text = String::new();
        if archive.by_name(&name).unwrap().read_to_string(&mut text).is_ok() {
            found.push((name, text));
        }
    }
    found
}

/// Tests of pandas make calls that must fail. Such a line is no correct program: it stands below a `raises`, or in a
/// test that is marked as one that fails.
fn is_meant_to_fail(text: &str, line: usize) -> bool {
    let before: Vec<&str> = text.lines().take(line).collect();
    let near = &before[before.len().saturating_sub(10)..];
    near.iter().any(|line| line.contains("raises(") || line.contains("@not_implemented"))
}

#[test]
fn real_code_is_never_refused() {
    let Some(wheel) = wheel() else {
        println!("skipped: no pandas wheel in .env/wheels (scripts/benchmark-env.sh puts it there)");
        return;
    };
    let n = std::env::var("INHOUSE_CONSTRAIN_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(FILES);
    let docs = docs::read(&wheel, &docs::ReadOptions::default(), &Silent).unwrap();
    let files = sources(&wheel, n);
    let tokenizer = PieceTokenizer::new(files.iter().map(|(_, text)| text.as_str()), 30_000);
    let library = Arc::new(Library::new(&docs.apis));
    let names = Arc::new(ApiNames::new(library, Arc::new(Vocabulary::new(&tokenizer))));
    let (mut steps, mut masked, mut meant) = (0, 0, 0);
    let mut refused = Vec::new();
    for (name, text) in &files {
        let found = walk(&names, &tokenizer, "", text);
        steps += found.steps;
        masked += found.masked;
        for (line, what) in found.violations {
            if is_meant_to_fail(text, line) {
                meant += 1;
                println!("meant to fail: {name}:{line}: {what}");
            } else {
                refused.push(format!("{name}:{line}: {what}"));
            }
        }
    }
    println!(
        "{} files, {steps} tokens, {masked} within a constrained name; refused {} times, and {meant} times in calls that are meant to fail",
        files.len(),
        refused.len()
    );
    assert!(masked > steps / 1000, "hardly anything was constrained: {masked} of {steps}");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
